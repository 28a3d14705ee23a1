/* bpe_read.c: tokenizer files to a tokenizer.

   In:  Hugging Face's tokenizer.json; GPT-2's vocab.json and merges.txt (or encoder.json and vocab.bpe), or merges.txt alone: the ids follow
   from the order of the merges then, as GPT-2 numbers them. Out: tables that bpe.c encodes with.

   In these files a token is text: each byte that is not a printable character of Latin-1 is written as another character (bytes_to_unicode
   of GPT-2), so that U+0120 is a space. What is not byte-level BPE, or would make other ids than the original, is an error. */
#define _GNU_SOURCE
#include "tools/bpe.h"

#include <errno.h>

typedef struct Reader { const char *path; json_t *vocab; Bpe *b; int rc; } Reader;

static const char GPT2_PATTERN[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static __attribute__((format(printf, 2, 3))) void wrong(Reader *r, const char *fmt, ...) {
    va_list ap;
    if (r->rc) return;
    va_start(ap, fmt);
    char *what = NULL;
    if (vasprintf(&what, fmt, ap) < 0) abort();
    va_end(ap);
    r->rc = cmd_fail("%s: %s", r->path, what);
    free(what);
}

/* -- Bytes as characters ------------------------------------------------------------------------------------------------- */

static bool stands_for_itself(int byte) { return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad); }

/* The code point that a byte is written as: itself, or the next free one from U+0100 on. */
static int code_of(int byte) {
    int next = 0x100;
    if (stands_for_itself(byte)) return byte;
    for (int i = 0; i < byte; i++) next += !stands_for_itself(i);
    return next;
}

