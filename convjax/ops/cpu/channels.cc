// Sums over all pixels of each channel, as batch norms and gradients of biases take them, called by XLA through its
// foreign function interface.
//
// Arrays are [..., C], contiguous, float32 or bfloat16; sums are float32. They are taken in parts of a size that does
// not depend on how many threads there are, and put together in order: so neither do their bits.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

#include "numbers.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kLane = 128;          // channels side by side at the least: fewer leave vector registers idle
constexpr int64_t kBlock = 4096;        // numbers that float32 sums hold before they go on in float64: 16 kB of cache
constexpr int64_t kRows = 16;           // of a block at the least: each block's sums are put together in float64
constexpr int64_t kPart = 32 * kBlock;  // numbers that one thread takes at once

// How the numbers of an array lie: as rows, in each of which every channel comes once or, if they are few, several
// times.
struct Layout {
  int64_t channels, width, rows, block, part;

  Layout(int64_t count, int64_t channels) : channels(channels), width(channels) {
    const int64_t pixels = channels ? count / channels : 0;
    int64_t together = 1;
    while (together * channels < kLane && pixels && pixels % (2 * together) == 0) together *= 2;
    width = together * channels;
    rows = pixels / together;
    block = std::max<int64_t>(kRows, kBlock / std::max<int64_t>(1, width));
    part = block * std::max<int64_t>(1, kPart / std::max<int64_t>(1, block * width));
  }
  int64_t parts() const { return (rows + part - 1) / part; }
};

template <class T>
inline void block_sums(const T* x, int64_t rows, int64_t width, float* __restrict sums) {
  std::fill(sums, sums + width, 0.f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; ++j) sums[j] += wide(x[i * width + j]);
  }
}

template <class T>
inline void block_squares(const T* x, int64_t rows, int64_t width, const float* mean, float* __restrict squares) {
  std::fill(squares, squares + width, 0.f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const float from_mean = wide(x[i * width + j]) - mean[j];
      squares[j] += from_mean * from_mean;
    }
  }
}

template <class T>
inline void block_products(const T* dy, const T* x, int64_t rows, int64_t width, const float* centre,
                           float* __restrict sums, float* __restrict products) {
  std::fill(sums, sums + width, 0.f);
  std::fill(products, products + width, 0.f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const float slope = wide(dy[i * width + j]);
      sums[j] += slope;
      products[j] += slope * (wide(x[i * width + j]) - centre[j]);
    }
  }
}

// Templates cannot be cloned; these can.
FOR_EACH_PROCESSOR void sums_of(const float* x, int64_t rows, int64_t width, float* sums) {
  block_sums(x, rows, width, sums);
}
FOR_EACH_PROCESSOR void sums_of(const uint16_t* x, int64_t rows, int64_t width, float* sums) {
  block_sums(x, rows, width, sums);
}
FOR_EACH_PROCESSOR void squares_of(const float* x, int64_t rows, int64_t width, const float* mean, float* squares) {
  block_squares(x, rows, width, mean, squares);
}
FOR_EACH_PROCESSOR void squares_of(const uint16_t* x, int64_t rows, int64_t width, const float* mean, float* squares) {
  block_squares(x, rows, width, mean, squares);
}
FOR_EACH_PROCESSOR void products_of(const float* dy, const float* x, int64_t rows, int64_t width, const float* centre,
                                    float* sums, float* products) {
  block_products(dy, x, rows, width, centre, sums, products);
}
FOR_EACH_PROCESSOR void products_of(const uint16_t* dy, const uint16_t* x, int64_t rows, int64_t width,
                                    const float* centre, float* sums, float* products) {
  block_products(dy, x, rows, width, centre, sums, products);
}

// Adds a mean of `more` numbers, and the sum of their squared distances from it, to those of `count` others (Chan,
// Golub and LeVeque 1979).
inline void add(double more, double its_mean, double its_squares, double count, double& mean, double& squares) {
  const double share = more / (count + more), apart = its_mean - mean;
  mean += apart * share;
  squares += its_squares + apart * apart * count * share;
}

// Calls `take(part, row, rows, some, others)` for each block of rows, those of a part in order and by one thread, which
// hands in two of its own arrays of a row's width.
template <class Take>
void for_each_block(const Layout& layout, const Take& take) {
#pragma omp parallel
  {
    std::vector<float> some(layout.width), others(layout.width);
#pragma omp for schedule(static)
    for (int64_t part = 0; part < layout.parts(); ++part) {
      const int64_t end = std::min(layout.rows, (part + 1) * layout.part);
      for (int64_t row = part * layout.part; row < end; row += layout.block) {
        take(part, row, std::min(layout.block, end - row), some.data(), others.data());
      }
    }
  }
}

