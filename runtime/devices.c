/* devices.c: what this machine has, and what it reaches: the f32 FMA peak, the peak of bf16 pairs and the memory bandwidth (a card's: cuda_peak.c).

   The peak is what kernels are measured against, in the same run: a loop of independent fused
   multiply-adds that live in registers, on so many pinned threads at once, with the widest vectors
   of the CPU; the best of several short trials, because a neighbour can only make a trial slower.
   The bandwidth is a triad, a[i] = b[i] + s * c[i], 3 x 4 bytes per element. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { TRIALS = 9, MAX_THREADS = 1024, LANES_OF_TRIAD = 32 << 20 };

/* -- FMA loops: n rounds of 14 chains; the result keeps the compiler from dropping them -------- */

#define CHAINS 14
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
typedef float (*FmaLoop)(int64_t n, float x);

#define FMA_LOOP(name, attribute, V, splat, fma, first)                                            \
    attribute static float name(int64_t n, float x)                                                \
    {                                                                                              \
        V m = splat(x), c = splat(1 - x);                                                          \
        EACH(DECLARE_##name)                                                                       \
        for (int64_t i = 0; i < n; i++) {                                                          \
            EACH(STEP_##name)                                                                      \
        }                                                                                          \
        V sum = splat(0);                                                                          \
        EACH(ADD_##name)                                                                           \
        return first(sum);                                                                         \
    }

#if defined(__x86_64__)
#define DECLARE_loop_avx512(k) __m512 a##k = _mm512_set1_ps(k);
#define STEP_loop_avx512(k) a##k = _mm512_fmadd_ps(a##k, m, c);
#define ADD_loop_avx512(k) sum = _mm512_fmadd_ps(a##k, m, sum);
FMA_LOOP(loop_avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, _mm512_fmadd_ps,
         _mm512_cvtss_f32)
#define DECLARE_loop_bf16(k) __m512 a##k = _mm512_set1_ps(k);
#define STEP_loop_bf16(k) a##k = _mm512_dpbf16_ps(a##k, (__m512bh)m, (__m512bh)c);
#define ADD_loop_bf16(k) sum = _mm512_add_ps(a##k, sum);
FMA_LOOP(loop_bf16, __attribute__((target("avx512f,avx512bf16"))), __m512, _mm512_set1_ps, _mm512_dpbf16_ps,
         _mm512_cvtss_f32)
#define DECLARE_loop_avx2(k) __m256 a##k = _mm256_set1_ps(k);
#define STEP_loop_avx2(k) a##k = _mm256_fmadd_ps(a##k, m, c);
#define ADD_loop_avx2(k) sum = _mm256_fmadd_ps(a##k, m, sum);
FMA_LOOP(loop_avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, _mm256_fmadd_ps,
         _mm256_cvtss_f32)
#elif defined(__aarch64__)
#define NEON_FIRST(v) vgetq_lane_f32(v, 0)
#define DECLARE_loop_neon(k) float32x4_t a##k = vdupq_n_f32(k);
#define STEP_loop_neon(k) a##k = vfmaq_f32(c, a##k, m);
#define ADD_loop_neon(k) sum = vfmaq_f32(sum, a##k, m);
FMA_LOOP(loop_neon, , float32x4_t, vdupq_n_f32, vfmaq_f32, NEON_FIRST)
#endif

/* Without FMA: a product and a sum count the same. */
typedef float Vec4 __attribute__((vector_size(16)));
#define SPLAT4(x) ((Vec4){ (x), (x), (x), (x) })
#define FIRST4(v) ((v)[0])
#define DECLARE_loop_plain(k) Vec4 a##k = SPLAT4(k);
#define STEP_loop_plain(k) a##k = a##k * m + c;
#define ADD_loop_plain(k) sum += a##k;
FMA_LOOP(loop_plain, , Vec4, SPLAT4, , FIRST4)

static FmaLoop best_loop(int *lanes, const char **name)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        *lanes = 16;
        *name = "AVX-512";
        return loop_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *lanes = 8;
        *name = "AVX2";
        return loop_avx2;
    }
#elif defined(__aarch64__)
    *lanes = 4;
    *name = "NEON";
    return loop_neon;
#endif
    *lanes = 4;
    *name = "128-bit vectors";
    return loop_plain;
}

/* -- Trials: the same work on all threads at once ---------------------------------------------- */

typedef struct Trial {
    void (*work)(struct Trial *t, int id);
    int threads;
    pthread_barrier_t start, stop;
    double best;                                 /* seconds */
    int64_t n;
    FmaLoop loop;
    float *a, *b, *c;
    _Atomic int go, sink;                        /* go: 1 start, -1 give up */
} Trial;
typedef struct TrialThread { Trial *trial; int id; pthread_t thread; double begin, end; } TrialThread;

static void fma_work(Trial *t, int id)
{
    (void)id;
    atomic_fetch_add(&t->sink, t->loop(t->n, 0.5f) > 1e30f);
}

static void triad_work(Trial *t, int id)
{
    int64_t from = t->n * id / t->threads, to = t->n * (id + 1) / t->threads;
    float *restrict a = t->a;
    const float *restrict b = t->b, *restrict c = t->c;
    for (int64_t i = from; i < to; i++)
        a[i] = b[i] + 3.0f * c[i];
}

/* Thread id onto the id-th CPU that this process may use. */
static void pin(int id)
{
    cpu_set_t may, one;
    if (sched_getaffinity(0, sizeof may, &may))
        return;
    int wanted = id % CPU_COUNT(&may);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &may) && wanted-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
            return;
        }
}

