/* nfc.c: canonical composition (Unicode Standard Annex 15).

   In:  UTF-8, perhaps with other bytes between. Out: the same in normal form C: every character taken apart, marks put into the order of their
   classes, then starters and marks composed again: "e" U+0301 becomes U+00E9.

   A byte that is no part of a character counts as one of its own, above all of Unicode, that nothing composes with. */
#include "tools/nfc.h"

#include "tools/nfc.tab"

enum { N_DECOMPOSED = sizeof DECOMPOSED / sizeof *DECOMPOSED, N_COMBINING = sizeof COMBINING / sizeof *COMBINING, N_ONE_WAY = sizeof ONE_WAY / sizeof *ONE_WAY };
enum { S0 = 0xac00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11a7, LN = 19, VN = 21, TN = 28, SN = LN * VN * TN };        /* Hangul */
enum { BYTE = 0x110000 };

struct Nfc { HashMap pairs; };                                   /* mixed (first, second) -> what they compose to */
typedef struct Chars { uint32_t *v; size_t n, cap; } Chars;

static uint64_t pair(uint32_t a, uint32_t b) { return ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15ull; }          /* odd factor: a bijection */

Nfc *nfc_new(Arena *a) {
    Nfc *f = NEW(a, Nfc);
    uint32_t next = 0;
    for (int i = 0; i < N_DECOMPOSED; i++) {
        const uint32_t *d = DECOMPOSED[i];
        if (next < N_ONE_WAY && ONE_WAY[next] == d[0]) next++;
        else if (d[2]) snU_insert(a, &f->pairs, pair(d[1], d[2]), d[0]);
    }
    return f;
}

static int combining(uint32_t c) {
    int lo = 0, hi = N_COMBINING;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (COMBINING[mid].last < c) lo = mid + 1;
        else hi = mid;
    }
    return lo < N_COMBINING && COMBINING[lo].first <= c ? COMBINING[lo].combining : 0;
}

static const uint32_t *parts(uint32_t c) {
    int lo = 0, hi = N_DECOMPOSED;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (DECOMPOSED[mid][0] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo < N_DECOMPOSED && DECOMPOSED[lo][0] == c ? DECOMPOSED[lo] : NULL;
}

static void put(Chars *out, uint32_t c) {
    if (out->n == out->cap) {
        out->cap = out->cap ? 2 * out->cap : 256;
        out->v = realloc(out->v, sizeof *out->v * out->cap);
        if (!out->v) abort();
    }
    out->v[out->n++] = c;
}

static void take_apart(Chars *out, uint32_t c) {
    const uint32_t *d = c < 0xc0 ? NULL : parts(c);
    if (c >= S0 && c < S0 + SN) {
        uint32_t s = c - S0;
        put(out, L0 + s / (VN * TN));
        put(out, V0 + s % (VN * TN) / TN);
        if (s % TN) put(out, T0 + s % TN);
    } else if (d) {
        take_apart(out, d[1]);
        if (d[2]) take_apart(out, d[2]);
    } else put(out, c);
}

/* By class, those of one class as they came. */
static void sort_marks(uint32_t *v, uint32_t *spare, size_t n) {
    size_t half = n / 2, a = 0, b = half;
    if (n < 2) return;
    sort_marks(v, spare, half);
    sort_marks(v + half, spare, n - half);
    memcpy(spare, v, sizeof *v * n);
    for (size_t i = 0; i < n; i++)
        v[i] = b == n || (a < half && combining(spare[a]) <= combining(spare[b])) ? spare[a++] : spare[b++];
}

/* Every run of marks. */
static void order(Chars *t) {
    uint32_t *spare = malloc(sizeof *spare * (t->n + 1));
    if (!spare) abort();
    for (size_t i = 0, end; i < t->n; i = end) {
        for (end = i; end < t->n && t->v[end] >= 0x300 && combining(t->v[end]); ) end++;
        sort_marks(t->v + i, spare, end - i);
        end += end == i;
    }
    free(spare);
}

static uint32_t composed(const Nfc *f, uint32_t a, uint32_t b) {
    if (a >= L0 && a < L0 + LN && b >= V0 && b < V0 + VN) return S0 + ((a - L0) * VN + (b - V0)) * TN;
    if (a >= S0 && a < S0 + SN && (a - S0) % TN == 0 && b > T0 && b < T0 + TN) return a + (b - T0);
    return snU_find(&f->pairs, pair(a, b));
}

static void compose(const Nfc *f, Chars *t) {
    size_t n = 0, starter = SIZE_MAX;
    int before = 0;                                              /* class of what was kept last; -1: nothing since the starter */
    for (size_t i = 0; i < t->n; i++) {
        uint32_t c = t->v[i], both = 0;
        int k = c < 0x300 ? 0 : combining(c);
        if (starter != SIZE_MAX && before < k) both = composed(f, t->v[starter], c);
        if (starter != SIZE_MAX && before == -1 && !k) both = composed(f, t->v[starter], c);
        if (both) { t->v[starter] = both; continue; }
        if (!k) starter = n;
        before = k ? k : -1;
        t->v[n++] = c;
    }
    t->n = n;
}

/* The character at s and its bytes. */
static uint32_t character(const uint8_t *s, size_t n, size_t *len) {
    size_t more = s[0] < 0x80 ? 0 : s[0] >= 0xc2 && s[0] < 0xe0 ? 1 : (s[0] & 0xf0) == 0xe0 ? 2 : s[0] >= 0xf0 && s[0] < 0xf5 ? 3 : SIZE_MAX;
    *len = 1;
    if (!more) return s[0];
    if (more >= n) return BYTE + s[0];
    uint32_t c = s[0] & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80) return BYTE + s[0];
        c = c << 6 | (s[i] & 0x3f);
    }
    if ((more == 2 && c < 0x800) || (c >= 0xd800 && c < 0xe000) || (more == 3 && c < 0x10000) || c >= BYTE) return BYTE + s[0];
    *len = more + 1;
    return c;
}

static size_t put_character(char *s, uint32_t c) {
    if (c >= BYTE) return s[0] = (char)(c - BYTE), 1;
    if (c < 0x80) return s[0] = (char)c, 1;
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    for (int i = more; i; i--, c >>= 6) s[i] = (char)(0x80 | (c & 0x3f));
    s[0] = (char)((0xff00u >> (more + 1) & 0xff) | c);
    return (size_t)more + 1;
}

char *nfc_text(const Nfc *f, const char *s, size_t *n) {
    Chars t = {0};
    size_t at = 0, len;
    while (at < *n && (uint8_t)s[at] < 0xcc) at++;               /* below U+0300 all is in normal form */
    if (at == *n) return NULL;
    for (at = 0; at < *n; at += len) take_apart(&t, character((const uint8_t *)s + at, *n - at, &len));
    order(&t);
    compose(f, &t);
    char *out = malloc(4 * t.n + 1);
    if (!out) abort();
    for (size_t i = at = 0; i < t.n; i++) at += put_character(out + at, t.v[i]);
    free(t.v);
    *n = at;
    return out;
}
