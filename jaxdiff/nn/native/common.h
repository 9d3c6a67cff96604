/* What the kernels share: vectors, threads, memory, and what XLA asks of a handler. */
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

/* V floats make a vector. */
#if defined(__AVX512F__)
enum { V = 16 };
#elif defined(__AVX__)
enum { V = 8 };
#else
enum { V = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * V), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

static inline long min(long a, long b) { return a < b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }
static inline long ceil_div(long a, long b) { return (a + b - 1) / b; }

/* Memory of a thread's own, kept from call to call. */
static inline float *scratch(int which, size_t floats) {
  static _Thread_local struct { float *data; size_t size; } kept[4];
  if (kept[which].size < floats) {
    free(kept[which].data);
    kept[which].data = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
    kept[which].size = kept[which].data ? floats : 0;
  }
  return kept[which].data;
}

typedef struct {
  void (*work)(void *, long);
  void *data;
  long count;
  atomic_long next, done, holders;
} job;

static inline void release(job *j) {
  if (atomic_fetch_sub(&j->holders, 1) == 1) free(j);
}

static inline void take(job *j) {
  for (long i; (i = atomic_fetch_add(&j->next, 1)) < j->count;) {
    j->work(j->data, i);
    atomic_fetch_add(&j->done, 1);
  }
}

static inline void help(void *data) {
  take(data);
  release(data);
}

/* work(data, i) for all i < count. The caller waits for items begun by others and for no thread
 * that has yet to start: whoever comes late finds nothing to do, so that nobody can block. */
static inline void share(XLA_FFI_CallFrame *frame, long count, void (*work)(void *, long), void *data) {
  if (count < 1) return;
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args asked = {sizeof asked, NULL, frame->ctx, &threads};
  if (frame->api->XLA_FFI_ThreadPool_NumThreads(&asked)) threads = 1;
  job *j = malloc(sizeof *j);
  *j = (job){.work = work, .data = data, .count = count};
  long helpers = min(threads, count) - 1;
  atomic_store(&j->holders, helpers + 1);
  for (long i = 0; i < helpers; i++) {
    XLA_FFI_ThreadPool_Schedule_Args args = {sizeof args, NULL, frame->ctx, help, j};
    if (frame->api->XLA_FFI_ThreadPool_Schedule(&args)) release(j);
  }
  take(j);
  for (long spins = 0; atomic_load(&j->done) < count; spins++)
    if (spins > 1000) sched_yield();
  release(j);
}

/* What XLA asks of a handler before it calls it: true when the frame was such a question. */
static inline bool asked(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Metadata_Extension *e = (void *)frame->extension_start; /* whose own type has a new name in jax 0.12 */
  if (!e || e->extension_base.type != XLA_FFI_Extension_Metadata) return false;
  e->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  e->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return true;
}

INLINE XLA_FFI_Buffer *argument(XLA_FFI_CallFrame *frame, int i) { return frame->args.args[i]; }
INLINE XLA_FFI_Buffer *result(XLA_FFI_CallFrame *frame, int i) { return frame->rets.rets[i]; }
INLINE const void *attribute(XLA_FFI_CallFrame *frame, int i) {
  return ((XLA_FFI_Array *)frame->attrs.attrs[i])->data;
}
