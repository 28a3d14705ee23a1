/* cmd_test.c: `sinter test`: text tests. A test is one file:

     #! opt -p canon -D layers=1
     ... input ...
     #= expect
     ... the whole output ...

   Commands on the first line:
     print                     the flat form; also that it parses back to itself
     opt -p A,B, grad          the first graph after passes
     eval                      values of the outputs, by the reference evaluator in f64, inputs seeded
     diff [opencl]             compiled against the reference evaluator, inputs seeded; no output when all is well
     kir, kt                   kernel IR and tile programs: parse, verify, print
     lower TARGET              a tile program lowered for a target (host:x86-64-v3): its kernel IR
     emit TARGET               kernel IR (.kir), or a tile program (.kt) lowered, as OpenCL C (opencl:x8, opencl:gpu)
     error                     the input must fail on the line that carries `# <- error: text`, with that text in the message
   All take -D k=v, --graph NAME, --autocast bf16|f16|tf32 and --recompute none|block|full. --bless rewrites the expected output; review is the diff. */
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tools/cmd.h"
#include "tools/verify.h"

#include <dirent.h>
#include <sys/stat.h>

typedef struct TextTest {
    const char *path;
    char *text;
    size_t input, size;              /* length of the input; of the file */
    const char *expect;              /* NULL: none yet */
    char head[512];                  /* the first line, cut into words */
    const char *command, *passes, *graph, *target, *device;
    StrList defines;
    PassOptions po;
    sn_ctx *c;
    StrBuf out;
    const char *why;                 /* set when it failed otherwise than by its output */
    const char *skip;                /* set when something that it needs is not here */
} TextTest;

typedef struct Tally { int passed, failed, blessed, skipped; bool bless; const char *device; } Tally;

/* -- Reading a test --------------------------------------------------------------------------------------------------- */

static bool read_head(TextTest *t) {
    size_t n = strcspn(t->text, "\n");
    if (strncmp(t->text, "#!", 2) || n - 2 >= sizeof t->head) return false;
    memcpy(t->head, t->text + 2, n - 2);
    char *save = NULL;
    for (char *w = strtok_r(t->head, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
        const struct { const char *name; const char **to; } values[] = {
            { "-p", &t->passes }, { "--graph", &t->graph }, { "--autocast", &t->po.autocast }, { "--recompute", &t->po.recompute } };
        const char **value = NULL;
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            if (!strcmp(w, values[i].name)) value = values[i].to;
        if (value) *value = strtok_r(NULL, " \t", &save);
        else if (!strcmp(w, "-D")) { char *d = strtok_r(NULL, " \t", &save); if (d) list_add(&t->defines, d); }
        else if (!t->command) t->command = w;
        else t->target = w;
    }
    return t->command != NULL;
}

static bool read_test(TextTest *t) {
    t->text = read_text(t->path, &t->size);
    if (!t->text || !read_head(t)) return false;
    char *mark = strstr(t->text, "\n#= expect\n");
    t->input = mark ? (size_t)(mark - t->text) + 1 : t->size;
    t->expect = mark ? mark + strlen("\n#= expect\n") : NULL;
    return true;
}

/* -- The commands: each fills t->out ------------------------------------------------------------------------------------ */

static Module *load(TextTest *t) {
    Define *d = cmd_defines(&t->defines);
    Module *m = snG_parse(t->c, t->path, t->text, t->input, d, t->defines.n);
    free(d);
    if (!m) t->why = t->c->message;
    return m;
}

static const Graph *pick(TextTest *t, const Module *m) {
    const Graph *g = t->graph ? snG_get(m, t->graph) : m->graphs.n ? m->graphs.v[0] : NULL;
    if (!g) t->why = "there is no such graph";
    return g;
}

static void do_print(TextTest *t, const Module *m) {
    for (uint32_t i = 0; i < m->graphs.n; i++) snG_print(&t->out, m->graphs.v[i]);
    StrBuf again = {0};
    Module *m2 = snG_parse(t->c, t->path, t->out.s, t->out.n, NULL, 0);
    if (!m2) { t->why = t->c->message; return; }
    for (uint32_t i = 0; i < m2->graphs.n; i++) snG_print(&again, m2->graphs.v[i]);
    if (strcmp(again.s, t->out.s)) t->why = "the printed form does not parse back to itself";
    snG_free_module(m2);
    snU_free_buf(&again);
}

static void do_opt(TextTest *t, const Graph *g, const char *list) {
    if (!list) { t->why = "opt wants -p pass,..."; return; }
    Graph *after = snP_run(t->c, g, &t->po, list);
    snG_print(&t->out, after);
    snG_free(after);
}

static void do_eval(TextTest *t, const Graph *g) {
    Arena a = {0};
    EvalEnv env = { .seed = 1, .step = 1 };
    snP_seed_inputs(g, 1, SEED_WEIGHTS, &a, &env);
    EvalVal *vals = NEWN(&a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, &env, &a, vals);
    for (uint32_t i = 0; i < g->outputs.n; i++) {
        NodeId id = g->outputs.v[i].node;
        char num[40];
        snU_putf(&t->out, "%s: ", snU_str(t->c, g->outputs.v[i].name));
        snG_print_type(&t->out, t->c, snG_type(g, id));
        snU_puts(&t->out, " =");
        for (int64_t k = 0; k < vals[id].n && k < 256; k++) snU_putf(&t->out, " %s", snU_num(num, vals[id].v[k], true));
        snU_puts(&t->out, "\n");
    }
    snU_free_arena(&a);
}

static void do_diff(TextTest *t, Module *m) {
    char target[64];
    if (sn_device_target(t->device ? t->device : t->target, target)) { t->skip = sn_rt_error(); return; }
    sn_program *p = snK_build(m, &(BuildOptions){ .target = target, .fuse = "all", .autocast = t->po.autocast }, NULL);
    if (!p) { t->why = t->c->message; return; }
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .seed = 1, .poison = true });
    for (uint32_t i = 0; s && i < m->graphs.n; i++) {
        Arena a = {0};
        EvalEnv env = { .seed = 1, .step = 1 };
        snP_seed_inputs(m->graphs.v[i], 1, SEED_WEIGHTS, &a, &env);
        env.seed = 1;
        env.step = 1;
        env.tf32 = !strncmp(target, "ptx", 3) && t->po.autocast && !strcmp(t->po.autocast, "tf32");
        Graph *ref = snP_run(t->c, m->graphs.v[i], &t->po, "expand,autocast");
        snV_verify(s, snU_str(t->c, ref->name), ref, &env, false, &t->out);
        snG_free(ref);
        snU_free_arena(&a);
    }
    if (!s) t->why = sn_rt_error();
    if (s) sn_session_free(s);
    snR_program_free(p);
}

