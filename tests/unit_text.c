/* unit_text.c: sampling against the probabilities it should have, greedy decoding over the cache against the argmax of the full
   forward pass, denoising against its rules. */
#define _GNU_SOURCE
#include "tests/check.h"
#include "tools/generate.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

/* -- Tokens from logits --------------------------------------------------------------------------------------------- */

/* Frequencies of 40000 draws against p, each within 5 standard deviations. */
static void check_frequencies(const char *what, const int *hits, const double *p, int n) {
    for (int i = 0; i < n; i++) {
        double sd = sqrt(40000 * p[i] * (1 - p[i]));
        ok(fabs(hits[i] - 40000 * p[i]) <= 5 * sd + 1e-9, "%s: token %d drawn %d times, expected %.0f +- %.0f", what, i, hits[i], 40000 * p[i], sd);
    }
}

static void test_sampling(void) {
    enum { N = 5 };
    const double p[N] = { 0.1, 0.4, 0.05, 0.25, 0.2 };
    float logits[N];
    for (int i = 0; i < N; i++) logits[i] = (float)log(p[i]) + 3;
    static const struct { const char *what; SampleRule rule; double want[N]; } cases[] = {
        { "plain", { 1, 1, 0 }, { 0.1, 0.4, 0.05, 0.25, 0.2 } },
        { "top-k 2", { 1, 1, 2 }, { 0, 0.4 / 0.65, 0, 0.25 / 0.65, 0 } },
        { "top-p 0.6", { 1, 0.6, 0 }, { 0, 0.4 / 0.65, 0, 0.25 / 0.65, 0 } },
        { "top-k 3, top-p 0.7", { 1, 0.7, 3 }, { 0, 0.4 / 0.65, 0, 0.25 / 0.65, 0 } },
        { "temperature 0.5", { 0.5, 1, 0 }, { 0.01 / 0.275, 0.16 / 0.275, 0.0025 / 0.275, 0.0625 / 0.275, 0.04 / 0.275 } },
        { "greedy", { 0, 1, 0 }, { 0, 1, 0, 0, 0 } },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int hits[N] = {0};
        for (uint32_t i = 0; i < 40000; i++) hits[sample_token(&cases[c].rule, logits, N, (Draw){ 7, 0, i })]++;
        check_frequencies(cases[c].what, hits, cases[c].want, N);
    }
    int hits[N] = {0};
    const double gumbel[N] = { 0.1 / 0.6, 0, 0.05 / 0.6, 0.25 / 0.6, 0.2 / 0.6 };
    for (uint32_t i = 0; i < 40000; i++) hits[sample_guess(logits, N, 1, 1, REMASK_CONFIDENCE, (Draw){ 9, 0, i }, 3).token]++;
    check_frequencies("Gumbel-max without token 1", hits, gumbel, N);
}

static void test_sureness(void) {
    const double p[3] = { 0.5, 0.2, 0.3 };
    float logits[4];
    for (int i = 0; i < 3; i++) logits[i] = (float)log(p[i]);
    logits[3] = 100;                                             /* the mask: as if it were not there */
    static const struct { Remask by; double want; } cases[] = {
        { REMASK_CONFIDENCE, 0.5 }, { REMASK_THRESHOLD, 0.5 }, { REMASK_MARGIN, 0.2 }, { REMASK_ENTROPY, -1.0296530140645737 },
    };
    for (int i = 0; i < 4; i++) {
        Guess g = sample_guess(logits, 4, 3, 0, cases[i].by, (Draw){ 1, 0, 0 }, 0);
        ok(g.token == 0 && fabs(g.sure - cases[i].want) < 1e-6, "sureness %d: token %d, %.9f, expected %.9f", cases[i].by, g.token, g.sure, cases[i].want);
    }
    float cond[2] = { 1, 2 }, un[2] = { 0.5f, 3 };
    sample_guide(cond, un, 2, 1);
    ok(cond[0] == 1.5f && cond[1] == 1, "guidance: un + 2 (cond - un)");
}

/* -- Models --------------------------------------------------------------------------------------------------------- */

static StrList small_model(void) {
    static const char *const words[] = { "width=32", "layers=2", "heads=4", "kv_heads=2", "hidden=64", "seq=16", "batch=1" };
    StrList l = {0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) list_add(&l, words[i]);
    return l;
}

