// Memory that a thread keeps for its next convolution: fresh pages cost more than what fills them.

#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>
#include <new>

enum Slot { kReorderedKernel, kScratchpad, kTransformedKernel, kTransformedImages, kTransformedOutput, kSlots };

// Returns at least so many bytes, aligned to a cache line, with what they held before.
inline void* scratch(size_t size, Slot slot) {
  struct Block {
    void* data = nullptr;
    size_t size = 0;
    ~Block() { std::free(data); }
  };
  thread_local std::array<Block, kSlots> blocks;
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
