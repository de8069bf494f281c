"""Tables of the page: what a reader sees of each number, and the number behind it by which a column is sorted."""

import math

import pandas as pd

from bitlaw.compression.accounting import AUDIT_TERMS
from bitlaw.laws import formatting
from bitlaw.laws.verdict import GREEK, supported
from bitlaw.report.chart import anchor
from bitlaw.study import PROTOCOLS

STEPS_OF_AUDIT = {  # accounting.AUDIT_TERMS in words
    "cr_published": "published ratio",
    "audit_quantisation": "8-bit weights that look ahead → causal ones",
    "audit_probabilities": "rounded, capped probabilities → exact ones",
    "audit_past_1024": "tokens past the 1,024th",
    "audit_first_token": "the first token",
    "audit_dropped": "chunks that were dropped",
    "audit_frequencies": "probabilities → integer frequencies",
    "audit_termination": "end of the coded string",
    "audit_container": "container: header, lengths, checks",
    "audit_top_bits": "the top bit of every byte",
    "cr_lossless": "lossless ratio",
}


def table(name, caption, columns, rows, links=()):
    """A table for the template, a dict.

    name: an identifier; columns: [(heading, format)], format a spec such as ".3f" (the column is then numeric) or None;
    rows: lists of values, None or NaN where there is none; links: for each row the id of what its first value leads to.
    A column without any value is left out.
    """
    shown = [[_cell(value, spec) for value, (_, spec) in zip(row, columns, strict=True)] for row in rows]
    for row, link in zip(shown, links, strict=False):
        row[0]["link"] = link
    headings = [{"text": heading, "numeric": spec is not None} for heading, spec in columns]
    filled = [i for i in range(len(headings)) if i == 0 or any(row[i]["text"] for row in shown)]
    headings, *shown = ([row[i] for i in filled] for row in (headings, *shown))
    return {"name": name, "caption": caption, "columns": headings, "rows": shown}


def _cell(value, spec):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return {"text": "", "value": ""}
    if spec is None:
        return {"text": str(value), "value": str(value)}
    text = format(value, spec)
    text = text.lstrip("-") if not float(text.replace(",", "")) else text  # no -0.0000
    return {"text": text.replace("-", "−"), "value": repr(float(value))}


def grids(cells):
    """{protocol: [table of models × steps for each modality]}, those with a ratio."""
    out = {protocol: [] for protocol in PROTOCOLS if cells[f"cr_{protocol}"].notna().any()}
    for modality, part in cells.groupby("modality", sort=False):
        steps = list(dict.fromkeys(part["step"]))
        columns = [("model", None), ("parameters", ",.0f"), *((f"step {step:,}", ".3f") for step in steps)]
        for protocol in PROTOCOLS:
            if part[f"cr_{protocol}"].isna().all():
                continue
            rows = []
            for model, own in part.groupby("model", sort=False):
                ratios = own.set_index("step")[f"cr_{protocol}"]
                rows.append([model, own["params_total"].iloc[0], *(ratios.get(step) for step in steps)])
            caption = f"{modality}: {protocol} ratio by model and step"
            out[protocol].append(table(f"{modality}-{protocol}", caption, columns, rows))
    return out


def all_cells(cells, linked):
    """Every cell; `linked`: the page has its provenance."""
    columns = [("modality", None), ("model", None), ("step", ",.0f"), ("parameters", ",.0f"), ("lossless", ".4f"),
               ("±", ".4f"), ("published", ".4f"), ("± ", ".4f"), ("chunks", ",.0f"), ("dropped", ",.0f")]  # fmt: skip
    names = ["modality", "model", "step", "params_total", "cr_lossless", "cr_lossless_ci", "cr_published",
             "cr_published_ci", "chunks", "dropped"]  # fmt: skip
    records = cells.reindex(columns=names).astype(object).where(lambda part: part.notna(), None)
    links = [anchor(row) for row in cells.to_dict("records")] if linked else []
    caption = "every cell; ±: 95 % interval of the mean over its chunks, or over the files that these come from"
    return table("cells", caption, columns, records.values.tolist(), links)