static Tokens bytes_of(const char *s) {
    Tokens t = {0};
    BYTE_TOKENIZER.encode(&BYTE_TOKENIZER, s, strlen(s), &t);
    return t;
}

/* The weights of the initial model are small and so are its preferences: ten times as large, they are not. */
static void sharpen(Lab *lab) {
    int64_t n = lab->vocab * 32;
    float *w = malloc(sizeof *w * (size_t)n);
    if (!w || sn_read(lab->s, NULL, "head", w, sizeof *w * (size_t)n)) abort();
    for (int64_t i = 0; i < n; i++) w[i] *= 30;
    if (sn_write(lab->s, "head", w, sizeof *w * (size_t)n)) abort();
    free(w);
}

static int32_t argmax(const float *v, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++)
        if (v[i] > v[at]) at = i;
    return (int32_t)at;
}

/* Every token of a greedy text is the argmax of the graph `logits` over BOS, the prompt and the tokens before it. */
static void test_greedy(void) {
    StrList d = small_model(), full = small_model();
    enum { N = 24, PROMPT = 11, T = PROMPT + N + 1 };
    Generator g;
    Lab whole;
    Tokens prompt = bytes_of("hello world"), out, again;
    GenOptions o = { .length = N, .rule = { 0, 1, 0 }, .eos = -1 };
    if (generator_open(&g, &(LabOptions){ .file = "models/ar.sn", .defines = &d, .seed = 3 }, NULL, &BYTE_TOKENIZER, &o, PROMPT)) abort();
    list_add(&full, "logits.T=36");
    if (lab_open(&whole, &(LabOptions){ .file = "models/ar.sn", .defines = &full, .graphs = "logits", .seed = 3 })) abort();
    sharpen(&g.lab);
    sharpen(&whole);
    ok(!generator_text(&g, &prompt, 0, NULL, &out) && out.n == N, "greedy: %lld tokens", (long long)out.n);
    int32_t tokens[T] = { 256 }, len = T;
    memcpy(tokens + 1, prompt.v, sizeof *tokens * PROMPT);
    memcpy(tokens + 1 + PROMPT, out.v, sizeof *tokens * N);
    float *logits = malloc(sizeof *logits * T * 257);
    ok(!sn_bind(whole.s, "logits", "tokens", tokens, sizeof tokens) && !sn_bind(whole.s, "logits", "len", &len, sizeof len) &&
       !sn_run(whole.s, "logits") && !sn_read(whole.s, "logits", "logits", logits, sizeof *logits * T * 257), "the full forward pass: %s",
       sn_session_error(whole.s));
    int kinds = 0;
    for (int i = 0; i < N; i++) {
        int32_t want = argmax(logits + (PROMPT + i) * 257, 257);
        kinds += i > 0 && out.v[i] != out.v[i - 1];
        ok(out.v[i] == want, "greedy token %d is %d, the full forward pass says %d", i, out.v[i], want);
    }
    ok(kinds > 4, "the text has changing tokens (%d changes)", kinds);
    ok(!generator_text(&g, &prompt, 5, NULL, &again) && !memcmp(again.v, out.v, sizeof *out.v * N), "a second text over the same cache is the first");
    g.o.rule.temperature = 1;
    Tokens a, b, c;
    generator_text(&g, &prompt, 1, NULL, &a);
    generator_text(&g, &prompt, 1, NULL, &b);
    generator_text(&g, &prompt, 2, NULL, &c);
    ok(a.n == b.n && !memcmp(a.v, b.v, sizeof *a.v * (size_t)a.n), "AR: the same seed, the same text");
    ok(memcmp(a.v, c.v, sizeof *a.v * N), "AR: another number, another text");
    g.o.eos = out.v[7];
    g.o.rule.temperature = 0;
    int64_t first = 0;
    while (out.v[first] != g.o.eos) first++;
    generator_text(&g, &prompt, 0, NULL, &a);
    ok(a.n == first, "AR: ends before the token eos: %lld tokens, expected %lld", (long long)a.n, (long long)first);
    free(logits);
    lab_close(&whole);
    generator_close(&g);
}

static bool has(const Tokens *t, int32_t token) {
    for (int64_t i = 0; i < t->n; i++)
        if (t->v[i] == token) return true;
    return false;
}

