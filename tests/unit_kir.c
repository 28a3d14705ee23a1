/* unit_kir.c: kernel IR from text to running code. In: nothing (SN_LONG=1: all floats in the
   accuracy tests; arguments: only the groups of these names). Out: "N passed, N failed",
   failures before it.

   Every op runs over fresh random operands for all kinds and 1 to 32 lanes and
   is compared with a C model, bit by bit; math functions are compared with libm in double; texts
   are mutated and must be refused or accepted, never crash. What runs is compiled for "host" and for
   "host:x86-64-v3"; with `--device opencl` first, what runs is compiled for that device alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>
#include "codegen/kir.h"
#include "graph/graph.h"
#include "runtime/program.h"
#include "runtime/sn_rt.h"

static int passed, failed;
static uint64_t rng = 88172645463325252ull;

static uint64_t rnd(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545F4914F6CDD1Dull;
}

static bool check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool check(bool ok, const char *fmt, ...) {
    if (ok) { passed++; return true; }
    va_list ap;
    va_start(ap, fmt);
    if (failed++ < 40) { printf("FAIL "); vprintf(fmt, ap); printf("\n"); }
    va_end(ap);
    return false;
}

/* -- Compiling and running --------------------------------------------------------------------- */

static const char *const targets[] = { "host", "host:x86-64-v3" };
typedef struct Extent { void *p; size_t bytes; } Extent;
typedef struct World { sn_ctx c; Arena a; VEC(Extent) buffers; } World;

/* A kernel ready to run: a function, or a program of one launch for a device. */
typedef struct Code {
    SnHostKernel f;
    World *w;
    const Kernel *k;
    SnProgram p;
    sn_session *s;                   /* made by the first run, which says how large the buffers are */
} Code;

static void free_world(World *w) {
    snU_free_arena(&w->a);
    snU_free_arena(&w->c.arena);
    snU_free_arena(&w->c.scratch);
}

static void load_program(World *w, const Kernel *k, const Target *t, Code *f) {
    void *code = NULL;
    const char *symbol;
    size_t bytes = 0;
    snK_compile(&w->c, &k, 1, t, 1, &code, &bytes, &symbol, &w->a);
    SnKernelDesc *desc = NEW(&w->a, SnKernelDesc);
    *desc = (SnKernelDesc){ symbol, "", symbol, 0, k->scratch, 0, 0, (int)k->params.n };
    f->p = (SnProgram){ .target = t->name, .nkernels = 1, .ngraphs = 1, .kernels = desc, .code = code,
                        .code_bytes = bytes };
}

/* n kernels in f; false after printing why not. */
static bool load(World *w, const Kernel *const *k, int n, const char *target, Code *f) {
    void *so = NULL;
    size_t bytes = 0;
    const char **sym = NEWN(&w->a, const char *, n);
    Target t;
    SN_ENTER(&w->c, { check(false, "compile: %s", w->c.message); return false; });
    for (int i = 0; i < n; i++) snK_verify(k[i]);
    snK_target(&w->c, target, &t);
    for (int i = 0; i < n; i++) {
        f[i] = (Code){ .w = w, .k = k[i] };
        if (snK_is_opencl(&t)) load_program(w, k[i], &t, &f[i]);
    }
    if (!snK_is_opencl(&t)) snK_compile_host(&w->c, k, n, &t, 2, &so, &bytes, sym, &w->a);
    SN_LEAVE(&w->c);
    if (snK_is_opencl(&t)) return true;
    char path[64];
    int fd = memfd_create("kernels", 0);
    bool ok = fd >= 0 && write(fd, so, bytes) == (ssize_t)bytes;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    void *h = ok ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    free(so); /* fd stays open: the loader knows libraries by their path */
    if (!check(h != NULL, "dlopen: %s", dlerror())) return false;
    for (int i = 0; i < n; i++) {
        *(void **)&f[i].f = dlsym(h, sym[i]);
        if (!check(f[i].f != NULL, "no symbol %s", sym[i])) return false;
    }
    return true;
}

static size_t size_of(const World *w, const void *p) {
    for (uint32_t i = 0; i < w->buffers.n; i++)
        if (w->buffers.v[i].p == p) return w->buffers.v[i].bytes;
    SN_ASSERT(0, "not a buffer of this test");
}

/* A graph of one launch over inputs; what it writes is read back from them as outputs. */
static bool open_session(Code *c, void *const *bufs, int64_t tasks) {
    Arena *a = &c->w->a;
    int n = (int)c->k->params.n;
    SnBuffer *b = NEWN(a, SnBuffer, n);
    SnOutput *o = NEWN(a, SnOutput, n);
    int32_t *args = NEWN(a, int32_t, n);
    SnLaunch *l = NEW(a, SnLaunch);
    SnGraphPlan *g = NEW(a, SnGraphPlan);
    for (int i = 0; i < n; i++) {
        int64_t bytes = (int64_t)size_of(c->w, bufs[i]);
        const char *name = snU_fmt(a, "b%d", i);
        b[i] = (SnBuffer){ SN_BUF_INPUT, { name, SN_BOOL, 1, { bytes } }, .bytes = bytes, .storage = -1 };
        o[i] = (SnOutput){ name, i };
        args[i] = i;
    }
    *l = (SnLaunch){ 0, n, args };
    *g = (SnGraphPlan){ "g", n, 1, n, b, l, o, 0, 0 };
    ((SnKernelDesc *)c->p.kernels)->grid = tasks;
    c->p.graphs = g;
    c->s = sn_session_new(&c->p, &(sn_session_desc){ .threads = 1 });
    return check(c->s != NULL, "session: %s", sn_rt_error());
}

static void call(Code *c, void *const *bufs, const SnLaunchArgs *la, int64_t tasks, void *scratch) {
    if (c->f) { c->f(bufs, la, 0, tasks, scratch); return; }
    if (!c->s && !open_session(c, bufs, tasks)) return;
    int rc = 0;
    if (la) sn_seed(c->s, (uint64_t)la->seed[1] << 32 | la->seed[0]), sn_step(c->s, la->step, la->micro);
    for (uint32_t i = 0; i < c->k->params.n; i++)
        rc |= sn_bind(c->s, "g", c->p.graphs->buffers[i].t.name, bufs[i], size_of(c->w, bufs[i]));
    rc |= sn_run(c->s, "g");
    for (uint32_t i = 0; i < c->k->params.n; i++)
        if (c->k->params.v[i].written)
            rc |= sn_read(c->s, "g", c->p.graphs->buffers[i].t.name, bufs[i], size_of(c->w, bufs[i]));
    check(!rc, "%s", sn_session_error(c->s));
}

static void unload(Code *f, int n) {
    for (int i = 0; i < n; i++) {
        if (f[i].s) sn_session_free(f[i].s);
        free((void *)f[i].p.code);
    }
}

static void *buffer(World *w, size_t bytes) {
    char *p = snU_alloc(&w->a, bytes + 128);
    p += 64 - ((uintptr_t)p & 63);
    PUSH(&w->a, w->buffers, ((Extent){ p, bytes }));
    return p;
}

static KType i64(void) { return kt(K_I64, 1); }

