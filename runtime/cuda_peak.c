/* cuda_peak.c: what a card can do: multiply-adds of f32 in registers, products of bf16 on tensor cores, and memory bandwidth.

   In: a device that runs PTX. Out: GFLOP/s and GB/s. Three programs of one kernel each, in PTX, run by sessions like any other; how much
   one does comes in the parameter `step`, so it is doubled until the kernel takes some milliseconds; then the best of several runs
   counts. Hopper's tensor cores reach their rate by wgmma alone (sm_90a); elsewhere, and where that fails, by mma.sync. */
#include "runtime/rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 256, BLOCKS_PER_UNIT = 8, CHAINS = 16, REPEAT = 8, MMAS = 8, MMA_REPEAT = 4, WGMMAS = 8 };

static const char PARAMS[] = ".param .u64 b0, .param .u64 b1, .param .u64 b2, .param .u32 s0, .param .u32 s1, .param .u32 step, .param .u32 micro, .param .u64 scratch";

/* -- Kernels: n rounds, n the parameter `step`; a result that is never stored keeps the arithmetic --------------------------- */

static void head(FILE *f, const char *version, const char *target) { fprintf(f, ".version %s\n.target %s\n.address_size 64\n", version, target); }

static void begin(FILE *f, const char *name)
{
    fprintf(f, ".visible .entry %s(%s)\n.reqntid %d, 1, 1\n{\n", name, PARAMS, THREADS);
    fputs(".reg .pred %p<3>; .reg .b32 %r<16>; .reg .b64 %q<12>; .reg .f32 %f<8>;\n"
          "ld.param.u32 %r0, [step]; ld.param.u64 %q0, [b0]; cvta.to.global.u64 %q0, %q0; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x;\n", f);
}

static void finish_loop(FILE *f, const char *result, int n)
{
    fputs("sub.u32 %r0, %r0, 1; setp.ne.u32 %p0, %r0, 0; @%p0 bra $again;\n", f);
    for (int i = 1; i < n; i++)
        fprintf(f, "add.f32 %s0, %s0, %s%d;\n", result, result, result, i);
    fprintf(f, "setp.eq.f32 %%p1, %s0, 0fC2F6E979; @%%p1 st.global.f32 [%%q0], %s0;\nret;\n}\n", result, result);
}

/* Chains a = a m + c; m and c are not known to the compiler. */
static void put_fma(FILE *f)
{
    head(f, "7.1", "sm_80");
    begin(f, "peak");
    fprintf(f, ".reg .f32 %%a<%d>;\ncvt.rn.f32.u32 %%f1, %%r1; ld.param.u32 %%r3, [micro]; cvt.rn.f32.u32 %%f0, %%r3; add.f32 %%f0, %%f0, 0f3F000000;\n", CHAINS);
    for (int i = 0; i < CHAINS; i++)
        fprintf(f, "add.f32 %%a%d, %%f1, 0f%08X;\n", i, 0x3f800000 + (i << 16));
    fputs("$again:\n", f);
    for (int i = 0; i < CHAINS * REPEAT; i++)
        fprintf(f, "fma.rn.f32 %%a%d, %%a%d, %%f0, %%f1;\n", i % CHAINS, i % CHAINS);
    finish_loop(f, "%a", CHAINS);
}

/* Fragments of small numbers that differ from thread to thread: zeros would save power, and so raise the clock. */
static const char FRAGMENTS[] =
    "and.b32 %r4, %r1, 127; mul.lo.u32 %r4, %r4, 65537; or.b32 %r4, %r4, 0x3c003c00; xor.b32 %r5, %r4, 0x80000011; xor.b32 %r6, %r4, 0x00228000;\n"
    "xor.b32 %r7, %r4, 0x80338000; xor.b32 %r8, %r4, 0x00448055; xor.b32 %r9, %r4, 0x80050006;\n";

static void put_mma(FILE *f)
{
    head(f, "7.1", "sm_80");
    begin(f, "peak");
    fprintf(f, ".reg .f32 %%d<%d>;\n%s", 4 * MMAS, FRAGMENTS);
    for (int i = 0; i < 4 * MMAS; i++)
        fprintf(f, "mov.f32 %%d%d, 0f00000000;\n", i);
    fputs("$again:\n", f);
    for (int i = 0; i < MMAS * MMA_REPEAT; i++) {
        int d = 4 * (i % MMAS);
        fprintf(f, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%%d%d, %%d%d, %%d%d, %%d%d}, {%%r4, %%r5, %%r6, %%r7}, {%%r8, %%r9}, {%%d%d, %%d%d, %%d%d, %%d%d};\n",
                d, d + 1, d + 2, d + 3, d, d + 1, d + 2, d + 3);
    }
    finish_loop(f, "%d", 4 * MMAS);
}

