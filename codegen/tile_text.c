/* tile_text.c: tile programs as text, both ways, and the verifier. In: a program, or a .kt text. Out: text, a program, or an abort.

     kernel gemm(a: f32[393216], b: f32[98304], out c: f32[1048576]) grid(22, 2) {
       %1 = grid 0
       %2 = idx 96
       %3 = imul %1, %2
       %9 = load f32[96, 192] a, %5, valid(%7, 0), strides(192, 1)
       %12 = ew.add f32[96, 192] %9, %11
       store c, %14, %12, valid(%7, 0), strides(512, 1)
     }

   One table says what each op prints after its name; the printer and the parser both walk it. Printed programs parse back
   to the same program, because the builder had nothing left to fold. */
#include "codegen/tile.h"
#include <ctype.h>

/* T type, B buffer, 0..4 operands (0 = none), v valid counts from the next digit's operand on, s strides (S with ks), i the number imm,
   f the number f, a axis(imm), r stream(imm), c clamp(imm), and flag words of imm: x scan, k topk, p for, d dot. */
static const char *const form[T_NOPS] = {
    [T_grid] = "i", [T_idx] = "i", [T_iadd] = "01", [T_isub] = "01", [T_imul] = "01", [T_idiv] = "01", [T_imod] = "01",
    [T_imin] = "01", [T_imax] = "01", [T_count] = "0", [T_full] = "Tf", [T_iota] = "T0a", [T_widen] = "T0", [T_random] = "T01rs",
    [T_load] = "TB0v1s", [T_gather] = "TB01v2cS", [T_store] = "B01v2s", [T_scatter_add] = "B012v3cS", [T_ew] = "T012",
    [T_reduce] = "T0av1", [T_scan] = "T0v1x", [T_topk] = "T0k", [T_stage] = "T0v1", [T_dot] = "T012d", [T_var] = "T0",
    [T_get] = "T0", [T_set] = "01", [T_for] = "012p", [T_if] = "0", [T_end] = "",
};

static const char *const fn_names[S_N] = {
#define SC(name, nargs, text, doc) [S_##name] = #name,
#include "graph/scalar.def"
#undef SC
};
static const char *const red_names[] = { "sum", "max", "min", "peak", "argmax", "argmin" };
static const char *const flag_words[][2] = { ['x'] = { "exclusive", "reverse" }, ['k'] = { "indices", "" },
                                             ['p'] = { "pipelined", "" }, ['d'] = { "ta", "tb" } };

/* -- Printing ------------------------------------------------------------------------------------------------ */

static void put_value(StrBuf *b, TVal v)
{
    if (v) snU_putf(b, "%%%u", v);
    else snU_puts(b, "0");
}

static void put_type(StrBuf *b, TType t)
{
    if (t.dtype) snU_putf(b, "%s[%d, %d]", snG_dtype_name((Dtype)t.dtype), t.r, t.c);
    else snU_puts(b, "idx");
}

static void put_field(StrBuf *b, const Tile *t, const TIns *i, char f, char next)
{
    char num[40];
    int v = next - '0';
    switch (f) {
    case 'B': snU_puts(b, snU_str(t->ctx, t->params.v[i->buf].name)); break;
    case 'v': snU_puts(b, "valid("), put_value(b, i->a[v]), snU_puts(b, ", "), put_value(b, i->a[v + 1]), snU_puts(b, ")"); break;
    case 's': snU_putf(b, "strides(%lld, %lld)", (long long)i->rs, (long long)i->cs); break;
    case 'S': snU_putf(b, "strides(%lld, %lld, %lld)", (long long)i->rs, (long long)i->cs, (long long)i->ks); break;
    case 'i': snU_putf(b, "%lld", (long long)i->imm); break;
    case 'f': snU_puts(b, snU_num(num, i->f, false)); break;
    case 'a': snU_putf(b, "axis(%lld)", (long long)i->imm); break;
    case 'r': snU_putf(b, "stream(%lld)", (long long)i->imm); break;
    case 'c': snU_putf(b, "clamp(%lld)", (long long)i->imm); break;
    default: put_value(b, i->a[f - '0']);
    }
}

