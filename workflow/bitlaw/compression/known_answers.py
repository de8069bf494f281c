"""Known answers: what exact arithmetic must give on every machine, to the last bit; docs/portability.md.

`data/known_answers.json` holds a text, a tiny model of each family, and the hash of the integer intervals of that text
under these and under every checkpoint of the ladder. The tiny models' weights are made from integers, so that they are
the same everywhere and in every language. Run as a module, this file computes the answers anew and writes the table.
"""

import hashlib
import json
import math
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

from bitlaw import InputError
from bitlaw.compression import exact_decoder, range_coder, scoring
from bitlaw.compression.stream_format import EXACT
from bitlaw.models import checkpoint
from bitlaw.models.exact.arithmetic import VERSION
from bitlaw.runtime import compiling
from bitlaw.runtime.atomic import replacing

DATA = Path(__file__).parents[3] / "data"
TABLE = DATA / "known_answers.json"
TINY = "tiny/"  # names of models that are made, not read, begin so


def read_table(path=TABLE):
    """The table: text (str of ASCII), tiny (family to config and tensors), answers (model to hexadecimal sha256).

    Raises InputError where it is not there, not a table, or of another version of the arithmetic.
    """
    try:
        table = json.loads(Path(path).read_text())
        version = table["arithmetic"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no table of known answers ({error}); run in a clone of bitlaw's repository"
        ) from None
    if version != VERSION:
        raise InputError(
            f"{path}: answers of version {version} of the exact arithmetic; this program computes version {VERSION}: "
            "take both from one commit, or run `make known-answers`"
        )
    return table


def token_ids(table):
    """The text's tokens, int64: the code of each character is a token number, whatever the vocabulary."""
    return np.frombuffer(table["text"].encode("ascii"), dtype=np.uint8).astype(np.int64)


# --- the models -----------------------------------------------------------------------------------------------------


def model_folder(table, name, scratch):
    """The checkpoint folder of the model `name`: in `data`, or for a tiny one made under the folder `scratch`."""
    if not name.startswith(TINY):
        return DATA / "ladder" / name
    made = table["tiny"][name.removeprefix(TINY)]
    folder = Path(scratch) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(made["config"], indent=1) + "\n")
    shapes = {tensor: tuple(map(int, shape.split("x"))) for tensor, shape in made["tensors"].items()}
    (folder / "model.safetensors").write_bytes(_safetensors(_weights(shapes)))
    return folder


def _weights(shapes):
    """float32 tensors of the given shapes by name: matrices within ±1/2, gains within 1 ± 1/4, biases within ±1/4."""
    found, first = {}, 0
    for name, shape in sorted(shapes.items()):
        count = math.prod(shape)
        numbers = _scrambled(np.arange(first + 1, first + count + 1, dtype=np.uint64))
        first += count
        whole = (numbers >> np.uint64(48)).astype(np.int64) - (1 << 15)
        if len(shape) == 2:
            values = whole / (1 << 16)
        else:
            values = whole / (1 << 17) + (1 if "norm" in name and name.endswith(".weight") else 0)
        found[name] = values.astype("<f4").reshape(shape)  # exact: seventeen bits
    return found


def _scrambled(n):
    """splitmix64 (Steele, Lea and Flood 2014): the n-th number of the sequence that starts at 0, uint64 arrays."""
    z = n * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _safetensors(tensors):
    """The bytes of a safetensors file. Not by the library, whose next release may write another header: a stream holds
    the hash of this file."""
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(values.tobytes() for values in tensors.values())


# --- the answers ----------------------------------------------------------------------------------------------------


def answer(starts, frequencies, totals):
    """Hexadecimal sha256 of all starts, then all frequencies, then all totals, as little-endian 64-bit integers."""
    digest = hashlib.sha256()
    for array in (starts, frequencies, totals):
        digest.update(np.ascontiguousarray(array, dtype="<u8").tobytes())
    return digest.hexdigest()


def by_scoring(model, ids):
    """Intervals as a cell or `bitlaw compress` takes them."""
    return scoring.score(model, [ids], 1)[0][:3]


def by_products(model, ids):
    """Intervals of one pass a window by float64 matrix products, whose sums another library makes."""
    return scoring.score_by_products(model, ids)[:3]


