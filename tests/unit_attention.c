/* unit_attention.c: fused attention, compiled, against attention written out, evaluated. In: [--all] [--empty] [--seed N] [--autocast bf16|tf32]
   [--assemble] [--device D | -t TARGET] [words of a case's name]. Out: `N passed, N failed`.

   A case is a mask of models/masks.sn, or some other feature, at given sizes. Two graphs differ in one op:
   `attention(...)`, or the same in matrix products and a softmax. The first is differentiated and compiled; the second
   is differentiated and evaluated, in f64 and as typed. Output, loss and the gradients of q, k, v and bias must meet
   the tolerance of design.md 8, on 1 and 3 threads with the same bits, over poisoned memory. Without --all each mask
   comes at three lengths, some widths. --empty: under each mask a query in the middle sees nothing.

   The gradients of q and k come from dp - delta, two sums over the width of v that are nearly equal where a query sees
   very few keys; written out, they cancel exactly where it sees one. The kernels know that case. Of halves (--autocast) delta comes
   from the rounded result, so with few keys the bar is the rounding of those sums.

   FORMS are written out as models write them; the first graph is what `recognise` makes of them.

   --autocast: the same with operands of that dtype on both sides; of outputs with few elements, sums over all others, the naive error is a
   draw and no measure, so they are left out. --assemble: nothing runs, ptxas takes the kernels and must spill nothing. */
#include <math.h>
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tests/check.h"
#include "tools/verify.h"

typedef struct Sizes { int B, H, K, T, S, D, V; } Sizes;     /* batch, heads of q, of k and v, queries, keys, widths */
typedef struct Case { char name[64]; Sizes n; const char *text, *sched; } Case;      /* text: mask = .., bias = .. */

static const char *target = "host", *device;      /* device NULL: what suits the target */
static const char *autocast;
static bool assemble, empty;
static uint64_t seed = 3;

/* --device D or -t TARGET; 0 or what was wrong. */
static int choose_target(const char *option, const char *name) {
    static char found[64];
    if (!strcmp(option, "-t")) return target = name, 0;
    return target = found, sn_device_target(device = name, found);
}

/* -- Cases ---------------------------------------------------------------------------------------------------- */

