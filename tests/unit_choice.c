/* unit_choice.c: questions as lm-evaluation-harness would ask them, files that are refused, options scored, what follows from
   scores that are written here. */
#define _GNU_SOURCE
#include "tests/check.h"
#include "tools/choice.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

static char folder[] = "/tmp/sinter-choice-XXXXXX";

static void put_file(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f)) abort();
}

static const char *spill(const char *name, const char *text) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    put_file(path, text, strlen(text));
    return path;
}

static void is(const char *what, const char *got, const char *want) { ok(got && !strcmp(got, want), "%s: `%s`, wanted `%s`", what, got ? got : "nothing", want); }

/* -- Reading ------------------------------------------------------------------------------------------------------ */

/* The texts wanted are what the harness's utils.py of hellaswag makes of these. */
static void test_hellaswag(void) {
    Questions qs = {0};
    const char *text =
        "{\"ind\":24,\"activity_label\":\"Roof shingle removal\",\"ctx_a\":\"A man is sitting on a roof.\",\"ctx_b\":\"he\",\"label\":3,"
        "\"endings\":[\" a [substeps] b.\",\"cc   dd\",\" [title]x [y\",\"na\xc3\xafve \xe3\x80\x80\"]}\n"
        "{\"activity_label\":\"\xc2\xa0" "Care\",\"ctx_a\":\"[header] How to X [title] Do   it. [step] Y [a\\n] b]\",\"ctx_b\":\"\",\"label\":\"1\",\"endings\":[\"x\",\"y\"]}\n"
        "{\"activity_label\":\"L\",\"ctx_a\":\"x\",\"ctx_b\":\"\xc3\xa9" "COLE ABC\",\"label\":\"0\",\"endings\":[\"x\",\"y\"]}\n";
    ok(!questions_read(&qs, spill("hs.jsonl", text)) && qs.q.n == 3, "HellaSwag is read");
    is("context", qs.q.v[0].context, "Roof shingle removal: A man is sitting on a roof. He");
    is("context with markup", qs.q.v[1].context, "Care: How to X. Do  it. Y [a\n] b]");
    is("capitalized", qs.q.v[2].context, "L: x \xc3\x89" "cole abc");
    static const char *const endings[] = { " a b.", " cc  dd", " x [y", " na\xc3\xafve" };
    static const double chars[] = { 4, 6, 4, 5 };
    for (int i = 0; i < 4; i++) {
        is("ending", qs.q.v[0].option[i].text, endings[i]);
        ok(qs.q.v[0].option[i].chars == chars[i], "ending %d has %g characters", i, qs.q.v[0].option[i].chars);
    }
    ok(qs.q.v[0].label == 3 && qs.q.v[1].label == 1 && !strcmp(qs.q.v[0].task, "hellaswag"), "labels, numbers and texts");
    questions_free(&qs);
}

static void test_mmlu(void) {
    Questions qs = {0}, dev = {0};
    ok(!questions_read(&dev, spill("world_religions_dev.csv", " What is the sign?,The rainbow,\"Circumcision, or\",A son,Bar mitzvah,B\r\n"
                                   "\" In which \"\"Mandate\"\"\nx?\",Shang,Zhou,Han,Xia,B\n\nQ3,a,b,c,d,D")) && dev.q.n == 3, "CSV is read");
    ok(dev.q.v[1].line == 2 && dev.q.v[2].line == 5, "lines are counted in quotes, too: %d, %d", dev.q.v[1].line, dev.q.v[2].line);
    ok(!questions_read(&qs, spill("x.jsonl", "{\"question\":\"Who? \",\"choices\":[\"a\",\"b\",\"c\",\"d\"],\"answer\":2,\"subject\":\"world_religions\"}\n"
                                  "{\"question\":\"Two\",\"choices\":[\"1\",\"2\"],\"answer\":\"B\",\"subject\":\"other_things\"}\n")) && qs.q.n == 2, "JSON is read");
    is("a question", qs.q.v[0].context, "Who?\nA. a\nB. b\nC. c\nD. d\nAnswer:");
    is("an option", qs.q.v[0].option[2].text, " C");
    ok(qs.q.v[0].label == 2 && qs.q.v[1].label == 1, "answers, numbers and letters");
    qs.q.n = 1;
    ok(!questions_add_shots(&qs, &dev, 2), "two shots");
    is("with shots", qs.q.v[0].context, "The following are multiple choice questions (with answers) about world religions.\n\n"
       "What is the sign?\nA. The rainbow\nB. Circumcision, or\nC. A son\nD. Bar mitzvah\nAnswer: B\n\n"
       "In which \"Mandate\"\nx?\nA. Shang\nB. Zhou\nC. Han\nD. Xia\nAnswer: B\n\nWho?\nA. a\nB. b\nC. c\nD. d\nAnswer:");
    ok(!questions_add_shots(&dev, NULL, 0), "no shots");
    ok(!strncmp(dev.q.v[2].context, "The following are multiple choice questions (with answers) about world religions.\n\nQ3\n", 80), "the description comes without shots, too");
    questions_free(&qs);
    questions_free(&dev);
}

