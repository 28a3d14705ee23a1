# c = a b^T, edges in every direction
kernel gemm(a: f32[30000], b: f32[19200], out c: f32[6400]) grid(6, 4, 1) {
  %1 = idx 18
  %2 = grid 0
  %3 = imul %2, %1
  %4 = idx 100
  %5 = isub %4, %3
  %6 = imin %5, %1
  %7 = idx 16
  %8 = grid 1
  %9 = imul %8, %7
  %10 = idx 0
  %11 = idx 30000
  %12 = idx 19200
  %13 = full f32[18, 16] 0
  %14 = var f32[18, 16] %13
  %15 = idx 300
  %16 = for %10, %15, %15, pipelined
    %17 = imul %3, %15
    %18 = iadd %17, %16
    %19 = load f32[18, 300] a, %18, valid(%6, 0), strides(300, 1)
    %20 = stage f32[18, 300] %19, valid(%6, 0)
    %21 = imul %9, %15
    %22 = iadd %21, %16
    %23 = load f32[16, 300] b, %22, valid(0, 0), strides(300, 1)
    %24 = stage f32[16, 300] %23, valid(0, 0)
    %25 = get f32[18, 16] %14
    %26 = dot f32[18, 16] %20, %24, %25, tb
    set %14, %26
  end
  %29 = get f32[18, 16] %14
  %30 = idx 64
  %31 = imul %3, %30
  %32 = iadd %31, %9
  %33 = idx 6400
  store c, %32, %29, valid(%6, 0), strides(64, 1)
}
