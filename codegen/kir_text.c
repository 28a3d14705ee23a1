/* kir_text.c: kernel IR as text, and the verifier. In: a kernel or a text. Out: a text or a
   kernel.

   One instruction a line; a value is named by its index, so print(parse(t)) = t for a printed t.
   The parser takes any numbering, skips white space and # comments, and reports "file:line:
   error: ..." through the context. Every parsed kernel is verified; the verifier looks at what
   single instructions cannot show: nesting, visibility, scratch bounds.

     kernel scale(x: f32, out y: f32) scratch 0 {
       %1 = param f32* 0
       %2 = task i64 0
       %3 = load f32x8 %1, %2, %9 align 8          mask %9, aligned to 8 elements
       %4 = shuffle f32x8 %3, [7 6 5 4 3 2 1 0]
       %5 = extract f32 %4, 3
       %6 = for i64 %2, %7, %8 unroll 4
       end
     } */
#include "codegen/kir.h"
#include <ctype.h>

/* -- Print ------------------------------------------------------------------------------------- */

static void put_type(StrBuf *b, const KIns *i) {
    KType t = i->type;
    if (t.kind == K_PTR) snU_putf(b, " %s%s*", snK_kind_name(i->mem), i->space ? " shared" : "");
    else if (t.lanes > 1) snU_putf(b, " %sx%d", snK_kind_name(t.kind), t.lanes);
    else snU_putf(b, " %s", snK_kind_name(t.kind));
}

static void put_name(StrBuf *b, const char *s) {
    if (!*s || isdigit((unsigned char)*s)) snU_puts(b, "_");
    for (; *s; s++) {
        char ch = isalnum((unsigned char)*s) || *s == '.' || *s == '$' ? *s : '_';
        snU_put(b, &ch, 1);
    }
}

static bool is_float(int kind) { return kind == K_F32 || kind == K_BF16 || kind == K_F16; }

/* Ops of a GPU that always say their imm; of these, the ones whose operands come before it. */
static bool is_wait(int op) { return op == K_cp_wait; }
static bool has_number(int op) {
    return op == K_shfl || op == K_mma || op == K_ldmatrix || op == K_cp_async;
}

static void put_ins(StrBuf *b, const Kernel *k, KVal v) {
    const KIns *i = &k->ins.v[v];
    bool value = i->type.kind != 0;
    if (value) snU_putf(b, "%%%u = ", v);
    snU_puts(b, snK_op_name(i->op));
    if (value) put_type(b, i);
    const char *sep = " ";
    for (int n = 0; n < 4 && i->a[n]; n++, sep = ", ") snU_putf(b, "%s%%%u", sep, i->a[n]);
    if (i->op == K_const && is_float(i->type.kind)) {
        char num[40];
        snU_putf(b, " %s", snU_num(num, i->f, i->type.kind == K_F32));
    } else if ((i->op >= K_const && i->op <= K_sysarg) || is_wait(i->op)) {
        snU_putf(b, " %lld", (long long)i->imm);
    } else if (i->op == K_extract || has_number(i->op)) {
        snU_putf(b, ", %lld", (long long)i->imm);
    } else if (i->op == K_shuffle) {
        for (int n = 0; n < i->type.lanes; n++)
            snU_putf(b, "%s%d", n ? " " : ", [", k->shuffles.v[i->imm].lane[n]);
        snU_puts(b, "]");
    } else if (i->op == K_prefetch) {
        if (i->imm) snU_puts(b, " write");
    } else if (i->imm) {
        snU_putf(b, " %s %lld", i->op == K_for ? "unroll" : "align", (long long)i->imm);
    }
    snU_puts(b, "\n");
}

