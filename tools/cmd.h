/* cmd.h: what the subcommands share: the command table's row, option tables, loading of models, small helpers.

   A subcommand is one function `int cmd_NAME(const Command *, int argc, char **argv)` in cmd_NAME.c and one row in sinter.c.
   It returns the exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong usage. */
#ifndef SN_CMD_H
#define SN_CMD_H
#include "graph/graph.h"
#include "passes/pass.h"
#include "runtime/sn_rt.h"

typedef struct Command Command;
struct Command {
    const char *name;
    int (*run)(const Command *self, int argc, char **argv);   /* argv[0] is the first argument after the name */
    const char *synopsis, *doc, *example;
};

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* -- Options: one table per command says how they parse and what --help prints ------------------------------ */

typedef struct StrList { const char **v; int n; } StrList;
typedef enum { OPT_FLAG, OPT_INT, OPT_NUM, OPT_TEXT, OPT_LIST, OPT_MANY } OptKind;   /* to: bool, int64_t, double, const char *, StrList;
                                                                                       MANY takes all words up to the next option */
typedef struct Opt { const char *name; char letter; OptKind kind; void *to; const char *arg, *doc; } Opt;

/* Fills what the table points to and the positional arguments. Returns -1 to go on, else the exit status. The table ends
   with a row without name. */
int cmd_parse(const Command *self, int argc, char **argv, const Opt *opts, StrList *positional);
int cmd_usage(const Command *self, const char *fmt, ...) __attribute__((format(printf, 2, 3)));   /* one line, returns 2 */
int cmd_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));                         /* one line, returns 1 */
void list_add(StrList *l, const char *s);

/* Options of the passes, in the commands that run them; cmd_pass_options checks their values: -1, or the exit status. */
#define AUTOCAST_OPTION(po) \
    { "autocast", 0, OPT_TEXT, &(po)->autocast, "bf16|f16|tf32", "dtype of the matrix products' operands; all else stays f32. tf32: what tensor cores make of f32 (targets ptx)" }
#define PASS_OPTIONS(po)                                                                                                             \
    AUTOCAST_OPTION(po),                                                                                                             \
    { "recompute", 0, OPT_TEXT, &(po)->recompute, "none|block|full", "what the backward pass computes again instead of keeping it" }
int cmd_pass_options(const Command *self, const PassOptions *po);

/* "name=value" lists. */
typedef struct Setting { const char *name; double value; } Setting;
typedef struct Settings { Setting *v; int n; } Settings;
int cmd_settings(const Command *self, const StrList *words, Settings *out);      /* -1, or the exit status */
bool setting_fits(const Setting *s, const InputRange *range, Dtype d);                /* false after a line */
Define *cmd_defines(const StrList *words);                                       /* words->n of them */

/* --fuse LIST: -1, or the exit status after a line that names the valid ones; and what --help says about it. */
int cmd_fuse(const Command *self, const char *list);
const char *cmd_fuse_doc(void);

/* -- Models ------------------------------------------------------------------------------------------------- */

/* A context with the loaded module, or NULL after printing the error. */
typedef struct Model { sn_ctx *c; Module *m; } Model;
int model_load(Model *out, const char *path, const char *text, const StrList *defines);   /* text: NULL = read path */
void model_free(Model *m);
int model_error(const sn_ctx *c);                                /* prints the context's message, returns 1 */
/* The graph of that name; name NULL: the first of `preferred` that exists, else the first. NULL after an error line. */
const Graph *model_graph(const Model *m, const char *name, const char *const *preferred);

/* A bundle in the place of a model file (bundles.c). */
bool is_bundle(const char *path);
int print_bundle(const char *path, const char *graph, bool source, bool kernels, bool code);
int bundle_takes(const char *path, const StrList *defines, const PassOptions *po, const char *fuse);   /* 0, or 1 after a line: it is compiled */

/* -- Files ---------------------------------------------------------------------------------------------------- */

int with_parents(const char *path);                              /* makes a folder and those above it; 0 or errno */
int make_folder(const char *path);                               /* the same; 0 or an exit status after an error line */
int write_text(const char *path, const char *text, size_t n);    /* through a temporary file and rename */
char *text_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2)));       /* malloc'ed */
char *read_text(const char *path, size_t *n);                    /* malloc'ed, 0-terminated; NULL with errno */
int file_exists(const char *path);

extern const char SINTER_VERSION[];

#endif
