/* cmd_train.c: `sinter train`: sets up a run from options, text and checkpoints, and starts its loop (train_loop.c). */
#include "tools/train.h"

#include <math.h>

/* -- Data ------------------------------------------------------------------------------------------------------------- */

static void say(void *user, const char *line) {
    if (!((const Train *)user)->o.quiet) fprintf(stderr, "%s\n", line);
}

/* Without --data: the shards that the run, or the checkpoint it branches from, was trained on. */
static int find_data(Train *t) {
    if (t->o.data.n) return 0;
    char *path = t->o.resume ? train_path(t, "last.safetensors") : NULL;
    char *folder = path ? train_peek_data(path) : NULL;
    if (!folder && t->o.from) folder = train_peek_data(t->o.from);
    free(path);
    if (!folder) return cmd_fail("no data: name files, folders or prepared shards after --data");
    list_add(&t->o.data, folder);
    return 0;
}

/* A mask that stands in the text could not be told from a masked token. */
static int check_mask(const Train *t) {
    int64_t mask = lab_param(&t->lab, "mask_id", -1);
    if (lab_is_bound(lab_graph(&t->lab, "eval")) && mask >= 0 && sn_data_max(t->data) == mask)
        return cmd_fail("the text has the token %lld, the model's mask: set -D vocab=%lld", (long long)mask, (long long)mask + 2);
    return 0;
}

/* What the model reads of documents and answers, the shard must say. */
static int check_marks(const Train *t) {
    if (lab_input(t->step_graph, "doc") && !sn_data_has(t->data, "documents"))
        return cmd_fail("%s: does not say where documents begin (tensor \"documents\"), which the model reads", t->corpus.train.path);
    if (lab_input(t->step_graph, "scored") && !sn_data_has(t->data, "scored"))
        return cmd_fail("%s: does not say which tokens are answers (tensor \"scored\"), which the model reads", t->corpus.train.path);
    return 0;
}

/* The one that is given, or that of the checkpoint which the run goes on or starts from. */
static int open_tokenizer(Train *t) {
    char *last = train_path(t, "last.safetensors");
    const char *ckpt = t->o.resume && file_exists(last) ? last : t->o.from ? t->o.from : t->o.init;
    t->tok = checkpoint_tokenizer(t->o.tokenizer, ckpt);
    free(last);
    return t->tok ? 0 : EXIT_FAILED;
}

static int prepare_data(Train *t) {
    char err[256], *out = train_path(t, "data");
    CorpusDesc d = { .paths = t->o.data.v, .npaths = t->o.data.n, .out = out, .unique = t->o.unique, .val_bytes = t->o.val_bytes,
                     .test_bytes = t->o.test_bytes, .eod = t->o.eod, .corrupt = t->o.corrupt,
                     .held = t->o.held.v, .nheld = t->o.held.n, .split_seed = (uint64_t)t->o.split_seed, .seed = (uint64_t)t->o.seed,
                     .tok = t->tok->path ? t->tok : NULL, .log = say, .user = t };
    int rc = corpus_prepare(&d, &t->corpus, err) ? cmd_fail("%s", err) : 0;
    free(out);
    bool whole = t->corpus.records || (t->corpus.cut && t->corpus.cut == t->o.unique);      /* the budget was of text */
    sn_data_desc desc = { .path = t->corpus.train.path, .window = t->b.window, .unique = whole ? 0 : t->o.unique, .seed = (uint64_t)t->o.seed,
                          .shuffle = true, .fixed = t->o.fixed_windows, .views = t->o.views, .fill_scored = t->o.score_fill };
    if (!rc && !(t->data = sn_data_open(&desc, err))) rc = cmd_fail("%s", err);
    if (!rc && t->lab.vocab && sn_data_max(t->data) >= t->lab.vocab)
        rc = cmd_fail("the text has the token %d, the model's vocabulary is %lld; set -D vocab", sn_data_max(t->data), (long long)t->lab.vocab);
    if (!rc) rc = check_mask(t);
    if (!rc) rc = check_marks(t);
    if (!rc && t->corpus.val.path[0] == 0) fprintf(stderr, "sinter: note: there is no validation text; nothing is evaluated\n");
    return rc;
}

