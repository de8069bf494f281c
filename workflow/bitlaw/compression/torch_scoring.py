"""Tokens through a model of torch in batches, one teacher-forced pass, on a processor or a GPU."""

import logging
import math
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bitlaw import InputError
from bitlaw.compression import integer_softmax, integer_softmax_torch
from bitlaw.compression.scoring import HEAD_ROWS, ahead, empty_scores, first_token, passing, put, windows
from bitlaw.models.exact.arithmetic import TOO_LARGE
from bitlaw.models.exact.digits import Digits
from bitlaw.runtime import gpu_memory
from bitlaw.runtime.logs import progress

log = logging.getLogger("bitlaw")


def score(model, chunks, tokens_at_a_time, threads=1, what="score"):
    """Scores of every chunk of token ids (int arrays) under `model`, in floating point or by digits, in their order.

    Windows are sorted by length and pass through the model in batches, padded to the batch's longest. On the CPU each
    of `threads` threads takes batches of its own, which wastes less than sharing every small operation; together the
    batches hold at most `tokens_at_a_time` tokens (at least one window each; None: as many as a GPU has room for).
    Where they do not fit in the device's memory, half as many are tried; InputError when one window alone does not fit.
    """
    scores = empty_scores(chunks, model)
    _pass_through(model, chunks, scores, _intervals, tokens_at_a_time, threads, what)
    return scores


def lengths(model, chunks, tokens_at_a_time, threads=1, what="score"):
    """-log2 p of the tokens of every chunk, float64 `[tokens]` each, where no interval is wanted; otherwise as `score`.

    From a softmax in float32, within 1e-5 bit a token of the lengths that `score` gives; exact arithmetic gives those.
    """
    if isinstance(model, Digits):
        return [own.lengths for own in score(model, chunks, tokens_at_a_time, threads, what)]
    found = [np.empty(len(ids)) for ids in chunks]
    for ids, own in zip(chunks, found, strict=True):
        if len(ids) and model.prefix is None:
            *_, own[0] = first_token(ids[0], model.vocabulary)
    _pass_through(model, chunks, [(own,) for own in found], _code_lengths, tokens_at_a_time, threads, what)
    return found


