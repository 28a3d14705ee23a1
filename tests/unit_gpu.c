/* unit_gpu.c: kernels of thread blocks. In: nothing. Out: `N passed, N failed`.

   Kernels written by hand run in the interpreter (kir_eval) and, where there is an OpenCL device, in the GPU form of OpenCL C;
   both against plain C, all bits. Then kernels with a planted fault, one of each kind that the interpreter knows: it must say which. */
#include "codegen/tile.h"
#include "runtime/program.h"
#include "runtime/sn_rt.h"
#include "tests/kir_eval.h"
#include <math.h>
#include <stdarg.h>

static sn_ctx ctx;
static Arena arena;
static int passed, failed;
static bool has_device;

static bool check(bool ok, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (ok) passed++;
    else failed++, printf("FAILED "), vprintf(fmt, ap), printf("\n");
    va_end(ap);
    return ok;
}

static Kernel *parse(const char *text) {
    SN_ENTER(&ctx, { printf("%s\n", ctx.message); exit(1); });
    Kernel *k = snK_parse(&ctx, &arena, "test.kir", text, strlen(text));
    snK_verify(k);
    SN_LEAVE(&ctx);
    return k;
}

/* -- On a device ---------------------------------------------------------------------------------------------------- */

enum { MAX_PARAMS = 12 };

