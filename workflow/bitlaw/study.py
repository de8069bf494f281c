"""A study's configuration: checked against its schema, and the paths and settings that follow from it.

The Snakefile and each of its jobs read this at start-up, so it imports nothing heavy.
"""

import math
import re
from functools import cache
from pathlib import Path, PurePosixPath

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from bitlaw import InputError

PROTOCOLS = ("lossless", "published")  # under which a cell has a ratio, cr_<protocol>
CHUNKS_IN_AN_ARRAY = 256  # of a folder of shards (bitlaw.data.shards, which loads too much for a job's start)
SCHEMA = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"


def check(config):
    """Raise InputError with one line (which key, what was given, what is allowed) unless `config` is a study."""
    _plain(config)
    error = best_match(_validator().iter_errors(config))
    if error is not None:
        raise InputError(_line(error))
    for kind in ("modalities", "models"):
        names = [entry["name"] for entry in config[kind]]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"config: {kind}: the name {name!r} is given twice; names must differ")
    for i, model in enumerate(config["models"]):
        for key in {"folder", "revision"} & set(model):
            if set("{}") & set(_filled(model[key], "", "")):
                raise InputError(
                    f"config: models[{i}].{key}: {model[key]!r} given; allowed in braces: {{name}} and {{step}} alone"
                )
    for name, source in config["sources"].items():
        pattern = PurePosixPath(source.get("pattern", "*"))
        if pattern.is_absolute() or ".." in pattern.parts:
            raise InputError(
                f"config: sources.{name}.pattern: {source['pattern']!r} given; files are looked for below `folder`: "
                "give a pattern without a leading / and without .."
            )
    if "cells_from" in config:
        if "compare_with" in config:
            raise InputError(
                "config: compare_with: given with cells_from; published cells are not compared to themselves"
            )
        return
    for i, modality in enumerate(config["modalities"]):
        _known(f"modalities[{i}].source", modality["source"], config["sources"])
        _fits(f"modalities[{i}]", modality, config["sources"][modality["source"]])
        if modality["cut"] == "image" and config["chunk_bytes"] != 2048:
            raise InputError(f"config: chunk_bytes: {config['chunk_bytes']} given; image patches (32×64) need 2048")
    for i, model in enumerate(config["models"]):
        _known(f"models[{i}].tokenizer", model["tokenizer"], config["tokenizers"])
        revisions = [revision(config, model["name"], step) for step in config["steps"]] if "repo" in model else []
        for name in model.get("commits", {}):
            _known(f"models[{i}].commits", name, revisions)
        if "gguf" in model:
            _known(f"models[{i}].gguf", model["gguf"], config["sources"])
            if len(config["steps"]) > 1:
                raise InputError(
                    f"config: steps: {config['steps']} given; models[{i}] is a GGUF file, one checkpoint: give one step"
                )
    given = len(nominal(config))
    if given not in (0, len(config["models"])):
        raise InputError(f"config: models: `nominal` is given for {given} of {len(config['models'])}; give all or none")
    if config.get("params") == "nominal" and not given:
        raise InputError("config: params: 'nominal' given; then every model needs the key `nominal`")
    if "after_other" in config["controls"] and config["chunks"] < 2:
        raise InputError(f"config: chunks: {config['chunks']} given; the control after_other needs 2 or more")