/* Fields of any characters, written by the rules of RFC 4180, come back as they were. */
static uint32_t rng = 12345;
static uint32_t pick(uint32_t n) { rng = rng * 1664525u + 1013904223u; return (rng >> 8) % n; }

static void put_field(StrBuf *b, const char *s, bool quote) {
    if (quote) snU_puts(b, "\"");
    for (; *s; s++) snU_putf(b, *s == '"' ? "\"\"" : "%c", *s);
    if (quote) snU_puts(b, "\"");
}

static void test_csv(void) {
    enum { N = 200 };
    static char field[N][5][12];
    static const char letters[] = "ab,\"\n\r \xc3\xa9z";
    StrBuf b = {0};
    Questions qs = {0};
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 5; k++) {
            int n = 1 + (int)pick(10);
            for (int c = 0; c < n; c++) field[i][k][c] = letters[pick(sizeof letters - 1)];
            put_field(&b, field[i][k], strpbrk(field[i][k], ",\"\n\r") || pick(3) == 0);
            snU_puts(&b, k < 4 ? "," : i % 2 ? ",C\r\n" : ",\"C\"\n");
        }
    ok(!questions_read(&qs, spill("random_val.csv", b.s)) && qs.q.n == N, "random CSV: %u of %d records", qs.q.n, N);
    for (uint32_t i = 0; i < qs.q.n; i++) {
        StrBuf want = {0};
        for (int k = 1; k < 5; k++) snU_putf(&want, "\n%c. %s", '@' + k, field[i][k]);
        snU_puts(&want, "\nAnswer:");
        const char *got = strstr(qs.q.v[i].context, want.s);
        ok(got && got[want.n] == 0 && !strcmp(qs.q.v[i].subject, "random") && qs.q.v[i].label == 2, "record %u: `%s` ends with `%s`", i, qs.q.v[i].context, want.s);
        snU_free_buf(&want);
    }
    questions_free(&qs);
    snU_free_buf(&b);
}

