/* score.c: likelihoods of spans.

   In:  a model, passages. Out: nats of each span.

   A passage is a number of rows: one forward pass over its tokens, some masked, with positions that count. Rows of all passages, the
   shortest first, are run in batches of one shape [rows, room]; where the next row is longer, the model is compiled anew for more
   room, so that short texts don't pay for long ones. What lies behind a row's tokens is not seen (DLM: `len`; AR: causality). */
#include "tools/score.h"

#include <math.h>
#include <stdlib.h>

#include "tools/generate.h"

enum { MOST_ROWS = 16, MOST_LOGITS = 1 << 26 };

/* -- Opening ------------------------------------------------------------------------------------------------------ */

bool model_is_ar(const Model *m) {
    if (snG_get(m->m, "decode")) return true;
    const Graph *g = snG_get(m->m, "eval");
    for (NodeId id = 1; g && id < g->nodes.n; id++)
        if (snG_node(g, id)->op == OP_input && !strcmp(snU_str(g->ctx, snG_leaf(g, id)->name), "n")) return false;
    return g != NULL;
}

static int64_t module_param(const Model *m, const char *name, int64_t otherwise) {
    for (uint32_t i = 0; i < m->m->params.n; i++)
        if (!strcmp(m->m->params.v[i].name, name)) return strtoll(m->m->params.v[i].value, NULL, 10);
    return otherwise;
}

static bool param_is(const Model *m, const char *name, const char *value) {
    for (uint32_t i = 0; i < m->m->params.n; i++)
        if (!strcmp(m->m->params.v[i].name, name)) return strstr(m->m->params.v[i].value, value) != NULL;
    return false;
}

int scorer_open(Scorer *s, const LabOptions *desc, const char *ckpt, const Tokenizer *tok, const ScoreOptions *o) {
    *s = (Scorer){ .lo = *desc, .ckpt = ckpt, .o = *o, .tok = tok };
    for (int i = 0; i < desc->defines->n; i++) list_add(&s->defines, desc->defines->v[i]);
    s->lo.defines = &s->defines;
    s->lo.graphs = "logits";
    if (!s->o.draws) s->o.draws = 128;
    if (is_bundle(desc->file)) return cmd_fail("%s: a bundle has its shapes already; the model file is wanted here", desc->file);
    Model m;
    int rc = ckpt ? checkpoint_params(ckpt, desc->file, &s->defines) : 0;
    if (!rc) rc = model_load(&m, desc->file, NULL, &s->defines);
    if (rc) return rc;
    s->ar = model_is_ar(&m);
    s->vocab = module_param(&m, "vocab", 0);
    s->window = s->o.window ? s->o.window : module_param(&m, "seq", 0);
    if (!snG_get(m.m, "logits"))
        rc = cmd_fail("%s has no graph `logits`, by which texts are scored; docs/generation.md says what it is", desc->file);
    else if (s->window < 1) rc = cmd_fail("%s has no param `seq`; --window says how many tokens the model reads", desc->file);
    else if (s->ar && s->o.guidance > 0) rc = cmd_fail("guidance is for masked-diffusion models, %s is an AR model", desc->file);
    else if (s->ar && (s->o.order == ORDER_RANDOM || s->o.order == ORDER_RIGHT))
        rc = cmd_fail("an AR model has one order, left; %s is one", desc->file);
    else if (!s->ar && param_is(&m, "kernel", "uniform"))
        rc = cmd_fail("%s with kernel=uniform has learnt no masks, by which spans are scored; `eval --data` alone has its bound", desc->file);
    model_free(&m);
    return rc;
}

static void close_room(Scorer *s) {
    if (s->open) lab_close(&s->lab);
    free(s->tokens);
    free(s->len);
    free(s->logits);
    free(s->without);
    s->tokens = s->len = NULL;
    s->logits = s->without = NULL;
    s->open = false;
    s->rows = s->room = 0;
}

void scorer_close(Scorer *s) {
    close_room(s);
    free(s->perm);
    free(s->defines.v);
    s->perm = NULL;
    s->defines = (StrList){0};
}

/* Sizes from 16 on, 2^k and 3 * 2^k in turn. */
static int64_t room_for(const Scorer *s, int64_t n) {
    int64_t room = 16;
    while (room < n) room = room & (room - 1) ? room / 3 * 4 : room / 2 * 3;
    return n <= s->window && room > s->window ? s->window : room;
}

static int check_vocab(Scorer *s) {
    s->vocab = lab_output_count(lab_graph(&s->lab, "logits"), "logits") / (s->rows * s->room);
    s->mask = lab_param(&s->lab, "mask_id", s->vocab - 1);
    s->bos = lab_param(&s->lab, "bos_id", s->vocab - 1);
    if (!s->vocab) return cmd_fail("%s: graph `logits` has no output logits [B, T, vocab]", s->lo.file);
    if (s->tok && s->tok->vocab > s->vocab)
        return cmd_fail("the tokenizer has %lld tokens, the model's vocabulary is %lld; set -D vocab", (long long)s->tok->vocab,
                        (long long)s->vocab);
    return 0;
}

