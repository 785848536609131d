// The keys that a chunk sees, packed as products read them, and the scores of its queries.
//
// The keys of a chunk are strips, one chunk wide and up to three high, and the global keys. A strip is packed once, and
// serves the three chunks that see it on their way along a row of chunks. Keys are packed transposed, a vector of keys
// for each channel; values as they are. Scores are multiplied by log2(e), as the softmax takes powers of 2.
#pragma once

#include "layout.h"

// Where some keys stand in the maps of keys.
struct Place {
  int64_t image, head, row, rows, column, columns;
};

// Some keys and values, packed.
struct Strip {
  int64_t chunk_column = -2;
  Place place = {};
  int64_t keys = 0, vectors = 0;
  bool has_padding = false;
  Floats key;     // (vectors, head_width, kLanes), multiplied by the scale; zeros after the last key
  Floats value;   // (keys, head_width rounded up)
  Floats unseen;  // (vectors, kLanes), minus infinity at padding, else 0

  void reserve(int64_t most_keys, int64_t head_width) {
    key = allocate(round_up(most_keys) * head_width);
    value = allocate(round_up(most_keys) * round_up(head_width));
    unseen = allocate(round_up(most_keys));
  }

  // Forget what is packed, and make room for other keys.
  void clear(int64_t count, int64_t head_width) {
    keys = count;
    vectors = round_up(count) / kLanes;
    has_padding = false;
    std::fill_n(unseen.get(), vectors * kLanes, 0.0f);
    if (count % kLanes) std::fill_n(key.get() + (vectors - 1) * head_width * kLanes, head_width * kLanes, 0.0f);
  }

  template <typename T>
  void pack(int64_t index, const T* from_key, const T* from_value, int64_t head_width, float scale) {
    float* to_key = key.get() + index / kLanes * head_width * kLanes + index % kLanes;
    float* to_value = value.get() + index * round_up(head_width);
    for (int64_t i = 0; i < head_width; ++i) to_key[i * kLanes] = to_float(from_key[i]) * scale;
    read(from_value, head_width, to_value);
    std::fill_n(to_value + head_width, round_up(head_width) - head_width, 0.0f);
  }

  // Pack a key that nobody may see. Its value counts nothing, so it must be a number.
  void pack_padding(int64_t index, int64_t head_width) {
    float* to_key = key.get() + index / kLanes * head_width * kLanes + index % kLanes;
    for (int64_t i = 0; i < head_width; ++i) to_key[i * kLanes] = 0.0f;
    std::fill_n(value.get() + index * round_up(head_width), round_up(head_width), 0.0f);
    unseen[index] = kUnseen;
    has_padding = true;
  }
};

// A strip as a chunk sees it: where its keys stand, relative to the chunk's first query. Global keys stand nowhere.
template <typename AnyStrip>
struct Seen {
  AnyStrip* strip;
  Range rows, columns;
};

// One vector of keys as the queries of a chunk see it.
struct KeyVector {
  const float* key;
  const float* bias;
  int64_t bias_stride;  // from query to query of a whole chunk; 0 if they share it
  const float* unseen;
};

// Turn scores into weights, as yet not divided by their sum. Return one over the sum.
inline float weigh(float* scores, int64_t count, float most) {
  Vector total = {};
  if (most == kUnseen) {  // a query without any key, or one of which all keys are NaN
    for (int64_t i = 0; i < count; i += kLanes) total += load(scores + i);
    std::fill_n(scores, count, 0.0f);
    const float all = sum(total);
    return all == kUnseen ? 0.0f : all;
  }
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vector weight = exp2(load(scores + i) - most);
    total += weight;
    store(scores + i, weight);
  }
  return 1.0f / sum(total);
}

// What one chunk after another sees, along a row of chunks of one head of one image.
template <typename T, typename AnyStrip>
class Neighbourhood {
 public:
  Neighbourhood(const Arguments& arguments, const Axis& rows, const Axis& columns, const Biases& biases)
      : arguments_(arguments), rows_(rows), columns_(columns), biases_(biases), width_(arguments.head_width),
        scale_(kLog2E / std::sqrt(static_cast<float>(width_))) {
    const int64_t window = arguments.window;
    for (AnyStrip& strip : strips_) strip.reserve(3 * window * window, width_);
    global_.reserve(arguments.num_global, width_);
    global_bias_ = allocate(round_up(arguments.num_global));
  }

  // The most scores that a query can have.
  int64_t most_keys() const {
    return round_up(arguments_.num_global) + 3 * round_up(3 * arguments_.window * arguments_.window);
  }

  void start_row(int64_t image, int64_t head) {
    for (AnyStrip& strip : strips_) strip.chunk_column = -2;
    const int64_t* strides = arguments_.global_key_value_strides;
    const T* from = static_cast<const T*>(arguments_.global_key_value) + image * strides[0] + head * strides[3];
    global_.clear(arguments_.num_global, width_);
    for (int64_t i = 0; i < arguments_.num_global; ++i, from += strides[1])
      global_.pack(i, from, from + strides[2], width_, scale_);
    std::fill_n(global_bias_.get(), global_.vectors * kLanes, kUnseen);
    const float* bias = arguments_.global_bias;
    for (int64_t i = 0; i < arguments_.num_global; ++i)
      global_bias_[i] = bias == nullptr ? 0.0f : bias[head * arguments_.num_global + i] * kLog2E;
  }

