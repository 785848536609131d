// Vectors of floats as the processor has them, and the three things that attention does with them: products,
// exponentials, and moving numbers in and out. Written with the vector extensions of GCC and Clang.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
constexpr int kLanes = 16;   // floats in a register
constexpr int kColumns = 4;  // registers of results beside each other in one block of a product
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr int kColumns = 2;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kColumns = 4;
#else
constexpr int kLanes = 4;
constexpr int kColumns = 2;
#endif
// Rows of results in one block. Six times two are as many sums as sixteen registers hold beside their operands, and
// enough to keep two multiply-add units busy while each sum waits for its last addition.
constexpr int kRows = 6;

using Vector = float __attribute__((vector_size(4 * kLanes)));
using Integers = int32_t __attribute__((vector_size(4 * kLanes)));

constexpr int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

inline Vector load(const float* from) {
  Vector x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, Vector x) { std::memcpy(to, &x, sizeof x); }

inline Vector splat(float x) { return x - Vector{}; }

// Of two of which the second is NaN, return the second: NaN must reach the result.
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline float largest(Vector x) {
  float result = x[0];
  for (int i = 1; i < kLanes; ++i) result = result > x[i] ? result : x[i];
  return result;
}

inline float sum(Vector x) {
  float result = 0;
  for (int i = 0; i < kLanes; ++i) result += x[i];
  return result;
}

// Return 2^x for x <= 0, with a relative error of 1e-7. What is smaller than 2^-126 becomes that: it weighs nothing.
inline Vector exp2(Vector x) {
  constexpr float kRound = 3 << 22;  // adding this leaves x, rounded, in the lowest bits
  x = larger(splat(-126.0f), x);
  const Vector shifted = x + kRound;
  const Vector f = x - (shifted - kRound);  // in [-1/2, 1/2]
  // The polynomial of degree 5 with the smallest relative error there, 7.5e-8.
  Vector power = f * 1.327647678e-3f + 9.675541333e-3f;
  power = power * f + 5.550713274e-2f;
  power = power * f + 2.402211972e-1f;
  power = power * f + 6.931469671e-1f;
  power = power * f + 1.000000072f;
  return (Vector)((Integers)power + ((Integers)shifted << 23));  // the rounded x goes into the exponent
}

// Add a product to `sums`: sums[r][c] += Σ_k a[r * a_row + k * a_step] · (vector at b(k, c)). All sums must stay in
// registers: whoever calls this is compiled by itself, with nothing else to keep there.
template <int Rows, int Columns, typename Place>
inline void add_product(Vector (&sums)[Rows][Columns], const float* a, int64_t a_row, int64_t a_step, Place b,
                        int64_t depth) {
  for (int64_t k = 0; k < depth; ++k) {
    Vector right[Columns];
    for (int c = 0; c < Columns; ++c) right[c] = load(b(k, c));
    for (int r = 0; r < Rows; ++r) {
      const Vector left = splat(a[r * a_row + k * a_step]);
      for (int c = 0; c < Columns; ++c) sums[r][c] += left * right[c];
    }
  }
}

// Call `work` with a constant of as many rows as `size` says, at most Rows.
template <int Rows, typename Work>
inline void with_rows(int64_t size, Work work) {
  if constexpr (Rows > 1) {
    if (size < Rows) return with_rows<Rows - 1>(size, work);
  }
  work(std::integral_constant<int, Rows>());
}

// A float of which the lower half is left out.
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }

inline float to_float(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

inline void from_float(float x, float& to) { to = x; }

inline void from_float(float x, BFloat16& to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool is_nan = x != x;
  // To the nearest; halfway, to the even one. A NaN could round to infinity.
  to.bits = is_nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <typename T>
void read(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

template <typename T>
void write(const float* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; ++i) from_float(from[i], to[i]);
}
