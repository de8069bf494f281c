"""Decoding in exact arithmetic: the whole of it one compiled loop, chunks side by side, several loops at once.

How many chunks advance together and on how many threads decides the speed and nothing else.
"""

from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from bitlaw.compression import integer_softmax, range_coder, scoring
from bitlaw.models.exact.decoder import forward, logits
from bitlaw.runtime.compiling import compiled
from bitlaw.runtime.logs import progress

TOGETHER = 32  # chunks that share a load of the weights
CACHE_BYTES = 1 << 30  # of keys and values, of all loops together
SECONDS_BETWEEN = 0.5  # of looks at how far the loops are


def decode(model, opened, counts, threads=1):
    """List, chunk by chunk, of (token ids int64, intervals uint64 `[3, tokens]` met) of `counts` tokens each.

    opened: (state, data) of each chunk's range decoder, behind its top bits. Raises FloatingPointError where the model
    overflows, which it did not when the stream was made: then that is damaged.
    """
    group = _chunks_together(model, counts, threads)
    order = sorted(range(len(counts)), key=lambda chunk: -counts[chunk])  # those of a group end at about the same time
    groups = [order[first : first + group] for first in range(0, len(order), group)]
    decoded = [None] * len(counts)
    report, done = progress("decode", sum(counts), "tokens"), np.zeros(len(groups), dtype=np.int64)
    with ThreadPoolExecutor(threads) as pool:
        running = [
            pool.submit(_decode_group, model, [opened[c] for c in own], [counts[c] for c in own], done[g : g + 1])
            for g, own in enumerate(groups)
        ]
        left = running
        while left:
            left = wait(left, SECONDS_BETWEEN).not_done
            report(int(done.sum()))
        for own, future in zip(groups, running, strict=True):
            for chunk, result in zip(own, future.result(), strict=True):
                decoded[chunk] = result
    return decoded


def _chunks_together(model, counts, threads):
    """How many chunks one loop decodes: an equal share of them, as far as there is room for their caches."""
    longest = min(max(counts, default=1) + scoring.ahead(model.prefix), model.context)
    bytes_of_one = sum(array.nbytes for array in model.new_cache(1, max(longest, 1)))
    return max(1, min(TOGETHER, -(-len(counts) // threads), CACHE_BYTES // (threads * bytes_of_one)))


def _decode_group(model, opened, counts, done):
    longest = max(counts)
    prefix = np.array([] if model.prefix is None else [model.prefix], dtype=np.int64)
    windows = np.array(scoring.windows(longest, model.context, model.prefix), dtype=np.int64).reshape(-1, 3)
    states = np.stack([state for state, _ in opened])
    ends = np.cumsum([len(data) for _, data in opened])
    data = np.concatenate([data for _, data in opened])
    ids = np.zeros((len(counts), longest), dtype=np.int64)
    met = np.zeros((len(counts), 3, longest), dtype=np.uint64)
    cache = model.new_cache(len(counts), max(1, min(len(prefix) + longest, model.context)))
    lengths = np.array(counts, dtype=np.int64)
    args = (cache, prefix, windows, states, data, ends, lengths, ids, met, done)
    fine = _decode(model.weights, model.shape, *args)
    if not fine:
        raise FloatingPointError(integer_softmax.NOT_FINITE.format(row=0))
    return [(ids[row, :count], met[row, :, :count]) for row, count in enumerate(counts)]


@compiled
def _decode(weights, shape, cache, prefix, windows, states, data, ends, counts, ids, met, done):
    """Fill ids and met, a row a chunk, the longest first; returns whether every logit was finite.

    prefix, int64 `[0 or 1]`: what stands in front of every window, and in place of a uniform first token.
    done, int `[1]`: how many tokens are decoded, for another thread to look at.
    """
    chunks, vocabulary = len(counts), shape.vocabulary
    slots, positions = np.arange(chunks), np.empty(chunks, dtype=np.int64)
    room = (chunks + 7) // 8 * 8
    hidden = np.zeros((room, 2, (shape.width + 1) // 2 * 2), dtype=np.int16)
    scales = np.ones(room, dtype=np.float32)
    rows = np.empty((room, (vocabulary + 15) // 16 * 16), dtype=np.float32)
    frequencies = np.empty(vocabulary, dtype=np.uint64)
    for row in range(chunks):
        if counts[row] and not len(prefix):
            own = data[ends[row - 1] if row else 0 : ends[row]]
            ids[row, 0] = range_coder.decode_uniform(states[row], own, vocabulary)
            met[row, 0, 0], met[row, 1, 0], met[row, 2, 0] = ids[row, 0], 1, vocabulary
            done[0] += 1
    for w in range(len(windows)):
        begin, end, first = windows[w, 0], windows[w, 1], windows[w, 2]
        at = begin - len(prefix)  # the token that has position 0
        for i in range(first, end):
            active = 0
            while active < chunks and counts[active] > i:
                active += 1
            if i == first:
                # the window's first half again, or its one token, at the positions that it has there
                before = first - at
                for row in range(active):
                    block = np.zeros(((before + 7) // 8 * 8, 2, hidden.shape[2]), dtype=np.int16)
                    block_scales = np.ones(len(block), dtype=np.float32)
                    own, fed = np.full(before, row), np.concatenate((prefix, ids[row, begin:first]))
                    if not forward(weights, shape, cache, own, np.arange(before), fed, block, block_scales):
                        return False
                    hidden[row], scales[row] = block[before - 1], block_scales[before - 1]
            else:
                positions[:active] = i - 1 - at
                tokens = ids[:active, i - 1].copy()
                if not forward(weights, shape, cache, slots[:active], positions[:active], tokens, hidden, scales):
                    return False
            logits(weights, hidden, scales, 0, active, rows)
            for row in range(active):
                total = integer_softmax.frequencies(rows[row, :vocabulary], frequencies)
                if not total:
                    return False
                own = data[ends[row - 1] if row else 0 : ends[row]]
                token, start = range_coder.decode_symbol(states[row], own, frequencies, total)
                ids[row, i] = token
                met[row, 0, i], met[row, 1, i], met[row, 2, i] = start, frequencies[token], total
            done[0] += active
    return True
