/* emu_parse.c: statements of PTX: operands, and how they fit the row of their instruction.

   `[@p] mnemonic operands;` is looked up in the instruction table by its mnemonic; the row's letters (emu_in.h) say what every operand
   has to be: its size, written or read, alone or in braces. What is kept is a list of registers and constants; there is no tree. */
#include "runtime/emu_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- Operands ---------------------------------------------------------------------------------------------------------- */

/* A number with its sign in front; keeps the kind. */
bool snE_parse_number(Parser *P, Operand *o)
{
    bool minus = false;
    while (snE_is(P, "-") || snE_is(P, "+")) {
        minus ^= snE_is(P, "-");
        snE_next(P);
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
    snE_next(P);
    return true;
}

/* A register, a variable, a special register or a name of something else. */
void snE_parse_name(Parser *P, Operand *o)
{
    uint32_t id = 0;
    Symbol *y = snE_find_symbol(P, P->t.s, P->t.n, &id);
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
        o->reg = snE_special_reg(P, P->t.s, P->t.n);
        if (o->reg == REF_NONE)
            FAIL(P, "`%.*s` is not declared, and no special register that is known here", P->t.n > 40 ? 40 : P->t.n, P->t.s);
    } else
        o->kind = O_NAME;
    snE_next(P);
    if (o->kind == O_VAR && (snE_is(P, "+") || snE_is(P, "-"))) {
        Operand offset;
        if (snE_parse_number(P, &offset))
            o->value = offset.value;
    }
}

static void parse_address(Parser *P, Operand *o)
{
    Operand base = { .reg = REF_NONE };
    *o = (Operand){ .kind = O_ADDRESS, .reg = REF_NONE, .group = o->group };
    if (P->t.kind == T_NAME) {
        snE_parse_name(P, &base);
        if (base.kind == O_REG)
            o->reg = base.reg;
        else if (base.kind == O_VAR)
            o->var = base.var, o->value = base.value;
        else
            FAIL(P, "`%.*s` is not declared", base.n > 40 ? 40 : base.n, base.s);
    } else if (P->t.kind == T_NUMBER)
        snE_parse_number(P, o), o->kind = O_ADDRESS;
    if (snE_is(P, "+") || snE_is(P, "-")) {
        Operand offset = {0};
        if (snE_parse_number(P, &offset)) {
            if (offset.number != NUM_INT)
                FAIL(P, "an offset is an integer");
            o->value += offset.value;
        }
    }
    snE_expect(P, "]");
}

static void parse_operand(Parser *P, Operand *o, int n, int group)
{
    *o = (Operand){ .reg = REF_NONE, .group = (uint16_t)group };
    if (snE_accept(P, "!"))
        o->negated = true;
    if (snE_accept(P, "["))
        parse_address(P, o);
    else if (P->t.kind == T_NAME)
        snE_parse_name(P, o);
    else
        snE_parse_number(P, o);
    (void)n;
}

