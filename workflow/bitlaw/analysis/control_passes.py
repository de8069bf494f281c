"""Control passes: the same model on chunks whose bytes are shuffled, and on halves of chunks after other halves.

shuffled: each chunk's bytes in an order drawn by seed, which keeps their histogram and destroys their structure.
after_other: the second half of every chunk after nothing, after the first half of another chunk and after its own
first half (passes after_none, after_other, after_own). The halves are tokenised by themselves, which forces a token
boundary where they join. Only the second half's tokens are counted, the first of them as the first token of a chunk
(log2 of the vocabulary): so the three passes differ in nothing but what precedes.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitlaw.compression import accounting, known_answers, scoring, top_bits
from bitlaw.data import seven_bit, shards, tokens
from bitlaw.models import checkpoint
from bitlaw.runtime import cuda, gpu
from bitlaw.runtime.atomic import replacing

CONTROLS = ("shuffled", "after_other")
SEED = 0  # of the shuffling
THREADS = 2


def shuffled(chunks, seed=SEED):
    """Every chunk (bytes) with its bytes in another order, its own for each."""
    return [
        np.random.default_rng([seed, number]).permutation(np.frombuffer(chunk, dtype=np.uint8)).tobytes()
        for number, chunk in enumerate(chunks)
    ]


def other(number, count):
    """Of which of `count` chunks the first half comes before the second half of chunk `number`.

    Half the number of chunks further on, counted in a circle: never the chunk itself, each chunk once.
    """
    return (number + count // 2) % count


def score(kind, model, tokenizer, spelling, chunks, tokens_at_a_time):
    """Rows of the passes of the control `kind` over `chunks` (bytes each), a dict a pass and chunk.

    A row is the name of its `pass` and a chunk's row (see `accounting.chunk_row`) with bits_top_bits. Raises InputError
    when a token is unknown to the model.
    """

    def ids_of(parts):
        """Token ids of each of `parts` (bytes): int arrays."""
        ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(part) for part in parts])
        checkpoint.check_vocabulary(model, ids)
        return ids

    def scored(name, parts, ids, before=None):
        """Rows of the pass `name` over `parts` (bytes) with token ids `ids`, each after the ids in `before`."""
        before = before or [ids[0][:0]] * len(ids)
        whole = [np.concatenate(pair) for pair in zip(before, ids, strict=True)]
        rows = []
        for number, scores in enumerate(scoring.score(model, whole, tokens_at_a_time, THREADS, name)):
            own = scoring.Scores(*(array[len(before[number]) :] for array in scores))
            for array, value in zip(own, scoring.first_token(ids[number][0], model.vocabulary), strict=True):
                array[0] = value
            rows.append(
                {"pass": name}
                | accounting.chunk_row(
                    number,
                    len(parts[number]),
                    accounting.position_costs(own, tokens.lengths(spelling, ids[number])),
                    {"bits_top_bits": top_bits.ideal_bits(seven_bit.top_bits(parts[number]))},
                )
            )
        return rows

    if kind == "shuffled":
        mixed = shuffled(chunks)
        return scored("shuffled", mixed, ids_of(mixed))
    middle = len(chunks[0]) // 2
    first, second = ids_of([c[:middle] for c in chunks]), [c[middle:] for c in chunks]
    ids = ids_of(second)
    others = [first[other(number, len(chunks))] for number in range(len(chunks))]
    return [
        *scored("after_none", second, ids),
        *scored("after_other", second, ids, others),
        *scored("after_own", second, ids, first),
    ]


def run(
    kind, folder, tokenizer, shard_folder, out, *, precision, device, tokens_at_a_time, context=None, bos=tokens.AUTO
):
    """Score the chunks of `shard_folder` by the control `kind` with the checkpoint in `folder`; write parquet `out`.

    A row a chunk and pass; the schema's metadata holds provenance. A GPU, `context` and `bos` are
    used as by `cell.compress`. Raises InputError when model and tokenizer do not belong together, and DeviceError when
    the device fails.
    """
    chunks = [bytes(row) for row in shards.read(shard_folder)]
    opened, spelling, tokenizer_sha256 = tokens.open_tokenizer(tokenizer)
    with gpu.lease(device), gpu.failures(device):
        cuda.check(device)
        known_answers.check_device(device, precision)
        model = checkpoint.load(folder, precision, device, context, tokens.prefix(tokenizer, bos))
        at_a_time = None if device == "cuda" else tokens_at_a_time
        rows = score(kind, model, opened, spelling, chunks, at_a_time)
    about = checkpoint.describe(folder) | {"tokenizer_sha256": tokenizer_sha256, "precision": precision, "seed": SEED}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"bitlaw": json.dumps(about)})
    with replacing(Path(out)) as temporary:
        pq.write_table(table, temporary)
