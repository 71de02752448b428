// Included by winograd.cc once for each kind of processor, in a namespace that defines kLanes and kRows.
//
// The 16 matrices of an array follow each other, `plane` numbers apart.

static_assert(kRows <= 8, "more are not unrolled");
static_assert(kTogether % kRows == 0, "the last rows of a block would lie behind it");

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

static inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

// The first numbers of a vector, zeros behind them.
static inline Vector load(const float* from, int64_t count) {
  if (count >= kLanes) return load(from);
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load(lanes);
}

static inline void store(float* to, Vector value, int64_t count) {
  if (count >= kLanes) return store(to, value);
  for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}

// How the columns of matrices are divided into panels, each of which lies by itself, one or two vectors wide.
struct Panels {
  int64_t vectors, width, count;

  explicit Panels(int64_t columns) {
    const int64_t needed = ceil_div(columns, kLanes);
    vectors = needed % 2 ? 1 : 2;
    width = vectors * kLanes;
    count = needed / vectors;
  }
};

// kRows rows of a product of matrices, whose sums stay in registers: c = a b, or what c was and `more`.
static inline __attribute__((always_inline)) void product(const int vectors, const bool more, int64_t depth,
                                                          const float* a, int64_t a_row, int64_t a_column,
                                                          const float* b, float* c, int64_t c_row) {
  Vector sums[kRows][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector right[2];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) right[j] = load(b + (k * vectors + j) * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const float left = a[i * a_row + k * a_column];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) {
      float* to = c + i * c_row + j * kLanes;
      store(to, more ? load(to) + sums[i][j] : sums[i][j]);
    }
  }
}

static void product_of_rows(int64_t vectors, int64_t depth, const float* a, int64_t a_row, const float* b, float* c,
                            int64_t c_row) {
  if (vectors == 2) return product(2, false, depth, a, a_row, 1, b, c, c_row);
  product(1, false, depth, a, a_row, 1, b, c, c_row);
}

static void add_product_of_columns(int64_t vectors, int64_t depth, const float* a, int64_t a_column, const float* b,
                                   float* c, int64_t c_row) {
  if (vectors == 2) return product(2, true, depth, a, 1, a_column, b, c, c_row);
  product(1, true, depth, a, 1, a_column, b, c, c_row);
}

// G g G^T: panels of columns, the output's channels, with a row for each of the inputs.
static void transform_tap(const Shape& s, const float* kernel, int64_t input, int64_t first, int64_t width, float* to,
                          int64_t plane) {
  for (int64_t j = 0; j < width; ++j) {
    float g[3][3] = {}, half[4][3];
    if (first + j < s.outputs) {
      const float* taps = kernel + input * s.next_input + (first + j) * s.next_output;
      for (int u = 0; u < 3; ++u) {
        for (int v = 0; v < 3; ++v) g[u][v] = taps[u * s.next_row + v * s.next_column];
      }
    }
    for (int v = 0; v < 3; ++v) {
      half[0][v] = g[0][v];
      half[1][v] = 0.5f * (g[0][v] + g[2][v] + g[1][v]);
      half[2][v] = 0.5f * (g[0][v] + g[2][v] - g[1][v]);
      half[3][v] = g[2][v];
    }
    for (int u = 0; u < 4; ++u) {
      float* row = to + 4 * u * plane + j;
      row[0] = half[u][0];
      row[plane] = 0.5f * (half[u][0] + half[u][2] + half[u][1]);
      row[2 * plane] = 0.5f * (half[u][0] + half[u][2] - half[u][1]);
      row[3 * plane] = half[u][2];
    }
  }
}

// B^T d B of 4 x 4 pixels; those outside of the image are zeros.
static void transform_pixels(const Shape& s, const float* x, const Tile& at, const float* zeros, float* to,
                             int64_t plane) {
  const int64_t row = at.row - s.top, column = at.column - s.left;
  const bool inside = row >= 0 && row + 4 <= s.height && column >= 0 && column + 4 <= s.width;
  const float* first = x + ((at.image * s.height + row) * s.width + column) * s.inputs;
  const float* pixels[4][4];
  for (int u = 0; u < 4; ++u) {
    for (int v = 0; v < 4; ++v) {
      const bool pixel = inside || (row + u >= 0 && row + u < s.height && column + v >= 0 && column + v < s.width);
      pixels[u][v] = pixel ? first + (u * s.width + v) * s.inputs : zeros;
    }
  }
  for (int64_t c = 0; c < s.inputs; c += kLanes) {
    const int64_t left = s.inputs - c;
    Vector half[4][4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const Vector d0 = load(pixels[0][v] + c, left), d1 = load(pixels[1][v] + c, left);
      const Vector d2 = load(pixels[2][v] + c, left), d3 = load(pixels[3][v] + c, left);
      half[0][v] = d0 - d2;
      half[1][v] = d1 + d2;
      half[2][v] = d2 - d1;
      half[3][v] = d1 - d3;
    }
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      float* row = to + 4 * u * plane + c;
      store(row, half[u][0] - half[u][2], left);
      store(row + plane, half[u][1] + half[u][2], left);
      store(row + 2 * plane, half[u][2] - half[u][1], left);
      store(row + 3 * plane, half[u][1] - half[u][3], left);
    }
  }
}