static void put_ins(StrBuf *b, const Tile *t, TVal x, int depth)
{
    const TIns *i = &t->ins.v[x];
    snU_putf(b, "%*s", depth * 2, "");
    if (snT_op_kind(i->op) == 'V' || i->op == T_for) snU_putf(b, "%%%u = ", x);
    snU_puts(b, snT_op_name(i->op));
    if (i->op == T_ew) snU_putf(b, ".%s", fn_names[i->fn]);
    if (i->op == T_reduce) snU_putf(b, ".%s", red_names[i->red]);
    const char *sep = " ";
    for (const char *f = form[i->op]; *f; f++) {
        if (*f == 'T') { snU_puts(b, " "), put_type(b, i->type); continue; }
        if (i->op == T_ew && *f > '0' && !i->a[*f - '0']) continue;
        if (strchr("xkpd", *f)) {
            for (int n = 0; n < 2; n++)
                if (i->imm >> n & 1) snU_putf(b, "%s%s", sep, flag_words[(int)*f][n]), sep = ", ";
            continue;
        }
        snU_puts(b, sep);
        put_field(b, t, i, *f, f[1]);
        sep = ", ";
        if (*f == 'v') f++;
    }
    snU_puts(b, "\n");
}

void snT_print(StrBuf *b, const Tile *t)
{
    snU_putf(b, "kernel %s(", snU_str(t->ctx, t->name));
    for (uint32_t p = 0; p < t->params.n; p++) {
        const TParam *q = &t->params.v[p];
        snU_putf(b, "%s%s%s: %s[%lld]", p ? ", " : "", q->local ? "local " : q->written ? "out " : "", snU_str(t->ctx, q->name),
                 snG_dtype_name((Dtype)q->dtype), (long long)q->count);
        if (q->align) snU_putf(b, " align %d", q->align);
    }
    snU_puts(b, ") grid(");
    for (int d = 0; d < t->ngrid; d++) snU_putf(b, "%s%lld", d ? ", " : "", (long long)t->grid[d]);
    snU_puts(b, ") {\n");
    int depth = 1;
    for (TVal x = 1; x < t->ins.n; x++) {
        int op = t->ins.v[x].op;
        if (op == T_end) depth--;
        put_ins(b, t, x, depth);
        if (op == T_for || op == T_if) depth++;
    }
    snU_puts(b, "}\n");
}

/* -- Parsing --------------------------------------------------------------------------------------------------- */

typedef struct Reader {
    sn_ctx *c;
    Tile *t;
    const char *file, *s, *end;
    uint32_t line;
    VEC(TVal) names;                 /* %n in the text -> value */
} Reader;

_Noreturn static void bad(Reader *r, const char *what)
{
    snU_fail(r->c, SN_PARSE, snU_loc(r->c, snU_symz(r->c, r->file), r->line, 0, 0), "%s", what);
}

static void space(Reader *r)
{
    while (r->s < r->end) {
        if (*r->s == '#') while (r->s < r->end && *r->s != '\n') r->s++;
        else if (isspace((unsigned char)*r->s)) r->line += *r->s++ == '\n';
        else break;
    }
}

static bool take(Reader *r, const char *text)
{
    size_t n = strlen(text);
    space(r);
    if ((size_t)(r->end - r->s) < n || memcmp(r->s, text, n)) return false;
    r->s += n;
    return true;
}

static void need(Reader *r, const char *text)
{
    char what[64];
    snprintf(what, sizeof what, "'%s' is missing", text);
    if (!take(r, text)) bad(r, what);
}

static const char *word(Reader *r, char buf[80])
{
    size_t n = 0;
    space(r);
    while (r->s < r->end && n < 79 && (isalnum((unsigned char)*r->s) || *r->s == '_' || *r->s == '.' || *r->s == '-' || *r->s == '+'))
        buf[n++] = *r->s++;
    buf[n] = 0;
    if (!n) bad(r, "a word is missing");
    return buf;
}

static int64_t number(Reader *r)
{
    char buf[80], *end;
    int64_t n = strtoll(word(r, buf), &end, 10);
    if (*end) bad(r, "not an integer");
    return n;
}