template <class T>
void moments(const T* x, const Layout& layout, float* mean, float* variance) {
  const int64_t width = layout.width, parts = layout.parts();
  std::vector<double> found(parts * width), found_squares(parts * width);
  for_each_block(layout, [&](int64_t part, int64_t row, int64_t rows, float* means, float* squares) {
    sums_of(x + row * width, rows, width, means);
    for (int64_t j = 0; j < width; ++j) means[j] /= rows;
    // The second pass finds the block in the cache.
    squares_of(x + row * width, rows, width, means, squares);
    double *mean_of = &found[part * width], *squares_of = &found_squares[part * width];
    const int64_t before = row - part * layout.part;
    for (int64_t j = 0; j < width; ++j) add(rows, means[j], squares[j], before, mean_of[j], squares_of[j]);
  });
  for (int64_t channel = 0; channel < layout.channels; ++channel) {
    double all_mean = 0, all_squares = 0;
    int64_t count = 0;
    for (int64_t i = channel; i < parts * width; i += layout.channels) {
      const int64_t rows = std::min(layout.part, layout.rows - i / width * layout.part);
      add(rows, found[i], found_squares[i], count, all_mean, all_squares);
      count += rows;
    }
    mean[channel] = all_mean;
    variance[channel] = all_squares / count;
  }
}

// Adds up what all parts have found of each channel, in order.
void put_together(const double* found, const Layout& layout, float* sums) {
  for (int64_t channel = 0; channel < layout.channels; ++channel) {
    double sum = 0;
    for (int64_t i = channel; i < layout.parts() * layout.width; i += layout.channels) sum += found[i];
    sums[channel] = sum;
  }
}

template <class T>
void products(const T* dy, const T* x, const Layout& layout, const float* centre, float* sums, float* products) {
  const int64_t width = layout.width, parts = layout.parts();
  std::vector<double> found(2 * parts * width);
  std::vector<float> centres(width);
  for (int64_t j = 0; j < width; ++j) centres[j] = centre[j % layout.channels];
  for_each_block(layout, [&](int64_t part, int64_t row, int64_t rows, float* some, float* some_products) {
    products_of(dy + row * width, x + row * width, rows, width, centres.data(), some, some_products);
    for (int64_t j = 0; j < width; ++j) {
      found[part * width + j] += some[j];
      found[(parts + part) * width + j] += some_products[j];
    }
  });
  put_together(found.data(), layout, sums);
  put_together(found.data() + parts * width, layout, products);
}

template <class T>
void totals(const T* x, const Layout& layout, float* sums) {
  const int64_t width = layout.width, parts = layout.parts();
  std::vector<double> found(parts * width);
  for_each_block(layout, [&](int64_t part, int64_t row, int64_t rows, float* some, float*) {
    sums_of(x + row * width, rows, width, some);
    for (int64_t j = 0; j < width; ++j) found[part * width + j] += some[j];
  });
  put_together(found.data(), layout, sums);
}

float* floats(ffi::Result<ffi::AnyBuffer>& buffer) { return static_cast<float*>(buffer->untyped_data()); }

// Calls `take(numbers, layout)` with an array's numbers, whose type it finds out.
template <class Take>
ffi::Error taken(const ffi::AnyBuffer& x, const Take& take) {
  try {
    const Layout layout(x.element_count(), x.dimensions().back());
    if (x.element_type() == ffi::DataType::BF16) {
      take(static_cast<const uint16_t*>(x.untyped_data()), layout);
    } else {
      take(static_cast<const float*>(x.untyped_data()), layout);
    }
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

ffi::Error TakeMoments(ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> mean, ffi::Result<ffi::AnyBuffer> variance) {
  return taken(x, [&](auto* numbers, const Layout& layout) {
    moments(numbers, layout, floats(mean), floats(variance));
  });
}

ffi::Error TakeProducts(ffi::AnyBuffer dy, ffi::AnyBuffer x, ffi::AnyBuffer centre, ffi::Result<ffi::AnyBuffer> sums,
                        ffi::Result<ffi::AnyBuffer> product) {
  return taken(x, [&](auto* numbers, const Layout& layout) {
    const auto* slopes = static_cast<decltype(numbers)>(dy.untyped_data());
    const auto* centres = static_cast<const float*>(centre.untyped_data());
    products(slopes, numbers, layout, centres, floats(sums), floats(product));
  });
}

ffi::Error TakeTotals(ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> sums) {
  return taken(x, [&](auto* numbers, const Layout& layout) { totals(numbers, layout, floats(sums)); });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_totals, TakeTotals,
                              ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    convjax_moments, TakeMoments,
    ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_channel_sums, TakeProducts,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
