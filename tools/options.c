/* options.c: option tables, --help, and the small helpers of cmd.h.

   In: argv and a table of options. Out: the variables that the table points to, or a line about what is wrong. */
#define _GNU_SOURCE
#include "passes/pass.h"
#include "runtime/rt.h"
#include "tools/cmd.h"

#include <errno.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

const char SINTER_VERSION[] = "0.1.0";

void list_add(StrList *l, const char *s) {
    l->v = realloc(l->v, sizeof *l->v * (size_t)(l->n + 1));
    if (!l->v) abort();
    l->v[l->n++] = s;
}

int cmd_usage(const Command *self, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "sinter %s: ", self->name);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "; `sinter %s --help` shows how it is used\n", self->name);
    va_end(ap);
    return EXIT_USAGE;
}

int cmd_fail(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("sinter: error: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_FAILED;
}

/* -- Help -------------------------------------------------------------------------------------------------- */

static int print_help(const Command *self, const Opt *opts) {
    printf("sinter %s %s\n\n%s\n", self->name, self->synopsis, self->doc);
    if (opts->name) printf("\noptions:\n");
    for (const Opt *o = opts; o->name; o++) {
        char left[64];
        int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                          : snprintf(left, sizeof left, "    --%s", o->name);
        if (o->kind != OPT_FLAG) snprintf(left + n, sizeof left - (size_t)n, " %s", o->arg);
        printf("  %-26s %s\n", left, o->doc);
    }
    printf("\nexample:\n  %s\n", self->example);
    return EXIT_DONE;
}

/* -- Parsing ----------------------------------------------------------------------------------------------- */

static const Opt *find_option(const Opt *opts, const char *word, const char **value) {
    *value = NULL;
    for (const Opt *o = opts; o->name; o++) {
        size_t n = strlen(o->name);
        if (word[1] == '-' && !strncmp(word + 2, o->name, n) && (!word[n + 2] || word[n + 2] == '=')) {
            if (word[n + 2]) *value = word + n + 3;
            return o;
        }
        if (word[1] != '-' && o->letter && word[1] == o->letter) {
            if (word[2]) *value = word + 2;
            return o;
        }
    }
    return NULL;
}

static int store_value(const Command *self, const Opt *o, const char *word) {
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case OPT_INT: {
        long long v = strtoll(word, &end, 10);
        int64_t unit = *end == 'K' ? 1 << 10 : *end == 'M' ? 1 << 20 : *end == 'G' ? 1 << 30 : 1;
        if (unit > 1) end++;
        if (!*word || *end || errno || v > INT64_MAX / unit || v < 0)
            return cmd_usage(self, "--%s wants a whole number (K, M, G allowed), not '%s'", o->name, word);
        *(int64_t *)o->to = v * unit;
        return -1;
    }
    case OPT_NUM:
        *(double *)o->to = strtod(word, &end);
        if (!*word || *end) return cmd_usage(self, "--%s wants a number, not '%s'", o->name, word);
        return -1;
    case OPT_TEXT: *(const char **)o->to = word; return -1;
    default: list_add(o->to, word); return -1;
    }
}

int cmd_parse(const Command *self, int argc, char **argv, const Opt *opts, StrList *positional) {
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *value;
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) return print_help(self, opts);
        if (word[0] != '-' || !word[1]) { list_add(positional, word); continue; }
        const Opt *o = find_option(opts, word, &value);
        if (!o) return cmd_usage(self, "unknown option '%s'", word);
        if (o->kind == OPT_FLAG) {
            if (value) return cmd_usage(self, "--%s takes no value", o->name);
            *(bool *)o->to = true;
            continue;
        }
        if (!value && i + 1 < argc) value = argv[++i];
        if (!value) return cmd_usage(self, "--%s wants a value", o->name);
        int rc = store_value(self, o, value);
        while (rc < 0 && o->kind == OPT_MANY && i + 1 < argc && argv[i + 1][0] != '-') rc = store_value(self, o, argv[++i]);
        if (rc >= 0) return rc;
    }
    return -1;
}

int cmd_pass_options(const Command *self, const PassOptions *po) {
    const char *a = po->autocast, *r = po->recompute;
    if (a && strcmp(a, "bf16") && strcmp(a, "f16") && strcmp(a, "tf32")) return cmd_usage(self, "--autocast is bf16, f16 or tf32, not '%s'", a);
    if (r && strcmp(r, "none") && strcmp(r, "block") && strcmp(r, "full"))
        return cmd_usage(self, "--recompute is none, block or full, not '%s'", r);
    return -1;
}

int cmd_settings(const Command *self, const StrList *words, Settings *out) {
    out->v = calloc((size_t)words->n + 1, sizeof *out->v);
    out->n = 0;
    for (int i = 0; i < words->n; i++) {
        const char *eq = strchr(words->v[i], '=');
        char *end = NULL;
        double v = eq ? strtod(eq + 1, &end) : 0;
        if (!eq || eq == words->v[i] || !eq[1] || *end || isnan(v))
            return cmd_usage(self, "--set wants name=number, not '%s'", words->v[i]);
        out->v[out->n++] = (Setting){ strndup(words->v[i], (size_t)(eq - words->v[i])), v };
    }
    return -1;
}

