/* Winograd's convolution F(2×2, 3×3) and the gradient of its kernel, F(3×3, 2×2).
 *
 * Of each 4×4 tile d of the input with the kernel g, 2×2 outputs: Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, so 16
 * products instead of 36, summed over input channels: 16 matrix products [tiles, ci] [ci, co]. The
 * gradient is the same in another order: 3×3 numbers of each 4×4 tile of the input and 2×2 tile of
 * the output's gradient, summed over tiles. Additions only besides: the error measured is no larger
 * than the direct sum's, whose terms are nine times as many. Blocks of tiles are worked on in the
 * cache. F(4×4, 3×3) would need 1.8 times fewer products yet, but is known to lose digits. Source: Lavin and
 * Gray 2016 (arXiv 1509.09308), section 4.1.
 */
#include "tiles.h"

enum { BLOCK = 384 * 1024 }; /* bytes of transformed input that are worked on at a time */

typedef struct {
  const conv *c;
  float *u;          /* the transformed kernel [16, ci, co], or [parts, 16, ci, co] of its gradient */
  const float *zero; /* what stands beyond the border */
  long high, wide;   /* tiles of an image */
  long tiles, block; /* of all images; worked on at a time */
  float *bias;       /* [parts, co] of its gradient */
  float *broken;     /* [n]: not 0 where an image's output is not finite */
} work;

/* Where `tiles` share one transformed kernel, which is 16/9 as large as the kernel, and pay for it. */
bool by_winograd(const conv *c, long tiles) {
  return c->kh == 3 && c->kw == 3 && c->stride == 1 && c->ci % V == 0 && c->co % V == 0 &&
         tiles >= 48 && c->ci * c->co <= 1024 * tiles;
}

static work plan(const conv *c) {
  work w = {.c = c, .high = ceil_div(c->oh, 2), .wide = ceil_div(c->ow, 2)};
  w.tiles = c->n * w.high * w.wide;
  w.block = max(TILE, BLOCK / 4 / 16 / c->ci / TILE * TILE);
  while (w.block > TILE && w.tiles < 8 * w.block) w.block = ceil_div(w.block, 2);
  long widest = max(c->ci, c->co);
  float *zero = scratch(1, widest);
  memset(zero, 0, widest * sizeof(float));
  w.zero = zero;
  return w;
}

/* The size×size pixels of a tile from row y and column x of an image on, [high, wide, count]. */
INLINE void gather(const int size, const float *at[], const float *image, const float *zero,
                   long y, long x, long high, long wide, long count) {
  for (int i = 0; i < size; i++)
    for (int j = 0; j < size; j++) {
      bool inside = y + i >= 0 && y + i < high && x + j >= 0 && x + j < wide;
      at[size * i + j] = inside ? image + ((y + i) * wide + x + j) * count : zero;
    }
}

/* One axis of a transform: of four numbers, a stride apart. */
#define FOUR(m, s) vec a = m[0], b = m[s], c = m[2 * s], d = m[3 * s]
INLINE void data_axis(vec *m, int s) { FOUR(m, s); m[0] = a - c, m[s] = b + c, m[2 * s] = c - b, m[3 * s] = b - d; }

/* Bᵀ d B of the input's tiles [from, to): [16, ., ci], each of the 16 `apart` from the next. */
static void transform_input(const work *w, long from, long to, float *v, long apart) {
  const conv *c = w->c;
  const float *at[16];
  for (long t = from; t < to; t++, v += c->ci) {
    long image = t / w->wide / w->high, y = t / w->wide % w->high, x = t % w->wide;
    gather(4, at, c->x + image * c->h * c->wd * c->ci, w->zero, 2 * y - c->top, 2 * x - c->left,
           c->h, c->wd, c->ci);
    for (long k = 0; k < c->ci; k += V) {
      vec m[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) m[i] = *(const vec *)(at[i] + k);
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) data_axis(m + i, 4);
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) data_axis(m + 4 * i, 1);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) *(vec *)(v + i * apart + k) = m[i];
    }
  }
}

/* ---- y = x * kernel --------------------------------------------------------------------------- */

