/* unit_predict.c: the model of cards (codegen/card.c): occupancy against NVIDIA's calculator, loops found in PTX, times by hand. Out: `N passed, N failed`. */
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "codegen/card.h"
#include "tests/check.h"

static const Card *h200;

static bool near(double x, double y) { return fabs(x - y) <= 1e-9 * fabs(y); }

/* Blocks at once, as the CUDA occupancy calculator has them. */
static void test_occupancy(void) {
    static const struct { const char *card; int threads, registers, shared, blocks; } cases[] = {
        { "h200", 128, 32, 0, 16 },          { "h200", 256, 64, 0, 4 },         { "h200", 128, 168, 0, 3 },       { "h200", 32, 16, 0, 32 },
        { "h200", 1024, 32, 0, 2 },          { "h200", 128, 128, 82944, 2 },    { "h200", 128, 0, 112 << 10, 2 }, { "h200", 256, 255, 0, 1 },
        { "a100", 128, 128, 40960, 4 },      { "a100", 128, 0, 163 << 10, 1 },  { "rtx4090", 256, 32, 0, 6 },     { "rtx4090", 128, 0, 99 << 10, 1 },
        { "rtx4090", 128, 0, 100 << 10, 0 }, { "h200", 1024, 128, 0, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Work w = { .bytes = 1, .grid = 1, .threads = cases[i].threads, .registers = cases[i].registers, .shared = cases[i].shared };
        int got = snK_predict(snK_card(cases[i].card), &w).resident;
        ok(got == cases[i].blocks, "%s, %d threads, %d registers, %d bytes: %d blocks, not %d", cases[i].card, w.threads, w.registers, cases[i].shared, got, cases[i].blocks);
    }
}

static void test_loops(void) {
    static const char text[] =
        ".visible .entry a(\n.param .u64 x\n)\n{\n\t.reg .f32 %f<3>;\n\tmov.u32 %r1, 0;\n$L0:\n\tadd.s32 %r1, %r1, 1;\n$L1:\n\t// a comment\n"
        "\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r2}, {%r3}, {%f1};\n\tmma.sync.aligned.x {%f1};\n\tadd.f32 %f1, %f1, %f2;\n\tmov.f32 %f2, %f1;\n\tsetp.ne.s32 %p1, %r1, 8;\n"
        "\t@%p1 bra $L1;\n\tmul.f32 %f1, %f1, %f1;\n\t@%p2 bra $L0;\n\tret;\n}\n"
        ".visible .entry b(\n.param .u64 x\n)\n{\n$L5:\n\tfma.rn.f32 %f1, %f1, %f1, %f2;\n\tbra.uni $L6;\n$L6:\n\t@!%p1 bra $L5;\n$L7:\n\tld.global.f32 %f1, [%rd1];\n"
        "\t@%p1 bra $L7;\n\tret;\n}\n.visible .entry ab(\n.param .u64 x\n)\n{\n\tfma.rn.f32 %f1, %f1, %f1, %f2;\n\tmov.u32 %r1, 0;\n\tret;\n}\n.visible .entry none(\n)\n{\n\tret;\n}\n";
    Loop a = snK_product_loop(text, "a"), b = snK_product_loop(text, "b"), ab = snK_product_loop(text, "ab"), none = snK_product_loop(text, "none");
    ok(a.unit == BY_MMA && a.products == 2 && a.instructions == 5, "the inner loop of a: %d, %d of %d", a.unit, a.products, a.instructions);
    ok(b.unit == BY_FMA && b.products == 1 && b.instructions == 3, "the loop of b: %d, %d of %d", b.unit, b.products, b.instructions);
    ok(ab.unit == BY_FMA && ab.products == 1 && ab.instructions == 2, "no loop: all of ab: %d, %d of %d", ab.unit, ab.products, ab.instructions);
    ok(none.unit == BY_NOTHING && snK_product_loop(text, "absent").unit == BY_NOTHING, "no products");
}

static void test_times(void) {
    Loop mma = { BY_MMA, 2, 1 }, crowded = { BY_MMA, 40, 1 };
    Work w = { .products = 613e9, .bytes = 1e6, .grid = 132 * 8, .threads = 256, .loop = mma };
    Prediction p = snK_predict(h200, &w);
    ok(p.bound == BOUND_TENSOR && near(p.seconds, 1e-3 + 1.5e-6) && near(p.floor, 613.0 / 989e3), "products: %g s, floor %g", p.seconds, p.floor);
    ok(near(p.occupancy, 1) && near(p.waves, 1), "all warps in one wave: %g, %g", p.occupancy, p.waves);
    w.loop = crowded;
    p = snK_predict(h200, &w);
    ok(p.bound == BOUND_ISSUE && near(p.seconds, 613e9 / 4096 * 40 / (4 * 132 * 1.83e9) + 1.5e-6), "instructions around them: %g s", p.seconds);
    w.loop = mma, w.grid = 66;
    p = snK_predict(h200, &w);
    ok(p.bound == BOUND_TENSOR && near(p.seconds, 2e-3 + 1.5e-6), "half of the units: %g s", p.seconds);
    w.grid = 132 + 1;
    ok(near(snK_predict(h200, &w).seconds, 2e-3 * 132 / 133 + 1.5e-6), "one block too many: %g s", snK_predict(h200, &w).seconds);
    w = (Work){ .bytes = 4.8e9, .elementwise = 1e6, .grid = 1 << 16, .threads = 256 };
    p = snK_predict(h200, &w);
    ok(p.bound == BOUND_MEMORY && near(p.seconds, 1e-3 + 1.5e-6) && near(p.floor, 1e-3), "bytes: %g s", p.seconds);
    w.grid = 1;
    p = snK_predict(h200, &w);
    ok(p.bound == BOUND_MEMORY && near(p.seconds, 4.8e9 * 0.8e-6 / (32 * 256) + 1.5e-6), "one block hides no latency: %g s", p.seconds);
    w = (Work){ .bytes = 64, .grid = 1, .threads = 32 };
    ok(snK_predict(h200, &w).bound == BOUND_LAUNCH, "next to nothing is a launch");
    w = (Work){ .elementwise = 66.9e9, .bytes = 1, .grid = 132 * 8, .threads = 256 };
    ok(snK_predict(h200, &w).bound == BOUND_VECTOR && near(snK_predict(h200, &w).seconds, 2e-3 + 1.5e-6), "elementwise: %g s", snK_predict(h200, &w).seconds);
}

int main(void) {
    h200 = snK_card("h200");
    ok(h200 && !snK_card("h20"), "cards by name");
    if (h200) test_occupancy(), test_loops(), test_times();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
