/* sinter.c: the command line: finds the subcommand's row and calls it.

     sinter COMMAND [arguments]        sinter --help, sinter COMMAND --help

   Exit status: 0 done, 1 failed, 2 wrong usage. */
#include "tools/cmd.h"

#define COMMANDS(C)                                                                                                      \
    C(print,   "M.sn|X.snb [-D k=v] [-p pass,...] [--graph G] [--path h.3] [--dot] [--stats]",                                 \
      "Prints a graph, flat, as elaborated or after passes; what is printed is valid input. Of a bundle: what is in it.",                           \
      "sinter print models/dlm.sn -D layers=2 --graph train -p canon,recognise,grad")                                   \
    C(check,   "M.sn [-D k=v] [--graph G] [-p pass,...] [--seed N]",                                                     \
      "Evaluates the graph after every pass on the same values; names the first pass that moves the answer.",           \
      "sinter check models/ar.sn -D layers=1 -D width=32 -D heads=2 -D hidden=64 -D seq=16 -D batch=2")                       \
    C(ops,     "[NAME...]",                                                                                              \
      "The op reference, from the table and std.sn; with names, only these.",                                           \
      "sinter ops matmul gather")                                                                                       \
    C(build,   "M.sn -o X.snb [-t TARGET,...] [--train] [-D k=v]",                                                          \
      "Compiles a model ahead of time, for one or several targets, into one file that print, run, train, eval and bench take in the\n"  \
      "place of the model, on machines without a compiler. docs/bundle.md says what is in it.",                           \
      "sinter build models/dlm.sn --train -t host,opencl:x8 -D layers=2 -o dlm.snb")                                      \
    C(plan,    "M.sn [-D preset=1b] [--tokens N | --unique N --epochs N] [--rate F | --like DIR]",                              \
      "What a training run would take: weights, memory of a step, FLOPs of a step and of the run, its time at a rate.",   \
      "sinter plan models/dlm.sn -D preset=1b --accum 32 --unique 1e9 --epochs 480 --autocast bf16 --recompute block --rate 400e12") \
    C(run,     "M.sn|X.snb [--graph G] [--in F.safetensors]... [--set k=v]... [--out F.safetensors]",                          \
      "Runs one graph once. Tensors of --in are inputs, weights, states, or any named node, which they replace.\n"       \
      "What is not given takes its initial value or default. --out gets all outputs, and updated weights and states.",  \
      "sinter run models/ar.sn --graph eval --in batch.safetensors --out result.safetensors")                           \
    C(train,   "M.sn|X.snb --data PATH... [--steps N | --epochs N] [--out DIR] [--resume] [--set k=v]...",                     \
      "Trains a model on text or on prepared token shards. Everything about the run lands in --out: config.json,\n"      \
      "log.jsonl (one object a line), checkpoints last, best and step-N, and the losses of every validation window.\n"   \
      "SIGINT saves and stops; --resume goes on to the same bits.",                                                      \
      "sinter train models/dlm.sn --data src/ --epochs 50 --out runs/dlm --set lr=1e-3 --set dropout=0.1")              \
    C(eval,    "M.sn|X.snb --ckpt F.safetensors... [--data PATH...] [--tasks FILE...] [--texts FILE] [--draws N] [--json]",                \
      "--data: the loss of checkpoints on whole windows: exact likelihood (AR) or the NELBO over --draws stratified draws (DLM).\n"  \
      "--tasks: multiple choice (HellaSwag, MMLU, any JSON lines): accuracy, likelihoods of the options and their gap.\n"          \
      "Others: next-token accuracy, loss at the best temperature, questions made of text, generated texts. docs/evaluation.md.",     \
      "sinter eval models/dlm.sn --ckpt runs/dlm/step-*.safetensors --tasks hellaswag_val.jsonl --draws 32 --limit 1000 --json")   \
    C(generate, "M.sn --ckpt F.safetensors [--prompt TEXT | --tasks F.jsonl] [--tokens N] [--temperature X]",                 \
      "Text after a prompt: AR token by token over a cache of keys and values, DLM by denoising blocks; completions of task files.\n"   \
      "The same seed gives the same text. docs/generation.md tells the samplers.",                                     \
      "sinter generate models/dlm.sn --ckpt runs/dlm/best.safetensors --prompt 'def f(x):' --tokens 64 --steps 32 --block 16")   \
    C(import,  "DIR -o F.safetensors [--type llama|qwen3|qwen3_moe|llada]",                                                        \
      "A Hugging Face folder (config.json, model.safetensors or several with their index) as a checkpoint for models/ar.sn and\n"   \
      "models/dlm.sn, with its params: eval and generate take it. Llama-, Qwen3- and LLaDA-shaped models. docs/weights.md.",            \
      "sinter import Qwen3-0.6B -o qwen.safetensors && sinter eval models/ar.sn --ckpt qwen.safetensors --data text.safetensors")         \
    C(export,  "F.safetensors -o DIR [--type llama|qwen3|qwen3_moe|llada] [--dtype f32|bf16|f16] [--shard BYTES]",                    \
      "A checkpoint as a Hugging Face folder, which transformers opens, or loaders of LLaDA and MegaDLMs. docs/weights.md.",             \
      "sinter export runs/ar/best.safetensors -o my-model --dtype bf16 --shard 4G")                                        \
    C(tokens,  "PATH... [--tokenizer FILE] [-o FILE] [--format sinter|llm.c|nanogpt|megatron] [--eod]  |  X.bin",                                      \
      "Text to a file of tokens, by bytes or a BPE tokenizer, in our format or llm.c's, nanoGPT's, Megatron's; says how many and how fast.\n" \
      "Of a .bin or .idx: what is in it. docs/data.md.",                                                                  \
      "sinter tokens src/ --tokenizer gpt2/merges.txt --eod -o train.bin --format llm.c")                                        \
    C(bench,   "M.sn | X.snb | gemm | rows | attention | xent [--fuse LIST] [--json] [--shapes LIST] [--steps N] [--threads N]",         \
      "M.sn: the training step, fused against unfused in turn: time, FLOPs, bytes, launches, memory, and per fused kernel its\n"  \
      "share of the roofline (FMA peak and bandwidth measured in the same run) and the time of the unfused kernels it replaces.\n" \
      "Loss, moments and weights of both sides are compared; a difference beyond rounding fails.\n"                               \
      "gemm: matrix products against the FMA peak. rows: softmax, norms, swiglu, dropout, AdamW against the bandwidth.\n"         \
      "attention: any mask, forward and backward, FLOPs over visited blocks. xent: vocabulary projection and loss.\n"             \
      "X.snb: from the file to the first launch.",             \
      "sinter bench models/dlm.sn -D layers=2 --fuse=-epilogue")                                                          \
    C(study,   "FILE.study [--data PATH...] [--out DIR] [--jobs N]",                                                     \
      "Runs many arms under matched settings: every arm at every value of the axes with every seed, some at a time.\n"   \
      "What has ended is not run again, what was cut off goes on. models/studies/ has studies; docs/study.md explains.", \
      "sinter study models/studies/unique.study --data src/ --out runs/unique && sinter report runs/unique")            \
    C(report,  "DIR [--json] [--no-plot]",                                                                               \
      "Of the runs below DIR: a table, the crossovers, summary.json and curves. Of a study's folder: arms over seeds with intervals,\n"   \
      "report.html, plots/ and .csv files, at any time, also of a part. docs/study.md says how to read them.",            \
      "sinter report runs/unique")                                                                                        \
    C(devices, "[--json] [--quick]",                                                                                     \
      "What is here, its measured FMA peak and memory bandwidth.",                                                      \
      "sinter devices")                                                                                                 \
    C(test,    "FILE... [--bless]",                                                                                      \
      "Runs text tests: `#! command` on the first line, then input, `#= expect`, and the whole output.",                \
      "sinter test tests/text/print.sn tests/passes")

