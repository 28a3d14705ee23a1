/* emu_decode.c: the functions of a parsed module -> kernels that run: one compact array of instructions each.

   1. Calls are inlined, so that nothing at run time knows of functions; a function's parameters are variables of the caller's frame.
   2. `@p ins` becomes a branch around `ins`: branches are the only place where lanes part.
   3. Liveness over the blocks; every register gets the slot of one whose last use lies before its first (linear scan over intervals; a
      slot is 32 lanes, so what is live in one lane never meets another lane). A register that is live at the entry may be read before it
      is written: only those are watched at run time.
   4. Operands become offsets, variables addresses, labels distances. */
#include "runtime/emu_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INLINE = 16, MAX_CODE = 1 << 22 };

typedef struct Decoder {
    Parsed *p;
    Function out;                    /* the entry with everything inlined */
    bool failed;
    int labels;
    uint32_t local;                  /* bytes of a thread's frame */
    EmuKernel *k;
    /* liveness */
    int *block_of_label, *first, *last, *succ;   /* per block: statements, two successors */
    int nblocks, words;
    uint64_t *in, *out_live, *use, *def;
    int *start, *end;                /* interval of every register */
    uint32_t *slot, *checked;
    uint64_t *address;               /* of every variable, as seen by this kernel; shared ones are laid out when first used */
    uint32_t dynamic_at;
} Decoder;

static bool fail_memory(Decoder *d)
{
    if (!d->failed)
        snE_fail_line(d->p, 0, "out of memory");
    d->failed = true;
    return false;
}
#define WRONG(d, line, ...) ((d)->failed = true, snE_fail_line((d)->p, line, __VA_ARGS__))

/* -- Inlining ---------------------------------------------------------------------------------------------------------- */

static Stmt *push(Decoder *d, Stmt s)
{
    Function *f = &d->out;
    if (f->nstmt >= MAX_CODE)
        WRONG(d, s.ins.line, "more than %d instructions after inlining", MAX_CODE);
    if (d->failed || !GROW(f->stmt, f->nstmt, f->capstmt)) {
        fail_memory(d);
        return NULL;
    }
    f->stmt[f->nstmt] = s;
    return &f->stmt[f->nstmt++];
}

static void push_refs(Decoder *d, Stmt *s, const uint32_t *ref, int n)
{
    Function *f = &d->out;
    s->refs = (uint32_t)f->nref;
    for (int k = 0; k < n; k++) {
        if (!GROW(f->ref, f->nref, f->capref)) {
            fail_memory(d);
            return;
        }
        f->ref[f->nref++] = ref[k];
    }
}

typedef struct Instance { const Function *f; int index; uint32_t regs, *place; int first_var, labels; } Instance;

/* Where the variables of this function lie in the frame. */
static bool lay_out_frame(Decoder *d, Instance *n)
{
    Parsed *p = d->p;
    int last = -1;
    n->first_var = -1;
    for (int k = 0; k < p->nvars; k++)
        if (p->var[k].function == n->index) {
            if (n->first_var < 0)
                n->first_var = k;
            last = k;
        }
    n->place = calloc((size_t)(n->first_var < 0 ? 1 : last - n->first_var + 1), sizeof *n->place);
    if (!n->place)
        return fail_memory(d);
    for (int k = n->first_var; k >= 0 && k <= last; k++) {
        const Variable *v = &p->var[k].v;
        if (p->var[k].function != n->index || v->space != SPACE_LOCAL)
            continue;
        d->local = (d->local + v->align - 1) / v->align * v->align;
        n->place[k - n->first_var] = d->local;
        if (d->local + v->bytes > MAX_LOCAL) {
            WRONG(d, p->var[k].line, "more than %d bytes of local memory", MAX_LOCAL);
            return false;
        }
        d->local += (uint32_t)v->bytes;
    }
    return true;
}

static bool in_frame(const Decoder *d, const Instance *n, int32_t var)
{
    const Var *v = &d->p->var[var - 1];
    return v->v.space == SPACE_LOCAL && v->function == n->index;
}

static uint32_t inline_ref(Decoder *d, const Instance *n, uint32_t ref)
{
    if (ref == REF_NONE)
        return ref;
    if (!(ref & REF_CONST))
        return (ref & REF_DEF) | ((ref & REF_ID) + n->regs);
    Constant c = n->f->constant[ref & REF_ID];
    if (c.var && in_frame(d, n, c.var)) {
        c.value += n->place[c.var - 1 - n->first_var];
        c.var = 0;
    }
    uint32_t out = snE_constant(&d->out, c.value, c.bits, c.var);
    if (out == REF_NONE)
        fail_memory(d);
    return out;
}

