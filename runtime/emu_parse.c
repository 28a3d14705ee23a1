/* emu_parse.c: the text of a PTX module -> functions of statements (emu_parse.h).

   One pass, no tree: a directive declares, everything else is `[@p] mnemonic operands;`, looked up in the instruction table by its mnemonic;
   the row's letters say what every operand has to be. The text is hostile: the first thing that is wrong is kept as one line with
   its place, and from then on the lexer only gives the end, so that every loop ends. */
#include "runtime/emu_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAX_DEPTH = 64, MAX_REGS = 1 << 20, MAX_STMTS = 1 << 22, MAX_OPERANDS = 160, MAX_MNEMONIC = 100 };

typedef enum { T_END, T_NAME, T_NUMBER, T_STRING, T_SIGN } TokenKind;
typedef struct Token { TokenKind kind; const char *s; int n, line; uint8_t number; uint64_t value; } Token;
enum { NUM_INT = 1, NUM_F32, NUM_F64 };

typedef enum { O_REG, O_IMM, O_VAR, O_ADDRESS, O_SINK, O_NAME } OperandKind;
typedef struct Operand {
    uint8_t kind, number;
    bool negated, joined;            /* !p; behind a | */
    uint16_t group;                  /* in the same braces, 0 = none */
    uint32_t reg;                    /* O_REG, O_ADDRESS: REF_NONE = no base */
    int32_t var;                     /* + 1 */
    uint64_t value;                  /* immediate, or offset */
    const char *s;
    int n;
} Operand;

typedef enum { SYM_REG, SYM_VAR } SymbolKind;
typedef struct Symbol { const char *s; int n; uint8_t kind; uint32_t id, count; bool numbered; } Symbol;
typedef struct LabelSlot { const char *s; int n, scope, id, line; bool defined; } LabelSlot;
typedef struct Jump { int stmt, scope; const char *s; int n, line; } Jump;

typedef struct Parser {
    Parsed *p;
    const char *at, *end;
    int line;
    Token t;
    Function *f;
    Symbol *symbol; int nsymbols, capsymbols;
    int scope[MAX_DEPTH], scope_symbols[MAX_DEPTH], depth;
    int *parent; int nscopes, capscopes;         /* of every scope of this function */
    LabelSlot *label; int nlabels, caplabels;
    int *label_hash; int ncap_label;
    Jump *jump; int njumps, capjumps;
    struct { char op[MAX_MNEMONIC]; const Row *row; } memo[1024];
    uint32_t special[SR_COUNT];                  /* registers of this function that hold them */
} Parser;

/* -- Errors and memory ------------------------------------------------------------------------------------------------- */

int snE_fail_line(Parsed *p, int line, const char *fmt, ...)
{
    char what[ERR_TEXT], text[80];
    if (p->failed)
        return ERR_PROGRAM;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    p->failed = true;
    snE_line_text(p->m, line, text, sizeof text);
    return snR_fail(p->err, ERR_PROGRAM, "PTX line %d `%s`: %.140s", line, text, what);
}
/* Always an error code, never 0. */
#define FAIL(P, ...) snE_fail_line((P)->p, (P)->t.line, __VA_ARGS__)

bool snE_grow(void **v, int *cap, size_t size)
{
    int more = *cap ? *cap * 2 : 16;
    void *bigger = more > (1 << 28) ? NULL : realloc(*v, (size_t)more * size);
    if (!bigger)
        return false;
    *v = bigger;
    *cap = more;
    return true;
}
static bool no_memory(Parser *P)
{
    FAIL(P, "out of memory");
    return false;
}

/* Line `line` of the text, trimmed, cut to fit. */
int snE_line_text(const EmuModule *m, int line, char *out, size_t cap)
{
    const char *s = m->text, *end = m->text + m->n;
    for (int k = 1; k < line && s < end; k++) {
        const char *next = memchr(s, '\n', (size_t)(end - s));
        s = next ? next + 1 : end;
    }
    const char *stop = memchr(s, '\n', (size_t)(end - s));
    if (!stop)
        stop = end;
    size_t n = 0;
    bool space = true;
    for (; s < stop && n + 1 < cap; s++) {
        bool blank = *s == ' ' || *s == '\t' || *s == '\r';
        if (!blank || !space)
            out[n++] = blank ? ' ' : *s;
        space = blank;
    }
    while (n && out[n - 1] == ' ')
        n--;
    out[n] = 0;
    if (s < stop && n > 3)
        memcpy(out + n - 3, "...", 3);
    return (int)n;
}

/* -- Tokens ------------------------------------------------------------------------------------------------------------ */

static bool name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%' || c == '.'; }
static bool digit(char c) { return c >= '0' && c <= '9'; }

static void skip_blank(Parser *P)
{
    for (; P->at < P->end; P->at++) {
        char c = *P->at;
        if (c == '\n')
            P->line++;
        else if (c == '/' && P->at + 1 < P->end && P->at[1] == '/') {
            const char *stop = memchr(P->at, '\n', (size_t)(P->end - P->at));
            P->at = (stop ? stop : P->end) - 1;
        } else if (c == '/' && P->at + 1 < P->end && P->at[1] == '*') {
            for (P->at += 2; P->at + 1 < P->end && !(P->at[0] == '*' && P->at[1] == '/'); P->at++)
                P->line += *P->at == '\n';
            P->at += P->at + 1 < P->end;
        } else if (c != ' ' && c != '\t' && c != '\r')
            return;
        if (P->at >= P->end)
            return;
    }
}

static void lex_number(Parser *P)
{
    char buf[64];
    int n = 0;
    Token *t = &P->t;
    while (P->at + n < P->end && n < 63 && (name_start(P->at[n]) || digit(P->at[n]) ||
           ((P->at[n] == '-' || P->at[n] == '+') && n && (P->at[n - 1] | 32) == 'e' && (P->at[0] != '0' || (P->at[1] | 32) != 'f') && (P->at[1] | 32) != 'd' && (P->at[1] | 32) != 'x')))
        n++;
    memcpy(buf, P->at, (size_t)n);
    buf[n] = 0;
    t->n = n;
    P->at += n;
    char *stop = buf;
    if (buf[0] == '0' && (buf[1] | 32) == 'f' && n == 10)
        t->number = NUM_F32, t->value = strtoul(buf + 2, &stop, 16);
    else if (buf[0] == '0' && (buf[1] | 32) == 'd' && n == 18)
        t->number = NUM_F64, t->value = strtoull(buf + 2, &stop, 16);
    else if (strpbrk(buf, ".") || (strpbrk(buf, "eE") && (buf[1] | 32) != 'x'))
        t->number = NUM_F64, t->value = snE_bits64(strtod(buf, &stop));
    else {
        t->number = NUM_INT;
        bool binary = buf[0] == '0' && (buf[1] | 32) == 'b';
        t->value = strtoull(buf + 2 * binary, &stop, binary ? 2 : 0);
        if (*stop == 'U' || *stop == 'u')
            stop++;
    }
    if (*stop || stop == buf)
        FAIL(P, "'%.40s' is no number", buf);
}

