/* emu_module.c: the text of a PTX module -> functions of statements (emu_parse.h): directives, registers, variables, parameters, bodies. */
#include "runtime/emu_parse.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* -- Declarations ------------------------------------------------------------------------------------------------------ */

/* .b32 and the like: bytes of an element; 0 and an error */
static int element_bytes(Parser *P, int *bits)
{
    static const struct { const char *name; int bits; } types[] = {
        { ".pred", 1 }, { ".b8", 8 }, { ".u8", 8 }, { ".s8", 8 }, { ".b16", 16 }, { ".u16", 16 }, { ".s16", 16 }, { ".f16", 16 }, { ".bf16", 16 },
        { ".b32", 32 }, { ".u32", 32 }, { ".s32", 32 }, { ".f32", 32 }, { ".f16x2", 32 }, { ".bf16x2", 32 }, { ".b64", 64 }, { ".u64", 64 },
        { ".s64", 64 }, { ".f64", 64 } };
    for (unsigned k = 0; k < sizeof types / sizeof *types; k++)
        if (snE_accept(P, types[k].name)) {
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
        snE_next(P);
        if (snE_accept(P, "<")) {
            y.numbered = true;
            y.count = (uint32_t)snE_number(P, "registers", MAX_REGS);
            snE_expect(P, ">");
        }
        for (uint32_t k = 0; k < y.count && !P->p->failed; k++)
            snE_add_reg(P, (Virtual){ (uint8_t)(bits == 8 ? 16 : bits), 0, y.s, y.n, y.numbered ? (int)k : -1 });
        snE_add_symbol(P, y);
    } while (snE_accept(P, ","));
    snE_expect(P, ";");
}

static uint64_t alignment(Parser *P)
{
    uint64_t a = snE_number(P, ".align", 4096);
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
        snE_no_memory(P);
        return;
    }
    do {
        while (snE_accept(P, "{"))
            depth++;
        Operand o = {0};
        if (snE_is(P, "}"))
            ;
        else if (snE_parse_number(P, &o)) {
            if (n + (uint64_t)bytes > v->bytes) {
                FAIL(P, "more values than the variable holds");
                return;
            }
            if (o.number == NUM_F64 && bytes == 4)
                o.value = snE_bits((float)snE_double(o.value));
            memcpy(v->init + n, &o.value, (size_t)bytes);
            n += (uint64_t)bytes;
        }
        while (depth && snE_accept(P, "}"))
            depth--;
    } while (depth && snE_accept(P, ","));
    if (depth)
        snE_expect(P, "}");
}

/* What follows .shared, .local, .param, .global, .const: [.align n] type name[n]...; the index of the variable, -1 */
static int parse_variable(Parser *P, Space space, bool may_be_open)
{
    int bits;
    Var v = { .v = { .space = (uint8_t)space, .align = 1 }, .function = P->f ? (int32_t)(P->f - P->p->function) : -1, .line = P->t.line };
    while (snE_is_any(P, ".align .ptr .global .const .shared .local .attribute"))
        if (snE_accept(P, ".align"))
            v.v.align = (uint32_t)alignment(P);
        else if (snE_accept(P, ".attribute"))
            while (P->t.kind != T_END && !snE_accept(P, ")"))
                snE_next(P);
        else
            snE_next(P);
    uint64_t bytes = (uint64_t)element_bytes(P, &bits), element = bytes;
    if (v.v.align < bytes)
        v.v.align = (uint32_t)bytes;
    if (bits == 1)
        FAIL(P, "a variable cannot be a predicate");
    while (snE_is_any(P, ".ptr .global .const .shared .local .align"))           /* .u64 .ptr .global .align 16 */
        if (snE_accept(P, ".align"))
            alignment(P);
        else
            snE_next(P);
    if (P->t.kind != T_NAME) {
        FAIL(P, "the name of a variable expected");
        return -1;
    }
    v.v.name = P->t.s;
    v.v.len = P->t.n;
    snE_next(P);
    while (snE_accept(P, "[")) {
        if (snE_accept(P, "]")) {
            v.dynamic = true;
            bytes = 0;
            continue;
        }
        uint64_t n = snE_number(P, "elements", 1 << 26);
        bytes = bytes * n > (1u << 30) ? 1u << 30 : bytes * n;
        snE_expect(P, "]");
    }
    if (v.dynamic && !may_be_open)
        FAIL(P, "only .extern .shared arrays have no size");
    uint64_t most = space == SPACE_SHARED ? MAX_SHARED : space == SPACE_LOCAL ? MAX_LOCAL : space == SPACE_PARAM ? 1 << 15 : 1 << 28;
    if (bytes > most)
        FAIL(P, "%llu bytes are more than %llu", (unsigned long long)bytes, (unsigned long long)most);
    v.v.bytes = bytes;
    if (snE_accept(P, "=")) {
        if (space != SPACE_GLOBAL)
            FAIL(P, "only .global and .const variables have values");
        else if (!P->p->failed)
            parse_initialiser(P, &v.v, (int)element);
    }
    if (P->p->failed || !GROW(P->p->var, P->p->nvars, P->p->capvars)) {
        free(v.v.init);
        snE_no_memory(P);
        return -1;
    }
    P->p->var[P->p->nvars] = v;
    snE_add_symbol(P, (Symbol){ v.v.name, v.v.len, SYM_VAR, (uint32_t)P->p->nvars, 1, false });
    return P->p->nvars++;
}

