"""Speed of exact arithmetic beside that of the fp32 pass: whole texts and single steps, same weights, same machine.

    OPENBLAS_NUM_THREADS=1 PYTHONPATH=workflow python benchmarks/exact.py [--models ladder-1.9m pythia-70m ...]

prints a markdown table; nothing is asserted. The two sides take turns, after one run of each that does not count; rates
are medians, ratios the median of those of neighbouring runs. Let nothing else run meanwhile.

    PYTHONPATH=workflow python benchmarks/exact.py --memory pythia-1.4b [--length 700]

prints what memory one text of that many tokens takes, with both of the processor's engines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from safetensors.numpy import save_file

from bitlaw.compression import integer_softmax, lockstep, scoring
from bitlaw.models import checkpoint
from bitlaw.models.exact.description import describe
from bitlaw.models.exact.model import Model

ROOT = Path(__file__).resolve().parents[1]
HEAD_ROWS = 128  # logits in a block of one-shot passes
NEOX = {"model_type": "gpt_neox", "rotary_pct": 0.25, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 100000.0}
# random weights of the shapes of real models: hidden size, layers, heads, key/value heads, mlp, vocabulary, context
SHAPES = {
    "pythia-14m": (NEOX, 128, 6, 4, 4, 512, 50304, 2048),
    "pythia-31m": (NEOX, 256, 6, 8, 8, 1024, 50304, 2048),
    "pythia-70m": (NEOX, 512, 6, 8, 8, 2048, 50304, 2048),
    "pythia-160m": (NEOX, 768, 12, 12, 12, 3072, 50304, 2048),
    "pythia-410m": (NEOX, 1024, 24, 16, 16, 4096, 50304, 2048),
    "pythia-1.4b": (NEOX, 2048, 24, 16, 16, 8192, 50304, 2048),
    "smollm2-135m": (LLAMA | {"tie_word_embeddings": True}, 576, 30, 9, 3, 1536, 49152, 2048),
}


def random_checkpoint(folder, name):
    """A checkpoint of the shape `name`, fp16, its tensors drawn at random."""
    kind, width, layers, heads, kv_heads, mlp, vocabulary, context = SHAPES[name]
    config = kind | {
        "architectures": ["GPTNeoXForCausalLM" if kind["model_type"] == "gpt_neox" else "LlamaForCausalLM"],
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": kind.get("tie_word_embeddings", False),
    }
    if kind["model_type"] == "gpt_neox":
        linear = {
            "attention.query_key_value": (3 * width, width),
            "attention.dense": (width, width),
            "mlp.dense_h_to_4h": (mlp, width),
            "mlp.dense_4h_to_h": (width, mlp),
        }
        norms, prefix, biased = ("input_layernorm", "post_attention_layernorm"), "gpt_neox.", True
        shapes = {"gpt_neox.embed_in.weight": (vocabulary, width), "embed_out.weight": (vocabulary, width)}
        shapes |= {f"gpt_neox.final_layer_norm.{part}": (width,) for part in ("weight", "bias")}
    else:
        keys = width // heads * kv_heads
        linear = {
            f"self_attn.{n}_proj": (rows, width) for n, rows in zip("qkvo", (width, keys, keys, width), strict=True)
        }
        linear |= {"mlp.gate_proj": (mlp, width), "mlp.up_proj": (mlp, width), "mlp.down_proj": (width, mlp)}
        norms, prefix, biased = ("input_layernorm", "post_attention_layernorm"), "model.", False
        shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    for i in range(layers):
        for tensor, shape in linear.items():
            shapes[f"{prefix}layers.{i}.{tensor}.weight"] = shape
            if biased:
                shapes[f"{prefix}layers.{i}.{tensor}.bias"] = shape[:1]
        for tensor in norms:
            shapes[f"{prefix}layers.{i}.{tensor}.weight"] = (width,)
            if biased:
                shapes[f"{prefix}layers.{i}.{tensor}.bias"] = (width,)
    random = np.random.default_rng(0)
    tensors = {
        tensor: (random.standard_normal(shape, dtype=np.float32) * 0.02 + ("norm.weight" in tensor)).astype(np.float16)
        for tensor, shape in shapes.items()
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


# of a process of its own: its largest resident set so far, in bytes, after each step
PASSES = """
import json, sys
import numpy as np
from bitlaw.models.exact.model import Model

def peak():
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))