static void inline_function(Decoder *d, int index, int depth, Instance *n);

/* bytes from one place of the frame to another, in every lane */
static void push_copy(Decoder *d, int line, uint32_t to, uint32_t from, uint64_t bytes)
{
    Stmt s = { .kind = S_COPY, .guard = REF_NONE, .ins = { .line = line, .imm = (int64_t)to, .imm2 = (int64_t)from } };
    s.ins.run = snE_run_copy;
    s.ins.r[0] = (uint32_t)bytes;
    push(d, s);
}

static void inline_call(Decoder *d, const Instance *caller, const Stmt *s, int depth)
{
    const Function *f = &d->p->function[s->to];
    const uint32_t *arg = caller->f->ref + s->refs;
    int line = s->ins.line;
    if (!f->has_body || depth >= MAX_INLINE) {
        WRONG(d, line, f->has_body ? "calls are nested more than %d deep: recursion is not emulated" : "the function `%.*s` has no body here",
              f->has_body ? MAX_INLINE : f->len > 60 ? 60 : f->len, f->name);
        return;
    }
    if (s->nrefs - 1 != f->nparam || (arg[0] != REF_NONE) != (f->result != 0)) {
        WRONG(d, line, "`%.*s` takes %d arguments and has %d results", f->len > 60 ? 60 : f->len, f->name, f->nparam, f->result != 0);
        return;
    }
    Instance callee = { .f = f, .index = s->to };
    if (!lay_out_frame(d, &callee))
        return;
    for (int k = 0; k <= f->nparam && !d->failed; k++) {
        if (!k && !f->result)
            continue;
        int32_t inside = k ? f->param[k - 1] : f->result - 1, outside = (int32_t)arg[k];
        uint64_t bytes = d->p->var[inside].v.bytes;
        if (!in_frame(d, caller, outside + 1) || d->p->var[outside].v.bytes != bytes)
            WRONG(d, line, "argument %d of `%.*s` is not what the function takes", k, f->len > 60 ? 60 : f->len, f->name);
        else if (k)
            push_copy(d, line, callee.place[inside - callee.first_var], caller->place[outside - caller->first_var], bytes);
    }
    if (!d->failed)
        inline_function(d, s->to, depth + 1, &callee);
    if (f->result && !d->failed)
        push_copy(d, line, caller->place[arg[0] - (uint32_t)caller->first_var], callee.place[f->result - 1 - callee.first_var],
                  d->p->var[f->result - 1].v.bytes);
    free(callee.place);
}

static void inline_function(Decoder *d, int index, int depth, Instance *n)
{
    const Function *f = &d->p->function[index];
    n->regs = (uint32_t)d->out.nreg;
    n->labels = d->labels;
    int end = n->labels + f->nlabels;
    d->labels = end + 1;
    for (int k = 0; k < f->nreg; k++) {
        if (!GROW(d->out.reg, d->out.nreg, d->out.capreg)) {
            fail_memory(d);
            return;
        }
        d->out.reg[d->out.nreg++] = f->reg[k];
    }
    for (int k = 0; k < f->nstmt && !d->failed; k++) {
        Stmt s = f->stmt[k];
        int skip = -1;
        if (s.guard != REF_NONE) {
            s.guard += n->regs;
            if (s.kind == S_EXIT && depth && s.to)
                s.kind = S_BRANCH, s.to = f->nlabels;
            if (s.kind != S_BRANCH) {            /* @p ins: around it when not p */
                skip = d->labels++;
                push(d, (Stmt){ .kind = S_BRANCH, .guard = s.guard, .negated = !s.negated, .to = skip, .ins.line = s.ins.line });
                s.guard = REF_NONE;
            }
        } else if (s.kind == S_EXIT && depth && s.to)
            s.kind = S_BRANCH, s.to = f->nlabels;
        if (s.kind == S_CALL)
            inline_call(d, n, &s, depth);
        else {
            uint32_t ref[MAX_REFS];
            for (int r = 0; r < s.nrefs; r++)
                ref[r] = inline_ref(d, n, f->ref[s.refs + (uint32_t)r]);
            push_refs(d, &s, ref, s.nrefs);
            for (int a = 0; a < 2; a++)
                if (s.var[a] && in_frame(d, n, s.var[a])) {
                    int64_t at = (int64_t)n->place[s.var[a] - 1 - n->first_var];
                    int space = s.ins.space & 0x3f;
                    *(a ? &s.ins.imm2 : &s.ins.imm) += at + (space == SPACE_GENERIC ? (int64_t)snE_window(ID_LOCAL) : 0);
                    if (space == SPACE_PARAM)
                        s.ins.space = (uint8_t)((s.ins.space & 0xc0) | SPACE_LOCAL);
                    else if (space != SPACE_LOCAL && space != SPACE_GENERIC)
                        WRONG(d, s.ins.line, "a local variable is used as if it lay elsewhere");
                    s.var[a] = 0;
                }
            if (s.kind == S_LABEL || s.kind == S_BRANCH)
                s.to += n->labels;
            push(d, s);
        }
        if (skip >= 0)
            push(d, (Stmt){ .kind = S_LABEL, .guard = REF_NONE, .to = skip });
    }
    push(d, (Stmt){ .kind = S_LABEL, .guard = REF_NONE, .to = end });
}

