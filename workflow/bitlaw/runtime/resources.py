"""What a cell asks of a machine: memory and minutes, from the model's size, the chunks and the arithmetic.

Meant to be too much rather than too little: a cluster ends a job that takes more than it asked for. The numbers
decide nothing about a result, so they are resources of a rule and never params. Read at the start of every job:
nothing heavy is imported.
"""

from math import ceil
from pathlib import Path

WEIGHT_BYTES = {"exact": 2, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 2}  # a parameter in memory; int8: made from 16
FLOPS = {"cpu": 5e10, "cuda": 1e13}  # a second; a third of what two cores and a fifth of what a data-centre GPU reach
BYTES_A_SECOND = {"cpu": 5e9, "cuda": 2e11}  # of weights read, once for each step of a decoder
BASE_MB = {"cpu": 1536, "cuda": 8192}  # the libraries, the chunks, a block of logits; with CUDA its own libraries
START_MINUTES = 10  # importing, reading weights from a slow file system


def parameters(nominal, weights):
    """Parameters of a model: its `nominal` number when there is one, else what its files `weights` can hold at most.

    Checkpoints keep 16 or 32 bits a parameter, so that half of the bytes is never too few. Raises FileNotFoundError
    for a file that is not there yet, by which Snakemake knows to ask again later.
    """
    return nominal or sum(Path(path).stat().st_size for path in weights) // 2


def memory_mb(parameters, precision, device, attempt=1, most=None):
    """Main memory in MB, doubled with every further attempt, at most `most`.

    On a processor the weights are held by the encoder and by the process that decodes, and once more while they are
    read; on a GPU they pass through memory once, but what is exact is decoded by a processor.
    """
    copies = 1.5 if device == "cuda" and precision != "exact" else 2.5
    once = BASE_MB[device] + copies * parameters * WEIGHT_BYTES[precision] / 1e6
    return min(ceil(once) * 2 ** (attempt - 1), most or float("inf"))


def minutes(parameters, precision, device, tokens, steps, attempt=1, most=None):
    """Wall-clock minutes, doubled with every further attempt, at most `most`.

    One pass over `tokens` tokens costs 2·parameters operations each (int8: two passes). Decoding goes a token at a
    time, `steps` of them, all verified chunks side by side, and reads the weights at each; in lock-step the encoder
    does the same once more. What is exact is decoded by a processor.
    """
    passes = 2 if precision == "int8" else 1
    decoder = "cpu" if precision == "exact" else device
    scoring = passes * tokens * 2 * parameters / FLOPS[device]
    decoding = 2 * steps * (0.02 + parameters * WEIGHT_BYTES[precision] / BYTES_A_SECOND[decoder])
    once = START_MINUTES + (scoring + decoding) / 60
    return min(ceil(once) * 2 ** (attempt - 1), most or float("inf"))
