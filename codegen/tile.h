/* tile.h: tile programs: what one grid point does, over tiles of static shape. A kernel family writes one
   (families.h), a lowering turns it into kernel IR for one CPU core (lower_cpu) or one thread block (lower_gpu).
   See tile.def for the ops. The text form prints and parses back:

     kernel gemm(a: f32[2048, 192], b: f32[192, 512], c: f32[2048, 512]) grid(22, 2) {
       %1 = grid 0
       ...
       %9 = load f32[96, 192] a, %5, valid(%7, 0), strides(192, 1)
       %10 = stage f32[96, 192] %9, valid(%7, 0)
       ...
     }

   Semantics: a grid of independent programs in any order; grid(0) varies fastest, and consecutive programs of one worker
   run in that order, so what does not depend on grid 0 may be kept (packed panels). Buffers do not overlap, except that an output may be the same
   memory as an input that is read only at the same element. Types: compute is in f32 for every float dtype; a value whose type is bf16 or f16 is
   rounded when made by ew `cast` and when stored. Undefined elements (outside valid) may hold anything and must not reach a store or a reduce. */
#ifndef SN_TILE_H
#define SN_TILE_H
#include "codegen/kir.h"
#include "graph/graph.h"

enum { T_none,
#define T(name, nargs, kind, text) T_##name,
#include "tile.def"
#undef T
    T_NOPS };

typedef uint32_t TVal;
typedef struct TType { uint8_t dtype; /* Dtype; 0 = idx */ int32_t r, c; } TType;
/* NaN propagates in max and min as in the evaluator; peak is a max that may lose it. First of a tie. */
typedef enum { RED_SUM, RED_MAX, RED_MIN, RED_PEAK, RED_ARGMAX, RED_ARGMIN } RedKind;

typedef struct TIns {
    uint8_t op, fn, red;             /* fn: ScalarOp of T_ew; red: RedKind */
    TType type;
    TVal a[5];
    int32_t buf;                     /* index into params */
    int64_t imm, rs, cs, ks;
    double f;
} TIns;

typedef struct TParam {              /* local: memory of the program's own, gone when it ends; no argument of the kernel */
    Sym name;
    uint8_t dtype;
    bool written, local;
    int32_t align;                   /* bytes that its address is a multiple of; 0 = its elements' size */
    int64_t count;                   /* elements, for bounds checks in the verifier */
} TParam;
typedef struct Tile {
    sn_ctx *ctx;
    Arena *arena;
    Sym name;                        /* label: "attn.q" or "rows.12" */
    const char *family;
    VEC(TIns) ins;                   /* ins.v[0] unused */
    VEC(TParam) params;
    int ngrid; int64_t grid[MAX_RANK];
    double flops, bytes;             /* for reports */
} Tile;

Tile *snT_new(sn_ctx *c, Arena *a, const char *family, const char *name);
int snT_param(Tile *t, const char *name, Dtype d, int64_t count, bool written);
int snT_local(Tile *t, const char *name, Dtype d, int64_t count);
int snT_nargs(const Tile *t);                            /* params that are not local */
TVal snT_add(Tile *t, const TIns *i);                    /* checks types and shapes (aborts), folds idx arithmetic, shares equal pure values in the same region */
/* Shorthands over snT_add. */
TVal snT_grid(Tile *t, int dim);
TVal snT_idx(Tile *t, int64_t v);
TVal snT_ix(Tile *t, int op, TVal a, TVal b);            /* T_iadd ... */
TVal snT_full(Tile *t, TType ty, double v);
TVal snT_ew(Tile *t, int scalar_op, Dtype result, TVal a, TVal b, TVal c);   /* shape by broadcasting */
TVal snT_scalar(Tile *t, const Scalar *s, Dtype operand, Dtype result, const TVal *args);  /* a whole scalar text */
TVal snT_iota(Tile *t, TVal first, int axis, int32_t n);                       /* i32: first + 0..n-1, down (axis 0) or across (axis 1) */
TVal snT_load(Tile *t, int buf, int32_t r, int32_t c, TVal base, int64_t rs, int64_t cs, TVal vr, TVal vc);
void snT_store(Tile *t, int buf, TVal base, TVal v, int64_t rs, int64_t cs, TVal vr, TVal vc);
TVal snT_reduce(Tile *t, TVal v, int axis, RedKind red, TVal vr, TVal vc);
TVal snT_stage(Tile *t, TVal v, TVal vr, TVal vc);
TVal snT_dot(Tile *t, TVal a, TVal b, TVal acc, bool ta, bool tb);
TVal snT_var(Tile *t, TVal first);
TVal snT_get(Tile *t, TVal var);
void snT_set(Tile *t, TVal var, TVal v);
TVal snT_for(Tile *t, TVal begin, TVal end, TVal step, bool pipelined);
void snT_if(Tile *t, TVal cond);
void snT_end(Tile *t);

