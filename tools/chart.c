/* chart.c: series -> one SVG element (chart.h). Well-formed XML without scripts or fonts of its own. */
#include "tools/chart.h"

#include <math.h>

enum { W = 720, H = 420, LEFT = 64, RIGHT = 20, TOP = 36, BOTTOM = 52, LEGEND_H = 18 };

static const char *const palette[] = { "#4e79a7", "#e15759", "#59a14f", "#b07aa1", "#f28e2b", "#76b7b2", "#9c755f", "#edc948", "#ff9da7", "#6b6b6b" };
static const char *colour(int i) { return palette[(unsigned)i % (sizeof palette / sizeof *palette)]; }

typedef struct Frame { StrBuf *b; const Chart *c; double x0, x1, y0, y1; } Frame;

void chart_escape(StrBuf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '&') snU_puts(b, "&amp;");
        else if (*s == '<') snU_puts(b, "&lt;");
        else if (*s == '>') snU_puts(b, "&gt;");
        else if (*s == '"') snU_puts(b, "&quot;");
        else snU_put(b, s, 1);
    }
}

double chart_step(double span, int count) {
    double raw = span / count, p = pow(10, floor(log10(raw)));
    return raw <= p ? p : raw <= 2 * p ? 2 * p : raw <= 5 * p ? 5 * p : 10 * p;
}

/* -- The plane -------------------------------------------------------------------------------------------------- */

static double along(const Chart *c, double x) { return c->log_x ? log10(x) : x; }
static bool shows(const Chart *c, double x, double y) { return isfinite(y) && isfinite(along(c, x)) && (!c->top || y <= c->top); }

static double px(const Frame *f, double x) { return LEFT + (along(f->c, x) - f->x0) / (f->x1 - f->x0) * (W - LEFT - RIGHT); }
static double py(const Frame *f, double y) {
    y = y > f->y1 ? f->y1 : y < f->y0 ? f->y0 : y;
    return TOP + (f->y1 - y) / (f->y1 - f->y0) * (H - TOP - BOTTOM);
}

static void include(Frame *f, double x, double y) {
    f->x0 = fmin(f->x0, along(f->c, x)), f->x1 = fmax(f->x1, along(f->c, x));
    f->y0 = fmin(f->y0, y), f->y1 = fmax(f->y1, y);
}

static bool measure(Frame *f) {
    f->x0 = f->y0 = INFINITY, f->x1 = f->y1 = -INFINITY;
    for (int i = 0; i < f->c->n; i++) {
        const Series *s = &f->c->s[i];
        for (int k = 0; k < s->n; k++) {
            if (!shows(f->c, s->x[k], s->y[k])) continue;
            include(f, s->x[k], s->y[k]);
            if (s->lo && isfinite(s->lo[k])) include(f, s->x[k], s->lo[k]);
            if (s->hi && shows(f->c, s->x[k], s->hi[k])) include(f, s->x[k], s->hi[k]);
        }
    }
    if (!(f->x1 >= f->x0)) return false;
    if (f->x1 == f->x0) f->x0 -= .5, f->x1 += .5;
    if (f->y1 == f->y0) f->y0 -= .5, f->y1 += .5;
    double pad = (f->y1 - f->y0) * .04;
    f->y0 -= pad, f->y1 += pad;
    return true;
}

/* -- Axes ---------------------------------------------------------------------------------------------------------- */

