"""What the pythia study costs on one GPU, counted without one: docs/cost.md's tables.

    PYTHONPATH=workflow python benchmarks/gpu_counts.py

The library's own passes run on torch's meta device (see `counting`) in the shapes of Pythia. A pass then takes as long
as its kernels take to start, or as the card takes for what they read, write and multiply, whichever is longer. The card
is named by its data sheet; what is assumed beside that are the five numbers below it.
"""

from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple

import counting
import numpy as np
import torch
from meta_models import ALL, CONTEXT, PYTHIA, WRITTEN, fused_kernels, ids_of, model_of

from bitlaw.compression import torch_scoring
from bitlaw.compression.scoring import HEAD_ROWS
from bitlaw.models import gpt_neox, llm_int8

STUDY = ["70m", "160m", "410m", "1b", "1.4b"]
SMALL = ["14m", "31m", "70m", "160m"]  # of the study pythia-small
STEPS = 5
CHUNKS = 2048
VERIFIED = 4  # chunks that are decoded, side by side
TOKENS = {"text": 577, "image": 1566, "speech": 1987, "random": 1827}  # a chunk of 2048 bytes, in the mean (measured)
PUBLISHED_TOKENS = 1024
PUBLISHED_SECONDS = {"70m": 1560, "160m": 1898, "410m": 2528, "1b": 2128, "1.4b": 2557}  # 15 cells each, one H200


class Card(NamedTuple):
    """A GPU by its data sheet: operations a second in dense products, bytes a second and bytes of its memory."""

    name: str
    fp16: float
    int8: float
    bandwidth: float
    memory: float


H100 = Card("H100 SXM", 989e12, 1979e12, 3.35e12, 80e9)
SHARE = 0.5  # assumed: of these rates that kernels reach
LAUNCH = 5e-6  # assumed: seconds until the next kernel has started
START = 8.0  # assumed: seconds of a process before its weights are read: Python, torch, CUDA
DISK = 1e9  # assumed: bytes/s at which weights are read
RESERVED = 2e9  # assumed: bytes of a card that CUDA, libraries and fragments take
PROCESSOR = (
    10.5e9  # weights a second in a decoder's steps (measured: docs/speed.md, 236 tokens/s at Pythia-70M's shape)
)
AT_ONCE = 16384  # tokens of one pass that is counted


class Tally(NamedTuple):
    """Sums over the kernels of a pass: how many start, bytes, operations in fp16 and int8, seconds of the card."""

    starts: float
    bytes: float
    flops: float
    int8: float
    busy: float

    def __add__(self, other):
        return Tally(*map(sum, zip(self, other, strict=True)))

    def __mul__(self, times):
        return Tally(*(times * value for value in self))

    @property
    def seconds(self):
        return max(self.starts * LAUNCH, self.busy)


def tally(kernels, card=H100):
    def busy(kernel):
        products = kernel.flops / card.fp16 + kernel.int8 / card.int8
        return max(kernel.bytes / card.bandwidth, products) / SHARE

    sums = (sum(getattr(kernel, name) for kernel in kernels) for name in ("starts", "bytes", "flops", "int8"))
    return Tally(*sums, sum(map(busy, kernels)))


# --- parts of a cell ------------------------------------------------------------------------------------------------


def counted(call, fused=0):
    """Counter of what `call` does; `held` of it: bytes of what it returns."""
    counter = counting.Counter()
    with counter, fused_kernels(counter, fused) if fused else nullcontext():
        kept = call()
    counter.held = counter.live
    del kept
    return counter


def all_layers(name, of_model):
    """Tally of what `of_model` (layers to a counter) counts, for all layers of a model: one layer is as the other."""
    none, one = (tally(of_model(layers).kernels) for layers in (0, 1))
    return none + (one + none * -1) * PYTHIA[name].layers


