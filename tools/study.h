/* study.h: many runs under matched settings, from one page of text.

   A study file has one statement a line; `#` starts a comment, "..." holds words with spaces:

     data    /usr/lib/python3.11                       what every arm reads (`--data` of `sinter study` replaces it)
     common  -D width=128 --unique 64K --epochs 30     options of `sinter train`, for every run
     seeds   1 2 3                                     each: other weights, other text for training and validation
     vary    unique 32K: --unique 32K                  a value of an axis and what it means; axes multiply
     vary    unique 64K: --unique 64K
     vary    tier logs: --data tiers/logs             or another text; common --held PATH... then keeps validation the same
     pick    lr                                        of this axis the report takes, for each arm, the best value
     arm     ar   ../ar.sn                             a name, a model (beside the study file), and what the arm changes
     arm     dlm  ../dlm.sn --epochs 60
     anneal  ar.anneal ar best --decay 200             branches from a checkpoint of an arm (best or last)
     measure --continuations 200                       options of `sinter eval`, of every run's step-N checkpoints once it has ended

   Every arm runs at every combination of values and with every seed. Runs of one combination and seed are a CELL: they read the same
   shards, see the same windows in the same order and are evaluated on the same text, so their differences are paired.

     OUT/study.json                      axes, seeds, arms, cells: what `sinter report` reads
     OUT/unique=32K/s1/dlm/              a run, as `sinter train` leaves it; its output in train.txt; measure.jsonl */
#ifndef SN_STUDY_H
#define SN_STUDY_H
#include "tools/cmd.h"

typedef struct StudyValue { const char *label; StrList options, data; } StudyValue;      /* data: instead of the file's; n = 0: none */
typedef struct StudyAxis { const char *name; StudyValue *v; int n; bool pick; } StudyAxis;
typedef struct StudyArm {
    const char *name, *model;        /* model: as a path from here */
    StrList options;
    int parent;                      /* of an anneal: the arm it branches from; else -1 */
    const char *from;                /* "best" or "last" */
} StudyArm;

typedef struct StudyFile {
    const char *path, *text, *cut;   /* text: of the file; cut: the same in words, which all others here point into */
    StrList data, common, measure;
    int64_t *seed;
    int nseeds;
    StudyAxis *axis;
    int naxes;
    StudyArm *arm;                   /* a parent stands before its anneals */
    int narms;
} StudyFile;

/* 0, or an exit status after `file:line: error: ...`. What is read lives as long as the process. */
int study_file_read(StudyFile *out, const char *path);

/* An error line that names the line of the file where this word of it stands; 1. */
int study_fail(const StudyFile *f, const char *word, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Do the model's graphs, with the -D among the words of a run, take its --set? 0, or 1 after an error line (study_check.c). */
int study_check_run(const StudyFile *f, const StudyArm *arm, const StrList *words);

/* -- Cells ----------------------------------------------------------------------------------------------------- */

int study_ncells(const StudyFile *f);                                /* combinations x seeds; seeds outermost */
int study_cell_value(const StudyFile *f, int cell, int axis);        /* index of the axis's value */
int64_t study_cell_seed(const StudyFile *f, int cell);
bool study_has_data(const StudyFile *f);                             /* every cell has */
char *study_cell_folder(const StudyFile *f, int cell);               /* "unique=32K/s1"; malloc'ed */
int study_write_manifest(const StudyFile *f, const char *out);       /* OUT/study.json */

#endif
