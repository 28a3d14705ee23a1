/* pool.c: persistent worker threads that run a launch of n programs.

   In: a function over a range of program indices. Out: every index has been run once when
   snR_pool_run returns. A launch starts as one contiguous range per worker. Its owner takes a
   half of what is left at a time from the front, because consecutive programs share packed
   panels; who has nothing left steals the back half of the largest range. A range is one 64-bit
   word (begin, end), changed only by compare-and-swap.

   A launch never waits for a sleeping worker: `seq` is odd while one is open, workers that come in
   raise `active` and look at `seq` again, and the caller closes the launch when `left` is 0 and
   then waits until the few that are still looking for work have left. Waiting is a short spin, then
   a condition variable. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, LINE = 64, SPIN_NS = 30000 };
static const int64_t SLAB = INT32_MAX; /* programs of one open launch: both ends fit into a word */

typedef struct Slot { _Alignas(LINE) _Atomic uint64_t range; } Slot;   /* begin << 32 | end */
typedef struct Worker { Pool *pool; int id; pthread_t thread; } Worker;

struct Pool {
    Slot *slot;
    Worker *worker;
    int threads, started;
    PoolFn fn;
    void *arg;
    int64_t base; /* of the slab: what program index 0 of the slots stands for */
    _Alignas(LINE) _Atomic uint32_t seq;         /* odd: a launch is open */
    _Atomic int quit, sleepers;
    _Alignas(LINE) _Atomic int active;           /* workers inside the launch */
    _Alignas(LINE) _Atomic int64_t left;         /* programs that have not finished */
    _Atomic int caller_sleeps;
    _Alignas(LINE) pthread_mutex_t lock;
    pthread_cond_t wake, done;
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline uint64_t pack(int64_t begin, int64_t end)
{
    return (uint64_t)begin << 32 | (uint64_t)end;
}
static inline int64_t begin_of(uint64_t r) { return (int64_t)(r >> 32); }
static inline int64_t end_of(uint64_t r) { return (int64_t)(r & 0xffffffff); }

/* -- Claiming and stealing --------------------------------------------------------------------- */

/* The next run of worker w's own range; false when it is empty. */
static bool claim(Pool *p, int w, int64_t *begin, int64_t *end)
{
    uint64_t r = atomic_load(&p->slot[w].range);
    for (;;) {
        int64_t b = begin_of(r), e = end_of(r);
        if (b >= e)
            return false;
        int64_t cut = b + (e - b + 1) / 2;
        if (atomic_compare_exchange_weak(&p->slot[w].range, &r, pack(cut, e))) {
            *begin = b;
            *end = cut;
            return true;
        }
    }
}

/* Moves the back half of the largest range into worker w's slot; false when all are empty. */
static bool steal(Pool *p, int w)
{
    for (;;) {
        int victim = -1;
        int64_t most = 0;
        uint64_t seen = 0;
        for (int k = 1; k < p->threads; k++) {
            int v = (w + k) % p->threads;
            uint64_t r = atomic_load(&p->slot[v].range);
            if (end_of(r) - begin_of(r) > most) {
                most = end_of(r) - begin_of(r);
                victim = v;
                seen = r;
            }
        }
        if (victim < 0)
            return false;
        int64_t b = begin_of(seen), e = end_of(seen), mid = b + (e - b) / 2;
        if (atomic_compare_exchange_strong(&p->slot[victim].range, &seen, pack(b, mid))) {
            atomic_store(&p->slot[w].range, pack(mid, e));
            return true;
        }
    }
}

static void finish(Pool *p, int64_t n)
{
    if (atomic_fetch_sub(&p->left, n) == n && atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

static void work(Pool *p, int w)
{
    int64_t b, e;
    do {
        while (claim(p, w, &b, &e)) {
            p->fn(p->arg, w, p->base + b, p->base + e);
            finish(p, e - b);
        }
    } while (steal(p, w));
}

/* -- Workers ----------------------------------------------------------------------------------- */

static bool news(Pool *p, uint32_t last)
{
    uint32_t seq = atomic_load(&p->seq);
    return atomic_load(&p->quit) || ((seq & 1) && seq != last);
}

static void wait_for_news(Pool *p, uint32_t last)
{
    int64_t until = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (news(p, last))
                return;
            relax();
        }
    } while (now_ns() < until);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!news(p, last))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    Worker *me = arg;
    Pool *p = me->pool;
    uint32_t last = 0;
    for (;;) {
        wait_for_news(p, last);
        if (atomic_load(&p->quit))
            return NULL;
        uint32_t seq = atomic_load(&p->seq);
        atomic_fetch_add(&p->active, 1);
        if ((seq & 1) && atomic_load(&p->seq) == seq) {
            work(p, me->id);
            last = seq;
        }
        atomic_fetch_sub(&p->active, 1);
    }
}

