/* util.h: what every compiler file stands on: arenas, growable arrays, interned strings, string
   buffers, the context with its sticky error, and source locations with an instantiation stack.

   Compiler code never frees single objects: an arena owns them. User errors go through snU_fail,
   which records one line and longjmps to the public entry (SN_ENTER); broken invariants abort
   through SN_ASSERT. Two contexts in two threads are independent: there are no globals. */
#ifndef SN_UTIL_H
#define SN_UTIL_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sn_ctx sn_ctx;

/* -- Arena: zeroed memory, freed at once ------------------------------------------------------ */

typedef struct ArenaBlock ArenaBlock;
typedef struct BlockPool { ArenaBlock *free; } BlockPool;     /* of a context: slabs that arenas have given back */
typedef struct Arena { ArenaBlock *top; size_t used, total; BlockPool *pool; } Arena;   /* pool NULL: blocks come from malloc */
typedef struct ArenaMark { ArenaBlock *top; size_t used; } ArenaMark;

void *snU_alloc(Arena *a, size_t bytes);              /* zeroed, 16-byte aligned; aborts when memory is out */
void *snU_copy(Arena *a, const void *p, size_t bytes);
char *snU_strdup(Arena *a, const char *s, size_t n);  /* adds the 0 */
char *snU_fmt(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *snU_grow(Arena *a, void *old, size_t old_bytes, size_t new_bytes);
ArenaMark snU_mark(const Arena *a);
void snU_reset(Arena *a, ArenaMark m);
void snU_free_arena(Arena *a);
void snU_free_pool(BlockPool *p);
#define NEW(a, T) ((T *)snU_alloc((a), sizeof(T)))
#define NEWN(a, T, n) ((T *)snU_alloc((a), sizeof(T) * (size_t)(n)))

/* -- Growable array in an arena: VEC(int) xs = {0}; PUSH(a, xs, 3); xs.v[0], xs.n -------------- */

#define VEC(T) struct { T *v; uint32_t n, cap; }
#define PUSH(a, x, val)                                                                            \
    do {                                                                                           \
        if ((x).n == (x).cap) {                                                                    \
            uint32_t cap_ = (x).cap ? (x).cap * 2 : 16;                                            \
            (x).v = snU_grow((a), (x).v, sizeof *(x).v * (x).n, sizeof *(x).v * cap_);             \
            (x).cap = cap_;                                                                        \
        }                                                                                          \
        (x).v[(x).n++] = (val);                                                                    \
    } while (0)

/* -- Symbols: interned strings, equal text <=> equal id; 0 is the empty string ----------------- */

typedef uint32_t Sym;
Sym snU_sym(sn_ctx *c, const char *s, size_t n);
Sym snU_symz(sn_ctx *c, const char *s);
Sym snU_symf(sn_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
Sym snU_join(sn_ctx *c, Sym path, Sym name);          /* "path.name"; one of them where the other is empty */
const char *snU_str(const sn_ctx *c, Sym s);          /* 0-terminated; lives as long as the context */

/* -- String buffer (malloc'ed) ------------------------------------------------------------------ */

typedef struct StrBuf { char *s; size_t n, cap; } StrBuf;
void snU_putf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void snU_puts(StrBuf *b, const char *s);
void snU_put(StrBuf *b, const char *s, size_t n);
void snU_free_buf(StrBuf *b);

/* -- Hash map from u64 key (a hash) to u32, open addressing; 0 is "absent" --------------------- */

typedef struct HashSlot { uint64_t key; uint32_t val; } HashSlot;
typedef struct HashMap { HashSlot *slot; uint32_t n, cap; } HashMap;
uint64_t snU_hash(const void *p, size_t n, uint64_t seed);      /* XXH3 */
/* Iterate candidates: for (i = snU_first(m, k); (v = snU_at(m, k, &i)) != 0; ) { compare; } */
uint32_t snU_find(const HashMap *m, uint64_t key);               /* for keys that are unique themselves */
void snU_insert(Arena *a, HashMap *m, uint64_t key, uint32_t val); /* duplicates of a key are kept */
uint32_t snU_first(const HashMap *m, uint64_t key);
uint32_t snU_at(const HashMap *m, uint64_t key, uint32_t *i);

/* -- Source locations: id 0 = none. `from` chains to the call that instantiated the block ------- */

typedef uint32_t Loc;
typedef struct LocInfo { Sym file, path; uint32_t line; Loc from; } LocInfo;
Loc snU_loc(sn_ctx *c, Sym file, uint32_t line, Sym path, Loc from);
const LocInfo *snU_locinfo(const sn_ctx *c, Loc l);

/* -- Errors ---------------------------------------------------------------------------------------- */

#define SN_ERRORS(X)                                                                               \
    X(OK, 0, "ok") X(PARSE, -1, "syntax error") X(TYPE, -2, "type error")                          \
    X(SHAPE, -3, "shape error") X(UNKNOWN, -4, "unknown name") X(UNSUPPORTED, -5, "unsupported")   \
    X(NOMEM, -6, "out of memory") X(IO, -7, "input/output error") X(DEVICE, -8, "device error")    \
    X(BUNDLE, -9, "bad bundle") X(USAGE, -10, "wrong usage")
#define X(name, code, text) SN_##name = code,
enum { SN_ERRORS(X) };
#undef X

/* Records "file:line: error: <message> (in h.3.attn, called from ar.sn:38)"; first error wins. */
_Noreturn void snU_fail(sn_ctx *c, int code, Loc at, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
_Noreturn void snU_abort(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define SN_ASSERT(cond, ...) ((cond) ? (void)0 : snU_abort(__FILE__, __LINE__, __VA_ARGS__))

/* At a public entry:  SN_ENTER(c, return NULL);  ... body that may fail ...  SN_LEAVE(c);
   Nested entries keep the outer target; a failure lands at the innermost. */
#define SN_ENTER(c, on_error)                                                                      \
    jmp_buf jb_;                                                                                   \
    jmp_buf *outer_ = snU_enter((c), &jb_);                                                        \
    if (setjmp(jb_)) { snU_leave((c), outer_); on_error; }
#define SN_LEAVE(c) snU_leave((c), outer_)
jmp_buf *snU_enter(sn_ctx *c, jmp_buf *jb);
void snU_leave(sn_ctx *c, jmp_buf *outer);

/* -- Context -------------------------------------------------------------------------------------- */

typedef void (*LogFn)(void *user, int level, const char *topic, const char *text);

struct OpTable;  /* graph.h */
struct sn_ctx {
    Arena arena;                /* strings, types, attributes, ops, rules: live as long as the context */
    Arena scratch;              /* mark/reset by passes */
    BlockPool blocks;           /* of graphs and passes: each takes over the memory of the one before */
    HashMap symmap;
    VEC(const char *) syms;
    VEC(LocInfo) locs;
    int code;                   /* first error; sticky until sn_clear */
    char *message;
    jmp_buf *jump;
    LogFn log; void *log_user;
    struct OpTable *ops;        /* primitives of ops.def and the composites of std.sn */
    struct TypeTable *types;
    struct AttrTable *attrs;
    struct RuleSet *rules;      /* text rules of passes/rules.sn and of user files */
    struct Source *sources;     /* files read, for imports */
    struct Front *front;        /* parse.h: blocks of std.sn, cached bodies and expression tokens */
    struct Dsl *dsl;            /* sn.c: scopes and graphs of the C DSL */
};

sn_ctx *sn_ctx_new(void);                                       /* primitives and std.sn loaded */
void sn_ctx_free(sn_ctx *c);
void sn_clear(sn_ctx *c);                                       /* forgets the error */

char *snU_read_file(sn_ctx *c, const char *path, size_t *n);    /* malloc'ed, 0-terminated; NULL and errno when not readable */
double snU_now(void);                                           /* seconds, monotonic */

/* Shortest decimal text that reads back to the same double / float; inf, -inf, nan have these names. */
const char *snU_num(char buf[40], double v, bool as_f32);

#endif