/* -- Liveness ---------------------------------------------------------------------------------------------------------- */

static bool make_blocks(Decoder *d)
{
    Function *f = &d->out;
    size_t n = (size_t)f->nstmt + 2;
    d->block_of_label = calloc((size_t)d->labels + 1, sizeof(int));
    d->first = calloc(n, sizeof(int));
    d->last = calloc(n, sizeof(int));
    d->succ = calloc(2 * n, sizeof(int));
    if (!d->block_of_label || !d->first || !d->last || !d->succ)
        return fail_memory(d);
    int b = -1;
    for (int k = 0; k < f->nstmt; k++) {
        const Stmt *s = &f->stmt[k];
        bool leader = k == 0 || s->kind == S_LABEL || f->stmt[k - 1].kind == S_BRANCH || f->stmt[k - 1].kind == S_EXIT;
        if (leader)
            d->first[++b] = k;
        d->last[b] = k;
        if (s->kind == S_LABEL)
            d->block_of_label[s->to] = b;
    }
    d->nblocks = b + 1;
    for (b = 0; b < d->nblocks; b++) {
        const Stmt *s = &f->stmt[d->last[b]];
        bool falls = s->kind != S_EXIT && !(s->kind == S_BRANCH && s->guard == REF_NONE);
        d->succ[2 * b] = falls && b + 1 < d->nblocks ? b + 1 : -1;
        d->succ[2 * b + 1] = s->kind == S_BRANCH ? d->block_of_label[s->to] : -1;
    }
    return true;
}

#define SET(v, k) ((v)[(k) >> 6] |= 1ull << ((k) & 63))
#define TEST(v, k) ((v)[(k) >> 6] >> ((k) & 63) & 1)

static void block_uses(Decoder *d, int b)
{
    Function *f = &d->out;
    uint64_t *use = d->use + (size_t)b * (size_t)d->words, *def = d->def + (size_t)b * (size_t)d->words;
    for (int k = d->first[b]; k <= d->last[b]; k++) {
        const Stmt *s = &f->stmt[k];
        if (s->guard != REF_NONE && !TEST(def, s->guard))
            SET(use, s->guard);
        for (int r = 0; r < s->nrefs; r++) {
            uint32_t ref = f->ref[s->refs + (uint32_t)r];
            if (ref != REF_NONE && !(ref & (REF_CONST | REF_DEF)) && !TEST(def, ref))
                SET(use, ref);
        }
        for (int r = 0; r < s->nrefs; r++) {
            uint32_t ref = f->ref[s->refs + (uint32_t)r];
            if (ref != REF_NONE && !(ref & REF_CONST) && ref & REF_DEF)
                SET(def, ref & REF_ID);
        }
    }
}

