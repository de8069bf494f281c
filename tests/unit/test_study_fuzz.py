"""Whatever a configuration holds, it is refused in one line or can be planned: never a traceback."""

import copy
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitlaw import InputError, study
from repository import ROOT


def merged(name):
    """The study `name` over config.yaml, as Snakemake merges them."""

    def merge(base, over):
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                merge(base[key], value)
            else:
                base[key] = value
        return base

    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    return merge(config, yaml.safe_load((ROOT / f"workflow/studies/{name}.yaml").read_text())) if name else config


STUDIES = [merged(name) for name in ("", *(path.stem for path in (ROOT / "workflow/studies").glob("*.yaml")))]
TEXTS = [
    "",
    "text",
    "a\n",
    "../x",
    "/x",
    "**",
    "{",
    "}",
    "{}",
    "{0}",
    "{nme}",
    "{name}",
    "{step",
    "{name:>9}",
    "{name.x}",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.sampled_from([2**63, 10**30, 1e400, float("nan"), 2.0, 24.5])
    | st.sampled_from(TEXTS)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS = sorted(
    {
        key
        for part in [study.SCHEMA.read_text()]
        for key in json.dumps(yaml.safe_load(part)).replace('"', " ").replace(":", " ").split()
        if key.isidentifier()
    }
)


def places(value, path=()):
    """Paths of all that lies in a nested value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw):
    config = copy.deepcopy(draw(st.sampled_from(STUDIES)))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from([path for path in places(config) if path]))
        at = config
        for key in path:
            at = at[key]
        what = draw(st.sampled_from(["replace", "remove", "add", "double", "rename"]))
        if what == "replace":
            at[last] = draw(VALUES)
        elif what == "remove" and len(config) > 1:
            del at[last]
        elif what == "double" and isinstance(at, list):
            at.append(copy.deepcopy(at[last]))
        elif what == "rename" and isinstance(at, dict):
            at[draw(st.sampled_from(KEYS) | st.integers(0, 2) | st.none() | st.booleans())] = at.pop(last)
        elif isinstance(at, dict):
            at[draw(st.sampled_from(KEYS))] = draw(VALUES)
    return config


def plan(config):
    """All that the Snakefile asks of a configuration."""
    datasets, raws = study.datasets(config), study.raws(config)
    study.protocols(config), study.nominal(config), study.has_law(config)
    assert all(type(number) is int for number in (config["chunks"], config["chunk_bytes"], *config["steps"]))
    for name in study.arrays(config):
        assert name.endswith(".npy")
    if "cells_from" in config:
        return
    for key, settings_ in datasets.items():
        assert study.raw(config, key) in raws and settings_["source"] in config["sources"]
    for modality, model, step in study.cells(config):
        entry = study.by_name(config, "models", model)
        for path in (
            study.dataset(config, modality),
            study.checkpoint(config, model, step),
            study.tokenizer(config, entry["tokenizer"]),
            study.revision(config, model, step) if "repo" in entry else "-",
        ):
            assert path and not {"{", "}", "\n"} & set(path), path


@pytest.mark.parametrize("config", STUDIES, ids=lambda config: config["study"])
def test_every_study_can_be_planned(config):
    study.check(config)
    plan(config)


def refused_or_planned(config):
    try:
        study.check(config)
    except InputError as error:
        assert str(error).startswith("config") and "\n" not in str(error) and len(str(error)) < 2000
    else:
        plan(config)


QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@settings(max_examples=200, **QUICK)
@given(mutated())
def test_a_mutated_configuration_is_refused_in_one_line_or_planned(config):
    refused_or_planned(config)


@pytest.mark.slow
@settings(max_examples=5000, **QUICK)
@given(mutated())
def test_thousands_of_mutated_configurations_are_refused_in_one_line_or_planned(config):
    refused_or_planned(config)