/* G g Gᵀ for one input channel. */
static void transform_kernel(void *data, long k) {
  const work *w = data;
  const conv *c = w->c;
  for (long o = 0; o < c->co; o += V) {
    vec half[4][3];
    for (int j = 0; j < 3; j++) {
      vec g[3];
      for (int i = 0; i < 3; i++) g[i] = *(const vec *)(c->w + ((3 * i + j) * c->ci + k) * c->co + o);
      vec sum = (g[0] + g[2]) * 0.5f, middle = g[1] * 0.5f;
      half[0][j] = g[0], half[1][j] = sum + middle, half[2][j] = sum - middle, half[3][j] = g[2];
    }
    for (int i = 0; i < 4; i++) {
      vec sum = (half[i][0] + half[i][2]) * 0.5f, middle = half[i][1] * 0.5f;
      vec row[4] = {half[i][0], sum + middle, sum - middle, half[i][2]};
      for (int j = 0; j < 4; j++)
        *(vec *)(w->u + ((4 * i + j) * c->ci + k) * c->co + o) = row[j];
    }
  }
}

/* Aᵀ m A of one tile, and the bias: written where the image has pixels. `odd` becomes NaN where one
 * is not finite. */
INLINE void transform_output(const work *w, long t, long o, const float *products, long apart,
                             float *odd) {
  const conv *c = w->c;
  long image = t / w->wide / w->high, y = t / w->wide % w->high * 2, x = t % w->wide * 2;
  vec m[16], half[8];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) m[i] = *(const vec *)(products + i * apart);
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    half[j] = m[j] + m[4 + j] + m[8 + j];
    half[4 + j] = m[4 + j] - m[8 + j] - m[12 + j];
  }
  vec bias = *(const vec *)(c->bias + o);
  float *to = c->y + ((image * c->oh + y) * c->ow + x) * c->co + o;
  for (int i = 0; i < 2 && y + i < c->oh; i++) {
    const vec *h = half + 4 * i;
    vec left = h[0] + h[1] + h[2] + bias, right = h[1] - h[2] - h[3] + bias;
    *(vec *)(to + i * c->ow * c->co) = left;
    if (x + 1 < c->ow) *(vec *)(to + (i * c->ow + 1) * c->co) = right;
    *(vec *)odd += (left - left) + (right - right);
  }
}

static void winograd_item(void *data, long item) {
  const work *w = data;
  const conv *c = w->c;
  long from = item * w->block, to = min(w->tiles, from + w->block), count = to - from;
  long of_input = count * c->ci + V, of_output = count * 2 * V; /* not a power of 2 apart */
  float *v = scratch(0, 16 * of_input), *m = scratch(2, 16 * of_output + count * V);
  float *odd = memset(m + 16 * of_output, 0, count * V * sizeof(float));
  transform_input(w, from, to, v, of_input);
  conv product = {.ci = c->ci, .co = 2 * V, .kh = 1, .kw = 1, .stride = 1};
  long pieces = ceil_div(count, TILE);
  for (long o = 0; o < c->co; o += 2 * V) {
    int Q = (int)min(2, (c->co - o) / V);
    for (int i = 0; i < 16; i++)
      for (long p = 0; p < pieces; p++) {
        long first = p * count / pieces, last = (p + 1) * count / pieces;
        some_pixels((int)(last - first), Q, &product, v + i * of_input + first * c->ci,
                    w->u + i * c->ci * c->co + o, c->co, V, w->zero, m + i * of_output + first * 2 * V, V);
      }
    for (long t = from; t < to; t++)
      for (int q = 0; q < Q; q++)
        transform_output(w, t, o + q * V, m + (t - from) * 2 * V + q * V, of_output,
                         odd + (t - from) * V);
  }
  for (long i = 0; i < count * V; i++)
    if (odd[i] != 0) w->broken[(from + i / V) / w->wide / w->high] = 1;
}

const float *winograd(XLA_FFI_CallFrame *frame, conv *c) {
  work w = plan(c);
  w.u = scratch(3, 16 * c->ci * c->co + c->n);
  w.broken = memset(w.u + 16 * c->ci * c->co, 0, c->n * sizeof(float));
  share(frame, c->ci, transform_kernel, &w);
  share(frame, ceil_div(w.tiles, w.block), winograd_item, &w);
  return w.broken;
}

/* ---- the gradient of the kernel and the bias ------------------------------------------------------ */

/* G g Gᵀ of the tiles [from, to) and channels [begin, stop) of the output's gradient:
 * [16, ., stop - begin]; and their sum. */
