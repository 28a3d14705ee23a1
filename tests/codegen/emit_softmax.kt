#! emit opencl:x8
# the whole of a kernel: helpers, tasks, the loop that claims them
kernel softmax(x: f32[2000], out y: f32[2000]) grid(5) {
  %1 = idx 400
  %2 = grid 0
  %3 = imul %2, %1
  %4 = load f32[4, 100] x, %3, valid(0, 0), strides(100, 1)
  %5 = reduce.max f32[4, 1] %4, axis(1), valid(0, 0)
  %6 = ew.sub f32[4, 100] %4, %5
  %7 = ew.exp f32[4, 100] %6
  %8 = reduce.sum f32[4, 1] %7, axis(1), valid(0, 0)
  %9 = ew.div f32[4, 100] %7, %8
  store y, %3, %9, valid(0, 0), strides(100, 1)
}
#= expect
#pragma OPENCL FP_CONTRACT OFF

/* The next tasks of part `of` of the grid, half of what is left; 0 = none. A counter counts
   units of tasks, so that 32 bits are enough for any grid. */
int sn_claim(volatile __global int *next, long tasks, long groups, long of, long *first, long *last)
{
    long a = tasks * of / groups, n = tasks * (of + 1) / groups - a, unit = 1 + (n >> 30);
    int units = (int)((n + unit - 1) / unit), c = atomic_add(&next[of], 0);
    while (c < units) {
        int take = (units - c + 1) / 2, seen = atomic_cmpxchg(&next[of], c, c + take);
        if (seen == c) {
            *first = a + c * unit;
            *last = a + min(n, (c + take) * unit);
            return 1;
        }
        c = seen;
    }
    return 0;
}

float8 sn_load_f32x8(__global float *p, int8 on)
{
    if (all(on)) return vload8(0, p);
    float8 x = (float8)(0);
    if (on.s0) x.s0 = p[0];
    if (on.s1) x.s1 = p[1];
    if (on.s2) x.s2 = p[2];
    if (on.s3) x.s3 = p[3];
    if (on.s4) x.s4 = p[4];
    if (on.s5) x.s5 = p[5];
    if (on.s6) x.s6 = p[6];
    if (on.s7) x.s7 = p[7];
    return x;
}

float sn_hmax_f32x8(float8 x)
{
    float4 h = x.lo > x.hi ? x.lo : x.hi;
    float2 q = h.lo > h.hi ? h.lo : h.hi;
    float o = q.lo > q.hi ? q.lo : q.hi;
    return o;
}

float sn_hsum_f32x8(float8 x)
{
    float4 h = x.lo + x.hi;
    float2 q = h.lo + h.hi;
    float o = q.lo + q.hi;
    return o;
}

float8 sn_ldexp_f32x8(float8 a, float8 b)
{
    int8 n = as_int8(b + 12582912.0f) - 0x4b400000, half_n = n >> 1;
    return a * as_float8((half_n + 127) << 23) * as_float8((n - half_n + 127) << 23);
}

void sn_store_f32x8(__global float *p, float8 x, int8 on)
{
    if (all(on)) { vstore8(x, 0, p); return; }
    if (on.s0) p[0] = x.s0;
    if (on.s1) p[1] = x.s1;
    if (on.s2) p[2] = x.s2;
    if (on.s3) p[3] = x.s3;
    if (on.s4) p[4] = x.s4;
    if (on.s5) p[5] = x.s5;
    if (on.s6) p[6] = x.s6;
    if (on.s7) p[7] = x.s7;
}

