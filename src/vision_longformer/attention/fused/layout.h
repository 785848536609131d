// What the kernel is given, which keys each chunk sees, and the biases laid out as the kernel reads them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "threads.h"
#include "vectors.h"

// The same fields in the same order as `_Arguments` in operator.py. Strides count elements; channels lie side by side.
struct Arguments {
  int64_t batch, height, width, heads, head_width, num_global, window;
  int64_t key_height, key_width;  // of the map of keys, in which queries start at (top, left)
  int64_t top, left;
  int64_t num_table_heads;                    // heads of the table, or 1 if all share it
  int64_t first_rows[3], last_rows[3];        // chunks seen to the left, above and below, and to the right; none if last < first
  int64_t query_strides[4];                   // image, row, column, head
  int64_t key_value_strides[5];               // image, row, column, key or value, head
  int64_t global_key_value_strides[4];        // image, token, key or value, head
  int64_t is_bfloat16, num_threads;
  const void* query;
  const void* key_value;
  const void* global_key_value;
  const float* table;        // ((4w - 1)², table heads): biases, minus infinity where a relative position is not seen
  const float* global_bias;  // (heads, num_global), or null
  const bool* valid;         // (batch, key_height, key_width), or null where all keys are real
  void* out;                 // (batch, height, width, heads, head_width)
};

constexpr float kLog2E = 1.4426950408889634f;  // scores are multiples of it, as powers of 2 are cheaper than of e
constexpr float kUnseen = -std::numeric_limits<float>::infinity();

struct FreeMemory {
  void operator()(float* memory) const { std::free(memory); }
};
using Floats = std::unique_ptr<float[], FreeMemory>;

inline Floats allocate(int64_t count) {
  constexpr size_t kAlignment = 64;  // a cache line
  const size_t bytes = (std::max<int64_t>(count, 1) * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
  float* memory = static_cast<float*>(std::aligned_alloc(kAlignment, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return Floats(memory);
}

// Positions along one axis, relative to the first query of a chunk.
struct Range {
  int64_t begin, end;
  int64_t size() const { return std::max<int64_t>(end - begin, 0); }
  bool operator==(const Range& other) const { return begin == other.begin && end == other.end; }
};

// The ranges that occur along one axis, each once, and which of them each chunk sees at each of its three sides.
struct Axis {
  int64_t length, window, chunks;
  std::vector<Range> kinds;
  std::vector<int64_t> kind_of;  // [3 * chunk + side]

  // Keys stand from -margin to key_length - margin; each side covers the chunks from first to last.
  Axis(int64_t length, int64_t window, int64_t key_length, int64_t margin, const int64_t* first, const int64_t* last)
      : length(length), window(window), chunks((length + window - 1) / window) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t start = chunk * window;
      for (int side = 0; side < 3; ++side) {
        const Range seen = {std::max(first[side] * window, -margin - start),
                            std::min((last[side] + 1) * window, key_length - margin - start)};
        auto kind = std::find(kinds.begin(), kinds.end(), seen);
        if (kind == kinds.end()) kind = kinds.insert(kind, seen);
        kind_of.push_back(kind - kinds.begin());
      }
    }
  }

  int64_t queries(int64_t chunk) const { return std::min(window, length - chunk * window); }
};

// Biases of a strip of keys for every query of a chunk, for each head and each kind of strip: rows of one query, keys
// in the order of the strip, minus infinity after the last. Built once a call, then read as often as there are chunks.
class Biases {
 public:
  Biases(const Arguments& arguments, const Axis& rows, const Axis& columns)
      : window_(arguments.window), heads_(arguments.num_table_heads), columns_(columns.kinds.size()) {
    for (const Range& row : rows.kinds) {
      for (const Range& column : columns.kinds) {
        shapes_.push_back({row, column});
        starts_.push_back(size_);
        size_ += window_ * window_ * round_up(row.size() * column.size());
      }
    }
    reverse_table(arguments.table);
    values_ = allocate(heads_ * size_);
  }

  int64_t num_panels() const { return heads_ * static_cast<int64_t>(shapes_.size()); }

  // Fill in panel `index` of `num_panels`.
  void build(int64_t index) {
    const int64_t kinds = static_cast<int64_t>(shapes_.size()), head = index / kinds, kind = index % kinds;
    const auto [rows, columns] = shapes_[kind];
    const int64_t side = 4 * window_ - 1, keys = rows.size() * columns.size();
    float* to = values_.get() + head * size_ + starts_[kind];
    if (keys == 0) return;
    for (int64_t row = 0; row < window_; ++row) {
      for (int64_t column = 0; column < window_; ++column) {
        for (int64_t key_row = rows.begin; key_row < rows.end; ++key_row) {
          const int64_t difference = row - key_row + 2 * window_ - 1;
          const float* from =
              reversed_.data() + (head * side + difference) * side + (2 * window_ - 1 - column + columns.begin);
          to = std::copy_n(from, columns.size(), to);
        }
        to = std::fill_n(to, round_up(keys) - keys, kUnseen);
      }
    }
  }

  // Return the panel of a head for strips of the given kinds of rows and columns.
  const float* panel(int64_t head, int64_t row_kind, int64_t column_kind) const {
    return values_.get() + (heads_ == 1 ? 0 : head) * size_ + starts_[row_kind * columns_ + column_kind];
  }

 private:
  struct Shape {
    Range rows, columns;
  };

  // Lay the table out for each head by itself, with columns in the order of keys: neighbouring keys, neighbouring biases.
  void reverse_table(const float* table) {
    const int64_t side = 4 * window_ - 1;
    reversed_.resize(heads_ * side * side);
    for (int64_t head = 0; head < heads_; ++head)
      for (int64_t row = 0; row < side; ++row)
        for (int64_t column = 0; column < side; ++column)
          reversed_[(head * side + row) * side + column] = table[(row * side + side - 1 - column) * heads_ + head] * kLog2E;
  }

  int64_t window_, heads_, columns_, size_ = 0;
  std::vector<Shape> shapes_;
  std::vector<int64_t> starts_;
  std::vector<float> reversed_;
  Floats values_;
};

// All of it for one call.
struct Layout {
  static constexpr int64_t kSides[3] = {-1, 0, 1};
  Axis rows, columns;
  Biases biases;

  explicit Layout(const Arguments& arguments)
      : rows(arguments.height, arguments.window, arguments.key_height, arguments.top, arguments.first_rows,
             arguments.last_rows),
        columns(arguments.width, arguments.window, arguments.key_width, arguments.left, kSides, kSides),
        biases(arguments, rows, columns) {
    const int64_t panels = biases.num_panels();
    std::atomic<int64_t> next{0};
    in_parallel(std::min(arguments.num_threads, panels), [&] {
      for (int64_t panel = next++; panel < panels; panel = next++) biases.build(panel);
    });
  }
};
