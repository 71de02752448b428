// Convolutions on oneDNN, called by XLA through its foreign function interface.
//
// Images are NHWC, contiguous; the kernel may lie in any order. Primitives are built once for each geometry and kept.
// Where oneDNN wants an operand in another layout, it is reordered into scratch memory that each thread keeps.

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using dnnl::memory;
using Dims = memory::dims;

namespace {

enum Task : int64_t { kForward = 0, kBackwardData = 1, kBackwardWeights = 2 };
// What is done at once to each number of a result: those of `Step` in epilogue.py.
enum Step : int64_t { kSubtract = 0, kMultiply = 1, kAdd = 2, kAddArray = 3, kRectify = 4, kRectify6 = 5 };
enum Operand { kImages = 0, kKernel = 1, kOutput = 2, kScratchpad = 3 };

// The numbers of `Convolution.numbers()` in operations.py, in that order.
struct Geometry {
  Task task;
  int64_t groups;
  Dims images;          // N, C, H, W
  Dims kernel;          // G, O, I, H, W
  Dims kernel_strides;  // of the same axes, in elements
  Dims output;          // N, C, H, W
  Dims stride, dilation, low, high;

  explicit Geometry(ffi::Span<const int64_t> numbers) {
    if (numbers.size() != 28) throw std::invalid_argument("28 numbers describe a convolution");
    const int64_t* next = numbers.begin();
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
    // oneDNN counts the pixels between the taps.
    for (auto& pixels : dilation) --pixels;
  }

  Operand result() const { return task == kForward ? kOutput : task == kBackwardData ? kImages : kKernel; }
};

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Memory that a thread keeps for its next convolution: fresh pages cost more than the reorders that fill them.
void* scratch(size_t size, int slot) {
  struct Block {
    void* data = nullptr;
    size_t size = 0;
    ~Block() { std::free(data); }
  };
  thread_local std::array<Block, 4> blocks;
  Block& block = blocks[slot];
  if (block.size < size) {
    std::free(block.data);
    block.size = (size + 63) / 64 * 64;
    block.data = std::aligned_alloc(64, block.size);
    if (block.data == nullptr) {
      block.size = 0;
      throw std::bad_alloc();
    }
  }
  return block.data;
}

// A primitive with the reorders around it.
class Convolution {
 public:
  Convolution(const Geometry& g, memory::data_type type, const std::vector<int64_t>& steps) : result_(g.result()) {
    const auto any = memory::format_tag::any;
    const auto nhwc = memory::format_tag::nhwc;
    Dims kernel = g.kernel, strides = g.kernel_strides;
    if (g.groups == 1) {
      kernel.erase(kernel.begin());
      strides.erase(strides.begin());
    }
    given_ = {memory::desc(g.images, type, nhwc), memory::desc(kernel, type, strides),
              memory::desc(g.output, type, nhwc)};
    // Images stay as they are: the layouts that oneDNN would like for them cost more reorders than they gain.
    const memory::desc wanted(kernel, type, any);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops epilogue;
    for (int64_t step : steps) {
      if (step == kRectify) {
        epilogue.append_eltwise(dnnl::algorithm::eltwise_relu, 0.f, 0.f);
        continue;
      }
      if (step == kRectify6) {
        epilogue.append_eltwise(dnnl::algorithm::eltwise_clip, 0.f, 6.f);
        continue;
      }
      following_.push_back(step == kAddArray
                               ? given_[kOutput]
                               : memory::desc({1, g.output[1], 1, 1}, memory::data_type::f32, memory::format_tag::nchw));
      epilogue.append_binary(step == kSubtract   ? dnnl::algorithm::binary_sub
                             : step == kMultiply ? dnnl::algorithm::binary_mul
                                                 : dnnl::algorithm::binary_add,
                             following_.back());
    }
    attributes.set_post_ops(epilogue);
    const auto direct = dnnl::algorithm::convolution_direct;
    const auto training = dnnl::prop_kind::forward_training;
    const dnnl::convolution_forward::primitive_desc forward(cpu(), training, direct, given_[kImages], wanted,
                                                            given_[kOutput], g.stride, g.dilation, g.low, g.high,
                                                            attributes);
    wanted_ = given_;
    if (g.task == kForward) {
      wanted_[kKernel] = forward.weights_desc();
      scratchpad_ = forward.scratchpad_desc();
      primitive_ = dnnl::convolution_forward(forward);
    } else if (g.task == kBackwardData) {
      const dnnl::convolution_backward_data::primitive_desc backward(cpu(), direct, given_[kImages], wanted,
                                                                     given_[kOutput], g.stride, g.dilation, g.low,
                                                                     g.high, forward, attributes);
      wanted_[kKernel] = backward.weights_desc();
      scratchpad_ = backward.scratchpad_desc();
      primitive_ = dnnl::convolution_backward_data(backward);
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(cpu(), direct, given_[kImages], wanted,
                                                                        given_[kOutput], g.stride, g.dilation, g.low,
                                                                        g.high, forward, attributes);
      wanted_[kKernel] = backward.diff_weights_desc();
      scratchpad_ = backward.scratchpad_desc();
      primitive_ = dnnl::convolution_backward_weights(backward);
    }
    if (wanted_[kKernel] != given_[kKernel]) {
      const auto& [from, to] = result_ == kKernel ? std::pair(wanted_[kKernel], given_[kKernel])
                                                  : std::pair(given_[kKernel], wanted_[kKernel]);
      reorder_ = dnnl::reorder(dnnl::reorder::primitive_desc(cpu(), from, cpu(), to));
    }
  }

