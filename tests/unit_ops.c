/* unit_ops.c: every op, compiled, against the reference evaluator. In: [--each] [--device D | -t TARGET] [--seed N] [--every N] [--part K/N] [words that a case must contain];
   out: `N passed, N failed`.

   A case is operands and an expression; dtypes and, for elementwise rows of ops.def, shapes multiply it. Every case becomes a graph
   of its own in one module, so that all kernels compile as one batch. Each graph runs on 1 and on 2 threads over poisoned
   memory (groups, on OpenCL); outputs and updates must meet the tolerance of design.md 8 (tools/verify.h), and both runs must agree in every bit. */
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>
#include "codegen/family.h"
#include "runtime/program.h"
#include "tools/verify.h"

/* -- Cases ------------------------------------------------------------------------------------------------------ */

/* Operands are called a, b, c ... Kinds: x any value; p positive; s shift count; kN i32 in 0..N-1; m bool; f an f32 whatever the
   dtypes; e f32 with zeros, infinities, NaN. dtypes: letters of F bf16-f16-f32, I i32-u32, B bool, f f32 only, i i32 only, - none. A body
   with "output" is a whole graph body after the inputs, else an expression. */
typedef struct Case { const char *operands, *body, *dtypes; } Case;
#define ATT "x[2, 3, 9, 4] x[2, 3, 17, 4] x[2, 3, 17, 5]"      /* q, k, v */

