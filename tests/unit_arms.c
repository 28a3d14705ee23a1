/* unit_arms.c: what the arms of models/ compute, in the reference evaluator (f64), against formulas written another way.

   Kernels and objectives of noise.sn: the NELBO of the uniform kernel against the difference of two Markov processes' rates, and
   its integral against an entropy; each objective's expectation against the mean over all masks. Block diffusion with one
   block against dlm.sn, with blocks of one token over all strings; experts over all strings. Moments of the weight noise. Out: `N passed, N failed`. */
#include <math.h>
#include "graph/graph.h"
#include "tests/check.h"

static uint32_t step = 1;

typedef struct Feed { const char *name; const double *v; int64_t n; } Feed;

/* Evaluates graph `name` of a text, a file of models/ (or NULL: of the file models/test), with params; the output `out` into v. */
static void evaluate_graph(const char *test, const char *text, const char *name, const Define *params, int nparams, const Feed *feeds, int n,
                           const char *out, double *v) {
    sn_ctx *c = sn_ctx_new();
    Arena a = {0};
    char path[64];
    snprintf(path, sizeof path, "models/%s", test);
    Module *m = text ? snG_parse(c, path, text, strlen(text), params, nparams) : snG_load(c, path, params, nparams);
    if (!m) printf("%s\n", c->message), exit(1);
    SN_ENTER(c, { printf("%s\n", c->message); exit(1); });
    const Graph *g = snG_get(m, name);
    if (!g) printf("%s has no graph %s\n", path, name), exit(1);
    const char *names[16];
    EvalVal vals[16], *all = NEWN(&a, EvalVal, g->nodes.n);
    for (int i = 0; i < n; i++) names[i] = feeds[i].name, vals[i] = (EvalVal){ (double *)feeds[i].v, feeds[i].n };
    snG_eval(g, EVAL_F64, &(EvalEnv){ names, vals, n, .seed = 3, .step = step }, &a, all);
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strcmp(snU_str(c, g->outputs.v[i].name), out)) {
            EvalVal x = all[g->outputs.v[i].node];
            memcpy(v, x.v, sizeof *v * (size_t)x.n);
        }
    SN_LEAVE(c);
    snU_free_arena(&a);
    snG_free_module(m);
    sn_ctx_free(c);
}

static void evaluate_with(const char *text, const char *param, const char *value, const Feed *feeds, int n, const char *out, double *v) {
    evaluate_graph("test.sn", text, "g", &(Define){ param, value }, param != NULL, feeds, n, out, v);
}
static void evaluate(const char *text, const Feed *feeds, int n, const char *out, double *v) {
    evaluate_with(text, NULL, NULL, feeds, n, out, v);
}

static double uniform(void) {                                    /* (0, 1) */
    static uint32_t i;
    uint32_t key[2] = { 17, 0 }, ctr[4] = { i++, 0, 0, 0 }, w[4];
    snG_philox(key, ctr, w);
    return (w[0] + 0.5) * 0x1p-32;
}

/* -- The uniform kernel ---------------------------------------------------------------------------------------------- */

enum { N = 5, ROWS = 40 };

/* q(x_t = y) where the clean token has the distribution x: alpha x + (1 - alpha) / N. */
static double marginal(const double *x, int y, double p) { return (1 - p) * x[y] + p / N; }

/* The forward process jumps to each other token at the rate beta / N, beta = -alpha' / alpha. Reversed from `noisy`, it jumps to y at
   beta / N q(y) / q(noisy); the bound adds up r log(r / s) - r + s over jumps, r of the clean token known, s of the model. */
static double rates_nelbo(const double *guess, int clean, int noisy, double p, double slope) {
    double known[N] = {0}, sum = 0, beta = slope / (1 - p);
    known[clean] = 1;
    for (int y = 0; y < N; y++) {
        if (y == noisy) continue;
        double r = beta / N * marginal(known, y, p) / marginal(known, noisy, p);
        double s = beta / N * marginal(guess, y, p) / marginal(guess, noisy, p);
        sum += r * log(r / s) - r + s;
    }
    return sum;
}

static const char UNIFORM[] = "import \"noise.sn\"\n"
    "graph g {\n  input logits: f32[40, 1, 7]\n  input clean: i32[40, 1]\n  input noisy: i32[40, 1]\n"
    "  input p: f32[40, 1]\n  input slope: f32[40, 1]\n  output y = uniform_nelbo(logits, clean, noisy, p, slope, 5)\n}\n";

