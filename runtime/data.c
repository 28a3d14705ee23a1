/* data.c: windows of tokens from a shard.

   In: a safetensors file with a tensor "tokens" and a description (window T, budget of unique
   tokens U, seed, order). Out: window number i as a pure function of the description and i.

   Shuffled: an epoch trains on every token once. The U tokens are a ring, cut into W = floor(U / T)
   windows from a fresh offset in [0, T) each epoch; place k covers tokens offset + kT ... offset +
   (k + 1)T - 1 (mod U), so when T divides U every token is in exactly one window, else U mod T of
   them, others each time, are left out. The places are visited in the order of a Fisher-Yates
   shuffle. Draws: philox(key = seed, counter = {i, epoch, 0, TAG}), i = 0 for the offset, i = place
   for the swaps. The sample id, epoch * W + place, names the text and not its turn, so that masks
   drawn from it do not depend on the order.

   In order (evaluation): offset 0, places 0 .. W-1, the U mod T tokens of a last partial window are
   dropped.

   Fixed: offset 0 in every epoch, so place k has the same text. Views K: sample ids, (epoch mod K) * W +
   place, come again every K epochs, and with them all that is drawn by sample: K masks of each window.

   A shard may have the tensors "documents" (I64, ascending, from 0: where each begins) and "scored" (U8,
   one per token: not 0 where its loss counts). Marks say both for a window; the end of the ring ends a
   document. Records: place k is document k, cut at T tokens or filled up with the token "eod" of the
   metadata; documents without a scored token in reach are left out. */
#include "runtime/rt.h"

#include <stdlib.h>
#include <string.h>

/* The stream of orders; initial values have ~0 as their second word and a stream below 2^31. */
static const uint32_t TAG = 0xfffffffeu;

struct sn_data {
    sn_file *file;
    const uint8_t *token;
    int width, dtype;                            /* bytes of a token */
    int64_t unique, window, windows;
    uint32_t key[2];
    bool shuffle, fixed, records, fill_scored;
    int64_t views;
    int32_t largest, fill;
    const uint8_t *scored;                       /* NULL: all are */
    int64_t *start, documents;                   /* where documents begin, then U; NULL: one */
    int64_t *record;                             /* documents that are windows */
    int64_t epoch;                               /* that offset and order hold; -1: none yet */
    int64_t offset;
    uint32_t *order;
};

/* A value in [0, n), uniform up to 2^-64 * n. */
static int64_t draw(const sn_data *d, uint32_t i, int64_t epoch, int64_t n)
{
    uint32_t ctr[4] = { i, (uint32_t)epoch, (uint32_t)(epoch >> 32), TAG }, w[4];
    sn_philox(d->key, ctr, w);
    uint64_t x = (uint64_t)w[1] << 32 | w[0];
    return (int64_t)((unsigned __int128)x * (uint64_t)n >> 64);
}

static void start_epoch(sn_data *d, int64_t epoch)
{
    d->epoch = epoch;
    d->offset = d->fixed ? 0 : draw(d, 0, epoch, d->window);
    for (int64_t i = 0; i < d->windows; i++)
        d->order[i] = (uint32_t)i;
    for (int64_t i = d->windows - 1; i > 0; i--) {
        int64_t k = draw(d, (uint32_t)i, epoch, i + 1);
        uint32_t t = d->order[i];
        d->order[i] = d->order[k];
        d->order[k] = t;
    }
}

/* -- Reading tokens ---------------------------------------------------------------------------- */

static inline uint32_t token_at(const sn_data *d, int64_t i)
{
    const uint8_t *p = d->token + i * d->width;  /* may be unaligned */
    uint16_t half;
    uint32_t word;
    switch (d->width) {
    case 1: return *p;
    case 2: memcpy(&half, p, 2); return half;
    default: memcpy(&word, p, 4); return word;
    }
}

static int scan(sn_data *d, const char *path, char err[ERR_TEXT])
{
    uint32_t largest = 0;
    for (int64_t i = 0; i < d->unique; i++) {
        uint32_t t = token_at(d, i);
        if (t > INT32_MAX)
            return snR_fail(err, ERR_USAGE, "%s: token %lld is %s", path, (long long)i,
                            d->dtype == DT_I32 ? "negative" : "above 2^31 - 1");
        if (t > largest)
            largest = t;
    }
    d->largest = (int32_t)largest;
    return 0;
}

