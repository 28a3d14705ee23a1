/* lower_cpu.h: what the three files of the CPU lowering share. lower_cpu.c owns the program (analysis, index values, structure),
   lower_rows.c the chains of elementwise, reduce and memory ops, lower_dot.c packing and the micro-kernel.

   A tile program is cut into SEGMENTS: runs of instructions between dots and control flow. Inside a segment nothing has
   an order except through operands, so a segment becomes a few loop nests. A value lives in one of these ways: */
#ifndef SN_LOWER_CPU_H
#define SN_LOWER_CPU_H
#include "codegen/tile.h"

typedef enum {
    H_IDX,       /* index value: an i64 in `k` */
    H_SCALAR,    /* [1,1] that needs no loop: in `k` from its segment's start */
    H_LEAF,      /* full, iota, load of a read-only buffer: evaluated wherever it is used */
    H_INLINE,    /* evaluated by the one stage that uses it, wherever it packs */
    H_CHAIN,     /* computed by a nest of its segment; has a scratch tile (`at`) only if something else needs it */
    H_TILE,      /* always in scratch: results of dot, scan, topk, var, get */
} How;

typedef struct LVal {
    KVal k;                          /* H_IDX, [1,1] */
    int64_t at;                      /* 1 + byte offset of its scratch tile; 0 = none */
    int32_t ld;                      /* elements between rows of the tile */
    uint8_t how;
    uint8_t wide;                    /* a micro-kernel of so many columns runs over its tile: pad it */
    uint8_t level;                   /* H_CHAIN: reductions along the row it waits for, in its nest */
    bool tall;                       /* one column, computed for a vector of rows at a time in a nest of its own */
    uint16_t phase;                  /* H_CHAIN: nest of the segment */
    uint32_t seg;
    uint64_t deps;                   /* DEP_*: what the value changes with */
    int64_t keep;                    /* 1 + byte offset of a row buffer that carries it to later levels */
    KVal memo; uint32_t stamp;       /* the KIR value in the current vector or row */
    uint32_t seen, kept_seen;        /* marks of the current walks */
    KVal quad[4]; uint32_t quad_stamp;   /* random numbers (or hits) of four neighbouring vectors, made together */
    /* GPU (lower_gpu.h) */
    uint32_t frag;                   /* 1 + index of its fragment; 0 = none */
    bool shared;                     /* the tile at `at` is in shared memory, not in scratch */
} LVal;
enum { DEP_GRID0 = 1, DEP_STATE = 2, DEP_LOOP = 2 /* first loop's bit number */ };

/* A staged operand as its dot reads it. */
typedef struct View {
    TVal stage;
    bool right, trans;               /* operand position; the tile is [k,m] / [n,k] */
    bool pairs;                      /* words of two bf16 along the depth instead of f32 elements */
    int width;                       /* MR or NR */
    int64_t off, slot_bytes;         /* scratch of slot 0; bytes of one slot */
    int64_t panel;                   /* elements between panels; `rows`: between rows */
    int64_t keys;                    /* 1 + scratch offset of the slots' keys: kept between programs; 0 = packed each time */
    TVal loop; int64_t lo, step, slots;   /* slot = (loop index - lo) / step */
    bool rows;                       /* A [m, k] as rows, not panels of MR */
    bool in_place;                   /* A [m, k] read where it is; only the last rows, if fewer than MR, are copied */
    KVal base;                       /* pointer to the current slot; in place: to the source */
    KVal edge, whole;                /* in place: pointer to the copied rows; rows before them */
} View;