/* Seven logits, of which five are classes. */
static void test_rates(void) {
    double logits[ROWS * 7], clean[ROWS], noisy[ROWS], p[ROWS], slope[ROWS], got[ROWS];
    for (int i = 0; i < ROWS * 7; i++) logits[i] = 6 * uniform() - 3;
    for (int i = 0; i < ROWS; i++) {
        clean[i] = floor(N * uniform());
        noisy[i] = i % 3 ? floor(N * uniform()) : clean[i];
        p[i] = i < 4 ? 1e-4 : i < 8 ? 1 - 1e-3 : uniform();
        slope[i] = 0.5 + uniform();
    }
    evaluate(UNIFORM, (Feed[]){ { "logits", logits, ROWS * 7 }, { "clean", clean, ROWS }, { "noisy", noisy, ROWS },
                                { "p", p, ROWS }, { "slope", slope, ROWS } }, 5, "y", got);
    for (int i = 0; i < ROWS; i++) {
        double guess[N], sum = 0;
        for (int k = 0; k < N; k++) sum += guess[k] = exp(logits[i * 7 + k]);
        for (int k = 0; k < N; k++) guess[k] /= sum;
        double want = rates_nelbo(guess, (int)clean[i], (int)noisy[i], p[i], slope[i]);
        ok(fabs(got[i] - want) <= 1e-9 * (1 + fabs(want)), "uniform_nelbo at p = %g: %.9g, by rates %.9g", p[i], got[i], want);
    }
}

/* A text of one token with distribution pi. The model whose reverse rates are the true ones predicts pi, whatever the noisy token is: rates
   are ratios of marginals, and those of the text are alpha pi + (1 - alpha) / N. Then the bound is exact and its mean is pi's entropy: here by
   the midpoint rule over p, 40 points a call. */
static void test_entropy(void) {
    enum { CALLS = 25 };
    double pi[N] = { 0.5, 0.2, 0.15, 0.1, 0.05 }, entropy = 0, bound = 0;
    for (int k = 0; k < N; k++) entropy -= pi[k] * log(pi[k]);
    double logits[ROWS * 7] = {0}, clean[ROWS], noisy[ROWS], p[ROWS], slope[ROWS], got[ROWS];
    for (int call = 0; call < CALLS; call++)
        for (int pair = 0; pair < N * N; pair++) {
            int x = pair / N, y = pair % N;
            for (int i = 0; i < ROWS; i++) {
                p[i] = (call * ROWS + i + 0.5) / (CALLS * ROWS);
                clean[i] = x, noisy[i] = y, slope[i] = 1;
                for (int k = 0; k < N; k++) logits[i * 7 + k] = log(pi[k]);
            }
            evaluate(UNIFORM, (Feed[]){ { "logits", logits, ROWS * 7 }, { "clean", clean, ROWS }, { "noisy", noisy, ROWS },
                                        { "p", p, ROWS }, { "slope", slope, ROWS } }, 5, "y", got);
            for (int i = 0; i < ROWS; i++) {
                double one[N] = {0};
                one[x] = 1;
                bound += pi[x] * marginal(one, y, p[i]) * got[i] / (CALLS * ROWS);
            }
        }
    ok(fabs(bound - entropy) < 1e-3 * entropy, "the uniform kernel's bound of a known source: %.6f, its entropy %.6f", bound, entropy);
}

/* -- Objectives of the absorbing kernel --------------------------------------------------------------------------------- */

enum { T = 5, B = 4096 };

static const struct { const char *form, *schedule; bool bound; } OBJECTIVES[] = {
    { "count", "linear", true }, { "elbo", "linear", true }, { "maskgit", "linear", false },
    { "count", "cosine", true }, { "elbo", "cosine", true }, { "maskgit", "cosine", false },
};

/* f[mask][i]: any loss of position i under a mask. A bound's expectation is the mean over n on 1..T and all masks of n positions of the mean f;
   maskgit's is that with weights P(n) n / E n; by 16 x 4096 rows. */
