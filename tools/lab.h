/* lab.h: a model file compiled and at work: program, session, what its graphs want, and the scoring of whole windows. */
#ifndef SN_LAB_H
#define SN_LAB_H
#include "codegen/family.h"
#include "runtime/program.h"
#include "tools/cmd.h"

typedef struct LabOptions {
    const char *file, *fuse;         /* fuse: as PassOptions.fuse */
    const char *device, *target;     /* NULL: what the other one says; both: the host */
    const char *text;                /* the model itself; file is then its name in messages */
    const char *order;               /* instead of train: these passes for every graph */
    BuildTrace *trace;               /* filled, may be NULL */
    const StrList *defines;
    const char *graphs;              /* "logits,decode": these alone, where the file has them; NULL: all but those of generation */
    PassOptions passes;              /* autocast, recompute */
    const char *sched;               /* schedules instead of the model's, as BuildOptions.sched; NULL: none */
    bool train, profile, verbose;
    bool ema;                        /* lab_load takes averaged weights */
    uint64_t seed;
    int threads;
} LabOptions;

typedef struct Lab {
    Model m;
    sn_program *p;
    sn_session *s;
    BuildStats stats;
    double load_s;                   /* text to graphs */
    uint64_t seed;
    bool ema;                        /* as LabOptions.ema */
    bool bundle;                     /* p was compiled before: there is no module */
    int64_t params;                  /* elements of all weights */
    int64_t vocab;                   /* of the param `vocab`; 0 = the file has none */
} Lab;

/* What to compile for and run on: device "opencl:1" -> target "opencl:x8"; target "opencl" -> device "opencl". */
int lab_target(const char *device, const char *target, char out_target[64], char out_device[16]);
int lab_open(Lab *lab, const LabOptions *o);                     /* 0 or 1 after an error line */
void lab_close(Lab *lab);
/* Drops the graphs that are not listed; NULL: those of generation. */
void lab_choose_graphs(Module *m, const char *graphs);

/* The weights of a checkpoint, none of its states; with lab->ema the averaged ones, where it has them. 0 or 1 after a line. */
int lab_load(Lab *lab, const char *path);

/* Puts every weight in the place of its average, the state ema.<weight>, and that in its; again: back. */
bool lab_has_averages(const Lab *lab);
int lab_swap_averages(Lab *lab);
int64_t lab_param(const Lab *lab, const char *name, int64_t otherwise);   /* a whole number of the file's params */
bool lab_param_is(const Lab *lab, const char *name, const char *text);
int lab_error(const Lab *lab);                                   /* prints the session's error, returns 1 */

const SnGraphPlan *lab_graph(const Lab *lab, const char *name);  /* NULL when there is none */
const SnBuffer *lab_input(const SnGraphPlan *g, const char *name);
bool lab_has_output(const SnGraphPlan *g, const char *name);
int64_t lab_output_count(const SnGraphPlan *g, const char *name);   /* elements; 0 when there is no such output */
bool lab_is_bound(const SnGraphPlan *eval);                      /* an upper bound by draws, not exact */
double lab_flops(const Lab *lab, const SnGraphPlan *g);          /* of one run, as if masks left all and every row counted */
/* What a run executes is fixed + share * counted: without the blocks that masks of indices leave empty, and with the share of rows that
   count (their number is known at run time) in products over those alone. From the trace that the lab was opened with. */
typedef struct Flops { double fixed, counted; } Flops;
Flops lab_executed(const Lab *lab, const BuildTrace *trace, const char *graph);

/* The shape of `tokens` [B, T] of a graph; fails with a line. */
typedef struct Batch { int64_t rows, window; } Batch;
int lab_batch(const SnGraphPlan *g, Batch *out);

/* One batch of windows, row by row. */
typedef struct TextRows {
    int32_t *tokens, *begins, *scored;   /* [rows, window] */
    int32_t *sample, *view;          /* [rows]: global sample ids; how often their windows came before, modulo views */
} TextRows;
int rows_new(TextRows *r, Batch b);      /* zeros; scored: ones. 0, or 1 after a line */
void rows_free(TextRows *r);
int rows_read(TextRows *r, Batch b, int64_t row, sn_data *data, int64_t window);   /* a window into a row */

/* Feeds what the graph declares of it: tokens, targets = tokens, sample, view, doc = begins, scored, pos, weight = 1. */
int lab_feed(Lab *lab, const SnGraphPlan *g, const TextRows *r);

/* -- Scoring: the loss of every window of a shard by the graph `eval` ------------------------------------------ */

typedef struct Score {
    int64_t windows, draws;
    double *nll;                     /* per window, nats per token, mean over draws; malloc'ed */
    double mean, se;                 /* over windows: what other text would change */
    double mask_se;                  /* what other masks would change, at most; 0 without several draws */
    bool bound;                      /* NELBO, an upper bound on the NLL, not exact */
    double seconds;
} Score;

/* draws: for a graph with the input `n` (a masked-diffusion model), n uniform on 1..T, stratified over draws and windows.
   The masks depend on eval_seed alone. Limit: at most so many windows; 0 = all. */
int lab_score(Lab *lab, const char *shard, int64_t draws, uint64_t eval_seed, int64_t limit, Score *out);
void score_free(Score *s);

/* Mean of a - b over windows and its standard error. */
typedef struct Paired { double mean, se; int64_t n; } Paired;
Paired score_paired(const double *a, const double *b, int64_t n);

#endif
