/* study_check.c: what the runs of a study set, against their models, before any of them begins.

   In:  the words of each run. Out: 0, or an error line of the study file, so that hours of other runs don't come first.

   A model is elaborated for every combination of values and arm, nothing is compiled. */
#include "tools/study.h"

/* Word i is the option: its value, in this word or the next, which i then is; else NULL. */
static const char *value_of(const StrList *words, int *i, const char *letter, const char *name) {
    const char *w = words->v[*i], *in = NULL;
    size_t n = strlen(name);
    if (!strncmp(w, "--", 2) && !strncmp(w + 2, name, n) && (!w[n + 2] || w[n + 2] == '=')) in = w[n + 2] ? w + n + 3 : "";
    else if (letter && w[0] == '-' && w[1] == *letter) in = w + 2;
    if (!in || *in) return in;
    return *i + 1 < words->n ? words->v[++*i] : NULL;
}

/* Where a scalar input of that name is declared; *range: what the optimizer's may be. False: nowhere. */
static bool find_input(const Model *m, const char *name, InputRange *range, Dtype *dtype) {
    for (uint32_t k = 0; k < m->m->graphs.n; k++) {
        const Graph *g = m->m->graphs.v[k];
        for (uint32_t i = 0; i < g->leaves.n; i++) {
            const Leaf *l = &g->leaves.v[i];
            const Type *t = snG_type(g, l->node);
            if (snG_node(g, l->node)->op != OP_input || t->rank || strcmp(snU_str(g->ctx, l->name), name)) continue;
            *range = l->range, *dtype = (Dtype)t->dtype;
            return true;
        }
    }
    const InputRange *r = snP_optim_range(name);
    if (r) *range = *r, *dtype = SN_F32;
    return r != NULL;
}

static int check_setting(const StudyFile *f, const StudyArm *arm, const Model *m, const char *word) {
    const char *eq = strchr(word, '=');
    char *end = NULL, *name = eq ? strndup(word, (size_t)(eq - word)) : NULL;
    double v = eq ? strtod(eq + 1, &end) : 0;
    InputRange range;
    Dtype dtype;
    char text[SN_RANGE_TEXT];
    int rc = 0;
    if (!eq || !*name || !eq[1] || *end || v != v) rc = study_fail(f, word, "arm '%s': --set wants name=number, not '%s'", arm->name, word);
    else if (!find_input(m, name, &range, &dtype)) rc = study_fail(f, word, "arm '%s': --set %s: %s has no such input", arm->name, name, arm->model);
    else if (!snG_in_range(&range, dtype, v)) {
        snG_range_text(&range, text);
        rc = study_fail(f, word, "arm '%s': --set %s=%g: it must be %s", arm->name, name, v, text);
    }
    free(name);
    return rc;
}

int study_check_run(const StudyFile *f, const StudyArm *arm, const StrList *words) {
    StrList defines = {0}, sets = {0};
    if (is_bundle(arm->model)) return 0;
    for (int i = 0; i < words->n; i++) {
        const char *v;
        if ((v = value_of(words, &i, "D", "define"))) list_add(&defines, v);
        else if ((v = value_of(words, &i, NULL, "set"))) list_add(&sets, v);
    }
    Model m;
    int rc = model_load(&m, arm->model, NULL, &defines);
    for (int i = 0; i < sets.n && !rc; i++) rc = check_setting(f, arm, &m, sets.v[i]);
    model_free(&m);
    free(defines.v);
    free(sets.v);
    return rc;
}
