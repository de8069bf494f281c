"""Cells outside Snakemake, each in a new process: both modes, lower precisions, and checks that fail."""

import pyarrow.parquet as pq
import pytest

import tiny_families
from bitlaw.data import tokens
from cell_process import CHUNKS, SIZE, compress
from tiny_models import random_checkpoint


@pytest.mark.parametrize(
    ("model", "precision", "mode"),
    [
        ("neox_folder", "exact", "exact"),
        ("neox_folder", "fp32", "lockstep"),
        ("neox_folder", "bf16", "lockstep"),
        ("neox_folder", "fp16", "lockstep"),
        ("gpt2_folder", "fp32", "lockstep"),
    ],
)
def test_a_cell_adds_up_and_decodes(data, tmp_path, request, model, precision, mode):
    ran, about = compress(data, request.getfixturevalue(model), tmp_path, precision=precision)
    assert ran.returncode == 0, ran.stderr
    assert about["mode"] == mode and about["precision"] == precision
    assert about["cr_lossless"] == pytest.approx(about["stream_bits"] / (8 * CHUNKS * SIZE), abs=1e-12)
    terms = [value for name, value in about.items() if name.startswith("audit_")]
    assert about["cr_published"] + sum(terms) == pytest.approx(about["cr_lossless"], abs=1e-12)
    check = about["decode_check"]
    assert check["passed"] and check["chunk_numbers"] == [0, 2]
    assert abs(check["steps_bytes"] - check["one_shot_bytes"]) <= (2 if mode == "lockstep" else 0)
    assert check["one_shot_bytes"] > 0
    rows = pq.read_table(tmp_path / "step1.parquet").to_pylist()
    assert [row["bytes"] for row in rows] == [SIZE] * CHUNKS
    assert sum(row["tokens"] for row in rows) == about["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["jamba", "mamba", "recurrent_gemma"])
def test_a_cell_of_a_recurrent_model_decodes_at_two_threads(data, tokenizer, tmp_path, family):
    config = tiny_families.config(family)
    config.vocab_size = tokenizer.get_vocab_size()
    (tmp_path / "model").mkdir(), (tmp_path / "out").mkdir()
    tokenizer.save(str(random_checkpoint(config, tmp_path / "model", scale=4) / "tokenizer.json"))
    ran, about = compress(data, tmp_path / "model", tmp_path / "out", "import torch; torch.set_num_threads(2)")
    assert ran.returncode == 0, ran.stderr
    assert about["mode"] == "lockstep" and about["decode_check"]["passed"]


RESTORE = """
right = codec.restore
def wrong(*given):
    data, stream = right(*given)
    return {result}
codec.restore = wrong"""


PRODUCTS = """
from bitlaw.compression import scoring
other = scoring.score_by_products
def off_by_one(*given):
    scores = other(*given)
    scores.frequencies[-1] += 1
    return scores
scoring.score_by_products = off_by_one"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (RESTORE.format(result="b'', stream"), "decode check failed: the stream decodes to other bytes"),
        (RESTORE.format(result="data, stream[:-1]"), "decode check failed: the decoder met other intervals"),
        (PRODUCTS, "decode check failed: the engines of exact arithmetic give different intervals"),
        ("def die(*given):\n    import os\n    os._exit(9)\ncodec.restore = die", "BrokenProcessPool"),
    ],
)
@pytest.mark.parametrize("precision", ["exact", "fp32"])
def test_a_cell_that_does_not_decode_leaves_no_result(data, tmp_path, neox_folder, precision, before, message):
    if precision != "exact" and before == PRODUCTS:
        pytest.skip("other precisions have one engine")
    ran, about = compress(data, neox_folder, tmp_path, before, precision=precision)
    assert ran.returncode != 0 and about is None
    assert message in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_cell_in_exact_arithmetic_imports_no_torch(data, tmp_path, neox_folder):
    after = "import atexit; atexit.register(lambda: print('torch' in sys.modules, 'transformers' in sys.modules))"
    ran, about = compress(data, neox_folder, tmp_path, after, precision="exact")
    assert ran.returncode == 0 and about["mode"] == "exact", ran.stderr
    assert ran.stdout.split() == ["False", "False"] * ran.stdout.count("\n")


# passes for a GPU: digits are computed on the processor, and no driver is asked
PRETENDED = """
from contextlib import nullcontext
from bitlaw.models.exact import digits
from bitlaw.runtime import cuda, gpu, gpu_memory
gpu.lease = lambda device: nullcontext(lambda: print("lease ends"))
gpu.failures = lambda device: nullcontext()
cuda.check, cuda.peak_memory, cuda.about = lambda device: None, lambda device: {}, lambda device: {"name": "none"}

gpu_memory.tokens_at_a_time = lambda model, longest: 4 * longest
made = digits.Digits.__init__
def on_the_processor(self, weights, description, context, device):
    print("digits for", device)
    made(self, weights, description, context, "cpu")
digits.Digits.__init__ = on_the_processor
"""
DIFFERENT = """
from bitlaw.models.exact import arithmetic_torch
right = arithmetic_torch.linear
arithmetic_torch.linear = lambda *given: right(*given) * 1.0000001
"""


def test_a_cell_on_a_gpu_gives_the_stream_of_the_processor(data, tmp_path, neox_folder):
    """Scored by digits there, decoded by the loops in another process, which imports no torch."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    _, alone = compress(data, neox_folder, one, precision="exact")
    ran, about = compress(data, neox_folder, other, PRETENDED, precision="exact", device="cuda")
    assert ran.returncode == 0, ran.stderr
    *computed, last, _ = ran.stdout.split("\n")
    assert set(computed) == {"digits for cuda"} and last == "lease ends"  # the processor decodes
    assert about["stream_sha256"] == alone["stream_sha256"] and about["cr_lossless"] == alone["cr_lossless"]
    assert about["mode"] == "exact" and about["device"] == "cuda" and about["decode_check"]["passed"]
    assert "torch" in about["versions"] and "torch" not in alone["versions"]


def test_a_gpu_that_computes_something_else_is_refused(data, tmp_path, neox_folder):
    ran, about = compress(data, neox_folder, tmp_path, PRETENDED + DIFFERENT, precision="exact", device="cuda")
    assert about is None and list(tmp_path.iterdir()) == []
    line = ran.stderr.rstrip().splitlines()[-1]
    assert "precision exact on device cuda: int8 digits on cuda gives other integers for the known answer" in line


HELD = """
import gc, weakref
from bitlaw.models import gpt_neox
from bitlaw.runtime import cuda
held, made = [], gpt_neox.NeoX.__init__
def noted(self, *given, **named):
    made(self, *given, **named)
    held.append(weakref.ref(self.embedding))
gpt_neox.NeoX.__init__ = noted
def give_back(device):
    gc.collect()
    print(len(held), "loaded,", sum(embedding() is not None for embedding in held), "held")
cuda.give_back_memory = give_back
"""


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_encoder_holds_no_weights_when_the_decoder_loads_them(data, tmp_path, neox_folder, precision):
    ran, _ = compress(data, neox_folder, tmp_path, HELD, precision=precision)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "1 loaded, 0 held\n"  # in int8 the published pass has the same weights


SHORT = """
import torch
from bitlaw.compression import lockstep
right = lockstep.encode
def short(model, ids, batch):
    if batch > {room}:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return right(model, ids, batch)
lockstep.encode = short
from bitlaw.runtime import logs
logs.log_to("{log}")
"""


def test_as_many_chunks_are_coded_by_steps_as_there_is_memory_for(data, tmp_path, neox_folder):
    (tmp_path / "out").mkdir()
    before = SHORT.format(room=1, log=tmp_path / "log")
    ran, about = compress(data, neox_folder, tmp_path / "out", before, verify=3)
    assert ran.returncode == 0, ran.stderr
    assert about["decode_check"]["passed"] and about["decode_check"]["chunks"] == 3
    assert "out of memory at 3 chunks at a time: trying 1" in (tmp_path / "log").read_text()


def test_a_chunk_by_steps_that_does_not_fit_is_one_line(data, tmp_path, neox_folder):
    (tmp_path / "out").mkdir()
    ran, about = compress(data, neox_folder, tmp_path / "out", SHORT.format(room=0, log=tmp_path / "log"))
    assert ran.returncode != 0 and about is None and list((tmp_path / "out").iterdir()) == []
    line = "cpu: one chunk by steps does not fit in its memory; end what else runs there, or choose another device or "
    assert ran.stderr.rstrip().splitlines()[-1].startswith(line)


@pytest.mark.parametrize("published", ["fp32", "int8"])
def test_the_published_number_may_have_a_precision_of_its_own(data, tmp_path, neox_folder, published):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    _, alone = compress(data, neox_folder, one, precision="exact", published="exact")
    ran, about = compress(data, neox_folder, other, precision="exact", published=published)
    assert ran.returncode == 0, ran.stderr
    assert alone["audit_quantisation"] == 0 and "quantisation" not in alone
    assert about["stream_sha256"] == alone["stream_sha256"] and about["cr_lossless"] == alone["cr_lossless"]
    assert (about["precision"], about["precision_published"]) == ("exact", published)
    assert about["quantisation"]["bits_apart_per_token"]["max"] > 0 and about["audit_quantisation"] != 0
    terms = [value for name, value in about.items() if name.startswith("audit_")]
    assert about["cr_published"] + sum(terms) == pytest.approx(about["cr_lossless"], abs=1e-12)


STEPS = """
import numpy as np
from bitlaw.compression import cell, lockstep
right = lockstep.encode
lockstep.encode = lambda *given: [{change} for own in right(*given)]
"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            STEPS.format(change="own * np.array([[1], [1], [2]], own.dtype)") + "cell.MOST_APART = {'fp32': 9.0}",
            "the model's two passes differ by more than 0.01 %",
        ),
        # the same code lengths for other tokens: the total says nothing
        (STEPS.format(change="own[:, ::-1]"), "decode check failed: by steps a token costs"),
    ],
)
def test_steps_that_disagree_with_one_pass_are_refused(data, tmp_path, gpt2_folder, before, message):
    ran, about = compress(data, gpt2_folder, tmp_path, before)
    assert about is None and message in ran.stderr and list(tmp_path.iterdir()) == []


def test_tokens_of_another_tokenizer_are_refused(data, tmp_path, neox_folder):
    ids, *_ = tokens.read(data / "tokens.npz")
    spelling = [bytes([i % 128]) for i in range(1000)]
    tokens.write(tmp_path / "tokens.npz", [i * 0 + 999 for i in ids], spelling, "0" * 64)
    (tmp_path / "out").mkdir()
    ran, about = compress(data, neox_folder, tmp_path / "out", token_file=tmp_path / "tokens.npz")
    assert about is None and "tokens.npz: token 999, but" in ran.stderr
