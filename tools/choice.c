/* choice.c: the options of questions scored, and what is said of a model by them.

   In:  questions, a scorer. Out: nats of every option; accuracies, gaps.

   A passage is context, option and suffix, cut to the window: the context from the left, the suffix from the right, the same for all
   options of a question. Where every option is one token and nothing comes after, one passage does for all. */
#include "tools/choice.h"

#include <math.h>

enum { CHUNK = 512 };                /* questions whose passages are in memory together */

/* -- Tokens ---------------------------------------------------------------------------------------------------------- */

typedef struct Work {
    Questions *qs;
    Scorer *s;
    VEC(Passage) p;
    VEC(Option *) of;                /* whose passage it is */
    Arena a;
} Work;

/* `given`: the tokens, where the question is made of tokens. */
static int encode(const Work *w, const char *text, const Tokens *given, Tokens *out) {
    if (!given->v) return w->s->tok->encode(w->s->tok, text, strlen(text), out);
    *out = (Tokens){ malloc(sizeof *out->v * (size_t)(given->n + 1)), given->n };
    if (!out->v) return cmd_fail("out of memory");
    memcpy(out->v, given->v, sizeof *out->v * (size_t)given->n);
    return 0;
}

/* Context and option are encoded together where the context's tokens are the beginning of that, as the harness does; else each alone. */
static int encode_option(Work *w, const Tokens *context, const Question *q, const Option *o, Tokens *out) {
    StrBuf b = {0};
    Tokens both = {0};
    if (o->ids.v) {
        *out = o->ids;
        return 0;
    }
    snU_putf(&b, "%s%s", q->context, o->text);
    int rc = w->s->tok->encode(w->s->tok, b.s, b.n, &both);
    snU_free_buf(&b);
    bool begins = !rc && both.n > context->n && (!context->n || !memcmp(both.v, context->v, sizeof *both.v * (size_t)context->n));
    if (begins) {
        *out = (Tokens){ snU_copy(&w->a, both.v + context->n, sizeof *both.v * (size_t)(both.n - context->n)), both.n - context->n };
    } else if (!rc && !(rc = encode(w, o->text, &o->ids, out))) {
        int32_t *own = out->v;
        out->v = snU_copy(&w->a, own, sizeof *own * (size_t)out->n);
        free(own);
    }
    free(both.v);
    return rc;
}

/* -- Passages --------------------------------------------------------------------------------------------------------- */

static int too_long(const Question *q, int64_t n, int64_t window) {
    fprintf(stderr, "%s:%d: error: an option has %lld tokens, the window %lld; --window N reads more\n", q->path, q->line,
            (long long)n, (long long)window);
    return EXIT_FAILED;
}

/* right: tokens of the suffix; the option's length is in `option`. */
static Passage passage(Work *w, Question *q, const Tokens *context, const Tokens *option, const Tokens *suffix, int64_t right) {
    int64_t left = w->s->window - option->n - right;
    if (left > context->n) left = context->n;
    if (left < context->n || right < suffix->n) q->cut = true;
    int64_t n = left + option->n + right;
    int32_t *v = NEWN(&w->a, int32_t, n);
    if (left) memcpy(v, context->v + context->n - left, sizeof *v * (size_t)left);
    memcpy(v + left, option->v, sizeof *v * (size_t)option->n);
    if (right) memcpy(v + left + option->n, suffix->v, sizeof *v * (size_t)right);
    return (Passage){ .v = v, .n = n, .from = left, .to = left + option->n };
}

/* Options that differ in their last token alone, letters behind a blank: what they share is context, of the letters there is one each. */
static void share_beginning(Work *w, Question *q, Tokens *context, Tokens *option) {
    int64_t n = option[0].n - 1;
    for (int i = 0; i < q->noptions; i++)
        if (q->suffix || n < 1 || option[i].n != n + 1 || memcmp(option[i].v, option[0].v, sizeof *option->v * (size_t)n)) return;
    int32_t *v = NEWN(&w->a, int32_t, context->n + n);
    if (context->n) memcpy(v, context->v, sizeof *v * (size_t)context->n);
    memcpy(v + context->n, option[0].v, sizeof *v * (size_t)n);
    *context = (Tokens){ v, context->n + n };
    for (int i = 0; i < q->noptions; i++) option[i] = (Tokens){ option[i].v + n, 1 };
}

static bool all_single(const Question *q, const Tokens *option) {
    for (int i = 0; i < q->noptions; i++)
        if (option[i].n != 1) return false;
    return !q->suffix;
}

