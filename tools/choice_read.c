/* choice_read.c: questions from JSON lines and CSV.

   In:  a file. Out: context and options as texts that are joined as they are, the right one, how many characters each counts.
   E.g. HellaSwag's ctx_a "A man sits." ctx_b "he" activity "Roofing": context "Roofing: A man sits. He", options " is ..." */
#define _GNU_SOURCE
#include "tools/choice.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <wctype.h>

static __attribute__((format(printf, 3, 4))) int wrong(const char *path, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: error: ", path, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_FAILED;
}

/* -- Texts, as Python's str methods see them ----------------------------------------------------------------------- */

/* The code point at s and its bytes; a byte that is no UTF-8 is taken alone. */
static uint32_t code_point(const char *s, size_t *len) {
    const uint8_t *b = (const uint8_t *)s;
    int more = b[0] >= 0xf0 ? 3 : b[0] >= 0xe0 ? 2 : b[0] >= 0xc2 ? 1 : 0;
    uint32_t c = more ? b[0] & (0x3fu >> more) : b[0];
    for (int i = 1; i <= more; i++) {
        if ((b[i] & 0xc0) != 0x80) { *len = 1; return b[0]; }
        c = c << 6 | (b[i] & 0x3f);
    }
    *len = (size_t)more + 1;
    return c;
}

static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static double characters(const char *s) {
    double n = 0;
    for (size_t len; *s; s += len, n++) code_point(s, &len);
    return n;
}

static char *strip(Arena *a, const char *s) {
    size_t len;
    const char *end = s;
    while (*s && is_space(code_point(s, &len))) s += len;
    for (const char *p = s; *p; p += len)
        if (!is_space(code_point(p, &len))) end = p + len;
    return snU_strdup(a, s, end > s ? (size_t)(end - s) : 0);
}

static void put_code_point(StrBuf *b, uint32_t c) {
    char s[4];
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t first[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (int i = n - 1; i > 0; i--, c >>= 6) s[i] = (char)(0x80 | (c & 0x3f));
    s[0] = (char)(first[n] | c);
    snU_put(b, s, (size_t)n);
}

/* The first letter large, all others small. */
static void capitalized(StrBuf *b, const char *s) {
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    size_t len;
    for (bool first = true; *s; s += len, first = false) {
        uint32_t c = code_point(s, &len);
        if (len == 1 && c >= 0x80) snU_put(b, s, 1);
        else if (c < 0x80 || !utf8) put_code_point(b, first && c >= 'a' && c <= 'z' ? c - 32 : !first && c >= 'A' && c <= 'Z' ? c + 32 : c);
        else put_code_point(b, (uint32_t)(first ? towupper_l((wint_t)c, utf8) : towlower_l((wint_t)c, utf8)));
    }
    if (utf8) freelocale(utf8);
}

static void replace(StrBuf *b, const char *s, const char *what, const char *by) {
    for (const char *at; (at = strstr(s, what)) != NULL; s = at + strlen(what)) {
        snU_put(b, s, (size_t)(at - s));
        snU_puts(b, by);
    }
    snU_puts(b, s);
}

/* Leaves out "[...]" within a line: WikiHow's markup. */
static void without_brackets(StrBuf *b, const char *s) {
    while (*s) {
        const char *end = *s == '[' ? s + strcspn(s, "]\n") : s;
        if (*s == '[' && *end == ']') s = end + 1;
        else snU_put(b, s++, 1);
    }
}

/* Strip, " [title]" to ". ", brackets out, two blanks to one: the steps of the harness's task hellaswag, in its order. */
static char *hellaswag_text(Arena *a, const char *s) {
    StrBuf one = {0}, two = {0}, three = {0};
    replace(&one, strip(a, s), " [title]", ". ");
    without_brackets(&two, one.s ? one.s : "");
    replace(&three, two.s ? two.s : "", "  ", " ");
    char *out = snU_strdup(a, three.s ? three.s : "", three.n);
    snU_free_buf(&one);
    snU_free_buf(&two);
    snU_free_buf(&three);
    return out;
}

/* -- A question from its parts ------------------------------------------------------------------------------------ */

enum { MOST_OPTIONS = 26 };

static int add_question(Questions *qs, Question q) {
    if (q.noptions < 2 || q.noptions > MOST_OPTIONS) return wrong(q.path, q.line, "%d options; 2 to %d are wanted", q.noptions, MOST_OPTIONS);
    if (q.label < 0 || q.label >= q.noptions)
        return wrong(q.path, q.line, "the right option is number %d of %d, counted from 0", q.label, q.noptions);
    for (int i = 0; i < q.noptions; i++)
        if (!q.option[i].text[0] || q.option[i].chars < 1) return wrong(q.path, q.line, "option %d is empty: it has no likelihood", i);
    q.answer = q.option[q.label].text;
    PUSH(&qs->arena, qs->q, q);
    return 0;
}

/* A number, a number as text, or a letter. -1 after an error line. */
static int label_of(const char *path, int line, const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    const char *s = json_string_value(v);
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < MOST_OPTIONS) return (int)json_integer_value(v);
    if (s && s[0] >= 'A' && s[0] <= 'Z' && !s[1]) return s[0] - 'A';
    if (s && s[0] >= '0' && s[0] <= '9' && strlen(s) < 3 && strspn(s, "0123456789") == strlen(s)) return atoi(s);
    wrong(path, line, "\"%s\" must be the number of the right option, counted from 0, or its letter, and is %s", key,
          v ? "something else" : "missing");
    return -1;
}

