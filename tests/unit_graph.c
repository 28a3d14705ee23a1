/* unit_graph.c: the graph layer against small cases worked out by hand: folding, hash-consing, inference errors, every
   class of op in the evaluator, rounding, Philox. Most cases are one row: a graph body in the language and what must come out. */
#include "graph/graph.h"
#include "graph/scalar.h"
#include <math.h>

static int passed, failed;
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) { passed++; break; }                                                             \
        failed++;                                                                                  \
        printf("FAILED %s:%d: ", __FILE__, __LINE__);                                              \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
    } while (0)

/* Inputs of every case; a declaration takes as many values as it has elements. */
static const char inputs[] =
    "input x: f32[2, 3]\n input y: f32[2, 3]\n input v: f32[3]\n input s: f32[]\n input h: bf16[2, 3]\n"
    "input n: i32[4]\n input m: i32[4]\n input u: u32[4]\n input i: i32[2]\n input b: bool[4]\n input e: f32[6]\n";
static double xs[] = { 1, -2, 3, -4, 5, -6 }, ys[] = { 0.5, 2, -1, 4, 0.25, 3 }, vs[] = { 10, 20, 30 }, ss[] = { 2 },
              hs[] = { 1, 2, 3, 4, 5, 6 }, ns[] = { 7, -7, -2147483648.0, 5 }, ms[] = { 2, 2, -1, 0 },
              us[] = { 4294967295.0, 1, 65536, 3 }, is[] = { 1, 0 }, bs[] = { 1, 0, 1, 0 },
              es[] = { 2, NAN, -INFINITY, 5, 5, 0 };
static const char *const names[] = { "x", "y", "v", "s", "h", "n", "m", "u", "i", "b", "e" };
static const EvalVal vals[] = { { xs, 6 }, { ys, 6 }, { vs, 3 }, { ss, 1 }, { hs, 6 }, { ns, 4 }, { ms, 4 }, { us, 4 }, { is, 2 }, { bs, 4 }, { es, 6 } };
static const EvalEnv env = { names, vals, 11, .seed = 0x299f31d0a4093822u, .step = 3, .micro = 1 };

static Module *parse(sn_ctx *c, const char *body)
{
    StrBuf t = { 0 };
    snU_putf(&t, "graph g {\n%s\n%s\n}\n", inputs, body);
    Module *m = snG_parse(c, "case", t.s, t.n, NULL, 0);
    snU_free_buf(&t);
    return m;
}

/* -- Evaluation ------------------------------------------------------------------------------------------------ */

typedef struct Case { const char *body, *want; EvalMode mode; } Case;