// A dy A^T of 2 x 2 pixels, into panels that lie `panel` numbers apart.
static void transform_slopes(const Shape& s, const float* dy, const Tile& at, const float* zeros, const Panels& panels,
                             float* to, int64_t plane, int64_t panel) {
  const float* pixels[2][2];
  for (int u = 0; u < 2; ++u) {
    for (int v = 0; v < 2; ++v) {
      const int64_t row = at.row + u, column = at.column + v;
      const bool inside = row < s.rows && column < s.columns;
      pixels[u][v] = inside ? dy + ((at.image * s.rows + row) * s.columns + column) * s.outputs : zeros;
    }
  }
  for (int64_t c = 0; c < s.outputs; c += kLanes) {
    const int64_t left = s.outputs - c;
    Vector half[4][2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Vector d0 = load(pixels[0][v] + c, left), d1 = load(pixels[1][v] + c, left);
      half[0][v] = d0;
      half[1][v] = d0 + d1;
      half[2][v] = d0 - d1;
      half[3][v] = -d1;
    }
    float* begin = to + c / panels.width * panel + c % panels.width;
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      float* row = begin + 4 * u * plane;
      store(row, half[u][0]);
      store(row + plane, half[u][0] + half[u][1]);
      store(row + 2 * plane, half[u][0] - half[u][1]);
      store(row + 3 * plane, -half[u][1]);
    }
  }
}

// What an epilogue makes of the numbers at `place` of a result, whose channels these are.
static inline Vector followed(const Epilogue& epilogue, Vector y, int64_t place, int64_t channel, int64_t count) {
  size_t next = 0;
  const auto operand = [&](int64_t at) {
    return load(static_cast<const float*>(epilogue.operands[next++]) + at, count);
  };
  for (int64_t step : epilogue.steps) {
    switch (step) {
      case kSubtract:
        y -= operand(channel);
        break;
      case kMultiply:
        y *= operand(channel);
        break;
      case kAdd:
        y += operand(channel);
        break;
      case kAddArray:
        y += operand(place);
        break;
      case kRectify:
      case kRectify6:
        y = y < 0 ? Vector{} : y;  // what is not a number stays so
        if (step == kRectify6) y = y > 6 ? Vector{} + 6 : y;
        break;
    }
  }
  return y;
}

// A^T m A, the tile's output, of channels from `first` on.
static void transform_back(const Shape& s, const float* from, int64_t plane, const Tile& at, int64_t first,
                           int64_t count, const Epilogue& epilogue, float* y) {
  for (int64_t c = 0; c < count; c += kLanes) {
    const int64_t left = count - c;
    Vector half[2][4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const float* column = from + v * plane + c;
      const Vector m0 = load(column), m1 = load(column + 4 * plane);
      const Vector m2 = load(column + 8 * plane), m3 = load(column + 12 * plane);
      half[0][v] = m0 + m1 + m2;
      half[1][v] = m1 - m2 - m3;
    }
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u) {
      if (at.row + u >= s.rows) break;
      const int64_t place = ((at.image * s.rows + at.row + u) * s.columns + at.column) * s.outputs + first + c;
      const Vector one = half[u][0] + half[u][1] + half[u][2], two = half[u][1] - half[u][2] - half[u][3];
      store(y + place, followed(epilogue, one, place, first + c, left), left);
      if (at.column + 1 >= s.columns) continue;
      store(y + place + s.outputs, followed(epilogue, two, place + s.outputs, first + c, left), left);
    }
  }
}

