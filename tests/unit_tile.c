/* unit_tile.c: tile programs: builder, text, and the lowerings. In: nothing, or a seed, or a seed and a
   vector length (4, 8, 16) or a GPU target (opencl:gpu, ptx:sm_80, ptx:sm_80:tf32). Out: `N passed, N failed`.

   Every case is a tile program. It must print, parse and print the same; it is lowered and compiled, run on random inputs in
   random chunks of its grid, with outputs poisoned, and compared with snT_eval, the plain interpreter: floats within
   rounding, everything else, untouched poison included, bit for bit. Kernels compile a few hundred at a time. A GPU's kernels
   are interpreted (kir_eval.h), which also finds races, undefined values and accesses out of bounds. */
#define _GNU_SOURCE
#include "codegen/tile.h"
#include "runtime/program.h"
#include "tests/kir_eval.h"
#include <dlfcn.h>
#include <glob.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BATCH = 256, MAX_PARAMS = 12 };

static sn_ctx ctx;
static Arena arena;
static Target target;
static int passed, failed;
static int64_t values, nan_values;   /* compared, and how many of them were NaN: undefined, poison or meant */
static uint64_t rng_state = 88172645463325252u;

typedef struct Case { Tile *t; Kernel *k; char what[96]; double tolerance; int64_t index_limit; } Case;
static Case cases[BATCH];
static int ncases;

static uint32_t rnd(uint32_t n)
{
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

double snT_read(const void *p, Dtype d, int64_t i);
void snT_write(void *p, Dtype d, int64_t i, double x);

/* -- Running ------------------------------------------------------------------------------------------------ */

static void fill(void *p, const TParam *q, int64_t index_limit)
{
    for (int64_t i = 0; i < q->count; i++) {
        double x = ((double)rnd(20001) - 10000) / 2500;
        if (q->dtype == SN_BOOL) x = rnd(2);
        if (q->dtype == SN_I32) x = (double)rnd((uint32_t)index_limit + 4) - 2;
        if (q->dtype == SN_U32) x = rnd(1u << 31) * 2.0;
        if (snG_is_float((Dtype)q->dtype)) x = snG_round((Dtype)q->dtype, rnd(12) ? x : (double)rnd(3));   /* some ties */
        snT_write(p, (Dtype)q->dtype, i, x);
    }
}

static bool close_enough(double got, double want, double scale, double tolerance, int dtype)
{
    if (got == want || (got != got && want != want)) return true;
    if (!snG_is_float((Dtype)dtype)) return false;
    double ulp = dtype == SN_BF16 ? 0x1p-7 : dtype == SN_F16 ? 0x1p-10 : 0;
    return fabs(got - want) <= tolerance * scale + ulp * fabs(want);
}

static bool compare(const Case *q, int p, const void *got, const void *want)
{
    const TParam *b = &q->t->params.v[p];
    double scale = 0;
    for (int64_t i = 0; i < b->count; i++) {
        double w = fabs(snT_read(want, (Dtype)b->dtype, i));
        if (w > scale && w < 1e30) scale = w;
    }
    for (int64_t i = 0; i < b->count; i++) {
        nan_values += snT_read(want, (Dtype)b->dtype, i) != snT_read(want, (Dtype)b->dtype, i), values++;
        double g = snT_read(got, (Dtype)b->dtype, i), w = snT_read(want, (Dtype)b->dtype, i);
        if (close_enough(g, w, scale + 1e-3, q->tolerance, b->dtype)) continue;
        printf("FAILED %s: %s[%lld] = %.9g, should be %.9g\n", q->what, snU_str(&ctx, b->name), (long long)i, g, w);
        return false;
    }
    return true;
}

/* In random chunks of the grid, over scratch that must not be left. */
static bool run_host(const Case *q, SnHostKernel f, void **args, SnLaunchArgs la, int64_t tasks)
{
    size_t room = ((size_t)q->k->scratch + 63) / 64 * 64, guard = 4096;
    unsigned char *scratch = aligned_alloc(64, room + guard);
    memset(scratch, 0xff, room + guard);
    for (int64_t a = 0, b; a < tasks; a = b) {
        b = a + 1 + rnd((uint32_t)tasks + 2);
        if (b > tasks) b = tasks;
        la.again = a && rnd(2);                          /* what the last call packed may serve this one */
        f(args, &la, a, b, scratch);
    }
    bool ok = true;
    for (size_t n = 0; n < guard; n++) ok &= scratch[room + n] == 0xff;
    if (!ok) printf("FAILED %s: wrote past its scratch\n", q->what);
    free(scratch);
    return ok;
}

static bool run_blocks(const Case *q, void **args, const uint32_t la[4], int64_t tasks)
{
    KirBuffer buf[MAX_PARAMS];
    char fault[256];
    int n = 0;
    for (uint32_t p = 0; p < q->t->params.n; p++) {
        const TParam *b = &q->t->params.v[p];
        if (!b->local) buf[n] = (KirBuffer){ args[n], b->count * snG_dtype_size((Dtype)b->dtype) }, n++;
    }
    bool ok = q->k->threads > 0 && kir_eval(q->k, buf, la, 0, tasks, fault);
    if (!ok) printf("FAILED %s: %s\n", q->what, q->k->threads ? fault : "the kernel has no threads");
    return ok;
}

static bool run_case(const Case *q, SnHostKernel f)
{
    const Tile *t = q->t;
    void *got[MAX_PARAMS], *want[MAX_PARAMS], *args[2][MAX_PARAMS];
    int nargs = 0;
    SnLaunchArgs la = { { 0x12345678, 0x9abcdef0 }, 7, 1 };
    int64_t tasks = 1;
    for (int d = 0; d < t->ngrid; d++) tasks *= t->grid[d];
    for (uint32_t p = 0; p < t->params.n; p++) {
        const TParam *b = &t->params.v[p];
        size_t bytes = (size_t)b->count * (size_t)snG_dtype_size((Dtype)b->dtype);
        got[p] = aligned_alloc(64, (bytes + 127) / 64 * 64), want[p] = malloc(bytes + 1);
        fill(got[p], b, q->index_limit);
        if (b->written && !strstr(q->what, "scatter")) memset(got[p], b->dtype == SN_BOOL ? 1 : 0xff, bytes);
        memcpy(want[p], got[p], bytes);
        if (!b->local) args[0][nargs] = got[p], args[1][nargs++] = want[p];
    }
    const uint32_t sys[4] = { la.seed[0], la.seed[1], la.step, la.micro };
    bool ok = target.gpu ? run_blocks(q, args[0], sys, tasks) : run_host(q, f, args[0], la, tasks);
    snT_eval(t, args[1], sys, 0, tasks);
    for (uint32_t p = 0; p < t->params.n; p++) {
        if (ok && t->params.v[p].written && !t->params.v[p].local) ok = compare(q, (int)p, got[p], want[p]);
        free(got[p]), free(want[p]);
    }
    return ok;
}

static void *load_object(const void *so, size_t bytes)
{
    char path[64];
    int fd = memfd_create("kernels", 0);
    if (fd < 0 || write(fd, so, bytes) != (ssize_t)bytes) return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!h) printf("%s\n", dlerror());
    close(fd);
    return h;
}

