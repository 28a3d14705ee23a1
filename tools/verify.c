/* verify.c: a compiled graph against the reference evaluator.

   In:  a session, the graph that it should compute, and values for its leaves. Out: the number of outputs and updates that are
   further from the f64 evaluation than the tolerance of design.md 8 allows. The tolerance is derived, not chosen: the naive
   evaluation, every intermediate rounded to its dtype, says how much error the dtypes themselves cost. */
#include <math.h>
#include "tools/verify.h"

/* -- Memory <-> doubles -------------------------------------------------------------------------------------- */

static uint16_t half_bits(Dtype d, double v) {
    float f = (float)snG_round(d, v);
    uint32_t u;
    memcpy(&u, &f, 4);
    if (d == SN_BF16) return isnan(v) ? 0x7fc0 : (uint16_t)(u >> 16);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    if (isnan(v)) return 0x7e00;
    if (isinf(f)) return sign | 0x7c00;
    int e;
    double m = frexp(fabs((double)f), &e);
    if (m == 0) return sign;
    if (e < -13) return sign | (uint16_t)ldexp(m, e + 24);             /* subnormal: units of 2^-24 */
    return (uint16_t)(sign | (uint32_t)((e + 14) << 10) | ((uint32_t)ldexp(m, 11) & 0x3ff));
}

