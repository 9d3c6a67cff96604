/* Winograd's convolution F(4×4, 3×3), and the gradient of its kernel, its transpose F(3×3, 4×4).
 *
 * Of each 6×6 tile d of the input with the kernel g, 4×4 outputs: Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, so 36
 * products instead of 144, summed over input channels: 36 matrix products [tiles, ci] [ci, co]. The
 * gradient of g, from that of the output y: Gᵀ[(A y Aᵀ) ⊙ (Bᵀ d B)]G, summed over tiles. Blocks of
 * tiles are worked on in the cache; which tiles share a block changes no number. Source: Lavin and
 * Gray 2016 (arXiv 1509.09308), section 4. Deviation: polynomials are interpolated at 0, ±5/8, ±3/2
 * and ∞ instead of 0, ±1, ±2 and ∞, which rounds less.
 */
#include "tiles.h"

enum {
  OUT = 4, IN = 6, ALL = IN * IN,
  BLOCK = 256 * 1024, /* bytes of transformed input that are worked on at a time */
  WIDE = 128          /* input channels of which a transformed kernel for 2V fills the cache */
};

/* Points p and q, their powers, and what the interpolation divides by; exact but for the divisors. */
#define P1 0.625f
#define Q1 1.5f
#define P2 (P1 * P1)
#define Q2 (Q1 * Q1)
#define P3 (P1 * P2)
#define Q3 (Q1 * Q2)
#define N0 (1 / (P2 * Q2))
#define NP (1 / (2 * P2 * (P2 - Q2)))
#define NQ (1 / (2 * Q2 * (Q2 - P2)))

/* What both ways below call: a copy of it for each might round otherwise. */
#define ONE_COPY static __attribute__((noinline, noclone))

typedef struct {
  const conv *c;
  float *u;          /* the transformed kernel [36, ci, co], or [parts, 36, ci, co] of its gradient */
  const float *zero; /* what stands beyond the border */
  long high, wide;   /* tiles of an image */
  long tiles, block; /* of all images; worked on at a time */
  float *bias;       /* [parts, co] of its gradient */
  long channels;     /* of the output, worked on at a time */
  float *broken;     /* [n]: not 0 where an image's output is not finite */
} work;

static long tiles_of(const conv *c) { return ceil_div(c->oh, OUT) * ceil_div(c->ow, OUT); }

static bool fits(const conv *c) {
  return c->kh == 3 && c->kw == 3 && c->stride == 1 && c->ci % V == 0 && c->co % V == 0;
}

/* Where the tiles of an image, for it must not depend on how many there are, pay for the kernel's transform. */
bool by_winograd(const conv *c) { return fits(c) && tiles_of(c) >= 4; }

/* Where all tiles pay for the sums of 36 numbers of each pair of channels, 4 times as many as the kernel's. */
bool gradient_by_winograd(const conv *c) {
  long tiles = c->n * tiles_of(c);
  return fits(c) && tiles >= 48 && c->ci * c->co <= 1024 * tiles;
}

static work plan(const conv *c) {
  work w = {.c = c, .high = ceil_div(c->oh, OUT), .wide = ceil_div(c->ow, OUT)};
  w.tiles = c->n * w.high * w.wide;
  w.block = max(TILE, BLOCK / 4 / ALL / c->ci / TILE * TILE);
  while (w.block > TILE && w.tiles < 8 * w.block) w.block = ceil_div(w.block, 2);
  long widest = max(c->ci, c->co);
  float *zero = scratch(1, widest);
  memset(zero, 0, widest * sizeof(float));
  w.zero = zero;
  return w;
}

/* ---- one axis of each transform: from numbers s apart to numbers r apart ----------------------------- */

typedef void axis(const vec *m, int s, vec *to, int r);

INLINE void input_axis(const vec *m, int s, vec *to, int r) { /* Bᵀ: 6 to 6 */
  vec d0 = m[0], d1 = m[s], d2 = m[2 * s], d3 = m[3 * s], d4 = m[4 * s], d5 = m[5 * s];
  vec even_p = d4 - Q2 * d2, odd_p = P1 * (d3 - Q2 * d1);
  vec even_q = d4 - P2 * d2, odd_q = Q1 * (d3 - P2 * d1);
  to[0] = P2 * Q2 * d0 - (P2 + Q2) * d2 + d4;
  to[r] = even_p + odd_p, to[2 * r] = even_p - odd_p;
  to[3 * r] = even_q + odd_q, to[4 * r] = even_q - odd_q;
  to[5 * r] = P2 * Q2 * d1 - (P2 + Q2) * d3 + d5;
}

