/* lower_gpu.h: what the lowering for a thread block adds to lower_cpu.h.

   One program is one block of T threads, and every thread does what a core would, for its share of each tile: the analysis, the
   planning of loop nests and the evaluation of expressions are the CPU's (lower_cpu.c, lower_rows.c, lower_eval.c). What differs:

     nests        a block stands on a grid of TR x TC threads: rows tr, tr + TR, ... and in them vectors tc, tc + TC, ... are a thread's.
                  A reduction along a row is finished between the TC threads of the row, one down the columns between the TR.
     tiles        live in shared memory as long as there is room, else in the block's scratch; barriers stand where one thread
                  may read what another wrote (sync.. in lower_gpu.c).
     fragments    tiles that dots accumulate, and what is computed from them in their rows, stay in registers: the grid of the
                  program's dots is one for all of them, so element (r, c) of every fragment with such rows is the same thread's.
     stages       copies of blocks in shared memory, as rows, or turned so that a dot reads vectors along its columns. */
#ifndef SN_LOWER_GPU_H
#define SN_LOWER_GPU_H
#include "codegen/lower_cpu.h"

typedef struct Frag { int ni, nj; KVal *reg; } Frag;     /* registers: vars; [ni][nj] vectors, or [ni] scalars of a one-column tile */
typedef struct GView {               /* a staged operand in memory */
    TVal stage;
    bool turned;                     /* columns of the tile are rows here */
    bool shared;
    KKind kind;                      /* of an element: f32, or 16 bits for tensor cores */
    int64_t at, ld;                  /* byte offset; elements between rows */
    int64_t rows, cols;              /* with padding (tensor cores) */
    TVal ring; int slots;            /* loop that has it in a ring of slots; 0 = none */
    KVal slot;                       /* var: the slot to read */
} GView;

typedef struct Ring { int slots; KVal read, write; } Ring;   /* vars: the slot of this step, and the one that is filled in it */

typedef struct Gpu {
    int T;                           /* threads of the block */
    KVal tid;
    int dot_tc;                      /* TC of the fragments; 0 = the program has no dot */
    int most_slots;                  /* of a ring */
    bool mma;                        /* dots run on tensor cores (lower_gpu_mma.c) */
    VEC(Frag) frags;
    VEC(GView) views;
    int64_t red, red_bytes;          /* shared memory that reductions between threads go through */
    /* the nest */
    int TC, TR;
    KVal tc, tr, live;               /* live: this thread's row exists; 0 = surely */
    bool fixed;                      /* over fragments: rows and vectors are unrolled, (i, j) is the register */
    int i, j;
    /* memory touched since the last barrier */
    VEC(int64_t) reads, writes;
    bool unknown;                    /* a loop or branch joins here: anything may have been */
    VEC(int64_t) pending;            /* memory that cp.async is writing, a group each, the oldest first */
} Gpu;

/* lower_gpu.c */
void snG_place(Low *lo, TVal x);                         /* a fragment, a tile in shared memory, or one in scratch */
void snG_place_memory(Low *lo, TVal x);                  /* no fragment */
int64_t snG_reserve(Low *lo, int64_t bytes, bool *shared);   /* in shared memory while there is room, else in scratch */
KVal snG_register(Low *lo, TVal x);                      /* of its fragment, at the position of the nest */
void snG_sync_value(Low *lo, TVal x);                    /* before all threads evaluate x; nothing where lo is a core's */
void snG_edge(Low *lo);                                  /* control flow joins; nothing where lo is a core's */
typedef struct Touched { VEC(int64_t) reads, writes; } Touched;
void snG_touch_value(Low *lo, Touched *t, TVal x);       /* what evaluating x reads */
void snG_touch_tile(Low *lo, Touched *t, TVal x, bool write);
void snG_touch_view(Low *lo, Touched *t, const GView *w, bool write);
void snG_touch_memory(Low *lo, Touched *t, int64_t at, bool shared, bool write);
void snG_touch_buffer(Low *lo, Touched *t, int buf, bool write);
bool snG_meets(const Touched *writes, const Touched *reads);   /* is anything of the one's writes among the other's reads? */
void snG_sync(Low *lo, const Touched *t);                /* a barrier if needed, before what touches this */
GView *snG_view(Low *lo, TVal stage, bool turned);
KVal snG_view_ptr(Low *lo, const GView *w);
void snG_map(Low *lo, int tc);                           /* the grid of the nest: TC = tc */
KVal snG_aligned_load(Low *lo, KType t, KVal ptr, KVal at);   /* of whole vectors in tiles */

/* lower_gpu_rows.c */
void snG_nest(Low *lo, int phase, int rows);
int64_t snG_keep_rows(const Low *lo);                    /* rows that are in work at a time, at most */
KVal snG_keep_offset(Low *lo, int width);                /* of this thread's row buffer */
void snG_copy(Low *lo, TVal x, TVal to);                 /* as snL_copy */

/* lower_gpu_dot.c */
void snG_pack(Low *lo, TVal stage);
void snG_dot(Low *lo, TVal d);
KVal snG_limit(Low *lo, TVal valid, int64_t size);       /* a valid count, between 0 and the size */
/* A vector of the value at (row, vector v), zero in rows >= vr, columns >= vc and beyond the width; all: no row is outside. */
KVal snG_staged_value(Low *lo, TVal value, TVal vr, TVal vc, KVal row, KVal v, bool all, bool tail);

/* lower_gpu_async.c */
bool snG_is_block(const Low *lo, const GView *w);        /* a copy of memory as it is: cp.async can make it */
void snG_plan_rings(Low *lo);
int64_t snG_view_bytes(const GView *w);                  /* of a slot */
void snG_copy_block(Low *lo, const GView *w);
void snG_await(Low *lo, const int64_t *reads, uint32_t n);
void snG_await_all(Low *lo);
bool snG_fill_ring(Low *lo, TVal loop, Ring *r);         /* before the loop; false: it has no ring */
void snG_begin_step(Low *lo, TVal loop, const Ring *r);
void snG_end_step(Low *lo, const Ring *r);

/* lower_gpu_mma.c */
bool snG_takes_mma(const Low *lo);
void snG_plan_operands(Low *lo);
void snG_pack_operand(Low *lo, TVal stage);
void snG_mma_dot(Low *lo, TVal d);

#endif