/* An array of strings: `before` and each, read by `f` when there is one. */
static int read_options(Arena *a, Question *q, const json_t *o, const char *key, const char *before, char *(*f)(Arena *, const char *)) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_array(v)) return wrong(q->path, q->line, "\"%s\" must be an array of texts, and is %s", key, v ? "something else" : "missing");
    if (json_array_size(v) > MOST_OPTIONS) return wrong(q->path, q->line, "%zu options; 2 to %d are wanted", json_array_size(v), MOST_OPTIONS);
    q->noptions = (int)json_array_size(v);
    q->option = NEWN(a, Option, q->noptions + 1);
    for (int i = 0; i < q->noptions; i++) {
        const char *s = json_string_value(json_array_get(v, (size_t)i));
        if (!s) return wrong(q->path, q->line, "\"%s\" must be an array of texts, and has something else at %d", key, i);
        if (strlen(s) != json_string_length(json_array_get(v, (size_t)i))) return wrong(q->path, q->line, "\"%s\" has a zero byte", key);
        if (f) s = f(a, s);
        q->option[i] = (Option){ .text = snU_fmt(a, "%s%s", before, s), .chars = characters(s) };
    }
    return 0;
}

static int read_hellaswag(Questions *qs, Question q, const json_t *o) {
    Arena *a = &qs->arena;
    const char *what = json_text(q.path, q.line, o, "activity_label", NULL);
    const char *first = what ? json_text(q.path, q.line, o, "ctx_a", NULL) : NULL;
    const char *second = first ? json_text(q.path, q.line, o, "ctx_b", NULL) : NULL;
    if (!second || read_options(a, &q, o, "endings", " ", hellaswag_text)) return EXIT_FAILED;
    StrBuf b = {0};
    snU_putf(&b, "%s: %s ", what, first);
    capitalized(&b, second);
    q.context = hellaswag_text(a, b.s);
    q.task = "hellaswag";
    q.label = label_of(q.path, q.line, o, "label");
    snU_free_buf(&b);
    return q.label < 0 ? EXIT_FAILED : add_question(qs, q);
}

/* The question with its options by letter; to be answered is the letter. */
static int add_mmlu(Questions *qs, Question q, const char *question, const char *const *choice) {
    StrBuf b = {0};
    snU_puts(&b, strip(&qs->arena, question));
    q.task = "mmlu";
    q.option = NEWN(&qs->arena, Option, q.noptions + 1);
    for (int i = 0; i < q.noptions; i++) {
        snU_putf(&b, "\n%c. %s", 'A' + i, choice[i]);
        q.option[i] = (Option){ .text = snU_fmt(&qs->arena, " %c", 'A' + i), .chars = 1 };
    }
    snU_puts(&b, "\nAnswer:");
    q.context = snU_strdup(&qs->arena, b.s, b.n);
    snU_free_buf(&b);
    return add_question(qs, q);
}