static void test_objectives(void) {
    static double f[1 << T][T], t[B], u[B * T], hit[B * T], scale[B];
    char text[512];
    for (int m = 0; m < 1 << T; m++)
        for (int i = 0; i < T; i++) f[m][i] = 2 * uniform() + __builtin_popcount((unsigned)m) * 0.3;
    for (size_t o = 0; o < sizeof OBJECTIVES / sizeof *OBJECTIVES; o++) {
        double mean_of[T + 1] = {0}, ways[T + 1] = {0}, want = 0, norm = 0, sum = 0, sq = 0;
        for (int m = 1; m < 1 << T; m++) {
            int n = __builtin_popcount((unsigned)m);
            ways[n]++;
            for (int i = 0; i < T; i++) mean_of[n] += m >> i & 1 ? f[m][i] / n : 0;
        }
        for (int n = 1; n <= T; n++) {
            double weight = 1;
            if (!OBJECTIVES[o].bound) {                          /* P(n) n, by the midpoint rule over t */
                weight = 0;
                for (int k = 0; k < 4000; k++) {
                    double x = (k + 0.5) / 4000, p = strcmp(OBJECTIVES[o].schedule, "linear") ? cos(M_PI / 2 * (1 - x)) : x;
                    weight += n * ways[n] * pow(p, n) * pow(1 - p, T - n) / 4000;
                }
            }
            want += weight * mean_of[n] / ways[n];
            norm += weight;
        }
        want /= norm;
        snprintf(text, sizeof text, "import \"noise.sn\"\n"
                 "graph g {\n  input t: f32[4096, 1]\n  input u: f32[4096, 5]\n"
                 "  hit, scale = %s_mask(t, u, true)\n  output hit = hit\n  output scale = expand(scale, [4096, 1])\n}\n",
                 OBJECTIVES[o].form);
        bool count = !strcmp(OBJECTIVES[o].form, "count");
        int empty = 0;
        for (int round = 0; round < 16; round++) {
            for (int b = 0; b < B; b++) t[b] = (b + uniform()) / B;
            for (int i = 0; i < B * T; i++) u[i] = uniform();
            Feed feeds[] = { { "t", t, B }, { "u", u, B * T } };
            evaluate_with(text, "noise_schedule", OBJECTIVES[o].schedule, feeds, 2, "hit", hit);
            evaluate_with(text, "noise_schedule", OBJECTIVES[o].schedule, feeds, 2, "scale", scale);
            for (int b = 0; b < B; b++) {
                unsigned mask = 0;
                double row = 0;
                for (int i = 0; i < T; i++) mask |= (unsigned)(hit[b * T + i] != 0) << i;
                for (int i = 0; i < T; i++) row += mask >> i & 1 ? scale[b] * f[mask][i] : 0;
                empty += !mask;
                sum += row / (16 * B);
                sq += row * row / (16 * B);
            }
        }
        ok(!count || !empty, "count masks one position at least, not so in %d rows", empty);
        if (count) {                                             /* rows with n = 0 had one position masked */
            double none = 0;
            for (int k = 0; k < 4000; k++) {
                double x = (k + 0.5) / 4000, linear = !strcmp(OBJECTIVES[o].schedule, "linear"), p = linear ? x : cos(M_PI / 2 * (1 - x));
                none += pow(1 - p, T) * (linear ? 1 : M_PI / 2 * sin(M_PI / 2 * (1 - x))) / 4000;
            }
            want = want * T / (T + 1.0) + none * mean_of[1] / ways[1];
        }
        double se = sqrt((sq - sum * sum) / (16 * B));
        ok(fabs(sum - want) < 4 * se + 3e-3 * want, "%s, %s: mean %.5f +- %.5f, over all masks %.5f", OBJECTIVES[o].form, OBJECTIVES[o].schedule, sum, se, want);
    }
}

/* -- Block diffusion ----------------------------------------------------------------------------------------------------- */

enum { LEN = 6, VOC = 4, STRINGS = 64 };

/* Blocks of the whole window: dlm.sn's bound, under equal weights (named alike), masks and n. */
static void test_one_block(void) {
    Define params[] = { { "vocab", "4" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "seq", "6" }, { "batch", "8" },
                        { "block_size", "6" } };
    double tokens[8 * LEN], sample[8], n[8], one[8], two[8];
    for (int i = 0; i < 8 * LEN; i++) tokens[i] = floor((VOC - 1) * uniform());
    for (int i = 0; i < 8; i++) sample[i] = 100 + i, n[i] = 1 + floor(LEN * uniform());
    Feed feeds[] = { { "tokens", tokens, 8 * LEN }, { "sample", sample, 8 }, { "n", n, 8 } };
    evaluate_graph("dlm.sn", NULL, "eval", params, 7, feeds, 3, "nll", one);
    evaluate_graph("block_diffusion.sn", NULL, "eval", params, 8, feeds, 3, "nll", two);
    for (int i = 0; i < 8; i++) ok(fabs(one[i] - two[i]) < 1e-9, "one block: nll %.9f, of dlm.sn %.9f", two[i], one[i]);
}

