/* emu_in.h: what the files of the emulator share: decoded instructions, warps, blocks, the table's rows.

   A register is 32 lanes side by side: 128 bytes for 16 and 32 bits (16-bit values are kept zero-extended), 256 bytes for 64 bits. A
   predicate is one 32-bit word, a bit per lane. An operand is a byte offset into the warp's registers, or, with bit 0 set, into the
   constants of the kernel: immediates are spread over lanes once, when the text is decoded. */
#ifndef SN_EMU_IN_H
#define SN_EMU_IN_H
#include "runtime/emu.h"

enum { LANES = 32, MAX_WARPS = 32, MAX_SHARED = 228 << 10, MAX_STATIC_SHARED = 48 << 10, MAX_LOCAL = 1 << 19, MAX_REFS = 40, NBARRIERS = 16 };
#define FULL_WARP 0xffffffffu

/* Memory of the lanes may be read as any type. */
typedef uint32_t __attribute__((may_alias)) Lane32;
typedef uint64_t __attribute__((may_alias)) Lane64;

typedef enum { SPACE_GENERIC, SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM } Space;

typedef struct Warp Warp;
typedef struct Ins Ins;
typedef const Ins *(*Run)(Warp *w, const Ins *i);    /* the next instruction; NULL: the warp stops for now */

struct Ins {
    Run run;
    int64_t imm, imm2;               /* offsets of addresses, or what the row says */
    const uint32_t *more;            /* all operands; r has the first six */
    uint32_t r[6];
    int32_t line;                    /* of the text */
    uint8_t bytes, count, space, how;/* element size; vector elements; Space; what the row says */
};

/* -- The instruction table --------------------------------------------------------------------------------------------- */

/* What an instruction's row may look at and set, before it is emitted. */
typedef struct Decoding {
    const char *op;                  /* the mnemonic */
    Ins *ins;
    int nrefs;
    const uint8_t *bits;             /* of every operand's register; 0 constants and addresses */
    const char *wrong;               /* set: why it is not accepted */
} Decoding;

/* A row. pattern: the mnemonic, `(a|b|)` alternatives. operands: a letter each, upper case written, lower case read:
     P p predicate (`!p`)   H h W w Q q 16, 32, 64 bits   e f g 16-, 32-, 64-bit floats   T t of the mnemonic's last type, X x as wide or wider
     [ an address   i a constant   4W a vector in braces   *X a scalar or vector as .v2, .x4 say   |P a second result   ~ what follows may be left out
     < > the parts of a register   U as X, of the type before the last   - nothing */
typedef struct Row {
    const char *pattern, *operands;
    Run run;
    int lane;                        /* or: elementwise, LANE_* + 1 */
    void (*decode)(Decoding *d);
} Row;

extern const Row snE_lane_rows[], snE_memory_rows[], snE_warp_rows[], snE_other_rows[];
extern const int snE_nlane_rows, snE_nmemory_rows, snE_nwarp_rows, snE_nother_rows;
const Run *snE_lane_runs(void);      /* for the vectors that this CPU has */
/* d[16][8] = c + a[16][depth] b[depth][8], spread over lanes; kind 0 f16, 1 bf16, 2 tf32 */
typedef struct Fragments { int kind, depth; Lane32 *d[4]; const Lane32 *a[4], *b[2], *c[4]; } Fragments;
typedef void (*Multiply)(const Fragments *f);
Multiply snE_multiply(void);
bool snE_has(const char *op, const char *part);                      /* ".s32" is a whole part of the mnemonic */
typedef struct EmuType { char kind; uint8_t bits; bool twice; } EmuType; /* kind: u s b f, h bf16, t tf32, p predicate, 0 none; twice: x2 */
EmuType snE_type(const char *op, int from_end);                      /* the last type of a mnemonic is 0, the one before it 1 */

/* Control, which the decoder itself puts in or finishes */
const Ins *snE_run_label(Warp *w, const Ins *i);
const Ins *snE_run_branch(Warp *w, const Ins *i);                    /* imm: instructions ahead; r[0] predicate; how: 0 always, 1 if set, 2 if not */
const Ins *snE_run_exit(Warp *w, const Ins *i);
const Ins *snE_run_copy(Warp *w, const Ins *i);                      /* r[0] bytes of the frame from imm2 to imm */
const Ins *snE_run_atom(Warp *w, const Ins *i);
const Ins *snE_run_cp_async(Warp *w, const Ins *i);
bool snE_is_load(const Ins *i);
bool snE_is_store(const Ins *i);
const Ins *snE_run_written(Warp *w, const Ins *i);                   /* marks register imm as written by the active lanes */
const Ins *snE_run_check(Warp *w, const Ins *i);                     /* is register imm written? imm2: index of its name */