/* From the first thread's start to the last one's end. */
static double span(const TrialThread *th, int n)
{
    double begin = th[0].begin, end = th[0].end;
    for (int i = 1; i < n; i++) {
        if (th[i].begin < begin)
            begin = th[i].begin;
        if (th[i].end > end)
            end = th[i].end;
    }
    return end - begin;
}

static void *trial_thread(void *arg)
{
    TrialThread *me = arg;
    Trial *t = me->trial;
    pin(me->id);
    while (!atomic_load(&t->go))
        sched_yield();
    for (int i = 0; i < TRIALS && atomic_load(&t->go) > 0; i++) {
        pthread_barrier_wait(&t->start);
        me->begin = snR_now();
        t->work(t, me->id);
        me->end = snR_now();
        pthread_barrier_wait(&t->stop);
        double s = me->id == 0 ? span(me, t->threads) : 0;     /* thread 0 is the first of the array */
        if (me->id == 0 && (i == 0 || s < t->best))
            t->best = s;
    }
    return NULL;
}

/* Seconds of the best trial; 0 when the threads cannot be started. */
static double run_trials(Trial *t)
{
    TrialThread *th = calloc((size_t)t->threads, sizeof *th);
    if (!th)
        return 0;
    t->best = 0;
    for (int i = 0; i < t->threads; i++)
        th[i] = (TrialThread){ .trial = t, .id = i };
    pthread_barrier_init(&t->start, NULL, (unsigned)t->threads);
    pthread_barrier_init(&t->stop, NULL, (unsigned)t->threads);
    int started = 0;
    while (started < t->threads &&
           !pthread_create(&th[started].thread, NULL, trial_thread, &th[started]))
        started++;
    atomic_store(&t->go, started == t->threads ? 1 : -1);
    for (int i = 0; i < started; i++)
        pthread_join(th[i].thread, NULL);
    pthread_barrier_destroy(&t->start);
    pthread_barrier_destroy(&t->stop);
    free(th);
    return t->best;
}

static int clamp_threads(int threads)
{
    threads = threads > 0 ? threads : snR_cores();
    return threads < MAX_THREADS ? threads : MAX_THREADS;
}

/* GFLOP/s of a loop whose steps are `products` multiply-adds each. */
static double measure_loop(FmaLoop loop, int products, int threads)
{
    Trial t = { .work = fma_work, .threads = clamp_threads(threads), .loop = loop };
    t.n = 1 << 16;
    double before = snR_now();
    volatile float warm = t.loop(t.n, 0.5f);     /* wakes the wide units */
    (void)warm;
    before = snR_now();
    warm = t.loop(t.n, 0.5f);
    double once = snR_now() - before;
    t.n = (int64_t)((double)t.n * (once > 0 ? 0.05 / once : 1)) + 1;
    double s = run_trials(&t);
    return s > 0 ? 2.0 * CHAINS * products * (double)t.n * t.threads / s * 1e-9 : 0;
}

double sn_measure_fma_peak(int threads)
{
    int lanes;
    const char *name;
    FmaLoop loop = best_loop(&lanes, &name);
    return measure_loop(loop, lanes, threads);
}

double sn_measure_bf16_peak(int threads)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16"))
        return measure_loop(loop_bf16, 32, threads);
#endif
    return sn_measure_fma_peak(threads);
}

double sn_measure_bandwidth(int threads)
{
    Trial t = { .work = triad_work, .threads = clamp_threads(threads), .n = LANES_OF_TRIAD };
    size_t bytes = (size_t)t.n * sizeof(float);
    double s = 0;
    t.a = snR_alloc(bytes);
    t.b = snR_alloc(bytes);
    t.c = snR_alloc(bytes);
    if (t.a && t.b && t.c) {
        memset(t.b, 0, bytes);
        memset(t.c, 0, bytes);
        s = run_trials(&t);
    }
    free(t.a);
    free(t.b);
    free(t.c);
    return s > 0 ? 3.0 * (double)bytes / s * 1e-9 : 0;
}

/* -- The list ---------------------------------------------------------------------------------- */

static void cpu_name(char *out, size_t cap)
{
    char line[256];
    snprintf(out, cap, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value)
            continue;
        value[strcspn(value, "\n")] = 0;
        snprintf(out, cap, "%s", value + (value[1] == ' ' ? 2 : 1));
        break;
    }
    fclose(f);
}

