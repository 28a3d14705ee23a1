#!/bin/sh
# make.sh: the committed PTX anew: kernels.ptx by nvcc, llvm.ptx from OpenCL C by clang and LLVM 19.
set -e
cd "$(dirname "$0")"
export PATH="$PATH:/usr/local/cuda/bin"
nvcc -ptx -arch=sm_80 -o kernels.ptx kernels.cu
clang -x cl -cl-std=CL2.0 -O2 -target nvptx64-nvidia-cuda -Xclang -target-cpu -Xclang sm_80 -Xclang -target-feature -Xclang +ptx75 -c -emit-llvm -o llvm.bc llvm.cl
llc-19 -mcpu=sm_80 -mattr=+ptx85 -O3 -o llvm.ptx llvm.bc
rm -f llvm.bc