def audit(cells):
    """From the published ratio to the lossless one, a column a modality, at the largest model's last step."""
    last = cells.sort_values(["params_total", "step"], kind="stable").groupby("modality", sort=False).tail(1)
    last = last.set_index("modality").loc[list(dict.fromkeys(cells["modality"]))]
    if last[list(AUDIT_TERMS)].isna().all(axis=None):
        return None
    columns = [("step of the audit", None), *((modality, ".4f") for modality in last.index)]
    rows = [[words, *last[name]] for name, words in STEPS_OF_AUDIT.items()]
    where = "; ".join(dict.fromkeys(f"{row['model']}, step {row['step']:,}" for _, row in last.iterrows()))
    return table(
        "audit", f"from the published ratio to the lossless one ({where}), in parts of the size", columns, rows
    )


def coefficients(modality, protocol, law):
    """The coefficients of the terms that the data support, with errors and intervals; of all where there is no law."""
    law = supported(law) or law
    columns = [("coefficient", None), ("value", ".4g"), ("standard error", ".2g"), ("95 % profile interval", None),
               ("95 % bootstrap interval", None), ("why no error", None)]  # fmt: skip
    rows = []
    for name, entry in law["coefficients"].items():
        intervals = (law.get("profile", {}), law.get("bootstrap", {}).get("coefficients", {}))
        ends = [formatting.ends(interval[name]) if name in interval else "" for interval in intervals]
        rows.append([GREEK.get(name, name), entry["value"], entry["stderr"], *ends, entry["reason"]])
    return table(f"law-{modality}-{protocol}", f"{modality}, {protocol}: coefficients of the law", columns, rows)


def forms(modality, laws):
    """Every form of law, of {protocol: law}, on the same cells; the study's form first, then the winner."""
    columns = [(heading, None) for heading in formatting.HEADER]
    caption = f"{modality}: forms of the law; LOO: error of each cell predicted from the others; ΔAICc: 0 is best"
    return table(f"forms-{modality}", caption, columns, formatting.rows(laws))


def speed(abouts):
    """What each model's cells cost, from the cells' json."""
    frame = pd.DataFrame([
        {"model": a["model"], "params_total": a["params_total"], "seconds": a["seconds"],
         "tokens_per_second": a["tokens_per_second"], "peak": a["peak_memory_bytes"] / 1e6,
         **{part: a["seconds_by_part"].get(part) for part in ("load", "score", "code", "verify")}}
        for a in abouts
    ])  # fmt: skip
    columns = [("model", None), ("parameters", ",.0f"), ("cells", ",.0f"), ("seconds in all", ",.1f"), ("load", ",.1f"),
               ("score", ",.1f"), ("code", ",.2f"), ("decode check", ",.1f"), ("tokens/s, median", ",.0f"),
               ("peak memory, MB", ",.0f")]  # fmt: skip
    rows = [
        [model, own["params_total"].iloc[0], len(own), own["seconds"].sum(),
         *own[["load", "score", "code", "verify"]].sum(), own["tokens_per_second"].median(), own["peak"].max()]
        for model, own in frame.groupby("model", sort=False)
    ]  # fmt: skip
    return table("speed", "seconds of all cells of a model; peak memory of the largest", columns, rows)


def checks(abouts):
    """The decode check of every cell."""
    columns = [("modality", None), ("model", None), ("step", ",.0f"), ("precision", None), ("mode", None),
               ("chunks decoded", ",.0f"), ("bytes the same", None), ("bytes in one pass", ",.0f"),
               ("bytes by steps", ",.0f"), ("sha256 of the stream", None)]  # fmt: skip
    rows = []
    for a in abouts:
        check = a["decode_check"]
        same = "yes" if check["passed"] else "no"
        rows.append([a["modality"], a["model"], a["step"], a["precision"], a["mode"], check["chunks"], same,
                     check["one_shot_bytes"], check["steps_bytes"], a["stream_sha256"][:16]])  # fmt: skip
    links = [anchor(a) for a in abouts]
    return table("checks", "another process decodes these chunks of each cell and compares", columns, rows, links)


