/* kernels.cu: what compilers make of CUDA C, for the emulator: make.sh compiles it to kernels.ptx, which is committed.
   tests/unit_emu_kernels.c holds every kernel's meaning in plain C. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern __shared__ __align__(16) char dynamic[];

/* Row softmax: a block a row, warps by shuffles, the block through shared memory. */
extern "C" __global__ void softmax(float *out, const float *in, int n)
{
    __shared__ float part[32];
    const float *x = in + (size_t)blockIdx.x * n;
    float m = -INFINITY, s = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) m = fmaxf(m, x[i]);
    for (int d = 16; d; d >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    m = part[0];
    for (int w = 1; w < blockDim.x / 32; w++) m = fmaxf(m, part[w]);
    for (int i = threadIdx.x; i < n; i += blockDim.x) s += expf(x[i] - m);
    for (int d = 16; d; d >>= 1) s += __shfl_xor_sync(~0u, s, d);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    s = 0;
    for (int w = 0; w < blockDim.x / 32; w++) s += part[w];
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[(size_t)blockIdx.x * n + i] = expf(x[i] - m) / s;
}

/* C[m][n] f32 = A[m][k] B[n][k]^T, bf16: 64 x 64 tiles, k by 32, four warps of 32 x 32, a ring of cp.async stages, rows of 64 bytes swizzled
   in 16-byte pieces, ldmatrix, mma.sync. */
__device__ static unsigned shared_of(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ static unsigned swizzled(int row, int piece) { return row * 64 + ((piece ^ (row >> 1 & 3)) * 16); }
extern "C" __global__ void __launch_bounds__(128) gemm(float *c, const __nv_bfloat16 *a, const __nv_bfloat16 *b, int m, int n, int k)
{
    const int STAGES = 3;
    char *tile = dynamic;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    float acc[2][4][4] = {};
    auto fetch = [&](int stage, int kt) {
        for (int i = threadIdx.x; i < 256; i += 128) {
            int row = i / 4, piece = i % 4, ka = kt * 32 + piece * 8;
            unsigned at = shared_of(tile + stage * 8192) + swizzled(row, piece), bt = at + 4096;
            int left_a = row0 + row < m && ka < k ? 16 : 0, left_b = col0 + row < n && ka < k ? 16 : 0;
            const __nv_bfloat16 *pa = left_a ? a + (size_t)(row0 + row) * k + ka : a, *pb = left_b ? b + (size_t)(col0 + row) * k + ka : b;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(at), "l"(pa), "r"(left_a));
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(bt), "l"(pb), "r"(left_b));
        }
    };
    int steps = (k + 31) / 32;
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) fetch(s, s);
        asm volatile("cp.async.commit_group;");
    }
    for (int kt = 0; kt < steps; kt++) {
        asm volatile("cp.async.wait_group %0;" :: "n"(STAGES - 2));
        __syncthreads();
        if (kt + STAGES - 1 < steps) fetch((kt + STAGES - 1) % STAGES, kt + STAGES - 1);
        asm volatile("cp.async.commit_group;");
        unsigned base = shared_of(tile + kt % STAGES * 8192);
        for (int half = 0; half < 2; half++) {
            unsigned fa[2][4], fb[2][4];
            for (int i = 0; i < 2; i++) {
                int row = (warp & 1) * 32 + i * 16 + lane % 16;
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(fa[i][0]), "=r"(fa[i][1]), "=r"(fa[i][2]), "=r"(fa[i][3])
                             : "r"(base + swizzled(row, half * 2 + lane / 16)));
            }
            for (int j = 0; j < 2; j++) {
                int row = (warp >> 1) * 32 + j * 16 + lane / 16 * 8 + lane % 8;
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(fb[j][0]), "=r"(fb[j][1]), "=r"(fb[j][2]), "=r"(fb[j][3])
                             : "r"(base + 4096 + swizzled(row, half * 2 + lane / 8 % 2)));
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++)
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                                 : "+f"(acc[i][j][0]), "+f"(acc[i][j][1]), "+f"(acc[i][j][2]), "+f"(acc[i][j][3])
                                 : "r"(fa[i][0]), "r"(fa[i][1]), "r"(fa[i][2]), "r"(fa[i][3]), "r"(fb[j / 2][j % 2 * 2]), "r"(fb[j / 2][j % 2 * 2 + 1]));
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                int row = row0 + (warp & 1) * 32 + i * 16 + lane / 4 + e / 2 * 8, col = col0 + (warp >> 1) * 32 + j * 8 + lane % 4 * 2 + e % 2;
                if (row < m && col < n) c[(size_t)row * n + col] = acc[i][j][e];
            }
}