static const Case eval_cases[] = {
    { "output o = x + y", "1.5 0 2 0 5.25 -3" },
    { "output o = x - v", "-9 -22 -27 -14 -15 -36" },
    { "output o = x * s", "2 -4 6 -8 10 -12" },
    { "output o = x / y", "2 -1 -3 -1 20 -2" },
    { "output o = -x", "-1 2 -3 4 -5 6" },
    { "output o = abs(x)", "1 2 3 4 5 6" },
    { "output o = min(x, y)", "0.5 -2 -1 -4 0.25 -6" },
    { "output o = max(e, 3)", "3 3 3 5 5 3" },
    { "output o = cast(x < y, i32)", "0 1 0 1 0 1" },
    { "output o = select(x > 0, x, 0)", "1 0 3 0 5 0" },
    { "output o = e == e", "1 0 1 1 1 1" },
    { "output o = rsqrt(s + 2)", "0.5" },
    { "output o = pow(s, 10)", "1024" },
    { "output o = floor(y)", "0 2 -1 4 0 3" },
    { "output o = ceil(y)", "1 2 -1 4 1 3" },
    { "output o = round(x * 0.5)", "0 -1 2 -2 2 -3" },
    { "output o = sigmoid(x * 0)", "0.5 0.5 0.5 0.5 0.5 0.5" },
    { "output o = n / m", "3 -3 -2147483648 0" },                 /* wraps; a division by zero is 0 */
    { "output o = rem(n, m)", "1 -1 0 0" },
    { "output o = n + n", "14 -14 0 10" },
    { "output o = n * 1000000007", "-1589934543 1589934543 -2147483648 705032739" },
    { "output o = -n", "-7 7 -2147483648 -5" },
    { "output o = u + 1", "0 2 65537 4" },
    { "output o = u * u", "1 1 0 9" },
    { "output o = shl(u, 31)", "2147483648 2147483648 0 2147483648" },
    { "output o = shr(n, 1)", "3 -4 -1073741824 2" },
    { "output o = shr(u, 33)", "2147483647 0 32768 1" },          /* by the low five bits */
    { "output o = and(n, 6)", "6 0 0 4" },
    { "output o = xor(b, true)", "0 1 0 1" },
    { "output o = not(n)", "-8 6 2147483647 -6" },
    { "output o = not b", "0 1 0 1" },
    { "output o = cast(e, i32)", "2 0 -2147483648 5 5 0" },
    { "output o = cast(x, u32)", "1 0 3 0 5 0" },
    { "output o = cast(n, u32)", "7 4294967289 2147483648 5" },
    { "output o = cast(x, bool)", "1 1 1 1 1 1" },
    { "output o = bitcast(x, i32)", "1065353216 -1073741824 1077936128 -1065353216 1084227584 -1061158912" },
    { "output o = bitcast(bitcast(y, u32), f32)", "0.5 2 -1 4 0.25 3" },
    { "output o = sum(x)", "-3" },
    { "output o = sum(x, 1)", "2 -5" },
    { "output o = sum(x, 0)", "-3 3 -3" },
    { "output o = sum(x, [0, 1])", "-3" },
    { "output o = sum(n)", "-2147483643" }, { "output o = sum(n - 5)", "2147483633" },
    { "output o = amax(x, 1)", "3 5" },
    { "output o = amin(x, 0)", "-4 -2 -6" },
    { "output o = amax(e, 0)", "nan" },
    { "output o = argmax(e, 0)", "1" },
    { "output o = argmax(abs(x) * 0, 1)", "0 0" },
    { "output o = argmin(x, 1)", "1 2" },
    { "output o = cumsum(v, 0)", "10 30 60" },
    { "output o = cumsum(v, 0, exclusive=1)", "0 10 30" },
    { "output o = cumsum(v, 0, reverse=1)", "60 50 30" },
    { "output o = cumsum(x, 0)", "1 -2 3 -3 3 -3" },
    { "output o = topk(x, 2)", "3 1 5 -4" },
    { "output o = part(topk(x, 2), 1)", "2 0 1 0" },
    { "output o = part(topk(x * 0, 2), 1)", "0 1 0 1" },
    { "output o = permute(x, [1, 0])", "1 -4 -2 5 3 -6" },
    { "output o = permute(reshape(x, [3, 1, 2]), [2, 0, 1])", "1 3 5 -2 -4 -6" },
    { "output o = expand(reshape(v, [3, 1]), [3, 2])", "10 10 20 20 30 30" },
    { "output o = slice(x, axis=1, start=1, size=2)", "-2 3 5 -6" },
    { "output o = pad(v, 0, lo=1, hi=2, value=9)", "9 10 20 30 9 9" },
    { "output o = pad(x, 0, hi=1)", "1 -2 3 -4 5 -6 0 0 0" },
    { "output o = concat(v, v, axis=0)", "10 20 30 10 20 30" },
    { "output o = concat(x, slice(y, axis=1, start=0, size=1), axis=1)", "1 -2 3 0.5 -4 5 -6 4" },
    { "output o = matmul(x, y, tb=1)", "-6.5 12.5 14 -32.75" },
    { "output o = matmul(x, y, ta=1)", "-15.5 1 -13 19 -2.75 17 -22.5 4.5 -21" },
    { "output o = matmul(x, reshape(y, [3, 2]))", "3.25 3 -8.5 -6" },
    { "output o = matmul(expand(reshape(x, [1, 2, 3]), [2, 2, 3]), reshape(concat(y, y, axis=0), [2, 3, 2]))", "3.25 3 -8.5 -6 3.25 3 -8.5 -6" },
    { "output o = gather(x, i)", "-4 5 -6 1 -2 3" },
    { "output o = gather(v, reshape(i, [2, 1]))", "20 10" },
    { "output o = scatter_add(v, concat(i, i, axis=0), cast(n, f32) * 0 + 1)", "12 22 30" },
    { "output o = scatter_add(x, i, x)", "-3 3 -3 -3 3 -3" },
    { "output o = iota([2, 3], 0)", "0 0 0 1 1 1" },
    { "output o = iota([2, 3], 1) + 10", "10 11 12 10 11 12" },
    { "output o = softmax(select(x > 10, x, -inf))", "0 0 0 0 0 0" },
    { "output o = softmax(select(x > 0, x * 0, -inf))", "0.5 0 0.5 0 1 0" },
    { "output o = stop_gradient(fence(v, x))", "10 20 30" },
    /* rounding: 1/3 in f32 and bf16, 257 in bf16, a bf16 sum kept in f32 until its end */
    { "output o = s / 6", "0.33333333333333331", EVAL_F64 },
    { "output o = s / 6", "0.3333333432674408", EVAL_F32 },
    { "output o = h * 51.5", "51.5 103 154.5 206 257.5 309", EVAL_F64 },
    { "output o = h * 51.5", "51.5 103 154 206 258 308", EVAL_TYPED },
    { "output o = cast(v * 25.75, bf16)", "257.5 515 772.5", EVAL_F64 },
    { "output o = cast(v * 25.75, bf16)", "258 516 772", EVAL_TYPED },
    { "output o = sum(h * 43)", "903", EVAL_F64 },
    { "output o = sum(h * 43)", "904", EVAL_TYPED },
    { "output o = matmul(h, h, tb=1) + 400", "414 432 432 477", EVAL_F64 },
    { "output o = matmul(h, h, tb=1) + 400", "414 432 432 476", EVAL_TYPED },
    { "output o = cast(s * 32760, f16)", "inf", EVAL_TYPED },
};

