/* score.h: how likely a model holds parts of texts, by its graph `logits`: the rest of a text given its start (AR), any span given
   what is around it (DLM).

     AR    -ln p(v[from..n) | BOS, v[0..from)), exact
     DLM   -ln p(v[from..to) | v[0..from), v[to..n)), by masks or by orders (Order) */
#ifndef SN_SCORE_H
#define SN_SCORE_H
#include "tools/lab.h"
#include "tools/text.h"

/* How a DLM's likelihood of a span of l tokens is had.
   MASKS   the upper bound E over n uniform on 1..l, over n masked positions, of l / n times their cross entropy. The n of the draws of a
           passage lie l / draws apart from a random start (LLaDA, get_log_likelihood.py); one token alone needs one draw, exact.
   RANDOM  token after token in random orders, those still to come masked: each order is a model that sums to one; the mean has the
           expectation of MASKS. `mixture` is of the orders drawn as one model, each with the same weight: never more than the mean.
   LEFT, RIGHT   the same in one order. */
typedef enum { ORDER_MASKS, ORDER_RANDOM, ORDER_LEFT, ORDER_RIGHT } Order;

typedef struct ScoreOptions {
    int64_t draws;                   /* of MASKS and RANDOM; 0 = 128 */
    uint64_t seed;
    Order order;
    double guidance;                 /* DLM: logits away from those without context; 0 = none */
    int64_t window;                  /* tokens of a passage at most; 0 = the model's param seq */
} ScoreOptions;

typedef struct Passage {
    const int32_t *v;
    int64_t n, from, to;             /* tokens; the span. AR scores all from `from` on */
    int64_t steps;                   /* of an order, only the first so many; 0 = all */
    uint64_t number;                 /* what its masks depend on, with the seed */
    const int32_t *other;            /* a span of one token: what else might stand there, */
    double *other_nll;               /* out: and its nats */
    int nother;
    double nll, se, mixture;         /* out: nats of the span; Monte Carlo error, at most (0: exact or one draw); see RANDOM */
    double sum, square, worst, part; /* while it is scored */
} Passage;

/* One scored position: its logits predict v[at], nll nats; weight: what it counts in the draw's sum; mask: a DLM's, else -1. */
typedef struct Seen { const Passage *p; int64_t at, vocab, mask; double weight, nll; const float *logits; } Seen;

typedef struct Scorer {
    LabOptions lo;
    StrList defines;
    const char *ckpt;
    ScoreOptions o;
    const Tokenizer *tok;
    bool ar, open;
    int64_t window, vocab, mask, bos;
    Lab lab;                         /* compiled for [rows, room] */
    int64_t rows, room;
    int32_t *tokens, *len;
    float *logits, *without;
    int64_t *perm;
    void (*see)(void *user, const Seen *);   /* of every position that is scored; may be NULL */
    void *user;
    int64_t passes;                  /* rows that were run */
    bool show;                       /* progress */
} Scorer;

/* desc: file, defines, device, threads, seed; ckpt may be NULL. tok may be NULL: nothing is said of the vocabulary. */
int scorer_open(Scorer *s, const LabOptions *desc, const char *ckpt, const Tokenizer *tok, const ScoreOptions *o);
int scorer_run(Scorer *s, Passage *p, int64_t n);                /* 0, or 1 after an error line */
void scorer_close(Scorer *s);
int64_t passage_draws(const Scorer *s, const Passage *p);        /* how many it takes */

/* Whether a model file is an AR model: it has a graph `decode`, or its graph `eval` draws no masks (no input `n`). */
bool model_is_ar(const Model *m);

/* The first windows of `length` tokens of a shard, at most `limit` (0 = all), one behind the other. */
typedef struct Windows { int32_t *v; int64_t n, length; } Windows;
int windows_read(Windows *w, const char *shard, int64_t length, int64_t limit);
Passage *whole_windows(const Windows *w);                        /* malloc'ed; NULL after an error line */

/* Random numbers of (seed, number, draw, i): 64 bits; a number below n; a permutation..n - 1. */
uint64_t random_word(uint64_t seed, uint64_t number, uint32_t draw, uint32_t i);
int64_t random_below(uint64_t word, int64_t n);
void shuffled(int64_t *v, int64_t n, uint64_t seed, uint64_t number, uint32_t draw);

#endif
