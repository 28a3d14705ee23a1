#!/usr/bin/env python3
"""arms.py NAME FOLDER: loss and gradients of an arm in plain PyTorch: FOLDER/NAME.in.safetensors, NAME.want.safetensors.

Tensors have Sinter's names. Written for clarity, without the tricks of the graph files:
  block_diffusion   one forward pass for each block, over the clean blocks before it and its own noised tokens; realised-count loss
  moe_tokens        AR; each token asks its best experts in turn, who refuse when they are full: one token at a time
  moe_experts       DLM; each expert picks its tokens in each row; an MLP for all beside them
"""
import json, math, struct, sys
import torch

V, W, L, H, HID, T, B = 19, 16, 2, 2, 24, 12, 2
MASK = V - 1
torch.manual_seed(5)
weights, given = {}, {}

def weight(name, *shape):
    w = 1 + 0.3 * torch.randn(*shape) if name.endswith("gain") else 0.3 * torch.randn(*shape)
    return weights.setdefault(name, w.requires_grad_())

def rms(x, name): return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight(name, x.shape[-1])

def rope(x, pos):
    a = pos[:, None] * 10000 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    u, v = x.chunk(2, -1)
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)

def attention(x, at, mask, pos):
    n, t, D = x.shape[0], x.shape[1], W // H
    q, k, v = [(x @ weight(at + w, W, W)).view(n, t, H, D).transpose(1, 2) for w in ("wq", "wk", "wv")]
    q, k = rope(rms(q, at + "qn.gain"), pos), rope(rms(k, at + "kn.gain"), pos)
    p = (q @ k.transpose(-1, -2) / math.sqrt(D)).masked_fill(~mask, float("-inf")).softmax(-1)
    return (p @ v).transpose(1, 2).reshape(n, t, W) @ weight(at + "wo", W, W)

def mlp(x, at):
    return (torch.nn.functional.silu(x @ weight(at + "gate", W, HID)) * (x @ weight(at + "up", W, HID))) @ weight(at + "down", HID, W)

def logits(tokens, mask, pos, ffn=lambda x, layer: mlp(x, layer + "mlp.")):
    x = weight("embed", V, W)[tokens]
    for i in range(L):
        x = x + attention(rms(x, f"h.{i}.n1.gain"), f"h.{i}.attn.", mask, pos)
        x = x + ffn(rms(x, f"h.{i}.n2.gain"), f"h.{i}.")
    return rms(x, "out.gain") @ weight("head", W, V)

def cross_entropy(z, tokens): return z.logsumexp(-1) - z.gather(-1, tokens[..., None])[..., 0]

def block_diffusion(size=4):
    tokens = torch.randint(0, MASK, (B, T))
    hit = torch.rand(B, T) < torch.rand(B, T // size).repeat_interleave(size, 1)
    first = torch.arange(T) % size == torch.randint(0, size, (B, T // size)).repeat_interleave(size, 1)
    none = ~hit.view(B, -1, size).any(-1).repeat_interleave(size, 1)
    hit = hit | none & first
    given["tokens"], given["count_mask.hit"] = tokens.int(), hit.reshape(-1, size)
    loss = 0
    for b in range(0, T, size):
        pos = torch.arange(b + size)
        mask = pos[None, :] // size <= pos[:, None] // size
        x = tokens[:, :b + size].clone()
        x[:, b:][hit[:, b:b + size]] = MASK
        ce = cross_entropy(logits(x, mask, pos)[:, b:], tokens[:, b:b + size])
        h = hit[:, b:b + size].float()
        loss = loss + ((ce * h).sum(1) / h.sum(1)).mean() / (T // size)
    return loss

# -- Mixtures of E experts, K a token ------------------------------------------------------------------------------

E, K, AUX, Z = 4, 2, 0.01, 0.001
routing = []                                 # what each layer adds to what is minimised, not to the loss that is shown

def expert(x, at, e):
    gate, up, down = weight(at + "gate", E, W, HID)[e], weight(at + "up", E, W, HID)[e], weight(at + "down", E, HID, W)[e]
    return (torch.nn.functional.silu(x @ gate) * (x @ up)) @ down

def by_tokens(x, layer, capacity=1.0):
    at = layer + "moe."
    scores = x.reshape(-1, W) @ weight(at + "router", W, E)
    p, n, room = scores.softmax(-1), scores.shape[0], math.ceil(capacity * scores.shape[0] * K / E)
    taken, asked, out = [0] * E, torch.zeros(E), []
    for t in range(n):
        best = scores[t].argsort(descending=True)[:K]
        share, y = scores[t][best].softmax(-1), torch.zeros(W)
        for g, e in zip(share, best.tolist()):
            asked[e] += 1
            if taken[e] < room:
                taken[e] += 1
                y = y + g * expert(x.reshape(-1, W)[t], at, e)
        out.append(y)
    assert asked.sum() > sum(taken), "no token was dropped: another seed"
    routing.append(AUX * E * ((asked / asked.sum()) * p.mean(0)).sum() + Z * (scores.logsumexp(-1) ** 2).mean())
    return torch.stack(out).view(x.shape)

def by_experts(x, layer):
    at = layer + "moe."
    scores = x @ weight(at + "router", W, E)
    p, rows = scores.softmax(-1), T * K // E
    out = [[torch.zeros(W) for _ in range(T)] for _ in range(B)]
    for b in range(B):
        for e in range(E):
            for t in p[b, :, e].argsort(descending=True)[:rows].tolist(): out[b][t] = out[b][t] + p[b, t, e] * expert(x[b, t], at, e)
    routing.append(Z * (scores.logsumexp(-1) ** 2).mean())
    return torch.stack([torch.stack(row) for row in out]) + mlp(x, at + "shared.")

def moe_tokens():
    tokens = torch.randint(0, MASK, (B, T))
    given["tokens"] = tokens.int()
    x = torch.cat([torch.full((B, 1), MASK), tokens[:, :-1]], 1)
    pos = torch.arange(T)
    return cross_entropy(logits(x, pos[None] <= pos[:, None], pos, by_tokens), tokens).mean()

def moe_experts():
    tokens = torch.randint(0, MASK, (B, T))
    hit = torch.rand(B, T) < 0.5
    given["tokens"], given["count_mask.hit"] = tokens.int(), hit
    x = tokens.masked_fill(hit, MASK)
    ce = cross_entropy(logits(x, torch.ones(T, T, dtype=torch.bool), torch.arange(T), by_experts), tokens)
    h = hit.float()
    return ((ce * h).sum(1) / h.sum(1)).mean()

def save(path, tensors):
    names = {torch.float32: "F32", torch.int32: "I32", torch.bool: "BOOL"}
    head, blob = {}, b""
    for k, t in sorted(tensors.items()):
        raw = t.detach().contiguous().numpy().tobytes()
        head[k] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    h = json.dumps(head).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f: f.write(struct.pack("<Q", len(h)) + h + blob)

name, folder = sys.argv[1:]
loss = {"block_diffusion": block_diffusion, "moe_tokens": moe_tokens, "moe_experts": moe_experts}[name]()
(loss + sum(routing)).backward()
given["sample"] = torch.zeros(B, dtype=torch.int32)
save(f"{folder}/{name}.in.safetensors", {**given, **weights})
save(f"{folder}/{name}.want.safetensors", {"loss": loss, **{"grad." + k: w.grad for k, w in weights.items()}})
print(f"{name}: loss {loss.item():.6f}")
