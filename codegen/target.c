/* target.c: what a target is. In: its name. Out: the facts that lowerings and schedules may use.

     host              this machine: cpuid for the vectors, sysconf for the caches; LLVM finds the
                       exact CPU itself
     host:x86-64-v3    any CPU with AVX2 and FMA: for bundles that travel; typical cache sizes
     host:x86-64-v4    any CPU with AVX-512
     opencl            OpenCL C for any CPU device, vectors of 8 floats; opencl:x4, :x8, :x16: of as many
     opencl:gpu        OpenCL C for GPUs: blocks of threads, local memory, barriers, nothing but the core
     ptx:sm_80         PTX for NVIDIA cards from that compute capability on: sm_80, sm_86, sm_89, sm_90 */
#include "codegen/tile.h"
#include <unistd.h>

static void set_vectors(Target *t, int lanes, int vregs) {
    t->f32_lanes = lanes;
    t->vregs = vregs;
    t->fma = true;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* avx512_bf16 is bit 5 of eax of leaf 7, subleaf 1; the OS side is implied by avx512f being
   usable. */
static bool has_bf16_dot(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

static const char *this_machine(Target *t) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        set_vectors(t, 16, 32);
        t->bf16_dot = has_bf16_dot();
        return NULL;
    }
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return "this CPU has no AVX2 and FMA";
    set_vectors(t, 8, 16);
    return NULL;
}
#else
static const char *this_machine(Target *t) {
    set_vectors(t, 4, 32);
    return NULL;
}
#endif

static int64_t cache_size(int name, int64_t otherwise) {
    long n = sysconf(name);
    return n > 0 ? n : otherwise;
}

static bool named_cpu(Target *t, const char *cpu) {
    if (!strcmp(cpu, "x86-64-v3")) set_vectors(t, 8, 16);
    else if (!strcmp(cpu, "x86-64-v4")) set_vectors(t, 16, 32);
    else return false;
    snprintf(t->cpu, sizeof t->cpu, "%s", cpu);
    return true;
}

/* opencl[:xN | :gpu] */
static const char *opencl_form(Target *t, const char *name) {
    if (!strcmp(name, ":gpu")) {
        set_vectors(t, 4, 32);
        t->gpu = true;
        t->shared_bytes = 32 << 10;      /* what OpenCL 1.2 asks of every device */
        return NULL;
    }
    int lanes = !*name || !strcmp(name, ":x8") ? 8 : !strcmp(name, ":x4") ? 4 : !strcmp(name, ":x16") ? 16 : 0;
    set_vectors(t, lanes, lanes == 16 ? 32 : 16);
    return lanes ? NULL : "the forms are opencl:x4, opencl:x8, opencl:x16 and opencl:gpu";
}

/* ptx[:sm_NN]; a block's shared memory: CUDA C++ Programming Guide, compute capabilities. */
static const char *ptx_card(Target *t, const char *name) {
    static const struct { int sm, shared_kb; } cards[] = { { 80, 163 }, { 86, 99 }, { 89, 99 }, { 90, 227 } };
    int sm = !*name ? 80 : !strncmp(name, ":sm_", 4) ? atoi(name + 4) : 0;
    for (unsigned i = 0; i < sizeof cards / sizeof *cards; i++) {
        if (cards[i].sm != sm) continue;
        set_vectors(t, 4, 255);
        t->gpu = true;
        t->sm = sm;
        t->shared_bytes = (int64_t)cards[i].shared_kb << 10;
        return NULL;
    }
    return "the cards are ptx:sm_80, ptx:sm_86, ptx:sm_89 and ptx:sm_90";
}

bool snK_is_ptx(const Target *t) { return t->gpu && t->sm; }
bool snK_is_opencl(const Target *t) { return !strncmp(t->name, "opencl", 6); }

int snK_target(sn_ctx *c, const char *name, Target *out) {
    *out = (Target){ .l1_bytes = 32 << 10, .l2_bytes = 1 << 20, .l3_bytes = 16 << 20 };
    if (!name || !*name) name = "host";
    out->name = snU_str(c, snU_symz(c, name));
    const char *why = NULL;
    if (!strcmp(name, "host")) {
        why = this_machine(out);
        out->l1_bytes = cache_size(_SC_LEVEL1_DCACHE_SIZE, out->l1_bytes);
        out->l2_bytes = cache_size(_SC_LEVEL2_CACHE_SIZE, out->l2_bytes);
        out->l3_bytes = cache_size(_SC_LEVEL3_CACHE_SIZE, out->l3_bytes);
    } else if (!strncmp(name, "opencl", 6)) {
        why = opencl_form(out, name + 6);
    } else if (!strncmp(name, "ptx", 3)) {
        why = ptx_card(out, name + 3);
    } else if (strncmp(name, "host:", 5) || !named_cpu(out, name + 5)) {
        why = "the targets are host, host:x86-64-v3, host:x86-64-v4, opencl[:x4|x8|x16|gpu] and ptx:sm_80|86|89|90";
    }
    if (why) snU_fail(c, SN_UNSUPPORTED, 0, "target %s: %s", name, why);
    return 0;
}

void snK_ask_tf32(Target *t, const char *autocast) { t->tf32 = snK_is_ptx(t) && autocast && !strcmp(autocast, "tf32"); }

Kernel *snK_lower(sn_ctx *c, Arena *a, const Tile *t, const Target *target) {
    return target->gpu ? snK_lower_gpu(c, a, t, target) : snK_lower_cpu(c, a, t, target);
}

int snK_compile(sn_ctx *c, const Kernel *const *kernels, int n, const Target *t, int threads,
                void **code, size_t *bytes, const char **symbols, Arena *a) {
    if (!snK_is_opencl(t)) return snK_compile_host(c, kernels, n, t, threads, code, bytes, symbols, a);
    snK_compile_opencl(kernels, n, code, bytes, symbols, a);
    return 0;
}