void softmax_tasks(__global float *p0, __global float *p1, uint4 sys, uint again, long first, long last,
    __global uchar *restrict scratch)
{
#pragma unroll 1
    for (long v6 = first; v6 < last; v6 += 1L) {
        long v9 = (long)(as_ulong(v6) * as_ulong(400L));
#pragma unroll 1
        for (long v11 = 0L; v11 < 4L; v11 += 1L) {
            float8 v13 = ((float8)(as_float(0xff800000u)));
            float8 v14 = ((float8)(as_float(0xff800000u)));
            float8 v15 = ((float8)(as_float(0xff800000u)));
            float8 v16 = ((float8)(as_float(0xff800000u)));
#pragma unroll 1
            for (long v19 = 0L; v19 < 96L; v19 += 32L) {
                long v21 = (long)(as_ulong(v11) * as_ulong(100L));
                long v22 = (long)(as_ulong(v9) + as_ulong(v21));
                long v23 = (long)(as_ulong(v22) + as_ulong(v19));
                float8 v24 = vload8(0, p0 + v23);
                float8 v25 = v13;
                float8 v26 = v25 > v24 ? v25 : v24;
                int8 v27 = v25 != v25;
                float8 v28 = v27 ? v25 : v26;
                v13 = v28;
                long v31 = (long)(as_ulong(v19) + as_ulong(8L));
                long v32 = (long)(as_ulong(v11) * as_ulong(100L));
                long v33 = (long)(as_ulong(v9) + as_ulong(v32));
                long v34 = (long)(as_ulong(v33) + as_ulong(v31));
                float8 v35 = vload8(0, p0 + v34);
                float8 v36 = v14;
                float8 v37 = v36 > v35 ? v36 : v35;
                int8 v38 = v36 != v36;
                float8 v39 = v38 ? v36 : v37;
                v14 = v39;
                long v42 = (long)(as_ulong(v19) + as_ulong(16L));
                long v43 = (long)(as_ulong(v11) * as_ulong(100L));
                long v44 = (long)(as_ulong(v9) + as_ulong(v43));
                long v45 = (long)(as_ulong(v44) + as_ulong(v42));
                float8 v46 = vload8(0, p0 + v45);
                float8 v47 = v15;
                float8 v48 = v47 > v46 ? v47 : v46;
                int8 v49 = v47 != v47;
                float8 v50 = v49 ? v47 : v48;
                v15 = v50;
                long v53 = (long)(as_ulong(v19) + as_ulong(24L));
                long v54 = (long)(as_ulong(v11) * as_ulong(100L));
                long v55 = (long)(as_ulong(v9) + as_ulong(v54));
                long v56 = (long)(as_ulong(v55) + as_ulong(v53));
                float8 v57 = vload8(0, p0 + v56);
                float8 v58 = v16;
                float8 v59 = v58 > v57 ? v58 : v57;
                int8 v60 = v58 != v58;
                float8 v61 = v60 ? v58 : v59;
                v16 = v61;
            }
            long v64 = (long)(as_ulong(v11) * as_ulong(100L));
            long v65 = (long)(as_ulong(v9) + as_ulong(v64));
            long v66 = (long)(as_ulong(v65) + as_ulong(96L));
            int8 v70 = ((int8)(0, 1, 2, 3, 4, 5, 6, 7)) < ((int8)(4));
            float8 v71 = sn_load_f32x8(p0 + v66, v70);
            float8 v72 = v13;
            int8 v73 = ((int8)(0, 1, 2, 3, 4, 5, 6, 7)) < ((int8)(4));
            float8 v74 = v73 ? v71 : ((float8)(as_float(0xff800000u)));
            float8 v75 = v72 > v74 ? v72 : v74;
            int8 v76 = v72 != v72;
            float8 v77 = v76 ? v72 : v75;
            v13 = v77;
            float8 v79 = v15;
            float8 v80 = v13;
            float8 v81 = v80 > v79 ? v80 : v79;
            int8 v82 = v80 != v80;
            float8 v83 = v82 ? v80 : v81;
            v13 = v83;
            float8 v85 = v16;
            float8 v86 = v14;
            float8 v87 = v86 > v85 ? v86 : v85;
            int8 v88 = v86 != v86;
            float8 v89 = v88 ? v86 : v87;
            v14 = v89;
            float8 v91 = v14;
            float8 v92 = v13;
            float8 v93 = v92 > v91 ? v92 : v91;
            int8 v94 = v92 != v92;
            float8 v95 = v94 ? v92 : v93;
            v13 = v95;
            float8 v97 = v13;
            float v98 = sn_hmax_f32x8(v97);
            int8 v100 = v97 != v97;
            float8 v101 = v100 ? v97 : ((float8)(0x0p+0f));
            float v102 = sn_hsum_f32x8(v101);
            int v103 = v102 != v102;
            float v104 = v103 ? v102 : v98;
            float8 v105 = ((float8)(0x0p+0f));
#pragma unroll 1
            for (long v106 = 0L; v106 < 96L; v106 += 8L) {
                long v107 = (long)(as_ulong(v11) * as_ulong(100L));
                long v108 = (long)(as_ulong(v9) + as_ulong(v107));
                long v109 = (long)(as_ulong(v108) + as_ulong(v106));
                float8 v110 = vload8(0, p0 + v109);
                float8 v111 = (float8)(v104);
                float8 v112 = v110 - v111;
                int8 v114 = v112 < ((float8)((-0x1.ap+6f)));
                float8 v116 = ((float8)(0x1.68p+6f)) < v112 ? ((float8)(0x1.68p+6f)) : v112;
                float8 v117 = v114 ? ((float8)(0x0p+0f)) : v116;
                float8 v120 = fma(v117, ((float8)(0x1.715476p+0f)), ((float8)(0x1.8p+23f)));
                float8 v121 = v120 - ((float8)(0x1.8p+23f));
                float8 v123 = fma(v121, ((float8)((-0x1.62e4p-1f))), v117);
                float8 v125 = fma(v121, ((float8)((-0x1.7f7d1cp-20f))), v123);
                float8 v129 = fma(((float8)(0x1.6ab89ep-10f)), v125, ((float8)(0x1.123d7p-7f)));
                float8 v131 = fma(v129, v125, ((float8)(0x1.55585ap-5f)));
                float8 v133 = fma(v131, v125, ((float8)(0x1.55548cp-3f)));
                float8 v135 = fma(v133, v125, ((float8)(0x1.fffffcp-2f)));
                float8 v136 = fma(v135, v125, ((float8)(0x1p+0f)));
                float8 v137 = fma(v136, v125, ((float8)(0x1p+0f)));
                float8 v138 = sn_ldexp_f32x8(v137, v121);
                float8 v139 = v114 ? ((float8)(0x0p+0f)) : v138;
                float8 v140 = v105;
                float8 v141 = v140 + v139;
                v105 = v141;
                vstore8(v139, 0, ((__global float *)(scratch + 0)) + v106);
            }
            long v146 = (long)(as_ulong(v11) * as_ulong(100L));
            long v147 = (long)(as_ulong(v9) + as_ulong(v146));
            long v148 = (long)(as_ulong(v147) + as_ulong(96L));
            int8 v149 = ((int8)(0, 1, 2, 3, 4, 5, 6, 7)) < ((int8)(4));
            float8 v150 = sn_load_f32x8(p0 + v148, v149);
            float8 v151 = (float8)(v104);
            float8 v152 = v150 - v151;
            int8 v153 = v152 < ((float8)((-0x1.ap+6f)));
            float8 v154 = ((float8)(0x1.68p+6f)) < v152 ? ((float8)(0x1.68p+6f)) : v152;
            float8 v155 = v153 ? ((float8)(0x0p+0f)) : v154;
            float8 v156 = fma(v155, ((float8)(0x1.715476p+0f)), ((float8)(0x1.8p+23f)));
            float8 v157 = v156 - ((float8)(0x1.8p+23f));
            float8 v158 = fma(v157, ((float8)((-0x1.62e4p-1f))), v155);
            float8 v159 = fma(v157, ((float8)((-0x1.7f7d1cp-20f))), v158);
            float8 v160 = fma(((float8)(0x1.6ab89ep-10f)), v159, ((float8)(0x1.123d7p-7f)));
            float8 v161 = fma(v160, v159, ((float8)(0x1.55585ap-5f)));
            float8 v162 = fma(v161, v159, ((float8)(0x1.55548cp-3f)));
            float8 v163 = fma(v162, v159, ((float8)(0x1.fffffcp-2f)));
            float8 v164 = fma(v163, v159, ((float8)(0x1p+0f)));
            float8 v165 = fma(v164, v159, ((float8)(0x1p+0f)));
            float8 v166 = sn_ldexp_f32x8(v165, v157);
            float8 v167 = v153 ? ((float8)(0x0p+0f)) : v166;
            float8 v168 = v105;
            int8 v169 = ((int8)(0, 1, 2, 3, 4, 5, 6, 7)) < ((int8)(4));
            float8 v170 = v169 ? v167 : ((float8)(0x0p+0f));
            float8 v171 = v168 + v170;
            v105 = v171;
            vstore8(v167, 0, ((__global float *)(scratch + 0)) + 96L);
            float8 v174 = v105;
            float v175 = sn_hsum_f32x8(v174);
#pragma unroll 1
            for (long v176 = 0L; v176 < 96L; v176 += 32L) {
                float8 v177 = vload8(0, ((__global float *)(scratch + 0)) + v176);
                float8 v178 = (float8)(v175);
                float8 v179 = v177 / v178;
                long v180 = (long)(as_ulong(v11) * as_ulong(100L));
                long v181 = (long)(as_ulong(v9) + as_ulong(v180));
                long v182 = (long)(as_ulong(v181) + as_ulong(v176));
                vstore8(v179, 0, p1 + v182);
                long v184 = (long)(as_ulong(v176) + as_ulong(8L));
                float8 v185 = vload8(0, ((__global float *)(scratch + 0)) + v184);
                float8 v186 = (float8)(v175);
                float8 v187 = v185 / v186;
                long v188 = (long)(as_ulong(v11) * as_ulong(100L));
                long v189 = (long)(as_ulong(v9) + as_ulong(v188));
                long v190 = (long)(as_ulong(v189) + as_ulong(v184));
                vstore8(v187, 0, p1 + v190);
                long v192 = (long)(as_ulong(v176) + as_ulong(16L));
                float8 v193 = vload8(0, ((__global float *)(scratch + 0)) + v192);
                float8 v194 = (float8)(v175);
                float8 v195 = v193 / v194;
                long v196 = (long)(as_ulong(v11) * as_ulong(100L));
                long v197 = (long)(as_ulong(v9) + as_ulong(v196));
                long v198 = (long)(as_ulong(v197) + as_ulong(v192));
                vstore8(v195, 0, p1 + v198);
                long v200 = (long)(as_ulong(v176) + as_ulong(24L));
                float8 v201 = vload8(0, ((__global float *)(scratch + 0)) + v200);
                float8 v202 = (float8)(v175);
                float8 v203 = v201 / v202;
                long v204 = (long)(as_ulong(v11) * as_ulong(100L));
                long v205 = (long)(as_ulong(v9) + as_ulong(v204));
                long v206 = (long)(as_ulong(v205) + as_ulong(v200));
                vstore8(v203, 0, p1 + v206);
            }
            float8 v209 = vload8(0, ((__global float *)(scratch + 0)) + 96L);
            float8 v210 = (float8)(v175);
            float8 v211 = v209 / v210;
            long v212 = (long)(as_ulong(v11) * as_ulong(100L));
            long v213 = (long)(as_ulong(v9) + as_ulong(v212));
            int8 v214 = ((int8)(0, 1, 2, 3, 4, 5, 6, 7)) < ((int8)(4));
            long v215 = (long)(as_ulong(v213) + as_ulong(96L));
            sn_store_f32x8(p1 + v215, v211, v214);
        }
    }
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void softmax(__global uchar *b0, ulong o0, __global uchar *b1, ulong o1, uint4 sys, __global uchar *scratch,
    volatile __global int *next, int at, long tasks)
{
    uint again = 0;
    long first, last, groups = get_num_groups(0), me = get_group_id(0);
    scratch += me * 512L;
    for (long k = 0; k < groups; k++)
        while (sn_claim(next + at, tasks, groups, (me + k) % groups, &first, &last)) {
            softmax_tasks((__global float *)(b0 + o0), (__global float *)(b1 + o1), sys, again, first, last, scratch);
            again = 1;
        }
}

