/* report_groups.c: the cells of a study -> groups: every arm's curve over its seeds, and the crossovers, with intervals.

   In:  OUT/study.json and the runs below OUT. Out: a StudyGroups (report.h).

   A group is one combination of the axes that are not picked. Of a picked axis (a learning rate, say) each arm takes the value whose
   best validation losses are lowest on average over the seeds, so that both sides are tuned alike; an anneal follows its arm.
   Seeds differ in weights, in text and in what is held out, and all arms of a seed share these, so what is averaged over seeds is
   the DIFFERENCE within a seed, and the bootstrap draws seeds, not windows. */
#include "tools/report.h"

#include <math.h>

enum { DRAWS = 2000 };

/* A cell as read: the runs of the arms, -1 where one is missing. */
typedef struct Cell { Study st; bool there; int64_t seed; int *value; int *run; } Cell;

typedef struct Build {
    StudyGroups *g;
    json_t *axes, *arms, *cells;
    Cell *cell;
    int ncells, axes_all;
    bool *pick;                      /* per axis */
} Build;

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* -- The bootstrap ------------------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea, Flood 2014): fixed start, so a report is the same every time. */
static uint64_t next_random(uint64_t *s) {
    uint64_t z = *s += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef double (*Statistic)(const void *data, const int *seeds, int n);   /* of the seeds drawn */

static Interval bootstrap(Statistic of, const void *data, int n) {
    int pick[1024] = {0};
    Interval v = { NAN, NAN, NAN, n };
    if (n < 1 || n > 1024) return v;
    for (int i = 0; i < n; i++) pick[i] = i;
    v.mid = v.lo = v.hi = of(data, pick, n);
    if (n < 2) return v;
    double *draw = calloc(DRAWS, sizeof *draw);
    if (!draw) return v;
    uint64_t state = 1;
    for (int d = 0; d < DRAWS; d++) {
        for (int i = 0; i < n; i++) pick[i] = (int)(next_random(&state) % (uint64_t)n);
        draw[d] = of(data, pick, n);
    }
    qsort(draw, DRAWS, sizeof *draw, ascending);
    v.lo = draw[DRAWS / 40], v.hi = draw[DRAWS - 1 - DRAWS / 40];
    free(draw);
    return v;
}

static double mean_of(const void *data, const int *seeds, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += ((const double *)data)[seeds[i]];
    return sum / n;
}

/* -- Cells ------------------------------------------------------------------------------------------------------------- */

static int find_run(const Study *st, const char *arm) {
    for (int i = 0; i < st->nruns; i++)
        if (!strcmp(st->run[i].name, arm)) return st->run[i].best >= 0 ? i : -1;
    return -1;
}

static int read_cell(Build *b, int i) {
    json_t *c = json_array_get(b->cells, (size_t)i);
    Cell *cell = &b->cell[i];
    char *folder = text_fmt("%s/%s", b->g->folder, text_of(c, "folder"));
    cell->seed = json_integer_value(json_object_get(c, "seed"));
    cell->value = calloc((size_t)b->axes_all + 1, sizeof *cell->value);
    cell->run = calloc((size_t)b->g->narms + 1, sizeof *cell->run);
    if (!cell->value || !cell->run) abort();
    for (int k = 0; k < b->axes_all; k++) cell->value[k] = (int)json_integer_value(json_array_get(json_object_get(c, "values"), (size_t)k));
    cell->there = file_exists(folder) && study_scan(&cell->st, folder);
    for (int k = 0; k < b->g->narms; k++) {
        cell->run[k] = cell->there ? find_run(&cell->st, text_of(json_array_get(b->arms, (size_t)k), "name")) : -1;
        b->g->missing += cell->run[k] < 0;
        b->g->unfinished += cell->run[k] >= 0 && !cell->st.run[cell->run[k]].ended;
    }
    free(folder);
    return 0;
}

static int parent_of(const Build *b, int arm) {
    const char *parent = text_of(json_array_get(b->arms, (size_t)arm), "parent");
    for (int k = 0; *parent && k < b->g->narms; k++)
        if (!strcmp(parent, text_of(json_array_get(b->arms, (size_t)k), "name"))) return k;
    return -1;
}

static const RunRecord *record(const Cell *c, int arm) { return c->run[arm] < 0 ? NULL : &c->st.run[c->run[arm]]; }

/* -- Which values of the picked axes ------------------------------------------------------------------------------------- */

/* Cells that agree on the axes of a kind: picked, or not. */
static bool agree(const Build *b, const Cell *x, const Cell *y, bool picked) {
    for (int k = 0; k < b->axes_all; k++)
        if (b->pick[k] == picked && x->value[k] != y->value[k]) return false;
    return true;
}

/* Mean best validation loss of an arm over the seeds of one full combination; inf where a seed lacks it. */
static double score(const Build *b, const Cell *like, int arm) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < b->ncells; i++) {
        const Cell *c = &b->cell[i];
        if (!agree(b, c, like, true) || !agree(b, c, like, false)) continue;
        const RunRecord *r = record(c, arm);
        if (!r) return INFINITY;
        sum += r->point[r->best].val;
        n++;
    }
    return n ? sum / n : INFINITY;
}

