// Windowed attention of map queries, fused: scores, softmax and weighted sums of a few queries at a time, while what
// they need is in the cache. Equals dense.py in the parent folder.
//
// One unit of work is a row of chunks, of one head of one image. The keys of a chunk are strips, one chunk wide and up
// to three high, and the global keys. A strip is packed once, and serves the three chunks that see it on their way along
// the row. Keys are packed transposed, a vector of keys for each channel; values as they are. Scores are multiplied
// by log2(e), as the softmax takes powers of 2.

#include <ATen/Parallel.h>

#include <atomic>
#include <new>

#include "layout.h"

namespace {

// Some keys and values, packed.
struct Strip {
  int64_t column = -2, first_row = 0;  // which chunk column of the map it is, and where its first row is
  int64_t rows = 0, keys = 0, vectors = 0;
  bool has_padding = false;
  Floats key;      // (vectors, head_width, kLanes), multiplied by the scale; zeros after the last key
  Floats value;    // (keys, head_width rounded up)
  Floats unseen;   // (vectors, kLanes), minus infinity at padding, else 0

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

// One vector of keys as the queries of a chunk see it.
struct KeyVector {
  const float* key;
  const float* bias;
  int64_t bias_stride;  // from query to query of a whole chunk; 0 if they share it
  const float* unseen;
};

template <typename T>
class Worker {
 public:
  Worker(const Arguments& arguments, const Axis& rows, const Axis& columns, const Biases& biases)
      : arguments_(arguments), rows_(rows), columns_(columns), biases_(biases), width_(arguments.head_width),
        padded_width_(round_up(width_)), scale_(kLog2E / std::sqrt(static_cast<float>(width_))) {
    const int64_t window = arguments.window;
    for (Strip& strip : strips_) strip.reserve(3 * window * window, width_);
    global_.reserve(arguments.num_global, width_);
    global_bias_ = allocate(round_up(arguments.num_global));
    const int64_t most_keys = round_up(arguments.num_global) + 3 * round_up(3 * window * window);
    queries_ = allocate(window * window * width_);
    scores_ = allocate(kRows * most_keys);
    results_ = allocate(kRows * padded_width_);
  }

  void attend_row(int64_t image, int64_t head, int64_t chunk_row) {
    for (Strip& strip : strips_) strip.column = -2;
    pack_global(image, head);
    for (int64_t chunk_column = 0; chunk_column < columns_.chunks; ++chunk_column) {
      find_keys(image, head, chunk_row, chunk_column);
      attend_chunk(image, head, chunk_row, chunk_column);
    }
  }

