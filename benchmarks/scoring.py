"""Speed of scoring and coding against the published study's loop, on the same weights, chunks and machine.

    PYTHONPATH=workflow python benchmarks/scoring.py

prints markdown tables; nothing is asserted. Runs alternate (study, ours, study, ours, ...) after one of each to warm
up; every number is a median. Let nothing else run meanwhile.
"""

import argparse
import math
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import yaml
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from bitlaw.compression import codec, integer_softmax, range_coder, scoring
from bitlaw.data import seven_bit, sources, tokens
from bitlaw.models import gpt_neox

ROOT = Path(__file__).resolve().parents[1]
CHUNK = 2048  # bytes
TOKENS_AT_A_TIME = 4096  # as in config.yaml
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(work, times=5):
    """Median time of `work()` over `times` calls, after one that does not count."""
    work()
    return median(timed(work)[0] for _ in range(times))


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def pythia_70m(dtype):
    """Pythia-70M's shape with random weights, as transformers has it."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    torch.manual_seed(0)
    config = GPTNeoXConfig(**shape, vocab_size=50304, max_position_embeddings=2048, rotary_pct=0.25)
    return GPTNeoXForCausalLM(config).to(dtype).eval()


def same_weights(model):
    """The transformers model as a bitlaw.models.gpt_neox.NeoX."""
    weights = {name.removeprefix("gpt_neox."): tensor for name, tensor in model.state_dict().items()}
    if "lm_head.weight" in weights:
        weights["embed_out.weight"] = weights.pop("lm_head.weight")
    return gpt_neox.NeoX(model.config.to_dict(), weights.__getitem__, model.dtype)


@torch.no_grad()
def study(model, chunks):
    """Bits of each chunk of token ids by the published loop: one forward pass, then a full softmax for each token."""
    found = []
    for ids in chunks:
        logits = model(ids[None], use_cache=False).logits[0]
        bits = 0.0
        for i in range(1, len(ids)):
            p = torch.softmax(logits[i - 1], -1)[ids[i]]
            bits += -math.log2(max(p.item(), 1e-10))
        found.append(bits)
    return found


def ours(model, data, ids):
    """(bits of each chunk without its first token, seconds of coding); the records are made and thrown away."""
    scores = scoring.score(model, ids, TOKENS_AT_A_TIME, torch.get_num_threads())
    coding, _ = timed(lambda: [codec.record(chunk, own[:3]) for chunk, own in zip(data, scores, strict=True)])
    return [s.lengths[1:].sum() for s in scores], coding


def compare(name, load, tokenizer, data, pairs):
    """Rows of the first table for one model in both precisions, and {precision: our seconds a token}."""
    opened, spelling, _ = tokens.open_tokenizer(tokenizer)
    ids = tokens.encode(opened, spelling, [seven_bit.to_ascii(d) for d in data])
    size, count = sum(map(len, data)), sum(map(len, ids))
    as_tensors = [torch.from_numpy(i).long() for i in ids]
    rows, speed = [], {}
    for precision, dtype in PRECISIONS.items():
        theirs = load(dtype)
        model = same_weights(theirs)
        runs = [
            (*timed(lambda: study(theirs, as_tensors)), *timed(lambda: ours(model, data, ids)))  # noqa: B023
            for _ in range(pairs + 1)
        ][1:]
        a, b = median(r[0] for r in runs), median(r[2] for r in runs)
        ratios = [r[0] / r[2] for r in runs]
        bits = [sum(r) / size for r in (runs[0][1], runs[0][3][0])]
        coding = median(r[3][1] / r[2] for r in runs)
        speed[precision] = b / count
        rows.append(
            f"| {name} | {precision} | {size / a:,.0f} | {size / b:,.0f} | {median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {count / a:,.0f} | {count / b:,.0f} "
            f"| {coding:.2%} | {bits[0]:.4f} | {bits[1]:.4f} |"
        )
    return rows, speed, count / len(ids)


def peak(dtype, size=4096):
    """GFLOP/s of a large square matrix product."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    return 2 * size**3 / seconds(lambda: torch.mm(a, b, out=out), 3) / 1e9


def peak_table(speed, length):
    """Share of the peak that our scoring with coding reaches at Pythia-70M's shape; `length`: tokens a chunk."""
    config = pythia_70m(torch.float32).config
    width, layers, vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size
    blocks = layers * (12 * width**2 + 13 * width) + 2 * width
    linear = 2 * (blocks + width * vocabulary)
    attention = layers * 4 * width * (length + 1) / 2  # a token looks at half of its chunk, in the mean
    print(f"\n{linear / 1e6:.1f} MFLOP a token in matrix products with weights, {attention / 1e6:.1f} in attention.\n")
    print("| precision | peak GFLOP/s | scoring and coding GFLOP/s | share of peak | with attention |")
    print("|---|---:|---:|---:|---:|")
    for precision, dtype in PRECISIONS.items():
        top, rate = peak(dtype), linear / speed[precision] / 1e9
        more = rate * (1 + attention / linear)
        print(f"| {precision} | {top:.0f} | {rate:.0f} | {rate / top:.1%} | {more / top:.1%} |")