static int64_t rows_for(const Scorer *s, int64_t room, int64_t wanted) {
    int64_t rows = MOST_LOGITS / (room * (s->vocab ? s->vocab : 257));
    if (rows > MOST_ROWS) rows = MOST_ROWS;
    if (rows > wanted) rows = wanted;
    return rows < 1 ? 1 : rows;
}

static int open_room(Scorer *s, int64_t n, int64_t wanted) {
    int64_t room = n > s->room ? room_for(s, n) : s->room;
    close_room(s);
    s->room = room;
    s->rows = rows_for(s, room, wanted);
    StrList defines = {0};
    for (int i = 0; i < s->defines.n; i++) list_add(&defines, s->defines.v[i]);
    char *shape[2] = { text_fmt("logits.B=%lld", (long long)s->rows), text_fmt("logits.T=%lld", (long long)s->room) };
    for (int i = 0; i < 2; i++) list_add(&defines, shape[i]);
    LabOptions lo = s->lo;
    lo.defines = &defines;
    int rc = lab_open(&s->lab, &lo);
    s->open = rc == 0;
    if (!rc && s->ckpt) rc = lab_load(&s->lab, s->ckpt);
    if (!rc) rc = check_vocab(s);
    free(defines.v);
    for (int i = 0; i < 2; i++) free(shape[i]);
    if (rc) return rc;
    size_t cells = (size_t)(s->rows * s->room);
    s->tokens = calloc(cells, sizeof *s->tokens);
    s->len = calloc((size_t)s->rows, sizeof *s->len);
    s->logits = malloc(sizeof *s->logits * cells * (size_t)s->vocab);
    if (s->o.guidance > 0) s->without = malloc(sizeof *s->without * cells * (size_t)s->vocab);
    return s->tokens && s->len && s->logits && (s->without || s->o.guidance <= 0) ? 0 : cmd_fail("out of memory");
}

/* -- Rows ----------------------------------------------------------------------------------------------------------- */

uint64_t random_word(uint64_t seed, uint64_t number, uint32_t draw, uint32_t i) {
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, w[4];
    uint32_t ctr[4] = { i, draw, (uint32_t)number, (uint32_t)(number >> 32) ^ 0xa5000000u };
    sn_philox(key, ctr, w);
    return (uint64_t)w[1] << 32 | w[0];
}

int64_t random_below(uint64_t word, int64_t n) { return (int64_t)((unsigned __int128)word * (uint64_t)n >> 64); }

void shuffled(int64_t *v, int64_t n, uint64_t seed, uint64_t number, uint32_t draw) {
    for (int64_t i = 0; i < n; i++) v[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = random_below(random_word(seed, number, draw, (uint32_t)i), i + 1), t = v[i];
        v[i] = v[k];
        v[k] = t;
    }
}

/* Row `step` of draw `draw` of a passage. Masked are perm[first..last) of its span; the first `scored` of them count `weight` each. */
typedef struct Row { Passage *p; int64_t draw, step, first, last, scored; double weight; } Row;

static int64_t span(const Passage *p) { return p->to - p->from; }

int64_t passage_draws(const Scorer *s, const Passage *p) {
    bool drawn = !s->ar && (s->o.order == ORDER_RANDOM || s->o.order == ORDER_MASKS);
    return drawn && span(p) > 1 ? s->o.draws : 1;
}

static int64_t steps_of(const Scorer *s, const Passage *p) {
    return s->ar || s->o.order == ORDER_MASKS ? 1 : p->steps && p->steps < span(p) ? p->steps : span(p);
}

static void plan_row(Scorer *s, Row *r) {
    const Passage *p = r->p;
    int64_t l = span(p);
    switch (s->o.order) {
    case ORDER_LEFT: for (int64_t i = 0; i < l; i++) s->perm[i] = i; break;
    case ORDER_RIGHT: for (int64_t i = 0; i < l; i++) s->perm[i] = l - 1 - i; break;
    default: shuffled(s->perm, l, s->o.seed, p->number, (uint32_t)r->draw);
    }
    if (s->o.order == ORDER_MASKS) {
        int64_t start = random_below(random_word(s->o.seed, p->number, 0xffffffffu, 0), l);
        r->first = 0;
        r->last = r->scored = 1 + (start + r->draw * l / passage_draws(s, p)) % l;
        r->weight = (double)l / (double)r->scored;
    } else {
        r->first = r->step;
        r->last = l;
        r->scored = 1;
        r->weight = 1;
    }
}