static const Case cases[] = {
    { "", "iota([5, 7], axis=1)", "-" }, { "", "iota([33, 2], axis=0)", "-" },
    { "", "random([37, 19], stream=5)", "-" }, { "k1000[6]", "random([6, 50], key=a, stream=7)", "-" },
    { "x[3, 5]", "add(a, 1.5)", "F" }, { "x[3, 5]", "a * 3", "I" },
    /* reductions: each axis, sizes around the vector width, whole tensors */
    { "x[7, 33]", "sum(a, axis=[1])", "FI" }, { "x[7, 33]", "sum(a, axis=[0])", "FI" }, { "x[5, 3, 17]", "sum(a, axis=[1])", "F" },
    { "x[5, 3, 17]", "sum(a, axis=[0, 2])", "f" }, { "x[129, 65]", "sum(a)", "FI" }, { "x[1, 1]", "sum(a, axis=[1])", "F" },
    { "x[2048, 24]", "sum(a, axis=[0])", "f" }, { "x[3, 1000]", "sum(a, axis=[1])", "F" },
    { "x[7, 33]", "amax(a, axis=1)", "FI" }, { "x[7, 33]", "amax(a, axis=0)", "FI" }, { "x[4, 1]", "amax(a)", "F" },
    { "x[5, 3, 17]", "amin(a, axis=1)", "FI" }, { "x[2, 300]", "amin(a)", "FI" },
    { "x[7, 33]", "argmax(a, axis=1)", "FI" }, { "x[7, 33]", "argmax(a, axis=0)", "f" }, { "x[6, 257]", "argmin(a)", "FI" },
    { "e[6, 31]", "amax(a)", "-" }, { "e[6, 31]", "amin(a)", "-" },
    /* scans */
    { "x[5, 37]", "cumsum(a)", "FI" }, { "x[5, 37]", "cumsum(a, exclusive=1)", "f" }, { "x[5, 37]", "cumsum(a, reverse=1)", "f" },
    { "x[9, 4]", "cumsum(a, axis=0)", "f" }, { "x[3, 16]", "cumsum(a, exclusive=1, reverse=1)", "F" },
    { "x[5, 40]", "v, i = topk(a, k=7)\noutput y = v\noutput j = i", "FI" },
    { "x[3, 6, 40]", "topk(a, k=40)", "f" },
    /* views and moves */
    { "x[6, 10]", "reshape(a, [4, 15])", "FIB" }, { "x[3, 5, 7]", "permute(a, [2, 0, 1])", "FIB" }, { "x[64, 48]", "permute(a, [1, 0])", "F" },
    { "x[3, 1, 5]", "expand(a, [3, 9, 5])", "FIB" }, { "x[9, 20]", "slice(a, axis=1, start=3, size=11)", "FIB" },
    { "x[9, 20]", "slice(a, axis=0, start=8, size=1)", "f" }, { "x[4, 6]", "pad(a, axis=1, lo=2, hi=3, value=1)", "FI" },
    { "x[4, 6]", "pad(a, axis=0, lo=1)", "f" }, { "x[3, 5] x[3, 8] x[3, 1]", "concat(a, b, c, axis=1)", "FIB" },
    { "x[2, 7] x[5, 7]", "concat(a, b, axis=0)", "FI" },
    { "x[6, 10]", "permute(reshape(exp(a), [6, 2, 5]), [1, 0, 2])", "F" },
    /* contractions: every transposition, odd sizes, batches, vectors */
    { "x[7, 13] x[13, 9]", "matmul(a, b)", "F" }, { "x[13, 7] x[13, 9]", "matmul(a, b, ta=1)", "F" },
    { "x[7, 13] x[9, 13]", "matmul(a, b, tb=1)", "F" }, { "x[13, 7] x[9, 13]", "matmul(a, b, ta=1, tb=1)", "F" },
    { "x[1, 1] x[1, 1]", "matmul(a, b)", "F" }, { "x[1, 40] x[40, 50]", "matmul(a, b)", "F" }, { "x[50, 40] x[40, 1]", "matmul(a, b)", "F" },
    { "x[130, 70] x[70, 200]", "matmul(a, b)", "F" }, { "x[3, 5, 7] x[3, 7, 4]", "matmul(a, b)", "F" },
    { "x[2, 3, 33, 16] x[2, 3, 20, 16]", "matmul(a, b, tb=1)", "F" }, { "x[257, 300] x[300, 129]", "matmul(a, b)", "f" },
    { "x[2, 9, 16] x[16, 24]", "a @ b", "F" }, { "x[40, 24] x[24, 32] x[1, 32]", "sigmoid(a @ b + expand(c, [40, 32])) * 2.0", "F" },
    { "x[40, 24] x[24, 32]", "exp(a) @ b", "F" },
    /* part of a contraction: none, some, all, more than all; the count from memory */
    { "x[7, 13] x[13, 9] k8[]", "matmul_some(a, b, c)", "F" }, { "x[130, 70] x[70, 200] k1[]", "matmul_some(a, b, c)", "F" },
    { "x[130, 70] x[70, 200] k131[]", "matmul_some(a, b, c)", "F" }, { "x[130, 70] x[70, 200] k2[]", "matmul_some(a, b, c + 130)", "f" },
    { "x[130, 70] x[70, 200] k2[]", "matmul_some(a, b, c - 9)", "f" }, { "x[70, 130] x[200, 70] k131[]", "matmul_some(a, b, c, ta=1, tb=1)", "F" },
    { "x[300, 700] x[700, 257] k300[]", "matmul_some(a, b, c)", "f" }, { "x[300, 700] x[257, 700] k300[]", "matmul_some(a, b, c, tb=1)", "f" },
    { "x[1, 40] x[40, 50] k2[]", "matmul_some(a, b, c)", "F" }, { "x[3, 5, 7] x[3, 7, 4] k6[]", "matmul_some(a, b, c)", "F" },
    { "x[7, 13] x[13, 9] k14[]", "matmul_some(a, b, c, over=1)", "F" }, { "x[130, 70] x[70, 200] k1[]", "matmul_some(a, b, c, over=1)", "F" },
    { "x[130, 70] x[70, 200] k2[]", "matmul_some(a, b, c + 70, over=1)", "f" }, { "x[130, 70] x[70, 200] k2[]", "matmul_some(a, b, c - 9, over=1)", "f" },
    { "x[700, 300] x[700, 257] k700[]", "matmul_some(a, b, c, ta=1, over=1)", "f" }, { "x[70, 130] x[200, 70] k71[]", "matmul_some(a, b, c, ta=1, tb=1, over=1)", "F" },
    { "x[3, 5, 7] x[3, 7, 4] k8[]", "matmul_some(a, b, c, over=1)", "F" }, { "x[40, 1] x[1, 24] k2[]", "matmul_some(a, b, c, over=1)", "F" },
    { "x[100, 24] x[24, 32] k101[] x[1, 32]", "sigmoid(matmul_some(a, b, c) + expand(d, [100, 32])) * 2.0", "F" },
    { "x[900, 40] x[900, 64] k901[] x[40, 64]", "d + matmul_some(a, b, c, ta=1, over=1)", "f" },
    { "x[700, 30] x[700, 57] k700[]", "matmul_some(select(iota([700, 1], 0) < c, a, nan), b, c, ta=1, over=1)", "f" },
    { "x[2, 50, 24] x[24, 32] k101[]", "permute(reshape(matmul_some(reshape(a, [100, 24]), b, c), [2, 50, 32]), [0, 2, 1])", "f" },
    /* gather and scatter */
    { "x[9, 5] k9[4, 3]", "gather(a, b)", "FIB" }, { "x[33, 64] k33[50]", "gather(a, b)", "F" }, { "x[17] k17[40]", "gather(a, b)", "F" },
    { "x[9, 5] k9[12] x[12, 5]", "scatter_add(a, b, c)", "FI" }, { "x[33, 64] k5[50] x[50, 64]", "scatter_add(a, b, c)", "F" },
    /* several ops of a kind in one kernel, values that live on, storage */
    { "x[33, 70]", "m = amax(a)\ne = exp(a - m)\noutput y = e / sum(e, axis=[1])\noutput z = e", "F" },
    { "x[16, 24]", "state p: f32[16, 24] = normal(1)\nstate q: f32[16, 24] = normal(2)\nupdate p = q\nupdate q = p\noutput y = cast(a, f32) + p", "f" },
    { "x[16, 24]", "state p: f32[16, 24] = normal(1)\nstate q: f32[16, 24] = normal(2)\nupdate p = q * 2.0\nupdate q = p * 3.0 + a", "f" },
    { "x[16, 24]", "weight w: f32[16, 24] = normal(1)\nt = w + a\nupdate w = t\noutput y = t\noutput z = sum(t, axis=[0])", "f" },
    /* composites of std.sn */
    { "x[7, 33]", "softmax(a)", "F" }, { "x[5, 3, 17]", "softmax(a, axis=1)", "f" }, { "x[6, 1]", "softmax(a)", "F" },
    { "m[9, 40] x[9, 40]", "softmax(select(a, b, -inf))", "F" }, { "x[3, 1000]", "softmax(a * 30)", "F" },
    { "x[4, 9]", "softmax(select(a > 100, a, -inf))", "F" }, { "x[7, 33]", "logsumexp(a)", "F" }, { "x[4, 9, 5]", "logsumexp(a, axis=1)", "f" },
    { "x[9, 65] k65[9]", "xent(a, b)", "F" }, { "x[2, 7, 257] k257[2, 7]", "xent(a * 5, b)", "F" },
    { "x[9, 65] k65[9]", "xent(a, b, smoothing=0.1, z=0.001)", "F" },
    { "x[37, 24] x[24, 65] k65[37] f[37]", "output y = linear_xent(a, b, c, true)\noutput dx = linear_xent_dx(a, b, c, true, cast(d, dtypeof(a)))\noutput dw = linear_xent_dw(a, b, c, true, cast(d, dtypeof(a)))", "F" },
    { "x[37, 24] x[65, 24] k65[37] f[37]", "output y = linear_xent(a, b, c, true, tb=1, chunk=16)\noutput dx = linear_xent_dx(a, b, c, true, cast(d, dtypeof(a)), tb=1, chunk=16)\n"
                                           "output dw = linear_xent_dw(a, b, c, true, cast(d, dtypeof(a)), tb=1, chunk=16)", "f" },
    { "x[300, 64] x[64, 257] k257[300] f[300] m[300]", "output y = linear_xent(a, b, c, e, chunk=100)\noutput dx = linear_xent_dx(a, b, c, e, d, chunk=100)\n"
                                                       "output dw = linear_xent_dw(a, b, c, e, d, chunk=100)", "f" },
    { "x[300, 64] x[257, 64] k257[20, 15] f[20, 15] m[20, 15]", "output y = linear_xent(a, b, c, e, tb=1, smoothing=0.1, z=0.001, chunk=128)\n"
        "output dx = linear_xent_dx(a, b, c, e, d, tb=1, smoothing=0.1, z=0.001, chunk=128)\noutput dw = linear_xent_dw(a, b, c, e, d, tb=1, smoothing=0.1, z=0.001, chunk=128)", "f" },
    { "x[70, 32] x[32, 33] k33[70] f[70]", "m = c < 0\noutput y = linear_xent(a, b, c, m, chunk=32)\noutput dx = linear_xent_dx(a, b, c, m, d, chunk=32)\n"
                                           "output dw = linear_xent_dw(a, b, c, m, d, chunk=32)", "f" },
    { "x[70, 32] x[32, 33] k33[70] f[70]", "m = c >= 0\noutput y = linear_xent(a, b, c, m, chunk=32)\noutput dx = linear_xent_dx(a, b, c, m, d, chunk=32)\n"
                                           "output dw = linear_xent_dw(a, b, c, m, d, chunk=32)", "f" },
    { "x[7, 33]", "mean(a)", "F" }, { "x[7, 33]", "mean(a, axis=[0])", "f" }, { "x[5, 3, 17]", "mean(a, axis=[1])", "F" },
    { "x[7, 33] x[33]", "rmsnorm(a, b)", "F" }, { "x[2, 3, 192] x[192]", "rmsnorm(a, b, eps=0.001)", "F" },
    { "x[7, 33] x[33] x[33]", "layernorm(a, b, c)", "F" }, { "x[1, 768] x[768] x[768]", "layernorm(a, b, c)", "F" },
    { "x[7, 33]", "silu(a)", "F" }, { "x[7, 33] x[7, 33]", "swiglu(a, b)", "F" }, { "x[7, 33]", "gelu(a)", "F" },
    { "x[7, 33]", "gelu_tanh(a)", "F" }, { "x[7, 33]", "relu(a)", "F" }, { "x[7, 33]", "softplus(a * 8)", "F" },
    { "x[2, 3, 9, 8]", "rope(a)", "F" }, { "x[1, 2, 5, 64]", "rope(a, base=500)", "f" }, { "x[2, 3, 1, 8] k50[]", "rope_at(a, b)", "f" },
    { "x[2, 9, 24]", "split_heads(a, 3)", "F" }, { "x[2, 3, 9, 8]", "merge_heads(a)", "F" }, { "x[2, 3, 9, 8]", "repeat_heads(a, 2)", "F" },
    { "x[2, 16, 8] x[2, 3, 8] k12[]", "put(a, b, at=c)", "F" }, { "x[37, 20] f[]", "dropout(a, abs(b) / 10.0)", "f" }, { "x[7, 33] f[]", "charge(a, b)", "F" },
    { "x[2, 4, 9, 17] x[2, 4, 17, 6]", "attention_rows(a, b, iota([2, 4, 9, 17], 3) != 4, 0.0, 1.0, scale=0.5, cap=2)", "F" },
    { "x[9, 33] k9[20] m[20] k20[9, 3] m[9, 3]", "gather_pairs(a, b, c, d, e)", "F" },
    { ATT, "attention(a, b, c, true, 0.0, 1.0, scale=0.25)", "F" }, { ATT, "attention_lse(a, b, true, 0.0, scale=0.25)", "F" },
    { ATT " m[2, 3, 9, 17] f[2, 3, 9, 17] f[2, 3, 9, 17]", "attention(a, b, c, d and iota([2, 3, 9, 17], 2) != 4, e, f, scale=0.3, cap=2)", "F" },
    { ATT " f[2, 3, 9, 1] f[2, 3, 9, 1] x[2, 3, 9, 5] m[2, 3, 9, 17]",
      "output q = attention_dq(f, a, b, c, g, 0.0, 1.0, d, e, cap=1.5)\noutput k = attention_dk(f, a, b, c, g, 0.0, 1.0, d, e, cap=1.5)\n"
      "output v = attention_dv(f, a, b, c, g, 0.0, 1.0, d, e, cap=1.5)\noutput s = attention_ds(f, a, b, c, g, 0.0, 1.0, d, e, cap=1.5)", "F" },
    { "x[2, 3, 16, 8] x[2, 3, 16, 8] x[2, 3, 16, 8]",
      "s = matmul(a, b, tb=1) * 0.35\noutput y = softmax(select(iota([16, 1], 0) >= iota([1, 16], 1), s, -inf)) @ c", "f" },
};