/* Blocks of one token: a likelihood, exact: over all strings of three tokens it sums to one. */
static void test_blocks_of_one(void) {
    Define params[] = { { "vocab", "4" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "seq", "3" }, { "batch", "64" },
                        { "block_size", "1" } };
    double tokens[STRINGS * 3], sample[STRINGS] = {0}, n[STRINGS], nll[STRINGS], sum = 0;
    for (int s = 0; s < STRINGS; s++) {
        n[s] = 1 + s % 3;
        for (int i = 0; i < 3; i++) tokens[s * 3 + i] = s >> 2 * i & 3;
    }
    Feed feeds[] = { { "tokens", tokens, STRINGS * 3 }, { "sample", sample, STRINGS }, { "n", n, STRINGS } };
    evaluate_graph("block_diffusion.sn", NULL, "eval", params, 8, feeds, 3, "nll", nll);
    for (int s = 0; s < STRINGS; s++) sum += exp(-3 * nll[s]);
    ok(fabs(sum - 1) < 1e-9, "blocks of one: the likelihoods of all strings sum to %.9f", sum);
}

/* -- Mixture of experts ----------------------------------------------------------------------------------------------------- */

/* AR by token choice, with room for all choices or for half of them: whom a token asks, and who is full, depends on nothing after it, so
   over all strings of three tokens the likelihoods sum to one. Rows before take room too: each string is scored alone where it is scarce. */
static void test_experts_sum(void) {
    static const char *const room[] = { "0", "0.5" };
    for (int k = 0; k < 2; k++) {
        Define params[] = { { "vocab", "4" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "seq", "3" },
                            { "batch", "1" }, { "experts", "4" }, { "eval_capacity", room[k] } };
        double tokens[3], nll, sum = 0;
        for (int s = 0; s < STRINGS; s++) {
            for (int i = 0; i < 3; i++) tokens[i] = s >> 2 * i & 3;
            evaluate_graph("ar.sn", NULL, "eval", params, 9, (Feed[]){ { "tokens", tokens, 3 } }, 1, "nll", &nll);
            sum += exp(-3 * nll);
        }
        ok(fabs(sum - 1) < 1e-9, "experts, capacity %s: the likelihoods of all strings sum to %.9f", room[k], sum);
    }
}

/* With room for all choices, and where experts pick within a row: a row's loss is that of the row alone. */
static void test_experts_alone(void) {
    Define params[] = { { "vocab", "9" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "seq", "6" },
                        { "experts", "4" }, { "batch", "8" }, { "route", "tokens" } };
    double tokens[8 * LEN], sample[8], n[8], all[8], one;
    for (int i = 0; i < 8 * LEN; i++) tokens[i] = floor(8 * uniform());
    for (int i = 0; i < 8; i++) sample[i] = 100 + i, n[i] = 1 + floor(LEN * uniform());
    for (int k = 0; k < 2; k++) {
        params[8].value = k ? "experts" : "tokens";
        params[7].value = "8";
        evaluate_graph("dlm.sn", NULL, "eval", params, 9, (Feed[]){ { "tokens", tokens, 8 * LEN }, { "sample", sample, 8 }, { "n", n, 8 } }, 3, "nll", all);
        params[7].value = "1";
        for (int i = 0; i < 8; i++) {
            Feed row[] = { { "tokens", tokens + i * LEN, LEN }, { "sample", sample + i, 1 }, { "n", n + i, 1 } };
            evaluate_graph("dlm.sn", NULL, "eval", params, 9, row, 3, "nll", &one);
            ok(fabs(one - all[i]) < 1e-9, "experts, route=%s: nll of a row %.9f, alone %.9f", params[8].value, all[i], one);
        }
    }
}

/* -- Rows: documents, answers, cuts -------------------------------------------------------------------------------------- */

#define SHAPE(seq) { "vocab", "11" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "batch", "1" }, { "seq", seq }
enum { ROW = 12, FIRST = 5 };

static const char AR_LOSSES[] = "import \"ar.sn\"\n"
    "graph g {\n  input tokens: i32[B, T]\n  doc, length, open = row_marks(false)\n"
    "  output y = losses(shifted(tokens, doc), tokens, 0, doc=doc) as _\n}\n";
static const char DLM_LOSSES[] = "import \"dlm.sn\"\n"
    "graph g {\n  input tokens: i32[B, T]\n  input hit: i32[B, T]\n  output y = losses(tokens, hit != 0, row_marks(false), 0, 0) as _\n}\n";

