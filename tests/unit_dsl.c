/* unit_dsl.c: one model in the text and in C, and what sn.h promises beside it.

   In:  shapes. Out: for each, models/ar.sn and models/ar.c print the same graph to the letter.
   Instances, extents and errors of sn.h have cases of their own.

   unit_dsl [FOLDER]      FOLDER: of the repository; prints `N passed, N failed` */
#include "models/ar.h"
#include "tests/check.h"

/* -- ar.c against ar.sn ------------------------------------------------------------------------ */

static const ArShape SHAPES[] = {
    /* vocab width layers heads kv_heads hidden  batch seq  qk_norm tied  dropout input_mask */
    {  257,  192,  1,     4,    4,       512,    16,   128, true,   false, 0,    0 },
    {  257,  192,  3,     4,    2,       512,    16,   128, true,   false, 0.1,  0.25 },
    {  97,   48,   2,     4,    1,       96,     2,    16,  false,  true,  0.5,  0 },
    {  97,   48,   0,     4,    4,       96,     3,    16,  true,   false, 0,    0.125 },
    {  97,   48,   0,     4,    4,       96,     3,    16,  false,  true,  0,    0 },
    {  11,   8,    3,     2,    2,       12,     1,    6,   true,   true,  0,    0 },
    {  11,   8,    1,     1,    1,       12,     2,    2,   false,  false, 1e-3, 1 },
    /* extents that equal B or T and are not: the names follow meaning, not size */
    {  16,   16,   2,     4,    2,       16,     4,    16,  true,   false, 0,    0 },
    {  8,    8,    1,     4,    2,       8,      8,    8,   true,   true,  0,    0 },
};

static Module *load_text(sn_ctx *c, const char *path, const ArShape *m) {
    char value[12][32];
    const char *names[] = { "vocab", "width", "layers", "heads", "kv_heads", "hidden", "batch",
                            "seq", "qk_norm", "tied", "dropout", "input_mask" };
    const int numbers[] = { m->vocab, m->width, m->layers, m->heads, m->kv_heads, m->hidden,
                            m->batch, m->seq, m->qk_norm, m->tied };
    Define defs[12];
    for (int i = 0; i < 12; i++) {
        if (i < 10) snprintf(value[i], sizeof *value, "%d", numbers[i]);
        else snprintf(value[i], sizeof *value, "%.17g", i == 10 ? m->dropout : m->input_mask);
        defs[i] = (Define){ names[i], value[i] };
    }
    return sn_load_model(c, path, defs, 12);
}

/* The first line that differs, for the report. */
static void report(const ArShape *m, const char *text, const char *calls) {
    const char *a = text, *b = calls;
    while (*a && *b) {
        size_t n = strcspn(a, "\n"), k = strcspn(b, "\n");
        if (n != k || memcmp(a, b, n) != 0) break;
        a += n + (a[n] == '\n');
        b += k + (b[k] == '\n');
    }
    ok(false, "layers %d, qk_norm %d, tied %d, kv_heads %d:\n  ar.sn %.*s\n  ar.c  %.*s", m->layers,
       m->qk_norm, m->tied, m->kv_heads, (int)strcspn(a, "\n"), a, (int)strcspn(b, "\n"), b);
}

static void test_shape(const char *path, const ArShape *m) {
    sn_ctx *c = sn_open(NULL);
    StrBuf text = {0}, calls = {0};
    Module *file = load_text(c, path, m);
    Graph *g = file ? model_ar(c, m) : NULL;
    if (g) {
        sn_print(&text, sn_get(file, "train"));
        sn_print(&calls, g);
        if (strcmp(text.s, calls.s) != 0) report(m, text.s, calls.s);
        else passed++;
        ok(m->layers == 0 || strstr(text.s, "stream=") != NULL, "no stream was compared");
    } else {
        ok(false, "%s", sn_error(c));
    }
    snU_free_buf(&text);
    snU_free_buf(&calls);
    sn_close(c);
}

/* -- sn.h -------------------------------------------------------------------------------------- */

static const char *printed(Graph *g) {
    static char text[4000];
    StrBuf b = {0};
    sn_print(&b, g);
    snprintf(text, sizeof text, "%s", b.s);
    snU_free_buf(&b);
    return text;
}

