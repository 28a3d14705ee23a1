/* unit_runtime.c: the runtime without a compiler: programs written by hand, files, data order,
   threads.

   Prints every failed check and `N passed, N failed`; exit status 1 when any failed. Works in a
   folder of its own under $TMPDIR. `unit_runtime bench` prints launch latency, initialisation
   speed, peak and bandwidth instead. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int passed, failed;
static char folder[256];

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (cond) {                                                                                \
            passed++;                                                                              \
        } else {                                                                                   \
            failed++;                                                                              \
            printf("%s:%d: failed: %s:", __FILE__, __LINE__, #cond);                              \
            printf(" " __VA_ARGS__);                                                               \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

static const char *in_folder(const char *name)
{
    static char path[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%.200s", folder, name);
    return path[k];
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    if (!p || fread(p, 1, *n, f) != *n)
        abort();
    fclose(f);
    return p;
}

static void spill(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n)
        abort();
    fclose(f);
}

/* -- A program by hand: y = w * x + lr (elementwise), w := w + lr, sum of y in chunks ---------- */

enum { N = 5000, CHUNK = 64, CHUNKS = (N + CHUNK - 1) / CHUNK };

static int end_of_chunk(int64_t p) { return (int)(p * CHUNK + CHUNK < N ? p * CHUNK + CHUNK : N); }

static void k_axpy(void *const *b, const SnLaunchArgs *la, int64_t begin, int64_t end,
                   void *scratch)
{
    const float *w = b[0], *x = b[1], *lr = b[2];
    float *y = b[3], *tmp = scratch;
    for (int64_t p = begin; p < end; p++)
        for (int i = (int)p * CHUNK; i < end_of_chunk(p); i++) {
            tmp[i % CHUNK] = w[i] * x[i];
            y[i] = tmp[i % CHUNK] + *lr + (float)la->step;
        }
}

static void k_update(void *const *b, const SnLaunchArgs *la, int64_t begin, int64_t end,
                     void *scratch)
{
    float *w = b[0];
    const float *lr = b[1];
    (void)la, (void)scratch;
    for (int64_t p = begin; p < end; p++)
        for (int i = (int)p * CHUNK; i < end_of_chunk(p); i++)
            w[i] += *lr;
}

static void k_partial(void *const *b, const SnLaunchArgs *la, int64_t begin, int64_t end,
                      void *scratch)
{
    const float *y = b[0];
    float *part = b[1];
    (void)la, (void)scratch;
    for (int64_t p = begin; p < end; p++) {
        part[p] = 0;
        for (int i = (int)p * CHUNK; i < end_of_chunk(p); i++)
            part[p] += y[i];
    }
}

static void k_sum(void *const *b, const SnLaunchArgs *la, int64_t begin, int64_t end, void *scratch)
{
    const float *part = b[0];
    float *s = b[1];
    (void)la, (void)begin, (void)end, (void)scratch;
    *s = 0;
    for (int i = 0; i < CHUNKS; i++)
        *s += part[i];
}

static SnHostKernel resolve(const char *symbol)
{
    static const struct { const char *name; SnHostKernel fn;
    } table[] = {
        { "k_axpy", k_axpy },
        { "k_update", k_update },
        { "k_partial", k_partial },
        { "k_sum", k_sum },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, symbol))
            return table[i].fn;
    return NULL;
}

#define F32(name_, ...) { .name = name_, .dtype = DT_F32, .rank = 1, .dim = { __VA_ARGS__ } }
#define SCALAR(name_) { .name = name_, .dtype = DT_F32, .rank = 0 }
enum {
    PART_AT = (N * 4 + 63) / 64 * 64,
    SUM_AT = PART_AT + (CHUNKS * 4 + 63) / 64 * 64,
    ARENA = SUM_AT + 64
};

