/* bundle.c: .snb files, written and read.

   A bundle holds one program a target: everything of an SnProgram, and the code. Little-endian.

     0    8   magic \211 S N B \r \n \032 \n         (a transfer that changes line ends breaks it)
     8    4   version, 1       12  4  number of sections
     16   8   bytes of the file
     24   8   XXH3 of the section table
     32  32   0
     64       section table: per section
              4 kind   4 program   8 offset   8 bytes   8 XXH3 of the section
     ...      sections: text at multiples of 64, code at multiples of 4096, zeros between

   Kinds: 1 manifest of a program, 2 its code, 3 the model's source (flat), 4 the model's name, 5 PTX assembled for the target's card (a cubin).

   A manifest is text, a statement a line, fields separated by blanks; in names, blanks, control characters and % are %XX, and the
   empty name is %. A tensor is dtype rank dims...; numbers are decimal, floating ones hexadecimal (C's %a).

     target T | hash H | needs F F ...
     param NAME VALUE
     storage NAME tensor state init a b inside offset
     kernel SYMBOL FAMILY LABEL grid scratch threads shared flops bytes nargs [timeless]
     graph NAME arena live buffers launches outputs             followed by as many of these:
     buffer NAME tensor kind bytes offset storage [default [range lo hi]]
     launch KERNEL BUFFER...
     output NAME BUFFER

   The reader believes nothing: sizes against the file, sums of every section, every field of every line; what the numbers
   mean is then checked by snR_program_check, as for a program that was just compiled. Host code is native code and is trusted. */
#define _GNU_SOURCE
#include "runtime/bundle.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, HEADER = 64, ENTRY = 32, TEXT_ALIGN = 64, CODE_ALIGN = 4096, MAX_SECTIONS = 4096 };
enum { MANIFEST = 1, CODE, SOURCE, MODEL, CUBIN };
static const uint8_t MAGIC[8] = { 0x89, 'S', 'N', 'B', '\r', '\n', 0x1a, '\n' };
static const char *const kind_names[] = { "?", "manifest", "code", "source", "name", "cubin" };

typedef struct Section { uint32_t kind, program; uint64_t offset, bytes, hash; } Section;

/* -- Writing: the manifest ----------------------------------------------------------------------- */

static void put_name(FILE *f, const char *s)
{
    fputc(' ', f);
    if (!s || !*s)
        fputc('%', f);
    for (; s && *s; s++) {
        if ((unsigned char)*s <= ' ' || *s == '%' || *s == 0x7f)
            fprintf(f, "%%%02X", (unsigned char)*s);
        else
            fputc(*s, f);
    }
}

static void put_tensor(FILE *f, const SnTensorDesc *t)
{
    fprintf(f, " %d %d", t->dtype, t->rank);
    for (int i = 0; i < t->rank; i++)
        fprintf(f, " %lld", (long long)t->dim[i]);
}

static void put_graph(FILE *f, const SnGraphPlan *g)
{
    fputs("graph", f);
    put_name(f, g->name);
    fprintf(f, " %lld %lld %d %d %d\n", (long long)g->arena_bytes, (long long)g->live_peak, g->nbuffers, g->nlaunches, g->noutputs);
    for (int i = 0; i < g->nbuffers; i++) {
        const SnBuffer *b = &g->buffers[i];
        fputs("buffer", f);
        put_name(f, b->t.name);
        put_tensor(f, &b->t);
        fprintf(f, " %d %lld %lld %d", b->kind, (long long)b->bytes, (long long)b->offset, b->storage);
        if (b->has_default)
            fprintf(f, " %a", b->dflt);
        if (b->has_default && b->range)
            fprintf(f, " %d %a %a", b->range, b->lo, b->hi);
        fputc('\n', f);
    }
    for (int i = 0; i < g->nlaunches; i++) {
        fprintf(f, "launch %d", g->launches[i].kernel);
        for (int k = 0; k < g->launches[i].nargs; k++)
            fprintf(f, " %d", g->launches[i].args[k]);
        fputc('\n', f);
    }
    for (int i = 0; i < g->noutputs; i++) {
        fputs("output", f);
        put_name(f, g->outputs[i].name);
        fprintf(f, " %d\n", g->outputs[i].buffer);
    }
}

