/* check.h: what a unit test counts with: ok(condition, what failed, ...). The program ends by printing `N passed, N failed`. */
#ifndef SN_TESTS_CHECK_H
#define SN_TESTS_CHECK_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static int passed, failed;

static __attribute__((format(printf, 2, 3))) void ok(bool good, const char *fmt, ...) {
    va_list ap;
    if (good) { passed++; return; }
    failed++;
    va_start(ap, fmt);
    printf("FAILED ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

#endif
