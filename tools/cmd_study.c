/* cmd_study.c: `sinter study FILE`: the runs of a study, side by side, each a `sinter train` of its own.

   In:  a study file (study.h). Out: OUT with a folder per run and study.json. A run that has ended is not run again, one that was
   cut off goes on where it was saved, so the command can be stopped (SIGINT lets runs save) and given again at any time.

   The first arm of a cell makes the token shards; the others wait for it and read the same ones. Anneals wait for the arm that
   they branch from. Runs have one thread each by default: together they use the cores best. */
#define _GNU_SOURCE
#include "tools/study.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum { WAITING, RUNNING, TRAINED, MEASURING, ENDED, FAILED } RunState;     /* TRAINED: to be measured, where the study says how */

typedef struct Run {
    int cell, arm;
    RunState state;
    char *name, *folder;             /* "unique=32K/s1/dlm"; below OUT */
    StrList words;                   /* of `sinter train` */
    pid_t pid;
    int64_t step, end;               /* as its log and config say */
} Run;

typedef struct Launcher {
    StudyFile f;
    const char *out;
    int64_t jobs, threads;
    bool quiet;
    Run *run;
    int nruns, running;
    double started, last_line;
    int64_t steps_before;            /* done when this command began */
} Launcher;

static volatile sig_atomic_t interrupted;
static void on_signal(int sig) { (void)sig; interrupted = 1; }

/* -- What a run is ------------------------------------------------------------------------------------------------- */

static Run *run_of(Launcher *l, int cell, int arm) { return &l->run[cell * l->f.narms + arm]; }

static void add_all(StrList *to, const StrList *from) {
    for (int i = 0; i < from->n; i++) list_add(to, from->v[i]);
}

static void add_data(Launcher *l, Run *r) {
    const StrList *data = &l->f.data;
    for (int i = 0; i < l->f.naxes; i++) {
        const StudyValue *v = &l->f.axis[i].v[study_cell_value(&l->f, r->cell, i)];
        if (v->data.n) data = &v->data;
    }
    list_add(&r->words, "--data");
    if (r->arm > 0) list_add(&r->words, text_fmt("%s/data", run_of(l, r->cell, 0)->folder));
    else add_all(&r->words, data);
}

/* Options of an arm come last: they change what the axes and `common` say. */
static void make_words(Launcher *l, Run *r) {
    const StudyFile *f = &l->f;
    const StudyArm *arm = &f->arm[r->arm];
    StrList *w = &r->words;
    list_add(w, "sinter");
    list_add(w, "train");
    list_add(w, arm->model);
    add_data(l, r);
    add_all(w, &f->common);
    for (int i = 0; i < f->naxes; i++) add_all(w, &f->axis[i].v[study_cell_value(f, r->cell, i)].options);
    if (arm->parent >= 0) {
        add_all(w, &f->arm[arm->parent].options);
        list_add(w, "--from");
        list_add(w, text_fmt("%s/%s.safetensors", run_of(l, r->cell, arm->parent)->folder, arm->from));
    }
    add_all(w, &arm->options);
    const char *seed = text_fmt("%lld", (long long)study_cell_seed(f, r->cell));
    const char *rest[] = { "--seed", seed, "--split-seed", seed, "--out", r->folder, "--resume", "--quiet" };
    for (unsigned i = 0; i < sizeof rest / sizeof *rest; i++) list_add(w, rest[i]);
    list_add(w, "--threads");
    list_add(w, text_fmt("%lld", (long long)l->threads));
}

/* An anneal's length is its --decay: --epochs and --steps of its arm are not its own. */
static void drop_length(const Launcher *l, Run *r) {
    if (l->f.arm[r->arm].parent < 0) return;
    StrList kept = {0};
    for (int i = 0; i < r->words.n; i++) {
        if (!strcmp(r->words.v[i], "--epochs") || !strcmp(r->words.v[i], "--steps")) i++;
        else list_add(&kept, r->words.v[i]);
    }
    r->words = kept;
}

