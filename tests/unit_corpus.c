/* unit_corpus.c: tools/corpus.c on a folder that is made here: split, exact budgets, duplicates,
   overlap, prepared shards.

   Prints every failed check and `N passed, N failed`. */
#define _GNU_SOURCE
#include "runtime/sn_rt.h"
#include "tools/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int passed, failed;
static char folder[200];

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) {                                                                                \
            passed++;                                                                              \
        } else {                                                                                   \
            failed++;                                                                              \
            printf("%s:%d: failed: %s:", __FILE__, __LINE__, #cond);                               \
            printf(" " __VA_ARGS__);                                                               \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

static const char *at(const char *name)
{
    static char path[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", folder, name);
    return path[k];
}

static void spill(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(at(name), "wb");
    if (!f || fwrite(text, 1, n, f) != n)
        abort();
    fclose(f);
}

/* Text that no other (file, place) has. */
static void make_text(char *out, size_t n, uint32_t file)
{
    uint32_t key[2] = { file, 0 }, w[4];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t ctr[4] = { i, 0, 0, 0 };
        sn_philox(key, ctr, w);
        out[i] = (char)('a' + w[0] % 26);
    }
}

static void make_files(void)
{
    static char text[40000];
    char name[64];
    mkdir(at("in"), 0777);
    mkdir(at("in/deep"), 0777);
    for (uint32_t i = 0; i < 40; i++) {
        make_text(text, 10000, i);
        snprintf(name, sizeof name, "in/%sf%02u.txt", i % 2 ? "deep/" : "", i);
        spill(name, text, 10000);
    }
    spill("in/zz-copy.txt", text, 10000);        /* a duplicate of file 39 */
    spill("in/empty.txt", text, 0);
    spill("in/.hidden", "hidden", 6);
    spill("in/binary", "a\0b", 3);
    make_text(text, 2048, 100);
    memcpy(text + 2048, text, 1024);             /* a duplicate piece */
    spill("in/twice.txt", text, 3072);
    if (symlink("..", at("in/loop")))
        abort();
}

static int read_shard(const char *path, uint16_t *out, int64_t n)
{
    char err[256];
    sn_file *f = sn_file_open(path, err);
    const sn_tensor *t = f ? sn_file_find(f, "tokens") : NULL;
    bool ok = t && t->dtype == SN_FILE_U16 && t->dim[0] == n;
    if (ok)
        memcpy(out, t->data, t->bytes);
    sn_file_close(f);
    return ok;
}

static void test_split(void)
{
    enum { UNIQUE = 200000, VAL = 25000, TEST = 15000 };
    static uint16_t a[UNIQUE], b[UNIQUE], v[VAL], v2[VAL];
    char err[256] = "";
    const char *in[] = { at("in") };
    char out[256];
    snprintf(out, sizeof out, "%s/out", folder);
    CorpusInfo info, more;
    CorpusDesc d = { .paths = in,
                     .npaths = 1,
                     .out = out,
                     .unique = UNIQUE,
                     .val_bytes = VAL,
                     .test_bytes = TEST,
                     .split_seed = 1,
                     .seed = 2 };
    char kept[512];
    snprintf(kept, sizeof kept, "%s", in[0]);
    in[0] = kept;
    CHECK(!corpus_prepare(&d, &info, err), "%s", err);
    CHECK(info.files == 41 && info.bytes == 403072 && info.duplicate_files == 1 &&
          info.binary == 1 && info.duplicate_pieces == 1 && info.vocab == 257 && info.mask == 256);
    CHECK(info.train.bytes == UNIQUE && info.val.bytes == VAL && info.test.bytes == TEST);
    CHECK(info.val.overlap == 0 && info.test.overlap == 0, "%g", info.val.overlap);
    CHECK(read_shard(info.train.path, a, UNIQUE) && read_shard(info.val.path, v, VAL));
    d.unique = UNIQUE / 2;
    CHECK(!corpus_prepare(&d, &more, err) && more.val.hash == info.val.hash &&
          more.test.hash == info.test.hash);
    CHECK(read_shard(more.train.path, b, UNIQUE / 2) && !memcmp(a, b, UNIQUE)); /* nested budgets */
    d.seed = 3, d.unique = UNIQUE;
    CHECK(!corpus_prepare(&d, &more, err) && more.train.hash != info.train.hash &&
          more.val.hash == info.val.hash);
    d.split_seed = 4, d.seed = 2;
    CHECK(!corpus_prepare(&d, &more, err) && more.val.hash != info.val.hash &&
          read_shard(more.val.path, v2, VAL));
    d.split_seed = 1;
    CHECK(!corpus_prepare(&d, &more, err) && more.train.hash == info.train.hash);
    d.unique = 0, d.val_bytes = d.test_bytes = 0;
    CHECK(!corpus_prepare(&d, &more, err) && more.train.bytes == 403072 - 1024 &&
          !more.val.path[0]);
    d.unique = 403072;
    CHECK(corpus_prepare(&d, &more, err) < 0 && strstr(err, "403072"), "%s", err);
    d.unique = 1000, d.val_bytes = 1 << 20;
    CHECK(corpus_prepare(&d, &more, err) < 0 && strstr(err, "validation"), "%s", err);
}

/* One file, so sections; its second half repeats the first, shifted so that no piece or section is
 * equal. */
static void test_overlap(void)
{
    enum { HALF = 500001 };
    static char text[2 * HALF];
    char err[256] = "", out[256], file[256];
    make_text(text, HALF, 7);
    memcpy(text + HALF, text, HALF);
    spill("one.txt", text, 2 * HALF);
    snprintf(out, sizeof out, "%s/out2", folder);
    snprintf(file, sizeof file, "%s", at("one.txt"));
    const char *in[] = { file };
    CorpusInfo info;
    CorpusDesc d = { .paths = in, .npaths = 1, .out = out, .val_bytes = 60000, .split_seed = 1 };
    CHECK(!corpus_prepare(&d, &info, err), "%s", err);
    CHECK(info.cut_files == 1 && info.val.overlap > 0.9, "%g", info.val.overlap);
    const char *shard[] = { out };
    d = (CorpusDesc){ .paths = shard, .npaths = 1 };
    CorpusInfo again;
    CHECK(!corpus_prepare(&d, &again, err) && again.prepared &&
              again.train.bytes == info.train.bytes && again.train.hash == info.train.hash &&
              again.vocab == 257 && again.mask == 256 && !again.test.path[0],
          "%s", err);
    shard[0] = info.train.path;
    CHECK(!corpus_prepare(&d, &again, err) && again.prepared && !again.val.path[0]);
    CHECK(again.train.bytes == info.train.bytes);
}

/* Where documents begin: whole files in order, so a file is one; pieces drawn at random are one each. */
static void test_documents(void)
{
    char err[256] = "", out[256], in[256];
    snprintf(out, sizeof out, "%s/out3", folder);
    snprintf(in, sizeof in, "%s", at("in"));
    const char *paths[] = { in };
    CorpusInfo info;
    CorpusDesc d = { .paths = paths, .npaths = 1, .out = out };
    for (int eod = 0; eod < 2; eod++)
        for (int unique = 0; unique < 2; unique++) {
            d.eod = eod, d.unique = unique ? 5000 : 0;
            CHECK(!corpus_prepare(&d, &info, err), "%s", err);
            sn_file *f = sn_file_open(info.train.path, err);
            const sn_tensor *tokens = f ? sn_file_find(f, "tokens") : NULL;
            const sn_tensor *docs = f ? sn_file_find(f, "documents") : NULL;
            int64_t n = docs ? docs->dim[0] : 0, wrong = 0, bytes = unique ? 5000 : 402048;
            CHECK(unique ? n >= 4 && n <= 6 : n == 41, "%d documents", (int)n);
            CHECK(info.documents == n && tokens && tokens->dim[0] == bytes + eod * n && info.train.bytes == tokens->dim[0]);
            for (int64_t k = 1; k <= n && tokens && eod; k++) {
                int64_t at = k < n ? ((const int64_t *)docs->data)[k] : tokens->dim[0];
                wrong += ((const uint16_t *)tokens->data)[at - 1] != 256;
            }
            CHECK(!wrong && info.vocab == 257 + eod && info.mask == 256 + eod, "%d documents without end", (int)wrong);
            sn_file_close(f);
        }
}

/* Records: every one whole, its prompt not scored, its answer and end scored; refused lines by number. */
static void test_records(void)
{
    char err[256] = "", out[256], file[256], text[8000];
    size_t n = 0;
    for (int i = 0; i < 50; i++)
        n += (size_t)sprintf(text + n, "{\"prompt\": \"q%02d\\u00e9 \", \"completion\": \"a%02d%.*s\", \"more\": 1}\n%s", i, i, i % 7, "xxxxxxx", i % 9 ? "" : "\n");
    n += (size_t)sprintf(text + n, "{\"prompt\": \"q07\\u00e9 \", \"completion\": \"a07\"}");      /* a duplicate, no newline */
    spill("sft.jsonl", text, n);
    snprintf(out, sizeof out, "%s/out4", folder);
    snprintf(file, sizeof file, "%s", at("sft.jsonl"));
    const char *in[] = { file, file };
    CorpusInfo info;
    CorpusDesc d = { .paths = in, .npaths = 1, .out = out, .val_bytes = 60, .test_bytes = 30, .seed = 1 };
    CHECK(!corpus_prepare(&d, &info, err), "%s", err);
    CHECK(info.records && info.vocab == 258 && info.mask == 257 && info.duplicate_pieces == 1);
    int seen[50] = { 0 }, all = 0;
    const char *paths[] = { info.train.path, info.val.path, info.test.path };
    for (int p = 0; p < 3; p++) {
        sn_file *f = sn_file_open(paths[p], err);
        const sn_tensor *tokens = sn_file_find(f, "tokens"), *docs = sn_file_find(f, "documents"), *scored = sn_file_find(f, "scored");
        const uint16_t *t = tokens->data;
        const uint8_t *s = scored->data;
        CHECK(scored->dim[0] == tokens->dim[0] && sn_file_meta(f, "records") && !strcmp(sn_file_meta(f, "eod"), "256"));
        for (int64_t k = 0; k < docs->dim[0]; k++) {
            int64_t a = ((const int64_t *)docs->data)[k], b = k + 1 < docs->dim[0] ? ((const int64_t *)docs->data)[k + 1] : tokens->dim[0];
            int id = (t[a + 1] - '0') * 10 + t[a + 2] - '0';
            bool good = t[a] == 'q' && id >= 0 && id < 50 && t[b - 1] == 256 && b - a == 6 + 3 + id % 7 + 1 && t[a + 6] == 'a';
            for (int64_t i = a; i < b; i++)
                good = good && s[i] == (i >= a + 6);
            CHECK(good, "record %d", id);
            seen[id]++, all++;
        }
        sn_file_close(f);
    }
    for (int i = 0; i < 50; i++)
        CHECK(seen[i] == 1, "record %d: %d times", i, seen[i]);
    CHECK(all == 50);
    const struct { const char *text, *error; } bad[] = {
        { "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n", "sft.jsonl:2: an object with" },
        { "\n[1]\n", "sft.jsonl:2: an object with" }, { "{\"prompt\": \"a\", \"completion\": \"\"}", "sft.jsonl:1: the completion is empty" },
        { "{\"prompt\": \"a\", \"completion\": 3}", "sft.jsonl:1: an object with" }, { "{\"prompt\"", "sft.jsonl:1: no JSON" },
        { "\xff\n", "sft.jsonl:1: no JSON" }, { "\n\n", "no records" },
        { "{\"prompt\": \"a\", \"completion\": \"b\"}\n", "too few" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        spill("sft.jsonl", bad[i].text, strlen(bad[i].text));
        CHECK(corpus_prepare(&d, &info, err) < 0 && strstr(err, bad[i].error), "%s", err);
    }
    in[1] = at("in");
    d.npaths = 2;
    spill("sft.jsonl", bad[7].text, strlen(bad[7].text));
    CHECK(corpus_prepare(&d, &info, err) < 0 && strstr(err, "mixed"), "%s", err);
}

/* Held out from one folder, trained on others: what is held out does not depend on them, and is not trained on. */
static void test_held(void)
{
    char err[256] = "", out[256], in[256], other[256], both[256], text[9000];
    mkdir(at("other"), 0777);
    mkdir(at("both"), 0777);
    for (uint32_t i = 0; i < 3; i++) {
        make_text(text, sizeof text, 200 + i);
        spill(i ? i == 1 ? "other/b" : "both/c" : "other/a", text, sizeof text);
    }
    snprintf(out, sizeof out, "%s/out5", folder);
    snprintf(in, sizeof in, "%s", at("in"));
    snprintf(other, sizeof other, "%s", at("other"));
    snprintf(both, sizeof both, "%s", at("both"));
    const char *held[] = { in }, *paths[] = { in, other };
    CorpusInfo alone, same, far;
    CorpusDesc d = { .paths = paths, .npaths = 1, .out = out, .val_bytes = 25000, .test_bytes = 15000, .split_seed = 3, .seed = 1 };
    CHECK(!corpus_prepare(&d, &alone, err), "%s", err);
    d.held = held, d.nheld = 1;
    CHECK(!corpus_prepare(&d, &same, err) && same.val.hash == alone.val.hash && same.test.hash == alone.test.hash &&
              same.train.hash == alone.train.hash && same.duplicate_files == 2, "%s", err);
    paths[0] = other;
    CHECK(!corpus_prepare(&d, &far, err) && far.val.hash == alone.val.hash && far.test.hash == alone.test.hash &&
              far.train.bytes == 18000 && far.val.overlap == 0, "%s", err);
    paths[1] = both, d.npaths = 2;
    CHECK(!corpus_prepare(&d, &far, err) && far.val.hash == alone.val.hash && far.train.bytes == 27000);
    d.val_bytes = 1 << 20;
    CHECK(corpus_prepare(&d, &far, err) < 0 && strstr(err, "validation"), "%s", err);
}

static int by_size(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The units of a text, sorted. */
static int units_of(const uint16_t *t, int64_t n, const char *kind, char **out)
{
    static char copy[2][20000];
    static int turn;
    char *c = copy[turn ^= 1];
    int k = 0;
    for (int64_t i = 0; i < n; i++)
        c[i] = (char)t[i];
    c[n] = 0;
    for (char *w = strtok(c, *kind == 'l' ? "\n" : " .\n"); w; w = strtok(NULL, *kind == 'l' ? "\n" : " .\n"))
        out[k++] = w;
    qsort(out, (size_t)k, sizeof *out, by_size);
    return k;
}

static void test_corrupt(void)
{
    static uint16_t clean[15000], now[15000], again[15000];
    static char *a[8000], *b[8000];
    char err[256] = "", out[256], file[256], text[15001];
    size_t n = 0;
    for (uint32_t i = 0; n + 40 < 15000; i++)
        n += (size_t)sprintf(text + n, "w%u%.*s%s", i * 7919 % 1000, (int)(i % 5), "abcde", i % 11 ? " " : i % 33 ? ".\n" : "\n");
    spill("plain", text, n);
    snprintf(out, sizeof out, "%s/out6", folder);
    snprintf(file, sizeof file, "%s", at("plain"));
    const char *in[] = { file };
    CorpusInfo info, other;
    CorpusDesc d = { .paths = in, .npaths = 1, .out = out, .seed = 1, .unique = 8000 };
    CHECK(!corpus_prepare(&d, &info, err) && read_shard(info.train.path, clean, 8000), "%s", err);
    static const char *const how[] = { "bytes:0.2", "words:0.3", "lines:0.5", "words:1", "bytes:0" };
    for (int k = 0; k < 5; k++) {
        d.corrupt = how[k];
        CHECK(!corpus_prepare(&d, &other, err) && read_shard(other.train.path, now, 8000), "%s", err);
        CHECK(!corpus_prepare(&d, &other, err) && read_shard(other.train.path, again, 8000) && !memcmp(now, again, sizeof now));
        int moved = 0, counts[256] = { 0 }, wrong = 0;
        for (int i = 0; i < 8000; i++)
            moved += now[i] != clean[i], counts[now[i]]++, counts[clean[i]]--;
        for (int i = 0; i < 256; i++)
            wrong += counts[i] != 0;
        CHECK(!wrong && other.documents == info.documents, "%s: %d byte values come more or less often", how[k], wrong);
        CHECK(k < 4 ? moved > 500 : moved == 0, "%s: %d bytes differ", how[k], moved);
        if (k == 0)
            CHECK(abs(moved - 1500) < 200, "bytes:0.2: %d of 8000 bytes differ", moved);
        if (how[k][0] == 'b')
            continue;
        int na = 0, nb = 0, same = 0;            /* units that a piece ends in are cut there */
        na = units_of(clean, 8000, how[k], a), nb = units_of(now, 8000, how[k], b);
        for (int i = 0, j = 0; i < na && j < nb;) {
            int order = strcmp(a[i], b[j]);
            same += order == 0, i += order <= 0, j += order >= 0;
        }
        CHECK(na > 100 && same > na - 40, "%s: %d of %d units are there still", how[k], same, na);
        sn_file *f = sn_file_open(other.train.path, err);
        const sn_tensor *docs = sn_file_find(f, "documents");
        bool good = docs && sn_file_meta(f, "corrupt") && !strcmp(sn_file_meta(f, "corrupt"), how[k]);
        for (int64_t i = 1; good && i < docs->dim[0]; i++)
            good = ((const int64_t *)docs->data)[i] > ((const int64_t *)docs->data)[i - 1] && ((const int64_t *)docs->data)[i] < 8000;
        CHECK(good);
        sn_file_close(f);
    }
    const char *shard[] = { out };
    d = (CorpusDesc){ .paths = shard, .npaths = 1, .corrupt = "bytes:0" };
    CHECK(!corpus_prepare(&d, &other, err), "%s", err);
    d.corrupt = NULL;
    CHECK(corpus_prepare(&d, &other, err) < 0 && strstr(err, "bytes:0"), "%s", err);
    d = (CorpusDesc){ .paths = in, .npaths = 1, .out = out };
    for (int k = 0; k < 4; k++) {
        d.corrupt = (const char *const[]){ "words", "words:1.5", "verbs:0.1", "bytes:x" }[k];
        CHECK(corpus_prepare(&d, &other, err) < 0 && strstr(err, "corrupted by"), "%s", err);
    }
}

static void test_errors(void)
{
    char err[256] = "", path[256];
    snprintf(path, sizeof path, "%s", at("nothing-here"));
    const char *in[] = { path, path };
    CorpusInfo info;
    CorpusDesc d = { .paths = in, .npaths = 1, .out = folder };
    CHECK(corpus_prepare(&d, &info, err) < 0 && strstr(err, "nothing-here"));
    snprintf(path, sizeof path, "%s", at("in/binary"));
    CHECK(corpus_prepare(&d, &info, err) < 0 && strstr(err, "no text"), "%s", err);
    snprintf(path, sizeof path, "%s", at("x.safetensors"));
    CHECK(corpus_prepare(&d, &info, err) < 0);
    d.npaths = 2;
    CHECK(corpus_prepare(&d, &info, err) < 0 && strstr(err, "mixed"));
    d.npaths = 0;
    CHECK(corpus_prepare(&d, &info, err) < 0);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.150s/sinter-corpus-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    make_files();
    test_split();
    test_overlap();
    test_documents();
    test_records();
    test_held();
    test_corrupt();
    test_errors();
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command))
        printf("cannot remove %s\n", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
