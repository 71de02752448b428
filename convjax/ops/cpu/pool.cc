// The gradient of maximum pooling, called by XLA through its foreign function interface.
//
// Images are [N, H, W, C], contiguous, float32 or bfloat16. Of equal maxima the first in row order gets all; what a
// pixel gets from several windows is added up in float32.

#include <algorithm>
#include <cstdint>
#include <exception>
#include <limits>
#include <vector>

#include "numbers.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

struct Window {
  int64_t height, width, down, right, top, left;  // sizes, strides, and padding before the first pixel
};

// Marks where a tap's numbers are larger than those of the taps before.
template <class T>
inline void keep_larger(const T* x, int64_t channels, float tap, float* __restrict largest, float* __restrict taps) {
  for (int64_t c = 0; c < channels; ++c) {
    const float value = wide(x[c]);
    const bool larger = value > largest[c];
    largest[c] = larger ? value : largest[c];
    taps[c] = larger ? tap : taps[c];
  }
}

template <class T>
inline void add_taken(const T* dy, const uint8_t* taps, int64_t channels, uint8_t tap, float* __restrict sums) {
  for (int64_t c = 0; c < channels; ++c) sums[c] += taps[c] == tap ? wide(dy[c]) : 0.f;
}

template <class T>
inline void write(const float* sums, int64_t channels, T* __restrict to) {
  for (int64_t c = 0; c < channels; ++c) to[c] = narrow<T>(sums[c]);
}

// Templates cannot be cloned; these can.
FOR_EACH_PROCESSOR void larger_of(const float* x, int64_t channels, float tap, float* largest, float* taps) {
  keep_larger(x, channels, tap, largest, taps);
}
FOR_EACH_PROCESSOR void larger_of(const uint16_t* x, int64_t channels, float tap, float* largest, float* taps) {
  keep_larger(x, channels, tap, largest, taps);
}
FOR_EACH_PROCESSOR void taken_of(const float* dy, const uint8_t* taps, int64_t channels, uint8_t tap, float* sums) {
  add_taken(dy, taps, channels, tap, sums);
}
FOR_EACH_PROCESSOR void taken_of(const uint16_t* dy, const uint8_t* taps, int64_t channels, uint8_t tap, float* sums) {
  add_taken(dy, taps, channels, tap, sums);
}
FOR_EACH_PROCESSOR void written(const float* sums, int64_t channels, float* to) { write(sums, channels, to); }
FOR_EACH_PROCESSOR void written(const float* sums, int64_t channels, uint16_t* to) { write(sums, channels, to); }

// Sizes N, H, W, C of the images, and of the output's gradient.
using Sizes = ffi::Span<const int64_t>;

template <class T>
void gradient(const T* dy, const T* x, Sizes images, Sizes output, const Window& window, T* dx) {
  const int64_t height = images[1], width = images[2], channels = images[3], rows = output[1], columns = output[2];
#pragma omp parallel
  {
    std::vector<uint8_t> taps(rows * columns * channels);  // of each window the one whose number is the largest
    std::vector<float> numbers(channels), places(channels);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < images[0]; ++n) {
      const T* image = x + n * height * width * channels;
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          std::fill(numbers.begin(), numbers.end(), -std::numeric_limits<float>::infinity());
          std::fill(places.begin(), places.end(), 0.f);
          bool none = true;
          for (int64_t u = 0; u < window.height; ++u) {
            for (int64_t v = 0; v < window.width; ++v) {
              const int64_t row = i * window.down + u - window.top, column = j * window.right + v - window.left;
              if (row < 0 || row >= height || column < 0 || column >= width) continue;
              const int64_t tap = u * window.width + v;
              // Of nothing but infinities below zero, the first.
              if (none) std::fill(places.begin(), places.end(), static_cast<float>(tap));
              none = false;
              larger_of(image + (row * width + column) * channels, channels, tap, numbers.data(), places.data());
            }
          }
          std::copy(places.begin(), places.end(), taps.begin() + (i * columns + j) * channels);
        }
      }
      for (int64_t row = 0; row < height; ++row) {
        for (int64_t column = 0; column < width; ++column) {
          std::fill(numbers.begin(), numbers.end(), 0.f);
          for (int64_t u = (row + window.top) % window.down; u < window.height; u += window.down) {
            const int64_t i = (row + window.top - u) / window.down;
            if (row + window.top < u || i >= rows) continue;
            for (int64_t v = (column + window.left) % window.right; v < window.width; v += window.right) {
              const int64_t j = (column + window.left - v) / window.right;
              if (column + window.left < v || j >= columns) continue;
              const int64_t place = (i * columns + j) * channels;
              taken_of(dy + n * rows * columns * channels + place, taps.data() + place, channels,
                       u * window.width + v, numbers.data());
            }
          }
          written(numbers.data(), channels, dx + ((n * height + row) * width + column) * channels);
        }
      }
    }
  }
}

ffi::Error Gradient(ffi::AnyBuffer dy, ffi::AnyBuffer x, ffi::Result<ffi::AnyBuffer> dx, Sizes numbers) {
  try {
    const Window window{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]};
    if (x.element_type() == ffi::DataType::BF16) {
      gradient(static_cast<const uint16_t*>(dy.untyped_data()), static_cast<const uint16_t*>(x.untyped_data()),
               x.dimensions(), dy.dimensions(), window, static_cast<uint16_t*>(dx->untyped_data()));
    } else {
      gradient(static_cast<const float*>(dy.untyped_data()), static_cast<const float*>(x.untyped_data()),
               x.dimensions(), dy.dimensions(), window, static_cast<float*>(dx->untyped_data()));
    }
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_max_pool_gradient, Gradient,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Sizes>("numbers"));