static SnKernelDesc kernels[] = {
    { "k_axpy", "rows", "y", CHUNKS, CHUNK * 4, 2.0 * N, 12.0 * N, 4 },
    { "k_partial", "rows", "partial", CHUNKS, 0, N, 4.0 * N, 2 },
    { "k_sum", "rows", "sum", 1, 0, CHUNKS, 4.0 * CHUNKS, 2 },
    { "k_update", "rows", "update", CHUNKS, 0, N, 8.0 * N, 2 },
};
static SnStorage storage[] = {
    { .t = F32("h.w", N), .init = 4, .a = 0.02 },
    { .t = { .name = "flag", .dtype = DT_BOOL, .rank = 1, .dim = { 3 } },
      .is_state = 1,
      .init = 2 },
    { .t = { .name = "half", .dtype = DT_BF16, .rank = 2, .dim = { 7, 3 } },
      .init = 5,
      .a = -1,
      .b = 3 },
    { .t = { .name = "count", .dtype = DT_I32, .rank = 0 }, .is_state = 1, .init = 3, .a = -7 },
};
static SnBuffer buffers[] = {
    { .kind = SN_BUF_STORAGE, .t = F32("h.w", N), .bytes = N * 4, .storage = 0 },
    { .kind = SN_BUF_INPUT, .t = F32("x", N), .bytes = N * 4 },
    { .kind = SN_BUF_INPUT, .t = SCALAR("lr"), .bytes = 4, .has_default = 1, .dflt = 0.5 },
    { .kind = SN_BUF_ARENA, .t = F32("y", N), .bytes = N * 4, .offset = 0 },
    { .kind = SN_BUF_ARENA, .t = F32("", CHUNKS), .bytes = CHUNKS * 4, .offset = PART_AT },
    { .kind = SN_BUF_ARENA, .t = SCALAR("loss"), .bytes = 4, .offset = SUM_AT },
};
static SnLaunch launches[] = {
    { 0, 4, (const int32_t[]){ 0, 1, 2, 3 } }, { 1, 2, (const int32_t[]){ 3, 4 } },
    { 2, 2, (const int32_t[]){ 4, 5 } }, { 3, 2, (const int32_t[]){ 0, 2 } },
};
static SnOutput outputs[] = { { "y", 3 }, { "loss", 5 } };
static SnGraphPlan graphs[] = { { "train", 6, 4, 2, buffers, launches, outputs, ARENA, ARENA } };
static SnProgram program = {
    .target = "host",
    .nkernels = 4,
    .nstorage = 4,
    .ngraphs = 1,
    .kernels = kernels,
    .storage = storage,
    .graphs = graphs,
    .resolve = resolve,
};

static sn_session *start(int threads)
{
    static float x[N];
    sn_session *s = sn_session_new(
        &program,
        &(sn_session_desc){ .seed = 7, .threads = threads, .profile = true, .poison = true });
    if (!s) {
        printf("session: %s\n", sn_rt_error());
        abort();
    }
    for (int i = 0; i < N; i++)
        x[i] = (float)sin(i);
    CHECK(!sn_bind(s, "train", "x", x, sizeof x));
    return s;
}

static void test_session(void)
{
    float first[2] = { 0, 0 }, w0[N], w[N], y[N];
    for (int threads = 1; threads <= 7; threads += 3) {
        sn_session *s = start(threads);
        float loss;
        sn_kernel_time times[8];
        CHECK(!sn_read(s, NULL, "h.w", w0, sizeof w0));
        CHECK(sn_read(s, "train", "loss", &loss, 4) == ERR_USAGE);
        for (int step = 1; step <= 2; step++) {
            CHECK(!sn_step(s, (uint32_t)step, 0) && !sn_run(s, "train"), "%s", sn_session_error(s));
            CHECK(!sn_read(s, "train", "loss", &loss, 4));
            if (threads == 1)
                first[step - 1] = loss;
            CHECK(loss == first[step - 1], "threads %d step %d", threads, step);
        }
        CHECK(!sn_read(s, "train", "h.w", w, sizeof w) && w[N - 1] == w0[N - 1] + 0.5f + 0.5f);
        CHECK(!sn_read(s, "train", "y", y, sizeof y) && y[0] == 2.5f, "%g", y[0]);
        CHECK(sn_profile(s, "train", times, 8) == 4 && times[0].launches == 2 &&
              times[0].seconds > 0 && times[3].flops == 2.0 * N && !strcmp(times[2].name, "sum"));
        sn_profile_reset(s);
        CHECK(sn_profile(s, "train", times, 1) == 4 && times[0].launches == 0 &&
              times[0].seconds == 0);
        CHECK(!sn_set(s, "lr", 0.25) && sn_set(s, "nope", 1) == ERR_UNKNOWN &&
              sn_set(s, "x", 1) == ERR_UNKNOWN);
        CHECK(!sn_init(s) && !sn_read(s, NULL, "h.w", w, sizeof w) && !memcmp(w, w0, sizeof w));
        sn_session_free(s);
    }
}

static void test_session_errors(void)
{
    sn_session *s = sn_session_new(&program, NULL);
    float x[4];
    CHECK(s != NULL, "%s", sn_rt_error());
    CHECK(sn_run(s, "train") == ERR_USAGE && strstr(sn_session_error(s), "'x'"));
    CHECK(sn_run(s, "eval") == ERR_UNKNOWN && strstr(sn_session_error(s), "eval"));
    CHECK(sn_bind(s, "train", "x", x, sizeof x) == ERR_SHAPE);
    CHECK(sn_bind(s, "train", "h.w", x, sizeof x) == ERR_UNKNOWN);
    CHECK(sn_read(s, NULL, "nope", x, 4) == ERR_UNKNOWN && sn_write(s, "h.w", x, 16) == ERR_SHAPE);
    sn_session_free(s);
    CHECK(!sn_session_new(&program, &(sn_session_desc){ .device = "abacus" }) &&
          strstr(sn_rt_error(), "abacus"));
    SnProgram bad = program;
    SnGraphPlan plan = graphs[0];
    plan.arena_bytes -= 64;
    bad.graphs = &plan;
    CHECK(!sn_session_new(&bad, NULL) && strstr(sn_rt_error(), "bad program"));
    bad = program;
    bad.resolve = NULL;
    CHECK(!sn_session_new(&bad, NULL) && strstr(sn_rt_error(), "no host code"));
    bad.code =
        "not a shared object, though long enough for the header of one, or so one hopes at least";
    bad.code_bytes = strlen(bad.code);
    CHECK(!sn_session_new(&bad, NULL), "%s", sn_rt_error());
}

