/* kir_eval.c: the interpreter of kir_eval.h.

   All threads of a block go through the kernel together, one instruction after the other, those that are active there: a branch runs
   with the threads that take it, a loop as long as one has work. So a kernel without faults does what it does on any GPU, and a
   fault is found whatever the timing: memory keeps for every byte who last wrote and read it, and in which EPOCH (a
   barrier ends one). Two threads at one byte in one epoch, one of them writing, are a race; so are two blocks at any time.

   Every value of every thread has, for each lane, its bits and whether it is undefined: what memory nobody wrote holds, and what is
   computed from that. Undefined values may be carried about; they may not choose. */
#include "tests/kir_eval.h"
#include "codegen/tile.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

double snT_read(const void *p, Dtype d, int64_t i);
void snT_write(void *p, Dtype d, int64_t i, double x);

enum { WARP = 32, REGION_SHIFT = 48 };

typedef struct Trace { uint32_t wrote, read; int16_t writer, reader; bool several, undefined, pending; } Trace;   /* of a byte */
typedef struct Region { uint8_t *p; int64_t bytes; Trace *trace; const char *name; } Region;
typedef struct Copy { Region *to; int64_t at; int bytes, group; uint8_t data[16]; bool undefined[16]; struct Copy *next; } Copy;
typedef struct Value { uint64_t *bits; bool *undefined; } Value;   /* [thread][lane] */

typedef struct Run {
    const Kernel *k;
    const uint32_t *la;
    Arena arena;
    Value *v;
    KVal *close, *other;             /* end of a for or if; its else, or 0 */
    Region *region;                  /* parameters, scratch, shared */
    int nparams, threads;
    int64_t block;
    uint32_t epoch, first_epoch;     /* first of this block */
    Copy **copies; int *group;       /* by thread: under way, oldest first; groups committed */
    KVal at; int thread;             /* for messages */
    jmp_buf out;
    char *fault;
} Run;

typedef struct Active { int n, *thread; } Active;