static void next(Parser *P)
{
    Token *t = &P->t;
    skip_blank(P);
    *t = (Token){ T_END, P->at, 0, P->line, 0, 0 };
    if (P->p->failed || P->at >= P->end)
        return;
    char c = *P->at;
    if (name_start(c)) {
        const char *s = P->at + 1;
        while (s < P->end && (name_start(*s) || digit(*s) || (*s == ':' && s + 1 < P->end && s[1] == ':') || (*s == ':' && s[-1] == ':')))
            s++;
        t->kind = T_NAME;
        t->n = (int)(s - P->at);
        P->at = s;
    } else if (digit(c)) {
        t->kind = T_NUMBER;
        lex_number(P);
    } else if (c == '"') {
        const char *s = P->at + 1;
        while (s < P->end && *s != '"' && *s != '\n')
            s++;
        t->kind = T_STRING;
        t->s = P->at + 1;
        t->n = (int)(s - t->s);
        P->at = s < P->end ? s + 1 : s;
    } else {
        t->kind = T_SIGN;
        t->n = 1;
        P->at++;
    }
    if (P->p->failed)
        t->kind = T_END;
}

static bool is(const Parser *P, const char *s) { return (P->t.kind == T_SIGN || P->t.kind == T_NAME) && (size_t)P->t.n == strlen(s) && !memcmp(P->t.s, s, (size_t)P->t.n); }
static bool accept(Parser *P, const char *s)
{
    if (!is(P, s))
        return false;
    next(P);
    return true;
}
static bool expect(Parser *P, const char *s)
{
    if (accept(P, s))
        return true;
    if (P->t.kind == T_END)
        FAIL(P, "`%s` expected before the text ends", s);
    else
        FAIL(P, "`%s` expected, not `%.*s`", s, P->t.n > 40 ? 40 : P->t.n, P->t.s);
    return false;
}
static void skip_line(Parser *P)
{
    const char *stop = memchr(P->at, '\n', (size_t)(P->end - P->at));
    P->at = stop ? stop : P->end;
    next(P);
}

static uint64_t number(Parser *P, const char *what, uint64_t most)
{
    uint64_t v = P->t.value;
    if (P->t.kind != T_NUMBER || P->t.number != NUM_INT)
        FAIL(P, "%s: a number expected", what);
    else if (v > most)
        FAIL(P, "%s: %llu is more than %llu", what, (unsigned long long)v, (unsigned long long)most);
    next(P);
    return P->p->failed ? 0 : v;
}

/* -- Mnemonics --------------------------------------------------------------------------------------------------------- */

/* pattern: literal, and (a|b|c) with possibly empty alternatives */
static bool matches(const char *pattern, const char *s)
{
    for (; *pattern && *pattern != '('; pattern++, s++)
        if (*pattern != *s)
            return false;
    if (!*pattern)
        return !*s;
    const char *close = strchr(pattern, ')'), *part = pattern + 1;
    for (;;) {
        size_t n = strcspn(part, "|)");
        if (!strncmp(part, s, n) && matches(close + 1, s + n))
            return true;
        if (part + n == close)
            return false;
        part += n + 1;
    }
}

bool snE_has(const char *op, const char *part)
{
    size_t n = strlen(part);
    for (const char *s = strstr(op, part); s; s = strstr(s + 1, part))
        if (s[n] == 0 || s[n] == '.')
            return true;
    return false;
}

EmuType snE_type(const char *op, int from_end)
{
    static const struct { const char *name; EmuType t; } types[] = {
        { "pred", { 'p', 1, false } }, { "b8", { 'b', 8, false } }, { "u8", { 'u', 8, false } }, { "s8", { 's', 8, false } },
        { "b16", { 'b', 16, false } }, { "u16", { 'u', 16, false } }, { "s16", { 's', 16, false } }, { "f16", { 'f', 16, false } },
        { "bf16", { 'h', 16, false } }, { "b32", { 'b', 32, false } }, { "u32", { 'u', 32, false } }, { "s32", { 's', 32, false } },
        { "f32", { 'f', 32, false } }, { "tf32", { 't', 32, false } }, { "f16x2", { 'f', 32, true } }, { "bf16x2", { 'h', 32, true } },
        { "b64", { 'b', 64, false } }, { "u64", { 'u', 64, false } }, { "s64", { 's', 64, false } }, { "f64", { 'f', 64, false } } };
    const char *end = op + strlen(op);
    while (end > op) {
        const char *dot = end - 1;
        while (dot > op && *dot != '.')
            dot--;
        const char *part = *dot == '.' ? dot + 1 : dot;
        for (unsigned k = 0; k < sizeof types / sizeof *types; k++)
            if (strlen(types[k].name) == (size_t)(end - part) && !memcmp(types[k].name, part, (size_t)(end - part)) && from_end-- == 0)
                return types[k].t;
        end = dot;
    }
    return (EmuType){ 0, 0, false };
}

static const Row *find_row(Parser *P, const char *op)
{
    unsigned h = (unsigned)XXH3_64bits(op, strlen(op)) & 1023;
    if (P->memo[h].row && !strcmp(P->memo[h].op, op))
        return P->memo[h].row;
    const struct { const Row *row; int n; } tables[] = { { snE_lane_rows, snE_nlane_rows }, { snE_memory_rows, snE_nmemory_rows },
                                                         { snE_warp_rows, snE_nwarp_rows }, { snE_other_rows, snE_nother_rows } };
    const Row *found = NULL;
    for (int t = 0; t < 4; t++)
        for (int k = 0; k < tables[t].n && !found; k++) {
            const char *pattern = tables[t].row[k].pattern;
            if ((pattern[0] == op[0] || pattern[0] == '(') && matches(pattern, op))
                found = &tables[t].row[k];
        }
    if (found) {
        strcpy(P->memo[h].op, op);
        P->memo[h].row = found;
    }
    return found;
}

/* -- Names ------------------------------------------------------------------------------------------------------------- */

static Symbol *find_symbol(Parser *P, const char *s, int n, uint32_t *id)
{
    int stem = n;
    while (stem > 0 && digit(s[stem - 1]))
        stem--;
    uint64_t index = 0;
    for (int k = stem; k < n && index < MAX_REGS; k++)
        index = index * 10 + (uint64_t)(s[k] - '0');
    for (int k = P->nsymbols - 1; k >= 0; k--) {
        Symbol *y = &P->symbol[k];
        if (!y->numbered && y->n == n && !memcmp(y->s, s, (size_t)n)) {
            *id = y->id;
            return y;
        }
        if (y->numbered && y->n == stem && stem < n && index < y->count && !memcmp(y->s, s, (size_t)stem)) {
            *id = y->id + (uint32_t)index;
            return y;
        }
    }
    return NULL;
}

static void add_symbol(Parser *P, Symbol y)
{
    if (!GROW(P->symbol, P->nsymbols, P->capsymbols)) {
        no_memory(P);
        return;
    }
    P->symbol[P->nsymbols++] = y;
}

