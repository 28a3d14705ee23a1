/* tool_compare.c: compares two tensor files, for tests/run.sh.

     tool_compare WANT GOT exact             every tensor of WANT is in GOT, bit for bit
     tool_compare WANT GOT all TOL           every tensor of WANT (all f32) is in GOT, within TOL, measured as below
     tool_compare WANT GOT LOSS GRAD         `loss` within LOSS, every `grad.*` within GRAD: largest difference over the largest
                                             value of the tensor, and root mean square over root mean square

   Prints one line per tensor that fails, the worst at the end. Exit status 0 when all is well. */
#include "graph/graph.h"
#include "runtime/sn_rt.h"

#include <math.h>

static double at(const sn_tensor *t, int64_t i) {
    float v;
    memcpy(&v, (const char *)t->data + 4 * i, 4);
    return v;
}

static double distance(const sn_tensor *w, const sn_tensor *g) {
    int64_t n = (int64_t)(w->bytes / 4);
    double top = 0, diff = 0, sq = 0, sqd = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = at(w, i), d = fabs(a - at(g, i));
        if (!isfinite(d)) return INFINITY;
        top = fmax(top, fabs(a));
        diff = fmax(diff, d);
        sq += a * a;
        sqd += d * d;
    }
    if (top == 0) return diff;
    return fmax(diff / top, sqrt(sqd / sq));
}

static int compare_exact(const sn_file *w, const sn_file *g) {
    int bad = 0;
    for (int i = 0; i < sn_file_count(w); i++) {
        const sn_tensor *a = sn_file_at(w, i), *b = sn_file_find(g, a->name);
        if (b && b->bytes == a->bytes && !memcmp(a->data, b->data, a->bytes)) continue;
        if (!bad++) printf("%s %s\n", a->name, b ? "differs" : "is missing");
    }
    printf("%d of %d tensors differ\n", bad, sn_file_count(w));
    return bad != 0;
}

static int compare_close(const sn_file *w, const sn_file *g, bool all, double loss_tol, double grad_tol) {
    int bad = 0, n = 0;
    double worst = 0;
    const char *name = "";
    for (int i = 0; i < sn_file_count(w); i++) {
        const sn_tensor *a = sn_file_at(w, i), *b = sn_file_find(g, a->name);
        bool loss = !strcmp(a->name, "loss");
        if (!all && !loss && strncmp(a->name, "grad.", 5)) continue;
        double d = b && b->bytes == a->bytes ? distance(a, b) : INFINITY, tol = loss ? loss_tol : grad_tol;
        n++;
        if (d / tol > worst) worst = d / tol, name = a->name;
        if (d <= tol) continue;
        printf("%s: relative error %.3g, allowed %.1g%s\n", a->name, d, tol, b ? "" : " (missing)");
        bad++;
    }
    printf("%d of %d tensors too far; worst %s at %.3f of what is allowed\n", bad, n, name, worst);
    return bad != 0 || n == 0;
}

int main(int argc, char **argv) {
    char err[256];
    if (argc < 4) { fprintf(stderr, "tool_compare WANT GOT exact | WANT GOT LOSS GRAD\n"); return 2; }
    sn_file *w = sn_file_open(argv[1], err);
    if (!w) { printf("%s\n", err); return 1; }
    sn_file *g = sn_file_open(argv[2], err);
    if (!g) { printf("%s\n", err); return 1; }
    bool all = !strcmp(argv[3], "all");
    double last = atof(argv[argc - 1]);
    int rc = !strcmp(argv[3], "exact") ? compare_exact(w, g) : compare_close(w, g, all, all ? last : atof(argv[3]), last);
    sn_file_close(w);
    sn_file_close(g);
    return rc;
}