/* Elementwise rows: the kinds of their operands where "x" does not do. */
static const struct { const char *op, *kinds; } domains[] = {
    { "log", "p" }, { "sqrt", "p" }, { "rsqrt", "p" }, { "pow", "px" }, { "div", "xp" }, { "rem", "xp" }, { "shl", "xs" },
    { "shr", "xs" }, { "select", "mxx" },
};
static const char *const shapes[] = { "[]", "[1]", "[7]", "[3, 5]", "[2, 3, 17]", "[33, 130]", "[4, 1, 65]", "[1000]", "[16, 64]" };
enum { NSHAPES = sizeof shapes / sizeof *shapes, NCASES = sizeof cases / sizeof *cases };

/* -- The module as text ------------------------------------------------------------------------------------------ */

typedef struct Test { char name[16]; char *text; } Test;
typedef struct Suite {
    sn_ctx *c;
    Arena a;
    StrBuf text;
    VEC(Test) tests;
    char **only;                         /* names of ops, NULL-terminated; none = all */
    int every, turn;                     /* keep one test of so many */
    int part, parts;                     /* and of these each parts-th, from part on */
    StrBuf covered;                      /* every body, to see which ops have a case */
} Suite;

static Dtype dtypes_of(char letter, int i) {
    static const Dtype F[] = { SN_F32, SN_BF16, SN_F16, 0 }, I[] = { SN_I32, SN_U32, 0 }, B[] = { SN_BOOL, 0 }, f[] = { SN_F32, 0 },
                       i32[] = { SN_I32, 0 };
    switch (letter) {
    case 'F': return F[i];
    case 'I': return I[i];
    case 'B': return B[i];
    case 'i': return i32[i];
    default: return f[i];
    }
}

