/* split.c: regular expressions by PCRE2, where the build has it.

   In:  a pattern as tokenizer.json has it, in Oniguruma's dialect. Out: matches in UTF-8.

   The dialects agree on what tokenizers use but for \s, which in PCRE2 takes U+180E as well: it becomes \p{White_Space}. What they read
   differently and no known tokenizer uses (\w, \h, \b ...) is refused. */
#include "tools/split.h"

#include "graph/util.h"

#ifdef SN_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { LIMIT = 10000000 };                                       /* steps of a match: a pattern that never ends must end; so many a byte are no such pattern */

struct Split { pcre2_code *code; pcre2_match_data *match; pcre2_match_context *context; bool jit; };

/* The pattern in PCRE2's dialect; false with a line in err. */
static bool translate(const char *p, StrBuf *out, char err[256]) {
    for (; *p; p++) {
        if (*p != '\\') { snU_put(out, p, 1); continue; }
        p++;
        if (*p == 's' || *p == 'S') snU_puts(out, *p == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
        else if (*p == 'd') snU_puts(out, "\\p{Nd}");
        else if (*p && (strchr("pPrntfx", *p) || (unsigned char)*p < '0' || (*p > '9' && *p < 'A') || (*p > 'Z' && *p < 'a') || *p > 'z')) {
            snU_put(out, "\\", 1);
            snU_put(out, p, 1);
        } else {
            snprintf(err, 256, "\\%c in a pattern is not known here", *p ? *p : ' ');
            return false;
        }
    }
    return true;
}

Split *split_new(const char *pattern, bool literal, char err[256]) {
    StrBuf text = {0};
    int code = 0;
    PCRE2_SIZE at = 0;
    bool ok = true;
    if (literal) snU_puts(&text, pattern);
    else ok = translate(pattern, &text, err);
    Split *p = ok ? calloc(1, sizeof *p) : NULL;
    uint32_t options = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    if (p) p->code = pcre2_compile((PCRE2_SPTR)(text.s ? text.s : ""), text.n, options, &code, &at, NULL);
    snU_free_buf(&text);
    if (!p) {
        if (ok) snprintf(err, 256, "out of memory");
        return NULL;
    }
    if (p->code) p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->code || !p->match || !p->context) {
        char why[160] = "out of memory";
        if (!p->code) pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        snprintf(err, 256, "pattern, character %zu: %s", (size_t)at, why);
        split_free(p);
        return NULL;
    }
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    return p;
}

static size_t character(const char *s, size_t n) {
    size_t len = 1;
    while (len < n && ((unsigned char)s[len] & 0xc0) == 0x80) len++;
    return len;
}

int split_next(Split *p, const char *s, size_t n, size_t from, size_t *begin, size_t *end, char err[256]) {
    pcre2_set_match_limit(p->context, n > UINT32_MAX / 16 ? UINT32_MAX : LIMIT + 8 * (uint32_t)n);
    while (from < n) {
        int rc = p->jit ? pcre2_jit_match(p->code, (PCRE2_SPTR)s, n, from, 0, p->match, p->context)
                        : pcre2_match(p->code, (PCRE2_SPTR)s, n, from, 0, p->match, p->context);
        if (rc == PCRE2_ERROR_NOMATCH) return 0;
        if (rc < 0) {
            char why[160] = "";
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
            snprintf(err, 256, "matching the pattern: %s", why);
            return -1;
        }
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(p->match);
        *begin = o[0];
        *end = o[1];
        if (*end > *begin) return 1;
        from = *begin + character(s + *begin, n - *begin);
    }
    return 0;
}

void split_free(Split *p) {
    if (!p) return;
    if (p->match) pcre2_match_data_free(p->match);
    if (p->context) pcre2_match_context_free(p->context);
    if (p->code) pcre2_code_free(p->code);
    free(p);
}

#else

Split *split_new(const char *pattern, bool literal, char err[256]) {
    (void)pattern, (void)literal;
    snprintf(err, 256, "this build has no PCRE2, which tokenizers cut text with; install it (Debian: apt-get install libpcre2-dev) and build again");
    return NULL;
}

int split_next(Split *p, const char *s, size_t n, size_t from, size_t *begin, size_t *end, char err[256]) {
    (void)p, (void)s, (void)n, (void)from, (void)begin, (void)end, (void)err;
    return 0;
}

void split_free(Split *p) { (void)p; }

#endif
