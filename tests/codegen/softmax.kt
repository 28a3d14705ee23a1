# three levels: the largest, the sum of exponentials (kept), the quotients
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