/* A cell of the group whose picked values suit the arm best. */
static const Cell *best_values(const Build *b, const Cell *group, int arm) {
    const Cell *best = group;
    double least = INFINITY;
    for (int i = 0; i < b->ncells; i++) {
        if (!agree(b, &b->cell[i], group, false)) continue;
        double v = score(b, &b->cell[i], arm);
        if (v < least) least = v, best = &b->cell[i];
    }
    return best;
}

static char *picked_text(const Build *b, const Cell *c) {
    StrBuf s = {0};
    for (int k = 0; k < b->axes_all; k++) {
        json_t *axis = json_array_get(b->axes, (size_t)k);
        if (!b->pick[k]) continue;
        snU_putf(&s, "%s%s=%s", s.n ? "," : "", text_of(axis, "name"), json_string_value(json_array_get(json_object_get(axis, "values"), (size_t)c->value[k])));
    }
    return s.s ? s.s : strdup("");
}

/* The runs of an arm in a group, a seed after the other; those that are missing are left out. */
static int seeds_of(const Build *b, const Cell *group, const Cell *values, int arm, const RunRecord **out, int64_t *seed) {
    int n = 0;
    for (int i = 0; i < b->ncells && n < 1024; i++) {
        const Cell *c = &b->cell[i];
        const RunRecord *r = agree(b, c, group, false) && agree(b, c, values, true) ? record(c, arm) : NULL;
        if (r) out[n] = r, seed[n++] = c->seed;
    }
    return n;
}

/* -- Curves ------------------------------------------------------------------------------------------------------------- */

static double config_number(const RunRecord *r, const char *key) { return json_number_value(json_object_get(r->config, key)); }

static void fill_points(Curve *c, const RunRecord *const *r) {
    double x[1024], per_step = config_number(r[0], "batch") * config_number(r[0], "accum") * config_number(r[0], "window");
    double *block = calloc((size_t)c->n * 8 + 1, sizeof *block);
    if (!block) abort();
    double **all[] = { &c->epoch, &c->step, &c->tokens, &c->flops, &c->executed, &c->val, &c->lo, &c->hi };
    for (int i = 0; i < 8; i++) *all[i] = block + i * c->n;
    for (int k = 0; k < c->n; k++) {
        for (int s = 0; s < c->seeds; s++) x[s] = r[s]->point[k].val;
        Interval v = bootstrap(mean_of, x, c->seeds);
        const Point *p = &r[0]->point[k];
        c->epoch[k] = p->epoch, c->step[k] = (double)p->step;
        c->tokens[k] = (double)p->step * per_step, c->flops[k] = (double)p->step * config_number(r[0], "flops_per_step");
        c->executed[k] = (double)p->step * p->executed;
        c->val[k] = v.mid, c->lo[k] = v.lo, c->hi[k] = v.hi;
    }
}

/* Checkpoints that were measured in all seeds. */
static void fill_measured(Curve *c, const RunRecord *const *r) {
    double acc[1024], gap[1024], per_step = config_number(r[0], "batch") * config_number(r[0], "accum") * config_number(r[0], "window");
    double per_epoch = config_number(r[0], "windows_per_epoch") * config_number(r[0], "window");
    c->na = r[0]->nmeasured;
    for (int s = 0; s < c->seeds; s++) {
        int k = 0;
        while (k < c->na && k < r[s]->nmeasured && r[s]->measured[k].step == r[0]->measured[k].step) k++;
        c->na = k;
    }
    double *block = calloc((size_t)c->na * 8 + 1, sizeof *block), **all[] = { &c->a_epoch, &c->a_tokens, &c->acc, &c->acc_lo, &c->acc_hi, &c->gap, &c->gap_lo, &c->gap_hi };
    if (!block) abort();
    for (int i = 0; i < 8; i++) *all[i] = block + i * c->na;
    for (int k = 0; k < c->na; k++) {
        for (int s = 0; s < c->seeds; s++) acc[s] = r[s]->measured[k].acc, gap[s] = r[s]->measured[k].gap;
        Interval a = bootstrap(mean_of, acc, c->seeds), g = bootstrap(mean_of, gap, c->seeds);
        c->a_tokens[k] = (double)r[0]->measured[k].step * per_step;
        c->a_epoch[k] = c->a_tokens[k] / per_epoch;
        c->acc[k] = a.mid, c->acc_lo[k] = a.lo, c->acc_hi[k] = a.hi;
        c->gap[k] = g.mid, c->gap_lo[k] = g.lo, c->gap_hi[k] = g.hi;
    }
}

