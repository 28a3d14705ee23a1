/* choice_make.c: multiple choice out of text, for models that are too small for published questions.

   In:  windows of text. Out: questions: a window without a span of it, the span and others of its length from elsewhere. */
#include "tools/choice.h"

typedef struct Maker { Questions *qs; const Windows *w; const MakeOptions *o; uint64_t number; uint32_t drawn; } Maker;

static int64_t draw(Maker *m, int64_t n) { return random_below(random_word(m->o->seed, m->number, 0x71u, m->drawn++), n); }

static bool among(const Option *o, int n, const int32_t *v, int64_t span) {
    for (int i = 0; i < n; i++)
        if (!memcmp(o[i].ids.v, v, sizeof *v * (size_t)span)) return true;
    return false;
}

/* A span from another window that is none of the first k options. */
static int find_other(Maker *m, int64_t own, Option *o, int k) {
    int64_t span = m->o->span;
    for (int tries = 0; tries < 1000; tries++) {
        int64_t w = draw(m, m->w->n - 1);
        const int32_t *v = m->w->v + (w + (w >= own)) * m->w->length + draw(m, m->w->length - span + 1);
        if (among(o, k, v, span)) continue;
        o[k] = (Option){ .text = "", .ids = { (int32_t *)(uintptr_t)v, span }, .chars = (double)span };
        return 0;
    }
    return cmd_fail("the text has too few different spans of %lld tokens; --span N takes longer ones", (long long)span);
}

static int make(Maker *m, int64_t own) {
    int64_t T = m->w->length, span = m->o->span, from = m->o->infill ? (T - span) / 2 : T - span;
    int n = (int)m->o->options, label = (int)draw(m, n), rc = 0;
    int32_t *v = m->w->v + own * T;
    Option *o = NEWN(&m->qs->arena, Option, n + 1);
    o[0] = (Option){ .text = "", .ids = { v + from, span }, .chars = (double)span };
    for (int k = 1; k < n && !rc; k++) rc = find_other(m, own, o, k);
    Option right = o[0];
    o[0] = o[label];
    o[label] = right;
    Question q = { .path = "(made)", .task = m->o->infill ? "infills" : "continuations", .line = (int)m->number + 1, .context = "",
                   .answer = "", .option = o, .noptions = n, .label = label, .context_ids = { v, from } };
    if (m->o->infill) q.suffix = "", q.suffix_ids = (Tokens){ v + from + span, T - from - span };
    PUSH(&m->qs->arena, m->qs->q, q);
    return rc;
}

int questions_make(Questions *qs, const Windows *w, const MakeOptions *o) {
    if (o->options < 2 || o->options > 26) return cmd_fail("a question has 2 to 26 options, not %lld", (long long)o->options);
    if (o->span < 1 || o->span >= w->length)
        return cmd_fail("a span has 1 to %lld tokens, less than a window, not %lld", (long long)w->length - 1, (long long)o->span);
    if (w->n < 2) return cmd_fail("questions want two windows of text at least");
    int64_t *order = malloc(sizeof *order * (size_t)w->n);
    int rc = order ? 0 : cmd_fail("out of memory");
    for (int64_t i = 0; i < o->n && !rc; i++) {                  /* every window once before one comes again */
        if (i % w->n == 0) shuffled(order, w->n, o->seed, (uint64_t)(i / w->n), 0x70u);
        Maker m = { qs, w, o, (uint64_t)i, 0 };
        rc = make(&m, order[i % w->n]);
    }
    free(order);
    return rc;
}
