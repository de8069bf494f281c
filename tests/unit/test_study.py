"""The configuration: what is refused, in which words, and the paths that follow from it."""

import copy

import pytest
import yaml

from bitlaw import InputError, study
from repository import ROOT

EMBEDDED = yaml.safe_load((ROOT / "config.yaml").read_text())
HUB = {"name": "x", "repo": "a/b", "revision": "step{step}", "tokenizer": "ladder"}
SCHEMA = yaml.safe_load(study.SCHEMA.read_text())
SMOLLM2 = yaml.safe_load((ROOT / "workflow/studies/smollm2.yaml").read_text())
FOLDER = {"folder": "notes", "licence": "mine"}
GGUF = {"name": "big", "gguf": "enwik8", "tokenizer": "ladder"}


def changed(*path, value):
    config = copy.deepcopy(EMBEDDED)
    at = config
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return config


def test_the_embedded_study_is_valid():
    study.check(EMBEDDED)
    assert study.has_law(EMBEDDED)


@pytest.mark.parametrize(("key", "value"), [("bos", "auto"), ("bos", "none"), ("bos", 0), ("context", 3)])
def test_a_model_may_say_what_stands_in_front_and_how_long_its_windows_are(key, value):
    study.check(changed("models", 0, key, value=value))


def test_a_gguf_file_is_one_checkpoint_and_has_no_law():
    both = {key: EMBEDDED[key] | SMOLLM2[key] for key in ("sources", "tokenizers")}
    config = EMBEDDED | SMOLLM2 | both
    study.check(config)
    assert study.checkpoint(config, "smollm2-135m", 2_000_000) == "data/models/gguf/smollm2"
    assert config["tokenizers"]["smollm2"] == "data/models/gguf/smollm2/tokenizer.json"
    assert not study.has_law(config)
    assert not study.has_law(EMBEDDED | {"steps": [1, 2]}) and not study.has_law(EMBEDDED | {"models": [{}, {}]})