 private:
  void pack_global(int64_t image, int64_t head) {
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

  // Pack the keys in some rows of a chunk column, unless they still are. `row` and `column` count in the map of keys.
  const Strip& pack_strip(int64_t image, int64_t head, int64_t chunk_column, int64_t row, int64_t column, int64_t rows,
                          int64_t columns) {
    Strip& strip = strips_[(chunk_column + 3) % 3];
    if (strip.column == chunk_column && strip.first_row == row && strip.rows == rows) return strip;
    strip.column = chunk_column;
    strip.first_row = row;
    strip.rows = rows;
    strip.clear(rows * columns, width_);
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

  // Find all keys of a chunk: `seen_` for the values, `vectors_` for the scores.
  void find_keys(int64_t image, int64_t head, int64_t chunk_row, int64_t chunk_column) {
    seen_.clear();
    vectors_.clear();
    has_padding_ = false;
    add_keys(global_, global_bias_.get(), 0);
    for (int side = 0; side < 3; ++side) {
      const int64_t row_kind = rows_.kind_of[3 * chunk_row + side];
      const int64_t column_kind = columns_.kind_of[3 * chunk_column + side];
      const Range rows = rows_.kinds[row_kind], columns = columns_.kinds[column_kind];
      if (rows.size() == 0 || columns.size() == 0) continue;
      const int64_t window = arguments_.window;
      const int64_t row = arguments_.top + chunk_row * window + rows.begin;
      const int64_t column = arguments_.left + chunk_column * window + columns.begin;
      const Strip& strip = pack_strip(image, head, chunk_column + side - 1, row, column, rows.size(), columns.size());
      add_keys(strip, biases_.panel(head, row_kind, column_kind), strip.vectors * kLanes);
    }
  }

  void add_keys(const Strip& strip, const float* bias, int64_t bias_stride) {
    seen_.push_back(&strip);
    has_padding_ |= strip.has_padding;
    for (int64_t i = 0; i < strip.vectors; ++i)
      vectors_.push_back({strip.key.get() + i * width_ * kLanes, bias + i * kLanes, bias_stride,
                          strip.unseen.get() + i * kLanes});
  }

  void attend_chunk(int64_t image, int64_t head, int64_t chunk_row, int64_t chunk_column) {
    const int64_t rows = rows_.queries(chunk_row), columns = columns_.queries(chunk_column);
    const int64_t window = arguments_.window, count = rows * columns;
    const int64_t* strides = arguments_.query_strides;
    const T* from = static_cast<const T*>(arguments_.query) + image * strides[0] + chunk_row * window * strides[1] +
                    chunk_column * window * strides[2] + head * strides[3];
    for (int64_t i = 0; i < count; ++i)
      read(from + i / columns * strides[1] + i % columns * strides[2], width_, queries_.get() + i * width_);

    const int64_t tiles = (count + kRows - 1) / kRows;  // of as equal sizes as possible: small ones are slow
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * count / tiles, size = (tile + 1) * count / tiles - first;
      for (int64_t i = 0; i < size; ++i)
        place_in_chunk_[i] = (first + i) / columns * window + (first + i) % columns;
      attend_some<kRows>(size, queries_.get() + first * width_);
      for (int64_t i = 0; i < size; ++i) {
        const int64_t y = chunk_row * window + (first + i) / columns;
        const int64_t x = chunk_column * window + (first + i) % columns;
        const int64_t token = (image * arguments_.height + y) * arguments_.width + x;
        write(results_.get() + i * padded_width_, width_,
              static_cast<T*>(arguments_.out) + (token * arguments_.heads + head) * width_);
      }
    }
  }

  // Call `attend` for as many queries as `size` says.
  template <int Rows>
  void attend_some(int64_t size, const float* queries) {
    if constexpr (Rows > 1) {
      if (size < Rows) return attend_some<Rows - 1>(size, queries);
    }
    attend<Rows>(queries);
  }

  template <int Rows>
  void attend(const float* queries) {
    const int64_t count = static_cast<int64_t>(vectors_.size());
    stride_ = count * kLanes;
    Vector most[Rows];
    for (Vector& x : most) x = splat(kUnseen);
    int64_t n = 0;
    for (; n + kColumns <= count; n += kColumns) score<Rows, kColumns>(queries, n, most);
    for (; n < count; ++n) score<Rows, 1>(queries, n, most);

    float factors[Rows];
    for (int r = 0; r < Rows; ++r) factors[r] = weigh(scores_.get() + r * stride_, largest(most[r]));

    int64_t channel = 0;
    for (; channel + kColumns * kLanes <= padded_width_; channel += kColumns * kLanes)
      add_values<Rows, kColumns>(channel, factors);
    for (; channel < padded_width_; channel += kLanes) add_values<Rows, 1>(channel, factors);
  }

  // Write the scores of some queries for key vectors n to n + Columns, and keep the largest of each lane.
  template <int Rows, int Columns>
  [[gnu::noinline]] void score(const float* queries, int64_t n, Vector (&most)[Rows]) {
    const float* keys[Columns];
    Vector sums[Rows][Columns];
    for (int c = 0; c < Columns; ++c) {
      const KeyVector& vector = vectors_[n + c];
      keys[c] = vector.key;
      for (int r = 0; r < Rows; ++r) sums[r][c] = load(vector.bias + place_in_chunk_[r] * vector.bias_stride);
      if (has_padding_)
        for (int r = 0; r < Rows; ++r) sums[r][c] += load(vector.unseen);
    }
    add_product(sums, queries, width_, [&](int64_t k, int c) { return keys[c] + k * kLanes; }, width_);
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c) {
        most[r] = larger(most[r], sums[r][c]);
        store(scores_.get() + r * stride_ + (n + c) * kLanes, sums[r][c]);
      }
  }

