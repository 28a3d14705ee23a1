#!/usr/bin/env python3
"""hf_moe.py: Qwen3-MoE's computation on a folder under Hugging Face's names, in plain Python: no torch, no numpy.

  python3 tests/golden/hf_moe.py DIR IN LOGITS        DIR's logits of IN's tokens are LOGITS, to 1e-4

Written from Qwen3MoeForCausalLM's definition: RMSNorm, a norm over each head of q and k, half-split RoPE, causal attention with grouped keys; a
router's softmax over all experts, the num_experts_per_tok largest of it, divided by their sum if norm_topk_prob, times SwiGLUs. For tiny models."""
import json
import math
import struct
import sys
from pathlib import Path


def tensors(path):
    raw = Path(path).read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    out = {}
    for name, t in head.items():
        if name == "__metadata__":
            continue
        a, b = t["data_offsets"]
        kind = {"F32": "f", "I32": "i"}[t["dtype"]]
        flat = list(struct.unpack(f"<{(b - a) // 4}{kind}", raw[8 + n + a:8 + n + b]))
        out[name] = (flat, t["shape"])
    return out


def rows(t):
    flat, shape = t
    return [flat[i * shape[1]:(i + 1) * shape[1]] for i in range(shape[0])] if len(shape) == 2 else flat


def times(w, x):                     # Linear: weight [out, in]
    return [sum(a * b for a, b in zip(row, x)) for row in w]


def norm(x, gain, eps):
    r = 1 / math.sqrt(sum(a * a for a in x) / len(x) + eps)
    return [a * r * g for a, g in zip(x, gain)]


def turned(x, place, base):
    half = len(x) // 2
    out = list(x)
    for i in range(half):
        angle = place * base ** (-i / half)
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def softmax(x):
    top = max(x)
    e = [math.exp(a - top) for a in x]
    return [a / sum(e) for a in e]


def swiglu(w, name, x):
    gate, up = times(w[name + "gate_proj.weight"], x), times(w[name + "up_proj.weight"], x)
    return times(w[name + "down_proj.weight"], [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])


def attention(w, c, name, xs):
    heads, shared, size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    split = lambda v: [v[i:i + size] for i in range(0, len(v), size)]
    q = [[turned(norm(h, w[name + "q_norm.weight"], c["rms_norm_eps"]), t, c["rope_theta"]) for h in split(times(w[name + "q_proj.weight"], x))] for t, x in enumerate(xs)]
    k = [[turned(norm(h, w[name + "k_norm.weight"], c["rms_norm_eps"]), t, c["rope_theta"]) for h in split(times(w[name + "k_proj.weight"], x))] for t, x in enumerate(xs)]
    v = [split(times(w[name + "v_proj.weight"], x)) for x in xs]
    out = []
    for t in range(len(xs)):
        y = []
        for h in range(heads):
            g = h * shared // heads
            p = softmax([sum(a * b for a, b in zip(q[t][h], k[s][g])) / math.sqrt(size) for s in range(t + 1)])
            y += [sum(p[s] * v[s][g][i] for s in range(t + 1)) for i in range(size)]
        out.append(times(w[name + "o_proj.weight"], y))
    return out


def mixture(w, c, name, x):
    p = softmax(times(w[name + "gate.weight"], x))
    chosen = sorted(range(len(p)), key=lambda e: -p[e])[:c["num_experts_per_tok"]]
    scale = sum(p[e] for e in chosen) if c["norm_topk_prob"] else 1
    parts = [[p[e] / scale * a for a in swiglu(w, f"{name}experts.{e}.", x)] for e in chosen]
    return [sum(column) for column in zip(*parts)]


def logits(w, c, tokens):
    add = lambda a, b: [x + y for x, y in zip(a, b)]
    xs = [w["model.embed_tokens.weight"][t] for t in tokens]
    for layer in range(c["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        ys = attention(w, c, name + "self_attn.", [norm(x, w[name + "input_layernorm.weight"], c["rms_norm_eps"]) for x in xs])
        xs = [add(x, y) for x, y in zip(xs, ys)]
        xs = [add(x, mixture(w, c, name + "mlp.", norm(x, w[name + "post_attention_layernorm.weight"], c["rms_norm_eps"]))) for x in xs]
    head = w["model.embed_tokens.weight" if c["tie_word_embeddings"] else "lm_head.weight"]
    return [times(head, norm(x, w["model.norm.weight"], c["rms_norm_eps"])) for x in xs]


def main(folder, given, got):
    c = json.loads((Path(folder) / "config.json").read_text())
    assert c["model_type"] == "qwen3_moe" and c["architectures"] == ["Qwen3MoeForCausalLM"] and c["decoder_sparse_step"] == 1 and not c["mlp_only_layers"]
    w = {name: rows(t) for name, t in tensors(Path(folder) / "model.safetensors").items()}
    tokens = tensors(given)["tokens"][0]
    want = [x for row in logits(w, c, tokens) for x in row]
    have = tensors(got)["logits"][0]
    worst = max(abs(a - b) for a, b in zip(want, have))
    print(f"{len(want)} logits, up to {max(map(abs, want)):.3f}, the worst is {worst:.2e} off")
    return len(want) != len(have) or worst > 1e-4 or max(map(abs, want)) < 0.05


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