static bool has(Graph *g, const char *line) {
    bool found = strstr(printed(g), line) != NULL;
    if (!found) printf("no `%s` in\n%s", line, printed(g));
    return found;
}

/* Two instances of a block, one renamed; two draws in one scope. */
static void test_instances(sn_ctx *c) {
    Graph *g = sn_graph(c, "t");
    sn_val x = sn_input(g, "x", SN_F32, SHAPE(4)), p = sn_input_scalar(g, "p", 0.5);
    sn_scope(g, "a");
    x = sn_apply(g, "dropout", NULL, x, p);
    x = sn_apply(g, "dropout", NULL, x, p);
    x = sn_apply(g, "dropout as again", NULL, x, p);
    sn_end_scope(g);
    sn_val none = { 0 }, r = sn_random(g, SHAPE(4), none, -1), s = sn_random(g, SHAPE(4), none, -1);
    sn_output(g, "y", sn_add(g, x, sn_add(g, r, s)));
    ok(has(g, "a.dropout.drop_some.random:"), "the first instance");
    ok(has(g, "a.dropout.1.drop_some.random:"), "the second instance is numbered");
    ok(has(g, "a.again.drop_some.random:"), "an instance with a name of its own");
    ok(r.id && s.id && r.id != s.id, "two draws of one scope have two streams");
}

static void test_extents(sn_ctx *c) {
    Graph *g = sn_graph(c, "t");
    int64_t B = sn_dim(g, "B", 4), T = sn_dim(g, "T", 8);
    ok(sn_size(B) == 4 && sn_size(7) == 7 && sn_size(-1) == -1, "sn_size");
    sn_val x = sn_input(g, "x", SN_F32, SHAPE(B, 4));
    sn_val y = sn_input(g, "y", SN_F32, SHAPE(sn_size(T), sn_size(B)));
    ok(has(g, "x: f32[B, 4]"), "only the extent that was named has a name");
    ok(has(g, "y: f32[8, 4]"), "sn_size leaves a number");
    ok(sn_dimof(g, x, 0) == B && sn_dimof(g, x, -1) == 4 && sn_dimof(g, y, 0) == 8, "sn_dimof");
    const int64_t wrong[] = { T - 1, T + 1, T + T, T / 2, 2 * B };
    for (int i = 0; i < 5; i++) {
        sn_val z = sn_input(g, "z", SN_F32, SHAPE(wrong[i]));
        ok(!z.id && sn_code(c) == SN_USAGE, "arithmetic on a named extent, %d", i);
        sn_clear(c);
    }
    ok(sn_dimof(g, x, 2) == 0 && sn_error(c), "an axis that is not there");
    sn_clear(c);
    ok(sn_dim(g, "none", 0) == 0 && sn_error(c), "a dim of 0");
    sn_clear(c);
}

/* Nothing dead stays; after an error every builder gives 0 and sn_finish NULL. */
static void test_ends(sn_ctx *c) {
    Graph *g = sn_graph(c, "t");
    sn_val x = sn_input(g, "x", SN_F32, SHAPE(4));
    sn_exp(g, x);
    sn_output(g, "y", sn_log(g, x));
    g = sn_finish(g);
    ok(!strstr(printed(g), "exp(") && has(g, "output y = y"), "sn_finish drops what is dead");
    sn_val bad = sn_apply(g, "no_such_block", NULL, (sn_val){ 1 });
    ok(bad.id == 0 && sn_code(c) == SN_UNKNOWN, "an unknown block");
    ok(sn_exp(g, (sn_val){ 1 }).id == 0 && !sn_finish(g), "errors are sticky");
    sn_clear(c);
    ok(sn_exp(g, (sn_val){ 1 }).id != 0, "until they are cleared");
}

int main(int argc, char **argv) {
    char path[1000];
    snprintf(path, sizeof path, "%s/models/ar.sn", argc > 1 ? argv[1] : ".");
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) test_shape(path, &SHAPES[i]);
    sn_ctx *c = sn_open(NULL);
    test_instances(c);
    test_extents(c);
    test_ends(c);
    sn_close(c);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
