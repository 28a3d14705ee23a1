/* compile_host.c: kernels to one shared object, or one PTX text. In: kernels of a build and the
   target. Out: the bytes of an ELF shared object (of PTX), and the symbol of each kernel.

     kernels --print--> texts --dedupe--> objects --ld--> shared object
                                          (cache, or libsinter_llvm.so on several threads)

   The cache holds an object per kernel and the linked result per set of kernels, in $SN_CACHE or
   ~/.cache/sinter, by the hash of (text, target, compiler). An entry ends with its own checksum;
   a damaged one is compiled again, and without a directory to write there is no cache. SN_CACHE=
   (empty) turns it off. LLVM itself is loaded only here, from beside the executable, from
   $SN_LIB, or by the loader's own search.

   The cache also keeps, for each target ptx:sm_NN, what the compiler was. So on a machine without LLVM
   a cache that was filled elsewhere stands in for it: what is in it is found, what is not is
   an error. Not so for host, whose compiler depends on the CPU. */
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "codegen/kir.h"

extern char **environ;

typedef struct Job {                 /* one distinct kernel */
    Kernel kernel;                   /* the caller's, under the symbol's name */
    XXH128_hash_t key;               /* of the text, then of text and compiler */
    void *obj;
    size_t bytes;
    int code;
    char err[512];
} Job;

typedef struct Batch {
    sn_ctx *c;
    const Target *target;
    EmitObjectFn emit;               /* NULL: only the cache; why */
    char why[512];
    char *identity;                  /* compiler, CPU, features */
    char cache[512];                 /* directory; empty = none */
    const char *dump_dir;
    Job *jobs;
    int n;
    atomic_int next;
} Batch;

/* -- The module with LLVM ---------------------------------------------------------------------- */

static void *open_module(char why[512]) {
    char path[600] = "", exe[512];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) *slash = 0;
        snprintf(path, sizeof path, "%s/libsinter_llvm.so", exe);
        if (!access(path, R_OK)) goto open;
        snprintf(path, sizeof path, "%s/../" SN_LIBDIR "/libsinter_llvm.so", exe);           /* installed */
        if (!access(path, R_OK)) goto open;
    }
    const char *lib = getenv("SN_LIB");
    if (lib && *lib) {
        snprintf(path, sizeof path, "%s/libsinter_llvm.so", lib);
        if (!access(path, R_OK)) goto open;
    }
    snprintf(path, sizeof path, "libsinter_llvm.so");
open:;
    void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!h) snprintf(why, 512, "%s", dlerror());
    return h;
}

/* -- Files ------------------------------------------------------------------------------------- */

static bool write_file(const char *path, const void *p, size_t n, const void *tail, size_t ntail) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool ok = fwrite(p, 1, n, f) == n && fwrite(tail, 1, ntail, f) == ntail;
    return (fclose(f) == 0) & ok;
}

static void make_dirs(char *path) {
    for (char *s = path + 1; *s; s++) {
        if (*s != '/') continue;
        *s = 0;
        mkdir(path, 0777);
        *s = '/';
    }
    mkdir(path, 0777);
}

static void find_cache(Batch *b) {
    const char *dir = getenv("SN_CACHE"), *home = getenv("HOME");
    if (dir) snprintf(b->cache, sizeof b->cache, "%s", dir);
    else if (home && *home) snprintf(b->cache, sizeof b->cache, "%s/.cache/sinter", home);
    if (b->cache[0]) make_dirs(b->cache);
}

static void entry_path(const Batch *b, XXH128_hash_t key, char path[600]) {
    snprintf(path, 600, "%s/%016llx%016llx.o", b->cache, (unsigned long long)key.high64,
             (unsigned long long)key.low64);
}

