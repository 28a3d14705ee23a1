"""rename.py ARM: ARM.torch.safetensors -> ARM.in.safetensors and ARM.want.safetensors, tensors under Sinter's names."""
import json, re, struct, sys

RENAME = [(r"^h\.(\d+)\.(n1|n2)$", r"h.\1.\2.gain"), (r"^h\.(\d+)\.(wq|wk|wv|wo)$", r"h.\1.attn.\2"),
          (r"^h\.(\d+)\.(qn|kn)$", r"h.\1.attn.\2.gain"), (r"^h\.(\d+)\.(gate|up|down)$", r"h.\1.mlp.\2"),
          (r"^norm$", "out.gain"), (r"^mask$", "count_mask.hit")]


def rename(name):
    if name.startswith("grad."):
        return "grad." + rename(name[5:])
    for pattern, to in RENAME:
        name = re.sub(pattern, to, name)
    return name


def write(path, tensors):
    head, blob = {}, b""
    for name, (info, raw) in tensors.items():
        head[name] = {"dtype": info["dtype"], "shape": info["shape"], "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)


arm = sys.argv[1]
data = open(arm + ".torch.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
given, want = {}, {}
for key, info in json.loads(data[8:8 + size]).items():
    first, end = (8 + size + o for o in info["data_offsets"])
    if key == "loss":
        info["shape"] = []
    (want if key == "loss" or key.startswith("grad.") else given)[rename(key)] = (info, data[first:end])
given["sample"] = ({"dtype": "I32", "shape": given["tokens"][0]["shape"][:1]}, bytes(4 * given["tokens"][0]["shape"][0]))
write(arm + ".in.safetensors", given)
write(arm + ".want.safetensors", want)
