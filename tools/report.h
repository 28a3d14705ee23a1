/* report.h: runs of a study as read back from their folders, and what is found in them. */
#ifndef SN_REPORT_H
#define SN_REPORT_H
#include <jansson.h>

#include "tools/lab.h"

/* executed: FLOPs of a step on average so far, without empty blocks and rows that do not count; NaN: the run does not say. */
typedef struct Point { int64_t step; double executed, epoch, val, val_se, test, test_se; bool has_test; } Point;   /* one evaluation */

typedef struct Measured { int64_t step; double acc, gap; } Measured;       /* of a checkpoint: accuracy, nats between wrong and right options */

typedef struct RunRecord {
    char *name, *folder;
    json_t *config;
    bool bound;                      /* a NELBO: a masked-diffusion model */
    bool ended;
    int parent;                      /* index of the run that it is an anneal of; -1 = none */
    int64_t from_step, steps;
    double flops, seconds, input_mask;
    Point *point;
    int npoints, best;               /* best: of val; -1 = none */
    double share, share_steps;       /* of rows that count: sum over steps, steps */
    Measured *measured;
    int nmeasured;
    bool measured_all;               /* what follows in the file is of another measure */
} RunRecord;

typedef struct Study { char *folder; RunRecord *run; int nruns; } Study;

/* A crossover: the first evaluation after which a statement holds for good. found false: it never does. */
typedef struct Crossing {
    bool possible, found;            /* possible: there was something to compare */
    Point at;                        /* of the masked-diffusion model */
    Paired diff, last;               /* DLM minus AR there, and at the last evaluation compared */
    double last_epoch;
    int run, point;                  /* strict: the best that any AR arm reached */
    int ar, dlm;                     /* runs compared */
} Crossing;

bool study_scan(Study *st, const char *folder);                      /* the runs in a folder, by name; false: it cannot be read */
int study_read(Study *st, const char *folder);                      /* the same; no runs are an error, too */
void study_free(Study *st);
double *study_windows(const Study *st, int run, int point, const char *which, int64_t *n);   /* malloc'ed; NULL: no file */
const Point *study_arm_best(const Study *st, int arm, int *run);    /* anneals included; NULL: nothing was evaluated */
int study_main(const Study *st, bool bound);                        /* the plain run of a kind; -1 = none */

Crossing crossing_paper(const Study *st);
Crossing crossing_strict(const Study *st);

/* -- A study of `sinter study`: cells of runs, over seeds (report_groups.c) ----------------------------------------------- */

/* A mean over seeds and its 95 % interval, by the bootstrap: n seeds drawn again with replacement, 2000 times. One seed: no interval,
   lo = hi = mid. inf: it does not happen. */
typedef struct Interval { double mid, lo, hi; int n; } Interval;

typedef struct Curve {               /* an arm of a group: evaluations that all of its seeds have */
    const char *arm;
    int parent;                      /* index of the arm it anneals, -1 = none */
    bool bound;
    char *picked;                    /* "lr=1e-3": the values of the picked axes that did best; "" = none */
    int seeds, n;
    double *epoch, *step, *tokens, *flops, *executed, *val, *lo, *hi;      /* [n]; val, lo, hi over the seeds */
    int na;                          /* checkpoints measured, in all seeds */
    double *a_epoch, *a_tokens, *acc, *acc_lo, *acc_hi, *gap, *gap_lo, *gap_hi;     /* [na] */
    Interval best, test;             /* lowest validation loss of each seed; the test loss there (NaN: not scored) */
    double window, best_epoch, weights, active, total_flops;   /* mean epoch of the best; active: weights that a token uses; of one seed */
} Curve;

typedef struct Cross {               /* DLM minus AR, averaged over the seeds: the first evaluation after which it stays below 0 */
    const char *ar, *dlm;
    int seeds, found;                /* seeds compared; of these, in how many it crosses for good by itself */
    Interval epoch, last;            /* inf = never; last: the difference at the last evaluation compared */
    double last_epoch;
} Cross;

typedef struct Sweep {               /* an arm at one value of every picked axis */
    int arm;
    char *values;
    bool picked;                     /* the curve above is of it */
    Interval best;
    double best_epoch;
} Sweep;

typedef struct StudyGroup {               /* one combination of the values of the axes that are not picked */
    char *label;                     /* "unique=32K"; "" = the only one */
    double *axis_value;              /* as numbers (32K = 32768), NaN where it is none */
    Curve *curve;                    /* one per arm, in the study's order */
    Cross paper, strict;
    Sweep *sweep;                    /* [nsweep], arm after arm; 0: no axis is picked */
    int nsweep;
} StudyGroup;

typedef struct StudyGroups {
    const char *folder;
    json_t *manifest;
    int naxes; const char **axis;    /* names of axes that are not picked */
    int narms, nseeds, n;
    StudyGroup *v;
    int missing, unfinished;         /* runs without an evaluation; with some, but not at their end */
} StudyGroups;

bool groups_there(const char *folder);                               /* it has a study.json */
int groups_read(StudyGroups *g, const char *folder);                      /* 0 or an exit status after a line */
void groups_print(const StudyGroups *g, FILE *f);
json_t *groups_json(const StudyGroups *g);                          /* what summary.json holds */
int groups_write(const StudyGroups *g);                                   /* report.html, plots/, *.csv, summary.json */

typedef struct Cost { double tokens, nd, graph, executed; } Cost;   /* of training to the best evaluation; FLOPs; NaN: not known */
Cost cost_at_best(const Curve *c);
void plots_put(StrBuf *page, const StudyGroups *g, const StudyGroup *v);  /* report_plots.c */

#endif
