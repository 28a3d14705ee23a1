/* study_file.c: the text of a study (study.h) -> arms, axes, seeds -> cells. */
#include "tools/study.h"

#include <jansson.h>

typedef struct Reader {
    StudyFile *f;
    char *folder;                    /* of the file, for the models beside it */
    int line;
    StrList words;                   /* of the line */
} Reader;

static __attribute__((format(printf, 2, 3))) int bad(const Reader *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: error: ", r->f->path, r->line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_FAILED;
}

int study_fail(const StudyFile *f, const char *word, const char *fmt, ...) {
    int line = 1;
    for (const char *s = f->text; s < f->text + (word - f->cut); s++) line += *s == '\n';
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: error: ", f->path, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_FAILED;
}

/* Splits a line, in place: words between blanks, "..." with blanks inside, # to the end. */
static int split(Reader *r, char *s) {
    r->words = (StrList){ 0 };
    for (;;) {
        s += strspn(s, " \t\r");
        if (!*s || *s == '#') return 0;
        bool quoted = *s == '"';
        char *start = s + quoted, *end = quoted ? strchr(start, '"') : start + strcspn(start, " \t\r");
        if (!end) return bad(r, "a \" is not closed");
        s = *end ? end + 1 : end;
        *end = 0;
        list_add(&r->words, start);
    }
}

static void add_words(const Reader *r, int from, StrList *to) {
    for (int i = from; i < r->words.n; i++) list_add(to, r->words.v[i]);
}

/* `--data PATH...` of an axis's value: the words up to the next option. */
static int take_data(Reader *r, StudyValue *v) {
    StrList kept = {0};
    for (int i = 0; i < r->words.n; i++) {
        if (i < 3 || strcmp(r->words.v[i], "--data")) {
            list_add(&kept, r->words.v[i]);
            continue;
        }
        while (i + 1 < r->words.n && r->words.v[i + 1][0] != '-') list_add(&v->data, r->words.v[++i]);
        if (!v->data.n) return bad(r, "--data wants files or folders");
    }
    r->words = kept;
    return 0;
}

/* What the study itself decides is no option of an arm. */
static int check_options(const Reader *r, int from) {
    static const char *const own[] = { "--out", "-o", "--data", "--seed", "--split-seed", "--resume", "--from", "--quiet", "-q", "--threads" };
    for (int i = from; i < r->words.n; i++)
        for (unsigned k = 0; k < sizeof own / sizeof *own; k++) {
            size_t n = strlen(own[k]);
            if (!strncmp(r->words.v[i], own[k], n) && (!r->words.v[i][n] || r->words.v[i][n] == '='))
                return bad(r, "%s is the study's to choose; give other options of `sinter train`", own[k]);
        }
    return 0;
}

static bool is_name(const char *s) {
    if (!*s || *s == '.') return false;
    for (; *s; s++) if (*s == '/' || *s == ',' || *s == '=' || (unsigned char)*s < ' ') return false;
    return true;
}

static int find_arm(const StudyFile *f, const char *name) {
    for (int i = 0; i < f->narms; i++)
        if (!strcmp(f->arm[i].name, name)) return i;
    return -1;
}

static StudyAxis *find_axis(StudyFile *f, const char *name) {
    for (int i = 0; i < f->naxes; i++)
        if (!strcmp(f->axis[i].name, name)) return &f->axis[i];
    return NULL;
}

/* -- Statements ------------------------------------------------------------------------------------------------- */

static int read_seeds(Reader *r) {
    StudyFile *f = r->f;
    for (int i = 1; i < r->words.n; i++) {
        char *end;
        long long v = strtoll(r->words.v[i], &end, 10);
        if (*end || v < 0) return bad(r, "a seed is a whole number, not '%s'", r->words.v[i]);
        for (int k = 0; k < f->nseeds; k++) if (f->seed[k] == v) return bad(r, "the seed %lld stands here twice", v);
        f->seed = realloc(f->seed, sizeof *f->seed * (size_t)(f->nseeds + 1));
        if (!f->seed) abort();
        f->seed[f->nseeds++] = v;
    }
    return 0;
}