/* Input lines; the kind stays readable in the name of nothing, so fill() parses the operands again. */
static void put_inputs(StrBuf *b, const char *operands, Dtype d) {
    char name = 'a';
    for (const char *p = operands; *p; name++) {
        const char *shape = strchr(p, '['), *end = strchr(p, ']');
        Dtype t = *p == 'k' ? SN_I32 : *p == 'm' ? SN_BOOL : *p == 'f' || *p == 'e' ? SN_F32 : d;
        snU_putf(b, "  input %c: %s%.*s\n", name, snG_dtype_name(t), (int)(end + 1 - shape), shape);
        for (p = end + 1; *p == ' '; p++) {}
    }
}

static bool wanted(const Suite *s, const char *body) {
    for (char **o = s->only; o && *o; o++)
        if (strstr(body, *o)) return true;
    return !s->only || !*s->only;
}

static void add_test(Suite *s, const char *operands, const char *body, Dtype d) {
    int turn = s->turn;
    if (!wanted(s, body) || s->turn++ % s->every || turn / s->every % s->parts != s->part) return;
    Test t = {0};
    StrBuf b = {0};
    snprintf(t.name, sizeof t.name, "t%u", s->tests.n);
    snU_putf(&b, "graph %s {\n", t.name);
    put_inputs(&b, operands, d);
    snU_putf(&b, strstr(body, "output") || strstr(body, "update") ? "%s\n}\n" : "  output y = %s\n}\n", body);
    t.text = snU_fmt(&s->a, "%s|%s", operands, b.s);
    snU_put(&s->text, b.s, b.n);
    snU_free_buf(&b);
    PUSH(&s->a, s->tests, t);
}

