/* safetensors.c: tensor files in the safetensors format: a hardened reader, a writer that loses
   nothing.

     u64 length | {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...} | data

   Reading: the file is mapped; before anything is used the whole header is checked: lengths, JSON,
   names, dtypes, shapes (overflow), offsets; tensors must cover the data without gap, overlap or
   rest. Hostile bytes give one line of error.
   Writing: by replace.c; at any moment `path` is the old file or the new one. */
#define _GNU_SOURCE
#include "runtime/rt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void *sn_no_stdin;                               /* see CMakeLists.txt: jansson inside libsinter_rt */

enum { MAX_HEADER = 100 << 20, ALIGN = 64 };

static const struct { const char *name; uint8_t dtype; } file_types[] = {
    { "F32", DT_F32 }, { "BF16", DT_BF16 }, { "F16", DT_F16 }, { "I32", DT_I32 },
    { "U32", DT_U32 }, { "BOOL", DT_BOOL }, { "F64", DT_F64 }, { "U8", SN_FILE_U8 },
    { "I8", SN_FILE_I8 }, { "U16", SN_FILE_U16 }, { "I16", SN_FILE_I16 }, { "U64", SN_FILE_U64 },
    { "I64", SN_FILE_I64 }, { "F8_E4M3", SN_FILE_F8_E4M3 }, { "F8_E5M2", SN_FILE_F8_E5M2 },
};
enum { NTYPES = sizeof file_types / sizeof *file_types };

struct sn_file {
    char *map;
    size_t size;
    json_t *header;                      /* owns the names and the metadata */
    sn_tensor *tensor;                   /* by offset of their data */
    const sn_tensor **by_name;
    int count;
};

/* -- Reading ----------------------------------------------------------------------------------- */

static int map_file(sn_file *f, const char *path, char err[ERR_TEXT])
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return snR_fail(err, ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st))
        rc = snR_fail(err, ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = snR_fail(err, ERR_IO, "%s: not a regular file", path);
    else if (st.st_size < 8)
        rc = snR_fail(err, ERR_IO, "%s: not a safetensors file: only %lld bytes", path,
                      (long long)st.st_size);
    else if ((f->map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        rc = snR_fail(err, ERR_IO, "%s: cannot map: %s", path, strerror(errno));
    else
        f->size = (size_t)st.st_size;
    if (rc)
        f->map = NULL;
    close(fd);
    return rc;
}

static int load_header(sn_file *f, const char *path, const char **data, char err[ERR_TEXT])
{
    uint64_t n = 0;
    json_error_t why;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | (uint8_t)f->map[i];
    if (n > MAX_HEADER || n > f->size - 8)
        return snR_fail(err, ERR_IO, "%s: not a safetensors file, or cut off: header of %" PRIu64
                        " bytes in a file of %zu", path, n, f->size);
    if (n < 2 || f->map[8] != '{')
        return snR_fail(err, ERR_IO, "%s: not a safetensors file: the header is no JSON object",
                        path);
    f->header = json_loadb(f->map + 8, n, JSON_REJECT_DUPLICATES, &why);
    if (!f->header)
        return snR_fail(err, ERR_IO, "%s: bad header at byte %d: %s", path, why.position, why.text);
    *data = f->map + 8 + n;
    return 0;
}

static int check_metadata(const json_t *meta, const char *path, char err[ERR_TEXT])
{
    const char *key;
    json_t *value;
    if (!meta)
        return 0;
    if (!json_is_object(meta))
        return snR_fail(err, ERR_IO, "%s: __metadata__ is not an object", path);
    json_object_foreach((json_t *)meta, key, value)
        if (!json_is_string(value))
            return snR_fail(err, ERR_IO, "%s: __metadata__ '%.60s' is not a string", path, key);
    return 0;
}

/* One entry of the header; on success begin and t->bytes are its stretch of the data. */
static int read_entry(sn_tensor *t, json_t *entry, const char *data, uint64_t data_bytes,
                      const char *path, char err[ERR_TEXT])
{
    json_t *shape = json_object_get(entry, "shape"),
           *offsets = json_object_get(entry, "data_offsets");
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!type || !json_is_array(shape) || json_array_size(offsets) != 2 ||
        !json_is_integer(first) || !json_is_integer(last))
        return snR_fail(err, ERR_IO,
                        "%s: tensor '%.60s': dtype, shape or data_offsets missing or malformed",
                        path, t->name);
    for (int i = 0; i < NTYPES; i++)
        if (!strcmp(type, file_types[i].name))
            t->dtype = file_types[i].dtype;
    if (!t->dtype)
        return snR_fail(err, ERR_IO, "%s: tensor '%.60s': dtype '%.20s' is not supported", path,
                        t->name, type);
    if (json_array_size(shape) > SN_MAX_RANK)
        return snR_fail(err, ERR_IO, "%s: tensor '%.60s' has more than %d axes", path, t->name,
                        SN_MAX_RANK);
    t->rank = (uint8_t)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        json_t *d = json_array_get(shape, (size_t)i);
        t->dim[i] = json_is_integer(d) ? json_integer_value(d) : -1;
    }
    int64_t bytes = snR_tensor_bytes(t->dtype, t->rank, t->dim);
    json_int_t b = json_integer_value(first), e = json_integer_value(last);
    if (bytes < 0)
        return snR_fail(err, ERR_IO, "%s: tensor '%.60s' has an impossible shape", path, t->name);
    if (b < 0 || e < b || (uint64_t)e > data_bytes)
        return snR_fail(err, ERR_IO, "%s: tensor '%.60s' lies outside the file (cut off?)", path,
                        t->name);
    if (e - b != bytes)
        return snR_fail(err, ERR_IO, "%s: tensor '%.60s': %lld bytes of data for a shape of %lld",
                        path, t->name, (long long)(e - b), (long long)bytes);
    t->data = data + b;
    t->bytes = (size_t)bytes;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const sn_tensor *x = a, *y = b;
    const char *p = x->data, *q = y->data;
    if (p != q)
        return p < q ? -1 : 1;
    if (x->bytes != y->bytes)                    /* empty tensors come first */
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const sn_tensor *const *)a)->name, (*(const sn_tensor *const *)b)->name);
}