/* Operands up to `;`, flattened. */
static int parse_operands(Parser *P, Operand *o)
{
    int n = 0, group = 0;
    while (!snE_is(P, ";") && P->t.kind != T_END) {
        if (n >= MAX_OPERANDS - 1) {
            FAIL(P, "too many operands");
            return n;
        }
        if (snE_accept(P, "{")) {
            for (group++; !snE_is(P, "}") && P->t.kind != T_END && n < MAX_OPERANDS - 1; n++) {
                parse_operand(P, &o[n], n, group);
                if (!snE_is(P, "}"))
                    snE_expect(P, ",");
            }
            snE_expect(P, "}");
        } else {
            parse_operand(P, &o[n], n, 0);
            n++;
            if (snE_accept(P, "|")) {
                parse_operand(P, &o[n], n, 0);
                o[n++].joined = true;
            }
        }
        if (!snE_is(P, ";") && !snE_expect(P, ","))
            return n;
    }
    snE_expect(P, ";");
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
    uint32_t ref = snE_constant(t->P->f, value, bits, var);
    if (ref == REF_NONE)
        snE_no_memory(t->P);
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
        if (o->number != NUM_INT)
            FAIL(t->P, "a 16-bit float is written as its bits in hexadecimal");
        return o->number == NUM_INT;
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
        push_ref(t, snE_add_reg(t->P, (Virtual){ (uint8_t)(bits == 8 ? 16 : bits), 0, "_", 1, -1 }) | REF_DEF);
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
    case 'T': case 't':
        fit(t, o, written, type.kind == 'p' ? 'p' : (type.kind == 'f' || type.kind == 'h') && !type.twice ? 'f' : 'i', type.bits, false);
        break;
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

static int vector_length(const char *op)
{
    return snE_has(op, ".v2") || snE_has(op, ".x2") ? 2 : snE_has(op, ".v4") || snE_has(op, ".x4") ? 4 : snE_has(op, ".v8") ? 8 : 1;
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
            int want = vector_length(t->op);
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

Stmt *snE_add_stmt(Parser *P, Stmt s)
{
    Function *f = P->f;
    if (f->nstmt >= MAX_STMTS)
        FAIL(P, "more than %d instructions", MAX_STMTS);
    else if (!GROW(f->stmt, f->nstmt, f->capstmt))
        snE_no_memory(P);
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
            return snE_no_memory(P);
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
        uint32_t ref[2] = { snE_add_reg(P, (Virtual){ 1, 0, o[k].s, o[k].n, -1 }) | REF_DEF, o[k].reg };
        Stmt s = { .kind = S_INS, .guard = REF_NONE };
        const Row *row = snE_find_row(P, "not.pred");
        s.ins.run = row->run;
        s.ins.line = model->ins.line;
        if (keep_refs(P, &s, ref, 2))
            snE_add_stmt(P, s);
        o[k].reg = ref[0] & ~REF_DEF;
        o[k].negated = false;
    }
}

static void fit_statement(Parser *P, Stmt *s, const char *mnemonic, Operand *o, int n)
{
    char op[2 * MAX_MNEMONIC];
    bool parts = !strncmp(mnemonic, "mov.b", 5) && n > 1 && (o[0].group || o[n - 1].group);
    snprintf(op, sizeof op, "%s%s", parts ? o[0].group ? "mov.parts" : "mov.whole" : "", mnemonic + 3 * parts);
    const Row *row = P->p->failed || strlen(op) >= MAX_MNEMONIC ? NULL : snE_find_row(P, op);
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
    static const char *const moving[] = { "mov.", "bfi.", "prmt.", "selp.", "cvt.u" };
    for (unsigned k = 0; k < sizeof moving / sizeof *moving; k++)
        s->passes_on |= !strncmp(op, moving[k], strlen(moving[k]));
    s->ins.run = row->lane ? snE_lane_runs()[row->lane] : row->run;
    for (int k = 0; k < t.nref && k < 6; k++)
        s->ins.r[k] = t.ref[k];
    Decoding d = { .op = op, .ins = &s->ins, .nrefs = t.nref, .bits = t.bits };
    if (row->decode)
        row->decode(&d);
    if (d.wrong)
        FAIL(P, "%s", d.wrong);
    else if (keep_refs(P, s, t.ref, t.nref))
        snE_add_stmt(P, *s);
}

/* call (result), function, (arguments); all of them are .param variables of the caller */
static void parse_call(Parser *P, Stmt *s)
{
    uint32_t ref[MAX_REFS];
    int n = 1;
    ref[0] = REF_NONE;
    s->kind = S_CALL;
    s->to = -1;
    for (int part = 0; P->t.kind != T_END && !snE_is(P, ";"); part++) {
        bool list = snE_accept(P, "("), name = !list && P->t.kind == T_NAME;
        for (int k = 0; list && !snE_is(P, ")") && P->t.kind != T_END; k++) {
            Operand o = {0};
            if (P->t.kind == T_NAME)
                snE_parse_name(P, &o);
            if (o.kind != O_VAR || !o.var || n >= MAX_REFS) {
                FAIL(P, "what a call passes are .param variables, at most %d", MAX_REFS - 1);
                return;
            }
            if (part == 0 && s->to < 0 && k == 0)
                ref[0] = (uint32_t)o.var - 1;
            else
                ref[n++] = (uint32_t)o.var - 1;
            if (!snE_is(P, ")") && !snE_expect(P, ","))
                return;
        }
        if (list && !snE_expect(P, ")"))
            return;
        if (name) {
            for (int k = 0; k < P->p->nfunctions; k++)
                if (!P->p->function[k].is_entry && P->p->function[k].len == P->t.n && !memcmp(P->p->function[k].name, P->t.s, (size_t)P->t.n))
                    s->to = k;
            if (s->to < 0)
                FAIL(P, "there is no function `%.*s`", P->t.n > 60 ? 60 : P->t.n, P->t.s);
            snE_next(P);
        } else if (!list)
            FAIL(P, "a function expected");
        if (!snE_is(P, ";") && !snE_expect(P, ","))
            return;
    }
    if (s->to < 0)
        FAIL(P, "a call needs a function");
    else if (snE_expect(P, ";") && keep_refs(P, s, ref, n))
        snE_add_stmt(P, *s);
}

static void parse_branch(Parser *P, Stmt *s)
{
    if (P->t.kind != T_NAME) {
        FAIL(P, "a label expected");
        return;
    }
    s->kind = S_BRANCH;
    if (!GROW(P->jump, P->njumps, P->capjumps)) {
        snE_no_memory(P);
        return;
    }
    P->jump[P->njumps++] = (Jump){ P->f->nstmt, P->scope[P->depth], P->t.s, P->t.n, P->t.line };
    snE_next(P);
    if (snE_expect(P, ";"))
        snE_add_stmt(P, *s);
}

void snE_parse_instruction(Parser *P, Stmt *s)
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
    snE_next(P);
    if (!strcmp(op, "bra") || !strcmp(op, "bra.uni")) {
        parse_branch(P, s);
        return;
    }
    if (!strcmp(op, "ret") || !strcmp(op, "exit") || !strcmp(op, "ret.uni")) {
        s->kind = S_EXIT;
        s->to = op[0] == 'r';
        if (snE_expect(P, ";"))
            snE_add_stmt(P, *s);
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
