/* kir.h: kernel IR: one linear array of instructions, typed scalars and short vectors, structured for/if.
   A lowering builds it, the emitters only print it. Everything is explicit: where an fma is, what is a vector,
   where memory is masked. Text form, one instruction a line, prints and parses back:

     kernel add(x: f32, out y: f32) scratch 0 {
       %1 = param f32* 0
       %2 = param f32* 1
       %3 = task i64 0
       %4 = task i64 1
       %5 = const i64 1
       %6 = for i64 %3, %4, %5
         %7 = const i64 8
         %8 = mul i64 %6, %7
         %9 = load f32x8 %1, %8
         ...
         store %2, %8, %9
       end
     }

   A kernel for a GPU says `threads 128 shared 4096` behind its scratch: it is what ONE thread of a block does, and a block is one
   program. A pointer into shared memory is an `f32 shared*`.
*/
#ifndef SN_KIR_H
#define SN_KIR_H
#include "graph/util.h"

typedef enum { K_F32 = 1, K_BF16, K_F16, K_I32, K_U32, K_BOOL, K_I64, K_PTR, K_U8 } KKind; /* the first six equal Dtype's values */
typedef enum { K_GLOBAL, K_SHARED } KSpace;             /* of a pointer; scratch is global */
typedef struct KType { uint8_t kind, lanes; } KType;   /* lanes 1, 2, 4, 8, 16 (32 and 64 are legal and split by LLVM); bool vectors are masks */
typedef uint32_t KVal;                                  /* index of the defining instruction; 0 = none */

enum { K_none,
#define K(name, nargs, kind, text) K_##name,
#include "kir.def"
#undef K
    K_NOPS };

typedef struct KIns {
    uint8_t op, mem, space;          /* of a pointer: element KKind (bool elements are bytes in memory), KSpace */
    KType type;                      /* of the result; K_PTR for pointers */
    KVal a[4];
    int64_t imm;
    double f;
} KIns;

typedef struct KParam { Sym name; uint8_t mem; bool written; } KParam;
typedef struct KShuffle { uint8_t lane[64]; } KShuffle;

typedef struct Kernel {
    sn_ctx *ctx;
    Arena *arena;
    Sym name;
    VEC(KIns) ins;                   /* ins.v[0] unused */
    VEC(KParam) params;
    VEC(KShuffle) shuffles;
    int64_t scratch;                 /* bytes per worker; on a GPU per block */
    int threads;                     /* of a block; 0 = a kernel of one core, without the GPU's ops */
    int64_t shared;                  /* bytes of shared memory of a block */
    bool ex2;                        /* while it is built: the machine has K_ex2 */
    HashMap cons;                    /* constants and pure leaves, for sharing */
} Kernel;

Kernel *snK_new(sn_ctx *c, Arena *a, const char *name);
int snK_param(Kernel *k, const char *name, KKind mem, bool written);     /* returns its index */
int64_t snK_scratch(Kernel *k, int64_t bytes);                           /* reserves, 64-byte aligned; returns the offset */

/* Builders. snK_op checks types (aborts: a lowering's bug) and folds constants and identities that change no bit
   (integer x+0, x*1, constant index arithmetic; splat of a constant). */
static inline KType kt(KKind k, int lanes) { return (KType){ (uint8_t)k, (uint8_t)lanes }; }
KVal snK_op(Kernel *k, int op, KType t, KVal a, KVal b, KVal c);
KVal snK_int(Kernel *k, KType t, int64_t v);
KVal snK_float(Kernel *k, KType t, double v);
KVal snK_ptr(Kernel *k, int param);
KVal snK_scratch_ptr(Kernel *k, KKind mem, int64_t byte_offset);
int64_t snK_shared(Kernel *k, int64_t bytes);                            /* reserves, 128-byte aligned; returns the offset */
KVal snK_shared_ptr(Kernel *k, KKind mem, int64_t byte_offset);
KVal snK_leaf(Kernel *k, int op, KType t, int64_t imm);                   /* task, sysarg, lane, ... */
KVal snK_load(Kernel *k, KType t, KVal ptr, KVal index, KVal mask);
void snK_store(Kernel *k, KVal ptr, KVal index, KVal v, KVal mask);
KVal snK_gather(Kernel *k, KType t, KVal ptr, KVal index, KVal mask);
void snK_scatter(Kernel *k, KVal ptr, KVal index, KVal v, KVal mask);
void snK_prefetch(Kernel *k, KVal ptr, KVal index, bool write);
KVal snK_shuffle(Kernel *k, KVal a, KVal b, const uint8_t *lanes, int n); /* n result lanes */
KVal snK_for(Kernel *k, KVal begin, KVal end, KVal step, int unroll);
KVal snK_emit(Kernel *k, KIns i);                                        /* any other op as it is, checked: mma, ldmatrix, cp_async, ... */
void snK_if(Kernel *k, KVal cond);
void snK_else(Kernel *k);
void snK_end(Kernel *k);
KVal snK_var(Kernel *k, KVal first);
KVal snK_get(Kernel *k, KVal var);
void snK_set(Kernel *k, KVal var, KVal v);
KType snK_type(const Kernel *k, KVal v);
bool snK_const_int(const Kernel *k, KVal v, int64_t *out);
KVal snK_extract(Kernel *k, KVal v, int lane);
KVal snK_push(Kernel *k, KIns i);                    /* as it is: no check, no folding (the parser) */

