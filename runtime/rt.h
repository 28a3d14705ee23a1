/* rt.h: what the files of the runtime share: error codes, dtypes, the worker pool, devices,
   initial values.

   sn_rt.h is the public face; session.c stands on a device (host.c, opencl.c, cuda.c), pool.c (threads),
   init.c (initial values) and safetensors.c (files). Errors: a code and one line of text in the caller's
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
/* A compiler's log and what it was given, into a new file below /tmp: its name, or "nowhere". */
void snR_keep_log(const char *kind, const char *log, const void *code, size_t bytes, char path[64]);
typedef bool (*SnWriter)(int fd, void *arg);       /* false: errno says why */
int snR_replace(const char *path, SnWriter write, void *arg, char err[ERR_TEXT]);  /* replace.c: whole or not at all */

/* -- Dtypes ------------------------------------------------------------------------------------ */

int snR_dtype_size(int dtype);                   /* bytes; 0 when unknown */
const char *snR_dtype_name(int dtype);           /* "f32" */
int64_t snR_tensor_bytes(int dtype, int rank, const int64_t *dim);  /* -1: impossible */
void snR_range_text(const SnBuffer *b, char out[96]);        /* what sn_set takes: "at least 0 and below 1" */
void snR_store(int dtype, void *at, double v);   /* rounded to nearest even; integers wrap */

/* -- Pool: a launch of n programs, cut into contiguous runs, each run by one worker ------------ */

typedef struct Pool Pool;
typedef void (*PoolFn)(void *arg, int worker, int64_t begin, int64_t end);
Pool *snR_pool_new(int threads); /* 0 = all cores; the caller is worker 0. NULL: out of memory */
void snR_pool_free(Pool *p);
int snR_pool_threads(const Pool *p);
void snR_pool_run(Pool *p, int64_t n, PoolFn fn, void *arg);
int snR_cores(void); /* that this process may use: affinity and cgroup quota */

/* -- Devices: where a program's values live and its launches run ------------------------------- */

/* A device's memory is a handle; on a device whose memory is the host's own, the address itself. */
typedef struct Span { void *mem; size_t at; } Span;          /* a byte offset in it */
typedef struct Device Device;
typedef struct DeviceOps {
    bool is_host;                                /* memory handles are addresses */
    void (*close)(Device *d);
    void *(*alloc)(Device *d, size_t bytes, char err[ERR_TEXT]);     /* NULL: not enough */
    void (*release)(Device *d, void *mem);
    int (*write)(Device *d, void *mem, size_t at, const void *data, size_t bytes, char err[ERR_TEXT]);
    int (*read)(Device *d, void *mem, size_t at, void *out, size_t bytes, char err[ERR_TEXT]);
    int (*poison)(Device *d, void *mem, size_t bytes, char err[ERR_TEXT]);   /* bytes 0xff */
    /* A graph's launches over memory: buf[i] is where buffer i of the plan lies. */
    void *(*prepare)(Device *d, const SnGraphPlan *g, const Span *buf, char err[ERR_TEXT]);
    void (*discard)(Device *d, void *prepared);
    /* All of them, done on return. seconds: NULL, or a sum per launch to add the time to. */
    int (*run)(Device *d, void *prepared, const SnLaunchArgs *la, double *seconds, char err[ERR_TEXT]);
} DeviceOps;
struct Device { const DeviceOps *ops; };         /* the head of what the device keeps */

/* name: NULL = the program's own kind. threads: of an OpenCL device, groups; 0 = all. NULL: err says why. */
Device *snR_open_device(const SnProgram *p, const char *name, Pool *pool, int threads, char err[ERR_TEXT]);
Device *snR_host_open(const SnProgram *p, Pool *pool, char err[ERR_TEXT]);
Device *snR_opencl_open(const SnProgram *p, const char *name, int threads, char err[ERR_TEXT]);
Device *snR_null_open(char err[ERR_TEXT]);
void snR_null_fault(int64_t n);                  /* the n-th call of a device null from now on fails; 0 = none */
int snR_opencl_devices(sn_device_info *out, int cap);                /* the number */
int snR_opencl_target(const char *name, char target[64], char err[ERR_TEXT]);
Device *snR_cuda_open(const SnProgram *p, const char *name, char err[ERR_TEXT]);
int snR_cuda_devices(sn_device_info *out, int cap);                  /* the number */
int snR_cuda_target(const char *name, char target[64], char err[ERR_TEXT]);
int snR_cuda_sm(const char *name, char err[ERR_TEXT]);               /* 90 of a card of compute capability 9.0; or a negative code */
double snR_ptx_measure(const char *device, int sm, int units, int what, int64_t bytes);      /* of what runs PTX (cuda_peak.c) */
int snR_cuda_rank(const char *target, int sm);   /* how well code for a target suits such a card; -1: not at all */
const char *snR_default_device(const char *target);                  /* what a program for it runs on where no device is named */
Device *snR_emu_open(const SnProgram *p, const char *name, Pool *pool, char err[ERR_TEXT]);
int snR_emu_target(const char *name, char target[64], char err[ERR_TEXT]);
void *snR_alloc(size_t bytes); /* 64-byte aligned, in huge pages when large; release with free() */
double snR_now(void);                            /* seconds, monotonic */

/* -- Programs and initial values --------------------------------------------------------------- */

void snR_unmap(SnMapping *m);                    /* one user less; NULL: nothing */
int snR_program_check(const SnProgram *p, char err[ERR_TEXT]);  /* all indices, sizes, offsets */
void snR_init_storage(Pool *pool, const SnStorage *st, uint64_t seed, void *out);
uint32_t snR_stream(const char *name);           /* low 31 bits of XXH3_64bits(name) */

#endif
