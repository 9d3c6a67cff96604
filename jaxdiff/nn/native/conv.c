/* Convolutions in float32 for XLA's CPU backend: NHWC by HWIO, and the gradient to the kernel.
 *
 * Direct, for what winograd.c does not take: a tile of output pixels × output channels stays in
 * registers while the taps and input channels go by. Input rows are first copied, with their
 * padding, into a band that fits the cache, so that no loop asks where the border is. Every output
 * is one sum in one order, whatever the number of threads and of images beside it.
 */
#include "tiles.h"

enum { BAND = 96 * 1024 }; /* bytes of input that are worked on at a time: a part of a core's L2 */

/* ---- input rows with their padding ---------------------------------------------------------- */

/* The input of output rows [first, first + rows) of an image, [., left + w + right, ci]. */
static const float *padded(const conv *c, long image, long first, long rows) {
  long width = c->left + c->wd + c->right, line = width * c->ci;
  long start = first * c->stride - c->top, count = (rows - 1) * c->stride + c->kh;
  const float *x = c->x + image * c->h * c->wd * c->ci;
  if (!c->left && !c->right && start >= 0 && start + count <= c->h) return x + start * line;
  float *out = scratch(0, count * line), *to = out;
  for (long r = start; r < start + count; r++, to += line) {
    if (r < 0 || r >= c->h) {
      memset(to, 0, line * sizeof(float));
      continue;
    }
    memset(to, 0, c->left * c->ci * sizeof(float));
    memcpy(to + c->left * c->ci, x + r * c->wd * c->ci, c->wd * c->ci * sizeof(float));
    memset(to + (c->left + c->wd) * c->ci, 0, c->right * c->ci * sizeof(float));
  }
  return out;
}

/* ---- y = x * kernel --------------------------------------------------------------------------- */

static void forward_item(void *data, long item) {
  const conv *c = data;
  long group = item % c->groups, first = item / c->groups % c->bands * c->rows;
  long image = item / c->groups / c->bands, rows = min(c->rows, c->oh - first);
  const float *x = padded(c, image, first, rows);
  long line = (c->left + c->wd + c->right) * c->ci, depth = c->kh * c->kw * c->ci;
  long vectors = ceil_div(c->co, V), each = ceil_div(ceil_div(vectors, 2), c->groups) * 2;
  bool plain = c->co % V == 0;
  long step = plain ? c->co : V, apart = plain ? V : depth * V;
  long tiles = ceil_div(c->ow, TILE);
  for (long v = group * each; v < min(vectors, (group + 1) * each); v += 2) {
    int Q = (int)min(2, vectors - v);
    const float *w = plain ? c->w + v * V : c->w + v * depth * V;
    long last = min(V, c->co - (v + Q - 1) * V);
    for (long r = 0; r < rows; r++) {
      float *y = c->y + ((image * c->oh + first + r) * c->ow) * c->co + v * V;
      for (long t = 0; t < tiles; t++) {
        long from = t * c->ow / tiles, to = (t + 1) * c->ow / tiles;
        some_pixels((int)(to - from), Q, c, x + r * c->stride * line + from * c->stride * c->ci, w,
                    step, apart, c->bias + v * V, y + from * c->co, last);
      }
    }
  }
}

/* The kernel as [vectors of co, taps, ci, V], filled up with zeros. */
static const float *packed(const conv *c, float *out) {
  long depth = c->kh * c->kw * c->ci;
  for (long o = 0; o < ceil_div(c->co, V) * V; o++)
    for (long d = 0; d < depth; d++)
      out[(o / V * depth + d) * V + o % V] = o < c->co ? c->w[d * c->co + o] : 0;
  return out;
}

static void forward(XLA_FFI_CallFrame *frame, conv *c) {
  long depth = c->kh * c->kw * c->ci, width = c->left + c->wd + c->right;
  long pairs = ceil_div(c->co, 2 * V);
  c->rows = max(1, min(BAND / 4 / (width * c->ci * c->stride) - c->kh + 1, c->oh));
  while (c->rows > 1 && c->n * ceil_div(c->oh, c->rows) * pairs < 16) c->rows = (c->rows + 1) / 2;
  c->bands = ceil_div(c->oh, c->rows);
  c->groups = min(pairs, ceil_div(16, c->n * c->bands));
  if (c->co % V) {
    long wide = ceil_div(c->co, V) * V;
    float *bias = scratch(2, wide);
    memset(bias, 0, wide * sizeof(float));
    c->bias = memcpy(bias, c->bias, c->co * sizeof(float));
    c->w = packed(c, scratch(1, depth * wide));
  }
  share(frame, c->n * c->bands * c->groups, forward_item, c);
}

/* ---- the gradients of kernel and bias: x ⋆ g and the sum of g --------------------------------- */

/* One part's sums over its rows of all images, for one group of output channels: [taps · ci, co
 * filled up to V], and the bias's in one more row. */