def of_csv(path, name, caption, columns, where=()):
    """A table of a CSV file: columns {its column: (heading, format)}; where {column: value}: those rows alone."""
    frame = pd.read_csv(path)
    for column, value in dict(where).items():
        frame = frame[frame[column] == value]
    records = frame[list(columns)].astype(object).where(lambda part: part.notna(), None).values.tolist()
    return table(name, caption, list(columns.values()), records)


def jobs(path):
    """What the jobs of each rule took, from a CSV file of `job_costs.rows`."""
    frame = pd.read_csv(path)
    columns = [("rule", None), ("jobs", ",.0f"), ("seconds in all", ",.1f"), ("longest job, s", ",.1f"),
               ("processor seconds in all", ",.1f"), ("largest memory, MB", ",.0f")]  # fmt: skip
    rows = [
        [rule, len(own), own["seconds"].sum(), own["seconds"].max(), own["cpu_seconds"].sum(min_count=1),
         own["peak_memory_mb"].max()]
        for rule, own in frame.groupby("rule", sort=False)
    ]  # fmt: skip
    return table("jobs", "what the jobs of each rule took, start-up and loading of libraries included", columns, rows)


ENDS = {"": "", "_low": ", low end", "_high": ", high end"}  # of an interval: suffix of the column, words
CELL = {"modality": ("modality", None), "model": ("model", None), "step": ("step", ",.0f")}
OF_OTHER_STAGES = {  # name of the csv → function of its path
    "classical": lambda path: of_csv(
        path,
        "classical",
        "size of all chunks after a compressor over their size before; chunk: each by itself, whole: one after another",
        {"modality": ("modality", None), "compressor": ("compressor", None), "scope": ("scope", None)}
        | {"ratio": ("ratio", ".4f"), "bytes_out": ("bytes", ",.0f"), "status": ("status", None)}
        | {"flags": ("as called", None)},
    ),
    "context": lambda path: of_csv(
        path,
        "context",
        "8 bits a byte less what a model needs, in parts; bits a byte, split at byte 32 of a chunk",
        CELL
        | {"pass": ("pass", None), "total": ("needs", ".3f"), "top_bits": ("top bits", ".3f")}
        | {name: (words, ".3f") for name, words in (("tokeniser", "tokeniser"), ("first_token", "first token"))}
        | {name: (words, ".3f") for name, words in (("prior", "prior (USP)"), ("context", "context (ICL)"))},
        {"K": 32},
    ),
    "codec": lambda path: of_csv(
        path,
        "codec",
        "the stream against the ideal size of its code lengths, and the spread of its chunks' ratios",
        CELL
        | {"stream_bits": ("stream, bits", ",.0f"), "ideal_bits": ("ideal, bits", ",.0f")}
        | {"overhead_bits_per_token": ("more, bits a token", ".4f")}
        | {f"ratio_{name}": (words, ".3f") for name, words in (("min", "least ratio"), ("median", "median"))}
        | {f"ratio_{name}": (words, ".3f") for name, words in (("p95", "95 %"), ("max", "largest"))}
        | {"worst_chunk": ("worst chunk", ",.0f")},
    ),
    "laws_together": lambda path: of_csv(
        path,
        "laws-together",
        "exponents of all laws with 95 % profile intervals, and how many times more halves the distance",
        {"modality": ("modality", None), "protocol": ("protocol", None), "verdict": ("verdict", None)}
        | {
            f"{name}{end}": (f"{sign}{words}", ".2g")
            for name, sign in (("alpha", "α"), ("beta", "β"))
            for end, words in ENDS.items()
        }
        | {
            f"{name}_to_halve{end}": (f"× {name}{words}", ".3g")
            for name in ("parameters", "steps")
            for end, words in ENDS.items()
        }
        | {"crossing": ("at the last step, against", None)},
    ),
    "benchmarks": jobs,
}
