/* unit_bpe.c: the BPE tokenizer against published ids of GPT-2's encoder, against merging by the definition, and back to the bytes; files that
   are wrong. Run in the project's root. */
#include "tests/check.h"
#include "tools/bpe.h"

#include <unistd.h>

static uint64_t state = 7;
static uint32_t draw(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

static void is(const Tokenizer *t, const char *text, size_t n, const int32_t *ids, int64_t count) {
    Tokens got;
    size_t bytes = 0;
    if (t->encode(t, text, n, &got)) { ok(false, "%.40s: no ids", text); return; }
    bool same = got.n == count && !memcmp(got.v, ids, sizeof *ids * (size_t)count);
    ok(same, "%.40s: other ids", text);
    char *back = t->decode(t, got.v, got.n, &bytes);
    ok(back && bytes == n && !memcmp(back, text, n), "%.40s: decoded, it is something else", text);
    free(back);
    free(got.v);
}
#define IS(t, text, ...) is(t, text, sizeof text - 1, (const int32_t[]){ __VA_ARGS__ }, sizeof (const int32_t[]){ __VA_ARGS__ } / sizeof(int32_t))

/* Of tiktoken's own tests of the encoding "gpt2". */
static void published(const Tokenizer *t) {
    IS(t, "hello world", 31373, 995);
    IS(t, "Hello world", 15496, 995);
    IS(t, "Hello, world!", 15496, 11, 995, 0);
    IS(t, "0", 15);
    IS(t, "00", 405);
    IS(t, "000", 830);
    IS(t, "0000", 2388);
    IS(t, "00000", 20483);
    IS(t, "000000", 10535);
    IS(t, "0000000", 24598);
    IS(t, "00000000", 8269);
    IS(t, "000000000", 10535, 830);
    IS(t, "0000000000", 8269, 405);
    IS(t, "00000000000", 8269, 830);
    IS(t, "000000000000", 8269, 2388);
    IS(t, "0000000000000", 8269, 20483);
    IS(t, "00000000000000", 8269, 10535);
    IS(t, "000000000000000", 8269, 24598);
    IS(t, "0000000000000000", 25645);
    IS(t, "00000000000000000", 8269, 10535, 830);
    ok(t->vocab == 50257 && t->eod == 50256, "GPT-2 has 50257 tokens, the last ends a text");
}

/* -- By the definition: the pair of least rank merges, the leftmost of several, until there is none ------------------------------ */

static int64_t merge_slowly(const Bpe *b, const uint8_t *s, int64_t n, int32_t *id) {
    for (int64_t i = 0; i < n; i++) id[i] = b->byte[s[i]];
    for (;;) {
        uint32_t least = UINT32_MAX;
        int64_t at = -1;
        for (int64_t i = 0; i + 1 < n; i++) {
            uint32_t r = snU_find(&b->pairs, bpe_pair(id[i], id[i + 1]));
            if (r && r - 1 < least) least = r - 1, at = i;
        }
        if (at < 0) return n;
        id[at] = b->merged[least];
        memmove(id + at + 1, id + at + 2, sizeof *id * (size_t)(n - at - 2));
        n--;
    }
}

/* Letters alone: one piece of GPT-2's pattern. */
static void pieces(const Tokenizer *t) {
    char s[200];
    int32_t id[200];
    for (int i = 0; i < 4000; i++) {
        uint32_t n = 1 + draw(i % 10 ? 12 : 199), letters = 1 + draw(26);
        for (uint32_t k = 0; k < n; k++) s[k] = (char)('a' + draw(letters));
        is(t, s, n, id, merge_slowly(t->self, (const uint8_t *)s, n, id));
    }
}

/* Any bytes come back, whether they are UTF-8 or not. */
static void round_trips(const Tokenizer *t) {
    static const char *const parts[] = { "<|endoftext|>", "<|pad|>", " the", "\xc3\xa9", "\xe4\xbd\xa0", "\xf0\x9f\x98\x80", "\xed\xa0\x80", "\xff", "\xc3", "\n\n", "   ", "'s" };
    char s[400];
    for (int i = 0; i < 3000; i++) {
        size_t n = 0, bytes = 0;
        Tokens got;
        for (uint32_t k = draw(40); k--; ) {
            if (draw(2)) s[n++] = (char)draw(256);
            else {
                const char *p = parts[draw(sizeof parts / sizeof *parts)];
                memcpy(s + n, p, strlen(p));
                n += strlen(p);
            }
            if (n > 380) break;
        }
        ok(!t->encode(t, s, n, &got), "text %d: no ids", i);
        char *back = t->decode(t, got.v, got.n, &bytes);
        ok(back && bytes == n && !memcmp(back, s, n), "text %d: decoded, it is something else", i);
        free(back);
        free(got.v);
    }
}

/* Normal form C: Annex 15's examples; what is in the form stays; other bytes stay where they are. */
static void normal_forms(void) {
    static const char *const pairs[][2] = {
        { "e\xcc\x81", "\xc3\xa9" }, { "D\xcc\x87\xcc\xa3", "\xe1\xb8\x8c\xcc\x87" }, { "\xe2\x84\xab", "\xc3\x85" },
        { "\xc5\xbf\xcc\xa3\xcc\x87", "\xe1\xba\x9b\xcc\xa3" }, { "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81" },
        { "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc" }, { "e\xcc\x81\xff\xcc\x81", "\xc3\xa9\xff\xcc\x81" }, { "\xcc\x81\xc3\xa9", "\xcc\x81\xc3\xa9" },
        { "\xe4\xbd\xa0\xf0\x9f\x98\x80", "\xe4\xbd\xa0\xf0\x9f\x98\x80" },
    };
    Arena a = {0};
    Nfc *f = nfc_new(&a);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t n = strlen(pairs[i][0]);
        char *got = nfc_text(f, pairs[i][0], &n);
        ok(got && n == strlen(pairs[i][1]) && !memcmp(got, pairs[i][1], n), "normal form %zu", i);
        free(got);
    }
    size_t n = 5;
    ok(!nfc_text(f, "plain", &n) && n == 5, "ASCII is in normal form");
    snU_free_arena(&a);
}