bool setting_fits(const Setting *s, const InputRange *range, Dtype d) {
    if (snG_in_range(range, d, s->value)) return true;
    char text[SN_RANGE_TEXT];
    snG_range_text(range, text);
    cmd_fail("--set %s=%g: it must be %s", s->name, s->value, text);
    return false;
}

Define *cmd_defines(const StrList *words) {
    Define *d = calloc((size_t)words->n + 1, sizeof *d);
    for (int i = 0; i < words->n; i++) {
        const char *eq = strchr(words->v[i], '=');
        d[i].name = eq ? strndup(words->v[i], (size_t)(eq - words->v[i])) : words->v[i];
        d[i].value = eq ? eq + 1 : "1";
    }
    return d;
}

int cmd_fuse(const Command *self, const char *list) {
    const char *bad;
    StrBuf names = {0};
    snP_parse_fusions(list, &bad);
    if (!bad) return -1;
    snP_list_fusions(&names);
    int rc = cmd_usage(self, "no fusion is called '%.*s'; there are: %s", (int)strcspn(bad, ","), bad, names.s);
    snU_free_buf(&names);
    return rc;
}

const char *cmd_fuse_doc(void) {
    static StrBuf b;
    if (b.n) return b.s;
    snU_puts(&b, "all (default), none (one kernel per primitive), some: rows,epilogue or all but some: -rows");
    for (int i = 0; i < NFUSIONS; i++) snU_putf(&b, "\n%29s  %-10s %s", "", snP_fusions[i].name, snP_fusions[i].doc);
    return b.s;
}

/* -- Models ------------------------------------------------------------------------------------------------- */

int model_error(const sn_ctx *c) {
    fprintf(stderr, "%s\n", c->message ? c->message : "sinter: error: failed without a message");
    return EXIT_FAILED;
}

int model_load(Model *out, const char *path, const char *text, const StrList *defines) {
    out->c = sn_ctx_new();
    if (!out->c) return cmd_fail("out of memory");
    Define *d = cmd_defines(defines);
    out->m = text ? snG_parse(out->c, path, text, strlen(text), d, defines->n) : snG_load(out->c, path, d, defines->n);
    free(d);
    if (out->m) return 0;
    int rc = model_error(out->c);
    sn_ctx_free(out->c);
    out->c = NULL;
    return rc;
}

void model_free(Model *m) {
    if (m->m) snG_free_module(m->m);
    if (m->c) sn_ctx_free(m->c);
    *m = (Model){0};
}

const Graph *model_graph(const Model *m, const char *name, const char *const *preferred) {
    const Graph *g = NULL;
    if (name) g = snG_get(m->m, name);
    for (; !name && !g && preferred && *preferred; preferred++) g = snG_get(m->m, *preferred);
    if (!name && !g && m->m->graphs.n) g = m->m->graphs.v[0];
    if (g) return g;
    if (!name) { cmd_fail("the file has no graph"); return NULL; }
    StrBuf have = {0};
    for (uint32_t i = 0; i < m->m->graphs.n; i++) snU_putf(&have, "%s%s", i ? ", " : "", snU_str(m->c, m->m->graphs.v[i]->name));
    cmd_fail("no graph is called '%s'; there are: %s", name, have.n ? have.s : "none");
    snU_free_buf(&have);
    return NULL;
}

/* -- Files ---------------------------------------------------------------------------------------------------- */

char *text_fmt(const char *fmt, ...) {
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) abort();
    va_end(ap);
    return s;
}

int with_parents(const char *path) {
    char *p = strdup(path);
    int rc = 0;
    for (char *at = p + 1; !rc; at++) {
        if (*at && *at != '/') continue;
        char keep = *at;
        *at = 0;
        if (mkdir(p, 0777) && errno != EEXIST) rc = errno;
        *at = keep;
        if (!keep) break;
    }
    free(p);
    return rc;
}

int make_folder(const char *path) {
    int rc = with_parents(path);
    return rc ? cmd_fail("cannot make the folder %s: %s", path, strerror(rc)) : 0;
}

static bool put_text(int fd, void *arg) {
    const struct { const char *text; size_t n; } *t = arg;
    return snR_write_all(fd, t->text, t->n);
}

int write_text(const char *path, const char *text, size_t n) {
    char err[ERR_TEXT];
    struct { const char *text; size_t n; } t = { text, n };
    return snR_replace(path, put_text, &t, err) ? cmd_fail("%s", err) : 0;
}

char *read_text(const char *path, size_t *n) {
    size_t got;
    char *s = snU_read_file(NULL, path, &got);
    if (n) *n = s ? got : 0;
    return s;
}

int file_exists(const char *path) { return access(path, R_OK) == 0; }
