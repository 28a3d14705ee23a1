/* unit_cuda.c: the device `cuda` over a driver without a card (fake_cuda.c, found by this program's rpath): the bits of the device emu; copies larger
   than what is pinned; the n-th call of the driver failing, alone or with all that follow, for every n; what it says of cards and programs
   that do not go together. In: [N], to try every N-th call only. Out: `N passed, N failed`. */
#define _GNU_SOURCE
#include "codegen/family.h"
#include "runtime/bundle.h"
#include "tests/check.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char TEXT[] =
    "graph train {\n"
    "  input tokens: i32[2, 4]\n"
    "  weight embed: f32[7, 8] = normal(1)\n"
    "  weight w: f32[8, 7] = normal(0.2)\n"
    "  input drop: f32[] = 0.25\n"
    "  output loss = mean(xent(dropout(gather(embed, tokens), drop) @ w, tokens))\n"
    "}\n";
static const char LARGE[] = "graph g {\n  weight w: f32[5300001] = normal(1)\n  output y = w * 2.0\n}\n";

static int (*fail_at)(int64_t n), (*live)(void);

static SnProgram *build(const char *text, const char *target, bool train) {
    sn_ctx *c = sn_ctx_new();
    Module *m = snG_parse(c, "cuda.sn", text, strlen(text), NULL, 0);
    SnProgram *p = m ? snK_build(m, &(BuildOptions){ .target = target, .train = train, .fuse = "all" }, NULL) : NULL;
    if (!p) printf("%s\n", c->message), exit(1);
    snG_free_module(m);
    sn_ctx_free(c);
    return p;
}

static int32_t tokens[8] = { 1, 2, 3, 4, 5, 6, 0, 1 };

static sn_session *start(const SnProgram *p, const char *device, bool profile) {
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .device = device, .seed = 3, .threads = 1, .poison = strcmp(device, "emu") != 0, .profile = profile });
    if (s) sn_bind(s, "train", "tokens", tokens, sizeof tokens), sn_set(s, "lr", 1e-2);
    return s;
}

/* -- The bits of emu -------------------------------------------------------------------------------------------------------- */

static void same_storage(const SnProgram *p, sn_session *a, sn_session *b, const char *how) {
    for (int i = 0; i < p->nstorage; i++) {
        const SnTensorDesc *t = &p->storage[i].t;
        size_t n = (size_t)snR_tensor_bytes(t->dtype, t->rank, t->dim);
        char *x = malloc(n + 1), *y = malloc(n + 1);
        bool read = !sn_read(a, NULL, t->name, x, n) && !sn_read(b, NULL, t->name, y, n);
        ok(read && !memcmp(x, y, n), "%s: %s after 5 steps: the same bits", how, t->name);
        free(x), free(y);
    }
}

static void test_steps(const SnProgram *p, const char *how, bool profile) {
    sn_session *a = start(p, "emu", false), *b = start(p, "cuda", profile);
    ok(a && b, "%s: sessions: %s", how, sn_rt_error());
    if (!a || !b) return;
    float x[2] = { 0 };
    int fixed = 0;
    for (int i = 0; i < p->nkernels; i++) fixed += p->kernels[i].timeless;
    ok(fixed > 0 && fixed < p->nkernels, "%d of %d kernels are the same in every step", fixed, p->nkernels);
    for (uint32_t step = 1; step <= 5; step++) {
        sn_session *const s[2] = { a, b };
        for (int i = 0; i < 2; i++) {
            sn_set(s[i], "step", step);
            sn_step(s[i], step, 0);
            ok(!sn_run(s[i], "train") && !sn_read(s[i], "train", "loss", &x[i], 4), "%s, step %u: %s", how, step, sn_session_error(s[i]));
        }
        ok(!memcmp(&x[0], &x[1], 4), "%s, step %u: loss %.9g and %.9g", how, step, (double)x[0], (double)x[1]);
    }
    same_storage(p, a, b, how);
    sn_kernel_time *t = calloc((size_t)p->graphs[0].nlaunches + 1, sizeof *t);
    int n = profile ? sn_profile(b, "train", t, p->graphs[0].nlaunches) : 0;
    double sum = 0;
    for (int i = 0; i < n; i++) sum += t[i].seconds;
    ok(!profile || (n > 3 && sum > 0), "%s: times", how);
    free(t);
    sn_session_free(a), sn_session_free(b);
    ok(live() == 0, "%s: %d things of the driver are left", how, live());
}

