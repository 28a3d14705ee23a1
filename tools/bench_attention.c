/* bench_attention.c: `sinter bench attention`: attention under masks, fused against unfused, against the FMA peak of the same run.

   In:  lengths, head sizes, masks. Out: per case and direction the time of both sides and GFLOP/s over the visited blocks: those 64 x 64
   blocks of the score matrix in which the mask allows anything, two products forward, five backward (as FlashAttention counts).
   A mask is text, as in a model: the predicate itself is compiled and read back to count its blocks. */
#include "passes/pass.h"
#include "tools/bench.h"

#include <math.h>

enum { BLOCK = 64 };

/* q, k: the indices, [S, 1] and [1, S]; n: the mask's number. */
static const struct { const char *name; int64_t dflt; const char *text; } MASKS[] = {
    { "full",            0,   "" },
    { "causal",          0,   "q >= k" },
    { "window",          256, "q >= k and q - k < n" },
    { "prefix",          256, "q >= k or k < n" },
    { "document",        4,   "reshape(doc, [B, 1, S, 1]) == reshape(doc, [B, 1, 1, S])" },
    { "causal-document", 4,   "q >= k and reshape(doc, [B, 1, S, 1]) == reshape(doc, [B, 1, 1, S])" },
    { "block-diffusion", 32,  "block_diffusion(q, k, S / 2, n) as _" },
    { "dilated",         4,   "q >= k and (q - k) % n == 0" },
};
enum { NMASKS = sizeof MASKS / sizeof *MASKS };

/* BD3-LM, a noised copy of h positions before the clean ones: the noised half sees its own block and the clean blocks before it,
   the clean half the clean blocks up to its own. */
static const char BLOCKS[] =
    "block block_diffusion(q, k, h, n) {\n"
    "  bq = q % h / n;  bk = k % h / n\n"
    "  return (q < h and k < h and bq == bk) or (q < h and k >= h and bq > bk) or (q >= h and k >= h and bq >= bk)\n"
    "}\n";

typedef struct Shape { int64_t b, h, kv, s, d, n; int mask; char name[40]; } Shape;

static char *mask_text(const Shape *a) {
    if (!*MASKS[a->mask].text) return text_fmt("%s", "");
    return text_fmt("n = %lld\nq = iota([S, 1], 0)\nk = iota([1, S], 1)\nmask = %s\n", (long long)a->n, MASKS[a->mask].text);
}

/* -- Which blocks are visited ---------------------------------------------------------------------------------------------- */

/* Elements of all visited blocks of one [S, S] mask. */
static double visited_area(const uint8_t *m, int64_t s) {
    double sum = 0;
    for (int64_t r = 0; r < s; r += BLOCK)
        for (int64_t c = 0; c < s; c += BLOCK) {
            int64_t h = s - r < BLOCK ? s - r : BLOCK, w = s - c < BLOCK ? s - c : BLOCK;
            bool any = false;
            for (int64_t i = 0; i < h && !any; i++) any = memchr(m + (r + i) * s + c, 1, (size_t)w) != NULL;
            if (any) sum += (double)(h * w);
        }
    return sum;
}

