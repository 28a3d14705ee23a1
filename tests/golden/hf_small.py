#!/usr/bin/env python3
"""hf_small.py: small random Hugging Face models and their logits, for tests/golden/hf.

  python3 tests/golden/hf_small.py make tests/golden/hf       makes the files anew
  python3 tests/golden/hf_small.py check DIR GOLD             DIR, opened by transformers, has GOLD's logits, to 1e-4

Needs torch and transformers. Llama: untied, GQA, its own rope theta and norm eps. Qwen3: tied, QK-norm, head_dim other than width / heads, two
sharded files. LLaDA: the computation of a Llama whose positions all see each other, under LLaDA's names. Weights are drawn large enough that
attention and norms matter."""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

SHAPE = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=32, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
LLAMA = dict(tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=500.0))
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, **LLAMA), "5GB"),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6,
                                            rope_parameters=dict(rope_type="default", rope_theta=10000.0)), "30KB"),
    "llada": (LlamaForCausalLM, LlamaConfig(**SHAPE, **LLAMA), None),
}
LLADA_NAMES = {"embed_tokens": "wte", "layers": "blocks", "self_attn.": "", "mlp.": "", "o_proj": "attn_out", "gate_proj": "ff_proj", "down_proj": "ff_out",
               "input_layernorm": "attn_norm", "post_attention_layernorm": "ff_norm", "model.norm": "model.ln_f", "lm_head": "model.ff_out"}
LLADA_CONFIG = dict(architectures=["LLaDAModelLM"], model_type="llada", d_model=24, n_heads=4, n_kv_heads=2, n_layers=2, mlp_hidden_size=40, mlp_ratio=4,
                    vocab_size=37, embedding_size=37, max_sequence_length=32, rms_norm_eps=1e-5, rope=True, rope_theta=500.0, weight_tying=False,
                    include_bias=False, include_qkv_bias=False, bias_for_layer_norm=False, attention_layer_norm=False, alibi=False, scale_logits=False,
                    input_emb_norm=False, activation_type="silu", block_type="llama", layer_norm_type="rms", mask_token_id=36, eos_token_id=2)


def save_llada(model, out):
    tensors = {}
    for name, value in model.state_dict().items():
        for old, new in LLADA_NAMES.items():
            name = name.replace(old, new)
        tensors[name.replace("model.", "model.transformer.", 1)] = value.contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(LLADA_CONFIG, indent=2) + "\n")


def logits_of(model, tokens, every):
    n = tokens.shape[1]
    with torch.no_grad():
        return model(tokens, attention_mask=torch.zeros(1, 1, n, n) if every else None).logits


def make(folder):
    for name, (kind, config, shard) in MODELS.items():
        torch.manual_seed(7)
        model = kind(config).eval().float()
        with torch.no_grad():
            for key, p in model.named_parameters():
                p.copy_(1 + 0.3 * torch.randn_like(p) if "norm" in key else 0.3 * torch.randn_like(p))
        tokens = torch.randint(0, 37, (1, 20))
        out = Path(folder) / name
        if shard:
            model.save_pretrained(out, max_shard_size=shard)
        else:
            save_llada(model, out)
        (out / "generation_config.json").unlink(missing_ok=True)
        save_file({"tokens": tokens.int(), "len": torch.tensor([20], dtype=torch.int32)}, out / "in.safetensors")
        save_file({"logits": logits_of(model, tokens, not shard).contiguous()}, out / "want.safetensors")


def check(folder, gold):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager")
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    got = logits_of(model.eval(), load_file(f"{gold}/in.safetensors")["tokens"].long(), False)
    worst = (got - load_file(f"{gold}/want.safetensors")["logits"]).abs().max().item()
    print(f"{folder}: largest difference of a logit {worst:.3g}")
    sys.exit(worst > 1e-4)


make(sys.argv[2]) if sys.argv[1] == "make" else check(sys.argv[2], sys.argv[3])