static bool find_liveness(Decoder *d)
{
    d->words = (d->out.nreg + 63) / 64 + 1;
    size_t n = (size_t)d->nblocks * (size_t)d->words;
    if (n > (1u << 27)) {
        WRONG(d, 0, "the kernel is too large: %d blocks, %d registers", d->nblocks, d->out.nreg);
        return false;
    }
    d->in = calloc(n, 8);
    d->out_live = calloc(n, 8);
    d->use = calloc(n, 8);
    d->def = calloc(n, 8);
    if (!d->in || !d->out_live || !d->use || !d->def)
        return fail_memory(d);
    for (int b = 0; b < d->nblocks; b++)
        block_uses(d, b);
    for (bool changed = true; changed; ) {
        changed = false;
        for (int b = d->nblocks - 1; b >= 0; b--)
            for (int w = 0; w < d->words; w++) {
                size_t at = (size_t)b * (size_t)d->words + (size_t)w;
                uint64_t live = 0;
                for (int e = 0; e < 2; e++)
                    if (d->succ[2 * b + e] >= 0)
                        live |= d->in[(size_t)d->succ[2 * b + e] * (size_t)d->words + (size_t)w];
                uint64_t in = d->use[at] | (live & ~d->def[at]);
                changed |= in != d->in[at];
                d->out_live[at] = live;
                d->in[at] = in;
            }
    }
    return true;
}

static void extend(Decoder *d, uint32_t reg, int at)
{
    if (d->start[reg] < 0 || d->start[reg] > at)
        d->start[reg] = at;
    if (d->end[reg] < at)
        d->end[reg] = at;
}

static bool find_intervals(Decoder *d)
{
    Function *f = &d->out;
    size_t n = (size_t)f->nreg + 1;
    d->start = malloc(n * sizeof(int));
    d->end = malloc(n * sizeof(int));
    if (!d->start || !d->end)
        return fail_memory(d);
    for (int r = 0; r < f->nreg; r++)
        d->start[r] = d->end[r] = -1;
    for (int b = 0; b < d->nblocks; b++) {
        for (int w = 0; w < d->words; w++) {
            uint64_t in = d->in[(size_t)b * (size_t)d->words + (size_t)w], out = d->out_live[(size_t)b * (size_t)d->words + (size_t)w];
            for (; in; in &= in - 1)
                extend(d, (uint32_t)(w * 64 + __builtin_ctzll(in)), d->first[b]);
            for (; out; out &= out - 1)
                extend(d, (uint32_t)(w * 64 + __builtin_ctzll(out)), d->last[b] + 1);
        }
        for (int k = d->first[b]; k <= d->last[b]; k++) {
            const Stmt *s = &f->stmt[k];
            if (s->guard != REF_NONE)
                extend(d, s->guard, k);
            for (int r = 0; r < s->nrefs; r++) {
                uint32_t ref = f->ref[s->refs + (uint32_t)r];
                if (ref != REF_NONE && !(ref & REF_CONST))
                    extend(d, ref & REF_ID, k);
            }
        }
    }
    for (int r = 0; r < f->nreg; r++)
        if (f->reg[r].special && d->start[r] >= 0)
            d->start[r] = 0, d->end[r] = f->nstmt;
    return true;
}

/* Slots of one class (0 predicates, 1 words, 2 doubles): free ones are reused, else new ones made. Returns how many. */
static int scan_class(Decoder *d, int class, int *by_start, int *next_start, int *by_end, int *next_end)
{
    Function *f = &d->out;
    int n = 0, nfree = 0, *freed = malloc(((size_t)f->nreg + 1) * sizeof(int));
    if (!freed) {
        fail_memory(d);
        return 0;
    }
    for (int at = 0; at <= f->nstmt; at++) {
        for (int r = by_start[at]; r >= 0; r = next_start[r]) {
            int bits = f->reg[r].bits;
            if ((bits == 1 ? 0 : bits == 64 ? 2 : 1) == class)
                d->slot[r] = (uint32_t)(nfree ? freed[--nfree] : n++);
        }
        for (int r = by_end[at]; r >= 0; r = next_end[r]) {
            int bits = f->reg[r].bits;
            if ((bits == 1 ? 0 : bits == 64 ? 2 : 1) == class)
                freed[nfree++] = (int)d->slot[r];
        }
    }
    free(freed);
    return n;
}

