// Convolutions on oneDNN. Where it wants the kernel in another layout, that is reordered into scratch memory.

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "convolution.h"
#include "dnnl.hpp"
#include "scratch.h"

using dnnl::memory;

namespace {

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// A primitive with the reorders around it.
class OneDnn : public Algorithm {
 public:
  OneDnn(const Geometry& g, memory::data_type type, const std::vector<int64_t>& steps) : Algorithm(g) {
    const auto any = memory::format_tag::any;
    const auto nhwc = memory::format_tag::nhwc;
    Dims kernel = g.kernel, strides = g.kernel_strides, dilation = g.dilation;
    for (auto& pixels : dilation) --pixels;  // oneDNN counts those between the taps
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
      if (step >= kRectify) {
        epilogue.append_eltwise(step == kRectify    ? dnnl::algorithm::eltwise_relu
                                : step == kRectify6 ? dnnl::algorithm::eltwise_clip
                                                    : dnnl::algorithm::eltwise_tanh,
                                0.f, step == kRectify6 ? 6.f : 0.f);
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
                                                            given_[kOutput], g.stride, dilation, g.low, g.high,
                                                            attributes);
    wanted_ = given_;
    if (g.task == kForward) {
      wanted_[kKernel] = forward.weights_desc();
      scratchpad_ = forward.scratchpad_desc();
      primitive_ = dnnl::convolution_forward(forward);
    } else if (g.task == kBackwardData) {
      const dnnl::convolution_backward_data::primitive_desc backward(cpu(), direct, given_[kImages], wanted,
                                                                     given_[kOutput], g.stride, dilation, g.low,
                                                                     g.high, forward, attributes);
      wanted_[kKernel] = backward.weights_desc();
      scratchpad_ = backward.scratchpad_desc();
      primitive_ = dnnl::convolution_backward_data(backward);
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(cpu(), direct, given_[kImages], wanted,
                                                                        given_[kOutput], g.stride, dilation, g.low,
                                                                        g.high, forward, attributes);
      wanted_[kKernel] = backward.diff_weights_desc();
      scratchpad_ = backward.scratchpad_desc();
      primitive_ = dnnl::convolution_backward_weights(backward);
    }
    if (wanted_[kKernel] != given_[kKernel]) {
      const auto& [from, to] = result == kKernel ? std::pair(wanted_[kKernel], given_[kKernel])
                                                  : std::pair(given_[kKernel], wanted_[kKernel]);
      reorder_ = dnnl::reorder(dnnl::reorder::primitive_desc(cpu(), from, cpu(), to));
    }
  }

  // Where it is not, oneDNN has plain loops alone.
  bool is_fast() const override {
    const char* name = "";
    dnnl_primitive_desc_query(primitive_.get_primitive_desc(), dnnl_query_impl_info_str, 0, &name);
    return std::string(name).rfind("ref", 0) != 0;
  }

  void run(const std::array<void*, 3>& data, const std::vector<void*>& following) const override {
    thread_local dnnl::stream stream(cpu());
    std::array<memory, 3> operands;
    for (int i : {kImages, kOutput}) operands[i] = memory(given_[i], cpu(), data[i]);
    memory kernel(given_[kKernel], cpu(), data[kKernel]);
    const Scratch reordered(reorder_ ? wanted_[kKernel].get_size() : 0), working(scratchpad_.get_size());
    operands[kKernel] = reorder_ ? memory(wanted_[kKernel], cpu(), reordered.data()) : kernel;
    const memory scratchpad(scratchpad_, cpu(), working.data());
    if (reorder_ && result != kKernel) reorder_->execute(stream, kernel, operands[kKernel]);
    std::unordered_map<int, memory> arguments = {
        {result == kImages ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, operands[kImages]},
        {result == kKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, operands[kKernel]},
        {result == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, operands[kOutput]},
        {DNNL_ARG_SCRATCHPAD, scratchpad}};
    for (size_t i = 0; i < following_.size(); ++i) {
      // What has no operand comes last: so the places are those of the steps.
      arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1] = memory(following_[i], cpu(), following.at(i));
    }
    primitive_.execute(stream, arguments);
    if (reorder_ && result == kKernel) reorder_->execute(stream, operands[kKernel], kernel);
    stream.wait();
  }

 private:
  std::array<memory::desc, 3> given_, wanted_;
  std::vector<memory::desc> following_;
  memory::desc scratchpad_;
  dnnl::primitive primitive_;
  std::optional<dnnl::reorder> reorder_;
};

}  // namespace

std::unique_ptr<const Algorithm> by_onednn(const Geometry& geometry, bool half, const std::vector<int64_t>& steps) {
  return std::make_unique<OneDnn>(geometry, half ? memory::data_type::bf16 : memory::data_type::f32, steps);
}
