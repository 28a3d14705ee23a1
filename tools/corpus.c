/* corpus.c: prepares text for training; see corpus.h.

   In: folders and files. Out: shards of byte tokens. The steps, each one section below:
     collect   folders recursively, sorted by path; no hidden names, no links, no files with NUL
               bytes; equal files once. First those that are held out from, where these are others
     cut       a file with more than 1/20 of all bytes counts as sections of 64 KiB, or it could
               only be on one side
     split     the units (files, sections) shuffled by split_seed: validation takes whole ones until
               it has its bytes, then test, the rest is for training; what a last unit has too much
               is dropped, not trained on
     draw      training units in pieces of 1 KiB, equal pieces once, shuffled by seed; the first
               `unique` bytes of that. A smaller budget of one seed is a prefix of a larger one
     corrupt   of the training text, when asked: units (bytes, words, lines), each with a given chance,
               trade places with each other, documents staying as they are cut
     write     tokens, and where documents begin: a piece that follows the piece before it in the
               file goes on with its document
     overlap   share of the 50-byte strings of validation, at every position, that occur in
               training: a rolling hash over the training bytes looks into a table of the
               validation's strings */
#define _GNU_SOURCE
#include "tools/corpus.h"

#include "runtime/rt.h"
#include "runtime/sn_rt.h"
#include "tools/cmd.h"
#include "tools/documents.h"
#include "tools/shards.h"
#include "tools/records.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FAIL_NOMEM = -6, FAIL_IO = -7, FAIL_USAGE = -10 };     /* codes of graph/util.h */
enum { SECTION = 64 << 10, BIG_SHARE = 20, DEFAULT_MAX_FILE = 16 << 20 };

enum { TO_TRAIN = 1, TO_HOLD = 2 };              /* what a file may be for */
typedef struct File { uint8_t *text; int64_t size; unsigned use; } File;
typedef struct Unit { const uint8_t *text; int64_t size; int file; } Unit;
typedef struct Set { uint64_t *key, mask; uint8_t *hit; int64_t *at; } Set;  /* open addressing; 0 = free */

/* Where documents begin. scored: of records, one for each byte, 1 in answers; else NULL. */
typedef struct Starts { int64_t *v, n; uint8_t *scored; } Starts;

typedef struct Corpus {
    const CorpusDesc *d;
    CorpusInfo *info;
    char *err;
    File *file;
    int64_t nfiles, cap;
    Set seen;                                    /* hashes of files, their places */
    unsigned use;                                /* of the files that are collected now */
    Unit *unit;                                  /* those that may be held out first */
    int64_t nunits, held_units;
    uint8_t *train, *val, *test;
    Starts train_docs, val_docs, test_docs;
} Corpus;

static int fail(char *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int fail(char *err, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, 256, fmt, ap);
    va_end(ap);
    return code;
}