void snK_print(StrBuf *b, const Kernel *k) {
    snU_puts(b, "kernel ");
    put_name(b, snU_str(k->ctx, k->name));
    for (uint32_t p = 0; p < k->params.n; p++) {
        snU_puts(b, p ? ", " : "(");
        if (k->params.v[p].written) snU_puts(b, "out ");
        put_name(b, snU_str(k->ctx, k->params.v[p].name));
        snU_putf(b, ": %s", snK_kind_name(k->params.v[p].mem));
    }
    snU_putf(b, "%s) scratch %lld", k->params.n ? "" : "(", (long long)k->scratch);
    if (k->threads) snU_putf(b, " threads %d shared %lld", k->threads, (long long)k->shared);
    snU_puts(b, " {\n");
    int depth = 1;
    for (KVal v = 1; v < k->ins.n; v++) {
        int op = k->ins.v[v].op;
        if (op == K_end || op == K_else) depth--;
        for (int n = 0; n < depth; n++) snU_puts(b, "  ");
        put_ins(b, k, v);
        if (op == K_for || op == K_if || op == K_else) depth++;
    }
    snU_puts(b, "}\n");
}

/* -- Verify ------------------------------------------------------------------------------------ */

enum { MAX_DEPTH = 200 };
typedef struct Regions {
    uint32_t *of;                    /* region of each instruction; 0 = the kernel */
    uint32_t open[MAX_DEPTH];        /* regions around the current place, outermost first */
    uint8_t op[MAX_DEPTH];           /* K_for, K_if, K_else */
    int depth;
    uint32_t last;
} Regions;

static bool is_open(const Regions *r, uint32_t region) {
    for (int n = r->depth - 1; n >= 0; n--)
        if (r->open[n] == region) return true;
    return region == 0;
}

static const char *enter(Regions *r, int op) {
    if (op == K_else) {
        if (!r->depth || r->op[r->depth - 1] != K_if) return "else without if";
    } else if (r->depth++ == MAX_DEPTH) {
        r->depth = MAX_DEPTH;
        return "nested too deeply";
    }
    r->open[r->depth - 1] = ++r->last;
    r->op[r->depth - 1] = (uint8_t)op;
    return NULL;
}

/* A load or store at a constant place of scratch or shared memory must lie inside it. */
static const char *check_bounds(const Kernel *k, const KIns *i) {
    int64_t at;
    bool store = i->op == K_store;
    if ((i->op != K_load && !store) || !snK_const_int(k, i->a[1], &at) || i->a[store ? 3 : 2])
        return NULL;
    const KIns *p = &k->ins.v[i->a[0]];
    if (p->op != K_scratch && p->op != K_shared) return NULL;
    KType t = store ? snK_type(k, i->a[2]) : i->type;
    int64_t size = snK_kind_bytes(t.kind), room = p->op == K_shared ? k->shared : k->scratch;
    bool inside = at >= -(p->imm / size) && at <= room && p->imm + (at + t.lanes) * size <= room;
    if (inside) return NULL;
    return p->op == K_shared ? "load or store outside the block's shared memory"
                             : "load or store outside the kernel's scratch";
}

static const char *check_one(const Kernel *k, Regions *r, KVal v, char err[256]) {
    const KIns *i = &k->ins.v[v];
    if (!snK_check_ins(k, v, i, err)) return err;
    for (int n = 0; n < 4; n++) {
        if (!i->a[n]) continue;
        int def = k->ins.v[i->a[n]].op;
        bool leaf = def >= K_const && def <= K_lane;
        if (!leaf && !is_open(r, r->of[i->a[n]])) {
            snprintf(err, 256, "%%%u is not visible here: its region is closed", i->a[n]);
            return err;
        }
    }
    r->of[v] = r->depth ? r->open[r->depth - 1] : 0;
    const char *bad = check_bounds(k, i);
    if (bad) return bad;
    if (i->op == K_end) return r->depth-- > 0 ? NULL : (r->depth = 0, "end without for or if");
    if (i->op != K_for && i->op != K_if && i->op != K_else) return NULL;
    bad = enter(r, i->op);
    if (i->op == K_for && !bad) r->of[v] = r->open[r->depth - 1];   /* the counter lives inside */
    return bad;
}

