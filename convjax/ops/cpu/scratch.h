// Memory for what is computed in between: fresh pages cost more than what fills them, so that it is kept.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

// Memory that one call has for itself, aligned to a cache line; what it holds is left from the last one.
class Scratch {
 public:
  explicit Scratch(size_t size) : block_(take(size)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    const std::lock_guard<std::mutex> lock(pool().mutex);
    pool().free.push_back(block_);
  }

  void* data() const { return block_.data; }

 private:
  struct Block {
    void* data;
    size_t size;
  };

  // As many blocks as calls have had at once, whichever threads they came from.
  struct Pool {
    std::mutex mutex;
    std::vector<Block> free;
    size_t blocks = 0;
  };

  static Pool& pool() {
    static auto* pool = new Pool;  // never destroyed: threads may work until the process ends
    return *pool;
  }

  // Returns the smallest free block that is large enough; else gives up the largest for one that is.
  static Block take(size_t size) {
    const std::lock_guard<std::mutex> lock(pool().mutex);
    auto& free = pool().free;
    const auto smaller = [](const Block& a, const Block& b) { return a.size < b.size; };
    std::sort(free.begin(), free.end(), smaller);
    auto found = std::lower_bound(free.begin(), free.end(), Block{nullptr, size}, smaller);
    if (found != free.end()) {
      const Block block = *found;
      free.erase(found);
      return block;
    }
    if (!free.empty()) {
      std::free(free.back().data);
      free.pop_back();
      --pool().blocks;
    }
    free.reserve(pool().blocks + 1);  // so that all can be given back without an exception
    const size_t lines = size / 64 + 1;
    void* data = std::aligned_alloc(64, 64 * lines);
    if (data == nullptr) throw std::bad_alloc();
    ++pool().blocks;
    return {data, 64 * lines};
  }

  Block block_;
};