static void add_passages(Work *w, uint32_t number, const Tokens *context, const Tokens *option, const Tokens *suffix, int64_t right) {
    Question *q = &w->qs->q.v[number];
    bool together = all_single(q, option);
    for (int i = 0; i < (together ? 1 : q->noptions); i++) {
        Passage p = passage(w, q, context, &option[i], suffix, right);
        p.number = (uint64_t)number * 32 + (uint64_t)i;
        if (together) {
            int32_t *other = NEWN(&w->a, int32_t, q->noptions);
            for (int k = 0; k < q->noptions; k++) other[k] = option[k].v[0];
            p.other = other;
            p.other_nll = NEWN(&w->a, double, q->noptions);
            p.nother = q->noptions;
        }
        PUSH(&w->a, w->p, p);
        PUSH(&w->a, w->of, &q->option[i]);
    }
}

static int add_question(Work *w, uint32_t number) {
    Question *q = &w->qs->q.v[number];
    Tokens context = {0}, suffix = {0}, *option = NEWN(&w->a, Tokens, q->noptions);
    int64_t longest = 0, window = w->s->window;
    int rc = encode(w, q->context, &q->context_ids, &context);
    if (!rc && q->suffix) rc = encode(w, q->suffix, &q->suffix_ids, &suffix);
    for (int i = 0; i < q->noptions && !rc; i++) {
        rc = encode_option(w, &context, q, &q->option[i], &option[i]);
        if (option[i].n > longest) longest = option[i].n;
    }
    int32_t *own = context.v;
    if (!rc) share_beginning(w, q, &context, option);
    for (int i = 0; i < q->noptions; i++) q->option[i].tokens = option[i].n;
    if (!rc && longest > window) rc = too_long(q, longest, window);
    int64_t room = window - longest, right = suffix.n;
    if (right > room / 2 && right > room - context.n) right = room / 2 > room - context.n ? room / 2 : room - context.n;
    if (!rc) add_passages(w, number, &context, option, &suffix, right);
    free(own);
    free(suffix.v);
    return rc;
}

static void take_scores(Work *w) {
    for (uint32_t i = 0; i < w->p.n; i++) {
        const Passage *p = &w->p.v[i];
        Option *o = w->of.v[i];
        o->nll = p->nll;
        o->se = p->se;
        for (int k = 0; k < p->nother; k++) o[k].nll = p->other_nll[k];
    }
}

/* Short questions first, so that each chunk is run with the room it needs. */
typedef struct Length { size_t n; uint32_t number; } Length;
static int shorter(const void *a, const void *b) {
    const Length *x = a, *y = b;
    return x->n != y->n ? (x->n > y->n) - (x->n < y->n) : (x->number > y->number) - (x->number < y->number);
}

static void sort_by_length(const Questions *qs, Length *by) {
    for (uint32_t i = 0; i < qs->q.n; i++) {
        const Question *q = &qs->q.v[i];
        size_t most = 0;
        for (int k = 0; k < q->noptions; k++)
            if (strlen(q->option[k].text) > most) most = strlen(q->option[k].text);
        by[i] = (Length){ strlen(q->context) + most + (q->suffix ? strlen(q->suffix) : 0) + (size_t)q->context_ids.n, i };
    }
    qsort(by, qs->q.n, sizeof *by, shorter);
}

int questions_score(Questions *qs, Scorer *s) {
    int rc = 0;
    Length *by = malloc(sizeof *by * ((size_t)qs->q.n + 1));
    if (!by) return cmd_fail("out of memory");
    sort_by_length(qs, by);
    for (uint32_t first = 0; first < qs->q.n && !rc; first += CHUNK) {
        Work w = { .qs = qs, .s = s };
        for (uint32_t i = first; i < qs->q.n && i < first + CHUNK && !rc; i++) rc = add_question(&w, by[i].number);
        if (!rc) rc = scorer_run(s, w.p.v, w.p.n);
        if (!rc) take_scores(&w);
        snU_free_arena(&w.a);
    }
    free(by);
    return rc;
}

/* -- Accuracy ----------------------------------------------------------------------------------------------------------- */

static int least(const Question *q, bool per_char) {
    int at = 0;
    for (int i = 1; i < q->noptions; i++) {
        const Option *a = &q->option[i], *b = &q->option[at];
        if (per_char ? a->nll / a->chars < b->nll / b->chars : a->nll < b->nll) at = i;
    }
    return at;
}

static bool in_task(const Question *q, const char *task) { return !strcmp(q->task, task); }