static bool assign_slots(Decoder *d)
{
    Function *f = &d->out;
    size_t n = (size_t)f->nreg + 1, m = (size_t)f->nstmt + 2;
    int *lists = malloc((2 * n + 2 * m) * sizeof(int));
    d->slot = calloc(n, sizeof *d->slot);
    if (!lists || !d->slot) {
        free(lists);
        return fail_memory(d);
    }
    int *next_start = lists, *next_end = lists + n, *by_start = lists + 2 * n, *by_end = by_start + m;
    memset(by_start, 0xff, 2 * m * sizeof(int));
    for (int r = 0; r < f->nreg; r++)
        if (d->start[r] >= 0) {
            next_start[r] = by_start[d->start[r]], by_start[d->start[r]] = r;
            next_end[r] = by_end[d->end[r]], by_end[d->end[r]] = r;
        }
    uint32_t base = 0;
    for (int class = 0; class < 3; class++) {
        uint32_t size = class == 0 ? 4 : class == 1 ? 128 : 256;
        int count = scan_class(d, class, by_start, next_start, by_end, next_end);
        for (int r = 0; r < f->nreg; r++)
            if (d->start[r] >= 0 && (f->reg[r].bits == 1 ? 0 : f->reg[r].bits == 64 ? 2 : 1) == class)
                d->slot[r] = base + d->slot[r] * size;
        base = (base + (uint32_t)count * size + 255) / 256 * 256;
    }
    free(lists);
    d->k->reg_bytes = base;
    return !d->failed;
}

/* -- Addresses --------------------------------------------------------------------------------------------------------- */

static void use_shared(Decoder *d, int32_t var)
{
    Var *v = &d->p->var[var];
    if (v->v.space != SPACE_SHARED || v->dynamic || d->address[var] != UINT64_MAX)
        return;
    d->k->shared = (d->k->shared + v->v.align - 1) / v->v.align * v->v.align;
    d->address[var] = d->k->shared;
    d->k->shared += (uint32_t)v->v.bytes;
    if (d->k->shared > MAX_STATIC_SHARED)
        WRONG(d, v->line, "more than %d bytes of shared memory whose size is in the text: beyond that, it is .extern and given at launch", MAX_STATIC_SHARED);
}

static bool lay_out_variables(Decoder *d, const Function *entry)
{
    Parsed *p = d->p;
    Function *f = &d->out;
    uint32_t align = 16;
    d->address = malloc(((size_t)p->nvars + 1) * sizeof *d->address);
    if (!d->address)
        return fail_memory(d);
    for (int k = 0, global = 0; k < p->nvars; k++) {
        d->address[k] = UINT64_MAX;
        if (p->var[k].v.space == SPACE_GLOBAL)
            d->address[k] = snE_middle(ID_MODULE + global++);
    }
    for (int k = 0; k < entry->nparam; k++)
        d->address[entry->param[k]] = d->k->params[k].offset;
    for (int k = 0; k < f->nconstant; k++)
        if (f->constant[k].var)
            use_shared(d, f->constant[k].var - 1);
    for (int k = 0; k < f->nstmt && !d->failed; k++)
        for (int a = 0; a < 2; a++)
            if (f->stmt[k].var[a])
                use_shared(d, f->stmt[k].var[a] - 1);
    for (int k = 0; k < p->nvars; k++)
        if (p->var[k].dynamic && p->var[k].v.align > align)
            align = p->var[k].v.align;
    d->dynamic_at = (d->k->shared + align - 1) / align * align;
    for (int k = 0; k < p->nvars; k++)
        if (p->var[k].dynamic) {
            d->address[k] = d->dynamic_at;
        }
    return !d->failed;
}

static int space_window(int space) { return space == SPACE_SHARED ? ID_SHARED : space == SPACE_LOCAL ? ID_LOCAL : ID_PARAM; }

static int64_t variable_address(Decoder *d, int32_t var, int space, int line)
{
    const Var *v = &d->p->var[var - 1];
    if (d->address[var - 1] == UINT64_MAX)
        WRONG(d, line, "`%.*s` is not a variable of this kernel", v->v.len > 40 ? 40 : v->v.len, v->v.name);
    if (space != SPACE_GENERIC && space != v->v.space)
        WRONG(d, line, "`%.*s` lies in another state space", v->v.len > 40 ? 40 : v->v.len, v->v.name);
    if (v->dynamic)
        d->k->open_shared = true;
    return (int64_t)d->address[var - 1] + (space == SPACE_GENERIC && v->v.space != SPACE_GLOBAL ? (int64_t)snE_window(space_window(v->v.space)) : 0);
}

/* -- Which parameters are addresses that the kernel loads from, or stores to: bit k of a mask is parameter k ------------- */

