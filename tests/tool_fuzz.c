/* tool_fuzz.c: byte mutations of valid files through every reader, to be built under ASan and UBSan.

     tool_fuzz SEED COUNT FILE...     COUNT mutations of every file: .sn (parse, print), .kir, .kt (parse, verify), .safetensors (open,
                                      read everything, as tensors and as token shards), .snb (open, choose, read every program;
                                      of seven in eight the sums are made right again, so that what is behind them is reached),
                                      config.json and its like (the folder they are of, imported), tokenizers (.json elsewhere),
                                      token files (.bin, .idx)

   What is mutated last lies in $TMPDIR/sinter-fuzz.PID.* when a reader dies. A reader may refuse (one line of error) or accept. */
#include "codegen/tile.h"
#include "runtime/bundle.h"
#include "runtime/sn_rt.h"
#include "tools/hf.h"
#include "tools/records.h"
#include "tools/shards.h"
#include "tools/text.h"

#define XXH_INLINE_ALL
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

static uint64_t rng;
static uint32_t draw(uint32_t n) {
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return n ? (uint32_t)((rng >> 33) % n) : 0;
}

typedef struct Bytes { char *s; size_t n; } Bytes;

static const char *const WORDS[] = { "(", ")", "[", "]", "{", "}", "0", "-1", "99999999999999999999", "1e999", "for i[k] in 0..9 {", "$x", "@", "\n",
                                     "import \"x.sn\"", "weight", "?", ":", "inf", "B", "reshape", "\"", ",", "=", "i32[", "output", "#" };

/* Between one and four edits: flip, set, insert, delete, copy a range, insert a word. */
static Bytes mutate(Bytes in) {
    Bytes out = { malloc(in.n * 2 + 1024), in.n };
    memcpy(out.s, in.s, in.n);
    for (uint32_t e = 1 + draw(4); e-- && out.n > 4; ) {
        uint32_t at = draw((uint32_t)out.n), len = 1 + draw(16);
        if (at + len > out.n) len = (uint32_t)out.n - at;
        switch (draw(6)) {
        case 0: out.s[at] ^= (char)(1 << draw(8)); break;
        case 1: out.s[at] = (char)draw(256); break;
        case 2: memmove(out.s + at, out.s + at + len, out.n - at - len), out.n -= len; break;
        case 3: memmove(out.s + draw((uint32_t)(out.n - len)), out.s + at, len); break;
        case 4: out.n = at > 8 ? at : out.n; break;
        default: {
            const char *w = WORDS[draw(sizeof WORDS / sizeof *WORDS)];
            size_t k = strlen(w);
            memmove(out.s + at + k, out.s + at, out.n - at);
            memcpy(out.s + at, w, k);
            out.n += k;
        }
        }
    }
    out.s[out.n] = 0;
    return out;
}

/* JSON that stays JSON mostly: digits for digits, letters for letters, a digit or a letter taken out. */
static Bytes mutate_json(Bytes in) {
    if (draw(3) == 0) return mutate(in);
    Bytes out = { malloc(in.n + 1), in.n };
    memcpy(out.s, in.s, in.n);
    for (uint32_t e = 1 + draw(4); e--; ) {
        uint32_t at = draw((uint32_t)out.n);
        while (at < out.n && !isalnum((unsigned char)out.s[at])) at++;
        if (at == out.n) continue;
        if (draw(4) == 0) memmove(out.s + at, out.s + at + 1, --out.n - at);
        else out.s[at] = isdigit((unsigned char)out.s[at]) ? (char)('0' + draw(10)) : (char)('a' + draw(26));
    }
    out.s[out.n] = 0;
    return out;
}

static bool read_source(const char *name, Bytes b) {
    sn_ctx *c = sn_ctx_new();
    StrBuf out = {0};
    bool ok = false;
    const char *dot = strrchr(name, '.');
    Arena a = {0};
    if (!strcmp(dot, ".sn")) {
        Module *m = snG_parse(c, name, b.s, b.n, NULL, 0);
        for (uint32_t i = 0; m && i < m->graphs.n; i++) snG_print(&out, m->graphs.v[i]);
        ok = m != NULL;
        if (m) snG_free_module(m);
    } else {
        SN_ENTER(c, goto done);
        if (!strcmp(dot, ".kir")) snK_parse(c, &a, name, b.s, b.n);
        else snT_parse(c, &a, name, b.s, b.n);
        ok = true;
        SN_LEAVE(c);
    }
done:
    snU_free_buf(&out);
    snU_free_arena(&a);
    sn_ctx_free(c);
    return ok;
}