/* -- The C model: one lane as raw bits --------------------------------------------------------- */

static const KKind kinds[] = { K_F32, K_I32, K_U32, K_I64, K_U8, K_BOOL, K_BF16, K_F16 };
enum { NKINDS = 8, NLANES = 5 };

static float as_float(uint64_t b) {
    uint32_t u = (uint32_t)b;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static uint64_t float_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static bool is_int(KKind k) { return k == K_I32 || k == K_U32 || k == K_I64 || k == K_U8; }
static bool is_signed(KKind k) { return k == K_I32 || k == K_I64; }
static int bits_of(KKind k) { return 8 * snK_kind_bytes(k); }

static int64_t as_int(KKind k, uint64_t b) {
    switch (k) {
    case K_I32: return (int32_t)(uint32_t)b;
    case K_U32: return (uint32_t)b;
    case K_U8: return (uint8_t)b;
    case K_BOOL: return b & 1;
    default: return (int64_t)b;
    }
}
static uint64_t keep(KKind k, uint64_t b) {
    return k == K_BOOL ? b != 0 : bits_of(k) == 64 ? b : b & ((1ull << bits_of(k)) - 1);
}

static float half_value(KKind k, uint64_t b) {
    if (k == K_BF16) return as_float(b << 16);
    int e = (int)(b >> 10 & 31), m = (int)(b & 1023);
    float v = e == 31 ? (m ? NAN : INFINITY)
              : e     ? ldexpf((float)(1024 + m), e - 25)
                      : ldexpf((float)m, -24);
    return b >> 15 ? -v : v;
}

static uint64_t half_bits(KKind k, float f) {
    if (f != f) return k == K_BF16 ? 0x7fc0 : 0x7e00;
    if (k == K_BF16) {
        uint64_t u = float_bits(f);
        return (u + 0x7fff + (u >> 16 & 1)) >> 16 & 0xffff;
    }
    uint64_t s = float_bits(f) >> 31 << 15;
    double a = fabs((double)f);
    if (a == 0) return s;
    if (a >= 65520) return s | 0x7c00;
    int e;
    frexp(a, &e);
    double unit = ldexp(1, e < -13 ? -24 : e - 11);
    double q = nearbyint(a / unit);                         /* even: the default mode */
    return s | (e < -13 ? (uint64_t)q : (uint64_t)((e + 13) << 10) + (uint64_t)q);
}

static uint64_t convert(KKind from, KKind to, uint64_t b) {
    bool half_to = to == K_BF16 || to == K_F16, half_from = from == K_BF16 || from == K_F16;
    if (from == to) return b;
    if (!half_from && from != K_F32 && !half_to && to != K_F32)
        return keep(to, (uint64_t)as_int(from, b));
    float f = half_from       ? half_value(from, b)
              : from == K_F32 ? as_float(b)
                              : (float)as_int(from, b);
    if (to == K_F32) return float_bits(f);
    if (half_to) return half_bits(to, f);
    if (to == K_BOOL) return f != 0;
    double lo = is_signed(to) ? -ldexp(1, bits_of(to) - 1) : 0,
           hi = ldexp(1, bits_of(to) - (is_signed(to) ? 1 : 0));
    if (f != f) return 0;
    if ((double)f <= lo) return keep(to, is_signed(to) ? 1ull << (bits_of(to) - 1) : 0);
    if ((double)f >= hi) return keep(to, is_signed(to) ? (1ull << (bits_of(to) - 1)) - 1 : ~0ull);
    return keep(to, to == K_I64 || is_signed(to) ? (uint64_t)(int64_t)f : (uint64_t)f);
}

static uint64_t model_float(int op, float a, float b, float c) {
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
    default: return float_bits(rintf(a));
    }
}

static uint64_t model_int(int op, KKind k, uint64_t x, uint64_t y) {
    int64_t a = as_int(k, x), b = as_int(k, y);
    int sh = (int)(b & (bits_of(k) - 1));
    switch (op) {
    case K_add: return keep(k, x + y);
    case K_sub: return keep(k, x - y);
    case K_mul: return keep(k, x * y);
    case K_div: return b == 0 ? 0 : b == -1 ? keep(k, 0 - x) : keep(k, (uint64_t)(a / b));
    case K_rem: return b == 0 || b == -1 ? 0 : keep(k, (uint64_t)(a % b));
    case K_neg: return keep(k, 0 - x);
    case K_abs: return keep(k, a < 0 ? 0 - x : x);
    case K_min: return a < b ? x : y;
    case K_max: return a > b ? x : y;
    case K_and: return x & y;
    case K_or: return x | y;
    case K_xor: return x ^ y;
    case K_not: return k == K_BOOL ? !x : keep(k, ~x);
    case K_shl: return keep(k, x << sh);
    case K_shr: return keep(k, (uint64_t)(a >> sh));
    default: return keep(k, x * y >> 32);              /* mulhi */
    }
}

static uint64_t model_compare(int op, KKind k, uint64_t x, uint64_t y) {
    double a = k == K_F32 ? (double)as_float(x) : 0, b = k == K_F32 ? (double)as_float(y) : 0;
    int64_t i = as_int(k, x), j = as_int(k, y);
    bool f = k == K_F32;
    switch (op) {
    case K_lt: return f ? a < b : i < j;
    case K_le: return f ? a <= b : i <= j;
    case K_gt: return f ? a > b : i > j;
    case K_ge: return f ? a >= b : i >= j;
    case K_eq: return f ? a == b : i == j;
    default: return f ? a != b : i != j;
    }
}

static bool legal(int op, KKind k) {
    bool f = k == K_F32, b = k == K_BOOL, i = is_int(k);
    switch (op) {
    case K_add: case K_sub: case K_mul: case K_div: case K_neg: case K_abs: return f || i;
    case K_min: case K_max: return f || i || b;
    case K_rem: case K_shl: case K_shr: return i;
    case K_and: case K_or: case K_xor: case K_not: return i || b;
    case K_mulhi: return k == K_U32;
    case K_fma: case K_sqrt: case K_floor: case K_ceil: case K_rint: return f;
    default: return op >= K_lt && op <= K_ne && (f || i || b);
    }
}

static uint64_t random_lane(KKind k) {
    static const float nice[] = { 0,        -0.0f,     1,      -1,           0.5f, 2.5f,
                                  3,        1e-40f,    -1e38f, 65520,        3e9f, -3e9f,
                                  INFINITY, -INFINITY, NAN,    2147483648.0f };
    uint64_t r = rnd();
    if (k == K_F32) {
        if (r % 4 == 0) return float_bits(nice[r >> 8 & 15]);
        if (r % 4 == 1) return float_bits((float)(int32_t)(r >> 32) * 0x1p-24f);
        return r >> 32;
    }
    if (k == K_BF16 || k == K_F16) {
        r = r >> 32 & 0xffff;
        return half_value(k, r) != half_value(k, r) ? 0x3c00 : r;
    }
    if (r % 4 == 0) return keep(k, (uint64_t)((int64_t)(r >> 8 & 7) - 3));
    if (r % 16 == 1) return keep(k, 1ull << (bits_of(k) - 1));
    return keep(k, r >> 16 ^ r << 40);
}