ChoiceResult choice_result(const Questions *qs, const char *task) {
    ChoiceResult r = { .task = task };
    Sum right = {0}, wrong = {0}, gap = {0}, gap_token = {0};
    int64_t hits = 0, norm = 0, n = 0;
    for (uint32_t i = 0; i < qs->q.n; i++) {
        const Question *q = &qs->q.v[i];
        if (!in_task(q, task)) continue;
        double others = 0, others_token = 0, k = q->noptions - 1;
        for (int o = 0; o < q->noptions; o++)
            if (o != q->label) {
                others += q->option[o].nll / k;
                others_token += q->option[o].nll / (double)q->option[o].tokens / k;
            }
        const Option *o = &q->option[q->label];
        sum_put(&right, o->nll);
        sum_put(&wrong, others);
        sum_put(&gap, others - o->nll);
        sum_put(&gap_token, others_token - o->nll / (double)o->tokens);
        hits += least(q, false) == q->label;
        norm += least(q, true) == q->label;
        r.cut += q->cut;
        n++;
    }
    r.acc = share_of(hits, n);
    r.acc_norm = share_of(norm, n);
    r.right = sum_mean(&right);
    r.wrong = sum_mean(&wrong);
    r.gap = sum_mean(&gap);
    r.gap_token = sum_mean(&gap_token);
    return r;
}

/* -- MMLU: subjects and the four groups of its tables ------------------------------------------------------------------- */

static const struct { const char *group, *subjects; } GROUPS[] = {
    { "stem", " abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science college_mathematics college_physics "
              "computer_security conceptual_physics electrical_engineering elementary_mathematics high_school_biology high_school_chemistry "
              "high_school_computer_science high_school_mathematics high_school_physics high_school_statistics machine_learning " },
    { "humanities", " formal_logic high_school_european_history high_school_us_history high_school_world_history international_law jurisprudence "
                    "logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions " },
    { "social_sciences", " econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
                         "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
                         "security_studies sociology us_foreign_policy " },
    { "other", " business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing medical_genetics miscellaneous "
               "nutrition professional_accounting professional_medicine virology " },
};
enum { NGROUPS = sizeof GROUPS / sizeof *GROUPS };

static const char *group_of(const char *subject) {
    char word[128];
    snprintf(word, sizeof word, " %s ", subject);
    for (int i = 0; i < NGROUPS; i++)
        if (strstr(GROUPS[i].subjects, word)) return GROUPS[i].group;
    return NULL;
}

/* Shares of what `key` says of a question, by name in the order of first appearance. */
typedef struct Part { const char *name; int64_t hits, n; } Part;
typedef VEC(Part) Parts;

static Part *part_of(Arena *a, Parts *ps, const char *name) {
    for (uint32_t i = 0; i < ps->n; i++)
        if (!strcmp(ps->v[i].name, name)) return &ps->v[i];
    PUSH(a, *ps, ((Part){ name, 0, 0 }));
    return &ps->v[ps->n - 1];
}

static void split_mmlu(const Questions *qs, Arena *a, Parts *subjects, Parts *groups) {
    for (uint32_t i = 0; i < qs->q.n; i++) {
        const Question *q = &qs->q.v[i];
        if (!q->subject) continue;
        const char *group = group_of(q->subject);
        Part *p[2] = { part_of(a, subjects, q->subject), group ? part_of(a, groups, group) : NULL };
        for (int k = 0; k < 2; k++)
            if (p[k]) p[k]->n++, p[k]->hits += least(q, false) == q->label;
    }
}

static double mean_of_parts(const Parts *ps) {
    double sum = 0;
    for (uint32_t i = 0; i < ps->n; i++) sum += (double)ps->v[i].hits / (double)ps->v[i].n / ps->n;
    return sum;
}

/* -- Reports ----------------------------------------------------------------------------------------------------------- */

static json_t *share_json(Share s) {
    return json_pack("{s:f s:f s:f s:f s:I}", "p", s.p, "low", s.low, "high", s.high, "se", s.se, "n", (json_int_t)s.n);
}

static json_t *parts_json(const Parts *ps) {
    json_t *o = json_object();
    for (uint32_t i = 0; i < ps->n; i++) {
        json_t *name = json_bytes(ps->v[i].name, strlen(ps->v[i].name));
        json_object_set_new(o, json_string_value(name), share_json(share_of(ps->v[i].hits, ps->v[i].n)));
        json_decref(name);
    }
    return o;
}