static int read_mmlu(Questions *qs, Question q, const json_t *o) {
    const char *choice[MOST_OPTIONS];
    const char *question = json_text(q.path, q.line, o, "question", NULL);
    const char *subject = question ? json_text(q.path, q.line, o, "subject", NULL) : NULL;
    if (!subject || read_options(&qs->arena, &q, o, "choices", "", NULL)) return EXIT_FAILED;
    for (int i = 0; i < q.noptions; i++) choice[i] = q.option[i].text;
    q.subject = snU_strdup(&qs->arena, subject, strlen(subject));
    q.label = label_of(q.path, q.line, o, "answer");
    return q.label < 0 ? EXIT_FAILED : add_mmlu(qs, q, question, choice);
}

/* Blanks at the start of an option separate it from the context and do not count. */
static int read_any(Questions *qs, Question q, const json_t *o) {
    Arena *a = &qs->arena;
    const char *context = json_text(q.path, q.line, o, "context", NULL), *suffix = NULL;
    if (!context || read_options(a, &q, o, "options", "", NULL)) return EXIT_FAILED;
    if (json_object_get(o, "suffix") && !(suffix = json_text(q.path, q.line, o, "suffix", NULL))) return EXIT_FAILED;
    q.context = snU_strdup(a, context, strlen(context));
    q.suffix = suffix && *suffix ? snU_strdup(a, suffix, strlen(suffix)) : NULL;
    q.task = q.path;
    q.label = label_of(q.path, q.line, o, "label");
    for (int i = 0; i < q.noptions; i++) {
        const char *text = q.option[i].text;
        size_t len;
        while (*text && is_space(code_point(text, &len))) text += len;
        if (*text) q.option[i].chars = characters(text);
    }
    return q.label < 0 ? EXIT_FAILED : add_question(qs, q);
}

static int read_line(void *user, const char *path, int line, const json_t *o) {
    Question q = { .path = path, .line = line };
    if (json_object_get(o, "endings")) return read_hellaswag(user, q, o);
    if (json_object_get(o, "question")) return read_mmlu(user, q, o);
    if (json_object_get(o, "options")) return read_any(user, q, o);
    return wrong(path, line, "no question: wanted is \"context\" and \"options\", or the members of HellaSwag or of MMLU");
}

/* -- CSV (RFC 4180) ------------------------------------------------------------------------------------------------ */

typedef struct Csv { const char *p, *end, *path; int line; Arena *a; VEC(const char *) field; } Csv;

/* One field; *last: a record ends behind it. */
static int csv_field(Csv *c, bool *last) {
    StrBuf b = {0};
    int line = c->line;
    bool quoted = c->p < c->end && *c->p == '"', open = quoted;
    for (c->p += quoted; c->p < c->end; c->p++) {
        if (open && *c->p == '\n') c->line++;
        if (open && *c->p == '"' && c->p + 1 < c->end && c->p[1] == '"') snU_put(&b, c->p++, 1);
        else if (open && *c->p == '"') open = false;
        else if (open) snU_put(&b, c->p, 1);
        else if (*c->p == ',' || *c->p == '\n' || (*c->p == '\r' && c->p + 1 < c->end && c->p[1] == '\n')) break;
        else if (quoted) { snU_free_buf(&b); return wrong(c->path, c->line, "text behind the closing quote of a field"); }
        else snU_put(&b, c->p, 1);
    }
    const char *text = snU_strdup(c->a, b.s ? b.s : "", b.n);
    bool zero = strlen(text) != b.n;
    snU_free_buf(&b);
    if (open) return wrong(c->path, line, "a quote that is not closed");
    if (zero) return wrong(c->path, line, "a zero byte");
    PUSH(c->a, c->field, text);
    *last = c->p >= c->end || *c->p != ',';
    if (c->p < c->end && *c->p == '\r') c->p++;
    if (c->p < c->end) c->p++;
    return 0;
}