int sn_devices(sn_device_info *out, int cap, bool measure)
{
    if (cap < 1)
        return 1;
    int lanes;
    const char *vectors;
    char cpu[128];
    best_loop(&lanes, &vectors);
    cpu_name(cpu, sizeof cpu);
    memset(out, 0, sizeof *out);
    out->cores = snR_cores();
    snprintf(out->name, sizeof out->name, "host");
    snprintf(out->what, sizeof out->what, "%s, %s", cpu, vectors);
    if (measure) {
        out->peak_gflops_f32 = sn_measure_fma_peak(out->cores);
        out->bandwidth_gbs = sn_measure_bandwidth(out->cores);
    }
    int n = 1 + snR_opencl_devices(out + 1, cap - 1);
    int first = n;
    n += snR_cuda_devices(out + n, cap - n);
    for (int i = first; i < n && measure; i++) {
        out[i].peak_gflops_f32 = sn_measure_device(out[i].name, SN_PEAK_F32, 0);
        out[i].bandwidth_gbs = sn_measure_device(out[i].name, SN_BANDWIDTH, 0);
    }
    if (n < cap) {
        memset(&out[n], 0, sizeof *out);
        out[n].cores = snR_cores();
        snprintf(out[n].name, sizeof out->name, "emu");
        snprintf(out[n++].what, sizeof out->what, "PTX for NVIDIA cards, executed on the CPU with every access checked");
    }
    return n;
}

/* -- Which one is meant ------------------------------------------------------------------------ */

#define KINDS "host, opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null"

static bool is_kind(const char *name, const char *kind)
{
    size_t n = strcspn(name, ":");
    return n == strlen(kind) && !memcmp(name, kind, n);
}

/* PTX runs on a card where there is one that takes it, else on the CPU. */
const char *snR_default_device(const char *target)
{
    char err[ERR_TEXT];
    if (!target || !is_kind(target, "ptx"))
        return target && is_kind(target, "opencl") ? "opencl" : "host";
    int sm = snR_cuda_sm("cuda", err);
    return sm > 0 && snR_cuda_rank(target, sm) >= 0 ? "cuda" : "emu";
}

/* `host`, `opencl[:N][:FORM]`, `cuda[:N]`, `emu[:sm_NN]` or `null`, by default what the program was compiled for. */
Device *snR_open_device(const SnProgram *p, const char *name, Pool *pool, int threads, char err[ERR_TEXT])
{
    const char *target = p->target ? p->target : "";
    if (!name)
        name = snR_default_device(target);
    if (is_kind(name, "emu"))
        return snR_emu_open(p, name, pool, err);
    if (is_kind(name, "cuda"))
        return snR_cuda_open(p, name, err);
    if (!strcmp(name, "null"))
        return snR_null_open(err);
    if (strcmp(name, "host") && !is_kind(name, "opencl"))
        snR_fail(err, ERR_UNSUPPORTED, "unknown device '%s'; this runtime has: " KINDS, name);
    else if (!is_kind(target, is_kind(name, "host") ? "host" : "opencl"))
        snR_fail(err, ERR_UNSUPPORTED, "the program was compiled for '%s', not for the device '%s'", target, name);
    else
        return is_kind(name, "host") ? snR_host_open(p, pool, err) : snR_opencl_open(p, name, threads, err);
    return NULL;
}

double sn_measure_device(const char *device, int what, int threads)
{
    enum { ARRAY = 256 << 20 };
    sn_device_info all[16];
    char err[ERR_TEXT], name[32];
    if (!device || !is_kind(device, "cuda"))
        return what == SN_PEAK_F32 ? sn_measure_fma_peak(threads) : what == SN_PEAK_BF16 ? sn_measure_bf16_peak(threads) : sn_measure_bandwidth(threads);
    int sm = snR_cuda_sm(device, err), n = snR_cuda_devices(all, 16), units = 0;
    snprintf(name, sizeof name, "%.16s%s", device, strchr(device, ':') ? "" : ":0");
    for (int i = 0; i < n; i++)
        if (!strcmp(all[i].name, name))
            units = all[i].cores;
    return sm < 80 || !units ? 0 : snR_ptx_measure(device, sm, units, what, ARRAY);
}

int sn_device_target(const char *device, char target[64])
{
    if (device && is_kind(device, "emu"))
        return snR_emu_target(device, target, snR_last_error());
    if (device && is_kind(device, "cuda"))
        return snR_cuda_target(device, target, snR_last_error());
    if (device && !strncmp(device, "opencl", 6))
        return snR_opencl_target(device, target, snR_last_error());
    if (device && strcmp(device, "host") && strcmp(device, "null"))
        return snR_fail(snR_last_error(), ERR_UNSUPPORTED, "unknown device '%s'; this runtime has: " KINDS, device);
    snprintf(target, 64, "host");
    return 0;
}
