// Windowed attention of map queries, fused: scores, softmax and weighted sums of a few queries at a time, while what
// they need is in the cache. Equals dense.py in the parent folder.
//
// One unit of work is a row of chunks, or a part of it, of one head of one image.

#include <atomic>
#include <new>

#include "neighbourhood.h"

namespace {

constexpr int64_t kUnitsPerThread = 4, kLeastColumns = 8;  // the least chunks in a part of a row

template <typename T>
class Worker {
 public:
  Worker(const Arguments& arguments, const Axis& rows, const Axis& columns, const Biases& biases)
      : arguments_(arguments), rows_(rows), columns_(columns), neighbourhood_(arguments, rows, columns, biases),
        width_(arguments.head_width), padded_width_(round_up(width_)) {
    queries_ = allocate(arguments.window * arguments.window * width_);
    scores_ = allocate(kRows * neighbourhood_.most_keys());
    results_ = allocate(kRows * padded_width_);
  }

  void attend_row(int64_t image, int64_t head, int64_t chunk_row, Range chunk_columns) {
    neighbourhood_.start_row(image, head);
    for (int64_t chunk_column = chunk_columns.begin; chunk_column < chunk_columns.end; ++chunk_column) {
      neighbourhood_.find(image, head, chunk_row, chunk_column);
      attend_chunk(image, head, chunk_row, chunk_column);
    }
  }

 private:
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
        places_[i] = (first + i) / columns * window + (first + i) % columns;
      with_rows<kRows>(size, [&](auto rows) { attend<decltype(rows)::value>(queries_.get() + first * width_); });
      for (int64_t i = 0; i < size; ++i) {
        const int64_t y = chunk_row * window + (first + i) / columns;
        const int64_t x = chunk_column * window + (first + i) % columns;
        const int64_t token = (image * arguments_.height + y) * arguments_.width + x;
        write(results_.get() + i * padded_width_, width_,
              static_cast<T*>(arguments_.out) + (token * arguments_.heads + head) * width_);
      }
    }
  }

  template <int Rows>
  void attend(const float* queries) {
    stride_ = neighbourhood_.num_vectors() * kLanes;
    float factors[Rows];
    neighbourhood_.template score<Rows>(queries, width_, places_, scores_.get(), factors);
    for (int r = 0; r < Rows; ++r) factors[r] = weigh(scores_.get() + r * stride_, stride_, factors[r]);

    int64_t channel = 0;
    for (; channel + kColumns * kLanes <= padded_width_; channel += kColumns * kLanes)
      add_values<Rows, kColumns>(channel, factors);
    for (; channel < padded_width_; channel += kLanes) add_values<Rows, 1>(channel, factors);
  }

  // Write `results_` of some queries for the channels from `channel` on.
  template <int Rows, int Columns>
  [[gnu::noinline]] void add_values(int64_t channel, const float (&factors)[Rows]) {
    Vector sums[Rows][Columns] = {};
    const float* weights = scores_.get();
    for (const Seen<Strip>& seen : neighbourhood_.seen()) {
      const float* values = seen.strip->value.get() + channel;
      const int64_t stride = padded_width_;
      add_product(sums, weights, stride_, 1, [=](int64_t k, int c) { return values + k * stride + c * kLanes; },
                  seen.strip->keys);
      weights += seen.strip->vectors * kLanes;
    }
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < Columns; ++c)
        store(results_.get() + r * padded_width_ + channel + c * kLanes, sums[r][c] * factors[r]);
  }

  const Arguments& arguments_;
  const Axis& rows_;
  const Axis& columns_;
  Neighbourhood<T, Strip> neighbourhood_;
  const int64_t width_, padded_width_;

  Floats queries_;  // of a chunk (queries, head_width)
  Floats scores_;   // of a tile (kRows, stride_), then the weights
  Floats results_;  // of a tile (kRows, padded_width_)
  int64_t stride_ = 0;
  int64_t places_[kRows] = {};  // of the queries of a tile in their chunk, counted as in a whole one
};

template <typename T>
void attend_map(const Arguments& arguments) {
  const Layout layout(arguments);
  // Each thread takes the next row of chunks: rows at the edge have less to do, and other programs may slow a thread.
  // A band of a wide map may have a single row, which is then cut into parts: each packs two strips of keys again.
  const int64_t chunk_rows = layout.rows.chunks, chunk_columns = layout.columns.chunks, threads = arguments.num_threads;
  const int64_t rows = arguments.batch * arguments.heads * chunk_rows;
  const int64_t most_parts = std::max<int64_t>(chunk_columns / kLeastColumns, 1);
  const int64_t parts = std::clamp<int64_t>(kUnitsPerThread * threads / std::max<int64_t>(rows, 1), 1, most_parts);
  const int64_t units = rows * parts;
  std::atomic<int64_t> next{0};
  in_parallel(std::min(threads, units), [&] {
    Worker<T> worker(arguments, layout.rows, layout.columns, layout.biases);
    for (int64_t unit = next++; unit < units; unit = next++) {
      const int64_t row = unit / parts, part = unit % parts, map = row / chunk_rows;  // map: of a head of an image
      const Range columns{part * chunk_columns / parts, (part + 1) * chunk_columns / parts};
      worker.attend_row(map / arguments.heads, map % arguments.heads, row % chunk_rows, columns);
    }
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