static double half_value(Dtype d, uint16_t h) {
    if (d == SN_BF16) {
        uint32_t u = (uint32_t)h << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
    int e = h >> 10 & 31, m = h & 0x3ff;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

void snV_pack(Dtype d, const double *v, int64_t n, void *out) {
    for (int64_t i = 0; i < n; i++) {
        switch (d) {
        case SN_F32: ((float *)out)[i] = (float)v[i]; break;
        case SN_BF16: case SN_F16: ((uint16_t *)out)[i] = half_bits(d, v[i]); break;
        case SN_I32: ((int32_t *)out)[i] = (int32_t)v[i]; break;
        case SN_U32: ((uint32_t *)out)[i] = (uint32_t)v[i]; break;
        case SN_BOOL: ((uint8_t *)out)[i] = v[i] != 0; break;
        default: SN_ASSERT(0, "no memory form for this dtype");
        }
    }
}

void snV_unpack(Dtype d, const void *in, int64_t n, double *v) {
    for (int64_t i = 0; i < n; i++) {
        switch (d) {
        case SN_F32: v[i] = ((const float *)in)[i]; break;
        case SN_BF16: case SN_F16: v[i] = half_value(d, ((const uint16_t *)in)[i]); break;
        case SN_I32: v[i] = ((const int32_t *)in)[i]; break;
        case SN_U32: v[i] = ((const uint32_t *)in)[i]; break;
        case SN_BOOL: v[i] = ((const uint8_t *)in)[i]; break;
        default: SN_ASSERT(0, "no memory form for this dtype");
        }
    }
}

/* -- Comparing --------------------------------------------------------------------------------------------------- */

double snV_ulp(Dtype d, double v) {
    int digits = d == SN_F32 ? 24 : d == SN_F16 ? 11 : 8, least = d == SN_F16 ? -24 : d == SN_F32 ? -149 : -133, e = least;
    if (v != 0) frexp(v, &e), e -= digits;
    return ldexp(1, e < least ? least : e);
}

static bool equal(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

Verdict snV_compare(Dtype d, const double *got, const double *f64, const double *typed, int64_t n) {
    Verdict v = { .ok = true };
    double largest = 0, worst = 0, sum = 0, naive = 0;
    for (int64_t i = 0; i < n; i++) {
        bool exact = !snG_is_float(d) || !isfinite(f64[i]) || !isfinite(typed[i]) || !isfinite(got[i]);
        if (exact) {
            if (v.ok && !equal(got[i], f64[i]) && !equal(got[i], typed[i])) v.ok = false, v.worst = i, v.rms = INFINITY;
            continue;
        }
        double e = fabs(got[i] - f64[i]), e0 = fabs(typed[i] - f64[i]);
        if (e > worst && v.ok) worst = e, v.worst = i;
        largest = fmax(largest, fabs(f64[i]));
        sum += e * e, naive += e0 * e0;
    }
    v.naive = n ? sqrt(naive / (double)n) : 0;
    if (!v.ok) return v;
    v.rms = n ? sqrt(sum / (double)n) : 0;
    v.bar = 2 * v.naive + 2 * snV_ulp(d, largest);
    v.ok = v.rms <= v.bar || !snG_is_float(d);
    return v;
}

/* -- Running ----------------------------------------------------------------------------------------------------- */

typedef struct Verify {
    sn_session *s;
    const char *name;
    const Graph *ref;
    const EvalEnv *env;
    Arena a;
    EvalVal *f64, *typed;
    bool verbose;
    StrBuf *report;
    int failed;
} Verify;

static int feed_leaf(Verify *v, const Leaf *l) {
    const char *name = snU_str(v->ref->ctx, l->name);
    const Type *t = snG_type(v->ref, l->node);
    int k = 0;
    while (k < v->env->n && strcmp(v->env->names[k], name) != 0) k++;
    if (k == v->env->n) return 0;
    size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
    void *data = snU_alloc(&v->a, bytes + 1);
    snV_pack(t->dtype, v->env->vals[k].v, snG_count(t), data);
    if (snG_node(v->ref, l->node)->op == OP_input) return sn_bind(v->s, v->name, name, data, bytes);
    return sn_write(v->s, name, data, bytes);
}

/* The evaluator sees what the program sees: values of the leaf's dtype. */
static EvalEnv rounded_env(Verify *v) {
    EvalEnv e = *v->env;
    EvalVal *vals = NEWN(&v->a, EvalVal, e.n + 1);
    for (int k = 0; k < e.n; k++) {
        vals[k] = (EvalVal){ snU_copy(&v->a, e.vals[k].v, sizeof(double) * (size_t)e.vals[k].n), e.vals[k].n };
        for (uint32_t i = 0; i < v->ref->leaves.n; i++) {
            const Leaf *l = &v->ref->leaves.v[i];
            if (strcmp(snU_str(v->ref->ctx, l->name), e.names[k]) != 0) continue;
            Dtype d = snG_type(v->ref, l->node)->dtype;
            for (int64_t j = 0; j < vals[k].n; j++) vals[k].v[j] = snG_round(d, vals[k].v[j]);
        }
    }
    e.vals = vals;
    return e;
}

static int check_value(Verify *v, const char *what, const char *name, NodeId id) {
    const Graph *g = v->ref;
    const Type *t = snG_type(g, id);
    int64_t n = snG_count(t);
    size_t bytes = (size_t)(n * snG_dtype_size(t->dtype));
    void *raw = snU_alloc(&v->a, bytes + 1);
    double *got = NEWN(&v->a, double, n + 1);
    int rc = sn_read(v->s, v->name, name, raw, bytes);
    if (rc < 0) return rc;
    snV_unpack(t->dtype, raw, n, got);
    Verdict r = snV_compare(t->dtype, got, v->f64[id].v, v->typed[id].v, n);
    v->failed += !r.ok;
    if (r.ok && !v->verbose) return 0;
    snU_putf(v->report, "%s %s %s %s ", r.ok ? "ok    " : "FAILED", v->name, what, name);
    snG_print_type(v->report, g->ctx, t);
    snU_putf(v->report, ": rms %.3g, allowed %.3g (naive %.3g)", r.rms, r.bar, r.naive);
    if (!r.ok) snU_putf(v->report, ", [%lld] is %.9g, should be %.9g", (long long)r.worst, got[r.worst], v->f64[id].v[r.worst]);
    snU_puts(v->report, "\n");
    return 0;
}

static int verify(Verify *v) {
    const Graph *g = v->ref;
    int rc = sn_init(v->s);
    for (uint32_t i = 0; i < g->leaves.n && rc >= 0; i++) rc = feed_leaf(v, &g->leaves.v[i]);
    if (rc >= 0) rc = sn_step(v->s, v->env->step, v->env->micro);
    if (rc >= 0) rc = sn_run(v->s, v->name);
    if (rc < 0) return rc;
    EvalEnv env = rounded_env(v);
    v->f64 = NEWN(&v->a, EvalVal, g->nodes.n);
    v->typed = NEWN(&v->a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, &env, &v->a, v->f64);
    snG_eval(g, EVAL_TYPED, &env, &v->a, v->typed);
    for (uint32_t i = 0; i < g->outputs.n && rc >= 0; i++)
        rc = check_value(v, "output", snU_str(g->ctx, g->outputs.v[i].name), g->outputs.v[i].node);
    for (uint32_t i = 0; i < g->updates.n && rc >= 0; i++)
        rc = check_value(v, "update", snU_str(g->ctx, snG_leaf(g, g->updates.v[i].target)->name), g->updates.v[i].value);
    return rc < 0 ? rc : v->failed;
}

int snV_verify(sn_session *s, const char *name, const Graph *ref, const EvalEnv *env, bool verbose, StrBuf *report) {
    Verify v = { .s = s, .name = name, .ref = ref, .env = env, .verbose = verbose, .report = report };
    int rc = verify(&v);
    if (rc < 0) snU_putf(report, "FAILED %s: %s\n", name, sn_session_error(s));
    snU_free_arena(&v.a);
    return rc;
}
