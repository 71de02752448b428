// What a convolution computes, and the ways to compute it.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

using Dims = std::vector<int64_t>;

enum Task : int64_t { kForward = 0, kBackwardData = 1, kBackwardWeights = 2 };
// What is done at once to each number of a result: those of `Step` in epilogue_search.py. From kRectify on they have no
// operand.
enum Step : int64_t { kSubtract = 0, kMultiply = 1, kAdd = 2, kAddArray = 3, kRectify = 4, kRectify6 = 5, kTanh = 6 };
enum Operand { kImages = 0, kKernel = 1, kOutput = 2 };

// The numbers of `Convolution.numbers()` in operations.py, in that order.
struct Geometry {
  Task task;
  int64_t groups;
  Dims images;          // N, C, H, W
  Dims kernel;          // G, O, I, H, W
  Dims kernel_strides;  // of the same axes, in elements
  Dims output;          // N, C, H, W
  Dims stride, dilation, low, high;

  explicit Geometry(const std::vector<int64_t>& numbers) {
    if (numbers.size() != 28) throw std::invalid_argument("28 numbers describe a convolution");
    const int64_t* next = numbers.data();
    auto take = [&next](int count) {
      Dims dims(next, next + count);
      next += count;
      return dims;
    };
    task = static_cast<Task>(*next++);
    groups = *next++;
    images = take(4);
    kernel = take(5);
    kernel_strides = take(5);
    output = take(4);
    stride = take(2);
    dilation = take(2);
    low = take(2);
    high = take(2);
  }

  Operand result() const { return task == kForward ? kOutput : task == kBackwardData ? kImages : kKernel; }
};

// A way to compute one convolution, ready to run from any thread.
class Algorithm {
 public:
  const Operand result;

  explicit Algorithm(const Geometry& geometry) : result(geometry.result()) {}
  virtual ~Algorithm() = default;
  // `data` are images, kernel and output; `following` the operands of the epilogue's steps.
  virtual void run(const std::array<void*, 3>& data, const std::vector<void*>& following) const = 0;
  virtual bool is_fast() const { return true; }
};

// By oneDNN, in bfloat16 if `half`, else in float32.
std::unique_ptr<const Algorithm> by_onednn(const Geometry& geometry, bool half, const std::vector<int64_t>& steps);
// With fewer products, in float32; null where that does not gain.
std::unique_ptr<const Algorithm> by_winograd(const Geometry& geometry, const std::vector<int64_t>& steps);
