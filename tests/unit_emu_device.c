/* unit_emu_device.c: the device `emu` under a session: parameters in the order of the convention, buffers checked to their own bytes, what
   counts as unwritten, and its errors. */
#define _GNU_SOURCE
#include "runtime/rt.h"
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 200, PAD = 1024 };
#define PARAMS4 "(.param .u64 b0, .param .u64 b1, .param .u64 b2, .param .u64 b3, .param .u32 s0, .param .u32 s1, .param .u32 step, .param .u32 micro)"
#define PARAMS2 "(.param .u64 b0, .param .u64 b1, .param .u32 s0, .param .u32 s1, .param .u32 step, .param .u32 micro, .param .u64 scratch)"
#define INDEX ".reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %q<20>; .reg .f32 %f<9>;\nmov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mad.lo.u32 %r2, %r1, 64, %r0; setp.ge.u32 %p0, %r2, 200;\n" \
              "mul.wide.u32 %q9, %r2, 4;\n"
static const char TEXT[] =
    ".version 8.5\n.target sm_80\n.address_size 64\n"
    /* y = lr x + w + step + seed */
    ".visible .entry axpy" PARAMS4 " {\n" INDEX "@%p0 ret;\n"
    "ld.param.u64 %q0, [b0]; ld.param.u64 %q1, [b1]; ld.param.u64 %q2, [b2]; ld.param.u64 %q3, [b3]; ld.param.u32 %r5, [step]; ld.param.u32 %r6, [s0];\n"
    "add.s64 %q0, %q0, %q9; add.s64 %q1, %q1, %q9; add.s64 %q3, %q3, %q9; ld.global.f32 %f0, [%q0]; ld.global.f32 %f1, [%q1]; ld.global.f32 %f2, [%q2];\n"
    "fma.rn.f32 %f3, %f2, %f1, %f0; cvt.rn.f32.u32 %f4, %r5; add.f32 %f3, %f3, %f4; cvt.rn.f32.u32 %f4, %r6; add.f32 %f3, %f3, %f4; st.global.f32 [%q3], %f3; ret; }\n"
    /* two values each, summed: through scratch and shared memory */
    ".extern .shared .align 16 .b8 dyn[];\n"
    ".visible .entry pairs" PARAMS2 " {\n" INDEX
    "ld.param.u64 %q0, [b0]; ld.param.u64 %q1, [b1]; ld.param.u64 %q2, [scratch]; add.s64 %q3, %q0, %q9; add.s64 %q4, %q1, %q9; mov.u32 %r8, dyn; shl.b32 %r9, %r0, 2; add.u32 %r9, %r9, %r8;\n"
    "mul.wide.u32 %q5, %r1, 256; add.s64 %q5, %q5, %q2; mul.wide.u32 %q6, %r0, 4; add.s64 %q5, %q5, %q6; mov.f32 %f0, 0f00000000; @!%p0 ld.global.f32 %f0, [%q3];\n"
    "st.shared.f32 [%r9], %f0; bar.sync 0; xor.b32 %r10, %r0, 1; shl.b32 %r10, %r10, 2; add.u32 %r10, %r10, %r8; ld.shared.f32 %f1, [%r10]; add.f32 %f2, %f0, %f1; st.global.f32 [%q5], %f2;\n"
    "ld.global.f32 %f3, [%q5]; @!%p0 st.global.f32 [%q4], %f3; ret; }\n"
    /* w += y, in place */
    ".visible .entry update" PARAMS2 " {\n" INDEX "@%p0 ret;\nld.param.u64 %q0, [b0]; ld.param.u64 %q1, [b1]; add.s64 %q0, %q0, %q9; add.s64 %q1, %q1, %q9;\n"
    "ld.global.f32 %f0, [%q0]; ld.global.f32 %f1, [%q1]; add.f32 %f0, %f0, %f1; st.global.f32 [%q0], %f0; ret; }\n"
    /* the first half of a copy */
    ".visible .entry half" PARAMS2 " {\n" INDEX "setp.ge.u32 %p1, %r2, 100; @%p1 ret;\nld.param.u64 %q0, [b0]; ld.param.u64 %q1, [b1]; add.s64 %q0, %q0, %q9; add.s64 %q1, %q1, %q9; ld.global.f32 %f0, [%q0];\n"
    "st.global.f32 [%q1], %f0; ret; }\n"
    /* one too far */
    ".visible .entry beyond" PARAMS2 " {\n" INDEX "ld.param.u64 %q0, [b0]; ld.param.u64 %q1, [b1]; add.s64 %q0, %q0, %q9; add.s64 %q1, %q1, %q9; ld.global.f32 %f0, [%q0];\nst.global.f32 [%q1], %f0; ret; }\n";

