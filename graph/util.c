/* util.c: arenas, symbols, string buffers, the hash map, locations, errors, number text.

   In:  nothing. Out: the services of util.h. Memory is taken in blocks and freed with its arena;
   when it runs out the process ends with a message, since no caller could go on. */
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <errno.h>
#include <math.h>
#include <sys/mman.h>
#include <time.h>
#include "graph/util.h"

/* -- Arena ----------------------------------------------------------------------------------------- */

struct ArenaBlock {
    ArenaBlock *prev;
    size_t size, dirty;              /* bytes of data; bytes that an earlier use left unzeroed */
    bool slab;                       /* mapped, not malloc'ed */
    max_align_t data[];
};

static _Noreturn void out_of_memory(void) {
    fputs("sinter: out of memory\n", stderr);
    abort();
}

static void *must(void *p) {
    if (!p) out_of_memory();
    return p;
}

enum { FIRST = 1 << 12, LARGEST = 1 << 20, SLAB = 1 << 21 };

/* Slabs: whole huge pages, one page fault each where the kernel grants them. */
static ArenaBlock *new_slab(size_t bytes) {
    char *p = mmap(NULL, bytes + SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) out_of_memory();
    size_t before = -(uintptr_t)p & (SLAB - 1);
    if (before) munmap(p, before);
    if (before < SLAB) munmap(p + before + bytes, SLAB - before);
    madvise(p + before, bytes, MADV_HUGEPAGE);
    ArenaBlock *b = (ArenaBlock *)(p + before);
    b->size = bytes - sizeof *b;
    b->slab = true;
    return b;
}

/* A slab of at least `bytes` that another arena has given back, or a new one. */
static ArenaBlock *take_slab(BlockPool *p, size_t bytes) {
    bytes = (bytes + sizeof(ArenaBlock) + SLAB - 1) & ~(size_t)(SLAB - 1);
    for (ArenaBlock **b = &p->free; *b; b = &(*b)->prev) {
        if ((*b)->size + sizeof(ArenaBlock) != bytes) continue;
        ArenaBlock *found = *b;
        *b = found->prev;
        return found;
    }
    return new_slab(bytes);
}

static void free_block(ArenaBlock *b) {
    if (b->slab) munmap(b, b->size + sizeof *b);
    else free(b);
}

static void give_back(Arena *a, ArenaBlock *b) {
    if (!b->slab) {
        free(b);
        return;
    }
    b->prev = a->pool->free;
    a->pool->free = b;
}

void snU_free_pool(BlockPool *p) {
    while (p->free) {
        ArenaBlock *b = p->free;
        p->free = b->prev;
        free_block(b);
    }
}

/* Blocks grow; with a pool, what is past the first steps comes in slabs. */
static void new_block(Arena *a, size_t bytes) {
    size_t size = a->top ? a->top->size * (a->pool ? 4 : 2) : FIRST - sizeof(ArenaBlock);
    if (size > LARGEST) size = LARGEST;
    if (size < bytes) size = bytes;
    ArenaBlock *b;
    if (a->pool && size > 16 * FIRST) {
        b = take_slab(a->pool, size);
    } else {
        b = must(calloc(1, sizeof *b + size));
        b->size = size;
    }
    if (a->top && a->top->dirty < a->used) a->top->dirty = a->used;
    b->prev = a->top;
    a->top = b;
    a->used = 0;
    a->total += b->size;
}

void *snU_alloc(Arena *a, size_t bytes) {
    if (bytes > SIZE_MAX / 2) out_of_memory();
    bytes = (bytes + 15) & ~(size_t)15;
    if (!a->top || a->top->size - a->used < bytes) new_block(a, bytes);
    char *p = (char *)a->top->data + a->used;
    if (a->top->dirty > a->used) {
        size_t stale = a->top->dirty - a->used;
        memset(p, 0, stale < bytes ? stale : bytes);
    }
    a->used += bytes;
    return p;
}

void *snU_copy(Arena *a, const void *p, size_t bytes) {
    void *q = snU_alloc(a, bytes);
    if (bytes) memcpy(q, p, bytes);
    return q;
}

char *snU_strdup(Arena *a, const char *s, size_t n) {
    char *q = snU_alloc(a, n + 1);
    if (n) memcpy(q, s, n);
    return q;
}