static bool round_trip(const Case *q)
{
    StrBuf a = { 0 }, b = { 0 };
    snT_print(&a, q->t);
    snT_print(&b, snT_parse(&ctx, &arena, "test.kt", a.s, a.n));
    bool ok = a.n == b.n && !memcmp(a.s, b.s, a.n);
    if (!ok) printf("FAILED %s: text changed:\n%s\n%s\n", q->what, a.s, b.s);
    snU_free_buf(&a), snU_free_buf(&b);
    return ok;
}

static void flush(void)
{
    const Kernel *ks[BATCH];
    const char *symbols[BATCH];
    void *so = NULL, *h = NULL;
    size_t bytes;
    if (!ncases) return;
    for (int n = 0; n < ncases; n++) ks[n] = cases[n].k;
    if (!target.gpu) {
        snK_compile_host(&ctx, ks, ncases, &target, 0, &so, &bytes, symbols, &arena);
        h = load_object(so, bytes);
    }
    for (int n = 0; n < ncases; n++) {
        const Case *q = &cases[n];
        SnHostKernel f = h ? (SnHostKernel)dlsym(h, symbols[n]) : NULL;
        bool ok = (f || target.gpu) && round_trip(q) && run_case(q, f);
        if (ok) passed++;
        else failed++;
        if (!f && !target.gpu) printf("FAILED %s: no kernel\n", q->what);
        if (!ok && getenv("SN_VERBOSE")) {
            StrBuf b = { 0 };
            snT_print(&b, q->t);
            puts(b.s);
            snU_free_buf(&b);
        }
    }
    if (h) dlclose(h);
    free(so);
    ncases = 0;
}

static bool multiplies_f32(const Tile *t)
{
    for (TVal d = 1; d < t->ins.n; d++) if (t->ins.v[d].op == T_dot && t->ins.v[t->ins.v[d].a[0]].type.dtype == SN_F32) return true;
    return false;
}

static void test(Tile *t, double tolerance, const char *what)
{
    Case *q = &cases[ncases++];
    if (target.tf32 && tolerance < 2e-3 && multiplies_f32(t)) tolerance = 2e-3;          /* 10 bits of mantissa, as f16 */
    *q = (Case){ .t = t, .tolerance = tolerance, .index_limit = 20 };
    snprintf(q->what, sizeof q->what, "%s", what);
    if (target.gpu && rnd(3)) for (uint32_t p = 0; p < t->params.n; p++) if (!t->params.v[p].local) t->params.v[p].align = 16 << rnd(3);
    snT_verify(t);
    q->k = snK_lower(&ctx, &arena, t, &target);
    if (ncases == BATCH) flush();
}

/* -- Pieces of programs ----------------------------------------------------------------------------------------- */

static TType ty(int d, int r, int c) { return (TType){ (uint8_t)d, r, c }; }

static Tile *program(const char *name, int64_t tasks)
{
    Tile *t = snT_new(&ctx, &arena, "test", name);
    t->ngrid = 1;
    t->grid[0] = tasks;
    return t;
}

/* A load of [r, c] from a fresh buffer, dense, program p reading block p. */
static TVal input(Tile *t, int d, int r, int c, TVal vr, TVal vc)
{
    char name[16];
    snprintf(name, sizeof name, "p%u", t->params.n);
    int buf = snT_param(t, name, (Dtype)d, t->grid[0] * r * c, false);
    TVal at = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, (int64_t)r * c));
    return snT_load(t, buf, r, c, at, c, 1, vr, vc);
}

static void output(Tile *t, TVal v, TVal vr, TVal vc)
{
    char name[16];
    TType x = snT_type(t, v);
    snprintf(name, sizeof name, "p%u", t->params.n);
    int buf = snT_param(t, name, (Dtype)x.dtype, t->grid[0] * x.r * x.c, true);
    TVal at = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, (int64_t)x.r * x.c));
    snT_store(t, buf, at, v, x.c, 1, vr, vc);
}

static const int sizes[] = { 1, 2, 3, 5, 8, 13, 16, 17, 31, 33, 64, 100 };
static int any_size(void) { return sizes[rnd(12)]; }

/* A valid count that differs from program to program: min(size, 1 + p * k). */
static TVal some_valid(Tile *t, int size)
{
    if (rnd(2) || size < 2) return 0;
    TVal n = snT_ix(t, T_iadd, snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, 1 + rnd((uint32_t)size))), snT_idx(t, 1));
    return snT_ix(t, T_imin, n, snT_idx(t, size));
}