static uint64_t parameter_bit(const Decoder *d, const Function *entry, const Stmt *s)
{
    if ((s->ins.space & 0x3f) != SPACE_PARAM || !s->var[0] || !snE_is_load(&s->ins))
        return 0;
    for (int k = 0; k < entry->nparam && k < 64; k++)
        if (entry->param[k] == s->var[0] - 1 && d->p->var[entry->param[k]].v.bytes == 8)
            return 1ull << k;
    return 0;
}

static bool follow_parameters(Decoder *d, const Function *entry)
{
    Function *f = &d->out;
    uint64_t *from = calloc((size_t)f->nreg + 1, sizeof *from);
    if (!from)
        return fail_memory(d);
    for (bool changed = true; changed; ) {
        changed = false;
        for (int k = 0; k < f->nstmt; k++) {
            const Stmt *s = &f->stmt[k];
            const uint32_t *ref = f->ref + s->refs;
            bool reads = snE_is_load(&s->ins) || s->ins.run == snE_run_atom, writes = snE_is_store(&s->ins) || s->ins.run == snE_run_atom;
            uint64_t mask = reads ? parameter_bit(d, entry, s) : 0;
            for (int r = 0; r < s->nrefs && s->kind == S_INS && !reads; r++)
                if (ref[r] != REF_NONE && !(ref[r] & (REF_CONST | REF_DEF)))
                    mask |= from[ref[r]];
            for (int r = 0; r < s->nrefs; r++) {
                if (ref[r] == REF_NONE || ref[r] & REF_CONST)
                    continue;
                if (ref[r] & REF_DEF) {
                    changed |= (mask & ~from[ref[r] & REF_ID]) != 0;
                    from[ref[r] & REF_ID] |= mask;
                } else if (f->reg[ref[r]].bits == 64) {      /* the address, or a value of 64 bits: more than need be */
                    d->k->loaded |= reads || s->ins.run == snE_run_cp_async ? from[ref[r]] : 0;
                    d->k->stored |= writes ? from[ref[r]] : 0;
                }
            }
        }
    }
    free(from);
    return true;
}

/* -- Emission ---------------------------------------------------------------------------------------------------------- */

static bool make_constants(Decoder *d)
{
    Function *f = &d->out;
    d->k->constants = snR_alloc(256 * ((size_t)f->nconstant + 1));
    if (!d->k->constants)
        return fail_memory(d);
    for (int k = 0; k < f->nconstant && !d->failed; k++) {
        const Constant *c = &f->constant[k];
        uint64_t v = c->value;
        if (c->var) {
            const Var *x = &d->p->var[c->var - 1];
            v += (uint64_t)variable_address(d, c->var, x->v.space, d->k->line);
        }
        char *at = d->k->constants + 256 * (size_t)k;
        for (int l = 0; l < LANES; l++)
            if (c->bits == 64)
                ((Lane64 *)at)[l] = v;
            else
                ((Lane32 *)at)[l] = c->bits == 1 ? (v ? 0xffffffff : 0) : (uint32_t)v;
    }
    return !d->failed;
}

static uint32_t place(const Decoder *d, uint32_t ref)
{
    if (ref == REF_NONE)
        return UINT32_MAX;
    return ref & REF_CONST ? (ref & REF_ID) * 256 | 1 : d->slot[ref & REF_ID];
}

/* Registers that may be read before they are written: numbered in checked[], by name in the kernel. */
static bool find_checked(Decoder *d)
{
    Function *f = &d->out;
    d->checked = malloc(((size_t)f->nreg + 1) * sizeof *d->checked);
    if (!d->checked)
        return fail_memory(d);
    for (int r = 0; r < f->nreg; r++) {
        bool watch = d->nblocks && TEST(d->in, r) && !f->reg[r].special;
        d->checked[r] = watch ? d->k->nchecked++ : UINT32_MAX;
    }
    if (!d->k->nchecked)
        return true;
    d->k->checked = calloc(d->k->nchecked, sizeof *d->k->checked);
    for (int r = 0; d->k->checked && r < f->nreg; r++)
        if (d->checked[r] != UINT32_MAX) {
            char name[80];
            const Virtual *v = &f->reg[r];
            snprintf(name, sizeof name, v->number < 0 ? "%.*s" : "%.*s%d", v->len > 60 ? 60 : v->len, v->name, v->number);
            if (!(d->k->checked[d->checked[r]] = strdup(name)))
                return fail_memory(d);
        }
    return d->k->checked || fail_memory(d);
}

typedef struct Emission { Ins *code; int n, cap; uint32_t *more; int nmore, capmore; int *label_at; } Emission;