/* The line that a command says on stderr, and its status. */
static const char *said(int (*f)(void *), void *user) {
    static char line[600];
    char *err = text_fmt("%s/err", folder);
    fflush(stderr);
    int old = dup(2), to = open(err, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(to, 2);
    int rc = f(user);
    fflush(stderr);
    dup2(old, 2);
    close(old);
    close(to);
    char *got = read_text(err, NULL);
    snprintf(line, sizeof line, "%s", rc == 1 && got ? got : "");
    free(got);
    free(err);
    return line;
}

static int read_it(void *path) {
    Questions qs = {0};
    int rc = questions_read(&qs, path);
    questions_free(&qs);
    return rc;
}

static void test_refused(void) {
#define Q "{\"context\":\"c\",\"options\":"
    static const struct { const char *name, *text, *says; } bad[] = {
        { "a.jsonl", "", "has no questions" },
        { "a.jsonl", "[1]\n", "a.jsonl:1: error: not a JSON object" },
        { "a.jsonl", "\n{\"context\":\"c\"}\n", "a.jsonl:2: error: no question" },
        { "a.jsonl", Q "\"ab\",\"label\":0}", "\"options\" must be an array of texts, and is something else" },
        { "a.jsonl", Q "[\"a\"],\"label\":0}", "1 options; 2 to 26" },
        { "a.jsonl", Q "[\"a\",1],\"label\":0}", "has something else at 1" },
        { "a.jsonl", Q "[\"a\",\"b\"]}", "\"label\" must be the number of the right option" },
        { "a.jsonl", Q "[\"a\",\"b\"],\"label\":2}", "number 2 of 2" },
        { "a.jsonl", Q "[\"a\",\"b\"],\"label\":-1}", "\"label\" must be" },
        { "a.jsonl", Q "[\"a\",\"b\"],\"label\":1e30}", "\"label\" must be" },
        { "a.jsonl", Q "[\"a\",\"b\"],\"label\":99999999999}", "\"label\" must be" },
        { "a.jsonl", Q "[\"a\",\"\"],\"label\":0}", "option 1 is empty" },
        { "a.jsonl", Q "[\"a\",\"b\"],\"label\":0,\"suffix\":3}", "\"suffix\" must be a string" },
        { "a.jsonl", "{\"options\":[\"a\",\"b\"],\"label\":0}", "\"context\" must be a string, and is missing" },
        { "a.jsonl", "{\"context\":\"a\\u0000b\",\"options\":[\"a\",\"b\"],\"label\":0}", "\"context\" has a zero byte" },
        { "a.jsonl", Q "[\"a\",\"b\\u0000\"],\"label\":0}", "\"options\" has a zero byte" },
        { "a.jsonl", "{\"endings\":[\"a\",\"b\"],\"label\":0}", "\"activity_label\" must be a string" },
        { "a.jsonl", "{\"endings\":[\"a\",\"[b]\"],\"label\":0,\"activity_label\":\"\",\"ctx_a\":\"\",\"ctx_b\":\"\"}", "option 1 is empty" },
        { "a.jsonl", "{\"endings\":[\"a\",\"b\"],\"label\":\"\",\"activity_label\":\"\",\"ctx_a\":\"\",\"ctx_b\":\"\"}", "\"label\" must be" },
        { "a.jsonl", "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":0}", "\"subject\" must be a string" },
        { "a.jsonl", "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"AB\",\"subject\":\"s\"}", "\"answer\" must be" },
        { "a_test.csv", "q,a,b\n", "a_test.csv:1: error: 3 columns" },
        { "a_test.csv", "q,a,b,A\nq,a,b,E\n", "a_test.csv:2: error: the right option is number 4 of 2" },
        { "a_test.csv", "q,a,b,AB\n", "must be the letter of the right option, and is 'AB'" },
        { "a_test.csv", "q,a,\"b\n\n,A\n", "a_test.csv:1: error: a quote that is not closed" },
        { "a_test.csv", "q,a,\"b\"c,A\n", "text behind the closing quote" },
        { "a_test.csv", "q,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,A\n", "31 columns" },
        { "none.csv", NULL, "none.csv: No such file" },
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *path = text_fmt("%s", bad[i].text ? spill(bad[i].name, bad[i].text) : bad[i].name);
        const char *line = said(read_it, path);
        ok(strstr(line, bad[i].says) && strchr(line, '\n') == line + strlen(line) - 1, "refusing `%s`: it says `%s`, not `%s`", bad[i].text ? bad[i].text : path, line,
           bad[i].says);
        free(path);
    }
}

