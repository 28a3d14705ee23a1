/* unit_eval.c: likelihoods against sums over everything: bounds against their expectations, enumerated over all masks and orders;
   likelihoods over all strings sum to one. On vocabularies of a few tokens and texts of a few positions. */
#define _GNU_SOURCE
#include "tests/check.h"
#include "tools/choice.h"
#include "tools/generate.h"
#include "tools/measure.h"

#include <math.h>
#include <unistd.h>

static char folder[] = "/tmp/sinter-eval-XXXXXX";

static const char *at(const char *name) {
    static char path[4][256];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

/* -- Tiny models -------------------------------------------------------------------------------------------------- */

enum { V = 5, T = 4 };               /* the last token is mask and BOS */

static StrList tiny(void) {
    static const char *const words[] = { "vocab=5", "width=32", "layers=2", "heads=2", "hidden=64", "seq=4", "batch=3", "logits.B=1" };
    StrList l = {0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) list_add(&l, words[i]);
    return l;
}

/* Initial weights make nearly uniform predictions: larger ones do not. */
static void sharpen(Lab *lab) {
    float w[32 * V];
    if (sn_read(lab->s, NULL, "head", w, sizeof w)) abort();
    for (int i = 0; i < 32 * V; i++) w[i] *= 12;
    if (sn_write(lab->s, "head", w, sizeof w)) abort();
}

static void open_tiny(Lab *lab, const char *model, const char *graphs, uint64_t seed) {
    StrList d = tiny();
    if (lab_open(lab, &(LabOptions){ .file = model, .defines = &d, .graphs = graphs, .seed = seed })) abort();
    sharpen(lab);
}

static void write_shard(const char *path, const uint16_t *v, int64_t n) {
    char err[256];
    sn_tensor t = { .name = "tokens", .dtype = SN_FILE_U16, .rank = 1, .dim = { n }, .data = v, .bytes = 2 * (size_t)n };
    if (sn_file_write(path, &t, 1, NULL, err)) abort();
}

/* Nats of the tokens of x at the positions of `of`, predicted from the tokens that are not hit. */
static double nats_of(Lab *lab, const int32_t *x, unsigned hit, unsigned of) {
    int32_t seen[T], len = T;
    float logits[T * V];
    double sum = 0;
    for (int i = 0; i < T; i++) seen[i] = hit >> i & 1 ? V - 1 : x[i];
    if (sn_bind(lab->s, "logits", "tokens", seen, sizeof seen) || sn_bind(lab->s, "logits", "len", &len, sizeof len) ||
        sn_run(lab->s, "logits") || sn_read(lab->s, "logits", "logits", logits, sizeof logits)) abort();
    for (int i = 0; i < T; i++)
        if (of >> i & 1) sum += log_sum_exp(logits + i * V, V) - logits[i * V + x[i]];
    return sum;
}
static double masked_nll(Lab *lab, const int32_t *x, unsigned hit) { return nats_of(lab, x, hit, hit); }

/* The mean over n on 1..T and over all masks of n positions of the mean loss at masked positions. */
static double exact_nelbo(Lab *lab, const int32_t *x) {
    double sum[T + 1] = {0}, all = 0;
    int count[T + 1] = {0};
    for (unsigned hit = 1; hit < 1u << T; hit++) {
        int n = __builtin_popcount(hit);
        sum[n] += masked_nll(lab, x, hit) / n;
        count[n]++;
    }
    for (int n = 1; n <= T; n++) all += sum[n] / count[n] / T;
    return all;
}

/* -- The NELBO of windows ------------------------------------------------------------------------------------------ */

/* W windows that T does not divide, one draw or many; the estimate is unbiased for each. */
static void test_nelbo(void) {
    static const struct { int windows; int64_t draws; } cases[] = { { 1, 400 }, { 3, 300 }, { 7, 64 }, { 10, 3 } };
    Lab score, whole;
    open_tiny(&score, "models/dlm.sn", NULL, 3);
    open_tiny(&whole, "models/dlm.sn", "logits", 3);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        enum { MOST = 10 };
        int n = cases[c].windows;
        uint16_t v[MOST * T];
        for (int i = 0; i < n * T; i++) v[i] = (uint16_t)(draw_uniform((Draw){ 5, (uint32_t)c, 0 }, (uint64_t)i) * (V - 1));
        write_shard(at("windows.safetensors"), v, n * T);
        char err[256];
        sn_data *data = sn_data_open(&(sn_data_desc){ .path = at("windows.safetensors"), .window = T }, err);
        if (!data) abort();
        double exact = 0;
        for (int w = 0; w < n; w++) {
            int32_t x[T];
            int64_t id, epoch;
            if (sn_data_window(data, w, x, &id, &epoch)) abort();
            exact += exact_nelbo(&whole, x) / n;
        }
        sn_data_close(data);
        double mean = 0, se = 0;
        enum { SEEDS = 8 };                                      /* independent estimates: their mean has a smaller error than each */
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            Score s;
            if (lab_score(&score, at("windows.safetensors"), cases[c].draws, seed, 0, &s)) abort();
            mean += s.mean / SEEDS;
            se += s.mask_se * s.mask_se / SEEDS / SEEDS;
            ok(s.windows == n && s.bound, "%d windows are scored", n);
            ok(fabs(s.mean - exact) <= 4 * s.mask_se, "NELBO of %d windows, %lld draws, seed %d: %.5f +- %.5f, exact %.5f", n, (long long)s.draws,
               (int)seed, s.mean, s.mask_se, exact);
            score_free(&s);
        }
        ok(fabs(mean - exact) <= 3 * sqrt(se), "NELBO of %d windows, %d seeds: %.5f +- %.5f, exact %.5f", n, SEEDS, mean, sqrt(se), exact);
        ok(sqrt(se) < 0.05 * exact, "that says something: +- %.5f of %.5f", sqrt(se), exact);
    }
    lab_close(&score);
    lab_close(&whole);
}