/* T: queries, S: keys; docs: documents of 5 to 90 positions; keep: bool [B, 1, T, S]; any: f32 [H, T, S]. */
static const struct { const char *name, *text; } MASKS[] = {
    { "full", "" },
    { "causal", "mask = causal_mask(T)" },
    { "window", "mask = window_mask(T, 40)" },
    { "prefix", "mask = prefix_mask(T, 70)" },
    { "prefix by sample", "mask = prefix_mask(T, reshape(len, [B, 1, 1, 1]))" },
    { "documents", "mask = document_mask(doc)" },
    { "causal documents", "mask = causal_document_mask(doc)" },
    { "dilated", "mask = dilated_mask(T, 2)" },
    { "random tensor", "mask = keep" },
    { "an empty row", "mask = causal_mask(T) and query_index(T) != T - 1" },
    { "no key at all", "mask = query_index(T) < 0" },
};
static const Case OTHERS[] = {
    { "block diffusion, 2 x 3", { 2, 2, 2, 6, 6, 64, 64 }, "mask = block_diffusion_mask(3, 2)" },
    { "block diffusion, 2 x 100", { 1, 2, 2, 200, 200, 32, 32 }, "mask = block_diffusion_mask(100, 16)" },
    { "block diffusion, 2 x 129", { 1, 2, 2, 258, 258, 48, 48 }, "mask = block_diffusion_mask(129, 4)" },
    { "one key each", { 2, 2, 1, 40, 40, 48, 48 }, "mask = query_index(T) == key_index(S)" },          /* no gradient of q and k, exactly */
    { "one key each of many", { 1, 2, 2, 257, 257, 32, 32 }, "mask = query_index(T) == key_index(S)" },
    { "more keys than queries", { 2, 2, 2, 37, 131, 32, 32 }, "mask = query_index(T) + (S - T) >= key_index(S)" },
    { "more queries than keys", { 1, 3, 3, 150, 41, 32, 32 }, "" },
    { "one query", { 2, 4, 4, 1, 300, 64, 64 }, "mask = key_index(S) < 211" },
    { "v wider", { 1, 2, 2, 65, 65, 32, 80 }, "mask = causal_mask(T)" },
    { "v narrower", { 1, 2, 2, 65, 65, 96, 16 }, "mask = causal_mask(T)" },
    { "width 1", { 1, 2, 2, 33, 33, 1, 1 }, "" },
    { "grouped heads", { 2, 6, 2, 70, 70, 32, 32 }, "mask = causal_mask(T)" },
    { "one key head", { 2, 4, 1, 129, 129, 64, 64 }, "mask = causal_mask(T)" },
    { "cap", { 1, 2, 2, 131, 131, 64, 64 }, "mask = causal_mask(T)\ncap = 1.5" },
    { "bias", { 2, 2, 2, 67, 67, 32, 32 }, "mask = causal_mask(T)\nbias = any" },
    { "bias by distance", { 1, 4, 4, 130, 130, 32, 32 },
      "mask = causal_mask(T)\nslope = reshape(cast(iota([H], 0) + 1, f32) * 0.1, [H, 1, 1])\n"
      "bias = cast(key_index(T) - query_index(T), f32) * slope" },
    { "bias of -inf", { 2, 2, 2, 67, 67, 32, 32 }, "bias = select(keep, any, -inf)" },
    { "bias, cap, mask", { 1, 2, 2, 67, 67, 32, 32 }, "mask = keep\nbias = any\ncap = 3.0" },
    { "dropout", { 2, 3, 3, 130, 130, 48, 48 }, "mask = causal_mask(T)\ndrop = 0.3" },
    { "dropout, bias, cap", { 1, 2, 1, 67, 67, 32, 32 }, "mask = causal_mask(T)\nbias = any\ncap = 2.0\ndrop = 0.5" },
    { "two backward programs", { 1, 2, 2, 257, 257, 64, 64 }, "mask = causal_document_mask(doc)",
      "attention_grad:whole=0" },
    { "one backward program", { 1, 1, 1, 257, 257, 64, 64 }, "mask = causal_document_mask(doc)",
      "attention_grad:whole=1" },
    { "two backward programs, cap, dropout", { 2, 2, 1, 131, 131, 32, 32 },
      "mask = window_mask(T, 30)\ncap = 2.0\ndrop = 0.2", "attention_grad:whole=0" },
    { "small blocks", { 1, 2, 2, 101, 101, 32, 32 }, "mask = window_mask(T, 20)",
      "attention:bq=16,bk=32;attention_grad:bq=16,bk=32" },
};

/* Attention as models write it, over q, k, v of other ranks and layouts; what must be recognised. */
static const struct { const char *name, *text; } FORMS[] = {
    { "rank 3", "input q: f32[6, 70, 32]\ninput k: f32[6, 50, 32]\ninput v: f32[6, 50, 32]\n"
      "y = softmax(q @ permute(k, [0, 2, 1]) / sqrt(32)) @ v" },
    { "rank 2", "input q: f32[70, 32]\ninput k: f32[50, 32]\ninput v: f32[50, 48]\n"
      "y = softmax(select(query_index(70) % 7 != key_index(50) % 7, matmul(q, k, tb=1), -inf)) @ v" },
    { "rank 5", "input q: f32[2, 2, 3, 40, 32]\ninput k: f32[2, 2, 1, 40, 32]\ninput v: f32[2, 2, 1, 40, 32]\n"
      "s = matmul(q, expand(k, [2, 2, 3, 40, 32]), tb=1) / sqrt(32)\n"
      "y = softmax(select(causal_mask(40) as _, s, -inf)) @ expand(v, [2, 2, 3, 40, 32])" },
    { "heads inside", "input q: f32[2, 40, 3, 32]\ninput k: f32[2, 40, 3, 32]\ninput v: f32[2, 40, 3, 32]\n"
      "s = matmul(permute(q, [0, 2, 1, 3]), permute(k, [0, 2, 3, 1])) / sqrt(32)\n"
      "s = s + select(causal_mask(40) as _, 0.0, -inf)\n"
      "y = permute(softmax(s) @ permute(v, [0, 2, 1, 3]), [0, 2, 1, 3])" },
    { "one projection", "input q: f32[2, 40, 96]\ninput k: f32[96, 288]\ninput v: f32[96]\n"
      "a, b, c = split(rmsnorm(q, v) @ k, 2, 3)\ns = matmul(split_heads(a, 3), split_heads(b, 3), tb=1) * 0.17\n"
      "y = merge_heads(softmax(select(window_mask(40, 9) as _, s, -inf)) @ split_heads(c, 3))" },
    { "softmax by hand", "input q: f32[2, 3, 40, 32]\ninput k: f32[2, 3, 40, 32]\ninput v: f32[2, 3, 40, 32]\n"
      "s = select(causal_mask(40) as _, matmul(q, k, tb=1) / sqrt(32), -inf)\ne = exp(s - amax(s, axis=-1))\n"
      "y = (e / sum(e, -1)) @ v" },
    { "capped, dropped", "input q: f32[2, 3, 40, 32]\ninput k: f32[2, 3, 40, 32]\ninput v: f32[2, 3, 40, 32]\n"
      "s = 3.0 * tanh(matmul(q, k, tb=1) / sqrt(32) / 3.0)\n"
      "y = dropout(softmax(select(causal_mask(40) as _, s, -inf)), 0.2) @ v" },
    { "learned bias", "input q: f32[2, 3, 40, 32]\ninput k: f32[2, 3, 40, 32]\ninput v: f32[2, 3, 40, 32]\n"
      "weight slope: f32[3, 1, 1] = normal(0.1)\n"
      "s = matmul(q, k, tb=1) / sqrt(32) + slope * cast(key_index(40) as _ - query_index(40) as _, f32)\n"
      "y = softmax(select(causal_mask(40) as _, s, -inf)) @ v" },
};
static const int LENGTHS[] = { 1, 3, 257 }, WIDTHS[] = { 32, 48, 64, 80, 96, 128 };
enum { NMASKS = sizeof MASKS / sizeof *MASKS, NOTHERS = sizeof OTHERS / sizeof *OTHERS, NLENGTHS = 3, NWIDTHS = 6,
       NFORMS = sizeof FORMS / sizeof *FORMS };