/* Mutations of good files: an answer or one line, whatever they are. */
static void test_mutations(void) {
    static const char *const good[] = {
        "{\"activity_label\":\"R\",\"ctx_a\":\"A [x] man.\",\"ctx_b\":\"he\xc3\xa9\",\"label\":1,\"endings\":[\"a [title] b\",\"c\"]}\n",
        "{\"question\":\"W\",\"choices\":[\"a\",\"b\"],\"answer\":1,\"subject\":\"s\"}\n{\"context\":\"c\",\"options\":[\" a\",\"b\"],\"label\":0}\n",
        "\"q \"\"x\"\"\",a,\"b\nc\",A\r\nr,1,2,B\n" };
    int read = 0, refused = 0;
    for (int i = 0; i < 1500; i++) {
        char text[400];
        size_t n = strlen(good[i % 3]);
        memcpy(text, good[i % 3], n + 1);
        for (uint32_t e = 1 + pick(3); e--; ) text[pick((uint32_t)n)] = (char)pick(256);
        char *path = text_fmt("%s/m%s", folder, i % 3 == 2 ? ".csv" : ".jsonl");
        put_file(path, text, n);
        const char *line = said(read_it, path);
        if (*line) refused++;
        else read++;
        ok(!*line || strchr(line, '\n') == line + strlen(line) - 1, "a mutation is refused in one line, not `%s`", line);
        free(path);
    }
    ok(read > 100 && refused > 100, "some mutations are read (%d), some refused (%d)", read, refused);
}

/* -- Scoring ----------------------------------------------------------------------------------------------------------- */

static const char *const ARMS[] = { "models/ar.sn", "models/dlm.sn" };

static void score(const char *model, const char *text, ScoreOptions o, Questions *qs) {
    static const char *const words[] = { "width=32", "layers=1", "heads=2", "hidden=64", "seq=64", "batch=1" };
    StrList d = {0};
    Scorer s;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) list_add(&d, words[i]);
    o.draws = 4;
    *qs = (Questions){0};
    if (questions_read(qs, spill("score.jsonl", text)) || scorer_open(&s, &(LabOptions){ .file = model, .defines = &d, .seed = 5 }, NULL, &BYTE_TOKENIZER, &o) ||
        questions_score(qs, &s)) abort();
    scorer_close(&s);
}

#define HUNDRED "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

/* The same likelihood by two ways, one after the other in `text`: option 0 of both questions. */
static void test_scoring(void) {
    static const struct { const char *what, *text; } same[] = {
        { "options of one token in one pass", "{\"context\":\"xyz\",\"options\":[\"a\",\"b\"],\"label\":0}\n{\"context\":\"xyz\",\"options\":[\"a\",\"bc\"],\"label\":0}" },
        { "letters behind what they share", "{\"context\":\"xyz\",\"options\":[\" a\",\" b\"],\"label\":0}\n{\"context\":\"xyz \",\"options\":[\"a\",\"bc\"],\"label\":0}" },
        { "a context that is cut", "{\"context\":\"" HUNDRED "\",\"options\":[\"a\",\"bc\"],\"label\":0}\n"
          "{\"context\":\"789012345678901234567890123456789012345678901234567890123456789\",\"options\":[\"a\",\"bc\"],\"label\":0}" },
        { "an empty context", "{\"context\":\"\",\"options\":[\"a\",\"b\"],\"label\":0}\n{\"context\":\"\",\"options\":[\"a\",\"bc\"],\"label\":0}" },
        { "a suffix that is cut", "{\"context\":\"\",\"options\":[\"ab\",\"bc\"],\"label\":0,\"suffix\":\"" HUNDRED "\"}\n"
          "{\"context\":\"\",\"options\":[\"ab\",\"c\"],\"label\":0,\"suffix\":\"01234567890123456789012345678901234567890123456789012345678901\"}" },
    };
    for (int arm = 0; arm < 2; arm++)
        for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
            Questions qs;
            score(ARMS[arm], same[i].text, (ScoreOptions){ .order = ORDER_LEFT }, &qs);
            double a = qs.q.v[0].option[0].nll, b = qs.q.v[1].option[0].nll;
            ok(a > 1 && fabs(a - b) < 1e-4 * a, "%s: %s: %.6f and %.6f", ARMS[arm], same[i].what, a, b);
            questions_free(&qs);
        }
    Questions qs;
    score(ARMS[1], "{\"context\":\"a\",\"options\":[\"bcd\",\"efgh\"],\"label\":0,\"suffix\":\"x\"}\n{\"context\":\"a\",\"options\":[\"bcd\",\"efgh\"],\"label\":0,\"suffix\":\"y\"}",
          (ScoreOptions){ .order = ORDER_LEFT }, &qs);
    ok(fabs(qs.q.v[0].option[0].nll - qs.q.v[1].option[0].nll) > 1e-5, "a DLM's span depends on what comes after it");
    questions_free(&qs);
    score(ARMS[0], "{\"context\":\"a\",\"options\":[\"bc\",\"efgh\"],\"label\":0,\"suffix\":\"x\"}\n{\"context\":\"a\",\"options\":[\"bcx\",\"efgh\"],\"label\":0}", (ScoreOptions){ 0 }, &qs);
    ok(fabs(qs.q.v[0].option[0].nll - qs.q.v[1].option[0].nll) < 1e-4, "an AR model scores option and suffix");
    questions_free(&qs);
}