static uint64_t get_lane(const void *p, KKind k, size_t i) {
    uint64_t v = 0;
    memcpy(&v, (const char *)p + i * (size_t)snK_kind_bytes(k), (size_t)snK_kind_bytes(k));
    return v;
}

static void put_lane(void *p, KKind k, size_t i, uint64_t v) {
    memcpy((char *)p + i * (size_t)snK_kind_bytes(k), &v, (size_t)snK_kind_bytes(k));
}

static bool equal(KKind k, uint64_t a, uint64_t b) {
    if (a == b) return true;
    if (k == K_F32) return as_float(a) != as_float(a) && as_float(b) != as_float(b);
    if (k == K_BF16 || k == K_F16)
        return half_value(k, a) != half_value(k, a) && half_value(k, b) != half_value(k, b);
    return false;
}

/* -- Every elementwise op ---------------------------------------------------------------------- */

enum { ITEMS = 512 };
typedef struct Trial {
    KKind k, out;
    int op, at;
} Trial; /* result in elements at.. of the out buffer */

/* Buffers 0..2: operands; 3 + j: results of kind kinds[j]. One program = one vector. */
static Kernel *op_kernel(World *w, KKind k, int lanes, Trial *trials, int *n, int *used) {
    Kernel *kn = snK_new(&w->c, &w->a, "ops");
    KType t = kt(k, lanes), b = kt(K_BOOL, lanes);
    char name[8] = "a";
    for (int j = 0; j < 3; j++, name[0]++) snK_param(kn, name, k, false);
    for (int j = 0; j < NKINDS; j++) {
        snprintf(name, sizeof name, "o%d", j);
        snK_param(kn, name, kinds[j], true);
    }
    KVal one = snK_int(kn, i64(), 1);
    KVal i = snK_for(kn, snK_leaf(kn, K_task, i64(), 0), snK_leaf(kn, K_task, i64(), 1), one, 1);
    KVal at = snK_op(kn, K_mul, i64(), i, snK_int(kn, i64(), lanes), 0), x[3];
    for (int j = 0; j < 3; j++) x[j] = snK_load(kn, t, snK_ptr(kn, j), at, 0);
    *n = 0;
    for (int op = K_add; op <= K_cast + NKINDS - 1; op++) {
        KKind out = k;
        KVal r = 0;
        if (op >= K_cast) {
            out = kinds[op - K_cast];
            r = snK_op(kn, K_cast, kt(out, lanes), x[0], 0, 0);
        } else if (op == K_select) {
            if (!legal(K_lt, k)) continue;
            r = snK_op(kn, K_select, t, snK_op(kn, K_lt, b, x[0], x[1], 0), x[1], x[2]);
        } else if (op > K_cast || !legal(op, k)) continue;
        else {
            int m = snK_nargs(op);
            if (op >= K_lt) out = K_BOOL;
            r = snK_op(kn, op, kt(out, lanes), x[0], m > 1 ? x[1] : 0, m > 2 ? x[2] : 0);
        }
        int j = 0;
        while (kinds[j] != out) j++;
        trials[*n] = (Trial){ k, out, op, used[j] };
        snK_store(kn, snK_ptr(kn, 3 + j),
                  snK_op(kn, K_add, i64(), at, snK_int(kn, i64(), used[j]), 0), r, 0);
        used[j] += ITEMS;
        (*n)++;
    }
    snK_end(kn);
    return kn;
}

static uint64_t model(const Trial *t, uint64_t a, uint64_t b, uint64_t c) {
    if (t->op >= K_cast) return convert(t->k, t->out, a);
    if (t->op == K_select) return model_compare(K_lt, t->k, a, b) ? b : c;
    if (t->op >= K_lt && t->op <= K_ne) return model_compare(t->op, t->k, a, b);
    return t->k == K_F32 ? model_float(t->op, as_float(a), as_float(b), as_float(c))
                         : model_int(t->op, t->k, a, b);
}

static void test_ops(const char *target) {
    World w = {0};
    static const int lanes[NLANES] = { 1, 4, 8, 16, 32 };
    const Kernel *k[NKINDS * NLANES];
    Code f[NKINDS * NLANES];
    Trial trials[NKINDS * NLANES][64];
    int n[NKINDS * NLANES];
    for (int j = 0; j < NKINDS * NLANES; j++) {
        int used[NKINDS] = {0};
        k[j] = op_kernel(&w, kinds[j / NLANES], lanes[j % NLANES], trials[j], &n[j], used);
    }
    if (!load(&w, k, NKINDS * NLANES, target, f)) return;
    for (int j = 0; j < NKINDS * NLANES; j++) {
        KKind kd = kinds[j / NLANES];
        void *bufs[3 + NKINDS];
        for (int p = 0; p < 3 + NKINDS; p++) bufs[p] = buffer(&w, ITEMS * 8 * (p < 3 ? 1 : 48));
        for (size_t i = 0; i < 3 * ITEMS; i++) put_lane(bufs[i % 3], kd, i / 3, random_lane(kd));
        call(&f[j], bufs, NULL, ITEMS / lanes[j % NLANES], NULL);
        for (int q = 0; q < n[j]; q++) {
            const Trial *t = &trials[j][q];
            int o = 0, bad = -1;
            while (kinds[o] != t->out) o++;
            for (int i = 0; i < ITEMS; i++) {
                uint64_t want = model(t, get_lane(bufs[0], kd, i), get_lane(bufs[1], kd, i),
                                      get_lane(bufs[2], kd, i));
                if (!equal(t->out, want, get_lane(bufs[3 + o], t->out, t->at + i))) bad = i;
            }
            check(bad < 0, "%s %s %sx%d -> %s: a %llx b %llx got %llx", target,
                  snK_op_name(t->op > K_cast ? K_cast : t->op), snK_kind_name(kd), lanes[j % NLANES],
                  snK_kind_name(t->out), (unsigned long long)get_lane(bufs[0], kd, bad),
                  (unsigned long long)get_lane(bufs[1], kd, bad),
                  (unsigned long long)get_lane(bufs[3 + o], t->out, t->at + bad));
        }
    }
    unload(f, NKINDS * NLANES);
    free_world(&w);
}

/* -- Vectors, masks, memory -------------------------------------------------------------------- */

/* out: reversed and interleaved lanes, each lane extracted, hsum, hmax, hmin, masked copy,
   gather, scatter, lane. */