static void parse_variables(Parser *P, Space space, bool is_extern)
{
    do
        parse_variable(P, space, is_extern && space == SPACE_SHARED);
    while (snE_accept(P, ","));
    snE_expect(P, ";");
}

static void skip_braces(Parser *P)
{
    int depth = 0;
    do {
        depth += snE_is(P, "{") - snE_is(P, "}");
        snE_next(P);
    } while (depth > 0 && P->t.kind != T_END);
}

static void parse_statement(Parser *P)
{
    Stmt s = { .kind = S_INS, .guard = REF_NONE, .ins.line = P->t.line };
    if (snE_accept(P, "@")) {
        Operand g = {0};
        s.negated = snE_accept(P, "!");
        if (P->t.kind == T_NAME)
            snE_parse_name(P, &g);
        if (P->p->failed || g.kind != O_REG || !g.s || P->f->reg[g.reg].bits != 1) {
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
        s.to = snE_add_label(P, P->t.s, P->t.n);
        snE_next(P);
        snE_next(P);
        snE_add_stmt(P, s);
    } else
        snE_parse_instruction(P, &s);
}

static void parse_body(Parser *P)
{
    int depth = P->depth;
    snE_expect(P, "{");
    snE_open_scope(P);
    while (P->t.kind != T_END && P->depth > depth) {
        if (snE_accept(P, "{"))
            snE_open_scope(P);
        else if (snE_accept(P, "}"))
            snE_close_scope(P);
        else if (snE_accept(P, ".reg"))
            parse_registers(P);
        else if (snE_accept(P, ".shared"))
            parse_variables(P, SPACE_SHARED, false);
        else if (snE_accept(P, ".local") || snE_accept(P, ".param"))
            parse_variables(P, SPACE_LOCAL, false);
        else if (snE_is(P, ".loc") || snE_is(P, ".pragma"))
            snE_skip_line(P);
        else if (snE_accept(P, ";"))
            ;
        else
            parse_statement(P);
    }
    if (P->depth > depth)
        FAIL(P, "`}` expected before the text ends");
}

static void parse_parameters(Parser *P)
{
    while (P->t.kind != T_END && !snE_is(P, ")")) {
        if (!snE_accept(P, ".param")) {
            FAIL(P, "parameters are .param");
            return;
        }
        int k = parse_variable(P, P->f->is_entry ? SPACE_PARAM : SPACE_LOCAL, false);
        if (k < 0)
            return;
        if (!GROW(P->f->param, P->f->nparam, P->f->capparam)) {
            snE_no_memory(P);
            return;
        }
        P->f->param[P->f->nparam++] = k;
        if (!snE_is(P, ")"))
            snE_expect(P, ",");
    }
    snE_expect(P, ")");
}

static bool skip_directive(Parser *P)
{
    if (snE_is_any(P, ".maxntid .minnctapersm .maxnreg .maxnctapersm .reqntid .reqnctapercluster .maxclusterrank")) {
        bool required = snE_is(P, ".reqntid"), most = snE_is(P, ".maxntid");
        snE_next(P);
        P->f->most_threads = most ? 1 : P->f->most_threads;
        for (int k = 0; P->t.kind == T_NUMBER; k++) {
            uint32_t v = (uint32_t)snE_number(P, "the directive", 1 << 20);
            if (required && k < 3)
                P->f->required[k] = v;
            if (most && k < 3)
                P->f->most_threads *= v;
            snE_accept(P, ",");
        }
        return true;
    }
    return snE_accept(P, ".noreturn") || snE_accept(P, ".explicitcluster") || snE_accept(P, ".blocksareclusters");
}

static void parse_function(Parser *P, bool is_entry)
{
    Parsed *p = P->p;
    if (!GROW(p->function, p->nfunctions, p->capfunctions)) {
        snE_no_memory(P);
        return;
    }
    Function *f = P->f = &p->function[p->nfunctions++];
    *f = (Function){ .is_entry = is_entry };
    for (int k = 0; k < SR_COUNT; k++)
        P->special[k] = REF_NONE;
    P->nlabels = P->njumps = P->nscopes = 0;
    P->ncap_label = 0;
    int symbols = P->nsymbols;
    snE_open_scope(P);
    if (!is_entry && snE_accept(P, "(")) {
        parse_parameters(P);
        if (f->nparam != 1)
            FAIL(P, "a function has one result");
        else {
            f->result = f->param[0] + 1;
            f->nparam = 0;
        }
    }
    f->name = P->t.s;
    f->len = P->t.n;
    f->line = P->t.line;
    if (P->t.kind != T_NAME)
        FAIL(P, "the name of a function expected");
    snE_next(P);
    if (snE_accept(P, "("))
        parse_parameters(P);
    while (P->t.kind != T_END && skip_directive(P))
        ;
    if (!snE_accept(P, ";")) {
        f->has_body = true;
        parse_body(P);
        snE_resolve_jumps(P);
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
        if (snE_accept(P, ".visible") || snE_accept(P, ".weak") || snE_accept(P, ".common"))
            ;
        else if (snE_accept(P, ".extern"))
            is_extern = true;
        else if (snE_is_any(P, ".version .target .address_size .file .loc .pragma") || snE_is(P, "@"))
            snE_skip_line(P);
        else if (snE_accept(P, ".section")) {
            snE_next(P);
            skip_braces(P);
        } else if (snE_accept(P, ".entry"))
            parse_function(P, true);
        else if (snE_accept(P, ".func")) {
            snE_accept(P, ".noreturn");
            parse_function(P, false);
            is_extern = false;
        } else if (snE_accept(P, ".shared")) {
            parse_variables(P, SPACE_SHARED, is_extern);
            is_extern = false;
        } else if (snE_accept(P, ".global") || snE_accept(P, ".const")) {
            parse_variables(P, SPACE_GLOBAL, false);
            is_extern = false;
        } else if (snE_accept(P, ";"))
            ;
        else {
            FAIL(P, "a directive expected, not `%.*s`", P->t.n > 40 ? 40 : P->t.n, P->t.s);
            return;
        }
    }
}

static void free_parsed(Parsed *p)
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
uint32_t snE_constant(Function *f, uint64_t value, int bits, int32_t var)
{
    Constant c = { value, var, (uint8_t)bits };
    uint64_t key[2] = { value, (uint64_t)(uint32_t)var << 32 | (unsigned)bits };
    if (f->nconstant * 2 >= f->ncons) {
        int n = f->ncons ? f->ncons * 2 : 64;
        int *table = calloc((size_t)n, sizeof *table);
        if (!table)
            return REF_NONE;
        for (int k = 0; k < f->nconstant; k++) {
            const Constant *o = &f->constant[k];
            uint64_t old[2] = { o->value, (uint64_t)(uint32_t)o->var << 32 | (unsigned)o->bits };
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
        if (o->value == value && o->var == var && o->bits == bits)
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
    snE_next(P);
    parse_module(P);
    free(P->symbol), free(P->parent), free(P->label), free(P->label_hash), free(P->jump);
    free(P);
    int rc = p.failed ? ERR_PROGRAM : snE_decode(&p);
    free_parsed(&p);
    return rc;
}
