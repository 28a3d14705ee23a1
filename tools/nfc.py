#!/usr/bin/env python3
"""nfc.py: writes nfc.tab, what nfc.c knows of characters, from Python's unicodedata: `python3 tools/nfc.py >tools/nfc.tab`."""
import sys
import unicodedata as u

ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and not 0xAC00 <= c < 0xD7A4]       # Hangul is arithmetic


def rows(text, per):
    for i in range(0, len(text), per):
        print(" ".join(text[i:i + per]))


print(f"/* nfc.tab: made by nfc.py from Unicode {u.unidata_version}: canonical decompositions (character, first, second or 0), the same that compose")
print("   again, and runs of characters (first, last) of a combining class. */")
steps = [(c, [int(x, 16) for x in u.decomposition(c).split()]) for c in ALL if u.decomposition(c) and "<" not in u.decomposition(c)]
print("static const uint32_t DECOMPOSED[][3] = {")
rows([f"{{0x{ord(c):x},0x{d[0]:x},0x{d[1] if len(d) > 1 else 0:x}}}," for c, d in steps], 7)
print("};\nstatic const uint32_t ONE_WAY[] = {            /* those with two parts that do not compose */")
rows([f"0x{ord(c):x}," for c, d in steps if len(d) > 1 and u.normalize("NFC", c) != c], 16)
print("};\nstatic const struct { uint32_t first, last; uint8_t combining; } COMBINING[] = {")
runs = []
for c in ALL:
    k = u.combining(c)
    if k and runs and runs[-1][1] == ord(c) - 1 and runs[-1][2] == k:
        runs[-1][1] = ord(c)
    elif k:
        runs.append([ord(c), ord(c), k])
rows([f"{{0x{a:x},0x{b:x},{k}}}," for a, b, k in runs], 8)
print("};")
sys.stdout.flush()
