/* emu_lex.c: what the parser of PTX is made of: errors, tokens, the look-up of mnemonics, names, scopes and labels.

   The text is hostile: the first thing that is wrong is kept as one line with its place, and from then on the lexer only gives the end,
   so that every loop over tokens ends. */
#include "runtime/emu_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

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
bool snE_no_memory(Parser *P)
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
    bool bits = P->at[0] == '0' && P->at + 1 < P->end && strchr("xXfFdDbB", P->at[1]);    /* else an exponent may have a sign */
    for (; P->at + n < P->end && n < 63; n++) {
        char c = P->at[n];
        bool sign = (c == '-' || c == '+') && n && (P->at[n - 1] | 32) == 'e' && !bits;
        if (!name_start(c) && !digit(c) && !sign)
            break;
    }
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

void snE_next(Parser *P)
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

bool snE_is(const Parser *P, const char *s)
{
    return (P->t.kind == T_SIGN || P->t.kind == T_NAME) && (size_t)P->t.n == strlen(s) && !memcmp(P->t.s, s, (size_t)P->t.n);
}

/* One of several words, with blanks between. */
bool snE_is_any(const Parser *P, const char *words)
{
    for (const char *s = words; P->t.kind == T_NAME && *s; s += strcspn(s, " "), s += *s == ' ')
        if (strcspn(s, " ") == (size_t)P->t.n && !memcmp(P->t.s, s, (size_t)P->t.n))
            return true;
    return false;
}
bool snE_accept(Parser *P, const char *s)
{
    if (!snE_is(P, s))
        return false;
    snE_next(P);
    return true;
}
bool snE_expect(Parser *P, const char *s)
{
    if (snE_accept(P, s))
        return true;
    if (P->t.kind == T_END)
        FAIL(P, "`%s` expected before the text ends", s);
    else
        FAIL(P, "`%s` expected, not `%.*s`", s, P->t.n > 40 ? 40 : P->t.n, P->t.s);
    return false;
}
void snE_skip_line(Parser *P)
{
    const char *stop = memchr(P->at, '\n', (size_t)(P->end - P->at));
    P->at = stop ? stop : P->end;
    snE_next(P);
}

uint64_t snE_number(Parser *P, const char *what, uint64_t most)
{
    uint64_t v = P->t.value;
    if (P->t.kind != T_NUMBER || P->t.number != NUM_INT)
        FAIL(P, "%s: a number expected", what);
    else if (v > most)
        FAIL(P, "%s: %llu is more than %llu", what, (unsigned long long)v, (unsigned long long)most);
    snE_next(P);
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

const Row *snE_find_row(Parser *P, const char *op)
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

Symbol *snE_find_symbol(Parser *P, const char *s, int n, uint32_t *id)
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

void snE_add_symbol(Parser *P, Symbol y)
{
    if (!GROW(P->symbol, P->nsymbols, P->capsymbols)) {
        snE_no_memory(P);
        return;
    }
    P->symbol[P->nsymbols++] = y;
}

uint32_t snE_add_reg(Parser *P, Virtual v)
{
    Function *f = P->f;
    if (f->nreg >= MAX_REGS)
        FAIL(P, "more than %d registers", MAX_REGS);
    else if (!GROW(f->reg, f->nreg, f->capreg))
        snE_no_memory(P);
    else {
        f->reg[f->nreg] = v;
        return (uint32_t)f->nreg++;
    }
    return 0;
}

void snE_open_scope(Parser *P)
{
    if (P->depth >= MAX_DEPTH - 1) {
        FAIL(P, "more than %d nested braces", MAX_DEPTH);
        return;
    }
    if (!GROW(P->parent, P->nscopes, P->capscopes)) {
        snE_no_memory(P);
        return;
    }
    P->parent[P->nscopes] = P->depth >= 0 ? P->scope[P->depth] : -1;
    P->depth++;
    P->scope[P->depth] = P->nscopes++;
    P->scope_symbols[P->depth] = P->nsymbols;
}
void snE_close_scope(Parser *P) { P->nsymbols = P->scope_symbols[P->depth--]; }

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

int snE_add_label(Parser *P, const char *s, int n)
{
    int scope = P->scope[P->depth];
    if (find_label(P, s, n, scope) >= 0)
        FAIL(P, "the label `%.*s` is here twice", n > 60 ? 60 : n, s);
    if (!GROW(P->label, P->nlabels, P->caplabels))
        snE_no_memory(P);
    if (P->p->failed)
        return 0;
    P->label[P->nlabels] = (LabelSlot){ s, n, scope, P->nlabels, P->t.line, true };
    P->nlabels++;
    if (P->nlabels * 2 > P->ncap_label) {
        int cap = P->ncap_label ? P->ncap_label * 4 : 64;
        int *table = calloc((size_t)cap, sizeof *table);
        if (!table) {
            snE_no_memory(P);
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

void snE_resolve_jumps(Parser *P)
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

uint32_t snE_special_reg(Parser *P, const char *s, int n)
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
                P->special[table[k].what] = snE_add_reg(P, (Virtual){ 32, (uint8_t)table[k].what, s, n, -1 });
            return P->special[table[k].what];
        }
    return REF_NONE;
}
