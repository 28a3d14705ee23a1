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
      %25 = mul i64 %19, %18
      %26 = add i64 %13, %25
      %27 = const i64 1
      %28 = add i64 %26, %24
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
  %70 = and i64 %69, %27
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
  %88 = const i64 16
  %89 = for i64 %11, %18, %88
    %90 = mul i64 %71, %23
    %91 = add i64 %89, %90
    %92 = add i64 %74, %68
    %93 = mul i64 %92, %35
    %94 = add i64 %93, %91
    %95 = ldmatrix u32x4 %38, %94, 0
    %96 = mul i64 %71, %23
    %97 = mul i64 %70, %23
    %98 = add i64 %89, %97
    %99 = add i64 %98, %68
    %100 = mul i64 %99, %35
    %101 = add i64 %100, %96
    %102 = ldmatrix u32x4 %58, %101, 1
    %103 = shuffle u32x2 %102, [0 1]
    %104 = get f32x2 %6
    %105 = shuffle f32x4 %104, %5, [0 1 2 3]
    %106 = mma f32x4 %95, %103, %105, 0
    %107 = shuffle f32x2 %106, [0 1]
    set %6, %107
    %109 = shuffle u32x2 %102, [2 3]
    %110 = get f32x2 %7
    %111 = shuffle f32x4 %110, %5, [0 1 2 3]
    %112 = mma f32x4 %95, %109, %111, 0
    %113 = shuffle f32x2 %112, [0 1]
    set %7, %113
    %115 = mul i64 %71, %23
    %116 = add i64 %115, %88
    %117 = mul i64 %70, %23
    %118 = add i64 %89, %117
    %119 = add i64 %118, %68
    %120 = mul i64 %119, %35
    %121 = add i64 %120, %116
    %122 = ldmatrix u32x4 %58, %121, 1
    %123 = shuffle u32x2 %122, [0 1]
    %124 = get f32x2 %8
    %125 = shuffle f32x4 %124, %5, [0 1 2 3]
    %126 = mma f32x4 %95, %123, %125, 0
    %127 = shuffle f32x2 %126, [0 1]
    set %8, %127
    %129 = shuffle u32x2 %122, [2 3]
    %130 = get f32x2 %9
    %131 = shuffle f32x4 %130, %5, [0 1 2 3]
    %132 = mma f32x4 %95, %129, %131, 0
    %133 = shuffle f32x2 %132, [0 1]
    set %9, %133
  end
  %136 = const f32 0.5
  %137 = const i64 15
  %138 = and i64 %4, %137
  %139 = div i64 %4, %88
  %140 = and i64 %4, %14
  %141 = div i64 %4, %16
  %142 = mul i64 %140, %75
  %143 = get f32x2 %6
  %144 = const f32x2 0.5
  %145 = mul f32x2 %143, %144
  %146 = cast bf16x2 %145
  %147 = cast f32x2 %146
  %148 = mul i64 %141, %18
  %149 = add i64 %13, %148
  %150 = cast bf16x2 %147
  %151 = add i64 %149, %142
  store %3, %151, %150
  %153 = add i64 %140, %16
  %154 = mul i64 %153, %75
  %155 = get f32x2 %7
  %156 = mul f32x2 %155, %144
  %157 = cast bf16x2 %156
  %158 = cast f32x2 %157
  %159 = mul i64 %141, %18
  %160 = add i64 %13, %159
  %161 = cast bf16x2 %158
  %162 = add i64 %160, %154
  store %3, %162, %161
  %164 = add i64 %140, %23
  %165 = mul i64 %164, %75
  %166 = get f32x2 %8
  %167 = mul f32x2 %166, %144
  %168 = cast bf16x2 %167
  %169 = cast f32x2 %168
  %170 = mul i64 %141, %18
  %171 = add i64 %13, %170
  %172 = cast bf16x2 %169
  %173 = add i64 %171, %165
  store %3, %173, %172
  %175 = add i64 %140, %84
  %176 = mul i64 %175, %75
  %177 = get f32x2 %9
  %178 = mul f32x2 %177, %144
  %179 = cast bf16x2 %178
  %180 = cast f32x2 %179
  %181 = mul i64 %141, %18
  %182 = add i64 %13, %181
  %183 = cast bf16x2 %180
  %184 = add i64 %182, %176
  store %3, %184, %183
}
