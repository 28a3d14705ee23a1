#! lower ptx:sm_80
# a product of 16-bit stages on tensor cores, scaled and rounded in registers
kernel mma(a: bf16[2048], b: bf16[1024], out c: bf16[2048]) grid(2) {
  %1 = grid 0
  %2 = idx 1024
  %3 = imul %1, %2
  %4 = idx 0
  %5 = load bf16[32, 32] a, %3, valid(0, 0), strides(32, 1)
  %6 = stage bf16[32, 32] %5, valid(0, 0)
  %7 = load bf16[32, 32] b, %4, valid(0, 0), strides(32, 1)
  %8 = stage bf16[32, 32] %7, valid(0, 0)
  %9 = dot f32[32, 32] %6, %8, 0
  %10 = full f32[1, 1] 0.5
  %11 = ew.mul f32[32, 32] %9, %10
  %12 = ew.cast bf16[32, 32] %11
  store c, %3, %12, valid(0, 0), strides(32, 1)
}
#= expect
kernel mma(a: bf16, b: bf16, out c: bf16) scratch 0 threads 128 shared 5120 {
  %1 = param bf16* 0
  %2 = param bf16* 1
  %3 = param bf16* 2
  %4 = thread i64 0
  %5 = const f32x2 0
  %6 = var f32x2 %5
  %7 = var f32x2 %5
  %8 = var f32x2 %5
  %9 = var f32x2 %5
  %10 = block i64 0
  %11 = const i64 0
  %12 = const i64 1024
  %13 = mul i64 %10, %12
  %14 = const i64 3
  %15 = and i64 %4, %14
  %16 = const i64 4
  %17 = div i64 %4, %16
  %18 = const i64 32
  %19 = for i64 %17, %18, %18 unroll 1
    %20 = for i64 %15, %16, %16 unroll 1
      %21 = const f32x8 0
      %22 = var f32x8 %21
      %23 = const i64 8
      %24 = mul i64 %20, %23
      %25 = const i64 1
      %26 = mul i64 %19, %18
      %27 = add i64 %13, %26
      %28 = add i64 %27, %24
      %29 = load bf16x8 %1, %28
      %30 = cast f32x8 %29
      set %22, %30
      %32 = get f32x8 %22
      %33 = cast bf16x8 %32
      %34 = mul i64 %20, %23
      %35 = const i64 40
      %36 = mul i64 %19, %35
      %37 = add i64 %36, %34
      %38 = shared bf16 shared* 0
      store %38, %37, %33
    end
  end
  %42 = and i64 %4, %14
  %43 = div i64 %4, %16
  %44 = for i64 %43, %18, %18 unroll 1
    %45 = for i64 %42, %16, %16 unroll 1
      %46 = var f32x8 %21
      %47 = mul i64 %45, %23
      %48 = mul i64 %44, %18
      %49 = add i64 %48, %47
      %50 = load bf16x8 %2, %49
      %51 = cast f32x8 %50
      set %46, %51
      %53 = get f32x8 %46
      %54 = cast bf16x8 %53
      %55 = mul i64 %45, %23
      %56 = mul i64 %44, %35
      %57 = add i64 %56, %55
      %58 = shared bf16 shared* 2560
      store %58, %57, %54
    end
  end
  barrier
  %63 = and i64 %4, %14
  %64 = div i64 %4, %16
  %65 = const i64 31
  %66 = and i64 %4, %65
  %67 = const i64 7
  %68 = and i64 %66, %67
  %69 = shr i64 %66, %14
  %70 = and i64 %69, %25
  %71 = shr i64 %66, %16
  %72 = const i64 5
  %73 = shr i64 %4, %72
  %74 = mul i64 %73, %23
  %75 = const i64 2
  %76 = mul i64 %63, %75
  set %6, %5
  %78 = add i64 %63, %16
  %79 = mul i64 %78, %75
  set %7, %5
  %81 = add i64 %63, %23
  %82 = mul i64 %81, %75
  set %8, %5
  %84 = const i64 12
  %85 = add i64 %63, %84
  %86 = mul i64 %85, %75
  set %9, %5
  %88 = mul i64 %71, %23
  %89 = add i64 %74, %68
  %90 = mul i64 %89, %35
  %91 = add i64 %90, %88
  %92 = ldmatrix u32x4 %38, %91, 0
  %93 = mul i64 %71, %23
  %94 = mul i64 %70, %23
  %95 = add i64 %94, %68
  %96 = mul i64 %95, %35
  %97 = add i64 %96, %93
  %98 = ldmatrix u32x4 %58, %97, 1
  %99 = shuffle u32x2 %98, [0 1]
  %100 = get f32x2 %6
  %101 = shuffle f32x4 %100, %5, [0 1 2 3]
  %102 = mma f32x4 %92, %99, %101, 0
  %103 = shuffle f32x2 %102, [0 1]
  set %6, %103
  %105 = shuffle u32x2 %98, [2 3]
  %106 = get f32x2 %7
  %107 = shuffle f32x4 %106, %5, [0 1 2 3]
  %108 = mma f32x4 %92, %105, %107, 0
  %109 = shuffle f32x2 %108, [0 1]
  set %7, %109
  %111 = const i64 16
  %112 = mul i64 %71, %23
  %113 = add i64 %112, %111
  %114 = mul i64 %70, %23
  %115 = add i64 %114, %68
  %116 = mul i64 %115, %35
  %117 = add i64 %116, %113
  %118 = ldmatrix u32x4 %58, %117, 1
  %119 = shuffle u32x2 %118, [0 1]
  %120 = get f32x2 %8
  %121 = shuffle f32x4 %120, %5, [0 1 2 3]
  %122 = mma f32x4 %92, %119, %121, 0
  %123 = shuffle f32x2 %122, [0 1]
  set %8, %123
  %125 = shuffle u32x2 %118, [2 3]
  %126 = get f32x2 %9
  %127 = shuffle f32x4 %126, %5, [0 1 2 3]
  %128 = mma f32x4 %92, %125, %127, 0
  %129 = shuffle f32x2 %128, [0 1]
  set %9, %129
  %131 = mul i64 %71, %23
  %132 = add i64 %131, %111
  %133 = add i64 %74, %68
  %134 = mul i64 %133, %35
  %135 = add i64 %134, %132
  %136 = ldmatrix u32x4 %38, %135, 0
  %137 = mul i64 %71, %23
  %138 = mul i64 %70, %23
  %139 = add i64 %138, %111
  %140 = add i64 %139, %68
  %141 = mul i64 %140, %35
  %142 = add i64 %141, %137
  %143 = ldmatrix u32x4 %58, %142, 1
  %144 = shuffle u32x2 %143, [0 1]
  %145 = get f32x2 %6
  %146 = shuffle f32x4 %145, %5, [0 1 2 3]
  %147 = mma f32x4 %136, %144, %146, 0
  %148 = shuffle f32x2 %147, [0 1]
  set %6, %148
  %150 = shuffle u32x2 %143, [2 3]
  %151 = get f32x2 %7
  %152 = shuffle f32x4 %151, %5, [0 1 2 3]
  %153 = mma f32x4 %136, %150, %152, 0
  %154 = shuffle f32x2 %153, [0 1]
  set %7, %154
  %156 = mul i64 %71, %23
  %157 = add i64 %156, %111
  %158 = mul i64 %70, %23
  %159 = add i64 %158, %111
  %160 = add i64 %159, %68
  %161 = mul i64 %160, %35
  %162 = add i64 %161, %157
  %163 = ldmatrix u32x4 %58, %162, 1
  %164 = shuffle u32x2 %163, [0 1]
  %165 = get f32x2 %8
  %166 = shuffle f32x4 %165, %5, [0 1 2 3]
  %167 = mma f32x4 %136, %164, %166, 0
  %168 = shuffle f32x2 %167, [0 1]
  set %8, %168
  %170 = shuffle u32x2 %163, [2 3]
  %171 = get f32x2 %9
  %172 = shuffle f32x4 %171, %5, [0 1 2 3]
  %173 = mma f32x4 %136, %170, %172, 0
  %174 = shuffle f32x2 %173, [0 1]
  set %9, %174
  %176 = const f32 0.5
  %177 = const i64 15
  %178 = and i64 %4, %177
  %179 = div i64 %4, %111
  %180 = and i64 %4, %14
  %181 = div i64 %4, %16
  %182 = mul i64 %180, %75
  %183 = get f32x2 %6
  %184 = const f32x2 0.5
  %185 = mul f32x2 %183, %184
  %186 = cast bf16x2 %185
  %187 = cast f32x2 %186
  %188 = mul i64 %181, %18
  %189 = add i64 %13, %188
  %190 = cast bf16x2 %187
  %191 = add i64 %189, %182
  store %3, %191, %190
  %193 = add i64 %180, %16
  %194 = mul i64 %193, %75
  %195 = get f32x2 %7
  %196 = mul f32x2 %195, %184
  %197 = cast bf16x2 %196
  %198 = cast f32x2 %197
  %199 = mul i64 %181, %18
  %200 = add i64 %13, %199
  %201 = cast bf16x2 %198
  %202 = add i64 %200, %194
  store %3, %202, %201
  %204 = add i64 %180, %23
  %205 = mul i64 %204, %75
  %206 = get f32x2 %8
  %207 = mul f32x2 %206, %184
  %208 = cast bf16x2 %207
  %209 = cast f32x2 %208
  %210 = mul i64 %181, %18
  %211 = add i64 %13, %210
  %212 = cast bf16x2 %209
  %213 = add i64 %211, %205
  store %3, %213, %212
  %215 = add i64 %180, %84
  %216 = mul i64 %215, %75
  %217 = get f32x2 %9
  %218 = mul f32x2 %217, %184
  %219 = cast bf16x2 %218
  %220 = cast f32x2 %219
  %221 = mul i64 %181, %18
  %222 = add i64 %13, %221
  %223 = cast bf16x2 %220
  %224 = add i64 %222, %216
  store %3, %224, %223
}