def _pass_through(model, chunks, results, take, tokens_at_a_time, threads, what):
    """Fill `results`, a tuple of arrays `[tokens]` a chunk, with what `take` makes of logits: see `_intervals`."""
    todo = [(c, w) for c, ids in enumerate(chunks) for w in windows(len(ids), model.context, model.prefix)]
    before = torch.get_num_threads()
    workers = threads if model.device.type == "cpu" else 1
    if tokens_at_a_time is None:
        longest = min(model.context, max(map(len, chunks), default=1))
        with _one_window(model.device):
            tokens_at_a_time = gpu_memory.tokens_at_a_time(model, longest)
    done, at = 0, progress(what, sum(w.end - w.begin for _, w in todo), "tokens")
    try:
        if workers > 1:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(workers) as pool:
            while todo:
                equally_long = getattr(model, "equally_long", False)
                batches = _batches(todo, tokens_at_a_time // workers, workers, equally_long)
                buffers = []  # for logits, one a thread
                running = {pool.submit(_score_batch, model, chunks, results, take, b, buffers): b for b in batches}
                todo, least = [], None
                try:
                    for future in as_completed(running):
                        batch = running.pop(future)
                        try:
                            done += future.result()
                        except CancelledError:
                            todo += batch
                        except torch.OutOfMemoryError:
                            todo += batch
                            least = min(least or len(batch), len(batch))
                            for other in running:
                                other.cancel()
                        at(done)
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                if todo:
                    del future, buffers  # the failure holds on to the tensors of its pass
                    tokens_at_a_time = _half(tokens_at_a_time, least, model.device)
    finally:
        torch.set_num_threads(before)


def _batches(todo, tokens, workers, equally_long=False):
    """Lists of (chunk, window) of similar or equal length, the longest first, each of at most `tokens` tokens or one
    window."""
    todo = sorted(todo, key=lambda item: item[1].end - item[1].begin)
    batches = []
    while todo:
        longest = todo[-1][1].end - todo[-1][1].begin
        size = max(1, min(tokens // longest, len(todo) // (2 * workers)))  # the last ones small
        if equally_long:
            size = next((n for n in range(1, size) if todo[-n - 1][1].end - todo[-n - 1][1].begin < longest), size)
        batches.append(todo[-size:])
        todo = todo[:-size]
    return batches


@contextmanager
def _one_window(device):
    """Turn lack of memory for a single window into InputError: less at a time there cannot be."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _does_not_fit(device) from error


def _does_not_fit(device):
    return InputError(
        f"{device}: one window of tokens does not fit in its memory; end what else runs there, give the model a "
        "shorter context, or choose another device or model"
    )


def _half(tokens, windows_at_once, device):
    """Half of `tokens`, after a batch of `windows_at_once` windows ran out of memory."""
    if windows_at_once == 1:
        raise _does_not_fit(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log.info("out of memory at %d tokens at a time: trying %d", tokens, tokens // 2)
    return tokens // 2


def _intervals(model, logits, targets):
    """A function that gives the Scores of `targets`, int64 `[rows]`, under logits, float32 `[rows, vocabulary]`.

    On the processor they are computed now, as the logits' memory is used again; a GPU is not waited for until the
    function is called.
    """
    if model.device.type == "cpu":
        found = integer_softmax.intervals(logits.numpy(), targets)
        return lambda: found
    integers = integer_softmax_torch.integers(logits, torch.from_numpy(targets))
    return lambda: integer_softmax_torch.from_integers(integers.cpu().numpy(), targets, model.vocabulary)


def _code_lengths(model, logits, targets):
    """As `_intervals`, but what it gives is a tuple of the code lengths alone."""
    nats = cross_entropy(logits, torch.from_numpy(targets).to(logits.device), reduction="none")
    nats = torch.where(logits.amin(1).isfinite(), nats, torch.nan)  # an infinite logit elsewhere leaves no trace there

    def wait():
        found = nats.double().cpu().numpy() / math.log(2)
        if not (finite := np.isfinite(found)).all():
            raise FloatingPointError(integer_softmax.NOT_FINITE.format(row=int(np.argmin(finite))))
        return (found,)

    return wait


def _score_batch(model, chunks, results, take, batch, buffers):
    """Fill `results` for the windows of `batch`; returns how many tokens passed through the model."""
    front = ahead(model.prefix)
    longest = front + max(w.end - w.begin for _, w in batch)
    ids = np.zeros((len(batch), longest), dtype=np.int64)
    for row, (c, w) in enumerate(batch):
        ids[row, : front + w.end - w.begin] = passing(chunks[c], w, model.prefix)
    buffer = buffers.pop() if buffers else torch.empty((HEAD_ROWS, model.vocabulary), device=model.device)
    try:
        waiting, finite = [], []  # for a GPU, which goes on meanwhile
        for state, (c, w) in zip(model.hidden(torch.from_numpy(ids)), batch, strict=True):
            if isinstance(model, Digits):  # an error at the last token, which predicts none, is one, too
                finite.append(state[: front + w.end - w.begin].isfinite().all())
            # the state at position i - 1 predicts the token at i
            for i in range(w.first, w.end, HEAD_ROWS):
                last, before = min(i + HEAD_ROWS, w.end), w.begin + 1 - front
                logits = model.head(state[i - before : last - before], buffer)
                waiting.append((c, i, take(model, logits, chunks[c][i:last].astype(np.int64))))
        if finite and not torch.stack(finite).all():
            raise FloatingPointError(TOO_LARGE)
        for c, i, wait in waiting:
            put(results[c], i, wait())
    finally:
        buffers.append(buffer)
    return sum(w.end - w.begin for _, w in batch)