static uint32_t add_reg(Parser *P, Virtual v)
{
    Function *f = P->f;
    if (f->nreg >= MAX_REGS)
        FAIL(P, "more than %d registers", MAX_REGS);
    else if (!GROW(f->reg, f->nreg, f->capreg))
        no_memory(P);
    else {
        f->reg[f->nreg] = v;
        return (uint32_t)f->nreg++;
    }
    return 0;
}

static void open_scope(Parser *P)
{
    if (P->depth >= MAX_DEPTH - 1) {
        FAIL(P, "more than %d nested braces", MAX_DEPTH);
        return;
    }
    if (!GROW(P->parent, P->nscopes, P->capscopes)) {
        no_memory(P);
        return;
    }
    P->parent[P->nscopes] = P->depth >= 0 ? P->scope[P->depth] : -1;
    P->depth++;
    P->scope[P->depth] = P->nscopes++;
    P->scope_symbols[P->depth] = P->nsymbols;
}
static void close_scope(Parser *P) { P->nsymbols = P->scope_symbols[P->depth--]; }

/* -- Labels: resolved when the function ends; a name is looked up in its scope, then outwards -------------------------- */

static unsigned label_key(const char *s, int n, int scope) { return (unsigned)XXH3_64bits_withSeed(s, (size_t)n, (uint64_t)scope); }

static int find_label(const Parser *P, const char *s, int n, int scope)
{
    if (!P->ncap_label)
        return -1;
    for (unsigned h = label_key(s, n, scope);; h++) {
        int k = P->label_hash[h & (unsigned)(P->ncap_label - 1)] - 1;
        if (k < 0)
            return -1;
        const LabelSlot *l = &P->label[k];
        if (l->scope == scope && l->n == n && !memcmp(l->s, s, (size_t)n))
            return k;
    }
}

static void hash_label(Parser *P, int k)
{
    unsigned h = label_key(P->label[k].s, P->label[k].n, P->label[k].scope);
    while (P->label_hash[h & (unsigned)(P->ncap_label - 1)])
        h++;
    P->label_hash[h & (unsigned)(P->ncap_label - 1)] = k + 1;
}

static int add_label(Parser *P, const char *s, int n)
{
    int scope = P->scope[P->depth];
    if (find_label(P, s, n, scope) >= 0)
        FAIL(P, "the label `%.*s` is here twice", n > 60 ? 60 : n, s);
    if (!GROW(P->label, P->nlabels, P->caplabels))
        no_memory(P);
    if (P->p->failed)
        return 0;
    P->label[P->nlabels] = (LabelSlot){ s, n, scope, P->nlabels, P->t.line, true };
    P->nlabels++;
    if (P->nlabels * 2 > P->ncap_label) {
        int cap = P->ncap_label ? P->ncap_label * 4 : 64;
        int *table = calloc((size_t)cap, sizeof *table);
        if (!table) {
            no_memory(P);
            return 0;
        }
        free(P->label_hash);
        P->label_hash = table;
        P->ncap_label = cap;
        for (int k = 0; k < P->nlabels; k++)
            hash_label(P, k);
    } else
        hash_label(P, P->nlabels - 1);
    return P->nlabels - 1;
}

static void resolve_jumps(Parser *P)
{
    for (int j = 0; j < P->njumps && !P->p->failed; j++) {
        int k = -1;
        for (int scope = P->jump[j].scope; scope >= 0 && k < 0; scope = P->parent[scope])
            k = find_label(P, P->jump[j].s, P->jump[j].n, scope);
        if (k < 0)
            snE_fail_line(P->p, P->jump[j].line, "there is no label `%.*s`", P->jump[j].n > 60 ? 60 : P->jump[j].n, P->jump[j].s);
        else
            P->f->stmt[P->jump[j].stmt].to = k;
    }
}

/* -- Special registers ------------------------------------------------------------------------------------------------- */

static uint32_t special_reg(Parser *P, const char *s, int n)
{
    static const struct { const char *name; int what; } table[] = {
        { "%tid.x", SR_TID }, { "%tid.y", SR_TID + 1 }, { "%tid.z", SR_TID + 2 }, { "%ntid.x", SR_NTID }, { "%ntid.y", SR_NTID + 1 },
        { "%ntid.z", SR_NTID + 2 }, { "%ctaid.x", SR_CTAID }, { "%ctaid.y", SR_CTAID + 1 }, { "%ctaid.z", SR_CTAID + 2 },
        { "%nctaid.x", SR_NCTAID }, { "%nctaid.y", SR_NCTAID + 1 }, { "%nctaid.z", SR_NCTAID + 2 }, { "%laneid", SR_LANEID },
        { "%warpid", SR_WARPID }, { "%nwarpid", SR_NWARPID }, { "%lanemask_eq", SR_LANEMASK }, { "%lanemask_lt", SR_LANEMASK + 1 },
        { "%lanemask_le", SR_LANEMASK + 2 }, { "%lanemask_gt", SR_LANEMASK + 3 }, { "%lanemask_ge", SR_LANEMASK + 4 },
        { "%cluster_ctaid.x", SR_ZERO }, { "%cluster_ctarank", SR_ZERO }, { "%cluster_nctarank", SR_ONE }, { "%cluster_nctaid.x", SR_ONE },
        { "%smid", SR_ZERO }, { "%nsmid", SR_ONE }, { "%dynamic_smem_size", SR_DYNSMEM }, { "%total_smem_size", SR_TOTALSMEM } };
    for (unsigned k = 0; k < sizeof table / sizeof *table; k++)
        if (strlen(table[k].name) == (size_t)n && !memcmp(table[k].name, s, (size_t)n)) {
            if (P->special[table[k].what] == REF_NONE)
                P->special[table[k].what] = add_reg(P, (Virtual){ 32, (uint8_t)table[k].what, s, n, -1 });
            return P->special[table[k].what];
        }
    return REF_NONE;
}

/* -- Operands ---------------------------------------------------------------------------------------------------------- */

/* A number with its sign in front; keeps the kind. */
static bool parse_number(Parser *P, Operand *o)
{
    bool minus = false;
    while (is(P, "-") || is(P, "+")) {
        minus ^= is(P, "-");
        next(P);
    }
    if (P->t.kind != T_NUMBER) {
        FAIL(P, "a number expected");
        return false;
    }
    o->kind = O_IMM;
    o->number = P->t.number;
    o->value = P->t.value;
    if (minus)
        o->value = o->number == NUM_INT ? -o->value : o->number == NUM_F32 ? o->value ^ 0x80000000 : o->value ^ 1ull << 63;
    next(P);
    return true;
}

