/* unit_faults.c: a program opened, run, saved and loaded, with the n-th allocation, the n-th call of the device (launches among them), or
   the n-th call that opens, reads, maps or writes a file failing, for every n until nothing is left to fail. Each failure must come out as an error with a line of text, leave no memory behind, and leave no
   half-written file.

   Allocations are wrapped by the linker (CMakeLists.txt: --wrap), for the runtime's objects and what is linked from them; jansson's
   are set by its own hook. */
#define _GNU_SOURCE
#include "codegen/family.h"
#include "runtime/bundle.h"
#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char TEXT[] =
    "graph train {\n"
    "  input tokens: i32[2, 4]\n"
    "  weight embed: f32[7, 8] = normal(1)\n"
    "  weight w: f32[8, 7] = normal(0.2)\n"
    "  output loss = mean(xent(gather(embed, tokens) @ w, tokens))\n"
    "}\n";

/* -- Allocations that fail: only while a scenario runs, only on its thread ------------------------------------------ */

static int64_t countdown, live;
static bool counting;
static pthread_t owner;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
void __real_free(void *p);

/* What lives, by address: libc hands out some that it allocated itself. */
static void *known[1 << 16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void **place(const void *p) {
    uint32_t at = (uint32_t)((uintptr_t)p >> 4) * 2654435761u >> 16;
    while (known[at] && known[at] != p && known[at] != (void *)known) at = (at + 1) & 0xffff;
    return &known[at];
}

static void *counted(void *p) {
    if (!counting || !p) return p;
    pthread_mutex_lock(&lock);
    *place(p) = p, live++;
    pthread_mutex_unlock(&lock);
    return p;
}

static void forget(void *p) {
    if (!counting || !p) return;
    pthread_mutex_lock(&lock);
    for (uint32_t at = (uint32_t)((uintptr_t)p >> 4) * 2654435761u >> 16, n = 0; known[at] && n < 1 << 16; at = (at + 1) & 0xffff, n++)
        if (known[at] == p) { known[at] = (void *)known, live--; break; }        /* a grave: what lies behind it is still found */
    pthread_mutex_unlock(&lock);
}

static bool refuse(void) { return counting && pthread_equal(pthread_self(), owner) && countdown && --countdown == 0; }

void *__wrap_malloc(size_t n) { return refuse() ? NULL : counted(__real_malloc(n)); }
void *__wrap_calloc(size_t n, size_t m) { return refuse() ? NULL : counted(__real_calloc(n, m)); }
void *__wrap_realloc(void *p, size_t n) {
    if (refuse()) return NULL;
    forget(p);
    return counted(__real_realloc(p, n));
}
void __wrap_free(void *p) { forget(p), __real_free(p); }
char *__wrap_strdup(const char *s) { char *p = __wrap_malloc(strlen(s) + 1); return p ? strcpy(p, s) : NULL; }
char *__wrap_strndup(const char *s, size_t n) {
    n = strnlen(s, n);
    char *p = __wrap_malloc(n + 1);
    if (p) memcpy(p, s, n), p[n] = 0;
    return p;
}
int __wrap_posix_memalign(void **p, size_t align, size_t n) {
    if (refuse()) return ENOMEM;
    int rc = __real_posix_memalign(p, align, n);
    if (!rc) counted(*p);
    return rc;
}

/* -- Files: open, read, write and their like answer EIO, ENOSPC when they write ------------------------------------------- */

static int64_t files;

static bool broken(int why) {
    if (!counting || !pthread_equal(pthread_self(), owner) || !files || --files) return false;
    errno = why;
    return true;
}

#define WRAP(result, name, why, types, args) \
    result __real_##name types; \
    result __wrap_##name types { return broken(why) ? (result)-1 : __real_##name args; }

WRAP(ssize_t, read, EIO, (int fd, void *p, size_t n), (fd, p, n))
WRAP(int, fsync, EIO, (int fd), (fd))
WRAP(int, rename, EIO, (const char *a, const char *b), (a, b))
WRAP(int, ftruncate, EIO, (int fd, off_t n), (fd, n))
WRAP(int, fstat, EIO, (int fd, struct stat *st), (fd, st))
WRAP(int, lstat, EIO, (const char *path, struct stat *st), (path, st))
WRAP(int, memfd_create, EMFILE, (const char *name, unsigned flags), (name, flags))
WRAP(void *, mmap, ENOMEM, (void *at, size_t n, int prot, int flags, int fd, off_t off), (at, n, prot, flags, fd, off))

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = flags & O_CREAT ? va_arg(more, int) : 0;
    va_end(more);
    return broken(EMFILE) ? -1 : __real_open(path, flags, mode);
}

/* Half of it is written before the disk is full. */
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n) {
    if (broken(ENOSPC)) return -1;
    if (counting && files == 1 && n > 1) return __real_write(fd, p, n / 2);
    return __real_write(fd, p, n);
}