static void backward_item(void *data, long item) {
  const conv *c = data;
  long part = item / c->groups, group = item % c->groups;
  long wide = ceil_div(c->co, V) * V, vectors = wide / V, taps = c->kh * c->kw * c->ci;
  long each = ceil_div(ceil_div(vectors, 2), c->groups) * 2;
  long begin = group * each, stop = min(vectors, begin + each);
  long line = (c->left + c->wd + c->right) * c->ci, total = c->n * c->oh;
  float *dw = c->y + part * (taps + 1) * wide;
  for (long t = 0; t <= taps && begin < stop; t++)
    memset(dw + t * wide + begin * V, 0, (stop - begin) * V * sizeof(float));
  long end = (part + 1) * total / c->parts;
  for (long at = part * total / c->parts, rows; at < end; at += rows) {
    long image = at / c->oh, first = at % c->oh;
    rows = min(min(c->rows, c->oh - first), end - at);
    const float *x = padded(c, image, first, rows), *g = c->w + at * c->ow * c->co;
    if (wide != c->co) {
      float *filled = scratch(1, rows * c->ow * wide);
      memset(filled, 0, rows * c->ow * wide * sizeof(float));
      for (long p = 0; p < rows * c->ow; p++)
        memcpy(filled + p * wide, g + p * c->co, c->co * sizeof(float));
      g = filled;
    }
    for (long v = begin; v < stop; v++) {
      vec sum = {0};
      for (long p = 0; p < rows * c->ow; p++) sum += *(const vec *)(g + p * wide + v * V);
      *(vec *)(dw + taps * wide + v * V) += sum;
    }
    for (long v = begin; v < stop; v += 2)
      for (long i = 0; i < c->kh; i++)
        for (long j = 0; j < c->kw; j++)
          for (long k = 0; k < c->ci; k += CI)
            for (long r = 0; r < rows; r++)
              some_channels((int)min(CI, c->ci - k), (int)min(2, stop - v),
                            x + (r * c->stride + i) * line + j * c->ci + k, c->stride * c->ci,
                            g + r * c->ow * wide + v * V, wide, c->ow,
                            dw + ((i * c->kw + j) * c->ci + k) * wide + v * V, wide);
  }
}

/* A tap's rows of the gradient, or the bias's: the parts, added up in their order. */
static void add_parts(void *data, long tap) {
  const conv *c = data;
  long wide = ceil_div(c->co, V) * V, taps = c->kh * c->kw * c->ci;
  for (long t = tap * c->ci; t < min((tap + 1) * c->ci, taps + 1); t++) {
    float *to = t < taps ? c->total + t * c->co : c->total_bias;
    memcpy(to, c->y + t * wide, c->co * sizeof(float));
    for (long part = 1; part < c->parts; part++)
      for (long o = 0; o < c->co; o++) to[o] += c->y[(part * (taps + 1) + t) * wide + o];
  }
}

static void backward(XLA_FFI_CallFrame *frame, conv *c) {
  long wide = ceil_div(c->co, V) * V;
  c->rows = max(1, min(BAND / 4 / ((c->left + c->wd + c->right) * c->ci * c->stride), c->oh));
  split(c, c->n * c->oh);
  c->total = c->y;
  c->y = scratch(2, c->parts * (c->kh * c->kw * c->ci + 1) * wide);
  share(frame, c->parts * c->groups, backward_item, c);
  share(frame, c->kh * c->kw + 1, add_parts, c);
}

/* ---- XLA's side ------------------------------------------------------------------------------------ */

static conv read(XLA_FFI_CallFrame *frame) {
  const int64_t *a = attribute(frame, 0);
  XLA_FFI_Buffer *x = argument(frame, 0), *w = argument(frame, 1), *y = result(frame, 0);
  return (conv){.x = x->data, .w = w->data, .y = y->data, .n = x->dims[0], .h = x->dims[1],
                .wd = x->dims[2], .ci = x->dims[3], .stride = a[0], .top = a[1], .left = a[2], .right = a[3]};
}

XLA_FFI_Error *jaxdiff_conv(XLA_FFI_CallFrame *frame) {
  if (asked(frame)) return NULL;
  conv c = read(frame);
  int64_t *w = argument(frame, 1)->dims, *y = result(frame, 0)->dims;
  c.kh = w[0], c.kw = w[1], c.co = w[3], c.oh = y[1], c.ow = y[2];
  c.bias = argument(frame, 2)->data;
  if (!by_winograd(&c)) return forward(frame, &c), NULL;
  const float *broken = winograd(frame, &c);
  for (long image = 0; image < c.n; image++) {
    if (!broken[image]) continue;
    conv one = c;
    one.n = 1, one.x += image * c.h * c.wd * c.ci, one.y += image * c.oh * c.ow * c.co;
    forward(frame, &one);
  }
  return NULL;
}

XLA_FFI_Error *jaxdiff_conv_gradient(XLA_FFI_CallFrame *frame) {
  if (asked(frame)) return NULL;
  conv c = read(frame);
  int64_t *g = argument(frame, 1)->dims, *w = result(frame, 0)->dims;
  c.kh = w[0], c.kw = w[1], c.co = w[3], c.oh = g[1], c.ow = g[2];
  c.total_bias = result(frame, 1)->data;
  if (!gradient_by_winograd(&c)) return backward(frame, &c), NULL;
  conv copy = c;
  winograd_gradient(frame, &copy);
  int broken = 0;
  for (long i = 0; i < 9 * c.ci * c.co; i++) broken |= !(c.y[i] - c.y[i] == 0);
  if (broken) backward(frame, &c);
  return NULL;
}