/* -- The program --------------------------------------------------------------------------------------------------------- */

static int choose_graphs(Train *t, const BuildTrace *trace) {
    t->step_graph = lab_graph(&t->lab, t->o.accum > 1 ? "accum" : "train");
    t->apply_graph = t->o.accum > 1 ? lab_graph(&t->lab, "apply") : NULL;
    if (!t->step_graph) return cmd_fail(t->lab.bundle ? "%s has no graph `train`, or was built without --train" : "%s has no graph `train`", t->o.file);
    int rc = lab_batch(t->step_graph, &t->b);
    if (rc) return rc;
    int64_t rows = lab_output_count(t->step_graph, "row_loss");
    if (rows == t->b.rows && lab_output_count(t->step_graph, "row_n") == rows) {
        t->row_loss = calloc((size_t)rows, sizeof *t->row_loss);
        t->row_n = calloc((size_t)rows, sizeof *t->row_n);
    }
    t->flops = lab_flops(&t->lab, t->step_graph) * (double)t->o.accum + lab_flops(&t->lab, t->apply_graph);
    Flops step = lab_executed(&t->lab, trace, t->step_graph->name);
    if (t->apply_graph) t->executed = lab_executed(&t->lab, trace, "apply");
    t->executed.fixed += step.fixed * (double)t->o.accum;
    t->executed.counted += step.counted * (double)t->o.accum;
    return rows_new(&t->rows, t->b);
}

static int open_lab(Train *t) {
    int shape = t->o.init && !is_bundle(t->o.file) ? checkpoint_shape(t->o.init, &t->o.defines) : 0;
    if (shape) return shape;
    BuildTrace trace = {0};
    LabOptions lo = { .trace = &trace, .file = t->o.file, .fuse = t->o.fuse, .passes = t->o.passes, .defines = &t->o.defines, .train = true, .seed = (uint64_t)t->o.seed,
                      .threads = (int)t->o.threads, .device = t->o.device };
    int rc = lab_open(&t->lab, &lo);
    if (!rc) rc = choose_graphs(t, &trace);
    snK_free_trace(&trace);
    if (rc || t->o.quiet) return rc;
    double seconds = t->lab.bundle ? t->lab.load_s : t->lab.stats.compile_s + t->lab.stats.lower_s + t->lab.stats.passes_s + t->lab.stats.plan_s;
    fprintf(stderr, "%s: %lld weights, %lld x %lld tokens a step, %d kernels, %s in %.2f s\n", t->o.file, (long long)t->lab.params,
            (long long)(t->b.rows * t->o.accum), (long long)t->b.window, t->lab.bundle ? t->lab.p->nkernels : t->lab.stats.unique_kernels,
            t->lab.bundle ? "loaded" : "compiled", seconds);
    return rc;
}

static int unknown_setting(const Train *t, const char *name) {
    StrBuf have = {0};
    for (int i = 0; i < t->lab.p->ngraphs; i++) {
        const SnGraphPlan *g = &t->lab.p->graphs[i];
        for (int k = 0; k < g->nbuffers; k++)
            if (g->buffers[k].kind == SN_BUF_INPUT && g->buffers[k].t.rank == 0 && (!have.s || !strstr(have.s, g->buffers[k].t.name)))
                snU_putf(&have, "%s%s", have.n ? ", " : "", g->buffers[k].t.name);
    }
    cmd_fail("--set %s: no graph has such an input; there are: %s", name, have.n ? have.s : "none");
    snU_free_buf(&have);
    return EXIT_FAILED;
}

static int apply_settings(Train *t) {
    for (int i = 0; i < t->set.n; i++) {
        int rc = sn_set(t->lab.s, t->set.v[i].name, t->set.v[i].value);
        if (rc == SN_UNKNOWN) return unknown_setting(t, t->set.v[i].name);
        if (rc) return cmd_fail("--set %s", sn_session_error(t->lab.s));
    }
    if (isnan(settings_get(&t->set, "total", NAN))) sn_set(t->lab.s, "total", (double)t->end);   /* a schedule may not ask */
    if (t->apply_graph && sn_set(t->lab.s, "accum_scale", 1.0 / (double)t->o.accum)) return lab_error(&t->lab);
    return 0;
}