/* Two code objects with one symbol: each session must run its own, also when descriptors are
 * reused. */
static void test_code(void)
{
    char command[2048];
    char *code[2];
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command,
                 "printf 'void k_one(void *const *b, const void *l, long s, long e, void *t)"
                 "{ (void)l; (void)t; for (; s < e; s++) ((float *)b[0])[s] = %d; }' > %s/k.c && "
                 "cc -shared -fPIC -O1 -o %s/k%d.so %s/k.c", i + 1, folder, folder, i, folder);
        if (system(command) != 0) {
            printf("skipped: code objects: no C compiler here\n");
            return;
        }
        snprintf(command, sizeof command, "k%d.so", i);
        code[i] = slurp(in_folder(command), &bytes[i]);
    }
    SnKernelDesc k = { "k_one", "rows", "one", 16, 0, 0, 0, 1 };
    SnBuffer b = { .kind = SN_BUF_ARENA, .t = F32("y", 16), .bytes = 64 };
    SnLaunch l = { 0, 1, (const int32_t[]){ 0 } };
    SnOutput o = { "y", 0 };
    SnGraphPlan g = { "run", 1, 1, 1, &b, &l, &o, 64, 64 };
    SnProgram p[2];
    for (int i = 0; i < 2; i++)
        p[i] = (SnProgram){ .target = "host",
                            .nkernels = 1,
                            .ngraphs = 1,
                            .kernels = &k,
                            .graphs = &g,
                            .code = code[i],
                            .code_bytes = bytes[i] };
    for (int round = 0; round < 3; round++) {
        sn_session *s[2];
        float y[16];
        for (int i = 0; i < 2; i++) {
            s[i] = sn_session_new(&p[i], &(sn_session_desc){ .threads = 2 });
            CHECK(s[i] != NULL, "%s", sn_rt_error());
        }
        for (int i = 0; i < 2; i++) {
            CHECK(!sn_run(s[i], "run") && !sn_read(s[i], "run", "y", y, sizeof y) &&
                  y[15] == (float)(i + 1));
            sn_session_free(s[i]);
        }
    }
    free(code[0]);
    free(code[1]);
}

/* -- Pool -------------------------------------------------------------------------------------- */

typedef struct Count { _Atomic int *hits; int64_t n; _Atomic int64_t calls; int uneven; } Count;

static void count_run(void *arg, int worker, int64_t begin, int64_t end)
{
    Count *c = arg;
    (void)worker;
    atomic_fetch_add(&c->calls, 1);
    for (int64_t i = begin; i < end; i++) {
        atomic_fetch_add_explicit(&c->hits[i], 1, memory_order_relaxed);
        if (c->uneven && i < c->n / 8)
            for (volatile int k = 0; k < 2000; k++)
                ;
    }
}

static void test_pool(void)
{
    static _Atomic int hits[20000];
    static const int64_t sizes[] = { 0, 1, 2, 3, 5, 64, 1000, 20000 };
    for (int threads = 1; threads <= 9; threads += 2) {
        Pool *p = snR_pool_new(threads);
        for (int round = 0; round < 200; round++) {
            int64_t n = sizes[round % 8];
            Count c = { .hits = hits, .n = n, .uneven = round % 3 == 0 };
            bool once = true;
            if (round % 50 == 49)
                usleep(1000);                    /* let the workers fall asleep */
            memset((void *)hits, 0, sizeof hits);
            snR_pool_run(p, n, count_run, &c);
            for (int64_t i = 0; i < 20000; i++)
                once = once && hits[i] == (i < n);
            CHECK(once, "threads %d n %lld", threads, (long long)n);
        }
        snR_pool_free(p);
    }
}

/* -- Random numbers and initial values --------------------------------------------------------- */