KVal snK_check(const Kernel *k, char err[256]) {
    Regions r = { .of = calloc(k->ins.n + 1, sizeof *r.of) };
    const char *bad = r.of ? NULL : "out of memory";
    KVal v = 1;
    for (; v < k->ins.n && !bad; v++) bad = check_one(k, &r, v, err);
    if (!bad && r.depth) bad = "for or if is not closed";
    if (bad && bad != err) snprintf(err, 256, "%s", bad);
    free(r.of);
    return bad ? v - 1 + (v == 1) : 0;
}

void snK_verify(const Kernel *k) {
    char err[256];
    KVal at = snK_check(k, err);
    if (!at) return;
    StrBuf b = {0};
    if (at < k->ins.n) put_ins(&b, k, at);
    snU_abort(__FILE__, __LINE__, "kernel %s: %s\n  %s", snU_str(k->ctx, k->name), err,
              b.s ? b.s : "");
}

/* -- Parse ------------------------------------------------------------------------------------- */

typedef struct Reader {
    sn_ctx *c;
    Kernel *k;
    Sym file;
    const char *p, *end;
    uint32_t line;
    HashMap ids;                     /* written number -> instruction */
    VEC(uint32_t) lines;             /* of each instruction */
} Reader;

static _Noreturn void fail_at(Reader *r, const char *what) {
    snU_fail(r->c, SN_PARSE, snU_loc(r->c, r->file, r->line, 0, 0), "%s", what);
}

static _Noreturn void expected(Reader *r, const char *what) {
    char text[128], got[24] = "the end";
    int n = 0;
    while (r->p + n < r->end && n < 16 && isgraph((unsigned char)r->p[n])) got[n] = r->p[n], n++;
    if (n) got[n] = 0;
    snprintf(text, sizeof text, "%s expected, found %s", what, got);
    fail_at(r, text);
}

static void skip(Reader *r) {
    for (; r->p < r->end; r->p++) {
        if (*r->p == '#') while (r->p + 1 < r->end && r->p[1] != '\n') r->p++;
        else if (*r->p == '\n') r->line++;
        else if (*r->p != ' ' && *r->p != '\t' && *r->p != '\r') return;
    }
}

static bool accept(Reader *r, char ch) {
    skip(r);
    if (r->p == r->end || *r->p != ch) return false;
    r->p++;
    return true;
}

static void expect(Reader *r, char ch) {
    char what[4] = { '\'', ch, '\'' };
    if (!accept(r, ch)) expected(r, what);
}

static size_t word(Reader *r, const char **s) {
    skip(r);
    *s = r->p;
    if (r->p < r->end && isdigit((unsigned char)*r->p)) return 0;
    while (r->p < r->end &&
           (isalnum((unsigned char)*r->p) || *r->p == '_' || *r->p == '.' || *r->p == '$'))
        r->p++;
    return (size_t)(r->p - *s);
}

static bool accept_word(Reader *r, const char *w) {
    const char *s;
    size_t n = word(r, &s);
    if (n == strlen(w) && !memcmp(s, w, n)) return true;
    r->p = s;
    return false;
}

static Sym name(Reader *r, const char *what) {
    const char *s;
    size_t n = word(r, &s);
    if (!n) expected(r, what);
    return snU_sym(r->c, s, n);
}

/* The text of a number, 0-terminated, for strtoll and strtod. */
static const char *number_text(Reader *r, char buf[64]) {
    skip(r);
    size_t n = 0;
    while (r->p < r->end && n < 63 &&
           (isalnum((unsigned char)*r->p) || *r->p == '.' || *r->p == '-' || *r->p == '+'))
        buf[n++] = *r->p++;
    buf[n] = 0;
    return buf;
}

static int64_t integer(Reader *r) {
    char buf[64], *stop;
    const char *start = (skip(r), r->p);
    long long v = strtoll(number_text(r, buf), &stop, 10);
    if (!*buf || *stop) r->p = start, expected(r, "an integer");
    return v;
}

static double real(Reader *r) {
    char buf[64], *stop;
    const char *start = (skip(r), r->p);
    double v = strtod(number_text(r, buf), &stop);
    if (!*buf || *stop) r->p = start, expected(r, "a number");
    return v;
}