static int csv_record(Csv *c, Questions *qs, const char *subject) {
    Question q = { .path = c->path, .line = c->line, .subject = subject };
    c->field.n = 0;
    for (bool last = false; !last; )
        if (csv_field(c, &last)) return EXIT_FAILED;
    uint32_t n = c->field.n;
    if (n == 1 && !c->field.v[0][0]) return 0;                   /* an empty line */
    if (n < 4 || n > MOST_OPTIONS + 2)
        return wrong(q.path, q.line, "%u columns; wanted are the question, 2 to %d options and the right letter", n, MOST_OPTIONS);
    const char *answer = strip(c->a, c->field.v[n - 1]);
    q.noptions = (int)n - 2;
    q.label = answer[0] >= 'A' && answer[0] <= 'Z' && !answer[1] ? answer[0] - 'A' : -1;
    if (q.label < 0) return wrong(q.path, q.line, "the last column must be the letter of the right option, and is '%.20s'", answer);
    return add_mmlu(qs, q, c->field.v[0], c->field.v + 1);
}

/* "x/high_school_physics_test.csv" -> "high_school_physics" */
static const char *subject_of(Arena *a, const char *path) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t n = strlen(name) - 4;
    static const char *const ends[] = { "_test", "_val", "_dev" };
    for (int i = 0; i < 3; i++) {
        size_t k = strlen(ends[i]);
        if (n > k && !strncmp(name + n - k, ends[i], k)) return snU_strdup(a, name, n - k);
    }
    return snU_strdup(a, name, n);
}

static int read_csv(Questions *qs, const char *path) {
    size_t n = 0;
    char *text = read_text(path, &n);
    if (!text) return cmd_fail("%s: %s", path, strerror(errno));
    Csv c = { text, text + n, path, 1, &qs->arena };
    const char *subject = subject_of(&qs->arena, path);
    int rc = 0;
    for (; c.p < c.end && !rc; c.line++) rc = csv_record(&c, qs, subject);
    free(text);
    return rc;
}

/* -- Files ---------------------------------------------------------------------------------------------------------- */

int questions_read(Questions *qs, const char *path) {
    uint32_t had = qs->q.n;
    size_t n = strlen(path);
    const char *kept = snU_strdup(&qs->arena, path, n);
    int rc = n > 4 && !strcmp(path + n - 4, ".csv") ? read_csv(qs, kept) : json_lines(kept, read_line, qs);
    return rc || qs->q.n > had ? rc : cmd_fail("%s has no questions", path);
}

void questions_free(Questions *qs) {
    snU_free_arena(&qs->arena);
    *qs = (Questions){0};
}

/* -- Shots --------------------------------------------------------------------------------------------------------- */

static bool same_subject(const Question *a, const Question *b) {
    return !a->subject || !b->subject ? a->subject == b->subject : !strcmp(a->subject, b->subject);
}

/* MMLU: the subject's description. Between questions: an empty line. */
static int put_shots(Questions *qs, Question *q, const Questions *from, int64_t shots) {
    StrBuf b = {0};
    int64_t put = 0;
    if (q->subject) {
        snU_puts(&b, "The following are multiple choice questions (with answers) about ");
        for (const char *s = q->subject; *s; s++) snU_put(&b, *s == '_' ? " " : s, 1);
        snU_puts(&b, ".\n\n");
    }
    for (uint32_t i = 0; from && i < from->q.n && put < shots; i++) {
        const Question *s = &from->q.v[i];
        if (!same_subject(s, q) || (!strcmp(s->context, q->context) && !strcmp(s->answer, q->answer))) continue;
        snU_putf(&b, "%s%s%s\n\n", s->context, s->answer, s->suffix ? s->suffix : "");
        put++;
    }
    snU_puts(&b, q->context);
    q->context = snU_strdup(&qs->arena, b.s, b.n);
    snU_free_buf(&b);
    if (put < shots) return wrong(q->path, q->line, "%lld shots are wanted%s%s, there are %lld", (long long)shots, q->subject ? " of " : "",
                                  q->subject ? q->subject : "", (long long)put);
    return 0;
}

int questions_add_shots(Questions *qs, const Questions *from, int64_t shots) {
    int rc = 0;
    for (uint32_t i = 0; i < qs->q.n && !rc; i++) rc = put_shots(qs, &qs->q.v[i], from, shots);
    return rc;
}