static void test_init(void)
{
    static const uint32_t known[3][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
        { 0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xd16cfe09,
          0x94fdcceb, 0x5001e420, 0x24126ea1 },
    };
    uint32_t out[4];
    for (int i = 0; i < 3; i++) {
        sn_philox(known[i], known[i] + 2, out);
        CHECK(!memcmp(out, known[i] + 6, 16));
    }
    enum { MANY = 300001 };
    SnStorage st = { .t = F32("h.3.attn.q", MANY), .init = 4, .a = 2 };
    float *a = malloc(MANY * 4), *b = malloc(MANY * 4);
    Pool *one = snR_pool_new(1), *five = snR_pool_new(5);
    snR_init_storage(one, &st, 0x123456789abcdefull, a);
    snR_init_storage(five, &st, 0x123456789abcdefull, b);
    double sum = 0, squares = 0;
    for (int i = 0; i < MANY; i++) {
        sum += a[i];
        squares += (double)a[i] * a[i];
    }
    CHECK(!memcmp(a, b, MANY * 4));
    CHECK(fabs(sum / MANY) < 0.02 && fabs(squares / MANY - 4) < 0.05, "%g %g", sum / MANY,
          squares / MANY);
    st.init = 5, st.a = -1, st.b = 3;
    snR_init_storage(five, &st, 1, a);
    bool inside = true;
    for (int i = 0; i < MANY; i++)
        inside = inside && a[i] >= -1 && a[i] < 3;
    uint32_t ctr[4] = { 5 >> 2, ~0u, 0, snR_stream("h.3.attn.q") }, key[2] = { 1, 0 };
    sn_philox(key, ctr, out);
    CHECK(inside && a[5] == (float)(-1 + 4.0 * (out[1] >> 8) / 16777216));
    snR_pool_free(one);
    snR_pool_free(five);
    free(a);
    free(b);
}

static void test_rounding(void)
{
    static const struct { int dtype; double v; uint32_t bits;
    } cases[] = {
        { DT_BF16, 1, 0x3f80 },
        { DT_BF16, 1.00390625, 0x3f80 },
        { DT_BF16, 1.01171875, 0x3f82 },
        { DT_BF16, 1.0039062500001, 0x3f81 },
        { DT_BF16, 3.4e38, 0x7f80 },
        { DT_BF16, -0.0, 0x8000 },
        { DT_F16, 65504, 0x7bff },
        { DT_F16, 65519.9, 0x7bff },
        { DT_F16, 65520, 0x7c00 },
        { DT_F16, 0x1p-24, 1 },
        { DT_F16, 0x1p-25, 0 },
        { DT_F16, 0x1.8p-25, 1 },
        { DT_F16, 0x1p-14, 0x400 },
        { DT_F16, -2, 0xc000 },
        { DT_F16, 0x1.ffep-15, 0x400 },
        { DT_BF16, INFINITY, 0x7f80 },
        { DT_I32, -1, 0xffffffff },
        { DT_U32, 4294967295.0, 0xffffffff },
        { DT_I32, 4294967298.7, 2 },
        { DT_I32, NAN, 0 },
        { DT_BOOL, 0.1, 1 },
        { DT_F32, 0.1, 0x3dcccccd },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t got = 0;
        snR_store(cases[i].dtype, &got, cases[i].v);
        CHECK(got == cases[i].bits, "%s of %a: %x, want %x", snR_dtype_name(cases[i].dtype),
              cases[i].v, got, cases[i].bits);
    }
}

/* -- Tensor files ------------------------------------------------------------------------------ */

static void test_file(void)
{
    char err[256];
    float w[6] = { 1, 2, 3, 4, 5, 6 };
    uint8_t b[3] = { 1, 0, 1 };
    uint16_t u[2] = { 7, 65535 };
    sn_tensor t[] = {
        { "b", DT_BOOL, 1, { 3 }, b, 3 }, { "w \"x\" \303\244", DT_F32, 2, { 2, 3 }, w, 24 },
        { "none", DT_F32, 2, { 0, 5 }, NULL, 0 }, { "tokens", SN_FILE_U16, 1, { 2 }, u, 4 },
        { "s", DT_F32, 0, { 0 }, w, 4 },
    };
    const char *meta[] = { "sinter", "{\"step\": 3}", "who", "me", NULL };
    const char *path = in_folder("t.safetensors");
    CHECK(!sn_file_write(path, t, 5, meta, err), "%s", err);
    sn_file *f = sn_file_open(path, err);
    CHECK(f && sn_file_count(f) == 5, "%s", err);
    for (int i = 0; f && i < 5; i++) {
        const sn_tensor *r = sn_file_find(f, t[i].name);
        CHECK(r && r->dtype == t[i].dtype && r->rank == t[i].rank && r->bytes == t[i].bytes &&
              !memcmp(r->dim, t[i].dim, 8 * (size_t)r->rank) &&
              (!r->bytes || !memcmp(r->data, t[i].data, r->bytes)));
        CHECK(r && (size_t)r->data % (size_t)snR_dtype_size(r->dtype) == 0);
    }
    CHECK(f && !sn_file_find(f, "nope") && !strcmp(sn_file_meta(f, "sinter"), meta[1]) &&
          !sn_file_meta(f, "x"));
    sn_file_close(f);
    t[0].name = "s";
    CHECK(sn_file_write(path, t, 5, meta, err) == ERR_USAGE);
    t[0].name = "\xff";
    CHECK(sn_file_write(path, t, 5, meta, err) == ERR_USAGE);
    CHECK(sn_file_write(in_folder("no/such/x"), t + 1, 1, NULL, err) == ERR_IO);
    CHECK(sn_file_write("/dev/full", t + 1, 1, NULL, err) == ERR_IO && strstr(err, "regular"));
    CHECK(!sn_file_open(in_folder("absent"), err) && !sn_file_open(folder, err) &&
          !sn_file_open("/dev/zero", err));
}

