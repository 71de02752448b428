// Numbers of both precisions, which are computed with in float32.

#pragma once

#include <cstdint>
#include <cstring>

// The compiler's vector instructions of whatever processor this runs on.
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))

static inline float wide(float value) { return value; }
static inline float wide(uint16_t bits) {  // of a bfloat16: float32's upper half
  const uint32_t whole = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &whole, sizeof value);
  return value;
}

template <class T>
static inline T narrow(float value);
template <>
inline float narrow(float value) {
  return value;
}
template <>
inline uint16_t narrow(float value) {  // to the nearest, of two to the even one
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return value == value ? rounded : 0x7fc0;
}