found, length = {"libraries": peak()}, int(sys.argv[2])
model = Model(sys.argv[1], positions=length)
found["weights"] = peak()
ids = np.random.default_rng(1).integers(0, model.vocabulary, length)
model.head(model.hidden(ids), 0, min(length, 512))
found["one pass"] = peak()
engine = model.float64()
engine.head(*(array[:512] for array in engine.hidden(ids)))
found["float64 products"] = peak()
print(json.dumps(found))
"""


def memory(name, length):
    """{step: bytes of memory that a process has taken at most until then} for the shape `name`: see PASSES."""
    with tempfile.TemporaryDirectory() as folder:
        random_checkpoint(Path(folder), name)
        command = [sys.executable, "-c", PASSES, folder, str(length)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(float_side, exact_side, tokens, pairs):
    """(tokens/s of either side, ratio exact / float, its least and greatest), of `tokens` tokens a run."""
    runs = [(timed(float_side), timed(exact_side)) for _ in range(pairs + 1)][1:]
    ratios = [a / b for a, b in runs]
    return [tokens / median(r[i] for r in runs) for i in (0, 1)] + [median(ratios), min(ratios), max(ratios)]


def score_exactly(model, texts, threads):
    """Intervals of every token but the first of each text, a text at a time in each thread."""

    def work(ids):
        states, out = model.hidden(ids), model.new_logits(HEAD_ROWS)
        for first in range(0, len(ids) - 1, HEAD_ROWS):
            last = min(first + HEAD_ROWS, len(ids) - 1)
            integer_softmax.intervals(model.head(states, first, last, out), ids[first + 1 : last + 1])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, texts))


def step_exactly(model, ids, threads):
    """Logits of every position of ids `[rows, tokens]` by steps, the rows shared among threads."""

    def work(part):
        rows, count = part.shape
        cache, out, slots = model.new_cache(rows, count), model.new_logits(rows), np.arange(rows)
        for i in range(count):
            model.head(model.forward(cache, slots, np.full(rows, i), part[:, i]), 0, rows, out)

    parts = np.array_split(ids, min(threads, len(ids)))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))


def rows_of(name, folder, given):
    """Rows of the table for one model."""
    random, threads = np.random.default_rng(1), given.threads
    model = Model(folder, positions=given.length)
    floats = checkpoint.load(folder, "fp32")
    texts = [random.integers(0, model.vocabulary, given.length) for _ in range(given.texts)]
    sides = (lambda: scoring.score(floats, texts, 4096, threads)), (lambda: score_exactly(model, texts, threads))
    found = {"one-shot": compare(*sides, given.length * given.texts, given.pairs)}
    for batch in given.batches:
        ids = random.integers(0, model.vocabulary, (batch, given.steps))
        found[f"steps, {batch} rows"] = compare(
            lambda ids=ids: [None for _ in lockstep.steps(floats, ids, ids.shape[1])],
            lambda ids=ids: step_exactly(model, ids, threads),
            ids.size,
            given.pairs,
        )
    for what, (a, b, ratio, least, greatest) in found.items():
        print(f"| {name} | {what} | {a:,.0f} | {b:,.0f} | {ratio:.2f} ({least:.2f} to {greatest:.2f}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["ladder-331k", "ladder-1.9m", "pythia-70m", "smollm2-135m"]
    parser.add_argument("--models", nargs="+", default=names, help=f"ladder models or {', '.join(SHAPES)}")
    parser.add_argument("--length", type=int, default=700, help="tokens of a text")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=48, help="tokens of each row that is stepped through")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 32], help="rows of steps")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory", choices=SHAPES, help="print what this shape needs instead")
    given = parser.parse_args()
    if given.memory:
        found = memory(given.memory, given.length)
        print(f"| largest memory by then, {given.length} tokens | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
        print(f"| {given.memory} | {' | '.join(f'{size / 2**30:.2f} GiB' for size in found.values())} |")
        return
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.threads} threads of {os.cpu_count()} processors, ", end="")
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    print("\n| model | what | fp32, tokens/s | exact, tokens/s | exact / fp32 (pairs) |\n|---|---|---:|---:|---:|")
    for name in given.models:
        if name in SHAPES:
            with tempfile.TemporaryDirectory() as folder:
                random_checkpoint(Path(folder), name)
                describe(folder)
                rows_of(name, Path(folder), given)
        else:
            rows_of(name, ROOT / "data/ladder" / name / "step1200", given)


if __name__ == "__main__":
    main()