/* A register, a variable, a special register or a name of something else. */
static void parse_name(Parser *P, Operand *o)
{
    uint32_t id = 0;
    Symbol *y = find_symbol(P, P->t.s, P->t.n, &id);
    o->s = P->t.s;
    o->n = P->t.n;
    if (P->t.n == 1 && P->t.s[0] == '_')
        o->kind = O_SINK;
    else if (P->t.n == 7 && !memcmp(P->t.s, "WARP_SZ", 7))
        o->kind = O_IMM, o->number = NUM_INT, o->value = LANES;
    else if (y && y->kind == SYM_REG)
        o->kind = O_REG, o->reg = id;
    else if (y)
        o->kind = O_VAR, o->var = (int32_t)id + 1;
    else if (P->t.s[0] == '%') {
        o->kind = O_REG;
        o->reg = special_reg(P, P->t.s, P->t.n);
        if (o->reg == REF_NONE)
            FAIL(P, "`%.*s` is not declared, and no special register that is known here", P->t.n > 40 ? 40 : P->t.n, P->t.s);
    } else
        o->kind = O_NAME;
    next(P);
    if (o->kind == O_VAR && (is(P, "+") || is(P, "-"))) {
        Operand offset;
        if (parse_number(P, &offset))
            o->value = offset.value;
    }
}

static void parse_address(Parser *P, Operand *o)
{
    Operand base = { .reg = REF_NONE };
    *o = (Operand){ .kind = O_ADDRESS, .reg = REF_NONE, .group = o->group };
    if (P->t.kind == T_NAME) {
        parse_name(P, &base);
        if (base.kind == O_REG)
            o->reg = base.reg;
        else if (base.kind == O_VAR)
            o->var = base.var, o->value = base.value;
        else
            FAIL(P, "`%.*s` is not declared", base.n > 40 ? 40 : base.n, base.s);
    } else if (P->t.kind == T_NUMBER)
        parse_number(P, o), o->kind = O_ADDRESS;
    if (is(P, "+") || is(P, "-")) {
        Operand offset = {0};
        if (parse_number(P, &offset)) {
            if (offset.number != NUM_INT)
                FAIL(P, "an offset is an integer");
            o->value += offset.value;
        }
    }
    expect(P, "]");
}

static void parse_operand(Parser *P, Operand *o, int n, int group)
{
    *o = (Operand){ .reg = REF_NONE, .group = (uint16_t)group };
    if (accept(P, "!"))
        o->negated = true;
    if (accept(P, "["))
        parse_address(P, o);
    else if (P->t.kind == T_NAME)
        parse_name(P, o);
    else
        parse_number(P, o);
    (void)n;
}

/* Operands up to `;`, flattened. */
static int parse_operands(Parser *P, Operand *o)
{
    int n = 0, group = 0;
    while (!is(P, ";") && P->t.kind != T_END) {
        if (n >= MAX_OPERANDS - 1) {
            FAIL(P, "too many operands");
            return n;
        }
        if (accept(P, "{")) {
            for (group++; !is(P, "}") && P->t.kind != T_END && n < MAX_OPERANDS - 1; n++) {
                parse_operand(P, &o[n], n, group);
                if (!is(P, "}"))
                    expect(P, ",");
            }
            expect(P, "}");
        } else {
            parse_operand(P, &o[n], n, 0);
            n++;
            if (accept(P, "|")) {
                parse_operand(P, &o[n], n, 0);
                o[n++].joined = true;
            }
        }
        if (!is(P, ";") && !expect(P, ","))
            return n;
    }
    expect(P, ";");
    return n;
}

/* -- Statements: operands against the row's letters -------------------------------------------------------------------- */

typedef struct Fitting {
    Parser *P;
    Stmt *s;
    const char *op;
    uint32_t ref[MAX_REFS];
    uint8_t bits[MAX_REFS];
    int nref, naddresses;
} Fitting;

static void push_ref(Fitting *t, uint32_t ref)
{
    if (t->nref >= MAX_REFS)
        FAIL(t->P, "too many operands");
    else {
        t->bits[t->nref] = ref == REF_NONE || ref & REF_CONST ? 0 : t->P->f->reg[ref & REF_ID].bits;
        t->ref[t->nref++] = ref;
    }
}

static uint32_t constant(Fitting *t, uint64_t value, int bits, int32_t var)
{
    uint32_t ref = snE_constant(t->P->f, value, bits, var, false);
    if (ref == REF_NONE)
        no_memory(t->P);
    return ref;
}

/* The bits of an immediate as this type: floats from 0f, 0d or decimals, integers wrapped. */
static bool immediate_bits(Fitting *t, const Operand *o, char kind, int bits, uint64_t *out)
{
    uint64_t mask = bits > 63 ? ~0ull : (1ull << bits) - 1;
    if (kind != 'f') {
        if (o->number != NUM_INT && !(o->number == NUM_F32 && bits == 32) && !(o->number == NUM_F64 && bits == 64)) {
            FAIL(t->P, "an integer expected, not a float");
            return false;
        }
        *out = bits == 1 ? (o->value ? 1 : 0) : o->value & mask;
        return true;
    }
    if (bits == 16) {
        *out = o->value & mask;                  /* 0x3c00 and the like: bits */
        return o->number == NUM_INT || FAIL(t->P, "a 16-bit float is written as its bits in hexadecimal") == 0;
    }
    double v = o->number == NUM_F32 ? snE_float((uint32_t)o->value) : o->number == NUM_F64 ? snE_double(o->value) : (double)(int64_t)o->value;
    if (bits == 32)
        *out = o->number == NUM_F32 ? o->value : snE_bits((float)v);
    else
        *out = o->number == NUM_F64 ? o->value : snE_bits64(v);
    return true;
}

static bool fit_bits(int have, int want, bool at_least) { return at_least ? have >= want && have != 1 : have == want; }

/* One operand. kind: f for float immediates, p predicate, else integer. */
static void fit(Fitting *t, const Operand *o, bool written, char kind, int bits, bool at_least)
{
    Function *f = t->P->f;
    if (o->joined)
        FAIL(t->P, "%.40s has no second result", t->op);
    if (o->kind == O_SINK && written) {
        push_ref(t, add_reg(t->P, (Virtual){ (uint8_t)(bits == 8 ? 16 : bits), 0, "_", 1, -1 }) | REF_DEF);
        return;
    }
    if (o->kind == O_REG) {
        int have = f->reg[o->reg].bits;
        if (!fit_bits(have, bits == 8 ? 16 : bits, at_least))
            FAIL(t->P, "operand %d, `%.*s`, has %d bits, %.40s wants %d", t->nref + 1, o->n > 30 ? 30 : o->n, o->s, have, t->op, bits);
        if (written && f->reg[o->reg].special)
            FAIL(t->P, "a special register cannot be written");
        if (o->negated && kind != 'p')
            FAIL(t->P, "only predicates can be negated");
        push_ref(t, o->reg | (written ? REF_DEF : 0));
        if (o->negated)
            FAIL(t->P, "a negated predicate cannot stand here");
        return;
    }
    if (written)
        FAIL(t->P, "operand %d is written and must be a register", t->nref + 1);
    else if (o->kind == O_IMM) {
        uint64_t v = 0;
        if (immediate_bits(t, o, kind, bits == 8 ? 16 : bits, &v))
            push_ref(t, constant(t, v, bits == 8 ? 16 : bits, 0));
    } else if (o->kind == O_VAR && bits >= 32)
        push_ref(t, constant(t, o->value, bits, o->var));
    else if (o->kind == O_NAME)
        FAIL(t->P, "`%.*s` is not declared", o->n > 40 ? 40 : o->n, o->s);
    else
        FAIL(t->P, "operand %d cannot be an address", t->nref + 1);
}

