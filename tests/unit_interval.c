/* unit_interval.c: block classes of masks (codegen/interval.c) against the mask at every point. In: [number of random
   masks], [seed]. Out: `N passed, N failed`.

   A mask is an expression of shape [B, H, T, S] over indices and captured tensors. For several block sizes a tile
   program stores the bounds of every block; run by the plain interpreter, they are compared with the evaluator's mask:
   a block said to be empty has no true point, one said to be full no false one; where the case is `exact`, nothing else
   is said to be partial. */
#include <math.h>
#include "codegen/gen.h"
#include "passes/pass.h"
#include "tests/check.h"

static sn_ctx *ctx;
static uint64_t rng = 88172645463325252u;

static uint32_t rnd(uint32_t n) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

void snT_write(void *p, Dtype d, int64_t i, double x);

/* -- Masks ---------------------------------------------------------------------------------------------------- */

/* i, j: query and key index; b, h: batch, head; T, S: extents; N: half of T, rounded up. Captured: doc, pos, seg and
   len by batch, any: bool [B, 1, T, S]. */
typedef struct Case { const char *name, *mask; bool exact; } Case;

#define DOCS "expand(reshape(doc, [B, 1, T, 1]), [B, H, T, S]) == expand(reshape(seg, [B, 1, 1, S]), [B, H, T, S])"
static const Case cases[] = {
    { "full", "i >= 0", true },
    { "causal", "i >= j", true },
    { "causal, offset", "i + (S - T) >= j", true },
    { "sliding window", "i >= j and i - j < 5", true },
    { "window, both sides", "abs(i - j) <= 4", true },
    { "prefix", "j < 6 or i >= j", false },
    { "prefix by batch", "j < lens or i >= j", false },
    { "padding", "j < lens and i < lens", true },
    { "empty", "i < 0", true },
    { "an empty row", "i >= j and i != 3", false },
    { "documents", DOCS, false },
    { "causal and documents", "i >= j and (" DOCS ")", false },
    { "block diffusion", "(i < N and j < N and i / 4 == j / 4) or (j >= N and i < N and i / 4 > (j - N) / 4) or "
      "(j >= N and i >= N and (i - N) / 4 >= (j - N) / 4)", false },
    { "dilated", "i >= j and (i - j) % 3 == 0", false },
    { "a tensor", "expand(any, [B, H, T, S])", true },
    { "by head", "i >= j and i - j < (h + 1) * 4", true },
    { "positions", "abs(cast(expand(reshape(pos, [B, 1, T, 1]), [B, H, T, S]), f32) - 2.5) < cast(j, f32)", true },
    { "gathered", "gather(table, i) >= j", false },
    { "blocks of causal", "i / 4 >= j / 4", true },
    { "random", "random([B, H, T, S], stream=4) < 0.5 and i >= j", false },
};

static const char HEAD[] =
    "graph g {\n"
    "  input doc: i32[B, T]\n  input seg: i32[B, S]\n  input pos: i32[B, T]\n  input len: i32[B]\n"
    "  input any: bool[B, 1, T, S]\n  input x: f32[T]\n  input y: f32[B, S]\n  input w: i32[T]\n"
    "  input big: f32[B, H, T, S]\n  input unsigned: u32[S]\n  input table: i32[T]\n"
    "  b = iota([B, H, T, S], 0)\n  h = iota([B, H, T, S], 1)\n"
    "  i = iota([B, H, T, S], 2)\n  j = iota([B, H, T, S], 3)\n"
    "  lens = expand(reshape(len, [B, 1, 1, 1]), [B, H, T, S])\n";

static Module *parse(const char *mask, int B, int H, int T, int S) {
    StrBuf text = {0};
    snU_putf(&text, "dim B = %d\ndim H = %d\ndim T = %d\ndim S = %d\nparam N = %d\n", B, H, T, S, (T + 1) / 2);
    snU_putf(&text, "%s  output m = %s\n}\n", HEAD, mask);
    sn_clear(ctx);
    Module *m = snG_parse(ctx, "mask.sn", text.s, text.n, NULL, 0);
    if (!m) ok(false, "%s: %s", mask, ctx->message);
    snU_free_buf(&text);
    return m;
}