/* blind: what is around the span is masked, too (the unconditional side of guidance). */
static void fill_row(Scorer *s, Row *r, int32_t *tokens, bool blind) {
    const Passage *p = r->p;
    memset(tokens, 0, sizeof *tokens * (size_t)s->room);
    if (s->ar) {
        tokens[0] = (int32_t)s->bos;
        memcpy(tokens + 1, p->v, sizeof *tokens * (size_t)(p->n - 1));
        return;
    }
    plan_row(s, r);
    for (int64_t i = 0; i < p->n; i++) tokens[i] = blind && (i < p->from || i >= p->to) ? (int32_t)s->mask : p->v[i];
    for (int64_t i = r->first; i < r->last; i++) tokens[p->from + s->perm[i]] = (int32_t)s->mask;
}

static int score_position(Scorer *s, Passage *p, int64_t at, double weight, const float *row) {
    const float *logits = row + at * s->vocab;
    double nats = log_sum_exp(logits, s->vocab) - logits[p->v[at]];
    if (!isfinite(nats)) return cmd_fail("%s: a prediction is not finite; is it a good checkpoint?", s->ckpt ? s->ckpt : s->lo.file);
    p->part += weight * nats;
    for (int i = 0; i < p->nother; i++) p->other_nll[i] = nats + logits[p->v[at]] - logits[p->other[i]];
    if (s->see) s->see(s->user, &(Seen){ p, at, s->vocab, s->ar ? -1 : s->mask, weight, nats, logits });
    return 0;
}

/* A draw is whole: its total enters sums, and the mixture's log of a sum of exponentials. */
static void end_draw(Passage *p) {
    p->sum += p->part;
    p->square += p->part * p->part;
    double a = -p->part, b = p->worst, top = fmax(a, b);
    p->worst = top + log(exp(a - top) + exp(b - top));
    p->part = 0;
}

static int take_row(Scorer *s, Row *r, const float *logits) {
    Passage *p = r->p;
    int rc = 0;
    if (s->ar) {
        for (int64_t at = p->from; at < p->n && !rc; at++) rc = score_position(s, p, at, 1, logits);
    } else {
        plan_row(s, r);
        for (int64_t i = r->first; i < r->first + r->scored && !rc; i++) rc = score_position(s, p, p->from + s->perm[i], r->weight, logits);
    }
    if (r->step == steps_of(s, p) - 1) end_draw(p);
    return rc;
}

/* -- Batches -------------------------------------------------------------------------------------------------------- */

static int run_graph(Scorer *s, float *out) {
    sn_session *x = s->lab.s;
    size_t cells = (size_t)(s->rows * s->room);
    int rc = sn_bind(x, "logits", "tokens", s->tokens, sizeof *s->tokens * cells);
    if (!rc) rc = sn_bind(x, "logits", "len", s->len, sizeof *s->len * (size_t)s->rows);
    if (!rc) rc = sn_run(x, "logits");
    if (!rc) rc = sn_read(x, "logits", "logits", out, sizeof *out * cells * (size_t)s->vocab);
    return rc ? lab_error(&s->lab) : 0;
}

static int fill_and_run(Scorer *s, Row *rows, int64_t n, bool blind, float *out) {
    for (int64_t r = 0; r < s->rows; r++) {                      /* rows that nobody wants are copies of the last */
        fill_row(s, &rows[r < n ? r : n - 1], s->tokens + r * s->room, blind);
        s->len[r] = (int32_t)rows[r < n ? r : n - 1].p->n;
    }
    return run_graph(s, out);
}

static int run_batch(Scorer *s, Row *rows, int64_t n) {
    if (!n) return 0;
    int rc = fill_and_run(s, rows, n, false, s->logits);
    if (!rc && s->without) rc = fill_and_run(s, rows, n, true, s->without);
    if (!rc && s->without) sample_guide(s->logits, s->without, s->rows * s->room * s->vocab, s->o.guidance);
    for (int64_t r = 0; r < n && !rc; r++) rc = take_row(s, &rows[r], s->logits + r * s->room * s->vocab);
    s->passes += n;
    return rc;
}

static int shorter(const void *a, const void *b) {
    const Passage *x = *(Passage *const *)a, *y = *(Passage *const *)b;
    return x->n != y->n ? (x->n > y->n) - (x->n < y->n) : (x > y) - (x < y);
}

static int check_passage(const Scorer *s, const Passage *p) {
    SN_ASSERT(p->from >= 0 && p->from < p->to && p->to <= p->n, "a span of [%lld, %lld) in %lld tokens", (long long)p->from, (long long)p->to,
              (long long)p->n);
    if (p->n <= s->window) return 0;
    return cmd_fail("a text of %lld tokens is longer than the window of %lld; --window N reads more", (long long)p->n, (long long)s->window);
}