static uint32_t id(Reader *r) {
    expect(r, '%');
    if (r->p == r->end || !isdigit((unsigned char)*r->p)) expected(r, "a value's number");
    int64_t v = integer(r);
    if (v < 1 || v > UINT32_MAX - 1) fail_at(r, "a value's number is out of range");
    return (uint32_t)v;
}

static KVal operand(Reader *r) {
    uint32_t n = id(r);
    KVal v = snU_find(&r->ids, n);
    if (!v) {
        char text[64];
        snprintf(text, sizeof text, "%%%u is not defined", n);
        fail_at(r, text);
    }
    return v;
}

static int kind(Reader *r, int *lanes) {
    const char *s;
    size_t n = word(r, &s), m = 0;
    int found = 0;
    for (int kd = K_F32; kd <= K_U8; kd++) {
        size_t len = strlen(snK_kind_name(kd));
        if (kd != K_PTR && n >= len && len > m && !memcmp(s, snK_kind_name(kd), len))
            found = kd, m = len;
    }
    *lanes = 1;
    bool ok = found != 0;
    if (ok && n > m) {
        *lanes = 0;
        ok = s[m] == 'x' && n - m <= 3;
        for (size_t i = m + 1; i < n && ok; i++) {
            ok = isdigit((unsigned char)s[i]) != 0;
            *lanes = *lanes * 10 + (s[i] - '0');
        }
        ok = ok && *lanes > 1 && *lanes <= 64;
    }
    if (!ok) r->p = s, expected(r, "a type");
    return found;
}

static void type(Reader *r, KIns *i) {
    int lanes, kd = kind(r, &lanes);
    i->type = kt((KKind)kd, lanes);
    if (lanes != 1) return;
    bool shared = accept_word(r, "shared");
    if (shared) expect(r, '*');
    else if (!accept(r, '*')) return;
    i->type = kt(K_PTR, 1);
    i->mem = (uint8_t)kd;
    i->space = shared ? K_SHARED : K_GLOBAL;
}

static int op_code(Reader *r) {
    const char *s;
    size_t n = word(r, &s);
    for (int op = 1; op < K_NOPS; op++)
        if (strlen(snK_op_name(op)) == n && !memcmp(s, snK_op_name(op), n)) return op;
    r->p = s;
    expected(r, "an op");
}

static int64_t constant(Reader *r, int kd) {
    int64_t v = integer(r);
    bool ok = kd == K_I32    ? v == (int32_t)v
              : kd == K_U32  ? v == (int64_t)(uint32_t)v
              : kd == K_U8   ? v == (uint8_t)v
              : kd == K_BOOL ? v == (v != 0)
                             : true;
    if (!ok) fail_at(r, "the constant does not fit its type");
    return v;
}

static int64_t lane_table(Reader *r, int lanes) {
    KShuffle s = {{0}};
    Kernel *k = r->k;
    expect(r, '[');
    for (int n = 0; n < lanes; n++) {
        int64_t v = integer(r);
        if (v < 0 || v > 127) fail_at(r, "lane out of range");
        s.lane[n] = (uint8_t)v;
    }
    expect(r, ']');
    uint32_t at = 0;
    while (at < k->shuffles.n && memcmp(&k->shuffles.v[at], &s, sizeof s)) at++;
    if (at == k->shuffles.n) PUSH(k->arena, k->shuffles, s);
    return at;
}

static void immediates(Reader *r, KIns *i) {
    if (i->op == K_const && is_float(i->type.kind)) {
        i->f = real(r);
        if (i->type.kind == K_F32) i->f = (double)(float)i->f;
    } else if (i->op == K_const) i->imm = constant(r, i->type.kind);
    else if ((i->op >= K_param && i->op <= K_sysarg) || is_wait(i->op)) i->imm = integer(r);
    else if (i->op == K_extract || has_number(i->op)) i->imm = integer(r);
    else if (i->op == K_shuffle) i->imm = lane_table(r, i->type.lanes);
    else if (i->op == K_for && accept_word(r, "unroll")) i->imm = integer(r);
    else if (i->op >= K_load && i->op <= K_scatter && accept_word(r, "align")) i->imm = integer(r);
    else if (i->op == K_prefetch && accept_word(r, "write")) i->imm = 1;
}