/* With infinities, NaN and the ends of i32 in x, y, w: what overflows or is no number must not be bounded. */
#define W "expand(reshape(w, [1, 1, T, 1]), [B, H, T, S])"
#define X "expand(reshape(x, [1, 1, T, 1]), [B, H, T, S])"
#define Y "expand(reshape(y, [B, 1, 1, S]), [B, H, T, S])"
static const char *const edges[] = {
    "abs(min(" W ", j)) >= 0", "-(min(" W ", j)) < 0 or min(" W ", j) <= 0", "sqrt(min(" X ", " Y ")) < 1000.0",
    W " + j > " W " or j == 0", W " - j <= " W, "abs(" X " + " Y ") >= 0",
    "abs(" X " * " Y ") >= 0", X " / " Y " == " X " / " Y, X " < " Y, "not (" X " < " Y ")", "min(" X ", " Y ") <= " X,
    "cast(" X ", i32) <= j",
};

/* -- The program ---------------------------------------------------------------------------------------------- */

/* Stores the two bounds of every block, one after the other, in the order of the grid. */
static Gen bounds_program(const Graph *g, int32_t R, int32_t C, Arena *a) {
    NodeId id = g->outputs.v[0].node;
    const Type *ty = snG_type(g, id);
    static const Target target;
    Group *grp = NEW(a, Group);
    grp->anchor = id;
    Gen c = gen_open(g, grp, &target, a);
    Lin at[MAX_RANK] = {0};
    c.dom = (Dom){ .n = 4, .ext = { ty->dim[0], ty->dim[1], ty->dim[2], ty->dim[3] } };
    for (int i = 0; i < 4; i++) at[i] = ty->dim[i] == 1 ? snP_lin(0) : snP_dim(i);
    c.row = 2, c.col = 3, c.R = R, c.C = C;
    gen_range(&c, id, at);
    gen_tile(&c, "test");
    gen_grid(&c);
    int64_t blocks = 1;
    TVal where = snT_idx(c.t, 0);
    for (int d = 0; d < c.t->ngrid; d++) {
        where = snT_ix(c.t, T_iadd, where, snT_ix(c.t, T_imul, snT_grid(c.t, d), snT_idx(c.t, blocks)));
        blocks *= c.t->grid[d];
    }
    Range r = gen_range(&c, id, at);
    int out = snT_param(c.t, "bounds", SN_BOOL, 2 * blocks, true);
    for (int k = 0; k < 2; k++)
        snT_store(c.t, out, snT_ix(c.t, T_iadd, where, snT_idx(c.t, k * blocks)), k ? r.hi : r.lo, 0, 0, 0, 0);
    snT_verify(c.t);
    return c;
}

/* -- Comparing ------------------------------------------------------------------------------------------------ */

typedef struct Truth { const double *mask; int64_t dim[4]; } Truth;

/* Whether some, and whether all points of a block are true. */
static void block_truth(const Truth *m, int64_t lead, int64_t r0, int64_t R, int64_t c0, int64_t C, bool *any,
                        bool *all) {
    *any = false, *all = true;
    for (int64_t r = r0; r < r0 + R && r < m->dim[2]; r++)
        for (int64_t k = c0; k < c0 + C && k < m->dim[3]; k++) {
            bool v = m->mask[(lead * m->dim[2] + r) * m->dim[3] + k] != 0;
            *any |= v, *all &= v;
        }
}

/* Blocks whose bounds are wrong, and blocks of one value that are called partial. */
static void count_faults(const Truth *m, const uint8_t *bounds, int32_t R, int32_t C, int *wrong, int *lazy) {
    int64_t nr = (m->dim[2] + R - 1) / R, nc = (m->dim[3] + C - 1) / C, blocks = nr * nc * m->dim[0] * m->dim[1];
    for (int64_t k = 0; k < blocks; k++) {
        bool any, all;
        int64_t l = k / (nr * nc);                               /* grid: row blocks, column blocks, heads, batches */
        block_truth(m, l, k % nr * R, R, k / nr % nc * C, C, &any, &all);
        *wrong += (bounds[k] && !all) || (!bounds[blocks + k] && any);
        *lazy += (!bounds[k] && all) || (bounds[blocks + k] && !any);
    }
}

