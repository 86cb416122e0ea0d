"""Embeds tokenised chunks with onnxruntime on one thread: the baseline for `edge bench`.

    python benches/onnxruntime.py MODEL.onnx IDS.jsonl [--batch-tokens N] [--vectors FILE]

IDS.jsonl has a line {"ids": [101, ..., 102]} a chunk. Chunks of the same length run together, at most
N tokens at a time, shortest first, so that nothing is padded. Prints one JSON line.
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# Python looks for imports beside the script first, and there it would find this file.
sys.path = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

import numpy as np
import onnxruntime

# Measured as CPU time a token with onnxruntime 1.31.1: groups of some 500 tokens are the best or within 4 % of
# it for chunks of 32, 100 and 250 tokens, where 4000 cost 21 % more on the longest.
BATCH_TOKENS = 512


def groups(chunks: list[list[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of chunks of one length, at least one and otherwise at most `batch_tokens` tokens."""
    group: list[int] = []
    for index in sorted(range(len(chunks)), key=lambda index: len(chunks[index])):
        length = len(chunks[index])
        if group and (length != len(chunks[group[0]]) or (len(group) + 1) * length > batch_tokens):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def open_session(model: Path) -> onnxruntime.InferenceSession:
    """One thread, every optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def inputs(session: onnxruntime.InferenceSession, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The ids, and for other exports of BERT a mask of ones and token types of zeros."""
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {wanted.name: known[wanted.name] for wanted in session.get_inputs()}


def main() -> None:
    """Runs the whole file once and prints what it cost."""
    parser = argparse.ArgumentParser(description="Embeds tokenised chunks with onnxruntime on one thread.")
    parser.add_argument("model", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--vectors", type=Path, help="write the vectors, f32 [chunks, dimension], in input order (.npy)")
    arguments = parser.parse_args()

    session = open_session(arguments.model)
    with arguments.ids.open(encoding="utf-8") as lines:
        chunks: list[list[int]] = [json.loads(line)["ids"] for line in lines]
    vectors: list[np.ndarray | None] = [None] * len(chunks)
    run_cpu_s = 0.0
    for group in groups(chunks, arguments.batch_tokens):
        fed = inputs(session, np.array([chunks[index] for index in group], np.int64))
        before = time.process_time()
        embedded = session.run(None, fed)[0]
        run_cpu_s += time.process_time() - before
        for index, vector in zip(group, embedded):
            vectors[index] = vector
    if arguments.vectors:
        with arguments.vectors.open("wb") as file:
            np.save(file, np.array(vectors, np.float32))

    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "onnxruntime": onnxruntime.__version__,
        "chunks": len(chunks),
        "tokens": sum(map(len, chunks)),
        "batch_tokens": arguments.batch_tokens,
        "wall_s": round(time.perf_counter() - STARTED, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "run_cpu_s": round(run_cpu_s, 3),
        "peak_rss_mb": round(usage.ru_maxrss / 1024, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