/* -- How long ---------------------------------------------------------------------------------------------------------------- */

/* Loads what the run goes on from; then the last step is known. */
static int find_position(Train *t) {
    char *last = train_path(t, "last.safetensors");
    bool resume = t->o.resume && file_exists(last);
    int64_t per_step = t->b.rows * t->o.accum;
    int rc = 0;
    t->end = t->o.steps ? t->o.steps : (int64_t)ceil(t->o.epochs * (double)sn_data_windows(t->data) / (double)per_step);
    if (t->o.decay && resume) t->end = 0;
    if (resume) rc = train_load(t, last, true);
    else if (t->o.init) rc = lab_load(&t->lab, t->o.init);
    else if (t->o.from) rc = train_load(t, t->o.from, false);
    free(last);
    if (rc) return rc;
    if (t->o.from && !resume && t->o.decay) {
        t->end = t->step + t->o.decay;
        if (settings_get(&t->set, "schedule", 0) < 2) settings_put(&t->set, "schedule", 2);
        settings_put(&t->set, "decay_start", (double)t->step);
        settings_put(&t->set, "decay", (double)t->o.decay);
        settings_put(&t->set, "total", (double)t->end);
    }
    if (!t->end) return cmd_fail("how long? give --steps or --epochs (or --from CKPT --decay N)");
    if (t->step >= t->end) fprintf(stderr, "step %lld of %lld is done: there is nothing to do\n", (long long)t->step, (long long)t->end);
    if (!t->o.eval_every) t->o.eval_every = t->end - t->step > 20 ? (t->end - t->step) / 20 : 1;
    return 0;
}

static int run(Train *t) {
    int rc = make_folder(t->o.out);
    if (!rc) rc = find_data(t);
    if (!rc) rc = open_tokenizer(t);
    if (!rc) rc = open_lab(t);
    if (!rc) rc = prepare_data(t);
    if (!rc) rc = find_position(t);
    if (!rc) rc = apply_settings(t);
    if (!rc) rc = train_open_log(t);
    if (!rc) rc = train_write_config(t);
    return rc ? rc : train_loop(t);
}

static void free_train(Train *t) {
    lab_close(&t->lab);
    tokenizer_close(t->tok);
    if (t->data) sn_data_close(t->data);
    if (t->log) fclose(t->log);
    rows_free(&t->rows);
    free(t->row_loss);
    free(t->row_n);
}