static void test_blocks(const char *name, const Graph *g, const EvalEnv *env, const Truth *m, int32_t R, int32_t C,
                        bool exact) {
    Arena a = {0};
    Gen c = bounds_program(g, R, C, &a);
    void *bufs[32];
    int wrong = 0, lazy = 0;
    int64_t programs = 1;
    uint32_t la[4] = { (uint32_t)env->seed, (uint32_t)(env->seed >> 32), env->step, env->micro };
    for (int d = 0; d < c.t->ngrid; d++) programs *= c.t->grid[d];
    for (uint32_t p = 0; p < c.t->params.n; p++) {
        const TParam *q = &c.t->params.v[p];
        bufs[p] = memset(snU_alloc(&a, (size_t)q->count * 4 + 1), 2, (size_t)q->count * 4);
        if (p >= c.args.n) continue;
        const char *leaf = snU_str(ctx, snG_leaf(g, c.args.v[p])->name);
        for (int k = 0; k < env->n; k++)
            for (int64_t i = 0; !strcmp(env->names[k], leaf) && i < q->count; i++)
                snT_write(bufs[p], (Dtype)q->dtype, i, env->vals[k].v[i]);
    }
    snT_eval(c.t, bufs, la, 0, programs);
    count_faults(m, bufs[c.t->params.n - 1], R, C, &wrong, &lazy);
    const int64_t *d = m->dim;
    long long T = d[2], S = d[3];
    ok(!wrong, "%s: [%lld, %lld] in blocks of %d x %d: %d wrong", name, T, S, R, C, wrong);
    ok(!exact || !lazy, "%s: [%lld, %lld] in blocks of %d x %d: %d needlessly partial", name, T, S, R, C, lazy);
    snU_free_arena(&a);
}

/* -- Values --------------------------------------------------------------------------------------------------- */

static double draw(const char *name, const Type *t, int64_t i, bool wild) {
    static const double edge_i[] = { INT32_MIN, INT32_MAX, -1, 0, INT32_MIN + 1 };
    static const double edge_f[] = { INFINITY, -INFINITY, NAN, 3e38, -0.0 };
    if (!strcmp(name, "doc") || !strcmp(name, "seg")) return (double)((i % t->dim[1]) / 9);
    if (!strcmp(name, "len")) return 5 + rnd(9);
    if (t->dtype == SN_BOOL) return rnd(40) != 0;
    if (t->dtype == SN_U32) return rnd(1u << 31) * 2.0;
    if (wild && rnd(4) == 0) return t->dtype == SN_I32 ? edge_i[rnd(5)] : snG_round(SN_F32, edge_f[rnd(5)]);
    return t->dtype == SN_I32 ? (double)rnd(40) - 10 : snG_round(SN_F32, ((double)rnd(2001) - 1000) / 50);
}

static EvalEnv values(const Graph *g, Arena *a, bool wild) {
    const char **names = NEWN(a, const char *, g->leaves.n);
    EvalVal *vals = NEWN(a, EvalVal, g->leaves.n);
    for (uint32_t k = 0; k < g->leaves.n; k++) {
        const Type *t = snG_type(g, g->leaves.v[k].node);
        names[k] = snU_str(ctx, g->leaves.v[k].name);
        vals[k] = (EvalVal){ NEWN(a, double, snG_count(t)), snG_count(t) };
        bool tame = rnd(2);
        for (int64_t i = 0; i < vals[k].n; i++) vals[k].v[i] = draw(names[k], t, i, wild && !tame);
    }
    return (EvalEnv){ names, vals, (int)g->leaves.n, 5, 2, 0 };
}

static void test_mask(const char *name, const char *mask, int T, int S, bool exact, bool wild) {
    static const int blocks[][2] = { { 4, 4 }, { 7, 5 }, { 16, 8 }, { 64, 64 }, { 1, 3 } };
    Arena a = {0};
    Module *m = parse(mask, 2, 3, T, S);
    if (!m) return;
    SN_ENTER(ctx, { ok(false, "%s: %s", name, ctx->message); return; });
    const Graph *g = m->graphs.v[0];
    EvalEnv env = values(g, &a, wild);
    EvalVal *vals = NEWN(&a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_TYPED, &env, &a, vals);
    Truth truth = { vals[g->outputs.v[0].node].v, { 2, 3, T, S } };
    for (unsigned k = 0; k < (wild ? 2 : 5); k++) test_blocks(name, g, &env, &truth, blocks[k][0], blocks[k][1], exact);
    SN_LEAVE(ctx);
    snG_free_module(m);
    snU_free_arena(&a);
}

/* -- Random masks --------------------------------------------------------------------------------------------- */

static const char *expression(Arena *a, char kind, int depth);

