/* program.h: a compiled program, as plain data: what codegen produces, what a bundle stores, what the
   runtime runs. Pointers only to memory that the program owns (one malloc'ed arena); no compiler types.

   A program holds several graphs (train, eval, ...) over one table of kernels and one table of storage
   (weights and states, by name, shared between graphs). A graph is a list of launches over buffers;
   buffers live in the graph's arena at fixed offsets, in storage, or are inputs. Nothing is decided at run time. */
#ifndef SN_PROGRAM_H
#define SN_PROGRAM_H
#include <stddef.h>
#include <stdint.h>

enum { SN_MAX_RANK = 6 };

/* What every kernel may read besides its buffers: the random key and counters. `again`: this worker has run programs of this
   launch before, and its scratch is as that call left it (packed panels). */
typedef struct SnLaunchArgs { uint32_t seed[2], step, micro, again; } SnLaunchArgs;

/* Host kernel: runs programs begin..end-1 of its grid on the calling worker; scratch is the worker's own,
   64-byte aligned. Buffers are base pointers in the order of the launch's args: 64-byte aligned, but aligned to
   their elements only where they are a part of another (a weight among neighbours, a part of a concat). */
typedef void (*SnHostKernel)(void *const *bufs, const SnLaunchArgs *la, int64_t begin, int64_t end, void *scratch);

typedef enum { SN_BUF_ARENA, SN_BUF_INPUT, SN_BUF_STORAGE } SnBufKind;

typedef struct SnTensorDesc {
    const char *name;                /* graph name of the value; "" for anonymous arena buffers */
    uint8_t dtype, rank;             /* Dtype of graph.h: f32 1, bf16 2, f16 3, i32 4, u32 5, bool 6 */
    int64_t dim[SN_MAX_RANK];
} SnTensorDesc;

typedef struct SnStorage {           /* a weight or state */
    SnTensorDesc t;
    uint8_t is_state, init;          /* init: InitKind of graph.h: zeros 1, ones 2, full 3, normal 4, uniform 5 */
    double a, b;                     /* normal: std a; uniform [a, b); full: a */
    int32_t inside;                  /* 1 + index of the storage in whose memory it lies, 0 = its own */
    int64_t offset;                  /* inside: bytes behind that one's start; kernels see such neighbours as one buffer */
} SnStorage;

enum { SN_ABOVE = 2, SN_BELOW = 4, SN_WHOLE = 8 };       /* lo itself is out, hi is; whole numbers only; 1: there is a range */

typedef struct SnBuffer {
    uint8_t kind;                    /* SnBufKind */
    SnTensorDesc t;
    int64_t bytes, offset;           /* ARENA: offset in the graph's arena; STORAGE: behind the storage's start */
    int32_t storage;                 /* STORAGE: index into program->storage; may reach into its neighbours */
    uint8_t has_default; double dflt;/* INPUT of rank 0 with a default value */
    uint8_t range; double lo, hi;    /* what it may be set to; range: bits as above, 0 = anything */
} SnBuffer;

typedef struct SnKernelDesc {
    const char *symbol;              /* in the code object */
    const char *family, *label;      /* "gemm", "rows", ...; label: a readable name for profiles */
    int64_t grid;                    /* number of programs */
    int64_t scratch_bytes;           /* per worker; on a GPU per block */
    double flops, bytes;             /* model's count for one launch: floating-point operations, bytes moved at least */
    int32_t nargs;
    int32_t threads;                 /* of a block on a GPU: one program is one block; 0 = one core runs a program */
    int64_t shared_bytes;            /* a block's shared memory */
    uint8_t timeless;                /* 1: reads nothing of SnLaunchArgs, so that a launch is the same in every step */
} SnKernelDesc;

typedef struct SnLaunch { int32_t kernel; int32_t nargs; const int32_t *args; /* buffer ids */ } SnLaunch;
typedef struct SnOutput { const char *name; int32_t buffer; } SnOutput;

typedef struct SnGraphPlan {
    const char *name;
    int32_t nbuffers, nlaunches, noutputs;
    SnBuffer *buffers; SnLaunch *launches; SnOutput *outputs;
    int64_t arena_bytes, live_peak;  /* live_peak: the largest live set, a lower bound for arena_bytes */
} SnGraphPlan;

typedef struct SnParam { const char *name, *value; } SnParam;

typedef struct SnMapping SnMapping;  /* a bundle's file in memory (bundle.c) */

typedef struct SnProgram {
    const char *target;              /* "host" */
    int32_t nkernels, nstorage, ngraphs, nparams;
    SnKernelDesc *kernels; SnStorage *storage; SnGraphPlan *graphs; SnParam *params;
    const void *code; size_t code_bytes;   /* host: an ELF shared object; else a text */
    const void *cubin; size_t cubin_bytes; /* ptx: the same assembled for that card, NULL = not; in the bundle's file, or its builder's */
    uint64_t hash;                   /* XXH3 of everything above: two equal builds give the same */
    void *memory;                    /* what snR_program_free releases; the program itself lies in it */
    SnMapping *file;                 /* in which the code lies, NULL = none; released with it */
    SnHostKernel (*resolve)(const char *symbol);   /* host, code == NULL: kernels of this process (tests) */
} SnProgram;

void snR_program_free(SnProgram *p);

#endif