static void add_case(Suite *s, const Case *k) {
    snU_putf(&s->covered, "%s\n", k->body);
    for (const char *l = k->dtypes; *l; l++)
        for (int i = 0; dtypes_of(*l, i); i++) add_test(s, k->operands, k->body, dtypes_of(*l, i));
}

/* -- Elementwise rows -------------------------------------------------------------------------------------------------- */

static bool takes(const OpInfo *op, Dtype d) {
    bool eq = op->flags & F_COMM && op->flags & F_BOOL;
    if (op->flags & F_FLOAT) return snG_is_float(d);
    if (op->flags & F_INT) return snG_is_int(d);
    if (op->flags & F_LOGIC) return d == SN_BOOL || snG_is_int(d);
    return d != SN_BOOL || eq || !strcmp(op->cname, "select") || !strcmp(op->cname, "cast");
}

static void add_ewise(Suite *s, const OpInfo *op, const char *body, Dtype d, int turn) {
    const char *kinds = "xxx";
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++)
        if (!strcmp(domains[i].op, op->cname)) kinds = domains[i].kinds;
    for (int k = 0; k < 3; k++) {
        const char *shape = shapes[(turn + k * 4) % NSHAPES];
        bool scalar_b = k == 2 && op->nin == 2;
        char operands[128] = "";
        for (int i = 0; i < op->nin; i++)
            snprintf(operands + strlen(operands), 40, "%s%c%s", i ? " " : "", kinds[i], i == 1 && scalar_b ? "[]" : shape);
        add_test(s, operands, body, d);
    }
}