/* Two documents in a row against each alone: no loss depends on the other document. */
static void test_documents(void) {
    static const char *const texts[] = { AR_LOSSES, DLM_LOSSES };
    double tokens[ROW], hit[ROW], doc[ROW], packed[ROW], alone[ROW], open[ROW];
    for (int i = 0; i < ROW; i++) tokens[i] = floor(10 * uniform()), hit[i] = uniform() < 0.5, doc[i] = i < FIRST ? 0 : FIRST;
    for (int arm = 0; arm < 2; arm++)
        for (int reset = 0; reset < 2; reset++) {
            Define whole[] = { SHAPE("12"), { "documents", reset ? "reset" : "mask" } }, one[] = { SHAPE("5") }, two[] = { SHAPE("7") };
            evaluate_graph("test.sn", texts[arm], "g", whole, 8, (Feed[]){ { "tokens", tokens, ROW }, { "doc", doc, ROW }, { "hit", hit, ROW } }, 2 + arm, "y", packed);
            evaluate_graph("test.sn", texts[arm], "g", one, 7, (Feed[]){ { "tokens", tokens, FIRST }, { "hit", hit, FIRST } }, 1 + arm, "y", alone);
            evaluate_graph("test.sn", texts[arm], "g", two, 7, (Feed[]){ { "tokens", tokens + FIRST, ROW - FIRST }, { "hit", hit + FIRST, ROW - FIRST } }, 1 + arm, "y", alone + FIRST);
            double worst = 0;
            for (int i = 0; i < ROW; i++) worst = fmax(worst, fabs(packed[i] - alone[i]));
            ok(worst < 1e-9, "%s, documents %s: packed and alone differ by %g", arm ? "dlm" : "ar", reset ? "reset" : "masked", worst);
            evaluate_graph("test.sn", texts[arm], "g", (Define[]){ SHAPE("12") }, 7, (Feed[]){ { "tokens", tokens, ROW }, { "hit", hit, ROW } }, 1 + arm, "y", open);
            ok(fabs(open[ROW - 1] - packed[ROW - 1]) > 1e-6, "documents see each other unless they are masked");
        }
}

static void test_answers(void) {
    double tokens[ROW], doc[ROW] = {0}, scored[ROW], n = 0, y[ROW], nll, want = 0, hit[64 * ROW], scale[64], open[64 * ROW], t[64], u[64 * ROW];
    for (int i = 0; i < ROW; i++) tokens[i] = floor(10 * uniform()), n += scored[i] = i >= FIRST && i < ROW - 2;
    Define params[] = { SHAPE("12"), { "loss_on", "answer" } };
    Feed feeds[] = { { "tokens", tokens, ROW }, { "doc", doc, ROW }, { "scored", scored, ROW }, { "hit", scored, ROW }, { "n", &n, 1 }, { "sample", &n, 1 } };
    evaluate_graph("test.sn", AR_LOSSES, "g", params, 8, feeds, 3, "y", y);
    for (int i = 0; i < ROW; i++) want += scored[i] * y[i] / n;
    evaluate_graph("ar.sn", NULL, "eval", params, 8, feeds, 3, "nll", &nll);
    ok(fabs(nll - want) < 1e-9, "AR on answers: nll %.9f, mean over answers %.9f", nll, want);
    evaluate_graph("ar.sn", NULL, "train", params, 8, (Feed[]){ feeds[0], feeds[1], feeds[2], feeds[5] }, 4, "loss", &nll);
    ok(fabs(nll - want) < 1e-9, "AR on answers: loss %.9f, mean over answers %.9f", nll, want);
    evaluate_graph("test.sn", DLM_LOSSES, "g", params, 8, feeds, 4, "y", y);                 /* all of the answer is masked */
    want = 0;
    for (int i = 0; i < ROW; i++) want += scored[i] * y[i] / n;
    evaluate_graph("dlm.sn", NULL, "eval", params, 8, (Feed[]){ feeds[0], feeds[1], feeds[2], feeds[4], feeds[5] }, 5, "nll", &nll);
    ok(fabs(nll - want) < 1e-9, "DLM on answers, all masked: nll %.9f, mean over answers %.9f", nll, want);
    for (int i = 0; i < 64; i++) t[i] = uniform();
    for (int i = 0; i < 64 * ROW; i++) u[i] = uniform(), open[i] = scored[i % ROW];
    const char *text = "import \"noise.sn\"\ngraph g {\n  input t: f32[64, 1]\n  input u: f32[64, 12]\n  input open: i32[64, 12]\n"
                       "  hit, scale = count_mask(t, u, open != 0)\n  output hit = hit\n  output scale = scale\n}\n";
    Feed masks[] = { { "t", t, 64 }, { "u", u, 64 * ROW }, { "open", open, 64 * ROW } };
    evaluate(text, masks, 3, "hit", hit);
    evaluate(text, masks, 3, "scale", scale);
    for (int b = 0; b < 64; b++) {
        double sum = 0, outside = 0;
        for (int i = 0; i < ROW; i++) sum += hit[b * ROW + i] * scale[b], outside += hit[b * ROW + i] * !scored[i];
        ok(fabs(sum - 1) < 1e-9 && outside == 0, "weights of an answer's masks sum to %g, %g of the prompt's tokens are masked", sum, outside);
    }
}

