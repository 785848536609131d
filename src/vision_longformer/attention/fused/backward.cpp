// The gradients of forward.cpp. With weights P = softmax(S), scores S = q kᵀ / √d + bias, results P v and their
// gradient g, the gradients are
//
//   of v: Pᵀ g    of S: D = P ∘ (g vᵀ - δ), δ the sum of P ∘ g vᵀ over a query's keys    of the bias: D
//   of q: D k / √d    of k: Dᵀ q / √d
//
// Weights are computed again rather than kept: they are many times as large as all else. Until they are normalised they
// are at least 2^-126, and products with them fast; so it is g that is divided by their sum f: with W = P f and h = g / f,
// Pᵀ g = Wᵀ h, and D = W ∘ (h vᵀ - δ / f), where δ is the sum of W ∘ h vᵀ.
//
// One unit of work is a row of chunks, of one head of one image. Its keys reach one row of chunks further up and down, so
// every third row is done at the same time: no two units then add to the same key, and sums do not depend on threads.

#include <atomic>
#include <new>

#include "neighbourhood.h"

// The same fields in the same order as `_Gradients` in operator.py. A unit is (image, head, row of chunks).
struct Gradients {
  int64_t strides[4];       // of `result`: image, row, column, head
  const void* result;       // (batch, height, width, heads, head_width)
  void* query;              // (batch, height, width, heads, head_width)
  float* key_value;         // (batch, key_height, key_width, 2, heads, head_width), to be added to
  float* global_key_value;  // (units, num_global, 2, head_width)
  float* table;             // (units, 4w - 1, 4w - 1), columns from right to left, to be added to; or null
  float* global_bias;       // (units, num_global), to be added to; or null
};

namespace {

constexpr float kLeast = 1.1754943508222875e-38f;  // 2^-126, what `exp2` gives for what is not seen

// A strip, also packed the other way round, and what has been added up for its keys and values.
struct GradientStrip : Strip {
  const Arguments* arguments = nullptr;
  float* target = nullptr;  // gradients of the whole map of keys, or null for a strip of global keys
  Floats key_rows;              // (keys, head_width rounded up)
  Floats value_columns;         // (vectors, head_width, kLanes); zeros after the last value
  Floats grad_key, grad_value;  // (keys, head_width rounded up)

  void reserve(int64_t most_keys, int64_t head_width) {
    Strip::reserve(most_keys, head_width);
    const int64_t size = round_up(most_keys) * round_up(head_width);
    for (Floats* floats : {&key_rows, &grad_key, &grad_value}) *floats = allocate(size);
    value_columns = allocate(round_up(most_keys) * head_width);
  }

  void clear(int64_t count, int64_t head_width) {
    flush();
    Strip::clear(count, head_width);
    const int64_t size = count * round_up(head_width);
    std::fill_n(grad_key.get(), size, 0.0f);
    std::fill_n(grad_value.get(), size, 0.0f);
    if (count % kLanes)
      std::fill_n(value_columns.get() + (vectors - 1) * head_width * kLanes, head_width * kLanes, 0.0f);
  }

  template <typename T>
  void pack(int64_t index, const T* from_key, const T* from_value, int64_t head_width, float scale) {
    Strip::pack(index, from_key, from_value, head_width, scale);
    float* to_key = key_rows.get() + index * round_up(head_width);
    read(from_key, head_width, to_key);
    std::fill_n(to_key + head_width, round_up(head_width) - head_width, 0.0f);
    float* to_value = value_columns.get() + index / kLanes * head_width * kLanes + index % kLanes;
    for (int64_t i = 0; i < head_width; ++i) to_value[i * kLanes] = to_float(from_value[i]);
  }

  void pack_padding(int64_t index, int64_t head_width) {
    Strip::pack_padding(index, head_width);
    std::fill_n(key_rows.get() + index * round_up(head_width), round_up(head_width), 0.0f);
    float* to_value = value_columns.get() + index / kLanes * head_width * kLanes + index % kLanes;
    for (int64_t i = 0; i < head_width; ++i) to_value[i * kLanes] = 0.0f;
  }