static void say(const CorpusDesc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const CorpusDesc *d, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    if (!d->log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    d->log(d->user, line);
}

/* -- Sets of hashes ---------------------------------------------------------------------------- */

static bool set_new(Set *s, int64_t n)
{
    uint64_t cap = 64;
    while (cap < (uint64_t)n * 2)
        cap *= 2;
    s->key = calloc(cap, sizeof *s->key);
    s->hit = calloc(cap, 1);
    s->at = calloc(cap, sizeof *s->at);
    s->mask = cap - 1;
    return s->key && s->hit && s->at;
}

static void set_free(Set *s)
{
    free(s->key);
    free(s->hit);
    free(s->at);
}

/* Where key is, or the free slot where it would be. */
static uint64_t set_find(const Set *s, uint64_t key)
{
    uint64_t i = (key ^ key >> 32) & s->mask;
    while (s->key[i] && s->key[i] != key)
        i = (i + 1) & s->mask;
    return i;
}

/* -1: it is new, and stands for `at`; else what it stands for. */
static int64_t set_put(Set *s, uint64_t key, int64_t at)
{
    key += !key;
    uint64_t i = set_find(s, key);
    if (s->key[i])
        return s->at[i];
    s->key[i] = key;
    s->at[i] = at;
    return -1;
}

static bool set_add(Set *s, uint64_t key) { return set_put(s, key, 0) < 0; }     /* true: it is new */

/* -- Random order: Fisher-Yates by Philox ------------------------------------------------------ */

static void shuffle(int64_t *v, int64_t n, uint64_t seed)
{
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, w[4];
    for (int64_t i = 0; i < n; i++)
        v[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t ctr[4] = { (uint32_t)i, (uint32_t)(i >> 32), 0, 0xfffffffdu };
        sn_philox(key, ctr, w);
        uint64_t x = (uint64_t)w[1] << 32 | w[0];
        int64_t k = (int64_t)((unsigned __int128)x * (uint64_t)(i + 1) >> 64), t = v[i];
        v[i] = v[k];
        v[k] = t;
    }
}

/* -- Collect ----------------------------------------------------------------------------------- */

static void note_unreadable(Corpus *c, const char *path)
{
    if (!c->info->unreadable++)
        snprintf(c->info->first_unreadable, sizeof c->info->first_unreadable, "%s: %s", path,
                 strerror(errno));
}

/* The whole file, malloc'ed; NULL with errno. */
static uint8_t *read_file(const char *path, int64_t *size)
{
    FILE *f = fopen(path, "rbe");
    uint8_t *text = NULL;
    size_t n = 0, cap = 0, k = 1;
    if (!f)
        return NULL;
    while (k) {
        if (n == cap) {
            uint8_t *grown = realloc(text, cap = cap ? cap * 2 : 1 << 16);
            if (!grown) {
                errno = ENOMEM;
                goto fail;
            }
            text = grown;
        }
        k = fread(text + n, 1, cap - n, f);
        n += k;
    }
    if (ferror(f))
        goto fail;
    fclose(f);
    *size = (int64_t)n;
    return text;
fail:
    k = (size_t)errno;
    fclose(f);
    free(text);
    errno = (int)k;
    return NULL;
}

static bool grow_seen(Corpus *c)
{
    Set bigger;
    if (!set_new(&bigger, c->cap * 2))
        return false;
    for (int64_t i = 0; i < c->nfiles; i++)
        set_put(&bigger, XXH3_64bits(c->file[i].text, (size_t)c->file[i].size), i);
    set_free(&c->seen);
    c->seen = bigger;
    return true;
}

static int add_file(Corpus *c, const char *path, bool named)
{
    int64_t size = 0;
    uint8_t *text = read_file(path, &size);
    if (!text && errno == ENOMEM)
        return fail(c->err, FAIL_NOMEM, "%s: out of memory", path);
    if (!text && named)
        return fail(c->err, FAIL_IO, "%s: %s", path, strerror(errno));
    if (!text) {
        note_unreadable(c, path);
        return 0;
    }
    bool binary = memchr(text, 0, (size_t)size) != NULL;
    if (!size || binary) {
        c->info->binary += binary;
        free(text);
        return 0;
    }
    if (c->nfiles == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 256;
        File *grown = realloc(c->file, sizeof *c->file * (size_t)c->cap);
        if (!grown || (c->file = grown, !grow_seen(c))) {
            free(text);
            return fail(c->err, FAIL_NOMEM, "%s: out of memory", path);
        }
    }
    int64_t before = set_put(&c->seen, XXH3_64bits(text, (size_t)size), c->nfiles);
    if (before >= 0) {
        c->info->duplicate_files += (c->file[before].use & c->use) != 0;
        c->file[before].use |= c->use;
        free(text);
        return 0;
    }
    uint8_t *fitted = realloc(text, (size_t)size);
    c->file[c->nfiles++] = (File){ fitted ? fitted : text, size, c->use };
    c->info->bytes += size;
    if (c->nfiles % 10000 == 0)
        say(c->d, "%" PRId64 " files, %.1f MB", c->nfiles, (double)c->info->bytes * 1e-6);
    return 0;
}

static int visible(const struct dirent *e) { return e->d_name[0] != '.'; }
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_path(Corpus *c, const char *path, bool named);

static int add_folder(Corpus *c, const char *path, bool named)
{
    struct dirent **entry;
    int rc = 0, n = scandir(path, &entry, visible, by_bytes);
    if (n < 0 && named)
        return fail(c->err, FAIL_IO, "%s: %s", path, strerror(errno));
    if (n < 0)
        note_unreadable(c, path);
    for (int i = 0; i < n; i++) {
        char *child = NULL;
        if (!rc && asprintf(&child, "%s/%s", path, entry[i]->d_name) < 0)
            rc = fail(c->err, FAIL_NOMEM, "%s: out of memory", path);
        if (!rc)
            rc = add_path(c, child, false);
        free(child);
        free(entry[i]);
    }
    if (n >= 0)
        free(entry);
    return rc;
}

static int add_path(Corpus *c, const char *path, bool named)
{
    struct stat st;
    int64_t max = c->d->max_file ? c->d->max_file : DEFAULT_MAX_FILE;
    if (named ? stat(path, &st) : lstat(path, &st)) {
        if (named)
            return fail(c->err, FAIL_IO, "%s: %s", path, strerror(errno));
        note_unreadable(c, path);
        return 0;
    }
    if (S_ISDIR(st.st_mode))
        return add_folder(c, path, named);
    if (!S_ISREG(st.st_mode))
        return named ? fail(c->err, FAIL_USAGE, "%s: neither a file nor a folder", path) : 0;
    if (!named && st.st_size > max) {
        c->info->large++;
        return 0;
    }
    return add_file(c, path, named);
}

/* -- Cut and split ----------------------------------------------------------------------------- */

static int cut(Corpus *c)
{
    int64_t total[2] = { 0 }, n = 0;             /* of what may be held out, and of the rest: */
    for (int64_t i = 0; i < c->nfiles; i++) {    /* one does not depend on the other */
        n += c->file[i].size / SECTION + 1;
        total[!(c->file[i].use & TO_HOLD)] += c->file[i].size;
    }
    c->unit = malloc(sizeof *c->unit * (size_t)(n + 1));
    if (!c->unit)
        return fail(c->err, FAIL_NOMEM, "out of memory");
    for (int64_t i = 0; i < c->nfiles; i++) {
        const File *f = &c->file[i];
        bool held = f->use & TO_HOLD, big = f->size > total[!held] / BIG_SHARE && f->size > SECTION;
        c->info->cut_files += big;
        for (int64_t at = 0; at < f->size; at += big ? SECTION : f->size) {
            int64_t size = big && f->size - at > SECTION ? SECTION : f->size - at;
            c->unit[c->nunits++] = (Unit){ f->text + at, size, (int)i };
        }
        if (held)
            c->held_units = c->nunits;
    }
    return 0;
}

/* Whole units in the order given, from *next on, until there are `bytes`. They become empty. */
static int take(Corpus *c, const int64_t *order, int64_t *next, int64_t bytes, uint8_t **out,
                Starts *docs, CorpusSet *set, const char *what)
{
    if (!bytes)
        return 0;
    *out = malloc((size_t)bytes);
    docs->v = malloc(sizeof *docs->v * (size_t)(c->nunits + 1));
    if (!*out || !docs->v)
        return fail(c->err, FAIL_NOMEM, "out of memory");
    for (; set->bytes < bytes && *next < c->held_units; ++*next) {
        Unit *u = &c->unit[order[*next]];
        int64_t n = u->size < bytes - set->bytes ? u->size : bytes - set->bytes;
        memcpy(*out + set->bytes, u->text, (size_t)n);
        if (n)
            docs->v[docs->n++] = set->bytes;
        set->bytes += n;
        set->files++;
        u->size = 0;
    }
    if (set->bytes < bytes)
        return fail(c->err, FAIL_USAGE,
                    "the files have only %" PRId64 " bytes: too few for %" PRId64 " of %s",
                    c->info->bytes, bytes, what);
    return 0;
}

static int split(Corpus *c)
{
    int64_t next = 0, *order = malloc(sizeof *order * (size_t)(c->nunits + 1));
    if (!order)
        return fail(c->err, FAIL_NOMEM, "out of memory");
    shuffle(order, c->held_units, c->d->split_seed);
    int rc = take(c, order, &next, c->d->val_bytes, &c->val, &c->val_docs, &c->info->val,
                  "validation");
    if (!rc)
        rc = take(c, order, &next, c->d->test_bytes, &c->test, &c->test_docs, &c->info->test,
                  "test");
    free(order);
    for (int64_t i = 0; i < c->nunits; i++)
        if (!(c->file[c->unit[i].file].use & TO_TRAIN))
            c->unit[i].size = 0;
    return rc;
}

/* -- Draw -------------------------------------------------------------------------------------- */

/* The pieces of the units that are left, equal ones once; NULL: out of memory. */
static Unit *make_pieces(Corpus *c, int64_t *npieces, int64_t *bytes)
{
    Set seen = { 0 };
    int64_t n = 0;
    for (int64_t i = 0; i < c->nunits; i++)
        n += (c->unit[i].size + CORPUS_PIECE - 1) / CORPUS_PIECE;
    Unit *piece = malloc(sizeof *piece * (size_t)(n + 1));
    bool ok = piece && set_new(&seen, n);
    *npieces = *bytes = 0;
    for (int64_t i = 0; i < c->nunits && ok; i++)
        for (int64_t at = 0; at < c->unit[i].size; at += CORPUS_PIECE) {
            const uint8_t *text = c->unit[i].text + at;
            int64_t size =
                c->unit[i].size - at < CORPUS_PIECE ? c->unit[i].size - at : CORPUS_PIECE;
            if (set_add(&seen, XXH3_64bits(text, (size_t)size))) {
                piece[(*npieces)++] = (Unit){ text, size, c->unit[i].file };
                *bytes += size;
            } else {
                c->info->duplicate_pieces++;
            }
        }
    set_free(&seen);
    if (!ok) {
        free(piece);
        return NULL;
    }
    return piece;
}

static int draw(Corpus *c)
{
    CorpusSet *train = &c->info->train;
    int64_t n = 0, have = 0, want = c->d->unique, rc = 0;
    Unit *piece = make_pieces(c, &n, &have);
    int64_t *order = malloc(sizeof *order * (size_t)(n + 1));
    uint8_t *used = calloc((size_t)c->nfiles + 1, 1);
    if (!piece || !order || !used) {
        rc = fail(c->err, FAIL_NOMEM, "out of memory");
        goto out;
    }
    if (have < want || have == 0) {
        rc = fail(c->err, FAIL_USAGE,
                  "%" PRId64 " unique training bytes wanted, the files have %" PRId64
                  " after validation and duplicates are taken out",
                  want, have);
        goto out;
    }
    shuffle(order, n, c->d->seed);
    for (int64_t i = 0; i < n && !want; i++)
        order[i] = i;
    want = want ? want : have;
    c->train = malloc((size_t)want);
    c->train_docs.v = malloc(sizeof *c->train_docs.v * (size_t)(n + 1));
    if (!c->train || !c->train_docs.v) {
        rc = fail(c->err, FAIL_NOMEM, "out of memory");
        goto out;
    }
    const uint8_t *goes_on = NULL;
    for (int64_t i = 0; train->bytes < want; i++) {
        const Unit *p = &piece[order[i]];
        if (p->text != goes_on)
            c->train_docs.v[c->train_docs.n++] = train->bytes;
        goes_on = p->text + p->size;
        int64_t size = p->size < want - train->bytes ? p->size : want - train->bytes;
        memcpy(c->train + train->bytes, p->text, (size_t)size);
        train->bytes += size;
        train->files += !used[p->file];
        used[p->file] = 1;
    }
out:
    free(used);
    free(order);
    free(piece);
    return (int)rc;
}

/* -- Corrupt ----------------------------------------------------------------------------------- */

typedef enum { BYTES, WORDS, LINES } UnitKind;
typedef struct Stretch { int64_t at, size; } Stretch;

static int parse_corrupt(const char *text, UnitKind *kind, double *share, char *err)
{
    static const char *const names[] = { "bytes:", "words:", "lines:" };
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(names[i]);
        char *end;
        if (strncmp(text, names[i], n))
            continue;
        *kind = (UnitKind)i;
        *share = strtod(text + n, &end);
        if (end != text + n && !*end && *share >= 0 && *share <= 1)
            return 0;
    }
    return fail(err, FAIL_USAGE,
                "text is corrupted by bytes:SHARE, words:SHARE or lines:SHARE, 0 to 1, not by %.40s", text);
}