/* -- Elementwise ---------------------------------------------------------------------------------------------------- */

static const struct { int fn; uint8_t n; bool f, i, u, b; } functions[] = {
    { S_add, 2, 1, 1, 1, 0 }, { S_sub, 2, 1, 1, 1, 0 }, { S_mul, 2, 1, 1, 1, 0 }, { S_div, 2, 1, 1, 1, 0 }, { S_rem, 2, 0, 1, 1, 0 },
    { S_neg, 1, 1, 1, 0, 0 }, { S_abs, 1, 1, 1, 0, 0 }, { S_min, 2, 1, 1, 1, 0 }, { S_max, 2, 1, 1, 1, 0 }, { S_exp, 1, 1, 0, 0, 0 },
    { S_exp2, 1, 1, 0, 0, 0 },
    { S_log, 1, 1, 0, 0, 0 }, { S_sqrt, 1, 1, 0, 0, 0 }, { S_tanh, 1, 1, 0, 0, 0 }, { S_sin, 1, 1, 0, 0, 0 }, { S_cos, 1, 1, 0, 0, 0 },
    { S_erf, 1, 1, 0, 0, 0 }, { S_pow, 2, 1, 0, 0, 0 }, { S_floor, 1, 1, 0, 0, 0 }, { S_ceil, 1, 1, 0, 0, 0 },
    { S_rint, 1, 1, 0, 0, 0 }, { S_lt, 2, 1, 1, 1, 0 }, { S_le, 2, 1, 1, 1, 0 }, { S_gt, 2, 1, 1, 1, 0 }, { S_ge, 2, 1, 1, 1, 0 },
    { S_eq, 2, 1, 1, 1, 1 }, { S_ne, 2, 1, 1, 1, 1 }, { S_and, 2, 0, 1, 1, 1 }, { S_or, 2, 0, 1, 1, 1 }, { S_xor, 2, 0, 1, 1, 1 },
    { S_shl, 2, 0, 1, 1, 0 }, { S_shr, 2, 0, 1, 1, 0 }, { S_not, 1, 0, 1, 1, 1 },
};

static TVal any_operand(Tile *t, int d, int r, int c) { return input(t, d, rnd(3) ? r : 1, rnd(3) ? c : 1, 0, 0); }

static void test_functions(void)
{
    for (unsigned k = 0; k < sizeof functions / sizeof *functions; k++)
        for (int d = SN_F32; d <= SN_BOOL; d++) {
            bool ok = d == SN_I32 ? functions[k].i : d == SN_U32 ? functions[k].u : d == SN_BOOL ? functions[k].b : functions[k].f;
            if (!ok) continue;
            char what[96];
            int r = any_size(), c = any_size(), fn = functions[k].fn;
            snprintf(what, sizeof what, "function %d of %s [%d, %d]", fn, snG_dtype_name((Dtype)d), r, c);
            Tile *t = program("function", 3);
            TVal x = input(t, d, r, c, 0, 0), y = functions[k].n > 1 ? any_operand(t, d, r, c) : 0;
            if (fn == S_pow || fn == S_log) x = snT_ew(t, S_abs, (Dtype)d, x, 0, 0);
            Dtype to = fn >= S_lt && fn <= S_ne ? SN_BOOL : (Dtype)d;
            output(t, snT_ew(t, fn, to, x, y, 0), 0, 0);
            test(t, 2e-6, what);
        }
}

static void test_casts(void)
{
    for (int from = SN_F32; from <= SN_BOOL; from++)
        for (int to = SN_F32; to <= SN_BOOL; to++) {
            char what[96];
            int r = any_size(), c = any_size();
            snprintf(what, sizeof what, "cast %s to %s [%d, %d]", snG_dtype_name((Dtype)from), snG_dtype_name((Dtype)to), r, c);
            Tile *t = program("cast", 2);
            TVal x = input(t, from, r, c, 0, 0), y = snT_ew(t, S_cast, (Dtype)to, x, 0, 0);
            if (to == SN_BF16 || to == SN_F16) output(t, snT_ew(t, S_cast, SN_F32, y, 0, 0), 0, 0);   /* rounded in the register */
            output(t, y, 0, 0);
            if (snG_dtype_size((Dtype)from) == snG_dtype_size((Dtype)to) && from != SN_BOOL && from != to)
                output(t, snT_ew(t, S_bitcast, (Dtype)to, x, 0, 0), 0, 0);
            TVal cond = input(t, SN_BOOL, rnd(2) ? r : 1, rnd(2) ? c : 1, 0, 0);
            output(t, snT_ew(t, S_select, (Dtype)to, cond, y, any_operand(t, to, r, c)), 0, 0);
            test(t, 1e-7, what);
        }
}

/* -- Memory ------------------------------------------------------------------------------------------------------------ */

static void test_memory(void)
{
    for (int n = 0; n < 60; n++) {
        char what[96];
        int r = any_size(), c = any_size(), d = SN_F32 + (int)rnd(6), cs = (int)rnd(4), tasks = 4;
        int rs = c * (cs ? cs : 1) + (int)rnd(5), ws = c * 3 + (int)rnd(3), wcs = 1 + (int)rnd(3);
        snprintf(what, sizeof what, "load %s [%d, %d] strides %d %d, store strides %d %d", snG_dtype_name((Dtype)d), r, c, rs, cs, ws, wcs);
        Tile *t = program("memory", tasks);
        int a = snT_param(t, "a", (Dtype)d, (int64_t)tasks * r * rs + c * 4, false), b = snT_param(t, "b", (Dtype)d, (int64_t)tasks * r * ws, true);
        TVal vr = some_valid(t, r), vc = some_valid(t, c), p = snT_grid(t, 0);
        TVal x = snT_load(t, a, r, c, snT_ix(t, T_imul, p, snT_idx(t, (int64_t)r * rs)), rs, cs, vr, vc);
        if (d == SN_F32) x = snT_ew(t, S_add, SN_F32, x, x, 0);
        snT_store(t, b, snT_ix(t, T_imul, p, snT_idx(t, (int64_t)r * ws)), x, ws, wcs, vr, vc);
        test(t, 1e-7, what);
    }
}

