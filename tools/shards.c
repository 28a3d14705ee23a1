/* shards.c: token files of other trainers, read, checked whole, and written.

   In:  a path, or tokens. Out: tokens in place, and where documents begin; or a file.

     sinter     safetensors with `tokens` (U8, U16, I32, U32) and perhaps `documents` (I64)
     llm.c      1024 bytes of header, i32 each: 20240520, 1, number of tokens; then u16 (20240801, 7: u32)
     nanoGPT    u16, nothing else
     Megatron   X.bin: tokens; X.idx: "MMIDIDX\0\0", u64 1, u8 dtype, u64 sequences, u64 documents + 1, i32 lengths of sequences, i64 where each
                begins in X.bin, i64 the first sequence of each document and the number of all

   In the first two the token `eod` parts documents: before each of them where the file begins with it (llm.c's scripts), else after each
   (nanoGPT's). All numbers are little-endian, as is every machine this runs on. */
#define _GNU_SOURCE
#include "tools/shards.h"

#include "runtime/rt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { LLMC_HEADER = 1024, GPT2_EOD = 50256, IDX_HEADER = 9 + 8 + 1 + 8 + 8 };
static const char IDX_MAGIC[9] = "MMIDIDX\0";
const char *const SHARD_FORMAT_NAMES[SHARD_FORMATS] = { "sinter", "llm.c", "nanogpt", "megatron" };

static __attribute__((format(printf, 2, 3))) int fail(char err[256], const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, 256, fmt, ap);
    va_end(ap);
    return -1;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

bool is_token_file(const char *path) { return ends_with(path, ".bin") || ends_with(path, ".idx"); }
bool is_shard(const char *path) { return ends_with(path, ".safetensors") || is_token_file(path); }

/* -- Reading ------------------------------------------------------------------------------------------------------------------ */

static int map_file(const char *path, void **map, size_t *bytes, char err[256]) {
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *map = NULL;
    if (fd < 0) return fail(err, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st)) rc = fail(err, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode)) rc = fail(err, "%s: not a regular file", path);
    else if (!st.st_size) rc = fail(err, "%s: is empty", path);
    else if ((*map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) rc = fail(err, "%s: cannot map: %s", path, strerror(errno));
    if (rc) *map = NULL;
    else *bytes = (size_t)st.st_size;
    close(fd);
    return rc;
}

static int64_t number(const uint8_t *p, int bytes) {
    int64_t v = 0;
    memcpy(&v, p, (size_t)bytes);
    return bytes == 4 ? (int32_t)v : v;
}

static int width_of(uint8_t dtype) { return dtype == SN_FILE_U8 ? 1 : dtype == SN_FILE_U16 ? 2 : 4; }

int32_t token_file_at(const TokenFile *f, int64_t i) {
    int width = width_of(f->dtype);
    return (int32_t)number(f->token + i * width, width);
}

static int read_llmc(TokenFile *f, const char *path, char err[256]) {
    const uint8_t *p = f->map;
    bool wide = number(p, 4) == 20240801;
    int64_t version = number(p + 4, 4), n = number(p + 8, 4), width = wide ? 4 : 2;
    if (version != (wide ? 7 : 1)) return fail(err, "%s: version %" PRId64 " of llm.c's format is not known", path, version);
    if (n < 1 || (uint64_t)n * (uint64_t)width != f->map_bytes - LLMC_HEADER)
        return fail(err, "%s: cut off? its header says %" PRId64 " tokens, behind it are %zu bytes", path, n, f->map_bytes - LLMC_HEADER);
    f->kind = "llm.c";
    f->token = p + LLMC_HEADER;
    f->dtype = wide ? DT_I32 : SN_FILE_U16;
    f->n = n;
    return 0;
}

static int read_raw(TokenFile *f, const char *path, char err[256]) {
    if (f->map_bytes % 2) return fail(err, "%s: %zu bytes: neither llm.c's format nor an even number, as u16 tokens are", path, f->map_bytes);
    f->kind = "nanoGPT";
    f->token = f->map;
    f->dtype = SN_FILE_U16;
    f->n = (int64_t)(f->map_bytes / 2);
    return 0;
}