/* A run longer than what PCRE2 backs out of by default. */
static void long_run(void) {
    char err[256] = "";
    size_t n = 12000000, begin = 1, end = 0;
    char *s = malloc(n);
    Split *p = split_new("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", false, err);
    memset(s, ' ', n);
    ok(p && split_next(p, s, n, 0, &begin, &end, err) == 1 && begin == 0 && end == n, "%zu spaces are one piece: %s", n, err);
    split_free(p);
    free(s);
}

/* -- Files that are wrong: each is refused, in one line -------------------------------------------------------------------------- */

static void refuse(const char *what, const char *text) {
    char path[] = "/tmp/sinter-bpe-XXXXXX.json";
    int fd = mkstemps(path, 5);
    ok(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: cannot write", what);
    close(fd);
    fflush(stderr);
    int keep = dup(2);
    FILE *lines = tmpfile();
    dup2(fileno(lines), 2);
    const Tokenizer *t = tokenizer_open(path);
    fflush(stderr);
    dup2(keep, 2);
    close(keep);
    char got[2000] = "";
    rewind(lines);
    size_t n = fread(got, 1, sizeof got - 1, lines);
    fclose(lines);
    ok(!t && n && strchr(got, '\n') == got + n - 1 && strstr(got, what), "'%s' is not what is said: %s", what, got);
    tokenizer_close(t);
    unlink(path);
}

static void wrong_files(void) {
    refuse("not a JSON object", "[1, 2]");
    refuse("it is no tokenizer.json", "{}");
    refuse("only BPE", "{\"model\": {\"type\": \"Unigram\"}}");
    refuse("dropout", "{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1}}");
    refuse("the normalizer 'Lowercase'", "{\"model\": {}, \"normalizer\": {\"type\": \"Lowercase\"}}");
    refuse("the pre-tokenizer 'Metaspace'", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Metaspace\"}}");
    refuse("add_prefix_space", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}");
    refuse("no pre-tokenizer ByteLevel", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Digits\"}}");
    refuse("a Split has no pattern", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Split\"}}");
    refuse("\\w in a pattern", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"\\\\w+\"}}}");
    refuse("missing closing parenthesis", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(a\"}}}");
    refuse("the behavior 'MergedWithNext'", "{\"model\": {}, \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"MergedWithNext\", \"pattern\": {\"String\": \" \"}}}");
#define BYTES "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}"
    refuse("\"vocab\" is not an object", "{\"model\": {}, " BYTES "}");
    refuse("the id of the token 'a'", "{\"model\": {\"vocab\": {\"a\": -1}}, " BYTES "}");
    refuse("two tokens have the id 0", "{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}}, " BYTES "}");
    refuse("no token for the byte 0x00", "{\"model\": {\"vocab\": {\"a\": 0}}, " BYTES "}");
    refuse("added token 0", "{\"added_tokens\": [{\"id\": 1}], \"model\": {\"vocab\": {\"a\": 0}}, " BYTES "}");
    refuse("lstrip", "{\"added_tokens\": [{\"id\": 1, \"content\": \"x\", \"lstrip\": true}], \"model\": {\"vocab\": {\"a\": 0}}, " BYTES "}");
}

int main(void) {
    const Tokenizer *gpt2 = tokenizer_open("tests/golden/tokens/gpt2"), *split = tokenizer_open("tests/golden/tokens/split.json");
    if (!gpt2) { printf("skipped: no PCRE2 in this build\n0 passed, 0 failed\n"); return 0; }
    published(gpt2);
    pieces(gpt2);
    round_trips(gpt2);
    round_trips(split);
    long_run();
    normal_forms();
    wrong_files();
    tokenizer_close(gpt2);
    tokenizer_close(split);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