/* malloc'ed; NULL when the entry is missing or damaged. */
static void *from_cache(const Batch *b, XXH128_hash_t key, size_t *bytes) {
    if (!b->cache[0]) return NULL;
    char path[600];
    size_t n = 0;
    entry_path(b, key, path);
    char *s = snU_read_file(b->c, path, &n);
    uint64_t sum;
    if (s && n > 8) {
        memcpy(&sum, s + n - 8, 8);
        *bytes = n - 8;
        if (sum == XXH3_64bits_withSeed(s, n - 8, key.low64)) return s;
    }
    free(s);
    return NULL;
}

static void to_cache(const Batch *b, XXH128_hash_t key, const void *p, size_t n) {
    if (!b->cache[0]) return;
    char path[600], temp[680];
    entry_path(b, key, path);
    snprintf(temp, sizeof temp, "%s.%d.%lx", path, (int)getpid(), (unsigned long)pthread_self());
    uint64_t sum = XXH3_64bits_withSeed(p, n, key.low64);
    if (!write_file(temp, p, n, &sum, 8) || rename(temp, path)) unlink(temp);
}

/* -- The compiler, or what one left in the cache ----------------------------------------------- */

static XXH128_hash_t key_of_compiler(const Batch *b) {
    char s[128];
    int n = snprintf(s, sizeof s, "the compiler of %.100s", b->target->name);
    return XXH3_128bits(s, (size_t)n);
}

/* Known to machines that have only this cache. */
static void keep_identity(const Batch *b) {
    size_t n = 0, want = strlen(b->identity) + 1;
    if (!snK_is_ptx(b->target)) return;
    char *kept = from_cache(b, key_of_compiler(b), &n);
    if (!kept || n != want || memcmp(kept, b->identity, n)) to_cache(b, key_of_compiler(b), b->identity, want);
    free(kept);
}

static bool kept_identity(Batch *b) {
    size_t n = 0;
    if (snK_is_ptx(b->target)) b->identity = from_cache(b, key_of_compiler(b), &n);
    return b->identity && n && !b->identity[n - 1];
}

static void find_emitter(Batch *b) {
    void *text, *h = open_module(b->why);        /* stays open: LLVM does not like to be unloaded */
    size_t n;
    if (!h && kept_identity(b)) return;
    if (!h)
        snU_fail(b->c, SN_UNSUPPORTED, 0,
                 "the code generator cannot be loaded: %s (set SN_LIB to its folder)", b->why);
    *(void **)&b->emit = dlsym(h, "snK_emit_object");
    if (!b->emit) snU_fail(b->c, SN_UNSUPPORTED, 0, "libsinter_llvm.so has no snK_emit_object");
    if (b->emit(NULL, 0, b->target, NULL, &text, &n, b->why))
        snU_fail(b->c, SN_UNSUPPORTED, 0, "code generator: %s", b->why);
    b->identity = text;
    keep_identity(b);
}

/* -- Kernels to objects ------------------------------------------------------------------------ */

static XXH128_hash_t with_compiler(const Batch *b, XXH128_hash_t text) {
    char s[256];
    int n = snprintf(s, sizeof s, "%016llx%016llx lanes %d ", (unsigned long long)text.high64,
                     (unsigned long long)text.low64, b->target->f32_lanes);
    XXH3_state_t st;
    XXH3_128bits_reset(&st);
    XXH3_128bits_update(&st, s, (size_t)n);
    XXH3_128bits_update(&st, b->identity, strlen(b->identity));
    return XXH3_128bits_digest(&st);
}

static void do_job(Batch *b, Job *j) {
    XXH128_hash_t key = with_compiler(b, j->key);
    if (!b->dump_dir && (j->obj = from_cache(b, key, &j->bytes))) return;
    if (!b->emit) {
        j->code = SN_UNSUPPORTED;
        snprintf(j->err, sizeof j->err, "not in the cache %.150s, and no code generator: %.250s",
                 b->cache, b->why);
        return;
    }
    const Kernel *k = &j->kernel;
    j->code = b->emit(&k, 1, b->target, b->dump_dir, &j->obj, &j->bytes, j->err);
    if (!j->code) to_cache(b, key, j->obj, j->bytes);
}

