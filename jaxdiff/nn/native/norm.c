/* Group normalisation, with SiLU after it or not, and its gradient, in float32 on [n, m, c].
 *
 * An image is cut into chunks of pixels that fit the cache. Each gives its mean and its sum of
 * squares about it, channel by channel; they are put together in their order, whatever the number
 * of threads (Chan et al. 1979), so that no digits are lost and the result is always the same.
 */
#include <math.h>

#include "common.h"

typedef struct {
  const float *x, *scale, *shift; /* [n, m, c], [c], [c] */
  const float *dy;                /* the gradient of the output */
  float *out;                     /* the output, or the gradient of x */
  float *stats;                   /* [n, groups, 2]: mean and 1/standard deviation */
  float *sums;                    /* [n, chunks, 2, c] */
  float *own;                     /* [n, 4, c]: a channel's group's statistics, and the means over
                                     its group of the gradient and of that times x̂ */
  long n, m, c, groups, chunks;
  float eps;
  bool silu;
} norm;

typedef int ints __attribute__((vector_size(4 * V)));

/* 1 / (1 + exp(-z)), to two units in the last place. */
INLINE vec sigmoid(vec z) {
  const vec zero = {0};
  vec a = -z;
  a = (vec)(((ints)a & (a < 88.0f)) | ((ints)(zero + 88.0f) & ~(a < 88.0f)));
  a = (vec)(((ints)a & (a > -87.0f)) | ((ints)(zero - 87.0f) & ~(a > -87.0f)));
  /* exp(a) = 2^k exp(r), |r| ≤ ln 2 / 2; adding 1.5 · 2^23 rounds to an integer. */
  vec shifted = a * 1.44269504f + 12582912.0f, k = shifted - 12582912.0f;
  vec r = a - k * 0.693145752f;
  r = r - k * 1.42860677e-6f;
  vec e = r * (1.0f / 720) + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  ints power = ((ints)shifted - 0x4B400000 + 127) << 23;
  return 1.0f / (1.0f + e * (vec)power);
}

static long first_pixel(const norm *f, long chunk) { return chunk * f->m / f->chunks; }

/* Mean of a chunk and squares about it, by channel. */
static void moments(void *data, long item) {
  const norm *f = data;
  long image = item / f->chunks, chunk = item % f->chunks;
  long from = first_pixel(f, chunk), count = first_pixel(f, chunk + 1) - from;
  const float *x = f->x + (image * f->m + from) * f->c;
  float *mean = f->sums + item * 2 * f->c, *squares = mean + f->c;
  for (long c = 0; c < f->c; c += V) {
    /* four sums beside each other: an addition takes four cycles */
    vec sum[4] = {{0}}, square[4] = {{0}};
    for (long p = 0; p < count; p++) sum[p % 4] += *(const vec *)(x + p * f->c + c);
    vec middle = (sum[0] + sum[1] + sum[2] + sum[3]) * (1.0f / count);
    for (long p = 0; p < count; p++) {
      vec d = *(const vec *)(x + p * f->c + c) - middle;
      square[p % 4] += d * d;
    }
    *(vec *)(mean + c) = middle;
    *(vec *)(squares + c) = square[0] + square[1] + square[2] + square[3];
  }
}

/* The statistics of every group of every image, from those of its chunks. */
static void combine(norm *f) {
  long width = f->c / f->groups;
  for (long image = 0; image < f->n; image++)
    for (long group = 0; group < f->groups; group++) {
      double mean = 0, squares = 0, all = (double)f->m * width;
      for (int second = 0; second < 2; second++)
        for (long chunk = 0; chunk < f->chunks; chunk++) {
          double count = first_pixel(f, chunk + 1) - first_pixel(f, chunk);
          const float *of = f->sums + (image * f->chunks + chunk) * 2 * f->c + group * width;
          for (long c = 0; c < width; c++)
            if (second) squares += of[f->c + c] + count * (of[c] - mean) * (of[c] - mean);
            else mean += of[c] * count / all;
        }
      float *stats = f->stats + (image * f->groups + group) * 2;
      stats[0] = (float)mean;
      stats[1] = (float)(1 / sqrt(squares / all + f->eps));
    }
}

/* The statistics of its group, for every channel. */
static void spread(norm *f) {
  f->own = scratch(1, f->n * 4 * f->c);
  for (long image = 0; image < f->n; image++)
    for (long c = 0; c < f->c; c++) {
      const float *stats = f->stats + (image * f->groups + c / (f->c / f->groups)) * 2;
      float *own = f->own + image * 4 * f->c + c;
      own[0] = stats[0], own[f->c] = stats[1];
    }
}

/* V channels' numbers. */
typedef struct { vec scale, shift, mean, deviation, first, second; } channels;

INLINE channels of_channels(const norm *f, long image, long c) {
  const float *own = f->own + image * 4 * f->c + c;
#define AT(p) (*(const vec *)(p))
  return (channels){AT(f->scale + c), AT(f->shift + c),      AT(own),
                    AT(own + f->c),   AT(own + 2 * f->c), AT(own + 3 * f->c)};
#undef AT
}