/* The text after the `#!` line: kernel IR and tile programs. */
static const char *body(const TextTest *t, size_t *n) {
    size_t head = strcspn(t->text, "\n") + 1;
    if (head > t->input) head = t->input;
    *n = t->input - head;
    return t->text + head;
}

static void put_kernel(TextTest *t, const Kernel *k) {
    snK_verify(k);
    if (strcmp(t->command, "emit") != 0) snK_print(&t->out, k);
    else snK_emit_opencl(&t->out, &k, 1, (const char *[]){ snU_str(t->c, k->name) });
}

static void do_kernel(TextTest *t) {
    Arena a = {0};
    size_t n, length = strlen(t->path);
    const char *text = body(t, &n);
    if (!strcmp(t->command, "kir") || (!strcmp(t->command, "emit") && length > 4 && !strcmp(t->path + length - 4, ".kir"))) {
        put_kernel(t, snK_parse(t->c, &a, t->path, text, n));
    } else {
        Tile *tile = snT_parse(t->c, &a, t->path, text, n);
        Target target;
        snT_verify(tile);
        if (strcmp(t->command, "kt") != 0) snK_target(t->c, t->target ? t->target : "host:x86-64-v3", &target);
        if (!strcmp(t->command, "kt")) snT_print(&t->out, tile);
        else if (!strcmp(t->command, "emit") && !snK_is_opencl(&target)) t->why = "emit wants a target that is a text: opencl[:xN|:gpu]";
        else put_kernel(t, snK_lower(t->c, &a, tile, &target));
    }
    snU_free_arena(&a);
}

/* -- error ---------------------------------------------------------------------------------------------------------------- */

static const char *marker_of(const TextTest *t, int *line, size_t *n) {
    static const char MARK[] = "# <- error:";
    const char *at = strstr(t->text, MARK);
    if (!at) return NULL;
    *line = 1;
    for (const char *p = t->text; p < at; p++) *line += *p == '\n';
    at += strlen(MARK);
    at += strspn(at, " ");
    *n = strcspn(at, "\n");
    while (*n && at[*n - 1] == ' ') (*n)--;
    return at;
}

static void do_error(TextTest *t) {
    int line;
    size_t n;
    const char *want = marker_of(t, &line, &n);
    if (!want) { t->why = "no line carries `# <- error: text`"; return; }
    Module *m = load(t);
    t->why = NULL;
    if (m) { snG_free_module(m); t->why = "it should fail, and does not"; return; }
    char where[32], *text = strndup(want, n);
    snprintf(where, sizeof where, ":%d: ", line);
    const char *got = t->c->message ? t->c->message : "";
    if (!strstr(got, where)) t->why = snU_fmt(&t->c->arena, "the error is on another line than %d: %s", line, got);
    else if (!strstr(got, text)) t->why = snU_fmt(&t->c->arena, "the message lacks '%s': %s", text, got);
    free(text);
}

/* -- The runner -------------------------------------------------------------------------------------------------------- */