static bool read_tensors(const char *path) {
    char err[256];
    unsigned sum = 0;
    sn_file *f = sn_file_open(path, err);
    for (int i = 0; f && i < sn_file_count(f); i++) {
        const sn_tensor *t = sn_file_at(f, i);
        for (size_t k = 0; k < t->bytes; k++) sum += ((const unsigned char *)t->data)[k];
        if (sn_file_find(f, t->name) == NULL) abort();
    }
    if (f) sn_file_meta(f, "sinter"), sn_file_close(f);
    sn_data *d = sn_data_open(&(sn_data_desc){ .path = path, .window = 4, .seed = sum & 3, .shuffle = true }, err);
    int32_t out[4], begins[4], scored[4];
    int64_t id, epoch;
    for (int64_t i = 0; d && i < 8; i++) {
        sn_data_window(d, i * 1000003, out, &id, &epoch);
        if (!sn_data_marks(d, i * 1000003, begins, scored))
            for (int k = 0; k < 4; k++)
                if (begins[k] < 0 || begins[k] > k || scored[k] < 0 || scored[k] > 1) abort();
    }
    if (d) sn_data_close(d);
    return f != NULL;
}

/* -- Bundles: the format is at the top of runtime/bundle.c ------------------------------------------------------------- */

static uint64_t get(const char *p, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)(uint8_t)p[i] << 8 * i;
    return v;
}

static void set(char *p, uint64_t v, int n) { for (int i = 0; i < n; i++) p[i] = (char)(v >> 8 * i); }

static void seal(Bytes b) {
    uint64_t n = b.n >= 64 ? get(b.s + 12, 4) : 0;
    if (b.n < 64 || n > (b.n - 64) / 32) return;
    set(b.s + 16, b.n, 8);
    for (uint64_t i = 0; i < n; i++) {
        char *e = b.s + 64 + 32 * i;
        uint64_t at = get(e + 8, 8), size = get(e + 16, 8);
        if (at <= b.n && size <= b.n - at) set(e + 24, XXH3_64bits(b.s + at, size), 8);
    }
    set(b.s + 24, XXH3_64bits(b.s + 64, n * 32), 8);
}

/* Edits aim at the manifests: code is not looked into, and is most of the file. */
static Bytes mutate_bundle(Bytes in) {
    uint64_t n = get(in.s + 12, 4), which = draw((uint32_t)n);
    const char *e = in.s + 64 + 32 * which;
    uint64_t at = get(e + 8, 8), size = get(e + 16, 8);
    Bytes part = { in.s + at, size }, head = { in.s, in.n };
    if (draw(4) == 0) return mutate(head);
    Bytes m = mutate(part), out = { malloc(in.n + m.n + 1024), in.n };
    memcpy(out.s, in.s, in.n);
    if (m.n > size) m.n = size;                          /* what is shorter ends the section early */
    memcpy(out.s + at, m.s, m.n);
    set(out.s + 64 + 32 * which + 16, m.n, 8);
    free(m.s);
    return out;
}

static bool read_bundle(const char *path) {
    char err[ERR_TEXT];
    Bundle *b = snR_bundle_open(path, err);
    bool all = b != NULL;
    for (int i = 0; b && i < snR_bundle_count(b); i++) {
        SnProgram *p = snR_bundle_program(b, i, err);
        all &= p != NULL;
        for (int k = 0; p && k < p->ngraphs; k++)
            for (int l = 0; l < p->graphs[k].nlaunches; l++)
                if (strlen(p->kernels[p->graphs[k].launches[l].kernel].symbol) > p->code_bytes + 100000) abort();
        if (p) snR_program_free(p);
    }
    if (b) snR_bundle_choose(b, draw(2) ? "host" : NULL, err);
    snR_bundle_close(b);
    return all;
}

/* -- Folders of models: one file is mutated, the others are linked to -------------------------------------------------- */

static bool import_folder(const char *file, Bytes b) {
    const char *tmp = getenv("TMPDIR"), *base = strrchr(file, '/') + 1;
    char dir[300], path[800], from[800], *full = realpath(file, NULL), out[320];
    snprintf(dir, sizeof dir, "%s/sinter-fuzz-hf.%d", tmp ? tmp : "/tmp", (int)getpid());
    snprintf(out, sizeof out, "%s/out", dir);
    mkdir(dir, 0777);
    *strrchr(full, '/') = 0;
    struct dirent *e;
    DIR *d = opendir(full);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.' && strcmp(e->d_name, base)) {
            snprintf(from, sizeof from, "%s/%s", full, e->d_name);
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            if (symlink(from, path) && errno != EEXIST) abort();
        }
    closedir(d);
    snprintf(path, sizeof path, "%s/%s", dir, base);
    unlink(path);
    FILE *w = fopen(path, "wb");
    if (!w || fwrite(b.s, 1, b.n, w) != b.n || fclose(w)) abort();
    bool ok = !hf_import(dir, NULL, out);
    for (d = opendir(dir); (e = readdir(d)); ) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.') unlink(path);
    }
    closedir(d);
    rmdir(dir);
    free(full);
    return ok;
}