/* -- The scenario ---------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/sinter-faults-XXXXXX", bundle[64], checkpoint[64];

/* 0, or the code of the step that failed; *why: its line. */
static int use(const char *device, const char **why) {
    static char line[256];
    *why = line;
    line[0] = 0;
    sn_program *p = sn_program_open(bundle, strcmp(device, "null") ? device : NULL);
    sn_session *s = p ? sn_session_new(p, &(sn_session_desc){ .device = device, .seed = 3, .threads = 1, .poison = true }) : NULL;
    int32_t tokens[8] = { 1, 2, 3, 4, 5, 6, 0, 1 };
    float loss = 0;
    char *meta = NULL;
    int rc = s ? 0 : -1;
    if (!s) snprintf(line, sizeof line, "%s", sn_rt_error());
    if (!rc) rc = sn_bind(s, "train", "tokens", tokens, sizeof tokens);
    if (!rc) rc = sn_set(s, "lr", 1e-3);
    if (!rc) rc = sn_step(s, 1, 0);
    if (!rc) rc = sn_run(s, "train");
    if (!rc) rc = sn_read(s, "train", "loss", &loss, sizeof loss);
    if (!rc) rc = sn_save(s, checkpoint, "{\"step\":1}");
    if (!rc) rc = sn_load(s, checkpoint, &meta, false);
    if (rc && s) snprintf(line, sizeof line, "%s", sn_session_error(s));
    free(meta);
    if (s) sn_session_free(s);
    sn_program_close(p);
    return rc;
}

static bool leftover(void) {
    char path[80];
    snprintf(path, sizeof path, "%s.tmp", checkpoint);
    return access(path, F_OK) == 0;
}

typedef enum { CALL, ALLOCATION, FILE_CALL } Kind;
static const char *const kinds[] = { "device call", "allocation", "file call" };

/* The n-th fault of a kind; true when nothing was left to fail. */
static bool fault(const char *device, Kind kind, int64_t n) {
    const char *why;
    unlink(checkpoint);
    live = 0;
    memset(known, 0, sizeof known);
    countdown = kind == ALLOCATION ? n : 0;
    files = kind == FILE_CALL ? n : 0;
    snR_null_fault(kind == CALL ? n : 0);
    counting = true;
    int rc = use(device, &why);
    counting = false;
    bool fired = kind == ALLOCATION ? countdown == 0 : kind == FILE_CALL ? files == 0 : rc != 0;
    snR_null_fault(0);
    ok(live == 0, "%s, %s %lld: %lld pieces of memory are left", device, kinds[kind], (long long)n, (long long)live);
    if (rc) ok(*why && !strchr(why, '\n'), "%s, %s %lld: an error without a line", device, kinds[kind], (long long)n);
    ok(!leftover(), "%s, %s %lld: a half-written file is left", device, kinds[kind], (long long)n);
    struct stat st;
    if (rc && !stat(checkpoint, &st)) {                  /* written before the failure: then it is whole */
        char err[256];
        sn_file *f = sn_file_open(checkpoint, err);
        ok(f != NULL, "%s, %lld: the checkpoint is damaged: %s", device, (long long)n, err);
        if (f) sn_file_close(f);
    }
    return !fired;
}

static void every_fault(const char *device, Kind kind) {
    int64_t n = 1;
    while (n < 100000 && !fault(device, kind, n)) n++;
    ok(n > 10 && n < 100000, "%s: %lld times a %s can fail", device, (long long)n - 1, kinds[kind]);
}

int main(void) {
    sn_ctx *c = sn_ctx_new();
    char err[256];
    owner = pthread_self();
    json_set_alloc_funcs(__wrap_malloc, __wrap_free);
    if (!mkdtemp(folder)) return 1;
    snprintf(bundle, sizeof bundle, "%s/x.snb", folder);
    snprintf(checkpoint, sizeof checkpoint, "%s/x.safetensors", folder);
    Module *m = snG_parse(c, "faults.sn", TEXT, sizeof TEXT - 1, NULL, 0);
    SnProgram *p = m ? snK_build(m, &(BuildOptions){ .target = "host", .train = true, .fuse = "all" }, NULL) : NULL;
    if (!p) { printf("%s\n", c->message); return 1; }
    ok(snR_bundle_write(bundle, (const SnProgram *const[]){ p }, 1, "faults.sn", "", err) == 0, "the bundle is written");
    const char *why;
    int rc = use("host", &why);
    ok(rc == 0, "without a fault: %s", why);
    rc = use("null", &why);
    ok(rc == 0, "without a fault, on the device null: %s", why);
    every_fault("null", CALL);
    every_fault("null", ALLOCATION);
    every_fault("host", ALLOCATION);
    every_fault("host", FILE_CALL);
    snR_program_free(p);
    snG_free_module(m);
    sn_ctx_free(c);
    unlink(bundle), unlink(checkpoint), rmdir(folder);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
