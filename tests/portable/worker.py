"""What one machine, or one setting of it, makes of the committed streams and the known answers.

    python worker.py FOLDER      encodes the plain bytes into FOLDER/NAME.blaw and prints a report as JSON
    python worker.py streams     writes the committed streams anew
    python worker.py digits      prints the known answers that torch's int8 products give, and torch's kernels, as JSON
    python worker.py assembly    compiles the elementwise functions and prints their floating-point instructions as JSON

Runs wherever numpy, numba and tokenizers do, also where there is no pytest: on an emulated processor.
"""

import ctypes
import hashlib
import json
import platform
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target

from bitlaw.compression import codec, integer_softmax, known_answers, scoring, stream_format
from bitlaw.data import seven_bit, tokens
from bitlaw.models import checkpoint
from bitlaw.models.exact import arithmetic

STREAMS = Path(__file__).parent / "streams"
PLAIN = STREAMS / "mixed.bin"
CHUNK = 1300  # bytes: text, picture, text; the first two are longer than the models' contexts
MODELS = {"ladder": "ladder-141k/step1200", "llama": "tiny/llama"}
TOKENIZER = known_answers.DATA / "ladder" / "tokenizer.json"


def chunks():
    """The plain bytes, chunk by chunk."""
    data = PLAIN.read_bytes()
    return [data[first : first + CHUNK] for first in range(0, len(data), CHUNK)]


def encode(folder, threads):
    """The stream of all chunks under the checkpoint in `folder`."""
    model = checkpoint.load(folder, stream_format.EXACT)
    tokenizer, spelling, tokenizer_sha256 = tokens.open_tokenizer(TOKENIZER)
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks()])
    weights = checkpoint.describe(folder)["weights_sha256"]
    header = codec.header(model, weights, tokenizer_sha256, stream_format.EXACT, len(ids))
    scores = scoring.score(model, ids, 1 << 13, threads)
    records = [codec.record(data, own[:3]) for data, own in zip(chunks(), scores, strict=True)]
    return stream_format.pack(header, records)


def alone(stream):
    """The streams of one chunk each that the chunks of `stream` make."""
    header, records = stream_format.unpack(stream)
    return [stream_format.pack(header, [record]) for record in records]


def report(out):
    """What this machine computes: see the tests, which compare it."""
    table = known_answers.read_table()
    found = {"machine": platform.machine(), "streams": {}, "answers": {}, "engines": list(known_answers.ENGINES)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, model in MODELS.items():
            folder = known_answers.model_folder(table, model, scratch)
            made = {threads: encode(folder, threads) for threads in (1, 2)}
            (out / f"{name}.blaw").write_bytes(made[1])
            stream = (STREAMS / f"{name}.blaw").read_bytes()
            ways = {"all chunks, 1 thread": ([stream], 1), "all chunks, 2 threads": ([stream], 2)}
            ways["a chunk at a time"] = alone(stream), 1
            decoded = {
                way: b"".join(codec.restore(part, folder, TOKENIZER, threads=threads)[0] for part in parts)
                for way, (parts, threads) in ways.items()
            }
            found["streams"][name] = {
                "made": {threads: sha256(data) for threads, data in made.items()},
                "decoded": {way: sha256(data) for way, data in decoded.items()},
            }
    names = [name for name in known_answers.all_names(table) if name.startswith("tiny/") or name.endswith("/step1200")]
    for name, _, answers in known_answers.compute(table, names):
        found["answers"][name] = {engine: str(answer) for engine, answer in answers.items()}
    _, processor, features = cpu_target.target_context.codegen().magic_tuple()
    found |= {"blas": blas_kernels(), "processor": processor, "features": features}
    return found | {"imported": [name for name in ("torch", "transformers") if name in sys.modules]}


def digits():
    """Known answers by int8 digits in torch operations: {answers: {model: answer}, kernels: what torch chose}."""
    import torch

    table = known_answers.read_table()
    names = [name for name in known_answers.all_names(table) if name.startswith("tiny/") or "-64k/" in name]
    found = known_answers.compute(table, names, {"digits": known_answers.by_digits("cpu")})
    answers = {name: str(own["digits"]) for name, _, own in found}
    return {"answers": answers, "kernels": torch.backends.cpu.get_cpu_capability()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blas_kernels():
    """Which processor's kernels numpy's OpenBLAS has chosen, or None where it is another library."""
    for path in sorted(set(re.findall(r"/\S*openblas\S*\.so\S*", Path("/proc/self/maps").read_text()))):
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("", "")):
            if function := getattr(ctypes.CDLL(path), f"{prefix}openblas_get_corename{suffix}", None):
                function.restype = ctypes.c_char_p
                return function().decode()
    return None


# by processor: fused multiply-adds of any kind, and single products and sums, which show that code was read
FUSED = {"x86_64": r"vfn?m(?:add|sub)", "aarch64": r"fn?m(?:add|sub|ad|sb|l[as]l?2?)\b"}
SINGLE = {"x86_64": r"v?(?:mul|add)[sp][sd]\b", "aarch64": r"f(?:mul|add)\b"}


def assembly():
    """{function: {fused, single: instructions and how many of them}} of the elementwise functions, compiled here.

    The function "allowed to fuse" shows what is found where the compiler may contract. With an empty cache of compiled
    code only, since numba does not keep the assembly.
    """
    table = known_answers.read_table()
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("tiny/gpt_neox", "tiny/llama"):  # layer norm and gelu; RMS norm and silu
            model = checkpoint.load(known_answers.model_folder(table, name, scratch), stream_format.EXACT)
            known_answers.by_products(model, known_answers.token_ids(table)[:80])
    _product_and_sum(*np.ones((3, 64), dtype=np.float32))
    found = {"allowed to fuse": _floating_point(_product_and_sum)}
    for module in (sys.modules[f"{arithmetic.__package__}.float64"], integer_softmax):
        for function in {value for value in vars(module).values() if isinstance(value, Dispatcher)}:
            if function.signatures:
                found[f"{function.py_func.__module__}.{function.py_func.__name__}"] = _floating_point(function)
    return found


@njit(fastmath={"contract"})
def _product_and_sum(a, b, c):
    for i in range(len(a)):
        c[i] = a[i] * b[i] + c[i]


def _floating_point(function):
    text = "\n".join(function.inspect_asm().values())
    codes = re.findall(r"^\s+([a-z][\w.]*)\s", text, re.MULTILINE)
    return {
        kind: Counter(code for code in codes if re.match(patterns[platform.machine()], code))
        for kind, patterns in (("fused", FUSED), ("single", SINGLE))
    }


def make_streams():
    """Write the committed streams."""
    table = known_answers.read_table()
    with tempfile.TemporaryDirectory() as scratch:
        for name, model in MODELS.items():
            stream = encode(known_answers.model_folder(table, model, scratch), 1)
            (STREAMS / f"{name}.blaw").write_bytes(stream)


if __name__ == "__main__":
    match sys.argv[1]:
        case "streams":
            make_streams()
        case "digits":
            print(json.dumps(digits()))
        case "assembly":
            print(json.dumps(assembly()))
        case folder:
            print(json.dumps(report(Path(folder))))