/* -- AR: every string of T tokens ----------------------------------------------------------------------------------- */

static void test_ar_sum(void) {
    enum { ALL = V * V * V * V };
    static uint16_t v[ALL * T];
    Lab ar;
    Score s;
    open_tiny(&ar, "models/ar.sn", NULL, 4);
    for (int k = 0; k < ALL; k++)
        for (int i = 0, rest = k; i < T; i++, rest /= V) v[k * T + i] = (uint16_t)(rest % V);
    write_shard(at("all.safetensors"), v, ALL * T);
    if (lab_score(&ar, at("all.safetensors"), 1, 1, 0, &s)) abort();
    double sum = 0, least = INFINITY, most = 0;
    for (int64_t i = 0; i < s.windows; i++) {
        double p = exp(-T * s.nll[i]);
        sum += p;
        least = fmin(least, p);
        most = fmax(most, p);
    }
    ok(s.windows == ALL && !s.bound, "all strings are scored, exactly");
    ok(fabs(sum - 1) < 1e-5, "their probabilities sum to %.8f", sum);
    ok(most > 20 * least, "and differ: %.2e to %.2e", least, most);
    score_free(&s);
    lab_close(&ar);
}

/* -- Spans ---------------------------------------------------------------------------------------------------------- */

static const char *const ARMS[] = { "models/ar.sn", "models/dlm.sn" };

/* The sharpened weights as a file, and a scorer over them. */
static const char *checkpoint(const char *model) {
    const char *path = at(strstr(model, "dlm") ? "dlm.safetensors" : "ar.safetensors");
    if (file_exists(path)) return path;
    Lab lab;
    open_tiny(&lab, model, NULL, 6);
    if (sn_save(lab.s, path, "{}")) abort();
    lab_close(&lab);
    return path;
}