static const char *leaf(Arena *a, char kind) {
    static const char *const ints[] = { "i", "j", "h", "lens", "expand(reshape(doc, [B, 1, T, 1]), [B, H, T, S])",
        "expand(reshape(seg, [B, 1, 1, S]), [B, H, T, S])", "expand(reshape(pos, [B, 1, T, 1]), [B, H, T, S])",
        "expand(reshape(w, [1, 1, T, 1]), [B, H, T, S])" };
    static const char *const floats[] = { "expand(reshape(x, [1, 1, T, 1]), [B, H, T, S])",
        "expand(reshape(y, [B, 1, 1, S]), [B, H, T, S])", "big", "random([B, H, T, S], stream=9)", "cast(i - j, f32)" };
    if (kind == 'i') return rnd(4) ? ints[rnd(8)] : snU_fmt(a, "full([B, H, T, S], %d, i32)", (int)rnd(30) - 8);
    if (kind == 'f' && rnd(4)) return floats[rnd(5)];
    if (kind == 'f') return snU_fmt(a, "full([B, H, T, S], %g, f32)", ((int)rnd(80) - 40) / 4.0);
    if (rnd(3)) return "expand(any, [B, H, T, S])";
    return rnd(2) ? "(i >= j)" : "(expand(reshape(unsigned, [1, 1, 1, S]), [B, H, T, S]) > cast(i, u32))";
}

static const char *expression(Arena *a, char kind, int depth) {
    static const char *const of_ints[] = { "(%s + %s)", "(%s - %s)", "(%s * %s)", "min(%s, %s)", "max(%s, %s)" };
    static const char *const of_floats[] = { "(%s + %s)", "(%s - %s)", "(%s * %s)", "(%s / %s)", "min(%s, %s)",
                                             "max(%s, %s)" };
    static const char *const one_float[] = { "floor(%s)", "ceil(%s)", "round(%s)", "sqrt(%s)", "abs(%s)", "-(%s)",
                                             "exp(%s)", "cast(cast(%s, bf16), f32)" };
    static const char *const comparison[] = { "(%s < %s)", "(%s <= %s)", "(%s > %s)", "(%s >= %s)", "(%s == %s)",
                                              "(%s != %s)" };
    static const char *const logic[] = { "(%s and %s)", "(%s or %s)", "xor(%s, %s)", "(%s == %s)" };
    if (depth <= 0) return leaf(a, kind);
    const char *x = expression(a, kind, depth - 1 - (int)rnd(2)), *y = expression(a, kind, depth - 1 - (int)rnd(2));
    uint32_t turn = rnd(8);
    if (turn == 0) return snU_fmt(a, "select(%s, %s, %s)", expression(a, 'b', depth - 2), x, y);
    if (kind == 'i') {
        if (turn == 1) return snU_fmt(a, "(%s %s %d)", x, rnd(2) ? "/" : "%", 1 + rnd(9));
        if (turn == 2) return snU_fmt(a, rnd(2) ? "abs(%s)" : "-(%s)", x);
        if (turn == 3 && rnd(2)) return snU_fmt(a, "shr(%s, %d)", x, rnd(5));
        if (turn == 3) return snU_fmt(a, "cast(%s, i32)", expression(a, rnd(2) ? 'b' : 'f', depth - 1));
        return snU_fmt(a, of_ints[rnd(5)], x, y);
    }
    if (kind == 'f') {
        if (turn < 3) return snU_fmt(a, one_float[rnd(8)], x);
        if (turn == 3) return snU_fmt(a, "cast(%s, f32)", expression(a, rnd(2) ? 'i' : 'b', depth - 1));
        return snU_fmt(a, of_floats[rnd(6)], x, y);
    }
    if (turn < 3) return rnd(5) ? snU_fmt(a, logic[rnd(4)], x, y) : snU_fmt(a, "not (%s)", x);
    char of = rnd(3) ? 'i' : 'f';
    return snU_fmt(a, comparison[rnd(6)], expression(a, of, depth - 1), expression(a, of, depth - 1));
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 300;
    if (argc > 2) rng += strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u;
    ctx = sn_ctx_new();
    for (unsigned k = 0; k < sizeof cases / sizeof *cases; k++) {
        test_mask(cases[k].name, cases[k].mask, 33, 33, cases[k].exact, false);
        test_mask(cases[k].name, cases[k].mask, 19, 47, cases[k].exact, false);
        test_mask(cases[k].name, cases[k].mask, 1, 1, cases[k].exact, false);
    }
    for (unsigned k = 0; k < sizeof edges / sizeof *edges; k++)
        for (int n = 0; n < 10; n++) test_mask(edges[k], edges[k], 1 + (int)rnd(20), 1 + (int)rnd(24), false, true);
    for (int k = 0; k < count; k++) {
        Arena a = {0};
        const char *mask = expression(&a, 'b', 2 + (int)rnd(3));
        test_mask(mask, mask, 1 + (int)rnd(20), 1 + (int)rnd(24), false, true);
        snU_free_arena(&a);
    }
    sn_ctx_free(ctx);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