static Dtype dtype(Reader *r)
{
    char buf[80];
    word(r, buf);
    Dtype d = snG_dtype_of(buf, strlen(buf));
    if (!d) bad(r, "unknown dtype");
    return d;
}

static TVal value(Reader *r)
{
    if (!take(r, "%")) {
        if (number(r)) bad(r, "a value is missing");
        return 0;
    }
    int64_t n = number(r);
    if (n <= 0 || n >= r->names.n || !r->names.v[n]) bad(r, "no such value");
    return r->names.v[n];
}

static TType type(Reader *r)
{
    if (take(r, "idx")) return (TType){ 0, 1, 1 };
    TType t = { .dtype = (uint8_t)dtype(r) };
    need(r, "[");
    int64_t rows = number(r);
    need(r, ",");
    int64_t cols = number(r);
    need(r, "]");
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX || rows * cols > INT32_MAX) bad(r, "shape out of range");
    t.r = (int32_t)rows, t.c = (int32_t)cols;
    return t;
}

static int find(const char *name, const char *const *list, int n)
{
    for (int k = 0; k < n; k++) if (list[k] && !strcmp(list[k], name)) return k;
    return -1;
}

static void field(Reader *r, TIns *i, char f, char next)
{
    char buf[80];
    switch (f) {
    case 'B': {
        Sym s = snU_symz(r->c, word(r, buf));
        for (i->buf = 0; (uint32_t)i->buf < r->t->params.n && r->t->params.v[i->buf].name != s; ) i->buf++;
        break;
    }
    case 'v': need(r, "valid("), i->a[next - '0'] = value(r), need(r, ","), i->a[next - '0' + 1] = value(r), need(r, ")"); break;
    case 's': case 'S':
        need(r, "strides("), i->rs = number(r), need(r, ","), i->cs = number(r);
        if (f == 'S') need(r, ","), i->ks = number(r);
        need(r, ")");
        break;
    case 'i': i->imm = number(r); break;
    case 'f': i->f = strtod(word(r, buf), NULL); break;
    case 'a': need(r, "axis("), i->imm = number(r), need(r, ")"); break;
    case 'r': need(r, "stream("), i->imm = number(r), need(r, ")"); break;
    case 'c': need(r, "clamp("), i->imm = number(r), need(r, ")"); break;
    default: i->a[f - '0'] = value(r);
    }
}

static void op_name(Reader *r, TIns *i)
{
    char buf[80], *dot;
    word(r, buf);
    if ((dot = strchr(buf, '.')) != NULL) *dot++ = 0;
    for (i->op = 1; i->op < T_NOPS && strcmp(snT_op_name(i->op), buf); ) i->op++;
    if (i->op == T_NOPS) bad(r, "unknown op");
    if ((i->op == T_ew || i->op == T_reduce) != (dot != NULL)) bad(r, "ew and reduce, and only they, name a function");
    int k = i->op == T_ew ? find(dot, fn_names, S_N) : i->op == T_reduce ? find(dot, red_names, 6) : 0;
    if (k < 0) bad(r, "unknown function");
    if (i->op == T_ew) i->fn = (uint8_t)k;
    if (i->op == T_reduce) i->red = (uint8_t)k;
}

static void fields(Reader *r, TIns *i)
{
    bool first = true;
    for (const char *f = form[i->op]; *f; f++) {
        if (*f == 'T') { i->type = type(r); continue; }
        if (strchr("xkpd", *f)) {
            for (int n = 0; n < 2; n++) {
                Reader back = *r;
                if (*flag_words[(int)*f][n] && (first || take(r, ",")) && take(r, flag_words[(int)*f][n])) i->imm |= 1 << n;
                else r->s = back.s, r->line = back.line;
            }
            continue;
        }
        if (!first && !take(r, ",")) {
            if (i->op != T_ew) bad(r, "',' is missing");
            break;
        }
        field(r, i, *f, f[1]);
        first = false;
        if (*f == 'v') f++;
    }
}