static void add_ewise_rows(Suite *s) {
    static const Dtype all[] = { SN_F32, SN_BF16, SN_F16, SN_I32, SN_U32, SN_BOOL };
    int turn = 0;
    for (unsigned id = 1; id < OP_NPRIM; id++) {
        const OpInfo *op = snG_op(s->c, id);
        if (op->cls != C_EWISE || id == OP_fence) continue;
        for (int i = 0; i < 6; i++) {
            if (!takes(op, all[i])) continue;
            if (id != OP_cast && id != OP_bitcast) {
                bool infix = id == OP_and || id == OP_or;
                const char *body = infix ? snU_fmt(&s->a, "a %s b", op->cname)
                                 : id == OP_not ? "not a"
                                 : snU_fmt(&s->a, "%s(%s)", op->cname, op->nin == 1 ? "a" : op->nin == 2 ? "a, b" : "a, b, c");
                add_ewise(s, op, body, all[i], turn++);
                continue;
            }
            for (int k = 0; k < 6; k++) {
                if (k == i || (id == OP_bitcast && (snG_dtype_size(all[k]) != snG_dtype_size(all[i]) || all[k] == SN_BOOL))) continue;
                add_ewise(s, op, snU_fmt(&s->a, "%s(a, %s)", op->cname, snG_dtype_name(all[k])), all[i], turn++);
            }
        }
        if (op->nin == 1 && takes(op, SN_F32) && id != OP_cast && id != OP_bitcast)      /* zeros, infinities, NaN */
            add_test(s, "e[40]", snU_fmt(&s->a, "%s(a)", op->cname), SN_F32);
        if (op->nin == 2 && takes(op, SN_F32) && id != OP_pow)
            add_test(s, "e[40] e[40]", snU_fmt(&s->a, "%s(a, b)", op->cname), SN_F32);
    }
}

/* -- Values ---------------------------------------------------------------------------------------------------------------- */

static uint64_t rng, seed = 7;
static double uniform(void) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (double)(rng >> 11) * 0x1p-53;
}

