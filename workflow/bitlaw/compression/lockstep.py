"""Lock-step coding: encoder and decoder make the same calls of a floating-point model, token by token.

A floating-point sum depends on its order, so on the library, the batch, the number of threads and the machine. Here
both ends feed the model the same rows in the same batches on the same number of threads, and a known answer, computed
first, tells whether they get the same numbers. Exact arithmetic needs none of this (see `codec`).
"""

import hashlib
import platform
from importlib.metadata import version

import numpy as np
import torch

from bitlaw import InputError
from bitlaw.compression import integer_softmax, range_coder, scoring
from bitlaw.compression.stream_format import Lockstep
from bitlaw.runtime import cuda
from bitlaw.runtime.logs import progress

BATCH = 8  # rows that advance together, where there are so many chunks
ANSWER_TOKENS = 48


def steps(model, ids, count):
    """Yield (i, logits of token i: float32 numpy array `[batch, vocabulary]`) for i from 1 to count - 1.

    A model with a prefix predicts token 0, too.

    `ids`, int64 numpy array `[batch, count]`, is read up to i - 1 when i is yielded: a decoder fills column i
    before it asks for the next. The context moves as in `scoring.windows`.
    """
    front = scoring.ahead(model.prefix)
    for window in scoring.windows(count, model.context, model.prefix):
        cache, at = model.new_cache(len(ids), front + window.end - window.begin), window.begin - front
        block = np.concatenate((np.full((len(ids), front), model.prefix or 0), ids[:, window.begin : window.first]), 1)
        states = model.hidden(torch.from_numpy(block), cache, 0)[:, -1]
        for i in range(window.first, window.end):
            if i > window.first:
                states = model.hidden(torch.from_numpy(ids[:, i - 1 : i].copy()), cache, i - 1 - at)[:, 0]
            yield i, model.head(states).cpu().numpy()


def known_answer(model, batch):
    """16 hexadecimal digits: hash of the frequencies that this machine computes for a fixed text."""
    length = min(ANSWER_TOKENS, model.context)
    ids = (np.arange(batch * length).reshape(batch, length) * 7919 + 13) % model.vocabulary
    digest = hashlib.sha256()
    frequencies = np.empty(model.vocabulary, dtype=np.uint64)
    for _, logits in steps(model, ids, length):
        _total(integer_softmax.frequencies(logits[0], frequencies))
        digest.update(frequencies.tobytes())
    return digest.hexdigest()[:16]


def machine(device):
    """What chose the kernels: the processor's instruction set as torch uses it, or the GPU and its libraries."""
    if device.type == "cuda":
        found = cuda.about(device)
        libraries = " ".join(f"{name} {found[name]}" for name in ("CUDA", "cuDNN", "cuBLAS"))
        return f"{found['name']} {found['capability']} {found['multiprocessors']} {libraries}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def software(model):
    """The libraries whose kernels `model` calls, with their versions."""
    return ", ".join([f"torch {torch.__version__}", *(f"{name} {version(name)}" for name in model.libraries)])


def same_calls(model, chunks):
    """The Lockstep of streams of `chunks` chunks made here with `model`, on torch's number of threads."""
    batch = max(1, min(BATCH, chunks))
    answer = known_answer(model, batch)
    return Lockstep(answer, software(model), machine(model.device), batch, torch.get_num_threads())


def check(model, recorded):
    """Raise InputError when this machine computes other numbers than the one that encoded; sets torch's threads."""
    torch.set_num_threads(recorded.threads)
    if known_answer(model, recorded.batch) != recorded.answer:
        here = f"{software(model)}, {machine(model.device)}"
        raise InputError(
            f"this machine computes other probabilities than the one that encoded (there {recorded.software}, "
            f"{recorded.machine}; here {here}): decode where they agree, or encode with precision exact"
        )


def encode(model, ids, batch):
    """(starts, frequencies, totals), uint64 `[3, tokens]`, of every chunk of token ids: what `decode` will meet."""
    intervals = [np.empty((3, len(own)), dtype=np.uint64) for own in ids]
    done, report = 0, progress("code", sum(map(len, ids)), "tokens")
    for first in range(0, len(ids), batch):
        group = ids[first : first + batch]
        table = np.zeros((batch, max(map(len, group))), dtype=np.int64)
        for row, own in enumerate(group):
            table[row, : len(own)] = own
            if len(own) and model.prefix is None:
                intervals[first + row][:, 0] = scoring.first_token(own[0], model.vocabulary)[:3]
                done += 1
        for i, logits in steps(model, table, table.shape[1]):
            values = integer_softmax.intervals(logits[: len(group)], table[: len(group), i])[:3]
            for row, own in enumerate(group):
                if i < len(own):
                    intervals[first + row][:, i] = [value[row] for value in values]
                    done += 1
            report(done)
    return intervals


def decode(model, opened, counts, batch):
    """Yield, chunk by chunk, (token ids int64, intervals uint64 `[3, tokens]` met) of `counts` tokens each.

    opened: (state, data) of each chunk's range decoder, behind its top bits.
    """
    frequencies = np.empty(model.vocabulary, dtype=np.uint64)
    done, report = 0, progress("decode", sum(counts), "tokens")
    for first in range(0, len(counts), batch):
        group = range(first, min(first + batch, len(counts)))
        longest = max(counts[chunk] for chunk in group)
        ids = np.zeros((batch, longest), dtype=np.int64)
        met = [np.empty((3, counts[chunk]), dtype=np.uint64) for chunk in group]
        for row, chunk in enumerate(group):
            if counts[chunk] and model.prefix is None:
                ids[row, 0] = range_coder.decode_uniform(*opened[chunk], model.vocabulary)
                met[row][:, 0] = scoring.first_token(ids[row, 0], model.vocabulary)[:3]
                done += 1
        for i, logits in steps(model, ids, longest):
            for row, chunk in enumerate(group):
                if i < counts[chunk]:
                    total = _total(integer_softmax.frequencies(logits[row], frequencies))
                    ids[row, i], start = range_coder.decode_symbol(*opened[chunk], frequencies, total)
                    met[row][:, i] = start, frequencies[ids[row, i]], total
                    done += 1
            report(done)
        for row, chunk in enumerate(group):
            yield ids[row, : counts[chunk]], met[row]


def _total(total):
    if not total:
        raise FloatingPointError(integer_softmax.NOT_FINITE.format(row=0))
    return np.uint64(total)