def check_file(path):
    """Raise InputError for a mapping in the YAML file `path` that has a key twice: YAML would take the last one.

    Reads nothing else out of it; what is no YAML or has another encoding Snakemake has refused before.
    """
    todo = [yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    line = key.start_mark.line + 1
                    raise InputError(f"config: {path}, line {line}: the key {name!r} is given twice; remove one")
                seen.add(name)
                todo.append(value)


def _fits(key, modality, source):
    """A modality against its own cut, and against a source that is streamed until its first items hold the chunks."""
    needed = {"image": ("cut", "patches"), "speech": ("cut", "rate"), "crop": ("patches", "seed")}
    needed["spread"] = needed["even"] = ("sampling", "seed")
    for value, (setting, missing) in needed.items():
        if modality.get(setting) == value and missing not in modality:
            raise InputError(f"config: {key}: the key {missing!r} is missing; `{setting}: {value}` needs it")
    if "range" in modality and modality["range"][0] >= modality["range"][1]:
        raise InputError(f"config: {key}.range: {modality['range']} given; the end comes after the beginning")
    allowed = {"cut": ["image", "speech"], "sampling": ["head"]} if "dataset" in source else {}
    for setting, values in allowed.items():
        if modality[setting] not in values:
            raise InputError(
                f"config: {key}.{setting}: {modality[setting]!r} given; allowed: {', '.join(values)}, as the source "
                f"{modality['source']!r} is a data set on the Hub, of which the first items are taken"
            )


def _plain(value, key=""):
    """Refuse what no key of a configuration may hold: names that are no text, control characters, infinite numbers.

    YAML reads a bare `no` or `1` before a colon as a truth value or a number; a name that ends in a line feed would
    pass a pattern's `$`. Licences are prose.
    """
    where = key or "(top level)"
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise InputError(f"config: {where}: the key {name!r} given; keys are text: put it in quotation marks")
            _plain(name, where)
            _plain(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _plain(inner, f"{key}[{i}]")
    elif isinstance(value, str) and not key.endswith(".licence") and not value.isprintable():
        raise InputError(f"config: {where}: {value!r} given; allowed: text without line feeds and control characters")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"config: {where}: {value!r} given; allowed: a finite number")


@cache
def _validator():
    """Of the schema; an integer is written as one, as 24.0 chunks would be counted but not printed like 24."""
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return extend(Draft202012Validator, type_checker=types)(yaml.safe_load(SCHEMA.read_text()))


def _filled(pattern, model, step):
    """`pattern` with {name} and {step} filled in."""
    filling = {"{name}": str(model), "{step}": str(step)}
    return re.sub(r"\{(?:name|step)\}", lambda found: filling[found[0]], pattern)


def _known(key, value, allowed):
    if value not in allowed:
        raise InputError(f"config: {key}: {value!r} given; allowed: {', '.join(sorted(allowed))}")


def _line(error):
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".") or "(top level)"
    if error.validator == "additionalProperties":
        allowed = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(allowed))
        return f"config: {key}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"config: {key}: the key {missing[0]!r} is missing; required: {', '.join(error.validator_value)}"
    if error.validator == "dependentRequired":
        needs = [(name, other) for name, others in error.validator_value.items() for other in others]
        name, other = next((n, o) for n, o in needs if n in error.instance and o not in error.instance)
        return f"config: {key}: the key {other!r} is missing; {name!r} needs it"
    if error.validator == "oneOf":
        ways = " | ".join(" and ".join(way["required"]) for way in error.validator_value)
        return f"config: {key}: {sorted(error.instance)} given; exactly one of these is needed: {ways}"
    allowed = {
        "enum": lambda v: ", ".join(map(str, v)),
        "anyOf": lambda ways: " or ".join(", ".join(way["enum"]) if "enum" in way else way["type"] for way in ways),
        "type": str,
        "minimum": lambda v: f"{v} or more",
        "maximum": lambda v: f"{v} or less",
        "minLength": lambda v: f"{v} characters or more",
        "minItems": lambda v: f"{v} entries or more",
        "maxItems": lambda v: f"{v} entries or fewer",
        "pattern": lambda v: f"text that matches {v}",
        "uniqueItems": lambda v: "no entry twice",
    }
    rule = allowed.get(error.validator, str)(error.validator_value)
    return f"config: {key}: {error.instance!r} given; allowed: {rule}"


def by_name(config, kind, name):
    """The entry called `name` of the list config[kind] ("modalities" or "models")."""
    return next(entry for entry in config[kind] if entry["name"] == name)