static void test_denoising(void) {
    StrList d = small_model();
    Generator g;
    Tokens prompt = bytes_of("ab"), a, b, c;
    GenOptions o = { .length = 12, .rule = { 0.7, 1, 0 }, .eos = -1, .guidance = 0.5, .threshold = 0.9, .block = 5, .steps = 7, .seed = 11 };
    if (generator_open(&g, &(LabOptions){ .file = "models/dlm.sn", .defines = &d, .seed = 3 }, NULL, &BYTE_TOKENIZER, &o, 9)) abort();
    sharpen(&g.lab);
    for (int by = REMASK_RANDOM; by <= REMASK_THRESHOLD; by++) {
        g.o.remask = (Remask)by;
        ok(!generator_text(&g, &prompt, 0, NULL, &a) && a.n == 12 && !has(&a, 256), "remask %d: 12 tokens, no mask left", by);
        generator_text(&g, &prompt, 0, NULL, &b);
        generator_text(&g, &prompt, 1, NULL, &c);
        ok(!memcmp(a.v, b.v, sizeof *a.v * 12), "remask %d: the same seed, the same text", by);
        ok(memcmp(a.v, c.v, sizeof *a.v * 12), "remask %d: another number, another text", by);
    }
    /* One step without noise: every position has the argmax of one forward pass over the prompt and masks. */
    g.o = (GenOptions){ .length = 12, .rule = { 0, 1, 0 }, .eos = -1, .steps = 1, .remask = REMASK_CONFIDENCE };
    generator_text(&g, &prompt, 0, NULL, &a);
    for (int i = 0; i < 12; i++) {
        float *row = g.logits + (2 + i) * 257;
        row[256] = -INFINITY;
        ok(a.v[i] == argmax(row, 257), "one step: token %d is the argmax of its position", i);
    }
    /* A suffix is seen, stays, and is not part of the text. */
    g.suffix = bytes_of("xyz");
    int err = generator_text(&g, &prompt, 0, NULL, &c);
    ok(!err && c.n == 12 && !memcmp(g.tokens, prompt.v, 8) && !memcmp(g.tokens + 14, g.suffix.v, 12), "a suffix stands behind the text");
    for (int i = 0; i < 12; i++) {
        float *row = g.logits + (2 + i) * 257;
        row[256] = -INFINITY;
        ok(c.v[i] == argmax(row, 257), "infilling in one step: token %d is the argmax of its position", i);
    }
    float with = g.logits[2 * 257];
    g.suffix = bytes_of("aaaaaaaa");
    fflush(stderr);
    int old = dup(2), null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    ok(generator_text(&g, &prompt, 0, NULL, &b) == 1, "a suffix beyond the room is refused");
    fflush(stderr);
    dup2(old, 2);
    g.suffix = (Tokens){0};
    generator_text(&g, &prompt, 0, NULL, &a);
    ok(fabsf(g.logits[2 * 257] - with) > 1e-3f, "what stands behind changes what is predicted: %g, %g", g.logits[2 * 257], with);
    /* What lies beyond the text is not seen: a generator with more room says the same. */
    Generator wide;
    if (generator_open(&wide, &(LabOptions){ .file = "models/dlm.sn", .defines = &d, .seed = 3 }, NULL, &BYTE_TOKENIZER, &g.o, 30)) abort();
    sharpen(&wide.lab);
    generator_text(&wide, &prompt, 0, NULL, &b);
    ok(!memcmp(a.v, b.v, sizeof *a.v * 12), "more room changes nothing");
    generator_close(&wide);
    generator_close(&g);
}

/* The posterior of the uniform kernel by its definition: every chain clean -> next -> z of one position is counted, by matrices. */
static void posterior(int n, int z, double alpha, double next, const double *x, double *p) {
    double all = 0;
    for (int j = 0; j < n; j++) {
        p[j] = 0;
        for (int clean = 0; clean < n; clean++) {
            double there = next * (j == clean) + (1 - next) / n, on = alpha / next * (z == j) + (1 - alpha / next) / n;
            p[j] += x[clean] * there * on;
        }
        all += p[j];
    }
    for (int j = 0; j < n; j++) p[j] /= all;
}