INLINE void kernel_axis(const vec *m, int s, vec *to, int r) { /* G: 3 to 6 */
  vec g0 = m[0], g1 = m[s], g2 = m[2 * s];
  vec even_p = NP * g0 + NP * P2 * g2, odd_p = NP * P1 * g1;
  vec even_q = NQ * g0 + NQ * Q2 * g2, odd_q = NQ * Q1 * g1;
  to[0] = N0 * g0, to[5 * r] = g2;
  to[r] = even_p + odd_p, to[2 * r] = even_p - odd_p;
  to[3 * r] = even_q + odd_q, to[4 * r] = even_q - odd_q;
}

INLINE void output_axis(const vec *m, int s, vec *to, int r) { /* Aᵀ: 6 to 4 */
  vec even_p = m[s] + m[2 * s], odd_p = m[s] - m[2 * s];
  vec even_q = m[3 * s] + m[4 * s], odd_q = m[3 * s] - m[4 * s];
  to[0] = m[0] + even_p + even_q;
  to[r] = P1 * odd_p + Q1 * odd_q;
  to[2 * r] = P2 * even_p + Q2 * even_q;
  to[3 * r] = P3 * odd_p + Q3 * odd_q + m[5 * s];
}

INLINE void gradient_axis(const vec *m, int s, vec *to, int r) { /* A: 4 to 6 */
  vec y0 = m[0], y1 = m[s], y2 = m[2 * s], y3 = m[3 * s];
  vec even_p = y0 + P2 * y2, odd_p = P1 * y1 + P3 * y3;
  vec even_q = y0 + Q2 * y2, odd_q = Q1 * y1 + Q3 * y3;
  to[0] = y0, to[5 * r] = y3;
  to[r] = even_p + odd_p, to[2 * r] = even_p - odd_p;
  to[3 * r] = even_q + odd_q, to[4 * r] = even_q - odd_q;
}

INLINE void back_axis(const vec *m, int s, vec *to, int r) { /* Gᵀ: 6 to 3 */
  vec even_p = NP * (m[s] + m[2 * s]), odd_p = NP * (m[s] - m[2 * s]);
  vec even_q = NQ * (m[3 * s] + m[4 * s]), odd_q = NQ * (m[3 * s] - m[4 * s]);
  to[0] = N0 * m[0] + even_p + even_q;
  to[r] = P1 * odd_p + Q1 * odd_q;
  to[2 * r] = P2 * even_p + Q2 * even_q + m[5 * s];
}

/* Along columns, then along rows: from [from, from] to [to, to]. */
INLINE void transform(axis along, const int from, const int to, const vec *m, vec *result) {
  vec half[ALL];
#pragma GCC unroll 6
  for (int j = 0; j < from; j++) along(m + j, from, half + j, from);
#pragma GCC unroll 6
  for (int i = 0; i < to; i++) along(half + from * i, 1, result + to * i, 1);
}

/* Where a tile is: its image, and its first output. */
typedef struct { long image, y, x; } place;

INLINE place at(const work *w, long t) {
  return (place){t / w->wide / w->high, t / w->wide % w->high * OUT, t % w->wide * OUT};
}

/* The size×size pixels from row y and column x of an image on, [high, wide, count]. */
INLINE void gather(const int size, const float *from[], const float *image, const float *zero, long y,
                   long x, long high, long wide, long count) {
  for (int i = 0; i < size; i++)
    for (int j = 0; j < size; j++) {
      bool inside = y + i >= 0 && y + i < high && x + j >= 0 && x + j < wide;
      from[size * i + j] = inside ? image + ((y + i) * wide + x + j) * count : zero;
    }
}

/* Of the input's tiles [from, to): [36, ., ci], each of the 36 `apart` from the next. */
ONE_COPY void transform_input(const work *w, long from, long to, float *v, long apart) {
  const conv *c = w->c;
  const float *pixel[ALL];
  for (long t = from; t < to; t++, v += c->ci) {
    place p = at(w, t);
    gather(IN, pixel, c->x + p.image * c->h * c->wd * c->ci, w->zero, p.y - c->top, p.x - c->left,
           c->h, c->wd, c->ci);
    for (long k = 0; k < c->ci; k += V) {
      vec d[ALL], m[ALL];
#pragma GCC unroll 36
      for (int i = 0; i < ALL; i++) d[i] = *(const vec *)(pixel[i] + k);
      transform(input_axis, IN, IN, d, m);
#pragma GCC unroll 36
      for (int i = 0; i < ALL; i++) *(vec *)(v + i * apart + k) = m[i];
    }
  }
}