static void put_manifest(FILE *f, const SnProgram *p)
{
    char needs[512];
    fputs("target", f);
    put_name(f, p->target);
    snR_cpu_needs(p->target, needs);
    fprintf(f, "\nhash %016llx\nneeds%s%s\n", (unsigned long long)p->hash, *needs ? " " : "", needs);
    for (int i = 0; i < p->nparams; i++) {
        fputs("param", f);
        put_name(f, p->params[i].name);
        put_name(f, p->params[i].value);
        fputc('\n', f);
    }
    for (int i = 0; i < p->nstorage; i++) {
        const SnStorage *s = &p->storage[i];
        fputs("storage", f);
        put_name(f, s->t.name);
        put_tensor(f, &s->t);
        fprintf(f, " %d %d %a %a %d %lld\n", s->is_state, s->init, s->a, s->b, s->inside, (long long)s->offset);
    }
    for (int i = 0; i < p->nkernels; i++) {
        const SnKernelDesc *k = &p->kernels[i];
        fputs("kernel", f);
        put_name(f, k->symbol);
        put_name(f, k->family);
        put_name(f, k->label);
        fprintf(f, " %lld %lld %d %lld %a %a %d %d\n", (long long)k->grid, (long long)k->scratch_bytes, k->threads, (long long)k->shared_bytes,
                k->flops, k->bytes, k->nargs, k->timeless);
    }
    for (int i = 0; i < p->ngraphs; i++)
        put_graph(f, &p->graphs[i]);
}

/* -- Writing: the file --------------------------------------------------------------------------- */

typedef struct Piece { Section s; const void *data; char *made; } Piece;   /* made: what is freed */

static char *manifest_text(const SnProgram *p, size_t *bytes)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, bytes);
    if (!f)
        return NULL;
    put_manifest(f, p);
    bool ok = !ferror(f);
    if (fclose(f) || !ok) {
        free(text);
        return NULL;
    }
    return text;
}

static bool is_code(uint32_t kind) { return kind == CODE || kind == CUBIN; }
static bool is_of_program(uint32_t kind) { return kind == MANIFEST || is_code(kind); }

static uint64_t up(uint64_t x, uint64_t to) { return (x + to - 1) / to * to; }

static void lay_out(Piece *piece, int n, uint64_t *file_bytes)
{
    uint64_t at = HEADER + (uint64_t)n * ENTRY;
    for (int i = 0; i < n; i++) {
        Section *s = &piece[i].s;
        s->offset = up(at, is_code(s->kind) ? CODE_ALIGN : TEXT_ALIGN);
        s->hash = XXH3_64bits(s->bytes ? piece[i].data : "", s->bytes);
        at = s->offset + s->bytes;
    }
    *file_bytes = at;
}