static void transform_gradient(const work *w, long from, long to, long begin, long stop, float *v,
                               long apart, float *sum) {
  const conv *c = w->c;
  const float *at[4];
  for (long t = from; t < to; t++, v += stop - begin) {
    long image = t / w->wide / w->high, y = t / w->wide % w->high, x = t % w->wide;
    gather(2, at, c->w + image * c->oh * c->ow * c->co, w->zero, 2 * y, 2 * x, c->oh, c->ow, c->co);
    for (long o = begin; o < stop; o += V) {
      vec g[4], half[8];
      for (int i = 0; i < 4; i++) g[i] = *(const vec *)(at[i] + o);
      *(vec *)(sum + o) += g[0] + g[1] + (g[2] + g[3]);
      for (int j = 0; j < 2; j++) {
        half[j] = g[j], half[6 + j] = g[2 + j];
        half[2 + j] = (g[j] + g[2 + j]) * 0.5f, half[4 + j] = (g[j] - g[2 + j]) * 0.5f;
      }
      for (int i = 0; i < 4; i++) {
        vec a = half[2 * i], b = half[2 * i + 1];
        vec row[4] = {a, (a + b) * 0.5f, (a - b) * 0.5f, b};
        for (int j = 0; j < 4; j++) *(vec *)(v + (4 * i + j) * apart + o - begin) = row[j];
      }
    }
  }
}

/* One part's sum over its tiles, for one group of output channels. */
static void gradient_item(void *data, long item) {
  const work *w = data;
  const conv *c = w->c;
  long part = item / c->groups, group = item % c->groups;
  long each = ceil_div(ceil_div(c->co, 2 * V), c->groups) * 2 * V;
  long begin = group * each, stop = min(c->co, begin + each), width = stop - begin;
  if (width <= 0) return;
  float *u = w->u + part * 16 * c->ci * c->co, *bias = w->bias + part * c->co;
  for (long row = 0; row < 16 * c->ci; row++)
    memset(u + row * c->co + begin, 0, width * sizeof(float));
  memset(bias + begin, 0, width * sizeof(float));
  long end = (part + 1) * w->tiles / c->parts;
  for (long from = part * w->tiles / c->parts, to; from < end; from = to) {
    to = min(end, from + w->block);
    long count = to - from, of_input = count * c->ci + V, of_gradient = count * width + V;
    float *v = scratch(0, 16 * of_input), *g = scratch(2, 16 * of_gradient);
    transform_input(w, from, to, v, of_input);
    transform_gradient(w, from, to, begin, stop, g, of_gradient, bias);
    for (int i = 0; i < 16; i++)
      for (long o = 0; o < width; o += 2 * V)
        for (long k = 0; k < c->ci; k += CI)
          some_channels((int)min(CI, c->ci - k), (int)min(2, (width - o) / V), v + i * of_input + k,
                        c->ci, g + i * of_gradient + o, width, count,
                        u + (i * c->ci + k) * c->co + begin + o, c->co);
  }
}

/* Aᵀ u A of one input channel, of all parts added up in their order. */
static void transform_back(void *data, long k) {
  const work *w = data;
  const conv *c = w->c;
  for (long o = 0; o < c->co; o += V) {
    vec m[16];
    for (int i = 0; i < 16; i++) {
      m[i] = (vec){0};
      for (long part = 0; part < c->parts; part++)
        m[i] += *(const vec *)(w->u + ((part * 16 + i) * c->ci + k) * c->co + o);
    }
    vec half[12];
    for (int j = 0; j < 4; j++) {
      half[j] = m[j] + m[4 + j] + m[8 + j], half[4 + j] = m[4 + j] - m[8 + j];
      half[8 + j] = m[4 + j] + m[8 + j] - m[12 + j];
    }
    for (int i = 0; i < 3; i++) {
      const vec *h = half + 4 * i;
      vec row[3] = {h[0] + h[1] + h[2], h[1] - h[2], h[1] + h[2] - h[3]};
      for (int j = 0; j < 3; j++)
        *(vec *)(c->y + ((3 * i + j) * c->ci + k) * c->co + o) = row[j];
    }
  }
}

void winograd_gradient(XLA_FFI_CallFrame *frame, conv *c) {
  work w = plan(c);
  split(c, w.tiles);
  w.u = scratch(3, c->parts * (16 * c->ci + 1) * c->co);
  w.bias = w.u + c->parts * 16 * c->ci * c->co;
  share(frame, c->parts * c->groups, gradient_item, &w);
  share(frame, c->ci, transform_back, &w);
  for (long o = 0; o < c->co; o++) {
    c->total_bias[o] = 0;
    for (long part = 0; part < c->parts; part++) c->total_bias[o] += w.bias[part * c->co + o];
  }
}
