#! lower opencl:gpu
# rows over the threads of a block, a sum between them through shared memory
kernel norm(a: f32[2048], out c: f32[2048]) grid(4) {
  %1 = grid 0
  %2 = idx 512
  %3 = imul %1, %2
  %4 = load f32[8, 64] a, %3, valid(0, 0), strides(64, 1)
  %5 = reduce.sum f32[8, 1] %4, axis(1), valid(0, 0)
  %6 = ew.sub f32[8, 64] %4, %5
  store c, %3, %6, valid(0, 0), strides(64, 1)
}
#= expect
kernel norm(a: f32, out c: f32) scratch 0 threads 128 shared 1024 {
  %1 = param f32* 0
  %2 = param f32* 1
  %3 = thread i64 0
  %4 = block i64 0
  %5 = const i64 0
  %6 = const i64 512
  %7 = mul i64 %4, %6
  %8 = const i64 15
  %9 = and i64 %3, %8
  %10 = const i64 16
  %11 = div i64 %3, %10
  %12 = const i64 8
  %13 = for i64 %5, %12, %12 unroll 1
    %14 = add i64 %13, %11
    %15 = const f32x4 0
    %16 = var f32x4 %15
    %17 = const i64 4
    %18 = mul i64 %9, %17
    %19 = const i64 1
    %20 = const i64 64
    %21 = mul i64 %14, %20
    %22 = add i64 %7, %21
    %23 = add i64 %22, %18
    %24 = load f32x4 %1, %23
    %25 = get f32x4 %16
    %26 = add f32x4 %25, %24
    set %16, %26
    %28 = get f32x4 %16
    %29 = hsum f32 %28
    barrier
    %31 = and i64 %3, %19
    %32 = ne bool %31, %5
    %33 = xor i64 %3, %19
    %34 = shared f32 shared* 0
    store %34, %3, %29
    barrier
    %37 = load f32 %34, %33
    %38 = select f32 %32, %37, %29
    %39 = select f32 %32, %29, %37
    %40 = add f32 %38, %39
    %41 = const i64 2
    %42 = and i64 %3, %41
    %43 = ne bool %42, %5
    %44 = xor i64 %3, %41
    %45 = shared f32 shared* 512
    store %45, %3, %40
    barrier
    %48 = load f32 %45, %44
    %49 = select f32 %43, %48, %40
    %50 = select f32 %43, %40, %48
    %51 = add f32 %49, %50
    %52 = and i64 %3, %17
    %53 = ne bool %52, %5
    %54 = xor i64 %3, %17
    store %34, %3, %51
    barrier
    %57 = load f32 %34, %54
    %58 = select f32 %53, %57, %51
    %59 = select f32 %53, %51, %57
    %60 = add f32 %58, %59
    %61 = and i64 %3, %12
    %62 = ne bool %61, %5
    %63 = xor i64 %3, %12
    store %45, %3, %60
    barrier
    %66 = load f32 %45, %63
    %67 = select f32 %62, %66, %60
    %68 = select f32 %62, %60, %66
    %69 = add f32 %67, %68
    %70 = mul i64 %9, %17
    %71 = mul i64 %14, %20
    %72 = add i64 %7, %71
    %73 = add i64 %72, %70
    %74 = load f32x4 %1, %73
    %75 = splat f32x4 %69
    %76 = sub f32x4 %74, %75
    %77 = mul i64 %14, %20
    %78 = add i64 %7, %77
    %79 = add i64 %78, %70
    store %2, %79, %76
  end
}
