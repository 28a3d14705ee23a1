#!/bin/sh
# make.sh: makes the golden files anew: a PyTorch run of both arms (torch_lm.py golden) with tensors under Sinter's names.
# Needs python3-torch. *.in.safetensors: weights, one batch, the DLM's mask. *.want.safetensors: loss and every gradient.
set -eu
cd "$(dirname "$0")"
for arm in ar dlm; do
    python3 torch_lm.py golden --arm $arm --vocab 37 --width 32 --layers 2 --heads 2 --seq 16 --batch 3 --hidden 64 --qk-norm --threads 1 \
        --out $arm.torch.safetensors
    python3 rename.py $arm
    rm $arm.torch.safetensors
done
for arm in block_diffusion moe_tokens moe_experts; do python3 arms.py $arm .; done