def dataset(config, modality):
    """Key of a modality's chunks: its source and all of its sampling, so that studies never share by mistake."""
    m = by_name(config, "modalities", modality)
    parts = [m["source"], m["cut"]]
    if "range" in m:
        parts.append("{}to{}".format(*m["range"]))
    parts += [m.get("patches", ""), m["sampling"], f"{config['chunks']}x{config['chunk_bytes']}"]
    if m["sampling"] in ("spread", "even") or m.get("patches") == "crop":
        parts.append(f"seed{m['seed']}")
    if m["cut"] == "speech":
        parts.append(f"{m.get('rate', 16000)}hz" + ("-converted" if m.get("convert") else ""))
    named = {"name", "source", "cut", "range", "patches", "sampling", "seed", "rate", "convert"}
    parts += [f"{key}{m[key]}" for key in sorted(m.keys() - named)]  # a setting of a new cut
    return "-".join(filter(None, parts))


def datasets(config):
    """Dataset key → the settings that `shards.cut` takes."""
    if "cells_from" in config:
        return {}
    return {
        dataset(config, m["name"]): {k: v for k, v in m.items() if k != "name"} | {"chunks": config["chunks"]}
        for m in config["modalities"]
    }


def arrays(config):
    """Names of the arrays that the chunks of each modality are stored in, beside their manifest."""
    return [f"shard-{i:05d}.npy" for i in range(math.ceil(config["chunks"] / CHUNKS_IN_AN_ARRAY))]


def protocols(config):
    """The protocols that the study's cells have a ratio under."""
    return ("published",) if "cells_from" in config else PROTOCOLS


def raw(config, key):
    """Folder under data/raw with the source of the dataset key `key`.

    A data set on the Hub has one folder for each dataset key: what a study streams of it depends on that study alone.
    """
    name = datasets(config)[key]["source"]
    return key if "dataset" in config["sources"][name] else name


def raws(config):
    """Folder under data/raw → what `sources.fetch` takes: name, source, and what is wanted of it (None: all of it)."""
    sources, size = config["sources"], {"chunk_bytes": config["chunk_bytes"]}
    found = {
        n: {"name": n, "source": source, "wanted": None} for n, source in sources.items() if "dataset" not in source
    }
    for key, settings in datasets(config).items():
        if (folder := raw(config, key)) not in found:
            name = settings["source"]
            found[folder] = {"name": name, "source": sources[name], "wanted": settings | size}
    return found


def checkpoint(config, model, step):
    """Folder of one checkpoint."""
    entry = by_name(config, "models", model)
    if "gguf" in entry:
        return f"data/models/gguf/{entry['gguf']}"
    return _filled(entry.get("folder", "data/models/{name}/step{step}"), model, step)


def revision(config, model, step):
    """Revision of one checkpoint of a model on the Hub."""
    return _filled(by_name(config, "models", model)["revision"], model, step)


def tokenizer(config, name):
    """Path of the tokenizer.json called `name`."""
    entry = config["tokenizers"][name]
    return entry if isinstance(entry, str) else f"data/tokenizers/{name}/tokenizer.json"


def published_precision(config):
    """The precision of the published protocol's pass: that of the stream where the study names no other."""
    return config.get("precision_published", config["precision"])


def nominal(config):
    """Model to nominal count of parameters; empty when the study gives none."""
    return {model["name"]: model["nominal"] for model in config["models"] if "nominal" in model}


def cells(config):
    """Every cell of the study, (modality, model, step), in the order of the config."""
    return [
        (modality["name"], model["name"], step)
        for modality in config["modalities"]
        for model in config["models"]
        for step in config["steps"]
    ]


def has_law(config):
    """Whether the grid is large enough for a law: a constant and a power need three sizes and three steps."""
    return len(config["models"]) >= 3 and len(config["steps"]) >= 3