static bool in_unit(UnitKind kind, uint8_t c)
{
    return kind == BYTES ? true : kind == LINES ? c != '\n' : c == '_' || c >= 128 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* The units that the dice choose, of a text whose documents end where `docs` says. -1: out of memory. */
static int64_t choose_units(const Corpus *c, UnitKind kind, double share, Stretch **out)
{
    const uint8_t *text = c->train;
    int64_t n = 0, cap = 0, next = 0, bytes = c->info->train.bytes, number = 0;
    uint32_t key[2] = { (uint32_t)c->d->seed, (uint32_t)(c->d->seed >> 32) }, w[4];
    *out = NULL;
    for (int64_t at = 0; at < bytes;) {
        while (next < c->train_docs.n && c->train_docs.v[next] <= at)
            next++;
        int64_t stop = next < c->train_docs.n ? c->train_docs.v[next] : bytes, end = at;
        while (end < stop && in_unit(kind, text[end]) && (kind != BYTES || end == at))
            end++;
        if (end == at) {
            at++;
            continue;
        }
        uint32_t ctr[4] = { (uint32_t)number, (uint32_t)(number >> 32), 0, 0xfffffffbu };
        sn_philox(key, ctr, w);
        number++;
        if (w[0] * 0x1p-32 < share) {
            if (n == cap) {
                cap = cap ? cap * 2 : 1024;
                Stretch *grown = realloc(*out, sizeof *grown * (size_t)cap);
                if (!grown)
                    return -1;
                *out = grown;
            }
            (*out)[n++] = (Stretch){ at, end - at };
        }
        at = end;
    }
    return n;
}

/* Unit i's place takes unit order[i]; what lies between stays. Documents begin where the same text does. */
static void trade_places(Corpus *c, const Stretch *unit, const int64_t *order, int64_t n, uint8_t *to)
{
    int64_t at = 0, out = 0, doc = 0;
    for (int64_t i = 0; i <= n; i++) {
        int64_t stop = i < n ? unit[i].at : c->info->train.bytes;
        for (; doc < c->train_docs.n && c->train_docs.v[doc] <= stop; doc++)
            c->train_docs.v[doc] += out - at;
        memcpy(to + out, c->train + at, (size_t)(stop - at));
        out += stop - at;
        if (i == n)
            break;
        const Stretch *u = &unit[order[i]];
        memcpy(to + out, c->train + u->at, (size_t)u->size);
        out += u->size;
        at = stop + unit[i].size;
    }
}

static int corrupt(Corpus *c)
{
    UnitKind kind = BYTES;
    double share = 0;
    Stretch *unit = NULL;
    int rc = parse_corrupt(c->d->corrupt, &kind, &share, c->err);
    if (rc)
        return rc;
    int64_t n = choose_units(c, kind, share, &unit);
    int64_t *order = malloc(sizeof *order * (size_t)(n + 1));
    uint8_t *to = malloc((size_t)c->info->train.bytes);
    if (n < 0 || !order || !to) {
        free(to);
        rc = fail(c->err, FAIL_NOMEM, "out of memory");
    } else {
        shuffle(order, n, c->d->seed ^ 0x636f7272757074);      /* another order than the pieces' */
        trade_places(c, unit, order, n, to);
        free(c->train);
        c->train = to;
        say(c->d, "%" PRId64 " units of the training text trade places (%s)", n, c->d->corrupt);
    }
    free(order);
    free(unit);
    return rc;
}

/* -- Overlap ----------------------------------------------------------------------------------- */

/* Buzhash: rotate and xor; the hash depends on the last CORPUS_STRING bytes alone. */
static inline uint64_t rotl(uint64_t x, int k) { return k ? x << k | x >> (64 - k) : x; }

static inline uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    return x + !x;
}