static int open_tokens(sn_data *d, const sn_data_desc *desc, char err[ERR_TEXT])
{
    const char *path = desc->path;
    d->file = sn_file_open(path, err);
    if (!d->file)
        return ERR_IO;
    const sn_tensor *t = sn_file_find(d->file, "tokens");
    if (!t)
        return snR_fail(err, ERR_UNKNOWN, "%s: has no tensor 'tokens'", path);
    if (t->rank != 1 || (t->dtype != SN_FILE_U8 && t->dtype != SN_FILE_U16 && t->dtype != DT_I32 &&
                         t->dtype != DT_U32))
        return snR_fail(err, ERR_TYPE, "%s: 'tokens' must have one axis and be U8, U16, I32 or U32",
                        path);
    d->token = t->data;
    d->dtype = t->dtype;
    d->width = snR_dtype_size(t->dtype);
    d->records = sn_file_meta(d->file, "records") != NULL;
    d->unique = desc->unique ? desc->unique : t->dim[0];
    if (desc->unique < 0 || d->unique > t->dim[0])
        return snR_fail(err, ERR_USAGE, "%s: %lld unique tokens wanted, the file has %lld", path,
                        (long long)desc->unique, (long long)t->dim[0]);
    if (desc->window < 1 || (desc->window > d->unique && !d->records))
        return snR_fail(err, ERR_USAGE, "%s: no window of %lld tokens fits into %lld", path,
                        (long long)desc->window, (long long)d->unique);
    d->window = desc->window;
    d->windows = d->unique / d->window;
    return scan(d, path, err);
}

/* -- Documents, scored tokens, records --------------------------------------------------------- */

static int open_documents(sn_data *d, const char *path, char err[ERR_TEXT])
{
    const sn_tensor *t = sn_file_find(d->file, "documents");
    int64_t last = -1;
    if (!t)
        return 0;
    if (t->rank != 1 || t->dtype != SN_FILE_I64 || t->dim[0] < 1)
        return snR_fail(err, ERR_TYPE, "%s: 'documents' must have one axis and be I64", path);
    d->start = malloc(sizeof *d->start * (size_t)(t->dim[0] + 1));
    if (!d->start)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    for (int64_t i = 0; i < t->dim[0] && last < d->unique; i++) {
        int64_t at;
        memcpy(&at, (const uint8_t *)t->data + 8 * i, sizeof at);
        if (i ? at <= last : at != 0)
            return snR_fail(err, ERR_USAGE,
                            "%s: document %lld begins at token %lld; they must ascend from 0", path,
                            (long long)i, (long long)at);
        last = at;
        if (at < d->unique)
            d->start[d->documents++] = at;
    }
    d->start[d->documents] = d->unique;
    return 0;
}

static int open_scored(sn_data *d, const char *path, char err[ERR_TEXT])
{
    const sn_tensor *t = sn_file_find(d->file, "scored");
    if (!t)
        return 0;
    if (t->rank != 1 || t->dtype != SN_FILE_U8 || t->dim[0] < d->unique)
        return snR_fail(err, ERR_TYPE, "%s: 'scored' must be U8, one for each token", path);
    d->scored = t->data;
    return 0;
}

static int open_records(sn_data *d, const char *path, char err[ERR_TEXT])
{
    const char *eod = sn_file_meta(d->file, "eod");
    char *end = NULL;
    long long fill = eod ? strtoll(eod, &end, 10) : -1;
    if (!d->start)
        return snR_fail(err, ERR_UNKNOWN, "%s: has no tensor 'documents': there are no records",
                        path);
    if (!eod || *end || end == eod || fill < 0 || fill > INT32_MAX)
        return snR_fail(err, ERR_UNKNOWN,
                        "%s: its metadata has no 'eod', a token to fill up records with", path);
    d->fill = (int32_t)fill;
    d->largest = d->largest < d->fill ? d->fill : d->largest;
    d->record = malloc(sizeof *d->record * (size_t)d->documents);
    if (!d->record)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    d->windows = 0;
    for (int64_t k = 0; k < d->documents; k++) {
        int64_t at = d->start[k], stop = d->start[k + 1];
        stop = stop - at > d->window ? at + d->window : stop;
        while (d->scored && at < stop && !d->scored[at])
            at++;
        if (at < stop)
            d->record[d->windows++] = k;
    }
    if (!d->windows)
        return snR_fail(err, ERR_USAGE,
                        "%s: no record has a scored token among its first %lld: longer windows are needed",
                        path, (long long)d->window);
    return 0;
}