static bool opens(const char *header, const char *data, size_t bytes, char err[256])
{
    uint64_t n = strlen(header);
    char *p = malloc(8 + n + bytes + 1);
    for (int i = 0; i < 8; i++)
        p[i] = (char)(n >> 8 * i);
    memcpy(p + 8, header, n);
    if (bytes)
        memcpy(p + 8 + n, data, bytes);
    const char *path = in_folder("h.safetensors");
    spill(path, p, 8 + n + bytes);
    free(p);
    sn_file *f = sn_file_open(path, err);
    sn_file_close(f);
    return f != NULL;
}

static void test_hostile_headers(void)
{
    static const struct { bool ok; int bytes; const char *header;
    } cases[] = {
        { true, 4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}" },
        { true, 0, "{}" },
        { false, 1, "{}" },
        { false, 4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}" },
        { false, 8, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}" },
        { false, 8, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}" },
        { false, 4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}" },
        { false, 4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}" },
        { false, 4, "{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}" },
        { false, 4,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}" },
        { false, 4,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}" },
        { false, 4, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}" },
        { false, 4,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999999]}"
          "}" },
        { false, 4,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}" },
        { false, 4, "{\"a\":[]}" },
        { false, 0, "[]" },
        { false, 0, "{\"a\":" },
        { false, 0, "" },
        { false, 0, "{\"__metadata__\":{\"a\":3}}" },
        { false, 0, "{\"__metadata__\":[]}" },
        { false, 8,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}" },
        { false, 8,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}" },
        { false, 8,
          "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        CHECK(opens(cases[i].header, "12345678", (size_t)cases[i].bytes, err) == cases[i].ok,
              "%s: %s", cases[i].header, err);
        CHECK(cases[i].ok || *err, "no message for %s", cases[i].header);
    }
    char deep[5000], err[256];
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"a\":", 5);
    deep[4999] = 0;
    CHECK(!opens(deep, "", 0, err));
}

/* Mutated copies of a checkpoint: never a crash; what opens has all its data readable. */
static void test_mutations(void)
{
    char err[256], meta[] = "{\"step\":1}";
    const char *path = in_folder("m.safetensors"), *mutant = in_folder("mutant.safetensors");
    sn_session *s = start(1);
    CHECK(!sn_save(s, path, meta), "%s", sn_session_error(s));
    size_t n;
    char *good = slurp(path, &n), *bad = malloc(n + 64);
    uint32_t key[2] = { 1, 2 }, w[4], opened = 0;
    uint64_t all_bytes = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        uint32_t ctr[4] = { i, 0, 0, 0 };
        size_t size = n;
        sn_philox(key, ctr, w);
        memcpy(bad, good, n);
        size_t at = w[0] % (i % 4 == 0 ? 8 : 600);
        switch (w[1] % 6) {
        case 0: bad[at] = (char)w[2]; break;
        case 1: bad[at] ^= (char)(1 << w[2] % 8); break;
        case 2: memmove(bad + at, bad + at + 1, n - at - 1); break;
        case 3: bad[at] = "{}[]\",:0919-.e\\"[w[2] % 15]; break;
        case 4: size = w[2] % 2 ? at : w[3] % n; break;
        default: memmove(bad + at, bad + 8 + w[3] % 300, 1 + w[2] % 16); break;
        }
        spill(mutant, bad, size);
        sn_file *f = sn_file_open(mutant, err);
        for (int k = 0; f && k < sn_file_count(f); k++) {
            const sn_tensor *t = sn_file_at(f, k);
            for (size_t b = 0; b < t->bytes; b++)
                all_bytes += ((const uint8_t *)t->data)[b];
        }
        opened += f != NULL;
        sn_file_close(f);
        char *m = NULL;
        if (i % 8 == 0)
            sn_load(s, mutant, &m, i % 16 == 0);
        free(m);
    }
    CHECK(opened < 6000 && all_bytes > 0);
    free(good);
    free(bad);
    sn_session_free(s);
}

/* -- Checkpoints ------------------------------------------------------------------------------- */

