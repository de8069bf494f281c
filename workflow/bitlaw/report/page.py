"""The page of a study: one HTML file that opens from disk, fetches nothing and holds everything that a reader asks for.

The template is workflow/report/page.html with page.css and page.js; `chart` makes the interactive figure,
`tables` the tables, `chunk_view` the look at the data.
"""

import base64
import html
import json
import platform
import re
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


def write(path, config, cells_path, law_paths, about_paths, chunks, figure, pictures, more, citation):
    """Write the page to `path`.

    config: the study's configuration, shown as it is; cells_path: tables/cells.csv; law_paths: {modality: json};
    about_paths: the cells' json, [] where the study has none; chunks: {modality: (shard folder, tokens npz, parquet of
    the cell that looked at them, cut)}; figure: the static figure (svg); pictures: {name: path} of other figures,
    whose captions are workflow/report/<name>.rst; more: {name: csv} of tables of other stages, shown where given;
    citation: CITATION.cff.
    Raises InputError when the page would be larger than MOST_BYTES.
    """
    cells = pd.read_csv(cells_path)
    laws = {modality: json.loads(Path(law).read_text()) for modality, law in law_paths.items()}
    abouts = [json.loads(Path(about).read_text()) for about in about_paths]
    same, own = provenance(abouts)
    cite = yaml.safe_load(Path(citation).read_text())
    page = {
        "study": config["study"],
        "finding": findings.finding(cells_path),
        "cells": cells,
        "models": cells["model"].nunique(),
        "steps": cells["step"].nunique(),
        "modalities": list(dict.fromkeys(cells["modality"])),
        "kinds": chart.kinds(cells),
        "scripts": chart.scripts(),
        "spec": data(chart.scaling(cells, laws, linked=bool(abouts))),
        "figure": uri(figure),
        "pictures": {name: {"uri": uri(p), "caption": caption(name)} for name, p in pictures.items()},
        "grids": tables.grids(cells),
        "all_cells": tables.all_cells(cells, linked=bool(abouts)),
        "audit": tables.audit(cells),
        "laws": [law_section(modality, found) for modality, found in laws.items()],
        "more": {name: tables.MORE[name](csv) for name, csv in more.items()},
        "looks": {modality: look(*where) for modality, where in chunks.items()},
        "levels": chunk_view.LEVELS,
        "checks": tables.checks(abouts) if abouts else None,
        "checked": sum(about["decode_check"]["chunks"] for about in abouts),
        "speed": tables.speed(abouts) if abouts else None,
        "seconds": sum(about["seconds"] for about in abouts),
        "same": same,
        "own": own,
        "sources": sources(chunks),
        "files": {Path(p).name: digest(p) for p in (cells_path, *law_paths.values())},
        "versions": {"bitlaw": cite["version"], "python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
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


def law_section(modality, found):
    """What the page says of the laws of a modality."""
    return {
        "modality": modality,
        "protocols": [
            {
                "protocol": protocol,
                "sentence": sentence(law),
                "warnings": law.get("warnings", []),
                "coefficients": tables.coefficients(modality, protocol, law),
            }
            for protocol, law in found.items()
        ],
        "forms": tables.forms(modality, found) if all("forms" in law for law in found.values()) else None,
    }


def sentence(law):
    """The law in a line of HTML, its exponents raised."""
    return re.sub(r"\^-([\d.]+)", r"<sup>−\1</sup>", html.escape(formatting.describe(law)))


def look(shard_folder, token_file, table, cut):
    """The first chunk of a modality, as the cell of `table` (parquet) saw it; see `chunk_view.look`."""
    bits = pq.read_table(table, columns=["bits_by_token"]).column(0)[0].as_py()
    chunk, manifest = shards.read(shard_folder)[0], shards.manifest(shard_folder)
    _, sizes, _ = tokens.read(token_file)
    where = {name: value for name, value in manifest["chunks"][0].items() if name != "of_available"}
    about = json.loads(Path(table).with_suffix(".json").read_text())
    return chunk_view.look(chunk, cut, sizes[0], bits) | {
        "cut": cut,
        "where": ", ".join(f"{name} {value}" for name, value in where.items()),
        "licence": manifest["source"]["licence"],
        "source": manifest["source"]["name"],
        "model": about["model"],
        "step": about["step"],
    }


def sources(chunks):
    """[(modality, manifest)] of the shards, without their chunks."""
    out = []
    for modality, (folder, *_) in chunks.items():
        manifest = shards.manifest(folder)
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