#define F32(name_, n) { .name = name_, .dtype = DT_F32, .rank = 1, .dim = { n } }
static SnKernelDesc kernels[] = {
    { .symbol = "axpy", .family = "rows", .label = "axpy", .grid = 4, .nargs = 4, .threads = 64 },
    { .symbol = "pairs", .family = "rows", .label = "pairs", .grid = 4, .nargs = 2, .threads = 64, .scratch_bytes = 256, .shared_bytes = 256 },
    { .symbol = "update", .family = "rows", .label = "update", .grid = 4, .nargs = 2, .threads = 64 },
    { .symbol = "beyond", .family = "rows", .label = "beyond", .grid = 4, .nargs = 2, .threads = 64 },
    { .symbol = "half", .family = "rows", .label = "half", .grid = 4, .nargs = 2, .threads = 64 },
};
static SnStorage storage[] = { { .t = F32("w", N), .init = 4, .a = 0.02 } };
static SnBuffer buffers[] = {
    { .kind = SN_BUF_STORAGE, .t = F32("w", N), .bytes = N * 4 },
    { .kind = SN_BUF_INPUT, .t = F32("x", N), .bytes = N * 4 },
    { .kind = SN_BUF_INPUT, .t = { .name = "lr", .dtype = DT_F32 }, .bytes = 4, .has_default = 1, .dflt = 0.5 },
    { .kind = SN_BUF_ARENA, .t = F32("y", N), .bytes = N * 4, .offset = 0 },
    { .kind = SN_BUF_ARENA, .t = F32("z", N), .bytes = N * 4, .offset = PAD },
    { .kind = SN_BUF_ARENA, .t = F32("later", N), .bytes = N * 4, .offset = 0 },     /* in the memory of y, when that is dead */
};
static SnOutput outputs[] = { { "z", 4 } };
static SnLaunch launches[] = { { 0, 4, (const int32_t[]){ 0, 1, 2, 3 } }, { 1, 2, (const int32_t[]){ 3, 4 } }, { 2, 2, (const int32_t[]){ 0, 4 } } };
static SnGraphPlan graphs[] = { { "train", 6, 3, 1, buffers, launches, outputs, 2 * PAD, 2 * PAD } };
static const SnProgram program = { .target = "ptx:sm_80", .nkernels = 5, .nstorage = 1, .ngraphs = 1, .kernels = kernels, .storage = storage, .graphs = graphs,
                                   .code = TEXT, .code_bytes = sizeof TEXT };
static float x[N];

static sn_session *start(const SnProgram *p, const char *device, int threads) {
    sn_session *s = sn_session_new(p, &(sn_session_desc){ .device = device, .seed = 3, .threads = threads, .profile = true });
    if (!s) return NULL;
    for (int i = 0; i < N; i++) x[i] = (float)(i % 13) - 5;
    sn_bind(s, "train", "x", x, sizeof x);
    sn_step(s, 7, 0);
    return s;
}

static void test_run(void) {
    float w[N], z[N], after[N], first[N];
    for (int threads = 1; threads < 3; threads++) {
        sn_session *s = start(&program, threads == 1 ? "emu" : "emu:sm_90", threads);
        ok(s != NULL, "the session opens: %s", sn_rt_error());
        if (!s) return;
        sn_kernel_time times[3];
        sn_read(s, NULL, "w", w, sizeof w);
        int rc = sn_run(s, "train"), wrong = 0;
        ok(rc == 0, "run: %s", sn_session_error(s));
        ok(!sn_read(s, "train", "z", z, sizeof z) && !sn_read(s, NULL, "w", after, sizeof after), "read: %s", sn_session_error(s));
        for (int i = 0; i < N; i++) {
            float y = 0.5f * x[i] + w[i] + 7 + 3, other = 0.5f * x[i ^ 1] + w[i ^ 1] + 7 + 3;
            wrong += z[i] < y + other - 1e-4f || z[i] > y + other + 1e-4f || after[i] != w[i] + z[i];
        }
        ok(wrong == 0, "%d values are wrong", wrong);
        ok(sn_profile(s, "train", times, 3) == 3 && times[1].seconds > 0, "times of launches");
        if (threads == 1) memcpy(first, z, sizeof z);
        else ok(!memcmp(first, z, sizeof z), "one thread and two: the same bits");
        ok(!sn_run(s, "train"), "a second run: %s", sn_session_error(s));
        sn_session_free(s);
    }
}