static void tick(const Frame *f, bool x, double at, const char *text) {
    double p = x ? LEFT + (at - f->x0) / (f->x1 - f->x0) * (W - LEFT - RIGHT) : py(f, at);
    if (x) snU_putf(f->b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"grid\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                    p, TOP, p, H - BOTTOM, p, H - BOTTOM + 16, text);
    else snU_putf(f->b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                  LEFT, p, W - RIGHT, p, LEFT - 6, p + 4, text);
}

/* Powers of ten, and 2 and 5 times these where few fit. */
static void log_axis(const Frame *f) {
    static const double times[] = { 1, 2, 5 };
    int every = (int)fmax(1, ceil((f->x1 - f->x0) / 8));
    for (int p = (int)floor(f->x0); p <= f->x1; p += every)
        for (int i = 0; i < (f->x1 - f->x0 < 3 ? 3 : 1); i++) {
            double v = p + log10(times[i]);
            char text[32];
            snprintf(text, sizeof text, "%.4g", times[i] * pow(10, p));
            if (v >= f->x0 && v <= f->x1) tick(f, true, v, text);
        }
}

static void axis(const Frame *f, bool x) {
    double lo = x ? f->x0 : f->y0, hi = x ? f->x1 : f->y1, step = chart_step(hi - lo, x ? 9 : 7);
    for (double v = ceil(lo / step - 1e-9) * step; v <= hi + step * 1e-9; v += step) {
        char text[32];
        snprintf(text, sizeof text, "%.4g", fabs(v) < step * 1e-9 ? 0 : v);
        tick(f, x, v, text);
    }
}

static void labels(const Frame *f) {
    snU_putf(f->b, "<text x=\"%d\" y=\"20\" class=\"title\">", LEFT);
    chart_escape(f->b, f->c->title);
    snU_putf(f->b, "</text><text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + W - RIGHT) / 2, H - BOTTOM + 36);
    chart_escape(f->b, f->c->xlabel);
    snU_putf(f->b, "</text><text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">", (TOP + H - BOTTOM) / 2);
    chart_escape(f->b, f->c->ylabel);
    snU_puts(f->b, "</text>\n");
}

/* -- Curves ---------------------------------------------------------------------------------------------------------- */

/* Up along one side, back along the other; where the band begins or ends, the curve itself. */
static void band(const Frame *f, const Series *s) {
    bool any = false;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < s->n; i++) {
            int k = pass ? s->n - 1 - i : i;
            const double *side = pass ? s->hi : s->lo;
            if (!shows(f->c, s->x[k], s->y[k])) continue;
            snU_putf(f->b, "%s%.1f,%.1f", any ? " " : "<polygon points=\"", px(f, s->x[k]), py(f, isfinite(side[k]) ? side[k] : s->y[k]));
            any = true;
        }
    if (any) snU_putf(f->b, "\" fill=\"%s\" fill-opacity=\"0.15\"/>\n", colour(s->colour));
}

static void curve(const Frame *f, const Series *s) {
    bool any = false;
    for (int k = 0; k < s->n; k++) {
        if (!shows(f->c, s->x[k], s->y[k])) continue;
        snU_putf(f->b, "%s%.1f,%.1f", any ? " " : "<polyline points=\"", px(f, s->x[k]), py(f, s->y[k]));
        any = true;
    }
    if (any) snU_putf(f->b, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.6\"%s/>\n", colour(s->colour), s->dashed ? " stroke-dasharray=\"5 3\"" : "");
    for (int k = 0; k < s->n; k++) {
        if (!shows(f->c, s->x[k], s->y[k])) continue;
        snU_putf(f->b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2\" fill=\"%s\"><title>", px(f, s->x[k]), py(f, s->y[k]), colour(s->colour));
        chart_escape(f->b, s->name);
        snU_putf(f->b, " at %.5g: %.4f", s->x[k], s->y[k]);
        if (s->lo) snU_putf(f->b, " [%.4f, %.4f]", s->lo[k], s->hi[k]);
        snU_puts(f->b, "</title></circle>\n");
    }
}

static void legend(const Frame *f) {
    for (int i = 0; i < f->c->n; i++) {
        double y = TOP + 14 + i * LEGEND_H;
        snU_putf(f->b, "<line x1=\"%d\" y1=\"%.0f\" x2=\"%d\" y2=\"%.0f\" stroke=\"%s\" stroke-width=\"2\"%s/><text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">", W - RIGHT - 34,
                 y - 4, W - RIGHT - 8, y - 4, colour(f->c->s[i].colour), f->c->s[i].dashed ? " stroke-dasharray=\"5 3\"" : "", W - RIGHT - 40, y);
        chart_escape(f->b, f->c->s[i].name);
        snU_puts(f->b, "</text>\n");
    }
}

void chart_svg(StrBuf *b, const Chart *c) {
    Frame f = { .b = b, .c = c };
    snU_putf(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n"
                "<style>.grid{stroke:#ddd;stroke-width:1}.title{font-size:13px;font-weight:bold}</style>\n<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", W, H, W, H, W, H);
    if (measure(&f)) {
        if (c->log_x) log_axis(&f);
        else axis(&f, true);
        axis(&f, false);
        for (int i = 0; i < c->n; i++) if (c->s[i].lo) band(&f, &c->s[i]);
        for (int i = 0; i < c->n; i++) curve(&f, &c->s[i]);
        legend(&f);
    } else snU_putf(b, "<text x=\"%d\" y=\"%d\">nothing was evaluated</text>\n", LEFT, H / 2);
    labels(&f);
    snU_puts(b, "</svg>\n");
}