/* -- Graphs --------------------------------------------------------------------------------------------------- */

/* wide(x): over [B, H, T, S], as numpy would broadcast it. */
static const char HEAD[] =
    "import \"models/masks.sn\"\n"
    "block ones_before(x) { return rank(x) == 2 ? [1, 1] + shape(x) : rank(x) == 3 ? [1] + shape(x) : shape(x) }\n"
    "block wide(x) { return is_node(x) ? expand(reshape(x, ones_before(x)), [B, H, T, S]) : x }\n"
    "block fused(q, k, v, mask, bias, gain, cap) {\n"
    "  return attention(q, k, v, wide(mask) as _, wide(bias) as _, gain, scale=1.0 / sqrt(D), cap=cap)\n}\n"
    "block written(q, k, v, mask, bias, gain, cap) {\n"
    "  s = matmul(q, k, tb=1) / sqrt(D)\n"
    "  s = (cap > 0 ? cap * tanh(s / cap) : s) + bias\n"
    "  return (softmax(is_node(mask) ? select(mask, s, -inf) : s) * gain) @ v\n}\n";
static const char INPUTS[] =
    "  input q: f32[B, H, T, D]\n  input k: f32[B, K, S, D]\n  input v: f32[B, K, S, V]\n"
    "  input goal: f32[B, H, T, V]\n"
    "  input doc: i32[B, T]\n  input len: i32[B]\n  input keep: bool[B, 1, T, S]\n  input any: f32[H, T, S]\n"
    "  mask = true\n  bias = 0.0\n  cap = 0.0\n  drop = 0.0\n";

static Module *parse(sn_ctx *c, const Case *k, const char *how) {
    const Sizes *n = &k->n;
    StrBuf b = {0};
    snU_putf(&b, "%sdim B = %d\ndim H = %d\ndim K = %d\ndim T = %d\n", HEAD, n->B, n->H, n->K, n->T);
    snU_putf(&b, "dim S = %d\ndim D = %d\ndim V = %d\n", n->S, n->D, n->V);
    snU_putf(&b, "graph g {\n%s%s\n", INPUTS, k->text);
    if (empty) snU_puts(&b, "  mask = mask and query_index(T) != floor(T / 2.0)\n");
    snU_putf(&b, "  gain = drop > 0 ? select(random([B, H, T, S], stream=77) < drop, 0.0, 1 / (1 - drop)) : 1.0\n"
                 "  y = %s(q, repeat_heads(k, H / K), repeat_heads(v, H / K), mask, bias, gain, cap)\n"
                 "  output y = y\n  output loss = sum((y - goal) * (y - goal))\n}\n", how);
    Module *m = snG_parse(c, "attention.sn", b.s, b.n, NULL, 0);
    if (!m) ok(false, "%s: %s", k->name, c->message);
    snU_free_buf(&b);
    return m;
}