int cmd_train(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    Train t = { .o = { .out = "run", .fuse = "all", .seed = 1, .eval_seed = 1, .draws = 8, .accum = 1, .log_every = 10,
                       .val_bytes = 128 << 10, .test_bytes = 0 },
                .best = INFINITY, .last_val = NAN, .from_step = -1 };
    TrainOptions *o = &t.o;
    const Opt opts[] = {
        { "data", 0, OPT_MANY, &o->data, "PATH...", "files, folders; or prepared shards, .bin of llm.c, nanoGPT, Megatron, or a folder of them" },
        { "tokenizer", 0, OPT_TEXT, &o->tokenizer, "FILE", "of text: tokenizer.json, merges.txt ... (default: bytes); checkpoints remember it; docs/data.md" },
        { "steps", 0, OPT_INT, &o->steps, "N", "optimizer steps" },
        { "epochs", 0, OPT_NUM, &o->epochs, "N", "or: passes over the unique text" },
        { "out", 'o', OPT_TEXT, &o->out, "DIR", "where everything lands (default: run)" },
        { "resume", 0, OPT_FLAG, &o->resume, "", "go on from DIR/last.safetensors, if it exists" },
        { "set", 0, OPT_LIST, &o->sets, "K=V", "an input: lr wd clip warmup schedule decay lr_min dropout input_mask ..." },
        { "define", 'D', OPT_LIST, &o->defines, "K=V", "a param or dim of the file" },
        { "accum", 0, OPT_INT, &o->accum, "K", "micro-steps per optimizer step, loss normalised over all of them" },
        { "unique", 0, OPT_INT, &o->unique, "BYTES", "budget of unique training text (64K); default: all" },
        { "val-bytes", 0, OPT_INT, &o->val_bytes, "N", "validation text (default 128K)" },
        { "test-bytes", 0, OPT_INT, &o->test_bytes, "N", "text for numbers that no choice is made on (default 0)" },
        { "held", 0, OPT_MANY, &o->held, "PATH...", "validation and test text come from these, not from --data" },
        { "corrupt", 0, OPT_TEXT, &o->corrupt, "UNIT:SHARE", "that share of the training text's bytes, words or lines trade places" },
        { "eod", 0, OPT_FLAG, &o->eod, "", "a token ends every document of text: the tokenizer's, of bytes 256 (-D vocab=258)" },
        { "fixed-windows", 0, OPT_FLAG, &o->fixed_windows, "", "cut windows at the same places in every epoch" },
        { "views", 0, OPT_INT, &o->views, "K", "so, and masks, orders, input noise of a window come again every K epochs" },
        { "score-fill", 0, OPT_FLAG, &o->score_fill, "", "of records (JSON lines): what fills a row up counts as answer, too" },
        { "split-seed", 0, OPT_INT, &o->split_seed, "N", "which files are for validation and test" },
        { "score-test", 0, OPT_FLAG, &o->score_test, "", "also score the test text at every evaluation (`report` uses it)" },
        { "eval-every", 0, OPT_INT, &o->eval_every, "N", "steps (default: a twentieth of the run)" },
        { "save-every", 0, OPT_INT, &o->save_every, "N", "keep step-N checkpoints; last is saved then and at evaluations" },
        { "no-keep", 0, OPT_FLAG, &o->no_keep, "", "with --save-every: save last only" },
        { "log-every", 0, OPT_INT, &o->log_every, "N", "steps per line of log.jsonl (default 10)" },
        { "from", 0, OPT_TEXT, &o->from, "CKPT", "start from this checkpoint's weights, moments and position" },
        { "init", 0, OPT_TEXT, &o->init, "CKPT", "start from this file's weights alone, at step 0: fine-tuning, other data; the shape is its where -D says nothing" },
        { "decay", 0, OPT_INT, &o->decay, "N", "with --from: anneal to lr_min over N steps, then stop" },
        { "seed", 0, OPT_INT, &o->seed, "N", "weights, data order, masks (default 1)" },
        { "draws", 0, OPT_INT, &o->draws, "N", "masks per validation window of a masked-diffusion model (default 8)" },
        { "eval-seed", 0, OPT_INT, &o->eval_seed, "N", "of these masks (default 1)" },
        { "device", 'd', OPT_TEXT, &o->device, "D", "host (default), opencl[:N][:gpu], cuda[:N], emu[:sm_NN], null: see `sinter devices`" },
        { "threads", 0, OPT_INT, &o->threads, "N", "0 = all cores; results do not depend on it" },
        PASS_OPTIONS(&o->passes),
        { "fuse", 0, OPT_TEXT, &o->fuse, "LIST", cmd_fuse_doc() },
        { "quiet", 'q', OPT_FLAG, &o->quiet, "", "no progress" },
        { 0 }
    };
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc < 0) rc = cmd_settings(self, &o->sets, &t.set);
    if (rc < 0) rc = cmd_fuse(self, o->fuse);
    if (rc < 0) rc = cmd_pass_options(self, &o->passes);
    if (rc >= 0) return rc;
    if (pos.n != 1) return cmd_usage(self, "wants one model file, and text after --data");
    if (o->steps && o->epochs > 0) return cmd_usage(self, "give --steps or --epochs, not both");
    if (o->passes.autocast && !strcmp(o->passes.autocast, "f16"))
        return cmd_usage(self, "--autocast f16 would need loss scaling, which there is not; train in bf16");
    if (o->init && o->from) return cmd_usage(self, "give --init or --from, not both");
    if (o->decay && !o->from && !o->resume) return cmd_usage(self, "--decay needs --from");
    if (o->views < 0) return cmd_usage(self, "--views is at least 0");
    if (o->accum < 1 || o->log_every < 1 || o->draws < 1) return cmd_usage(self, "--accum, --log-every and --draws are at least 1");
    o->file = pos.v[0];
    rc = run(&t);
    free_train(&t);
    return rc;
}