static void fill_best(Curve *c, const RunRecord *const *r) {
    double val[1024], test[1024];
    for (int s = 0; s < c->seeds; s++) {
        const Point *p = &r[s]->point[r[s]->best];
        val[s] = p->val, test[s] = p->has_test ? p->test : NAN;
        c->best_epoch += p->epoch / c->seeds;
    }
    c->best = bootstrap(mean_of, val, c->seeds);
    c->test = bootstrap(mean_of, test, c->seeds);
    c->weights = config_number(r[0], "weights");
    c->window = config_number(r[0], "window");
    c->active = config_number(r[0], "active_weights");
    if (!c->active) c->active = c->weights;                  /* runs of before */
    c->total_flops = r[0]->flops;
}

static void fill_curve(const Build *b, const Cell *group, int arm, Curve *c) {
    const RunRecord *r[1024];
    int64_t seed[1024];
    int parent = parent_of(b, arm);
    const Cell *values = best_values(b, group, parent < 0 ? arm : parent);
    *c = (Curve){ .arm = text_of(json_array_get(b->arms, (size_t)arm), "name"), .parent = parent, .picked = picked_text(b, values),
                  .best = { NAN, NAN, NAN, 0 }, .test = { NAN, NAN, NAN, 0 } };
    c->seeds = seeds_of(b, group, values, arm, r, seed);
    if (!c->seeds) return;
    c->bound = r[0]->bound;
    c->n = r[0]->npoints;
    for (int s = 0; s < c->seeds; s++) {
        int k = 0;
        while (k < c->n && k < r[s]->npoints && r[s]->point[k].step == r[0]->point[k].step) k++;
        c->n = k;
    }
    fill_points(c, r);
    fill_measured(c, r);
    fill_best(c, r);
}

/* -- Crossovers --------------------------------------------------------------------------------------------------------- */

typedef struct Differences { int n; const double *epoch; const double *at[1024]; } Differences;   /* at[seed][n]: DLM minus AR */

/* The first evaluation from which on the mean difference of these seeds is below 0. */
static double crossing_of(const void *data, const int *seeds, int n) {
    const Differences *d = data;
    double epoch = INFINITY;
    for (int k = d->n - 1; k >= 0; k--) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += d->at[seeds[i]][k];
        if (!(sum < 0)) break;
        epoch = d->epoch[k];
    }
    return epoch;
}

static double last_of(const void *data, const int *seeds, int n) {
    const Differences *d = data;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += d->at[seeds[i]][d->n - 1];
    return sum / n;
}

/* Of one seed: the DLM's evaluations against the AR run's at the same step, on the validation text; anneals are never compared. */
static int differ_paper(const RunRecord *ar, const RunRecord *dlm, double *epoch, double *out) {
    int n = 0;
    for (int i = 0, k = 0; i < dlm->npoints; i++) {
        while (k < ar->npoints && ar->point[k].step < dlm->point[i].step) k++;
        if (k == ar->npoints || ar->point[k].step != dlm->point[i].step) continue;
        epoch[n] = dlm->point[i].epoch;
        out[n++] = dlm->point[i].val - ar->point[k].val;
    }
    return n;
}

/* The DLM's evaluations against the best that any AR run of this seed reached (chosen on the validation text), on the test text. */
static int differ_strict(double best, const RunRecord *dlm, double *epoch, double *out) {
    int n = 0;
    for (int i = 0; i < dlm->npoints; i++) {
        if (!dlm->point[i].has_test) continue;
        epoch[n] = dlm->point[i].epoch;
        out[n++] = dlm->point[i].test - best;
    }
    return n;
}

static double best_ar_test(const Build *b, const Cell *group, int64_t seed) {
    double val = INFINITY, test = NAN;
    for (int arm = 0; arm < b->g->narms; arm++) {
        const RunRecord *r[1024];
        int64_t s[1024];
        int parent = parent_of(b, arm), n = seeds_of(b, group, best_values(b, group, parent < 0 ? arm : parent), arm, r, s);
        for (int i = 0; i < n; i++) {
            if (s[i] != seed || r[i]->bound) continue;
            const Point *p = &r[i]->point[r[i]->best];
            if (p->val < val) val = p->val, test = p->has_test ? p->test : NAN;
        }
    }
    return test;
}