static void open_scorer(Scorer *s, const char *model, ScoreOptions o) {
    StrList d = tiny();
    if (scorer_open(s, &(LabOptions){ .file = model, .defines = &d, .seed = 1 }, checkpoint(model), NULL, &o)) abort();
}

static void all_strings(int32_t *v, int n) {                     /* V^n rows of n */
    int64_t all = 1;
    for (int i = 0; i < n; i++) all *= V;
    for (int64_t k = 0; k < all; k++)
        for (int64_t i = 0, rest = k; i < n; i++, rest /= V) v[k * n + i] = (int32_t)(rest % V);
}

/* Given a context of 2 (and, DLM, one behind), the probabilities of all spans of 2 sum to one, in every fixed order. */
static void test_span_sums(void) {
    enum { L = 2, ALL = V * V };
    int32_t spans[ALL * L], whole[ALL][T + 1];
    Passage p[ALL];
    all_strings(spans, L);
    for (int arm = 0; arm < 2; arm++)
        for (int way = 0; way < (arm ? 3 : 1); way++) {
            Scorer s;
            open_scorer(&s, ARMS[arm], (ScoreOptions){ .order = way == 2 ? ORDER_RIGHT : ORDER_LEFT, .window = T + 1 });
            int behind = way > 0;
            for (int k = 0; k < ALL; k++) {
                int32_t v[] = { 2, 0, spans[k * L], spans[k * L + 1], 3 };
                memcpy(whole[k], v, sizeof v);
                p[k] = (Passage){ .v = whole[k], .n = T + behind, .from = 2, .to = 4, .number = (uint64_t)k };
            }
            double sum = 0, most = 0;
            ok(!scorer_run(&s, p, ALL), "%s: all spans", ARMS[arm]);
            for (int k = 0; k < ALL; k++) sum += exp(-p[k].nll), most = fmax(most, exp(-p[k].nll));
            ok(fabs(sum - 1) < 1e-5 && most < 0.9, "%s, order %d: probabilities of all spans sum to %.8f, at most %.3f", ARMS[arm], s.o.order, sum, most);
            ok(p[3].se == 0 && fabs(p[3].mixture - p[3].nll) < 1e-9, "one order is exact");
            scorer_close(&s);
        }
}

/* The AR scorer and the graph `eval` agree on whole texts. */
static void test_ar_windows(void) {
    enum { N = 7 };
    uint16_t shard[N * T];
    int32_t v[N * T];
    Passage p[N];
    for (int i = 0; i < N * T; i++) shard[i] = (uint16_t)(draw_uniform((Draw){ 8, 0, 0 }, (uint64_t)i) * V), v[i] = shard[i];
    for (int w = 0; w < N; w++) p[w] = (Passage){ .v = v + w * T, .n = T, .from = 0, .to = T };
    write_shard(at("some.safetensors"), shard, N * T);
    Lab lab;
    Scorer s;
    Score want;
    open_tiny(&lab, "models/ar.sn", NULL, 6);
    if (lab_score(&lab, at("some.safetensors"), 1, 1, 0, &want)) abort();
    open_scorer(&s, "models/ar.sn", (ScoreOptions){ 0 });
    double mean = 0;
    ok(!scorer_run(&s, p, N), "AR: windows");
    for (int w = 0; w < N; w++) mean += p[w].nll / T / N;
    ok(fabs(mean - want.mean) < 1e-5, "AR: %.7f by `logits`, %.7f by `eval`", mean, want.mean);
    score_free(&want);
    scorer_close(&s);
    lab_close(&lab);
}

static double factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

/* Of the span [from, T): the mean over n and masks of l / n times the sum at masked positions; the mean over all orders; and the mixture
   of all orders. */
