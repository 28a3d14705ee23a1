/* bpe.c: byte-level BPE: bytes to tokens and back.

   In:  any bytes. Out: the ids that the tokenizer's original gives for them, where they are UTF-8; joined again they are the bytes.

   A text is cut at added tokens, then by the patterns; each piece begins as single bytes, and of all neighbours that can merge, those that
   were learnt first do, from left to right, until none can. A heap of pairs keeps that at n log n however long a piece is; a pair whose symbols
   have changed since it was put there is passed over. Short pieces are remembered: most of a text is a few thousand of them. */
#include "tools/bpe.h"

static void put_id(Tokens *out, size_t *room, int32_t id) {
    if ((size_t)out->n == *room) {
        *room = *room ? *room * 2 : 1024;
        out->v = realloc(out->v, sizeof *out->v * *room);
        if (!out->v) abort();
    }
    out->v[out->n++] = id;
}

/* -- The heap: least rank, then leftmost ------------------------------------------------------------------------------------ */

static bool sooner(const Waiting *a, const Waiting *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void push(Bpe *b, Waiting w) {
    if (b->nheap == b->heap_room) {
        b->heap_room = b->heap_room ? 2 * b->heap_room : 256;
        b->heap = realloc(b->heap, sizeof *b->heap * b->heap_room);
        if (!b->heap) abort();
    }
    size_t i = b->nheap++;
    for (; i && sooner(&w, &b->heap[(i - 1) / 2]); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = w;
}

static Waiting pop(Bpe *b) {
    Waiting top = b->heap[0], last = b->heap[--b->nheap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < b->nheap; i = k) {
        if (k + 1 < b->nheap && sooner(&b->heap[k + 1], &b->heap[k])) k++;
        if (!sooner(&b->heap[k], &last)) break;
        b->heap[i] = b->heap[k];
    }
    b->heap[i] = last;
    return top;
}

/* -- A piece ------------------------------------------------------------------------------------------------------------------ */

static void consider(Bpe *b, int32_t at) {
    int32_t next = at < 0 ? -1 : b->after[at];
    if (next < 0) return;
    uint32_t rank = snU_find(&b->pairs, bpe_pair(b->id[at], b->id[next]));
    if (rank) push(b, (Waiting){ rank - 1, at, b->id[at], b->id[next] });
}

static void make_room(Bpe *b, size_t n) {
    if (n <= b->room) return;
    b->room = n < 256 ? 256 : n;
    b->id = realloc(b->id, sizeof *b->id * b->room);
    b->before = realloc(b->before, sizeof *b->before * b->room);
    b->after = realloc(b->after, sizeof *b->after * b->room);
    if (!b->id || !b->before || !b->after) abort();
}

/* Leaves the symbols in the list that begins at 0. */
static void merge(Bpe *b, const uint8_t *s, int32_t n) {
    make_room(b, (size_t)n);
    for (int32_t i = 0; i < n; i++) {
        b->id[i] = b->byte[s[i]];
        b->before[i] = i - 1;
        b->after[i] = i + 1 < n ? i + 1 : -1;
    }
    b->nheap = 0;
    for (int32_t i = 0; i + 1 < n; i++) consider(b, i);
    while (b->nheap) {
        Waiting w = pop(b);
        int32_t next = b->after[w.at];
        if (b->id[w.at] != w.left || next < 0 || b->id[next] != w.right) continue;
        b->id[w.at] = b->merged[w.rank];
        b->id[next] = -1;
        b->after[w.at] = b->after[next];
        if (b->after[next] >= 0) b->before[b->after[next]] = w.at;
        consider(b, b->before[w.at]);
        consider(b, w.at);
    }
}

static int32_t whole(const Bpe *b, uint64_t key, const char *s, size_t n) {
    uint32_t v, i = snU_first(&b->whole, key);
    while ((v = snU_at(&b->whole, key, &i)))
        if (b->size[v - 1] == n && !memcmp(b->text + b->from[v - 1], s, n)) return (int32_t)(v - 1);
    return -1;
}

static void put_piece(Bpe *b, const char *s, size_t n, Tokens *out, size_t *room) {
    uint64_t key = snU_hash(s, n, 0);
    Piece *p = &b->seen[key % PIECES];
    bool small = n <= sizeof p->text;
    if (small && p->n == n && p->key == key && !memcmp(p->text, s, n)) {
        for (int i = 0; i < p->ids; i++) put_id(out, room, p->id[i]);
        return;
    }
    int64_t first = out->n;
    int32_t id = b->ignore_merges ? whole(b, key, s, n) : -1;
    if (id >= 0) put_id(out, room, id);
    else {
        merge(b, (const uint8_t *)s, (int32_t)n);
        for (int32_t i = 0; i >= 0; i = b->after[i]) put_id(out, room, b->id[i]);
    }
    int64_t k = out->n - first;
    if (!small || k > (int64_t)(sizeof p->id / sizeof *p->id)) return;
    *p = (Piece){ .key = key, .n = (uint8_t)n, .ids = (uint8_t)k };
    memcpy(p->text, s, n);
    memcpy(p->id, out->v + first, sizeof *p->id * (size_t)k);
}

/* -- Cutting: level 0 is the added tokens, 1 the normal form and tokens added to that, then a level a pattern, then pieces ----------------------------------------------- */

typedef struct Walk { Bpe *b; Tokens out; size_t room; char err[256]; } Walk;

static int walk(Walk *w, const char *s, size_t n, uint32_t level);

/* The longest added token at s, of those early or late; NULL. */
static const Added *added_at(const Bpe *b, const char *s, size_t n, bool late) {
    const Added *best = NULL;
    if (!b->begins[(uint8_t)*s]) return NULL;
    for (uint32_t i = 0; i < b->added.n; i++) {
        const Added *a = &b->added.v[i];
        if (a->late == late && a->n <= n && (!best || a->n > best->n) && !memcmp(a->text, s, a->n)) best = a;
    }
    return best;
}

static int walk_added(Walk *w, const char *s, size_t n, uint32_t level) {
    size_t begin = 0;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; ) {
        const Added *a = added_at(w->b, s + i, n - i, level == 1);
        if (!a) { i++; continue; }
        if (i > begin) rc = walk(w, s + begin, i - begin, level + 1);
        put_id(&w->out, &w->room, a->id);
        begin = i += a->n;
    }
    return !rc && n > begin ? walk(w, s + begin, n - begin, level + 1) : rc;
}

static int walk_pattern(Walk *w, const char *s, size_t n, uint32_t level) {
    const Cut *c = &w->b->cuts.v[level - 2];
    size_t at = 0, begin, end;
    int found = 0, rc = 0;
    while (!rc && (found = split_next(c->split, s, n, at, &begin, &end, w->err)) > 0) {
        if (begin > at && !c->matches) rc = walk(w, s + at, begin - at, level + 1);
        if (!rc) rc = walk(w, s + begin, end - begin, level + 1);
        at = end;
    }
    if (found < 0) return found;
    return !rc && n > at && !c->matches ? walk(w, s + at, n - at, level + 1) : rc;
}

static int walk_normal(Walk *w, const char *s, size_t n) {
    char *normal = w->b->nfc ? nfc_text(w->b->nfc, s, &n) : NULL;
    int rc = walk_added(w, normal ? normal : s, n, 1);
    free(normal);
    return rc;
}

static int walk(Walk *w, const char *s, size_t n, uint32_t level) {
    if (level == 0) return walk_added(w, s, n, level);
    if (level == 1) return walk_normal(w, s, n);
    if (level - 2 < w->b->cuts.n) return walk_pattern(w, s, n, level);
    put_piece(w->b, s, n, &w->out, &w->room);
    return 0;
}

int bpe_encode(const Tokenizer *t, const char *text, size_t n, Tokens *out) {
    Walk w = { .b = (Bpe *)t->self };
    *out = (Tokens){0};
    if (n > INT32_MAX) return cmd_fail("a text of more than 2 GiB cannot be encoded at once");
    if (n && walk(&w, text, n, 0)) {
        free(w.out.v);
        return cmd_fail("%s: %s", t->path, w.err);
    }
    if (!w.out.v) w.out.v = malloc(sizeof *w.out.v);
    *out = w.out;
    return out->v ? 0 : cmd_fail("out of memory");
}

char *bpe_decode(const Tokenizer *t, const int32_t *ids, int64_t n, size_t *bytes) {
    const Bpe *b = t->self;
    size_t all = 0;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < t->vocab) all += b->size[ids[i]];
    char *s = malloc(all + 1), *at = s;
    for (int64_t i = 0; s && i < n; i++)
        if (ids[i] >= 0 && ids[i] < t->vocab) {
            memcpy(at, b->text + b->from[ids[i]], b->size[ids[i]]);
            at += b->size[ids[i]];
        }
    if (s) *at = 0;
    *bytes = s ? all : 0;
    return s;
}

void bpe_free(Bpe *b) {
    for (uint32_t i = 0; i < b->cuts.n; i++) split_free(b->cuts.v[i].split);
    free(b->seen);
    free(b->id);
    free(b->before);
    free(b->after);
    free(b->heap);
    snU_free_arena(&b->arena);
    free(b);
}