static void put_bytes(uint8_t *at, uint64_t v, int n)
{
    for (int i = 0; i < n; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_bytes(const uint8_t *at, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)at[i] << 8 * i;
    return v;
}

typedef struct Pieces { const Piece *piece; int n; uint64_t bytes; } Pieces;

static bool write_pieces(int fd, void *arg)
{
    static const char zeros[CODE_ALIGN];
    const Pieces *p = arg;
    uint64_t at = HEADER + (uint64_t)p->n * ENTRY;
    uint8_t *head = calloc(1, at);
    if (!head)
        return false;
    for (int i = 0; i < p->n; i++) {
        const Section *s = &p->piece[i].s;
        uint8_t *e = head + HEADER + i * ENTRY;
        put_bytes(e, s->kind, 4), put_bytes(e + 4, s->program, 4), put_bytes(e + 8, s->offset, 8);
        put_bytes(e + 16, s->bytes, 8), put_bytes(e + 24, s->hash, 8);
    }
    memcpy(head, MAGIC, 8);
    put_bytes(head + 8, VERSION, 4), put_bytes(head + 12, (uint64_t)p->n, 4), put_bytes(head + 16, p->bytes, 8);
    put_bytes(head + 24, XXH3_64bits(head + HEADER, (size_t)p->n * ENTRY), 8);
    bool ok = snR_write_all(fd, head, at);
    for (int i = 0; i < p->n && ok; i++) {
        const Section *s = &p->piece[i].s;
        ok = snR_write_all(fd, zeros, s->offset - at) && snR_write_all(fd, p->piece[i].data, s->bytes);
        at = s->offset + s->bytes;
    }
    free(head);
    return ok;
}

int snR_bundle_write(const char *path, const SnProgram *const *programs, int n, const char *model, const char *source, char err[ERR_TEXT])
{
    Piece *piece = calloc(3 * (size_t)n + 2, sizeof *piece);
    int k = 0, rc = piece ? 0 : snR_fail(err, ERR_NOMEM, "out of memory");
    uint64_t bytes;
    for (int i = 0; i < n && !rc; i++) {
        size_t size = 0;
        char *text = manifest_text(programs[i], &size);
        if (!text) {
            rc = snR_fail(err, ERR_NOMEM, "out of memory for the manifest of %s", programs[i]->target);
            break;
        }
        piece[k++] = (Piece){ { MANIFEST, (uint32_t)i, 0, size, 0 }, text, text };
        piece[k++] = (Piece){ { CODE, (uint32_t)i, 0, programs[i]->code_bytes, 0 }, programs[i]->code, NULL };
        if (programs[i]->cubin)
            piece[k++] = (Piece){ { CUBIN, (uint32_t)i, 0, programs[i]->cubin_bytes, 0 }, programs[i]->cubin, NULL };
    }
    if (!rc) {
        piece[k++] = (Piece){ { SOURCE, 0, 0, strlen(source), 0 }, source, NULL };
        piece[k++] = (Piece){ { MODEL, 0, 0, strlen(model), 0 }, model, NULL };
        lay_out(piece, k, &bytes);
        rc = snR_replace(path, write_pieces, &(Pieces){ piece, k, bytes }, err);
    }
    for (int i = 0; i < k; i++)
        free(piece[i].made);
    free(piece);
    return rc;
}

/* -- Reading: the file ----------------------------------------------------------------------------- */

/* The mapped file; programs share it. */
struct SnMapping { void *map; size_t bytes; int users; };

struct Bundle {
    char *path;
    SnMapping *file;
    int nsections, nprograms;
    Section *section;
    char *source, *model;
    char **target, **needs;          /* per program */
};

void snR_unmap(SnMapping *m)
{
    if (!m || --m->users > 0)
        return;
    if (m->map)
        munmap(m->map, m->bytes);
    free(m);
}

bool snR_bundle_is(const char *path)
{
    uint8_t head[8] = { 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0)
        close(fd);
    return n >= 4 && !memcmp(head, MAGIC, 4);
}

static int map_file(Bundle *b, char err[ERR_TEXT])
{
    struct stat st;
    int fd = open(b->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return snR_fail(err, ERR_IO, "%s: %s", b->path, strerror(why));
    }
    b->file->bytes = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size : 0;
    void *map = b->file->bytes ? mmap(NULL, b->file->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED)
        return snR_fail(err, ERR_PROGRAM, "%s is no bundle: `sinter build` makes them", b->path);
    b->file->map = map;
    return 0;
}

static int check_header(const Bundle *b, char err[ERR_TEXT])
{
    const uint8_t *h = b->file->map;
    size_t bytes = b->file->bytes;
    if (bytes < 8 || memcmp(h, MAGIC, 4))
        return snR_fail(err, ERR_PROGRAM, "%s is no bundle: `sinter build` makes them", b->path);
    if (memcmp(h, MAGIC, 8))
        return snR_fail(err, ERR_PROGRAM, "%s was changed in transfer (line ends): copy it as a binary file", b->path);
    if (bytes < HEADER)
        return snR_fail(err, ERR_PROGRAM, "%s is cut short: it has %zu bytes", b->path, bytes);
    if (get_bytes(h + 8, 4) != VERSION)
        return snR_fail(err, ERR_PROGRAM, "%s has format %llu, this runtime reads %d: build it again, or update the runtime", b->path,
                        (unsigned long long)get_bytes(h + 8, 4), VERSION);
    if (get_bytes(h + 16, 8) > bytes)
        return snR_fail(err, ERR_PROGRAM, "%s is cut short: %zu of %llu bytes are here; copy it again", b->path, bytes,
                        (unsigned long long)get_bytes(h + 16, 8));
    if (get_bytes(h + 16, 8) < bytes)
        return snR_fail(err, ERR_PROGRAM, "%s is damaged: something follows its end", b->path);
    return 0;
}

static int read_section(Bundle *b, int i, char err[ERR_TEXT])
{
    const uint8_t *e = (const uint8_t *)b->file->map + HEADER + (size_t)i * ENTRY;
    Section *s = &b->section[i];
    *s = (Section){ (uint32_t)get_bytes(e, 4), (uint32_t)get_bytes(e + 4, 4), get_bytes(e + 8, 8), get_bytes(e + 16, 8), get_bytes(e + 24, 8) };
    if (s->offset > b->file->bytes || s->bytes > b->file->bytes - s->offset || s->kind < MANIFEST || s->kind > CUBIN || s->program >= MAX_SECTIONS ||
        s->offset % (is_code(s->kind) ? CODE_ALIGN : TEXT_ALIGN))
        return snR_fail(err, ERR_PROGRAM, "%s is damaged: section %d is out of place", b->path, i);
    if (XXH3_64bits((const char *)b->file->map + s->offset, s->bytes) != s->hash)
        return snR_fail(err, ERR_PROGRAM, "%s is damaged: the sum of section %d (%s) is wrong; copy or build it again", b->path, i, kind_names[s->kind]);
    return 0;
}

static int read_sections(Bundle *b, char err[ERR_TEXT])
{
    const uint8_t *h = b->file->map;
    uint64_t n = get_bytes(h + 12, 4);
    if (n > MAX_SECTIONS || HEADER + n * ENTRY > b->file->bytes)
        return snR_fail(err, ERR_PROGRAM, "%s is damaged: %llu sections do not fit", b->path, (unsigned long long)n);
    if (XXH3_64bits(h + HEADER, n * ENTRY) != get_bytes(h + 24, 8))
        return snR_fail(err, ERR_PROGRAM, "%s is damaged: the sum of its section table is wrong", b->path);
    b->nsections = (int)n;
    b->section = calloc(n + 1, sizeof *b->section);
    if (!b->section)
        return snR_fail(err, ERR_NOMEM, "out of memory");
    int rc = 0;
    for (int i = 0; i < b->nsections && !rc; i++) {
        rc = read_section(b, i, err);
        if (!rc && is_of_program(b->section[i].kind) && (int)b->section[i].program >= b->nprograms)
            b->nprograms = (int)b->section[i].program + 1;
    }
    return rc;
}

static const Section *find_section(const Bundle *b, uint32_t kind, int program)
{
    for (int i = 0; i < b->nsections; i++)
        if (b->section[i].kind == kind && (!is_of_program(kind) || b->section[i].program == (uint32_t)program))
            return &b->section[i];
    return NULL;
}

static const char *section_data(const Bundle *b, const Section *s) { return (const char *)b->file->map + s->offset; }

static char *section_text(const Bundle *b, uint32_t kind)
{
    const Section *s = find_section(b, kind, 0);
    return s ? strndup(section_data(b, s), s->bytes) : strdup("");
}

/* -- Reading: the manifest ------------------------------------------------------------------------- */

typedef struct Reader {
    const char *path;
    const char *p, *end;             /* of the line, of the text */
    int line;
    bool bad;                        /* a field was not what it has to be */
    char *block, *top, *limit;       /* memory of the program */
} Reader;

static void blanks(Reader *r)
{
    while (r->p < r->end && *r->p == ' ')
        r->p++;
}

static size_t field(Reader *r, const char **s)
{
    blanks(r);
    *s = r->p;
    while (r->p < r->end && *r->p != ' ' && *r->p != '\n')
        r->p++;
    if (r->p == *s)
        r->bad = true;
    return (size_t)(r->p - *s);
}

static bool more(Reader *r)
{
    blanks(r);
    return r->p < r->end && *r->p != '\n';
}

static int64_t number(Reader *r, int64_t least, int64_t most)
{
    const char *s;
    char text[32] = "", *stop;
    size_t n = field(r, &s);
    if (n == 0 || n >= sizeof text) {
        r->bad = true;
        return least;
    }
    memcpy(text, s, n);
    errno = 0;
    long long v = strtoll(text, &stop, 10);
    if (*stop || errno || v < least || v > most)
        r->bad = true;
    return r->bad ? least : v;
}

static double real(Reader *r)
{
    const char *s;
    char text[64] = "", *stop;
    size_t n = field(r, &s);
    if (n == 0 || n >= sizeof text) {
        r->bad = true;
        return 0;
    }
    memcpy(text, s, n);
    double v = strtod(text, &stop);
    if (*stop)
        r->bad = true;
    return v;
}

static void *take(Reader *r, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > (size_t)(r->limit - r->top)) {
        r->bad = true;
        return NULL;
    }
    void *p = r->top;
    r->top += bytes;
    return p;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static const char *name(Reader *r)
{
    const char *s;
    size_t n = field(r, &s), k = 0;
    char *out = take(r, n + 1);
    if (!out)
        return "";
    for (size_t i = 0; i < n && !(n == 1 && *s == '%'); i++) {
        if (s[i] != '%') {
            out[k++] = s[i];
            continue;
        }
        int high = i + 2 < n ? hex(s[i + 1]) : -1, low = high < 0 ? -1 : hex(s[i + 2]);
        if (high < 0 || low < 0) {
            r->bad = true;
            break;
        }
        out[k++] = (char)(high << 4 | low);
        i += 2;
    }
    out[k] = 0;
    return out;
}

static void tensor(Reader *r, SnTensorDesc *t)
{
    t->dtype = (uint8_t)number(r, 1, DT_BOOL);
    t->rank = (uint8_t)number(r, 0, SN_MAX_RANK);
    for (int i = 0; i < t->rank && !r->bad; i++)
        t->dim[i] = number(r, 0, INT64_MAX);
}

static void read_storage(Reader *r, SnStorage *s)
{
    s->t.name = name(r);
    tensor(r, &s->t);
    s->is_state = (uint8_t)number(r, 0, 1);
    s->init = (uint8_t)number(r, 0, 255);
    s->a = real(r), s->b = real(r);
    s->inside = (int32_t)number(r, 0, INT32_MAX);
    s->offset = number(r, 0, INT64_MAX);
}

static void read_kernel(Reader *r, SnKernelDesc *k)
{
    k->symbol = name(r), k->family = name(r), k->label = name(r);
    k->grid = number(r, 0, INT64_MAX);
    k->scratch_bytes = number(r, 0, INT64_MAX);
    k->threads = (int32_t)number(r, 0, INT32_MAX);
    k->shared_bytes = number(r, 0, INT64_MAX);
    k->flops = real(r), k->bytes = real(r);
    k->nargs = (int32_t)number(r, 0, INT32_MAX);
    k->timeless = more(r) && number(r, 0, 1);
}

static void read_buffer(Reader *r, SnBuffer *b)
{
    b->t.name = name(r);
    tensor(r, &b->t);
    b->kind = (uint8_t)number(r, 0, 255);
    b->bytes = number(r, 0, INT64_MAX);
    b->offset = number(r, 0, INT64_MAX);
    b->storage = (int32_t)number(r, -1, INT32_MAX);
    b->has_default = more(r);
    if (b->has_default)
        b->dflt = real(r);
    if (b->has_default && more(r)) {
        b->range = (uint8_t)number(r, 0, 15);
        b->lo = real(r), b->hi = real(r);
    }
}

static void read_launch(Reader *r, SnLaunch *l)
{
    l->kernel = (int32_t)number(r, 0, INT32_MAX);
    int32_t *args = (int32_t *)(void *)r->top;
    while (more(r) && !r->bad) {
        if ((size_t)(r->limit - r->top) < (size_t)(l->nargs + 1) * sizeof *args + 16) {
            r->bad = true;
            return;
        }
        args[l->nargs++] = (int32_t)number(r, 0, INT32_MAX);
    }
    l->args = take(r, (size_t)l->nargs * sizeof *args);
}

/* Lines of each kind, so that arrays are taken whole. */
typedef struct Counts { size_t params, storage, kernels, graphs, buffers, launches, outputs; } Counts;

static bool is_word(const char *s, size_t n, const char *w) { return strlen(w) == n && !memcmp(s, w, n); }

static Counts count_lines(const char *text, size_t n)
{
    Counts c = { 0 };
    for (const char *p = text, *end = text + n; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t w = 0;
        stop = stop ? stop : end;
        while (p + w < stop && p[w] != ' ')
            w++;
        c.params += is_word(p, w, "param"), c.storage += is_word(p, w, "storage"), c.kernels += is_word(p, w, "kernel");
        c.graphs += is_word(p, w, "graph"), c.buffers += is_word(p, w, "buffer"), c.launches += is_word(p, w, "launch");
        c.outputs += is_word(p, w, "output");
        p = stop + (stop < end);
    }
    return c;
}

/* What is there to read next, by kind. */
typedef struct Cursor { int param, storage, kernel, graph, buffer, launch, output; Counts left; } Cursor;

static void open_graph(Reader *r, SnGraphPlan *g, Cursor *c)
{
    g->name = name(r);
    g->arena_bytes = number(r, 0, INT64_MAX);
    g->live_peak = number(r, 0, INT64_MAX);
    g->nbuffers = (int32_t)number(r, 0, (int64_t)c->left.buffers);
    g->nlaunches = (int32_t)number(r, 0, (int64_t)c->left.launches);
    g->noutputs = (int32_t)number(r, 0, (int64_t)c->left.outputs);
    if (r->bad)
        return;
    c->left.buffers -= (size_t)g->nbuffers, c->left.launches -= (size_t)g->nlaunches, c->left.outputs -= (size_t)g->noutputs;
    c->buffer = c->launch = c->output = 0;
    g->buffers = take(r, (size_t)g->nbuffers * sizeof *g->buffers);
    g->launches = take(r, (size_t)g->nlaunches * sizeof *g->launches);
    g->outputs = take(r, (size_t)g->noutputs * sizeof *g->outputs);
}

static bool graph_is_full(const SnProgram *p, const Cursor *c)
{
    const SnGraphPlan *g = c->graph ? &p->graphs[c->graph - 1] : NULL;
    return !g || (c->buffer == g->nbuffers && c->launch == g->nlaunches && c->output == g->noutputs);
}

static void statement(Reader *r, SnProgram *p, Cursor *c, const char *w, size_t n)
{
    SnGraphPlan *g = c->graph ? &p->graphs[c->graph - 1] : NULL;
    if (is_word(w, n, "target")) p->target = name(r);
    else if (is_word(w, n, "needs")) while (more(r)) name(r);
    else if (is_word(w, n, "hash")) p->hash = strtoull(name(r), NULL, 16);
    else if (is_word(w, n, "param")) p->params[c->param].name = name(r), p->params[c->param++].value = name(r);
    else if (is_word(w, n, "storage")) read_storage(r, &p->storage[c->storage++]);
    else if (is_word(w, n, "kernel")) read_kernel(r, &p->kernels[c->kernel++]);
    else if (is_word(w, n, "graph") && graph_is_full(p, c)) open_graph(r, &p->graphs[c->graph++], c);
    else if (is_word(w, n, "buffer") && g && c->buffer < g->nbuffers) read_buffer(r, &g->buffers[c->buffer++]);
    else if (is_word(w, n, "launch") && g && c->launch < g->nlaunches) read_launch(r, &g->launches[c->launch++]);
    else if (is_word(w, n, "output") && g && c->output < g->noutputs) g->outputs[c->output].name = name(r), g->outputs[c->output++].buffer = (int32_t)number(r, 0, INT32_MAX);
    else r->bad = true;
}

static SnProgram *open_program(Reader *r, const char *text, size_t n)
{
    Counts c = count_lines(text, n);
    size_t bytes = sizeof(SnProgram) + c.params * sizeof(SnParam) + c.storage * sizeof(SnStorage) + c.kernels * sizeof(SnKernelDesc) +
                   c.graphs * sizeof(SnGraphPlan) + c.buffers * sizeof(SnBuffer) + c.launches * sizeof(SnLaunch) + c.outputs * sizeof(SnOutput) +
                   n * 18 + (c.graphs + 8) * 64;         /* a name of one byte takes 16; an argument takes 4 of its 2 */
    if (c.params > INT32_MAX || c.storage > INT32_MAX || c.kernels > INT32_MAX || c.graphs > INT32_MAX)
        return NULL;
    r->block = r->top = calloc(1, bytes);
    r->limit = r->block + bytes;
    if (!r->block)
        return NULL;
    SnProgram *p = take(r, sizeof *p);
    *p = (SnProgram){ .target = "", .nparams = (int)c.params, .nstorage = (int)c.storage, .nkernels = (int)c.kernels, .ngraphs = (int)c.graphs,
                      .memory = r->block };
    p->params = take(r, c.params * sizeof *p->params);
    p->storage = take(r, c.storage * sizeof *p->storage);
    p->kernels = take(r, c.kernels * sizeof *p->kernels);
    p->graphs = take(r, c.graphs * sizeof *p->graphs);
    return p;
}

static SnProgram *parse_manifest(Reader *r, const char *text, size_t n, char err[ERR_TEXT])
{
    SnProgram *p = open_program(r, text, n);
    if (!p) {
        snR_fail(err, ERR_NOMEM, "out of memory for the program in %s", r->path);
        return NULL;
    }
    Cursor c = { .left = count_lines(text, n) };
    for (r->p = text, r->end = text + n; r->p < r->end && !r->bad;) {
        const char *w;
        r->line++;
        size_t k = field(r, &w);
        statement(r, p, &c, w, k);
        r->bad |= more(r);
        r->p += r->p < r->end;
    }
    r->bad |= !graph_is_full(p, &c) || !*p->target;
    if (!r->bad && !snR_program_check(p, err))
        return p;
    if (r->bad)
        snR_fail(err, ERR_PROGRAM, "%s is damaged: line %d of a manifest is not understood", r->path, r->line);
    free(r->block);
    return NULL;
}

SnProgram *snR_bundle_program(Bundle *b, int i, char err[ERR_TEXT])
{
    const Section *text = find_section(b, MANIFEST, i), *code = find_section(b, CODE, i), *cubin = find_section(b, CUBIN, i);
    if (!text || !code) {
        snR_fail(err, ERR_PROGRAM, "%s is damaged: program %d is not whole", b->path, i);
        return NULL;
    }
    Reader r = { .path = b->path };
    SnProgram *p = parse_manifest(&r, section_data(b, text), text->bytes, err);
    if (!p)
        return NULL;
    p->code = section_data(b, code);
    p->code_bytes = code->bytes;
    p->cubin = cubin ? section_data(b, cubin) : NULL;
    p->cubin_bytes = cubin ? cubin->bytes : 0;
    p->file = b->file;
    b->file->users++;
    return p;
}

/* -- Which program ----------------------------------------------------------------------------------- */

/* The rest of the first line of a manifest that begins with the word, decoded. */
static char *manifest_word(const Bundle *b, int i, const char *word)
{
    const Section *s = find_section(b, MANIFEST, i);
    const char *p = s ? section_data(b, s) : "", *end = p + (s ? s->bytes : 0);
    size_t w = strlen(word);
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        if ((size_t)(stop - p) > w && !memcmp(p, word, w) && p[w] == ' ')
            return strndup(p + w + 1, (size_t)(stop - p) - w - 1);
        p = stop + (stop < end);
    }
    return strdup("");
}