static void wake_workers(Pool *p, int64_t wanted)
{
    if (!atomic_load(&p->sleepers))
        return;
    pthread_mutex_lock(&p->lock);
    int n = atomic_load(&p->sleepers);
    if (wanted >= n)
        pthread_cond_broadcast(&p->wake);
    else
        for (int64_t i = 0; i < wanted; i++)
            pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

/* -- A launch ---------------------------------------------------------------------------------- */

static void wait_for_last(Pool *p)
{
    int64_t until = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (atomic_load(&p->left) == 0)
                return;
            relax();
        }
    } while (now_ns() < until);
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, 1);
    while (atomic_load(&p->left) != 0)
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->caller_sleeps, 0);
    pthread_mutex_unlock(&p->lock);
}

static void run_slab(Pool *p, int64_t base, int64_t n, PoolFn fn, void *arg)
{
    int threads = p->threads;
    p->fn = fn;
    p->arg = arg;
    p->base = base;
    atomic_store(&p->left, n);
    for (int w = 0; w < threads; w++)            /* n * w stays below 2^31 * 2^10 */
        atomic_store_explicit(&p->slot[w].range, pack(n * w / threads, n * (w + 1) / threads),
                              memory_order_relaxed);
    atomic_fetch_add(&p->seq, 1);
    wake_workers(p, n - 1);
    work(p, 0);
    wait_for_last(p);
    atomic_fetch_add(&p->seq, 1);
    for (int i = 0; atomic_load(&p->active); i++) {
        if (i < 1000)
            relax();
        else
            sched_yield();
    }
}

void snR_pool_run(Pool *p, int64_t n, PoolFn fn, void *arg)
{
    if (n <= 0)
        return;
    if (n == 1 || p->threads == 1) {
        fn(arg, 0, 0, n);
        return;
    }
    for (int64_t base = 0; base < n; base += SLAB)
        run_slab(p, base, n - base < SLAB ? n - base : SLAB, fn, arg);
}

/* -- Life -------------------------------------------------------------------------------------- */

/* Cores of the cgroup's CPU quota (version 2), rounded up; a large number when there is none. */
static int quota_cores(void)
{
    int cores = MAX_THREADS;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f)
        return cores;
    long long quota, period;
    if (fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0 &&
        quota / period < MAX_THREADS)
        cores = (int)((quota + period - 1) / period);
    fclose(f);
    return cores;
}

int snR_cores(void)
{
    cpu_set_t set;
    int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    if (n < 1)
        n = 1;
    int quota = quota_cores();
    return n < quota ? n : quota;
}

int snR_pool_threads(const Pool *p) { return p->threads; }

Pool *snR_pool_new(int threads)
{
    if (threads <= 0)
        threads = snR_cores();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    Pool *p = aligned_alloc(LINE, sizeof *p);
    if (!p)
        return NULL;
    memset(p, 0, sizeof *p);
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->slot = aligned_alloc(LINE, sizeof(Slot) * (size_t)threads);
    p->worker = calloc((size_t)threads, sizeof(Worker));
    if (!p->slot || !p->worker)
        goto fail;
    memset(p->slot, 0, sizeof(Slot) * (size_t)threads);
    for (int w = 1; w < threads; w++) {
        p->worker[w] = (Worker){ .pool = p, .id = w };
        if (pthread_create(&p->worker[w].thread, NULL, worker_main, &p->worker[w]))
            goto fail;
        p->started = w;
    }
    return p;
fail:
    snR_pool_free(p);
    return NULL;
}

void snR_pool_free(Pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->quit, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int w = 1; w <= p->started; w++)
        pthread_join(p->worker[w].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    free(p->worker);
    free(p->slot);
    free(p);
}