static void test_checkpoint(void)
{
    const char *path = in_folder("c.safetensors");
    sn_session *a = start(2), *b = start(3);
    float la, lb;
    char *meta = NULL;
    CHECK(!sn_run(a, "train") && !sn_save(a, path, "{\"step\": 1}"), "%s", sn_session_error(a));
    CHECK(!sn_load(b, path, &meta, false) && meta && !strcmp(meta, "{\"step\": 1}"), "%s",
          sn_session_error(b));
    free(meta);
    CHECK(!sn_run(a, "train") && !sn_run(b, "train"));
    CHECK(!sn_read(a, "train", "loss", &la, 4) && !sn_read(b, "train", "loss", &lb, 4) && la == lb);
    char err[256];
    float w[N] = { 0 };
    sn_tensor t = { "h.w", DT_F32, 1, { N }, w, sizeof w };
    CHECK(!sn_file_write(path, &t, 1, NULL, err));
    CHECK(sn_load(b, path, NULL, false) == ERR_UNKNOWN && strstr(sn_session_error(b), "flag"));
    CHECK(!sn_load(b, path, &meta, true) && !meta && !sn_read(b, NULL, "h.w", w, sizeof w) &&
          w[17] == 0);
    t.dim[0] = N / 2, t.bytes /= 2;
    CHECK(!sn_file_write(path, &t, 1, NULL, err) && sn_load(b, path, NULL, true) == ERR_SHAPE);
    sn_session_free(a);
    sn_session_free(b);
}

/* A child saves again and again and is killed at random moments: there is always one whole
 * checkpoint. */
static void test_kill(void)
{
    const char *path = in_folder("k.safetensors");
    sn_session *s = start(1);
    CHECK(!sn_save(s, path, "{}"));
    for (int round = 0; round < 30; round++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            for (;;)
                if (sn_save(s, path, "{}"))
                    _exit(1);
        usleep((useconds_t)(500 + round * 977 % 7000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        CHECK(!sn_load(s, path, NULL, false), "%s", sn_session_error(s));
    }
    CHECK(!sn_save(s, path, "{}"));
    int leftovers = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));)
        leftovers += strstr(e->d_name, ".tmp") != NULL;
    closedir(d);
    CHECK(leftovers == 0, "%d", leftovers);
    sn_session_free(s);
}

static void test_full_disk(void)
{
    const char *path = in_folder("full.safetensors");
    sn_session *s = start(1);
    CHECK(!sn_save(s, path, "{\"old\":1}"));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 4096, 4096 });
        int rc = sn_save(s, path, "{}");
        _exit(rc == ERR_IO && strstr(sn_session_error(s), "cannot write") ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    char *meta = NULL;
    CHECK(status == 0);
    CHECK(!sn_load(s, path, &meta, false) && meta && !strcmp(meta, "{\"old\":1}"));
    CHECK(access(in_folder("full.safetensors.tmp"), F_OK) != 0);
    free(meta);
    sn_session_free(s);
}

/* -- Data -------------------------------------------------------------------------------------- */

static void write_tokens(const char *path, int dtype, const void *data, int64_t n)
{
    char err[256];
    sn_tensor t = { "tokens", (uint8_t)dtype, 1, { n }, data, (size_t)(n * snR_dtype_size(dtype)) };
    CHECK(!sn_file_write(path, &t, 1, NULL, err), "%s", err);
}

static void test_epochs(const char *path, int64_t unique, int64_t window)
{
    char err[256];
    sn_data_desc desc = { path, window, unique, 5, true };
    sn_data *d = sn_data_open(&desc, err), *again = sn_data_open(&desc, err);
    int32_t out[64], other[64], firsts[4];
    int64_t W = unique / window, id, epoch;
    CHECK(d && again && sn_data_windows(d) == W && sn_data_tokens(d) == unique, "%s", err);
    for (int64_t e = 0; e < 4; e++) {
        int seen[1024] = { 0 }, ids[1024] = { 0 };
        int64_t once = 0;
        bool good = true;
        for (int64_t i = 0; i < W; i++) {
            good = good && !sn_data_window(d, e * W + i, out, &id, &epoch) && epoch == e &&
                   id / W == e;
            ids[id % W]++;
            for (int64_t k = 0; k < window; k++) {
                seen[out[k]]++;
                good = good && out[k] < unique && (!k || out[k] == (out[k - 1] + 1) % unique);
            }
            good = good && !sn_data_window(again, e * W + i, other, NULL, NULL) &&
                   !memcmp(out, other, sizeof *out * (size_t)window);
            firsts[e] = i ? firsts[e] : out[0];
        }
        for (int i = 0; i < 1024; i++) {
            once += seen[i] == 1;
            good = good && seen[i] <= 1 && ids[i] == (i < W);
        }
        CHECK(good && once == W * window, "epoch %lld: %lld once", (long long)e, (long long)once);
    }
    CHECK(firsts[0] != firsts[1] || firsts[1] != firsts[2] || firsts[2] != firsts[3]);
    sn_data_close(d);
    sn_data_close(again);
}