static bool starts(const char *s, const char *with) { return !strncmp(s, with, strlen(with)); }

/* May code of this target run on a device of this name? */
static bool suits(const char *target, const char *device)
{
    if (starts(device, "opencl"))
        return starts(target, "opencl");
    if (starts(device, "cuda") || starts(device, "emu"))
        return starts(target, "ptx");
    return starts(device, "null") || starts(target, "host");
}

int snR_bundle_choose(const Bundle *b, const char *device, char err[ERR_TEXT])
{
    char missing[64] = "", wanted[64] = "", list[128] = "";
    const char *lacks = NULL;
    int found = -1;
    int sm = device && starts(device, "cuda") ? snR_cuda_sm(device, err) : 0, best = -1;
    if (sm < 0 || (device && starts(device, "opencl") && snR_opencl_target(device, wanted, err)))
        return -1;
    for (int i = 0; i < b->nprograms; i++) {
        const char *t = b->target[i];
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", t);
        if (device ? !suits(t, device) : found >= 0)
            continue;
        if (sm && snR_cuda_rank(t, sm) > best)               /* the latest that the card takes */
            best = snR_cuda_rank(t, sm), found = i;
        if (sm)
            continue;
        if (snR_cpu_lacks(b->needs[i], missing)) {
            lacks = t;
            continue;
        }
        if (found < 0 || !strcmp(t, wanted))
            found = i;
    }
    if (found >= 0)
        return found;
    if (lacks)
        snR_fail(err, ERR_PROGRAM, "%s: its code for %s needs %s, which this CPU lacks: build it with -t host:x86-64-v3, or here", b->path, lacks, missing);
    else if (sm)
        snR_fail(err, ERR_PROGRAM, "%s holds code for %s, none for %s (sm_%d): build it with -t ptx:sm_80", b->path, *list ? list : "nothing", device, sm);
    else
        snR_fail(err, ERR_PROGRAM, "%s holds code for %s, none for %s: build it with -t", b->path, *list ? list : "nothing", device ? device : "this machine");
    return -1;
}

