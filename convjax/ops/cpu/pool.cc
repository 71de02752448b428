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
  for (int64_t c = 0; c < channels; ++c) {
    const float slope = wide(dy[c]);  // read in any case: what is read under a condition the compiler takes one by one
    sums[c] += taps[c] == tap ? slope : 0.f;
  }
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

// Writes of each window of an image which of its taps has the largest number: of nothing but negative infinities, the
// first inside of the image.
template <class T>
void find_largest(const T* image, Sizes images, Sizes output, const Window& window, uint8_t* taps) {
  const int64_t height = images[1], width = images[2], channels = images[3], columns = output[2];
  std::vector<float> numbers(channels), places(channels);
  for (int64_t i = 0; i < output[1] * columns; ++i) {
    const int64_t top = i / columns * window.down - window.top, left = i % columns * window.right - window.left;
    const int64_t first_u = std::max<int64_t>(0, -top), end_u = std::min(window.height, height - top);
    const int64_t first_v = std::max<int64_t>(0, -left), end_v = std::min(window.width, width - left);
    std::fill(numbers.begin(), numbers.end(), -std::numeric_limits<float>::infinity());
    std::fill(places.begin(), places.end(), first_u * window.width + first_v);
    for (int64_t u = first_u; u < end_u; ++u) {
      for (int64_t v = first_v; v < end_v; ++v) {
        const T* pixel = image + ((top + u) * width + left + v) * channels;
        larger_of(pixel, channels, u * window.width + v, numbers.data(), places.data());
      }
    }
    std::copy(places.begin(), places.end(), taps + i * channels);
  }
}

// Adds up for each pixel of an image what it gets from the windows in which it is the largest.
template <class T>
void hand_back(const T* dy, const uint8_t* taps, Sizes images, Sizes output, const Window& window, T* dx) {
  const int64_t width = images[2], channels = images[3], rows = output[1], columns = output[2];
  std::vector<float> sums(channels);
  for (int64_t pixel = 0; pixel < images[1] * width; ++pixel) {
    const int64_t row = pixel / width + window.top, column = pixel % width + window.left;
    std::fill(sums.begin(), sums.end(), 0.f);
    for (int64_t u = row % window.down; u < window.height && u <= row; u += window.down) {
      for (int64_t v = column % window.right; v < window.width && v <= column; v += window.right) {
        const int64_t i = (row - u) / window.down, j = (column - v) / window.right;
        if (i >= rows || j >= columns) continue;
        const int64_t place = (i * columns + j) * channels;
        taken_of(dy + place, taps + place, channels, u * window.width + v, sums.data());
      }
    }
    written(sums.data(), channels, dx + pixel * channels);
  }
}

template <class T>
void gradient(const T* dy, const T* x, Sizes images, Sizes output, const Window& window, T* dx) {
  const int64_t an_image = images[1] * images[2] * images[3], an_output = output[1] * output[2] * output[3];
#pragma omp parallel
  {
    std::vector<uint8_t> taps(an_output);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < images[0]; ++n) {
      find_largest(x + n * an_image, images, output, window, taps.data());
      hand_back(dy + n * an_output, taps.data(), images, output, window, dx + n * an_image);
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
