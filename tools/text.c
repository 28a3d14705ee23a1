/* text.c: the byte tokenizer, JSON lines, the progress line.

   In: text and files. Out: tokens, objects, what a terminal shows. */
#define _GNU_SOURCE
#include "tools/text.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* -- Bytes --------------------------------------------------------------------------------------------------- */

static int encode_bytes(const Tokenizer *t, const char *text, size_t n, Tokens *out) {
    (void)t;
    *out = (Tokens){ malloc(sizeof *out->v * (n + 1)), (int64_t)n };
    for (size_t i = 0; out->v && i < n; i++) out->v[i] = (uint8_t)text[i];
    return out->v ? 0 : cmd_fail("out of memory");
}

static char *decode_bytes(const Tokenizer *t, const int32_t *ids, int64_t n, size_t *bytes) {
    char *s = malloc((size_t)n + 1);
    size_t at = 0;
    (void)t;
    for (int64_t i = 0; s && i < n; i++)
        if (ids[i] >= 0 && ids[i] < 256) s[at++] = (char)ids[i];
    if (s) s[at] = 0;
    *bytes = s ? at : 0;
    return s;
}

const Tokenizer BYTE_TOKENIZER = { NULL, 256, encode_bytes, decode_bytes, -1, NULL, 0 };

/* -- JSON ------------------------------------------------------------------------------------------------------ */

int json_lines(const char *path, int (*f)(void *, const char *, int, const json_t *), void *user) {
    size_t n = 0;
    char *text = read_text(path, &n);
    if (!text) return cmd_fail("%s: %s", path, strerror(errno));
    int rc = 0, line = 1;
    for (const char *p = text, *end = text + n; p < end && !rc; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((stop ? stop : end) - p);
        json_error_t why;
        if (strspn(p, " \t\r") < len) {
            json_t *o = json_loadb(p, len, JSON_ALLOW_NUL, &why);
            if (json_is_object(o)) rc = f(user, path, line, o);
            else {
                fprintf(stderr, "%s:%d: error: not a JSON object%s%s; one object a line is wanted\n", path, line, o ? "" : ": ", o ? "" : why.text);
                rc = EXIT_FAILED;
            }
            json_decref(o);
        }
        p += len + 1;
    }
    free(text);
    return rc;
}

json_t *json_file(const char *path) {
    size_t n = 0;
    json_error_t why;
    char *text = read_text(path, &n);
    if (!text) { cmd_fail("%s: %s", path, strerror(errno)); return NULL; }
    json_t *o = json_loadb(text, n, 0, &why);
    free(text);
    if (json_is_object(o)) return o;
    fprintf(stderr, "%s:%d: error: not a JSON object%s%s\n", path, o ? 1 : why.line, o ? "" : ": ", o ? "" : why.text);
    json_decref(o);
    return NULL;
}

const char *json_text(const char *path, int line, const json_t *o, const char *key, size_t *n) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) {
        fprintf(stderr, "%s:%d: error: \"%s\" must be a string, and is %s\n", path, line, key, v ? "something else" : "missing");
        return NULL;
    }
    if (n) *n = json_string_length(v);
    else if (strlen(json_string_value(v)) != json_string_length(v)) {
        fprintf(stderr, "%s:%d: error: \"%s\" has a zero byte\n", path, line, key);
        return NULL;
    }
    return json_string_value(v);
}

/* Bytes of the UTF-8 sequence at s, 0 where there is none: no overlong forms, no surrogates, at most U+10FFFF. */
static size_t utf8_length(const uint8_t *s, size_t n) {
    size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (!len || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
    return len;
}

json_t *json_bytes(const char *s, size_t n) {
    char *t = malloc(3 * n + 1);
    size_t at = 0, len;
    for (size_t i = 0; t && i < n; i += len ? len : 1) {
        len = utf8_length((const uint8_t *)s + i, n - i);
        memcpy(t + at, len ? s + i : "\xef\xbf\xbd", len ? len : 3);
        at += len ? len : 3;
    }
    json_t *v = t ? json_stringn(t, at) : NULL;
    free(t);
    return v;
}

/* -- Progress -------------------------------------------------------------------------------------------------- */

void progress_start(Progress *p) { *p = (Progress){ snU_now(), 0, isatty(STDERR_FILENO) }; }

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) || w.ws_col < 40 ? 80 : w.ws_col;
}

void progress_show(Progress *p, int64_t done, int64_t all, const char *unit, const char *text, size_t n) {
    double now = snU_now(), gone = now - p->start;
    if (!p->tty || now - p->last < 0.05) return;
    p->last = now;
    double rate = (double)done / (gone > 0 ? gone : 1);
    int used = fprintf(stderr, "\r\033[K%lld/%lld %s  %.1f/s  %.0f s left  ", (long long)done, (long long)all, unit, rate,
                       rate > 0 ? (double)(all - done) / rate : 0) - 4;
    size_t room = columns() > used + 1 ? (size_t)(columns() - used - 1) : 0, from = n > room ? n - room : 0;
    for (size_t i = from; text && i < n; i++) fputc(text[i] >= ' ' && text[i] < 127 ? text[i] : text[i] == '\n' ? '|' : '?', stderr);
}

void progress_end(Progress *p) {
    if (p->tty && p->last > 0) fputs("\r\033[K", stderr);
}