#define C(name, synopsis, doc, example) int cmd_##name(const Command *, int, char **);
COMMANDS(C)
#undef C

static const Command commands[] = {
#define C(name, synopsis, doc, example) { #name, cmd_##name, synopsis, doc, example },
    COMMANDS(C)
#undef C
};
enum { NCOMMANDS = sizeof commands / sizeof *commands };

static void overview(FILE *f) {
    fprintf(f, "sinter %s: compiles transformer language models from graph files, runs and trains them\n\n", SINTER_VERSION);
    for (int i = 0; i < NCOMMANDS; i++)
        fprintf(f, "  sinter %-9s %.*s\n", commands[i].name, (int)strcspn(commands[i].doc, "\n"), commands[i].doc);
    fprintf(f, "\n`sinter COMMAND --help` shows its options and an example.\n");
}

int main(int argc, char **argv) {
    if (argc >= 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))) {
        overview(stdout);
        return EXIT_DONE;
    }
    if (argc >= 2 && !strcmp(argv[1], "--version")) {
        printf("sinter %s\n", SINTER_VERSION);
        return EXIT_DONE;
    }
    for (int i = 0; argc >= 2 && i < NCOMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(&commands[i], argc - 2, argv + 2);
    if (argc >= 2) fprintf(stderr, "sinter: no command is called '%s'\n\n", argv[1]);
    overview(stderr);
    return EXIT_USAGE;
}