static void test_data(void)
{
    static uint16_t ramp[1024];
    char err[256];
    int32_t out[64];
    int64_t id, epoch;
    const char *path = in_folder("d.safetensors");
    for (int i = 0; i < 1024; i++)
        ramp[i] = (uint16_t)i;
    write_tokens(path, SN_FILE_U16, ramp, 1024);
    test_epochs(path, 1024, 32);
    test_epochs(path, 640, 10);
    test_epochs(path, 1000, 33);
    sn_data *d = sn_data_open(&(sn_data_desc){ path, 50, 0, 1, false }, err);
    CHECK(d && sn_data_windows(d) == 20 && sn_data_max(d) == 1023);
    CHECK(!sn_data_window(d, 23, out, &id, &epoch) && out[0] == 150 && out[49] == 199 && id == 23 &&
          epoch == 1);
    CHECK(sn_data_window(d, -1, out, NULL, NULL) < 0);
    sn_data_close(d);
    CHECK(!sn_data_open(&(sn_data_desc){ path, 50, 1025, 1, true }, err) && strstr(err, "1025"));
    CHECK(!sn_data_open(&(sn_data_desc){ path, 2000, 0, 1, true }, err) && strstr(err, "2000"));
    CHECK(!sn_data_open(&(sn_data_desc){ path, 0, 0, 1, true }, err));
    int32_t negative[4] = { 1, 2, -3, 4 };
    write_tokens(path, DT_I32, negative, 4);
    CHECK(!sn_data_open(&(sn_data_desc){ path, 2, 0, 1, true }, err) && strstr(err, "negative"));
    d = sn_data_open(&(sn_data_desc){ path, 2, 2, 1, true }, err);
    CHECK(d != NULL);                            /* the budget ends before the bad token */
    sn_data_close(d);
    write_tokens(path, DT_F32, negative, 4);
    CHECK(!sn_data_open(&(sn_data_desc){ path, 2, 0, 1, true }, err));
}

/* Marks of windows against the tokens, which are numbers of places. */
static void test_marks(void)
{
    enum { COUNT = 100, W = 7 };
    uint8_t tokens[COUNT], scored[COUNT];
    int64_t starts[] = { 0, 3, 20, 21, 50, 90 }, id, epoch;
    char err[256];
    int32_t out[W], begins[W], counts[W];
    const char *path = in_folder("m.safetensors");
    for (int i = 0; i < COUNT; i++)
        tokens[i] = (uint8_t)i, scored[i] = i % 3 != 0;
    sn_tensor t[] = { { "tokens", SN_FILE_U8, 1, { COUNT }, tokens, COUNT },
                      { "documents", SN_FILE_I64, 1, { 6 }, starts, sizeof starts },
                      { "scored", SN_FILE_U8, 1, { COUNT }, scored, COUNT } };
    CHECK(!sn_file_write(path, t, 3, NULL, err), "%s", err);
    sn_data *d = sn_data_open(&(sn_data_desc){ .path = path, .window = W, .seed = 2, .shuffle = true }, err);
    CHECK(d && sn_data_has(d, "documents") && sn_data_has(d, "scored"), "%s", err);
    bool good = true;
    for (int64_t i = 0; i < 140 && d; i++) {
        good = good && !sn_data_marks(d, i, begins, counts) && !sn_data_window(d, i, out, &id, &epoch);
        for (int k = 0, first = 0; k < W; k++) {
            for (int s = 0; s < 6; s++)
                first = starts[s] == out[k] ? k : first;
            good = good && begins[k] == first && counts[k] == scored[out[k]];
        }
    }
    CHECK(good);
    sn_data_close(d);
    d = sn_data_open(&(sn_data_desc){ .path = path, .window = W, .seed = 2, .shuffle = true, .views = 3 }, err);
    int32_t first[14 * W];
    good = d != NULL;
    for (int64_t i = 0; i < 14 * 6 && d; i++) {  /* the same places in another order, sample ids again after three epochs */
        good = good && !sn_data_window(d, i, out, &id, &epoch) && id / 14 == epoch % 3 && out[0] == id % 14 * W;
        if (epoch == 0)
            memcpy(first + id * W, out, sizeof out);
        good = good && !memcmp(first + id % 14 * W, out, sizeof out);
    }
    CHECK(good);
    sn_data_desc fixed = { .path = path, .window = W, .seed = 2, .shuffle = true, .fixed = true };
    sn_data *same = sn_data_open(&fixed, err);
    int32_t other[W];
    good = same != NULL;                         /* with views or without, the same windows in the same order */
    for (int64_t i = 0; i < 14 * 6 && good; i++)
        good = !sn_data_window(d, i, out, NULL, NULL) && !sn_data_window(same, i, other, NULL, NULL) && !memcmp(out, other, sizeof out);
    CHECK(good);
    sn_data_close(same);
    sn_data_close(d);
    starts[3] = 20;
    CHECK(!sn_file_write(path, t, 3, NULL, err));
    CHECK(!sn_data_open(&(sn_data_desc){ .path = path, .window = W }, err) && strstr(err, "document 3"), "%s", err);
    starts[3] = 21, starts[0] = 1;
    CHECK(!sn_file_write(path, t, 3, NULL, err));
    CHECK(!sn_data_open(&(sn_data_desc){ .path = path, .window = W }, err) && strstr(err, "ascend from 0"), "%s", err);
}

