# online softmax over blocks of keys: empty blocks are skipped, the mask is looked at in partial ones
kernel attention(q: f32[1280], k: f32[1184], v: f32[592], out o: f32[640], out lse: f32[80]) grid(3, 1, 2) {
  %1 = grid 2
  %2 = idx 16
  %3 = grid 0
  %4 = imul %3, %2
  %5 = idx 40
  %6 = isub %5, %4
  %7 = imin %6, %2
  %8 = idx 0
  %9 = full f32[16, 16] 0
  %10 = var f32[16, 16] %9
  %11 = idx 640
  %12 = imul %1, %11
  %13 = imul %4, %2
  %14 = iadd %12, %13
  %15 = idx 1
  %16 = load f32[16, 16] q, %14, valid(%7, 0), strides(16, 1)
  %17 = full f32[1, 1] 0.25
  %18 = ew.mul f32[16, 16] %16, %17
  %19 = stage f32[16, 16] %18, valid(%7, 0)
  %20 = full f32[16, 1] -inf
  %21 = var f32[16, 1] %20
  %22 = full f32[16, 1] 0
  %23 = var f32[16, 1] %22
  %24 = full f32[16, 8] 0
  %25 = var f32[16, 8] %24
  %26 = idx 37
  %27 = for %8, %26, %2, pipelined
    %28 = isub %26, %27
    %29 = imin %28, %2
    %30 = isub %7, %15
    %31 = iadd %4, %30
    %32 = widen i32[1, 1] %4
    %33 = widen i32[1, 1] %31
    %34 = isub %29, %15
    %35 = iadd %27, %34
    %36 = widen i32[1, 1] %27
    %37 = widen i32[1, 1] %35
    %38 = full bool[1, 1] 0
    %39 = full bool[1, 1] 1
    %40 = ew.le bool[1, 1] %37, %32
    %41 = ew.le bool[1, 1] %36, %33
    if %41
      %43 = idx 592
      %44 = imul %1, %43
      %45 = imul %27, %2
      %46 = iadd %44, %45
      %47 = load f32[16, 16] k, %46, valid(%29, 0), strides(16, 1)
      %48 = stage f32[16, 16] %47, valid(%29, 0)
      %49 = dot f32[16, 16] %19, %48, 0, tb
      set %10, %49
      %51 = ew.not bool[1, 1] %40
      if %51
        %53 = iota i32[16, 1] %4, axis(0)
        %54 = iota i32[1, 16] %27, axis(1)
        %55 = ew.ge bool[16, 16] %53, %54
        %56 = full f32[1, 1] -inf
        %57 = get f32[16, 16] %10
        %58 = ew.select f32[16, 16] %55, %57, %56
        set %10, %58
      end
      %61 = get f32[16, 16] %10
      %62 = get f32[16, 1] %21
      %63 = full f32[1, 1] -inf
      %64 = reduce.peak f32[16, 1] %61, axis(1), valid(0, %29)
      %65 = ew.max f32[16, 1] %62, %64
      %66 = full f32[1, 1] 0
      %67 = ew.eq bool[16, 1] %65, %63
      %68 = ew.select f32[16, 1] %67, %66, %65
      %69 = ew.sub f32[16, 16] %61, %68
      %70 = ew.exp f32[16, 16] %69
      %71 = ew.sub f32[16, 1] %62, %68
      %72 = ew.exp f32[16, 1] %71
      %73 = reduce.sum f32[16, 1] %70, axis(1), valid(0, %29)
      %74 = get f32[16, 1] %23
      %75 = ew.mul f32[16, 1] %74, %72
      %76 = ew.add f32[16, 1] %75, %73
      set %23, %76
      %78 = idx 296
      %79 = imul %1, %78
      %80 = idx 8
      %81 = imul %27, %80
      %82 = iadd %79, %81
      %83 = load f32[16, 8] v, %82, valid(%29, 0), strides(8, 1)
      %84 = stage f32[16, 8] %83, valid(%29, 0)
      %85 = get f32[16, 8] %25
      %86 = ew.mul f32[16, 8] %85, %72
      %87 = dot f32[16, 8] %70, %84, %86
      set %25, %87
      set %21, %65
    end
  end
  %92 = get f32[16, 1] %23
  %93 = full f32[1, 1] 0
  %94 = ew.gt bool[16, 1] %92, %93
  %95 = full f32[1, 1] 1
  %96 = ew.div f32[16, 1] %95, %92
  %97 = ew.select f32[16, 1] %94, %96, %93
  %98 = get f32[16, 8] %25
  %99 = ew.mul f32[16, 8] %98, %97
  %100 = idx 320
  %101 = imul %1, %100
  %102 = idx 8
  %103 = imul %4, %102
  %104 = iadd %101, %103
  store o, %104, %99, valid(%7, 0), strides(8, 1)
  %106 = ew.log f32[16, 1] %92
  %107 = get f32[16, 1] %21
  %108 = ew.add f32[16, 1] %107, %106
  %109 = ew.select f32[16, 1] %94, %108, %93
  %110 = imul %1, %5
  %111 = iadd %110, %4
  store lse, %111, %109, valid(%7, 0), strides(1, 0)
}