static void test_posterior(void) {
    enum { N = 5, DRAWS = 40000 };
    const float logits[N] = { 0.3f, -1.2f, 1.7f, 0.1f, -0.4f };
    double x[N], want[N], got[N], sum = 0;
    const double levels[][2] = { { 0, 0.1 }, { 0.2, 0.5 }, { 0.6, 0.7 }, { 0.9, 1 }, { 0, 1 } };
    for (int temperature = 1; temperature <= 2; temperature++)
        for (unsigned k = 0; k < sizeof levels / sizeof *levels; k++)
            for (int z = 0; z < N; z++) {
                sum = 0;
                for (int i = 0; i < N; i++) sum += x[i] = exp(logits[i] / temperature);
                for (int i = 0; i < N; i++) x[i] /= sum;
                posterior(N, z, levels[k][0], levels[k][1], x, want);
                sample_posterior(logits, N, z, levels[k][0], levels[k][1], temperature, got);
                for (int i = 0; i < N; i++) ok(fabs(got[i] - want[i]) < 1e-12, "posterior of %d at %g after %g: %g, by definition %g", i, levels[k][1], levels[k][0], got[i], want[i]);
                if (temperature > 1) continue;
                int hits[N] = {0};
                for (int i = 0; i < DRAWS; i++) hits[sample_from(got, N, draw_uniform((Draw){ 9, (uint32_t)z, k }, (uint64_t)i))]++;
                check_frequencies("posterior", hits, want, N);
            }
    for (int z = 0; z < N; z++) {
        sample_posterior(logits, N, z, 0.3, 1, 0, got);
        ok(got[2] == 1, "temperature 0, the last step: the likeliest");
    }
    /* Where the model says what the clean token is by its neighbours alone, the chain ends as that, however many steps it has. */
    for (int steps = 1; steps <= 7; steps += 3) {
        int hits[N] = {0};
        for (uint32_t i = 0; i < DRAWS; i++) {
            int32_t z = (int32_t)(draw_uniform((Draw){ 5, i, 0 }, 0) * N);
            for (int s = 0; s < steps; s++) {
                sample_posterior(logits, N, z, s / (double)steps, (s + 1) / (double)steps, 1, got);
                z = sample_from(got, N, draw_uniform((Draw){ 5, i, (uint32_t)(s + 1) }, 0));
            }
            hits[z]++;
        }
        sum = 0;
        for (int i = 0; i < N; i++) sum += x[i] = exp(logits[i]);
        for (int i = 0; i < N; i++) x[i] /= sum;
        check_frequencies("chain", hits, x, N);
    }
    const double half[3] = { 0.5, 0.5 - 1e-17, 0 };
    ok(sample_from(half, 3, 1 - 0x1p-53) == 1, "rounding gives no token that cannot come");
}

/* A text by the uniform kernel: of the prompt, the suffix and seed alone; in one step without noise, the likeliest of a pass over random tokens. */
static void test_uniform(void) {
    for (int cosine = 0; cosine < 2; cosine++) {
        StrList d = small_model();
        list_add(&d, "kernel=uniform");
        if (cosine) list_add(&d, "noise_schedule=cosine");
        Generator g;
        Tokens prompt = bytes_of("ab"), a, b, c;
        GenOptions o = { .length = 12, .rule = { 1, 1, 0 }, .eos = -1, .steps = 5, .seed = 11 };
        if (generator_open(&g, &(LabOptions){ .file = "models/dlm.sn", .defines = &d, .seed = 3 }, NULL, &BYTE_TOKENIZER, &o, 9)) abort();
        sharpen(&g.lab);
        g.suffix = bytes_of("xyz");
        ok(!generator_text(&g, &prompt, 0, NULL, &a) && a.n == 12 && !has(&a, 256), "uniform: 12 tokens, no mask");
        ok(!memcmp(g.tokens, prompt.v, 8) && !memcmp(g.tokens + 14, g.suffix.v, 12), "uniform: prompt and suffix stay");
        generator_text(&g, &prompt, 0, NULL, &b);
        generator_text(&g, &prompt, 1, NULL, &c);
        ok(!memcmp(a.v, b.v, sizeof *a.v * 12) && memcmp(a.v, c.v, sizeof *a.v * 12), "uniform: the same seed and number, the same text");
        g.o.steps = 1;
        g.o.rule.temperature = 0;
        generator_text(&g, &prompt, 0, NULL, &a);
        for (int i = 0; i < 12; i++) ok(a.v[i] == argmax(g.logits + (2 + i) * 257, 256), "uniform, one step: token %d is the likeliest", i);
        generator_close(&g);
    }
}

int main(void) {
    test_posterior();
    test_uniform();
    test_sampling();
    test_sureness();
    test_greedy();
    test_denoising();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
