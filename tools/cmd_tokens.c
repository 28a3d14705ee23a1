/* cmd_tokens.c: `sinter tokens`: text to token files; or what is in a token file.

   In:  files and folders of text, each file a document, and a tokenizer; or a shard, .bin or .idx. Out: a file of tokens, or a line of counts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fts.h>

#include "tools/shards.h"
#include "tools/text.h"

typedef struct TokensJob {
    const char *out;
    ShardFormat format;
    const Tokenizer *tok;
    bool eod, verify;
    Arena arena;
    int32_t *v;
    int64_t n, room, bytes, skipped;
    VEC(int64_t) documents;
    double seconds;                  /* of encoding alone */
} TokensJob;

/* -- Token files --------------------------------------------------------------------------------------------------------------------- */

static int describe(const TokensJob *j, const char *path) {
    char err[256];
    TokenFile f;
    int32_t largest = 0;
    if (token_file_open(&f, path, j->tok->eod, err)) return cmd_fail("%s", err);
    if (f.shard && j->out) {
        token_file_close(&f);
        return cmd_fail("%s is a shard already; --out makes one of a token file of others", path);
    }
    for (int64_t i = 0; i < f.n; i++) largest = token_file_at(&f, i) > largest ? token_file_at(&f, i) : largest;
    printf("%s: %s, %lld tokens, the largest %d", path, f.kind, (long long)f.n, largest);
    if (f.ndocuments) printf(", %lld documents\n", (long long)f.ndocuments);
    else printf("; it does not say where documents begin\n");
    int rc = j->out && token_file_convert(&f, j->out, j->tok->eod, err) ? cmd_fail("%s", err) : 0;
    token_file_close(&f);
    return rc;
}

/* -- Text --------------------------------------------------------------------------------------------------------------------------- */

static void append(TokensJob *j, const int32_t *v, int64_t n) {
    if (j->n + n > j->room) {
        j->room = 2 * (j->n + n) + 1024;
        j->v = realloc(j->v, sizeof *j->v * (size_t)j->room);
        if (!j->v) abort();
    }
    memcpy(j->v + j->n, v, sizeof *v * (size_t)n);
    j->n += n;
}

static int verify(const TokensJob *j, const char *path, const char *text, size_t n, const Tokens *t) {
    size_t got = 0;
    char *back = j->tok->decode(j->tok, t->v, t->n, &got);
    bool same = back && got == n && !memcmp(back, text, n);
    free(back);
    return same ? 0 : cmd_fail("%s: its tokens give other bytes", path);
}

static int add_text(TokensJob *j, const char *path) {
    size_t n = 0;
    Tokens t;
    char *text = read_text(path, &n);
    if (!text) return cmd_fail("%s: %s", path, strerror(errno));
    double t0 = snU_now();
    int rc = j->tok->encode(j->tok, text, n, &t);
    j->seconds += snU_now() - t0;
    if (!rc && j->verify) rc = verify(j, path, text, n, &t);
    if (!rc && n) {
        PUSH(&j->arena, j->documents, j->n);
        append(j, t.v, t.n);
        if (j->eod) append(j, &j->tok->eod, 1);
    }
    j->bytes += (int64_t)n;
    if (!rc) free(t.v);
    free(text);
    return rc;
}

static int by_name(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }

static int add_all(TokensJob *j, const StrList *paths) {
    char **list = calloc((size_t)paths->n + 1, sizeof *list);
    int rc = 0;
    for (int i = 0; i < paths->n; i++) {
        list[i] = (char *)paths->v[i];
        if (!file_exists(list[i])) rc = cmd_fail("%s: %s", list[i], strerror(errno));
        if (rc) break;
    }
    FTS *walk = rc ? NULL : fts_open(list, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    for (FTSENT *e; walk && !rc && (e = fts_read(walk)); ) {
        bool hidden = e->fts_level > 0 && e->fts_name[0] == '.';
        if (hidden) fts_set(walk, e, FTS_SKIP);
        else if (e->fts_info == FTS_F) rc = add_text(j, e->fts_path);
        else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS) rc = cmd_fail("%s: %s", e->fts_path, strerror(e->fts_errno));
    }
    if (walk) fts_close(walk);
    free(list);
    return rc;
}

static int make_tokens(TokensJob *j, const StrList *paths) {
    char err[256];
    int rc = add_all(j, paths);
    if (rc) return rc;
    printf("%lld bytes in %u documents, %lld tokens, %.2f bytes each, %.1f MB/s%s\n", (long long)j->bytes, j->documents.n, (long long)j->n,
           j->n ? (double)j->bytes / (double)j->n : 0, j->seconds > 0 ? 1e-6 * (double)j->bytes / j->seconds : 0, j->verify ? "; decoded, they are the text" : "");
    TokenText t = { j->v, j->n, j->documents.v, j->documents.n, j->tok->vocab, j->eod ? j->tok->eod : -1, j->tok->path ? j->tok->path : "bytes" };
    return j->out && token_file_write(j->out, j->format, &t, err) ? cmd_fail("%s", err) : 0;
}

int cmd_tokens(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    TokensJob j = {0};
    const char *tokenizer = NULL, *format = NULL;
    const Opt opts[] = {
        { "tokenizer", 0, OPT_TEXT, &tokenizer, "FILE", "tokenizer.json, or GPT-2's vocab.json or merges.txt, or a folder with them (default: bytes)" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "where the tokens go" },
        { "format", 0, OPT_TEXT, &format, "F", "sinter (default: a shard for --data), llm.c, nanogpt, megatron (.bin and .idx)" },
        { "eod", 0, OPT_FLAG, &j.eod, "", "the tokenizer's end of text after every document" },
        { "verify", 0, OPT_FLAG, &j.verify, "", "decode, and compare with the text" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    if (!pos.n) return cmd_usage(self, "wants files of text, or a token file");
    while (format && j.format < SHARD_FORMATS && strcmp(format, SHARD_FORMAT_NAMES[j.format])) j.format++;
    if (j.format == SHARD_FORMATS) return cmd_usage(self, "--format is sinter, llm.c, nanogpt or megatron, not '%s'", format);
    if (format && !j.out) return cmd_usage(self, "--format is of --out");
    bool read = is_shard(pos.v[0]);
    if (read && (pos.n > 1 || j.format || j.eod || j.verify)) return cmd_usage(self, "of a token file, it takes that one, --tokenizer for its end of text, and --out for a shard");
    if (!(j.tok = tokenizer_open(tokenizer))) return EXIT_FAILED;
    if (j.eod && j.tok->eod < 0) rc = cmd_fail("%s has no token that ends a text", j.tok->path ? j.tok->path : "the tokenizer of bytes");
    else rc = read ? describe(&j, pos.v[0]) : make_tokens(&j, &pos);
    tokenizer_close(j.tok);
    snU_free_arena(&j.arena);
    free(j.v);
    return rc;
}