/* ---- y = x * kernel --------------------------------------------------------------------------- */

/* Of input channel k and output channels [begin, stop): [36, ci, stop - begin]. */
ONE_COPY void transform_kernel(const work *w, long k, long begin, long stop, float *u) {
  const conv *c = w->c;
  for (long o = begin; o < stop; o += V) {
    vec g[9], m[ALL];
#pragma GCC unroll 9
    for (int i = 0; i < 9; i++) g[i] = *(const vec *)(c->w + (i * c->ci + k) * c->co + o);
    transform(kernel_axis, 3, IN, g, m);
#pragma GCC unroll 36
    for (int i = 0; i < ALL; i++) *(vec *)(u + (i * c->ci + k) * (stop - begin) + o - begin) = m[i];
  }
}

/* Of one tile, and the bias: written where the image has pixels. NaN where one is not finite, or 0. */
INLINE vec transform_output(const work *w, long t, long o, const float *products, long apart) {
  const conv *c = w->c;
  place p = at(w, t);
  vec m[ALL], y[OUT * OUT];
#pragma GCC unroll 36
  for (int i = 0; i < ALL; i++) m[i] = *(const vec *)(products + i * apart);
  transform(output_axis, IN, OUT, m, y);
  vec bias = *(const vec *)(c->bias + o), off = {0};
  float *to = c->y + ((p.image * c->oh + p.y) * c->ow + p.x) * c->co + o;
#pragma GCC unroll 4
  for (int i = 0; i < OUT; i++) {
#pragma GCC unroll 4
    for (int j = 0; j < OUT; j++) {
      vec value = y[OUT * i + j] + bias;
      if (p.y + i < c->oh && p.x + j < c->ow) *(vec *)(to + (i * c->ow + j) * c->co) = value;
      off += value - value;
    }
  }
  return off;
}

/* Of tiles [from, to), whose input is transformed to v, and the output channels [o, o + QV), whose transformed
 * kernel is u [36, ci, step]. */
ONE_COPY void outputs(const work *w, long from, long to, const float *v, long apart, long o, int Q,
                      const float *u, long step) {
  const conv *c = w->c;
  long count = to - from, pieces = ceil_div(count, TILE), of_output = count * 2 * V + V;
  float *m = scratch(2, ALL * of_output);
  conv product = {.ci = c->ci, .co = 2 * V, .kh = 1, .kw = 1, .stride = 1};
  for (int i = 0; i < ALL; i++)
    for (long p = 0; p < pieces; p++) {
      long first = p * count / pieces, last = (p + 1) * count / pieces;
      some_pixels((int)(last - first), Q, &product, v + i * apart + first * c->ci,
                  u + i * c->ci * step, step, V, w->zero, m + i * of_output + first * 2 * V, V);
    }
  for (long t = from; t < to; t++) {
    vec odd = {0};
    for (int q = 0; q < Q; q++)
      odd += transform_output(w, t, o + q * V, m + (t - from) * 2 * V + q * V, of_output);
    float sum = 0;
    for (int i = 0; i < V; i++) sum += odd[i];
    if (sum != 0) w->broken[t / w->wide / w->high] = 1;
  }
}

/* Where many tiles share a kernel: it is transformed once, then a block of tiles is, for all channels. */
static void kernel_item(void *data, long k) {
  const work *w = data;
  transform_kernel(w, k, 0, w->c->co, w->u);
}

static void block_item(void *data, long item) {
  const work *w = data;
  const conv *c = w->c;
  long from = item * w->block, to = min(w->tiles, from + w->block);
  long apart = (to - from) * c->ci + V; /* not a power of 2 */
  float *v = scratch(0, ALL * apart);
  transform_input(w, from, to, v, apart);
  for (long o = 0; o < c->co; o += 2 * V)
    outputs(w, from, to, v, apart, o, (int)min(2, (c->co - o) / V), w->u + o, c->co);
}

/* Where few do: all tiles are transformed once, then the kernel is, for a few channels. */
static void tile_item(void *data, long t) {
  const work *w = data;
  transform_input(w, t, t + 1, w->u + t * w->c->ci, w->tiles * w->c->ci + V);
}

static void channels_item(void *data, long item) {
  const work *w = data;
  const conv *c = w->c;
  long o = item * w->channels, stop = min(c->co, o + w->channels);
  float *u = scratch(0, ALL * c->ci * (stop - o));
  for (long k = 0; k < c->ci; k++) transform_kernel(w, k, o, stop, u);
  outputs(w, 0, w->tiles, w->u, w->tiles * c->ci + V, o, (int)((stop - o) / V), u, stop - o);
}