static char *joined(const StrList *words, const char *sep) {
    StrBuf b = {0};
    for (int i = 0; i < words->n; i++) snU_putf(&b, "%s%s", i ? sep : "", words->v[i]);
    return b.s;
}

static void make_runs(Launcher *l) {
    l->nruns = study_ncells(&l->f) * l->f.narms;
    l->run = calloc((size_t)l->nruns, sizeof *l->run);
    if (!l->run) abort();
    for (int i = 0; i < l->nruns; i++) {
        Run *r = &l->run[i];
        r->cell = i / l->f.narms, r->arm = i % l->f.narms;
        char *cell = study_cell_folder(&l->f, r->cell);
        r->name = text_fmt("%s/%s", cell, l->f.arm[r->arm].name);
        r->folder = text_fmt("%s/%s", l->out, r->name);
        free(cell);
    }
    for (int i = 0; i < l->nruns; i++) make_words(l, &l->run[i]), drop_length(l, &l->run[i]);
}

/* -- Where it stands ------------------------------------------------------------------------------------------------ */

/* The last whole line of the log. */
static json_t *last_row(const Run *r) {
    char *path = text_fmt("%s/log.jsonl", r->folder), tail[4096];
    FILE *f = fopen(path, "rb");
    json_t *row = NULL;
    free(path);
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f), from = size > (long)sizeof tail ? size - (long)sizeof tail : 0;
    fseek(f, from, SEEK_SET);
    size_t n = fread(tail, 1, sizeof tail, f);
    fclose(f);
    while (n && tail[n - 1] != '\n') n--;
    if (!n) return NULL;
    size_t start = --n;
    while (start && tail[start - 1] != '\n') start--;
    row = json_loadb(tail + start, n - start, 0, NULL);
    return row;
}

static void look(Run *r) {
    json_t *row = last_row(r);
    if (row) r->step = json_integer_value(json_object_get(row, "step"));
    if (row) json_decref(row);
    if (r->end) return;
    char *path = text_fmt("%s/config.json", r->folder);
    json_t *config = json_load_file(path, 0, NULL);
    if (config) r->end = json_integer_value(json_object_get(config, "steps"));
    if (config) json_decref(config);
    free(path);
}

static bool has_ended(const Run *r) {
    json_t *row = last_row(r);
    const char *kind = row ? json_string_value(json_object_get(row, "kind")) : NULL;
    bool ended = kind && !strcmp(kind, "end");
    if (row) json_decref(row);
    return ended;
}

/* What a run was started with; it cannot go on as another one. */
static int check_words(const Launcher *l, const Run *r) {
    char *path = text_fmt("%s/command.txt", r->folder), *now = joined(&r->words, "\n"), *was = read_text(path, NULL);
    int rc = 0;
    (void)l;
    if (was && strcmp(was, now))
        rc = cmd_fail("%s was begun with other options than the study says now; give another --out, or remove that folder to run it anew", r->folder);
    if (!rc && !was) rc = make_folder(r->folder);
    if (!rc && !was) rc = write_text(path, now, strlen(now));
    free(was);
    free(now);
    free(path);
    return rc;
}

static bool has_shards(Launcher *l, int cell) {
    char *path = text_fmt("%s/config.json", run_of(l, cell, 0)->folder);   /* written once they stand */
    bool there = file_exists(path);
    free(path);
    return there;
}

static bool is_ready(Launcher *l, const Run *r) {
    int parent = l->f.arm[r->arm].parent;
    if (r->state == TRAINED) return true;
    if (r->state != WAITING) return false;
    if (parent >= 0) return run_of(l, r->cell, parent)->state >= TRAINED && run_of(l, r->cell, parent)->state <= ENDED;
    return r->arm == 0 || has_shards(l, r->cell);
}

/* -- Running ---------------------------------------------------------------------------------------------------------- */