/* -- Values --------------------------------------------------------------------------------------------------- */

/* Documents of 5 to 90 positions; prefixes of up to 100; one key in four is hidden by `keep`. */
static void fill_leaf(const Graph *g, const Leaf *l, EvalVal *v) {
    const Type *t = snG_type(g, l->node);
    const char *name = snU_str(g->ctx, l->name);
    int64_t row = t->rank ? t->dim[t->rank - 1] : 1, doc = 0;
    uint32_t key[2] = { (uint32_t)seed, l->name }, r[4];
    for (int64_t i = 0; i < v->n; i++) {
        snG_philox(key, (uint32_t[4]){ (uint32_t)i }, r);
        if (!strcmp(name, "doc")) v->v[i] = (double)(doc = i % row ? doc + (r[0] % 40 == 0) : 0);
        else if (!strcmp(name, "len")) v->v[i] = 1 + r[0] % 100;
        else if (t->dtype == SN_BOOL) v->v[i] = r[0] % 4 != 0;
    }
}

static void seed_inputs(const Graph *g, Arena *a, EvalEnv *env) {
    snP_seed_inputs(g, seed, SEED_WEIGHTS, a, env);
    env->seed = seed, env->step = 2;
    for (uint32_t i = 0; i < g->leaves.n; i++)
        for (int k = 0; k < env->n; k++)
            if (!strcmp(env->names[k], snU_str(g->ctx, g->leaves.v[i].name)))
                fill_leaf(g, &g->leaves.v[i], (EvalVal *)&env->vals[k]);
}

/* -- Running -------------------------------------------------------------------------------------------------- */

static bool same_bits(sn_session *const *s, const Graph *g, Arena *a) {
    for (uint32_t i = 0; i < g->outputs.n; i++) {
        const Type *t = snG_type(g, g->outputs.v[i].node);
        size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
        char *x = snU_alloc(a, bytes + 1), *y = snU_alloc(a, bytes + 1);
        const char *out = snU_str(g->ctx, g->outputs.v[i].name);
        if (sn_read(s[0], "g", out, x, bytes) < 0 || sn_read(s[1], "g", out, y, bytes) < 0) return false;
        if (memcmp(x, y, bytes)) return false;
    }
    return true;
}

static double largest(const EvalEnv *env, const char *name) {
    double most = 0;
    for (int k = 0; k < env->n; k++)
        for (int64_t i = 0; !strcmp(env->names[k], name) && i < env->vals[k].n; i++)
            most = fmax(most, fabs(env->vals[k].v[i]));
    return most;
}

/* The op's results are values of the half dtype, and what reads them reads that. */
static Graph *round_results(const Graph *old, Dtype half) {
    static const char *const results[] = { "y", "grad.q", "grad.k", "grad.v" };
    Rebuild r = snG_rebuild(old);
    for (NodeId id = 1; id < old->nodes.n; id++) {
        r.map[id] = snG_copy_node(&r, id);
        for (uint32_t i = 0; i < old->outputs.n; i++) {
            if (old->outputs.v[i].node != id) continue;
            const char *name = snU_str(old->ctx, old->outputs.v[i].name);
            for (int k = 0; k < 4; k++) {
                if (strcmp(name, results[k])) continue;
                Attrs to[] = { { .v[0] = { .kind = A_DTYPE, .i = { half } } }, { .v[0] = { .kind = A_DTYPE, .i = { SN_F32 } } } };
                for (int n = 0; n < 2; n++) r.map[id] = snG_add(r.g, (Here){ 0 }, OP_cast, &r.map[id], 1, &to[n]);
            }
        }
    }
    return snG_finish(&r);
}

/* Leaves out what has too few elements for their errors to say what is usual. */
static void leave_out(Graph *g) {
    enum { FEWEST = 64 };
    for (uint32_t i = g->outputs.n; i-- > 0;) if (snG_count(snG_type(g, g->outputs.v[i].node)) < FEWEST) g->outputs.v[i] = g->outputs.v[--g->outputs.n];
}

typedef struct Reference { Graph *g; NodeId grad[2]; EvalVal *f64; } Reference;   /* grad: set apart: halves, and few keys */
static const char *const GRADS[] = { "grad.q", "grad.k" };
enum { FEW = 16 };

