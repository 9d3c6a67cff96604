/* A convolution, and the sums of products that stay in registers: of the output, of its gradient. */
#include "common.h"

/* TILE pixels times two vectors, and two more, fill the registers. */
#if defined(__AVX512F__)
enum { TILE = 14 };
#elif defined(__AVX__)
enum { TILE = 6 };
#else
enum { TILE = 12 };
#endif

typedef struct {
  const float *x;    /* [n, h, wd, ci] */
  const float *w;    /* the kernel [kh, kw, ci, co], or the output's gradient [n, oh, ow, co] */
  const float *bias; /* [co] */
  float *y;          /* the output [n, oh, ow, co], or the kernel's gradient */
  long n, h, wd, ci, kh, kw, co, oh, ow, stride, top, left, right;
  long rows;   /* output rows of a band */
  long bands;  /* of an image */
  long groups; /* of output channels */
  long parts;  /* of the sum over pixels, for the kernel's gradient */
  float *total, *total_bias; /* their sums */
} conv;

/* P pixels × Q vectors of one output row. Kernel vectors of consecutive input channels are `step`
 * apart, the Q vectors `apart`. */
INLINE void pixels(const int P, const int Q, const conv *c, const float *x, const float *w,
                   long step, long apart, const float *bias, float *y, long last) {
  long line = (c->left + c->wd + c->right) * c->ci, pixel = c->stride * c->ci;
  vec sum[TILE][2];
#pragma GCC unroll 16
  for (int p = 0; p < P; p++)
#pragma GCC unroll 2
    for (int q = 0; q < Q; q++) sum[p][q] = *(const vec *)(bias + q * V);
  for (long i = 0; i < c->kh; i++) {
    const float *row = x + i * line; /* the taps of a row and their channels are one run */
    for (long k = c->kw * c->ci; k; k--, row++, w += step) {
      vec w0 = *(const vec *)w, w1 = Q == 2 ? *(const vec *)(w + apart) : w0;
#pragma GCC unroll 16
      for (int p = 0; p < P; p++) {
        float at = row[p * pixel];
        sum[p][0] += at * w0;
        if (Q == 2) sum[p][1] += at * w1;
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; p++) {
    float *to = y + p * c->co;
    if (Q == 2) *(vec *)to = sum[p][0], to += V;
    vec end = Q == 2 ? sum[p][1] : sum[p][0];
    if (last == V) *(vec *)to = end;
    else memcpy(to, &end, last * sizeof(float));
  }
}

static inline void some_pixels(int P, int Q, const conv *c, const float *x, const float *w, long step,
                        long apart, const float *bias, float *y, long last) {
  switch (2 * P + Q) {
#define CASE(p) \
  case 2 * p + 1: return pixels(p, 1, c, x, w, step, apart, bias, y, last); \
  case 2 * p + 2: return pixels(p, 2, c, x, w, step, apart, bias, y, last);
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if !defined(__AVX__) || defined(__AVX512F__)
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#if defined(__AVX512F__)
    CASE(13) CASE(14)
#endif
#undef CASE
  }
}

enum { CI = 8 }; /* input channels of a tile */

/* P input channels × Q vectors of output channels of one tap, summed over `count` pixels. */
INLINE void channels(const int P, const int Q, const float *x, long pixel, const float *g, long co,
                     long count, float *dw, long step) {
  vec sum[CI][2];
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) sum[p][0] = sum[p][1] = (vec){0};
  for (; count; count--, x += pixel, g += co) {
    vec g0 = *(const vec *)g, g1 = Q == 2 ? *(const vec *)(g + V) : g0;
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) {
      sum[p][0] += x[p] * g0;
      if (Q == 2) sum[p][1] += x[p] * g1;
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) {
    *(vec *)(dw + p * step) += sum[p][0];
    if (Q == 2) *(vec *)(dw + p * step + V) += sum[p][1];
  }
}

static inline void some_channels(int P, int Q, const float *x, long pixel, const float *g, long co,
                          long count, float *dw, long step) {
  switch (2 * P + Q) {
#define CASE(p) \
  case 2 * p + 1: return channels(p, 1, x, pixel, g, co, count, dw, step); \
  case 2 * p + 2: return channels(p, 2, x, pixel, g, co, count, dw, step);
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
  }
}

/* Groups of output channels and parts of the sum, for the gradient of the kernel. Not by the number
 * of threads: the order of the sum is fixed. */
INLINE void split(conv *c, long count) {
  c->groups = min(ceil_div(c->co, 2 * V), 8);
  c->parts = min(ceil_div(8, c->groups), count);
}

/* winograd.c: the same as in conv.c, where `by_winograd` and `gradient_by_winograd` say so. Its sums of
 * sums overflow before the direct ones, and of an infinity make NaN: `winograd` says of each image whether
 * it is finite. */
bool by_winograd(const conv *c);
bool gradient_by_winograd(const conv *c);
const float *winograd(XLA_FFI_CallFrame *frame, conv *c);
void winograd_gradient(XLA_FFI_CallFrame *frame, conv *c);