static void fit_address(Fitting *t, const Operand *o)
{
    int k = t->naddresses++;
    if (o->kind != O_ADDRESS || k > 1) {
        FAIL(t->P, "operand %d must be an address in [ ]", t->nref + 1);
        return;
    }
    t->s->var[k] = o->var;
    *(k ? &t->s->ins.imm2 : &t->s->ins.imm) = (int64_t)o->value;
    if (o->reg == REF_NONE)
        push_ref(t, constant(t, 0, 64, 0));
    else {
        int bits = t->P->f->reg[o->reg].bits;
        if (bits != 32 && bits != 64)
            FAIL(t->P, "an address has 32 or 64 bits");
        if (bits == 32)
            t->s->ins.space |= k ? 0x40 : 0x80;
        push_ref(t, o->reg);
    }
}

static void fit_letter(Fitting *t, const Operand *o, char c)
{
    EmuType type = snE_type(t->op, 0);
    bool written = c >= 'A' && c <= 'Z';
    switch (c) {
    case 'P': case 'p': fit(t, o, written, 'p', 1, false); break;
    case 'H': case 'h': fit(t, o, written, 'i', 16, false); break;
    case 'W': case 'w': fit(t, o, written, 'i', 32, false); break;
    case 'Q': case 'q': fit(t, o, written, 'i', 64, false); break;
    case 'e': fit(t, o, false, 'f', 16, false); break;
    case 'f': fit(t, o, false, 'f', 32, false); break;
    case 'g': fit(t, o, false, 'f', 64, false); break;
    case 'T': case 't': fit(t, o, written, type.kind == 'p' ? 'p' : (type.kind == 'f' || type.kind == 'h') && !type.twice ? 'f' : 'i', type.bits, false); break;
    case 'U': case 'u': {
        EmuType before = snE_type(t->op, 1);
        fit(t, o, written, before.kind == 'f' || before.kind == 'h' ? 'f' : 'i', before.bits, true);
        break;
    }
    case 'X': case 'x': fit(t, o, written, type.kind == 'f' || type.kind == 'h' ? 'f' : 'i', type.bits, true); break;
    case '[': fit_address(t, o); break;
    case 'i':
        if (o->kind != O_IMM || o->number != NUM_INT)
            FAIL(t->P, "operand %d must be an integer constant", t->nref + 1);
        else if (o->value > 255)
            FAIL(t->P, "operand %d is at most 255", t->nref + 1);
        t->s->ins.bytes = (uint8_t)o->value;
        break;
    default: FAIL(t->P, "the row of %.40s is wrong", t->op);
    }
}

static int group_size(const Operand *o, int n)
{
    int k = 0;
    while (k < n && o[k].group == o[0].group)
        k++;
    return n && o[0].group ? k : n ? 1 : 0;
}

/* `n` operands of letter c in one pair of braces. */
static int fit_vector(Fitting *t, const Operand *o, int n, int want, char c)
{
    int have = group_size(o, n);
    bool braces = n && o[0].group;
    if (have != want || (want > 1 && !braces)) {
        FAIL(t->P, "operand %d of %.40s: %d in braces expected, not %d", t->nref + 1, t->op, want, have);
        return n;
    }
    for (int k = 0; k < want && !t->P->p->failed; k++)
        fit_letter(t, &o[k], c);
    return want;
}

/* A register cut into equal parts, mov.b32 {lo, hi}, r and back. */
static int fit_parts(Fitting *t, const Operand *o, int n, bool written)
{
    int count = group_size(o, n), bits = snE_type(t->op, 0).bits;
    if (!n || !o[0].group || (count != 2 && count != 4) || bits / count < 16) {
        FAIL(t->P, "%.40s cannot have %d parts", t->op, count);
        return n;
    }
    t->s->ins.count = (uint8_t)count;
    for (int k = 0; k < count && !t->P->p->failed; k++)
        fit(t, &o[k], written, 'i', bits / count, false);
    return count;
}

static void fit_all(Fitting *t, const char *letters, const Operand *o, int n)
{
    int k = 0;
    bool may_end = false;
    for (const char *c = letters; *c && !t->P->p->failed; c++) {
        if (*c == '~') {
            may_end = true;
            continue;
        }
        if (*c == '-' || (*c == '|' && (k >= n || !o[k].joined))) {
            push_ref(t, REF_NONE);
            c += *c == '|';
            continue;
        }
        if (*c == '|') {
            Operand second = o[k++];
            second.joined = false;
            fit_letter(t, &second, *++c);
            continue;
        }
        if (k >= n) {
            if (!may_end)
                FAIL(t->P, "%.40s has %d operands, more are expected", t->op, n);
            else if (*c != 'i')
                push_ref(t, REF_NONE);
            continue;
        }
        if (*c >= '1' && *c <= '9') {
            int want = (int)strtol(c, (char **)&c, 10);
            k += fit_vector(t, o + k, n - k, want, *c);
        } else if (*c == '*') {
            int want = snE_has(t->op, ".v2") || snE_has(t->op, ".x2") ? 2 : snE_has(t->op, ".v4") || snE_has(t->op, ".x4") ? 4 : snE_has(t->op, ".v8") ? 8 : 1;
            t->s->ins.count = (uint8_t)want;
            k += fit_vector(t, o + k, n - k, want, *++c);
        } else if (*c == '<' || *c == '>')
            k += fit_parts(t, o + k, n - k, *c == '<');
        else if (o[k].group && *c != '[') {
            FAIL(t->P, "operand %d of %.40s cannot be in braces", t->nref + 1, t->op);
        } else
            fit_letter(t, &o[k++], *c);
    }
    if (k < n && !t->P->p->failed)
        FAIL(t->P, "%.40s has %d operands, at most %d are expected", t->op, n, k);
}

static Stmt *add_stmt(Parser *P, Stmt s)
{
    Function *f = P->f;
    if (f->nstmt >= MAX_STMTS)
        FAIL(P, "more than %d instructions", MAX_STMTS);
    else if (!GROW(f->stmt, f->nstmt, f->capstmt))
        no_memory(P);
    if (P->p->failed)
        return NULL;
    f->stmt[f->nstmt] = s;
    return &f->stmt[f->nstmt++];
}

static bool keep_refs(Parser *P, Stmt *s, const uint32_t *ref, int n)
{
    Function *f = P->f;
    s->refs = (uint32_t)f->nref;
    s->nrefs = (uint16_t)n;
    for (int k = 0; k < n; k++) {
        if (!GROW(f->ref, f->nref, f->capref))
            return no_memory(P);
        f->ref[f->nref++] = ref[k];
    }
    return true;
}