/* Math as range reduction + polynomial in kernel IR, any float vector type computed in f32, at most 2 ulp (kmath.c, with
   the source of every coefficient); special values right: exp(-inf) = 0, exp(inf) = inf, log(0) = -inf, log(<0) = NaN, NaN in NaN out. */
KVal snK_exp(Kernel *k, KVal x);
KVal snK_exp2(Kernel *k, KVal x);
KVal snK_log(Kernel *k, KVal x);
KVal snK_tanh(Kernel *k, KVal x);
KVal snK_sin(Kernel *k, KVal x);
KVal snK_cos(Kernel *k, KVal x);
KVal snK_erf(Kernel *k, KVal x);
KVal snK_pow(Kernel *k, KVal x, KVal y);
/* Word `word` (0..3 per lane, u32 vector) of Philox 4x32-10; ctr lanes u32 vectors. */
KVal snK_philox(Kernel *k, const KVal key[2], const KVal ctr[4], KVal word);
/* One scalar function of graph/scalar.def on operands of one type: the bridge from an op's scalar text to kernel IR. */
KVal snK_scalar(Kernel *k, int scalar_op, KType result, const KVal *args, int nargs);

void snK_print(StrBuf *b, const Kernel *k);
Kernel *snK_parse(sn_ctx *c, Arena *a, const char *file, const char *text, size_t n);   /* fails through the context */
const char *snK_op_name(int op);
bool snK_has_value(int op);
const char *snK_kind_name(int kind);
int snK_nargs(int op);
int snK_kind_bytes(int kind);                        /* of one element in memory */
bool snK_check_ins(const Kernel *k, KVal at, const KIns *i, char err[256]);   /* operands and types of one instruction put at `at` */
KVal snK_check(const Kernel *k, char err[256]);      /* the first wrong instruction and why; 0 = the kernel is sound */
void snK_verify(const Kernel *k);                    /* types, nesting, dominance, scratch bounds; aborts */

/* -- Emitters ------------------------------------------------------------------------------------------- */

typedef struct Target {              /* what a lowering may know */
    const char *name;                /* "host", "host:x86-64-v3", "opencl:x8", "opencl:gpu", "ptx:sm_80" */
    char cpu[64], features[2048];    /* LLVM's names; empty = this machine's */
    int f32_lanes;                   /* vector lanes: 4, 8, 16 */
    int vregs;                       /* architectural vector registers: 16 or 32 */
    bool fma, bf16_dot;
    bool gpu;                        /* a program becomes a thread block (lower_gpu), not a core's work */
    int sm;                          /* PTX: 80, 86, 89, 90: warps, shuffles, mma, cp.async. 0: a GPU of which only OpenCL's core is known */
    bool tf32;                       /* PTX: products of f32 run on tensor cores, operands rounded to tf32 (snK_ask_tf32) */
    int64_t shared_bytes;            /* a block's shared memory, at most */
    int64_t l1_bytes, l2_bytes, l3_bytes;
    char sched[256];                 /* overrides of schedules: snK_sched_override */
} Target;
bool snK_is_opencl(const Target *t);
bool snK_is_ptx(const Target *t);
void snK_ask_tf32(Target *t, const char *autocast);      /* --autocast tf32: nothing where there are no such products */
int snK_target(sn_ctx *c, const char *name, Target *out);     /* host: asks the machine (cpuid, sysfs); 0 or fails */

/* libsinter_llvm.so's one entry, opened with dlopen by compile_host.c: kernel IR -> object file bytes (malloc'ed). No error: NULL err. */
typedef int (*EmitObjectFn)(const Kernel *const *kernels, int n, const Target *t, const char *dump_dir, void **obj, size_t *bytes, char err[512]);
/* Kernels (deduplicated by text) -> one shared object in memory; per-kernel objects cached by XXH3 of (text, target, compiler
   version) in $SN_CACHE or ~/.cache/sinter; modules compile on several threads. symbols[i] names kernel i. */
int snK_compile_host(sn_ctx *c, const Kernel *const *kernels, int n, const Target *t, int threads, void **so, size_t *bytes, const char **symbols, Arena *a);

/* Runs argv[0] with its messages in the file `log`; the exit status, or -1 when there is no such program. */
int snK_run(char *const *argv, const char *log);

/* emit_opencl.c: kernels -> OpenCL C 1.2 text appended to out, kernel i under names[i]. No library is needed. */
void snK_emit_opencl(StrBuf *out, const Kernel *const *kernels, int n, const char *const *names);
void snK_compile_opencl(const Kernel *const *kernels, int n, void **source, size_t *bytes, const char **symbols, Arena *a);
/* Code for the target, malloc'ed: a shared object or a source. */
int snK_compile(sn_ctx *c, const Kernel *const *kernels, int n, const Target *t, int threads, void **code, size_t *bytes, const char **symbols, Arena *a);

#endif