char *snU_fmt(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = snU_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

void *snU_grow(Arena *a, void *old, size_t old_bytes, size_t new_bytes) {
    void *q = snU_alloc(a, new_bytes);
    if (old_bytes) memcpy(q, old, old_bytes);
    return q;
}

ArenaMark snU_mark(const Arena *a) { return (ArenaMark){ a->top, a->used }; }

void snU_reset(Arena *a, ArenaMark m) {
    if (!a->top) return;
    if (a->top->dirty < a->used) a->top->dirty = a->used;
    while (a->top && a->top != m.top) {
        ArenaBlock *prev = a->top->prev;
        if (!prev && !m.top) break;                     /* keep the first block for the next use */
        a->total -= a->top->size;
        give_back(a, a->top);
        a->top = prev;
    }
    a->used = m.top ? m.used : 0;
}

void snU_free_arena(Arena *a) {
    if (a->top && a->top->dirty < a->used) a->top->dirty = a->used;
    while (a->top) {
        ArenaBlock *prev = a->top->prev;
        give_back(a, a->top);
        a->top = prev;
    }
    *a = (Arena){ .pool = a->pool };
}

/* -- Hash map --------------------------------------------------------------------------------------- */

uint64_t snU_hash(const void *p, size_t n, uint64_t seed) { return XXH3_64bits_withSeed(p, n, seed); }

/* Keys may be small numbers: spread, or their runs would grow together. */
static uint32_t home(const HashMap *m, uint64_t key) {
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & (m->cap - 1);
}

static void put_slot(HashMap *m, uint64_t key, uint32_t val) {
    uint32_t i = home(m, key);
    while (m->slot[i].val) i = (i + 1) & (m->cap - 1);
    m->slot[i] = (HashSlot){ key, val };
}

void snU_insert(Arena *a, HashMap *m, uint64_t key, uint32_t val) {
    SN_ASSERT(val, "hash map: value 0 means absent");
    if ((m->n + 1) * 4 > m->cap * 3ull) {
        HashMap old = *m;
        m->cap = old.cap ? old.cap * 2 : 32;
        m->slot = NEWN(a, HashSlot, m->cap);
        for (uint32_t i = 0; i < old.cap; i++)
            if (old.slot[i].val) put_slot(m, old.slot[i].key, old.slot[i].val);
    }
    put_slot(m, key, val);
    m->n++;
}

uint32_t snU_first(const HashMap *m, uint64_t key) {
    return m->cap ? home(m, key) : 0;
}

uint32_t snU_at(const HashMap *m, uint64_t key, uint32_t *i) {
    if (!m->cap) return 0;
    for (; m->slot[*i].val; *i = (*i + 1) & (m->cap - 1)) {
        if (m->slot[*i].key != key) continue;
        uint32_t val = m->slot[*i].val;
        *i = (*i + 1) & (m->cap - 1);
        return val;
    }
    return 0;
}

uint32_t snU_find(const HashMap *m, uint64_t key) {
    uint32_t i = snU_first(m, key);
    return snU_at(m, key, &i);
}

/* -- Symbols ------------------------------------------------------------------------------------------ */

Sym snU_sym(sn_ctx *c, const char *s, size_t n) {
    if (!n) return 0;
    if (!c->syms.n) PUSH(&c->arena, c->syms, "");
    uint64_t h = snU_hash(s, n, 0);
    uint32_t i = snU_first(&c->symmap, h), v;
    while ((v = snU_at(&c->symmap, h, &i)) != 0)
        if (!memcmp(c->syms.v[v], s, n) && !c->syms.v[v][n]) return v;
    v = c->syms.n;
    PUSH(&c->arena, c->syms, snU_strdup(&c->arena, s, n));
    snU_insert(&c->arena, &c->symmap, h, v);
    return v;
}

Sym snU_symz(sn_ctx *c, const char *s) { return s ? snU_sym(c, s, strlen(s)) : 0; }

/* A format of nothing but %s, which most names are, into buf; its length, or -1. */
static int join_strings(char *buf, int room, const char *fmt, va_list ap) {
    int n = 0;
    for (; *fmt; fmt++) {
        const char *s = fmt;
        size_t len = 1;
        if (*fmt == '%' && *++fmt != 's') return -1;
        if (s != fmt) s = va_arg(ap, const char *), len = strlen(s);
        if (len >= (size_t)(room - n)) return -1;
        memcpy(buf + n, s, len);
        n += (int)len;
    }
    return n;
}

Sym snU_symf(sn_ctx *c, const char *fmt, ...) {
    char buf[256], *s = buf;
    va_list ap;
    va_start(ap, fmt);
    int n = join_strings(buf, sizeof buf, fmt, ap);
    va_end(ap);
    if (n < 0) {
        va_start(ap, fmt);
        n = vsnprintf(buf, sizeof buf, fmt, ap);
        va_end(ap);
    }
    if (n >= (int)sizeof buf) {
        s = must(malloc((size_t)n + 1));
        va_start(ap, fmt);
        vsnprintf(s, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    Sym sym = snU_sym(c, s, (size_t)n);
    if (s != buf) free(s);
    return sym;
}

Sym snU_join(sn_ctx *c, Sym path, Sym name) {
    return path && name ? snU_symf(c, "%s.%s", snU_str(c, path), snU_str(c, name)) : path ? path : name;
}

const char *snU_str(const sn_ctx *c, Sym s) { return s && s < c->syms.n ? c->syms.v[s] : ""; }

/* -- String buffer --------------------------------------------------------------------------------------- */

static void reserve(StrBuf *b, size_t more) {
    if (b->n + more + 1 <= b->cap) return;
    size_t cap = b->cap ? b->cap * 2 : 256;
    while (cap < b->n + more + 1) cap *= 2;
    b->s = must(realloc(b->s, cap));
    b->cap = cap;
}

void snU_put(StrBuf *b, const char *s, size_t n) {
    reserve(b, n);
    if (n) memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void snU_puts(StrBuf *b, const char *s) { snU_put(b, s, strlen(s)); }

void snU_putf(StrBuf *b, const char *fmt, ...) {
    va_list ap;
    reserve(b, 128);
    va_start(ap, fmt);
    int n = vsnprintf(b->s + b->n, b->cap - b->n, fmt, ap);
    va_end(ap);
    if ((size_t)n >= b->cap - b->n) {
        reserve(b, (size_t)n);
        va_start(ap, fmt);
        vsnprintf(b->s + b->n, b->cap - b->n, fmt, ap);
        va_end(ap);
    }
    b->n += (size_t)n;
}

void snU_free_buf(StrBuf *b) {
    free(b->s);
    *b = (StrBuf){0};
}

/* -- Locations and errors ---------------------------------------------------------------------------------- */

Loc snU_loc(sn_ctx *c, Sym file, uint32_t line, Sym path, Loc from) {
    if (!c->locs.n) PUSH(&c->arena, c->locs, (LocInfo){0});
    const LocInfo *last = &c->locs.v[c->locs.n - 1];
    if (c->locs.n > 1 && last->line == line && last->file == file && last->path == path && last->from == from)
        return c->locs.n - 1;
    PUSH(&c->arena, c->locs, ((LocInfo){ .file = file, .path = path, .line = line, .from = from }));
    return c->locs.n - 1;
}

const LocInfo *snU_locinfo(const sn_ctx *c, Loc l) {
    static const LocInfo none;
    return l < c->locs.n ? &c->locs.v[l] : &none;
}

/* "(in h.3.attn, called from ar.sn:38)" */
static void put_trace(StrBuf *b, const sn_ctx *c, const LocInfo *at) {
    const char *sep = " (";
    if (at->path) {
        const char *path = snU_str(c, at->path);
        size_t n = strlen(path);
        snU_putf(b, " (in %s%s", n > 80 ? "..." : "", n > 80 ? path + n - 77 : path);
        sep = ", ";
    }
    int shown = 0;
    for (Loc l = at->from; l && shown < 4; l = snU_locinfo(c, l)->from, shown++) {
        const LocInfo *f = snU_locinfo(c, l);
        snU_putf(b, "%s%s%s:%u", sep, shown ? "" : "called from ", snU_str(c, f->file), f->line);
        sep = ", ";
    }
    if (at->path || shown) snU_puts(b, ")");
}

_Noreturn void snU_fail(sn_ctx *c, int code, Loc at, const char *fmt, ...) {
    if (!c->code) {
        StrBuf b = {0};
        const LocInfo *l = snU_locinfo(c, at);
        if (l->file) snU_putf(&b, "%s:%u: ", snU_str(c, l->file), l->line);
        snU_puts(&b, "error: ");
        char text[1024];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        for (char *p = text; *p; p++)
            if (*p == '\n') *p = ' ';
        snU_puts(&b, text);
        put_trace(&b, c, l);
        c->code = code ? code : SN_PARSE;
        c->message = snU_strdup(&c->arena, b.s, b.n);
        snU_free_buf(&b);
    }
    if (!c->jump) snU_abort(__FILE__, __LINE__, "unhandled: %s", c->message);
    longjmp(*c->jump, 1);
}

_Noreturn void snU_abort(const char *file, int line, const char *fmt, ...) {
    fprintf(stderr, "%s:%d: internal error: ", file, line);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

jmp_buf *snU_enter(sn_ctx *c, jmp_buf *jb) {
    jmp_buf *outer = c->jump;
    c->jump = jb;
    return outer;
}

void snU_leave(sn_ctx *c, jmp_buf *outer) { c->jump = outer; }

/* -- Files, time, numbers ------------------------------------------------------------------------------------ */

char *snU_read_file(sn_ctx *c, const char *path, size_t *n) {
    (void)c;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    StrBuf b = {0};
    char chunk[16384];
    size_t k;
    reserve(&b, sizeof chunk);
    b.s[0] = 0;
    while ((k = fread(chunk, 1, sizeof chunk, f)) > 0) snU_put(&b, chunk, k);
    int bad = ferror(f) ? errno : 0;
    fclose(f);
    if (bad) {
        snU_free_buf(&b);
        errno = bad;
        return NULL;
    }
    *n = b.n;
    return b.s;
}

double snU_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *snU_num(char buf[40], double v, bool as_f32) {
    if (isnan(v)) return strcpy(buf, "nan");
    if (isinf(v)) return strcpy(buf, v > 0 ? "inf" : "-inf");
    if (v == floor(v) && fabs(v) < 1e15) {
        snprintf(buf, 40, "%.0f", v);
        return buf;
    }
    int most = as_f32 ? 9 : 17;
    for (int digits = 1; digits <= most; digits++) {
        snprintf(buf, 40, "%.*g", digits, v);
        if (as_f32 ? strtof(buf, NULL) == (float)v : strtod(buf, NULL) == v) break;
    }
    return buf;
}