/* A graph of one launch over inputs; what it writes is read back from them. */
static bool run_opencl(const Kernel *k, const KirBuffer *buf, const uint32_t la[4], int64_t blocks, int at_once) {
    static const char *const name[MAX_PARAMS] = { "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "b10", "b11" };
    SnBuffer b[MAX_PARAMS] = { 0 };
    SnOutput o[MAX_PARAMS];
    int32_t args[MAX_PARAMS];
    int n = (int)k->params.n, rc = 0;
    const char *symbol;
    void *code;
    size_t bytes;
    snK_compile_opencl(&k, 1, &code, &bytes, &symbol, &arena);
    for (int i = 0; i < n; i++) {
        b[i] = (SnBuffer){ SN_BUF_INPUT, { name[i], SN_BOOL, 1, { buf[i].bytes } }, .bytes = buf[i].bytes, .storage = -1 };
        o[i] = (SnOutput){ name[i], i };
        args[i] = i;
    }
    SnKernelDesc desc = { .symbol = symbol, .family = "", .label = symbol, .grid = blocks, .scratch_bytes = k->scratch, .nargs = n,
                          .threads = k->threads, .shared_bytes = k->shared };
    SnLaunch l = { 0, n, args };
    SnGraphPlan g = { .name = "g", .nbuffers = n, .nlaunches = 1, .noutputs = n, .buffers = b, .launches = &l, .outputs = o };
    SnProgram p = { .target = "opencl:gpu", .nkernels = 1, .ngraphs = 1, .kernels = &desc, .graphs = &g, .code = code, .code_bytes = bytes };
    sn_session *s = sn_session_new(&p, &(sn_session_desc){ .device = "opencl:gpu", .threads = at_once });
    if (!check(s != NULL, "session: %s", sn_rt_error())) return free(code), false;
    sn_seed(s, (uint64_t)la[1] << 32 | la[0]), sn_step(s, la[2], la[3]);
    for (int i = 0; i < n; i++) rc |= sn_bind(s, "g", name[i], buf[i].p, (size_t)buf[i].bytes);
    rc |= sn_run(s, "g");
    for (int i = 0; i < n; i++) if (k->params.v[i].written) rc |= sn_read(s, "g", name[i], buf[i].p, (size_t)buf[i].bytes);
    check(!rc, "run: %s", sn_session_error(s));
    sn_session_free(s);
    free(code);
    return !rc;
}

/* `want` of the last buffer, from the interpreter and from the device, with all blocks at once and two at a time. */
static void expect(const char *what, const Kernel *k, KirBuffer *buf, int64_t blocks, const void *want) {
    static const uint32_t la[4] = { 11, 22, 33, 44 };
    KirBuffer *out = &buf[k->params.n - 1];
    char fault[256] = "";
    memset(out->p, 0xff, (size_t)out->bytes);
    bool ok = kir_eval(k, buf, la, 0, blocks, fault);
    check(ok && !memcmp(out->p, want, (size_t)out->bytes), "%s, interpreted: %s", what, ok ? "wrong result" : fault);
    for (int way = 0; has_device && way < 2; way++) {
        memset(out->p, 0xff, (size_t)out->bytes);
        if (run_opencl(k, buf, la, blocks, way ? 2 : 0))
            check(!memcmp(out->p, want, (size_t)out->bytes), "%s on OpenCL, %s: wrong result", what, way ? "two blocks at a time" : "all blocks at once");
    }
}

static void fill(float *x, int n) { for (int i = 0; i < n; i++) x[i] = (float)((i * 7919 + 13) % 1009) / 64 - 7; }

/* -- Shared memory, barriers, scratch --------------------------------------------------------------------------------- */

/* A tree in shared memory: halves added until one is left; the block's own scratch in between. */
static const char TREE[] =
    "kernel tree(a: f32, out c: f32) scratch 64 threads 64 shared 256 {\n"
    "  %1 = param f32* 0\n  %2 = param f32* 1\n  %3 = shared f32 shared* 0\n  %4 = scratch f32* 0\n"
    "  %5 = block i64 0\n  %6 = thread i64 0\n  %7 = const i64 64\n  %8 = const i64 0\n  %9 = const i64 1\n  %10 = const i64 6\n"
    "  %11 = const i64 32\n  %12 = mul i64 %5, %7\n  %13 = add i64 %12, %6\n  %14 = load f32 %1, %13\n"
    "  store %3, %6, %14\n"
    "  %16 = for i64 %8, %10, %9\n"
    "    %17 = shr i64 %11, %16\n    %18 = lt bool %6, %17\n"
    "    barrier\n"
    "    if %18\n"
    "      %21 = add i64 %6, %17\n      %22 = load f32 %3, %21\n      %23 = load f32 %3, %6\n      %24 = add f32 %23, %22\n      store %3, %6, %24\n"
    "    end\n"
    "  end\n"
    "  %28 = eq bool %6, %8\n"
    "  if %28\n    %30 = load f32 %3, %8\n    store %4, %8, %30\n  end\n"
    "  barrier\n"
    "  %34 = load f32 %4, %8\n  %35 = add f32 %14, %34\n  store %2, %13, %35\n"
    "}\n";

static void test_tree(void) {
    enum { BLOCKS = 37 };
    static float a[BLOCKS * 64], c[BLOCKS * 64], want[BLOCKS * 64];
    fill(a, BLOCKS * 64);
    for (int b = 0; b < BLOCKS; b++) {
        float x[64];
        memcpy(x, a + b * 64, sizeof x);
        for (int half = 32; half; half /= 2) for (int i = 0; i < half; i++) x[i] = x[i] + x[i + half];
        for (int i = 0; i < 64; i++) want[b * 64 + i] = a[b * 64 + i] + x[0];
    }
    KirBuffer buf[] = { { a, sizeof a }, { c, sizeof c } };
    expect("a tree in shared memory", parse(TREE), buf, BLOCKS, want);
}

/* Vectors of every kind through shared memory, reversed over the threads, under masks both ways. */
static void test_vectors(KKind kind, int lanes) {
    enum { THREADS = 32, BLOCKS = 3 };
    Kernel *k = snK_new(&ctx, &arena, "vectors");
    KType t = kt(kind, lanes), i1 = kt(K_I64, 1), bt = kt(K_BOOL, lanes);
    int size = snK_kind_bytes(kind), all = THREADS * BLOCKS * lanes;
    snK_param(k, "a", kind, false), snK_param(k, "c", kind, true);
    k->threads = THREADS;
    KVal shared = snK_shared_ptr(k, kind, snK_shared(k, (int64_t)THREADS * lanes * size));
    KVal thread = snK_leaf(k, K_thread, i1, 0), block = snK_leaf(k, K_block, i1, 0), n = snK_int(k, i1, lanes);
    KVal mine = snK_op(k, K_mul, i1, thread, n, 0), first = snK_op(k, K_mul, i1, block, snK_int(k, i1, THREADS * lanes), 0);
    KVal at = snK_op(k, K_add, i1, first, mine, 0), odd = 0;
    if (lanes > 1) {                                     /* the mask: odd lanes */
        KType it = kt(K_I32, lanes);
        KVal bit = snK_op(k, K_and, it, snK_leaf(k, K_lane, it, 0), snK_int(k, it, 1), 0);
        odd = snK_op(k, K_eq, bt, bit, snK_int(k, it, 1), 0);
    }
    KVal x = snK_load(k, t, snK_ptr(k, 0), at, 0), zero = kind == K_F32 || kind == K_BF16 || kind == K_F16 ? snK_float(k, t, 0) : snK_int(k, t, 0);
    snK_store(k, shared, mine, odd ? zero : x, 0);
    if (odd) snK_store(k, shared, mine, x, odd);
    snK_emit(k, (KIns){ .op = K_barrier });
    KVal other = snK_op(k, K_mul, i1, snK_op(k, K_sub, i1, snK_int(k, i1, THREADS - 1), thread, 0), n, 0);
    KVal y = snK_load(k, t, shared, other, odd);
    snK_store(k, snK_ptr(k, 1), at, y, 0);
    snK_verify(k);
    uint8_t *a = calloc((size_t)all, (size_t)size), *c = calloc((size_t)all, (size_t)size), *want = calloc((size_t)all, (size_t)size);
    for (int i = 0; i < all * size; i++) a[i] = kind == K_BOOL ? (i * 7 % 3) == 0 : (uint8_t)(i * 31 + 5) & 0x3f;
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < THREADS; i++)
            for (int l = 0; l < lanes; l++)
                if (lanes == 1 || l % 2)
                    memcpy(want + ((b * THREADS + i) * lanes + l) * size, a + ((b * THREADS + THREADS - 1 - i) * lanes + l) * size, (size_t)size);
    KirBuffer buf[] = { { a, all * size }, { c, all * size } };
    char what[64];
    snprintf(what, sizeof what, "%d lanes of %s through shared memory", lanes, snK_kind_name(kind));
    expect(what, k, buf, BLOCKS, want);
    free(a), free(c), free(want);
}

