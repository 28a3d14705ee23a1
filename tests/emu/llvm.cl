/* llvm.cl: OpenCL C, by make.sh through the NVPTX back end of LLVM 19 to llvm.ptx. */
#define GLOBAL __global
#define SHARED __local
#define KERNEL __kernel void
#define TID __nvvm_read_ptx_sreg_tid_x()
#define CTA __nvvm_read_ptx_sreg_ctaid_x()
#define NTID __nvvm_read_ptx_sreg_ntid_x()

/* A transposition through shared memory, 32 x 32 by 256 threads. */
KERNEL transpose(GLOBAL float *out, GLOBAL const float *in, int rows, int cols)
{
    SHARED float tile[33 * 32];
    int tx = TID % 32, ty = TID / 32, across = (cols + 31) / 32, x0 = CTA % across * 32, y0 = CTA / across * 32;
    for (int j = ty; j < 32; j += 8)
        if (y0 + j < rows && x0 + tx < cols)
            tile[j * 33 + tx] = in[(y0 + j) * cols + x0 + tx];
    __nvvm_bar_sync(0);
    for (int j = ty; j < 32; j += 8)
        if (x0 + j < cols && y0 + tx < rows)
            out[(x0 + j) * rows + y0 + tx] = tile[tx * 33 + j];
}

static unsigned rotate(unsigned v, int n) { return v << n | v >> (32 - n); }

/* Integers of every width, and a sort in local memory. */
KERNEL integers(GLOBAL long *out, GLOBAL const int *in, int n)
{
    int i = CTA * NTID + TID;
    if (i >= n)
        return;
    int v[8];
    for (int k = 0; k < 8; k++)
        v[k] = in[(i + k * 7) % n];
    for (int k = 1; k < 8; k++)
        for (int j = k; j > 0 && v[j - 1] > v[j]; j--) {
            int t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
    unsigned h = 17;
    unsigned char bytes = 0;
    short words = 1;
    for (int k = 0; k < 8; k++) {
        h = rotate(h ^ (unsigned)v[k], 5 + k) * 2654435761u;
        bytes += (unsigned char)v[k];
        words = (short)(words * 31 + v[k]);
    }
    long wide = (long)v[0] * v[7] + (long)(h >> 3) - bytes + words;
    wide += __builtin_popcount(h) * 1000 + __builtin_clz(h | 1) + (v[3] ? v[4] / (v[3] | 1) : v[5] % 97);
    out[i] = wide * (i % 2 ? -1 : 1) + (unsigned long)wide / 7;
}

/* Floats: comparisons with NaN, conversions, fma, min, max, square roots. */
KERNEL floats(GLOBAL float *out, GLOBAL const float *in, int n)
{
    int i = CTA * NTID + TID;
    if (i >= n)
        return;
    float x = in[i], y = in[(i + 1) % n];
    float s = x < y ? x * 2 : y + 1;
    if (x != x || y >= 10)
        s += 3;
    s = __builtin_fmaf(x, y, s) + __builtin_sqrtf(__builtin_fabsf(x)) + __builtin_fmaxf(x, y) - __builtin_fminf(x, y);
    double d = (double)s / (1 + (double)y * y);
    int k = (int)(x < 1000 && x > -1000 ? x : 7);
    out[i] = (float)d + __builtin_floorf(x < 0 ? -x : x) + (float)(unsigned)(k * k) + __builtin_copysignf(1, y);
}