// y = x convolved with the kernel, and what follows.
static void convolve(const Shape& s, const float* x, const float* kernel, const Epilogue& epilogue, float* y) {
  const Panels panels(s.outputs);
  // Blocks of tiles, as many for each thread; whatever these are, a tile's numbers are the same.
  const int64_t tiles = s.tiles(), threads = omp_get_max_threads();
  const int64_t turns = ceil_div(ceil_div(tiles, kTogether), threads);
  const int64_t together = ceil_div(ceil_div(tiles, turns * threads), kRows) * kRows;
  const int64_t blocks = ceil_div(tiles, together);
  const int64_t group = std::max<int64_t>(1, kChannels / panels.width), row = group * panels.width;
  const int64_t kernel_plane = panels.count * s.inputs * panels.width;
  const int64_t plane = together * s.inputs + kApart, product_plane = together * row + kApart;
  const Floats transformed(16 * kernel_plane);
  const Floats all_pixels(16 * plane * threads), all_products(16 * product_plane * threads);
  const std::vector<float> zeros(s.inputs);
#pragma omp parallel
  {
    float* pixels = all_pixels.data + 16 * plane * omp_get_thread_num();
    float* products = all_products.data + 16 * product_plane * omp_get_thread_num();
#pragma omp for collapse(2) schedule(static)
    for (int64_t p = 0; p < panels.count; ++p) {
      for (int64_t c = 0; c < s.inputs; ++c) {
        float* to = transformed.data + (p * s.inputs + c) * panels.width;
        transform_tap(s, kernel, c, p * panels.width, panels.width, to, kernel_plane);
      }
    }
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * together, count = std::min(together, tiles - first);
      Tile tile(s, first);
      for (int64_t t = 0; t < count; ++t, tile.advance(s)) {
        transform_pixels(s, x, tile, zeros.data(), pixels + t * s.inputs, plane);
      }
      for (int64_t begin = 0; begin < panels.count; begin += group) {
        const int64_t end = std::min(panels.count, begin + group);
        for (int64_t i = 0; i < 16; ++i) {
          for (int64_t p = begin; p < end; ++p) {
            const float* right = transformed.data + i * kernel_plane + p * s.inputs * panels.width;
            // The last rows may be those of no tile: what they hold is not read.
            for (int64_t t = 0; t < count; t += kRows) {
              product_of_rows(panels.vectors, s.inputs, pixels + i * plane + t * s.inputs, s.inputs, right,
                              products + i * product_plane + t * row + (p - begin) * panels.width, row);
            }
          }
        }
        const int64_t channel = begin * panels.width, channels = std::min(s.outputs - channel, row);
        tile = Tile(s, first);
        for (int64_t t = 0; t < count; ++t, tile.advance(s)) {
          transform_back(s, products + t * row, product_plane, tile, channel, channels, epilogue, y);
        }
      }
    }
  }
}

// G^T m G of one input and all outputs.
static void transform_back_to_taps(const Shape& s, const float* sums, int64_t plane, int64_t input, float* kernel) {
  for (int64_t o = 0; o < s.outputs; ++o) {
    float half[3][4];
    for (int v = 0; v < 4; ++v) {
      const float* column = sums + v * plane + o;
      const float m0 = column[0], m1 = column[4 * plane], m2 = column[8 * plane], m3 = column[12 * plane];
      half[0][v] = m0 + 0.5f * (m1 + m2);
      half[1][v] = 0.5f * (m1 - m2);
      half[2][v] = 0.5f * (m1 + m2) + m3;
    }
    for (int u = 0; u < 3; ++u) {
      float* to = kernel + input * s.next_input + o * s.next_output + u * s.next_row;
      to[0] = half[u][0] + 0.5f * (half[u][1] + half[u][2]);
      to[s.next_column] = 0.5f * (half[u][1] - half[u][2]);
      to[2 * s.next_column] = 0.5f * (half[u][1] + half[u][2]) + half[u][3];
    }
  }
}

// The gradient of the kernel: threads divide the tiles to transform them, then the matrices to sum over them.
static void kernel_gradient(const Shape& s, const float* x, const float* dy, float* kernel) {
  const Panels panels(s.outputs);
  const int64_t rows = ceil_div(s.inputs, kRows) * kRows, columns = panels.count * panels.width;
  const int64_t tiles = s.tiles(), fit = kNumbers / (16 * (rows + columns));
  const int64_t together = std::min(tiles, std::max(kFewSummed, std::min(kSummed, fit)));
  const int64_t plane = together * rows + kApart, slope_plane = together * columns + kApart;
  const int64_t sum_plane = rows * columns, panel = together * panels.width;
  const Floats pixels_of(16 * plane), slopes_of(16 * slope_plane), sums_of(16 * sum_plane);
  float *pixels = pixels_of.data, *slopes = slopes_of.data, *sums = sums_of.data;
  const std::vector<float> zeros(std::max(s.inputs, s.outputs));
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < 16; ++i) std::fill_n(sums + i * sum_plane, sum_plane, 0.f);
    for (int64_t first = 0; first < tiles; first += together) {
      const int64_t count = std::min(together, tiles - first);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < count; ++t) {
        const Tile tile(s, first + t);
        transform_pixels(s, x, tile, zeros.data(), pixels + t * rows, plane);
        transform_slopes(s, dy, tile, zeros.data(), panels, slopes + t * panels.width, slope_plane, panel);
      }
#pragma omp for collapse(2) schedule(static)
      for (int64_t i = 0; i < 16; ++i) {
        // The last rows may be those of no channel: what they hold is not read.
        for (int64_t c = 0; c < rows; c += kRows) {
          for (int64_t p = 0; p < panels.count; ++p) {
            add_product_of_columns(panels.vectors, count, pixels + i * plane + c, rows,
                                   slopes + i * slope_plane + p * panel,
                                   sums + i * sum_plane + c * columns + p * panels.width, columns);
          }
        }
      }
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < s.inputs; ++c) transform_back_to_taps(s, sums + c * columns, sum_plane, c, kernel);
  }
}
