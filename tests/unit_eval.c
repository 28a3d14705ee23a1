/* unit_eval.c: likelihoods against sums over everything: the NELBO against its expectation, enumerated over all masks; AR
   likelihoods over all strings sum to one. On vocabularies of a few tokens and texts of a few positions. */
#define _GNU_SOURCE
#include "tests/check.h"
#include "tools/lab.h"
#include "tools/sample.h"

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

/* Nats of every token of x at the positions of `hit`, each predicted from the tokens that are not hit. */
static double masked_nll(Lab *lab, const int32_t *x, unsigned hit) {
    int32_t seen[T], len = T;
    float logits[T * V];
    double sum = 0;
    for (int i = 0; i < T; i++) seen[i] = hit >> i & 1 ? V - 1 : x[i];
    if (sn_bind(lab->s, "logits", "tokens", seen, sizeof seen) || sn_bind(lab->s, "logits", "len", &len, sizeof len) ||
        sn_run(lab->s, "logits") || sn_read(lab->s, "logits", "logits", logits, sizeof logits)) abort();
    for (int i = 0; i < T; i++)
        if (hit >> i & 1) sum += log_sum_exp(logits + i * V, V) - logits[i * V + x[i]];
    return sum;
}

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
        int W = cases[c].windows;
        uint16_t v[MOST * T];
        for (int i = 0; i < W * T; i++) v[i] = (uint16_t)(draw_uniform((Draw){ 5, (uint32_t)c, 0 }, (uint64_t)i) * (V - 1));
        write_shard(at("windows.safetensors"), v, W * T);
        char err[256];
        sn_data *data = sn_data_open(&(sn_data_desc){ .path = at("windows.safetensors"), .window = T }, err);
        if (!data) abort();
        double exact = 0;
        for (int w = 0; w < W; w++) {
            int32_t x[T];
            int64_t id, epoch;
            if (sn_data_window(data, w, x, &id, &epoch)) abort();
            exact += exact_nelbo(&whole, x) / W;
        }
        sn_data_close(data);
        double mean = 0, se = 0;
        enum { SEEDS = 8 };                                      /* independent estimates: their mean has a smaller error than each */
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            Score s;
            if (lab_score(&score, at("windows.safetensors"), cases[c].draws, seed, 0, &s)) abort();
            mean += s.mean / SEEDS;
            se += s.mask_se * s.mask_se / SEEDS / SEEDS;
            ok(s.windows == W && s.bound, "%d windows are scored", W);
            ok(fabs(s.mean - exact) <= 4 * s.mask_se, "NELBO of %d windows, %lld draws, seed %d: %.5f +- %.5f, exact %.5f", W, (long long)s.draws,
               (int)seed, s.mean, s.mask_se, exact);
            score_free(&s);
        }
        ok(fabs(mean - exact) <= 3 * sqrt(se), "NELBO of %d windows, %d seeds: %.5f +- %.5f, exact %.5f", W, SEEDS, mean, sqrt(se), exact);
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

int main(void) {
    if (!mkdtemp(folder)) abort();
    test_nelbo();
    test_ar_sum();
    char *clean = text_fmt("rm -rf %s", folder);
    if (system(clean)) return 1;
    free(clean);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