static Ins *emit(Decoder *d, Emission *e, Ins i)
{
    if (d->failed || !GROW(e->code, e->n, e->cap)) {
        fail_memory(d);
        return NULL;
    }
    e->code[e->n] = i;
    return &e->code[e->n++];
}

static void emit_watch(Decoder *d, Emission *e, uint32_t reg, bool written, int line)
{
    if (d->checked[reg] != UINT32_MAX)
        emit(d, e, (Ins){ .run = written ? snE_run_written : snE_run_check, .imm = d->checked[reg], .line = line });
}

static void emit_statement(Decoder *d, Emission *e, const Stmt *s)
{
    Function *f = &d->out;
    const uint32_t *ref = f->ref + s->refs;
    Ins i = s->ins;
    int space = i.space & 0x3f;
    if (s->guard != REF_NONE)
        emit_watch(d, e, s->guard, false, i.line);
    for (int r = 0; r < s->nrefs && !s->passes_on; r++)
        if (ref[r] != REF_NONE && !(ref[r] & (REF_CONST | REF_DEF)))
            emit_watch(d, e, ref[r], false, i.line);
    if (s->kind == S_LABEL)
        i = (Ins){ .run = snE_run_label, .line = i.line };
    else if (s->kind == S_EXIT)
        i.run = snE_run_exit;
    else if (s->kind == S_BRANCH) {
        i.run = snE_run_branch;
        i.imm = s->to;                           /* the label, for now */
        i.how = s->guard == REF_NONE ? 0 : s->negated ? 2 : 1;
        i.r[0] = s->guard == REF_NONE ? 0 : d->slot[s->guard];
    } else if (s->kind == S_INS) {
        for (int a = 0; a < 2; a++)
            if (s->var[a])
                *(a ? &i.imm2 : &i.imm) += variable_address(d, s->var[a], i.run == snE_run_cp_async ? (a ? SPACE_GLOBAL : SPACE_SHARED) : space, i.line);
        for (int r = 0; r < 6; r++)
            i.r[r] = r < s->nrefs ? place(d, ref[r]) : UINT32_MAX;
        i.more = (const uint32_t *)(uintptr_t)e->nmore;
        for (int r = 0; r < s->nrefs; r++) {
            if (!GROW(e->more, e->nmore, e->capmore)) {
                fail_memory(d);
                return;
            }
            e->more[e->nmore++] = place(d, ref[r]);
        }
        d->k->ordered |= i.run == snE_run_atom && space != SPACE_SHARED;
    }
    emit(d, e, i);
    for (int r = 0; r < s->nrefs; r++)
        if (ref[r] != REF_NONE && !(ref[r] & REF_CONST) && ref[r] & REF_DEF)
            emit_watch(d, e, ref[r] & REF_ID, true, i.line);
}

static bool emit_all(Decoder *d)
{
    Function *f = &d->out;
    Emission e = {0};
    bool *wanted = calloc((size_t)d->labels + 1, 1);
    e.label_at = calloc((size_t)d->labels + 1, sizeof(int));
    for (int k = 0; wanted && k < f->nstmt; k++)
        if (f->stmt[k].kind == S_BRANCH)
            wanted[f->stmt[k].to] = true;
    for (int k = 0; e.label_at && wanted && k < f->nstmt && !d->failed; k++) {
        if (f->stmt[k].kind == S_LABEL) {
            e.label_at[f->stmt[k].to] = e.n;
            if (!wanted[f->stmt[k].to])
                continue;
        }
        emit_statement(d, &e, &f->stmt[k]);
    }
    if (!e.label_at || !wanted)
        fail_memory(d);
    emit(d, &e, (Ins){ .run = snE_run_exit, .line = d->k->line });
    for (int k = 0; k < e.n; k++) {
        Ins *i = &e.code[k];
        if (i->run == snE_run_branch)
            i->imm = e.label_at[i->imm] - k;
        i->more = e.more + (uintptr_t)i->more;
    }
    free(e.label_at);
    free(wanted);
    d->k->code = e.code;
    d->k->ncode = e.n;
    d->k->more = e.more;
    return !d->failed;
}