/* The first arm of a kind that is no anneal. */
static int main_arm(const Build *b, const StudyGroup *g, bool bound) {
    for (int i = 0; i < b->g->narms; i++)
        if (g->curve[i].seeds && g->curve[i].parent < 0 && g->curve[i].bound == bound) return i;
    return -1;
}

static Cross cross(const Build *b, const Cell *group, const StudyGroup *g, bool strict) {
    Cross c = { .epoch = { INFINITY, INFINITY, INFINITY, 0 }, .last = { NAN, NAN, NAN, 0 } };
    int ar = main_arm(b, g, false), dlm = main_arm(b, g, true), nd, na;
    const RunRecord *rd[1024], *ra[1024];
    int64_t sd[1024], sa[1024];
    if (ar < 0 || dlm < 0) return c;
    c.ar = strict ? "best of any AR run" : g->curve[ar].arm;
    c.dlm = g->curve[dlm].arm;
    nd = seeds_of(b, group, best_values(b, group, dlm), dlm, rd, sd);
    na = seeds_of(b, group, best_values(b, group, ar), ar, ra, sa);
    Differences d = { .n = INT32_MAX };
    double *epoch = NULL;
    for (int i = 0; i < nd; i++) {
        int k = 0;
        while (k < na && sa[k] != sd[i]) k++;
        if (k == na) continue;
        double *out = calloc((size_t)rd[i]->npoints + 1, sizeof *out), *at = calloc((size_t)rd[i]->npoints + 1, sizeof *at);
        if (!out || !at) abort();
        double best = strict ? best_ar_test(b, group, sd[i]) : 0;
        int n = !strict ? differ_paper(ra[k], rd[i], at, out) : isfinite(best) ? differ_strict(best, rd[i], at, out) : 0;
        if (!n) { free(out); free(at); continue; }
        if (n < d.n) d.n = n;
        if (epoch) free(at);
        else d.epoch = epoch = at;
        d.at[c.seeds++] = out;
    }
    if (!c.seeds) return c;
    for (int i = 0; i < c.seeds; i++) c.found += isfinite(crossing_of(&d, &i, 1));
    c.epoch = bootstrap(crossing_of, &d, c.seeds);
    c.last = bootstrap(last_of, &d, c.seeds);
    c.last_epoch = epoch[d.n - 1];
    for (int i = 0; i < c.seeds; i++) free((void *)d.at[i]);
    free(epoch);
    return c;
}

/* -- StudyGroups -------------------------------------------------------------------------------------------------------------- */

/* "32K" is 32768, "1e-3" is 0.001, "small" is none. */
static double as_number(const char *s) {
    char *end;
    double v = strtod(s, &end);
    if (end == s) return NAN;
    double unit = *end == 'K' ? 1 << 10 : *end == 'M' ? 1 << 20 : *end == 'G' ? 1 << 30 : 1;
    return end[unit > 1] ? NAN : v * unit;
}

static void add_sweep(const Build *b, const Cell *group, const Cell *values, int arm, StudyGroup *out) {
    const RunRecord *r[1024];
    int64_t seed[1024];
    double best[1024];
    int n = seeds_of(b, group, values, arm, r, seed);
    Sweep s = { .arm = arm, .values = picked_text(b, values) };
    if (!n) { free(s.values); return; }
    for (int i = 0; i < n; i++) {
        best[i] = r[i]->point[r[i]->best].val;
        s.best_epoch += r[i]->point[r[i]->best].epoch / n;
    }
    s.best = bootstrap(mean_of, best, n);
    s.picked = !strcmp(s.values, out->curve[arm].picked);
    out->sweep = realloc(out->sweep, sizeof s * (size_t)(out->nsweep + 1));
    if (!out->sweep) abort();
    out->sweep[out->nsweep++] = s;
}

/* Every combination of picked values once, for every arm. */
static void fill_sweeps(const Build *b, const Cell *group, StudyGroup *out) {
    bool any = false;
    for (int k = 0; k < b->axes_all; k++) any |= b->pick[k];
    for (int arm = 0; any && arm < b->g->narms; arm++)
        for (int i = 0; i < b->ncells; i++) {
            int k = 0;
            while (k < i && !(agree(b, &b->cell[k], &b->cell[i], true) && agree(b, &b->cell[k], group, false))) k++;
            if (k == i && agree(b, &b->cell[i], group, false)) add_sweep(b, group, &b->cell[i], arm, out);
        }
}