  // Find all keys of a chunk: `seen` for what is done key by key, and the vectors of `score`. The first are global.
  void find(int64_t image, int64_t head, int64_t chunk_row, int64_t chunk_column) {
    seen_.clear();
    vectors_.clear();
    has_padding_ = false;
    add(global_, {}, {}, global_bias_.get(), 0);
    for (int side = 0; side < 3; ++side) {
      const int64_t row_kind = rows_.kind_of[3 * chunk_row + side];
      const int64_t column_kind = columns_.kind_of[3 * chunk_column + side];
      const Range rows = rows_.kinds[row_kind], columns = columns_.kinds[column_kind];
      if (rows.size() == 0 || columns.size() == 0) continue;
      const int64_t window = arguments_.window;
      const int64_t row = arguments_.top + chunk_row * window + rows.begin;
      const int64_t column = arguments_.left + chunk_column * window + columns.begin;
      AnyStrip& strip = pack(image, head, chunk_column + side - 1, row, column, rows.size(), columns.size());
      add(strip, rows, columns, biases_.panel(head, row_kind, column_kind), strip.vectors * kLanes);
    }
  }

  const std::vector<Seen<AnyStrip>>& seen() const { return seen_; }
  AnyStrip& global() { return global_; }
  AnyStrip (&strips())[3] { return strips_; }
  int64_t num_vectors() const { return static_cast<int64_t>(vectors_.size()); }

  // Write the scores of some queries for all keys, and the largest of each query.
  template <int Rows>
  void score(const float* queries, int64_t query_stride, const int64_t* places, float* scores, float (&largest_of)[Rows]) {
    const int64_t count = num_vectors();
    Vector most[Rows];
    for (Vector& x : most) x = splat(kUnseen);
    int64_t n = 0;
    for (; n + kColumns <= count; n += kColumns) score_some<Rows, kColumns>(queries, query_stride, places, n, scores, most);
    for (; n < count; ++n) score_some<Rows, 1>(queries, query_stride, places, n, scores, most);
    for (int r = 0; r < Rows; ++r) largest_of[r] = largest(most[r]);
  }

 private:
  // Pack the keys in some rows of a chunk column, unless they still are. `row` and `column` count in the map of keys.
  AnyStrip& pack(int64_t image, int64_t head, int64_t chunk_column, int64_t row, int64_t column, int64_t rows,
                 int64_t columns) {
    AnyStrip& strip = strips_[(chunk_column + 3) % 3];
    if (strip.chunk_column == chunk_column && strip.place.row == row && strip.place.rows == rows) return strip;
    strip.clear(rows * columns, width_);
    strip.chunk_column = chunk_column;
    strip.place = {image, head, row, rows, column, columns};
    const int64_t* strides = arguments_.key_value_strides;
    const T* origin = static_cast<const T*>(arguments_.key_value) + image * strides[0] + head * strides[4];
    int64_t index = 0;
    for (int64_t y = row; y < row + rows; ++y) {
      const T* from = origin + y * strides[1] + column * strides[2];
      const int64_t place = (image * arguments_.key_height + y) * arguments_.key_width + column;
      for (int64_t x = 0; x < columns; ++x, ++index, from += strides[2]) {
        if (arguments_.valid == nullptr || arguments_.valid[place + x])
          strip.pack(index, from, from + strides[3], width_, scale_);
        else
          strip.pack_padding(index, width_);
      }
    }
    return strip;
  }

  void add(AnyStrip& strip, Range rows, Range columns, const float* bias, int64_t bias_stride) {
    seen_.push_back({&strip, rows, columns});
    has_padding_ |= strip.has_padding;
    for (int64_t i = 0; i < strip.vectors; ++i)
      vectors_.push_back({strip.key.get() + i * width_ * kLanes, bias + i * kLanes, bias_stride,
                          strip.unseen.get() + i * kLanes});
  }

  // Do what `score` does for key vectors n to n + Columns, and keep the largest of each lane.
  template <int Rows, int Columns>
  [[gnu::noinline]] void score_some(const float* queries, int64_t query_stride, const int64_t* places, int64_t n,
                                    float* scores, Vector (&most)[Rows]) {
    const float* keys[Columns];
    Vector sums[Rows][Columns];
    for (int c = 0; c < Columns; ++c) {
      const KeyVector& vector = vectors_[n + c];
      keys[c] = vector.key;
      for (int r = 0; r < Rows; ++r) sums[r][c] = load(vector.bias + places[r] * vector.bias_stride);
      if (has_padding_)
        for (int r = 0; r < Rows; ++r) sums[r][c] += load(vector.unseen);
    }
    add_product(sums, queries, query_stride, 1, [&](int64_t k, int c) { return keys[c] + k * kLanes; }, width_);
    const int64_t stride = num_vectors() * kLanes;
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c) {
        most[r] = larger(most[r], sums[r][c]);
        store(scores + r * stride + (n + c) * kLanes, sums[r][c]);
      }
  }

  const Arguments& arguments_;
  const Axis& rows_;
  const Axis& columns_;
  const Biases& biases_;
  const int64_t width_;
  const float scale_;

  AnyStrip strips_[3], global_;
  Floats global_bias_;
  std::vector<Seen<AnyStrip>> seen_;
  std::vector<KeyVector> vectors_;
  bool has_padding_ = false;
};