static void test_gather(void)
{
    for (int n = 0; n < 40; n++) {
        char what[96];
        int r = any_size(), c = any_size(), rows = 20, form = (int)rnd(3), tasks = 3;
        snprintf(what, sizeof what, "gather [%d, %d] by form %d", r, c, form);
        Tile *t = program("gather", tasks);
        TVal k = input(t, SN_I32, form == 1 ? 1 : r, form == 0 ? 1 : c, 0, 0), vr = some_valid(t, r), vc = some_valid(t, c);
        int64_t ks = form == 0 ? c + 3 : 1;
        int buf = snT_param(t, "table", SN_F32, 4096 + rows * (c + 3) + r + c, false);
        TIns i = { .op = T_gather, .type = ty(SN_F32, r, c), .a = { snT_idx(t, 2), k, vr, vc }, .buf = buf, .imm = rows,
                   .rs = form == 1 ? 1 : 0, .cs = form == 0 ? 1 : 0, .ks = ks };
        output(t, snT_add(t, &i), vr, vc);
        test(t, 0, what);
    }
}

static void test_scatter(void)
{
    for (int n = 0; n < 20; n++) {
        char what[96];
        int r = any_size(), c = any_size(), rows = 20, tasks = 3;
        snprintf(what, sizeof what, "scatter_add [%d, %d]", r, c);
        Tile *t = program("scatter", tasks);
        TVal k = input(t, SN_I32, r, 1, 0, 0), x = input(t, SN_F32, r, c, 0, 0), vr = some_valid(t, r), vc = some_valid(t, c);
        int buf = snT_param(t, "table", SN_F32, (int64_t)tasks * rows * c, true);
        TVal at = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, (int64_t)rows * c));
        snT_add(t, &(TIns){ .op = T_scatter_add, .a = { at, x, k, vr, vc }, .buf = buf, .imm = rows, .cs = 1, .ks = c });
        test(t, 1e-6, what);
    }
}

/* -- Generators, reductions, scans --------------------------------------------------------------------------------------- */

static void test_random(void)
{
    for (int n = 0; n < 24; n++) {
        char what[96];
        int r = any_size(), c = n % 3 ? 4 * any_size() : any_size(), cs = rnd(4) ? 1 : 3;
        snprintf(what, sizeof what, "random [%d, %d] step %d", r, c, cs);
        Tile *t = program("random", 3);
        TVal key = n % 2 ? input(t, SN_I32, r, 1, 0, 0) : 0;
        TVal at = snT_ix(t, T_iadd, snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, rnd(3) ? 1000004 : 1000003)), snT_idx(t, (int64_t)1 << 34));
        TVal u = snT_add(t, &(TIns){ .op = T_random, .type = ty(SN_F32, r, c), .a = { at, key }, .rs = c * cs, .cs = cs, .imm = 77 + n });
        TVal v = snT_add(t, &(TIns){ .op = T_random, .type = ty(SN_F32, r, c), .a = { at, key }, .rs = c * cs, .cs = cs, .imm = 99 });
        output(t, u, 0, 0);
        TVal p = snT_load(t, snT_param(t, "p", SN_F32, 3, false), 1, 1, snT_grid(t, 0), 0, 0, 0, 0);
        TVal hit = snT_ew(t, S_lt, SN_BOOL, v, p, 0);
        output(t, snT_ew(t, S_select, SN_F32, hit, snT_full(t, ty(SN_F32, 1, 1), 0), input(t, SN_F32, r, c, 0, 0)), 0, 0);
        TVal rows = snT_iota(t, at, 0, r), cols = snT_iota(t, snT_grid(t, 0), 1, c);
        output(t, snT_ew(t, S_sub, SN_I32, rows, cols, 0), 0, 0);
        test(t, 0, what);
    }
}

static void test_reductions(void)
{
    static const int kinds[] = { SN_F32, SN_I32, SN_U32 };
    for (int red = RED_SUM; red <= RED_ARGMIN; red++)
        for (int n = 0; n < 24; n++) {
            char what[96];
            int r = any_size(), c = any_size(), d = kinds[n % 3], axis = (int)rnd(2);
            snprintf(what, sizeof what, "reduction %d of %s [%d, %d] along %d", red, snG_dtype_name((Dtype)d), r, c, axis);
            Tile *t = program("reduce", 4);
            TVal vr = axis ? 0 : some_valid(t, r), vc = axis ? some_valid(t, c) : 0, x = input(t, d, r, c, vr, vc);
            if (d == SN_F32 && red != RED_PEAK && rnd(3) == 0)           /* some NaN, some rows of -inf */
                x = snT_ew(t, S_log, SN_F32, x, 0, 0);
            output(t, snT_reduce(t, x, axis, (RedKind)red, vr, vc), 0, 0);
            test(t, 1e-5, what);
        }
}

static void test_scans(void)
{
    for (int n = 0; n < 24; n++) {
        char what[96];
        int r = any_size(), c = any_size(), d = n % 3 ? SN_F32 : SN_I32;
        snprintf(what, sizeof what, "scan and top-k [%d, %d]", r, c);
        Tile *t = program("scan", 2);
        TVal x = input(t, d, r, c, 0, 0), vc = some_valid(t, c);
        if (rnd(2)) x = snT_ew(t, S_add, (Dtype)d, x, x, 0);
        TVal s = snT_add(t, &(TIns){ .op = T_scan, .type = ty(d, r, c), .a = { x, 0, vc }, .imm = n % 4 });
        output(t, s, 0, vc);
        int k = 1 + (int)rnd((uint32_t)(c < 9 ? c : 9));
        output(t, snT_add(t, &(TIns){ .op = T_topk, .type = ty(d, r, k), .a = { x } }), 0, 0);
        output(t, snT_add(t, &(TIns){ .op = T_topk, .type = ty(SN_I32, r, k), .a = { x }, .imm = 1 }), 0, 0);
        test(t, 1e-5, what);
    }
}