@cache
def one_pass(name, precision, tokens, fused=0, together=None):
    """Tally a token of a teacher-forced pass through the blocks. precision: also "study", LLM.int8() at threshold 6."""
    # plain exact arithmetic goes by blocks of a few rows whatever the batch
    batch = together or (1 if precision == "exact" and not fused else max(1, AT_ONCE // tokens))

    def of_model(layers):
        model = model_of(name, layers, "int8" if precision == "study" else precision)
        if precision == "study":
            model = llm_int8.WithOutliers(model, llm_int8.THRESHOLD)
            return counted(lambda: gpt_neox.NeoX.hidden(model, ids_of(batch, tokens)))
        return counted(lambda: model.hidden(ids_of(batch, tokens)), fused)

    return all_layers(name, of_model) * (1 / (batch * tokens))


@cache
def head(name, precision, tokens, take, fused=0):
    """Tally a chunk of logits and of what `torch_scoring` takes from them: _intervals or _code_lengths."""
    model = model_of(name, 0, precision)
    states = model.hidden(ids_of(1, tokens))[0]
    buffer = torch.empty((HEAD_ROWS, PYTHIA[name].vocabulary), device="meta")

    def call():
        for first in range(0, tokens - 1, HEAD_ROWS):
            rows = states[first : min(first + HEAD_ROWS, tokens - 1)]
            take(model, model.head(rows, buffer), np.zeros(len(rows), dtype=np.int64))

    return tally(counted(call, fused).kernels)


@cache
def step(name, precision, past, fused=0):
    """Tally of one token for each of VERIFIED chunks behind `past` others, with logits."""

    def of_model(layers):
        model = model_of(name, layers, precision)
        kept = model.new_cache(VERIFIED, CONTEXT)
        return counted(lambda: model.head(model.hidden(ids_of(VERIFIED, 1), kept, past)[:, -1]), fused)

    return all_layers(name, of_model)


@cache
def memory(name, precision):
    """{moment: bytes} that a card must have for the weights, and beyond them for loading, one window and its logits,
    and a step of VERIFIED chunks with their cache."""
    held = [counted(lambda layers=layers: model_of(name, layers, precision)) for layers in (0, 1)]
    layers = PYTHIA[name].layers
    weights = held[0].held + layers * (held[1].held - held[0].held)
    model, window = model_of(name, 1, precision), CONTEXT
    passing = counted(lambda: model.hidden(ids_of(1, window)))
    dtype = torch.float32 if precision == "exact" else torch.float16
    states = torch.empty((window, PYTHIA[name].hidden), dtype=dtype, device="meta")
    buffer = torch.empty((HEAD_ROWS, PYTHIA[name].vocabulary), device="meta")
    targets = np.zeros(HEAD_ROWS, dtype=np.int64)
    logits = counted(lambda: torch_scoring._intervals(model, model.head(states[:HEAD_ROWS], buffer), targets))
    kept = counted(lambda: model.new_cache(VERIFIED, CONTEXT)).held * layers
    return {
        "weights": weights,
        "loading": max(h.peak - h.held for h in held),
        "a window": passing.peak + states.numel() * states.element_size(),
        "logits": logits.peak + buffer.numel() * 4,
        "a step": kept + counted(lambda: model.hidden(ids_of(VERIFIED, 1), model.new_cache(VERIFIED, 16), 8)).peak,
    }


def needed(name, precision):
    """Bytes of a card that a cell takes at its largest moment, with one window at a time."""
    at = memory(name, precision)
    return at["weights"] + max(at["loading"], at["a window"] + at["logits"], at["a step"]) + RESERVED


# --- cells ----------------------------------------------------------------------------------------------------------


def parameters(shape):
    """(all, without embedding and head)."""
    blocks = shape.layers * (12 * shape.hidden**2 + 13 * shape.hidden) + 2 * shape.hidden
    return blocks + 2 * shape.vocabulary * shape.hidden, blocks


def file_bytes(shape):
    """Of one revision: weights in fp16, and a mask of 2048 × 2048 bytes in each layer."""
    return 2 * parameters(shape)[0] + shape.layers * CONTEXT**2


class Choice(NamedTuple):
    """Precisions of a study: of its streams, and of the published protocol's pass; 0 or which kernels are fused."""

    lossless: str
    published: str
    fused: int


CHOICES = {
    "fp16, plain operations": Choice("fp16", "fp16", 0),
    "fp16": Choice("fp16", "fp16", WRITTEN),
    "int8": Choice("int8", "int8", WRITTEN),
    "exact and int8": Choice("exact", "int8", WRITTEN),
    "exact and int8, all fused": Choice("exact", "int8", ALL),
}


PARTS = ("start", "weights", "blocks", "logits", "published pass", "decode check")


def seconds(name, choice, modalities=tuple(TOKENS)):
    """{part: seconds} of all cells of one model on one H100, one after the other."""
    lossless, published, fused = choice
    shape, found = PYTHIA[name], dict.fromkeys(PARTS, 0.0)
    found["processor"] = 0.0
    loading = 2 * parameters(shape)[0] / DISK
    for tokens in (TOKENS[m] for m in modalities):
        seen = min(tokens, PUBLISHED_TOKENS)
        found["start"] += STEPS * START
        found["weights"] += STEPS * loading
        found["blocks"] += STEPS * CHUNKS * tokens * one_pass(name, lossless, tokens, fused).seconds
        found["logits"] += STEPS * CHUNKS * head(name, lossless, tokens, torch_scoring._intervals, fused).seconds
        if published == "int8":
            # chunks of as many tokens pass together; those of text, all of other lengths, one by one
            alone = 1 if seen < PUBLISHED_TOKENS else None
            own = seen * one_pass(name, "study", seen, together=alone).seconds
            own += head(name, "int8", seen, torch_scoring._code_lengths).seconds
            found["published pass"] += STEPS * CHUNKS * own
        if lossless == "exact":
            found["weights"] += STEPS * loading  # of the published pass, which has weights of its own
            found["processor"] += STEPS * tokens * sum(parameters(shape)) / 2 / PROCESSOR
        else:
            found["start"] += STEPS * START  # the decoder's
            found["weights"] += STEPS * loading
            found["decode check"] += STEPS * 2 * tokens * step(name, lossless, tokens // 2, fused).seconds
    return found


# --- tables ---------------------------------------------------------------------------------------------------------


def sizes():
    yield "| model | parameters | without embeddings | one revision, GB | five revisions, GB | from pickles, GB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, shape in PYTHIA.items():
        total, blocks = parameters(shape)
        one = file_bytes(shape) / 1e9
        yield f"| pythia-{name} | {total:,} | {blocks:,} | {one:.2f} | {5 * one:.1f} | {10 * one:.1f} |"
    for title, names in (("pythia (70m to 1.4b)", STUDY), ("pythia-small (14m to 160m)", SMALL)):
        grid = 5 * sum(file_bytes(PYTHIA[name]) for name in names) / 1e9
        yield f"| the study {title} | | | | {grid:.1f} | {2 * grid:.1f} |"


def work():
    yield "| model | TFLOP a chunk: text | image | speech | random | PFLOP, 20 cells |"
    yield "|---|---:|---:|---:|---:|---:|"
    whole = 0.0
    for name in STUDY:
        one = [
            tokens * one_pass(name, "fp16", tokens).flops
            + head(name, "fp16", tokens, torch_scoring._intervals, WRITTEN).flops
            for tokens in TOKENS.values()
        ]
        whole += (grid := STEPS * CHUNKS * sum(one))
        yield f"| pythia-{name} | {' | '.join(f'{each / 1e12:.2f}' for each in one)} | {grid / 1e15:,.0f} |"
    yield f"| the study | | | | | {whole / 1e15:,.0f} |"


PASSES = {  # title: (precision, fused)
    "fp16": ("fp16", 0),
    "int8, threshold 0": ("int8", 0),
    "int8, threshold 6": ("study", 0),
    "exact, plain operations": ("exact", 0),
    "exact, fused linear layers and attention": ("exact", WRITTEN),
    "exact, all fused": ("exact", ALL),
}


def passes():
    yield (
        "| pass of images, 1,566 tokens each | kernels a layer: 70m | 1.4b | MB a token: 70m | 1.4b "
        "| µs a token: 70m | 1.4b | kernels a layer and step: 70m | 1.4b | ms a step: 70m | 1.4b |"
    )
    yield "|---|" + "---:|" * 10
    for title, (precision, fused) in PASSES.items():
        tokens = PUBLISHED_TOKENS if precision == "study" else TOKENS["image"]
        together = 1 if precision == "exact" and not fused else max(1, AT_ONCE // tokens)
        found = [one_pass(name, precision, tokens, fused) for name in ("70m", "1.4b")]
        layers = [PYTHIA[name].layers for name in ("70m", "1.4b")]
        columns = [f"{t.starts * together * tokens / n:,.0f}" for t, n in zip(found, layers, strict=True)]
        columns += [f"{t.bytes / 1e6:.1f}" for t in found] + [f"{t.seconds * 1e6:.2f}" for t in found]
        if precision == "study":
            columns += [""] * 4
        else:
            steps = [step(name, precision, 1000, fused) for name in ("70m", "1.4b")]
            columns += [f"{t.starts / n:.0f}" for t, n in zip(steps, layers, strict=True)]
            columns += [f"{t.seconds * 1e3:.1f}" for t in steps]
        yield f"| {title} | {' | '.join(columns)} |"


def from_logits(take, fused):
    """(kernels of a block of rows, bytes a logit) of what is taken from logits in float32, which are there."""
    logits = torch.empty((HEAD_ROWS, PYTHIA["70m"].vocabulary), device="meta")
    model = SimpleNamespace(device=torch.device("meta"), vocabulary=logits.shape[1])
    counter = counted(lambda: take(model, logits, np.zeros(HEAD_ROWS, dtype=np.int64)), fused)
    return counter.starts, counter.bytes / logits.numel()


def intervals():
    yield "| from logits | kernels for 512 rows | bytes a logit |"
    yield "|---|---:|---:|"
    for title, take, fused in (
        ("integer intervals, plain operations", torch_scoring._intervals, 0),
        ("integer intervals, fused kernel", torch_scoring._intervals, WRITTEN),
        ("code lengths alone", torch_scoring._code_lengths, 0),
    ):
        kernels, moved = from_logits(take, fused)
        yield f"| {title} | {kernels} | {moved:.0f} |"


def room():
    yield "| GB of a card | fp16: weights | at most | int8: weights | at most | exact: weights | at most |"
    yield "|---|" + "---:|" * 6
    for name in PYTHIA:
        both = ((memory(name, p)["weights"], needed(name, p)) for p in ("fp16", "int8", "exact"))
        yield f"| pythia-{name} | {' | '.join(f'{size / 1e9:.1f}' for pair in both for size in pair)} |"


def minutes():
    yield f"| minutes of one H100, 100 cells | {' | '.join(PARTS)} | together | a processor's decode check |"
    yield "|---|" + "---:|" * (len(PARTS) + 2)
    for title, choice in CHOICES.items():
        found = [seconds(name, choice) for name in STUDY]
        sums = [sum(each[part] for each in found) / 60 for part in PARTS]
        aside = sum(each["processor"] for each in found) / 60
        columns = [f"{value:.1f}" for value in (*sums, sum(sums))] + [f"{aside:.0f}" if aside else ""]
        yield f"| {title} | {' | '.join(columns)} |"


def by_model():
    yield f"| minutes of one H100, 20 cells | {' | '.join(CHOICES)} |"
    yield "|---|" + "---:|" * len(CHOICES)
    for name in STUDY:
        yield f"| pythia-{name} | {' | '.join(f'{on_card([name], c):.1f}' for c in CHOICES.values())} |"


def on_card(names, choice, modalities=tuple(TOKENS), hidden=()):
    """Minutes of one H100 without the parts that are `hidden` behind others."""
    found = [seconds(name, choice, modalities) for name in names]
    return sum(value for each in found for part, value in each.items() if part not in ("processor", *hidden)) / 60


def published_grid():
    yield "| the 75 published cells, minutes | one after the other | starts beside other cells |"
    yield "|---|---:|---:|"
    yield f"| the published run, measured by its authors on one H200 | {sum(PUBLISHED_SECONDS.values()) / 60:.0f} | |"
    modalities = ("text", "image", "speech")
    for title, choice in CHOICES.items():
        beside = on_card(STUDY, choice, modalities, ("start",))
        yield f"| {title} | {on_card(STUDY, choice, modalities):.1f} | {beside:.1f} |"


def small():
    """The study pythia-small, on a processor: what its 20 cells a model compute, whatever that takes."""
    chunks, decoded = 32, 2  # as in config.yaml
    yield "| 20 cells | tokens scored | 10¹² products | in the head alone | steps of decoding | 10⁹ weights read so |"
    yield "|---|" + "---:|" * 5
    for name in SMALL:
        blocks = sum(tokens * one_pass(name, "fp16", tokens).flops for tokens in TOKENS.values())
        logits = sum(head(name, "fp16", tokens, torch_scoring._intervals, WRITTEN).flops for tokens in TOKENS.values())
        steps = STEPS * sum(TOKENS.values())
        columns = [f"{chunks * steps:,}", f"{STEPS * chunks * (blocks + logits) / 2e12:,.1f}"]
        columns += [f"{STEPS * chunks * logits / 2e12:,.1f}", f"{steps:,} of {decoded} chunks"]
        read = steps * (parameters(PYTHIA[name])[0] - PYTHIA[name].vocabulary * PYTHIA[name].hidden)
        yield f"| pythia-{name} | {' | '.join(columns)} | {read / 1e9:,.0f} |"


TABLES = (sizes, work, passes, intervals, room, minutes, by_model, published_grid, small)

if __name__ == "__main__":
    for table in TABLES:
        print("\n".join(table()), end="\n\n")
