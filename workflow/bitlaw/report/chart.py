"""The interactive figure of the page: a Vega-Lite specification, made by Altair, and the scripts that draw it.

Why Altair: its scripts take 0.9 MB of the page (Bokeh's 1.3, Plotly's 4.8), vl-convert bundles them without a
network, the chart is a declaration with no drawing code of ours, and what it draws is SVG whose every point carries a
description that a screen reader reads.

The page's script (workflow/report/page.js) sets the parameters `protocol`, `size` and `hidden` and the types of the
two scales in the specification, and draws it again.
"""

import json
import math

import altair as alt
import matplotlib
import numpy as np
import pandas as pd
import vl_convert

from bitlaw.laws.fitting import values_of
from bitlaw.laws.forms import evaluate
from bitlaw.laws.verdict import supported
from bitlaw.study import PROTOCOLS

COUNTS = {"total": "all parameters", "nonembedding": "without embeddings", "nominal": "as in the model's name"}
CURVE_POINTS = 24
SHAPES = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left"]
PANEL = (400, 270)  # pixels


def scripts():
    """The JavaScript that draws specifications: vega, vega-lite and vega-embed as one module, bundled offline."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return vl_convert.javascript_bundle(vl_version=version)


def counts(cells):
    """{count of parameters: its words} of those that every cell of the table has."""
    columns = {count: f"params_{count}" for count in COUNTS}
    return {count: COUNTS[count] for count, name in columns.items() if name in cells and cells[name].notna().all()}


def scaling(cells, laws, linked=True, null="random"):
    """The specification (a dict): ratio over parameters, a panel a modality, curves of the laws.

    cells: DataFrame with cell_table.CELL_COLUMNS; laws: {modality: {protocol: law}}, may lack some.
    linked: a click on a cell leads to its provenance, which the page holds.
    """
    modalities = sorted(cells["modality"].drop_duplicates(), key=lambda name: name == null)
    steps = sorted(int(step) for step in cells["step"].unique())
    rows = _points(cells, linked) + _curves(cells, laws) + _references(cells)
    protocol, size, hidden = (
        alt.param(name=name, value=value)
        for name, value in (("protocol", "lossless"), ("size", "total"), ("hidden", []))
    )
    colours = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0, 0.78, len(steps)))]
    legend = alt.Legend(
        title="training step", orient="top", symbolSize=70, symbolOpacity=1, labelExpr="format(datum.value, ',')"
    )
    by_step = alt.Scale(domain=steps, range=colours)
    colour = alt.Color("step:N", scale=by_step, legend=legend, sort=steps)
    shape = alt.Shape(
        "step:N",
        scale=alt.Scale(domain=steps, range=[SHAPES[i % len(SHAPES)] for i in range(len(steps))]),
        legend=legend,
    )
    sizes = {count: sorted(cells[f"params_{count}"].unique().tolist()) for count in counts(cells)}
    x = alt.X("x:Q", title="parameters", scale=alt.Scale(type="log", nice=False, padding=14),
              axis=alt.Axis(values=alt.ExprRef(f"{json.dumps(sizes)}[size]"), format=".3~s", grid=False,
                            labelExpr="replace(datum.label, 'G', 'B')", labelOverlap="greedy",
                            labelSeparation=4))  # fmt: skip
    y = alt.Y("y:Q", title=None, scale=alt.Scale(type="linear", zero=False, padding=10), axis=alt.Axis(tickCount=6))
    base = alt.Chart().encode(x=x)
    own = f"datum.protocol == {protocol.name}"
    raw = alt.Chart().transform_filter(f"datum.kind == 'reference' && {own}")
    line = base.transform_filter(f"datum.kind == 'curve' && datum.size == {size.name} && {own}")
    points = base.transform_filter(f"datum.kind == 'point' && {own}").encode(description="about:N")
    tips = [alt.Tooltip(f"{field}:N") for field in ("modality", "model", "step", "parameters", *PROTOCOLS)]
    tips += [alt.Tooltip("link:N", title="click for")] if linked else []
    layers = [
        raw.mark_rule(strokeDash=[2, 3], color="#555", aria=False).encode(y=y),
        raw
        .mark_text(align="left", baseline="bottom", dx=4, dy=-2, color="#555", aria=False)
        .encode(x=alt.value(0), y=y, text="label:N"),
        line.mark_line(strokeWidth=1.5, aria=False).encode(y=y, color=colour, strokeDash=alt.StrokeDash(
            "fitted:N", scale=alt.Scale(domain=["law", "no law"], range=[[1, 0], [4, 3]]), legend=None)),
        points.mark_rule(strokeWidth=1.2, opacity=0.45, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour),
        points.mark_point(filled=True, size=75, stroke="white", strokeWidth=0.8, opacity=1).encode(
            y=y, color=colour, shape=shape, tooltip=tips, **({"href": "href:N"} if linked else {})),
    ]  # fmt: skip
    chart = (
        alt.layer(*layers, data=alt.NamedData(name="cells"))
        .transform_filter(f"indexof({hidden.name}, datum.modality) < 0")
        .transform_calculate(x=f"datum['params_' + {size.name}] || datum.at")
        .properties(width=PANEL[0], height=PANEL[1])
        .facet(facet=alt.Facet("modality:N", sort=modalities, title=None), columns=2)
        .resolve_scale(x="shared", y="independent")
        .resolve_axis(x="independent")
        .add_params(protocol, size, hidden)
        .configure(font="system-ui, sans-serif", background="transparent")
        .configure_axis(labelFontSize=12, titleFontSize=12, gridColor="#e8e8e8", domainColor="#888", tickColor="#888")
        .configure_header(labelFontSize=14, labelFontWeight="bold", labelAnchor="start")
        .configure_legend(labelFontSize=12, titleFontSize=12)
        .configure_view(stroke=None)
    )
    return chart.to_dict() | {"datasets": {"cells": rows}}  # put in last: Altair copies what it is given many times


def anchor(row):
    """Id of a cell's provenance in the page."""
    return f"cell-{row['modality']}-{row['model']}-step{row['step']}"


