/* case.h: what the tests of the emulator share: a PTX text, memory that grows ranges, one launch, what was reported. */
#ifndef SN_TESTS_EMU_CASE_H
#define SN_TESTS_EMU_CASE_H
#include "runtime/emu.h"
#include "tests/check.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_RANGES = 8, MOST_REPORTS = 32 };
typedef struct Case {
    EmuModule *m;
    EmuRange range[MOST_RANGES];
    uint64_t address[MOST_RANGES];
    const void *param[MOST_RANGES * 2];
    int nranges, nparams, nreports;
    EmuReport report[MOST_REPORTS];
    EmuLaunch launch;
    char err[ERR_TEXT];
} Case;

/* prefix: .version 8.5, .target sm_80 */
static bool case_load(Case *c, const char *text) {
    char *all = NULL;
    memset(c, 0, sizeof *c);
    if (asprintf(&all, "%s%s", strstr(text, ".version") ? "" : ".version 8.5\n.target sm_80\n.address_size 64\n", text) < 0) return false;
    c->m = snE_load(all, strlen(all), c->err);
    free(all);
    c->launch.kernel = "k";
    return c->m != NULL;
}

/* A range as the next parameter; written: the kernel may read it from the start. */
static void *case_buffer(Case *c, const void *data, size_t bytes, const char *name) {
    int k = c->nranges++;
    c->range[k] = (EmuRange){ calloc(1, bytes + 16), calloc(1, bytes + 16), calloc(bytes / 4 + 4, sizeof(EmuMark)), calloc(bytes / 4 + 4, sizeof(EmuReaders)), bytes, 0, name };
    c->launch.compare_blocks = true;
    if (data) {
        memcpy(c->range[k].host, data, bytes);
        memset(c->range[k].written, 1, bytes);
    }
    c->address[k] = snE_address(k, 0);
    c->param[c->nparams++] = &c->address[k];
    return c->range[k].host;
}

static inline void case_value(Case *c, const void *value) { c->param[c->nparams++] = value; }

/* Blocks of so many threads; the number of reports. */
static int case_run(Case *c, uint32_t grid, uint32_t block, uint32_t shared, int most, Pool *pool) {
    c->launch.grid[0] = grid, c->launch.block[0] = block, c->launch.shared = shared, c->launch.most = most;
    c->launch.params = c->param, c->launch.nparams = c->nparams, c->launch.ranges = c->range, c->launch.nranges = c->nranges;
    c->nreports = snE_launch(c->m, &c->launch, pool, c->report, c->err);
    return c->nreports;
}

static void case_free(Case *c) {
    snE_free(c->m);
    for (int k = 0; k < c->nranges; k++) free(c->range[k].host), free(c->range[k].written), free(c->range[k].marks), free(c->range[k].readers);
}

static uint64_t draw_state = 88172645463325252u;
static uint64_t draw64(void) {
    draw_state ^= draw_state << 13, draw_state ^= draw_state >> 7, draw_state ^= draw_state << 17;
    return draw_state * 0x2545f4914f6cdd1du;
}

#endif
