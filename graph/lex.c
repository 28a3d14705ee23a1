/* lex.c: text -> tokens, once per text.

   In:  the bytes of a file or of an expression. Out: an array of tokens that ends in T_END, each with line and byte range.
   Names may contain dots (h.3.attn.wq); "0..n" is an integer, dots, a name. A newline is a token only where it ends a
   statement: not inside ( ) or [ ], not before "=>". "# ..." runs to the end of the line; "@group" and "@offset" are
   notes, any other "@" is the matrix product. */
#include <ctype.h>
#include <errno.h>
#include "graph/parse.h"

enum { MAX_TEXT = 1 << 28, MAX_NESTING = 1024 };

typedef struct Lexer {
    sn_ctx *c;
    Source *src;
    const char *p, *end;
    uint32_t line;
    VEC(Tok) toks;
    char closing[MAX_NESTING];           /* brackets that are open */
    int open;
} Lexer;

static _Noreturn void fail(Lexer *l, const char *what) {
    snU_fail(l->c, SN_PARSE, snU_loc(l->c, l->src->file, l->line, 0, 0), "%s", what);
}

static bool word_start(char ch) { return isalpha((unsigned char)ch) || ch == '_'; }
static bool word_char(char ch) { return isalnum((unsigned char)ch) || ch == '_'; }

static Tok *push(Lexer *l, int kind, const char *start) {
    const char *text = l->src->text;
    PUSH(&l->c->arena, l->toks, ((Tok){ .kind = (uint8_t)kind, .line = l->line,
                                        .pos = (uint32_t)(start - text), .end = (uint32_t)(l->p - text) }));
    return &l->toks.v[l->toks.n - 1];
}

static void lex_number(Lexer *l) {
    const char *s = l->p;
    char *end;
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
        uint64_t v = strtoull(s + 2, &end, 16);
        if (end - s > 18 || v > INT64_MAX) fail(l, "this number is too large");
        if (end == s + 2) fail(l, "a hexadecimal number needs digits");
        l->p = end;
        push(l, T_INT, s)->i = (int64_t)v;
        return;
    }
    const char *p = s;
    bool real = false;
    while (isdigit((unsigned char)*p)) p++;
    if (*p == '.' && isdigit((unsigned char)p[1])) {
        real = true;
        for (p++; isdigit((unsigned char)*p); ) p++;
    }
    if (*p == 'e' || *p == 'E') {
        const char *q = p + 1;
        if (*q == '+' || *q == '-') q++;
        if (isdigit((unsigned char)*q)) {
            real = true;
            for (p = q; isdigit((unsigned char)*p); ) p++;
        }
    }
    if (word_char(*p)) fail(l, "a name cannot start with a digit");
    l->p = p;
    if (real) {
        push(l, T_FLOAT, s)->f = strtod(s, NULL);
        return;
    }
    errno = 0;
    long long v = strtoll(s, NULL, 10);
    if (errno) fail(l, "this number is too large");
    push(l, T_INT, s)->i = v;
}

static void lex_name(Lexer *l) {
    const char *s = l->p;
    while (word_char(*l->p) || (*l->p == '.' && word_char(l->p[1]))) l->p++;
    if (l->p - s > 1000) fail(l, "this name is too long");
    Sym sym = snU_sym(l->c, s, (size_t)(l->p - s));
    push(l, T_NAME, s)->s = sym;
}

static void lex_string(Lexer *l) {
    const char *s = l->p++;
    StrBuf b = {0};
    snU_puts(&b, "");
    while (l->p < l->end && *l->p != '"' && *l->p != '\n') {
        if (*l->p == '\\' && l->p + 1 < l->end && l->p[1] != '\n') {
            l->p++;
            snU_put(&b, *l->p == 'n' ? " " : l->p, 1);
        } else {
            snU_put(&b, l->p, 1);
        }
        l->p++;
    }
    Sym sym = snU_sym(l->c, b.s, b.n);
    snU_free_buf(&b);
    if (l->p >= l->end || *l->p != '"') fail(l, "this string has no closing quote");
    l->p++;
    push(l, T_STRING, s)->s = sym;
}

static bool note_word(const char *p, const char *word) {
    size_t n = strlen(word);
    return !strncmp(p, word, n) && (p[n] == ' ' || p[n] == '\t');
}

/* "@group 12" is a note only when a number follows, so that x @group stays a product. */
static bool lex_note(Lexer *l) {
    const char *s = l->p;
    int word = note_word(s + 1, "group") ? W_group : note_word(s + 1, "offset") ? W_offset : 0;
    if (!word) return false;
    const char *p = s + (word == W_group ? 6 : 7);
    while (*p == ' ' || *p == '\t') p++;
    if (!isdigit((unsigned char)*p)) return false;
    l->p = p;
    push(l, T_NOTE, s)->s = (Sym)word;
    return true;
}

static void open_bracket(Lexer *l, char closing) {
    if (l->open == MAX_NESTING) fail(l, "brackets are nested too deep");
    l->closing[l->open++] = closing;
}