/* -- Chains: phases, levels, vars ------------------------------------------------------------------------------------------ */

/* A random DAG of f32 values of four shapes, with reductions, stored here and there. */
static void test_random_chains(int count)
{
    for (int n = 0; n < count; n++) {
        char what[96];
        int r = any_size(), c = any_size(), nv = 0;
        TVal v[64];
        snprintf(what, sizeof what, "chain %d [%d, %d]", n, r, c);
        Tile *t = program("chain", 3);
        TVal vr = some_valid(t, r), vc = some_valid(t, c);
        v[nv++] = input(t, SN_F32, r, c, vr, vc);
        v[nv++] = input(t, SN_F32, r, 1, vr, 0);
        v[nv++] = input(t, SN_F32, 1, c, 0, vc);
        v[nv++] = input(t, SN_F32, 1, 1, 0, 0);
        v[nv++] = input(t, rnd(2) ? SN_F32 : SN_BF16, r, c, vr, vc);
        TVal var = rnd(2) ? snT_var(t, snT_full(t, ty(SN_F32, r, 1), 0.5)) : 0;
        int steps = 4 + (int)rnd(20);
        for (int s = 0; s < steps; s++) {
            TVal x = v[rnd((uint32_t)nv)], y = v[rnd((uint32_t)nv)], z;
            TType xt = snT_type(t, x);
            static const int fns[] = { S_add, S_sub, S_mul, S_max };
            switch (rnd(8)) {
            case 0: z = snT_reduce(t, x, 1, rnd(3) ? RED_SUM : RED_MAX, 0, xt.c == 1 ? 0 : vc); break;
            case 1: z = snT_reduce(t, x, 0, rnd(3) ? RED_SUM : RED_MIN, xt.r == 1 ? 0 : vr, 0); break;
            case 2: z = snT_ew(t, S_tanh, SN_F32, x, 0, 0); break;
            case 3: if (var && rnd(2)) { z = snT_get(t, var); break; }
                    if (var && xt.r == r && xt.c == 1 && xt.dtype == SN_F32) { snT_set(t, var, x); continue; } /* fall through */
            default: z = snT_ew(t, fns[rnd(4)], SN_F32, x, y, 0); break;
            }
            z = snT_ew(t, S_mul, SN_F32, z, snT_full(t, ty(SN_F32, 1, 1), 0.125), 0);
            v[nv++] = z;
            TType zt = snT_type(t, z);
            if (rnd(3) == 0) output(t, z, zt.r == 1 ? 0 : vr, zt.c == 1 ? 0 : vc);
            if (t->params.n > MAX_PARAMS - 3) break;
        }
        TType zt = snT_type(t, v[nv - 1]);
        output(t, v[nv - 1], zt.r == 1 ? 0 : vr, zt.c == 1 ? 0 : vc);
        if (var) output(t, snT_get(t, var), vr, 0);
        test(t, 2e-5, what);
    }
}

static void test_softmax(void)
{
    for (int n = 0; n < 12; n++) {
        char what[96];
        int r = any_size(), c = 1 + (int)rnd(300);
        snprintf(what, sizeof what, "softmax [%d, %d]", r, c);
        Tile *t = program("softmax", 3);
        TVal vr = some_valid(t, r), vc = some_valid(t, c), x = input(t, SN_F32, r, c, vr, vc);
        TVal m = snT_reduce(t, x, 1, RED_MAX, vr, vc), e = snT_ew(t, S_exp, SN_F32, snT_ew(t, S_sub, SN_F32, x, m, 0), 0, 0);
        TVal s = snT_reduce(t, e, 1, RED_SUM, vr, vc);
        output(t, snT_ew(t, S_div, SN_F32, e, s, 0), vr, vc);
        output(t, snT_reduce(t, e, 0, RED_SUM, vr, vc), 0, vc);
        test(t, 1e-5, what);
    }
}

/* Loops, ifs, vars of index, scalar, column, row and whole tile. */
static void test_control(void)
{
    for (int n = 0; n < 12; n++) {
        char what[96];
        int r = any_size(), c = any_size(), steps = 1 + (int)rnd(5);
        snprintf(what, sizeof what, "control [%d, %d] %d steps", r, c, steps);
        Tile *t = program("control", 3);
        TVal x = input(t, SN_F32, r, c, 0, 0), w = input(t, SN_F32, r, 1, 0, 0), one = input(t, SN_F32, 1, 1, 0, 0);
        TVal count = snT_var(t, snT_idx(t, 0)), acc = snT_var(t, x), col = snT_var(t, w), sum = snT_var(t, one);
        TVal i = snT_for(t, snT_grid(t, 0), snT_idx(t, steps), snT_idx(t, 1), false);
        snT_set(t, count, snT_ix(t, T_iadd, snT_get(t, count), i));
        TVal old = snT_get(t, acc), oldc = snT_get(t, col);
        TVal next = snT_ew(t, S_add, SN_F32, snT_ew(t, S_mul, SN_F32, old, snT_full(t, ty(SN_F32, 1, 1), 0.5), 0), oldc, 0);
        snT_set(t, col, snT_reduce(t, old, 1, RED_MAX, 0, 0));
        snT_set(t, acc, next);
        snT_set(t, sum, snT_ew(t, S_add, SN_F32, snT_get(t, sum), snT_full(t, ty(SN_F32, 1, 1), 1), 0));
        snT_if(t, snT_ew(t, S_gt, SN_BOOL, snT_get(t, sum), snT_full(t, ty(SN_F32, 1, 1), 1), 0));
        snT_set(t, acc, snT_ew(t, S_neg, SN_F32, snT_get(t, acc), 0, 0));
        snT_end(t);
        snT_end(t);
        output(t, snT_get(t, acc), 0, 0);
        output(t, snT_get(t, col), 0, 0);
        output(t, snT_get(t, sum), 0, 0);
        output(t, snT_add(t, &(TIns){ .op = T_widen, .type = ty(SN_I32, 1, 1), .a = { snT_get(t, count) } }), 0, 0);
        test(t, 1e-5, what);
    }
}