static void run_command(TextTest *t) {
    SN_ENTER(t->c, { t->why = t->c->message; return; });
    const char *cmd = t->command;
    if (!strcmp(cmd, "error")) {
        do_error(t);
    } else if (!strcmp(cmd, "kir") || !strcmp(cmd, "kt") || !strcmp(cmd, "lower") || !strcmp(cmd, "emit")) {
        do_kernel(t);
    } else {
        Module *m = load(t);
        const Graph *g = m ? pick(t, m) : NULL;
        if (!g) { SN_LEAVE(t->c); return; }
        if (!strcmp(cmd, "print")) do_print(t, m);
        else if (!strcmp(cmd, "opt")) do_opt(t, g, t->passes);
        else if (!strcmp(cmd, "grad")) do_opt(t, g, t->passes ? t->passes : "grad");
        else if (!strcmp(cmd, "eval")) do_eval(t, g);
        else if (!strcmp(cmd, "diff")) do_diff(t, m);
        else t->why = "the command on the first line is unknown; `sinter test --help` lists them";
        snG_free_module(m);
    }
    SN_LEAVE(t->c);
}

/* The first line in which two texts differ. */
static void print_difference(const char *path, const char *want, const char *got) {
    int line = 1;
    while (*want && *got) {
        size_t a = strcspn(want, "\n"), b = strcspn(got, "\n");
        if (a != b || memcmp(want, got, a)) break;
        want += a + (want[a] == '\n');
        got += b + (got[b] == '\n');
        line++;
    }
    printf("FAILED %s: line %d of the output\n  expected: %.*s\n  got:      %.*s\n", path, line, (int)strcspn(want, "\n"), want,
           (int)strcspn(got, "\n"), got);
}

static int bless(const TextTest *t, Tally *tally) {
    StrBuf b = {0};
    snU_put(&b, t->text, t->input);
    if (b.n && b.s[b.n - 1] != '\n') snU_puts(&b, "\n");
    snU_putf(&b, "#= expect\n%s", t->out.s ? t->out.s : "");
    int rc = write_text(t->path, b.s, b.n);
    snU_free_buf(&b);
    printf("blessed %s\n", t->path);
    tally->blessed++;
    return rc;
}

static void judge(TextTest *t, Tally *tally) {
    const char *got = t->out.s ? t->out.s : "", *want = t->expect ? t->expect : "";
    bool silent = !strcmp(t->command, "error") || !strcmp(t->command, "diff");
    if (t->skip) {
        printf("skipped %s: %s\n", t->path, t->skip);
        tally->skipped++;
    } else if (t->why) {
        printf("FAILED %s: %s\n", t->path, t->why);
        tally->failed++;
    } else if ((t->expect || silent) && !strcmp(got, want)) {
        tally->passed++;
    } else if (tally->bless && !silent) {
        tally->failed += bless(t, tally) != 0;
    } else {
        if (!t->expect && !silent) printf("FAILED %s: it has no `#= expect`; --bless writes it\n", t->path);
        else print_difference(t->path, want, got);
        tally->failed++;
    }
}

static void run_test(const char *path, bool must, Tally *tally) {
    TextTest t = { .path = path, .c = sn_ctx_new(), .device = tally->device };
    if (read_test(&t)) {
        run_command(&t);
        judge(&t, tally);
    } else if (must) {
        printf("FAILED %s: %s\n", path, t.text ? "its first line is no `#! command`" : "cannot be read");
        tally->failed++;
    }
    free(t.defines.v);
    free(t.text);
    snU_free_buf(&t.out);
    sn_ctx_free(t.c);
}

static bool is_test_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return name[0] != '.' && dot && (!strcmp(dot, ".sn") || !strcmp(dot, ".kir") || !strcmp(dot, ".kt"));
}

static void run_path(const char *path, bool must, Tally *tally) {
    struct stat st;
    if (stat(path, &st) || !S_ISDIR(st.st_mode)) { run_test(path, must, tally); return; }
    struct dirent **list;
    int n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *sub = text_fmt("%s/%s", path, list[i]->d_name);
        bool folder = list[i]->d_name[0] != '.' && !stat(sub, &st) && S_ISDIR(st.st_mode);
        if (folder || is_test_name(list[i]->d_name)) run_path(sub, false, tally);
        free(sub);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

int cmd_test(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    Tally tally = {0};
    const Opt opts[] = { { "bless", 0, OPT_FLAG, &tally.bless, "", "write what came out as what is expected" },
                         { "device", 'd', OPT_TEXT, &tally.device, "D", "run `diff` tests there: host, opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null" }, { 0 } };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    if (!pos.n) return cmd_usage(self, "wants files or folders");
    for (int i = 0; i < pos.n; i++) run_path(pos.v[i], true, &tally);
    if (tally.blessed) printf("%d blessed\n", tally.blessed);
    printf("%d passed, %d failed\n", tally.passed, tally.failed);
    return tally.failed ? EXIT_FAILED : EXIT_DONE;
}