  // oneDNN's plain loops, for what it has no fast kernel for.
  bool is_reference() const {
    const char* name = "";
    dnnl_primitive_desc_query(primitive_.get_primitive_desc(), dnnl_query_impl_info_str, 0, &name);
    return std::string(name).rfind("ref", 0) == 0;
  }

  // `following` are the operands of the epilogue, in order.
  void run(const std::array<void*, 3>& data, const std::vector<void*>& following) const {
    thread_local dnnl::stream stream(cpu());
    std::array<memory, 3> operands;
    for (int i : {kImages, kOutput}) operands[i] = memory(given_[i], cpu(), data[i]);
    memory kernel(given_[kKernel], cpu(), data[kKernel]);
    operands[kKernel] =
        reorder_ ? memory(wanted_[kKernel], cpu(), scratch(wanted_[kKernel].get_size(), kKernel)) : kernel;
    const memory scratchpad(scratchpad_, cpu(), scratch(scratchpad_.get_size(), kScratchpad));
    if (reorder_ && result_ != kKernel) reorder_->execute(stream, kernel, operands[kKernel]);
    std::unordered_map<int, memory> arguments = {
        {result_ == kImages ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, operands[kImages]},
        {result_ == kKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, operands[kKernel]},
        {result_ == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, operands[kOutput]},
        {DNNL_ARG_SCRATCHPAD, scratchpad}};
    for (size_t i = 0; i < following_.size(); ++i) {
      // A rectifier, which has no operand, comes last: so the places are those of the steps.
      arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1] = memory(following_[i], cpu(), following.at(i));
    }
    primitive_.execute(stream, arguments);
    if (reorder_ && result_ == kKernel) reorder_->execute(stream, operands[kKernel], kernel);
    stream.wait();
  }

 private:
  Operand result_;
  std::array<memory::desc, 3> given_, wanted_;
  std::vector<memory::desc> following_;
  memory::desc scratchpad_;
  dnnl::primitive primitive_;
  std::optional<dnnl::reorder> reorder_;
};

using Numbers = ffi::Span<const int64_t>;

std::shared_ptr<const Convolution> find(Numbers numbers, Numbers steps, bool half) {
  static std::mutex mutex;
  using Key = std::tuple<std::vector<int64_t>, std::vector<int64_t>, bool>;
  static std::map<Key, std::shared_ptr<const Convolution>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::vector<int64_t> epilogue(steps.begin(), steps.end());
  auto& entry = known[{std::vector<int64_t>(numbers.begin(), numbers.end()), epilogue, half}];
  if (!entry) {
    const auto type = half ? memory::data_type::bf16 : memory::data_type::f32;
    entry = std::make_shared<Convolution>(Geometry(numbers), type, epilogue);
  }
  return entry;
}

// The operands that are not the result come in the order images, kernel, output.
ffi::Error Convolve(ffi::AnyBuffer first, ffi::AnyBuffer second, ffi::RemainingArgs others,
                    ffi::Result<ffi::AnyBuffer> result, Numbers numbers, Numbers steps) {
  try {
    const auto convolution = find(numbers, steps, first.element_type() == ffi::DataType::BF16);
    const Operand place = Geometry(numbers).result();
    std::array<void*, 3> data;
    data[place] = result->untyped_data();
    data[place == kImages ? kKernel : kImages] = first.untyped_data();
    data[place == kOutput ? kKernel : kOutput] = second.untyped_data();
    std::vector<void*> following;
    for (size_t i = 0; i < others.size(); ++i) following.push_back(others.get<ffi::AnyBuffer>(i)->untyped_data());
    convolution->run(data, following);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
}

// Hands on what it is given, in the same memory: XLA cannot compute anew what lies behind a foreign function.
ffi::Error Keep(ffi::AnyBuffer given, ffi::Result<ffi::AnyBuffer> result) {
  if (result->untyped_data() != given.untyped_data()) {
    std::memcpy(result->untyped_data(), given.untyped_data(), given.size_bytes());
  }
  return ffi::Error::Success();
}

}  // namespace

// Says whether oneDNN has a fast kernel for this convolution on this processor: without AVX-512, none of bfloat16.
extern "C" bool convjax_serves(const int64_t* numbers, size_t count, const int64_t* steps, size_t length, bool half) {
  try {
    return !find(Numbers(numbers, count), Numbers(steps, length), half)->is_reference();
  } catch (const std::exception&) {
    return false;
  }
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_keep, Keep, ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Numbers>("numbers")
                                  .Attr<Numbers>("steps"));