static double draw(char kind, int64_t bound, Dtype d) {
    static const double edges[] = { 0.0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 0.5, 20, -20, 100, -100, 1e-30, 3.25, -7.75 };
    double u = uniform();
    if (kind == 'k') return floor(u * (double)bound);
    if (kind == 'm' || d == SN_BOOL) return u < 0.5;
    if (kind == 's') return floor(u * 32);
    if (kind == 'e') return edges[(int)(u * (sizeof edges / sizeof *edges))];
    if (kind == 'p') return snG_is_float(d) ? 0.25 + 4 * u : 1 + floor(u * 9);
    if (d == SN_U32) return floor(u * 40);
    if (d == SN_I32) return floor(u * 41) - 20;
    return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * uniform());
}

static void fill(const Graph *g, const char *operands, Arena *a, EvalEnv *env) {
    const char **names = NEWN(a, const char *, 27);
    EvalVal *vals = NEWN(a, EvalVal, 27);
    const char *p = operands;
    *env = (EvalEnv){ names, vals, 0, .seed = seed, .step = 3, .micro = 1 };
    rng = 12338 + seed;
    for (char name = 'a'; *p && *p != '|'; name++) {
        for (uint32_t i = 0; i < g->leaves.n; i++) {
            const Leaf *l = &g->leaves.v[i];
            const char *text = snU_str(g->ctx, l->name);
            if (text[0] != name || text[1]) continue;
            const Type *t = snG_type(g, l->node);
            EvalVal v = { NEWN(a, double, snG_count(t) + 1), snG_count(t) };
            for (int64_t k = 0; k < v.n; k++) v.v[k] = snG_round(t->dtype, draw(*p, atoll(p + 1), t->dtype));
            names[env->n] = snU_fmt(a, "%c", name);
            vals[env->n++] = v;
        }
        for (p = strchr(p, ']') + 1; *p == ' '; p++) {}
    }
}

/* -- Running ----------------------------------------------------------------------------------------------------------------- */

static bool same_bits(sn_session *s1, sn_session *s2, const Graph *g, const char *name, Arena *a) {
    for (uint32_t i = 0; i < g->outputs.n; i++) {
        const Type *t = snG_type(g, g->outputs.v[i].node);
        size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
        char *x = snU_alloc(a, bytes + 1), *y = snU_alloc(a, bytes + 1);
        const char *out = snU_str(g->ctx, g->outputs.v[i].name);
        if (sn_read(s1, name, out, x, bytes) < 0 || sn_read(s2, name, out, y, bytes) < 0 || memcmp(x, y, bytes)) return false;
    }
    return true;
}

static bool run_test(Suite *s, sn_session *const *session, const Graph *g, const Test *t) {
    Arena a = {0};
    EvalEnv env;
    StrBuf report = {0};
    bool ok = true;
    SN_ENTER(s->c, { printf("FAILED %s\n%s\n", s->c->message, strchr(t->text, '|') + 1); sn_clear(s->c); return false; });
    fill(g, t->text, &a, &env);
    for (int i = 0; i < 2 && ok; i++) ok = snV_verify(session[i], t->name, g, &env, false, &report) == 0;
    if (ok && !same_bits(session[0], session[1], g, t->name, &a)) {
        ok = false;
        snU_puts(&report, "FAILED bits differ between 1 and 2 threads\n");
    }
    SN_LEAVE(s->c);
    if (!ok) printf("%s%s", report.s ? report.s : "", strchr(t->text, '|') + 1);
    snU_free_buf(&report);
    snU_free_arena(&a);
    return ok;
}

static int missing_cases(Suite *s) {
    int n = 0;
    for (unsigned id = 1; id < snG_num_ops(s->c); id++) {
        const OpInfo *op = snG_op(s->c, id);
        if (op->cls == C_LEAF || op->cls == C_EWISE || id == OP_const || id == OP_part) continue;
        const char *p = s->covered.s, *name = op->cname;
        while (p && (p = strstr(p, name)) && p[strlen(name)] != '(') p++;
        if (!p) printf("FAILED no case for op %s\n", name), n++;
    }
    return n;
}