def interval(row, protocol, digits=3):
    """A cell's ratio and its 95 % interval over chunks, as text."""
    ratio, half = row[f"cr_{protocol}"], row.get(f"cr_{protocol}_ci", math.nan)
    if not math.isfinite(ratio):
        return "none"
    return f"{ratio:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


def _points(cells, linked):
    rows = []
    for row in cells.to_dict("records"):
        link = {"href": f"#{anchor(row)}", "link": "its provenance"} if linked else {}
        shown = {protocol: interval(row, protocol) for protocol in PROTOCOLS}
        place = f"{row['modality']}, {row['model']}, step {row['step']:,}, {row['params_total']:,.0f} parameters"
        for protocol in PROTOCOLS:
            ratio, half = row[f"cr_{protocol}"], row.get(f"cr_{protocol}_ci", math.nan)
            if not math.isfinite(ratio):
                continue
            half = half if math.isfinite(half) else 0.0
            rows.append(
                {"kind": "point", "protocol": protocol, "modality": row["modality"], "model": row["model"],
                 "step": int(row["step"]), "parameters": f"{row['params_total']:,.0f}", "y": ratio,
                 "low": ratio - half, "high": ratio + half,
                 "about": f"{place}: lossless {shown['lossless']}, published {shown['published']}", **shown, **link,
                 **{f"params_{count}": row[f"params_{count}"] for count in counts(cells)}}
            )  # fmt: skip
    return rows


def _curves(cells, laws):
    """The law of each modality, protocol, count of parameters and step; the cells themselves where there is none."""
    rows = []
    for (modality, step), group in cells.groupby(["modality", "step"], sort=False):
        for protocol in PROTOCOLS:
            law = laws.get(modality, {}).get(protocol)
            for count in counts(cells):
                same = {"kind": "curve", "protocol": protocol, "modality": modality, "step": int(step), "size": count}
                fit = supported(
                    law if not law or law["params_kind"] == count else law.get("sensitivity", {}).get(count)
                )
                data = group[group[f"cr_{protocol}"].notna()].sort_values(f"params_{count}")
                params, ratio = data[f"params_{count}"].to_numpy(float), data[f"cr_{protocol}"].to_numpy(float)
                if fit and len(params):
                    params = np.geomspace(params[0], params[-1], CURVE_POINTS)
                    ratio = evaluate(fit["form"], values_of(fit), params, float(step))
                same["fitted"] = "law" if fit else "no law"
                rows += [
                    same | {"at": float(f"{p:.5g}"), "y": float(f"{r:.5g}")} for p, r in zip(params, ratio, strict=True)
                ]
    return rows


def _references(cells):
    """The line of raw bytes, where the points would still fill 40 % of the panel's height."""
    rows = []
    for protocol in PROTOCOLS:
        for modality, ratio in cells.groupby("modality")[f"cr_{protocol}"]:
            low, high = ratio.min(), ratio.max()
            if pd.notna(low) and max(high, 1.0) - min(low, 1.0) <= max(high - low, 0.02 * high) / 0.4:
                row = {"kind": "reference", "protocol": protocol, "modality": modality, "y": 1.0, "label": "raw bytes"}
                rows.append(row)
    return rows