Bundle *snR_bundle_open(const char *path, char err[ERR_TEXT])
{
    Bundle *b = calloc(1, sizeof *b);
    int rc = b ? 0 : ERR_NOMEM;
    if (!rc) {
        b->path = strdup(path);
        b->file = calloc(1, sizeof *b->file);
        rc = b->path && b->file ? 0 : ERR_NOMEM;
    }
    if (rc) {
        snR_fail(err, ERR_NOMEM, "out of memory");
        snR_bundle_close(b);
        return NULL;
    }
    b->file->users = 1;
    rc = map_file(b, err);
    if (!rc)
        rc = check_header(b, err);
    if (!rc)
        rc = read_sections(b, err);
    if (!rc) {
        b->source = section_text(b, SOURCE);
        b->model = section_text(b, MODEL);
        b->target = calloc((size_t)b->nprograms + 1, sizeof *b->target);
        b->needs = calloc((size_t)b->nprograms + 1, sizeof *b->needs);
        bool ok = b->source && b->model && b->target && b->needs;
        for (int i = 0; ok && i < b->nprograms; i++) {
            b->target[i] = manifest_word(b, i, "target");
            b->needs[i] = manifest_word(b, i, "needs");
            ok = b->target[i] && b->needs[i];
        }
        rc = ok ? 0 : snR_fail(err, ERR_NOMEM, "out of memory");
    }
    if (!rc)
        return b;
    snR_bundle_close(b);
    return NULL;
}