/* -- Tokenizers and token files ------------------------------------------------------------------------------------------ */

static bool read_tokenizer(const char *path) {
    const Tokenizer *t = tokenizer_open(path);
    Tokens ids;
    size_t n = 0;
    if (!t) return false;
    if (!t->encode(t, "a b  c\n<|endoftext|>\xff\xc3\xa9 12345", 28, &ids)) {
        free(t->decode(t, ids.v, ids.n, &n));
        free(ids.v);
    }
    tokenizer_close(t);
    return true;
}

/* An index is read with the .bin of the original. */
static bool read_token_file(const char *name, const char *path) {
    char err[256], bin[400], original[800];
    TokenFile f;
    int64_t sum = 0;
    bool index = !strcmp(strrchr(name, '.'), ".idx");
    snprintf(bin, sizeof bin, "%.*s.bin", (int)strlen(path) - 4, path);
    snprintf(original, sizeof original, "%.*s.bin", (int)strlen(name) - 4, name);
    if (index && symlink(original, bin) && errno != EEXIST) abort();
    bool ok = !token_file_open(&f, path, 10, err);
    for (int64_t i = 0; ok && i < f.n; i++) sum += token_file_at(&f, i);
    for (int64_t i = 0; ok && i < f.ndocuments; i++)
        if (f.document[i] < 0 || f.document[i] >= f.n || (i && f.document[i] <= f.document[i - 1])) abort();
    if (ok) token_file_close(&f);
    if (index) unlink(bin);
    return ok && sum >= 0;
}

static bool read_records(const char *path) {
    char err[256];
    Records r = {0};
    int64_t sum = 0;
    bool ok = !records_read(&r, path, err);
    for (int64_t i = 0; i < r.n; i++) {
        if (r.v[i].prompt < 0 || r.v[i].prompt >= r.v[i].size) abort();
        for (int64_t k = 0; k < r.v[i].size; k++) sum += r.v[i].text[k];
    }
    records_free(&r);
    return ok && sum != INT64_MIN;
}

static bool read_any(const char *name, const char *path, Bytes b) {
    const char *dot = strrchr(name, '.');
    if (!strcmp(dot, ".json")) return strstr(name, "/hf/") ? import_folder(name, b) : read_tokenizer(path);
    if (is_token_file(name)) return read_token_file(name, path);
    if (!strcmp(dot, ".snb")) return read_bundle(path);
    if (!strcmp(dot, ".jsonl")) return read_records(path);
    return !strcmp(dot, ".safetensors") ? read_tensors(path) : read_source(name, b);
}

int main(int argc, char **argv) {
    int accepted = 0, all = 0;
    char path[300];
    const char *tmp = getenv("TMPDIR");
    if (argc < 4) { fprintf(stderr, "tool_fuzz SEED COUNT FILE...\n"); return 2; }
    rng = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
    for (int f = 3; f < argc; f++) {
        Bytes in;
        const char *dot = strrchr(argv[f], '.');
        in.s = snU_read_file(NULL, argv[f], &in.n);
        if (!in.s || !dot) { fprintf(stderr, "cannot read %s\n", argv[f]); return 2; }
        snprintf(path, sizeof path, "%s/sinter-fuzz.%d%s", tmp ? tmp : "/tmp", (int)getpid(), dot);
        for (int i = 0; i < atoi(argv[2]); i++, all++) {
            bool bundle = !strcmp(dot, ".snb");
            Bytes b = bundle ? mutate_bundle(in) : !strcmp(dot, ".json") ? mutate_json(in) : mutate(in);
            if (bundle && draw(8)) seal(b);
            FILE *w = fopen(path, "wb");
            if (!w || fwrite(b.s, 1, b.n, w) != b.n || fclose(w)) { perror(path); return 2; }
            accepted += read_any(argv[f], path, b);
            free(b.s);
        }
        unlink(path);
        free(in.s);
    }
    printf("%d mutations, %d accepted, %d refused\n", all, accepted, all - accepted);
    return 0;
}
