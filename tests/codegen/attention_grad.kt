# the three gradients of a head: keys outside, queries inside, dq added up in memory of the program's own
kernel attention_grad(local dq: f32[640], p1: f32[1184], p2: f32[592], p3: f32[1280], p4: f32[640], p5: f32[80], p6: f32[80], out p7: f32[1184], out p8: f32[592], out p9: f32[1280]) grid(1, 1, 2) {
  %1 = grid 2
  %2 = idx 0
  %3 = full f32[16, 16] 0
  %4 = var f32[16, 16] %3
  %5 = idx 16
  %6 = idx 40
  %7 = for %2, %6, %5, pipelined
    %8 = isub %6, %7
    %9 = imin %8, %5
    %10 = imul %7, %5
    store dq, %10, %3, valid(%9, 0), strides(16, 1)
  end
  %13 = idx 37
  %14 = for %2, %13, %5, pipelined
    %15 = isub %13, %14
    %16 = imin %15, %5
    %17 = idx 592
    %18 = imul %1, %17
    %19 = imul %14, %5
    %20 = iadd %18, %19
    %21 = idx 1
    %22 = load f32[16, 16] p1, %20, valid(%16, 0), strides(16, 1)
    %23 = stage f32[16, 16] %22, valid(%16, 0)
    %24 = idx 296
    %25 = imul %1, %24
    %26 = idx 8
    %27 = imul %14, %26
    %28 = iadd %25, %27
    %29 = load f32[16, 8] p2, %28, valid(%16, 0), strides(8, 1)
    %30 = stage f32[16, 8] %29, valid(%16, 0)
    %31 = var f32[16, 16] %3
    %32 = full f32[16, 8] 0
    %33 = var f32[16, 8] %32
    %34 = for %2, %6, %5, pipelined
      %35 = isub %6, %34
      %36 = imin %35, %5
      %37 = isub %36, %21
      %38 = iadd %34, %37
      %39 = widen i32[1, 1] %34
      %40 = widen i32[1, 1] %38
      %41 = isub %16, %21
      %42 = iadd %14, %41
      %43 = widen i32[1, 1] %14
      %44 = widen i32[1, 1] %42
      %45 = full bool[1, 1] 0
      %46 = full bool[1, 1] 1
      %47 = ew.le bool[1, 1] %44, %39
      %48 = ew.le bool[1, 1] %43, %40
      if %48
        %50 = idx 640
        %51 = imul %1, %50
        %52 = imul %34, %5
        %53 = iadd %51, %52
        %54 = load f32[16, 16] p3, %53, valid(%36, 0), strides(16, 1)
        %55 = full f32[1, 1] 0.25
        %56 = ew.mul f32[16, 16] %54, %55
        %57 = stage f32[16, 16] %56, valid(%36, 0)
        %58 = idx 320
        %59 = imul %1, %58
        %60 = imul %34, %26
        %61 = iadd %59, %60
        %62 = load f32[16, 8] p4, %61, valid(%36, 0), strides(8, 1)
        %63 = stage f32[16, 8] %62, valid(%36, 0)
        %64 = dot f32[16, 16] %57, %23, 0, tb
        set %4, %64
        %66 = ew.not bool[1, 1] %47
        if %66
          %68 = iota i32[16, 1] %34, axis(0)
          %69 = iota i32[1, 16] %14, axis(1)
          %70 = ew.ge bool[16, 16] %68, %69
          %71 = full f32[1, 1] -inf
          %72 = get f32[16, 16] %4
          %73 = ew.select f32[16, 16] %70, %72, %71
          set %4, %73
        end
        %76 = get f32[16, 16] %4
        %77 = dot f32[16, 16] %63, %30, 0, tb
        %78 = imul %1, %6
        %79 = iadd %78, %34
        %80 = load f32[16, 1] p5, %79, valid(%36, 0), strides(1, 0)
        %81 = load f32[16, 1] p6, %79, valid(%36, 0), strides(1, 0)
        %82 = ew.sub f32[16, 16] %76, %80
        %83 = ew.exp f32[16, 16] %82
        %84 = ew.sub f32[16, 16] %77, %81
        %85 = ew.mul f32[16, 16] %83, %84
        %86 = get f32[16, 8] %33
        %87 = dot f32[16, 8] %83, %63, %86, ta
        set %33, %87
        %89 = get f32[16, 16] %31
        %90 = dot f32[16, 16] %85, %57, %89, ta
        set %31, %90
        %92 = load f32[16, 16] dq, %52, valid(%36, 0), strides(16, 1)
        %93 = dot f32[16, 16] %85, %23, %92
        store dq, %52, %93, valid(%36, 0), strides(16, 1)
      end
    end
    %97 = get f32[16, 16] %31
    store p7, %20, %97, valid(%16, 0), strides(16, 1)
    %99 = get f32[16, 8] %33
    store p8, %28, %99, valid(%16, 0), strides(8, 1)
  end
  %102 = for %2, %6, %5, pipelined
    %103 = isub %6, %102
    %104 = imin %103, %5
    %105 = imul %102, %5
    %106 = load f32[16, 16] dq, %105, valid(%104, 0), strides(16, 1)
    %107 = full f32[1, 1] 0.25
    %108 = ew.mul f32[16, 16] %106, %107
    %109 = idx 640
    %110 = imul %1, %109
    %111 = iadd %110, %105
    %112 = idx 1
    store p9, %111, %108, valid(%104, 0), strides(16, 1)
  end
}
