"""A token in front of every window: never coded, one position of context, and the first token is predicted."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bitlaw import InputError
from bitlaw.compression import accounting, codec, lockstep, scoring, stream_format
from bitlaw.data import seven_bit, tokens
from bitlaw.models import checkpoint
from cell_process import compress

PREFIX = 7
WAYS = {"exact": ("neox_folder", "exact"), "floats": ("neox_folder", "fp32"), "foreign": ("gpt2_folder", "fp32")}


@pytest.fixture(params=WAYS)
def way(request):
    """(folder, precision) of each way to compute."""
    folder, precision = WAYS[request.param]
    return request.getfixturevalue(folder), precision


def test_windows_with_a_prefix_score_every_token_and_keep_a_position_for_it():
    for count in (0, 1, 2, 8, 9, 31):
        found = scoring.windows(count, 9, PREFIX)
        assert [i for w in found for i in range(w.first, w.end)] == list(range(count))
        assert all(w.end - w.begin <= 8 for w in found)
        assert [w.begin for w in found] == [4 * k for k in range(len(found))]
    assert scoring.windows(9, 9) == [(0, 9, 1)]


def test_every_token_is_predicted_from_the_prefix_and_its_window(way):
    folder, precision = way
    if precision == "exact":
        pytest.skip("exact arithmetic is compared with floats below")
    model = checkpoint.load(folder, precision, prefix=PREFIX)
    ids = np.random.default_rng(3).integers(0, model.vocabulary, 2 * model.context + 5)
    (scores,) = scoring.score(model, [ids], 3000)
    room, half = model.context - 1, (model.context - 1) // 2
    for i in (0, 1, half, room - 1, room, room + half, len(ids) - 1):
        begin = 0 if i < room else (i - room) // half * half + half
        fed = torch.tensor([[PREFIX, *ids[begin:i]]])
        assert fed.shape[1] <= model.context
        logits = model.head(model.hidden(fed)[0])[-1].double()
        expected = -torch.log_softmax(logits, -1)[ids[i]].item() / math.log(2)
        assert scores.lengths[i] == pytest.approx(expected, abs=1e-4)


def test_exact_arithmetic_and_floats_agree_on_what_a_prefix_does(neox_folder):
    both = [checkpoint.load(neox_folder, precision, prefix=PREFIX) for precision in ("exact", "fp32")]
    ids = np.random.default_rng(3).integers(0, both[0].vocabulary, 2 * both[0].context + 5)
    exact, floats = (scoring.score(model, [ids], 3000)[0] for model in both)
    assert np.abs(exact.lengths - floats.lengths).mean() < 0.005
    assert np.array_equal(scoring.score_by_products(both[0], ids)[:3], exact[:3])


def test_what_is_coded_behind_a_prefix_decodes(way, passage):
    folder, precision = way
    model = checkpoint.load(folder, precision, prefix=PREFIX)
    tokenizer, spelling, _ = tokens.open_tokenizer(folder / "tokenizer.json")
    size = 200 if precision == "fp32" else 1200  # longer than a context of 64 and of 320 tokens
    chunks = [b"", b"A", passage.encode()[:size], bytes(range(256))]
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    about = checkpoint.describe(folder)["weights_sha256"], tokens.open_tokenizer(folder / "tokenizer.json")[2]
    header = codec.header(model, *about, precision, len(chunks))
    if precision == "exact":
        records = [codec.record(*pair) for pair in zip(chunks, (s[:3] for s in scoring.score(model, ids, None)))]  # noqa: B905
    else:
        records = codec.encode_lockstep(model, header, chunks, ids)
    stream = stream_format.pack(header, records)
    assert stream[4] == stream_format.FRAMED and stream_format.unpack(stream)[0].prefix == PREFIX
    assert codec.restore(stream, folder, folder / "tokenizer.json") == (b"".join(chunks), stream)
    without = stream_format.pack(header._replace(prefix=None), records)
    with pytest.raises((InputError, stream_format.CorruptStream)):
        codec.restore(without, folder, folder / "tokenizer.json")


def test_steps_behind_a_prefix_cost_what_one_pass_says(gpt2_folder):
    model = checkpoint.load(gpt2_folder, prefix=PREFIX)
    ids = np.random.default_rng(4).integers(0, model.vocabulary, 150)
    (intervals,), (scores,) = lockstep.encode(model, [ids], 1), scoring.score(model, [ids], 1000)
    apart = np.log2(intervals[2] / intervals[1]) - accounting.ideal_bits(scores)
    assert len(apart) == 150 and np.abs(apart).max() < 1e-3


@pytest.mark.parametrize("prefix", [-1, 304, 10**6])
def test_a_prefix_that_the_model_does_not_know_is_refused(neox_folder, prefix):
    with pytest.raises(InputError, match=rf"bos {prefix} given, but the model knows the tokens 0 to 303"):
        checkpoint.load(neox_folder, "exact", prefix=prefix)


@pytest.mark.parametrize("precision", ["exact", "fp32"])
def test_a_cell_with_a_prefix(data, neox_folder, tmp_path, precision):
    """The published ratio never has one; the audit's first-token term says what it buys, and all terms add up."""
    cells = {}
    for bos in ("auto", PREFIX):
        (tmp_path / str(bos)).mkdir()
        ran, about = compress(data, neox_folder, tmp_path / str(bos), precision=precision, bos=bos)
        assert ran.returncode == 0, ran.stderr
        cells[bos] = about
        terms = sum(about[term] for term in accounting.AUDIT_TERMS)
        assert about["cr_lossless"] - about["cr_published"] == pytest.approx(terms, abs=1e-12)
    plain, fronted = cells["auto"], cells[PREFIX]
    assert plain["bos"] is None and fronted["bos"] == PREFIX and plain["context"] == fronted["context"] == 320
    # in floating point the pass without a prefix gives code lengths alone, within 1e-5 bit a token
    apart = 0 if precision == "exact" else 1e-6
    for term in ("cr_published", "audit_probabilities", "audit_past_1024", "audit_top_bits"):
        assert fronted[term] == pytest.approx(plain[term], rel=0, abs=apart)
    rows = {bos: pq.read_table(tmp_path / f"{bos}/step1.parquet").to_pylist() for bos in cells}
    for row, before in zip(rows[PREFIX], rows["auto"], strict=True):
        assert before["bits_prefix"] == 0 and row["bits_prefix"] != 0
        assert before["bits_first_token"] == pytest.approx(math.log2(304)) != row["bits_first_token"]
    assert fronted["decode_check"]["passed"]
