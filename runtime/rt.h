/* rt.h: what the files of the runtime share: error codes, dtypes, the worker pool, the host device,
   initial values.

   sn_rt.h is the public face; session.c stands on host.c (runs launches), pool.c (threads), init.c
   (initial values) and safetensors.c (files). Errors: a code and one line of text in the caller's
   buffer; nothing exits or prints. */
#ifndef SN_RT_INTERNAL_H
#define SN_RT_INTERNAL_H
#include "runtime/program.h"
#include "runtime/sn_rt.h"

/* The codes of graph/util.h, which the runtime does not include. */
enum {
    ERR_TYPE = -2, ERR_SHAPE = -3, ERR_UNKNOWN = -4, ERR_UNSUPPORTED = -5, ERR_NOMEM = -6,
    ERR_IO = -7, ERR_DEVICE = -8, ERR_PROGRAM = -9, ERR_USAGE = -10
};
/* The dtypes of graph.h; files know some more (SN_FILE_* of sn_rt.h). */
enum { DT_F32 = 1, DT_BF16, DT_F16, DT_I32, DT_U32, DT_BOOL, DT_F64 };

/* -- Errors: a fixed buffer, one line ---------------------------------------------------------- */

enum { ERR_TEXT = 256 };
int snR_fail(char err[ERR_TEXT], int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
char *snR_last_error(void);                      /* this thread's buffer behind sn_rt_error() */
bool snR_write_all(int fd, const void *data, size_t n);  /* false: errno says why */

/* -- Dtypes ------------------------------------------------------------------------------------ */

int snR_dtype_size(int dtype);                   /* bytes; 0 when unknown */
const char *snR_dtype_name(int dtype);           /* "f32" */
int64_t snR_tensor_bytes(int dtype, int rank, const int64_t *dim);  /* -1: impossible */
void snR_store(int dtype, void *at, double v);   /* rounded to nearest even; integers wrap */

/* -- Pool: a launch of n programs, cut into contiguous runs, each run by one worker ------------ */

typedef struct Pool Pool;
typedef void (*PoolFn)(void *arg, int worker, int64_t begin, int64_t end);
Pool *snR_pool_new(int threads); /* 0 = all cores; the caller is worker 0. NULL: out of memory */
void snR_pool_free(Pool *p);
int snR_pool_threads(const Pool *p);
void snR_pool_run(Pool *p, int64_t n, PoolFn fn, void *arg);
int snR_cores(void); /* that this process may use: affinity and cgroup quota */

/* -- Host device ------------------------------------------------------------------------------- */

typedef struct Host Host;
Host *snR_host_open(const SnProgram *p, int threads, char err[ERR_TEXT]);
void snR_host_close(Host *h);
Pool *snR_host_pool(Host *h);
/* One launch list over bound buffers: bufs holds every launch's base pointers, one after the other.
   seconds: NULL, or one sum per launch to add the time to. */
void snR_host_run(Host *h, const SnGraphPlan *g, void *const *bufs, const SnLaunchArgs *la,
                  double *seconds);
void *snR_alloc(size_t bytes); /* 64-byte aligned, in huge pages when large; release with free() */
double snR_now(void);                            /* seconds, monotonic */

/* -- Programs and initial values --------------------------------------------------------------- */

int snR_program_check(const SnProgram *p, char err[ERR_TEXT]);  /* all indices, sizes, offsets */
void snR_init_storage(Pool *pool, const SnStorage *st, uint64_t seed, void *out);
uint32_t snR_stream(const char *name);           /* low 31 bits of XXH3_64bits(name) */

#endif
