// Convolutions of 3 x 3 taps with 16 products where the definition has 36: Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks" (arXiv:1509.09308), F(2 x 2, 3 x 3), in float32.
//
// Each 2 x 2 pixels of output, a tile, come from 4 x 4 of the image. These are transformed, so are the kernel's taps,
// and products of the 16 pairs are summed over channels, which are 16 products of matrices; their results are
// transformed back. With the matrices
//
//   B^T = 1  0 -1  0      G =  1    0    0      A^T = 1  1  1  0
//         0  1  1  0          1/2  1/2  1/2           0  1 -1 -1
//         0 -1  1  0          1/2 -1/2  1/2
//         0  1  0 -1           0    0    1
//
// the output is A^T [(G g G^T) * (B^T d B)] A. The gradient of the image is such a convolution too, and that of the
// kernel is G^T [sum over tiles of (B^T d B) * (A dy A^T)] G. Sums are taken in an order that does not depend on how
// many threads there are. Additions and halves alone make the transforms, so that rounding stays near the definition's.

#include <omp.h>

#include <algorithm>

#include "convolution.h"
#include "dnnl.hpp"
#include "scratch.h"

namespace {

int64_t ceil_div(int64_t number, int64_t by) { return (number + by - 1) / by; }

// A convolution of stride 1, by the distances in memory of its kernel's taps.
struct Shape {
  int64_t images, height, width, inputs;  // what is convolved: [N, H, W, C]
  int64_t rows, columns, outputs;         // of the result: [N, H, W, C]
  int64_t top, left;                      // zeros around the image
  // Numbers from one tap of the kernel to that of the next input, output, row and column.
  int64_t next_input, next_output, next_row, next_column;

  int64_t tile_rows() const { return ceil_div(rows, 2); }
  int64_t tile_columns() const { return ceil_div(columns, 2); }
  int64_t tiles() const { return images * tile_rows() * tile_columns(); }
};

// The first pixel of a tile's output.
struct Tile {
  int64_t image, row, column;

  Tile(const Shape& s, int64_t number)
      : image(number / (s.tile_rows() * s.tile_columns())),
        row(number / s.tile_columns() % s.tile_rows() * 2),
        column(number % s.tile_columns() * 2) {}

  void advance(const Shape& s) {
    if ((column += 2) < s.columns) return;
    column = 0;
    if ((row += 2) < s.rows) return;
    row = 0;
    ++image;
  }
};

// The steps of an epilogue, and their operands.
struct Epilogue {
  const std::vector<int64_t>& steps;
  const std::vector<void*>& operands;
};

constexpr int64_t kTogether = 48;      // tiles that a thread takes at a time, at most
constexpr int64_t kChannels = 64;      // outputs that are computed of them at a time: these stay in its cache
constexpr int64_t kFewSummed = 48;     // tiles that a kernel's gradient is summed over at a time, at least
constexpr int64_t kSummed = 512;       // and at most,
constexpr int64_t kNumbers = 1 << 21;  // if their matrices have no more numbers
constexpr int64_t kApart = 16;         // numbers between the 16 matrices: else a cache maps them to the same lines
constexpr int64_t kFewest = 32;        // channels from which on it gains
constexpr int64_t kFewestTiles = 128;  // and tiles: before, transforming the kernel takes as long

// So many numbers for one call.
struct Floats {
  const Scratch memory;
  float* const data;

  explicit Floats(int64_t count) : memory(count * sizeof(float)), data(static_cast<float*>(memory.data())) {}
};

// The loops, compiled for two kinds of processors: numbers in a vector, and rows of a product that are summed at once.
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int kLanes = 8, kRows = 6;
#include "winograd_loops.h"
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,fma")
namespace avx512 {
constexpr int kLanes = 16, kRows = 8;
#include "winograd_loops.h"
}  // namespace avx512
#pragma GCC pop_options

// As oneDNN sees the processor, which a variable of the environment may narrow.
bool has(dnnl::cpu_isa isa) {
  const int bits = static_cast<int>(isa);
  return (static_cast<int>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

class Winograd : public Algorithm {
 public:
  Winograd(const Geometry& g, const std::vector<int64_t>& steps) : Algorithm(g), task_(g.task), steps_(steps) {
    const auto &x = g.images, &y = g.output, &apart = g.kernel_strides;
    shape_ = {x[0], x[2], x[3], x[1], y[2], y[3], y[1], g.low[0], g.low[1], apart[2], apart[1], apart[3], apart[4]};
    if (task_ == kBackwardData) {
      // The output's gradient, convolved with the taps in reverse order.
      shape_ = {y[0],         y[2],         y[3],     y[1],     x[2],      x[3],     x[1],
                2 - g.low[0], 2 - g.low[1], apart[1], apart[2], -apart[3], -apart[4]};
      first_tap_ = 2 * (apart[3] + apart[4]);
    }
  }

  void run(const std::array<void*, 3>& data, const std::vector<void*>& following) const override {
    const auto* images = static_cast<const float*>(data[task_ == kBackwardData ? kOutput : kImages]);
    const auto* kernel = static_cast<const float*>(data[kKernel]);
    auto* computed = static_cast<float*>(data[result]);
    const auto needed = std::count_if(steps_.begin(), steps_.end(), [](int64_t step) { return step < kRectify; });
    if (following.size() < static_cast<size_t>(needed)) throw std::invalid_argument("a step has no operand");
    if (task_ == kBackwardWeights) {
      const auto* slopes = static_cast<const float*>(data[kOutput]);
      (wide_ ? avx512::kernel_gradient : avx2::kernel_gradient)(shape_, images, slopes, computed);
    } else {
      (wide_ ? avx512::convolve : avx2::convolve)(shape_, images, kernel + first_tap_, {steps_, following}, computed);
    }
  }

 private:
  Task task_;
  std::vector<int64_t> steps_;
  Shape shape_;
  int64_t first_tap_ = 0;
  const bool wide_ = has(dnnl::cpu_isa::avx512_core);
};

}  // namespace

std::unique_ptr<const Algorithm> by_winograd(const Geometry& g, const std::vector<int64_t>& steps) {
  const Dims once = {1, 1}, &result = g.task == kBackwardData ? g.images : g.output;
  const int64_t tiles = result[0] * ceil_div(result[2], 2) * ceil_div(result[3], 2);
  const bool serves = g.groups == 1 && g.kernel[3] == 3 && g.kernel[4] == 3 && g.stride == once && g.dilation == once &&
                      std::min(g.images[1], g.output[1]) >= kFewest && tiles >= kFewestTiles &&
                      std::count(steps.begin(), steps.end(), kTanh) == 0;
  return serves && has(dnnl::cpu_isa::avx2) ? std::make_unique<Winograd>(g, steps) : nullptr;
}
