"""Known answers: every engine gives those of the table, and the tiny models are what docs/portability.md says."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from bitlaw import InputError
from bitlaw.compression import known_answers
from bitlaw.models.exact.families import FAMILIES

TABLE = known_answers.read_table()
TINY = [f"tiny/{family}" for family in TABLE["tiny"]]
SOME = ["ladder-64k/step75", "ladder-331k/step1200", "ladder-1.9m/step300"]
ENGINES = ["scoring", "float64 products", "decoding"]


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ON_TORCH = {f"digits on {device}": known_answers.by_digits(device) for device in DEVICES}


def check(names):
    for name, expected, found in known_answers.compute(TABLE, names, known_answers.ENGINES | ON_TORCH):
        assert found == dict.fromkeys([*ENGINES, *ON_TORCH], expected), name


@pytest.mark.parametrize("name", [*TINY, *SOME])
def test_every_engine_gives_the_known_answer(name):
    check([name])


@pytest.mark.slow
def test_every_engine_gives_every_known_answer():
    check(known_answers.all_names(TABLE))


def test_the_table_answers_for_each_family_and_each_checkpoint_of_the_ladder():
    names = known_answers.models_here(TABLE)
    assert names == list(TABLE["answers"]) == known_answers.all_names(TABLE)
    assert set(names) == set(TABLE["answers"]) and len(names) == len(TINY) + 25
    assert list(TABLE["tiny"]) == list(FAMILIES)


@pytest.mark.parametrize("family", TABLE["tiny"])
def test_tiny_models_are_those_of_transformers(family):
    made = TABLE["tiny"][family]
    config = AutoConfig.for_model(**made["config"])
    model = AutoModelForCausalLM.from_config(config)
    theirs = {name: "x".join(map(str, tensor.shape)) for name, tensor in model.named_parameters()}
    head = "embed_out" if family == "gpt_neox" else "lm_head"  # which of two names it has depends on the release
    ours = {name.replace(head, "lm_head"): shape for name, shape in made["tensors"].items()}
    assert ours == theirs


def slow_numbers():
    """The numbers of docs/portability.md, one by one, in Python's integers."""
    mask, state = (1 << 64) - 1, 0
    while True:
        state = state + 0x9E3779B97F4A7C15 & mask
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        yield ((z ^ z >> 31) >> 48) - 32768


@pytest.mark.parametrize("family", ["gpt_neox", "qwen3"])
def test_weights_are_made_from_integers_as_documented(tmp_path, family):
    folder = known_answers.model_folder(TABLE, f"tiny/{family}", tmp_path)
    assert json.loads((folder / "config.json").read_text()) == TABLE["tiny"][family]["config"]
    read, numbers = load_file(folder / "model.safetensors"), slow_numbers()
    assert list(read) and read.keys() == TABLE["tiny"][family]["tensors"].keys()
    for name in sorted(read):
        shape = tuple(int(n) for n in TABLE["tiny"][family]["tensors"][name].split("x"))
        own = [next(numbers) for _ in range(int(np.prod(shape)))]
        if len(shape) == 2:
            values = [n / 65536 for n in own]
        else:
            values = [n / 131072 + ("norm" in name and name.endswith("weight")) for n in own]
        assert read[name].dtype == np.float32 and read[name].shape == shape
        assert read[name].ravel().tolist() == values, name


def test_an_answer_is_the_hash_of_little_endian_integers():
    intervals = np.array([[0, 1 << 40], [1, 2], [3, 1 << 41]], dtype=np.uint64)
    expected = b"".join(int(n).to_bytes(8, "little") for row in intervals for n in row)
    assert known_answers.answer(*intervals) == hashlib.sha256(expected).hexdigest()


def test_another_weight_is_another_answer(tmp_path, monkeypatch):
    ladder = tmp_path / "ladder" / "ladder-64k" / "step75"
    shutil.copytree(known_answers.DATA / "ladder" / "ladder-64k" / "step75", ladder)
    data = bytearray((ladder / "model.safetensors").read_bytes())
    data[-1] ^= 0x01  # an exponent's lowest bit, or next to it
    (ladder / "model.safetensors").write_bytes(data)
    monkeypatch.setattr(known_answers, "DATA", tmp_path)
    ((_, expected, found),) = known_answers.compute(TABLE, ["ladder-64k/step75"])
    assert len(set(found.values())) == 1 and expected not in found.values()


def broken(model, ids):
    starts, frequencies, totals = known_answers.by_scoring(model, ids)
    return starts, frequencies, totals + np.uint64(1)


def failing(model, ids):
    raise RuntimeError("no such kernel")


def test_an_engine_that_fails_does_not_hide_the_others():
    engines = known_answers.ENGINES | {"broken": broken, "failing": failing}
    ((_, expected, found),) = known_answers.compute(TABLE, ["tiny/qwen2"], engines)
    assert [found[engine] for engine in ENGINES] == [expected] * 3
    assert found["broken"] != expected and str(found["failing"]) == "no such kernel"


def test_a_device_that_computes_the_known_answers_passes():
    known_answers.check("cpu")


@pytest.mark.parametrize(
    ("engine", "words"), [(broken, "gives other integers"), (failing, r"fails \(no such kernel\)")]
)
def test_a_device_that_does_not_is_refused_in_one_line(monkeypatch, engine, words):
    monkeypatch.setattr(known_answers, "by_digits", lambda device: engine)
    with pytest.raises(InputError, match=f"^precision exact on device cuda: int8 digits on cuda {words} for the known "
                       "answer tiny/gpt_neox; choose another device or precision, ") as refused:  # fmt: skip
        known_answers.check("cuda")
    assert "\n" not in str(refused.value)


def test_refreshing_writes_what_is_there_and_nothing_where_engines_differ(tmp_path, monkeypatch):
    table = tmp_path / "table.json"
    monkeypatch.setattr(known_answers, "models_here", lambda table: ["tiny/qwen2", "ladder-64k/step75"])
    table.write_text(json.dumps(TABLE | {"answers": {"gone": "0"}, "arithmetic": 0}))
    known_answers.refresh(table)
    answers = {name: TABLE["answers"][name] for name in ("tiny/qwen2", "ladder-64k/step75")}
    assert json.loads(table.read_text()) == TABLE | {"answers": answers}

    before = table.read_bytes()
    monkeypatch.setitem(known_answers.ENGINES, "float64 products", broken)
    with pytest.raises(RuntimeError, match="tiny/qwen2: the engines differ"):
        known_answers.refresh(table)
    assert table.read_bytes() == before and list(tmp_path.iterdir()) == [table]


def test_a_checkpoint_that_is_not_there_is_no_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(known_answers, "DATA", tmp_path)
    names = known_answers.all_names(TABLE)
    assert names == list(TABLE["answers"])
    ((_, _, found),) = known_answers.compute(TABLE, names[-1:])
    assert list(found) == ENGINES and all("config.json: no readable" in str(error) for error in found.values())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "no table of known answers"),
        ("{", "no table of known answers"),
        ("[]", "no table of known answers"),
        (json.dumps(TABLE | {"arithmetic": 7}), "answers of version 7 of the exact arithmetic"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, line):
    path = tmp_path / "known_answers.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=line) as refused:
        known_answers.read_table(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
