/* bench_picture.c: a timed pair as one self-contained file, .svg or .html.

   In:  a pair. Out: both timelines on one scale, kernels in order, coloured by family, what a hover says in <title>; the roofline,
   log-log, with the ceilings of the same run; and the regions, each fused kernel against the unfused kernels it replaces. The .html
   holds the same picture above a table. Both are well-formed XML. */
#include "tools/bench.h"
#include "tools/chart.h"

#include <math.h>

enum { W = 1280, MARGIN = 40, LANE_X = 150, LANE_W = W - LANE_X - MARGIN, LANE_H = 54, LANES_Y = 128, LANE_STEP = 100 };
enum { PANEL_Y = 400, PANEL_H = 380, ROOF_X = 96, ROOF_W = 510, BARS_X = 850, BARS_W = W - BARS_X - MARGIN - 70, REGIONS = 14, H = PANEL_Y + PANEL_H + 70 };

static const struct { const char *family, *colour; } COLOURS[] = {
    { "gemm", "#4e79a7" },   { "attention", "#e15759" }, { "xent", "#b07aa1" },  { "rows", "#59a14f" }, { "columns", "#86bc6f" },
    { "concat", "#edc948" }, { "scatter", "#9c755f" },   { "topk", "#f28e2b" },  { "copy", "#bab0ac" },
};
enum { NCOLOURS = sizeof COLOURS / sizeof *COLOURS };

static const char *colour(const char *family) {
    for (int i = 0; i < NCOLOURS; i++)
        if (!strncmp(family, COLOURS[i].family, strlen(COLOURS[i].family))) return COLOURS[i].colour;
    return "#76b7b2";
}

typedef struct Picture {
    const Pair *p;
    StrBuf b;
    KernelBars bars[2];
    KernelRows rows[2];
    double span;                     /* seconds across the timelines */
} Picture;