static int read_vary(Reader *r) {
    StudyFile *f = r->f;
    size_t n = r->words.n > 2 ? strlen(r->words.v[2]) : 0;
    if (n < 2 || r->words.v[2][n - 1] != ':') return bad(r, "`vary` wants AXIS LABEL: OPTIONS, as in `vary unique 32K: --unique 32K`");
    char *label = strndup(r->words.v[2], n - 1);
    if (!is_name(r->words.v[1]) || !is_name(label)) return bad(r, "names of axes and values become folders: no / , = in them");
    StudyAxis *a = find_axis(f, r->words.v[1]);
    if (!a) {
        f->axis = realloc(f->axis, sizeof *f->axis * (size_t)(f->naxes + 1));
        if (!f->axis) abort();
        a = &f->axis[f->naxes++];
        *a = (StudyAxis){ .name = r->words.v[1] };
    }
    for (int i = 0; i < a->n; i++) if (!strcmp(a->v[i].label, label)) return bad(r, "%s has two values %s", a->name, label);
    a->v = realloc(a->v, sizeof *a->v * (size_t)(a->n + 1));
    if (!a->v) abort();
    a->v[a->n] = (StudyValue){ .label = label };
    int rc = take_data(r, &a->v[a->n]);
    if (rc) return rc;
    add_words(r, 3, &a->v[a->n++].options);
    return check_options(r, 3);
}

static int read_pick(Reader *r) {
    for (int i = 1; i < r->words.n; i++) {
        StudyAxis *a = find_axis(r->f, r->words.v[i]);
        if (!a) return bad(r, "no axis is called '%s'; `vary %s LABEL: OPTIONS` comes before", r->words.v[i], r->words.v[i]);
        a->pick = true;
    }
    return 0;
}

static int add_arm(Reader *r, StudyArm arm, int options) {
    StudyFile *f = r->f;
    if (!is_name(arm.name)) return bad(r, "an arm's name becomes a folder: no / , = in it");
    if (find_arm(f, arm.name) >= 0) return bad(r, "two arms are called '%s'", arm.name);
    add_words(r, options, &arm.options);
    f->arm = realloc(f->arm, sizeof *f->arm * (size_t)(f->narms + 1));
    if (!f->arm) abort();
    f->arm[f->narms++] = arm;
    return check_options(r, options);
}

static int read_measure(Reader *r) {
    static const char *const own[] = { "--ckpt", "--data", "--json", "--threads", "--out", "-o" };
    for (int i = 1; i < r->words.n; i++)
        for (unsigned k = 0; k < sizeof own / sizeof *own; k++)
            if (!strcmp(r->words.v[i], own[k])) return bad(r, "%s is the study's to choose; give other options of `sinter eval`", own[k]);
    if (r->words.n < 2) return bad(r, "`measure` wants options of `sinter eval`, as in `measure --continuations 200`");
    add_words(r, 1, &r->f->measure);
    return 0;
}

static int read_arm(Reader *r) {
    if (r->words.n < 3) return bad(r, "`arm` wants NAME MODEL.sn [OPTIONS]");
    const char *model = r->words.v[2];
    return add_arm(r, (StudyArm){ r->words.v[1], *model == '/' ? model : text_fmt("%s%s", r->folder, model), .parent = -1 }, 3);
}

static int read_anneal(Reader *r) {
    if (r->words.n < 5) return bad(r, "`anneal` wants NAME ARM best|last --decay STEPS [OPTIONS]");
    int parent = find_arm(r->f, r->words.v[2]);
    const char *from = r->words.v[3];
    if (parent < 0) return bad(r, "no arm above is called '%s'", r->words.v[2]);
    if (strcmp(from, "best") && strcmp(from, "last")) return bad(r, "an anneal branches from `best` or `last`, not '%s'", from);
    StudyArm arm = { r->words.v[1], r->f->arm[parent].model, .parent = parent, .from = from };
    return add_arm(r, arm, 4);
}

static int statement(Reader *r) {
    const char *word = r->words.v[0];
    if (!strcmp(word, "data")) return add_words(r, 1, &r->f->data), 0;
    if (!strcmp(word, "common")) return add_words(r, 1, &r->f->common), check_options(r, 1);
    if (!strcmp(word, "measure")) return read_measure(r);
    if (!strcmp(word, "seeds")) return read_seeds(r);
    if (!strcmp(word, "vary")) return read_vary(r);
    if (!strcmp(word, "pick")) return read_pick(r);
    if (!strcmp(word, "arm")) return read_arm(r);
    if (!strcmp(word, "anneal")) return read_anneal(r);
    return bad(r, "'%s' is no statement; there are data, common, seeds, vary, pick, arm, anneal, measure", word);
}