/* -- Warps (interpreted: OpenCL has none of it) -------------------------------------------------------------------------------- */

static void interpreted(const char *what, const Kernel *k, KirBuffer *buf, const void *want) {
    char fault[256] = "";
    bool ok = kir_eval(k, buf, (const uint32_t[4]){ 0 }, 0, 1, fault);
    KirBuffer *out = &buf[k->params.n - 1];
    check(ok && !memcmp(out->p, want, (size_t)out->bytes), "%s: %s", what, ok ? "wrong result" : fault);
}

static void test_shfl(void) {
    float a[32], c[32], want[32];
    fill(a, 32);
    for (int i = 0; i < 32; i++) want[i] = a[i] + a[i ^ 5];
    KirBuffer buf[] = { { a, sizeof a }, { c, sizeof c } };
    interpreted("shfl", parse("kernel k(a: f32, out c: f32) scratch 0 threads 32 shared 0 {\n"
        "  %1 = param f32* 0\n  %2 = param f32* 1\n  %3 = thread i64 0\n  %4 = load f32 %1, %3\n  %5 = shfl f32 %4, 5\n"
        "  %6 = add f32 %4, %5\n  store %2, %3, %6\n}\n"), buf, want);
}

static uint16_t bf16(float f) { uint32_t u; memcpy(&u, &f, 4); return (uint16_t)(u >> 16); }

/* c[16, 8] = a[16, 16] b[16, 8], a and b brought by cp.async, read as fragments by ldmatrix: a by rows, b transposed. */
static const char MMA[] =
    "kernel k(a: bf16, b: bf16, out c: f32) scratch 0 threads 32 shared 768 {\n"
    "  %1 = param bf16* 0\n  %2 = param bf16* 1\n  %3 = param f32* 2\n  %4 = shared bf16 shared* 0\n  %5 = shared bf16 shared* 512\n"
    "  %6 = thread i64 0\n  %7 = const i64 8\n  %8 = const i64 16\n  %9 = mul i64 %6, %7\n"
    "  %10 = offset bf16 shared* %4, %9\n  %11 = offset bf16* %1, %9\n"
    "  cp_async %10, %11, 16\n"
    "  %13 = lt bool %6, %8\n"
    "  if %13\n    %15 = offset bf16 shared* %5, %9\n    %16 = offset bf16* %2, %9\n    cp_async %15, %16, 16\n  end\n"
    "  cp_commit\n  cp_wait 0\n  barrier\n"
    "  %22 = rem i64 %6, %8\n  %23 = div i64 %6, %8\n  %24 = mul i64 %22, %8\n  %25 = mul i64 %23, %7\n  %26 = add i64 %24, %25\n"
    "  %27 = ldmatrix u32x4 %4, %26, 0\n"
    "  %28 = mul i64 %22, %7\n  %29 = ldmatrix u32x2 %5, %28, 1\n"
    "  %30 = const f32x4 0\n  %31 = mma f32x4 %27, %29, %30, 0\n"
    "  %32 = const i64 4\n  %33 = div i64 %6, %32\n  %34 = rem i64 %6, %32\n  %35 = mul i64 %33, %7\n  %36 = const i64 2\n"
    "  %37 = mul i64 %34, %36\n  %38 = add i64 %35, %37\n  %39 = const i64 64\n  %40 = add i64 %38, %39\n"
    "  %41 = shuffle f32x2 %31, [0 1]\n  %42 = shuffle f32x2 %31, [2 3]\n"
    "  store %3, %38, %41\n  store %3, %40, %42\n"
    "}\n";

