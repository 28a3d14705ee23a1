/* cpu.c: what host code asks of a CPU, so that a bundle made elsewhere says so instead of dying of an illegal instruction.

   A table of the features that LLVM may use in a kernel. Code for "host" needs all of them that the building CPU has; code for
   host:x86-64-v3 or -v4 those of that level (System V ABI, x86-64 supplement, micro-architecture levels). */
#include "runtime/bundle.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#define FEATURES(F)                                                                                \
    F("avx", 3) F("avx2", 3) F("bmi", 3) F("bmi2", 3) F("f16c", 3) F("fma", 3) F("lzcnt", 3)       \
    F("movbe", 3) F("popcnt", 3) F("sse4.2", 3) F("avx512f", 4) F("avx512bw", 4) F("avx512cd", 4)  \
    F("avx512dq", 4) F("avx512vl", 4) F("avx512bf16", 5) F("avx512vnni", 5) F("avx512vbmi", 5)     \
    F("avx512vbmi2", 5) F("avx512bitalg", 5) F("avx512ifma", 5) F("avx512vpopcntdq", 5)            \
    F("gfni", 5) F("vpclmulqdq", 5)

static const struct { const char *name; int level; } features[] = {
#define F(name, level) { name, level },
    FEATURES(F)
#undef F
};

static bool has(const char *name)
{
#define F(f, level)                                                                                \
    if (!strcmp(name, f))                                                                          \
        return __builtin_cpu_supports(f);
    FEATURES(F)
#undef F
    return false;
}
#else
static const struct { const char *name; int level; } features[1];
static bool has(const char *name) { return !name; }
#endif

void snR_cpu_needs(const char *target, char out[512])
{
    int level = strstr(target, "v3") ? 3 : strstr(target, "v4") ? 4 : 0, n = 0;
    out[0] = 0;
    if (strncmp(target, "host", 4))
        return;
    for (unsigned i = 0; i < sizeof features / sizeof *features; i++) {
        const char *name = features[i].name;
        if (name && (level ? features[i].level <= level : has(name)))
            n += snprintf(out + n, 512 - (size_t)n, "%s%s", n ? " " : "", name);
    }
}

bool snR_cpu_lacks(const char *needs, char missing[64])
{
    while (*needs) {
        size_t n = strcspn(needs, " ");
        snprintf(missing, 64, "%.*s", (int)(n < 63 ? n : 63), needs);
        if (n && !has(missing))
            return true;
        needs += n + (needs[n] == ' ');
    }
    return false;
}