/* Documents that `eod` parts; none of its tokens: one document. */
static int find_documents(TokenFile *f, const char *path, int64_t eod, char err[256]) {
    int64_t found = 0;
    for (int64_t i = 0; i < f->n; i++) found += token_file_at(f, i) == eod;
    int64_t before = token_file_at(f, 0) == eod ? 0 : 1;
    if (!found) return 0;
    f->document = malloc(sizeof *f->document * (size_t)(found + 1));
    if (!f->document) return fail(err, "%s: out of memory", path);
    f->document[f->ndocuments++] = 0;
    for (int64_t i = 0; i < f->n; i++)
        if (token_file_at(f, i) == eod && i + before > 0 && i + before < f->n) f->document[f->ndocuments++] = i + before;
    return 0;
}

/* -- Megatron ------------------------------------------------------------------------------------------------------------------ */

typedef struct Index { const uint8_t *length, *begin, *document; int64_t sequences, documents; } Index;

static int dtype_of(int code) { return code == 1 ? SN_FILE_U8 : code == 8 ? SN_FILE_U16 : code == 4 ? DT_I32 : 0; }

static int read_index(TokenFile *f, const char *path, const uint8_t *p, size_t bytes, Index *x, char err[256]) {
    if (bytes < IDX_HEADER || memcmp(p, IDX_MAGIC, 9)) return fail(err, "%s: not an index of Megatron: no MMIDIDX", path);
    if (number(p + 9, 8) != 1) return fail(err, "%s: version %" PRId64 " of the index is not known", path, number(p + 9, 8));
    f->dtype = (uint8_t)dtype_of(p[17]);
    if (!f->dtype) return fail(err, "%s: tokens of type %d; u8, u16 and i32 (1, 8, 4) are known", path, p[17]);
    x->sequences = number(p + 18, 8);
    x->documents = number(p + 26, 8);
    uint64_t room = bytes - IDX_HEADER;
    if (x->sequences < 1 || x->documents < 2 || (uint64_t)x->sequences > room / 12 || (uint64_t)x->documents > (room - (uint64_t)x->sequences * 12) / 8)
        return fail(err, "%s: cut off? it cannot hold %" PRId64 " sequences and %" PRId64 " documents", path, x->sequences, x->documents);
    x->length = p + IDX_HEADER;
    x->begin = x->length + 4 * x->sequences;
    x->document = x->begin + 8 * x->sequences;
    return 0;
}

/* The sequences must be all of the .bin, in order: tokens are used in place. */
static int take_sequences(TokenFile *f, const char *path, const Index *x, char err[256]) {
    int width = width_of(f->dtype);
    int64_t at = 0, next = 0, kept = 0;
    f->document = malloc(sizeof *f->document * (size_t)x->documents);
    if (!f->document) return fail(err, "%s: out of memory", path);
    for (int64_t i = 0; i < x->sequences; i++) {
        for (; next < x->documents && number(x->document + 8 * next, 8) == i; next++) {
            if (kept && f->document[kept - 1] == at) kept--;     /* it was empty */
            f->document[kept++] = at;
        }
        int64_t n = number(x->length + 4 * i, 4);
        if (n < 0 || number(x->begin + 8 * i, 8) != at * width || (uint64_t)(at + n) > f->map_bytes / (unsigned)width)
            return fail(err, "%s: sequence %" PRId64 " does not follow the one before it in the .bin", path, i);
        at += n;
    }
    while (next < x->documents && number(x->document + 8 * next, 8) == x->sequences) next++;
    if (next < x->documents || !kept || f->document[0] != 0) return fail(err, "%s: its documents are out of order", path);
    if (at < 1 || (uint64_t)at * (unsigned)width != f->map_bytes)
        return fail(err, "%s: its sequences are %" PRId64 " tokens, the .bin has %zu bytes of %d each", path, at, f->map_bytes, width);
    if (f->document[kept - 1] == at) kept--;
    f->n = at;
    f->ndocuments = kept;
    f->token = f->map;
    f->kind = "Megatron";
    return 0;
}

static int read_megatron(TokenFile *f, const char *idx, char err[256]) {
    void *map;
    size_t bytes = 0;
    Index x = {0};
    int rc = map_file(idx, &map, &bytes, err);
    if (rc) return rc;
    rc = read_index(f, idx, map, bytes, &x, err);
    if (!rc) rc = take_sequences(f, idx, &x, err);
    munmap(map, bytes);
    return rc;
}

/* -- Opening --------------------------------------------------------------------------------------------------------------------- */

static int check_tokens(const TokenFile *f, const char *path, char err[256]) {
    for (int64_t i = 0; i < f->n && f->dtype == DT_I32; i++)
        if (token_file_at(f, i) < 0) return fail(err, "%s: token %" PRId64 " is negative or above 2^31 - 1", path, i);
    return 0;
}

