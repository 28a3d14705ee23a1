/* chart.h: a line chart as an SVG element: curves, each with a band where it has one, axes with round numbers, a legend. */
#ifndef SN_CHART_H
#define SN_CHART_H
#include "graph/util.h"

typedef struct Series {
    const char *name;
    int colour;                      /* which of the palette; equal numbers have one colour */
    bool dashed;
    int n;
    const double *x, *y, *lo, *hi;   /* [n]; lo and hi: NULL = no band. Points that are not finite are left out */
} Series;

typedef struct Chart {
    const char *title, *xlabel, *ylabel;
    const Series *s;
    int n;
    bool log_x;
    double top;                      /* y above it is cut off; 0 = all of it shows */
} Chart;

void chart_svg(StrBuf *b, const Chart *c);
void chart_escape(StrBuf *b, const char *s);     /* & < > " for XML */
double chart_step(double span, int count);       /* 1, 2 or 5 times a power of ten, about `count` of them in the span */

#endif