static void exact_span(Lab *lab, const int32_t *x, int from, double *masks, double *orders, double *mixture) {
    int l = T - from, perm[T];
    double sum[T + 1] = {0}, mix = 0;
    int count[T + 1] = {0};
    for (unsigned hit = 1; hit < 1u << l; hit++) {
        int n = __builtin_popcount(hit);
        sum[n] += masked_nll(lab, x, hit << from) * l / n;
        count[n]++;
    }
    *masks = *orders = 0;
    for (int n = 1; n <= l; n++) *masks += sum[n] / count[n] / l;
    for (int k = 0, all = (int)factorial(l); k < all; k++) {
        for (int i = 0; i < l; i++) perm[i] = from + i;
        for (int i = l - 1, rest = k; i > 0; rest /= i + 1, i--) {
            int j = rest % (i + 1), t = perm[i];
            perm[i] = perm[j], perm[j] = t;
        }
        double nats = 0;
        for (int i = 0; i < l; i++) {
            unsigned hit = 0;
            for (int j = i; j < l; j++) hit |= 1u << perm[j];
            nats += nats_of(lab, x, hit, 1u << perm[i]);
        }
        *orders += nats / all;
        mix += exp(-nats) / all;
    }
    *mixture = -log(mix);
}

static void test_orders(void) {
    static const int32_t x[T] = { 1, 3, 0, 2 };
    Lab whole;
    open_tiny(&whole, "models/dlm.sn", "logits", 6);
    for (int from = 0; from < T; from++) {
        double masks, orders, mixture;
        exact_span(&whole, x, from, &masks, &orders, &mixture);
        ok(fabs(masks - orders) < 1e-5 && mixture < orders + 1e-9, "from %d: over masks %.6f, over orders %.6f, their mixture %.6f", from, masks, orders, mixture);
        for (int way = 0; way < 2; way++) {
            Scorer s;
            enum { N = 4 };
            Passage p[N];
            open_scorer(&s, "models/dlm.sn", (ScoreOptions){ .order = way ? ORDER_RANDOM : ORDER_MASKS, .draws = 100, .seed = 3 });
            for (int i = 0; i < N; i++) p[i] = (Passage){ .v = x, .n = T, .from = from, .to = T, .number = (uint64_t)i };
            ok(!scorer_run(&s, p, N), "spans from %d", from);
            double mean = 0, var = 0, mix = 0;
            for (int i = 0; i < N; i++) mean += p[i].nll / N, var += p[i].se * p[i].se / N / N, mix += p[i].mixture / N;
            ok(fabs(mean - masks) <= 3 * sqrt(var) + 1e-5, "order %d, from %d: %.5f +- %.5f, exact %.5f", s.o.order, from, mean, sqrt(var), masks);
            ok(sqrt(var) < 0.05 * masks, "order %d, from %d: that says something: +- %.5f of %.5f", s.o.order, from, sqrt(var), masks);
            if (way) ok(fabs(mix - mixture) < 0.05 * mixture, "from %d: the mixture of orders is %.5f, exact %.5f", from, mix, mixture);
            if (from == T - 1) ok(s.passes == N && p[0].se == 0, "one token takes one pass: %d", (int)s.passes);
            scorer_close(&s);
        }
    }
    lab_close(&whole);
}

/* Guidance against its formula on two passes by hand; passages of several lengths against each alone. */
static void test_guidance(void) {
    static const int32_t x[T] = { 1, 3, 0, 2 };
    int32_t seen[T] = { 1, 3, 0, V - 1 }, blind[T] = { V - 1, V - 1, V - 1, V - 1 }, len = T;
    float cond[T * V], un[T * V];
    Lab lab;
    Scorer s;
    open_tiny(&lab, "models/dlm.sn", "logits", 6);
    for (int side = 0; side < 2; side++)
        if (sn_bind(lab.s, "logits", "tokens", side ? blind : seen, sizeof seen) || sn_bind(lab.s, "logits", "len", &len, sizeof len) ||
            sn_run(lab.s, "logits") || sn_read(lab.s, "logits", "logits", side ? un : cond, sizeof cond)) abort();
    float *c = cond + 3 * V, *u = un + 3 * V;
    for (int i = 0; i < V; i++) c[i] = u[i] + 2.5f * (c[i] - u[i]);
    double want = log_sum_exp(c, V) - c[x[3]];
    open_scorer(&s, "models/dlm.sn", (ScoreOptions){ .guidance = 1.5 });
    Passage p = { .v = x, .n = T, .from = 3, .to = T };
    ok(!scorer_run(&s, &p, 1) && fabs(p.nll - want) < 1e-5, "guidance: %.6f, by hand %.6f", p.nll, want);
    scorer_close(&s);
    lab_close(&lab);
}