static int feed_doc(Lab *lab, const SnGraphPlan *g, int64_t docs) {
    const SnBuffer *b = lab_input(g, "doc");
    if (!b) return 0;
    int64_t n = b->bytes / 4, row = b->t.dim[1];
    int32_t *v = calloc((size_t)n, sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = (int32_t)(i % row * docs / row);
    int rc = sn_bind(lab->s, g->name, "doc", v, (size_t)b->bytes) ? lab_error(lab) : 0;
    free(v);
    return rc;
}

/* The share of the score matrix that lies in visited blocks. */
static int visited(const BenchOptions *o, const Shape *a, double *share) {
    static const StrList none;
    *share = 1;
    if (!*MASKS[a->mask].text) return 0;
    char *mask = mask_text(a);
    char *text = text_fmt("%sdim B = %lld\ndim S = %lld\ngraph g {\ninput doc: i32[B, S]\n%soutput y = expand(reshape(mask, %s), [B, 1, S, S])\n}\n",
                          BLOCKS, (long long)a->b, (long long)a->s, mask, strstr(MASKS[a->mask].text, "doc") ? "[B, 1, S, S]" : "[1, 1, S, S]");
    Lab lab;
    int rc = lab_open(&lab, &(LabOptions){ .file = a->name, .text = text, .defines = &none, .seed = 1, .threads = (int)o->threads, .device = o->device, .target = o->target });
    size_t bytes = (size_t)(a->b * a->s * a->s);
    uint8_t *m = rc ? NULL : malloc(bytes);
    if (!rc) rc = feed_doc(&lab, lab_graph(&lab, "g"), a->n);
    if (!rc && (sn_run(lab.s, "g") || sn_read(lab.s, "g", "y", m, bytes))) rc = lab_error(&lab);
    double sum = 0;
    for (int64_t b = 0; b < a->b && !rc; b++) sum += visited_area(m + b * a->s * a->s, a->s);
    if (!rc) *share = sum / (double)bytes;
    if (lab.s) lab_close(&lab);
    free(m);
    free(text);
    free(mask);
    return rc;
}

/* -- One case ---------------------------------------------------------------------------------------------------------------- */

static char *case_text(const Shape *a, const char *dtype, bool bwd) {
    char *mask = mask_text(a);
    bool doc = strstr(MASKS[a->mask].text, "doc") != NULL;
    char *text = text_fmt("%sdim B = %lld\ndim H = %lld\ndim K = %lld\ndim S = %lld\ndim D = %lld\ngraph g {\n"
                          "weight wq: %s[B, H, S, D] = normal(1)\nweight wk: %s[B, K, S, D] = normal(1)\nweight wv: %s[B, K, S, D] = normal(1)\n"
                          "%s%s"
                          "s = matmul(wq, repeat_heads(wk, H / K), tb=1) / sqrt(D)\n"
                          "y = softmax(%s) @ repeat_heads(wv, H / K)\n%s%s%s}\n",
                          BLOCKS, (long long)a->b, (long long)a->h, (long long)a->kv, (long long)a->s, (long long)a->d, dtype, dtype, dtype, doc ? "input doc: i32[B, S]\n" : "",
                          mask, *mask ? "select(mask, s, -inf)" : "s", bwd ? "state dy: " : "output y = y\n", bwd ? dtype : "",
                          bwd ? "[B, H, S, D] = normal(1)\noutput loss = cast(sum(y * dy), f32)\n" : "");
    free(mask);
    return text;
}

static void report(const BenchOptions *o, const Shape *a, const char *dir, double share, const CaseTime *t) {
    double products = strcmp(dir, "bwd") ? 2 : 5, area = (double)(a->b * a->h) * (double)(a->s * a->s) * share;
    double gflops = products * 2 * area * (double)a->d / t->seconds[0] * 1e-9, speedup = t->seconds[1] / t->seconds[0];
    if (o->json)
        bench_row(json_pack("{s:s s:s s:s s:s s:I s:I s:I s:I s:I s:f s:s s:f s:f s:f s:f s:i s:f s:f s:I s:I}", "kind", "attention", "name", a->name,
                            "dir", dir, "mask", a->name, "batch", (json_int_t)a->b, "heads", (json_int_t)a->h, "kv_heads", (json_int_t)a->kv, "seq",
                            (json_int_t)a->s, "dim", (json_int_t)a->d, "visited", share, "dtype", bench_dtype(o), "ms", t->seconds[0] * 1e3, "gflops",
                            gflops, "peak_gflops", t->peak, "ratio", gflops / t->peak, "launches", t->launches[0], "unfused_ms",
                            t->seconds[1] * 1e3, "speedup", speedup, "peak_bytes", (json_int_t)t->arena[0], "unfused_peak_bytes",
                            (json_int_t)t->arena[1]));
    else
        printf("%-20s %-4s %6lld %5lld %4lld/%-3lld %8.3f %10.2f %9.1f %7.2f %5d %12.2f %8.2f %10.1f %9.1f\n", a->name, dir, (long long)a->s,
               (long long)a->d, (long long)a->h, (long long)a->kv, share, t->seconds[0] * 1e3, gflops, gflops / t->peak, t->launches[0],
               t->seconds[1] * 1e3, speedup, (double)t->arena[0] * 1e-6, (double)t->arena[1] * 1e-6);
    fflush(stdout);
}

static int bench_shape(const BenchOptions *o, const Shape *a) {
    double share;
    int rc = visited(o, a, &share);
    for (int bwd = 0; bwd < 2 && !rc; bwd++) {
        if (!case_dir(o, bwd ? "bwd" : "fwd")) continue;
        char *text = case_text(a, o->dtype ? o->dtype : "f32", bwd);
        Case c = { .name = a->name, .text = text, .only = bwd ? "bwd" : NULL, .grad = bwd, .docs = a->n };
        CaseTime t;
        rc = case_run(o, &c, &t);
        if (!rc) report(o, a, bwd ? "bwd" : "fwd", share, &t);
        free(text);
    }
    return rc;
}

/* -- Options ------------------------------------------------------------------------------------------------------------------ */

static int parse_mask(const char *item, Shape *a) {
    size_t n = strcspn(item, ":");
    for (a->mask = 0; a->mask < NMASKS; a->mask++)
        if (strlen(MASKS[a->mask].name) == n && !strncmp(MASKS[a->mask].name, item, n)) break;
    char *end = "";
    if (a->mask < NMASKS) a->n = item[n] ? strtoll(item + n + 1, &end, 10) : MASKS[a->mask].dflt;
    if (a->mask < NMASKS && !*end && (a->n > 0 || !item[n])) {
        snprintf(a->name, sizeof a->name, a->n ? "%s:%lld" : "%s", MASKS[a->mask].name, (long long)a->n);
        return 0;
    }
    StrBuf names = {0};
    for (int i = 0; i < NMASKS; i++) snU_putf(&names, "%s%s%s", i ? ", " : "", MASKS[i].name, MASKS[i].dflt ? ":N" : "");
    int rc = cmd_fail("bench attention: --mask knows %s, not '%s'", names.s, item);
    snU_free_buf(&names);
    return rc;
}

static int parse_size(const char *option, const char *item, int64_t *out) {
    char *end;
    *out = strtoll(item, &end, 10);
    return *item && !*end && *out > 0 && *out <= 1 << 16 ? 0 : cmd_fail("bench attention: --%s wants sizes, not '%s'", option, item);
}

int bench_attention(const BenchOptions *o) {
    Shape a = { .b = o->batch ? o->batch : 1, .h = o->heads ? o->heads : 12 };
    a.kv = o->kv_heads ? o->kv_heads : a.h;
    if (a.h % a.kv) return cmd_fail("bench attention: --heads is a multiple of --kv-heads");
    if (!o->json)
        printf("%-20s %-4s %6s %5s %8s %8s %10s %9s %7s %5s %12s %8s %10s %9s\n", "mask", "dir", "seq", "dim", "heads", "visited", "ms", "GFLOP/s", "ratio",
               "uses", "unfused, ms", "speedup", "arena, MB", "unfused");
    char seq[32], dim[32], mask[48];
    for (const char *ps = o->seq ? o->seq : "2048"; next_item(&ps, seq, sizeof seq); )
        for (const char *pd = o->dim ? o->dim : "64,128"; next_item(&pd, dim, sizeof dim); )
            for (const char *pm = o->masks ? o->masks : "full,causal"; next_item(&pm, mask, sizeof mask); ) {
                int rc = parse_size("seq", seq, &a.s);
                if (!rc) rc = parse_size("dim", dim, &a.d);
                if (!rc) rc = parse_mask(mask, &a);
                if (!rc) rc = bench_shape(o, &a);
                if (rc) return rc;
            }
    return 0;
}
