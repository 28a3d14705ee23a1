#!/usr/bin/env python3
"""gpu_torch.py: what tools/gpu.sh needs Python for: PyTorch's side of the comparisons, and the report.

  gpu_torch.py gemm       [--shapes MxNxK[ta|tb],...] [--dtype bf16]            torch.matmul, that is cuBLAS
  gpu_torch.py attention  [--seq N] [--dim N,...] [--batch N] [--heads N] [--mask LIST]   SDPA where it has the mask, FlexAttention
  gpu_torch.py step       --arm ar|dlm [--how eager|compile] [--layers N ...]   a whole training step: forward, backward, clipping, AdamW
  gpu_torch.py report DIR                                                       DIR/*.jsonl -> DIR/gpu.json, DIR/gpu.md

In:  a PyTorch (2.5 or later for FlexAttention; older ones leave it out); a card, or with --device cpu none. Out: one JSON object a line, with the
     keys of `sinter bench --json` and "by": who. The best of the runs counts, as on Sinter's side; a run is timed by events.
     Masks are those of `sinter bench attention`. The model is that of models/transformer.sn without QK-norm, head tied to the embedding:
     bf16 autocast, f32 weights, fused AdamW, flash attention (SDPA).
"""
import argparse, glob, json, math, os, sys, time


# -- Timing ------------------------------------------------------------------------------------------------------------------

def put(**row):
    print(json.dumps(row), flush=True)


def best_ms(f, device, seconds=0.4, least=5):
    """The best of the runs that fit into `seconds`, after two that do not count."""
    import torch
    times, start = [], None
    for i in range(10 ** 6):
        if i == 2:
            start = time.perf_counter()
        if i >= 2 + least and time.perf_counter() - start > seconds:
            break
        if device == "cuda":
            a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            a.record(); f(); b.record(); b.synchronize()
            t = a.elapsed_time(b)
        else:
            t = time.perf_counter(); f(); t = (time.perf_counter() - t) * 1e3
        if i >= 2:
            times.append(t)
    return min(times)


# -- Products ----------------------------------------------------------------------------------------------------------------

def parse_shape(text):
    ta, tb = text.endswith("ta"), text.endswith("tb")
    m, n, k = (int(x) for x in (text[:-2] if ta or tb else text).split("x"))
    return m, n, k, ta, tb


def gemm(a):
    import torch
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[a.dtype]
    for text in a.shapes.split(","):
        m, n, k, ta, tb = parse_shape(text)
        x = torch.rand(*((k, m) if ta else (m, k)), device=a.device).mul_(2).sub_(1).to(dtype)
        y = torch.rand(*((n, k) if tb else (k, n)), device=a.device).mul_(2).sub_(1).to(dtype)
        x, y = x.t() if ta else x, y.t() if tb else y
        out = torch.empty(m, n, device=a.device, dtype=dtype)
        ms = best_ms(lambda: torch.matmul(x, y, out=out), a.device, a.seconds)
        put(kind="gemm", by="PyTorch %s" % torch.__version__, m=m, n=n, k=k, ta=ta, tb=tb, dtype=a.dtype, ms=ms, gflops=2e-6 * m * n * k / ms)


# -- Attention ---------------------------------------------------------------------------------------------------------------

def mask_of(name, seq):
    """The predicate that FlexAttention takes; None = full."""
    what, _, n = name.partition(":")
    n, h, docs = int(n or {"window": 256, "prefix": 256, "document": 4, "causal-document": 4, "block-diffusion": 32, "dilated": 4}.get(what, 0)), seq // 2, int(n or 4)

    def block_diffusion(b, _, q, k):
        bq, bk = q % h // n, k % h // n
        return ((q < h) & (k < h) & (bq == bk)) | ((q < h) & (k >= h) & (bq > bk)) | ((q >= h) & (k >= h) & (bq >= bk))
    return {"full": None, "causal": lambda b, _, q, k: q >= k, "window": lambda b, _, q, k: (q >= k) & (q - k < n),
            "prefix": lambda b, _, q, k: (q >= k) | (k < n), "document": lambda b, _, q, k: q * docs // seq == k * docs // seq,
            "causal-document": lambda b, _, q, k: (q >= k) & (q * docs // seq == k * docs // seq), "block-diffusion": block_diffusion,
            "dilated": lambda b, _, q, k: (q >= k) & ((q - k) % n == 0)}[what]


def contenders(a, name):
    """who -> attention(q, k, v)"""
    import torch
    import torch.nn.functional as F
    out = {}
    if name in ("full", "causal"):
        out["SDPA"] = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=name == "causal")
    try:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        print("FlexAttention: not in PyTorch %s" % torch.__version__, file=sys.stderr)
        return out
    mask = mask_of(name, a.seq)
    torch._dynamo.reset()
    flex = torch.compile(flex_attention, dynamic=False)
    blocks = create_block_mask(mask, None, None, a.seq, a.seq, device=a.device) if mask else None
    out["FlexAttention"] = lambda q, k, v: flex(q, k, v, block_mask=blocks)
    return out