static void test_rooms(void) {
    enum { N = 9 };
    int32_t v[70];
    for (int i = 0; i < 70; i++) v[i] = (int32_t)(draw_uniform((Draw){ 9, 0, 0 }, (uint64_t)i) * (V - 1));
    for (int arm = 0; arm < 2; arm++) {
        Passage p[N], one;
        Scorer s, alone;
        ScoreOptions o = { .draws = 3, .window = 70, .seed = 2 };
        open_scorer(&s, ARMS[arm], o);
        for (int i = 0; i < N; i++) p[i] = (Passage){ .v = v, .n = 70 - 8 * i, .from = 1, .to = 5, .number = (uint64_t)i };
        ok(!scorer_run(&s, p, N), "%s: several lengths", ARMS[arm]);
        for (int i = 0; i < N; i += 4) {
            one = p[i];
            open_scorer(&alone, ARMS[arm], o);
            ok(!scorer_run(&alone, &one, 1) && fabs(one.nll - p[i].nll) < 1e-4 * one.nll, "%s: %d tokens: %.6f among others, %.6f alone", ARMS[arm],
               (int)one.n, p[i].nll, one.nll);
            scorer_close(&alone);
        }
        scorer_close(&s);
    }
}

/* -- Measures on windows ---------------------------------------------------------------------------------------------- */

enum { W = 9 };
static int32_t text[W * T];
static const Windows WINDOWS = { text, W, T };

/* The logits that predict position i of x: of an AR model after BOS and x[0..i), of a DLM with masks from i on. */
static void logits_at(Lab *lab, bool ar, const int32_t *x, int i, float *out) {
    int32_t in[T], len = T;
    float logits[T * V];
    for (int k = 0; k < T; k++) in[k] = ar ? k ? x[k - 1] : V - 1 : k < i ? x[k] : V - 1;
    if (sn_bind(lab->s, "logits", "tokens", in, sizeof in) || sn_bind(lab->s, "logits", "len", &len, sizeof len) || sn_run(lab->s, "logits") ||
        sn_read(lab->s, "logits", "logits", logits, sizeof logits)) abort();
    memcpy(out, logits + i * V, sizeof *out * V);
}

/* Half of the tokens are what the AR model would say, so that it is neither sure for nothing nor ever right. */
static void fill_text(void) {
    Lab lab;
    open_tiny(&lab, "models/ar.sn", "logits", 6);
    for (int i = 0; i < W * T; i++) {
        float l[V];
        int best = 0;
        logits_at(&lab, true, text + i / T * T, i % T, l);
        for (int k = 1; k < V - 1; k++) if (l[k] > l[best]) best = k;
        text[i] = draw_uniform((Draw){ 20, 0, 0 }, (uint64_t)i) < 0.5 ? best : (int32_t)(draw_uniform((Draw){ 21, 0, 0 }, (uint64_t)i) * (V - 1));
    }
    lab_close(&lab);
}