static Kernel *vector_kernel(World *w, KKind k, int lanes) {
    Kernel *kn = snK_new(&w->c, &w->a, "vectors");
    KType t = kt(k, lanes), t1 = kt(k, 1), it = kt(K_I64, lanes), i32 = kt(K_I32, lanes);
    int in = snK_param(kn, "in", k, false), out = snK_param(kn, "out", k, true),
        ix = snK_param(kn, "ix", K_I32, false), mk = snK_param(kn, "mk", K_BOOL, false);
    KVal zero = snK_int(kn, i64(), 0), p = snK_ptr(kn, in), o = snK_ptr(kn, out);
    KVal a = snK_load(kn, t, p, zero, 0), b = snK_load(kn, t, p, snK_int(kn, i64(), lanes), 0);
    KVal index = snK_load(kn, i32, snK_ptr(kn, ix), zero, 0),
         mask = snK_load(kn, kt(K_BOOL, lanes), snK_ptr(kn, mk), zero, 0);
    uint8_t table[64];
    int64_t at = 0;
    for (int n = 0; n < lanes; n++) table[n] = (uint8_t)(n % 2 ? 2 * lanes - 1 - n : lanes - 1 - n);
    snK_store(kn, o, snK_int(kn, i64(), at), snK_shuffle(kn, a, b, table, lanes), 0), at += 64;
    for (int n = 0; n < lanes; n++)
        snK_store(kn, o, snK_int(kn, i64(), at + n), snK_extract(kn, a, lanes - 1 - n), 0);
    at += 64;
    bool adds = k == K_F32 || is_int(k);
    if (adds) snK_store(kn, o, snK_int(kn, i64(), at), snK_op(kn, K_hsum, t1, a, 0, 0), 0);
    if (adds || k == K_BOOL) {
        snK_store(kn, o, snK_int(kn, i64(), at + 1), snK_op(kn, K_hmax, t1, a, 0, 0), 0);
        snK_store(kn, o, snK_int(kn, i64(), at + 2), snK_op(kn, K_hmin, t1, a, 0, 0), 0);
    }
    at += 64;
    KVal off = snK_op(kn, K_offset, kt(K_PTR, 1), o, snK_int(kn, i64(), at), 0);
    snK_store(kn, off, zero, snK_load(kn, t, p, zero, mask), 0);
    snK_store(kn, off, snK_int(kn, i64(), 64), a, mask), at += 128;
    snK_store(kn, o, snK_int(kn, i64(), at), snK_gather(kn, t, p, index, mask), 0), at += 64;
    snK_store(kn, o, snK_int(kn, i64(), at),
              snK_gather(kn, t, p, snK_op(kn, K_cast, it, index, 0, 0), 0), 0),
        at += 64;
    KVal fives = snK_op(kn, K_and, i32, index, snK_int(kn, i32, 5), 0);
    snK_scatter(kn, snK_op(kn, K_offset, kt(K_PTR, 1), o, snK_int(kn, i64(), at), 0), fives, a, 0),
        at += 64;
    snK_scatter(kn, snK_op(kn, K_offset, kt(K_PTR, 1), o, snK_int(kn, i64(), at), 0),
                snK_op(kn, K_cast, it, fives, 0, 0), a, mask),
        at += 64;
    snK_store(kn, o, snK_int(kn, i64(), at), snK_op(kn, K_splat, t, snK_extract(kn, b, 0), 0, 0),
              0);
    return kn;
}

static uint64_t tree(KKind k, int op, uint64_t *v, int n) {
    for (int w = n / 2; w >= 1; w /= 2)
        for (int i = 0; i < w; i++)
            v[i] = k == K_F32 ? model_float(op, as_float(v[i]), as_float(v[i + w]), 0)
                              : model_int(op, k, v[i], v[i + w]);
    return v[0];
}

static void vector_model(KKind k, int lanes, const uint64_t *in, const int *index, const bool *mask,
                         uint64_t *out) {
    uint64_t v[64];
    for (int n = 0; n < lanes; n++) {
        out[n] = in[n % 2 ? 2 * lanes - 1 - n : lanes - 1 - n];
        out[64 + n] = in[lanes - 1 - n];
        out[192 + n] = mask[n] ? in[n] : 0;
        if (mask[n]) out[256 + n] = in[n];
        out[320 + n] = mask[n] ? in[index[n]] : 0;
        out[384 + n] = in[index[n]];
        out[448 + (index[n] & 5)] = in[n];
        if (mask[n]) out[512 + (index[n] & 5)] = in[n];
        out[576 + n] = in[lanes];
    }
    bool adds = k == K_F32 || is_int(k);
    if (adds) memcpy(v, in, sizeof v), out[128] = tree(k, K_add, v, lanes);
    if (adds || k == K_BOOL) {
        memcpy(v, in, sizeof v), out[129] = tree(k, K_max, v, lanes);
        memcpy(v, in, sizeof v), out[130] = tree(k, K_min, v, lanes);
    }
}

static void test_vectors(const char *target) {
    World w = {0};
    static const int lanes[NLANES] = { 1, 4, 8, 16, 32 };
    const Kernel *k[NKINDS * NLANES];
    Code f[NKINDS * NLANES];
    for (int j = 0; j < NKINDS * NLANES; j++) k[j] = vector_kernel(&w, kinds[j / NLANES], lanes[j % NLANES]);
    if (!load(&w, k, NKINDS * NLANES, target, f)) return;
    for (int j = 0; j < NKINDS * NLANES; j++)
        for (int round = 0; round < 8; round++) {
            KKind kd = kinds[j / NLANES];
            uint64_t in[64], want[640];
            int *index = buffer(&w, 256), bad = -1;
            bool *mask = buffer(&w, 64);
            void *bufs[4] = { buffer(&w, 1024), buffer(&w, 640 * 8), index, mask };
            for (int i = 0; i < 64; i++) {
                put_lane(bufs[0], kd, i, in[i] = random_lane(kd));
                index[i] = (int)(rnd() >> 40 & 31);
                mask[i] = round == 0 ? 0 : round == 1 ? 1 : rnd() >> 60 & 1;
            }
            for (int i = 0; i < 640; i++) put_lane(bufs[1], kd, i, want[i] = kd == K_BOOL ? 0 : 7);
            vector_model(kd, lanes[j % NLANES], in, index, mask, want);
            call(&f[j], bufs, NULL, 1, NULL);
            for (int i = 0; i < 640; i++)
                if (!equal(kd, want[i], get_lane(bufs[1], kd, i))) bad = i;
            check(bad < 0, "%s vectors %sx%d: part %d lane %d", target, snK_kind_name(kd),
                  lanes[j % NLANES], bad / 64, bad % 64);
        }
    unload(f, NKINDS * NLANES);
    free_world(&w);
}

/* -- Functions of scalar.def that are not one op ----------------------------------------------- */

static void test_scalars(const char *target) {
    World w = {0};
    Kernel *k = snK_new(&w.c, &w.a, "scalars");
    KType t = kt(K_F32, 8);
    static const int fn[] = { S_min, S_max, S_rem };
    KVal x[2], zero = snK_int(k, i64(), 0);
    for (int n = 0; n < 2; n++)
        x[n] = snK_load(k, t, snK_ptr(k, snK_param(k, n ? "b" : "a", K_F32, false)), zero, 0);
    for (int n = 0; n < 3; n++) {
        int p = snK_param(k, "y", K_F32, true);
        snK_store(k, snK_ptr(k, p), zero, snK_scalar(k, fn[n], t, x, 2), 0);
    }
    Code f;
    if (!load(&w, (const Kernel *const *)&k, 1, target, &f)) return;
    float *b[5];
    for (int n = 0; n < 5; n++) b[n] = buffer(&w, 32);
    int bad[3] = {0};
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < 8; i++) {
            for (int n = 0; n < 2; n++) b[n][i] = as_float(random_lane(K_F32));
            if (fabs((double)b[0][i] / (double)b[1][i]) > 0x1p23) b[1][i] = b[0][i] / 3.7f;
        }
        call(&f, (void **)b, NULL, 1, NULL);
        for (int i = 0; i < 8; i++) {
            float u = b[0][i], v = b[1][i];
            float want[3] = { u != u   ? v
                              : v != v ? u
                              : u < v  ? u
                                       : v,
                              u != u   ? v
                              : v != v ? u
                              : u > v  ? u
                                       : v,
                              fmodf(u, v) };
            for (int n = 0; n < 3; n++)
                bad[n] +=
                    !(b[2 + n][i] == want[n] || (want[n] != want[n] && b[2 + n][i] != b[2 + n][i]));
        }
    }
    check(!bad[0] && !bad[1] && !bad[2], "%s scalars: min %d, max %d, rem %d wrong", target, bad[0],
          bad[1], bad[2]);
    unload(&f, 1);
    free_world(&w);
}