const float *winograd(XLA_FFI_CallFrame *frame, conv *c) {
  work w = plan(c);
  bool few = w.tiles <= c->co;
  size_t size = ALL * (few ? w.tiles * c->ci + V : c->ci * c->co);
  w.u = scratch(3, size + c->n);
  w.broken = memset(w.u + size, 0, c->n * sizeof(float));
  w.channels = c->ci > WIDE ? V : 2 * V;
  if (few) {
    share(frame, w.tiles, tile_item, &w);
    share(frame, ceil_div(c->co, w.channels), channels_item, &w);
  } else {
    share(frame, c->ci, kernel_item, &w);
    share(frame, ceil_div(w.tiles, w.block), block_item, &w);
  }
  return w.broken;
}

/* ---- the gradient of the kernel and the bias ------------------------------------------------------ */

/* Of the tiles [from, to) and channels [begin, stop) of the output's gradient: [36, ., stop - begin];
 * and their sum. */
static void transform_gradient(const work *w, long from, long to, long begin, long stop, float *v,
                               long apart, float *sum) {
  const conv *c = w->c;
  const float *pixel[OUT * OUT];
  for (long t = from; t < to; t++, v += stop - begin) {
    place p = at(w, t);
    gather(OUT, pixel, c->w + p.image * c->oh * c->ow * c->co, w->zero, p.y, p.x, c->oh, c->ow, c->co);
    for (long o = begin; o < stop; o += V) {
      vec g[OUT * OUT], m[ALL], added = {0};
      for (int i = 0; i < OUT * OUT; i++) added += g[i] = *(const vec *)(pixel[i] + o);
      *(vec *)(sum + o) += added;
      transform(gradient_axis, OUT, IN, g, m);
#pragma GCC unroll 36
      for (int i = 0; i < ALL; i++) *(vec *)(v + i * apart + o - begin) = m[i];
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
  float *u = w->u + part * ALL * c->ci * c->co, *bias = w->bias + part * c->co;
  for (long row = 0; row < ALL * c->ci; row++)
    memset(u + row * c->co + begin, 0, width * sizeof(float));
  memset(bias + begin, 0, width * sizeof(float));
  long end = (part + 1) * w->tiles / c->parts;
  for (long from = part * w->tiles / c->parts, to; from < end; from = to) {
    to = min(end, from + w->block);
    long count = to - from, of_input = count * c->ci + V, of_gradient = count * width + V;
    float *v = scratch(0, ALL * of_input), *g = scratch(2, ALL * of_gradient);
    transform_input(w, from, to, v, of_input);
    transform_gradient(w, from, to, begin, stop, g, of_gradient, bias);
    for (int i = 0; i < ALL; i++)
      for (long o = 0; o < width; o += 2 * V)
        for (long k = 0; k < c->ci; k += CI)
          some_channels((int)min(CI, c->ci - k), (int)min(2, (width - o) / V), v + i * of_input + k,
                        c->ci, g + i * of_gradient + o, width, count,
                        u + (i * c->ci + k) * c->co + begin + o, c->co);
  }
}

/* Of one input channel, all parts added up in their order. */
static void transform_back(void *data, long k) {
  const work *w = data;
  const conv *c = w->c;
  for (long o = 0; o < c->co; o += V) {
    vec m[ALL], g[9];
    for (int i = 0; i < ALL; i++) {
      m[i] = (vec){0};
      for (long part = 0; part < c->parts; part++)
        m[i] += *(const vec *)(w->u + ((part * ALL + i) * c->ci + k) * c->co + o);
    }
    transform(back_axis, IN, 3, m, g);
    for (int i = 0; i < 9; i++) *(vec *)(c->y + (i * c->ci + k) * c->co + o) = g[i];
  }
}

void winograd_gradient(XLA_FFI_CallFrame *frame, conv *c) {
  work w = plan(c);
  split(c, w.tiles);
  w.u = scratch(3, c->parts * (ALL * c->ci + 1) * c->co);
  w.bias = w.u + c->parts * ALL * c->ci * c->co;
  share(frame, c->parts * c->groups, gradient_item, &w);
  share(frame, c->ci, transform_back, &w);
  for (long o = 0; o < c->co; o++) {
    c->total_bias[o] = 0;
    for (long part = 0; part < c->parts; part++) c->total_bias[o] += w.bias[part * c->co + o];
  }
}
