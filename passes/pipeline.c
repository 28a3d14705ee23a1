/* pipeline.c: runs a list of passes, with dumps, timings and checks.

   In:  a graph and a comma list of pass names (the usual ones are SNP_ORDER_* of pass.h). Out: a new graph.

   SN_DUMP=fuse,plan or all   after those passes: `# after fuse: N -> M nodes, t ms` and the graph, to stderr;
                              the graph text is replaced by `(unchanged)` where it is the same
   SN_DUMP_DIR=d              writes d/03-fuse.sn instead; every file is valid input
   SN_CHECK=1, 2              verifies after each pass; 2 also prints, parses, prints and compares */
#include <errno.h>
#include "passes/pass.h"

#define PASS(name, fn, doc) { #name, fn, doc },
static const Pass ALL[] = { PASSES(PASS) };
#undef PASS
enum { NPASSES = sizeof ALL / sizeof *ALL };

const Pass *snP_find(const char *name, size_t n) {
    for (int i = 0; i < NPASSES; i++)
        if (strlen(ALL[i].name) == n && !memcmp(ALL[i].name, name, n)) return &ALL[i];
    return NULL;
}

void snP_list(StrBuf *b) {
    for (int i = 0; i < NPASSES; i++) snU_putf(b, "%-10s %s\n", ALL[i].name, ALL[i].doc);
}

/* -- Fusions ------------------------------------------------------------------------------------- */

#define F(name, doc) { #name, doc },
const Fusion snP_fusions[NFUSIONS] = { FUSIONS(F) };
#undef F

/* The bit of a name of n characters, all bits for "all", 0 for an unknown one. */
static unsigned fusion_bits(const char *name, size_t n) {
    if (n == 3 && !memcmp(name, "all", 3)) return FUSE_ALL;
    for (int i = 0; i < NFUSIONS; i++)
        if (strlen(snP_fusions[i].name) == n && !memcmp(snP_fusions[i].name, name, n)) return 1u << i;
    return 0;
}

unsigned snP_parse_fusions(const char *list, const char **bad) {
    *bad = NULL;
    if (!list || !*list) return 0;
    if (!strcmp(list, "none")) return FUSE_ALL;
    unsigned on = *list == '-' ? FUSE_ALL : 0;
    for (const char *p = list; ; p++) {
        bool off = *p == '-';
        size_t n = strcspn(p += off, ",");
        unsigned bits = fusion_bits(p, n);
        if (!bits) *bad = p;
        on = off ? on & ~bits : on | bits;
        p += n;
        if (!*p || *bad) return FUSE_ALL & ~on;
    }
}

const char *snP_kept(unsigned without) {
    return without & FUSE_attention ? "" : "attention,attention_lse,attention_dq,attention_dk,attention_dv";
}

void snP_list_fusions(StrBuf *b) {
    snU_puts(b, "all, none");
    for (int i = 0; i < NFUSIONS; i++) snU_putf(b, ", %s", snP_fusions[i].name);
}

unsigned snP_without(sn_ctx *c, const char *list) {
    const char *bad;
    unsigned without = snP_parse_fusions(list, &bad);
    if (!bad) return without;
    char names[256];
    StrBuf b = {0};
    snP_list_fusions(&b);
    snprintf(names, sizeof names, "%s", b.s);
    snU_free_buf(&b);
    snU_fail(c, SN_USAGE, 0, "no fusion is called '%.*s'; there are: %s", (int)strcspn(bad, ","), bad, names);
}

/* -- Dumps and checks --------------------------------------------------------------------------- */

static bool wants_dump(const char *list, const char *name) {
    size_t n = strlen(name);
    if (!list) return false;
    if (!strcmp(list, "all")) return true;
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
    return false;
}

static void dump(const Graph *before, const Graph *after, const char *name, int step, double ms) {
    const char *dir = getenv("SN_DUMP_DIR");
    if (!wants_dump(getenv("SN_DUMP"), name) && !dir) return;
    StrBuf text = {0}, path = {0};
    snU_putf(&text, "# after %s: %u -> %u nodes, %.2f ms%s\n", name, before->nodes.n - 1, after->nodes.n - 1, ms,
             snG_equal(before, after) ? " (unchanged)" : "");
    if (dir || !snG_equal(before, after)) snG_print(&text, after);
    FILE *f = stderr;
    if (dir) {
        snU_putf(&path, "%s/%02d-%s.sn", dir, step, name);
        f = fopen(path.s, "w");
        if (!f) snU_fail(after->ctx, SN_IO, 0, "%s: %s", path.s, strerror(errno));
    }
    fwrite(text.s, 1, text.n, f);
    if (dir) fclose(f);
    snU_free_buf(&text);
    snU_free_buf(&path);
}

/* print -> parse -> print must be the identity. */
static void check_round_trip(const Graph *g, const char *name) {
    StrBuf a = {0}, b = {0};
    snG_print(&a, g);
    Module *m = snG_parse(g->ctx, name, a.s, a.n, NULL, 0);
    if (!m || !m->graphs.n) snU_abort(__FILE__, __LINE__, "after %s: the printed graph does not parse: %s\n%s", name,
                                      g->ctx->message ? g->ctx->message : "", a.s);
    snG_print(&b, m->graphs.v[0]);
    if (strcmp(a.s, b.s) != 0) {
        size_t i = 0, line = 1;
        for (; a.s[i] == b.s[i]; i++) line += a.s[i] == '\n';
        while (i && a.s[i - 1] != '\n') i--;
        snU_abort(__FILE__, __LINE__, "after %s: printed and parsed graph differ at line %zu:\n%.*s\n%.*s", name, line,
                  (int)strcspn(a.s + i, "\n"), a.s + i, (int)strcspn(b.s + i, "\n"), b.s + i);
    }
    snG_free_module(m);
    snU_free_buf(&a);
    snU_free_buf(&b);
}

static void check(const Graph *g, const char *name) {
    const char *level = getenv("SN_CHECK");
    if (!level || level[0] == '0') return;
    snG_verify(g);
    if (atoi(level) >= 2) check_round_trip(g, name);
}

/* -- The driver ---------------------------------------------------------------------------------- */

static Graph *run_one(const Pass *p, const Graph *g, const PassOptions *opt, int step) {
    double t0 = snU_now();
    Graph *out = p->run(g, opt);
    dump(g, out, p->name, step, (snU_now() - t0) * 1e3);
    check(out, p->name);
    return out;
}

Graph *snP_run(sn_ctx *c, const Graph *g, const PassOptions *opt, const char *list) {
    static const PassOptions none = {0};
    const Graph *now = g;
    int step = 0;
    if (!opt) opt = &none;
    for (const char *p = list; *p; step++) {
        size_t n = strcspn(p, ",");
        const Pass *pass = snP_find(p, n);
        if (!pass) snU_fail(c, SN_USAGE, 0, "no pass is called %.*s; `sinter print --passes` lists them", (int)n, p);
        Graph *next = run_one(pass, now, opt, step);
        if (now != g && now != next) snG_free((Graph *)now);
        now = next;
        p += n + (p[n] == ',');
    }
    if (now == g) {
        Rebuild r = snG_rebuild(g);
        for (NodeId id = 1; id < g->nodes.n; id++) r.map[id] = snG_copy_node(&r, id);
        return snG_finish(&r);
    }
    return (Graph *)now;
}