static void test_mma(void) {
    float x[16][16], y[16][8], c[16][8], want[16][8] = { { 0 } };
    uint16_t a[256], b[128];
    for (int i = 0; i < 256; i++) x[i / 16][i % 16] = (float)(i * 5 % 17 - 8), a[i] = bf16(x[i / 16][i % 16]);
    for (int i = 0; i < 128; i++) y[i / 8][i % 8] = (float)(i * 7 % 23 - 11), b[i] = bf16(y[i / 8][i % 8]);
    for (int i = 0; i < 16; i++) for (int j = 0; j < 8; j++) for (int k = 0; k < 16; k++) want[i][j] += x[i][k] * y[k][j];
    KirBuffer buf[] = { { a, sizeof a }, { b, sizeof b }, { c, sizeof c } };
    interpreted("cp.async, ldmatrix and mma", parse(MMA), buf, want);
}

/* -- Planted faults ------------------------------------------------------------------------------------------------------------------ */

/* TREE or MMA with `what` replaced. */
static void planted(const char *text, const char *what, const char *with, const char *fault_wanted) {
    char changed[4096], fault[256] = "nothing";
    const char *at = strstr(text, what);
    static float a[64 * 4], c[64 * 4];
    SN_ASSERT(at, "no %s in the kernel", what);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
    Kernel *k = parse(changed);
    fill(a, 256);
    KirBuffer buf[] = { { a, 512 }, { text == MMA ? a : c, 512 }, { c, 512 } };
    bool ok = kir_eval(k, buf, (const uint32_t[4]){ 0 }, 0, 2, fault);
    check(!ok && strstr(fault, fault_wanted), "planted: %s for %s: found %s", with, what, fault);
}

static void test_faults(void) {
    planted(TREE, "    barrier\n    if", "    prefetch %1, %8\n    if", "race: reads byte");
    planted(TREE, "    end\n", "    barrier\n    end\n", "only 32 of 64 threads");
    planted(TREE, "add i64 %12, %6\n", "add i64 %12, %12\n", "race: writes byte 0 of c, which thread 0 wrote");
    planted(TREE, "mul i64 %5, %7", "mul i64 %5, %8", "another block has used");
    planted(TREE, "mul i64 %5, %7", "add i64 %7, %7", "reads bytes 512");
    planted(TREE, "  store %3, %6, %14\n", "  prefetch %1, %8\n", "undefined");
    planted(TREE, "    store %4, %8, %30\n", "    prefetch %1, %8\n", "undefined value goes to byte 0 of c");
    planted(TREE, "lt bool %6, %17\n", "le bool %6, %17\n", "reads bytes 256");
    planted(MMA, "cp_wait 0", "cp_commit", "under way");
    planted(MMA, "  barrier\n", "  cp_commit\n", "race: ");
    planted(MMA, "mul i64 %22, %8\n", "mul i64 %22, %6\n", "no multiple of 16");
    planted(MMA, "  cp_async %10, %11, 16\n", "  cp_commit\n", "undefined value");
}

int main(void) {
    static const KKind kinds[] = { K_F32, K_I32, K_U32, K_I64, K_U8, K_BOOL, K_BF16, K_F16 };
    char target[64];
    has_device = !sn_device_target("opencl:gpu", target);
    if (!has_device) printf("skipped: on a device: %s\n", sn_rt_error());
    test_tree();
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int lanes = 1; lanes <= 16; lanes *= 4) test_vectors(kinds[i], lanes);
    test_shfl();
    test_mma();
    test_faults();
    snU_free_arena(&arena);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
