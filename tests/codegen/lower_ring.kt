#! lower ptx:sm_80
# rows that begin at 16 bytes: a ring of slots that cp.async fills ahead of the products
kernel ring(p0: bf16[2048] align 64, p1: bf16[2048] align 64, out p2: f32[256]) grid(1, 1) {
  %1 = idx 16
  %2 = idx 0
  %3 = idx 128
  %4 = full f32[16, 16] 0
  %5 = var f32[16, 16] %4
  %6 = idx 32
  %7 = for %2, %3, %6, pipelined
    %8 = idx 1
    %9 = load bf16[16, 32] p0, %7, valid(0, 0), strides(128, 1)
    %10 = stage bf16[16, 32] %9, valid(0, 0)
    %11 = load bf16[16, 32] p1, %7, valid(0, 0), strides(128, 1)
    %12 = stage bf16[16, 32] %11, valid(0, 0)
    %13 = get f32[16, 16] %5
    %14 = dot f32[16, 16] %10, %12, %13, tb
    set %5, %14
  end
  %17 = get f32[16, 16] %5
  %18 = ew.cast bf16[16, 16] %17
  %19 = ew.cast f32[16, 16] %18
  %20 = idx 1
  store p2, %2, %19, valid(0, 0), strides(16, 1)
}
#= expect
kernel ring(p0: bf16, p1: bf16, out p2: f32) scratch 0 threads 128 shared 15360 {
  %1 = param bf16* 0
  %2 = param bf16* 1
  %3 = param f32* 2
  %4 = thread i64 0
  %5 = const f32x2 0
  %6 = var f32x2 %5
  %7 = var f32x2 %5
  %8 = block i64 0
  %9 = const i64 1
  %10 = const i64 0
  %11 = const i64 16
  %12 = const i64 128
  %13 = const i64 32
  %14 = const i64 7
  %15 = and i64 %4, %14
  %16 = const i64 8
  %17 = div i64 %4, %16
  %18 = const i64 3
  %19 = and i64 %4, %18
  %20 = const i64 4
  %21 = div i64 %4, %20
  %22 = lt bool %21, %11
  %23 = const i64 15
  %24 = min i64 %21, %23
  %25 = const i64 2
  %26 = mul i64 %19, %25
  set %6, %5
  %28 = add i64 %19, %20
  %29 = mul i64 %28, %25
  set %7, %5
  %31 = lt bool %21, %11
  %32 = min i64 %21, %23
  %33 = var i64 %10
  %34 = var i64 %18
  barrier
  set %33, %10
  set %34, %18
  %38 = const bool 1
  if %38
    %40 = const i64 1280
    %41 = div i64 %4, %20
    %42 = rem i64 %4, %20
    %43 = mul i64 %42, %16
    %44 = lt bool %41, %11
    %45 = const i32 0
    %46 = const i32 16
    %47 = select i32 %44, %46, %45
    %48 = mul i64 %41, %12
    %49 = add i64 %48, %43
    %50 = gt bool %47, %45
    %51 = select i64 %50, %49, %10
    %52 = const i64 40
    %53 = mul i64 %41, %52
    %54 = add i64 %53, %43
    %55 = shared bf16 shared* 0
    %56 = offset bf16 shared* %55, %54
    %57 = offset bf16* %1, %51
    cp_async %56, %57, %47, 16
    %59 = const i64 640
    %60 = div i64 %4, %20
    %61 = rem i64 %4, %20
    %62 = mul i64 %61, %16
    %63 = const i64 64
    %64 = lt bool %4, %63
    if %64
      %66 = mul i64 %60, %12
      %67 = add i64 %66, %62
      %68 = mul i64 %60, %52
      %69 = add i64 %68, %62
      %70 = shared bf16 shared* 10240
      %71 = offset bf16 shared* %70, %69
      %72 = offset bf16* %2, %67
      cp_async %71, %72, 16
    end
  end
  cp_commit
  if %38
    %78 = div i64 %4, %20
    %79 = rem i64 %4, %20
    %80 = mul i64 %79, %16
    %81 = lt bool %78, %11
    %82 = select i32 %81, %46, %45
    %83 = mul i64 %78, %12
    %84 = add i64 %83, %13
    %85 = add i64 %84, %80
    %86 = gt bool %82, %45
    %87 = select i64 %86, %85, %10
    %88 = mul i64 %78, %52
    %89 = add i64 %88, %80
    %90 = add i64 %89, %40
    %91 = offset bf16 shared* %55, %90
    %92 = offset bf16* %1, %87
    cp_async %91, %92, %82, 16
    %94 = div i64 %4, %20
    %95 = rem i64 %4, %20
    %96 = mul i64 %95, %16
    %97 = lt bool %4, %63
    if %97
      %99 = mul i64 %94, %12
      %100 = add i64 %99, %13
      %101 = add i64 %100, %96
      %102 = mul i64 %94, %52
      %103 = add i64 %102, %96
      %104 = add i64 %103, %59
      %105 = offset bf16 shared* %70, %104
      %106 = offset bf16* %2, %101
      cp_async %105, %106, 16
    end
  end
  cp_commit
  if %38
    %112 = const i64 2560
    %113 = div i64 %4, %20
    %114 = rem i64 %4, %20
    %115 = mul i64 %114, %16
    %116 = lt bool %113, %11
    %117 = select i32 %116, %46, %45
    %118 = mul i64 %113, %12
    %119 = add i64 %118, %63
    %120 = add i64 %119, %115
    %121 = gt bool %117, %45
    %122 = select i64 %121, %120, %10
    %123 = mul i64 %113, %52
    %124 = add i64 %123, %115
    %125 = add i64 %124, %112
    %126 = offset bf16 shared* %55, %125
    %127 = offset bf16* %1, %122
    cp_async %126, %127, %117, 16
    %129 = div i64 %4, %20
    %130 = rem i64 %4, %20
    %131 = mul i64 %130, %16
    %132 = lt bool %4, %63
    if %132
      %134 = mul i64 %129, %12
      %135 = add i64 %134, %63
      %136 = add i64 %135, %131
      %137 = mul i64 %129, %52
      %138 = add i64 %137, %131
      %139 = add i64 %138, %40
      %140 = offset bf16 shared* %70, %139
      %141 = offset bf16* %2, %136
      cp_async %140, %141, 16
    end
  end
  cp_commit
  %146 = for i64 %10, %12, %13 unroll 1
    cp_wait 2
    barrier
    %149 = const i64 96
    %150 = add i64 %146, %149
    %151 = get i64 %34
    %152 = lt bool %150, %12
    if %152
      %154 = mul i64 %151, %40
      %155 = div i64 %4, %20
      %156 = rem i64 %4, %20
      %157 = mul i64 %156, %16
      %158 = lt bool %155, %11
      %159 = select i32 %158, %46, %45
      %160 = mul i64 %155, %12
      %161 = add i64 %150, %160
      %162 = add i64 %161, %157
      %163 = gt bool %159, %45
      %164 = select i64 %163, %162, %10
      %165 = mul i64 %155, %52
      %166 = add i64 %165, %157
      %167 = add i64 %154, %166
      %168 = offset bf16 shared* %55, %167
      %169 = offset bf16* %1, %164
      cp_async %168, %169, %159, 16
      %171 = mul i64 %151, %59
      %172 = div i64 %4, %20
      %173 = rem i64 %4, %20
      %174 = mul i64 %173, %16
      %175 = lt bool %4, %63
      if %175
        %177 = mul i64 %172, %12
        %178 = add i64 %150, %177
        %179 = add i64 %178, %174
        %180 = mul i64 %172, %52
        %181 = add i64 %180, %174
        %182 = add i64 %171, %181
        %183 = offset bf16 shared* %70, %182
        %184 = offset bf16* %2, %179
        cp_async %183, %184, 16
      end
    end
    cp_commit
    %189 = and i64 %4, %18
    %190 = div i64 %4, %20
    %191 = const i64 31
    %192 = and i64 %4, %191
    %193 = and i64 %192, %14
    %194 = shr i64 %192, %18
    %195 = and i64 %194, %9
    %196 = shr i64 %192, %20
    %197 = const i64 5
    %198 = shr i64 %4, %197
    %199 = mul i64 %198, %16
    %200 = mul i64 %196, %16
    %201 = add i64 %199, %193
    %202 = mul i64 %201, %52
    %203 = add i64 %202, %200
    %204 = get i64 %33
    %205 = mul i64 %204, %40
    %206 = offset bf16 shared* %55, %205
    %207 = ldmatrix u32x4 %206, %203, 0
    %208 = mul i64 %196, %16
    %209 = mul i64 %195, %16
    %210 = add i64 %208, %193
    %211 = mul i64 %210, %52
    %212 = add i64 %211, %209
    %213 = get i64 %33
    %214 = mul i64 %213, %59
    %215 = offset bf16 shared* %70, %214
    %216 = ldmatrix u32x4 %215, %212, 0
    %217 = shuffle u32x2 %216, [0 1]
    %218 = get f32x2 %6
    %219 = shuffle f32x4 %218, %5, [0 1 2 3]
    %220 = mma f32x4 %207, %217, %219, 0
    %221 = shuffle f32x2 %220, [0 1]
    set %6, %221
    %223 = shuffle u32x2 %216, [2 3]
    %224 = get f32x2 %7
    %225 = shuffle f32x4 %224, %5, [0 1 2 3]
    %226 = mma f32x4 %207, %223, %225, 0
    %227 = shuffle f32x2 %226, [0 1]
    set %7, %227
    %229 = mul i64 %196, %16
    %230 = add i64 %229, %11
    %231 = add i64 %199, %193
    %232 = mul i64 %231, %52
    %233 = add i64 %232, %230
    %234 = get i64 %33
    %235 = mul i64 %234, %40
    %236 = offset bf16 shared* %55, %235
    %237 = ldmatrix u32x4 %236, %233, 0
    %238 = mul i64 %196, %16
    %239 = mul i64 %195, %16
    %240 = add i64 %239, %11
    %241 = add i64 %238, %193
    %242 = mul i64 %241, %52
    %243 = add i64 %242, %240
    %244 = get i64 %33
    %245 = mul i64 %244, %59
    %246 = offset bf16 shared* %70, %245
    %247 = ldmatrix u32x4 %246, %243, 0
    %248 = shuffle u32x2 %247, [0 1]
    %249 = get f32x2 %6
    %250 = shuffle f32x4 %249, %5, [0 1 2 3]
    %251 = mma f32x4 %237, %248, %250, 0
    %252 = shuffle f32x2 %251, [0 1]
    set %6, %252
    %254 = shuffle u32x2 %247, [2 3]
    %255 = get f32x2 %7
    %256 = shuffle f32x4 %255, %5, [0 1 2 3]
    %257 = mma f32x4 %237, %254, %256, 0
    %258 = shuffle f32x2 %257, [0 1]
    set %7, %258
    %260 = and i64 %4, %14
    %261 = div i64 %4, %16
    %262 = get i64 %33
    %263 = add i64 %262, %9
    %264 = eq bool %263, %20
    %265 = select i64 %264, %10, %263
    set %33, %265
    %267 = get i64 %34
    %268 = add i64 %267, %9
    %269 = eq bool %268, %20
    %270 = select i64 %269, %10, %268
    set %34, %270
  end
  %273 = and i64 %4, %14
  %274 = div i64 %4, %16
  %275 = and i64 %4, %18
  %276 = div i64 %4, %20
  barrier
  %278 = lt bool %276, %11
  %279 = min i64 %276, %23
  %280 = mul i64 %275, %25
  %281 = get f32x2 %6
  %282 = cast bf16x2 %281
  %283 = cast f32x2 %282
  %284 = mul i64 %279, %11
  if %278
    %286 = add i64 %284, %280
    store %3, %286, %283
  end
  %289 = add i64 %275, %20
  %290 = mul i64 %289, %25
  %291 = get f32x2 %7
  %292 = cast bf16x2 %291
  %293 = cast f32x2 %292
  %294 = mul i64 %279, %11
  if %278
    %296 = add i64 %294, %290
    store %3, %296, %293
  end
  %299 = lt bool %276, %11
  %300 = min i64 %276, %23
}