/* Builds and runs the graphs of `text`, which are tests from..from + graphs - 1. Returns the number of failures; passes in *passed. */
static const char *device = "host";                    /* NULL: what suits the target */
static char target[64];

static int run_module(Suite *s, const char *text, size_t bytes, uint32_t from, int *passed, BuildStats *stats) {
    Module *m = snG_parse(s->c, "unit_ops", text, bytes, NULL, 0);
    if (!m) return printf("FAILED parse: %s\n", s->c->message), 1;
    SnProgram *p = snK_build(m, &(BuildOptions){ .target = target, .verbose = getenv("SN_VERBOSE") != NULL }, stats);
    if (!p) return printf("FAILED build: %s\n", s->c->message), 1;
    sn_session *session[2];
    int failed = 0;
    for (int i = 0; i < 2; i++) {
        session[i] = sn_session_new(p, &(sn_session_desc){ .device = device, .seed = seed, .threads = i + 1, .poison = true });
        if (!session[i]) return printf("FAILED session: %s\n", sn_rt_error()), 1;
    }
    for (uint32_t i = 0; i < m->graphs.n; i++) {
        if (run_test(s, session, m->graphs.v[i], &s->tests.v[from + i])) ++*passed;
        else failed++;
    }
    for (int i = 0; i < 2; i++) sn_session_free(session[i]);
    snR_program_free(p);
    snG_free_module(m);
    return failed;
}

/* --each: every test in a process of its own, so that an abort fails one test and is printed with it. */
static int run_each(Suite *s, int *passed) {
    int failed = 0;
    for (uint32_t i = 0; i < s->tests.n; i++) {
        const char *text = strchr(s->tests.v[i].text, '|') + 1;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            BuildStats stats = {0};
            int ok = 0, bad = run_module(s, text, strlen(text), i, &ok, &stats);
            fflush(NULL);
            _exit(bad != 0);
        }
        int status = 1;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("FAILED signal %d\n%s", WTERMSIG(status), text);
        if (status == 0) ++*passed;
        else failed++;
    }
    return failed;
}

int main(int argc, char **argv) {
    bool each = argc > 1 && !strcmp(argv[1], "--each");
    argv += each, argc -= each;
    int every = 1;
    if (argc > 2 && !strcmp(argv[1], "--device")) device = argv[2], argv += 2, argc -= 2;
    if (sn_device_target(device, target)) return printf("skipped: %s\n0 passed, 0 failed\n", sn_rt_error()), 0;
    if (argc > 2 && !strcmp(argv[1], "-t")) device = NULL, snprintf(target, sizeof target, "%s", argv[2]), argv += 2, argc -= 2;
    if (argc > 2 && !strcmp(argv[1], "--seed")) seed = strtoull(argv[2], NULL, 10), argv += 2, argc -= 2;
    if (argc > 2 && !strcmp(argv[1], "--every")) every = atoi(argv[2]), argv += 2, argc -= 2;
    Suite s = { .c = sn_ctx_new(), .every = every > 0 ? every : 1, .parts = 1 };
    if (argc > 2 && !strcmp(argv[1], "--part") && sscanf(argv[2], "%d/%d", &s.part, &s.parts) == 2 && s.parts > 0) argv += 2, argc -= 2;
    s.only = argv + 1;
    add_ewise_rows(&s);
    for (int i = 0; i < NCASES; i++) add_case(&s, &cases[i]);
    int passed = 0, failed = argc > 1 ? 0 : missing_cases(&s);
    BuildStats stats = {0};
    if (each) failed += run_each(&s, &passed);
    else failed += run_module(&s, s.text.s ? s.text.s : "", s.text.n, 0, &passed, &stats);
    if (!each) printf("%d launches, %d kernels, compiled in %.1f s\n", stats.kernels, stats.unique_kernels, stats.compile_s);
    printf("%d passed, %d failed\n", passed, failed);
    snU_free_buf(&s.text);
    snU_free_buf(&s.covered);
    snU_free_arena(&s.a);
    sn_ctx_free(s.c);
    return failed != 0;
}
