"""Compares what two builds of edge made of the same documents: all fields equal, and every pair of vectors close.

    cross/compare.py ONE.jsonl OTHER.jsonl [--golden MODEL.toml]

With --golden, the vectors of texts that stand in the model's manifest are held against those too.
"""

import argparse
import base64
import json
import math
import struct
import sys
import tomllib
from pathlib import Path

# DESIGN 5: equal outputs.
COSINE_LEAST = 0.9999


def lines(path: Path) -> list[dict]:
    # Not splitlines: a text may hold U+2028.
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def golden(manifest: Path) -> dict[str, list[float]]:
    """Text -> its vector by the reference; in the manifest they are f32, little-endian, in base64."""
    decoded = {}
    for text in tomllib.loads(manifest.read_text())["golden"]:
        raw = base64.b64decode(text["vector"])
        decoded[text["text"]] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return decoded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--golden", type=Path)
    options = parser.parse_args()
    one, other = lines(options.one), lines(options.other)
    if not one or len(one) != len(other):
        sys.exit(f"{len(one)} and {len(other)} chunks")
    least = 1.0
    for a, b in zip(one, other):
        least = min(least, cosine(a.pop("vector"), vector := b.pop("vector")))
        if a != b:
            sys.exit(f"not equal:\n  {a}\n  {b}")
        b["vector"] = vector
    said = f"{len(one)} chunks equal, cosine {least:.7f} at the least"
    if options.golden:
        wanted = golden(options.golden)
        held = [cosine(b["vector"], wanted[b["text"]]) for b in other if b["text"] in wanted]
        if not held:
            sys.exit("none of the texts is golden")
        said += f"; {len(held)} of them golden, {min(held):.7f}"
        least = min(least, *held)
    print(said)
    if least < COSINE_LEAST:
        sys.exit(f"less than {COSINE_LEAST}")


main()