static size_t put_code(char *s, int code) {
    if (code < 0x80) return *s = (char)code, 1;
    s[0] = (char)(0xc0 | code >> 6);
    s[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

typedef struct Codes { int16_t byte[0x200]; } Codes;             /* code point -> byte, -1 */

static Codes all_codes(void) {
    Codes c;
    memset(&c, 0xff, sizeof c);
    for (int i = 0; i < 256; i++) c.byte[code_of(i)] = (int16_t)i;
    return c;
}

/* The bytes that a token's text stands for, over it; a character that stands for none leaves the whole text as it is. */
static size_t unwrap(const Codes *c, const char *text, size_t n, char *out) {
    size_t at = 0;
    for (size_t i = 0; i < n; ) {
        int code = (uint8_t)text[i], len = code < 0x80 ? 1 : 2;
        if (len == 2) code = code >= 0xc2 && code < 0xc8 && i + 1 < n ? (code & 0x1f) << 6 | (text[i + 1] & 0x3f) : 0;
        if (code <= 0 || c->byte[code] < 0) {
            memcpy(out, text, n);
            return n;
        }
        out[at++] = (char)c->byte[code];
        i += (size_t)len;
    }
    return at;
}

/* -- Vocabulary ------------------------------------------------------------------------------------------------------------- */

static int32_t id_of(const Reader *r, const char *text) {
    const json_t *v = json_object_get(r->vocab, text);
    return v ? (int32_t)json_integer_value(v) : -1;
}

/* Checks the ids and counts them; added tokens have theirs, too. */
static void check_vocab(Reader *r) {
    const char *key;
    json_t *v;
    int64_t most = -1;
    if (!json_is_object(r->vocab) || !json_object_size(r->vocab)) { wrong(r, "\"vocab\" is not an object of tokens and ids"); return; }
    json_object_foreach(r->vocab, key, v) {
        int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= MOST_IDS) wrong(r, "the id of the token '%.60s' is not a number from 0 to %d", key, MOST_IDS - 1);
        most = id > most ? id : most;
    }
    for (uint32_t i = 0; i < r->b->added.n; i++) most = r->b->added.v[i].id > most ? r->b->added.v[i].id : most;
    r->b->t.vocab = most + 1;
}

static void set_token(Reader *r, int32_t id, char *at, size_t n) {
    Bpe *b = r->b;
    if (b->from[id] || b->size[id]) {
        if (b->size[id] != n || memcmp(b->text + b->from[id], at, n)) wrong(r, "two tokens have the id %d", id);
        return;
    }
    b->from[id] = (uint32_t)(at - b->text);
    b->size[id] = (uint32_t)n;
}

/* The bytes of every token, one after the other; those of the added ones are their text. */
static void fill_vocab(Reader *r) {
    Bpe *b = r->b;
    Codes codes = all_codes();
    size_t all = 1;
    const char *key;
    json_t *v;
    json_object_foreach(r->vocab, key, v) all += strlen(key);
    for (uint32_t i = 0; i < b->added.n; i++) all += b->added.v[i].n;
    if (all > UINT32_MAX) { wrong(r, "its tokens are more than 4 GiB of text"); return; }
    char *at = b->text = NEWN(&b->arena, char, all);
    at++;                                                        /* 0 in `from` says that an id is free */
    b->from = NEWN(&b->arena, uint32_t, b->t.vocab);
    b->size = NEWN(&b->arena, uint32_t, b->t.vocab);
    for (uint32_t i = 0; i < b->added.n && !r->rc; i++) {
        memcpy(at, b->added.v[i].text, b->added.v[i].n);
        set_token(r, b->added.v[i].id, at, b->added.v[i].n);
        at += b->added.v[i].n;
    }
    json_object_foreach(r->vocab, key, v) {
        int32_t id = (int32_t)json_integer_value(v);
        bool is_added = false;
        for (uint32_t i = 0; i < b->added.n && !is_added; i++) is_added = b->added.v[i].id == id && !strcmp(b->added.v[i].text, key);
        size_t n = is_added ? 0 : unwrap(&codes, key, strlen(key), at);
        if (!is_added) set_token(r, id, at, n), at += n;
        if (r->rc) return;
    }
}

static void find_bytes(Reader *r) {
    for (int i = 0; i < 256 && !r->rc; i++) {
        char s[3] = "";
        put_code(s, code_of(i));
        r->b->byte[i] = id_of(r, s);
        if (r->b->byte[i] < 0) wrong(r, "has no token for the byte 0x%02x: is it byte-level BPE?", i);
    }
}

/* Pieces that are tokens as they are. */
static void fill_whole(Reader *r) {
    Bpe *b = r->b;
    const char *key;
    json_t *v;
    if (!b->ignore_merges) return;
    json_object_foreach(r->vocab, key, v) {
        int32_t id = (int32_t)json_integer_value(v);
        snU_insert(&b->arena, &b->whole, snU_hash(b->text + b->from[id], b->size[id], 0), (uint32_t)id + 1);
    }
}

/* -- Merges -------------------------------------------------------------------------------------------------------------------- */

static void add_merge(Reader *r, uint32_t rank, const char *left, const char *right) {
    char *both = text_fmt("%s%s", left, right);
    int32_t a = id_of(r, left), b = id_of(r, right), to = id_of(r, both);
    if (a < 0 || b < 0 || to < 0) wrong(r, "merge %u: '%.60s' is no token of the vocabulary", rank + 1, a < 0 ? left : b < 0 ? right : both);
    free(both);
    if (r->rc) return;
    uint64_t key = bpe_pair(a, b);
    if (snU_find(&r->b->pairs, key)) wrong(r, "merge %u: '%.60s %.60s' comes twice", rank + 1, left, right);
    snU_insert(&r->b->arena, &r->b->pairs, key, rank + 1);
    r->b->merged[rank] = to;
}

/* "a b", in place. */
static bool halves(char *s, char **right) {
    char *space = strchr(s, ' ');
    if (!space || space == s || !space[1] || strchr(space + 1, ' ')) return false;
    *space = 0;
    *right = space + 1;
    return true;
}

static void read_merges(Reader *r, const json_t *merges) {
    size_t i, n = json_array_size(merges);
    json_t *v;
    if (!json_is_array(merges) || n > MOST_MERGES) { wrong(r, "\"merges\" is not an array of at most %d", MOST_MERGES); return; }
    r->b->merged = NEWN(&r->b->arena, int32_t, n + 1);
    json_array_foreach((json_t *)merges, i, v) {
        const char *left = json_string_value(json_array_get(v, 0)), *right = json_string_value(json_array_get(v, 1));
        char *line = json_is_string(v) ? strdup(json_string_value(v)) : NULL, *second = NULL;
        if (line && halves(line, &second)) left = line, right = second;
        if (left && right && (line || json_array_size(v) == 2)) add_merge(r, (uint32_t)i, left, right);
        else wrong(r, "merge %zu is not a pair of tokens", i + 1);
        free(line);
        if (r->rc) return;
    }
}

/* -- tokenizer.json -------------------------------------------------------------------------------------------------------------- */

static bool is_type(const json_t *o, const char *type) {
    const char *s = json_string_value(json_object_get(o, "type"));
    return s && !strcmp(s, type);
}

static void read_added(Reader *r, const json_t *list) {
    size_t i;
    json_t *v;
    static const char *const no[] = { "single_word", "lstrip", "rstrip" };
    json_array_foreach((json_t *)list, i, v) {
        const char *text = json_string_value(json_object_get(v, "content"));
        const json_t *id = json_object_get(v, "id");
        if (!text || !*text || !json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= MOST_IDS) {
            wrong(r, "added token %zu: content or id is missing or out of range", i);
            return;
        }
        for (int k = 0; k < 3; k++)
            if (json_is_true(json_object_get(v, no[k]))) wrong(r, "the added token '%.60s' has \"%s\", which is not done here", text, no[k]);
        Added a = { snU_strdup(&r->b->arena, text, strlen(text)), strlen(text), (int32_t)json_integer_value(id), json_is_true(json_object_get(v, "normalized")) };
        PUSH(&r->b->arena, r->b->added, a);
    }
}

/* Tokens that are looked for in the normal form are looked for in theirs; they stand for the text that the file has. */
static void ready_added(Bpe *b) {
    for (uint32_t i = 0; i < b->added.n; i++) {
        Added *a = &b->added.v[i];
        char *normal = b->nfc && a->late ? nfc_text(b->nfc, a->text, &a->n) : NULL;
        if (normal) a->text = snU_strdup(&b->arena, normal, a->n);
        free(normal);
        b->begins[(uint8_t)*a->text] = true;
    }
}

static void add_cut(Reader *r, const char *pattern, bool literal, bool matches) {
    char err[256];
    Split *s = split_new(pattern, literal, err);
    if (!s) { wrong(r, "%s", err); return; }
    PUSH(&r->b->arena, r->b->cuts, ((Cut){ s, matches }));
    if (r->b->cuts.n > 32) wrong(r, "more than 32 patterns");
}

static void read_split(Reader *r, const json_t *o) {
    const json_t *pattern = json_object_get(o, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex")), *text = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(o, "behavior"));
    bool removed = behavior && !strcmp(behavior, "Removed") && json_is_true(json_object_get(o, "invert"));
    if (!regex && !text) wrong(r, "a Split has no pattern");
    else if (!behavior || (strcmp(behavior, "Isolated") && !removed)) wrong(r, "a Split with the behavior '%.40s' is not known here", behavior ? behavior : "");
    else add_cut(r, regex ? regex : text, !regex, removed);
}

/* bytes: whether a ByteLevel was there, after which nothing may cut. */
static void read_cuts(Reader *r, const json_t *o, bool *bytes) {
    const char *type = json_string_value(json_object_get(o, "type"));
    size_t i;
    json_t *v;
    if (r->rc) return;
    if (*bytes) wrong(r, "a pre-tokenizer after ByteLevel is not known here");
    else if (is_type(o, "Sequence")) json_array_foreach(json_object_get(o, "pretokenizers"), i, v) is_type(v, "Sequence") ? wrong(r, "a Sequence in a Sequence") : read_cuts(r, v, bytes);
    else if (is_type(o, "Split")) read_split(r, o);
    else if (is_type(o, "Digits")) add_cut(r, json_is_true(json_object_get(o, "individual_digits")) ? "\\p{N}" : "\\p{N}+", false, false);
    else if (is_type(o, "ByteLevel")) {
        if (!json_is_false(json_object_get(o, "add_prefix_space"))) wrong(r, "ByteLevel with \"add_prefix_space\" is not done here");
        if (!json_is_false(json_object_get(o, "use_regex"))) add_cut(r, GPT2_PATTERN, false, false);
        *bytes = true;
    } else wrong(r, "the pre-tokenizer '%.40s' is not known here; byte-level BPE is (GPT-2, Llama 3, Qwen ...)", type ? type : "none");
}

static void read_model(Reader *r, const json_t *o) {
    const json_t *type = json_object_get(o, "type"), *dropout = json_object_get(o, "dropout");
    static const char *const no[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    if (type && !is_type(o, "BPE")) wrong(r, "the model '%.40s' is not known here, only BPE", json_string_value(type) ? json_string_value(type) : "");
    if (json_is_number(dropout) && json_number_value(dropout) > 0) wrong(r, "BPE with dropout makes other ids each time");
    for (int k = 0; k < 2; k++) {
        const char *s = json_string_value(json_object_get(o, no[k]));
        if (s && *s) wrong(r, "BPE with a \"%s\" is not done here", no[k]);
    }
    r->b->ignore_merges = json_is_true(json_object_get(o, "ignore_merges"));
    r->vocab = json_object_get(o, "vocab");
}

static void read_whole(Reader *r, const json_t *root) {
    const json_t *model = json_object_get(root, "model"), *normalizer = json_object_get(root, "normalizer");
    const char *type = json_string_value(json_object_get(normalizer, "type"));
    bool bytes = false;
    read_model(r, model);
    if (is_type(normalizer, "NFC")) r->b->nfc = nfc_new(&r->b->arena);
    else if (normalizer && !json_is_null(normalizer)) wrong(r, "the normalizer '%.40s' is not known here", type ? type : "");
    if (!r->rc) read_added(r, json_object_get(root, "added_tokens"));
    read_cuts(r, json_object_get(root, "pre_tokenizer"), &bytes);
    if (!r->rc && !bytes) wrong(r, "has no pre-tokenizer ByteLevel: byte-level BPE is what is known here");
    if (!r->rc) check_vocab(r);
    if (!r->rc) fill_vocab(r);
    if (!r->rc) find_bytes(r);
    if (!r->rc) read_merges(r, json_object_get(model, "merges"));
    if (!r->rc) fill_whole(r);
    if (!r->rc) ready_added(r->b);
}

/* -- GPT-2's files --------------------------------------------------------------------------------------------------------------- */

/* merges.txt as an array of "a b"; the line `#version` is none of them. */
static json_t *merges_of(Reader *r, const char *path) {
    size_t n = 0;
    char *text = read_text(path, &n), *next;
    json_t *list = json_array();
    int line = 1;
    if (!text && !r->rc) r->rc = cmd_fail("%s: %s", path, strerror(errno));
    for (char *p = text; p && *p && !r->rc; p = next, line++) {
        size_t k = strcspn(p, "\n");
        next = p + k + (p[k] == '\n');
        if (k && p[k - 1] == '\r') k--;
        if (!k || (line == 1 && !strncmp(p, "#version", 8))) continue;
        json_t *s = json_stringn(p, k);
        if (!s || !memchr(p, ' ', k)) {
            fprintf(stderr, "%s:%d: error: not a merge, two tokens with a space between them\n", path, line);
            r->rc = EXIT_FAILED;
        }
        json_array_append_new(list, s);
    }
    free(text);
    return list;
}

/* GPT-2's numbers: the bytes that stand for themselves, the others, what the merges make in their order, the end of a text. */
static json_t *vocab_of(const json_t *merges) {
    json_t *vocab = json_object(), *v;
    size_t i;
    char s[3];
    for (int turn = 0; turn < 2; turn++)
        for (int b = 0; b < 256; b++)
            if (stands_for_itself(b) == !turn) {
                s[put_code(s, code_of(b))] = 0;
                json_object_set_new(vocab, s, json_integer((json_int_t)json_object_size(vocab)));
            }
    json_array_foreach((json_t *)merges, i, v) {
        char *both = strdup(json_string_value(v)), *space = strchr(both, ' ');
        memmove(space, space + 1, strlen(space));
        if (!json_object_get(vocab, both)) json_object_set_new(vocab, both, json_integer((json_int_t)json_object_size(vocab)));
        free(both);
    }
    json_object_set_new(vocab, "<|endoftext|>", json_integer((json_int_t)json_object_size(vocab)));
    return vocab;
}

/* vocab may be NULL: it follows from the merges. The reference to it is taken. */
static void read_gpt2(Reader *r, const char *path, json_t *vocab) {
    json_t *merges = merges_of(r, path);
    if (!r->rc) r->vocab = vocab ? vocab : (vocab = vocab_of(merges));
    if (!r->rc) add_cut(r, GPT2_PATTERN, false, false);
    if (!r->rc) check_vocab(r);
    if (!r->rc) fill_vocab(r);
    if (!r->rc) find_bytes(r);
    if (!r->rc) read_merges(r, merges);
    json_decref(merges);
    json_decref(vocab);
}

/* -- Which files ------------------------------------------------------------------------------------------------------------------ */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && !strcmp(s + n - k, end);
}

/* The file of that name beside another; malloc'ed, NULL: there is none. */
static char *beside(const char *path, const char *const *names) {
    const char *slash = strrchr(path, '/');
    for (; *names; names++) {
        char *other = text_fmt("%.*s%s", slash ? (int)(slash - path + 1) : 0, path, *names);
        if (file_exists(other)) return other;
        free(other);
    }
    return NULL;
}

static uint64_t hash_of(const char *path, uint64_t seed) {
    size_t n = 0;
    char *text = path ? read_text(path, &n) : NULL;
    uint64_t h = text ? snU_hash(text, n, seed) : seed;
    free(text);
    return h;
}

static void read_any(Reader *r, const char *path) {
    char *vocab = NULL, *merges = NULL;
    if (ends_with(path, ".json")) {
        json_t *root = json_file(path);
        r->b->t.hash = hash_of(path, 0);
        if (!root) r->rc = EXIT_FAILED;
        else if (json_is_object(json_object_get(root, "model"))) read_whole(r, root);
        else if (!(merges = beside(path, (const char *const[]){ "merges.txt", "vocab.bpe", NULL })))
            wrong(r, "has no \"model\", so it is no tokenizer.json, and there is no merges.txt beside it");
        else r->b->t.hash = hash_of(merges, r->b->t.hash), read_gpt2(r, merges, json_incref(root));
        json_decref(root);
    } else {
        vocab = beside(path, (const char *const[]){ "vocab.json", "encoder.json", NULL });
        json_t *ids = vocab ? json_file(vocab) : NULL;
        r->b->t.hash = hash_of(path, hash_of(vocab, 0));
        if (vocab && !ids) r->rc = EXIT_FAILED;
        else read_gpt2(r, path, ids);
    }
    free(vocab);
    free(merges);
}

static int32_t end_of_text(const Bpe *b) {
    static const char *const names[] = { "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>" };
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (int64_t i = b->t.vocab - 1; i >= 0; i--)
            if (b->size[i] == strlen(names[k]) && !memcmp(b->text + b->from[i], names[k], b->size[i])) return (int32_t)i;
    return -1;
}

static char *file_of(const char *path) {
    static const char *const names[] = { "tokenizer.json", "vocab.json", "merges.txt", "vocab.bpe", NULL };
    char *folder = text_fmt("%s/", path), *file = beside(folder, names);
    free(folder);
    return file ? file : strdup(path);
}

const Tokenizer *tokenizer_open(const char *path) {
    if (!path) return &BYTE_TOKENIZER;
    Bpe *b = calloc(1, sizeof *b);
    if (!b || !(b->seen = calloc(PIECES, sizeof *b->seen))) { free(b); cmd_fail("out of memory"); return NULL; }
    char *file = file_of(path);
    b->t = (Tokenizer){ .self = b, .encode = bpe_encode, .decode = bpe_decode, .eod = -1, .path = snU_strdup(&b->arena, file, strlen(file)) };
    Reader r = { b->t.path, NULL, b, 0 };
    read_any(&r, file);
    free(file);
    if (!r.rc) b->t.eod = end_of_text(b);
    if (!r.rc) return &b->t;
    bpe_free(b);
    return NULL;
}

void tokenizer_close(const Tokenizer *t) {
    if (t && t != &BYTE_TOKENIZER) bpe_free((Bpe *)t->self);
}
