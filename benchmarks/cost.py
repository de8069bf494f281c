"""What the pythia study costs in download, disk and time on one GPU, from parameters and tokens: docs/cost.md's tables.

    python benchmarks/cost.py

Nothing is measured here; what was measured elsewhere, and what is assumed, is said beside each number.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    hidden: int
    layers: int
    vocabulary: int  # rows of the head: the tokenizer's 50,277 entries, padded


PYTHIA = {
    "14m": Shape(128, 6, 50304),
    "31m": Shape(256, 6, 50304),
    "70m": Shape(512, 6, 50304),
    "160m": Shape(768, 12, 50304),
    "410m": Shape(1024, 24, 50304),
    "1b": Shape(2048, 16, 50304),
    "1.4b": Shape(2048, 24, 50304),
    "2.8b": Shape(2560, 32, 50304),
    "6.9b": Shape(4096, 32, 50432),
    "12b": Shape(5120, 36, 50688),
}
STUDY = ["70m", "160m", "410m", "1b", "1.4b"]
STEPS = 5
CHUNKS = 2048
TOKENS = {"text": 577, "image": 1566, "speech": 1987, "random": 1827}  # a chunk of 2048 bytes, in the mean (measured)
PUBLISHED_TOKENS = 1024
PUBLISHED_SECONDS = {"70m": 1560, "160m": 1898, "410m": 2528, "1b": 2128, "1.4b": 2557}  # 15 cells each, one H200

# One H100 SXM: the vendor's figures
FP16 = 989e12  # FLOP/s in dense products
MEMORY = 3.35e12  # bytes/s
MEMORY_SHARE = 0.6  # assumed: of MEMORY that the reading and writing of logits reaches
LOGIT_BYTES = 24  # assumed: read and written for each logit on its way to integer intervals
LAUNCH = 5e-6  # assumed: seconds to start a kernel, which bounds passes too small to fill the GPU
DISK = 1e9  # assumed: bytes/s at which weights are read


class Assumed(NamedTuple):
    share: float = 0.35  # of FP16 that the products of a large batch reach
    eight: float = 1.0  # speed of the blocks' products in eight bits, against fp16's
    kernels: int = 12  # started for each layer of a pass in fp16
    kernels_int8: int = 30  # ... of LLM.int8()
    start: float = 8.0  # seconds of a cell before its weights are read: Python, torch, CUDA
    checks: int = 2  # passes of the decode check in lock-step that are waited for: one to code, one to decode


def parameters(shape):
    """(all, without embedding and head)."""
    blocks = shape.layers * (12 * shape.hidden**2 + 13 * shape.hidden) + 2 * shape.hidden
    return blocks + 2 * shape.vocabulary * shape.hidden, blocks


def file_bytes(shape):
    """Of one revision: weights in fp16, and a mask of 2048 × 2048 bytes in each layer."""
    return 2 * parameters(shape)[0] + shape.layers * 2048**2


def flops(shape, tokens):
    """Of one chunk of `tokens` tokens, teacher-forced: (products of the blocks, head and attention to earlier ones)."""
    attention = 4 * shape.layers * shape.hidden * tokens * (tokens + 1) / 2
    head = 2 * tokens * shape.vocabulary * shape.hidden
    return 2 * tokens * 12 * shape.layers * shape.hidden**2, head + attention


def seconds(shape, precision, modalities=tuple(TOKENS), assumed=Assumed()):  # noqa: B008
    """{part: seconds} of all cells of one model on one H100, one after the other."""
    eight, kernels = (assumed.eight, assumed.kernels_int8) if precision == "int8" else (1, assumed.kernels)
    chunks, launch = [(STEPS * CHUNKS, TOKENS[m]) for m in modalities], shape.layers * kernels * LAUNCH

    def products(tokens):
        blocks, rest = flops(shape, tokens)
        return (blocks / eight + rest) / (assumed.share * FP16)

    parts = {
        "start and load": STEPS * len(modalities) * (assumed.start + 2 * parameters(shape)[0] / DISK),
        "products": sum(n * products(t) for n, t in chunks),
        "intervals": sum(n * t for n, t in chunks) * shape.vocabulary * LOGIT_BYTES / (MEMORY_SHARE * MEMORY),
        "study's pass": 0.0,
        "decode check": STEPS * assumed.checks * launch * sum(t for _, t in chunks),
    }
    if precision == "int8":  # one chunk at a time, so bound by the start of kernels or by their products
        parts["study's pass"] = sum(n * max(launch, products(min(t, PUBLISHED_TOKENS))) for n, t in chunks)
    return parts


def minutes(parts):
    return f"{sum(parts.values()) / 60:.1f}"


def sizes():
    yield "| model | parameters | without embeddings | one revision, GB | five revisions, GB | from pickles, GB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, shape in PYTHIA.items():
        total, blocks = parameters(shape)
        one = file_bytes(shape) / 1e9
        yield f"| pythia-{name} | {total:,} | {blocks:,} | {one:.2f} | {5 * one:.1f} | {10 * one:.1f} |"
    grid = 5 * sum(file_bytes(PYTHIA[name]) for name in STUDY) / 1e9
    yield f"| the study (70m to 1.4b) | | | | {grid:.1f} | {2 * grid:.1f} |"


def work():
    yield "| model | TFLOP a chunk: text | image | speech | random | PFLOP, 20 cells | H100 minutes at 35 % of peak |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    whole = 0.0
    for name in STUDY:
        one = [sum(flops(PYTHIA[name], tokens)) for tokens in TOKENS.values()]
        grid = STEPS * CHUNKS * sum(one)
        whole += grid
        columns = " | ".join(f"{each / 1e12:.2f}" for each in one)
        yield f"| pythia-{name} | {columns} | {grid / 1e15:,.0f} | {grid / (Assumed().share * FP16) / 60:.1f} |"
    yield f"| the study | | | | | {whole / 1e15:,.0f} | {whole / (Assumed().share * FP16) / 60:.1f} |"


def estimate():
    parts = list(seconds(PYTHIA["70m"], "fp16"))
    yield f"| model, minutes of one H100 | {' | '.join(parts)} | fp16 together | int8 together |"
    yield "|---|" + "---:|" * (len(parts) + 2)
    sums = {"fp16": dict.fromkeys(parts, 0.0), "int8": dict.fromkeys(parts, 0.0)}
    for name in STUDY:
        cost = {precision: seconds(PYTHIA[name], precision) for precision in sums}
        for precision, found in cost.items():
            sums[precision] = {part: sums[precision][part] + found[part] for part in parts}
        columns = " | ".join(f"{cost['int8'][part] / 60:.1f}" for part in parts)
        yield f"| pythia-{name} | {columns} | {minutes(cost['fp16'])} | {minutes(cost['int8'])} |"
    columns = " | ".join(f"{sums['int8'][part] / 60:.1f}" for part in parts)
    yield f"| the study | {columns} | {minutes(sums['fp16'])} | {minutes(sums['int8'])} |"


def better():
    """The 75 published cells (no random bytes), one assumption after the other made better."""
    modalities, assumed = ("text", "image", "speech"), Assumed()

    def grid(precision):
        return sum(sum(seconds(PYTHIA[name], precision, modalities, assumed).values()) for name in STUDY) / 60

    yield "| the 75 published cells, minutes | int8 | fp16 |"
    yield "|---|---:|---:|"
    yield f"| the published run, measured by its authors on one H200 | {sum(PUBLISHED_SECONDS.values()) / 60:.0f} | |"
    for what, changed in {
        "bitlaw on one H100 as assumed": {},
        "and nobody waits for the decode check": {"checks": 0},
        "and a cell starts in 1.5 s, or while the one before computes": {"start": 1.5},
        "and large products reach 50 % of the peak": {"share": 0.5},
        "and those in eight bits take half as long": {"eight": 2.0},
        "and LLM.int8() starts no more kernels than fp16": {"kernels_int8": 12},
    }.items():
        assumed = assumed._replace(**changed)
        yield f"| {what} | {grid('int8'):.1f} | {grid('fp16'):.1f} |"


if __name__ == "__main__":
    for table in (sizes, work, estimate, better):
        print("\n".join(table()), end="\n\n")
