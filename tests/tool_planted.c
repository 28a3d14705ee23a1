/* tool_planted.c: a kernel with a planted fault, for tests/run.sh: what checks memory must find it.

     tool_planted race|bounds|none

   Two groups write one element, or one behind the end of the buffer, or each its own. The kernel takes what emit_opencl.c
   says that kernels take. Exit status 0 when the run itself went well. */
#include "runtime/program.h"
#include "runtime/sn_rt.h"

#include <stdio.h>
#include <string.h>

enum { N = 64 };

int main(int argc, char **argv) {
    const char *where = argc < 2 ? "" : !strcmp(argv[1], "race") ? "0" : !strcmp(argv[1], "bounds") ? "1000000 + get_group_id(0)"
                        : !strcmp(argv[1], "none") ? "get_group_id(0)" : "";
    if (!*where) return fprintf(stderr, "usage: tool_planted race|bounds|none\n"), 2;
    char source[1024];
    int length = snprintf(source, sizeof source,
        "__kernel void planted(__global uchar *b0, ulong o0, uint4 sys, __global uchar *scratch,\n"
        "    volatile __global int *next, int at, long tasks)\n"
        "{\n    ((__global float *)(b0 + o0))[%s] = get_group_id(0);\n}\n", where);
    SnKernelDesc kernel = { "planted", "test", "planted", 2, 0, 0, 0, 1 };
    SnBuffer buffer = { SN_BUF_ARENA, { "y", 1, 1, { N } }, .bytes = 4 * N, .storage = -1 };
    SnOutput output = { "y", 0 };
    SnLaunch launch = { 0, 1, (const int32_t[]){ 0 } };
    SnGraphPlan plan = { "g", 1, 1, 1, &buffer, &launch, &output, 4 * N, 4 * N };
    SnProgram p = { .target = "opencl", .nkernels = 1, .ngraphs = 1, .kernels = &kernel, .graphs = &plan, .code = source,
                    .code_bytes = (size_t)length };
    sn_session *s = sn_session_new(&p, &(sn_session_desc){ .threads = 2 });
    if (!s) return fprintf(stderr, "%s\n", sn_rt_error()), 1;
    int rc = sn_run(s, "g");
    if (rc) fprintf(stderr, "%s\n", sn_session_error(s));
    sn_session_free(s);
    return rc != 0;
}
