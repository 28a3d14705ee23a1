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
   dropped. */
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
    bool shuffle;
    int32_t largest;
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
    d->offset = draw(d, 0, epoch, d->window);
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
    d->unique = desc->unique ? desc->unique : t->dim[0];
    if (desc->unique < 0 || d->unique > t->dim[0])
        return snR_fail(err, ERR_USAGE, "%s: %lld unique tokens wanted, the file has %lld", path,
                        (long long)desc->unique, (long long)t->dim[0]);
    if (desc->window < 1 || desc->window > d->unique)
        return snR_fail(err, ERR_USAGE, "%s: no window of %lld tokens fits into %lld", path,
                        (long long)desc->window, (long long)d->unique);
    d->window = desc->window;
    d->windows = d->unique / d->window;
    if (d->windows > INT32_MAX)
        return snR_fail(err, ERR_UNSUPPORTED, "%s: more than 2^31 windows", path);
    return scan(d, path, err);
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
    d->epoch = -1;
    if (open_tokens(d, desc, err))
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
    free(d);
}

int64_t sn_data_tokens(const sn_data *d) { return d->unique; }
int64_t sn_data_windows(const sn_data *d) { return d->windows; }
int32_t sn_data_max(const sn_data *d) { return d->largest; }

int sn_data_window(sn_data *d, int64_t i, int32_t *out, int64_t *sample_id, int64_t *epoch)
{
    if (i < 0)
        return snR_fail(snR_last_error(), ERR_USAGE, "window %lld: below 0", (long long)i);
    int64_t e = i / d->windows, place = i % d->windows;
    if (d->shuffle && d->epoch != e)
        start_epoch(d, e);
    if (d->shuffle)
        place = d->order[place];
    int64_t at = place * d->window + (d->shuffle ? d->offset : 0);
    for (int64_t k = 0; k < d->window; k++, at++) {
        if (at >= d->unique)
            at -= d->unique;
        out[k] = (int32_t)token_at(d, at);
    }
    if (sample_id)
        *sample_id = e * d->windows + place;
    if (epoch)
        *epoch = e;
    return 0;
}