static int open_output(const Run *r, const char *name, int flags) {
    char *path = text_fmt("%s/%s", r->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    if (fd < 0) cmd_fail("cannot write %s: %s", path, strerror(errno));
    free(path);
    return fd;
}

static int spawn(Launcher *l, Run *r, StrList *words, int out, int err) {
    list_add(words, NULL);
    fflush(NULL);
    pid_t launcher = getpid();
    r->pid = fork();
    if (r->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGINT);                     /* a launcher that is killed leaves no run behind that another would meet */
        if (getppid() != launcher) _exit(127);
        setpgid(0, 0);                                       /* SIGINT of the terminal comes through us, once */
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        execv("/proc/self/exe", (char *const *)words->v);
        _exit(127);
    }
    words->n--;
    if (r->pid < 0) return cmd_fail("cannot start another process: %s", strerror(errno));
    l->running++;
    return 0;
}

static int start(Launcher *l, Run *r) {
    int rc = check_words(l, r);
    if (rc) return rc;
    int fd = open_output(r, "train.txt", O_APPEND);
    if (fd < 0) return EXIT_FAILED;
    rc = spawn(l, r, &r->words, fd, fd);
    close(fd);
    r->state = RUNNING;
    return rc;
}

static bool has_word(const StrList *words, const char *word) {
    for (int i = 0; i < words->n; i++)
        if (!strcmp(words->v[i], word)) return true;
    return false;
}

/* `sinter eval` of the kept checkpoints, or the last one, on the text that no choice was made on, where there is some. */
static void measure_words(Launcher *l, const Run *r, StrList *w) {
    char *kept = text_fmt("%s/step-*.safetensors", r->folder), *test = text_fmt("%s/data/test.safetensors", run_of(l, r->cell, 0)->folder);
    glob_t files;
    const char *first[] = { "sinter", "eval", l->f.arm[r->arm].model, "--ckpt" };
    for (unsigned i = 0; i < sizeof first / sizeof *first; i++) list_add(w, first[i]);
    bool any = !glob(kept, 0, NULL, &files);                 /* sorted; numbers of eight digits: by step */
    for (size_t i = 0; any && i < files.gl_pathc; i++) list_add(w, strdup(files.gl_pathv[i]));
    if (any) globfree(&files);
    else list_add(w, text_fmt("%s/last.safetensors", r->folder));
    if (!has_word(&l->f.measure, "--tasks") && !has_word(&l->f.measure, "--texts")) {
        list_add(w, "--data");
        list_add(w, file_exists(test) ? test : text_fmt("%s/data/val.safetensors", run_of(l, r->cell, 0)->folder));
    }
    add_all(w, &l->f.measure);
    list_add(w, "--json");
    list_add(w, "--threads");
    list_add(w, text_fmt("%lld", (long long)l->threads));
    free(kept);
}

static int start_measure(Launcher *l, Run *r) {
    StrList words = {0};
    int out = open_output(r, "measure.part", O_TRUNC), err = open_output(r, "train.txt", O_APPEND);
    measure_words(l, r, &words);
    int rc = out < 0 || err < 0 ? EXIT_FAILED : spawn(l, r, &words, out, err);
    if (out >= 0) close(out);
    if (err >= 0) close(err);
    r->state = MEASURING;
    return rc;
}

/* What is measured appears whole or not at all. */
static bool keep_measure(const Run *r) {
    char *part = text_fmt("%s/measure.part", r->folder), *whole = text_fmt("%s/measure.jsonl", r->folder);
    bool ok = !rename(part, whole);
    free(part);
    free(whole);
    return ok;
}

static RunState after_training(const Launcher *l, const Run *r) {
    char *path = text_fmt("%s/measure.jsonl", r->folder);
    bool measured = !l->f.measure.n || file_exists(path);
    free(path);
    return measured ? ENDED : TRAINED;
}

/* The last line that a run printed: why it failed. */
static void tell_failure(const Run *r) {
    char *path = text_fmt("%s/train.txt", r->folder), *text = read_text(path, NULL), *last = text;
    for (char *p = text; p && *p; p++)
        if (*p == '\n' && p[1]) last = p + 1;
    cmd_fail("%s failed: %.*s (all of it: %s)", r->name, last ? (int)strcspn(last, "\n") : 0, last ? last : "", path);
    free(text);
    free(path);
}