struct Gpu;
typedef struct Low {
    struct Gpu *gpu;                 /* lower_gpu.h; NULL: one core */
    const Tile *t;
    const Target *target;
    Kernel *k;
    Arena *arena;
    int L;                           /* f32 lanes */
    LVal *v;                         /* by TVal */
    uint32_t *users, *first_user;    /* users[first_user[v] .. first_user[v + 1]) */
    TVal *region, *close;            /* opener an instruction is in (0 = program); end of an opener */
    TVal *zero_loop;                 /* var -> loop whose first step starts its accumulation from zero */
    TVal *dest;                      /* dot -> var it accumulates into; 0 = its own tile */
    TVal *direct;                    /* dot -> store that its last step does itself; store -> that dot */
    VEC(View) views;
    int nloops; TVal loops[62];
    KVal outer_key;                  /* i64: grid position above dimension 0 */
    KVal *params;
    /* where evaluation stands: lower_rows.c */
    KVal row, col;                   /* i64; row 0 = the first and only */
    bool tail;                       /* lanes may be outside: mask */
    bool down;                       /* vectors are of rows: a tall nest */
    int quad;                        /* 1 + which of four neighbouring vectors this is; 0 = alone */
    uint32_t quad_stamp;
    int width;                       /* columns of the loop */
    TVal row_limit;                  /* rows are known to be below this idx */
    int level;
    uint32_t vec_stamp, row_stamp, stamp, mark, keep_mark;
    TVal seg_begin, seg_end; int phase, rows;   /* the nest: H_CHAIN values of this segment, phase and row count are computed in it */
} Low;

#define INS(lo, x) (&(lo)->t->ins.v[x])
static inline KType i64(void) { return kt(K_I64, 1); }
static inline KVal ki(Low *lo, int64_t x) { return snK_int(lo->k, i64(), x); }
static inline KVal kadd(Low *lo, KVal a, KVal b) { return snK_op(lo->k, K_add, i64(), a, b, 0); }
static inline KVal kmul(Low *lo, KVal a, int64_t b) { return snK_op(lo->k, K_mul, i64(), a, ki(lo, b), 0); }
static inline bool is_vec(TType t) { return t.dtype && t.c > 1; }
static inline bool is_one(TType t) { return t.dtype && t.r == 1 && t.c == 1; }
static inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

/* lower_cpu.c */
void snL_analyse(Low *lo);                               /* users, regions, segments, how each value lives, dests of dots */
void snL_region(Low *lo, TVal begin, TVal end);          /* emits instructions begin..end - 1 */
void snL_grid(Low *lo, KVal program);                    /* positions from the number of the program */
bool snL_get_shares(const Low *lo, TVal get);            /* a get that may read its var's tile: no later write is seen by its uses */
int snL_tile_args(const Low *lo, TVal x, TVal out[5]);   /* operands that are tiles */
KVal snL_idx(Low *lo, TVal x, int64_t otherwise);        /* an idx, or a constant when x is 0 */
void snL_force_idx(Low *lo, TVal x);                     /* emits an index expression ahead of its turn */
void snL_place(Low *lo, TVal x);                         /* gives value x a scratch tile */
void snL_range(const Low *lo, TVal x, int64_t *least, int64_t *most);

/* lower_eval.c: values at a position */
KKind snL_kind(int dtype);                               /* register kind: every float is f32 */
KType snL_vt(const Low *lo, int dtype);                  /* a vector of it */
KVal snL_vec(Low *lo, TVal x);                           /* value at (row, col): L lanes */
KVal snL_scal(Low *lo, TVal x);                          /* value of a one-column tile at row */
void snL_touch(Low *lo, TVal x);                         /* evaluates what is constant along the row, before a column loop */
void snL_new_vec(Low *lo);
void snL_new_row(Low *lo);
KVal snL_mask(Low *lo, TVal vc);                         /* lanes below vc and the width; 0 = all */
KVal snL_row_ok(Low *lo, TVal vr);                       /* bool: row is below vr; 0 = known */
/* Scalar bool: the thread stands where there is something below vr and vc, 0 = surely; *mask: what is left to say of the lanes. */
KVal snL_gate(Low *lo, TVal vr, TVal vc, KVal *mask);
int snL_alignment_of(const Low *lo, const TIns *i, bool rows, int lanes);
int snL_alignment(const Low *lo, const TIns *i, bool rows);   /* of a load's or store's vectors, in elements; rows: it moves with the row */
KVal snL_tile_ptr(Low *lo, TVal x);                      /* pointer to its scratch tile */
KVal snL_keep_ptr(Low *lo, TVal x);                      /* pointer to its row buffer */
typedef struct Limits { TVal v[8]; int n; } Limits;      /* distinct valid counts */
void snL_limit(Limits *s, TVal valid);
void snL_limits(Low *lo, TVal x, Limits *rows, Limits *cols);  /* of the loads that evaluating x touches */
bool snL_is_heavy(int fn);                               /* a base function of many instructions */
int snL_cost(Low *lo, TVal x);                           /* vector instructions to evaluate x, about */
bool snL_has_quads(Low *lo, TVal x);                     /* are there random numbers that come cheaper four vectors at a time? */
KVal snL_unpack(Low *lo, KVal a, KVal b, int size, bool high);   /* interleaves halves of each 4 lanes, in blocks of `size` lanes */
bool snL_is_here(const Low *lo, TVal x);                 /* computed by the nest and level that is being emitted */