static int read_others(TokenFile *f, const char *path, int64_t eod, char err[256]) {
    char bin[1024], idx[1024];
    int stem = (int)strlen(path) - 4;
    if (snprintf(bin, sizeof bin, "%.*s.bin", stem, path) >= (int)sizeof bin) return fail(err, "%.200s: path too long", path);
    snprintf(idx, sizeof idx, "%.*s.idx", stem, path);
    int rc = map_file(bin, &f->map, &f->map_bytes, err);
    bool indexed = ends_with(path, ".idx") || access(idx, R_OK) == 0;
    int64_t magic = !rc && f->map_bytes >= LLMC_HEADER ? number(f->map, 4) : 0;
    if (!rc) rc = indexed ? read_megatron(f, idx, err) : magic == 20240520 || magic == 20240801 ? read_llmc(f, bin, err) : read_raw(f, bin, err);
    if (!rc) rc = check_tokens(f, bin, err);
    if (!rc && !indexed) rc = find_documents(f, bin, eod < 0 && f->dtype == SN_FILE_U16 ? GPT2_EOD : eod, err);
    return rc;
}

/* A shard of our own: the runtime opens it, and refuses what is out of order there (data.c); here the tokens in place. */
static int read_shard(TokenFile *f, const char *path, char err[256]) {
    f->kind = SHARD_FORMAT_NAMES[SHARD_SINTER];
    sn_data *d = sn_data_open(&(sn_data_desc){ .path = path, .window = 1 }, err);
    if (!d) return -1;
    sn_data_close(d);
    if (!(f->shard = sn_file_open(path, err))) return -1;
    const sn_tensor *t = sn_file_find(f->shard, "tokens"), *documents = sn_file_find(f->shard, "documents");
    f->token = t->data;
    f->dtype = t->dtype;
    f->n = t->dim[0];
    if (!documents) return 0;
    f->document = malloc(documents->bytes);
    if (!f->document) return fail(err, "%s: out of memory", path);
    memcpy(f->document, documents->data, documents->bytes);
    f->ndocuments = documents->dim[0];
    return 0;
}

int token_file_open(TokenFile *f, const char *path, int64_t eod, char err[256]) {
    *f = (TokenFile){0};
    int rc = ends_with(path, ".safetensors") ? read_shard(f, path, err) : read_others(f, path, eod, err);
    if (rc) token_file_close(f);
    return rc;
}

void token_file_close(TokenFile *f) {
    if (f->map) munmap(f->map, f->map_bytes);
    if (f->shard) sn_file_close(f->shard);
    free(f->document);
    *f = (TokenFile){0};
}

/* -- Writing ---------------------------------------------------------------------------------------------------------------------- */

typedef struct Parts { const void *p[5]; size_t n[5]; int count; } Parts;

static void add_part(Parts *parts, const void *p, size_t n) { parts->p[parts->count] = p, parts->n[parts->count++] = n; }

static bool write_parts(int fd, void *arg) {
    const Parts *parts = arg;
    bool ok = true;
    for (int i = 0; i < parts->count && ok; i++) ok = snR_write_all(fd, parts->p[i], parts->n[i]);
    return ok;
}

static int write_shard(const char *path, const void *token, uint8_t dtype, int64_t n, const int64_t *document, int64_t ndocuments,
                       const char *tokenizer, int64_t vocab, int64_t eod, char err[256]) {
    char vocab_text[24], eod_text[24], hash[24];
    snprintf(vocab_text, sizeof vocab_text, "%" PRId64, vocab);
    snprintf(eod_text, sizeof eod_text, "%" PRId64, eod);
    snprintf(hash, sizeof hash, "%016" PRIx64, XXH3_64bits(token, (size_t)n * (size_t)width_of(dtype)));
    const char *meta[10] = { "tokenizer", tokenizer, "hash", hash };
    int k = 4;
    if (vocab > 0) meta[k++] = "vocab", meta[k++] = vocab_text;
    if (eod >= 0) meta[k++] = "eod", meta[k++] = eod_text;
    sn_tensor t[2] = { { .name = "tokens", .dtype = dtype, .rank = 1, .dim = { n }, .data = token, .bytes = (size_t)n * (size_t)width_of(dtype) },
                       { .name = "documents", .dtype = SN_FILE_I64, .rank = 1, .dim = { ndocuments }, .data = document, .bytes = 8 * (size_t)ndocuments } };
    return sn_file_write(path, t, ndocuments ? 2 : 1, meta, err) ? -1 : 0;
}

