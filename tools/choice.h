/* choice.h: multiple choice: questions of published files, what a model thinks of their options, accuracy.

     JSON lines   HellaSwag: ctx_a, ctx_b, activity_label, endings, label. MMLU: question, choices, answer, subject.
                  Any: context, options, label, and suffix for options between two texts
     .csv         MMLU as published: question, options, the right letter; the subject is the file's name without _test, _val, _dev

   Contexts are made as lm-evaluation-harness makes them; docs/evaluation.md has the rules. */
#ifndef SN_CHOICE_H
#define SN_CHOICE_H
#include "tools/score.h"
#include "tools/stats.h"

typedef struct Option { const char *text; Tokens ids; double chars, nll, se; int64_t tokens; } Option;   /* chars: what acc_norm divides by */
typedef struct Question {
    const char *path, *task, *subject;   /* task: "hellaswag", "mmlu", else the file; subject: MMLU's, else NULL */
    int line;
    const char *context, *suffix;    /* suffix NULL: nothing comes after the option */
    Tokens context_ids, suffix_ids;  /* instead of texts ("" then), with every option's ids, in questions made of a shard */
    const char *answer;              /* what stands for the right option in a shot */
    Option *option;
    int noptions, label;
    bool cut;                        /* its context does not fit the window whole */
} Question;
typedef struct Questions { Arena arena; VEC(Question) q; } Questions;

/* Adds the questions of a file. 0, or 1 after an error line. */
int questions_read(Questions *qs, const char *path);
/* Puts `shots` questions of `from`, of the same subject for MMLU, in the order of the file, before every question. */
int questions_add_shots(Questions *qs, const Questions *from, int64_t shots);
void questions_free(Questions *qs);

/* n questions of windows of text: which of some spans of `span` tokens comes after the window's other tokens (or, infill, between its first
   and last)? The others are from elsewhere in the text. Tokens stay those of the windows. */
typedef struct MakeOptions { int64_t n, span, options; bool infill; uint64_t seed; } MakeOptions;
int questions_make(Questions *qs, const Windows *w, const MakeOptions *o);

/* Fills nll, se, tokens of every option. */
int questions_score(Questions *qs, Scorer *s);

/* -- What follows from it ---------------------------------------------------------------------------------------- */

typedef struct ChoiceResult {
    const char *task;
    Share acc, acc_norm;             /* the least nll; the least nll per character */
    Mean right, wrong, gap, gap_token;   /* nll of the right option; mean of the others; wrong - right; the same per token */
    int64_t cut;                     /* questions whose context was cut */
} ChoiceResult;
ChoiceResult choice_result(const Questions *qs, const char *task);

/* The shares of a task, of every subject and of the four groups of MMLU, as lines or as JSON. `more`: members for the object, taken. */
void choice_print(const Questions *qs, bool json, json_t *more, const char *prefix);
/* A line of JSON for every question, its options' nll. */
int choice_write(const Questions *qs, const char *path);

#endif
