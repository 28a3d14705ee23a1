/* records.c: reads fine-tuning data; see records.h.

   In: lines of JSON from anywhere; empty lines are skipped. Out: records in the order of the file. A line that is no object with a
   "prompt" and a "completion" that is not empty is an error that names it; other keys are ignored. */
#define _GNU_SOURCE
#include "tools/records.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FAIL_NOMEM = -6, FAIL_IO = -7, FAIL_USAGE = -10 };     /* codes of graph/util.h */

bool records_named(const char *path)
{
    size_t n = strlen(path);
    return n > 6 && !strcmp(path + n - 6, ".jsonl");
}

void records_free(Records *r)
{
    for (int64_t i = 0; i < r->n; i++)
        free(r->v[i].text);
    free(r->v);
    *r = (Records){ 0 };
}

/* -- One line ---------------------------------------------------------------------------------- */

static int take(Records *r, const char *prompt, size_t np, const char *completion, size_t nc)
{
    if (r->n == r->cap) {
        int64_t cap = r->cap ? r->cap * 2 : 256;
        Record *grown = realloc(r->v, sizeof *grown * (size_t)cap);
        if (!grown)
            return FAIL_NOMEM;
        r->v = grown, r->cap = cap;
    }
    char *text = malloc(np + nc + 1);
    if (!text)
        return FAIL_NOMEM;
    memcpy(text, prompt, np);
    memcpy(text + np, completion, nc);
    r->v[r->n++] = (Record){ text, (int64_t)np, (int64_t)(np + nc) };
    return 0;
}

static int read_line(Records *r, const char *line, size_t n, const char *path, int64_t number, char err[256])
{
    json_error_t why;
    json_t *row = json_loadb(line, n, JSON_ALLOW_NUL, &why);
    const json_t *prompt = json_object_get(row, "prompt"), *completion = json_object_get(row, "completion");
    int rc = 0;
    if (!row)
        rc = FAIL_USAGE, snprintf(err, 256, "%.120s:%" PRId64 ": no JSON: %.80s", path, number, why.text);
    else if (!json_is_string(prompt) || !json_is_string(completion))
        rc = FAIL_USAGE, snprintf(err, 256, "%.120s:%" PRId64 ": an object with the strings \"prompt\" and \"completion\" is wanted", path, number);
    else if (!json_string_length(completion))
        rc = FAIL_USAGE, snprintf(err, 256, "%.120s:%" PRId64 ": the completion is empty: there is nothing to learn", path, number);
    else if ((rc = take(r, json_string_value(prompt), json_string_length(prompt), json_string_value(completion), json_string_length(completion))))
        snprintf(err, 256, "%.120s: out of memory", path);
    json_decref(row);
    return rc;
}

/* -- Equal records ----------------------------------------------------------------------------- */

typedef struct Key { uint64_t hash; int64_t at; } Key;

static int by_hash(const void *a, const void *b)
{
    const Key *x = a, *y = b;
    return x->hash != y->hash ? (x->hash > y->hash) - (x->hash < y->hash) : (x->at > y->at) - (x->at < y->at);
}

static int drop_equal(Records *r)
{
    Key *key = malloc(sizeof *key * (size_t)(r->n + 1));
    int64_t kept = 0;
    if (!key)
        return FAIL_NOMEM;
    for (int64_t i = 0; i < r->n; i++)
        key[i] = (Key){ XXH3_64bits_withSeed(r->v[i].text, (size_t)r->v[i].size, (uint64_t)r->v[i].prompt), i };
    qsort(key, (size_t)r->n, sizeof *key, by_hash);
    for (int64_t i = 1; i < r->n; i++)
        if (key[i].hash == key[i - 1].hash) {    /* the first in the file stays */
            free(r->v[key[i].at].text);
            r->v[key[i].at].text = NULL;
            r->duplicates++;
        }
    free(key);
    for (int64_t i = 0; i < r->n; i++)
        if (r->v[i].text)
            r->v[kept++] = r->v[i];
    r->n = kept;
    return 0;
}

/* -- A file ------------------------------------------------------------------------------------ */

int records_read(Records *r, const char *path, char err[256])
{
    FILE *f = fopen(path, "rbe");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    int64_t number = 0;
    if (!f) {
        snprintf(err, 256, "%.160s: %s", path, strerror(errno));
        return FAIL_IO;
    }
    while (!rc && (n = getline(&line, &cap, f)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] || (size_t)n > strlen(line))
            rc = read_line(r, line, (size_t)n, path, number, err);
    }
    if (!rc && ferror(f))
        rc = FAIL_IO, snprintf(err, 256, "%.160s: %s", path, strerror(errno));
    free(line);
    fclose(f);
    if (!rc && (rc = drop_equal(r)))
        snprintf(err, 256, "%.160s: out of memory", path);
    r->files++;
    r->bytes = 0;
    for (int64_t i = 0; i < r->n; i++)
        r->bytes += r->v[i].size;
    return rc;
}