static void __attribute__((noreturn, format(printf, 2, 3))) fail(Run *r, const char *fmt, ...) {
    char what[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(r->fault, 256, "kernel %s, %%%u %s, thread %d of block %lld: %s", snU_str(r->k->ctx, r->k->name), r->at,
             snK_op_name(r->k->ins.v[r->at].op), r->thread, (long long)r->block, what);
    longjmp(r->out, 1);
}

static const KIns *ins(const Run *r, KVal x) { return &r->k->ins.v[x]; }
static int lanes_of(const Run *r, KVal x) { return ins(r, x)->type.lanes; }
static uint64_t *bits(const Run *r, KVal x, int t) { return r->v[x].bits + (size_t)t * (size_t)lanes_of(r, x); }
static bool *undefined(const Run *r, KVal x, int t) { return r->v[x].undefined + (size_t)t * (size_t)lanes_of(r, x); }

/* -- Numbers as bits: integers extended to 64 by their sign, floats as they are in memory ------------------------- */

static float as_float(uint64_t b) { uint32_t u = (uint32_t)b; float f; memcpy(&f, &u, 4); return f; }
static uint64_t float_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static bool is_half(int kind) { return kind == K_BF16 || kind == K_F16; }

static uint64_t wrap(int kind, uint64_t x) {
    switch (kind) {
    case K_I32: return (uint64_t)(int64_t)(int32_t)(uint32_t)x;
    case K_U32: case K_F32: return (uint32_t)x;
    case K_BF16: case K_F16: return (uint16_t)x;
    case K_U8: return (uint8_t)x;
    case K_BOOL: return x != 0;
    default: return x;
    }
}

static float to_float(int kind, uint64_t b) {
    uint16_t h = (uint16_t)b;
    if (kind == K_F32) return as_float(b);
    if (is_half(kind)) return (float)snT_read(&h, (Dtype)kind, 0);
    return (float)(int64_t)b;
}

static uint64_t to_int(int kind, float f) {
    double low = kind == K_I32 ? -0x1p31 : kind == K_I64 ? -0x1p63 : 0;
    double high = kind == K_I32 ? 0x1p31 : kind == K_I64 ? 0x1p63 : kind == K_U32 ? 0x1p32 : 256;
    if (f != f) return 0;
    if ((double)f <= low) return kind == K_I64 ? (uint64_t)INT64_MIN : (uint64_t)(int64_t)low;
    if ((double)f >= high) return kind == K_I64 ? INT64_MAX : (uint64_t)(int64_t)(high - 1);
    return (uint64_t)(int64_t)f;
}

static uint64_t cast(int from, int to, uint64_t b) {
    bool real = from == K_F32 || is_half(from);
    uint16_t h;
    if (from == to) return b;
    if (to == K_F32) return float_bits(to_float(from, b));
    if (is_half(to)) return snT_write(&h, (Dtype)to, 0, (double)to_float(from, b)), h;
    if (to == K_BOOL) return real ? to_float(from, b) != 0 : b != 0;
    return wrap(to, real ? to_int(to, to_float(from, b)) : b);
}

static uint64_t float_op(int op, float a, float b, float c) {
    switch (op) {
    case K_add: return float_bits(a + b);
    case K_sub: return float_bits(a - b);
    case K_mul: return float_bits(a * b);
    case K_div: return float_bits(a / b);
    case K_fma: return float_bits(fmaf(a, b, c));
    case K_neg: return float_bits(a) ^ 0x80000000u;
    case K_abs: return float_bits(a) & 0x7fffffffu;
    case K_min: return float_bits(a < b ? a : b);
    case K_max: return float_bits(a > b ? a : b);
    case K_sqrt: return float_bits(sqrtf(a));
    case K_floor: return float_bits(floorf(a));
    case K_ceil: return float_bits(ceilf(a));
    case K_rint: return float_bits(nearbyintf(a));
    case K_ldexp: return float_bits(ldexpf(a, (int)b));
    case K_ex2: return float_bits(exp2f(a));
    default: SN_ASSERT(0, "no f32 op %s", snK_op_name(op));
    }
}

static uint64_t int_op(int op, int kind, uint64_t a, uint64_t b) {
    int s = (int)(b & (uint64_t)(8 * snK_kind_bytes(kind) - 1));
    int64_t x = (int64_t)a, y = (int64_t)b;
    switch (op) {
    case K_add: return wrap(kind, a + b);
    case K_sub: return wrap(kind, a - b);
    case K_mul: return wrap(kind, a * b);
    case K_div: return wrap(kind, y == 0 ? 0 : y == -1 ? 0 - a : (uint64_t)(x / y));
    case K_rem: return wrap(kind, y == 0 || y == -1 ? 0 : (uint64_t)(x % y));
    case K_neg: return wrap(kind, 0 - a);
    case K_abs: return wrap(kind, x < 0 ? 0 - a : a);
    case K_min: return x < y ? a : b;
    case K_max: return x > y ? a : b;
    case K_and: return a & b;
    case K_or: return a | b;
    case K_xor: return a ^ b;
    case K_not: return kind == K_BOOL ? !a : wrap(kind, ~a);
    case K_shl: return wrap(kind, a << s);
    case K_shr: return wrap(kind, (uint64_t)(x >> s));
    case K_mulhi: return a * b >> 32;
    default: SN_ASSERT(0, "no integer op %s", snK_op_name(op));
    }
}

static bool compare(int op, int kind, uint64_t a, uint64_t b) {
    float f = as_float(a), g = as_float(b);
    int64_t x = (int64_t)a, y = (int64_t)b;
    bool real = kind == K_F32;
    switch (op) {
    case K_lt: return real ? f < g : x < y;
    case K_le: return real ? f <= g : x <= y;
    case K_gt: return real ? f > g : x > y;
    case K_ge: return real ? f >= g : x >= y;
    case K_eq: return real ? f == g : x == y;
    default: return real ? f != g : x != y;
    }
}

/* -- Memory -------------------------------------------------------------------------------------------------------- */

/* A pointer: region, then bytes; the offset may lie outside until it is used. */
static uint64_t pointer(int region, int64_t at) { return (uint64_t)region << REGION_SHIFT | ((uint64_t)at & ((UINT64_C(1) << REGION_SHIFT) - 1)); }
static Region *region_of(Run *r, uint64_t p) { return &r->region[p >> REGION_SHIFT]; }
static int64_t offset_of(uint64_t p) { return (int64_t)(p << (64 - REGION_SHIFT)) >> (64 - REGION_SHIFT); }
static bool is_buffer(const Run *r, const Region *g) { return g - r->region < r->nparams; }

static void check_inside(Run *r, const Region *g, int64_t at, int bytes, const char *what) {
    if (at < 0 || at + bytes > g->bytes)
        fail(r, "%s bytes %lld..%lld of %s, which has %lld", what, (long long)at, (long long)at + bytes - 1, g->name, (long long)g->bytes);
}

static void trace_read(Run *r, Region *g, int64_t at) {
    Trace *t = &g->trace[at];
    if (t->pending) fail(r, "reads byte %lld of %s, to which an async copy is under way", (long long)at, g->name);
    if (t->wrote == r->epoch && t->writer != r->thread)
        fail(r, "race: reads byte %lld of %s, which thread %d wrote, no barrier between", (long long)at, g->name, t->writer);
    if (t->wrote && t->wrote < r->first_epoch) fail(r, "reads byte %lld of %s, which another block wrote", (long long)at, g->name);
    t->several = t->read == r->epoch && (t->several || t->reader != r->thread);
    t->read = r->epoch, t->reader = (int16_t)r->thread;
}

static void trace_write(Run *r, Region *g, int64_t at) {
    Trace *t = &g->trace[at];
    if (t->pending) fail(r, "writes byte %lld of %s, to which an async copy is under way", (long long)at, g->name);
    if (t->wrote == r->epoch && t->writer != r->thread)
        fail(r, "race: writes byte %lld of %s, which thread %d wrote, no barrier between", (long long)at, g->name, t->writer);
    if (t->read == r->epoch && (t->several || t->reader != r->thread))
        fail(r, "race: writes byte %lld of %s, which thread %d read, no barrier between", (long long)at, g->name, t->reader);
    if ((t->wrote && t->wrote < r->first_epoch) || (t->read && t->read < r->first_epoch))
        fail(r, "writes byte %lld of %s, which another block has used", (long long)at, g->name);
    t->wrote = r->epoch, t->writer = (int16_t)r->thread;
}

static uint64_t load_element(Run *r, Region *g, int64_t at, int kind, bool *undef) {
    int n = snK_kind_bytes(kind);
    uint64_t x = 0;
    check_inside(r, g, at, n, "reads");
    *undef = false;
    for (int b = 0; b < n; b++) {
        trace_read(r, g, at + b);
        *undef |= g->trace[at + b].undefined;
    }
    memcpy(&x, g->p + at, (size_t)n);
    return wrap(kind, x);
}

static void store_element(Run *r, Region *g, int64_t at, int kind, uint64_t x, bool undef) {
    int n = snK_kind_bytes(kind);
    check_inside(r, g, at, n, "writes");
    if (undef && is_buffer(r, g)) fail(r, "an undefined value goes to byte %lld of %s", (long long)at, g->name);
    for (int b = 0; b < n; b++) {
        trace_write(r, g, at + b);
        g->trace[at + b].undefined = undef;
    }
    memcpy(g->p + at, &x, (size_t)n);
}

/* Operand x of the instruction, lane by lane; it chooses, so it must be defined. */
static uint64_t chosen(Run *r, KVal x, int lane, const char *what) {
    if (undefined(r, x, r->thread)[lane]) fail(r, "%s is undefined", what);
    return bits(r, x, r->thread)[lane];
}

static void load_or_store(Run *r, const KIns *i) {
    bool load = i->op == K_load || i->op == K_gather, lanes = i->op == K_gather || i->op == K_scatter;
    KVal value = load ? r->at : i->a[2], mask = load ? i->a[2] : i->a[3];
    uint64_t p = chosen(r, i->a[0], 0, "a pointer");
    Region *g = region_of(r, p);
    int kind = ins(r, value)->type.kind, size = snK_kind_bytes(kind);
    uint64_t *x = bits(r, value, r->thread);
    bool *u = undefined(r, value, r->thread);
    for (int n = 0; n < lanes_of(r, value); n++) {
        if (load) x[n] = 0, u[n] = false;
        if (mask && !chosen(r, mask, n, "a mask")) continue;
        int64_t index = (int64_t)chosen(r, i->a[1], lanes ? n : 0, "an index") + (lanes ? 0 : n);
        int64_t at = offset_of(p) + index * size;
        if (load) x[n] = load_element(r, g, at, kind, &u[n]);
        else store_element(r, g, at, kind, x[n], u[n]);
    }
}

/* -- Asynchronous copies ----------------------------------------------------------------------------------------------- */

static void start_copy(Run *r, const KIns *i) {
    uint64_t to = chosen(r, i->a[0], 0, "a pointer"), from = chosen(r, i->a[1], 0, "a pointer");
    int64_t count = i->a[2] ? (int64_t)chosen(r, i->a[2], 0, "a count") : i->imm;
    Region *g = region_of(r, from);
    Copy *c = NEW(&r->arena, Copy), **last = &r->copies[r->thread];
    c->to = region_of(r, to), c->at = offset_of(to), c->bytes = (int)i->imm, c->group = r->group[r->thread];
    if (count < 0 || count > i->imm) fail(r, "copies %lld bytes of %lld", (long long)count, (long long)i->imm);
    if (c->at % i->imm || (count && offset_of(from) % i->imm)) fail(r, "an address is no multiple of %lld bytes", (long long)i->imm);
    check_inside(r, c->to, c->at, c->bytes, "copies to");
    for (int b = 0; b < count; b++) {
        bool u;
        c->data[b] = (uint8_t)load_element(r, g, offset_of(from) + b, K_U8, &u);
        c->undefined[b] = u;
    }
    for (int b = 0; b < c->bytes; b++) {
        trace_write(r, c->to, c->at + b);
        c->to->trace[c->at + b].pending = true;
    }
    while (*last) last = &(*last)->next;
    *last = c;
}

static void wait_copies(Run *r, int64_t under_way) {
    Copy **first = &r->copies[r->thread];
    for (; *first && (*first)->group < r->group[r->thread] - under_way; *first = (*first)->next) {
        Copy *c = *first;
        for (int b = 0; b < c->bytes; b++) {
            c->to->trace[c->at + b].pending = false;
            store_element(r, c->to, c->at + b, K_U8, c->data[b], c->undefined[b]);
        }
    }
}

/* -- Warps -------------------------------------------------------------------------------------------------------------- */

static void whole_warps(Run *r, const Active *on) {
    for (int n = 0; n < on->n; n++)
        if (on->n % WARP || on->thread[n] != on->thread[n / WARP * WARP] + n % WARP || on->thread[n / WARP * WARP] % WARP)
            r->thread = on->thread[n], fail(r, "not all of its warp come here");
}

/* Element e of a word of two 16-bit ones, or a tf32: 10 bits of mantissa. */
static float fragment(const Run *r, KVal x, int thread, int word, int e, int64_t form) {
    uint64_t w = bits(r, x, thread)[word];
    if (form == 2) return as_float(w & ~UINT64_C(0x1fff));
    return to_float(form ? K_F16 : K_BF16, w >> (16 * e) & 0xffff);
}

/* PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "... mma.m16n8k8 ... .tf32". */
static void mma(Run *r, const KIns *i, int first) {
    float a[16][16] = { { 0 } }, b[16][8] = { { 0 } };
    bool au[16] = { 0 }, bu[8] = { 0 };                  /* an undefined element spoils its row, or column */
    int per = i->imm == 2 ? 1 : 2, half = i->imm == 2 ? 4 : 8, depth = 2 * half;
    for (int l = 0; l < WARP; l++)
        for (int e = 0; e < per; e++) {
            int g = l / 4, k = l % 4 * per + e;
            for (int w = 0; w < 4; w++) a[g + w % 2 * 8][k + w / 2 * half] = fragment(r, i->a[0], first + l, w, e, i->imm);
            for (int w = 0; w < 2; w++) b[k + w * half][g] = fragment(r, i->a[1], first + l, w, e, i->imm);
            for (int w = 0; w < 4; w++) au[g + w % 2 * 8] |= undefined(r, i->a[0], first + l)[w], bu[g] |= undefined(r, i->a[1], first + l)[w % 2];
        }
    for (int l = 0; l < WARP; l++)
        for (int w = 0; w < 4; w++) {
            int row = l / 4 + w / 2 * 8, col = l % 4 * 2 + w % 2;
            double sum = (double)as_float(bits(r, i->a[2], first + l)[w]);
            for (int k = 0; k < depth; k++) sum += (double)a[row][k] * (double)b[k][col];
            bits(r, r->at, first + l)[w] = float_bits((float)sum);
            undefined(r, r->at, first + l)[w] = au[row] | bu[col] | undefined(r, i->a[2], first + l)[w];
        }
}

static void ldmatrix(Run *r, const KIns *i, int first) {
    uint64_t m[32][8];
    bool u[32][8];
    int n = i->type.lanes;
    for (int row = 0; row < 8 * n; row++) {
        r->thread = first + row;
        uint64_t p = chosen(r, i->a[0], 0, "a pointer");
        int64_t at = offset_of(p) + 2 * (int64_t)chosen(r, i->a[1], 0, "an index");
        if (at % 16) fail(r, "a row starts at byte %lld, no multiple of 16", (long long)at);
        for (int c = 0; c < 8; c++) m[row][c] = load_element(r, region_of(r, p), at + 2 * c, K_F16, &u[row][c]);
    }
    for (int l = 0; l < WARP; l++)
        for (int w = 0; w < n; w++) {
            int row = 8 * w + (i->imm ? l % 4 * 2 : l / 4), col = i->imm ? l / 4 : l % 4 * 2, dr = i->imm ? 1 : 0, dc = !dr;
            bits(r, r->at, first + l)[w] = m[row][col] | m[row + dr][col + dc] << 16;
            undefined(r, r->at, first + l)[w] = u[row][col] | u[row + dr][col + dc];
        }
}

static void shfl(Run *r, const KIns *i, int first) {
    for (int l = 0; l < WARP; l++) {
        bits(r, r->at, first + l)[0] = bits(r, i->a[0], first + (l ^ (int)i->imm))[0];
        undefined(r, r->at, first + l)[0] = undefined(r, i->a[0], first + (l ^ (int)i->imm))[0];
    }
}

/* -- Instructions of one thread -------------------------------------------------------------------------------------------- */

static uint64_t leaf(const Run *r, const KIns *i, int lane) {
    switch (i->op) {
    case K_const: {
        uint16_t h;
        if (is_half(i->type.kind)) return snT_write(&h, (Dtype)i->type.kind, 0, i->f), h;
        return i->type.kind == K_F32 ? float_bits((float)i->f) : wrap(i->type.kind, (uint64_t)i->imm);
    }
    case K_param: return pointer((int)i->imm, 0);
    case K_scratch: return pointer(r->nparams, i->imm);
    case K_shared: return pointer(r->nparams + 1, i->imm);
    case K_block: return (uint64_t)r->block;
    case K_thread: return (uint64_t)r->thread;
    case K_sysarg: return i->imm < 4 ? r->la[i->imm] : 0;
    case K_lane: return (uint64_t)lane;
    default: SN_ASSERT(0, "%s is not a GPU's", snK_op_name(i->op));
    }
}

/* A defined false decides an `and`, a defined true an `or`. */
static bool decided(const Run *r, const KIns *i, int lane) {
    if (i->type.kind != K_BOOL || (i->op != K_and && i->op != K_or)) return false;
    for (int n = 0; n < 2; n++)
        if (!undefined(r, i->a[n], r->thread)[lane] && bits(r, i->a[n], r->thread)[lane] == (i->op == K_or)) return true;
    return false;
}

static void lane_by_lane(Run *r, const KIns *i) {
    int kind = ins(r, i->a[0])->type.kind, t = r->thread;
    for (int n = 0; n < i->type.lanes; n++) {
        uint64_t x[3] = { 0 };
        bool u = false;
        for (int k = 0; k < 3 && i->a[k]; k++) {
            int lane = lanes_of(r, i->a[k]) == 1 ? 0 : n;
            x[k] = bits(r, i->a[k], t)[lane];
            u |= i->op == K_select && k && !x[0] == (k == 1) ? false : undefined(r, i->a[k], t)[lane];
        }
        uint64_t y;
        if (i->op >= K_lt && i->op <= K_ne) y = compare(i->op, kind, x[0], x[1]);
        else if (i->op == K_select) y = x[0] ? x[1] : x[2];
        else if (i->op == K_cast) y = cast(kind, i->type.kind, x[0]);
        else if (i->op == K_tf32) y = (x[0] & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : (x[0] & 0x7fffffff) == 0x7f800000 ? x[0] : (x[0] + 0x1000) & 0xffffe000;
        else if (kind == K_F32) y = float_op(i->op, as_float(x[0]), as_float(x[1]), as_float(x[2]));
        else if (kind == K_BOOL && (i->op == K_min || i->op == K_max)) y = i->op == K_min ? x[0] & x[1] : x[0] | x[1];
        else y = int_op(i->op, kind, x[0], x[1]);
        bits(r, r->at, t)[n] = y;
        undefined(r, r->at, t)[n] = u && !decided(r, i, n);
    }
}

static void across(Run *r, const KIns *i) {
    int n = lanes_of(r, i->a[0]), kind = i->type.kind, op = i->op == K_hsum ? K_add : i->op == K_hmax ? K_max : K_min;
    uint64_t x[64];
    bool u = false;
    memcpy(x, bits(r, i->a[0], r->thread), sizeof *x * (size_t)n);
    for (int k = 0; k < n; k++) u |= undefined(r, i->a[0], r->thread)[k];
    for (int half = n / 2; half; half /= 2)
        for (int k = 0; k < half; k++) {
            uint64_t a = x[k], b = x[k + half];
            x[k] = kind == K_F32 ? float_op(op, as_float(a), as_float(b), 0) : kind == K_BOOL ? (op == K_max ? a | b : a & b) : int_op(op, kind, a, b);
        }
    bits(r, r->at, r->thread)[0] = x[0];
    undefined(r, r->at, r->thread)[0] = u;
}

static void bitcast(Run *r, const KIns *i) {
    KType from = ins(r, i->a[0])->type, to = i->type;
    uint8_t raw[512];
    bool u[512];
    int a = snK_kind_bytes(from.kind), b = snK_kind_bytes(to.kind);
    for (int n = 0; n < from.lanes; n++) {
        memcpy(raw + n * a, &bits(r, i->a[0], r->thread)[n], (size_t)a);
        for (int k = 0; k < a; k++) u[n * a + k] = undefined(r, i->a[0], r->thread)[n];
    }
    for (int n = 0; n < to.lanes; n++) {
        uint64_t x = 0;
        bool any = false;
        memcpy(&x, raw + n * b, (size_t)b);
        for (int k = 0; k < b; k++) any |= u[n * b + k];
        bits(r, r->at, r->thread)[n] = wrap(to.kind, x);
        undefined(r, r->at, r->thread)[n] = any;
    }
}

static void move_lanes(Run *r, const KIns *i) {
    int n = lanes_of(r, i->a[0]);
    for (int k = 0; k < i->type.lanes; k++) {
        int lane = i->op == K_splat ? 0 : i->op == K_extract ? (int)i->imm : i->op == K_shuffle ? r->k->shuffles.v[i->imm].lane[k] : k;
        KVal from = lane < n ? i->a[0] : i->a[1];
        bits(r, r->at, r->thread)[k] = bits(r, from, r->thread)[lane % n];
        undefined(r, r->at, r->thread)[k] = undefined(r, from, r->thread)[lane % n];
    }
}

static void copy_value(Run *r, KVal to, KVal from) {
    size_t n = (size_t)lanes_of(r, from);
    memcpy(bits(r, to, r->thread), bits(r, from, r->thread), n * sizeof(uint64_t));
    memcpy(undefined(r, to, r->thread), undefined(r, from, r->thread), n);
}

static void thread_step(Run *r, const KIns *i) {
    if (i->op >= K_const && i->op <= K_lane) {
        for (int n = 0; n < i->type.lanes; n++) bits(r, r->at, r->thread)[n] = leaf(r, i, n), undefined(r, r->at, r->thread)[n] = false;
        return;
    }
    switch (i->op) {
    case K_load: case K_store: case K_gather: case K_scatter: load_or_store(r, i); break;
    case K_offset: {
        uint64_t p = bits(r, i->a[0], r->thread)[0];
        int64_t at = offset_of(p) + (int64_t)bits(r, i->a[1], r->thread)[0] * snK_kind_bytes(i->mem);
        bits(r, r->at, r->thread)[0] = pointer((int)(p >> REGION_SHIFT), at);
        undefined(r, r->at, r->thread)[0] = undefined(r, i->a[0], r->thread)[0] | undefined(r, i->a[1], r->thread)[0];
        break;
    }
    case K_hsum: case K_hmax: case K_hmin: across(r, i); break;
    case K_bitcast: bitcast(r, i); break;
    case K_splat: case K_extract: case K_shuffle: move_lanes(r, i); break;
    case K_var: case K_get: copy_value(r, r->at, i->a[0]); break;
    case K_set: copy_value(r, i->a[0], i->a[1]); break;
    case K_cp_async: start_copy(r, i); break;
    case K_cp_commit: r->group[r->thread]++; break;
    case K_cp_wait: wait_copies(r, i->imm); break;
    case K_prefetch: break;
    default: lane_by_lane(r, i);
    }
}

/* -- Structure ------------------------------------------------------------------------------------------------------------------ */

static void region(Run *r, KVal begin, KVal end, Active on);

static Active chosen_threads(Run *r, Active on, KVal x, bool want) {
    Active s = { 0, NEWN(&r->arena, int, on.n + 1) };
    for (int n = 0; n < on.n; n++) {
        r->thread = on.thread[n];
        if (!chosen(r, x, 0, "a condition") == !want) s.thread[s.n++] = r->thread;
    }
    return s;
}

static void branch(Run *r, KVal x, Active on) {
    KVal mid = r->other[x] ? r->other[x] : r->close[x];
    Active yes = chosen_threads(r, on, ins(r, x)->a[0], true), no = chosen_threads(r, on, ins(r, x)->a[0], false);
    region(r, x + 1, mid, yes);
    if (r->other[x]) region(r, mid + 1, r->close[x], no);
}

static void loop(Run *r, KVal x, Active on) {
    const KIns *i = ins(r, x);
    Active s = { 0, NEWN(&r->arena, int, on.n + 1) };
    for (int n = 0; n < on.n; n++) {
        r->thread = on.thread[n];
        bits(r, x, r->thread)[0] = chosen(r, i->a[0], 0, "a bound");
        chosen(r, i->a[1], 0, "a bound"), chosen(r, i->a[2], 0, "a step");
        undefined(r, x, r->thread)[0] = false;
    }
    for (;;) {
        s.n = 0;
        for (int n = 0; n < on.n; n++) {
            int t = on.thread[n];
            if ((int64_t)bits(r, x, t)[0] < (int64_t)bits(r, i->a[1], t)[0]) s.thread[s.n++] = t;
        }
        if (!s.n) return;
        ArenaMark mark = snU_mark(&r->arena);
        bool quiet = true;
        region(r, x + 1, r->close[x], s);
        for (int t = 0; t < r->threads; t++) quiet &= !r->copies[t];
        if (quiet) snU_reset(&r->arena, mark);
        for (int n = 0; n < s.n; n++) bits(r, x, s.thread[n])[0] = int_op(K_add, i->type.kind, bits(r, x, s.thread[n])[0], bits(r, i->a[2], s.thread[n])[0]);
    }
}

static void step(Run *r, KVal x, Active on) {
    const KIns *i = ins(r, x);
    r->at = x, r->thread = on.n ? on.thread[0] : 0;
    if (i->op == K_barrier) {
        if (on.n != r->threads) fail(r, "only %d of %d threads come to the barrier", on.n, r->threads);
        r->epoch++;
    } else if (i->op == K_mma || i->op == K_ldmatrix || i->op == K_shfl) {
        whole_warps(r, &on);
        for (int n = 0; n < on.n; n += WARP) (i->op == K_mma ? mma : i->op == K_shfl ? shfl : ldmatrix)(r, i, on.thread[n]);
    } else {
        for (int n = 0; n < on.n; n++) r->thread = on.thread[n], thread_step(r, i);
    }
}

static void region(Run *r, KVal begin, KVal end, Active on) {
    if (!on.n) return;
    for (KVal x = begin; x < end; x++) {
        int op = ins(r, x)->op;
        r->at = x;
        if (op == K_for) loop(r, x, on), x = r->close[x];
        else if (op == K_if) branch(r, x, on), x = r->close[x];
        else if (!(op >= K_const && op <= K_lane)) step(r, x, on);
    }
}

static void find_structure(Run *r) {
    KVal open[256];
    int depth = 0;
    for (KVal x = 1; x < r->k->ins.n; x++) {
        int op = ins(r, x)->op;
        if (op == K_for || op == K_if) { SN_ASSERT(depth < 256, "too deep"); open[depth++] = x; }
        if (op == K_else) r->other[open[depth - 1]] = x;
        if (op == K_end) r->close[open[--depth]] = x;
    }
}

/* Leaves once, whatever the branch they stand in. */
static void start_block(Run *r, Active all) {
    r->first_epoch = ++r->epoch;
    for (int s = r->nparams; s < r->nparams + 2; s++) {
        Region *g = &r->region[s];
        memset(g->p, 0xa5, (size_t)g->bytes);
        for (int64_t b = 0; b < g->bytes; b++) g->trace[b] = (Trace){ .undefined = true };
    }
    for (KVal x = 1; x < r->k->ins.n; x++)
        if (ins(r, x)->op >= K_const && ins(r, x)->op <= K_lane) step(r, x, all);
}

static Region make_region(void *p, int64_t bytes, const char *name) {
    return (Region){ p, bytes, calloc((size_t)bytes + 1, sizeof(Trace)), name };
}

bool kir_eval(const Kernel *k, const KirBuffer *buf, const uint32_t la[4], int64_t begin, int64_t end, char fault[256]) {
    Run *r = calloc(1, sizeof *r);
    uint32_t n = k->ins.n;
    size_t threads = (size_t)k->threads;
    r->k = k, r->la = la, r->fault = fault, r->threads = k->threads, r->nparams = (int)k->params.n;
    r->v = NEWN(&r->arena, Value, n), r->close = NEWN(&r->arena, KVal, n), r->other = NEWN(&r->arena, KVal, n);
    r->copies = NEWN(&r->arena, Copy *, threads), r->group = NEWN(&r->arena, int, threads);
    r->region = NEWN(&r->arena, Region, r->nparams + 2);
    for (int p = 0; p < r->nparams; p++) r->region[p] = make_region(buf[p].p, buf[p].bytes, snU_str(k->ctx, k->params.v[p].name));
    r->region[r->nparams] = make_region(malloc((size_t)k->scratch + 1), k->scratch, "scratch");
    r->region[r->nparams + 1] = make_region(malloc((size_t)k->shared + 1), k->shared, "shared memory");
    for (KVal x = 1; x < n; x++) {
        size_t m = threads * ins(r, x)->type.lanes;
        r->v[x] = (Value){ NEWN(&r->arena, uint64_t, m + 1), NEWN(&r->arena, bool, m + 1) };
    }
    Active all = { k->threads, NEWN(&r->arena, int, threads) };
    for (int t = 0; t < k->threads; t++) all.thread[t] = t;
    find_structure(r);
    bool ok = !setjmp(r->out);
    for (r->block = begin; ok && r->block < end; r->block++) {
        ArenaMark mark = snU_mark(&r->arena);
        start_block(r, all);
        region(r, 1, n, all);
        for (int t = 0; t < k->threads; t++) if (r->copies[t]) r->thread = t, fail(r, "ends while an async copy is under way");
        snU_reset(&r->arena, mark);
    }
    for (int s = 0; s < r->nparams + 2; s++) free(r->region[s].trace);
    free(r->region[r->nparams].p), free(r->region[r->nparams + 1].p);
    snU_free_arena(&r->arena);
    free(r);
    return ok;
}
