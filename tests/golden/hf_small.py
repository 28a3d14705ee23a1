#!/usr/bin/env python3
"""hf_small.py: small random Hugging Face models and their logits, for tests/golden/hf: `python3 tests/golden/hf_small.py tests/golden/hf`.

Needs torch and transformers. Llama: untied, GQA, its own rope theta and norm eps. Qwen3: tied, QK-norm, head_dim other than width / heads, two
sharded files. Weights are drawn large enough that attention and norms matter."""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

SHAPE = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=32, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False, rms_norm_eps=1e-5,
                                            rope_parameters=dict(rope_type="default", rope_theta=500.0)), "5GB"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6,
                                            rope_parameters=dict(rope_type="default", rope_theta=10000.0)), "30KB"),
}

for name, (kind, config, shard) in MODELS.items():
    torch.manual_seed(7)
    model = kind(config).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else 0.3 * torch.randn_like(p))
    tokens = torch.randint(0, 37, (1, 20))
    out = Path(sys.argv[1]) / name
    model.save_pretrained(out, max_shard_size=shard)
    (out / "generation_config.json").unlink(missing_ok=True)
    with torch.no_grad():
        logits = model(tokens).logits
    save_file({"tokens": tokens.int()}, out / "in.safetensors")
    save_file({"logits": logits.contiguous()}, out / "want.safetensors")