void snT_print(StrBuf *b, const Tile *t);
Tile *snT_parse(sn_ctx *c, Arena *a, const char *file, const char *text, size_t n);
void snT_verify(const Tile *t);

/* By the target: lower_cpu, or lower_gpu. */
Kernel *snK_lower(sn_ctx *c, Arena *a, const Tile *t, const Target *target);
/* One program on one core. The kernel runs programs [task 0, task 1) of the flattened grid. */
Kernel *snK_lower_cpu(sn_ctx *c, Arena *a, const Tile *t, const Target *target);
/* One program by one thread block. The kernel is what a thread does; blocks are numbered as programs of the flattened grid. */
Kernel *snK_lower_gpu(sn_ctx *c, Arena *a, const Tile *t, const Target *target);

/* -- Schedules (sched.c): struct per family, from a model of the target, then sched.tab, then --sched ---------- */
typedef struct GemmSched { int bm, bn, kc; } GemmSched;   /* program tile and K step */
typedef struct RowsSched { int rows, cols; } RowsSched;   /* rows of a tile; columns of a tile when no reduction needs whole rows */
typedef struct AttentionSched { int bq, bk, whole; } AttentionSched;   /* queries, keys of a block; whole: backward in one program a head */
typedef struct AttentionShape { int64_t heads, queries, keys, d, dv; bool masked, backward; int beside; } AttentionShape;
AttentionSched snK_sched_attention(const Target *t, AttentionShape a);   /* beside: values of a block that live beside its scores */
GemmSched snK_sched_gemm(const Target *t, int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, Dtype d);
RowsSched snK_sched_rows(const Target *t, int64_t rows, int64_t cols, int nloads, bool whole_rows);
void snK_sched_override(sn_ctx *c, Target *t, const char *text);   /* "gemm:bm=128,bn=256", kept in t->sched */
enum { SN_KEEP_BYTES = 4 << 20 };    /* packed panels that outlive a program take at most this much of a worker's scratch */

/* A plain gemm without graph, for `sinter bench gemm` and tests: c[m,n] = op(a) op(b).
   The family proper, with prologue and epilogue cones, is in family_gemm.c and calls the same core. */
typedef struct GemmShape { int64_t batch, m, n, k; bool ta, tb; Dtype dtype, out; } GemmShape;   /* out: of c, 0 = dtype */
Tile *snT_gemm_plain(sn_ctx *c, Arena *a, const GemmShape *s, const Target *target);   /* params a, b, c; grid (m, n, batch) */

/* What tile.def and a value say. */
const char *snT_misfit(const Tile *t, const TIns *i);      /* what is wrong with an instruction put next; NULL = nothing */
const char *snT_op_name(int op);
int snT_op_args(int op);
char snT_op_kind(int op);
TType snT_type(const Tile *t, TVal v);
bool snT_const_idx(const Tile *t, TVal v, int64_t *out);

/* The micro-kernel that lower_cpu uses for a product [.., m] x [.., n]: MR rows by NR columns in registers. Tiles whose sides are
   multiples of these (or as large as the matrix) waste nothing. */
void snK_micro(const Target *t, int64_t m, int64_t n, int *mr, int *nr);

/* Plain C interpretation of programs begin..end-1: the oracle of lower_cpu's tests. la: seed low, high, step, micro. */
void snT_eval(const Tile *t, void *const *bufs, const uint32_t la[4], int64_t begin, int64_t end);

#endif