/* -- Structure: for, if, var, scratch, task range ---------------------------------------------- */

static void test_structure(const char *target) {
    static const char text[] =
        "kernel collatz(x: i64, out y: i64) scratch 1024 {  # steps until 1, through scratch; 1000 "
        "at most\n"
        "  %1 = param i64* 0\n %2 = param i64* 1\n %3 = task i64 0\n %4 = task i64 1\n %5 = const "
        "i64 1\n %6 = const i64 0\n"
        "  %7 = const i64 1000\n %8 = scratch i64* 64\n %9 = const i64 3\n %10 = const i64 2\n"
        "  %11 = for i64 %3, %4, %5\n"
        "    %12 = load i64 %1, %11\n store %8, %9, %12\n %13 = var i64 %6\n"
        "    %14 = for i64 %6, %7, %5 unroll 4\n"
        "      %15 = load i64 %8, %9\n %16 = ne bool %15, %5\n"
        "      if %16\n"
        "        %17 = get i64 %13\n %18 = add i64 %17, %5\n set %13, %18\n"
        "        %19 = and i64 %15, %5\n %20 = eq bool %19, %6\n"
        "        if %20\n          %21 = div i64 %15, %10\n          store %8, %9, %21\n"
        "        else\n          %22 = mul i64 %15, %9\n          %23 = add i64 %22, %5\n          "
        "store %8, %9, %23\n        end\n"
        "      end\n    end\n"
        "    %24 = get i64 %13\n    store %2, %11, %24\n"
        "  end\n}\n";
    World w = {0};
    Kernel *k = NULL;
    SN_ENTER(&w.c, { check(false, "%s", w.c.message); return; });
    k = snK_parse(&w.c, &w.a, "collatz.kir", text, sizeof text - 1);
    SN_LEAVE(&w.c);
    Code f;
    if (!load(&w, (const Kernel *const *)&k, 1, target, &f)) return;
    int64_t *x = buffer(&w, 800), *y = buffer(&w, 800);
    for (int i = 0; i < 100; i++) x[i] = i + 1, y[i] = -1;
    f.f((void *[]){ x, y }, NULL, 3, 100, buffer(&w, 1024));
    bool ok = y[0] == -1 && y[2] == -1;
    for (int i = 3; i < 100; i++) {
        int64_t v = i + 1, n = 0;
        for (; v != 1; n++) v = v % 2 ? 3 * v + 1 : v / 2;
        ok &= y[i] == n;
    }
    check(ok, "%s: for, if, var, scratch", target);
    free_world(&w);
}

/* -- Philox ------------------------------------------------------------------------------------ */

static void test_philox(const char *target) {
    World w = {0};
    Kernel *k = snK_new(&w.c, &w.a, "philox");
    KType u = kt(K_U32, 4);
    int out = snK_param(k, "out", K_U32, true);
    KVal key[2], ctr[4];
    for (int n = 0; n < 2; n++) key[n] = snK_leaf(k, K_sysarg, kt(K_U32, 1), n);
    KVal step = snK_leaf(k, K_sysarg, kt(K_U32, 1), 2);
    for (int n = 0; n < 4; n++) ctr[n] = step;
    snK_store(k, snK_ptr(k, out), snK_int(k, i64(), 0),
              snK_philox(k, key, ctr, snK_leaf(k, K_lane, u, 0)), 0);
    Code f;
    if (!load(&w, (const Kernel *const *)&k, 1, target, &f)) return;
    static const struct {
        uint32_t in, want[4];
    } known[] = { /* the known answers of Random123 */
                  { 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
                  { 0xffffffff, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } }
    };
    uint32_t *y = buffer(&w, 64);
    for (int n = 0; n < 2; n++) {
        SnLaunchArgs la = { { known[n].in, known[n].in }, known[n].in, 0 };
        call(&f, (void *[]){ y }, &la, 1, NULL);
        check(!memcmp(y, known[n].want, 16), "%s philox: %08x %08x %08x %08x", target, y[0], y[1],
              y[2], y[3]);
    }
    unload(&f, 1);
    free_world(&w);
}

/* -- Accuracy ---------------------------------------------------------------------------------- */