typedef struct Roll { uint64_t table[256], h; } Roll;

static void roll_tables(Roll *r)
{
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        r->table[i] = XXH3_64bits(&byte, 1);
    }
    r->h = 0;
}

/* The hash of the string that ends at text[i], once i >= CORPUS_STRING - 1. */
static inline uint64_t roll(Roll *r, const uint8_t *text, int64_t i)
{
    r->h = rotl(r->h, 1) ^ r->table[text[i]];
    if (i >= CORPUS_STRING)
        r->h ^= rotl(r->table[text[i - CORPUS_STRING]], CORPUS_STRING % 64);
    return mix(r->h);
}

static int measure_overlap(const CorpusDesc *d, const uint8_t *train, int64_t ntrain,
                           const uint8_t *held, CorpusSet *set, char *err)
{
    Roll r;
    Set strings;
    int64_t found = 0, all = set->bytes - CORPUS_STRING + 1;
    if (all <= 0)
        return 0;
    say(d, "overlap: %" PRId64 " strings against %.1f MB of training text", all,
        (double)ntrain * 1e-6);
    bool ok = set_new(&strings, all);
    roll_tables(&r);
    for (int64_t i = 0; i < set->bytes && ok; i++) {
        uint64_t h = roll(&r, held, i);
        if (i >= CORPUS_STRING - 1)
            set_add(&strings, h);
    }
    r.h = 0;
    for (int64_t i = 0; i < ntrain && ok; i++) {
        uint64_t h = roll(&r, train, i);
        if (i < CORPUS_STRING - 1)
            continue;
        uint64_t at = set_find(&strings, h);
        if (strings.key[at])
            strings.hit[at] = 1;
    }
    r.h = 0;
    for (int64_t i = 0; i < set->bytes && ok; i++) {
        uint64_t h = roll(&r, held, i);
        if (i >= CORPUS_STRING - 1)
            found += strings.hit[set_find(&strings, h)];
    }
    set_free(&strings);
    set->overlap = (double)found / (double)all;
    return ok ? 0 : fail(err, FAIL_NOMEM, "out of memory");
}