/* A predicate that is read negated becomes one of its own, by `not` in front. */
static void unfold_negations(Parser *P, Stmt *model, Operand *o, int n)
{
    for (int k = 0; k < n && !P->p->failed; k++) {
        if (o[k].kind != O_REG || !o[k].negated || P->f->reg[o[k].reg].bits != 1)
            continue;
        uint32_t ref[2] = { add_reg(P, (Virtual){ 1, 0, o[k].s, o[k].n, -1 }) | REF_DEF, o[k].reg };
        Stmt s = { .kind = S_INS, .guard = REF_NONE };
        const Row *row = find_row(P, "not.pred");
        s.ins.run = row->run;
        s.ins.line = model->ins.line;
        if (keep_refs(P, &s, ref, 2))
            add_stmt(P, s);
        o[k].reg = ref[0] & ~REF_DEF;
        o[k].negated = false;
    }
}

static void fit_statement(Parser *P, Stmt *s, const char *mnemonic, Operand *o, int n)
{
    char op[2 * MAX_MNEMONIC];
    bool parts = !strncmp(mnemonic, "mov.b", 5) && n > 1 && (o[0].group || o[n - 1].group);
    snprintf(op, sizeof op, "%s%s", parts ? o[0].group ? "mov.parts" : "mov.whole" : "", mnemonic + 3 * parts);
    const Row *row = P->p->failed || strlen(op) >= MAX_MNEMONIC ? NULL : find_row(P, op);
    if (!row) {
        FAIL(P, "the emulator does not know the instruction %.60s", mnemonic);
        return;
    }
    Fitting t = { .P = P, .s = s, .op = op };
    unfold_negations(P, s, o, n);
    fit_all(&t, row->operands, o, n);
    if (P->p->failed)
        return;
    s->kind = S_INS;
    s->ins.run = row->lane ? snE_lane_runs()[row->lane] : row->run;
    for (int k = 0; k < t.nref && k < 6; k++)
        s->ins.r[k] = t.ref[k];
    Decoding d = { .op = op, .ins = &s->ins, .nrefs = t.nref, .bits = t.bits };
    if (row->decode)
        row->decode(&d);
    if (d.wrong)
        FAIL(P, "%s", d.wrong);
    else if (keep_refs(P, s, t.ref, t.nref))
        add_stmt(P, *s);
}

/* call (result), function, (arguments); all of them are .param variables of the caller */
static void parse_call(Parser *P, Stmt *s)
{
    uint32_t ref[MAX_REFS];
    int n = 1;
    ref[0] = REF_NONE;
    s->kind = S_CALL;
    s->to = -1;
    for (int part = 0; P->t.kind != T_END && !is(P, ";"); part++) {
        bool list = accept(P, "("), name = !list && P->t.kind == T_NAME;
        for (int k = 0; list && !is(P, ")") && P->t.kind != T_END; k++) {
            Operand o = {0};
            if (P->t.kind == T_NAME)
                parse_name(P, &o);
            if (o.kind != O_VAR || !o.var || n >= MAX_REFS) {
                FAIL(P, "what a call passes are .param variables, at most %d", MAX_REFS - 1);
                return;
            }
            if (part == 0 && s->to < 0 && k == 0)
                ref[0] = (uint32_t)o.var - 1;
            else
                ref[n++] = (uint32_t)o.var - 1;
            if (!is(P, ")") && !expect(P, ","))
                return;
        }
        if (list && !expect(P, ")"))
            return;
        if (name) {
            for (int k = 0; k < P->p->nfunctions; k++)
                if (!P->p->function[k].is_entry && P->p->function[k].len == P->t.n && !memcmp(P->p->function[k].name, P->t.s, (size_t)P->t.n))
                    s->to = k;
            if (s->to < 0)
                FAIL(P, "there is no function `%.*s`", P->t.n > 60 ? 60 : P->t.n, P->t.s);
            next(P);
        } else if (!list)
            FAIL(P, "a function expected");
        if (!is(P, ";") && !expect(P, ","))
            return;
    }
    if (s->to < 0)
        FAIL(P, "a call needs a function");
    else if (expect(P, ";") && keep_refs(P, s, ref, n))
        add_stmt(P, *s);
}

static void parse_branch(Parser *P, Stmt *s)
{
    if (P->t.kind != T_NAME) {
        FAIL(P, "a label expected");
        return;
    }
    s->kind = S_BRANCH;
    if (!GROW(P->jump, P->njumps, P->capjumps)) {
        no_memory(P);
        return;
    }
    P->jump[P->njumps++] = (Jump){ P->f->nstmt, P->scope[P->depth], P->t.s, P->t.n, P->t.line };
    next(P);
    if (expect(P, ";"))
        add_stmt(P, *s);
}

static void parse_instruction(Parser *P, Stmt *s)
{
    char op[MAX_MNEMONIC];
    int line = P->t.line;
    if (P->t.n >= MAX_MNEMONIC) {
        FAIL(P, "unknown instruction");
        return;
    }
    memcpy(op, P->t.s, (size_t)P->t.n);
    op[P->t.n] = 0;
    s->ins.line = line;
    next(P);
    if (!strcmp(op, "bra") || !strcmp(op, "bra.uni")) {
        parse_branch(P, s);
        return;
    }
    if (!strcmp(op, "ret") || !strcmp(op, "exit") || !strcmp(op, "ret.uni")) {
        s->kind = S_EXIT;
        s->to = op[0] == 'r';
        if (expect(P, ";"))
            add_stmt(P, *s);
        return;
    }
    if (!strcmp(op, "call") || !strcmp(op, "call.uni")) {
        parse_call(P, s);
        return;
    }
    Operand o[MAX_OPERANDS];
    int n = parse_operands(P, o), after = P->t.line;
    P->t.line = line;                            /* what is wrong from here on is wrong in this line */
    fit_statement(P, s, op, o, n);
    P->t.line = after;
}

/* -- Declarations ------------------------------------------------------------------------------------------------------ */

/* .b32 and the like: bytes of an element; 0 and an error */
static int element_bytes(Parser *P, int *bits)
{
    static const struct { const char *name; int bits; } types[] = {
        { ".pred", 1 }, { ".b8", 8 }, { ".u8", 8 }, { ".s8", 8 }, { ".b16", 16 }, { ".u16", 16 }, { ".s16", 16 }, { ".f16", 16 }, { ".bf16", 16 },
        { ".b32", 32 }, { ".u32", 32 }, { ".s32", 32 }, { ".f32", 32 }, { ".f16x2", 32 }, { ".bf16x2", 32 }, { ".b64", 64 }, { ".u64", 64 },
        { ".s64", 64 }, { ".f64", 64 } };
    for (unsigned k = 0; k < sizeof types / sizeof *types; k++)
        if (accept(P, types[k].name)) {
            *bits = types[k].bits;
            return types[k].bits / 8;
        }
    FAIL(P, "a type expected (.b32 or the like), not `%.*s`", P->t.n > 40 ? 40 : P->t.n, P->t.s);
    *bits = 32;
    return 4;
}