static void add_group(Build *b, const Cell *like) {
    StudyGroups *g = b->g;
    StrBuf label = {0};
    int n = 0;
    g->v = realloc(g->v, sizeof *g->v * (size_t)(g->n + 1));
    if (!g->v) abort();
    StudyGroup *out = &g->v[g->n++];
    *out = (StudyGroup){ .axis_value = calloc((size_t)g->naxes + 1, sizeof(double)), .curve = calloc((size_t)g->narms, sizeof *out->curve) };
    if (!out->axis_value || !out->curve) abort();
    for (int k = 0; k < b->axes_all; k++) {
        json_t *axis = json_array_get(b->axes, (size_t)k);
        if (b->pick[k]) continue;
        const char *value = json_string_value(json_array_get(json_object_get(axis, "values"), (size_t)like->value[k]));
        snU_putf(&label, "%s%s=%s", label.n ? "," : "", text_of(axis, "name"), value);
        out->axis_value[n++] = as_number(value);
    }
    out->label = label.s ? label.s : strdup("");
    for (int arm = 0; arm < g->narms; arm++) fill_curve(b, like, arm, &out->curve[arm]);
    fill_sweeps(b, like, out);
    out->paper = cross(b, like, out, false);
    out->strict = cross(b, like, out, true);
}

static int check_manifest(const Build *b) {
    bool ok = json_is_array(b->axes) && json_is_array(b->arms) && json_is_array(b->cells) && json_array_size(b->arms) > 0;
    for (size_t i = 0; ok && i < json_array_size(b->cells); i++) {
        json_t *values = json_object_get(json_array_get(b->cells, i), "values");
        const char *folder = text_of(json_array_get(b->cells, i), "folder");
        ok = *folder && !strstr(folder, "..") && json_array_size(values) == json_array_size(b->axes);
        for (size_t k = 0; ok && k < json_array_size(b->axes); k++) {
            json_t *labels = json_object_get(json_array_get(b->axes, k), "values");
            json_int_t v = json_integer_value(json_array_get(values, k));
            ok = v >= 0 && (size_t)v < json_array_size(labels) && json_is_string(json_array_get(labels, (size_t)v));
        }
    }
    return ok ? 0 : cmd_fail("%s/study.json is not what `sinter study` writes", b->g->folder);
}

bool groups_there(const char *folder) {
    char *path = text_fmt("%s/study.json", folder);
    bool there = file_exists(path);
    free(path);
    return there;
}

static void read_all(Build *b) {
    StudyGroups *g = b->g;
    b->pick = calloc((size_t)b->axes_all + 1, sizeof *b->pick);
    b->cell = calloc((size_t)b->ncells + 1, sizeof *b->cell);
    g->axis = calloc((size_t)b->axes_all + 1, sizeof *g->axis);
    if (!b->pick || !b->cell || !g->axis) abort();
    for (int k = 0; k < b->axes_all; k++) {
        json_t *axis = json_array_get(b->axes, (size_t)k);
        b->pick[k] = json_is_true(json_object_get(axis, "pick"));
        if (!b->pick[k]) g->axis[g->naxes++] = text_of(axis, "name");
    }
    for (int i = 0; i < b->ncells; i++) read_cell(b, i);
    for (int i = 0; i < b->ncells; i++) {
        int k = 0;
        while (k < i && !agree(b, &b->cell[k], &b->cell[i], false)) k++;
        if (k == i) add_group(b, &b->cell[i]);
    }
}

int groups_read(StudyGroups *g, const char *folder) {
    char *path = text_fmt("%s/study.json", folder);
    json_error_t why;
    *g = (StudyGroups){ .folder = folder, .manifest = json_load_file(path, 0, &why) };
    free(path);
    if (!g->manifest) return cmd_fail("%s/study.json: %s", folder, why.text);
    Build b = { .g = g, .axes = json_object_get(g->manifest, "axes"), .arms = json_object_get(g->manifest, "arms"), .cells = json_object_get(g->manifest, "cells") };
    int rc = check_manifest(&b);
    if (rc) return rc;
    b.ncells = (int)json_array_size(b.cells);
    b.axes_all = (int)json_array_size(b.axes);
    g->narms = (int)json_array_size(b.arms);
    g->nseeds = (int)json_array_size(json_object_get(g->manifest, "seeds"));
    read_all(&b);
    for (int i = 0; i < b.ncells; i++) {
        if (b.cell[i].there) study_free(&b.cell[i].st);
        free(b.cell[i].value);
        free(b.cell[i].run);
    }
    free(b.cell);
    free(b.pick);
    return 0;
}