static const char BLOCK_LOSSES[] = "import \"block_diffusion.sn\"\n"
    "graph g {\n  input tokens: i32[B, T]\n  input hit: i32[B, T]\n  output y = losses(tokens, hit != 0, row_marks(false), 0, 0) as _\n}\n";

/* Block diffusion: two documents of whole blocks in a row against each alone; blocks of one, of which only answers count. */
static void test_block_rows(void) {
    enum { ONE = 4 };
    double tokens[ROW], hit[ROW], doc[ROW], packed[ROW], alone[ROW], scored[ROW], ones[ROW], worst = 0, nll, want = 0, n = 3, sample = 7, all = 0, none[ROW] = {0};
    for (int i = 0; i < ROW; i++) {
        tokens[i] = floor(10 * uniform()), hit[i] = uniform() < 0.5, doc[i] = i < ONE ? 0 : ONE, ones[i] = 1;
        all += scored[i] = i % 4 == 1 || i > 8;
    }
    Define whole[] = { SHAPE("12"), { "block_size", "4" }, { "documents", "reset" } }, first[] = { SHAPE("4"), { "block_size", "4" } },
           rest[] = { SHAPE("8"), { "block_size", "4" } }, single[] = { SHAPE("12"), { "block_size", "1" }, { "loss_on", "answer" } };
    evaluate_graph("test.sn", BLOCK_LOSSES, "g", whole, 9, (Feed[]){ { "tokens", tokens, ROW }, { "hit", hit, ROW }, { "doc", doc, ROW } }, 3, "y", packed);
    evaluate_graph("test.sn", BLOCK_LOSSES, "g", first, 8, (Feed[]){ { "tokens", tokens, ONE }, { "hit", hit, ONE } }, 2, "y", alone);
    evaluate_graph("test.sn", BLOCK_LOSSES, "g", rest, 8, (Feed[]){ { "tokens", tokens + ONE, ROW - ONE }, { "hit", hit + ONE, ROW - ONE } }, 2, "y", alone + ONE);
    for (int i = 0; i < ROW; i++) worst = fmax(worst, fabs(packed[i] - alone[i]));
    ok(worst < 1e-9, "block diffusion, packed and alone differ by %g", worst);
    evaluate_graph("test.sn", BLOCK_LOSSES, "g", single, 8, (Feed[]){ { "tokens", tokens, ROW }, { "hit", ones, ROW } }, 2, "y", packed);
    for (int i = 0; i < ROW; i++) want += scored[i] * packed[i] / all;
    Feed feeds[] = { { "tokens", tokens, ROW }, { "doc", none, ROW }, { "scored", scored, ROW }, { "sample", &sample, 1 }, { "n", &n, 1 } };
    evaluate_graph("block_diffusion.sn", NULL, "eval", single, 9, feeds, 5, "nll", &nll);
    ok(fabs(nll - want) < 1e-9, "blocks of one, answers: nll %.9f, mean over answers %.9f", nll, want);
    evaluate_graph("block_diffusion.sn", NULL, "train", single, 9, feeds, 4, "loss", &nll);
    ok(fabs(nll - want) < 1e-9, "blocks of one, answers: loss %.9f, mean over answers %.9f", nll, want);
}

/* A row cut to seven positions is a row of seven: losses, and how the loss of the row is normalised. */
static void test_cut(void) {
    const char *text = "import \"dlm.sn\"\ngraph g {\n  input tokens: i32[B, T]\n  input hit: i32[B, T]\n  input length: i32[]\n"
                       "  y = losses(tokens, hit != 0, [0, length, true], 0, 0) as _\n"
                       "  output y = y\n  output mean = row_mean(y, expand(iota([1, T], 1) < length, [B, T]))\n}\n";
    double tokens[ROW], hit[ROW], cut[ROW], whole[ROW], length = 7, mean, want = 0;
    for (int i = 0; i < ROW; i++) tokens[i] = floor(10 * uniform()), hit[i] = uniform() < 0.5;
    Feed feeds[] = { { "tokens", tokens, ROW }, { "hit", hit, ROW }, { "length", &length, 1 } };
    evaluate_graph("test.sn", text, "g", (Define[]){ SHAPE("12") }, 7, feeds, 3, "y", cut);
    evaluate_graph("test.sn", text, "g", (Define[]){ SHAPE("12") }, 7, feeds, 3, "mean", &mean);
    feeds[0].n = feeds[1].n = 7;
    evaluate_graph("test.sn", DLM_LOSSES, "g", (Define[]){ SHAPE("7") }, 7, feeds, 2, "y", whole);
    for (int i = 0; i < 7; i++) {
        ok(fabs(cut[i] - whole[i]) < 1e-9, "position %d of a cut row: %.9f, of a short one %.9f", i, cut[i], whole[i]);
        want += whole[i] / 7;
    }
    ok(fabs(mean - want) < 1e-9, "mean of a cut row %.9f, of a short one %.9f", mean, want);
}