static void test_next_token(void) {
    for (int arm = 0; arm < 2; arm++) {
        Scorer s;
        Lab lab;
        NextToken all, some;
        OrderResult left;
        double nll = 0, hits = 0;
        open_tiny(&lab, ARMS[arm], "logits", 6);
        open_scorer(&s, ARMS[arm], (ScoreOptions){ .order = ORDER_LEFT, .seed = 4 });
        for (int w = 0; w < W; w++)
            for (int i = 0; i < T; i++) {
                float l[V];
                const int32_t *x = text + w * T;
                int best = 0;
                logits_at(&lab, arm == 0, x, i, l);
                for (int k = 1; k < V - arm; k++) if (l[k] > l[best]) best = k;
                hits += best == x[i];
                nll += log_sum_exp(l, V) - l[x[i]];
            }
        ok(!measure_next_token(&s, &WINDOWS, T, &all) && !measure_next_token(&s, &WINDOWS, 2, &some) && !measure_order(&s, &WINDOWS, &left), "%s: measures", ARMS[arm]);
        ok(fabs(all.acc.mean - hits / (W * T)) < 1e-9 && fabs(all.nll.mean - nll / (W * T)) < 1e-5, "%s: next token: acc %.4f, by hand %.4f; nll %.6f, by hand %.6f",
           ARMS[arm], all.acc.mean, hits / (W * T), all.nll.mean, nll / (W * T));
        ok(fabs(all.nll.mean - left.nll.mean) < 1e-5 && left.order_se == 0, "%s: all places are the order left: %.6f, %.6f", ARMS[arm], all.nll.mean, left.nll.mean);
        ok(some.places == 2 && fabs(some.nll.mean - all.nll.mean) <= 4 * some.nll.se, "%s: of two places %.4f +- %.4f, of all %.4f", ARMS[arm], some.nll.mean, some.nll.se,
           all.nll.mean);
        scorer_close(&s);
        lab_close(&lab);
    }
}

/* The mean loss of AR windows with logits times b. */
static double loss_at(const float (*l)[V], double b) {
    double sum = 0;
    for (int i = 0; i < W * T; i++) {
        double all = 0;
        for (int k = 0; k < V; k++) all += exp(b * l[i][k]);
        sum += log(all) - b * l[i][text[i]];
    }
    return sum / (W * T);
}

static void test_temperature(void) {
    static float l[W * T][V];
    Lab lab;
    open_tiny(&lab, "models/ar.sn", "logits", 6);
    for (int i = 0; i < W * T; i++) logits_at(&lab, true, text + i / T * T, i % T, l[i]);
    double low = 0.25, high = 4;
    for (int k = 0; k < 200; k++) {                              /* ternary search: the loss is convex in b */
        double a = low + (high - low) / 3, b = high - (high - low) / 3;
        if (loss_at(l, a) < loss_at(l, b)) high = b;
        else low = a;
    }
    for (int arm = 0; arm < 2; arm++) {
        Scorer s;
        Temperature t;
        open_scorer(&s, ARMS[arm], (ScoreOptions){ .seed = 4, .draws = 20 });
        ok(!measure_temperature(&s, &WINDOWS, &WINDOWS, &t), "%s: temperature", ARMS[arm]);
        if (arm == 0)
            ok(fabs(t.temperature * low - 1) < 2e-3 && fabs(t.scaled.mean - loss_at(l, low)) < 1e-5 && fabs(t.raw.mean - loss_at(l, 1)) < 1e-5 && !t.at_edge,
               "temperature %.5f, by search %.5f; %.6f nats, by search %.6f", t.temperature, 1 / low, t.scaled.mean, loss_at(l, low));
        ok(t.gain.mean > 0 && fabs(t.raw.mean - t.scaled.mean - t.gain.mean) < 1e-9, "%s: it gains %.4f", ARMS[arm], t.gain.mean);
        scorer_close(&s);
    }
    lab_close(&lab);
}

/* -- Questions made of text ------------------------------------------------------------------------------------------- */

