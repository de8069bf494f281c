"""The page of a study: one HTML file that opens from disk, fetches nothing and holds everything that a reader asks for.

The template is workflow/report/page.html with page.css and page.js; `chart` makes the interactive figure,
`tables` the tables, `chunk_view` the look at the data.
"""

import base64
import html
import json
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import jinja2
import pandas as pd
import pyarrow.parquet as pq
import yaml

from bitlaw import InputError
from bitlaw.data import shards, tokens
from bitlaw.laws import formatting
from bitlaw.report import chart, chunk_view, findings, tables
from bitlaw.runtime.atomic import write_text
from bitlaw.runtime.hashing import digest

TEMPLATE = Path(__file__).parents[2] / "report"
MIME = {".svg": "image/svg+xml", ".png": "image/png"}
MOST_BYTES = 8_000_000  # what people can send to a colleague
VERSIONS = ("altair", "vl-convert-python", "matplotlib", "lmfit", "scipy", "numpy", "pandas")


@dataclass(frozen=True)
class Study:
    """The files of a study that its page is made from.

    config: the configuration, shown as it is; cells: tables/cells.csv; laws: {modality: json}, none
    where the grid of cells is too small for one; figure: the static
    figure (svg); citation: CITATION.cff; abouts: the cells' json, none where the study has no cells of its own;
    first_chunks: {modality: FirstChunk}; pictures: {name: path} of other figures, whose captions are
    workflow/report/<name>.rst; tables: {name: csv} of other stages, those of tables.OF_OTHER_STAGES.
    """

    config: dict
    cells: Path
    laws: dict
    figure: Path
    citation: Path
    abouts: list = field(default_factory=list)
    first_chunks: dict = field(default_factory=dict)
    pictures: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)


@dataclass(frozen=True)
class FirstChunk:
    """Where the first chunk of a modality is found: its shards, its tokens (npz), the parquet of a cell, its cut."""

    shards: Path
    tokens: Path
    cell: Path
    cut: str


def write(path, study):
    """Write the page of a Study to `path`; raises InputError when it would be larger than MOST_BYTES."""
    cells = pd.read_csv(study.cells)
    laws = {modality: json.loads(Path(law).read_text()) for modality, law in study.laws.items()}
    abouts = [json.loads(Path(about).read_text()) for about in study.abouts]
    same, own = provenance(abouts)
    cite = yaml.safe_load(Path(study.citation).read_text())
    page = {
        "study": study.config["study"],
        "finding": findings.finding(study.cells, study.tables.get("classical")),
        "cells": cells,
        "models": cells["model"].nunique(),
        "steps": cells["step"].nunique(),
        "modalities": list(dict.fromkeys(cells["modality"])),
        "kinds": chart.counts(cells),
        "scripts": chart.scripts(),
        "spec": data(chart.scaling(cells, laws, linked=bool(abouts))),
        "figure": uri(study.figure),
        "pictures": {name: {"uri": uri(p), "caption": caption(name)} for name, p in study.pictures.items()},
        "grids": tables.grids(cells),
        "all_cells": tables.all_cells(cells, linked=bool(abouts)),
        "audit": tables.audit(cells),
        "laws": [law_section(modality, by_protocol) for modality, by_protocol in laws.items()],
        "more": {name: tables.OF_OTHER_STAGES[name](csv) for name, csv in study.tables.items()},
        "looks": {modality: look(chunk) for modality, chunk in study.first_chunks.items()},
        "levels": chunk_view.LEVELS,
        "checks": tables.checks(abouts) if abouts else None,
        "checked": sum(about["decode_check"]["chunks"] for about in abouts),
        "speed": tables.speed(abouts) if abouts else None,
        "seconds": sum(about["seconds"] for about in abouts),
        "same": same,
        "own": own,
        "sources": sources(study.first_chunks),
        "files": {Path(p).name: digest(p) for p in (study.cells, *study.laws.values())},
        "versions": {"bitlaw": cite["version"], "python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "config": yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True, width=100),
        "cite": cite,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template("page.html").render(page)
    if len(text.encode()) > MOST_BYTES:
        raise InputError(
            f"{path}: {len(text.encode()):,} bytes, more than {MOST_BYTES:,}: show fewer cells or pictures"
        )
    write_text(path, text)


def data(value):
    """JSON that may stand in a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def uri(path):
    path = Path(path)
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def caption(name):
    """The caption of a figure: the one that Snakemake's own report shows, plain text."""
    return " ".join((TEMPLATE / f"{name}.rst").read_text().split())


def law_section(modality, laws):
    """What the page says of the laws of a modality, {protocol: law}."""
    return {
        "modality": modality,
        "protocols": [
            {
                "protocol": protocol,
                "sentence": sentence(law),
                "warnings": law.get("warnings", []),
                "coefficients": tables.coefficients(modality, protocol, law),
            }
            for protocol, law in laws.items()
        ],
        "forms": tables.forms(modality, laws) if all("forms" in law for law in laws.values()) else None,
    }


def sentence(law):
    """The law in a line of HTML, its exponents raised."""
    return re.sub(r"\^-([\d.]+)", r"<sup>−\1</sup>", html.escape(formatting.describe(law)))


def look(first):
    """The FirstChunk of a modality, as its cell saw it; see `chunk_view.look`."""
    bits = pq.read_table(first.cell, columns=["bits_by_token"]).column(0)[0].as_py()
    chunk, manifest = shards.read(first.shards)[0], shards.manifest(first.shards)
    _, sizes, _ = tokens.read(first.tokens)
    where = {name: value for name, value in manifest["chunks"][0].items() if name != "of_available"}
    about = json.loads(Path(first.cell).with_suffix(".json").read_text())
    return chunk_view.look(chunk, first.cut, sizes[0], bits) | {
        "cut": first.cut,
        "where": ", ".join(f"{name} {value}" for name, value in where.items()),
        "licence": manifest["source"]["licence"],
        "source": manifest["source"]["name"],
        "model": about["model"],
        "step": about["step"],
    }


def sources(first_chunks):
    """[(modality, manifest)] of the shards, without their chunks."""
    out = []
    for modality, first in first_chunks.items():
        manifest = shards.manifest(first.shards)
        out.append((modality, {key: manifest[key] for key in ("source", "sampling", "counts", "shards")}))
    return out


def provenance(abouts):
    """What all cells share and what each has of its own: {key: text}, [{modality, model, step, id, file, own}]."""
    flat = [_flat(about) for about in abouts]
    same = {key: value for key, value in flat[0].items() if all(f.get(key) == value for f in flat)} if flat else {}
    own = []
    for about, f in zip(abouts, flat, strict=True):
        place = {key: about[key] for key in ("modality", "model", "step")}
        rest = {key: value for key, value in f.items() if key not in same and key not in place}
        file = f"cells/{about['modality']}/{about['model']}/step{about['step']}.json"
        own.append({**place, "id": chart.anchor(about), "file": file, "own": rest, "cr": about["cr_lossless"]})
    return same, own


def _flat(value, name=""):
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}" if name else key).items()}
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return {k: v for i, inner in enumerate(value) for k, v in _flat(inner, f"{name}[{i}]").items()}
    return {name: value if isinstance(value, str) else json.dumps(value)}