def attention(a):
    import torch
    for dim in (int(d) for d in a.dim.split(",")):
        for name in a.mask.split(","):
            q, k, v = (torch.randn(a.batch, a.heads, a.seq, dim, device=a.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            dy = torch.randn_like(q)
            for who, f in contenders(a, name).items():
                row = dict(kind="attention", by="%s, PyTorch %s" % (who, torch.__version__), mask=name, seq=a.seq, dim=dim, batch=a.batch, heads=a.heads, dtype="bf16")
                try:                             # what this PyTorch cannot do leaves the rest
                    still = [x.detach() for x in (q, k, v)]
                    put(**row, dir="fwd", ms=best_ms(lambda: f(*still), a.device, a.seconds))
                    y = f(q, k, v)
                    put(**row, dir="bwd", ms=best_ms(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True), a.device, a.seconds))
                except Exception as e:
                    print("%s, %s, D %d: %s" % (who, name, dim, (str(e).strip().splitlines() or [type(e).__name__])[0]), file=sys.stderr)


# -- A training step ---------------------------------------------------------------------------------------------------------

def model(a):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    D, L, H, T, V, HID = a.width, a.layers, a.heads, a.seq, a.vocab, a.hidden
    angle = torch.arange(T)[:, None] * 10000 ** (-torch.arange(0, D // H, 2) / (D // H))

    def W(i, o, std=.02):
        return nn.Parameter(torch.randn(o, i) * std)

    def norm(x, w):
        return F.rms_norm(x, (x.shape[-1],), w, 1e-6) if hasattr(F, "rms_norm") else x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * w

    class Block(nn.Module):
        def __init__(s):
            super().__init__()
            s.n1, s.n2 = nn.Parameter(torch.ones(D)), nn.Parameter(torch.ones(D))
            s.qkv, s.wo = W(D, 3 * D), W(D, D, .02 / math.sqrt(2 * L))
            s.up, s.down = W(D, 2 * HID), W(HID, D, .02 / math.sqrt(2 * L))

        def forward(s, x, cos, sin):
            def rope(z):
                u, w = z.chunk(2, -1)
                return torch.cat([u * cos - w * sin, u * sin + w * cos], -1)
            n = x.shape[0]
            q, k, v = F.linear(norm(x, s.n1), s.qkv).view(n, T, 3, H, D // H).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(rope(q).to(v.dtype), rope(k).to(v.dtype), v, is_causal=a.arm == "ar")
            x = x + F.linear(y.transpose(1, 2).reshape(n, T, D), s.wo)
            gate, up = F.linear(norm(x, s.n2), s.up).chunk(2, -1)
            return x + F.linear(F.silu(gate) * up, s.down)

    class LM(nn.Module):
        def __init__(s):
            super().__init__()
            s.embed = nn.Parameter(torch.randn(V, D) * .02)
            s.h = nn.ModuleList([Block() for _ in range(L)])
            s.norm = nn.Parameter(torch.ones(D))
            s.register_buffer("cos", angle.cos()), s.register_buffer("sin", angle.sin())

        def forward(s, tokens, targets, weight):
            x = F.embedding(tokens, s.embed)
            for b in s.h:
                x = b(x, s.cos, s.sin)
            ce = F.cross_entropy(F.linear(norm(x, s.norm), s.embed).view(-1, V), targets.view(-1), reduction="none")
            return (ce.view_as(targets) * weight).sum() / targets.shape[0]
    return LM()


def step(a):
    import torch
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    m = model(a).to(a.device)
    net = torch.compile(m) if a.how == "compile" else m
    decay = [p for p in m.parameters() if p.dim() == 2 and p is not m.embed]
    rest = [p for p in m.parameters() if p.dim() != 2 or p is m.embed]
    fused = dict(fused=True) if a.device == "cuda" else {}
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": .1}, {"params": rest, "weight_decay": 0.}], lr=1e-3, betas=(.9, .95), **fused)
    mask = a.vocab - 1
    tokens = torch.randint(0, mask, (a.batch, a.seq), device=a.device)
    shifted = torch.cat([torch.full_like(tokens[:, :1], mask), tokens[:, :-1]], 1)

    def batch():                                 # inputs, weights of the positions
        if a.arm == "ar":
            return shifted, torch.full(tokens.shape, 1 / a.seq, device=a.device)
        hit = torch.rand(tokens.shape, device=a.device) < torch.rand(a.batch, 1, device=a.device)
        return torch.where(hit, mask, tokens), hit / hit.sum(1, keepdim=True).clamp(min=1)

    def one():
        x, w = batch()
        with torch.autocast(a.device, torch.bfloat16):
            loss = net(x, tokens, w)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
    t = time.perf_counter()
    one()
    first = time.perf_counter() - t
    ms = best_ms(one, a.device, a.seconds * 5)
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else 0
    put(kind="step", by="PyTorch %s, %s" % (torch.__version__, a.how), name=a.arm, weights=sum(p.numel() for p in m.parameters()), batch=a.batch, window=a.seq,
        dtype="bf16", ms=ms, tokens_per_s=a.batch * a.seq / ms * 1e3, peak_bytes=peak, first_s=first)


# -- The report --------------------------------------------------------------------------------------------------------------

def table(heads, rows):
    return "\n".join("| %s |" % " | ".join(str(c) for c in row) for row in [heads, ["---"] * len(heads)] + rows) + "\n"


def ours(rows, kind):
    return [r for r in rows if r.get("kind") == kind and "by" not in r]


def theirs(rows, kind, like, keys):
    return [r for r in rows if r.get("kind") == kind and "by" in r and all(r.get(k) == like.get(k) for k in keys)]


def tflops(row):
    return "%.3g" % (row["gflops"] * 1e-3)


def report_gemm(rows):
    out = []
    for r in ours(rows, "gemm"):
        t = theirs(rows, "gemm", r, ("m", "n", "k", "ta", "tb", "dtype"))
        out.append(["%d x %d x %d%s" % (r["m"], r["n"], r["k"], " a^T" if r["ta"] else " b^T" if r["tb"] else ""), r["dtype"], "%.3f" % r["ms"], tflops(r),
                    "%.2f" % r["ratio"], tflops(t[0]) if t else "", "%.2f" % (t[0]["ms"] / r["ms"]) if t else ""])
    return "## Products\n\n" + table(["m n k", "dtype", "ms", "TFLOP/s", "of the measured peak", "cuBLAS, TFLOP/s", "of cuBLAS"], out) if out else ""


def report_attention(rows):
    mine, out = ours(rows, "attention"), []
    causal = {(r["dir"], r["dim"], r["seq"]): r["gflops"] for r in mine if r["mask"] == "causal"}
    for r in mine:
        t = theirs(rows, "attention", r, ("mask", "dir", "seq", "dim", "batch", "heads"))
        best = {who: min([x["ms"] for x in t if x["by"].startswith(who)], default=None) for who in ("SDPA", "FlexAttention")}
        base = causal.get((r["dir"], r["dim"], r["seq"]))
        out.append([r["mask"], r["dir"], r["seq"], r["dim"], "%.3f" % r["visited"], "%.3f" % r["ms"], tflops(r), "%.2f" % (r["gflops"] / base) if base else ""]
                   + [x for who in best for x in (["%.3f" % best[who], "%.2f" % (best[who] / r["ms"])] if best[who] else ["", ""])])
    return "## Attention\n\nTFLOP/s over visited blocks of 64 x 64: two products forward, five backward. `of causal`: the rate per visited block against our causal one.\n\n" + table(
        ["mask", "dir", "T", "D", "visited", "ms", "TFLOP/s", "of causal", "SDPA, ms", "faster by", "FlexAttention, ms", "faster by"], out) if out else ""


def report_step(rows):
    out = []
    for r in ours(rows, "step"):
        arm = os.path.basename(r["name"]).split(".")[0]
        cells = lambda who, x: [arm, x["batch"], who, "%.1f" % x["ms"], "%.0f" % x["tokens_per_s"]]
        fused = [x for x in ours(rows, "step") if x["name"] == r["name"] and x["part"] == r["part"] and x["fuse"] != "none"]
        gain = "%.2fx" % (r["ms"] / fused[0]["ms"]) if r["fuse"] == "none" and fused else ""
        out.append(cells("Sinter" if r["fuse"] != "none" else "Sinter, unfused", r) + [gain, "%.1f" % (r["peak_bytes"] * 1e-9)])
        if r["fuse"] == "none":
            continue
        for t in [x for x in rows if x.get("kind") == "step" and "by" in x and x["name"] == arm and x["part"] == r["part"]]:
            out.append(cells(t["by"], t) + ["%.2fx" % (t["ms"] / r["ms"]), "%.1f" % (t["peak_bytes"] * 1e-9)])
    return "## Training step\n\n" + table(["arm", "batch", "by", "ms", "tokens/s", "Sinter is faster by", "GB"], out) if out else ""


def report_kernels(rows):
    """The slowest kernels of each arm's fused step."""
    out = []
    for r in ours(rows, "kernel"):
        arm = os.path.basename(r["arm"]).split(".")[0]
        if r["part"] == "step" and sum(x[0] == arm for x in out) < 12:
            out.append([arm, r["name"], r["dir"], r["launches"], "%.3f" % r["ms"], "%.1f%%" % (100 * r["share"]), tflops(r), "%.0f" % r["gbs"], "%.2f" % r["ratio"]])
    return "## Kernels of the step\n\n" + table(["arm", "kernel", "dir", "launches", "ms", "share", "TFLOP/s", "GB/s", "of its roofline"], out) if out else ""


def report_load(rows):
    out = [[os.path.basename(r["name"])] + ["%.1f" % r[k] for k in ("open_ms", "session_ms", "first_ms", "step_ms")] for r in ours(rows, "load")]
    return "## A bundle, from the file to the first step\n\n" + table(["file", "open, ms", "session", "first run", "a run after it"], out) if out else ""


def report(a):
    rows, arm = [], ""
    for path in sorted(glob.glob(os.path.join(a.dir, "*.jsonl"))):
        with open(path, errors="replace") as f:
            for line in f:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue                     # a part that was stopped
                row.setdefault("part", os.path.basename(path)[:-6])
                if row.get("kind") == "step":
                    arm = row["name"]
                if row.get("kind") == "kernel":  # they follow their step
                    row["arm"] = arm
                rows.append(row)
    about = next((r for r in rows if r.get("kind") == "about"), {})
    parts = [r for r in rows if r.get("kind") == "part"]
    text = "# On a card, %s\n\n%s, driver %s, %s, Sinter %s. `%s`\n\n" % tuple(about.get(k, "?") for k in ("date", "card", "driver", "torch", "commit", "command"))
    text += "## Parts\n\n" + table(["part", "", "passed", "failed", "s", "why"], [
        [p["name"], p["status"], p.get("passed", ""), p.get("failed", ""), p["seconds"], p.get("why", "")] for p in parts])
    for section in (report_gemm, report_attention, report_step, report_kernels, report_load):
        body = section(rows)
        text += "\n" + body if body else ""
    with open(os.path.join(a.dir, "gpu.json"), "w") as f:
        json.dump(dict(about, parts=parts, rows=[r for r in rows if r.get("kind") not in ("about", "part")]), f, indent=1)
    with open(os.path.join(a.dir, "gpu.md"), "w") as f:
        f.write(text)
    print(text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["gemm", "attention", "step", "report"])
    p.add_argument("dir", nargs="?", help="report: the folder")
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    p.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    p.add_argument("--shapes", default="4096x4096x4096,8192x8192x8192")
    p.add_argument("--dim", default="64,128")
    p.add_argument("--mask", default="full,causal")
    p.add_argument("--arm", default="ar", choices=["ar", "dlm"])
    p.add_argument("--how", default="eager", choices=["eager", "compile"])
    p.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    for k, v in dict(seq=1024, batch=4, heads=12, layers=12, width=768, hidden=2048, vocab=50304).items():
        p.add_argument("--" + k, type=int, default=v)
    a = p.parse_args()
    if a.what == "report" and not a.dir:
        p.error("report wants a folder")
    try:
        {"gemm": gemm, "attention": attention, "step": step, "report": report}[a.what](a)
    except ImportError as e:
        sys.exit("gpu_torch.py: error: %s" % e)


if __name__ == "__main__":
    main()