static void text(Picture *pic, double x, double y, const char *class, const char *s) {
    snU_putf(&pic->b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    chart_escape(&pic->b, s);
    snU_puts(&pic->b, "</text>\n");
}

static __attribute__((format(printf, 5, 6))) void textf(Picture *pic, double x, double y, const char *class, const char *fmt, ...) {
    char s[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    text(pic, x, y, class, s);
}

static double least(const Pair *p, double seconds, double flops, double bytes) { return seconds > 0 ? pair_roofline(p, flops, bytes) / seconds : 0; }

/* -- Timelines ------------------------------------------------------------------------------------------------------------ */

static void bar(Picture *pic, const KernelBar *k, double at, double y) {
    double scale = LANE_W / pic->span, w = k->seconds * scale;
    snU_putf(&pic->b, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" fill=\"%s\"%s><title>", LANE_X + at * scale, y, w, LANE_H,
             colour(k->family), w > 3 ? " class=\"cut\"" : "");
    chart_escape(&pic->b, k->name);
    snU_putf(&pic->b, "\n%s, %s\n%.3f ms, %.2f of its roofline\n%.1f GFLOP/s, %.1f GB/s</title></rect>\n", k->family, k->dir, k->seconds * 1e3,
             least(pic->p, k->seconds, k->flops, k->bytes), k->flops / k->seconds * 1e-9, k->bytes / k->seconds * 1e-9);
}

/* Which direction the kernels below belong to: a strip over the lane. */
static void strip(Picture *pic, const KernelBars *bars, double y) {
    static const struct { const char *dir, *name, *fill; } dirs[] = {
        { "fwd", "forward", "#cfd8dc" }, { "bwd", "backward", "#90a4ae" }, { "optim", "optimizer", "#546e7a" } };
    double scale = LANE_W / pic->span, from = 0, to = 0;
    for (int i = 0; i < bars->n; i++) {
        to += bars->v[i].seconds;
        if (i + 1 < bars->n && !strcmp(bars->v[i].dir, bars->v[i + 1].dir)) continue;
        int d = 0;
        while (d < 2 && strcmp(dirs[d].dir, bars->v[i].dir)) d++;
        snU_putf(&pic->b, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"5\" fill=\"%s\"/>\n", LANE_X + from * scale, y - 8, (to - from) * scale,
                 dirs[d].fill);
        if ((to - from) * scale > 60) text(pic, LANE_X + from * scale, y - 12, "small", dirs[d].name);
        from = to;
    }
}

static void lane(Picture *pic, int side) {
    const Side *s = &pic->p->side[side];
    const KernelBars *bars = &pic->bars[side];
    double y = LANES_Y + side * LANE_STEP, at = 0, scale = LANE_W / pic->span;
    textf(pic, MARGIN, y + 18, "lane", "%.20s", side ? "unfused" : "fused");
    textf(pic, MARGIN, y + 35, "small", "%.2f ms", s->step * 1e3);
    textf(pic, MARGIN, y + 50, "small", "%d kernels", s->g->nlaunches);
    strip(pic, bars, y);
    for (int i = 0; i < bars->n; i++) {
        bar(pic, &bars->v[i], at, y);
        at += bars->v[i].seconds;
    }
    if (s->step > at)
        snU_putf(&pic->b, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" fill=\"url(#gap)\"><title>between kernels, and what the best step had "
                 "over the best of every kernel: %.3f ms</title></rect>\n", LANE_X + at * scale, y, (s->step - at) * scale, LANE_H, (s->step - at) * 1e3);
}

static void time_axis(Picture *pic) {
    double y = LANES_Y + (pic->p->sides - 1) * LANE_STEP + LANE_H + 10, scale = LANE_W / pic->span, step = chart_step(pic->span, 10);
    for (int i = 0; i * step <= pic->span * 1.0001; i++) {
        double x = LANE_X + i * step * scale;
        snU_putf(&pic->b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>\n", x, LANES_Y - 24, x, y);
        textf(pic, x, y + 14, "small mid", i ? "%g" : "%g ms", i * step * 1e3);
    }
}

static void legend(Picture *pic) {
    double x = LANE_X, y = LANES_Y + (pic->p->sides - 1) * LANE_STEP + LANE_H + 44;
    const char *seen[32];
    int n = 0;
    for (int side = 0; side < pic->p->sides; side++)
        for (int i = 0; i < pic->bars[side].n; i++) {
            const char *f = pic->bars[side].v[i].family;
            int k = 0;
            while (k < n && strcmp(seen[k], f)) k++;
            if (k < n || n == 32) continue;
            seen[n++] = f;
            snU_putf(&pic->b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" rx=\"2\" fill=\"%s\"/>\n", x, y - 10, colour(f));
            text(pic, x + 16, y, "label", f);
            x += 34 + 7.2 * (double)strlen(f);
        }
}

/* -- Roofline ------------------------------------------------------------------------------------------------------------- */

typedef struct Axes { double x0, x1, y0, y1; } Axes;         /* log10 */

static double roof_x(const Axes *a, double v) { return ROOF_X + (log10(v) - a->x0) / (a->x1 - a->x0) * ROOF_W; }
static double roof_y(const Axes *a, double v) { return PANEL_Y + PANEL_H - (log10(v) - a->y0) / (a->y1 - a->y0) * PANEL_H; }

static bool on_roof(const Picture *pic, int side, const KernelRow *k) {
    return !k->bound && k->flops > 0 && k->bytes > 0 && k->seconds > 2e-4 * pic->p->side[side].step;
}

static Axes find_axes(const Picture *pic) {
    Axes a = { -1, 2, 9, log10(pic->p->peak) + 0.25 };
    for (int side = 0; side < pic->p->sides; side++)
        for (int i = 0; i < pic->rows[side].n; i++) {
            const KernelRow *k = &pic->rows[side].v[i];
            if (!on_roof(pic, side, k)) continue;
            a.x0 = fmin(a.x0, floor(log10(k->flops / k->bytes) * 2) / 2), a.x1 = fmax(a.x1, ceil(log10(k->flops / k->bytes) * 2) / 2);
            a.y0 = fmin(a.y0, floor(log10(k->flops / k->seconds * 1e-9) * 2) / 2), a.y1 = fmax(a.y1, log10(k->flops / k->seconds * 1e-9) + 0.1);
        }
    a.y0 = fmin(a.y0, a.y1 - 2);
    return a;
}

static void roof_grid(Picture *pic, const Axes *a) {
    for (double d = ceil(a->x0); d <= a->x1; d++) {
        double x = roof_x(a, pow(10, d));
        snU_putf(&pic->b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"grid\"/>\n", x, PANEL_Y, x, PANEL_Y + PANEL_H);
        textf(pic, x, PANEL_Y + PANEL_H + 16, "small mid", "%g", pow(10, d));
    }
    for (double d = ceil(a->y0); d <= a->y1; d++) {
        double y = roof_y(a, pow(10, d));
        snU_putf(&pic->b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"/>\n", ROOF_X, y, ROOF_X + ROOF_W, y);
        textf(pic, ROOF_X - 8, y + 4, "small end", "%g", pow(10, d));
    }
    text(pic, ROOF_X + ROOF_W, PANEL_Y + PANEL_H + 34, "small end", "FLOP per byte");
    text(pic, ROOF_X - 56, PANEL_Y - 12, "small", "GFLOP/s");
}

/* The two ceilings: bandwidth up to the ridge, the FMA peak from there on. */
static void roof_ceilings(Picture *pic, const Axes *a) {
    double ridge = pic->p->peak / pic->p->bandwidth, left = pow(10, a->x0), low = left * pic->p->bandwidth;
    if (log10(low) < a->y0) left = pow(10, a->y0) / pic->p->bandwidth, low = pow(10, a->y0);
    double x = roof_x(a, ridge), y = roof_y(a, pic->p->peak), end = ROOF_X + ROOF_W;
    snU_putf(&pic->b, "<path d=\"M%.1f %.1fL%.1f %.1fL%.1f %.1fL%.1f %dL%.1f %dZ\" fill=\"#f6f8fa\"/>\n", roof_x(a, left), roof_y(a, low), x, y, end, y, end,
             PANEL_Y + PANEL_H, roof_x(a, left), PANEL_Y + PANEL_H);
    snU_putf(&pic->b, "<path d=\"M%.1f %.1fL%.1f %.1fL%.1f %.1f\" class=\"roof\"/>\n", roof_x(a, left), roof_y(a, low), x, y, end, y);
    textf(pic, end, y - 7, "small end", "FMA peak %.0f GFLOP/s", pic->p->peak);
    double slope = atan2(roof_y(a, low) - y, x - roof_x(a, left)) * 180 / M_PI, mid = sqrt(left * ridge);
    snU_putf(&pic->b, "<text transform=\"translate(%.1f %.1f) rotate(%.1f)\" class=\"small mid\">bandwidth %.1f GB/s</text>\n", roof_x(a, mid),
             roof_y(a, mid * pic->p->bandwidth) - 8, -slope, pic->p->bandwidth);
}

/* Products whose rows end at a count on the device have no known place here. */
static void roof_points(Picture *pic, const Axes *a, int side) {
    double most = 0;
    for (int s = 0; s < pic->p->sides; s++) for (int i = 0; i < pic->rows[s].n; i++) most = fmax(most, pic->rows[s].v[i].seconds);
    for (int i = 0; i < pic->rows[side].n; i++) {
        const KernelRow *k = &pic->rows[side].v[i];
        if (!on_roof(pic, side, k)) continue;
        double x = roof_x(a, k->flops / k->bytes), y = roof_y(a, k->flops / k->seconds * 1e-9), r = 2.5 + 9 * sqrt(k->seconds / most);
        snU_putf(&pic->b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" ", x, y, r);
        if (side) snU_putf(&pic->b, "fill=\"none\" stroke=\"%s\" stroke-width=\"1.4\" stroke-opacity=\"0.75\">", colour(k->family));
        else snU_putf(&pic->b, "fill=\"%s\" fill-opacity=\"0.8\" stroke=\"#fff\" stroke-width=\"0.8\">", colour(k->family));
        snU_putf(&pic->b, "<title>%s: ", side ? "unfused" : "fused");
        chart_escape(&pic->b, k->name);
        snU_putf(&pic->b, "\n%d kernels, %.3f ms, %.2f of the roofline\n%.2f FLOP per byte, %.1f GFLOP/s, %.1f GB/s</title></circle>\n", k->launches,
                 k->seconds * 1e3, least(pic->p, k->seconds, k->flops, k->bytes), k->flops / k->bytes, k->flops / k->seconds * 1e-9,
                 k->bytes / k->seconds * 1e-9);
    }
}

static void roofline(Picture *pic) {
    Axes a = find_axes(pic);
    text(pic, ROOF_X - 56, PANEL_Y - 34, "head", "Roofline");
    text(pic, ROOF_X + 24, PANEL_Y - 34, "small", pic->p->sides > 1 ? "filled: fused, rings: unfused; area: time; products over some rows only left out" : "area: time; equal layers together");
    roof_ceilings(pic, &a);
    roof_grid(pic, &a);
    if (pic->p->sides > 1) roof_points(pic, &a, 1);
    roof_points(pic, &a, 0);
}

/* -- Regions -------------------------------------------------------------------------------------------------------------- */

/* The slowest fused kernels, full bars, over the unfused kernels that each replaces, pale. */
static void regions(Picture *pic) {
    const KernelRows *rows = &pic->rows[0];
    int n = rows->n < REGIONS ? rows->n : REGIONS;
    double most = 0, pitch = (double)PANEL_H / REGIONS;
    for (int i = 0; i < n; i++) most = fmax(most, fmax(rows->v[i].seconds, rows->v[i].unfused));
    text(pic, BARS_X - 190, PANEL_Y - 34, "head", pic->p->sides > 1 ? "What each fused kernel replaces" : "Where the time goes");
    if (pic->p->sides > 1) text(pic, BARS_X - 190, PANEL_Y - 16, "small", "full: fused, ms; pale: the unfused kernels it stands for; right: speedup");
    for (int i = 0; i < n; i++) {
        const KernelRow *k = &rows->v[i];
        double y = PANEL_Y + 6 + i * pitch, w = k->seconds / most * BARS_W, u = k->unfused / most * BARS_W;
        textf(pic, BARS_X - 8, y + pitch / 2 + 1, "small end", strlen(k->name) > 32 ? "%.31s\xe2\x80\xa6" : "%.32s", k->name);
        snU_puts(&pic->b, "<g><title>");
        chart_escape(&pic->b, k->name);
        snU_putf(&pic->b, "\n%s, %s, %d kernels: %.3f ms, %.2f of the roofline\nunfused: %.1f kernels, %.3f ms</title>\n", k->family, k->dir, k->launches,
                 k->seconds * 1e3, least(pic->p, k->seconds, k->flops, k->bytes), k->parts, k->unfused * 1e3);
        snU_putf(&pic->b, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" fill=\"%s\" fill-opacity=\"0.28\"/>\n", BARS_X, y, u, pitch - 7, colour(k->family));
        snU_putf(&pic->b, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" fill=\"%s\"/></g>\n", BARS_X, y + 4, w, pitch - 15, colour(k->family));
        textf(pic, BARS_X + fmax(u, w) + 6, y + pitch / 2 + 1, "small", pic->p->sides > 1 ? "%.2f ms, %.2fx" : "%.2f ms", k->seconds * 1e3,
              k->seconds > 0 ? k->unfused / k->seconds : 0);
    }
}

/* -- The file ------------------------------------------------------------------------------------------------------------- */

static const char STYLE[] =
    "text{font-family:Inter,'Helvetica Neue',Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#24292f}"
    ".title{font-size:22px;font-weight:600}.sub{font-size:13px;fill:#57606a}.head{font-size:15px;font-weight:600}.lane{font-size:15px;font-weight:600}"
    ".label{font-size:12px}.small{font-size:11px;fill:#57606a}.mid{text-anchor:middle}.end{text-anchor:end}.grid{stroke:#d8dee4;stroke-width:1}"
    ".roof{fill:none;stroke:#24292f;stroke-width:1.8}.cut{stroke:#fff;stroke-width:.6}rect:hover,circle:hover{filter:brightness(1.12)}";

static void heading(Picture *pic, const char *title) {
    const Pair *p = pic->p;
    Memory a = side_memory(&p->side[0]), b = p->sides > 1 ? side_memory(&p->side[1]) : a;
    textf(pic, MARGIN, 46, "title", "%s: one training step", title);
    if (p->sides > 1)
        textf(pic, MARGIN, 70, "sub", "fuse %s %.2f ms, fuse %s %.2f ms: %.2fx.   %d kernels against %d.   Activations %.1f MB against %.1f MB.", p->side[0].fuse,
              p->side[0].step * 1e3, p->side[1].fuse, p->side[1].step * 1e3, p->side[1].step / p->side[0].step, p->side[0].g->nlaunches,
              p->side[1].g->nlaunches, (double)a.activations * 1e-6, (double)b.activations * 1e-6);
    else
        textf(pic, MARGIN, 70, "sub", "fuse %s %.2f ms.   %d kernels.   Activations %.1f MB.", p->side[0].fuse, p->side[0].step * 1e3, p->side[0].g->nlaunches,
              (double)a.activations * 1e-6);
}

static void draw(Picture *pic, const char *title) {
    snU_putf(&pic->b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n<style>%s</style>\n", W, H, W, H, STYLE);
    snU_puts(&pic->b, "<defs><pattern id=\"gap\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
                      "<rect width=\"6\" height=\"6\" fill=\"#f6f8fa\"/><rect width=\"2\" height=\"6\" fill=\"#d8dee4\"/></pattern></defs>\n");
    snU_putf(&pic->b, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", W, H);
    heading(pic, title);
    time_axis(pic);
    for (int i = 0; i < pic->p->sides; i++) lane(pic, i);
    legend(pic);
    roofline(pic);
    regions(pic);
    snU_puts(&pic->b, "</svg>\n");
}

static void table(Picture *pic) {
    snU_puts(&pic->b, "<table><thead><tr><th>kernel</th><th>family</th><th>direction</th><th>kernels</th><th>ms</th><th>GFLOP</th><th>MB</th>"
                      "<th>share of roofline</th><th>unfused kernels</th><th>unfused, ms</th><th>speedup</th></tr></thead><tbody>\n");
    for (int i = 0; i < pic->rows[0].n; i++) {
        const KernelRow *k = &pic->rows[0].v[i];
        snU_puts(&pic->b, "<tr><td>");
        chart_escape(&pic->b, k->name);
        snU_putf(&pic->b, "</td><td style=\"color:%s\">%s</td><td>%s</td><td>%d</td><td>%.3f</td><td>%.3f</td><td>%.2f</td><td>%.2f</td><td>%.1f</td><td>%.3f</td>"
                 "<td>%.2f</td></tr>\n", colour(k->family), k->family, k->dir, k->launches, k->seconds * 1e3, k->flops * 1e-9, k->bytes * 1e-6,
                 least(pic->p, k->seconds, k->flops, k->bytes), k->parts, k->unfused * 1e3, k->seconds > 0 ? k->unfused / k->seconds : 0);
    }
    snU_puts(&pic->b, "</tbody></table>\n");
}

static void page(Picture *pic, const char *title) {
    snU_puts(&pic->b, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\"><head><meta charset=\"utf-8\"/><title>");
    chart_escape(&pic->b, title);
    snU_puts(&pic->b, "</title><style>body{margin:0 auto;max-width:1280px;font:13px Inter,Helvetica,Arial,sans-serif;color:#24292f}svg{width:100%;height:auto}"
                      "table{border-collapse:collapse;width:100%;margin:0 0 40px}th,td{padding:4px 8px;text-align:right;border-bottom:1px solid #d8dee4;"
                      "font-variant-numeric:tabular-nums}th:first-child,td:first-child{text-align:left}tbody tr:hover{background:#f6f8fa}</style></head><body>\n");
    draw(pic, title);
    table(pic);
    snU_puts(&pic->b, "</body></html>\n");
}

int bench_picture(const Pair *p, const char *title, const char *path) {
    Picture pic = { .p = p };
    const char *dot = strrchr(path, '.');
    bool html = dot && !strcmp(dot, ".html");
    for (int i = 0; i < p->sides; i++) {
        double sum = 0;
        pic.bars[i] = side_bars(p, i), pic.rows[i] = side_rows(p, i);
        for (int k = 0; k < pic.bars[i].n; k++) sum += pic.bars[i].v[k].seconds;
        pic.span = fmax(pic.span, fmax(sum, p->side[i].step));
    }
    if (html) page(&pic, title);
    else draw(&pic, title);
    int rc = write_text(path, pic.b.s, pic.b.n);
    for (int i = 0; i < p->sides; i++) free(pic.bars[i].v), free(pic.rows[i].v);
    snU_free_buf(&pic.b);
    return rc;
}