static void *worker(void *arg) {
    Batch *b = arg;
    for (int i; (i = atomic_fetch_add(&b->next, 1)) < b->n; ) do_job(b, &b->jobs[i]);
    return NULL;
}

static void run_jobs(Batch *b, int threads) {
    pthread_t id[64];
    pthread_attr_t attr;
    int started = 0;
    if (threads <= 0) threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads > b->n) threads = b->n;
    if (threads > 64) threads = 64;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 16 << 20);              /* LLVM recurses */
    while (started < threads - 1 && !pthread_create(&id[started], &attr, worker, b)) started++;
    worker(b);
    for (int i = 0; i < started; i++) pthread_join(id[i], NULL);
    pthread_attr_destroy(&attr);
}

/* -- Objects to a shared object ---------------------------------------------------------------- */

int snK_run(char *const *argv, const char *log) {
    posix_spawn_file_actions_t fa;
    pid_t pid;
    int status;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    int bad = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    if (bad) return -1;
    while (waitpid(pid, &status, 0) < 0) if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int try_linkers(char **argv, const char *log) {
    static const char *const linkers[] = { "ld", "ld.lld-19", "ld.lld", "cc" };
    int status = -1;
    for (int i = 0; i < 4 && status; i++) {
        bool cc = i == 3;
        argv[0] = (char *)linkers[i];
        argv[1] = "-shared";
        argv[2] = cc ? "-nostdlib" : "--hash-style=gnu";
        argv[3] = cc ? "-Wl,-z,defs" : "-zdefs";
        int s = snK_run(argv, log);
        if (s != -1) status = s;
    }
    return status;
}

/* What the linker said, or that there is none. The caller removes `dir`. */
static void link_failed(int status, const char *log, char err[512]) {
    if (status < 0) {
        snprintf(err, 512,
                 "no linker: ld, ld.lld and cc were tried (Debian: apt-get install binutils)");
        return;
    }
    int n = snprintf(err, 512, "the linker failed (status %d): ", status);
    FILE *f = fopen(log, "rb");
    if (!f) return;
    n += (int)fread(err + n, 1, (size_t)(511 - n), f);
    err[n] = 0;
    fclose(f);
}

static void *link_objects(Batch *b, size_t *bytes, char err[512]) {
    const char *tmp = getenv("TMPDIR");
    char dir[256], path[300], out[300], log[300];
    snprintf(dir, sizeof dir, "%.200s/sinterXXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return snprintf(err, 512, "no temporary folder %s: %s", dir, strerror(errno)), NULL;
    Arena a = {0};
    char **argv = NEWN(&a, char *, b->n + 8);
    snprintf(out, sizeof out, "%s/k.so", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    bool ok = true;
    int n = 4;
    argv[n++] = "-s";
    argv[n++] = "-o";
    argv[n++] = out;
    for (int i = 0; i < b->n && ok; i++) {
        snprintf(path, sizeof path, "%s/%d.o", dir, i);
        ok = write_file(path, b->jobs[i].obj, b->jobs[i].bytes, "", 0);
        argv[n++] = snU_strdup(&a, path, strlen(path));
    }
    void *so = NULL;
    if (!ok) snprintf(err, 512, "cannot write %s: %s", path, strerror(errno));
    else {
        int status = try_linkers(argv, log);
        if (status) link_failed(status, log, err);
        else if (!(so = snU_read_file(b->c, out, bytes)))
            snprintf(err, 512, "the linker left no %s", out);
    }
    while (n > 7) unlink(argv[--n]);
    unlink(out);
    unlink(log);
    rmdir(dir);
    snU_free_arena(&a);
    return so;
}

/* -- PTX texts to one ------------------------------------------------------------------------------ */

/* All begin with the same head (comments, .version, .target, .address_size): the first one's is kept. */
static const char *behind_head(const char *s) {
    const char *size = strstr(s, ".address_size");
    return size ? size + strcspn(size, "\n") : s;
}

static void *join_texts(const Batch *b, size_t *bytes) {
    StrBuf text = {0};
    for (int i = 0; i < b->n; i++) {
        char *s = strndup(b->jobs[i].obj, b->jobs[i].bytes);
        snU_puts(&text, i && s ? behind_head(s) : s ? s : "");
        free(s);
    }
    *bytes = text.n;
    return text.s;
}

/* -- The batch --------------------------------------------------------------------------------- */

static void symbol_name(Batch *b, Job *j, const char *name) {
    char s[64];
    size_t n = 0;
    for (; name[n] && n < 40; n++) s[n] = isalnum((unsigned char)name[n]) ? name[n] : '_';
    s[n] = 0;
    j->kernel.name = snU_symf(b->c, "sn_%s_%016llx", s, (unsigned long long)j->key.low64);
}

static void dump_text(const Batch *b, const Job *j, const StrBuf *text) {
    char path[600];
    snprintf(path, sizeof path, "%.400s/%s.kir", b->dump_dir, snU_str(b->c, j->kernel.name));
    write_file(path, text->s, text->n, "", 0);
}

/* One job per distinct text; symbols[i] is that of kernel i's job. */
static void collect(Batch *b, const Kernel *const *kernels, int n, const char **symbols, Arena *a) {
    HashMap seen = {0};
    StrBuf text = {0};
    b->jobs = NEWN(a, Job, n + 1);
    for (int i = 0; i < n; i++) {
        text.n = 0;
        snK_print(&text, kernels[i]);
        XXH128_hash_t key = XXH3_128bits(text.s, text.n);
        uint32_t at = snU_first(&seen, key.low64), v;
        while ((v = snU_at(&seen, key.low64, &at)) != 0)
            if (b->jobs[v - 1].key.high64 == key.high64) break;
        if (!v) {
            Job *j = &b->jobs[b->n++];
            j->kernel = *kernels[i];
            j->key = key;
            symbol_name(b, j, snU_str(b->c, kernels[i]->name));
            snU_insert(a, &seen, key.low64, v = (uint32_t)b->n);
            if (b->dump_dir) dump_text(b, j, &text);
        }
        symbols[i] = snU_str(b->c, b->jobs[v - 1].kernel.name);
    }
    snU_free_buf(&text);
}

static XXH128_hash_t key_of_all(const Batch *b, Arena *a) {
    XXH128_hash_t *keys = NEWN(a, XXH128_hash_t, b->n + 1);
    for (int i = 0; i < b->n; i++) keys[i] = b->jobs[i].key;
    return with_compiler(b, XXH3_128bits(keys, sizeof *keys * (size_t)b->n));
}

int snK_compile_host(sn_ctx *c, const Kernel *const *kernels, int n, const Target *t, int threads,
                     void **so, size_t *bytes, const char **symbols, Arena *a) {
    Batch b = { .c = c, .target = t, .dump_dir = getenv("SN_DUMP_DIR") };
    if (b.dump_dir && !*b.dump_dir) b.dump_dir = NULL;
    if (b.dump_dir) mkdir(b.dump_dir, 0777);
    char err[512] = "";
    int code = 0;
    *so = NULL;
    collect(&b, kernels, n, symbols, a);
    find_cache(&b);
    find_emitter(&b);
    XXH128_hash_t key = key_of_all(&b, a);
    if (!b.dump_dir) *so = from_cache(&b, key, bytes);
    if (!*so) {
        run_jobs(&b, threads);
        for (int i = 0; i < b.n && !code; i++)
            if ((code = b.jobs[i].code) != 0)
                snprintf(err, sizeof err, "kernel %s: %.440s", snU_str(c, b.jobs[i].kernel.name),
                         b.jobs[i].err);
        if (!code && snK_is_ptx(t)) *so = join_texts(&b, bytes);
        else if (!code && !(*so = link_objects(&b, bytes, err))) code = SN_IO;
        if (*so) to_cache(&b, key, *so, *bytes);
    }
    for (int i = 0; i < b.n; i++) free(b.jobs[i].obj);
    free(b.identity);
    if (code) snU_fail(c, code, 0, "%s", err);
    return 0;
}