  // Turn scores into weights, as yet not divided by their sum. Return one over the sum.
  float weigh(float* scores, float most) const {
    if (most == kUnseen) {  // a query without any key
      std::fill_n(scores, stride_, 0.0f);
      return 0.0f;
    }
    Vector total = {};
    for (int64_t i = 0; i < stride_; i += kLanes) {
      const Vector weight = exp2(load(scores + i) - most);
      total += weight;
      store(scores + i, weight);
    }
    return 1.0f / sum(total);
  }

  // Write `results_` of some queries for the channels from `channel` on.
  template <int Rows, int Columns>
  [[gnu::noinline]] void add_values(int64_t channel, const float (&factors)[Rows]) {
    Vector sums[Rows][Columns] = {};
    const float* weights = scores_.get();
    for (const Strip* strip : seen_) {
      const float* values = strip->value.get() + channel;
      const int64_t stride = padded_width_;
      add_product(sums, weights, stride_, [=](int64_t k, int c) { return values + k * stride + c * kLanes; }, strip->keys);
      weights += strip->vectors * kLanes;
    }
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c)
        store(results_.get() + r * padded_width_ + channel + c * kLanes, sums[r][c] * factors[r]);
  }

  const Arguments& arguments_;
  const Axis& rows_;
  const Axis& columns_;
  const Biases& biases_;
  const int64_t width_, padded_width_;
  const float scale_;

  Strip strips_[3], global_;
  Floats global_bias_;
  std::vector<const Strip*> seen_;
  std::vector<KeyVector> vectors_;
  bool has_padding_ = false;
  Floats queries_;  // of a chunk (queries, head_width)
  Floats scores_;   // of a tile (kRows, stride_), then the weights
  Floats results_;  // of a tile (kRows, padded_width_)
  int64_t stride_ = 0;
  int64_t place_in_chunk_[kRows] = {};  // of the queries of a tile, counted as in a whole chunk
};

template <typename T>
void attend_map(const Arguments& arguments) {
  const int64_t window = arguments.window;
  constexpr int64_t kSides[3] = {-1, 0, 1};
  const Axis rows(arguments.height, window, arguments.key_height, arguments.top, arguments.first_rows, arguments.last_rows);
  const Axis columns(arguments.width, window, arguments.key_width, arguments.left, kSides, kSides);
  Biases biases(arguments, rows, columns);
  at::parallel_for(0, biases.num_panels(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) biases.build(i);
  });

  // Each thread takes the next row of chunks: rows at the edge have less to do, and other programs may slow a thread.
  const int64_t units = arguments.batch * arguments.heads * rows.chunks;
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), units), 1, [&](int64_t, int64_t) {
    Worker<T> worker(arguments, rows, columns, biases);
    for (int64_t unit = next++; unit < units; unit = next++)
      worker.attend_row(unit / (rows.chunks * arguments.heads), unit / rows.chunks % arguments.heads, unit % rows.chunks);
  });
}

}  // namespace

// Return 0, or 1 if there is not enough memory.
extern "C" int vision_longformer_windowed_attention(const Arguments* arguments) {
  try {
    if (arguments->is_bfloat16)
      attend_map<BFloat16>(*arguments);
    else
      attend_map<float>(*arguments);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
