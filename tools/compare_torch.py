#!/usr/bin/env python3
"""compare_torch.py: training steps of Sinter against PyTorch on the same cores, as a Markdown table.

  tools/compare_torch.py [--sinter build/sinter] [--python P]... [--rounds N] [--only small|large] > docs/results/DATE-torch.md

In:  a built sinter, and Pythons that have PyTorch (default: those of python3 and /usr/bin/python3 that do). Both arms, two
     settings: the defaults, and 12 layers, width 768, hidden 2048, seq 1024, batch 1, vocab 50304.
Out: tokens/s of whole steps (forward, backward, clipping, AdamW; f32, no QK-norm on either side). Contenders take turns, round by
     round, one process each, and the best of all rounds counts, since a neighbour can only make a run slower; PyTorch may choose
     between all threads and half of them. The model on PyTorch's side is tests/golden/torch_lm.py, eager and, where the
     version has it, under torch.compile.
"""
import argparse, datetime, json, os, platform, shutil, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETTINGS = {
    "small": ("4 layers, width 192, seq 128, batch 16, vocab 257", {}, 9),
    "large": ("12 layers, width 768, hidden 2048, seq 1024, batch 1, vocab 50304",
              dict(layers=12, width=768, hidden=2048, heads=12, seq=1024, batch=1, vocab=50304), 3),
}


def run(command):
    """The last JSON line that a command prints, or None and why not."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["exit status %d" % done.returncode])[-1]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = [r for r in rows if "tokens_per_s" in r]
    return (rows[0], None) if rows else (None, "printed no tokens_per_s")


def torch_version(python):
    done = subprocess.run([python, "-c", "import torch; print(torch.__version__, int(hasattr(torch, 'compile')))"],
                          capture_output=True, text=True)
    if done.returncode:
        return None
    version, compiles = done.stdout.split()
    return version, compiles == "1"


def find_pythons(named):
    found = []
    for name in named or ["python3", "/usr/bin/python3"]:
        path = shutil.which(name)
        torch = torch_version(path) if path else None
        if torch and torch[0] not in [f[1] for f in found]:
            found.append((path, *torch))
        elif named and not torch:
            sys.exit("compare_torch.py: error: %s has no PyTorch" % name)
    if not found:
        sys.exit("compare_torch.py: error: no python3 here has PyTorch (Debian: apt-get install python3-torch libopenblas0-openmp)")
    return found


def contenders(arm, shape, steps, a, pythons):
    """name -> commands, of which the fastest counts."""
    defines = [x for k, v in dict(shape, qk_norm=0).items() for x in ("-D", "%s=%s" % (k, v))]
    out = {"Sinter": [[a.sinter, "bench", "models/%s.sn" % arm, "--alone", "--json", "--steps", str(steps)] + defines]}
    flags = [x for k, v in shape.items() for x in ("--" + k, str(v))]
    counts = sorted({a.threads, max(1, a.threads // 2)}, reverse=True)
    for path, version, compiles in pythons:
        for how in ["eager"] + (["compile"] if compiles else []):
            out["PyTorch %s %s" % (version, how)] = [
                [path, "tests/golden/torch_lm.py", "time", "--arm", arm, "--threads", str(n), "--steps", str(steps + 3)] + flags
                + (["--compile"] if how == "compile" else []) for n in counts]
    return out


def measure(arm, shape, steps, a, pythons):
    """name -> (best tokens/s, threads) or a text that says why not."""
    every, best = contenders(arm, shape, steps, a, pythons), {}
    for _ in range(a.rounds):
        for name, commands in every.items():
            for command in commands:
                row, why = run(command)
                if not row:
                    best.setdefault(name, why)
                elif not isinstance(best.get(name), tuple) or row["tokens_per_s"] > best[name][0]:
                    best[name] = (row["tokens_per_s"], row.get("threads") or a.threads)
                print("%s %s: %s" % (arm, name, "%.0f tokens/s" % row["tokens_per_s"] if row else why), file=sys.stderr)
    return best


def cpu():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sinter", default="build/sinter")
    p.add_argument("--python", action="append", help="one that has PyTorch; may be given several times")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--only", choices=list(SETTINGS))
    a = p.parse_args()
    pythons = find_pythons(a.python)
    print("Training step, tokens/s; %s, %d threads, %s; best of %d rounds in turn.\n" % (cpu(), a.threads, datetime.date.today(), a.rounds))
    print("| model | arm | contender | threads | tokens/s | Sinter is faster by |\n| --- | --- | --- | --- | --- | --- |")
    for name, (words, shape, steps) in SETTINGS.items():
        if a.only and name != a.only:
            continue
        for arm in ("ar", "dlm"):
            best = measure(arm, shape, steps, a, pythons)
            ours = best["Sinter"]
            if not isinstance(ours, tuple):
                sys.exit("compare_torch.py: error: sinter bench: %s" % ours)
            for who, got in best.items():
                cells = ("%d | %.0f | %s" % (got[1], got[0], "" if who == "Sinter" else "%.2fx" % (ours[0] / got[0]))
                         if isinstance(got, tuple) else " | %s | " % got.replace("|", "/"))
                print("| %s | %s | %s | %s |" % (words, arm.upper(), who, cells), flush=True)
    for path, version, compiles in pythons:
        if not compiles:
            print("\nPyTorch %s has no torch.compile." % version)


if __name__ == "__main__":
    main()