int study_file_read(StudyFile *f, const char *path) {
    *f = (StudyFile){ .path = path };
    char *text = read_text(path, NULL), *slash = text ? strrchr(path, '/') : NULL;
    if (!text) return cmd_fail("cannot read the study %s", path);
    f->text = strdup(text), f->cut = text;
    Reader r = { .f = f, .folder = slash ? strndup(path, (size_t)(slash + 1 - path)) : strdup("") };
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        r.line++;
        int rc = split(&r, line);
        if (!rc && r.words.n) rc = statement(&r);
        if (rc) return rc;
    }
    if (!f->narms) return cmd_fail("%s: a study needs an arm: `arm NAME MODEL.sn [OPTIONS]`", path);
    if (!f->nseeds) f->seed = calloc(1, sizeof *f->seed), f->seed[0] = 1, f->nseeds = 1;
    return 0;
}

/* -- Cells --------------------------------------------------------------------------------------------------------- */

static int combinations(const StudyFile *f) {
    int n = 1;
    for (int i = 0; i < f->naxes; i++) n *= f->axis[i].n;
    return n;
}

int study_ncells(const StudyFile *f) { return combinations(f) * f->nseeds; }
int64_t study_cell_seed(const StudyFile *f, int cell) { return f->seed[cell / combinations(f)]; }

/* The last axis varies fastest. */
int study_cell_value(const StudyFile *f, int cell, int axis) {
    int at = cell % combinations(f);
    for (int i = f->naxes - 1; i > axis; i--) at /= f->axis[i].n;
    return at % f->axis[axis].n;
}

bool study_has_data(const StudyFile *f) {
    for (int i = 0; i < f->naxes && !f->data.n; i++) {
        int with = 0;
        for (int k = 0; k < f->axis[i].n; k++) with += f->axis[i].v[k].data.n > 0;
        if (with == f->axis[i].n) return true;
    }
    return f->data.n > 0;
}

char *study_cell_folder(const StudyFile *f, int cell) {
    StrBuf b = {0};
    for (int i = 0; i < f->naxes; i++)
        snU_putf(&b, "%s%s=%s", i ? "," : "", f->axis[i].name, f->axis[i].v[study_cell_value(f, cell, i)].label);
    snU_putf(&b, "%ss%lld", f->naxes ? "/" : "", (long long)study_cell_seed(f, cell));
    return b.s;
}

static json_t *axis_json(const StudyAxis *a) {
    json_t *values = json_array();
    for (int i = 0; i < a->n; i++) json_array_append_new(values, json_string(a->v[i].label));
    return json_pack("{s:s s:b s:o}", "name", a->name, "pick", a->pick, "values", values);
}

int study_write_manifest(const StudyFile *f, const char *out) {
    json_t *axes = json_array(), *arms = json_array(), *cells = json_array(), *seeds = json_array();
    for (int i = 0; i < f->naxes; i++) json_array_append_new(axes, axis_json(&f->axis[i]));
    for (int i = 0; i < f->nseeds; i++) json_array_append_new(seeds, json_integer(f->seed[i]));
    for (int i = 0; i < f->narms; i++) {
        json_t *a = json_pack("{s:s s:s}", "name", f->arm[i].name, "model", f->arm[i].model);
        if (f->arm[i].parent >= 0) json_object_set_new(a, "parent", json_string(f->arm[f->arm[i].parent].name));
        json_array_append_new(arms, a);
    }
    for (int i = 0; i < study_ncells(f); i++) {
        char *folder = study_cell_folder(f, i);
        json_t *values = json_array();
        for (int k = 0; k < f->naxes; k++) json_array_append_new(values, json_integer(study_cell_value(f, i, k)));
        json_array_append_new(cells, json_pack("{s:s s:I s:o}", "folder", folder, "seed", (json_int_t)study_cell_seed(f, i), "values", values));
        free(folder);
    }
    json_t *o = json_pack("{s:s s:s s:o s:o s:o s:o}", "sinter", SINTER_VERSION, "study", f->path, "axes", axes, "seeds", seeds, "arms", arms, "cells", cells);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER), *path = text_fmt("%s/study.json", out);
    int rc = write_text(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(o);
    return rc;
}