typedef struct Block Block;

/* -- Modules ----------------------------------------------------------------------------------------------------------- */

typedef struct Variable { const char *name; int len; uint8_t space; uint32_t align; uint64_t bytes, offset; uint8_t *init; } Variable;

enum { SR_NONE, SR_TID, SR_NTID = SR_TID + 3, SR_CTAID = SR_NTID + 3, SR_NCTAID = SR_CTAID + 3, SR_LANEID = SR_NCTAID + 3, SR_WARPID, SR_NWARPID,
       SR_LANEMASK, SR_ZERO = SR_LANEMASK + 5, SR_DYNSMEM, SR_TOTALSMEM, SR_ONE, SR_COUNT };
typedef struct Special { int what; uint32_t at; bool wide; } Special;

typedef struct EmuKernel {
    char *name;
    int line;
    Ins *code;
    int ncode;
    uint32_t *more;
    char *constants;                 /* lanes of immediates */
    uint32_t reg_bytes;              /* of a warp */
    uint32_t shared, local;          /* bytes: static shared; local of one thread */
    int nparams;
    Variable *params;                /* offsets in the parameter block; names point into the text */
    uint32_t param_bytes;
    Special *special;                /* registers with fixed values */
    int nspecial;
    uint32_t nchecked;               /* registers that may be read before they are written: bits kept per lane */
    char **checked;                  /* their names */
    uint32_t required[3];            /* .reqntid, 0 = any */
    uint64_t most_threads;           /* .maxntid, 0 = any */
    uint64_t loaded, stored;         /* parameters whose addresses are used so, as far as one can tell from the text */
    bool open_shared;                /* uses dynamic shared memory */
    bool ordered;                    /* has atomics on global memory: its blocks run one after the other */
} EmuKernel;

struct EmuModule {
    char *text;
    size_t n;
    EmuKernel *kernel;
    int nkernels;
    uint8_t *global;                 /* module variables of .global and .const */
    uint8_t *global_written;
    Variable *globals;               /* those: offset into global */
    int nglobals;
    uint64_t executed;               /* instructions of warps */
    uint32_t runs;                   /* of blocks, so far */
    Block *worker;                   /* memory of the last launch, one block per thread */
    int nworkers;
};

enum { WINDOW_BITS = 40, ID_SHARED = 1, ID_LOCAL = 2, ID_PARAM = 3, ID_RANGE = 16, ID_MODULE = 1 << 16 };
static inline uint64_t snE_window(int id) { return (uint64_t)id << WINDOW_BITS; }
static inline uint64_t snE_middle(int id) { return snE_window(id) + (1ull << (WINDOW_BITS - 1)); }

/* emu_parse.c and emu_decode.c */
typedef struct Parsed Parsed;
int snE_parse(EmuModule *m, char err[ERR_TEXT]);
int snE_line_text(const EmuModule *m, int line, char *out, size_t cap);

/* -- Running ----------------------------------------------------------------------------------------------------------- */

/* Race and initialisation state of a 4-byte word of shared memory: who wrote it last, two of those who read it since. A mark is
   clock << 10 | thread, clocks start at 1, 0 = nobody; SPLIT: the word's bytes have marks of their own. */
typedef struct Marks { uint32_t write, read[2]; } Marks;
enum { THREAD_BITS = 10 };
#define MARK_ASYNC 0xfffffc00u       /* the clock of a cp.async that has not been waited for: after everything */
#define MARK_SPLIT 0xffffffffu

typedef struct Fragment { uint32_t mask, pc, need; bool parked; } Fragment;   /* lanes that wait elsewhere in the code */
typedef struct Copy { uint32_t mask, bytes, at[LANES], group[LANES]; } Copy;  /* cp.async under way */