static void close_bracket(Lexer *l, char ch) {
    if (!l->open || l->closing[l->open - 1] != ch) {
        char what[64];
        snprintf(what, sizeof what, "this %c closes nothing that is open", ch);
        fail(l, what);
    }
    l->open--;
}

static void lex_symbol(Lexer *l) {
    static const struct { char text[3]; uint8_t kind; } SYMBOLS[] = {
        { "=>", T_ARROW }, { "==", T_EQ }, { "!=", T_NE }, { "<=", T_LE }, { ">=", T_GE }, { "..", T_DOTDOT },
        { "=", T_ASSIGN }, { "<", T_LT }, { ">", T_GT }, { "(", T_LPAREN }, { ")", T_RPAREN }, { "[", T_LBRACK },
        { "]", T_RBRACK }, { "{", T_LBRACE }, { "}", T_RBRACE }, { ",", T_COMMA }, { ":", T_COLON },
        { "?", T_QUESTION }, { "+", T_PLUS }, { "-", T_MINUS }, { "*", T_STAR }, { "/", T_SLASH },
        { "%", T_PERCENT }, { "@", T_AT }, { ";", T_SEMI },
    };
    const char *s = l->p;
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
        size_t n = strlen(SYMBOLS[i].text);
        if (strncmp(s, SYMBOLS[i].text, n) != 0) continue;
        l->p += n;
        switch (SYMBOLS[i].kind) {
        case T_LPAREN: open_bracket(l, ')'); break;
        case T_LBRACK: open_bracket(l, ']'); break;
        case T_LBRACE: open_bracket(l, '}'); break;
        case T_RPAREN: case T_RBRACK: case T_RBRACE: close_bracket(l, *s); break;
        case T_ARROW:
            if (l->toks.n && l->toks.v[l->toks.n - 1].kind == T_NL) l->toks.n--;
            break;
        default: break;
        }
        push(l, SYMBOLS[i].kind, s);
        return;
    }
    char what[64];
    unsigned char ch = (unsigned char)*s;
    snprintf(what, sizeof what, isprint(ch) ? "unexpected character '%c'" : "unexpected byte 0x%02x", ch);
    fail(l, what);
}

static void lex_newline(Lexer *l) {
    bool inside = l->open && l->closing[l->open - 1] != '}';
    if (!inside && l->toks.n && l->toks.v[l->toks.n - 1].kind != T_NL) {
        const char *s = l->p;
        push(l, T_NL, s);
    }
    l->p++;
    l->line++;
}

static void lex_token(Lexer *l) {
    char ch = *l->p;
    if (ch == '\n') lex_newline(l);
    else if (ch == ' ' || ch == '\t' || ch == '\r') l->p++;
    else if (ch == '#') while (l->p < l->end && *l->p != '\n') l->p++;
    else if (isdigit((unsigned char)ch)) lex_number(l);
    else if (word_start(ch)) lex_name(l);
    else if (ch == '"') lex_string(l);
    else if (ch == '$' && word_start(l->p[1])) {
        const char *s = l->p++;
        while (word_char(*l->p)) l->p++;
        Sym sym = snU_sym(l->c, s + 1, (size_t)(l->p - s - 1));
        push(l, T_DOLLAR, s)->s = sym;
    }
    else if (ch != '@' || !lex_note(l)) lex_symbol(l);
}

Source *snG_lex(sn_ctx *c, Sym file, const char *text, size_t n) {
    Source *src = NEW(&c->arena, Source);
    Lexer l = { .c = c, .src = src, .line = 1 };
    src->file = file;
    if (n > MAX_TEXT) fail(&l, "this file is too large to be a graph");
    src->text = snU_strdup(&c->arena, text, n);
    src->size = n;
    l.p = src->text;
    l.end = src->text + n;
    l.toks.cap = (uint32_t)(n / 3 + 16);
    l.toks.v = NEWN(&c->arena, Tok, l.toks.cap);
    while (l.p < l.end) lex_token(&l);
    if (l.open) {
        char what[64];
        snprintf(what, sizeof what, "the file ends before a closing %c", l.closing[l.open - 1]);
        fail(&l, what);
    }
    push(&l, T_NL, l.p);
    push(&l, T_END, l.p);
    src->toks = l.toks.v;
    src->ntoks = l.toks.n;
    src->next = c->sources;
    c->sources = src;
    return src;
}

const char *snG_tok_name(int kind) {
    static const char *const NAMES[] = {
        "the end of the file", "the end of the line", ";", "a name", "a number", "a number", "a string", "$name", "a note",
        "(", ")", "[", "]", "{", "}", ",", ":", "?", "..", "=", "=>", "+", "-", "*", "/", "%", "@", "==", "!=", "<", "<=",
        ">", ">=",
    };
    return NAMES[kind];
}

void snG_init_words(sn_ctx *c) {
    static const char *const TEXT[] = {
        "",
#define X(w) #w,
        WORDS(X)
#undef X
    };
    for (Sym i = 1; i < W_COUNT; i++) {
        Sym s = snU_symz(c, TEXT[i]);
        SN_ASSERT(s == i, "word %s interned too late", TEXT[i]);
    }
}