static int read_tensors(sn_file *f, const char *data, const char *path, char err[ERR_TEXT])
{
    size_t n = json_object_size(f->header);
    const char *key, *end = f->map + f->size;
    json_t *value;
    f->tensor = calloc(n + 1, sizeof *f->tensor);
    f->by_name = calloc(n + 1, sizeof *f->by_name);
    if (!f->tensor || !f->by_name)
        return snR_fail(err, ERR_NOMEM, "%s: out of memory", path);
    json_object_foreach(f->header, key, value) {
        int rc;
        if (!strcmp(key, "__metadata__")) {
            rc = check_metadata(value, path, err);
        } else {
            f->tensor[f->count].name = key;
            rc = read_entry(&f->tensor[f->count++], value, data, (uint64_t)(end - data), path, err);
        }
        if (rc)
            return rc;
    }
    qsort(f->tensor, (size_t)f->count, sizeof *f->tensor, by_place);
    const char *at = data;
    for (int i = 0; i < f->count; i++) {
        if (f->tensor[i].data != at)
            return snR_fail(err, ERR_IO, "%s: tensor '%.60s' %s", path, f->tensor[i].name,
                            (const char *)f->tensor[i].data < at ? "overlaps another"
                                                                 : "comes after a gap");
        at += f->tensor[i].bytes;
        f->by_name[i] = &f->tensor[i];
    }
    if (at != end)
        return snR_fail(err, ERR_IO, "%s: %lld bytes after the last tensor", path,
                        (long long)(end - at));
    qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, by_name);
    return 0;
}

sn_file *sn_file_open(const char *path, char err[ERR_TEXT])
{
    const char *data;
    sn_file *f = calloc(1, sizeof *f);
    if (!f) {
        snR_fail(err, ERR_NOMEM, "%s: out of memory", path);
        return NULL;
    }
    if (map_file(f, path, err) || load_header(f, path, &data, err) ||
        read_tensors(f, data, path, err)) {
        sn_file_close(f);
        return NULL;
    }
    return f;
}

void sn_file_close(sn_file *f)
{
    if (!f)
        return;
    free(f->tensor);
    free(f->by_name);
    json_decref(f->header);
    if (f->map)
        munmap(f->map, f->size);
    free(f);
}

int sn_file_count(const sn_file *f) { return f->count; }
const sn_tensor *sn_file_at(const sn_file *f, int i)
{
    return i >= 0 && i < f->count ? &f->tensor[i] : NULL;
}

const sn_tensor *sn_file_find(const sn_file *f, const char *name)
{
    int lo = 0, hi = f->count;
    while (lo < hi) {
        int mid = (lo + hi) / 2, order = strcmp(f->by_name[mid]->name, name);
        if (order == 0)
            return f->by_name[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const char *sn_file_meta(const sn_file *f, const char *key)
{
    return json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), key));
}