static int too_long(void *model) {
    Questions qs = {0};
    Scorer s;
    StrList d = {0};
    int rc = questions_read(&qs, spill("long.jsonl", "\n{\"context\":\"a\",\"options\":[\"b\",\"" HUNDRED "\"],\"label\":0}"));
    list_add(&d, "layers=1");
    if (rc || scorer_open(&s, &(LabOptions){ .file = model, .defines = &d }, NULL, &BYTE_TOKENIZER, &(ScoreOptions){ .window = 50 })) abort();
    rc = questions_score(&qs, &s);
    scorer_close(&s);
    questions_free(&qs);
    return rc;
}

/* -- Results ----------------------------------------------------------------------------------------------------------- */

static void test_results(void) {
    Share s = share_of(8, 10);
    ok(fabs(s.low - 0.4901625) < 1e-6 && fabs(s.high - 0.9433178) < 1e-6, "Wilson's interval of 8 in 10: [%.7f, %.7f]", s.low, s.high);
    ok(fabs(s.se - sqrt(0.8 * 0.2 / 9)) < 1e-12, "its standard error");
    ok(share_of(0, 5).low == 0 && share_of(5, 5).high == 1 && share_of(0, 0).n == 0, "shares of none and of all");
    Questions qs = {0};
    ok(!questions_read(&qs, spill("r.jsonl", "{\"context\":\"c\",\"options\":[\"aa\",\" bbbb\",\"cc\"],\"label\":1}\n{\"context\":\"c\",\"options\":[\"a\",\"b\",\"c\"],\"label\":0}\n")), "two questions");
    static const double nll[2][3] = { { 5, 8, 6 }, { 1, 1, 4 } };
    for (int q = 0; q < 2; q++)
        for (int i = 0; i < 3; i++) qs.q.v[q].option[i].nll = nll[q][i], qs.q.v[q].option[i].tokens = (int64_t)qs.q.v[q].option[i].chars;
    ChoiceResult r = choice_result(&qs, qs.q.v[0].task);
    ok(r.acc.p == 0.5 && r.acc_norm.p == 1 && r.acc.n == 2, "acc %.2f, acc_norm %.2f; of a tie the first", r.acc.p, r.acc_norm.p);
    ok(r.right.mean == 4.5 && r.wrong.mean == 4 && fabs(r.gap.mean + 0.5) < 1e-12 && fabs(r.gap.se - 2) < 1e-12, "gap %.3f +- %.3f", r.gap.mean, r.gap.se);
    ok(fabs(r.gap_token.mean - (0.75 + 1.5) / 2) < 1e-12, "gap per token %.4f", r.gap_token.mean);
    questions_free(&qs);
}

int main(void) {
    if (!mkdtemp(folder)) abort();
    test_hellaswag();
    test_mmlu();
    test_csv();
    test_refused();
    test_mutations();
    test_scoring();
    for (int arm = 0; arm < 2; arm++) {
        const char *line = said(too_long, (void *)(uintptr_t)ARMS[arm]);
        ok(strstr(line, "long.jsonl:2: error: an option has 100 tokens, the window 50; --window N reads more\n") != NULL, "an option beyond the window: `%s`", line);
    }
    test_results();
    char *clean = text_fmt("rm -rf %s", folder);
    if (system(clean)) return 1;
    free(clean);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