static void parse_registers(Parser *P)
{
    int bits;
    element_bytes(P, &bits);
    do {
        if (P->t.kind != T_NAME) {
            FAIL(P, "the name of a register expected");
            return;
        }
        Symbol y = { P->t.s, P->t.n, SYM_REG, (uint32_t)P->f->nreg, 1, false };
        next(P);
        if (accept(P, "<")) {
            y.numbered = true;
            y.count = (uint32_t)number(P, "registers", MAX_REGS);
            expect(P, ">");
        }
        for (uint32_t k = 0; k < y.count && !P->p->failed; k++)
            add_reg(P, (Virtual){ (uint8_t)(bits == 8 ? 16 : bits), 0, y.s, y.n, y.numbered ? (int)k : -1 });
        add_symbol(P, y);
    } while (accept(P, ","));
    expect(P, ";");
}

static uint64_t alignment(Parser *P)
{
    uint64_t a = number(P, ".align", 4096);
    if (!P->p->failed && (!a || a & (a - 1)))
        FAIL(P, "%llu is no alignment", (unsigned long long)a);
    return P->p->failed ? 1 : a;
}

/* = 5 or = {1, 2, {3}}: values of `bytes` each */
static void parse_initialiser(Parser *P, Variable *v, int bytes)
{
    uint64_t n = 0;
    int depth = 0;
    if (!(v->init = calloc(1, v->bytes + 8))) {
        no_memory(P);
        return;
    }
    do {
        while (accept(P, "{"))
            depth++;
        Operand o = {0};
        if (is(P, "}"))
            ;
        else if (parse_number(P, &o)) {
            if (n + (uint64_t)bytes > v->bytes) {
                FAIL(P, "more values than the variable holds");
                return;
            }
            if (o.number == NUM_F64 && bytes == 4)
                o.value = snE_bits((float)snE_double(o.value));
            memcpy(v->init + n, &o.value, (size_t)bytes);
            n += (uint64_t)bytes;
        }
        while (depth && accept(P, "}"))
            depth--;
    } while (depth && accept(P, ","));
    if (depth)
        expect(P, "}");
}

/* What follows .shared, .local, .param, .global, .const: [.align n] type name[n]...; the index of the variable, -1 */
static int parse_variable(Parser *P, Space space, bool may_be_open)
{
    int bits;
    Var v = { .v = { .space = (uint8_t)space, .align = 1 }, .function = P->f ? (int32_t)(P->f - P->p->function) : -1, .line = P->t.line };
    while (is(P, ".align") || is(P, ".ptr") || is(P, ".global") || is(P, ".const") || is(P, ".shared") || is(P, ".local") || is(P, ".attribute"))
        if (accept(P, ".align"))
            v.v.align = (uint32_t)alignment(P);
        else if (accept(P, ".attribute"))
            while (P->t.kind != T_END && !accept(P, ")"))
                next(P);
        else
            next(P);
    uint64_t bytes = (uint64_t)element_bytes(P, &bits), element = bytes;
    if (v.v.align < bytes)
        v.v.align = (uint32_t)bytes;
    if (bits == 1)
        FAIL(P, "a variable cannot be a predicate");
    while (is(P, ".ptr") || is(P, ".global") || is(P, ".const") || is(P, ".shared") || is(P, ".local") || is(P, ".align"))   /* .u64 .ptr .global .align 16 */
        if (accept(P, ".align"))
            alignment(P);
        else
            next(P);
    if (P->t.kind != T_NAME) {
        FAIL(P, "the name of a variable expected");
        return -1;
    }
    v.v.name = P->t.s;
    v.v.len = P->t.n;
    next(P);
    while (accept(P, "[")) {
        if (accept(P, "]")) {
            v.dynamic = true;
            bytes = 0;
            continue;
        }
        uint64_t n = number(P, "elements", 1 << 26);
        bytes = bytes * n > (1u << 30) ? 1u << 30 : bytes * n;
        expect(P, "]");
    }
    if (v.dynamic && !may_be_open)
        FAIL(P, "only .extern .shared arrays have no size");
    uint64_t most = space == SPACE_SHARED ? MAX_SHARED : space == SPACE_LOCAL ? MAX_LOCAL : space == SPACE_PARAM ? 1 << 15 : 1 << 28;
    if (bytes > most)
        FAIL(P, "%llu bytes are more than %llu", (unsigned long long)bytes, (unsigned long long)most);
    v.v.bytes = bytes;
    if (accept(P, "=")) {
        if (space != SPACE_GLOBAL)
            FAIL(P, "only .global and .const variables have values");
        else if (!P->p->failed)
            parse_initialiser(P, &v.v, (int)element);
    }
    if (P->p->failed || !GROW(P->p->var, P->p->nvars, P->p->capvars)) {
        free(v.v.init);
        no_memory(P);
        return -1;
    }
    P->p->var[P->p->nvars] = v;
    add_symbol(P, (Symbol){ v.v.name, v.v.len, SYM_VAR, (uint32_t)P->p->nvars, 1, false });
    return P->p->nvars++;
}

static void parse_variables(Parser *P, Space space, bool is_extern)
{
    do
        parse_variable(P, space, is_extern && space == SPACE_SHARED);
    while (accept(P, ","));
    expect(P, ";");
}

static void skip_braces(Parser *P)
{
    int depth = 0;
    do {
        depth += is(P, "{") - is(P, "}");
        next(P);
    } while (depth > 0 && P->t.kind != T_END);
}

static void parse_statement(Parser *P)
{
    Stmt s = { .kind = S_INS, .guard = REF_NONE, .ins.line = P->t.line };
    if (accept(P, "@")) {
        Operand g = {0};
        s.negated = accept(P, "!");
        if (P->t.kind == T_NAME)
            parse_name(P, &g);
        if (g.kind != O_REG || !g.s || P->f->reg[g.reg].bits != 1) {
            FAIL(P, "a predicate expected behind @");
            return;
        }
        s.guard = g.reg;
    }
    if (P->t.kind != T_NAME) {
        FAIL(P, "an instruction expected, not `%.*s`", P->t.n > 40 ? 40 : P->t.n, P->t.s);
        return;
    }
    const char *at = P->at;
    while (at < P->end && (*at == ' ' || *at == '\t'))
        at++;
    if (at < P->end && *at == ':' && s.guard == REF_NONE) {
        s.kind = S_LABEL;
        s.to = add_label(P, P->t.s, P->t.n);
        next(P);
        next(P);
        add_stmt(P, s);
    } else
        parse_instruction(P, &s);
}

static void parse_body(Parser *P)
{
    int depth = P->depth;
    expect(P, "{");
    open_scope(P);
    while (P->t.kind != T_END && P->depth > depth) {
        if (accept(P, "{"))
            open_scope(P);
        else if (accept(P, "}"))
            close_scope(P);
        else if (accept(P, ".reg"))
            parse_registers(P);
        else if (accept(P, ".shared"))
            parse_variables(P, SPACE_SHARED, false);
        else if (accept(P, ".local") || accept(P, ".param"))
            parse_variables(P, SPACE_LOCAL, false);
        else if (is(P, ".loc") || is(P, ".pragma"))
            skip_line(P);
        else if (accept(P, ";"))
            ;
        else
            parse_statement(P);
    }
    if (P->depth > depth)
        FAIL(P, "`}` expected before the text ends");
}