def by_decoding(model, ids):
    """Intervals that a decoder meets, token by token, in the stream that scoring makes."""
    coded = range_coder.encode(*by_scoring(model, ids))
    ((decoded, met),) = exact_decoder.decode(model, [range_coder.start_decoding(coded)], [len(ids)])
    if not np.array_equal(decoded, ids):
        raise ArithmeticError(f"decodes to another text from token {int(np.argmax(decoded != ids))} on")
    return met


ENGINES = {"scoring": by_scoring, "float64 products": by_products, "decoding": by_decoding}


def by_digits(device):
    """The engine of int8 digits on a torch device, by plain torch operations."""

    def intervals(model, ids):
        from bitlaw.runtime import fused  # imports torch, which the other engines do without

        with fused.plain(device):
            return by_kernels(device)(model, ids)

    return intervals


def by_kernels(device):
    """The same by fused kernels where they are usable, as a cell on a GPU scores."""
    return lambda model, ids: scoring.score(model.digits(device), [ids], 1)[0][:3]


def check(device):
    """Raise InputError unless digits on `device`, and the processor's engines, give the tiny models' known answers.

    Fused kernels that do not are not used in this process: one line in the log says so.
    """
    from bitlaw.runtime import fused

    table, title, kernels = read_table(), f"int8 digits on {device}", f"fused kernels on {device}"
    names = [name for name in table["answers"] if name.startswith(TINY)]
    engines = ENGINES | {title: by_digits(device)} | ({kernels: by_kernels(device)} if fused.usable(device) else {})
    for name, expected, found in compute(table, names, engines):
        for engine, value in found.items():
            if value == expected:
                continue
            how = f"fails ({value})" if isinstance(value, Exception) else "gives other integers"
            if engine == kernels:
                fused.refuse(device, f"the known answer {name}: {' '.join(how.split())}")
                continue
            raise InputError(
                f"precision exact on device {device}: {engine} {how} for the known answer {name}; choose another "
                "device or precision, and report what `bitlaw doctor` says"
            )


def check_device(device, *precisions):
    """`check` before anything is computed at `precisions` on `device`, where that needs it: exactly, on no processor.

    One process at a time, as it may compile loops.
    """
    if device != "cpu" and EXACT in precisions:
        with compiling.one_at_a_time():
            check(device)


def compute(table, names, engines=ENGINES):
    """Yield (model, expected hash, {engine: its hash here, or the error that it raises}) of each of `names`."""
    ids = token_ids(table)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            try:
                model = checkpoint.load(model_folder(table, name, scratch), EXACT)
            except (InputError, KeyError) as error:  # it is not there, or the table has no such model
                found = dict.fromkeys(engines, error)
            else:
                found = {engine: _answer_or_error(intervals, model, ids) for engine, intervals in engines.items()}
            yield name, table["answers"].get(name), found


def _answer_or_error(intervals, model, ids):
    try:
        return answer(*intervals(model, ids))
    except Exception as error:  # whatever fails is a wrong answer, too, and the other engines are still asked
        return error


def models_here(table):
    """Every model that the table must answer for: the tiny ones, then the ladder's checkpoints that are here."""
    ladder = [path.parent for path in (DATA / "ladder").glob("*/step*/config.json")]
    ladder = [path.relative_to(DATA / "ladder").as_posix() for path in ladder]
    return [TINY + family for family in table["tiny"]] + sorted(ladder, key=_by_size_and_step)


def all_names(table):
    """Those, and those that the table answers for but that are missing here."""
    return list(dict.fromkeys([*table["answers"], *models_here(table)]))


def _by_size_and_step(name):
    model, step = name.split("/step")
    return (DATA / "ladder" / name / "model.safetensors").stat().st_size, model, int(step)


def refresh(path=TABLE):
    """Compute every answer anew and write the table; RuntimeError, and nothing written, where engines differ."""
    table = json.loads(Path(path).read_text())
    answers = {}
    for name, _, found in compute(table, models_here(table)):
        if len({str(value) for value in found.values()}) != 1 or any(isinstance(v, Exception) for v in found.values()):
            raise RuntimeError(f"{name}: the engines differ ({found}): mend that first, nothing was written")
        answers[name] = found["scoring"]
    table |= {"arithmetic": VERSION, "answers": answers}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(refresh())