def test_a_model_on_the_hub_has_a_folder_a_revision_and_a_tokenizer_of_its_own():
    config = changed("models", value=[HUB | {"commits": {"step300": "a" * 40}, "nominal": 1000}])
    config["tokenizers"]["pythia"] = {"repo": "a/b", "revision": "main"}
    study.check(config)
    assert study.checkpoint(config, "x", 300) == "data/models/x/step300"
    assert study.revision(config, "x", 300) == "step300"
    assert study.nominal(config) == {"x": 1000}
    assert study.tokenizer(config, "pythia") == "data/tokenizers/pythia/tokenizer.json"
    assert study.tokenizer(config, "ladder") == "data/ladder/tokenizer.json"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed("chunk", value=3), ["'chunk'", "unknown key", "chunks"]),
        (changed("chunks", value=0), ["chunks", "0 given", "1 or more"]),
        (changed("models", 0, "bos", value="yes"), ["models[0].bos", "'yes' given", "auto, none or integer"]),
        (changed("models", 0, "bos", value=-1), ["models[0].bos", "-1 given"]),
        (changed("models", 0, "context", value=2), ["models[0].context", "2 given", "3 or more"]),
        (changed("chunks", value="many"), ["chunks", "'many'", "integer"]),
        (changed("precision", value="int3"), ["precision", "'int3'", "exact, fp32, bf16, fp16"]),
        (changed("steps", value=[]), ["steps", "[]", "1 entries or more"]),
        (changed("steps", value=[75, 75]), ["steps", "no entry twice"]),
        (changed("modalities", 0, "source", value="enwik9"), ["modalities[0].source", "'enwik9'", "enwik8"]),
        (changed("modalities", 1, "patch", value="all"), ["modalities[1]", "'patch'", "patches"]),
        (changed("modalities", 1, "name", value="text"), ["modalities", "'text'", "twice"]),
        (changed("models", 2, "tokenizer", value="gpt"), ["models[2].tokenizer", "'gpt'", "ladder"]),
        (changed("chunk_bytes", value=1024), ["chunk_bytes", "1024", "2048"]),
        (changed("models", 0, value=HUB | {"folder": "f"}), ["models[0]", "'folder'", "'repo'", "exactly one"]),
        (changed("models", 0, "commits", value={}), ["models[0]", "'repo' is missing", "'commits'"]),
        (
            changed("models", 0, value={"name": "x", "repo": "a/b", "tokenizer": "ladder"}),
            ["models[0]", "'revision'", "'repo'"],
        ),
        (changed("models", 0, value=HUB | {"repo": "a"}), ["models[0].repo", "'a'"]),
        (changed("models", 0, value=HUB | {"commits": {"step75": "abc"}}), ["models[0].commits.step75", "'abc'"]),
        (changed("models", 0, value=HUB | {"commits": {"s7": "a" * 40}}), ["models[0].commits", "'s7'", "step75"]),
        (changed("models", 0, "nominal", value=64_000), ["models", "nominal", "1 of 5"]),
        (changed("models", 0, "nominal", value="64e3"), ["models[0].nominal", "'64e3'", "integer"]),
        (changed("params", value="nominal"), ["params", "nominal", "every model"]),
        (changed("tokenizers", "ladder", value={"repo": "a/b"}), ["tokenizers.ladder", "'revision'", "missing"]),
        (changed("controls", value=["shuffle"]), ["controls[0]", "'shuffle'", "shuffled, after_other"]),
        (changed("chunks", value=1) | {"controls": ["after_other"]}, ["chunks", "1 given", "after_other needs 2"]),
        (changed("sources", "enwik8", "places", 0, "sha256", value="abc"), ["sources.enwik8.places[0]", "'abc'"]),
        (changed("sources", "random", value={"licence": "x"}), ["sources.random", "places", "folder", "generator"]),
        (changed("sources", "random", value={"folder": "x"}), ["sources.random", "'licence'", "missing"]),
        (changed("modalities", 0, value={"name": "text"}), ["modalities[0]", "'source'", "missing"]),
        (changed("models", 0, value={"name": "big", "nominal": 7e7}), ["models[0]", "'tokenizer'", "missing"]),
        (
            changed("models", 0, value={"name": "a", "tokenizer": "b"}),
            ["models[0]", "exactly one", "folder | repo | gguf"],
        ),
        (changed("models", 0, value=GGUF | {"folder": "f"}), ["models[0]", "exactly one", "folder | repo | gguf"]),
        (changed("models", 0, value=GGUF | {"gguf": "smol"}), ["models[0].gguf", "'smol'", "enwik8"]),
        (changed("models", 0, value=GGUF), ["steps", "[75, 150, 300, 600, 1200]", "models[0]", "GGUF", "one step"]),
        (changed("chunks", value=24.0), ["chunks", "24.0", "integer"]),
        (changed("chunks", value=10**18), ["chunks", "10000000 or less"]),
        (changed("modalities", 0, "sampling", value="spread"), ["modalities[0]", "'seed'", "sampling: spread"]),
        (changed("modalities", 0, "range", value=[5, 5]), ["modalities[0].range", "[5, 5]"]),
        (changed("modalities", 0, "name", value="text\n"), ["modalities[0].name", "'text\\n'", "line feeds"]),
        (changed("study", value="mine\n"), ["study", "'mine\\n'", "line feeds"]),
        (changed("models", 0, "folder", value="data/{nme}/x"), ["models[0].folder", "'data/{nme}/x'", "{name}"]),
        (changed("models", 0, "folder", value="data/{0}"), ["models[0].folder", "'data/{0}'", "{step}"]),
        (changed("models", 0, "folder", value="data/{name"), ["models[0].folder", "'data/{name'"]),
        (changed("models", 0, "folder", value="{name:>999999999}"), ["models[0].folder", "{step}"]),
        (changed("models", 0, value=HUB | {"revision": "{s}"}), ["models[0].revision", "'{s}'"]),
        (changed("sources", "mine", value=FOLDER | {"pattern": "/etc/*"}), ["sources.mine.pattern", "'/etc/*'"]),
        (changed("sources", "mine", value=FOLDER | {"pattern": "../*"}), ["sources.mine.pattern", "'../*'", "below"]),
        (changed("sources", "mine", value=FOLDER | {"pattern": ""}), ["sources.mine.pattern", "''"]),
        (changed("sources", "mine", value={"licence": "x", "generator": "uniform"}), ["sources.mine", "'bytes'"]),
        (changed("sources", "random", "seed", value=float("nan")), ["sources.random.seed", "nan", "finite"]),
        (changed("sources", 1, value=FOLDER), ["sources", "the key 1", "quotation marks"]),
        (changed("cells_from", value="here"), ["models[", "'total'", "missing"]),
        (changed("compare_with", value=""), ["compare_with", "''", "text that matches"]),
    ],
)
def test_impossible_values_are_refused_in_one_line(config, words):
    with pytest.raises(InputError) as caught:
        study.check(config)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chunks: 3\nsteps: [1]\nchunks: 4\n", ["line 3", "'chunks'", "twice"]),
        ("sources:\n  a: {folder: x, licence: y}\n  a: {folder: z, licence: y}\n", ["line 3", "'a'", "twice"]),
        ("models:\n  - {name: a, name: b}\n", ["line 2", "'name'", "twice"]),
    ],
)
def test_a_key_given_twice_is_refused_with_its_line(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        study.check_file(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *(ROOT / "workflow/studies").glob("*.yaml")], ids=lambda p: p.stem
)
def test_the_files_of_the_studies_have_no_key_twice(path):
    study.check_file(path)  # anchors that are merged (<<) are no second key