/* More than both halves of pinned memory hold, and many small copies between. */
static void test_copies(void) {
    enum { N = 5300001 };
    SnProgram *p = build(LARGE, "ptx:sm_80", false);
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .device = "cuda" });
    float *x = malloc(4 * N), *y = malloc(4 * N);
    uint32_t r = 1;
    ok(s != NULL, "copies: %s", sn_rt_error());
    for (int round = 0; round < 2 && s; round++) {
        for (int i = 0; i < N; i++) r = r * 1664525u + 1013904223u, x[i] = (float)(r >> 8);
        int rc = sn_write(s, "w", x, 4 * N);
        for (int k = 0; k < 5; k++) rc |= sn_write(s, "w", x, 4 * N);
        ok(!rc && !sn_read(s, NULL, "w", y, 4 * N) && !memcmp(x, y, 4 * N), "copies: what was written is read: %s", sn_session_error(s));
    }
    int wrong = s && !sn_run(s, "g") && !sn_read(s, "g", "y", y, 4 * N) ? 0 : 1;
    for (int i = 0; i < N && !wrong; i++) wrong = y[i] != 2 * x[i];
    ok(!wrong, "copies: a kernel sees what was written");
    free(x), free(y);
    sn_session_free(s);
    snR_program_free(p);
}

/* -- Every call fails once -------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sinter-cuda-XXXXXX", bundle[80], checkpoint[80];

static int use(char line[256]) {
    sn_program *p = sn_program_open(bundle, "cuda");
    sn_session *s = p ? start(p, "cuda", true) : NULL;
    float loss;
    int rc = s ? 0 : -1;
    snprintf(line, 256, "%s", s ? "" : sn_rt_error());
    if (!rc) rc = sn_bind(s, "train", "tokens", tokens, sizeof tokens);
    if (!rc) rc = sn_step(s, 1, 0);
    if (!rc) rc = sn_run(s, "train");
    if (!rc) rc = sn_step(s, 2, 0);
    if (!rc) rc = sn_run(s, "train");
    if (!rc) rc = sn_read(s, "train", "loss", &loss, sizeof loss);
    if (!rc) rc = sn_save(s, checkpoint, "{}");
    if (!rc) rc = sn_load(s, checkpoint, NULL, false);
    if (rc && s) snprintf(line, 256, "%s", sn_session_error(s));
    sn_session_free(s);
    sn_program_close(p);
    return rc;
}

static void test_faults(bool all_after, int every) {
    char line[256];
    int64_t n = 1, lost = 0;
    for (int quiet = 0; n < 5000 && quiet < 60; n += every) {        /* the last calls are those of closing, which report nothing */
        fail_at(all_after ? -n : n);
        int rc = use(line);
        fail_at(0);
        quiet = rc ? 0 : quiet + every;
        ok(!rc || (*line && !strchr(line, '\n')), "call %lld fails%s: an error without a line", (long long)n, all_after ? ", and all after it" : "");
        if (live()) lost++, ok(false, "call %lld fails: %d things of the driver are left", (long long)n, live()), exit(1);
    }
    ok(n > 100 && n < 5000 && !lost, "%lld calls", (long long)n);
}

/* -- What does not go together ------------------------------------------------------------------------------------------------------ */

static void says(const SnProgram *p, const char *facts, const char *part, const char *what) {
    setenv("SN_FAKE_CUDA", facts, 1);
    sn_session *s = start(p, "cuda", false);
    int rc = s ? sn_run(s, "train") : -1;
    const char *line = s ? sn_session_error(s) : sn_rt_error();
    ok(rc && strstr(line, part) && !strchr(line, '\n'), "%s: '%s' expected, not '%s'", what, part, rc ? line : "nothing");
    sn_session_free(s);
    unsetenv("SN_FAKE_CUDA");
    fail_at(0);
    ok(live() == 0, "%s: %d things of the driver are left", what, live());
}

static void runs(const SnProgram *p, const char *facts) {
    setenv("SN_FAKE_CUDA", facts, 1);
    sn_session *s = start(p, "cuda", false);
    ok(s && !sn_run(s, "train"), "%s: %s", facts, s ? sn_session_error(s) : sn_rt_error());
    sn_session_free(s);
    unsetenv("SN_FAKE_CUDA");
}

static const char STRAY[] =
    ".version 7.1\n.target sm_80\n.address_size 64\n"
    ".visible .entry stray(.param .u64 b, .param .u32 s0, .param .u32 s1, .param .u32 step, .param .u32 micro, .param .u64 scratch) {\n"
    ".reg .b64 %q<2>; .reg .b32 %r<2>;\nmov.u64 %q1, 64;\nmov.u32 %r1, 1;\nst.global.u32 [%q1], %r1;\nret;\n}\n";