/* Both warp groups of a block multiply one 64 x 16 tile by one 256 x 16 tile in shared memory: cores of 8 rows of 16 bytes, 128 bytes from
   one to the next along the depth, 256 along the rows, no swizzle. */
static void put_wgmma(FILE *f)
{
    head(f, "8.0", "sm_90a");
    begin(f, "peak");
    fprintf(f, ".reg .f32 %%d<128>; .shared .align 128 .b8 tiles[10240];\n%smov.u32 %%r10, tiles; shl.b32 %%r11, %%r1, 2; add.u32 %%r11, %%r11, %%r10;\n", FRAGMENTS);
    for (int i = 0; i < 10; i++)
        fprintf(f, "st.shared.u32 [%%r11 + %d], %%r%d;\n", 1024 * i, 4 + i % 6);
    fputs("fence.proxy.async; bar.sync 0;\nshr.u32 %r12, %r10, 4; and.b32 %r12, %r12, 0x3fff; cvt.u64.u32 %q2, %r12; or.b64 %q2, %q2, 0x1000080000;\n"
          "add.u64 %q3, %q2, 128; setp.eq.u32 %p2, %r10, %r10;\n", f);
    for (int i = 0; i < 128; i++)
        fprintf(f, "mov.f32 %%d%d, 0f00000000;\n", i);
    fputs("$again:\nwgmma.fence.sync.aligned;\n", f);
    for (int i = 0; i < WGMMAS; i++) {
        fputs("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {", f);
        for (int k = 0; k < 128; k++)
            fprintf(f, "%s%%d%d", k ? ", " : "", k);
        fputs("}, %q2, %q3, %p2, 1, 1, 0, 0;\n", f);
    }
    fputs("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n", f);
    finish_loop(f, "%d", 128);
}

/* n vectors of 4 floats: b0 = 1, or b0 = b1 + 3 b2. */
static void put_stream(FILE *f, bool triad)
{
    begin(f, triad ? "peak" : "ones");
    fprintf(f, "ld.param.u64 %%q1, [b1]; cvta.to.global.u64 %%q1, %%q1; ld.param.u64 %%q2, [b2]; cvta.to.global.u64 %%q2, %%q2; .reg .f32 %%g<4>;\n"
               "mad.lo.u32 %%r3, %%r2, %d, %%r1; mov.u32 %%r4, %%nctaid.x; mul.lo.u32 %%r4, %%r4, %d; mov.f32 %%f7, 0f40400000;\n"
               "mov.f32 %%f0, 0f3F800000; mov.f32 %%f1, %%f0; mov.f32 %%f2, %%f0; mov.f32 %%f3, %%f0;\n"
               "$again:\nsetp.ge.u32 %%p0, %%r3, %%r0; @%%p0 ret;\nmul.wide.u32 %%q3, %%r3, 16; add.u64 %%q4, %%q0, %%q3;\n", THREADS, THREADS);
    if (triad)
        fputs("add.u64 %q5, %q1, %q3; add.u64 %q6, %q2, %q3;\nld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%q5]; ld.global.v4.f32 {%g0, %g1, %g2, %g3}, [%q6];\n"
              "fma.rn.f32 %f0, %g0, %f7, %f0; fma.rn.f32 %f1, %g1, %f7, %f1; fma.rn.f32 %f2, %g2, %f7, %f2; fma.rn.f32 %f3, %g3, %f7, %f3;\n", f);
    fputs("st.global.v4.f32 [%q4], {%f0, %f1, %f2, %f3}; add.u32 %r3, %r3, %r4; bra $again;\n}\n", f);
}

static void put_triad(FILE *f)
{
    head(f, "7.1", "sm_80");
    put_stream(f, false);
    put_stream(f, true);
}

/* -- Programs: the kernel `peak` over three arrays; of the triad, behind two launches that fill what it reads ---------------- */

typedef struct Peak {
    const char *device, *target;
    void (*put)(FILE *f);
    int64_t blocks, bytes;                       /* of an array */
    uint32_t first, most;                        /* rounds: at first, and at most */
} Peak;