static void instruction(Reader *r, int *depth)
{
    TIns i = { 0 };
    int64_t name = 0;
    if (take(r, "%")) {
        name = number(r);
        if (name <= 0 || name > 1 << 24) bad(r, "value number out of range");
        need(r, "=");
    }
    op_name(r, &i);
    if ((snT_op_kind(i.op) == 'V' || i.op == T_for) != (name != 0)) bad(r, "this op has no result, or its result has no name");
    fields(r, &i);
    if (i.op == T_for || i.op == T_if) ++*depth;
    if (i.op == T_end && --*depth < 0) bad(r, "end closes nothing");
    const char *wrong = snT_misfit(r->t, &i);
    if (wrong) bad(r, wrong);
    TVal v = snT_add(r->t, &i);
    while (r->names.n <= (uint64_t)name) PUSH(r->t->arena, r->names, 0);
    r->names.v[name] = v;
}

static int32_t alignment(Reader *r)
{
    int64_t n = number(r);
    if (n < 1 || n > 4096 || n & (n - 1)) bad(r, "an alignment is a power of two, at most 4096");
    return (int32_t)n;
}

static void header(Reader *r, Arena *a)
{
    char buf[80];
    need(r, "kernel");
    r->t = snT_new(r->c, a, "text", word(r, buf));
    need(r, "(");
    while (!take(r, ")")) {
        bool local = take(r, "local "), written = !local && take(r, "out ");
        word(r, buf);
        need(r, ":");
        Dtype d = dtype(r);
        need(r, "[");
        int64_t count = number(r);
        if (local) snT_local(r->t, buf, d, count);
        else snT_param(r->t, buf, d, count, written);
        need(r, "]");
        if (take(r, "align")) r->t->params.v[r->t->params.n - 1].align = alignment(r);
        take(r, ",");
    }
    need(r, "grid(");
    while (!take(r, ")")) {
        if (r->t->ngrid == MAX_RANK) bad(r, "too many grid dimensions");
        r->t->grid[r->t->ngrid++] = number(r);
        take(r, ",");
    }
    need(r, "{");
}

Tile *snT_parse(sn_ctx *c, Arena *a, const char *file, const char *text, size_t n)
{
    Reader r = { .c = c, .file = file, .s = text, .end = text + n, .line = 1 };
    header(&r, a);
    int depth = 0;
    while (!take(&r, "}")) {
        if (r.s >= r.end) bad(&r, "the program is not closed");
        instruction(&r, &depth);
    }
    if (depth) bad(&r, "a for or if is not closed");
    space(&r);
    if (r.s < r.end) bad(&r, "text after the program");
    return r.t;
}

/* -- Verifying ---------------------------------------------------------------------------------------------------- */

void snT_verify(const Tile *t)
{
    Tile upto = *t;                                       /* what an instruction may see: those before it */
    TVal open[64], depth = 0;
    ArenaMark mark = snU_mark(&t->ctx->scratch);
    TVal *owner = NEWN(&t->ctx->scratch, TVal, t->ins.n);
    for (TVal x = 1; x < t->ins.n; x++) {
        const TIns *i = &t->ins.v[x];
        upto.ins.n = x;
        const char *wrong = snT_misfit(&upto, i);
        if (i->op == T_end && depth-- == 0) wrong = "end closes nothing", depth = 0;
        owner[x] = i->op == T_for ? x : depth ? open[depth - 1] : 0;
        for (int k = 0; k < snT_op_args(i->op) && !wrong; k++) {
            TVal o = i->a[k] ? owner[i->a[k]] : 0;
            bool visible = i->a[k] < x && o == 0;
            for (TVal d = 0; d < depth; d++) visible |= open[d] == o || open[d] == i->a[k];
            if (!visible) wrong = "an operand is not visible here";
        }
        if (i->op == T_for || i->op == T_if) {
            if (depth == 64) wrong = "nested too deep";
            else open[depth++] = x;                       /* a for's index lives in its own region */
        }
        SN_ASSERT(!wrong, "tile %s: %%%u = %s: %s", snU_str(t->ctx, t->name), x, snT_op_name(i->op), wrong);
    }
    SN_ASSERT(!depth, "tile %s: a for or if is not closed", snU_str(t->ctx, t->name));
    snU_reset(&t->ctx->scratch, mark);
}
