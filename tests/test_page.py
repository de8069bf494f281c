"""The page as a file: what is in it, that it fetches nothing, and that its numbers are those of the tables."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import made_up
import numpy as np
import pytest
from matplotlib.image import imread

from bitlaw import InputError, page, page_chart, page_look, page_tables
from bitlaw.laws import predict

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
def arguments(tokenizer, passage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tokenizer.save(str(folder / "tokenizer.json"))
    return made_up.study(folder, folder / "tokenizer.json", passage)


@pytest.fixture(scope="module")
def text(arguments, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, **arguments)
    assert [other.name for other in path.parent.iterdir()] == ["report.html"]
    return path.read_text()


@pytest.fixture(scope="module")
def read(text):
    return Reader(text)


def test_the_page_is_one_file_that_can_be_sent(text):
    assert len(text.encode()) < 2_500_000
    assert text.startswith("<!DOCTYPE html>")


def test_a_page_too_large_to_send_is_refused_and_not_written(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    monkeypatch.setattr(page_chart, "scripts", str)
    with pytest.raises(InputError, match="more than 1,000"):
        page.write(tmp_path / "report.html", **arguments)
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
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(len(attributes["alt"]) > 20 for attributes, _ in read.all("img"))
    ids = [attributes["id"] for _, attributes, _ in read.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {a["href"][1:] for a, _ in read.all("a") if a["href"].startswith("#")}
    assert linked <= set(ids)
    assert read.all("html")[0][0]["lang"] == "en"
    assert all(attributes.get("scope") for attributes, _ in read.all("th"))


def test_the_finding_stands_at_the_top(read):
    finding = next(inner for tag, a, inner in read.found if a.get("class") == "finding")
    assert finding.startswith("Random bytes, which nothing can compress, “compress” to 0.6")
    assert "as a stream that decodes they take 1." in finding and "(large, step 1,200)" in finding


def test_what_comes_from_data_is_escaped(text):
    assert "alert(" not in text.replace("&lt;script&gt;alert(&#34;licence&#34;)&lt;/script&gt;", "")
    assert "note: &lt;i&gt;&amp;" in text
    assert page.data({"a": "</script><!--"}) == '{"a":"\\u003c/script>\\u003c!--"}'


def test_grids_hold_the_numbers_of_the_cells(arguments, read):
    cells = made_up.read_cells(arguments)
    for row in cells.to_dict("records"):
        cr = {protocol: f"{row[f'cr_{protocol}']:.3f}" for protocol in ("lossless", "published")}
        values = [inner for a, inner in read.all("td") if a["data-v":] if False] if False else None
        assert values is None
        for protocol in cr:
            grid = next(g for g in page_tables.grids(cells)[protocol] if g["name"] == f"{row['modality']}-{protocol}")
            line = next(line for line in grid["rows"] if line[0]["text"] == row["model"])
            head = [column["text"] for column in grid["columns"]].index(f"step {row['step']:,}")
            assert line[head] == {"text": cr[protocol], "value": repr(row[f"cr_{protocol}"])}