/* lower_rows.c: loop nests */
typedef enum { R_ROW, R_COL, R_STORE, R_TILE, R_KEEP, R_SCATTER } RootKind;   /* reductions along rows, down columns, ... */
enum { MAX_UNROLL = 4, MAX_ROOTS = 512 };

typedef struct Root {
    TVal x, value, tile;             /* instruction; what is evaluated; tile written (R_TILE) */
    uint8_t kind, level;
    int width;
    KVal acc[MAX_UNROLL], arg[MAX_UNROLL];   /* accumulators: vars */
    KVal ptr, arg_ptr;               /* R_COL: rows of scratch */
    KVal now;                        /* value in this vector */
} Root;

typedef struct Nest { Root *root; int n, rows, levels; bool tall; } Nest;
Nest snL_open_nest(Low *lo, int phase, int rows, bool tall);     /* roots and levels; in the context's scratch arena */
void snL_close_nest(Low *lo, const Nest *n);             /* sums of a one-column tile are scalars now */
TVal snL_common_rows(Low *lo, const Nest *n);            /* rows below which limit all of it stops; 0 = none */
void snL_column_limits(Low *lo, Root *const *root, int n, Limits *cols);
KVal snL_identity(Low *lo, int red, KType t);
KVal snL_combine(Low *lo, int red, KVal acc, KVal x);
KVal snL_beats_at(Low *lo, int red, KVal y, KVal j, KVal x, KVal i);
void snL_start_row(Low *lo, Root *r, int unroll);
void snL_step_row(Low *lo, Root *r, int u);
KVal snL_finish_row(Low *lo, Root *r, int unroll, KVal *arg);    /* over the lanes; *arg: its place, of arg kinds */
void snL_write_root(Low *lo, Root *r, int u, bool vector);
void snL_segment(Low *lo, TVal begin, TVal end);         /* nests of a segment; stages follow through snL_pack */
void snL_copy(Low *lo, TVal x, TVal to);                 /* value x evaluated into the scratch tile of `to` */

/* lower_scan.c */
void snL_scan(Low *lo, TVal x);
void snL_topk(Low *lo, TVal x);

/* lower_pairs.c: bf16 products */
bool snL_in_pairs(const Low *lo, TVal dot);
KVal snL_pairs_down(Low *lo, TVal stage, KVal row, bool masked);   /* rows row and row + 1, at the columns from lo->col */
KVal snL_pairs_across(Low *lo, TVal stage, bool masked);           /* 2 L columns from lo->col of the current row */

/* lower_dot.c */
KVal snL_staged(Low *lo, TVal stage, bool masked);       /* the staged value at the position; masked: zero outside the valid columns */
void snL_begin_row(Low *lo, KVal row, TVal stage);
void snL_views(Low *lo);                                 /* layouts and scratch of every staged operand */
void snL_pack(Low *lo, TVal stage);
void snL_dot(Low *lo, TVal dot);

#endif