static void test_made(void) {
    enum { N = 60, SPAN = 2 };
    static int32_t long_text[20 * 12];
    for (int i = 0; i < 240; i++) long_text[i] = (int32_t)(draw_uniform((Draw){ 22, 0, 0 }, (uint64_t)i) * 200);
    Windows w = { long_text, 20, 12 };
    for (int infill = 0; infill < 2; infill++) {
        Questions a = {0}, b = {0};
        MakeOptions o = { .n = N, .span = SPAN, .options = 3, .infill = infill, .seed = 5 };
        int labels[3] = {0}, windows[20] = {0}, same = 0;
        ok(!questions_make(&a, &w, &o) && !questions_make(&b, &w, &o) && a.q.n == N, "%d questions", a.q.n);
        for (uint32_t i = 0; i < a.q.n; i++) {
            const Question *q = &a.q.v[i];
            int64_t at = (q->context_ids.v - long_text) / 12, from = infill ? 5 : 10;
            labels[q->label]++;
            windows[at]++;
            same += !memcmp(q->option[0].ids.v, b.q.v[i].option[0].ids.v, sizeof(int32_t) * SPAN);
            ok(q->context_ids.n == from && !memcmp(q->option[q->label].ids.v, long_text + at * 12 + from, sizeof(int32_t) * SPAN), "the right option is the window's");
            ok(infill ? q->suffix && q->suffix_ids.v == q->context_ids.v + 7 && q->suffix_ids.n == 5 : !q->suffix, "what comes after it");
            for (int k = 0; k < 3; k++)
                for (int m = 0; m < k; m++) ok(memcmp(q->option[k].ids.v, q->option[m].ids.v, sizeof(int32_t) * SPAN), "options differ");
        }
        ok(labels[0] > 8 && labels[1] > 8 && labels[2] > 8 && same == N, "labels %d %d %d; the same seed, the same questions", labels[0], labels[1], labels[2]);
        for (int i = 0; i < 20; i++) ok(windows[i] == 3, "window %d asks %d questions", i, windows[i]);
        questions_free(&a);
        questions_free(&b);
    }
}

static void test_texts(void) {
    static const char *const words[] = { "width=32", "layers=1", "heads=2", "hidden=64", "seq=8", "batch=1" };
    StrList d = {0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) list_add(&d, words[i]);
    static const char jsonl[] = "{\"completion\":\"aabb\"}\n{\"text\":\"abcdefghijk\"}\n{\"completion\":\"\"}\n";
    const char *path = at("texts.jsonl");
    if (write_text(path, jsonl, sizeof jsonl - 1)) abort();
    Scorer s;
    TextsResult r;
    if (scorer_open(&s, &(LabOptions){ .file = "models/ar.sn", .defines = &d, .seed = 2 }, NULL, &BYTE_TOKENIZER, &(ScoreOptions){ 0 })) abort();
    ok(!measure_texts(&s, path, &r) && r.texts == 2 && r.tokens == 15 && r.empty == 1, "2 texts, 15 tokens: %d, %d", (int)r.texts, (int)r.tokens);
    ok(fabs(r.entropy.mean - (log(2) + log(11)) / 2) < 1e-12, "entropy %.6f", r.entropy.mean);
    int32_t v[] = { 'a', 'a', 'b', 'b' }, x[] = { 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' }, y[] = { 'i', 'j', 'k' };
    Passage p[] = { { .v = v, .n = 4, .to = 4 }, { .v = x, .n = 8, .to = 8 }, { .v = y, .n = 3, .to = 3 } };
    ok(!scorer_run(&s, p, 3) && fabs(r.nll - (p[0].nll + p[1].nll + p[2].nll) / 15) < 1e-6 && fabs(r.perplexity - exp(r.nll)) < 1e-9 && r.low < r.perplexity,
       "pieces of a window: %.6f", r.nll);
    scorer_close(&s);
}

int main(void) {
    if (!mkdtemp(folder)) abort();
    fill_text();
    test_nelbo();
    test_ar_sum();
    test_span_sums();
    test_ar_windows();
    test_orders();
    test_guidance();
    test_rooms();
    test_next_token();
    test_temperature();
    test_made();
    test_texts();
    char *clean = text_fmt("rm -rf %s", folder);
    if (system(clean)) return 1;
    free(clean);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