  // Add what has been added up to the map's gradients. Where nothing has, do nothing.
  void flush() {
    if (target == nullptr || keys == 0) return;
    const int64_t width = arguments->head_width, token = arguments->heads * width;
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    for (int64_t i = 0; i < keys; ++i) {
      const int64_t y = place.row + i / place.columns, x = place.column + i % place.columns;
      const int64_t index = (place.image * arguments->key_height + y) * arguments->key_width + x;
      float* to = target + index * 2 * token + place.head * width;
      const float *key = grad_key.get() + i * round_up(width), *value = grad_value.get() + i * round_up(width);
      for (int64_t k = 0; k < width; ++k) to[k] += key[k] * scale;
      for (int64_t k = 0; k < width; ++k) to[token + k] += value[k];
    }
    keys = 0;
  }
};

template <typename T>
class Worker {
 public:
  Worker(const Arguments& arguments, const Gradients& gradients, const Layout& layout)
      : arguments_(arguments), gradients_(gradients), layout_(layout),
        neighbourhood_(arguments, layout.rows, layout.columns, layout.biases), width_(arguments.head_width),
        padded_width_(round_up(width_)), scale_(1 / std::sqrt(static_cast<float>(width_))) {
    for (GradientStrip& strip : neighbourhood_.strips()) {
      strip.arguments = &arguments;
      strip.target = gradients.key_value;
    }
    const int64_t most_queries = arguments.window * arguments.window;
    queries_ = allocate(most_queries * padded_width_);
    grads_ = allocate(most_queries * padded_width_);
    weights_ = allocate(most_queries * neighbourhood_.most_keys());
    scores_ = allocate(most_queries * neighbourhood_.most_keys());
    results_ = allocate(kRows * padded_width_);
  }

  void differentiate_row(int64_t image, int64_t head, int64_t chunk_row) {
    neighbourhood_.start_row(image, head);
    const int64_t unit = (image * arguments_.heads + head) * layout_.rows.chunks + chunk_row;
    for (int64_t chunk_column = 0; chunk_column < layout_.columns.chunks; ++chunk_column) {
      neighbourhood_.find(image, head, chunk_row, chunk_column);
      differentiate_chunk(image, head, chunk_row, chunk_column);
      add_biases(unit, chunk_row, chunk_column);
    }
    for (GradientStrip& strip : neighbourhood_.strips()) strip.flush();
    float* to = gradients_.global_key_value + unit * arguments_.num_global * 2 * width_;
    const GradientStrip& global = neighbourhood_.global();
    for (int64_t i = 0; i < arguments_.num_global; ++i, to += 2 * width_) {
      for (int64_t k = 0; k < width_; ++k) to[k] = global.grad_key[i * padded_width_ + k] * scale_;
      for (int64_t k = 0; k < width_; ++k) to[width_ + k] = global.grad_value[i * padded_width_ + k];
    }
  }

 private:
  void differentiate_chunk(int64_t image, int64_t head, int64_t chunk_row, int64_t chunk_column) {
    const int64_t window = arguments_.window, first_row = chunk_row * window, first_column = chunk_column * window;
    const int64_t columns = layout_.columns.queries(chunk_column);
    const int64_t count = layout_.rows.queries(chunk_row) * columns;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = first_row + i / columns, x = first_column + i % columns;
      read_token(arguments_.query, arguments_.query_strides, image, y, x, head, queries_.get() + i * padded_width_);
      read_token(gradients_.result, gradients_.strides, image, y, x, head, grads_.get() + i * padded_width_);
    }
    stride_ = neighbourhood_.num_vectors() * kLanes;
    values_.clear();
    for (const Seen<GradientStrip>& seen : neighbourhood_.seen())
      for (int64_t i = 0; i < seen.strip->vectors; ++i)
        values_.push_back(seen.strip->value_columns.get() + i * width_ * kLanes);