/* The numbers of `want`, NaN included, and no others. */
static bool same_values(const EvalVal *v, const char *want)
{
    char *end;
    for (int64_t k = 0; k < v->n; k++, want = end) {
        double w = strtod(want, &end);
        if (end == want || (w == w ? v->v[k] != w : v->v[k] == v->v[k])) return false;
    }
    return !*want;
}

static void put_values(StrBuf *b, const EvalVal *v)
{
    char num[40];
    for (int64_t k = 0; k < v->n; k++) snU_putf(b, " %s", snU_num(num, v->v[k], false));
}

static void run_eval(const Case *t)
{
    sn_ctx *c = sn_ctx_new();
    Arena a = { 0 };
    StrBuf got = { 0 };
    Module *m = parse(c, t->body);
    if (!m) { CHECK(false, "%s: %s", t->body, c->message); sn_ctx_free(c); return; }
    SN_ENTER(c, { CHECK(false, "%s: %s", t->body, c->message); return; });
    const Graph *g = m->graphs.v[0];
    EvalVal *out = NEWN(&a, EvalVal, g->nodes.n);
    snG_verify(g);
    snG_eval(g, t->mode, &env, &a, out);
    const EvalVal *v = &out[g->outputs.v[0].node];
    put_values(&got, v);
    SN_LEAVE(c);
    CHECK(same_values(v, t->want), "%s:%s instead of %s", t->body, got.s, t->want);
    snU_free_buf(&got);
    snG_free_module(m);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

/* -- Folding: what the output is: a leaf's name, a constant's value or an op -------------------------------- */

static const Case fold_cases[] = {
    { "output o = x + 0", "x" }, { "output o = 0 + x", "x" }, { "output o = x - 0", "x" }, { "output o = x * 1", "x" },
    { "output o = x / 1", "x" }, { "output o = x + zeros([2, 3])", "x" }, { "output o = x * 2 / 1 + 0", "mul" },
    { "output o = -(-x)", "x" }, { "output o = cast(x, f32)", "x" }, { "output o = reshape(x, [2, 3])", "x" },
    { "output o = reshape(reshape(x, [6]), [2, 3])", "x" }, { "output o = permute(x, [0, 1])", "x" },
    { "output o = permute(permute(x, [1, 0]), [1, 0])", "x" }, { "output o = expand(x, [2, 3])", "x" },
    { "output o = slice(x, axis=0, start=0, size=2)", "x" }, { "output o = pad(x, 0)", "x" }, { "output o = concat(x, axis=0)", "x" },
    { "output o = select(true, x, y)", "x" }, { "output o = select(false, x, y)", "y" }, { "output o = select(x > y, x, x)", "x" },
    { "output o = part(topk(x, 2), 0)", "topk" }, { "output o = sum(expand(reshape(s, [1, 1]), [1, 1]), 1)", "reshape" },
    { "output o = x - x", "sub" }, { "output o = x * 0", "mul" }, { "output o = stop_gradient(x)", "stop_gradient" },
    { "output o = fence(x, y)", "fence" }, { "output o = b and true", "b" },
    { "output o = full([], 0.1) + full([], 0.2)", "0.3" },          /* in f32; in f64 it would not be */
    { "output o = full([], 2) * 3 - 1", "5" }, { "output o = amax(reshape(v, [3, 1]), 1)", "reshape" }, { "output o = n * 0", "0" }, { "output o = b and false", "0" },
    { "output o = argmax(reshape(v, [3, 1]), 1)", "argmax" },
};

static void run_fold(const Case *t)
{
    sn_ctx *c = sn_ctx_new();
    StrBuf b = { 0 };
    Module *m = parse(c, t->body);
    if (!m) { CHECK(false, "%s: %s", t->body, c->message); sn_ctx_free(c); return; }
    const Graph *g = m->graphs.v[0];
    NodeId o = g->outputs.v[0].node;
    double k;
    char num[40];
    if (snG_leaf(g, o)) snU_puts(&b, snU_str(c, snG_leaf(g, o)->name));
    else if (snG_is_const(g, o, &k)) snU_puts(&b, snU_num(num, k, true));
    else snU_puts(&b, snG_op(c, snG_node(g, o)->op)->cname);
    CHECK(!strcmp(b.s, t->want), "%s: %s instead of %s", t->body, b.s, t->want);
    snU_free_buf(&b);
    snG_free_module(m);
    sn_ctx_free(c);
}

/* -- Errors: part of the one line -------------------------------------------------------------------------------------- */

static const Case error_cases[] = {
    { "output o = add(x, e)", "add: operands" }, { "output o = x + n", "cast" }, { "output o = log(n)", "log: operand is i32" },
    { "output o = and(x, x)", "bool, i32 or u32" }, { "output o = rem(x, x)", "i32 or u32" }, { "output o = select(x, x, x)", "must be bool" },
    { "output o = b + b", "bool" }, { "output o = sum(b)", "bool" }, { "output o = cumsum(b, 0)", "bool" },
    { "output o = sum(x, 2)", "axes are -2 to 1" }, { "output o = sum(x, [0, 0])", "twice" },
    { "output o = amax(x, 5)", "axis 5" }, { "output o = topk(x, 4)", "last axis of 3" }, { "output o = part(x, 1)", "one result" },
    { "output o = reshape(x, [5])", "6 elements" }, { "output o = reshape(x, [4, -1])", "elements" }, { "output o = reshape(x, [0, -1])", "size 0" },
    { "output o = reshape(x, [1, 1, 1, 1, 1, 1, 6])", "at most" }, { "output o = permute(x, [0, 0])", "permute" }, { "output o = permute(x, [0])", "permute" },
    { "output o = expand(x, [4, 3])", "broadcast" }, { "output o = slice(x, axis=0, start=1, size=2)", "slice" },
    { "output o = slice(x, axis=0, start=9223372036854775807, size=9223372036854775807)", "slice" },
    { "output o = pad(x, 0, lo=-1)", "pad" }, { "output o = concat(x, v, axis=0)", "concat" },
    { "output o = matmul(x, y)", "inner sizes 3 and 2" }, { "output o = matmul(h, x, tb=1)", "one float dtype" }, { "output o = matmul(v, v)", "two axes" },
    { "output o = gather(x, v)", "must be i32" }, { "output o = scatter_add(x, i, v)", "scatter_add" },
    { "output o = bitcast(h, f32)", "differ in size" }, { "output o = random([2, 2], key=n)", "i32[2]" },
    { "output o = iota([1000000, 1000000, 1000000, 1000000], 0)", "too large" }, { "output o = expand(reshape(s, [1, 1]), [1099511627776, 4])", "too large" },
    { "output o = iota([], 0)", "axis" }, { "output o = x + 1\n output o = x", "two outputs" },
    { "output o = gather(v, i + 2)", "index" },                        /* only evaluation can tell */
    { "input z: f32[]\n output o = z", "z has no value" }, { "output o = iota([1024, 1024, 1024, 4], 0)", "reference evaluator" },
};

static void run_error(const Case *t)
{
    sn_ctx *c = sn_ctx_new();
    Arena a = { 0 };
    Module *m = parse(c, t->body);
    if (m) {
        SN_ENTER(c, goto out);
        const Graph *g = m->graphs.v[0];
        snG_eval(g, EVAL_F64, &env, &a, NEWN(&a, EvalVal, g->nodes.n));
        SN_LEAVE(c);
    }
out:
    CHECK(c->message && strstr(c->message, t->want), "%s: '%s' does not say '%s'", t->body, c->message ? c->message : "no error", t->want);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

/* -- By calls ------------------------------------------------------------------------------------------------------------- */

static void test_philox(void)
{
    static const uint32_t known[][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
        { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } };
    for (int k = 0; k < 3; k++) {
        uint32_t out[4];
        snG_philox(&known[k][4], known[k], out);
        CHECK(!memcmp(out, &known[k][6], sizeof out), "philox vector %d: %08x", k, out[0]);
    }
}

/* random against its definition: word e & 3 of (e >> 2, step, micro, stream), keyed by (e >> 2, key, 0, stream | 2^31). */
static void test_random(void)
{
    sn_ctx *c = sn_ctx_new();
    Arena a = { 0 };
    Module *m = parse(c, "output o = random([2, 3], stream=5)\n output k = random([2, 3], key=i, stream=5)");
    CHECK(m, "%s", c->message);
    const Graph *g = m->graphs.v[0];
    EvalVal *out = NEWN(&a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, &env, &a, out);
    uint32_t key[2] = { 0xa4093822, 0x299f31d0 }, w[4];
    for (uint32_t e = 0; e < 6; e++) {
        snG_philox(key, (uint32_t[]){ e >> 2, 3, 1, 5 }, w);
        CHECK(out[g->outputs.v[0].node].v[e] == (w[e & 3] >> 8) * 0x1p-24, "random, element %u", e);
        snG_philox(key, (uint32_t[]){ 0, e < 3, 0, 0x80000005 }, w);
        CHECK(out[g->outputs.v[1].node].v[e] == (w[e % 3] >> 8) * 0x1p-24, "keyed random, element %u", e);
    }
    snG_free_module(m);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

/* A value given for a named node takes its place, and what only that node reads is not needed. */
static void test_given(void)
{
    sn_ctx *c = sn_ctx_new();
    Arena a = { 0 };
    Module *m = parse(c, "input nowhere: f32[]\n z = s * nowhere\n output o = z + 1");
    CHECK(m, "%s", c->message);
    const Graph *g = m->graphs.v[0];
    EvalVal *out = NEWN(&a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, &(EvalEnv){ (const char *const[]){ "z" }, &(EvalVal){ (double[]){ 41 }, 1 }, 1, .seed = 1 }, &a, out);
    CHECK(out[g->outputs.v[0].node].v[0] == 42, "z is given");
    snG_free_module(m);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

static void test_round(void)
{
    static const struct { Dtype d; double in, out; } t[] = {
        { SN_F32, 16777217, 16777216 }, { SN_BF16, 257, 256 }, { SN_BF16, 259, 260 }, { SN_BF16, 0x1.01p0, 0x1p0 },
        { SN_BF16, 0x1.fffp127, INFINITY }, { SN_BF16, 0x1p-133, 0x1p-133 }, { SN_BF16, 0x1p-135, 0 }, { SN_F16, 2049, 2048 }, { SN_F16, 65519, 65504 },
        { SN_F16, 65520, INFINITY }, { SN_F16, -65520, -INFINITY }, { SN_F16, 0x1p-24, 0x1p-24 }, { SN_F16, 0x1.8p-24, 0x1p-23 },
        { SN_F16, 0x1p-25, 0 }, { SN_I32, 2147483648.0, -2147483648.0 }, { SN_U32, -1, 4294967295.0 }, { SN_I32, 1e300, 0 },
        { SN_U32, INFINITY, 0 }, { SN_BOOL, 0.5, 1 }, { SN_F64, 0.1, 0.1 } };
    for (size_t k = 0; k < sizeof t / sizeof *t; k++)
        CHECK(snG_round(t[k].d, t[k].in) == t[k].out, "%s of %g is %g", snG_dtype_name(t[k].d), t[k].in, snG_round(t[k].d, t[k].in));
    CHECK(isnan(snG_round(SN_BF16, NAN)) && signbit(snG_round(SN_F16, -0.0)), "NaN and -0");
}

static void test_cons(void)
{
    sn_ctx *c = sn_ctx_new();
    Graph *g = snG_new(c, 0);
    Here at = { 0 };
    Type t = { .dtype = SN_F32, .rank = 1, .dim = { 4 } };
    NodeId x = snG_add_leaf(g, at, OP_input, snU_symz(c, "x"), &t, NULL), y = snG_add_leaf(g, at, OP_input, snU_symz(c, "y"), &t, NULL);
    CHECK(snG_add_leaf(g, at, OP_input, snU_symz(c, "x"), &t, NULL) == x && x != y, "leaves go by name");
    NodeId xy = snG_add(g, at, OP_add, (NodeId[]){ x, y }, 2, NULL);
    CHECK(snG_add(g, at, OP_add, (NodeId[]){ x, y }, 2, NULL) == xy, "equal nodes merge");
    CHECK(snG_add(g, at, OP_add, (NodeId[]){ y, x }, 2, NULL) == xy, "a + b and b + a merge");
    CHECK(snG_in(g, xy, 0) == x, "operands keep their order");
    CHECK(snG_add(g, at, OP_sub, (NodeId[]){ x, y }, 2, NULL) != snG_add(g, at, OP_sub, (NodeId[]){ y, x }, 2, NULL), "a - b and b - a differ");
    NodeId two = snG_const(g, at, SN_F32, 2);
    CHECK(snG_in(g, snG_add(g, at, OP_mul, (NodeId[]){ two, x }, 2, NULL), 0) == x, "constants go right");
    CHECK(snG_const(g, at, SN_F32, 2) == two && snG_const(g, at, SN_I32, 2) != two, "constants merge by dtype");
    CHECK(snG_const(g, at, SN_F32, -0.0) != snG_const(g, at, SN_F32, 0.0), "-0 is not 0");
    NodeId f = snG_add(g, at, OP_fence, (NodeId[]){ x, y }, 2, NULL);
    CHECK(f != x && snG_add(g, at, OP_neg, &f, 1, NULL) != snG_add(g, at, OP_neg, &x, 1, NULL), "fence keeps copies apart");
    snG_rename(g, xy, snU_symz(c, "first"));
    snG_rename(g, xy, snU_symz(c, "second"));
    CHECK(!strcmp(snU_str(c, snG_node(g, xy)->name), "first"), "the first name wins");
    snG_set_output(g, snU_symz(c, "o"), xy, 0);
    Rebuild r = snG_rebuild(g);
    for (NodeId id = 1; id < g->nodes.n; id++) snG_copy_node(&r, id);
    Graph *k = snG_finish(&r);
    snG_verify(k);
    CHECK(k->nodes.n == 4 && k->leaves.n == 2, "dead nodes go, inputs stay: %u nodes", k->nodes.n - 1);
    uint32_t *uses = snG_use_counts(k, k->arena);
    CHECK(uses[k->outputs.v[0].node] == 1 && uses[1] == 1, "use counts");
    snG_free(k);
    snG_free(g);
    sn_ctx_free(c);
}

/* The initialisers' formulas, and that a value depends on name, seed and element alone. */
static void test_leaves(void)
{
    sn_ctx *c = sn_ctx_new();
    Graph *g = snG_new(c, 0);
    Type t = { .dtype = SN_F32, .rank = 1, .dim = { 4096 } };
    Leaf n = { .init = INIT_NORMAL, .a = 0.02 }, u = { .init = INIT_UNIFORM, .a = -1, .b = 3 };
    snG_add_leaf(g, (Here){ 0 }, OP_weight, snU_symz(c, "w"), &t, &n);
    snG_add_leaf(g, (Here){ 0 }, OP_weight, snU_symz(c, "q"), &t, &u);
    double *v = NEWN(g->arena, double, 4096), sum = 0, squares = 0, mean = 0;
    snG_init_leaf(g, &g->leaves.v[0], 1, v);
    for (int k = 0; k < 4096; k++) sum += v[k], squares += v[k] * v[k];
    CHECK(fabs(sum / 4096) < 0.002 && fabs(sqrt(squares / 4096) - 0.02) < 0.001, "normal: mean %g, deviation %g", sum / 4096, sqrt(squares / 4096));
    snG_init_leaf(g, &g->leaves.v[1], 1, v);
    for (int k = 0; k < 4096; k++) mean += v[k] / 4096, failed += !(v[k] >= -1 && v[k] < 3);
    CHECK(fabs(mean - 1) < 0.06, "uniform: mean %g", mean);
    snG_free(g);
    sn_ctx_free(c);
}

static void test_table(void)
{
    sn_ctx *c = sn_ctx_new();
    double third[] = { 3 };
    CHECK(snG_scalar_eval(snG_op(c, OP_rsqrt)->scalar, SN_F32, SN_F32, (double[]){ 16 }, EVAL_F64) == 0.25, "1 / sqrt(16)");
    CHECK(snG_scalar_eval(snG_op(c, OP_sigmoid)->scalar, SN_F32, SN_F32, (double[]){ 0 }, EVAL_F64) == 0.5, "sigmoid(0)");
    CHECK(snG_scalar_eval(snG_op(c, OP_neg)->scalar, SN_U32, SN_U32, third, EVAL_F64) == 4294967293.0, "-3 as u32");
    for (unsigned id = 1; id < OP_NPRIM; id++) {
        const OpInfo *op = snG_op(c, id);
        CHECK(snG_find_op(c, op->name) == id, "%s is found by name", op->cname);
        CHECK(op->cls != C_EWISE || (op->scalar && op->scalar->n), "%s has a scalar program", op->cname);
    }
    StrBuf b = { 0 };
    snG_print_ops(&b, c);
    CHECK(strstr(b.s, "cumsum(x, axis=-1, exclusive=0, reverse=0)") && strstr(b.s, "softmax(x, axis=-1)"), "the op reference");
    snU_free_buf(&b);
    sn_ctx_free(c);
}

#define RUN(cases, fn) for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) fn(&cases[k])

int main(void)
{
    test_philox();
    test_random();
    test_given();
    test_round();
    test_cons();
    test_leaves();
    test_table();
    RUN(eval_cases, run_eval);
    RUN(fold_cases, run_fold);
    RUN(error_cases, run_error);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