/* Takes the gradients of q and k out of the outputs that are compared as all others. */
static void set_apart(Reference *r, const EvalEnv *env, Arena *a) {
    Graph *g = r->g;
    r->f64 = NEWN(a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, env, a, r->f64);
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < g->outputs.n; i++) {
            if (strcmp(snU_str(g->ctx, g->outputs.v[i].name), GRADS[k])) continue;
            r->grad[k] = g->outputs.v[i].node;
            g->outputs.v[i] = g->outputs.v[--g->outputs.n];
        }
}

/* dp and delta: sums of V products of dy = 2 (y - goal) and v, each off by at most V roundings. Then p <= 1 times the
   other operand, added over keys (for q) or queries (for k). */
static void check_apart(const Case *k, sn_session *s, const Reference *r, const EvalEnv *env, Arena *a) {
    const Sizes *z = &k->n;
    double dy = 2 * (largest(env, "v") + largest(env, "goal"));
    double ulp = strstr(k->name, "one key each") ? 0x1p-24 : !strcmp(autocast, "bf16") ? 0x1p-8 : 0x1p-11;     /* one key: y is v, exactly */
    double ds = 2 * z->V * ulp * dy * largest(env, "v") / sqrt(z->D);
    for (int i = 0; i < 2; i++) {
        int64_t n = snG_count(snG_type(r->g, r->grad[i]));
        float *v = NEWN(a, float, n);
        double most = 0, bar = ds * largest(env, i ? "q" : "k") * (i ? z->T * z->H / z->K : z->S);
        ok(!sn_read(s, "g", GRADS[i], v, (size_t)n * sizeof *v), "%s: %s", k->name, GRADS[i]);
        for (int64_t e = 0; e < n; e++) most = fmax(most, fabs((double)v[e] - r->f64[r->grad[i]].v[e]));
        ok(most <= bar, "%s: %s with %d keys is off by %g; rounding explains %g", k->name, GRADS[i], z->S, most, bar);
    }
}

static void compare(const Case *k, const SnProgram *p, Graph *ref) {
    Arena a = {0};
    StrBuf report = {0};
    EvalEnv env = {0};
    Reference r = { .g = ref };
    const Sizes *n = &k->n;
    sn_session *s[2];
    bool good = true;
    seed_inputs(ref, &a, &env);
    env.tf32 = autocast && !strcmp(autocast, "tf32") && !strncmp(target, "ptx", 3);
    if (autocast) leave_out(ref);
    bool apart = autocast && (n->S < FEW || strstr(k->name, "one key each"));
    if (apart) set_apart(&r, &env, &a);
    for (int i = 0; i < 2; i++) {
        s[i] = sn_session_new(p, &(sn_session_desc){ .device = device, .seed = env.seed, .threads = 1 + 2 * i, .poison = true });
        good = good && s[i] && snV_verify(s[i], "g", ref, &env, false, &report) == 0;
    }
    ok(good, "%s, B %d, heads %d / %d, %d x %d, width %d, %d: %s", k->name, n->B, n->H, n->K, n->T, n->S, n->D, n->V,
       report.n ? report.s : sn_rt_error());
    if (good) ok(same_bits(s, ref, &a), "%s: bits differ with the number of threads", k->name);
    if (good && apart) check_apart(k, s[0], &r, &env, &a);
    for (int i = 0; i < 2; i++) if (s[i]) sn_session_free(s[i]);
    snU_free_buf(&report);
    snU_free_arena(&a);
}

static uint32_t count_ops(const Graph *g, const char *op) {
    uint32_t n = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) n += !strcmp(snG_op(g->ctx, snG_node(g, id)->op)->cname, op);
    return n;
}

/* All kernels through ptxas. */
static void check_assembly(const Case *k, sn_ctx *c, const SnProgram *p) {
    PtxasKernel *of = calloc((size_t)p->nkernels, sizeof *of);
    void *cubin = NULL;
    size_t bytes = 0;
    char err[512] = "";
    bool good = of && !snK_ptxas(c, p, of, &cubin, &bytes, err);
    int spills = 0;
    for (int i = 0; i < p->nkernels && good; i++) spills += of[i].spill_stores + of[i].spill_loads;
    ok(good && !spills, "%s, %d x %d, width %d, %d: %d bytes spilled %s", k->name, k->n.T, k->n.S, k->n.D, k->n.V, spills, err);
    free(cubin), free(of);
}