/* -- Products ------------------------------------------------------------------------------------------------------------------- */

static void test_gemm(int count, int most)
{
    for (int n = 0; n < count; n++) {
        char what[96];
        int big = n % 3 ? most / 4 : most;
        GemmShape s = { 1 + rnd(3), 1 + rnd((uint32_t)big), 1 + rnd((uint32_t)big), 1 + rnd((uint32_t)big), rnd(2), rnd(2),
                        rnd(3) ? SN_F32 : SN_BF16, rnd(2) ? SN_F32 : SN_BF16 };
        if (n % 5 == 0) s.k += 500;
        if (n % 7 == 0) s.m = 1 + rnd(3);
        if (n % 11 == 0) s.n = 1 + rnd(3);
        if (n % 5 > 2) s.m = (s.m + 7) / 8 * 8, s.n = (s.n + 7) / 8 * 8, s.k = (s.k + 7) / 8 * 8;    /* rows begin at whole vectors */
        Target one = target;
        if (n % 4 == 0) snK_sched_override(&ctx, &one, "gemm:bm=36,bn=48,kc=40");
        snprintf(what, sizeof what, "gemm %lld x %lld x %lld batch %lld %s%s%s", (long long)s.m, (long long)s.n, (long long)s.k,
                 (long long)s.batch, s.ta ? "ta " : "", s.tb ? "tb " : "", snG_dtype_name(s.dtype));
        if (rnd(2)) s.out = 0;
        test(snT_gemm_plain(&ctx, &arena, &s, &one), 1e-5, what);
    }
}

/* What 16-bit products take: rounded values. */
static TVal as(Tile *t, int d, TVal x) { return d == SN_F32 ? x : snT_ew(t, S_cast, (Dtype)d, x, 0, 0); }
static double rounding(int d) { return d == SN_BF16 ? 1.5e-2 : d == SN_F16 ? 2e-3 : 2e-5; }

/* Products with staged expressions, with an accumulator from memory, and with a register tile on the left, both ways round. */
static void test_dots(void)
{
    for (int n = 0; n < 36; n++) {
        char what[96];
        int m = any_size(), k = any_size(), c = any_size(), d = n % 3 == 0 ? SN_F32 : n % 3 == 1 ? SN_BF16 : SN_F16;
        bool ta = rnd(2), tb = rnd(2), ta2 = rnd(2);
        snprintf(what, sizeof what, "dots %s %d x %d x %d%s%s%s", snG_dtype_name((Dtype)d), m, k, c, ta ? " ta" : "", tb ? " tb" : "", ta2 ? " ta2" : "");
        Tile *t = program("dots", 3);
        TVal vk = some_valid(t, k), vm = some_valid(t, m), vc = some_valid(t, c);
        TVal a = ta ? input(t, d, k, m, vk, vm) : input(t, d, m, k, vm, vk);
        TVal b = tb ? input(t, d, c, k, vc, vk) : input(t, d, k, c, vk, vc);
        a = as(t, d, snT_ew(t, S_mul, (Dtype)d, a, snT_reduce(t, a, ta, RED_MAX, ta ? vk : vm, ta ? vm : vk), 0));
        b = as(t, d, snT_ew(t, S_add, (Dtype)d, b, snT_full(t, ty(d, 1, 1), 1), 0));
        a = ta ? snT_stage(t, a, vk, vm) : snT_stage(t, a, vm, vk);
        b = tb ? snT_stage(t, b, vc, vk) : snT_stage(t, b, vk, vc);
        TVal y = snT_dot(t, a, b, rnd(2) ? input(t, SN_F32, m, c, 0, 0) : snT_full(t, ty(SN_F32, m, c), 0), ta, tb);
        output(t, y, 0, 0);
        if (rnd(2)) y = snT_dot(t, a, b, snT_ew(t, S_mul, SN_F32, y, snT_full(t, ty(SN_F32, 1, 1), 0.5), 0), ta, tb);
        TVal p = as(t, d, snT_ew(t, S_mul, SN_F32, y, snT_full(t, ty(SN_F32, 1, 1), 0.01), 0));
        int e = any_size(), e2 = any_size();
        TVal valid = rnd(2) ? vm : vc;
        output(t, snT_dot(t, p, snT_stage(t, input(t, d, ta2 ? m : c, e, 0, 0), 0, 0), 0, ta2, false), 0, 0);
        if (valid == (ta2 ? vm : vc) && rnd(2))                        /* once more, fewer steps of depth */
            output(t, snT_dot(t, p, snT_stage(t, input(t, d, ta2 ? m : c, e2, valid, 0), valid, 0), 0, ta2, false), 0, 0);
        output(t, p, 0, 0);
        test(t, rounding(d), what);
    }
}

/* An operand computed while it is packed: silu(g) u times a factor a row and one a column, under dropout; g and silu have two
   users, r is computed beforehand. rounded: to bf16, as products in pairs want it. */
