/* train.h: one training run: what it is made of, and the files that it leaves.

     DIR/config.json             everything that was resolved: parameters, inputs, data, seeds, versions
     DIR/log.jsonl               one object a line: kind "train", "val", "end"
     DIR/last.safetensors        checkpoint: weights, moments, and under "sinter" the position as JSON
     DIR/best.safetensors        the one with the lowest validation loss
     DIR/step-NNNNNNNN.safetensors   every --save-every steps, when asked
     DIR/val/NNNNNNNN.safetensors    loss of every validation (and test) window at an evaluation
     DIR/data/                   the token shards, when they were made from text */
#ifndef SN_TRAIN_H
#define SN_TRAIN_H
#include <jansson.h>

#include "tools/corpus.h"
#include "tools/generate.h"
#include "tools/lab.h"

enum { OUTPUTS = 16 };               /* other scalar outputs of a step that are logged, at most */
enum { BUCKETS = 10 };               /* of the masked fraction, for the log of a masked-diffusion model */

typedef struct TrainOptions {
    const char *file, *out, *from, *init, *fuse, *device, *corrupt, *tokenizer;
    StrList defines, sets, data, held;
    PassOptions passes;
    int64_t steps, unique, val_bytes, test_bytes, eval_every, save_every, log_every, decay, seed, eval_seed, split_seed, draws,
            accum, threads, views;
    double epochs;
    bool resume, score_test, quiet, no_keep, fixed_windows, eod, score_fill;
} TrainOptions;

/* Sums since the last line of the log. */
typedef struct Since { double counted, loss, grad_norm, lr, seconds, bucket[BUCKETS], output[OUTPUTS]; int64_t steps, tokens, rows[BUCKETS]; } Since;

typedef struct Train {
    TrainOptions o;
    Lab lab;
    CorpusInfo corpus;
    const Tokenizer *tok;
    sn_data *data;
    const SnGraphPlan *step_graph, *apply_graph;   /* train and none, or accum and apply */
    Batch b;
    Settings set;                    /* inputs that were given, those of a checkpoint that it goes on from included */
    int64_t step, end, window;       /* steps done, last step, next window */
    int64_t from_step;               /* where --from branched; -1 = nowhere */
    double best;
    int64_t best_step;
    double last_val, flops;          /* flops: of a whole step, everything counted */
    Flops executed;                  /* of a whole step; 0: a bundle does not say */
    Since since;
    double started;
    int64_t first_step, tokens_seen;
    FILE *log;
    TextRows rows;
    float *row_loss, *row_n;
    double last_line;                /* time of the last progress line */
    int64_t last_percent;
} Train;

/* train_files.c */
char *train_path(const Train *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));   /* below DIR; malloc'ed */
int train_write_config(Train *t);
int train_open_log(Train *t);                    /* keeps what was logged up to t->step */
void train_log(Train *t, json_t *row);           /* takes the row */
int train_save(Train *t, const char *name);      /* a checkpoint */
int train_load(Train *t, const char *path, bool resume);   /* weights and position; settings that were not given */
char *train_peek_data(const char *path);         /* the data folder that a checkpoint names; malloc'ed, may be NULL */
int train_save_windows(Train *t, const Score *val, const Score *test);
double settings_get(const Settings *s, const char *name, double otherwise);
void settings_put(Settings *s, const char *name, double v);

/* train_loop.c */
int train_loop(Train *t);

#endif
