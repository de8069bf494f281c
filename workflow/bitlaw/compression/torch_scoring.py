"""Tokens through a model of torch in batches, one teacher-forced pass, on a processor or a GPU."""

import logging
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed

import numpy as np
import torch

from bitlaw import InputError
from bitlaw.compression import integer_softmax, integer_softmax_torch
from bitlaw.compression.scoring import HEAD_ROWS, ahead, empty_scores, passing, put, windows
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
    todo = [(c, w) for c, ids in enumerate(chunks) for w in windows(len(ids), model.context, model.prefix)]
    before = torch.get_num_threads()
    workers = threads if model.device.type == "cpu" else 1
    if tokens_at_a_time is None:
        tokens_at_a_time = gpu_memory.tokens_at_a_time(model, min(model.context, max(map(len, chunks), default=1)))
    done, at = 0, progress(what, sum(w.end - w.begin for _, w in todo), "tokens")
    try:
        if workers > 1:
            torch.set_num_threads(1)
        with ThreadPoolExecutor(workers) as pool:
            while todo:
                batches = _batches(todo, tokens_at_a_time // workers, workers)
                buffers = [
                    torch.empty((HEAD_ROWS, model.vocabulary), device=model.device)
                    for _ in range(min(workers, len(batches)))
                ]
                running = {pool.submit(_score_batch, model, chunks, scores, b, buffers): b for b in batches}
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
    return scores


def _batches(todo, tokens, workers):
    """Lists of (chunk, window) of similar length, the longest first, each of at most `tokens` tokens or one window."""
    todo = sorted(todo, key=lambda item: item[1].end - item[1].begin)
    batches = []
    while todo:
        longest = todo[-1][1].end - todo[-1][1].begin
        size = max(1, min(tokens // longest, len(todo) // (2 * workers)))  # the last ones small
        batches.append(todo[-size:])
        todo = todo[:-size]
    return batches


def _half(tokens, windows_at_once, device):
    """Half of `tokens`, after a batch of `windows_at_once` windows ran out of memory."""
    if windows_at_once == 1:
        raise InputError(f"{device}: one window of tokens does not fit in its memory; choose another device or model")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log.info("out of memory at %d tokens at a time: trying %d", tokens, tokens // 2)
    return tokens // 2


def _score_batch(model, chunks, scores, batch, buffers):
    """Fill `scores` for the windows of `batch`; returns how many tokens passed through the model."""
    front = ahead(model.prefix)
    longest = front + max(w.end - w.begin for _, w in batch)
    ids = np.zeros((len(batch), longest), dtype=np.int64)
    for row, (c, w) in enumerate(batch):
        ids[row, : front + w.end - w.begin] = passing(chunks[c], w, model.prefix)
    buffer = buffers.pop()
    try:
        waiting, finite = [], []  # for a GPU, which goes on meanwhile
        for state, (c, w) in zip(model.hidden(torch.from_numpy(ids)), batch, strict=True):
            if isinstance(model, Digits):  # an error at the last token, which predicts none, is one, too
                finite.append(state[: front + w.end - w.begin].isfinite().all())
            # the state at position i - 1 predicts the token at i
            for i in range(w.first, w.end, HEAD_ROWS):
                last, before = min(i + HEAD_ROWS, w.end), w.begin + 1 - front
                logits, targets = model.head(state[i - before : last - before], buffer), chunks[c][i:last]
                if model.device.type == "cpu":
                    put(scores[c], i, integer_softmax.intervals(logits.numpy(), targets))
                else:
                    targets = targets.astype(np.int64)
                    waiting.append((c, i, targets, integer_softmax_torch.integers(logits, torch.from_numpy(targets))))
        if finite and not torch.stack(finite).all():
            raise FloatingPointError(TOO_LARGE)
        for c, i, targets, integers in waiting:
            put(scores[c], i, integer_softmax_torch.from_integers(integers.cpu().numpy(), targets, model.vocabulary))
    finally:
        buffers.append(buffer)
    return sum(w.end - w.begin for _, w in batch)
