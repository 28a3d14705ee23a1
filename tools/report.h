/* report.h: runs of a study as read back from their folders, and what is found in them. */
#ifndef SN_REPORT_H
#define SN_REPORT_H
#include <jansson.h>

#include "tools/lab.h"

typedef struct Point { int64_t step; double epoch, val, val_se, test, test_se; bool has_test; } Point;   /* one evaluation */

typedef struct RunRecord {
    char *name, *folder;
    json_t *config;
    bool bound;                      /* a NELBO: a masked-diffusion model */
    int parent;                      /* index of the run that it is an anneal of; -1 = none */
    int64_t from_step, steps;
    double flops, seconds, input_mask;
    Point *point;
    int npoints, best;               /* best: of val; -1 = none */
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

int study_read(Study *st, const char *folder);
void study_free(Study *st);
double *study_windows(const Study *st, int run, int point, const char *which, int64_t *n);   /* malloc'ed; NULL: no file */
const Point *study_arm_best(const Study *st, int arm, int *run);    /* anneals included; NULL: nothing was evaluated */
int study_main(const Study *st, bool bound);                        /* the plain run of a kind; -1 = none */

Crossing crossing_paper(const Study *st);
Crossing crossing_strict(const Study *st);

#endif