static void parse_parameters(Parser *P)
{
    while (P->t.kind != T_END && !is(P, ")")) {
        if (!accept(P, ".param")) {
            FAIL(P, "parameters are .param");
            return;
        }
        int k = parse_variable(P, P->f->is_entry ? SPACE_PARAM : SPACE_LOCAL, false);
        if (k < 0)
            return;
        P->p->var[k].is_param = true;
        if (!GROW(P->f->param, P->f->nparam, P->f->capparam)) {
            no_memory(P);
            return;
        }
        P->f->param[P->f->nparam++] = k;
        if (!is(P, ")"))
            expect(P, ",");
    }
    expect(P, ")");
}

static bool skip_directive(Parser *P)
{
    if (is(P, ".maxntid") || is(P, ".minnctapersm") || is(P, ".maxnreg") || is(P, ".maxnctapersm") || is(P, ".reqntid") || is(P, ".reqnctapercluster") ||
        is(P, ".maxclusterrank")) {
        bool required = is(P, ".reqntid");
        next(P);
        for (int k = 0; P->t.kind == T_NUMBER; k++) {
            uint32_t v = (uint32_t)number(P, "the directive", 1 << 20);
            if (required && k < 3)
                P->f->required[k] = v;
            accept(P, ",");
        }
        return true;
    }
    return accept(P, ".noreturn") || accept(P, ".explicitcluster") || accept(P, ".blocksareclusters");
}

static void parse_function(Parser *P, bool is_entry)
{
    Parsed *p = P->p;
    if (!GROW(p->function, p->nfunctions, p->capfunctions)) {
        no_memory(P);
        return;
    }
    Function *f = P->f = &p->function[p->nfunctions++];
    *f = (Function){ .is_entry = is_entry };
    for (int k = 0; k < SR_COUNT; k++)
        P->special[k] = REF_NONE;
    P->nlabels = P->njumps = P->nscopes = 0;
    P->ncap_label = 0;
    int symbols = P->nsymbols;
    open_scope(P);
    if (!is_entry && accept(P, "(")) {
        parse_parameters(P);
        if (f->nparam != 1)
            FAIL(P, "a function has one result");
        else {
            f->result = f->param[0] + 1;
            p->var[f->param[0]].is_result = true;
            f->nparam = 0;
        }
    }
    f->name = P->t.s;
    f->len = P->t.n;
    f->line = P->t.line;
    if (P->t.kind != T_NAME)
        FAIL(P, "the name of a function expected");
    next(P);
    if (accept(P, "("))
        parse_parameters(P);
    while (P->t.kind != T_END && skip_directive(P))
        ;
    if (!accept(P, ";")) {
        f->has_body = true;
        parse_body(P);
        resolve_jumps(P);
    }
    f->nlabels = P->nlabels;
    P->nsymbols = symbols;
    P->depth = -1;
    P->f = NULL;
}

static void parse_module(Parser *P)
{
    bool is_extern = false;
    while (P->t.kind != T_END) {
        if (accept(P, ".visible") || accept(P, ".weak") || accept(P, ".common"))
            ;
        else if (accept(P, ".extern"))
            is_extern = true;
        else if (is(P, ".version") || is(P, ".target") || is(P, ".address_size") || is(P, ".file") || is(P, ".loc") || is(P, ".pragma") ||
                 is(P, "@"))
            skip_line(P);
        else if (accept(P, ".section")) {
            next(P);
            skip_braces(P);
        } else if (accept(P, ".entry"))
            parse_function(P, true);
        else if (accept(P, ".func")) {
            accept(P, ".noreturn");
            parse_function(P, false);
            is_extern = false;
        } else if (accept(P, ".shared")) {
            parse_variables(P, SPACE_SHARED, is_extern);
            is_extern = false;
        } else if (accept(P, ".global") || accept(P, ".const")) {
            parse_variables(P, SPACE_GLOBAL, false);
            is_extern = false;
        } else if (accept(P, ";"))
            ;
        else {
            FAIL(P, "a directive expected, not `%.*s`", P->t.n > 40 ? 40 : P->t.n, P->t.s);
            return;
        }
    }
}

void snE_free_parsed(Parsed *p)
{
    for (int k = 0; k < p->nfunctions; k++) {
        Function *f = &p->function[k];
        free(f->stmt), free(f->ref), free(f->constant), free(f->cons), free(f->reg), free(f->param);
    }
    for (int k = 0; k < p->nvars; k++)
        free(p->var[k].v.init);
    free(p->function);
    free(p->var);
}

/* Constants are shared: a hash of (value, variable, bits). */
uint32_t snE_constant(Function *f, uint64_t value, int bits, int32_t var, bool generic)
{
    Constant c = { value, var, (uint8_t)bits, generic };
    uint64_t key[2] = { value, (uint64_t)(uint32_t)var << 32 | (unsigned)bits << 1 | generic };
    if (f->nconstant * 2 >= f->ncons) {
        int n = f->ncons ? f->ncons * 2 : 64;
        int *table = calloc((size_t)n, sizeof *table);
        if (!table)
            return REF_NONE;
        for (int k = 0; k < f->nconstant; k++) {
            const Constant *o = &f->constant[k];
            uint64_t old[2] = { o->value, (uint64_t)(uint32_t)o->var << 32 | (unsigned)o->bits << 1 | o->generic };
            unsigned h = (unsigned)XXH3_64bits(old, sizeof old);
            while (table[h & (unsigned)(n - 1)])
                h++;
            table[h & (unsigned)(n - 1)] = k + 1;
        }
        free(f->cons);
        f->cons = table;
        f->ncons = n;
    }
    unsigned h = (unsigned)XXH3_64bits(key, sizeof key);
    for (;; h++) {
        int k = f->cons[h & (unsigned)(f->ncons - 1)];
        if (!k)
            break;
        const Constant *o = &f->constant[k - 1];
        if (o->value == value && o->var == var && o->bits == bits && o->generic == generic)
            return REF_CONST | (uint32_t)(k - 1);
    }
    if (!GROW(f->constant, f->nconstant, f->capconstant))
        return REF_NONE;
    f->constant[f->nconstant++] = c;
    f->cons[h & (unsigned)(f->ncons - 1)] = f->nconstant;
    return REF_CONST | (uint32_t)(f->nconstant - 1);
}

int snE_parse(EmuModule *m, char err[ERR_TEXT])
{
    Parsed p = { .m = m, .err = err };
    Parser *P = calloc(1, sizeof *P);
    if (!P)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    P->p = &p;
    P->at = m->text;
    P->end = m->text + m->n;
    P->line = 1;
    P->depth = -1;
    if (memchr(m->text, 0, m->n))
        FAIL(P, "the text has a byte 0");
    next(P);
    parse_module(P);
    free(P->symbol), free(P->parent), free(P->label), free(P->label_hash), free(P->jump);
    free(P);
    int rc = p.failed ? ERR_PROGRAM : snE_decode(&p);
    snE_free_parsed(&p);
    return rc;
}