/* How long rows are: 2 .. T alike, at the rate asked for, the same in every file. */
static void test_cut_length(void) {
    enum { STEPS = 300 };
    double length[2], seen[6] = {0};
    const char *texts[] = { "import \"ar.sn\"\ngraph g {\n  output y = cut_length() as _\n}\n",
                            "import \"dlm.sn\"\nblock deep() { return cut_length() }\ngraph g {\n  output y = deep()\n}\n" };
    int same = 0;
    for (step = 1; step <= STEPS; step++) {
        for (int i = 0; i < (step < 20 ? 2 : 1); i++)
            evaluate_graph("test.sn", texts[i], "g", (Define[]){ { "seq", "5" }, { "cut_rows", "0.5" } }, 2, NULL, 0, "y", &length[i]);
        same += step < 20 && length[0] == length[1];
        seen[(int)length[0]]++;
    }
    step = 1;
    ok(same == 19, "two files cut alike in %d of 19 steps", same);
    for (int k = 2; k <= 5; k++) {
        double p = k < 5 ? 0.125 : 0.625, se = sqrt(STEPS * p * (1 - p));
        ok(fabs(seen[k] - STEPS * p) < 4 * se, "length %d: %g of %d steps, %g expected", k, seen[k], STEPS, STEPS * p);
    }
}

/* -- Orders ---------------------------------------------------------------------------------------------------------------- */

/* Along any order the likelihoods of all strings sum to one: nothing is seen before its turn. */
static void test_orders_sum(void) {
    double tokens[STRINGS * 3], sample[STRINGS], nll[STRINGS];
    for (int s = 0; s < STRINGS * 3; s++) tokens[s] = s / 3 >> 2 * (s % 3) & 3;
    for (int id = 0; id < 12; id++) {
        double sum = 0;
        for (int s = 0; s < STRINGS; s++) sample[s] = id;
        Define params[] = { { "vocab", "4" }, { "width", "16" }, { "layers", "2" }, { "heads", "2" }, { "hidden", "24" }, { "seq", "3" }, { "batch", "64" },
                            { "eval_order", id ? "random" : "left" } };
        evaluate_graph("any_order.sn", NULL, "eval", params, 8, (Feed[]){ { "tokens", tokens, STRINGS * 3 }, { "sample", sample, STRINGS } }, id ? 2 : 1, "nll", nll);
        for (int s = 0; s < STRINGS; s++) sum += exp(-3 * nll[s]);
        ok(fabs(sum - 1) < 1e-9, "order %d: the likelihoods of all strings sum to %.9f", id, sum);
    }
}

/* From left to right: ar.sn whose keys stand where their tokens do. mixed: view 0 has that order, another view that of its sample id. */
static void test_orders_left(void) {
    const char *text = "import \"ar.sn\"\ngraph g {\n  input tokens: i32[B, T]\n"
                       "  output y = xent(logits(backbone(shifted(tokens), causal(), 0, pos=iota([T, 1], 0), key_pos=iota([T, 1], 0) - 1) as _) as _, tokens)\n}\n";
    double tokens[ROW], y[ROW], nll, view, sample = 5, mean = 0, loss[4];
    for (int i = 0; i < ROW; i++) tokens[i] = floor(10 * uniform());
    Feed feeds[] = { { "tokens", tokens, ROW }, { "sample", &sample, 1 }, { "view", &view, 1 } };
    evaluate_graph("test.sn", text, "g", (Define[]){ SHAPE("12") }, 7, feeds, 1, "y", y);
    for (int i = 0; i < ROW; i++) mean += y[i] / ROW;
    evaluate_graph("any_order.sn", NULL, "eval", (Define[]){ SHAPE("12"), { "eval_order", "left" } }, 8, feeds, 1, "nll", &nll);
    ok(fabs(nll - mean) < 1e-9, "left to right: %.9f, ar.sn with keys at their tokens %.9f", nll, mean);
    static const char *const orders[] = { "mixed", "mixed", "random", "left" };
    for (int i = 0; i < 4; i++) {
        view = i != 0;
        evaluate_graph("any_order.sn", NULL, "train", (Define[]){ SHAPE("12"), { "orders", orders[i] } }, 8, feeds, 3, "loss", &loss[i]);
    }
    ok(fabs(loss[0] - mean) < 1e-9 && fabs(loss[3] - mean) < 1e-9, "view 0 of mixed orders: loss %.9f, of left %.9f, want %.9f", loss[0], loss[3], mean);
    ok(fabs(loss[1] - loss[2]) < 1e-12 && fabs(loss[1] - mean) > 1e-4, "view 1 of mixed orders: loss %.9f, of random orders %.9f", loss[1], loss[2]);
}