/* -- Writing ----------------------------------------------------------------------------------- */

/* Large elements first: with an aligned header every tensor is aligned to its element. */
static int by_size(const void *a, const void *b)
{
    const sn_tensor *x = *(const sn_tensor *const *)a, *y = *(const sn_tensor *const *)b;
    int p = snR_dtype_size(x->dtype), q = snR_dtype_size(y->dtype);
    return p != q ? q - p : (x > y) - (x < y);
}

static json_t *make_entry(const sn_tensor *t, int64_t offset)
{
    const char *type = "";
    json_t *shape = json_array();
    for (int i = 0; i < NTYPES; i++)
        if (file_types[i].dtype == t->dtype)
            type = file_types[i].name;
    for (int i = 0; i < t->rank; i++)
        if (json_array_append_new(shape, json_integer(t->dim[i]))) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", type, "shape", shape, "data_offsets",
                     (json_int_t)offset, (json_int_t)(offset + (int64_t)t->bytes));
}

/* The text of the header. json_dumps may leave out what it had no memory for, so it is read back. */
static char *dump_header(const json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    json_t *again = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool whole = again && json_equal(root, again);
    json_decref(again);
    if (whole)
        return text;
    free(text);
    return NULL;
}

/* The header's JSON, padded with spaces: the data starts on a multiple of ALIGN; NULL: error. */
static char *make_header(const sn_tensor *const *t, int n, const char *const *meta, size_t *length,
                         char err[ERR_TEXT])
{
    json_t *root = json_object();
    char *text = NULL, *padded = NULL;
    int64_t offset = 0;
    int rc = 0;
    if (meta && meta[0]) {
        json_t *m = json_object();
        for (int i = 0; meta[i] && !rc; i += 2)
            rc = json_object_set_new(m, meta[i], json_string(meta[i + 1]));
        rc = json_object_set_new(root, "__metadata__", m) || rc;
    }
    for (int i = 0; i < n && !rc; i++) {
        if (snR_tensor_bytes(t[i]->dtype, t[i]->rank, t[i]->dim) != (int64_t)t[i]->bytes ||
            !strcmp(t[i]->name, "__metadata__") || json_object_get(root, t[i]->name)) {
            snR_fail(err, ERR_USAGE,
                     "cannot write tensor '%s': its size or name is wrong or used twice",
                     t[i]->name);
            goto out;
        }
        rc = json_object_set_new(root, t[i]->name, make_entry(t[i], offset));
        offset += (int64_t)t[i]->bytes;
    }
    text = rc ? NULL : dump_header(root);
    if (!text) {
        snR_fail(err, ERR_USAGE,
                 "cannot write the header: a name or a metadata text is not UTF-8, or no memory");
        goto out;
    }
    size_t used = strlen(text);
    *length = (8 + used + ALIGN - 1) / ALIGN * ALIGN - 8;
    padded = malloc(*length);
    if (!padded) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        goto out;
    }
    memset(padded, ' ', *length);
    memcpy(padded, text, used);
out:
    free(text);
    json_decref(root);
    return padded;
}

typedef struct Contents { const char *header; size_t length; const sn_tensor *const *tensor; int n; } Contents;

static bool write_tensors(int fd, void *arg)
{
    const Contents *c = arg;
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)((uint64_t)c->length >> 8 * i);
    bool ok = snR_write_all(fd, size, 8) && snR_write_all(fd, c->header, c->length);
    for (int i = 0; i < c->n && ok; i++)
        ok = snR_write_all(fd, c->tensor[i]->data, c->tensor[i]->bytes);
    return ok;
}

int sn_file_write(const char *path, const sn_tensor *t, int n, const char *const *meta,
                  char err[ERR_TEXT])
{
    int rc = 0;
    Contents c = { .n = n };
    const sn_tensor **order = malloc(sizeof *order * ((size_t)n + 1));
    if (!order)
        return snR_fail(err, ERR_NOMEM, "%s: out of memory", path);
    for (int i = 0; i < n; i++)
        order[i] = &t[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    c.tensor = order;
    c.header = make_header(order, n, meta, &c.length, err);
    rc = c.header ? snR_replace(path, write_tensors, &c, err) : ERR_USAGE;
    free((char *)c.header);
    free(order);
    return rc;
}
