"""The page as a file: what is in it, that it fetches nothing, and that its numbers are those of the tables."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

import made_up
from bitlaw import InputError
from bitlaw.laws.fitting import predict
from bitlaw.report import chart, chunk_view, page, tables

VOID = {"meta", "link", "img", "input", "br"}


class Reader(HTMLParser):
    """Elements in order: [(tag, attributes, text inside)]."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag):
        assert self.found[self.open[-1]][0] == tag, f"</{tag}> closes <{self.found[self.open[-1]][0]}>"
        self.open.pop()

    def handle_data(self, data):
        for i in self.open:
            self.found[i][2] += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


@pytest.fixture(scope="module")
def text(made_up_study, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, made_up_study)
    assert [other.name for other in path.parent.iterdir()] == ["report.html"]
    return path.read_text()


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_the_page_is_one_file_that_can_be_sent(text):
    assert len(text.encode()) < 2_500_000
    assert text.startswith("<!DOCTYPE html>")


def test_a_page_too_large_to_send_is_refused_and_not_written(made_up_study, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    monkeypatch.setattr(chart, "scripts", str)
    with pytest.raises(InputError, match="more than 1,000"):
        page.write(tmp_path / "report.html", made_up_study)
    assert not list(tmp_path.iterdir())


def test_the_page_fetches_nothing(read, text):
    for tag, attributes, _ in read.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            link = attributes.get(name, "")
            assert link.startswith(("data:", "#", "cells/")) or not link, (tag, link)
    policy = next(a["content"] for a, _ in read.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:") and "http" not in policy
    styles = "".join(inner for _, inner in read.all("style"))
    assert "url(" not in styles and "@import" not in styles and len(styles) > 1000


def test_headings_pictures_and_links_serve_a_reader_who_does_not_see(read):
    levels = [int(tag[1]) for tag, _, _ in read.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(len(attributes["alt"]) > 20 for attributes, _ in read.all("img"))
    ids = [attributes["id"] for _, attributes, _ in read.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {a["href"][1:] for a, _ in read.all("a") if a["href"].startswith("#")}
    assert linked <= set(ids)
    assert read.all("html")[0][0]["lang"] == "en"
    assert all(attributes.get("scope") for attributes, _ in read.all("th"))


def test_the_finding_stands_at_the_top(read):
    finding = next(inner for tag, a, inner in read.found if a.get("class") == "finding")
    assert finding.startswith("With every bit counted, text takes 0.") and "large at step 1,200" in finding
    assert "Random bytes, which nothing can compress, take 1." in finding and "counted as published" in finding


def test_what_comes_from_data_is_escaped(text):
    assert "alert(" not in text.replace("&lt;script&gt;alert(&#34;licence&#34;)&lt;/script&gt;", "")
    assert "note: &lt;i&gt;&amp;" in text
    assert page.data({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'


def shown(text, name):
    """{(first fields of a row): {heading: (text, value)}} of a table of the page, from its HTML."""
    table = re.search(rf'<div class="table" id="table-{name}">.*?</table>', text, re.S)[0]
    heads = re.findall(r"<button type=\"button\">(.*?)</button>", table)
    rows = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", table, re.S)
    cells = [re.findall(r'data-v="(.*?)">(?:<a [^>]*>)?(.*?)(?:</a>)?</t[hd]>', row) for row in rows]
    return [dict(zip(heads, row, strict=True)) for row in cells]


def test_the_tables_hold_the_numbers_of_the_cells(made_up_study, text):
    cells = made_up.read_cells(made_up_study)
    listed = shown(text, "cells")
    assert len(listed) == len(cells) == 27
    for row, line in zip(cells.to_dict("records"), listed, strict=True):
        assert [line[name][1] for name in ("modality", "model", "step")] == [
            row["modality"], row["model"], f"{row['step']:,}"
        ]  # fmt: skip
        for protocol in ("lossless", "published"):
            value = row[f"cr_{protocol}"]
            assert line[protocol] == (repr(value), f"{value:.4f}")
            grid = {found["model"][1]: found for found in shown(text, f"{row['modality']}-{protocol}")}
            assert grid[row["model"]][f"step {row['step']:,}"] == (repr(value), f"{value:.3f}")


def test_the_audit_leads_from_the_published_ratio_to_the_lossless_one(made_up_study, text):
    lines = shown(text, "audit")
    for modality in ("text", "image", "random"):
        values = [float(line[modality][0]) for line in lines]
        assert sum(values[:-1]) == pytest.approx(values[-1], abs=1e-12)
    assert lines[3]["step of the audit"][1] == "tokens past the 1,024th" and lines[3]["image"][1] == "0.6000"


def test_the_laws_are_those_that_were_fitted(made_up_study, text):
    law = json.loads(made_up_study.laws["text"].read_text())["lossless"]
    lines = {line["coefficient"][1]: line for line in shown(text, "law-text-lossless")}
    assert float(lines["α"]["value"][0]) == law["coefficients"]["alpha"]["value"]
    assert f"P<sup>−{law['coefficients']['alpha']['value']:.3f}</sup>" in text
    none = json.loads(made_up_study.laws["image"].read_text())["lossless"]
    assert none["verdict"] == "no law" and f"no law: {none['verdict_reasons'][0]}" in text


def test_a_missing_number_is_an_empty_field_and_no_zero_has_a_sign():
    columns = [("a", None), ("b", ".2f")]
    rows = tables.table("t", "c", columns, [["x", float("nan")], ["y", -1e-9], ["z", -1.5], [None, None]])["rows"]
    assert [row[1]["text"] for row in rows] == ["", "0.00", "−1.50", ""]
    assert rows[0][1]["value"] == "" and float(rows[1][1]["value"]) == -1e-9


@pytest.fixture(scope="module")
def drawn(made_up_study):
    laws = {modality: json.loads(path.read_text()) for modality, path in made_up_study.laws.items()}
    return chart.scaling(made_up.read_cells(made_up_study), laws), laws


def test_the_figure_holds_every_cell_under_each_protocol(made_up_study, drawn):
    rows = drawn[0]["datasets"]["cells"]
    for row in made_up.read_cells(made_up_study).to_dict("records"):
        for protocol in ("lossless", "published"):
            place = {"kind": "point", "protocol": protocol, **{k: row[k] for k in ("modality", "model", "step")}}
            (point,) = [r for r in rows if place.items() <= r.items()]
            ratio, half = row[f"cr_{protocol}"], row[f"cr_{protocol}_ci"]
            assert (point["y"], point["low"], point["high"]) == (ratio, ratio - half, ratio + half)
            assert (point["params_total"], point["params_nonembedding"]) == (
                row["params_total"],
                row["params_total"] // 2,
            )
            assert f"lossless {row['cr_lossless']:.3f} ± {row['cr_lossless_ci']:.3f}" in point["about"]
            assert point["href"] == f"#cell-{row['modality']}-{row['model']}-step{row['step']}"


def test_curves_follow_the_law_and_cells_are_joined_where_there_is_none(made_up_study, drawn):
    rows, laws = drawn[0]["datasets"]["cells"], drawn[1]
    on = [r for r in rows if r["kind"] == "curve" and r["protocol"] == "lossless" and r["size"] == "total"]
    curve = [r for r in on if r["modality"] == "text" and r["step"] == 300]
    assert {r["fitted"] for r in curve} == {"law"} and len(curve) == chart.CURVE_POINTS
    expected = predict(laws["text"]["lossless"], np.array([r["at"] for r in curve]), 300.0)
    np.testing.assert_allclose([r["y"] for r in curve], expected, rtol=5e-5)
    joined = [r for r in on if r["modality"] == "image" and r["step"] == 300]
    cells = made_up.read_cells(made_up_study)
    cells = cells[(cells["modality"] == "image") & (cells["step"] == 300)]
    assert {r["fitted"] for r in joined} == {"no law"}
    np.testing.assert_allclose([r["y"] for r in joined], cells["cr_lossless"], rtol=5e-5)


def test_only_counts_of_parameters_that_are_there_can_be_chosen(made_up_study):
    cells = made_up.read_cells(made_up_study)
    assert set(chart.counts(cells)) == {"total", "nonembedding"}
    assert set(chart.counts(cells.assign(params_nonembedding=np.nan))) == {"total"}
    assert set(chart.counts(cells.assign(params_nominal=1.0))) == {"total", "nonembedding", "nominal"}


def test_a_table_that_knows_one_protocol_only_has_a_page(made_up_study, tmp_path, monkeypatch):
    """As the published study has it: no lossless ratio, no interval, no audit, no cell of its own."""
    monkeypatch.setattr(chart, "scripts", str)
    cells = made_up.read_cells(made_up_study)
    cells[[c for c in cells if c.startswith(("cr_lossless", "audit")) or c.endswith("_ci")]] = np.nan
    cells.to_csv(tmp_path / "cells.csv", index=False)
    laws = json.loads(made_up_study.laws["text"].read_text())
    (tmp_path / "text.json").write_text(json.dumps({"published": laws["published"]}))
    fewer = {"cells": tmp_path / "cells.csv", "laws": {"text": tmp_path / "text.json"}, "abouts": []}
    fewer |= {"first_chunks": {}, "pictures": {}}
    page.write(tmp_path / "report.html", dataclasses.replace(made_up_study, **fewer))
    text = (tmp_path / "report.html").read_text()
    read = Reader(text)
    assert 'value="published" checked' in text and 'value="lossless"' not in text
    linked = {a["href"][1:] for a, _ in read.all("a") if a["href"].startswith("#")}
    assert linked <= {attributes["id"] for _, attributes, _ in read.found if "id" in attributes}
    assert "checks" not in {attributes.get("id") for _, attributes, _ in read.found}
    words = "".join(inner for tag, _, inner in read.found if tag in ("td", "th", "p", "li"))
    assert not re.search(r"\bnan\b", words)


def test_provenance_says_once_what_cells_share_and_all_that_each_has():
    abouts = [
        {"modality": "text", "model": "m", "step": step, "cr_lossless": 0.5, "versions": {"torch": "2"},
         "seconds": step, "shards": [{"file": "a", "sha256": "b"}], "numbers": [1, 2]}
        for step in (1, 2)
    ]  # fmt: skip
    same, own = page.provenance(abouts)
    assert same == {"modality": "text", "model": "m", "cr_lossless": "0.5", "versions.torch": "2",
                    "shards[0].file": "a", "shards[0].sha256": "b", "numbers": "[1, 2]"}  # fmt: skip
    assert [cell["own"] for cell in own] == [{"seconds": "1"}, {"seconds": "2"}]
    assert own[1]["file"] == "cells/text/m/step2.json" and own[1]["id"] == "cell-text-m-step2"
    assert page.provenance([]) == ({}, [])


def test_captions_are_plain_text():
    for path in page.TEMPLATE.glob("*.rst"):
        assert path.stem == "law" or not re.search(r"[`{}|*]|\.\. ", path.read_text()), path


def grey(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.round(imread(io.BytesIO(base64.b64decode(data)))[..., 0] * 255)


def test_a_look_at_an_image_shows_its_bytes_and_what_is_left_of_them():
    chunk = np.random.default_rng(0).integers(0, 256, 2048).astype(np.uint8)
    found = chunk_view.look(chunk, "image", np.ones(2048, int), np.linspace(0, 15, 2048))
    bytes_, kept, bits = (grey(uri) for *_, uri in found["pictures"])
    np.testing.assert_array_equal(bytes_.ravel(), chunk)
    np.testing.assert_array_equal(kept.ravel(), chunk % 128)
    np.testing.assert_allclose(bits.ravel(), np.linspace(0, 255, 2048), atol=1)
    assert found["text"] is None and found["high"] == pytest.approx(np.mean(chunk >= 128))
    assert "".join(token["text"] for token in found["tokens"]).isprintable()


def test_a_look_at_text_shades_each_token_by_its_bits():
    chunk = np.frombuffer(b"It was,\nit is.\t" * 128, dtype=np.uint8)
    bits = [0.5, 1.0, 3.9, 4.0, 8.0, 12.0, *[0.0] * (len(chunk) // 8 - 6)]
    found = chunk_view.look(chunk, "bytes", np.full(len(bits), 8), bits)
    assert [token["level"] for token in found["tokens"][:6]] == [0, 1, 2, 3, 4, 5]
    assert found["tokens"][0]["text"] == "It was,↵\n" and found["tokens"][1]["text"] == "it is.·I"
    assert found["surprises"][0] == {"text": found["surprises"][0]["text"], "bits": 12.0, "offset": 40}
    assert found["text"] == chunk.tobytes().decode() and not found["pictures"]
    assert sum(found["shares"]) == pytest.approx(1) and found["bits"] == sum(bits)


def test_a_look_at_speech_has_waves():
    samples = (8000 * np.sin(np.arange(1024) / 9)).astype("<i2")
    found = chunk_view.look(np.frombuffer(samples.tobytes(), np.uint8), "speech", np.full(512, 4), np.ones(512))
    assert [title for title, _, _ in found["pictures"]] == ["The samples", "After % 128", "Bits"]
    assert all(uri.startswith("data:image/png;base64,") for *_, uri in found["pictures"])


def test_code_lengths_of_another_chunk_are_refused():
    chunk = np.zeros(2048, np.uint8)
    with pytest.raises(ValueError, match="do not belong together"):
        chunk_view.look(chunk, "bytes", np.ones(2047, int), np.ones(2047))
    with pytest.raises(ValueError, match="do not belong together"):
        chunk_view.look(chunk, "bytes", np.ones(2048, int), np.ones(2047))