static TVal operand_cone(Tile *t, int r, int c, TVal vr, TVal vc, bool rounded)
{
    TVal g = snT_ew(t, S_mul, SN_F32, input(t, rounded ? SN_BF16 : SN_F32, r, c, vr, vc), snT_full(t, ty(SN_F32, 1, 1), 0.5), 0);
    TVal u = input(t, SN_F32, r, c, vr, vc), scale = input(t, SN_F32, r, 1, vr, 0), gain = input(t, SN_F32, 1, c, 0, vc), one = snT_full(t, ty(SN_F32, 1, 1), 1);
    TVal e = snT_ew(t, S_exp, SN_F32, snT_ew(t, S_neg, SN_F32, g, 0, 0), 0, 0);
    TVal y = snT_ew(t, S_mul, SN_F32, snT_ew(t, S_div, SN_F32, g, snT_ew(t, S_add, SN_F32, e, one, 0), 0), u, 0);
    y = snT_ew(t, S_mul, SN_F32, y, snT_ew(t, S_add, SN_F32, snT_ew(t, S_mul, SN_F32, scale, scale, 0), one, 0), 0);
    y = snT_ew(t, S_mul, SN_F32, y, gain, 0);
    TIns random = { .op = T_random, .type = ty(SN_F32, r, c), .imm = 7, .rs = c, .cs = 1 };
    random.a[0] = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, (int64_t)r * c));
    TVal drop = snT_ew(t, S_lt, SN_BOOL, snT_add(t, &random), snT_full(t, ty(SN_F32, 1, 1), 0.25), 0);
    y = snT_ew(t, S_select, SN_F32, drop, snT_full(t, ty(SN_F32, 1, 1), 0), y);
    if (rounded) y = snT_ew(t, S_cast, SN_BF16, y, 0, 0);
    return snT_stage(t, y, vr, vc);
}

static void test_prologues(void)
{
    for (int n = 0; n < 24; n++) {
        char what[96];
        int m = any_size(), k = any_size(), c = any_size();
        bool ta = rnd(2), tb = rnd(2), rounded = n % 3 == 0;
        snprintf(what, sizeof what, "prologues %d x %d x %d%s%s%s", m, k, c, ta ? " ta" : "", tb ? " tb" : "", rounded ? " bf16" : "");
        Tile *t = program("prologues", 3);
        TVal vk = some_valid(t, k), vm = some_valid(t, m), vc = some_valid(t, c);
        TVal a = ta ? operand_cone(t, k, m, vk, vm, rounded) : operand_cone(t, m, k, vm, vk, rounded);
        TVal b = tb ? operand_cone(t, c, k, vc, vk, rounded) : operand_cone(t, k, c, vk, vc, rounded);
        output(t, snT_dot(t, a, b, snT_full(t, ty(SN_F32, m, c), 0), ta, tb), vm, vc);
        test(t, rounded ? 1e-2 : 2e-5, what);
    }
}

static TVal f32_op(Tile *t, int fn, TVal a, TVal b) { return snT_ew(t, fn, SN_F32, a, b, 0); }

/* Attention forward with online softmax over blocks of keys, causal. */
static void test_attention(void)
{
    for (int n = 0; n < 15; n++) {
        char what[96];
        int d = n % 3 == 0 ? SN_F32 : n % 3 == 1 ? SN_BF16 : SN_F16;
        int T = 20 + (int)rnd(200), D = 8 + (int)rnd(56), bq = 24 + (int)rnd(48), bk = 16 + (int)rnd(64), H = 3;
        snprintf(what, sizeof what, "attention %s T=%d D=%d blocks %d %d", snG_dtype_name((Dtype)d), T, D, bq, bk);
        Tile *t = program("attention", (T + bq - 1) / bq);
        t->ngrid = 2;
        t->grid[1] = H;
        int64_t all = (int64_t)H * T * D;
        int Q = snT_param(t, "q", (Dtype)d, all, false), K = snT_param(t, "k", (Dtype)d, all, false), V = snT_param(t, "v", (Dtype)d, all, false);
        int O = snT_param(t, "o", SN_F32, all, true), E = snT_param(t, "lse", SN_F32, (int64_t)H * T, true);
        TVal i = snT_ix(t, T_imul, snT_grid(t, 0), snT_idx(t, bq)), h = snT_ix(t, T_imul, snT_grid(t, 1), snT_idx(t, (int64_t)T * D));
        TVal vi = snT_ix(t, T_imin, snT_ix(t, T_isub, snT_idx(t, T), i), snT_idx(t, bq));
        TVal at = snT_ix(t, T_iadd, h, snT_ix(t, T_imul, i, snT_idx(t, D)));
        TVal q = snT_stage(t, snT_load(t, Q, bq, D, at, D, 1, vi, 0), vi, 0);
        TVal mx = snT_var(t, snT_full(t, ty(SN_F32, bq, 1), -(double)INFINITY)), sum = snT_var(t, snT_full(t, ty(SN_F32, bq, 1), 0));
        TVal acc = snT_var(t, snT_full(t, ty(SN_F32, bq, D), 0));
        TVal end = snT_ix(t, T_imin, snT_ix(t, T_iadd, i, snT_idx(t, bq)), snT_idx(t, T));
        TVal j = snT_for(t, snT_idx(t, 0), end, snT_idx(t, bk), true);
        TVal vj = snT_ix(t, T_imin, snT_ix(t, T_isub, snT_idx(t, T), j), snT_idx(t, bk));
        TVal kat = snT_ix(t, T_iadd, h, snT_ix(t, T_imul, j, snT_idx(t, D)));
        TVal k = snT_stage(t, snT_load(t, K, bk, D, kat, D, 1, vj, 0), vj, 0), v = snT_stage(t, snT_load(t, V, bk, D, kat, D, 1, vj, 0), vj, 0);
        TVal s = f32_op(t, S_mul, snT_dot(t, q, k, 0, false, true), snT_full(t, ty(SN_F32, 1, 1), 0.05));
        TVal ok = snT_ew(t, S_ge, SN_BOOL, snT_iota(t, i, 0, bq), snT_iota(t, j, 1, bk), 0);
        TVal inf = snT_full(t, ty(SN_F32, 1, 1), -(double)INFINITY);
        s = snT_ew(t, S_select, SN_F32, ok, s, inf);
        TVal old = snT_get(t, mx), m2 = f32_op(t, S_max, old, snT_reduce(t, s, 1, RED_MAX, 0, 0));
        TVal none = snT_ew(t, S_eq, SN_BOOL, m2, inf, 0), u = snT_ew(t, S_select, SN_F32, none, snT_full(t, ty(SN_F32, 1, 1), 0), m2);
        TVal p = snT_ew(t, S_exp, SN_F32, f32_op(t, S_sub, s, u), 0, 0), c = snT_ew(t, S_exp, SN_F32, f32_op(t, S_sub, old, u), 0, 0);
        snT_set(t, sum, f32_op(t, S_add, f32_op(t, S_mul, snT_get(t, sum), c), snT_reduce(t, p, 1, RED_SUM, 0, 0)));
        snT_set(t, acc, snT_dot(t, as(t, d, p), v, f32_op(t, S_mul, snT_get(t, acc), c), false, false));
        snT_set(t, mx, m2);
        snT_end(t);
        TVal total = snT_get(t, sum);
        snT_store(t, O, at, f32_op(t, S_div, snT_get(t, acc), total), D, 1, vi, 0);
        TVal eat = snT_ix(t, T_iadd, snT_ix(t, T_imul, snT_grid(t, 1), snT_idx(t, T)), i);
        snT_store(t, E, eat, f32_op(t, S_add, snT_get(t, mx), snT_ew(t, S_log, SN_F32, total, 0, 0)), 1, 0, vi, 0);
        test(t, rounding(d), what);
    }
}

