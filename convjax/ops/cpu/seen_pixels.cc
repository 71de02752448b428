// Gradients of strided 1 x 1 convolutions, from the pixels alone that the convolution has seen.
//
// oneDNN 3.2 takes longer for those of images, and for kernels of one channel it sums other pixels than it should with
// AVX2.

#include <algorithm>
#include <cstring>
#include <utility>

#include "convolution.h"
#include "scratch.h"

namespace {

Geometry of_seen(Geometry g) {
  std::copy(g.output.begin() + 2, g.output.end(), g.images.begin() + 2);
  g.stride = {1, 1};
  return g;
}

class SeenPixels : public Algorithm {
 public:
  SeenPixels(const Geometry& g, bool half, const std::vector<int64_t>& steps)
      : Algorithm(g), images_(g.images), seen_(g.output), stride_(g.stride), pixel_(g.images[1] * (half ? 2 : 4)),
        dense_(by_onednn(of_seen(g), half, steps)) {}

  bool is_fast() const override { return dense_->is_fast(); }

  void run(const std::array<void*, 3>& data, const std::vector<void*>& following) const override {
    const Scratch seen(seen_[0] * seen_[2] * seen_[3] * pixel_);
    auto* few = static_cast<char*>(seen.data());
    auto* all = static_cast<char*>(data[kImages]);
    auto operands = data;
    operands[kImages] = few;
    if (result != kImages) {
      for_each_row([&](int64_t row, int64_t seen_row) {
        const char* from = all + row * images_[3] * pixel_;
        char* to = few + seen_row * seen_[3] * pixel_;
        for (int64_t j = 0; j < seen_[3]; ++j) std::memcpy(to + j * pixel_, from + j * stride_[1] * pixel_, pixel_);
      });
    }
    dense_->run(operands, following);
    if (result == kImages) {
      for_each_row([&](int64_t row, int64_t seen_row) {
        char* to = all + row * images_[3] * pixel_;
        if (seen_row < 0) {
          std::memset(to, 0, images_[3] * pixel_);
          return;
        }
        const char* from = few + seen_row * seen_[3] * pixel_;
        for (int64_t j = 0; j < seen_[3]; ++j) {
          const int64_t first = j * stride_[1], next = j + 1 < seen_[3] ? first + stride_[1] : images_[3];
          std::memcpy(to + first * pixel_, from + j * pixel_, pixel_);
          std::memset(to + (first + 1) * pixel_, 0, (next - first - 1) * pixel_);
        }
      });
    }
  }

 private:
  // Calls `take(row, seen_row)` for the rows of all images; those of which nothing is seen, if they are the result,
  // with -1.
  template <class Take>
  void for_each_row(const Take& take) const {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < images_[0] * images_[2]; ++row) {
      const int64_t image = row / images_[2], inside = row % images_[2], seen = inside / stride_[0];
      if (inside % stride_[0] == 0 && seen < seen_[2]) {
        take(row, image * seen_[2] + seen);
      } else if (result == kImages) {
        take(row, -1);
      }
    }
  }

  Dims images_, seen_, stride_;  // N, C, H, W
  int64_t pixel_;                // bytes
  std::unique_ptr<const Algorithm> dense_;
};

}  // namespace

std::unique_ptr<const Algorithm> by_seen_pixels(const Geometry& g, bool half, const std::vector<int64_t>& steps) {
  const Dims one{1, 1}, none{0, 0};
  const bool pointwise = Dims(g.kernel.begin() + 3, g.kernel.end()) == one && g.low == none && g.high == none;
  if (g.task == kForward || !pointwise || g.stride == one) return nullptr;
  return std::make_unique<SeenPixels>(g, half, steps);
}