static bool list_specials(Decoder *d)
{
    Function *f = &d->out;
    d->k->special = calloc((size_t)f->nreg + 1, sizeof *d->k->special);
    if (!d->k->special)
        return fail_memory(d);
    for (int r = 0; r < f->nreg; r++)
        if (f->reg[r].special && d->start[r] >= 0)
            d->k->special[d->k->nspecial++] = (Special){ f->reg[r].special, d->slot[r], f->reg[r].bits == 64 };
    return true;
}

static bool copy_parameters(Decoder *d, const Function *f)
{
    EmuKernel *k = d->k;
    k->params = calloc((size_t)f->nparam + 1, sizeof *k->params);
    if (!k->params)
        return fail_memory(d);
    k->nparams = f->nparam;
    for (int i = 0; i < f->nparam; i++) {
        Variable v = d->p->var[f->param[i]].v;
        k->param_bytes = (k->param_bytes + v.align - 1) / v.align * v.align;
        v.offset = k->param_bytes;
        k->param_bytes += (uint32_t)v.bytes;
        k->params[i] = v;
        if (k->param_bytes > 32764)
            WRONG(d, f->line, "more than 32764 bytes of parameters");
    }
    return !d->failed;
}

static bool decode_entry(Decoder *d, int index, EmuKernel *k)
{
    const Function *f = &d->p->function[index];
    Instance entry = { .f = f, .index = index };
    d->k = k;
    k->line = f->line;
    memcpy(k->required, f->required, sizeof k->required);
    k->most_threads = f->most_threads;
    if (!(k->name = strndup(f->name, (size_t)f->len)))
        return fail_memory(d);
    if (copy_parameters(d, f) && lay_out_frame(d, &entry))
        inline_function(d, index, 0, &entry);
    free(entry.place);
    k->local = (d->local + 15) / 16 * 16;
    bool good = !d->failed && lay_out_variables(d, f) && make_blocks(d) && find_liveness(d) && find_intervals(d) && assign_slots(d) &&
                make_constants(d) && find_checked(d) && follow_parameters(d, f) && emit_all(d) && list_specials(d);
    if (good && k->open_shared)
        k->shared = d->dynamic_at;
    return good;
}

static void free_decoder(Decoder *d)
{
    Function *f = &d->out;
    free(f->stmt), free(f->ref), free(f->constant), free(f->cons), free(f->reg);
    free(d->block_of_label), free(d->first), free(d->last), free(d->succ), free(d->in), free(d->out_live), free(d->use), free(d->def);
    free(d->start), free(d->end), free(d->slot), free(d->checked), free(d->address);
}

/* The variables of .global and .const: one piece of memory, each a range of its own. */
static bool make_globals(Parsed *p)
{
    EmuModule *m = p->m;
    uint64_t bytes = 0;
    m->globals = calloc((size_t)p->nvars + 1, sizeof *m->globals);
    for (int k = 0; m->globals && k < p->nvars; k++)
        if (p->var[k].v.space == SPACE_GLOBAL) {
            Variable v = p->var[k].v;
            v.offset = bytes = (bytes + v.align - 1) / v.align * v.align;
            bytes += v.bytes;
            v.init = NULL;
            m->globals[m->nglobals++] = v;
        }
    m->global = m->globals && bytes < 1u << 30 ? snR_alloc(bytes + 1) : NULL;
    m->global_written = m->global ? calloc(1, bytes + 1) : NULL;
    if (!m->global_written)
        return snE_fail_line(p, 0, "out of memory"), false;
    memset(m->global, 0, bytes);
    memset(m->global_written, 1, bytes);         /* the ISA: variables without values are zero */
    for (int k = 0, g = 0; k < p->nvars; k++)
        if (p->var[k].v.space == SPACE_GLOBAL) {
            if (p->var[k].v.init)
                memcpy(m->global + m->globals[g].offset, p->var[k].v.init, p->var[k].v.bytes);
            g++;
        }
    return true;
}

int snE_decode(Parsed *p)
{
    EmuModule *m = p->m;
    m->kernel = calloc((size_t)p->nfunctions + 1, sizeof *m->kernel);
    if (!m->kernel || !make_globals(p))
        return snR_fail(p->err, ERR_NOMEM, "out of memory");
    for (int k = 0; k < p->nfunctions; k++) {
        if (!p->function[k].is_entry || !p->function[k].has_body)
            continue;
        Decoder d = { .p = p };
        bool good = decode_entry(&d, k, &m->kernel[m->nkernels++]);
        free_decoder(&d);
        if (!good)
            return ERR_PROGRAM;
    }
    return 0;
}