/* -- Write ------------------------------------------------------------------------------------- */

static int64_t vocab_of(const CorpusDesc *d)      /* the mask is the last */
{
    return d->tok ? d->tok->vocab + 1 : CORPUS_VOCAB + d->eod;
}

static int32_t eod_of(const CorpusDesc *d)
{
    return !d->eod ? -1 : d->tok ? d->tok->eod : CORPUS_EOD;
}

/* The bytes as tokens, `eod` after every document where there is one; starts become those of tokens, scored is then of tokens. In
   16 bits where they fit. */
static void *make_tokens(const CorpusDesc *d, const uint8_t *text, int64_t bytes, Starts *docs,
                         int64_t *n)
{
    Tokens out;
    if (documents_encode(d->tok ? d->tok : &BYTE_TOKENIZER, eod_of(d), text, bytes, docs->v, docs->n,
                         &docs->scored, &out))
        return NULL;
    *n = out.n;
    for (int64_t i = 0; i < out.n && vocab_of(d) <= 1 << 16; i++) {
        uint16_t half = (uint16_t)out.v[i];
        memcpy((char *)out.v + 2 * i, &half, 2);
    }
    return out.v;
}

static int write_set(const CorpusDesc *d, const char *name, const uint8_t *text, Starts *docs,
                     CorpusSet *set, char *err)
{
    char bytes[24], files[24], seed[24], split_seed[24], hash[24], overlap[32], vocab[24],
        mask[24], eod[24], unique[24];
    if (!text)
        return 0;
    if (snprintf(set->path, sizeof set->path, "%s/%s.safetensors", d->out, name) >=
        (int)sizeof set->path)
        return fail(err, FAIL_USAGE, "%.200s: path too long", d->out);
    set->hash = XXH3_64bits(text, (size_t)set->bytes);
    void *token = make_tokens(d, text, set->bytes, docs, &set->bytes);
    size_t width = vocab_of(d) <= 1 << 16 ? 2 : 4;
    if (!token)
        return fail(err, FAIL_NOMEM, "%s: no memory for its tokens", set->path);
    if (d->eod || d->tok)
        set->hash = XXH3_64bits(token, width * (size_t)set->bytes);
    snprintf(bytes, sizeof bytes, "%" PRId64, set->bytes);
    snprintf(files, sizeof files, "%" PRId64, set->files);
    snprintf(seed, sizeof seed, "%" PRIu64, d->seed);
    snprintf(split_seed, sizeof split_seed, "%" PRIu64, d->split_seed);
    snprintf(hash, sizeof hash, "%016" PRIx64, set->hash);
    snprintf(overlap, sizeof overlap, "%.6f", set->overlap);
    snprintf(vocab, sizeof vocab, "%" PRId64, vocab_of(d));
    snprintf(mask, sizeof mask, "%" PRId64, vocab_of(d) - 1);
    snprintf(eod, sizeof eod, "%d", eod_of(d));
    snprintf(unique, sizeof unique, "%" PRId64, d->unique);
    const char *meta[] = { "tokenizer", d->tok ? d->tok->path : "bytes", "vocab", vocab, "mask",
                           mask, "bytes", bytes, "files", files, "seed", seed,
                           "split_seed", split_seed, "hash", hash, "overlap", overlap,
                           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    int nmeta = 18;
    if (d->eod)
        meta[nmeta++] = "eod", meta[nmeta++] = eod;
    if (docs->scored)
        meta[nmeta++] = "records", meta[nmeta++] = "1";
    if (d->corrupt && !strcmp(name, "train"))
        meta[nmeta++] = "corrupt", meta[nmeta++] = d->corrupt;
    if (d->tok)
        meta[nmeta++] = "unique_bytes", meta[nmeta++] = unique;
    sn_tensor t[3] = { { .name = "tokens",
                         .dtype = width == 2 ? SN_FILE_U16 : DT_I32,
                         .rank = 1,
                         .dim = { set->bytes },
                         .data = token,
                         .bytes = width * (size_t)set->bytes },
                       { .name = "documents",
                         .dtype = SN_FILE_I64,
                         .rank = 1,
                         .dim = { docs->n },
                         .data = docs->v,
                         .bytes = sizeof *docs->v * (size_t)docs->n },
                       { .name = "scored",
                         .dtype = SN_FILE_U8,
                         .rank = 1,
                         .dim = { set->bytes },
                         .data = docs->scored,
                         .bytes = (size_t)set->bytes } };
    int rc = sn_file_write(set->path, t, docs->scored ? 3 : 2, meta, err);
    free(token);
    say(d, "%s: %" PRId64 " tokens, %" PRId64 " documents of %" PRId64 " files", set->path,
        set->bytes, docs->n, set->files);
    return rc;
}

/* -- Prepared shards --------------------------------------------------------------------------- */

static int open_set(const char *path, CorpusSet *set, CorpusInfo *info, char *err)
{
    sn_file *f = sn_file_open(path, err);
    if (!f)
        return FAIL_IO;
    int rc = 0;
    const sn_tensor *t = sn_file_find(f, "tokens");
    const char *vocab = sn_file_meta(f, "vocab"), *mask = sn_file_meta(f, "mask"),
               *hash = sn_file_meta(f, "hash"), *files = sn_file_meta(f, "files"),
               *unique = sn_file_meta(f, "unique_bytes"), *overlap = sn_file_meta(f, "overlap");
    if (!t || t->rank != 1) {
        rc = fail(err, FAIL_USAGE, "%s: has no tensor 'tokens' with one axis", path);
        goto out;
    }
    snprintf(set->path, sizeof set->path, "%s", path);
    set->bytes = t->dim[0];
    const sn_tensor *docs = sn_file_find(f, "documents");
    info->documents = docs && docs->rank == 1 ? docs->dim[0] : 0;
    info->records = sn_file_meta(f, "records") != NULL;
    info->cut = unique ? atoll(unique) : 0;
    const char *corrupted = sn_file_meta(f, "corrupt");
    snprintf(info->corrupt, sizeof info->corrupt, "%s", corrupted ? corrupted : "");
    set->files = files ? atoll(files) : 0;
    set->hash = hash ? strtoull(hash, NULL, 16) : 0;
    set->overlap = overlap ? atof(overlap) : 0;
    info->vocab = vocab ? atoi(vocab) : 0;
    info->mask = mask ? atoi(mask) : -1;
    info->prepared = 1;
out:
    sn_file_close(f);
    return rc;
}

/* A shard, or a token file made into one below `out`. */
static int take_set(const CorpusDesc *d, const char *path, const char *name, CorpusSet *set,
                    CorpusInfo *info, char *err)
{
    char shard[1024];
    TokenFile f;
    if (!is_token_file(path))
        return open_set(path, set, info, err);
    if (snprintf(shard, sizeof shard, "%s/%s.safetensors", d->out, name) >= (int)sizeof shard)
        return fail(err, FAIL_USAGE, "%.200s: path too long", d->out);
    int made = with_parents(d->out);
    if (made)
        return fail(err, FAIL_IO, "%s: %s", d->out, strerror(made));
    int32_t eod = d->tok ? d->tok->eod : -1;
    if (token_file_open(&f, path, eod, err))
        return FAIL_IO;
    int rc = token_file_convert(&f, shard, eod, err) ? FAIL_IO : 0;
    say(d, "%s: %s, %" PRId64 " tokens, %" PRId64 " documents", path, f.kind, f.n, f.ndocuments);
    token_file_close(&f);
    return rc ? rc : open_set(shard, set, info, err);
}

/* 1: the paths are prepared shards, taken; 0: they are text; negative: error. */
static int take_prepared(const CorpusDesc *d, CorpusInfo *info, char *err)
{
    static const char *const names[] = { "train", "val", "test" };
    CorpusSet *sets[] = { &info->train, &info->val, &info->test };
    char path[1024];
    struct stat st;
    for (int i = 0; i < d->npaths && d->npaths > 1; i++)
        if (is_shard(d->paths[i]))
            return fail(err, FAIL_USAGE, "%s: a prepared shard cannot be mixed with other data",
                        d->paths[i]);
    if (is_shard(d->paths[0])) {
        int rc = take_set(d, d->paths[0], "train", &info->train, info, err);
        return rc ? rc : 1;
    }
    const char *end = "safetensors";
    snprintf(path, sizeof path, "%s/train.%s", d->paths[0], end);
    if (stat(path, &st))
        snprintf(path, sizeof path, "%s/train.%s", d->paths[0], end = "bin");
    if (d->npaths != 1 || stat(path, &st))
        return 0;
    for (int i = 2; i >= 0; i--) {               /* train last: its vocabulary counts */
        snprintf(path, sizeof path, "%s/%s.%s", d->paths[0], names[i], end);
        int rc = stat(path, &st) ? 0 : take_set(d, path, names[i], sets[i], info, err);
        if (rc)
            return rc;
    }
    return 1;
}

/* -- Records ----------------------------------------------------------------------------------- */

/* Whole records in the order given, from *next on, as many as `bytes` have room for, one at least; 0: all. */
static int take_records(Corpus *c, const Records *r, const int64_t *order, int64_t *next, int64_t bytes,
                        uint8_t **out, Starts *docs, CorpusSet *set, const char *what)
{
    int64_t room = bytes ? bytes : r->bytes, size = 0;
    *out = malloc((size_t)r->bytes + 1);
    docs->v = malloc(sizeof *docs->v * (size_t)(r->n + 1));
    docs->scored = malloc((size_t)r->bytes + 1);
    if (!*out || !docs->v || !docs->scored)
        return fail(c->err, FAIL_NOMEM, "out of memory");
    for (; *next < r->n; ++*next) {
        const Record *x = &r->v[order[*next]];
        if (size + x->size > room)
            break;
        docs->v[docs->n++] = size;
        memcpy(*out + size, x->text, (size_t)x->size);
        for (int64_t i = 0; i < x->size; i++)
            docs->scored[size + i] = i >= x->prompt;
        size += x->size;
    }
    set->bytes = size;
    set->files = r->files;
    return docs->n ? 0
                   : fail(c->err, FAIL_USAGE,
                          "%" PRId64 " records of %" PRId64 " bytes in all: too few for %" PRId64
                          " bytes of %s, or the next one is longer",
                          r->n, r->bytes, room, what);
}

static int split_records(Corpus *c, const Records *r)
{
    const CorpusDesc *d = c->d;
    CorpusInfo *info = c->info;
    int64_t next = 0, left, *order = malloc(sizeof *order * (size_t)(r->n + 1)), *mixed = malloc(sizeof *mixed * (size_t)(r->n + 1));
    int rc = order && mixed ? 0 : fail(c->err, FAIL_NOMEM, "out of memory");
    if (!rc)
        shuffle(order, r->n, d->split_seed);
    if (!rc && d->val_bytes)
        rc = take_records(c, r, order, &next, d->val_bytes, &c->val, &c->val_docs, &info->val, "validation");
    if (!rc && d->test_bytes)
        rc = take_records(c, r, order, &next, d->test_bytes, &c->test, &c->test_docs, &info->test, "test");
    if (!rc) {
        shuffle(mixed, left = r->n - next, d->seed);
        for (int64_t i = 0; i < left; i++)
            mixed[i] = order[next + mixed[i]];
        next = 0;
        Records rest = *r;
        rest.n = left;
        rc = take_records(c, &rest, mixed, &next, d->unique, &c->train, &c->train_docs, &info->train, "training");
    }
    free(order);
    free(mixed);
    return rc;
}

static int read_records(Corpus *c)
{
    Records r = { 0 };
    int rc = 0;
    for (int i = 0; i < c->d->npaths && !rc; i++)
        rc = records_named(c->d->paths[i])
                 ? records_read(&r, c->d->paths[i], c->err)
                 : fail(c->err, FAIL_USAGE, "%.160s: records (.jsonl) cannot be mixed with other data",
                        c->d->paths[i]);
    if (!rc && !r.n)
        rc = fail(c->err, FAIL_USAGE, "%.160s: no records", c->d->paths[0]);
    c->info->files = r.files;
    c->info->bytes = r.bytes;
    c->info->duplicate_pieces = r.duplicates;
    c->info->records = true;
    if (!rc)
        say(c->d, "%" PRId64 " records, %.1f MB; left out: %" PRId64 " duplicates", r.n, (double)r.bytes * 1e-6, r.duplicates);
    if (!rc)
        rc = split_records(c, &r);
    records_free(&r);
    return rc;
}

/* -- All of it --------------------------------------------------------------------------------- */

static int read_text_files(Corpus *c)
{
    const CorpusDesc *d = c->d;
    CorpusInfo *info = c->info;
    int rc = 0;
    c->use = TO_HOLD;
    for (int i = 0; i < d->nheld && !rc; i++)
        rc = add_path(c, d->held[i], true);
    c->use = d->nheld ? TO_TRAIN : TO_TRAIN | TO_HOLD;
    for (int i = 0; i < d->npaths && !rc; i++)
        rc = add_path(c, d->paths[i], true);
    if (rc)
        return rc;
    if (!c->nfiles)
        return fail(c->err, FAIL_USAGE,
                    "%s: no text: %" PRId64 " binary, %" PRId64 " too large, %" PRId64
                    " unreadable files",
                    d->paths[0], info->binary, info->large, info->unreadable);
    info->files = c->nfiles;
    say(d,
        "%" PRId64 " files, %.1f MB; left out: %" PRId64 " duplicates, %" PRId64 " binary, %" PRId64
        " too large, %" PRId64 " unreadable",
        info->files, (double)info->bytes * 1e-6, info->duplicate_files, info->binary, info->large,
        info->unreadable);
    if (info->unreadable)
        say(d, "unreadable: %s", info->first_unreadable);
    return (rc = cut(c)) || (rc = split(c)) ? rc : draw(c);
}

static int prepare_text(Corpus *c)
{
    const CorpusDesc *d = c->d;
    CorpusInfo *info = c->info;
    bool records = false;
    for (int i = 0; i < d->npaths; i++)
        records |= records_named(d->paths[i]);
    if (records && (d->nheld || d->corrupt))
        return fail(c->err, FAIL_USAGE, "records are neither corrupted nor held out from other files");
    int rc = records ? read_records(c) : read_text_files(c);
    if (!rc && d->corrupt)
        rc = corrupt(c);
    if (!rc && c->val)
        rc = measure_overlap(d, c->train, info->train.bytes, c->val, &info->val, c->err);
    if (!rc && c->test)
        rc = measure_overlap(d, c->train, info->train.bytes, c->test, &info->test, c->err);
    if (rc)
        return rc;
    int made = with_parents(d->out);
    if (made)
        return fail(c->err, FAIL_IO, "%s: %s", d->out, strerror(made));
    rc = write_set(d, "val", c->val, &c->val_docs, &info->val, c->err);
    rc = rc ? rc : write_set(d, "test", c->test, &c->test_docs, &info->test, c->err);
    if (!rc)                                     /* last: its presence says done */
        rc = write_set(d, "train", c->train, &c->train_docs, &info->train, c->err);
    info->documents = c->train_docs.n;
    return rc;
}

int corpus_prepare(const CorpusDesc *d, CorpusInfo *info, char err[256])
{
    memset(info, 0, sizeof *info);
    if (d->npaths < 1)
        return fail(err, FAIL_USAGE, "no data: name files, folders or a prepared shard");
    if (d->unique < 0 || d->val_bytes < 0 || d->test_bytes < 0)
        return fail(err, FAIL_USAGE, "a number of bytes is negative");
    int rc = take_prepared(d, info, err);
    if (rc > 0)
        rc = strcmp(info->corrupt, d->corrupt ? d->corrupt : "")
                 ? fail(err, FAIL_USAGE, "%.160s: its text was corrupted by '%s', '%s' is asked for",
                        info->train.path, info->corrupt, d->corrupt ? d->corrupt : "")
                 : 1;
    if (rc)
        return rc < 0 ? rc : 0;
    CorpusDesc own = *d;
    for (int i = 0; i < d->npaths; i++)
        own.eod |= records_named(d->paths[i]);
    if (own.eod && own.tok && own.tok->eod < 0)
        return fail(err, FAIL_USAGE, "%s: has no token that ends a text", own.tok->path);
    info->vocab = (int)vocab_of(&own);
    info->mask = info->vocab - 1;
    info->cut = d->tok ? d->unique : 0;
    Corpus c = { .d = &own, .info = info, .err = err };
    rc = prepare_text(&c);
    for (int64_t i = 0; i < c.nfiles; i++)
        free(c.file[i].text);
    free(c.file);
    free(c.unit);
    free(c.train);
    free(c.val);
    free(c.test);
    const Starts *docs[] = { &c.train_docs, &c.val_docs, &c.test_docs };
    for (int i = 0; i < 3; i++) {
        free(docs[i]->v);
        free(docs[i]->scored);
    }
    set_free(&c.seen);
    return rc;
}