static void reap(Launcher *l) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0; )
        for (int i = 0; i < l->nruns; i++) {
            Run *r = &l->run[i];
            if ((r->state != RUNNING && r->state != MEASURING) || r->pid != pid) continue;
            bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            l->running--;
            look(r);
            if (r->state == MEASURING) r->state = good && keep_measure(r) ? ENDED : FAILED;
            else r->state = good ? after_training(l, r) : FAILED;
            if (r->state == FAILED && !interrupted) {
                if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
                tell_failure(r);
            }
        }
}

/* Arms and anneals of a failed run cannot follow. */
static bool nothing_left(Launcher *l) {
    bool fed = false;
    for (int i = 0; i < l->nruns; i++) fed |= is_ready(l, &l->run[i]);
    return !fed && !l->running;
}

static void put_time(char out[32], double s) {
    if (s >= 3600) snprintf(out, 32, "%d:%02d:%02d", (int)(s / 3600), (int)fmod(s / 60, 60), (int)fmod(s, 60));
    else snprintf(out, 32, "%d:%02d", (int)(s / 60), (int)fmod(s, 60));
}

/* Time left: the steps to go at the rate so far; a run that has not begun is as long as its arm elsewhere. */
static double seconds_left(Launcher *l, int *done) {
    double did = 0, left = 0;
    *done = 0;
    for (int i = 0; i < l->nruns; i++) {
        Run *r = &l->run[i];
        int64_t end = r->end;
        for (int k = 0; k < l->nruns && !end; k++) if (l->run[k].arm == r->arm) end = l->run[k].end;
        *done += r->state == ENDED;
        did += (double)r->step;
        if (r->state != FAILED) left += (double)(end > r->step ? end - r->step : 0);
    }
    did -= (double)l->steps_before;
    return did > 0 ? left * (snU_now() - l->started) / did : 0;
}

static void progress(Launcher *l, bool last) {
    bool tty = isatty(STDERR_FILENO);
    double now = snU_now();
    if (l->quiet || (!last && now - l->last_line < (tty ? 0.5 : 30))) return;
    StrBuf b = {0};
    int done;
    char left[32];
    for (int i = 0; i < l->nruns; i++)
        if (l->run[i].state == RUNNING) look(&l->run[i]);
    put_time(left, seconds_left(l, &done));
    snU_putf(&b, "%d of %d runs", done, l->nruns);
    for (int i = 0; i < l->nruns; i++) {
        const Run *r = &l->run[i];
        if (r->state == RUNNING) snU_putf(&b, "  %s %lld/%lld", r->name, (long long)r->step, (long long)r->end);
    }
    fprintf(stderr, "%s%s%s%s%s", tty ? "\r\033[K" : "", b.s, last ? "" : "  ", last ? "" : left, last ? "" : " left");
    fprintf(stderr, "%s", tty && !last ? "" : "\n");
    fflush(stderr);
    snU_free_buf(&b);
    l->last_line = now;
}

static void stop_runs(Launcher *l) {
    for (int i = 0; i < l->nruns; i++)
        if (l->run[i].state == RUNNING || l->run[i].state == MEASURING) kill(l->run[i].pid, SIGINT);
    while (l->running) {
        reap(l);
        usleep(20000);
    }
}

static int launch(Launcher *l) {
    int rc = 0;
    l->started = l->last_line = snU_now();
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    while (!rc && !interrupted && !nothing_left(l)) {
        for (int i = 0; i < l->nruns && l->running < l->jobs && !rc; i++)
            if (is_ready(l, &l->run[i])) rc = l->run[i].state == TRAINED ? start_measure(l, &l->run[i]) : start(l, &l->run[i]);
        usleep(20000);
        reap(l);
        progress(l, false);
    }
    if (rc || interrupted) stop_runs(l);
    if (interrupted) fprintf(stderr, "\nstopped; the same command goes on from here\n");
    return rc || interrupted ? EXIT_FAILED : 0;
}