/* Rounds a second. */
static double time_rounds(sn_session *s, const Peak *p, int launches)
{
    sn_kernel_time t[3];
    double best = 0, spent = 0, seconds = 0;
    int runs = 0;
    for (uint32_t n = p->first; runs < 6 && (!runs || spent < 0.3); runs += seconds >= 4e-3 || n == p->most) {
        sn_step(s, n, 0);
        sn_profile_reset(s);
        if (sn_run(s, "peak") || sn_profile(s, "peak", t, 3) != launches)
            return 0;
        seconds = t[launches - 1].seconds;
        spent += seconds;
        if (seconds > 0 && n / seconds > best)
            best = n / seconds;
        if (seconds < 4e-3 && n < p->most)
            n = n > p->most / 2 ? p->most : 2 * n;
    }
    return best;
}

static double run_peak(const Peak *p)
{
    static const int32_t args[3][3] = { { 1, 1, 1 }, { 2, 2, 2 }, { 0, 1, 2 } };
    bool triad = p->put == put_triad;
    SnKernelDesc k[2] = { { .symbol = "peak", .family = "peak", .label = "peak", .grid = p->blocks, .nargs = 3, .threads = THREADS } };
    SnLaunch l[3] = { { 1, 3, args[0] }, { 1, 3, args[1] }, { 0, 3, args[2] } };
    SnBuffer b[3];
    SnTensorDesc array = { .name = "", .dtype = DT_F32, .rank = 1, .dim = { p->bytes / 4 } };
    for (int i = 0; i < 3; i++)
        b[i] = (SnBuffer){ .kind = SN_BUF_ARENA, .t = array, .bytes = p->bytes, .offset = i * p->bytes, .storage = -1 };
    k[1] = k[0];
    k[1].symbol = "ones";
    int n = triad ? 3 : 1;
    SnGraphPlan g = { .name = "peak", .nbuffers = 3, .nlaunches = n, .buffers = b, .launches = triad ? l : &l[2], .arena_bytes = 3 * p->bytes };
    SnProgram program = { .target = p->target, .nkernels = triad ? 2 : 1, .ngraphs = 1, .kernels = k, .graphs = &g };
    char *text = NULL;
    FILE *f = open_memstream(&text, &program.code_bytes);
    if (!f)
        return 0;
    p->put(f);
    bool whole = fclose(f) == 0;
    program.code = text;
    sn_session *s = whole ? sn_session_new(&program, &(sn_session_desc){ .device = p->device, .threads = 1, .profile = true }) : NULL;
    double rate = s ? time_rounds(s, p, n) : 0;
    sn_session_free(s);
    free(text);
    return rate;
}

/* 0 where something fails. units: multiprocessors; bytes: of each of three arrays, smaller ones where they do not fit. */
double snR_ptx_measure(const char *device, int sm, int units, int what, int64_t bytes)
{
    enum { LEAST = 1 << 16 };
    double warps = (double)units * BLOCKS_PER_UNIT * THREADS / 32, rate = 0;
    Peak p = { .device = device, .target = "ptx:sm_80", .put = put_fma, .blocks = units * BLOCKS_PER_UNIT, .bytes = 256, .first = 1, .most = 1u << 24 };
    if (what == SN_PEAK_F32)
        return run_peak(&p) * warps * 32 * 2 * CHAINS * REPEAT * 1e-9;
    p.put = what == SN_PEAK_BF16 ? put_mma : put_triad;
    if (what == SN_PEAK_BF16)
        rate = run_peak(&p) * warps * 2 * 16 * 8 * 16 * MMAS * MMA_REPEAT * 1e-9;
    for (; what == SN_BANDWIDTH && bytes >= LEAST && rate == 0; bytes /= 4) {
        p.bytes = bytes;
        p.most = (uint32_t)(bytes / 16), p.first = LEAST / 16;
        rate = run_peak(&p) * 3 * 16 * 1e-9;
    }
    if (what == SN_PEAK_BF16 && sm == 90) {
        p = (Peak){ .device = device, .target = "ptx:sm_90a", .put = put_wgmma, .blocks = units, .bytes = 256, .first = 1, .most = 1u << 24 };
        double gflops = run_peak(&p) * units * 2 * 2.0 * 64 * 256 * 16 * WGMMAS * 1e-9;
        rate = gflops > rate ? gflops : rate;
    }
    return rate;
}