    const int64_t tiles = (count + kRows - 1) / kRows;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * count / tiles, size = (tile + 1) * count / tiles - first;
      for (int64_t i = 0; i < size; ++i) places_[i] = (first + i) / columns * window + (first + i) % columns;
      with_rows<kRows>(size, [&](auto rows) { differentiate_queries<decltype(rows)::value>(first); });
      for (int64_t i = 0; i < size; ++i) {
        const int64_t y = first_row + (first + i) / columns, x = first_column + (first + i) % columns;
        const int64_t token = (image * arguments_.height + y) * arguments_.width + x;
        write(results_.get() + i * padded_width_, width_,
              static_cast<T*>(gradients_.query) + (token * arguments_.heads + head) * width_);
      }
    }
    int64_t start = 0;
    for (const Seen<GradientStrip>& seen : neighbourhood_.seen()) {
      differentiate_keys(*seen.strip, start, count);
      start += seen.strip->vectors * kLanes;
    }
  }

  void read_token(const void* from, const int64_t* strides, int64_t image, int64_t y, int64_t x, int64_t head, float* to) {
    read(static_cast<const T*>(from) + image * strides[0] + y * strides[1] + x * strides[2] + head * strides[3], width_, to);
    std::fill_n(to + width_, padded_width_ - width_, 0.0f);
  }

  // Write `weights_` W, `scores_` D and `results_` of some queries, and divide their `grads_`.
  template <int Rows>
  void differentiate_queries(int64_t first) {
    float* weights = weights_.get() + first * stride_;
    float* scores = scores_.get() + first * stride_;
    float* grads = grads_.get() + first * padded_width_;
    float factors[Rows];
    neighbourhood_.template score<Rows>(queries_.get() + first * padded_width_, padded_width_, places_, weights, factors);
    for (int r = 0; r < Rows; ++r) {
      factors[r] = weigh(weights + r * stride_, stride_, factors[r]);
      for (int64_t i = 0; i < padded_width_; ++i) grads[r * padded_width_ + i] *= factors[r];
    }
    const int64_t count = neighbourhood_.num_vectors();
    int64_t n = 0;
    for (; n + kColumns <= count; n += kColumns) multiply_values<Rows, kColumns>(grads, n, scores);
    for (; n < count; ++n) multiply_values<Rows, 1>(grads, n, scores);
    for (int r = 0; r < Rows; ++r) differentiate_softmax(weights + r * stride_, factors[r], scores + r * stride_);

    int64_t channel = 0;
    for (; channel + kColumns * kLanes <= padded_width_; channel += kColumns * kLanes)
      add_keys<Rows, kColumns>(scores, channel);
    for (; channel < padded_width_; channel += kLanes) add_keys<Rows, 1>(scores, channel);
  }

  // Write h vᵀ for vectors n to n + Columns of the values.
  template <int Rows, int Columns>
  [[gnu::noinline]] void multiply_values(const float* grads, int64_t n, float* scores) {
    const float* values[Columns];
    for (int c = 0; c < Columns; ++c) values[c] = values_[n + c];
    Vector sums[Rows][Columns] = {};
    add_product(sums, grads, padded_width_, 1, [&](int64_t k, int c) { return values[c] + k * kLanes; }, width_);
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c) store(scores + r * stride_ + (n + c) * kLanes, sums[r][c]);
  }

  // Turn one query's h vᵀ into D. What is not seen gets zeros, as products with the tiniest numbers are slow.
  void differentiate_softmax(const float* weights, float factor, float* scores) const {
    Vector total = {};
    for (int64_t i = 0; i < stride_; i += kLanes) total += load(weights + i) * load(scores + i);
    const Vector delta = splat(sum(total) * factor);
    for (int64_t i = 0; i < stride_; i += kLanes) {
      const Vector weight = load(weights + i);
      store(scores + i, weight <= splat(kLeast) ? Vector{} : weight * (load(scores + i) - delta));
    }
  }

  // Write `results_`, D k / √d, for the channels from `channel` on.
  template <int Rows, int Columns>
  [[gnu::noinline]] void add_keys(const float* scores, int64_t channel) {
    Vector sums[Rows][Columns] = {};
    for (const Seen<GradientStrip>& seen : neighbourhood_.seen()) {
      const float* keys = seen.strip->key_rows.get() + channel;
      const int64_t stride = padded_width_;
      add_product(sums, scores, stride_, 1, [=](int64_t k, int c) { return keys + k * stride + c * kLanes; },
                  seen.strip->keys);
      scores += seen.strip->vectors * kLanes;
    }
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c)
        store(results_.get() + r * padded_width_ + channel + c * kLanes, sums[r][c] * scale_);
  }

  // Add Dᵀ q and Wᵀ h of all queries to the keys and values of a strip, whose scores begin at `start`.
  void differentiate_keys(GradientStrip& strip, int64_t start, int64_t count) {
    for (int64_t key = 0; key < strip.keys; key += kRows) {
      with_rows<kRows>(std::min<int64_t>(kRows, strip.keys - key), [&](auto rows) {
        constexpr int kSize = decltype(rows)::value;
        add_queries<kSize>(scores_.get() + start + key, queries_.get(), count, strip.grad_key.get() + key * padded_width_);
        add_queries<kSize>(weights_.get() + start + key, grads_.get(), count, strip.grad_value.get() + key * padded_width_);
      });
    }
  }

  template <int Rows>
  void add_queries(const float* factors, const float* queries, int64_t count, float* to) {
    int64_t channel = 0;
    for (; channel + kColumns * kLanes <= padded_width_; channel += kColumns * kLanes)
      add_some_queries<Rows, kColumns>(factors, queries + channel, count, to + channel);
    for (; channel < padded_width_; channel += kLanes)
      add_some_queries<Rows, 1>(factors, queries + channel, count, to + channel);
  }

  template <int Rows, int Columns>
  [[gnu::noinline]] void add_some_queries(const float* factors, const float* queries, int64_t count, float* to) {
    const int64_t stride = padded_width_;
    Vector sums[Rows][Columns];
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c) sums[r][c] = load(to + r * stride + c * kLanes);
    add_product(sums, factors, 1, stride_, [=](int64_t k, int c) { return queries + k * stride + c * kLanes; }, count);
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c) store(to + r * stride + c * kLanes, sums[r][c]);
  }

  // Add D to the biases, each at its relative position.
  void add_biases(int64_t unit, int64_t chunk_row, int64_t chunk_column) {
    const int64_t rows = layout_.rows.queries(chunk_row), columns = layout_.columns.queries(chunk_column);
    const int64_t side = 4 * arguments_.window - 1, middle = 2 * arguments_.window - 1;
    for (int64_t i = 0; gradients_.global_bias != nullptr && i < rows * columns; ++i)
      for (int64_t g = 0; g < arguments_.num_global; ++g)
        gradients_.global_bias[unit * arguments_.num_global + g] += scores_[i * stride_ + g];
    if (gradients_.table == nullptr) return;
    float* table = gradients_.table + unit * side * side;
    int64_t start = 0;
    for (const Seen<GradientStrip>& seen : neighbourhood_.seen()) {
      for (int64_t i = 0; i < rows * columns; ++i) {
        const float* from = scores_.get() + i * stride_ + start;
        for (int64_t row = seen.rows.begin; row < seen.rows.end; ++row) {
          float* to = table + (i / columns - row + middle) * side + middle - i % columns + seen.columns.begin;
          for (int64_t k = 0; k < seen.columns.size(); ++k) to[k] += *from++;
        }
      }
      start += seen.strip->vectors * kLanes;
    }
  }

  const Arguments& arguments_;
  const Gradients& gradients_;
  const Layout& layout_;
  Neighbourhood<T, GradientStrip> neighbourhood_;
  const int64_t width_, padded_width_;
  const float scale_;

  Floats queries_, grads_;   // of a chunk (queries, padded_width_)
  Floats weights_, scores_;  // of a chunk (queries, stride_)
  Floats results_;           // of a tile (kRows, padded_width_)
  int64_t stride_ = 0;
  int64_t places_[kRows] = {};  // of the queries of a tile in their chunk, counted as in a whole one
  std::vector<const float*> values_;
};

template <typename T>
void differentiate_map(const Arguments& arguments, const Gradients& gradients) {
  constexpr int64_t kApart = 3;
  const Layout layout(arguments);
  const int64_t chunk_rows = layout.rows.chunks, maps = arguments.batch * arguments.heads;
  for (int64_t first = 0; first < std::min(kApart, chunk_rows); ++first) {
    const int64_t rows = (chunk_rows - first + kApart - 1) / kApart, units = maps * rows;
    std::atomic<int64_t> next{0};
    in_parallel(std::min(arguments.num_threads, units), [&] {
      Worker<T> worker(arguments, gradients, layout);
      for (int64_t unit = next++; unit < units; unit = next++)
        worker.differentiate_row(unit / rows / arguments.heads, unit / rows % arguments.heads, first + unit % rows * kApart);
    });
  }
}

}  // namespace

// Return 0, or 1 if there is not enough memory.
extern "C" int vision_longformer_windowed_attention_backward(const Arguments* arguments, const Gradients* gradients) {
  try {
    if (arguments->is_bfloat16)
      differentiate_map<BFloat16>(*arguments, *gradients);
    else
      differentiate_map<float>(*arguments, *gradients);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