/* Lanes part in nested loops and branches and meet again. */
__device__ __noinline__ static int collatz(unsigned n)
{
    int steps = 0;
    while (n != 1 && steps < 1000) {
        if (n & 1) n = 3 * n + 1;
        else n >>= 1;
        steps++;
    }
    return steps;
}
extern "C" __global__ void diverge(int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = collatz(i + 1), w = 0;
    for (int k = 0; k < i % 7; k++)
        for (int j = 0; j <= k; j++) {
            if ((i + j) % 3 == 0) continue;
            if (w > 40) break;
            w += v % (j + 2);
        }
    switch (i % 5) {
    case 0: w += 10; break;
    case 1: w *= 3; break;
    case 2: w ^= 0x55; break;
    case 3: w -= collatz(w + 100); break;
    default: w = -w;
    }
    out[i] = v * 1000 + w;
}

/* Votes, matches, reductions and scans over a warp; a partial mask. */
extern "C" __global__ void warps(unsigned *out, const unsigned *in)
{
    unsigned v = in[threadIdx.x], lane = threadIdx.x % 32, s = v;
    unsigned ballot = __ballot_sync(~0u, v & 1), match = __match_any_sync(~0u, v % 4), add = __reduce_add_sync(~0u, v), most = __reduce_max_sync(~0u, v);
    for (int d = 1; d < 32; d *= 2) {
        unsigned t = __shfl_up_sync(~0u, s, d);
        if (lane >= d) s += t;
    }
    unsigned part = lane < 16 ? __shfl_xor_sync(0xffffu, v, 3) : __shfl_down_sync(0xffff0000u, v, 1, 8);
    int same;
    __match_all_sync(~0u, v, &same);
    unsigned *o = out + threadIdx.x * 8;
    o[0] = ballot, o[1] = match, o[2] = add, o[3] = most, o[4] = s, o[5] = part, o[6] = __all_sync(~0u, v < 1000) * 2 + __any_sync(~0u, v == in[5]), o[7] = same;
}

/* Atomics, a histogram in shared memory, doubles, halves, 64-bit integers, arrays that live in local memory, a structure by value. */
struct Options { float scale; int add; double wide; };
extern "C" __global__ void mixed(int *count, double *out, const float *in, int n, Options o)
{
    __shared__ int local[16];
    if (threadIdx.x < 16) local[threadIdx.x] = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float stack[8];
    if (i < n) {
        float x = in[i] * o.scale;
        atomicAdd(&local[(int)fabsf(x * 4) & 15], 1);
        for (int k = 0; k < 8; k++) stack[(k * 5 + i) & 7] = x + k;
        __half h = __float2half(x);
        __nv_bfloat162 b = __floats2bfloat162_rn(x, stack[i & 7]);
        long long big = (long long)(x * 1e6f) * 123456789ll + o.add;
        out[i] = (double)__half2float(__hmul(h, h)) + (double)__low2float(b) * 2 + (double)__high2float(b) + (double)(big % 1000) + sqrt(o.wide + i) + stack[(i * 3) & 7];
    }
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&count[threadIdx.x], local[threadIdx.x]);
}
