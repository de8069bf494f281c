"""Cells of Pythia's shapes on a GPU, in each precision: tokens/s, share of the peak, memory, and the decode check.

    PYTHONPATH=workflow python benchmarks/gpu.py

prints a markdown table; nothing is asserted but that every cell decodes. Weights are random (speed does not depend on
them), tokens come from the GPT-NeoX tokenizer on real text. Each cell is a process of its own, as in a study. The peak
is that of a large square product on the same GPU, measured, not taken from a data sheet: in fp16 for fp16 and for int8,
whose products may go above it; in exact arithmetic that of int8, of which a product takes four.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import torch
import yaml
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bitlaw.data import seven_bit, shards, sources, tokens
from bitlaw.runtime import gpu

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {  # hidden, intermediate, layers, heads: of EleutherAI's Pythia
    "70m": (512, 2048, 6, 8),
    "1.4b": (2048, 8192, 24, 16),
}
PRECISIONS = ("exact", "fp16", "int8")
PUBLISHED_TOKENS = 1024  # of a chunk that int8's second pass takes
CELL = """
import json, sys
from pathlib import Path
from bitlaw.compression import cell
given = json.loads(sys.argv[1])
files = ("folder", "tokenizer", "shard_folder", "token_file")
inputs = {name: Path(value) if name in files else value for name, value in given["inputs"].items()}
cell.compress(cell.Inputs(**inputs), {"modality": "text", "model": given["shape"], "step": 0}, given["out"])
"""
PEAK = """
import sys, time, torch
device, kind, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind = torch.int8 if kind == "int8" else torch.float16
a, b = (torch.randint(-99, 99, (n, n), device=device).to(kind) for _ in range(2))
product = torch._int_mm if kind == torch.int8 else torch.mm
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for _ in range(3):
    product(a, b.t())
wait()
start = time.perf_counter()
for _ in range(20):
    product(a, b.t())
wait()
print(20 * 2 * n**3 / (time.perf_counter() - start))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
Cell = namedtuple("Cell", "shape precision tokens_per_second share_of_peak memory_bytes seconds decoded")


def peak(kind, device="cuda", size=8192):
    """Operations a second of square products of `size`, in a process of its own; kind: "fp16" or "int8"."""
    command = [sys.executable, "-c", PEAK, device, kind, str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def fetched(name):
    """Folder of a source of config.yaml, fetched when it is not there."""
    folder = ROOT / "data/raw" / name
    if not (folder / "source.json").exists():
        sources.fetch(name, yaml.safe_load((ROOT / "config.yaml").read_text())["sources"][name], folder)
    return folder


def checkpoint(shape, folder):
    """Write a checkpoint of a shape with random weights, in float16 as Pythia's are."""
    hidden, intermediate, layers, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=50304,
        max_position_embeddings=2048,
        rotary_pct=0.25,
    )
    GPTNeoXForCausalLM(config).half().save_pretrained(folder)


def flop_a_token(shape, length):
    """Floating-point operations of one token of a chunk of `length`: products with weights, and attention to half."""
    hidden, intermediate, layers, _ = SHAPES[shape]
    blocks = layers * (4 * hidden**2 + 2 * hidden * intermediate)
    return 2 * (blocks + hidden * 50304) + layers * 4 * hidden * (length + 1) / 2


def prepare(work, text, chunk_bytes, chunks, tokenizer_file):
    """Shards and tokens of a source folder under `work`; returns tokens a chunk."""
    tokenizer, spelling, sha256 = tokens.open_tokenizer(tokenizer_file)
    shards.cut(text, {"cut": "bytes", "sampling": "head", "chunks": chunks}, chunk_bytes, work / "shards")
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(bytes(c)) for c in shards.read(work / "shards")])
    tokens.write(work / "tokens.npz", ids, spelling, sha256)
    return sum(map(len, ids)) / len(ids)


def cells(work, shapes, precisions, tokenizer_file, length, peaks, device="cuda"):
    """Yield a Cell for each shape and precision, on the chunks of `length` tokens that `prepare` left under `work`.

    peaks: operations a second by "fp16" and "int8". Raises CalledProcessError where a cell fails.
    """
    for shape in shapes:
        checkpoint(shape, work / shape)
        for precision in precisions:
            inputs = {
                "folder": work / shape,
                "tokenizer": tokenizer_file,
                "shard_folder": work / "shards",
                "token_file": work / "tokens.npz",
                "precision": precision,
                "published": precision,
                "device": device,
                "verify": 1,
                "tokens_at_a_time": 4096,
            }
            out = work / f"{shape}-{precision}"
            given = json.dumps({"inputs": inputs, "shape": shape, "out": out}, default=str)
            subprocess.run([sys.executable, "-c", CELL, given], env=ENVIRONMENT, check=True)
            about = json.loads(out.with_name(out.name + ".json").read_text())
            rate = about["tokens_per_second"]
            work_done = flop_a_token(shape, length) * rate / peaks["int8" if precision == "exact" else "fp16"]
            passes = 1 + min(1, PUBLISHED_TOKENS / length) if precision == "int8" else 1
            products = 4 if precision == "exact" else 1
            yield Cell(
                *(shape, precision, rate, passes * products * work_done, about.get("peak_device_memory_bytes", 0)),
                *(about["seconds"], about["decode_check"]["chunks"]),
            )


HEADINGS = """\
| shape | precision | tokens/s | share of peak | GPU memory, GB | seconds of the cell | decoded chunks |
|---|---|---:|---:|---:|---:|---:|"""


def row(cell):
    """A Cell as a row of markdown."""
    return (
        f"| {cell.shape} | {cell.precision} | {cell.tokens_per_second:,.0f} | {cell.share_of_peak:.1%} "
        f"| {cell.memory_bytes / 1e9:.1f} | {cell.seconds:.0f} | {cell.decoded} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=256, help="of 2048 bytes of enwik8 (%(default)s)")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    given = parser.parse_args()
    if not gpu.gpus():
        sys.exit("benchmarks/gpu.py: nvidia-smi shows no GPU here; run it on a machine with one")
    peaks = {kind: peak(kind) for kind in ("fp16", "int8")}
    file = fetched("neox-tokenizer") / "20B_tokenizer.json"
    measured = ", ".join(f"{kind} peak {found / 1e12:.0f} T/s" for kind, found in peaks.items())
    print(f"torch {torch.__version__}, {measured}, {given.chunks} chunks of text\n")
    print(HEADINGS)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        length = prepare(work, fetched("enwik8"), 2048, given.chunks, file)
        for cell in cells(work, given.shapes, PRECISIONS, file, length, peaks):
            print(row(cell), flush=True)


if __name__ == "__main__":
    main()