static int check_tokens(const Scorer *s, const Passage *p) {
    for (int64_t i = 0; i < p->n; i++)
        if (p->v[i] < 0 || p->v[i] >= s->vocab)
            return cmd_fail("a text has the token %d, the model's vocabulary is %lld; set -D vocab", p->v[i], (long long)s->vocab);
    for (int i = 0; i < p->nother; i++)
        if (p->other[i] < 0 || p->other[i] >= s->vocab)
            return cmd_fail("an option has the token %d, the model's vocabulary is %lld; set -D vocab", p->other[i], (long long)s->vocab);
    return 0;
}

/* All rows of one passage behind those that wait in the batch. */
static int add_passage(Scorer *s, Passage *p, Row *batch, int64_t *waiting, int64_t left) {
    int rc = 0;
    if (!s->open || p->n > s->room || (!*waiting && s->rows < rows_for(s, s->room, left))) {
        rc = run_batch(s, batch, *waiting);
        *waiting = 0;
        if (!rc) rc = open_room(s, p->n, left);
    }
    if (!rc) rc = check_tokens(s, p);
    p->sum = p->square = p->part = 0;
    p->worst = -INFINITY;
    for (int64_t d = 0; d < passage_draws(s, p) && !rc; d++)
        for (int64_t k = 0; k < steps_of(s, p) && !rc; k++) {
            batch[(*waiting)++] = (Row){ .p = p, .draw = d, .step = k };
            if (*waiting == s->rows) rc = run_batch(s, batch, *waiting), *waiting = 0;
        }
    return rc;
}

static void finish(const Scorer *s, Passage *p) {
    double n = (double)passage_draws(s, p);
    p->nll = p->sum / n;
    p->se = n > 1 ? sqrt(fmax(0, p->square - p->sum * p->nll) / (n - 1) / n) : 0;
    p->mixture = log(n) - p->worst;
}

int scorer_run(Scorer *s, Passage *p, int64_t n) {
    Passage **by = malloc(sizeof *by * (size_t)(n + 1));
    Row *batch = malloc(sizeof *batch * MOST_ROWS);
    int64_t waiting = 0, longest = 1, left = 0, done = 0;
    int rc = by && batch ? 0 : cmd_fail("out of memory");
    for (int64_t i = 0; i < n && !rc; i++) {
        by[i] = &p[i];
        rc = check_passage(s, &p[i]);
        if (span(&p[i]) > longest) longest = span(&p[i]);
        left += passage_draws(s, &p[i]) * steps_of(s, &p[i]);
    }
    free(s->perm);
    s->perm = malloc(sizeof *s->perm * (size_t)longest);
    if (!rc && !s->perm) rc = cmd_fail("out of memory");
    if (!rc) qsort(by, (size_t)n, sizeof *by, shorter);
    Progress progress;
    progress_start(&progress);
    for (int64_t i = 0, all = left; i < n && !rc; i++) {
        rc = add_passage(s, by[i], batch, &waiting, left);
        left -= passage_draws(s, by[i]) * steps_of(s, by[i]);
        done = all - left;
        if (s->show) progress_show(&progress, done, all, "passes", NULL, 0);
    }
    if (!rc) rc = run_batch(s, batch, waiting);
    progress_end(&progress);
    for (int64_t i = 0; i < n && !rc; i++) finish(s, &p[i]);
    free(batch);
    free(by);
    return rc;
}

/* -- Windows ----------------------------------------------------------------------------------------------------------- */

int windows_read(Windows *w, const char *shard, int64_t length, int64_t limit) {
    char err[256];
    sn_data *d = sn_data_open(&(sn_data_desc){ .path = shard, .window = length }, err);
    if (!d) return cmd_fail("%s", err);
    *w = (Windows){ .n = sn_data_windows(d), .length = length };
    if (limit && w->n > limit) w->n = limit;
    w->v = malloc(sizeof *w->v * (size_t)(w->n * length + 1));
    int rc = w->v ? 0 : cmd_fail("out of memory");
    if (!rc && w->n < 1) rc = cmd_fail("%s is shorter than one window of %lld tokens", shard, (long long)length);
    for (int64_t i = 0; i < w->n && !rc; i++) {
        int64_t id, epoch;
        if (sn_data_window(d, i, w->v + i * length, &id, &epoch)) rc = cmd_fail("%s", sn_rt_error());
    }
    sn_data_close(d);
    return rc;
}

Passage *whole_windows(const Windows *w) {
    Passage *p = calloc((size_t)w->n + 1, sizeof *p);
    if (!p) cmd_fail("out of memory");
    for (int64_t i = 0; p && i < w->n; i++)
        p[i] = (Passage){ .v = w->v + i * w->length, .n = w->length, .from = 0, .to = w->length, .number = (uint64_t)i };
    return p;
}