/* The last document that begins at `at` or before. */
static int64_t document_of(const sn_data *d, int64_t at)
{
    int64_t low = 0, high = d->documents;
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (d->start[mid] <= at)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static int open_all(sn_data *d, const sn_data_desc *desc, char err[ERR_TEXT])
{
    int rc = open_tokens(d, desc, err);
    if (!rc)
        rc = open_documents(d, desc->path, err);
    if (!rc)
        rc = open_scored(d, desc->path, err);
    if (!rc && d->records)
        rc = open_records(d, desc->path, err);
    if (!rc && d->windows > INT32_MAX)
        rc = snR_fail(err, ERR_UNSUPPORTED, "%s: more than 2^31 windows", desc->path);
    return rc;
}

sn_data *sn_data_open(const sn_data_desc *desc, char err[ERR_TEXT])
{
    sn_data *d = calloc(1, sizeof *d);
    if (!d) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    d->key[0] = (uint32_t)desc->seed;
    d->key[1] = (uint32_t)(desc->seed >> 32);
    d->shuffle = desc->shuffle;
    d->fixed = desc->fixed || desc->views;
    d->views = desc->views;
    d->fill_scored = desc->fill_scored;
    d->epoch = -1;
    if (desc->views < 0) {
        snR_fail(err, ERR_USAGE, "%lld views: below 0", (long long)desc->views);
        goto fail;
    }
    if (open_all(d, desc, err))
        goto fail;
    if (d->shuffle && !(d->order = malloc(sizeof *d->order * (size_t)d->windows))) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        goto fail;
    }
    return d;
fail:
    sn_data_close(d);
    return NULL;
}

void sn_data_close(sn_data *d)
{
    if (!d)
        return;
    sn_file_close(d->file);
    free(d->order);
    free(d->start);
    free(d->record);
    free(d);
}

int64_t sn_data_tokens(const sn_data *d) { return d->unique; }
int64_t sn_data_windows(const sn_data *d) { return d->windows; }
int32_t sn_data_max(const sn_data *d) { return d->largest; }

bool sn_data_has(const sn_data *d, const char *tensor) { return sn_file_find(d->file, tensor) != NULL; }

/* Where window i lies: its epoch, its place, its first token and how many there are before `eod` fills it up. */
typedef struct Window { int64_t epoch, place, at, have; } Window;

static int find_window(sn_data *d, int64_t i, Window *w)
{
    if (i < 0)
        return snR_fail(snR_last_error(), ERR_USAGE, "window %lld: below 0", (long long)i);
    w->epoch = i / d->windows;
    w->place = i % d->windows;
    if (d->shuffle && d->epoch != w->epoch)
        start_epoch(d, w->epoch);
    if (d->shuffle)
        w->place = d->order[w->place];
    w->at = w->place * d->window + (d->shuffle ? d->offset : 0);
    w->have = d->window;
    if (d->records) {
        int64_t k = d->record[w->place], size = d->start[k + 1] - d->start[k];
        w->at = d->start[k];
        w->have = size < d->window ? size : d->window;
    }
    return 0;
}

int sn_data_window(sn_data *d, int64_t i, int32_t *out, int64_t *sample_id, int64_t *epoch)
{
    Window w;
    int rc = find_window(d, i, &w);
    if (rc)
        return rc;
    for (int64_t k = 0, at = w.at; k < d->window; k++, at++) {
        if (at >= d->unique)
            at -= d->unique;
        out[k] = k < w.have ? (int32_t)token_at(d, at) : d->fill;
    }
    if (sample_id)
        *sample_id = (d->views ? w.epoch % d->views : w.epoch) * d->windows + w.place;
    if (epoch)
        *epoch = w.epoch;
    return 0;
}

int sn_data_marks(sn_data *d, int64_t i, int32_t *begins, int32_t *scored)
{
    Window w;
    int rc = find_window(d, i, &w);
    if (rc)
        return rc;
    int64_t at = w.at >= d->unique ? w.at - d->unique : w.at, next = d->unique, doc = 0, first = 0;
    if (d->start) {
        doc = document_of(d, at) + 1;
        next = d->start[doc];
    }
    for (int64_t k = 0; k < d->window; k++, at++) {
        bool fill = k >= w.have;
        if (!fill && at == next) {
            first = k;
            at = at == d->unique ? 0 : at;
            doc = at ? doc + 1 : 1;
            next = d->start ? d->start[doc] : d->unique;
        }
        if (k == w.have && !d->fill_scored)      /* what fills a record up is no part of it */
            first = k;
        if (begins)
            begins[k] = (int32_t)first;
        if (scored)
            scored[k] = fill ? d->fill_scored : !d->scored || d->scored[at];
    }
    return 0;
}
