"""Cells of Pythia's shapes on a GPU, in fp16 and int8: tokens/s, share of the GPU's peak, memory, and the decode check.

    PYTHONPATH=workflow python benchmarks/gpu.py

prints a markdown table; nothing is asserted but that every cell decodes. Weights are random (speed does not depend on
them), tokens come from the GPT-NeoX tokenizer on real text. Each cell is a process of its own, as in a study. The peak
is that of a large square fp16 product on the same GPU, measured, not taken from a data sheet; int8 cells, whose
products may go above it, are compared with the same number.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
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
PRECISIONS = ("fp16", "int8")
CELL = "import json, sys; from bitlaw.compression import cell; cell.compress(**json.loads(sys.argv[1]))"
PEAK = """
import time, torch
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
for _ in range(3):
    a @ b
torch.cuda.synchronize()
start = time.perf_counter()
for _ in range(20):
    a @ b
torch.cuda.synchronize()
print(20 * 2 * 8192**3 / (time.perf_counter() - start))
"""


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=256, help="of 2048 bytes of enwik8 (%(default)s)")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    given = parser.parse_args()
    if not gpu.gpus():
        sys.exit("benchmarks/gpu.py: nvidia-smi shows no GPU here; run it on a machine with one")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    peak = float(subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True).stdout)
    file = fetched("neox-tokenizer") / "20B_tokenizer.json"
    tokenizer, spelling, sha256 = tokens.open_tokenizer(file)
    print(f"torch {torch.__version__}, fp16 peak {peak / 1e12:.0f} TFLOP/s, {given.chunks} chunks of text\n")
    print("| shape | precision | tokens/s | share of peak | GPU memory, GB | seconds of the cell | decoded chunks |")
    print("|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cut = {"cut": "bytes", "sampling": "head", "chunks": given.chunks}
        shards.cut(fetched("enwik8"), cut, 2048, work / "shards")
        ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(bytes(c)) for c in shards.read(work / "shards")])
        tokens.write(work / "tokens.npz", ids, spelling, sha256)
        length = sum(map(len, ids)) / len(ids)
        for shape in given.shapes:
            checkpoint(shape, work / shape)
            for precision in PRECISIONS:
                arguments = {
                    "folder": work / shape,
                    "tokenizer": file,
                    "shard_folder": work / "shards",
                    "token_file": work / "tokens.npz",
                    "out": work / f"{shape}-{precision}",
                    "labels": {"modality": "text", "model": shape, "step": 0},
                    "precision": precision,
                    "device": "cuda",
                    "verify": 1,
                    "tokens_at_a_time": 4096,
                }
                command = [sys.executable, "-c", CELL, json.dumps(arguments, default=str)]
                subprocess.run(command, env=environment, check=True)
                about = json.loads((work / f"{shape}-{precision}.json").read_text())
                rate, memory = about["tokens_per_second"], about["peak_device_memory_bytes"] / 1e9
                passes = 2 if precision == "int8" else 1  # text has fewer than 1024 tokens a chunk in both of them
                share = passes * rate * flop_a_token(shape, length) / peak
                print(
                    f"| {shape} | {precision} | {rate:,.0f} | {share:.1%} | {memory:.1f} "
                    f"| {about['seconds']:.0f} | {about['decode_check']['chunks']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
