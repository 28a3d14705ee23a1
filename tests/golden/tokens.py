#!/usr/bin/env python3
"""tokens.py: tokenizers and their ids for tests/golden/tokens, by Hugging Face's tokenizers.

  python3 tests/golden/tokens.py make tests/golden/tokens     makes the files anew; gpt2/merges.txt (OpenAI's, as published) must be there
  python3 tests/golden/tokens.py check SINTER TOKENIZER PATH...   compares ids of every file that is UTF-8, and of random texts

plain.json: GPT-2's pattern, trained on this project's documents. split.json: Llama 3's pattern, digits alone, pieces that are tokens taken
whole, tokens added before and after normalising. nfc.json: Qwen's pattern and normal form C. text.txt: all kinds of characters, those of Unicode 14,
marks in all orders, Hangul in parts; X.bin: its ids as u16."""
import array
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
HARD = "I'll I'LL we'Re a'\u017f 'S's\r\n\r\n  x\t\ty 0123456789 \u0664\u0665\u0666\u00bd\u2167 <|endoftext|>a<|pad|> <|end|><|endoftext|><|pad|>" + " " * 70 + "e" * 300


# Marks of later versions than the Unicode that Hugging Face's normal form knows (9).
NEW = {c for c in range(0x110000) if not 0xD800 <= c < 0xE000 for s in [f"a{chr(c)}\u0334\u0301{chr(c)}"]
       if normalizers.NFC().normalize_str(s) != unicodedata.normalize("NFC", s)}
MARKS = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c)) and c not in NEW]
APART = [c for c in map(chr, range(0x110000)) if unicodedata.normalize("NFD", c) != c]


def marked_text(rng, n):
    """Characters with marks, in parts: what normal form C is about."""
    kinds = [lambda: unicodedata.normalize("NFD", rng.choice(APART)), lambda: rng.choice(MARKS), lambda: rng.choice(APART), lambda: chr(rng.randrange(0x1100, 0x1200)),
             lambda: rng.choice("aeiouAEIOU \u01b0")]
    return "".join(rng.choices(kinds, [3, 3, 1, 2, 3])[0]() for _ in range(n))


def random_text(rng, n):
    kinds = [lambda: rng.randrange(32, 127), lambda: rng.randrange(0, 0x800), lambda: rng.randrange(0x800, 0xd800),
             lambda: rng.randrange(0x10000, 0x30000), lambda: rng.choice([9, 10, 13, 32, 32, 0xa0, 0x180e, 0x2003, 0x2028, 0x3000, 0x1c, 0x85, 0x200b, 0xfeff])]
    weights, out = [8, 3, 3, 1, 4], []
    while len(out) < n:
        c = chr(rng.choices(kinds, weights)[0]())
        if unicodedata.category(c) not in ("Cn", "Cs") and ord(c) not in NEW:
            out.append(c)
    return "".join(out)


def gpt2(folder):
    lines = (folder / "gpt2/merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    alphabet = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    assert alphabet == [*range(33, 127), *range(0xa1, 0xad), *range(0xae, 256)]
    names = [chr(b) for b in alphabet] + [chr(256 + i) for i in range(256 - len(alphabet))]
    names += ["".join(m) for m in merges] + ["<|endoftext|>"]
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(names)}, merges=merges))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return t


def trained(pre, files, size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train([str(f) for f in files], trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<|endoftext|>"],
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def make(folder):
    files = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
    plain = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), files, 900)
    split = trained(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.Digits(individual_digits=True),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), files, 700)
    split.model.ignore_merges = True
    split.add_tokens([AddedToken("<|pad|>", special=True), AddedToken("<|pad|> <|end|>", special=True), AddedToken("end|>", normalized=True)])
    plain.save(str(folder / "plain.json"), pretty=False)
    split.save(str(folder / "split.json"), pretty=False)
    nfc = trained(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), files, 500)
    nfc.normalizer = normalizers.NFC()
    nfc.add_tokens([AddedToken("e\u0301n", normalized=True), AddedToken("\u0301\u0302", normalized=False)])
    nfc.save(str(folder / "nfc.json"), pretty=False)
    text = HARD + "e\u0301n \u00e9n e\u0301\u0302x e\u0302\u0301 " + marked_text(random.Random(3), 800) + random_text(random.Random(1), 4000) + files[0].read_text(encoding="utf-8")[:3000]
    (folder / "text.txt").write_text(text, encoding="utf-8", newline="")
    for name, t in (("plain", plain), ("split", split), ("nfc", nfc), ("gpt2", gpt2(folder))):
        ids = t.encode(text, add_special_tokens=False).ids
        (folder / f"{name}.bin").write_bytes(array.array("H", ids).tobytes())


def ids_of(sinter, tokenizer, data, work):
    (work / "text").write_bytes(data)
    subprocess.run([sinter, "tokens", work / "text", "--tokenizer", tokenizer, "-o", work / "ids.safetensors"], check=True, capture_output=True)
    raw = (work / "ids.safetensors").read_bytes()
    from safetensors.numpy import load
    return load(raw)["tokens"].tolist()


def check(sinter, tokenizer, paths):
    t = gpt2(Path(tokenizer).resolve().parents[1]) if tokenizer.endswith(".txt") else Tokenizer.from_file(tokenizer)
    rng, texts, bad = random.Random(2), [], 0
    for path in paths:
        for f in sorted(p for p in [Path(path), *Path(path).rglob("*")] if p.is_file()):
            try:
                texts.append((str(f), f.read_bytes().decode("utf-8")))
            except UnicodeDecodeError:
                pass
    texts += [(f"random text {i}", random_text(rng, 20000) + marked_text(rng, 5000)) for i in range(8)]
    with tempfile.TemporaryDirectory() as work:
        for name, text in texts:
            want = t.encode(text, add_special_tokens=False).ids
            if text and ids_of(sinter, tokenizer, text.encode("utf-8"), Path(work)) != want:
                bad += 1
                print(f"{name}: other ids")
    print(f"{len(texts)} texts, {bad} with other ids")
    sys.exit(bad > 0)


make(Path(sys.argv[2])) if sys.argv[1] == "make" else check(sys.argv[2], sys.argv[3], sys.argv[4:])