/* Every order of three positions alike, by sample id alone; the token before each in it. */
static void test_orders_uniform(void) {
    enum { ROWS_OF = 2400 };
    static double sample[ROWS_OF], tokens[ROWS_OF * 3], rank[ROWS_OF * 3], from[ROWS_OF * 3], token[ROWS_OF * 3];
    const char *text = "import \"any_order.sn\"\ngraph g {\n  input tokens: i32[B, T]\n  input sample: i32[B]\n  rank = order_rank(sample)\n"
                       "  x, at = before_in(rank, tokens)\n  output rank = rank\n  output token = x\n  output from = at\n}\n";
    Define params[] = { { "seq", "3" }, { "batch", "2400" } };
    int seen[27] = {0}, wrong = 0;
    for (int b = 0; b < ROWS_OF; b++) sample[b] = b % 1200;
    for (int i = 0; i < ROWS_OF * 3; i++) tokens[i] = i % 251;
    Feed feeds[] = { { "tokens", tokens, ROWS_OF * 3 }, { "sample", sample, ROWS_OF } };
    evaluate_graph("test.sn", text, "g", params, 2, feeds, 2, "rank", rank);
    evaluate_graph("test.sn", text, "g", params, 2, feeds, 2, "token", token);
    evaluate_graph("test.sn", text, "g", params, 2, feeds, 2, "from", from);
    for (int b = 0; b < ROWS_OF; b++) {
        const double *r = rank + b * 3;
        seen[(int)(r[0] + 3 * r[1] + 9 * r[2])]++;
        for (int i = 0; i < 3; i++) {
            int at = -1;
            for (int j = 0; j < 3; j++) at = r[j] == r[i] - 1 ? j : at;
            wrong += from[b * 3 + i] != at || token[b * 3 + i] != (at < 0 ? 256 : tokens[b * 3 + at]);
            wrong += b >= 1200 && r[i] != rank[(b - 1200) * 3 + i];
        }
    }
    static const int all[] = { 21, 19, 15, 5, 11, 7 };         /* 012, 102, ...: digits to base 3 */
    for (int k = 0; k < 6; k++) ok(abs(seen[all[k]] - 400) < 2 * 4 * 13, "order %d: %d of 2400 rows", all[k], seen[all[k]]);
    ok(!wrong, "%d positions have another token before them, or another order for their sample", wrong);
}

/* -- Weight noise ------------------------------------------------------------------------------------------------------------- */

static void test_gaussian(void) {
    enum { K = 40000 };
    static double v[K];
    double m[5] = {0};
    evaluate("graph g {\n  output y = noisy(zeros([200, 200]), full([], 1.0))\n}\n", NULL, 0, "y", v);
    for (int i = 0; i < K; i++)
        for (int k = 1; k <= 4; k++) m[k] += pow(v[i], k) / K;
    ok(fabs(m[1]) < 4 / sqrt(K) && fabs(m[2] - 1) < 4 * sqrt(2.0 / K) && fabs(m[3]) < 4 * sqrt(15.0 / K) && fabs(m[4] - 3) < 4 * sqrt(96.0 / K),
       "moments of gaussian: %.4f %.4f %.4f %.4f", m[1], m[2], m[3], m[4]);
}

int main(void) {
    test_gaussian();
    test_rates();
    test_entropy();
    test_objectives();
    test_one_block();
    test_blocks_of_one();
    test_experts_sum();
    test_experts_alone();
    test_documents();
    test_answers();
    test_block_rows();
    test_cut();
    test_cut_length();
    test_orders_sum();
    test_orders_left();
    test_orders_uniform();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