static void instruction(Reader *r) {
    KIns i = {0};
    uint32_t number = 0;
    skip(r);
    if (r->p < r->end && *r->p == '%') {
        number = id(r);
        expect(r, '=');
        if (snU_find(&r->ids, number)) fail_at(r, "the value is defined twice");
    }
    const uint32_t line = r->line;
    i.op = (uint8_t)op_code(r);
    bool value = snK_has_value(i.op);
    if (value != (number != 0))
        fail_at(r, value ? "this op gives a value: write %N = ..." : "this op gives no value");
    if (value) type(r, &i);
    bool tail = i.op == K_extract || i.op == K_shuffle || has_number(i.op);   /* what follows the last comma is no operand */
    int most = snK_nargs(i.op), n = 0;
    skip(r);
    if (most && r->p < r->end && *r->p == '%') {
        i.a[n++] = operand(r);
        while (accept(r, ',')) {
            skip(r);
            if (tail && r->p < r->end && *r->p != '%') { tail = false; break; }
            if (n == most) fail_at(r, "too many operands");
            i.a[n++] = operand(r);
        }
    }
    if (tail) expected(r, "','");
    immediates(r, &i);
    char err[256];
    if (!snK_check_ins(r->k, r->k->ins.n, &i, err)) r->line = line, fail_at(r, err);
    KVal v = snK_push(r->k, i);
    PUSH(r->k->arena, r->lines, line);
    if (number) snU_insert(r->k->arena, &r->ids, number, v);
}

static void gpu_header(Reader *r) {
    int64_t threads = integer(r);
    if (threads < 1 || threads > 1024) fail_at(r, "a block has 1 to 1024 threads");
    if (!accept_word(r, "shared")) expected(r, "shared");
    r->k->threads = (int)threads;
    r->k->shared = integer(r);
    if (r->k->shared < 0 || r->k->shared > 1 << 20) fail_at(r, "shared size out of range");
}

static void header(Reader *r) {
    if (!accept_word(r, "kernel")) expected(r, "kernel");
    r->k->name = name(r, "the kernel's name");
    expect(r, '(');
    while (!accept(r, ')')) {
        if (r->k->params.n) expect(r, ',');
        Sym s = name(r, "a parameter");
        skip(r);
        bool written = !strcmp(snU_str(r->c, s), "out") && r->p < r->end && *r->p != ':';
        if (written) s = name(r, "a parameter");
        expect(r, ':');
        int lanes, kd = kind(r, &lanes);
        if (lanes != 1) fail_at(r, "a parameter's elements are scalars");
        snK_param(r->k, snU_str(r->c, s), (KKind)kd, written);
    }
    if (!accept_word(r, "scratch")) expected(r, "scratch");
    r->k->scratch = integer(r);
    if (r->k->scratch < 0 || r->k->scratch > INT64_C(1) << 40)
        fail_at(r, "scratch size out of range");
    if (accept_word(r, "threads")) gpu_header(r);
    expect(r, '{');
}

Kernel *snK_parse(sn_ctx *c, Arena *a, const char *file, const char *text, size_t n) {
    Reader r = { .c = c,
                 .k = snK_new(c, a, ""),
                 .file = snU_symz(c, file),
                 .p = text,
                 .end = text + n,
                 .line = 1 };
    header(&r);
    while (!accept(&r, '}')) {
        if (r.p == r.end) expected(&r, "'}'");
        instruction(&r);
    }
    skip(&r);
    if (r.p != r.end) expected(&r, "the end");
    char err[256];
    KVal bad = snK_check(r.k, err);
    if (!bad) return r.k;
    r.line = bad <= r.lines.n ? r.lines.v[bad - 1] : 1;
    fail_at(&r, err);
}