/* Records: one a window, cut or filled up; those without a scored token in reach are left out. */
static void test_records(void)
{
    enum { COUNT = 20, W = 6 };
    uint8_t tokens[COUNT], scored[COUNT] = { 0 };
    int64_t starts[] = { 0, 4, 13, 18 }, id;     /* lengths 4, 9, 5, 2; prompts 2, 7, 1, 1 */
    int32_t out[W], begins[W], counts[W];
    char err[256];
    const char *path = in_folder("r.safetensors"), *meta[] = { "records", "1", "eod", "99", NULL };
    for (int i = 0; i < COUNT; i++)
        tokens[i] = (uint8_t)i;
    for (int i = 0; i < COUNT; i++)
        scored[i] = (i >= 2 && i < 4) || (i >= 11 && i < 13) || (i >= 14 && i < 18) || i == 19;
    sn_tensor t[] = { { "tokens", SN_FILE_U8, 1, { COUNT }, tokens, COUNT },
                      { "documents", SN_FILE_I64, 1, { 4 }, starts, sizeof starts },
                      { "scored", SN_FILE_U8, 1, { COUNT }, scored, COUNT } };
    CHECK(!sn_file_write(path, t, 3, meta, err), "%s", err);
    for (int fill = 0; fill < 2; fill++) {
        sn_data *d = sn_data_open(&(sn_data_desc){ .path = path, .window = W, .fill_scored = fill }, err);
        CHECK(d && sn_data_windows(d) == 3 && sn_data_max(d) == 99, "%s", err);
        static const int at[] = { 0, 13, 18 }, have[] = { 4, 5, 2 };
        for (int64_t i = 0; i < 3 && d; i++) {
            bool good = !sn_data_window(d, i, out, &id, NULL) && !sn_data_marks(d, i, begins, counts) && id == i;
            for (int k = 0; k < W; k++) {
                bool in = k < have[i];
                good = good && out[k] == (in ? at[i] + k : 99) && begins[k] == (in || fill ? 0 : have[i]) &&
                       counts[k] == (in ? scored[at[i] + k] : fill);
            }
            CHECK(good, "record %d", (int)i);
        }
        sn_data_close(d);
    }
    CHECK(!sn_data_open(&(sn_data_desc){ .path = path, .window = 1 }, err) && strstr(err, "longer windows"), "%s", err);
    meta[3] = "x";
    CHECK(!sn_file_write(path, t, 3, meta, err));
    CHECK(!sn_data_open(&(sn_data_desc){ .path = path, .window = W }, err) && strstr(err, "'eod'"), "%s", err);
}

static void test_devices(void)
{
    sn_device_info d;
    CHECK(sn_devices(&d, 1, false) == 1 && !strcmp(d.name, "host") && d.cores >= 1 && d.what[0]);
}

/* -- Bench ------------------------------------------------------------------------------------- */

static void nothing(void *arg, int worker, int64_t begin, int64_t end)
{
    (void)arg, (void)worker, (void)begin, (void)end;
}

static void bench(void)
{
    Pool *p = snR_pool_new(0);
    double t = snR_now();
    for (int i = 0; i < 20000; i++)
        snR_pool_run(p, 64, nothing, NULL);
    printf("launch of 64 empty programs: %.2f us\n", (snR_now() - t) / 20000 * 1e6);
    SnStorage st = { .t = F32("w", 40 << 20), .init = 4, .a = 2 };
    float *w = snR_alloc(4ull * (40 << 20));
    t = snR_now();
    snR_init_storage(p, &st, 1, w);
    printf("normal: %.1f M values/s\n", (40 << 20) / (snR_now() - t) * 1e-6);
    free(w);
    snR_pool_free(p);
    sn_device_info d;
    sn_devices(&d, 1, true);
    printf("%s: %s, %d cores, %.0f GFLOP/s, %.1f GB/s\n", d.name, d.what, d.cores,
           d.peak_gflops_f32, d.bandwidth_gbs);
}

int main(int argc, char **argv)
{
    const char *tmp = getenv("TMPDIR");
    if (argc > 1 && !strcmp(argv[1], "bench")) {
        bench();
        return 0;
    }
    snprintf(folder, sizeof folder, "%.200s/sinter-unit-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    test_pool();
    test_init();
    test_rounding();
    test_session();
    test_session_errors();
    test_code();
    test_file();
    test_hostile_headers();
    test_mutations();
    test_checkpoint();
    test_kill();
    test_full_disk();
    test_data();
    test_marks();
    test_records();
    test_devices();
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command))
        printf("cannot remove %s\n", folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