/* A kernel that leaves its memory; the driver's own report of it goes to stderr, which is shut meanwhile. */
static void test_fault_in_kernel(void) {
    SnKernelDesc k = { .symbol = "stray", .family = "rows", .label = "stray", .grid = 1, .nargs = 1, .threads = 32 };
    SnBuffer b = { .kind = SN_BUF_ARENA, .t = { .name = "y", .dtype = DT_F32 }, .bytes = 4 };
    SnLaunch l = { 0, 1, (const int32_t[]){ 0 } };
    SnGraphPlan g = { .name = "train", .nbuffers = 1, .nlaunches = 1, .buffers = &b, .launches = &l, .arena_bytes = 4 };
    SnProgram p = { .target = "ptx:sm_80", .nkernels = 1, .ngraphs = 1, .kernels = &k, .graphs = &g, .code = STRAY, .code_bytes = sizeof STRAY - 1 };
    fflush(stderr);
    int err = dup(2);
    if (!freopen("/dev/null", "w", stderr)) return;
    says(&p, "", "graph 'train': CUDA: cuStreamSynchronize: an illegal memory access was encountered (700); SN_CUDA_SYNC=1 names the kernel", "a fault in a kernel");
    setenv("SN_CUDA_SYNC", "1", 1);
    says(&p, "", "graph 'train', launch 0, kernel 'stray' (stray): CUDA: cuLaunchKernel: an illegal", "a fault in a kernel, one by one");
    unsetenv("SN_CUDA_SYNC");
    fflush(stderr);
    dup2(err, 2), close(err);
}

static void test_errors(const SnProgram *p) {
    SnProgram q = *p;
    SnKernelDesc *k = calloc((size_t)p->nkernels, sizeof *k);
    memcpy(k, p->kernels, (size_t)p->nkernels * sizeof *k);
    q.kernels = k;
    says(p, "cards=0", "finds no card", "no card");
    says(p, "sm=75", "compiled for ptx:sm_80, cuda:0 is sm_75", "an old card");
    says(p, "memory=1000", "out of memory: 0.00 GB asked, 0.00 of 0.00 GB are free on cuda:0", "a full card");
    says(p, "ptx=70", "is older than the program's PTX 7.1: update the driver, or build with --cubin", "an old driver");
    q.target = "ptx:sm_90";
    says(&q, "sm=86", "compiled for ptx:sm_90, cuda:0 is sm_86: build with -t ptx:sm_80", "a new program");
    q.target = "ptx:sm_90a";
    says(&q, "sm=100", "compiled for ptx:sm_90a, cuda:0 is sm_100: build with -t ptx:sm_90", "a program for one card");
    q.target = "host";
    says(&q, "", "compiled for 'host', not for cuda", "another target");
    q = *p, q.kernels = k;
    k[0].shared_bytes = 100 << 10;
    runs(&q, "shared=102400");
    says(&q, "shared=99000", "102400 bytes of shared memory a block, cuda:0 has 1024 and 99000", "much shared memory");
    k[0].shared_bytes = p->kernels[0].shared_bytes, k[0].symbol = "nobody";
    says(&q, "", "cuModuleGetFunction: named symbol not found (500)", "a missing kernel");
    q = *p;
    q.code = ".version 7.1\n.target sm_80\n.address_size 64\nnonsense", q.code_bytes = 52;
    says(&q, "", "error : PTX line 4", "a text that is no PTX");
    free(k);
}

int main(int argc, char **argv) {
    void *lib = dlopen("libcuda.so.1", RTLD_NOW);
    char err[256];
    if (lib) *(void **)&fail_at = dlsym(lib, "fake_cuda_fail"), *(void **)&live = dlsym(lib, "fake_cuda_live");
    if (!fail_at || !live || !mkdtemp(folder)) return printf("skipped: the libcuda.so.1 here is not the tests' own (ninja tests)\n0 passed, 0 failed\n"), 0;
    snprintf(bundle, sizeof bundle, "%s/x.snb", folder);
    snprintf(checkpoint, sizeof checkpoint, "%s/x.safetensors", folder);
    SnProgram *p = build(TEXT, "ptx:sm_80", true);
    ok(!snR_bundle_write(bundle, (const SnProgram *const[]){ p }, 1, "cuda.sn", "", err), "the bundle is written");
    test_steps(p, "graphs", false);
    test_steps(p, "graphs with events", true);
    setenv("SN_CUDA_SYNC", "1", 1);
    test_steps(p, "one by one", true);
    unsetenv("SN_CUDA_SYNC");
    for (int what = SN_PEAK_F32; what <= SN_BANDWIDTH; what++)
        ok(snR_ptx_measure("emu", 80, 1, what, 1 << 18) > 0 && snR_ptx_measure("cuda", 80, 1, what, 1 << 18) > 0, "a measurement of kind %d: %s", what, sn_rt_error());
    test_copies();
    test_errors(p);
    test_fault_in_kernel();
    int every = argc > 1 && atoi(argv[1]) > 0 ? atoi(argv[1]) : 1;
    test_faults(false, every);
    test_faults(true, every);
    snR_program_free(p);
    unlink(bundle), unlink(checkpoint), rmdir(folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