def kernel_table():
    """Time of the interval kernel beside that of the head's product, over one block of rows at 50,304 symbols."""
    print("\n| precision | head, ms a block | intervals, ms a block | intervals / head |\n|---|---:|---:|---:|")
    rows = scoring.HEAD_ROWS
    for precision, dtype in PRECISIONS.items():
        model = same_weights(pythia_70m(dtype))
        buffer = torch.empty(rows, model.vocabulary)
        states = torch.randn(rows, model.width).to(dtype)
        targets = np.random.default_rng(0).integers(0, model.vocabulary, rows)
        logits = model.head(states, buffer).numpy()
        a, b = seconds(lambda: model.head(states, buffer)), seconds(lambda: integer_softmax.intervals(logits, targets))  # noqa: B023
        print(f"| {precision} | {1000 * a:.1f} | {1000 * b:.1f} | {b / a:.2f} |")
    return logits


def coder_table(logits, count=200_000):
    """Speed of the entropy coder alone on one core: `count` symbols under the tables of 64 rows of logits."""
    frequencies = np.empty((min(64, len(logits)), logits.shape[1]), dtype=np.uint64)
    for row, own in zip(logits, frequencies, strict=False):
        integer_softmax.frequencies(row, own)
    ends = np.cumsum(frequencies, axis=1, dtype=np.uint64)
    random = np.random.default_rng(0)
    rows = random.integers(0, len(frequencies), count)
    sought = (random.random(count) * ends[rows, -1]).astype(np.uint64)
    symbols = np.array([np.searchsorted(ends[r], s, "right") for r, s in zip(rows, sought, strict=True)])
    own, totals = frequencies[rows, symbols], ends[rows, -1]
    starts = ends[rows, symbols] - own
    coded = range_coder.encode(starts, own, totals)
    if (range_coder.decode(coded, frequencies, rows) != symbols).any():
        raise SystemExit("benchmarks/scoring.py: the coder does not give back what it coded")
    a = seconds(lambda: range_coder.encode(starts, own, totals))
    b = seconds(lambda: range_coder.decode(coded, frequencies, rows))
    print("\n| coder, one core | symbols/s |\n|---|---:|")
    print(f"| encode, given intervals | {count / a:,.0f} |\n| decode, given frequencies | {count / b:,.0f} |")


def neox_tokenizer():
    """The tokenizer of GPT-NeoX and Pythia, fetched when it is not there."""
    folder = ROOT / "data/raw/neox-tokenizer"
    if not (folder / "source.json").exists():
        config = yaml.safe_load((ROOT / "config.yaml").read_text())
        sources.fetch("neox-tokenizer", config["sources"]["neox-tokenizer"], folder)
    return folder / "20B_tokenizer.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "data/ladder/ladder-331k/step1200", help="ladder folder")
    parser.add_argument("--tokenizer", type=Path, help="20B_tokenizer.json; fetched when not given")
    parser.add_argument("--text", type=Path, default=ROOT / "data/raw/enwik8/enwik8", help="file to compress")
    parser.add_argument("--chunks", type=int, default=16, help="how many chunks of 2048 bytes, from the file's start")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    given = parser.parse_args()
    with open(given.text, "rb") as file:
        data = [file.read(CHUNK) for _ in range(given.chunks)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors, ", end="")
    kernels = torch.backends.cpu.get_cpu_capability()
    print(f"{kernels}, {len(data)} chunks, {given.pairs} pairs of runs\n")
    print("| model | precision | study, bytes/s | ours, bytes/s | ours / study (pairs) | study, tokens/s |", end="")
    print(" ours, tokens/s | of ours: coding | study, bits/byte | ours, bits/byte |\n|---|---|" + "---:|" * 8)
    ladder = compare(
        f"{given.model.parent.name}/{given.model.name}",
        lambda dtype: GPTNeoXForCausalLM.from_pretrained(given.model, dtype=dtype).eval(),
        given.model / "tokenizer.json",
        data,
        given.pairs,
    )
    pythia = compare("Pythia-70M's shape", pythia_70m, given.tokenizer or neox_tokenizer(), data, given.pairs)
    print("\n".join(ladder[0] + pythia[0]))
    peak_table(*pythia[1:])
    coder_table(kernel_table())


if __name__ == "__main__":
    main()
