/* cmd_check.c: `sinter check` (the evaluator after every pass) and `sinter ops` (the op reference). */
#include "passes/pass.h"
#include "tools/cmd.h"

int cmd_check(const Command *self, int argc, char **argv) {
    StrList defs = {0}, pos = {0};
    const char *passes = NULL, *name = NULL;
    int64_t seed = 1;
    PassOptions po = {0};
    const Opt opts[] = {
        { "define", 'D', OPT_LIST, &defs, "K=V", "a param or dim of the file; small sizes, the evaluator is slow" },
        { "graph", 'g', OPT_TEXT, &name, "NAME", "one graph only" },
        { "passes", 'p', OPT_TEXT, &passes, "A,B", "these passes (default: the usual order; train: with optimizer)" },
        { "seed", 0, OPT_INT, &seed, "N", "of the values (default 1)" },
        PASS_OPTIONS(&po),
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos), moved = 0;
    if (rc < 0) rc = cmd_pass_options(self, &po);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one file");
    Model m;
    if ((rc = model_load(&m, pos.v[0], NULL, &defs))) return rc;
    if (name && !model_graph(&m, name, NULL)) { model_free(&m); return EXIT_FAILED; }
    SN_ENTER(m.c, { rc = model_error(m.c); model_free(&m); return rc; });
    for (uint32_t i = 0; i < m.m->graphs.n; i++) {
        const Graph *g = m.m->graphs.v[i];
        const char *graph = snU_str(m.c, g->name);
        if (name && strcmp(name, graph)) continue;
        const char *order = passes ? passes : !strcmp(graph, "train") ? SNP_ORDER_TRAIN : SNP_ORDER_INFER;
        StrBuf b = {0};
        int n = snP_check(m.c, g, &po, order, (uint64_t)seed, &b);
        printf("graph %s: %s\n%-10s %-6s %-8s %s\n%s", graph, n ? "a pass moved the answer" : "all passes agree", "pass", "",
               "moved by", "at", b.s ? b.s : "");
        moved += n;
        snU_free_buf(&b);
    }
    SN_LEAVE(m.c);
    model_free(&m);
    return moved ? EXIT_FAILED : EXIT_DONE;
}

/* A heading of the reference is a line that starts with an op's name; the lines below it belong to it. */
static bool print_section(const char *text, const char *name) {
    bool on = false, found = false;
    size_t n = strlen(name);
    for (const char *line = text; *line; ) {
        size_t len = strcspn(line, "\n");
        if (line[0] != ' ' && line[0] != '\n') on = !strncmp(line, name, n) && (line[n] == '(' || line[n] == ' ' || line[n] == '\n');
        if (on) printf("%.*s\n", (int)len, line), found = true;
        line += len + (line[len] == '\n');
    }
    return found;
}

int cmd_ops(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    const Opt opts[] = { { 0 } };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    sn_ctx *c = sn_ctx_new();
    StrBuf b = {0};
    snG_print_ops(&b, c);
    rc = EXIT_DONE;
    if (!pos.n) fwrite(b.s, 1, b.n, stdout);
    for (int i = 0; i < pos.n; i++)
        if (!print_section(b.s ? b.s : "", pos.v[i])) rc = cmd_fail("no op is called '%s'; `sinter ops` lists them", pos.v[i]);
    snU_free_buf(&b);
    sn_ctx_free(c);
    return rc;
}