static void says(const SnProgram *p, const char *part, const char *name) {
    sn_session *s = start(p, "emu", 1);
    int rc = s ? sn_run(s, "train") : 0;
    const char *text = s ? sn_session_error(s) : sn_rt_error();
    ok((!s || rc == ERR_DEVICE) && strstr(text, part) != NULL && !strchr(text, '\n'), "%s: '%s' expected, not '%s'", name, part, text);
    if (s) sn_session_free(s);
}

static void test_faults(void) {
    SnLaunch list[3];
    SnGraphPlan g = graphs[0];
    SnProgram p = program;
    p.graphs = &g, g.launches = list;
    memcpy(list, launches, sizeof list);
    list[1] = (SnLaunch){ 3, 2, (const int32_t[]){ 3, 4 } };
    says(&p, "kernel beyond, PTX line 39 ", "an index off by one");
    says(&p, "block 3, thread 8: read of 4 bytes at offset 800 of y, which has 800", "an index off by one");
    list[0] = launches[2], list[1] = launches[1];
    list[0] = (SnLaunch){ 2, 2, (const int32_t[]){ 0, 3 } };
    says(&p, "reads 4 bytes at offset 0 of y that nobody has written", "a buffer of the arena before it is written");
    list[1] = (SnLaunch){ 4, 2, (const int32_t[]){ 1, 5 } }, list[0] = launches[0], list[2] = (SnLaunch){ 2, 2, (const int32_t[]){ 0, 5 } };
    says(&p, "block 1, thread 36: reads 4 bytes at offset 400 of later that nobody has written", "what another buffer left in the arena");
    p = program;
    p.code = "no PTX at all", p.code_bytes = 13;
    says(&p, "PTX line 1 `no PTX at all`: a directive expected", "a text that is no PTX");
    p.code = ".version 8.5\n.target sm_80\n", p.code_bytes = 28;
    says(&p, "there is no kernel 'axpy' in the program's PTX", "a missing kernel");
    p = program, p.target = "ptx:sm_90";
    sn_session *s = sn_session_new(&p, &(sn_session_desc){ .device = "emu:sm_80" });
    ok(!s && strstr(sn_rt_error(), "compiled for sm_90"), "an older card: %s", sn_rt_error());
    p.target = "host";
    s = sn_session_new(&p, &(sn_session_desc){ .device = "emu" });
    ok(!s && strstr(sn_rt_error(), "compiled for 'host', not for the device 'emu'"), "another target: %s", sn_rt_error());
    char target[64];
    ok(!sn_device_target("emu", target) && !strcmp(target, "ptx:sm_80") && !sn_device_target("emu:sm_90", target) && !strcmp(target, "ptx:sm_90"), "what to compile for");
    ok(sn_device_target("emu:9", target) < 0 && strstr(sn_rt_error(), "emu:sm_80"), "a wrong name: %s", sn_rt_error());
}

/* Blocks compared, several reports collected: to stderr, which is caught. */
static void test_options(void) {
    SnGraphPlan g = graphs[0];
    SnProgram p = program;
    SnLaunch list[2] = { launches[0], { 3, 2, (const int32_t[]){ 3, 4 } } };
    char path[] = "/tmp/sinter-emu-XXXXXX", text[4096];
    setenv("SN_EMU_BLOCKS", "1", 1), setenv("SN_EMU_REPORTS", "5", 1);
    test_run();
    p.graphs = &g, g.launches = list, g.nlaunches = 2;
    int fd = mkstemp(path), old = dup(2);
    dup2(fd, 2);
    says(&p, "read of 4 bytes at offset 800 of y", "the first of several");
    fflush(stderr);
    dup2(old, 2);
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    ok(strstr(text, "emu: kernel beyond") == text && strstr(text, "write of 4 bytes at offset 800 of z") != NULL, "SN_EMU_REPORTS prints several: '%s'", text);
    close(fd), close(old), unlink(path);
    unsetenv("SN_EMU_BLOCKS"), unsetenv("SN_EMU_REPORTS");
}

/* Outputs that no kernel wrote are not handed out. */
static void test_unwritten_result(void) {
    SnGraphPlan g = graphs[0];
    SnProgram p = program;
    float z[N];
    p.graphs = &g, g.nlaunches = 1;
    sn_session *s = start(&p, "emu", 1);
    ok(s && !sn_run(s, "train") && sn_read(s, "train", "z", z, sizeof z) < 0 && strstr(sn_session_error(s), "never been written"), "an output that was not computed");
    sn_session_free(s);
}

int main(void) {
    test_run();
    test_faults();
    test_unwritten_result();
    test_options();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