/* g: attention's gradient ops; ref: none. Frees both. */
static void run_pair(const Case *k, Graph *g, Graph *ref) {
    sn_ctx *c = g->ctx;
    ok(count_ops(g, "attention_dq") == 1 && count_ops(ref, "attention_dq") == 0, "%s: the gradient ops", k->name);
    Module one = { .ctx = c, .graphs = { &g, 1, 1 } };
    SnProgram *p = snK_build(&one, &(BuildOptions){ .target = target, .sched = k->sched, .autocast = autocast }, NULL);
    Graph *cast = autocast ? snP_run(c, ref, &(PassOptions){ .autocast = autocast }, "expand,autocast") : NULL, *wide = cast;
    if (cast && strcmp(autocast, "tf32")) cast = round_results(wide, SN_BF16), snG_free(wide);
    if (p && assemble) check_assembly(k, c, p);
    else if (p) compare(k, p, cast ? cast : ref);
    else ok(false, "%s: %s", k->name, c->message);
    snR_program_free(p);
    if (cast) snG_free(cast);
    snG_free(g), snG_free(ref);
}

static const PassOptions inputs = { .grad_inputs = true };

static void run_case(const Case *k) {
    sn_ctx *c = sn_ctx_new();
    Module *fused = parse(c, k, "fused"), *written = fused ? parse(c, k, "written") : NULL;
    if (!written) return;
    SN_ENTER(c, { ok(false, "%s: %s", k->name, c->message); return; });
    run_pair(k, snP_run(c, fused->graphs.v[0], &inputs, "grad"), snP_run(c, written->graphs.v[0], &inputs, "grad"));
    SN_LEAVE(c);
    snG_free_module(fused), snG_free_module(written);
    sn_ctx_free(c);
}

static void run_form(const char *name, const char *text) {
    sn_ctx *c = sn_ctx_new();
    StrBuf b = {0};
    Case k = { .n = { .S = FEW } };
    snprintf(k.name, sizeof k.name, "%s", name);
    snU_putf(&b, "import \"models/masks.sn\"\ngraph g {\n%s\noutput y = y\n", text);
    snU_puts(&b, "output loss = sum((y - 0.7) * (y - 0.7))\n}\n");
    Module *m = snG_parse(c, "form.sn", b.s, b.n, NULL, 0);
    snU_free_buf(&b);
    if (!m) { ok(false, "%s: %s", name, c->message); return; }
    SN_ENTER(c, { ok(false, "%s: %s", name, c->message); return; });
    const Graph *g = m->graphs.v[0];
    run_pair(&k, snP_run(c, g, &inputs, "canon,recognise,grad"), snP_run(c, g, &inputs, "grad"));
    SN_LEAVE(c);
    snG_free_module(m);
    sn_ctx_free(c);
}

static bool wanted(const char *name, char **words) {
    for (char **w = words; *w; w++)
        if (strstr(name, *w)) return true;
    return !*words;
}

int main(int argc, char **argv) {
    bool all = argc > 1 && !strcmp(argv[1], "--all");
    argc -= all, argv += all;
    empty = argc > 1 && !strcmp(argv[1], "--empty");
    argc -= empty, argv += empty;
    if (argc > 2 && !strcmp(argv[1], "--seed")) seed = strtoull(argv[2], NULL, 10), argc -= 2, argv += 2;
    if (argc > 2 && !strcmp(argv[1], "--autocast")) autocast = argv[2], argc -= 2, argv += 2;
    if (argc > 1 && !strcmp(argv[1], "--assemble")) assemble = true, argc--, argv++;
    if (argc > 2 && argv[1][0] == '-') {
        if (choose_target(argv[1], argv[2])) return printf("skipped: %s\n0 passed, 0 failed\n", sn_rt_error()), 0;
        argv += 2;
    }
    char **words = argv + 1;
    for (int m = 0; m < NMASKS; m++)
        for (int l = 0; l < NLENGTHS; l++)
            for (int w = 0; w < NWIDTHS; w++) {
                int T = LENGTHS[l], D = WIDTHS[w], B = T > 100 ? 1 : 2;
                Case k = { .n = { B, 2, 1 + w % 2, T, T, D, D }, .text = MASKS[m].text };
                snprintf(k.name, sizeof k.name, "%s", MASKS[m].name);
                if ((all || (m + l + w) % NWIDTHS == 0) && wanted(k.name, words)) run_case(&k);
            }
    for (int i = 0; i < NOTHERS; i++)
        if (wanted(OTHERS[i].name, words)) run_case(&OTHERS[i]);
    for (int i = 0; i < NFORMS; i++)
        if (wanted(FORMS[i].name, words)) run_form(FORMS[i].name, FORMS[i].text);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