def every_key(schema, path=""):
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from every_key(inner, f"{path}.{name}")
        yield from every_key(inner.get("items", {}), f"{path}.{name}[]")
        if isinstance(inner.get("additionalProperties"), dict):
            yield from every_key(inner["additionalProperties"], f"{path}.{name}.*")


def test_every_key_of_the_schema_has_a_description():
    keys = list(every_key(SCHEMA))
    assert len(keys) > 30
    assert [path for path, inner in keys if len(inner.get("description", "")) < 10] == []


def test_datasets_of_different_sampling_never_share_a_folder():
    text = {"name": "x", "source": "enwik8", "cut": "bytes", "sampling": "head"}
    variants = [
        text,
        text | {"sampling": "spread", "seed": 0},
        text | {"sampling": "spread", "seed": 7},
        text | {"range": [0, 100]},
        text | {"source": "random"},
        {"name": "x", "source": "enwik8", "cut": "image", "patches": "crop", "sampling": "head", "seed": 1},
        {"name": "x", "source": "enwik8", "cut": "image", "patches": "all", "sampling": "head"},
        {"name": "x", "source": "enwik8", "cut": "speech", "sampling": "head"},
        {"name": "x", "source": "enwik8", "cut": "speech", "sampling": "head", "rate": 8000},
        {"name": "x", "source": "enwik8", "cut": "speech", "sampling": "head", "convert": True},
    ]
    keys = [study.dataset({"modalities": [v], "chunks": n, "chunk_bytes": 2048}, "x") for v in variants for n in (4, 8)]
    assert len(set(keys)) == 2 * len(variants)


def test_a_setting_of_a_new_cut_is_in_the_name_of_its_chunks():
    config = {"chunks": 4, "chunk_bytes": 2048, "modalities": [
        {"name": "a", "source": "tunes", "cut": "midi", "sampling": "head", "tracks": "all"},
        {"name": "b", "source": "tunes", "cut": "midi", "sampling": "head", "tracks": "first"},
    ]}  # fmt: skip
    assert study.dataset(config, "a") == "tunes-midi-head-4x2048-tracksall"
    assert study.dataset(config, "b") == "tunes-midi-head-4x2048-tracksfirst"