/* -- Text ------------------------------------------------------------------------------------------------------------------------- */

static void rejects(const char *text, const char *expected)
{
    volatile bool failed_well = false;
    SN_ENTER(&ctx, failed_well = true; goto done);
    snT_parse(&ctx, &arena, "bad.kt", text, strlen(text));
    SN_LEAVE(&ctx);
done:
    if (failed_well && ctx.message && strstr(ctx.message, expected)) passed++;
    else failed++, printf("FAILED bad text: wanted '%s', got '%s'\n", expected, ctx.message ? ctx.message : "nothing");
    ctx.code = 0;
    ctx.message = NULL;
}

static void test_text(void)
{
    rejects("kernel x(a: f32[4]) grid(1) {\n  %1 = idx 2\n  %2 = load f32[2, 2] b, %1, valid(0, 0), strides(2, 1)\n}", "bad.kt:3: error: no such buffer");
    rejects("kernel x(a: f32[4]) grid(1) {\n  %1 = frob 2\n}", "unknown op");
    rejects("kernel x(a: f32[4]) grid(1) {\n  %1 = idx 2\n  %2 = iadd %1, %7\n}", "no such value");
    rejects("kernel x(a: f32[4]) grid(1) {\n  %1 = idx 2\n", "not closed");
    rejects("kernel x(a: f32[4]) grid(1) {\n  %1 = idx 2\n  for %1, %1, %1\n}", "no name");
    rejects("kernel x(a: f32[4]) grid(1) {\n  end\n}", "closes nothing");
    rejects("kernel x(a: f99[4]) grid(1) { }", "unknown dtype");
}

/* The programs of tests/codegen: printed as they are written, and run like the others. */
static void test_files(void)
{
    glob_t g;
    if (glob("tests/codegen/*.kt", 0, NULL, &g)) { printf("no tests/codegen here\n"); return; }
    for (size_t n = 0; n < g.gl_pathc; n++) {
        size_t bytes;
        char *text = snU_read_file(&ctx, g.gl_pathv[n], &bytes), *end = strstr(text, "\n#= expect");
        if (end) end[1] = 0, bytes = strlen(text);        /* a text test: what follows is its output */
        Tile *t = snT_parse(&ctx, &arena, g.gl_pathv[n], text, bytes);
        StrBuf b = { 0 };
        snT_print(&b, t);
        const char *body = strstr(text, "kernel ");
        if (body && !strcmp(body, b.s)) passed++;
        else failed++, printf("FAILED %s is not in printed form:\n%s", g.gl_pathv[n], b.s);
        test(t, 2e-5, g.gl_pathv[n]);
        snU_free_buf(&b);
        free(text);
    }
    globfree(&g);
}

int main(int argc, char **argv)
{
    if (argc > 1) rng_state ^= strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u;
    SN_ENTER(&ctx, printf("FAILED %s\n", ctx.message); return 1);
    bool lanes = argc > 2 && argv[2][0] >= '0' && argv[2][0] <= '9';
    char *form = argc > 2 ? strstr(argv[2], ":tf32") : NULL;
    if (form) *form = 0;
    snK_target(&ctx, argc > 2 && !lanes ? argv[2] : "host", &target);
    snK_ask_tf32(&target, form ? "tf32" : NULL);
    if (lanes) target.f32_lanes = atoi(argv[2]), target.vregs = target.f32_lanes == 16 ? 32 : 16, target.bf16_dot &= target.f32_lanes == 16;   /* LLVM splits what the CPU lacks */
    test_text();
    test_files();
    test_functions();
    test_casts();
    test_memory();
    test_gather();
    test_scatter();
    test_random();
    test_reductions();
    test_scans();
    test_softmax();
    test_control();
    test_random_chains(150);
    test_dots();
    test_prologues();
    test_attention();
    test_gemm(90, 300);
    flush();
    SN_LEAVE(&ctx);
    snU_free_arena(&arena);
    printf("%lld values, %.0f %% of them NaN\n", (long long)values, 100.0 * (double)nan_values / (double)(values + 1));
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