static double ulps(float got, double want) {
    if (want != want) return got != got ? 0 : 1e9;
    float near = (float)want;
    if (got == near) return 0;
    if (isinf(near) || isinf(got) || got != got) {
        double edge = 3.4028236692093846e38; /* 2^128: what follows the largest float */
        double w = isinf(want) || fabs(want) > edge * 2 ? 0 : want;
        return isinf(got) && w && fabs(w) > 3.4028233e38 && (got > 0) == (w > 0) ? 1
               : isinf(near) && fabsf(got) > 3.402823e38f && !isinf(want)        ? 1
                                                                                 : 1e9;
    }
    int e;
    frexp(fabs(want), &e);
    return fabs((double)got - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

typedef struct Function {
    const char *name;
    KVal (*emit)(Kernel *, KVal);
    double (*libm)(double);
    double bound;
} Function;
static const Function functions[] = {
    { "exp", snK_exp, exp, 2 },    { "exp2", snK_exp2, exp2, 2 },
    { "log", snK_log, log, 2 },
    { "tanh", snK_tanh, tanh, 2 }, { "erf", snK_erf, erf, 2 },
    { "sin", snK_sin, sin, 2 },  { "cos", snK_cos, cos, 2 }
};
enum { NFUNCTIONS = 7, CHUNK = 4096 };

/* y[i] = f(x[i]), 8 lanes. */
static Kernel *unary_kernel(World *w, const Function *f) {
    Kernel *k = snK_new(&w->c, &w->a, f->name);
    int x = snK_param(k, "x", K_F32, false), y = snK_param(k, "y", K_F32, true);
    KVal i = snK_for(k, snK_leaf(k, K_task, i64(), 0), snK_leaf(k, K_task, i64(), 1),
                     snK_int(k, i64(), 1), 1);
    KVal at = snK_op(k, K_mul, i64(), i, snK_int(k, i64(), 8), 0);
    snK_store(k, snK_ptr(k, y), at, f->emit(k, snK_load(k, kt(K_F32, 8), snK_ptr(k, x), at, 0)), 0);
    snK_end(k);
    return k;
}

static void sweep(const char *target, const Function *fn, Code *f, float *x, float *y) {
    uint64_t step = getenv("SN_LONG") ? 1 : 1021;
    double worst = 0;
    float where = 0;
    double t_kernel = 0;
    uint64_t count = 0;
    for (uint64_t u = 0; u < 1ull << 32; ) {
        for (int i = 0; i < CHUNK; i++, u += step) x[i] = as_float(u < 1ull << 32 ? u : 0);
        double t0 = snU_now();
        call(f, (void *[]){ x, y }, NULL, CHUNK / 8, NULL);
        t_kernel += snU_now() - t0;
        count += CHUNK;
        for (int i = 0; i < CHUNK; i++) {
            double e = ulps(y[i], fn->libm((double)x[i]));
            if (e > worst) worst = e, where = x[i];
        }
    }
    check(worst <= fn->bound, "%s %s: %.3g ulp at %a", target, fn->name, worst,
          (double)where);
    printf("  %-15s %-5s %.3f ulp at %-14a %.2f ns an element\n", target, fn->name, worst,
           (double)where, 1e9 * t_kernel / (double)count);
}

static void test_pow(World *w, const char *target, Code *f);

static Kernel *pow_kernel(World *w) {
    Kernel *k = snK_new(&w->c, &w->a, "pow");
    int x = snK_param(k, "x", K_F32, false), y = snK_param(k, "y", K_F32, false),
        z = snK_param(k, "z", K_F32, true);
    KVal i = snK_for(k, snK_leaf(k, K_task, i64(), 0), snK_leaf(k, K_task, i64(), 1),
                     snK_int(k, i64(), 1), 1);
    KVal at = snK_op(k, K_mul, i64(), i, snK_int(k, i64(), 8), 0);
    KVal a = snK_load(k, kt(K_F32, 8), snK_ptr(k, x), at, 0),
         b = snK_load(k, kt(K_F32, 8), snK_ptr(k, y), at, 0);
    snK_store(k, snK_ptr(k, z), at, snK_pow(k, a, b), 0);
    snK_end(k);
    return k;
}

static void test_math(const char *target) {
    World w = {0};
    const Kernel *k[NFUNCTIONS + 1];
    Code f[NFUNCTIONS + 1];
    for (int n = 0; n < NFUNCTIONS; n++) k[n] = unary_kernel(&w, &functions[n]);
    k[NFUNCTIONS] = pow_kernel(&w);
    if (!load(&w, k, NFUNCTIONS + 1, target, f)) return;
    float *x = buffer(&w, CHUNK * 4), *y = buffer(&w, CHUNK * 4);
    for (int n = 0; n < NFUNCTIONS; n++) sweep(target, &functions[n], &f[n], x, y);
    test_pow(&w, target, &f[NFUNCTIONS]);
    unload(f, NFUNCTIONS + 1);
    free_world(&w);
}

static void test_pow(World *w, const char *target, Code *f) {
    static const float special[] = {
        0,        -0.0f,    1,         -1,          2,          -2,      0.5f,  -0.5f, 3,
        -3,       INFINITY, -INFINITY, NAN,         1e-40f,     -1e-40f, 3e38f, 2.5f,  -2.5f,
        16777217, 16777216, 33554432,  0.99999994f, 1.0000001f, 1e9f,    -7,    0.1f
    };
    enum { N = sizeof special / sizeof *special };
    float *x = buffer(w, CHUNK * 4), *y = buffer(w, CHUNK * 4), *z = buffer(w, CHUNK * 4);
    double worst = 0;
    float wx = 0, wy = 0, wz = 0;
    for (int round = 0; round < (getenv("SN_LONG") ? 20000 : 300); round++) {
        for (int i = 0; i < CHUNK; i++) {
            x[i] = round ? as_float(rnd() >> 33) : special[i / N % N];
            y[i] = round ? (float)((double)(int64_t)rnd() * 0x1p-63 * 120 /
                                   (fabs(log((double)x[i])) + 1e-30))
                         : special[i % N];
            if (round % 4 == 3)
                x[i] = 0.5f + (float)(rnd() >> 40) * 0x1p-24f,
                y[i] = (float)(int64_t)rnd() * 0x1p-53f;
        }
        call(f, (void *[]){ x, y, z }, NULL, CHUNK / 8, NULL);
        for (int i = 0; i < CHUNK; i++) {
            double want = pow((double)x[i], (double)y[i]), e = ulps(z[i], want);
            if (want == 0 && z[i] == 0 && !signbit(want) != !signbit(z[i])) e = 1e9;
            if (e > worst) worst = e, wx = x[i], wy = y[i], wz = z[i];
        }
    }
    check(worst <= 2, "%s pow: %.3g ulp at %a, %a: %a", target, worst, (double)wx, (double)wy,
          (double)wz);
    printf("  %-15s pow   %.3f ulp at %a, %a\n", target, worst, (double)wx, (double)wy);
}

/* -- Text -------------------------------------------------------------------------------------- */

/* Parses; NULL when refused. *message: the error's text. */
static Kernel *parse(World *w, const char *text, size_t n, const char **message) {
    *message = NULL;
    w->c.code = 0;
    SN_ENTER(&w->c, { SN_LEAVE(&w->c); *message = w->c.message; return NULL; });
    Kernel *k = snK_parse(&w->c, &w->a, "t.kir", text, n);
    SN_LEAVE(&w->c);
    return k;
}

static void round_trip(const char *name, const Kernel *k) {
    World w = {0};
    StrBuf a = {0}, b = {0};
    const char *message;
    snK_print(&a, k);
    Kernel *again = parse(&w, a.s, a.n, &message);
    if (check(again != NULL, "round trip of %s: %s", name, message ? message : "")) {
        snK_print(&b, again);
        check(a.n == b.n && !memcmp(a.s, b.s, a.n), "round trip of %s changes the text", name);
    }
    snU_free_buf(&a);
    snU_free_buf(&b);
    free_world(&w);
}

static void test_text(void) {
    World w = {0};
    for (int j = 0; j < NKINDS; j++) {
        Trial trials[64];
        int n, used[NKINDS] = {0};
        round_trip("ops", op_kernel(&w, kinds[j], 8, trials, &n, used));
        round_trip("vectors", vector_kernel(&w, kinds[j], 16));
    }
    for (int n = 0; n < NFUNCTIONS; n++)
        round_trip(functions[n].name, unary_kernel(&w, &functions[n]));
    round_trip("pow", pow_kernel(&w));
    static const struct { const char *text, *want;
    } bad[] = { { "kernel k() scratch 0 {\n  %1 = const f32x3 0\n}",
                  "t.kir:2: error: const: no such type" },
                { "kernel k() scratch 0 {\n  %1 = cinst f32 0\n}",
                  "t.kir:2: error: an op expected, found cinst" },
                { "kernel k() scratch 0 {\n  %1 = const f32 0\n  %2 = add f32 %1, %3\n}",
                  "t.kir:3: error: %3 is not defined" },
                { "kernel k() scratch 0 {\n  %1 = const f32 0\n  %2 = const i32 0\n  %3 = add f32 "
                  "%1, %2\n}",
                  "t.kir:4: error: add: operands and result are of different types" },
                { "kernel k() scratch 0 {\n  %1 = const bool 1\n  if %1\n}",
                  "t.kir:3: error: for or if is not closed" },
                { "kernel k() scratch 0 {\n  %1 = const bool 1\n  if %1\n  %2 = task i64 0\n  %3 = "
                  "neg i64 %2\n end\n  %4 = neg i64 %3\n}",
                  "t.kir:7: error: %4 is not visible here: its region is closed" },
                { "kernel k() scratch 64 {\n  %1 = scratch f32* 0\n  %2 = const i64 15\n %3 = load "
                  "f32x4 %1, %2\n}",
                  "t.kir:4: error: load or store outside the kernel's scratch" },
                { "kernel k() scratch 64 {\n  end\n}", "t.kir:2: error: end without for or if" },
                { "kernel k(a: f32) scratch 0 {\n  %1 = param i32* 0\n}",
                  "t.kir:2: error: param: element kind differs from the parameter's" },
                { "kernel k(a: f32", "t.kir:1: error: ',' expected, found the end" } };
    for (size_t n = 0; n < sizeof bad / sizeof *bad; n++) {
        const char *message;
        Kernel *k = parse(&w, bad[n].text, strlen(bad[n].text), &message);
        check(!k && message && !strcmp(message, bad[n].want), "text %zu: %s", n,
              message ? message : "accepted");
    }
    free_world(&w);
}

/* Texts with bytes changed, removed, doubled: refused with a message or accepted, and then
   printable and stable. */
static void test_mutations(void) {
    World seed = {0};
    Trial trials[64];
    int n, used[NKINDS] = {0}, accepted = 0, rounds = getenv("SN_LONG") ? 40000 : 3000;
    const Kernel *from[3] = { op_kernel(&seed, K_I32, 4, trials, &n, used),
                              vector_kernel(&seed, K_F32, 8), unary_kernel(&seed, &functions[4]) };
    StrBuf texts[3] = {{0}};
    for (int j = 0; j < 3; j++) snK_print(&texts[j], from[j]);
    for (int r = 0; r < rounds; r++) {
        World w = {0};
        const StrBuf *t = &texts[r % 3];
        char *s = malloc(t->n + 8);
        size_t len = t->n;
        memcpy(s, t->s, len);
        for (int e = 1 + (int)(rnd() >> 62); e > 0; e--) {
            size_t at = rnd() % len;
            static const char from_these[] = "%0123456789,x*[]{}#=-. fiend";
            switch (rnd() >> 62) {
            case 0: s[at] = from_these[rnd() % (sizeof from_these - 1)]; break;
            case 1: s[at] = (char)(rnd() >> 56); break;
            case 2: memmove(s + at, s + at + 1, --len - at); break;
            default: len = rnd() % 8 ? len : at + 1;
            }
        }
        const char *message;
        Kernel *k = parse(&w, s, len, &message);
        if (k) accepted++, round_trip("a mutation", k);
        else
            check(message && !strncmp(message, "t.kir:", 6), "a mutation's message: %s",
                  message ? message : "none");
        free(s);
        free_world(&w);
    }
    printf("  %d of %d mutated texts are valid\n", accepted, rounds);
    for (int j = 0; j < 3; j++) snU_free_buf(&texts[j]);
    free_world(&seed);
}

/* -- Folding, cache, micro-kernel -------------------------------------------------------------- */

static void test_folding(void) {
    World w = {0};
    Kernel *k = snK_new(&w.c, &w.a, "folds");
    KType v = kt(K_I32, 8), f = kt(K_F32, 8);
    int p = snK_param(k, "p", K_I64, false);
    KVal x = snK_load(k, i64(), snK_ptr(k, p), snK_int(k, i64(), 0), 0), one = snK_int(k, i64(), 1);
    check(snK_int(k, i64(), 7) == snK_int(k, i64(), 7) && snK_int(k, v, 7) != snK_int(k, i64(), 7),
          "constants are shared by type");
    check(snK_float(k, f, 0) != snK_float(k, f, -0.0), "0 and -0 differ");
    check(snK_op(k, K_add, i64(), x, snK_int(k, i64(), 0), 0) == x &&
              snK_op(k, K_mul, i64(), one, x, 0) == x,
          "x + 0, 1 * x");
    KVal c = snK_op(k, K_add, i64(), snK_op(k, K_add, i64(), x, snK_int(k, i64(), 3), 0),
                    snK_int(k, i64(), -3), 0);
    check(c == x, "(x + 3) + -3 is x");
    check(snK_op(k, K_splat, f, snK_float(k, kt(K_F32, 1), 2), 0, 0) == snK_float(k, f, 2),
          "splat of a constant");
    KVal wrap = snK_op(k, K_mul, v, snK_int(k, v, 65536), snK_int(k, v, 65537), 0);
    check(wrap == snK_int(k, v, 65536), "constants wrap");
    free_world(&w);
}

static void test_cache(void) {
    char dir[] = "/tmp/unit_kirXXXXXX", cmd[128];
    if (!check(mkdtemp(dir) != NULL, "no temporary folder")) return;
    char *old = getenv("SN_CACHE") ? strdup(getenv("SN_CACHE")) : NULL;
    setenv("SN_CACHE", dir, 1);
    World w = {0};
    const Kernel *k[2] = { unary_kernel(&w, &functions[0]), unary_kernel(&w, &functions[0]) };
    Code f[2];
    double t0 = snU_now();
    if (load(&w, k, 2, "host", f)) check(f[0].f == f[1].f, "equal kernels share code");
    double cold = snU_now() - t0;
    t0 = snU_now();
    load(&w, k, 2, "host", f);
    double warm = snU_now() - t0;
    snprintf(cmd, sizeof cmd,
             "for f in %s/*; do printf x | dd of=$f bs=1 seek=100 conv=notrunc 2>/dev/null; done",
             dir);
    check(system(cmd) == 0, "no shell");
    float *x = buffer(&w, 32), *y = buffer(&w, 32);
    if (load(&w, k, 2, "host", f)) call(&f[0], (void *[]){ x, y }, NULL, 1, NULL);
    check(y[7] == 1, "a damaged cache is not used");
    setenv("SN_CACHE", "/proc/none", 1);
    check(load(&w, k, 2, "host", f), "works without a cache");
    printf("  one kernel: %.1f ms cold, %.1f ms from the cache\n", 1e3 * cold, 1e3 * warm);
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    check(system(cmd) == 0, "rm");
    if (old) setenv("SN_CACHE", old, 1);
    else unsetenv("SN_CACHE");
    free(old);
    free_world(&w);
}

static Kernel *read_kernel(World *w, const char *name) {
    char path[512];
    size_t n;
    const char *dir = getenv("SN_TESTS"), *message;
    snprintf(path, sizeof path, "%s/codegen/%s.kir", dir ? dir : "tests", name);
    char *s = snU_read_file(&w->c, path, &n);
    Kernel *k = s ? parse(w, s, n, &message)
                  : (message = "no such file (run in the repository, or set SN_TESTS)", NULL);
    check(k != NULL, "%s: %s", path, message ? message : "");
    free(s);
    return k;
}

static float no_denormal(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

/* low a low b + (high a high b + c), each sum rounded, denormals 0. */
static float model_pairs(uint32_t a, uint32_t b, float c) {
    c = no_denormal(c);
    for (int high = 1; high >= 0; high--) {
        float x = half_value(K_BF16, a >> 16 * high & 0xffff), y = half_value(K_BF16, b >> 16 * high & 0xffff);
        c = no_denormal(fmaf(no_denormal(x), no_denormal(y), c));
    }
    return c;
}

static uint32_t random_pair(bool tame) {
    uint32_t pair = (uint32_t)rnd();
    return tame ? (pair & 0x807f807f) | 0x3d003d00 | ((uint32_t)rnd() & 0x03800380) : pair;
}

/* The dot product of bf16 pairs, bit by bit; half of the lanes are of ordinary size. */
static void test_pairs(void) {
    World w = {0};
    Target t;
    snK_target(&w.c, "host", &t);
    if (!t.bf16_dot) { printf("skipped dpbf16: this CPU has none\n"); free_world(&w); return; }
    Kernel *k = snK_new(&w.c, &w.a, "pairs");
    static const KKind mem[] = { K_U32, K_U32, K_F32, K_F32 };
    KVal zero = snK_int(k, i64(), 0), x[3];
    for (int i = 0; i < 4; i++) snK_param(k, "p", mem[i], i == 3);
    for (int i = 0; i < 3; i++) x[i] = snK_load(k, kt(mem[i], 16), snK_ptr(k, i), zero, 0);
    snK_store(k, snK_ptr(k, 3), zero, snK_op(k, K_dpbf16, kt(K_F32, 16), x[0], x[1], x[2]), 0);
    Code f;
    if (!load(&w, (const Kernel *const *)&k, 1, "host", &f)) return;
    uint32_t *a = buffer(&w, 64), *b = buffer(&w, 64);
    float *c = buffer(&w, 64), *y = buffer(&w, 64);
    int wrong = 0;
    for (int round = 0; round < 20000; round++) {
        for (int i = 0; i < 16; i++) {
            a[i] = random_pair(i & 1), b[i] = random_pair(i & 1);
            c[i] = i & 1 ? (float)(int32_t)rnd() * 0x1p-28f : as_float(rnd() & 0xffffffff);
        }
        call(&f, (void *[]){ a, b, c, y }, NULL, 1, NULL);
        for (int i = 0; i < 16; i++) wrong += !equal(K_F32, float_bits(y[i]), float_bits(model_pairs(a[i], b[i], c[i])));
    }
    check(wrong == 0, "dpbf16: %d of 320000 lanes are wrong", wrong);
    free_world(&w);
}

/* The micro-kernel on panels in L1 against twelve chains of fma: a printed figure, not a test. */
static void test_gemm(void) {
    World w = {0};
    Kernel *k[2] = { read_kernel(&w, "gemm6x16"), read_kernel(&w, "fma_peak") };
    Code f[2];
    if (!k[0] || !k[1] || !load(&w, (const Kernel *const *)k, 2, "host:x86-64-v3", f)) return;
    float *a = buffer(&w, 256 * 6 * 4), *b = buffer(&w, 256 * 16 * 4), *c = buffer(&w, 96 * 4),
          *p = buffer(&w, 96 * 4);
    for (int i = 0; i < 256 * 6; i++) a[i] = (float)(rnd() >> 40) * 0x1p-24f;
    for (int i = 0; i < 256 * 16; i++) b[i] = (float)(rnd() >> 40) * 0x1p-24f;
    double best[2] = { 1e9, 1e9 };
    for (int r = 0; r < 300; r++) {
        double t0 = snU_now();
        f[0].f((void *[]){ a, b, c }, NULL, 0, 20, NULL);
        double t1 = snU_now();
        f[1].f((void *[]){ b, p }, NULL, 0, 20 * 256, NULL);
        double t2 = snU_now();
        if (t1 - t0 < best[0]) best[0] = t1 - t0;
        if (t2 - t1 < best[1]) best[1] = t2 - t1;
    }
    bool ok = true;
    for (int i = 0; i < 96; i++) {
        float want = 0;
        for (int kk = 0; kk < 256; kk++) want = fmaf(a[kk * 6 + i / 16], b[kk * 16 + i % 16], want);
        ok &= want == c[i];
    }
    check(ok, "gemm6x16 is right");
    double flops = 20.0 * 256 * 6 * 16 * 2;
    printf("  gemm6x16: %.1f GFLOP/s, peak %.1f: %.1f %%\n", 1e-9 * flops / best[0],
           1e-9 * flops / best[1], 100 * best[1] / best[0]);
    free_world(&w);
}

/* No vector register of the AVX-512 form may go to the stack: looked up in the dumped assembly. */
static void test_spills(void) {
    char dir[] = "/tmp/unit_kirXXXXXX", cmd[256];
    World w = {0};
    Kernel *k = read_kernel(&w, "gemm14x32");
    if (!k || !check(mkdtemp(dir) != NULL, "no temporary folder")) return;
    setenv("SN_DUMP_DIR", dir, 1);
    Code f;
    load(&w, (const Kernel *const *)&k, 1, "host:x86-64-v4", &f);
    unsetenv("SN_DUMP_DIR");
    snprintf(
        cmd, sizeof cmd,
        "test $(grep -c vfmadd231ps %s/*.s) = 28 && ! grep -q rsp %s/*.s && grep -q zmm27 %s/*.s",
        dir, dir, dir);
    check(system(cmd) == 0, "gemm14x32 spills, or is not 28 fmas");
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    check(system(cmd) == 0, "rm");
    free_world(&w);
}

static bool wanted(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++) if (!strcmp(argv[i], name)) return true;
    return argc < 2;
}

static void test_target(int argc, char **argv, const char *target) {
    double t0 = snU_now();
    if (wanted(argc, argv, "ops")) test_ops(target);
    if (wanted(argc, argv, "vectors")) test_vectors(target);
    if (wanted(argc, argv, "scalars")) test_scalars(target);
    if (wanted(argc, argv, "structure") && !strncmp(target, "host", 4)) test_structure(target);
    if (wanted(argc, argv, "philox")) test_philox(target);
    if (wanted(argc, argv, "math")) test_math(target);
    printf("  %s: %.1f s\n", target, snU_now() - t0);
}

int main(int argc, char **argv) {
    char target[64] = "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!getenv("SN_CACHE")) setenv("SN_CACHE", "", 1);       /* what is tested is the compiler */
    if (argc > 2 && !strcmp(argv[1], "--device")) {
        if (sn_device_target(argv[2], target)) return printf("skipped: %s\n0 passed, 0 failed\n", sn_rt_error()), 0;
        test_target(argc - 2, argv + 2, target);
    } else {
        if (wanted(argc, argv, "text")) test_text();
        if (wanted(argc, argv, "mutations")) test_mutations();
        if (wanted(argc, argv, "folding")) test_folding();
        for (int t = 0; t < 2; t++) test_target(argc, argv, targets[t]);
        if (wanted(argc, argv, "cache")) test_cache();
        if (wanted(argc, argv, "pairs")) test_pairs();
        if (wanted(argc, argv, "gemm")) test_gemm();
        if (wanted(argc, argv, "spills")) test_spills();
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
