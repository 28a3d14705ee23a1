# rms norm, dropout guarded by p > 0, bf16 out, and sums down the columns in a second phase
kernel dropout_norm(x: f32[1296], gain: f32[72], p: f32[1], out y: bf16[1296], out colsum: f32[216]) grid(3) {
  %1 = idx 432
  %2 = grid 0
  %3 = imul %2, %1
  %4 = load f32[6, 72] x, %3, valid(0, 0), strides(72, 1)
  %5 = full f32[1, 1] 0.013888888888888888
  %6 = ew.mul f32[6, 72] %4, %4
  %7 = reduce.sum f32[6, 1] %6, axis(1), valid(0, 0)
  %8 = ew.mul f32[6, 1] %7, %5
  %9 = full f32[1, 1] 1e-06
  %10 = ew.add f32[6, 1] %8, %9
  %11 = ew.sqrt f32[6, 1] %10
  %12 = full f32[1, 1] 1
  %13 = ew.div f32[6, 1] %12, %11
  %14 = idx 0
  %15 = load f32[1, 72] gain, %14, valid(0, 0), strides(0, 1)
  %16 = ew.mul f32[6, 72] %4, %13
  %17 = ew.mul f32[6, 72] %16, %15
  %18 = random f32[6, 72] %3, 0, stream(5), strides(72, 1)
  %19 = full f32[1, 1] 0
  %20 = load f32[1, 1] p, %14, valid(0, 0), strides(0, 0)
  %21 = ew.lt bool[6, 72] %18, %20
  %22 = ew.select f32[6, 72] %21, %19, %17
  %23 = ew.cast bf16[6, 72] %22
  store y, %3, %23, valid(0, 0), strides(72, 1)
  %25 = reduce.sum f32[1, 72] %22, axis(0), valid(0, 0)
  %26 = idx 72
  %27 = imul %2, %26
  store colsum, %27, %25, valid(0, 0), strides(0, 1)
}