int token_file_convert(const TokenFile *f, const char *out, int64_t eod, char err[256]) {
    return write_shard(out, f->token, f->dtype, f->n, f->document, f->ndocuments, f->kind, 0, eod, err);
}

/* The tokens as u16, or NULL with a line. */
static uint16_t *narrow(const char *path, const TokenText *t, char err[256]) {
    uint16_t *v = malloc(2 * (size_t)t->n + 2);
    if (!v) fail(err, "%s: out of memory", path);
    for (int64_t i = 0; v && i < t->n; i++) {
        if (t->v[i] > UINT16_MAX) {
            fail(err, "%s: the token %d does not fit into 16 bits, which this format has", path, t->v[i]);
            free(v);
            return NULL;
        }
        v[i] = (uint16_t)t->v[i];
    }
    return v;
}

static int write_megatron(const char *path, const TokenText *t, const void *token, uint8_t code, char err[256]) {
    int64_t n = t->ndocuments, *begin = malloc(8 * (size_t)n), *first = malloc(8 * (size_t)(n + 1)), width = code == 8 ? 2 : 4;
    int32_t *length = malloc(4 * (size_t)n);
    uint8_t head[IDX_HEADER] = {0};
    char *idx = strdup(path);
    int rc = begin && first && length && idx ? 0 : fail(err, "%s: out of memory", path);
    for (int64_t i = 0; i < n && !rc; i++) {
        int64_t size = (i + 1 < n ? t->document[i + 1] : t->n) - t->document[i];
        if (size > INT32_MAX) rc = fail(err, "%s: a document has more than 2^31 tokens", path);
        length[i] = (int32_t)size;
        begin[i] = t->document[i] * width;
        first[i] = i;
    }
    if (!rc) {
        first[n] = n;
        memcpy(head, IDX_MAGIC, 9);
        head[9] = 1;
        head[17] = code;
        memcpy(head + 18, &n, 8);
        memcpy(head + 26, &(int64_t){ n + 1 }, 8);
        memcpy(idx + strlen(idx) - 4, ".idx", 4);
        Parts bin = {0}, index = {0};
        add_part(&bin, token, (size_t)(t->n * width));
        add_part(&index, head, sizeof head);
        add_part(&index, length, 4 * (size_t)n);
        add_part(&index, begin, 8 * (size_t)n);
        add_part(&index, first, 8 * (size_t)(n + 1));
        rc = snR_replace(path, write_parts, &bin, err) || snR_replace(idx, write_parts, &index, err) ? -1 : 0;
    }
    free(begin);
    free(first);
    free(length);
    free(idx);
    return rc;
}

static int write_llmc(const char *path, const TokenText *t, const uint16_t *token, char err[256]) {
    int32_t head[LLMC_HEADER / 4] = { 20240520, 1, (int32_t)t->n };
    Parts p = {0};
    if (t->n > INT32_MAX) return fail(err, "%s: more than 2^31 tokens: llm.c's format has no room for their number", path);
    add_part(&p, head, sizeof head);
    add_part(&p, token, 2 * (size_t)t->n);
    return snR_replace(path, write_parts, &p, err) ? -1 : 0;
}

static int write_raw(const char *path, const TokenText *t, const uint16_t *token, char err[256]) {
    Parts p = {0};
    add_part(&p, token, 2 * (size_t)t->n);
    return snR_replace(path, write_parts, &p, err) ? -1 : 0;
}

int token_file_write(const char *path, ShardFormat format, const TokenText *t, char err[256]) {
    bool wide = t->vocab > 1 << 16 && (format == SHARD_SINTER || format == SHARD_MEGATRON);
    if (t->n < 1) return fail(err, "%s: there are no tokens to write", path);
    if (format != SHARD_SINTER && !ends_with(path, ".bin")) return fail(err, "%s: files of this format end in .bin", path);
    uint16_t *half = wide ? NULL : narrow(path, t, err);
    const void *token = wide ? (const void *)t->v : half;
    int rc = token ? 0 : -1;
    if (!rc && format == SHARD_SINTER)
        rc = write_shard(path, token, wide ? DT_I32 : SN_FILE_U16, t->n, t->document, t->ndocuments, t->tokenizer, t->vocab, t->eod, err);
    if (!rc && format == SHARD_LLMC) rc = write_llmc(path, t, half, err);
    if (!rc && format == SHARD_NANOGPT) rc = write_raw(path, t, half, err);
    if (!rc && format == SHARD_MEGATRON) rc = write_megatron(path, t, token, wide ? 4 : 8, err);
    free(half);
    return rc;
}