typedef enum { WARP_RUNS, WARP_WAITS, WARP_DONE } WarpState;
struct Warp {
    char *base[2];                   /* registers, constants */
    int32_t on[LANES];               /* the active lanes as masks */
    uint32_t active, alive;
    int64_t left;                    /* instructions of this turn */
    Block *block;
    const Ins *at;                   /* where it goes on */
    Fragment other[LANES];
    int nother;
    int grace;                       /* branches for which the lanes that run are not changed for lower ones */
    uint32_t turns;
    WarpState state;
    int id;
    uint32_t present;                /* lanes that exist */
    uint32_t seen[MAX_WARPS];        /* seen[v]: marks of warp v with a smaller clock happened before; seen[id] = own clock */
    uint32_t old;                    /* marks below it are old to every warp: the smallest clock of seen */
    uint32_t *written;               /* nchecked words */
    int barrier;                     /* while it waits */
    Copy *copies;
    int ncopies, capcopies;
    uint32_t commits[LANES];         /* cp.async groups of each lane */
};

typedef struct Barrier { uint32_t waiting, arrived, count; const Ins *first; } Barrier;

typedef struct LaunchState LaunchState;
struct Block {
    LaunchState *launch;
    int64_t index;
    uint32_t run;                    /* a number of its own for every run of a block: in marks of global memory */
    uint32_t id[3];
    int nwarps, threads;
    Warp *warp;
    char *registers;
    uint8_t *shared;
    uint32_t shared_bytes;
    Marks *word, *byte;              /* byte: of split words, lazily */
    uint8_t *local, *local_written;  /* thread by thread */
    Barrier barrier[NBARRIERS];
    EmuReport *report;               /* of this block */
    int nreports;
    bool stop;
    uint64_t instructions;
    size_t cap_registers, cap_shared, cap_local, cap_reports;
};

struct LaunchState {
    EmuModule *m;
    const EmuLaunch *l;
    const EmuKernel *k;
    const uint8_t *params;
    uint32_t block[3], grid[3];
    int most;
    uint64_t budget;
    Multiply multiply;
};

static inline const void *snE_in(const Warp *w, uint32_t at) { return w->base[at & 1] + (at & ~1u); }
static inline void *snE_out(Warp *w, uint32_t at) { return w->base[0] + at; }
static inline const Lane32 *snE_in32(const Warp *w, uint32_t at) { return snE_in(w, at); }
static inline const Lane64 *snE_in64(const Warp *w, uint32_t at) { return snE_in(w, at); }
static inline Lane32 *snE_out32(Warp *w, uint32_t at) { return snE_out(w, at); }
static inline Lane64 *snE_out64(Warp *w, uint32_t at) { return snE_out(w, at); }
static inline void snE_set_pred(Warp *w, uint32_t at, uint32_t bits)
{
    Lane32 *p = snE_out32(w, at);
    *p = (*p & ~w->active) | (bits & w->active);
}
#define EACH_LANE(mask, l) for (uint32_t rest_ = (mask), l; rest_ && (l = (uint32_t)__builtin_ctz(rest_), true); rest_ &= rest_ - 1)

void snE_set_active(Warp *w, uint32_t mask);
const Ins *snE_schedule(Warp *w);    /* the active lanes have been put away: which lanes go on */
/* All lanes of `need` that have not exited are here; else parks the active ones, *next says where the warp goes on. */
bool snE_together(Warp *w, const Ins *i, uint32_t need, const Ins **next);
void snE_fault(Warp *w, const Ins *i, int lane, EmuKind kind, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
const Ins *snE_wait_barrier(Warp *w, const Ins *i, int id, uint32_t count, bool only_arrive);

typedef enum { READS, WRITES, WRITES_LATER, READS_WRITES } Access;
/* Marks four words of shared memory as accessed by the lanes lane, lane + step ...; reports races. */
void snE_touch_row(Warp *w, const Ins *i, uint32_t at, int lane, int step, Access how);
void snE_synced(Warp *w);            /* bar.warp.sync: what this warp did happened before what it does */
void snE_free_block(Block *b);

/* bf16, f16 <-> f32, for code that is not elementwise */
float snE_half(uint32_t h);
uint32_t snE_round16(float a, bool bf16);
static inline float snE_float(uint32_t bits) { union { uint32_t u; float f; } v = { bits }; return v.f; }
static inline uint32_t snE_bits(float f) { union { float f; uint32_t u; } v = { f }; return v.u; }
static inline double snE_double(uint64_t bits) { union { uint64_t u; double f; } v = { bits }; return v.f; }
static inline uint64_t snE_bits64(double f) { union { double f; uint64_t u; } v = { f }; return v.u; }

#endif
