/* report_study.c: folders of runs -> what was measured -> crossovers.

   In:  DIR/<run>/config.json, log.jsonl and val/. Out: evaluations per run, and the two crossovers:

     paper    same size, same schedule, same epoch: the first evaluation of the DLM after which all of its validation losses lie
              below those of the AR run at the same step. Anneals stay out.
     strict   the first evaluation of the DLM (its anneal at the end included) after which all of its losses lie more than two
              paired standard errors below the best that any AR run reached, noise variants and anneals included. That best is
              chosen on the validation text and compared on the test text, window by window. */
#include "tools/report.h"

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

/* -- Reading ------------------------------------------------------------------------------------------------------ */

static double number(const json_t *o, const char *key, double otherwise) {
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static void add_point(RunRecord *r, const json_t *row) {
    const json_t *flops = json_object_get(r->config, "flops_executed_per_step");
    double fixed = number(flops, "fixed", 0), counted = number(flops, "counted", 0), share = r->share_steps > 0 ? r->share / r->share_steps : 1;
    Point p = { (int64_t)number(row, "step", 0), fixed > 0 ? fixed + counted * share : NAN, number(row, "epoch", 0), number(row, "val", NAN), number(row, "val_se", NAN),
                number(row, "test", NAN), number(row, "test_se", NAN), json_object_get(row, "test") != NULL };
    r->point = realloc(r->point, sizeof *r->point * (size_t)(r->npoints + 1));
    if (r->best < 0 || p.val < r->point[r->best].val) r->best = r->npoints;
    r->point[r->npoints++] = p;
}

/* A line of the log is the mean of the steps since the line before. */
static void add_share(RunRecord *r, const json_t *row) {
    double steps = number(row, "step", 0) - (r->from_step > 0 ? (double)r->from_step : 0) - r->share_steps;
    r->share += steps * number(row, "counted", 1);
    r->share_steps += steps;
}

/* Calls `each` with every line of a run's file that is JSON and says its kind; lines cut short by a kill are none. */
static void read_lines(RunRecord *r, const char *file, void (*each)(RunRecord *, const json_t *, const char *kind)) {
    char *path = text_fmt("%s/%s", r->folder, file), *text = read_text(path, NULL);
    for (char *line = text; line && *line; ) {
        size_t n = strcspn(line, "\n");
        json_t *row = json_loadb(line, n, 0, NULL);
        const char *kind = row ? json_string_value(json_object_get(row, "kind")) : NULL;
        if (row) each(r, row, kind ? kind : "");
        if (row) json_decref(row);
        line += n + (line[n] == '\n');
    }
    free(text);
    free(path);
}

/* What `measure` of a study found: of multiple choice or next tokens, a row for a checkpoint. Where steps fall back another measure
   begins: the first counts. */
static void measure_line(RunRecord *r, const json_t *row, const char *kind) {
    bool choice = !strcmp(kind, "choice");
    if ((!choice && strcmp(kind, "next_token")) || r->measured_all) return;
    const json_t *acc = json_object_get(row, "acc");
    Measured m = { (int64_t)number(row, "step", 0), choice ? number(acc, "p", NAN) : number(row, "acc", NAN), choice ? number(row, "gap", NAN) : NAN };
    r->measured_all = r->nmeasured && r->measured[r->nmeasured - 1].step >= m.step;
    if (r->measured_all) return;
    r->measured = realloc(r->measured, sizeof m * (size_t)(r->nmeasured + 1));
    if (!r->measured) abort();
    r->measured[r->nmeasured++] = m;
}

static void log_line(RunRecord *r, const json_t *row, const char *kind) {
    if (!strcmp(kind, "val")) add_point(r, row);
    if (!strcmp(kind, "train")) add_share(r, row);
    if (!strcmp(kind, "end")) r->ended = true, r->seconds = number(row, "seconds", 0);
    if (number(row, "step", 0) > (double)r->steps) r->steps = (int64_t)number(row, "step", 0);
}

static void read_run(Study *st, const char *name) {
    RunRecord r = { .parent = -1, .best = -1 };
    char *folder = text_fmt("%s/%s", st->folder, name), *path = text_fmt("%s/config.json", folder);
    json_t *config = json_load_file(path, 0, NULL);
    free(path);
    if (!config) { free(folder); return; }
    const char *objective = json_string_value(json_object_get(config, "objective"));
    r.name = strdup(name);
    r.folder = folder;
    r.config = config;
    r.bound = objective && !strcmp(objective, "nelbo");
    r.from_step = (int64_t)number(config, "from_step", -1);
    r.input_mask = number(json_object_get(config, "inputs"), "input_mask", 0);
    read_lines(&r, "log.jsonl", log_line);
    read_lines(&r, "measure.jsonl", measure_line);
    r.flops = number(config, "flops_per_step", 0) * (double)(r.steps - (r.from_step > 0 ? r.from_step : 0));
    st->run = realloc(st->run, sizeof *st->run * (size_t)(st->nruns + 1));
    st->run[st->nruns++] = r;
}

/* "runs/ar/best.safetensors" branches from the run "ar": the last folder of the path. */
static bool lies_in(const char *path, const char *name) {
    const char *end = strrchr(path, '/'), *start = end;
    while (start && start > path && start[-1] != '/') start--;
    return end && (size_t)(end - start) == strlen(name) && !memcmp(start, name, strlen(name));
}

static void find_parents(Study *st) {
    for (int i = 0; i < st->nruns; i++) {
        const char *from = json_string_value(json_object_get(st->run[i].config, "from"));
        for (int k = 0; from && k < st->nruns; k++)
            if (k != i && lies_in(from, st->run[k].name)) st->run[i].parent = k;
    }
}

static int by_name(const void *a, const void *b) { return strcmp(((const RunRecord *)a)->name, ((const RunRecord *)b)->name); }

bool study_scan(Study *st, const char *folder) {
    *st = (Study){ .folder = strdup(folder) };
    DIR *d = opendir(folder);
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d)); )
        if (e->d_name[0] != '.') read_run(st, e->d_name);
    closedir(d);
    if (st->nruns) qsort(st->run, (size_t)st->nruns, sizeof *st->run, by_name);
    find_parents(st);
    return true;
}