static void apply(void *data, long item) {
  const norm *f = data;
  long image = item / f->chunks, chunk = item % f->chunks;
  long from = first_pixel(f, chunk), count = first_pixel(f, chunk + 1) - from;
  const float *x = f->x + (image * f->m + from) * f->c;
  float *y = f->out + (image * f->m + from) * f->c;
  for (long c = 0; c < f->c; c += V) {
    channels v = of_channels(f, image, c);
    vec a = v.scale * v.deviation, b = v.shift - v.mean * a;
    for (long p = c; p < c + count * f->c; p += f->c) {
      vec z = *(const vec *)(x + p) * a + b;
      if (f->silu) z *= sigmoid(z);
      *(vec *)(y + p) = z;
    }
  }
}

/* The gradient of the normalised and scaled z, from that of the output. */
INLINE vec through_silu(const norm *f, vec dy, vec z) {
  if (!f->silu) return dy;
  vec s = sigmoid(z);
  return dy * (s + z * s * (1.0f - s));
}

/* Sums over a chunk of dz and of dz · x̂, by channel. */
static void gradient_sums(void *data, long item) {
  const norm *f = data;
  long image = item / f->chunks, chunk = item % f->chunks;
  long from = first_pixel(f, chunk), count = first_pixel(f, chunk + 1) - from;
  const float *x = f->x + (image * f->m + from) * f->c, *dy = f->dy + (image * f->m + from) * f->c;
  float *sums = f->sums + item * 2 * f->c;
  for (long c = 0; c < f->c; c += V) {
    channels v = of_channels(f, image, c);
    vec first = {0}, second = {0};
    for (long p = c; p < c + count * f->c; p += f->c) {
      vec normal = (*(const vec *)(x + p) - v.mean) * v.deviation;
      vec dz = through_silu(f, *(const vec *)(dy + p), normal * v.scale + v.shift);
      first += dz;
      second += dz * normal;
    }
    *(vec *)(sums + c) = first;
    *(vec *)(sums + f->c + c) = second;
  }
}

/* dx = (γ dz − mean(γ dz) − x̂ mean(γ dz x̂)) / σ, means over a group. */
static void gradient(void *data, long item) {
  const norm *f = data;
  long image = item / f->chunks, chunk = item % f->chunks;
  long from = first_pixel(f, chunk), count = first_pixel(f, chunk + 1) - from;
  const float *x = f->x + (image * f->m + from) * f->c, *dy = f->dy + (image * f->m + from) * f->c;
  float *dx = f->out + (image * f->m + from) * f->c;
  for (long c = 0; c < f->c; c += V) {
    channels v = of_channels(f, image, c);
    for (long p = c; p < c + count * f->c; p += f->c) {
      vec normal = (*(const vec *)(x + p) - v.mean) * v.deviation;
      vec dz = through_silu(f, *(const vec *)(dy + p), normal * v.scale + v.shift);
      *(vec *)(dx + p) = v.deviation * (v.scale * dz - v.first - normal * v.second);
    }
  }
}

/* Gradients of scale and shift by image, and the means that dx needs. */
static void combine_gradient(norm *f, float *dscale, float *dshift) {
  long width = f->c / f->groups;
  for (long image = 0; image < f->n; image++, dscale += f->c, dshift += f->c) {
    float *means = f->own + image * 4 * f->c + 2 * f->c;
    for (long start = 0; start < f->c; start += width) {
      float group[2] = {0, 0};
      for (long c = start; c < start + width; c++) {
        float first = 0, second = 0;
        for (long chunk = 0; chunk < f->chunks; chunk++) {
          const float *sums = f->sums + (image * f->chunks + chunk) * 2 * f->c;
          first += sums[c], second += sums[f->c + c];
        }
        dshift[c] = first, dscale[c] = second;
        group[0] += f->scale[c] * first, group[1] += f->scale[c] * second;
      }
      for (long c = start; c < start + width; c++)
        for (int i = 0; i < 2; i++) means[i * f->c + c] = group[i] / ((float)f->m * width);
    }
  }
}

static norm read(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Buffer *x = argument(frame, 0);
  norm f = {.x = x->data, .scale = argument(frame, 1)->data, .shift = argument(frame, 2)->data};
  f.out = result(frame, 0)->data;
  f.n = x->dims[0], f.m = x->dims[1], f.c = x->dims[2];
  const float *settings = attribute(frame, 0);
  f.groups = (long)settings[0], f.eps = settings[1], f.silu = settings[2] != 0;
  /* Chunks of 64 KB, or less where the threads would have too few. */
  f.chunks = min(f.m, max(8, f.m * f.c / (16 * 1024)));
  f.sums = scratch(0, f.n * f.chunks * 2 * f.c);
  return f;
}

XLA_FFI_Error *jaxdiff_group_norm(XLA_FFI_CallFrame *frame) {
  if (asked(frame)) return NULL;
  norm f = read(frame);
  f.stats = result(frame, 1)->data;
  share(frame, f.n * f.chunks, moments, &f);
  combine(&f);
  spread(&f);
  share(frame, f.n * f.chunks, apply, &f);
  return NULL;
}

XLA_FFI_Error *jaxdiff_group_norm_gradient(XLA_FFI_CallFrame *frame) {
  if (asked(frame)) return NULL;
  norm f = read(frame);
  f.stats = argument(frame, 3)->data;
  f.dy = argument(frame, 4)->data;
  spread(&f);
  share(frame, f.n * f.chunks, gradient_sums, &f);
  combine_gradient(&f, result(frame, 1)->data, result(frame, 2)->data);
  share(frame, f.n * f.chunks, gradient, &f);
  return NULL;
}
