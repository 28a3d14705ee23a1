/* documents.c: text to tokens, document by document.

   In:  bytes, where documents begin, which bytes are answers. Out: the same of tokens.

   A document is encoded by itself, and within it what is a prompt and what is an answer, so that no token reaches over either edge. */
#include "tools/documents.h"

typedef struct Coded { const Tokenizer *t; Tokens out; uint8_t *scored; int64_t room; bool marked; } Coded;

static bool append(Coded *c, const int32_t *v, int64_t n, uint8_t scored) {
    if (c->out.n + n > c->room) {
        c->room = 2 * (c->out.n + n) + 1024;
        int32_t *grown = realloc(c->out.v, sizeof *grown * (size_t)c->room);
        if (grown) c->out.v = grown;
        uint8_t *marks = grown && c->marked ? realloc(c->scored, (size_t)c->room) : NULL;
        if (marks) c->scored = marks;
        if (!grown || (c->marked && !marks)) return false;
    }
    memcpy(c->out.v + c->out.n, v, sizeof *v * (size_t)n);
    if (c->marked) memset(c->scored + c->out.n, scored, (size_t)n);
    c->out.n += n;
    return true;
}

static bool append_text(Coded *c, const uint8_t *text, int64_t n, uint8_t scored) {
    Tokens t;
    if (c->t->encode(c->t, (const char *)text, (size_t)n, &t)) return false;
    bool good = append(c, t.v, t.n, scored);
    free(t.v);
    return good;
}

static bool append_document(Coded *c, const uint8_t *text, const uint8_t *scored, int64_t n) {
    bool good = true;
    for (int64_t at = 0, stop; at < n && good; at = stop) {
        for (stop = scored ? at + 1 : n; stop < n && scored[stop] == scored[at]; ) stop++;
        good = append_text(c, text + at, stop - at, scored ? scored[at] : 0);
    }
    return good;
}

int documents_encode(const Tokenizer *t, int32_t eod, const uint8_t *text, int64_t bytes, int64_t *start, int64_t n, uint8_t **scored, Tokens *out) {
    Coded c = { .t = t, .marked = *scored != NULL };
    bool good = true;
    for (int64_t k = 0; k < n && good; k++) {
        int64_t from = start[k], to = k + 1 < n ? start[k + 1] : bytes;
        start[k] = c.out.n;
        good = append_document(&c, text + from, *scored ? *scored + from : NULL, to - from);
        if (good && eod >= 0) good = append(&c, &eod, 1, 1);
    }
    if (!good) {
        free(c.out.v);
        free(c.scored);
        return -1;
    }
    free(*scored);
    *scored = c.scored;
    *out = c.out;
    return 0;
}