static void print_json(const ChoiceResult *r, const Parts *subjects, const Parts *groups, json_t *more) {
    json_t *o = json_pack("{s:s s:o}", "kind", "choice", "task", json_bytes(r->task, strlen(r->task)));
    json_object_update(o, more);
    json_t *m = json_pack("{s:I s:f s:f s:f s:f s:f s:f s:f s:f}", "cut", (json_int_t)r->cut, "nll_right", r->right.mean, "nll_right_se", r->right.se,
                          "nll_wrong", r->wrong.mean, "nll_wrong_se", r->wrong.se, "gap", r->gap.mean, "gap_se", r->gap.se, "gap_token",
                          r->gap_token.mean, "gap_token_se", r->gap_token.se);
    json_object_set_new(o, "acc", share_json(r->acc));
    json_object_set_new(o, "acc_norm", share_json(r->acc_norm));
    json_object_update(o, m);
    json_decref(m);
    if (subjects->n) {
        json_object_set_new(o, "acc_mean_of_subjects", json_real(mean_of_parts(subjects)));
        json_object_set_new(o, "groups", parts_json(groups));
        json_object_set_new(o, "subjects", parts_json(subjects));
    }
    char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_PRESERVE_ORDER);
    puts(text);
    free(text);
    json_decref(o);
}

static void print_parts(const Parts *ps, const char *indent) {
    for (uint32_t i = 0; i < ps->n; i++) {
        Share s = share_of(ps->v[i].hits, ps->v[i].n);
        printf("%s%-38s %6lld  %.4f [%.4f, %.4f]\n", indent, ps->v[i].name, (long long)s.n, s.p, s.low, s.high);
    }
}

static void print_text(const ChoiceResult *r, const Parts *subjects, const Parts *groups, const char *prefix) {
    printf("%s%s: %lld questions: acc %.4f [%.4f, %.4f], acc_norm %.4f [%.4f, %.4f]\n", prefix, r->task, (long long)r->acc.n, r->acc.p, r->acc.low,
           r->acc.high, r->acc_norm.p, r->acc_norm.low, r->acc_norm.high);
    printf("  NLL of the right option %.4f +- %.4f, of the others %.4f +- %.4f nats; gap %.4f +- %.4f, per token %.5f +- %.5f\n", r->right.mean,
           r->right.se, r->wrong.mean, r->wrong.se, r->gap.mean, r->gap.se, r->gap_token.mean, r->gap_token.se);
    if (r->cut) printf("  %lld contexts did not fit the window and were cut\n", (long long)r->cut);
    if (!subjects->n) return;
    print_parts(groups, "  ");
    print_parts(subjects, "    ");
    printf("  mean over subjects %.4f\n", mean_of_parts(subjects));
}

void choice_print(const Questions *qs, bool json, json_t *more, const char *prefix) {
    for (uint32_t i = 0; i < qs->q.n; i++) {
        const char *task = qs->q.v[i].task;
        bool first = true;
        for (uint32_t k = 0; k < i && first; k++) first = !in_task(&qs->q.v[k], task);
        if (!first) continue;
        Arena a = {0};
        Parts subjects = {0}, groups = {0};
        if (!strcmp(task, "mmlu")) split_mmlu(qs, &a, &subjects, &groups);
        ChoiceResult r = choice_result(qs, task);
        if (json) print_json(&r, &subjects, &groups, more);
        else print_text(&r, &subjects, &groups, prefix);
        snU_free_arena(&a);
    }
    json_decref(more);
}

static json_t *question_json(const Question *q) {
    json_t *nll = json_array(), *chars = json_array(), *tokens = json_array(), *se = json_array();
    for (int i = 0; i < q->noptions; i++) {
        json_array_append_new(nll, json_real(q->option[i].nll));
        json_array_append_new(se, json_real(q->option[i].se));
        json_array_append_new(chars, json_integer((json_int_t)q->option[i].chars));
        json_array_append_new(tokens, json_integer(q->option[i].tokens));
    }
    json_t *o = json_pack("{s:o s:o s:i s:i s:i s:i}", "task", json_bytes(q->task, strlen(q->task)), "file",
                          json_bytes(q->path, strlen(q->path)), "line", q->line,
                          "label", q->label, "acc", least(q, false) == q->label,
                          "acc_norm", least(q, true) == q->label);
    if (q->subject) json_object_set_new(o, "subject", json_bytes(q->subject, strlen(q->subject)));
    json_object_set_new(o, "nll", nll);
    json_object_set_new(o, "nll_se", se);
    json_object_set_new(o, "chars", chars);
    json_object_set_new(o, "tokens", tokens);
    return o;
}

int choice_write(const Questions *qs, const char *path) {
    StrBuf b = {0};
    for (uint32_t i = 0; i < qs->q.n; i++) {
        json_t *o = question_json(&qs->q.v[i]);
        char *line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_PRESERVE_ORDER);
        snU_putf(&b, "%s\n", line ? line : "");
        free(line);
        json_decref(o);
    }
    int rc = write_text(path, b.s ? b.s : "", b.n);
    snU_free_buf(&b);
    return rc;
}