void snR_bundle_close(Bundle *b)
{
    if (!b)
        return;
    for (int i = 0; b->target && b->needs && i < b->nprograms; i++) {
        free(b->target[i]);
        free(b->needs[i]);
    }
    free(b->target);
    free(b->needs);
    free(b->source);
    free(b->model);
    free(b->section);
    free(b->path);
    snR_unmap(b->file);
    free(b);
}

int snR_bundle_count(const Bundle *b) { return b->nprograms; }
const char *snR_bundle_target(const Bundle *b, int i) { return b->target[i]; }
const char *snR_bundle_needs(const Bundle *b, int i) { return b->needs[i]; }
const char *snR_bundle_source(const Bundle *b) { return b->source; }
const char *snR_bundle_model(const Bundle *b) { return b->model; }

int64_t snR_bundle_code(const Bundle *b, int i, int64_t *manifest)
{
    const Section *text = find_section(b, MANIFEST, i), *code = find_section(b, CODE, i);
    *manifest = text ? (int64_t)text->bytes : 0;
    return code ? (int64_t)code->bytes : 0;
}

/* -- The public face ------------------------------------------------------------------------------------- */

sn_program *sn_program_open(const char *path, const char *device)
{
    char *err = snR_last_error();
    Bundle *b = snR_bundle_open(path, err);
    int i = b ? snR_bundle_choose(b, device, err) : -1;
    SnProgram *p = i >= 0 ? snR_bundle_program(b, i, err) : NULL;
    snR_bundle_close(b);
    return p;
}

void sn_program_close(sn_program *p) { snR_program_free(p); }
