// Convolutions, called by XLA through its foreign function interface.
//
// Images are NHWC, contiguous; the kernel may lie in any order. How to compute each geometry is found once and kept.

#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "convolution.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Numbers = ffi::Span<const int64_t>;

std::shared_ptr<const Algorithm> find(Numbers numbers, Numbers steps, bool half) {
  static std::mutex mutex;
  using Key = std::tuple<std::vector<int64_t>, std::vector<int64_t>, bool>;
  static std::map<Key, std::shared_ptr<const Algorithm>> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const Key key{{numbers.begin(), numbers.end()}, {steps.begin(), steps.end()}, half};
  auto& entry = known[key];
  if (!entry) {
    const auto& [described, epilogue, narrow] = key;
    const Geometry geometry(described);
    if (!narrow) entry = by_winograd(geometry, epilogue);
    if (!entry) entry = by_onednn(geometry, narrow, epilogue);
  }
  return entry;
}

// The operands that are not the result come in the order images, kernel, output.
ffi::Error Convolve(ffi::AnyBuffer first, ffi::AnyBuffer second, ffi::RemainingArgs others,
                    ffi::Result<ffi::AnyBuffer> result, Numbers numbers, Numbers steps) {
  try {
    const auto algorithm = find(numbers, steps, first.element_type() == ffi::DataType::BF16);
    const Operand place = algorithm->result;
    std::array<void*, 3> data;
    data[place] = result->untyped_data();
    data[place == kImages ? kKernel : kImages] = first.untyped_data();
    data[place == kOutput ? kKernel : kOutput] = second.untyped_data();
    std::vector<void*> following;
    for (size_t i = 0; i < others.size(); ++i) following.push_back(others.get<ffi::AnyBuffer>(i)->untyped_data());
    algorithm->run(data, following);
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("a convolution: ") + error.what());
  }
}

}  // namespace

// Says whether there is a fast way to compute this convolution on this processor: without AVX-512, none in bfloat16.
extern "C" bool convjax_serves(const int64_t* numbers, size_t count, const int64_t* steps, size_t length, bool half) {
  try {
    return find(Numbers(numbers, count), Numbers(steps, length), half)->is_fast();
  } catch (const std::exception&) {
    return false;
  }
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(convjax_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<Numbers>("numbers")
                                  .Attr<Numbers>("steps"));
