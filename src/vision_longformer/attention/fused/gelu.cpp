// What follows the first product of an MLP: its bias and GELU, in place, in one pass.

#include <ATen/Parallel.h>

#include <algorithm>

#include "vectors.h"

namespace {

constexpr float kFar = 5.5f;  // beyond it, the normal distribution is 0 or 1 up to 2e-8

// x Φ(x), Φ the normal distribution. Φ - 1/2 is an odd function: x times a quotient of two polynomials of degree 5 in x²,
// which is off by at most 7e-9. They were fitted by least squares, weighted until the largest errors were alike.
inline Vector gelu(Vector x) {
  const Vector bounded = larger(splat(-kFar), x);
  const Vector y = bounded > kFar ? splat(kFar) : bounded, z = y * y;
  Vector above = z * 2.275080042e-8f + 6.351881336e-6f;
  above = above * z + 1.688010926e-4f;
  above = above * z + 4.677110550e-3f;
  above = above * z + 3.385030533e-2f;
  above = above * z + 3.989422348e-1f;
  Vector below = z * 1.197528473e-6f + 7.363926813e-5f;
  below = below * z + 1.884306047e-3f;
  below = below * z + 2.864451428e-2f;
  below = below * z + 2.515160530e-1f;
  below = below * z + 1.0f;
  return bounded * (0.5f + y * above / below);
}

}  // namespace

// x = gelu(x + bias) for (tokens, width) numbers side by side.
extern "C" void vision_longformer_add_bias_gelu(float* x, const float* bias, int64_t tokens, int64_t width) {
  constexpr int64_t kGrain = 1 << 14;  // numbers that are worth a thread
  at::parallel_for(0, tokens, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (float* row = x + begin * width; row < x + end * width; row += width) {
      int64_t i = 0;
      for (; i + kLanes <= width; i += kLanes) store(row + i, gelu(load(row + i) + load(bias + i)));
      if (i == width) continue;
      Vector rest = {};
      for (int64_t k = i; k < width; ++k) rest[k - i] = row[k] + bias[k];
      rest = gelu(rest);
      for (int64_t k = i; k < width; ++k) row[k] = rest[k - i];
    }
  });
}