static int finish(Launcher *l) {
    int failed = 0, waiting = 0;
    progress(l, true);
    for (int i = 0; i < l->nruns; i++) failed += l->run[i].state == FAILED, waiting += l->run[i].state == WAITING;
    if (failed) return cmd_fail("%d of %d runs failed%s", failed, l->nruns, waiting ? "; what follows from them was not begun" : "");
    if (!l->quiet) fprintf(stderr, "`sinter report %s` compares them\n", l->out);
    return 0;
}

/* -- The command -------------------------------------------------------------------------------------------------------- */

static void print_commands(const Launcher *l) {
    for (int i = 0; i < l->nruns; i++) {
        char *line = joined(&l->run[i].words, " ");
        puts(line);
        free(line);
    }
}

static int replace_seeds(Launcher *l, int64_t n) {
    if (!n) return 0;
    l->f.seed = calloc((size_t)n, sizeof *l->f.seed);
    if (!l->f.seed) abort();
    for (int64_t i = 0; i < n; i++) l->f.seed[i] = i + 1;
    l->f.nseeds = (int)n;
    return 0;
}

int cmd_study(const Command *self, int argc, char **argv) {
    StrList pos = {0}, data = {0};
    Launcher l = { .threads = 1 };
    int64_t seeds = 0;
    bool dry = false;
    const Opt opts[] = {
        { "out", 'o', OPT_TEXT, &l.out, "DIR", "where the runs land (default: the study's name)" },
        { "data", 0, OPT_MANY, &data, "PATH...", "instead of the file's `data`" },
        { "seeds", 0, OPT_INT, &seeds, "N", "1..N instead of the file's `seeds`" },
        { "jobs", 'j', OPT_INT, &l.jobs, "N", "runs at a time (default: as many as cores, over --threads)" },
        { "threads", 0, OPT_INT, &l.threads, "N", "of each run (default 1); results do not depend on it" },
        { "dry-run", 0, OPT_FLAG, &dry, "", "print the commands, run nothing" },
        { "quiet", 'q', OPT_FLAG, &l.quiet, "", "no progress" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one study file");
    if (l.threads < 1 || seeds > 10000) return cmd_usage(self, "--threads is at least 1, --seeds at most 10000");
    if ((rc = study_file_read(&l.f, pos.v[0]))) return rc;
    if (data.n) l.f.data = data;
    if (!study_has_data(&l.f)) return cmd_fail("%s: no data: write `data PATH...` there, or give --data", pos.v[0]);
    for (int i = 0; i < l.f.narms; i++)
        if (access(l.f.arm[i].model, R_OK)) return cmd_fail("%s: arm '%s': no model file '%s'", pos.v[0], l.f.arm[i].name, l.f.arm[i].model);
    if ((rc = replace_seeds(&l, seeds))) return rc;
    const char *base = strrchr(pos.v[0], '/');
    base = base ? base + 1 : pos.v[0];
    if (!l.out) l.out = text_fmt("%.*s", (int)strcspn(base, "."), base);
    if (!l.jobs) l.jobs = sysconf(_SC_NPROCESSORS_ONLN) / l.threads;
    if (l.jobs < 1) l.jobs = 1;
    make_runs(&l);
    for (int i = 0; i < l.nruns / l.f.nseeds; i++)           /* other seeds set the same */
        if ((rc = study_check_run(&l.f, &l.f.arm[l.run[i].arm], &l.run[i].words))) return rc;
    if (dry) return print_commands(&l), 0;
    if ((rc = make_folder(l.out)) || (rc = study_write_manifest(&l.f, l.out))) return rc;
    for (int i = 0; i < l.nruns; i++) {
        Run *r = &l.run[i];
        if (has_ended(r) && (rc = check_words(&l, r))) return rc;
        look(r);
        if (has_ended(r)) r->state = after_training(&l, r);
        l.steps_before += r->step;
    }
    rc = launch(&l);
    return rc ? rc : finish(&l);
}