int study_read(Study *st, const char *folder) {
    if (!study_scan(st, folder)) return cmd_fail("cannot read the folder %s", folder);
    if (!st->nruns) return cmd_fail("%s holds no runs: folders with a config.json that `sinter train --out` made", folder);
    return 0;
}

void study_free(Study *st) {
    for (int i = 0; i < st->nruns; i++) {
        json_decref(st->run[i].config);
        free(st->run[i].name);
        free(st->run[i].folder);
        free(st->run[i].point);
        free(st->run[i].measured);
    }
    free(st->run);
    free(st->folder);
}

double *study_windows(const Study *st, int run, int point, const char *which, int64_t *n) {
    char err[256], *path = text_fmt("%s/val/%08lld.safetensors", st->run[run].folder, (long long)st->run[run].point[point].step);
    sn_file *f = sn_file_open(path, err);
    const sn_tensor *t = f ? sn_file_find(f, which) : NULL;
    double *out = NULL;
    if (t && t->dtype == SN_F32 && t->rank == 1) {
        *n = t->dim[0];
        out = calloc((size_t)*n + 1, sizeof *out);
        for (int64_t i = 0; i < *n; i++) {
            float v;
            memcpy(&v, (const char *)t->data + 4 * i, 4);
            out[i] = v;
        }
    }
    if (f) sn_file_close(f);
    free(path);
    return out;
}

/* -- Comparing ---------------------------------------------------------------------------------------------------------- */

int study_main(const Study *st, bool bound) {
    int found = -1;
    for (int i = 0; i < st->nruns; i++) {
        const RunRecord *r = &st->run[i];
        if (r->bound == bound && r->from_step < 0 && r->npoints && (found < 0 || r->input_mask < st->run[found].input_mask)) found = i;
    }
    return found;
}

const Point *study_arm_best(const Study *st, int arm, int *run) {
    const Point *best = NULL;
    for (int i = 0; i < st->nruns; i++) {
        const RunRecord *r = &st->run[i];
        if ((i != arm && r->parent != arm) || r->best < 0) continue;
        if (!best || r->point[r->best].val < best->val) best = &r->point[r->best], *run = i;
    }
    return best;
}

static bool paired(const Study *st, const char *which, int run_a, int point_a, int run_b, int point_b, Paired *out) {
    int64_t na = 0, nb = 0;
    double *a = study_windows(st, run_a, point_a, which, &na), *b = study_windows(st, run_b, point_b, which, &nb);
    bool ok = a && b && na == nb && na > 0;
    if (ok) *out = score_paired(a, b, na);
    free(a);
    free(b);
    return ok;
}

Crossing crossing_paper(const Study *st) {
    Crossing c = { .ar = study_main(st, false), .dlm = study_main(st, true), .run = -1 };
    if (c.ar < 0 || c.dlm < 0) return c;
    const RunRecord *ar = &st->run[c.ar], *dlm = &st->run[c.dlm];
    for (int i = 0; i < dlm->npoints; i++) {
        int k = 0;
        Paired p;
        while (k < ar->npoints && ar->point[k].step != dlm->point[i].step) k++;
        if (k == ar->npoints || !paired(st, "val", c.dlm, i, c.ar, k, &p)) continue;
        c.possible = true;
        c.last = p;
        c.last_epoch = dlm->point[i].epoch;
        if (!(p.mean < 0)) c.found = false;
        else if (!c.found) c.found = true, c.at = dlm->point[i], c.diff = p;
    }
    return c;
}

static void strict_point(const Study *st, Crossing *c, int run, int point) {
    Paired p;
    if (!paired(st, "test", run, point, c->run, c->point, &p)) return;
    c->possible = true;
    c->last = p;
    c->last_epoch = st->run[run].point[point].epoch;
    if (!(p.mean + 2 * p.se < 0)) c->found = false;
    else if (!c->found) c->found = true, c->at = st->run[run].point[point], c->diff = p;
}

Crossing crossing_strict(const Study *st) {
    Crossing c = { .ar = study_main(st, false), .dlm = study_main(st, true), .run = -1 };
    if (c.dlm < 0) return c;
    for (int i = 0; i < st->nruns; i++) {
        const RunRecord *r = &st->run[i];
        if (r->bound || r->best < 0) continue;
        if (c.run < 0 || r->point[r->best].val < st->run[c.run].point[c.point].val) c.run = i, c.point = r->best;
    }
    if (c.run < 0) return c;
    const RunRecord *dlm = &st->run[c.dlm];
    int64_t last = dlm->point[dlm->npoints - 1].step;
    for (int k = 0; k < dlm->npoints; k++) strict_point(st, &c, c.dlm, k);
    for (int i = 0; i < st->nruns; i++)
        for (int k = 0; st->run[i].parent == c.dlm && k < st->run[i].npoints; k++)
            if (st->run[i].point[k].step > last) strict_point(st, &c, i, k);
    return c;
}
