import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from bitlaw import InputError
from bitlaw.figures import ratio_panel, scaling, style
from bitlaw.laws import fitting, formatting
from bitlaw.study import PROTOCOLS


@pytest.fixture(scope="module")
def study():
    """Cells of three modalities, and the laws of text (there is one) and image (there is none)."""
    rng = np.random.default_rng(0)
    rows = []
    for p in (64e3, 160e3, 400e3, 900e3, 1.9e6):
        for s in (75, 150, 300, 600, 1200):
            text, rise = 0.2 + 15 * p**-0.5 + 5 * s**-0.7, 0.05 * np.log(s / 75) + 0.01 * np.log(p / 64e3)
            rows.append(("text", p, s, text, text - 0.05))
            rows.append(("image", p, s, 1.1 + rise, 0.6 + rise))
            rows.append(("random", p, s, 1.15 + rise / 2, 0.58))
    cells = pd.DataFrame(rows, columns=["modality", "params_total", "step", "cr_lossless", "cr_published"])
    cells["cr_lossless"] += 0.002 * rng.normal(size=len(cells))
    cells["model"] = "m"
    fitted = {}
    for modality in ("text", "image"):
        data = cells[cells["modality"] == modality]
        law = fitting.fit(data["params_total"], data["step"], data["cr_lossless"])
        fitted[modality] = dict.fromkeys(PROTOCOLS, law)  # fits take longer than drawing
    return cells, fitted


@pytest.fixture(scope="module")
def drawn(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figure")
    scaling.draw(*study, {kind: folder / f"scaling.{kind}" for kind in ("svg", "pdf", "png")})
    return folder


def words(svg):
    """The texts of an svg whose glyphs are paths: matplotlib leaves each as a comment."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text(), flags=re.DOTALL)


def test_the_three_files_are_what_they_say_and_nothing_else_is_left(drawn):
    assert sorted(path.name for path in drawn.iterdir()) == ["scaling.pdf", "scaling.png", "scaling.svg"]
    assert (drawn / "scaling.pdf").read_bytes().startswith(b"%PDF")
    height, width, _ = imread(drawn / "scaling.png").shape
    assert (width, height) == (round((3 * scaling.PANEL[0] + 0.4) * 200), round((2 * scaling.PANEL[1] + 0.3) * 200))


def test_bytes_repeat(study, drawn, tmp_path):
    scaling.draw(*study, {kind: tmp_path / kind for kind in ("svg", "pdf")})
    for kind in ("svg", "pdf"):
        assert (tmp_path / kind).read_bytes() == (drawn / f"scaling.{kind}").read_bytes(), kind
    assert b"Date" not in (tmp_path / "pdf").read_bytes() and "<dc:date>" not in (tmp_path / "svg").read_text()


def test_the_figure_says_what_it_must(study, drawn):
    cells, fitted = study
    seen = words(drawn / "scaling.svg")
    everything = "\n".join(seen)
    for name in PROTOCOLS:
        assert f"compression ratio, {name}" in everything
        reasons = fitted["image"][name]["verdict_reasons"]
        assert f"no law: {reasons[0]}" in everything
    for modality in ("text", "image", "random"):
        assert seen.count(modality) == 2
    assert everything.count("no law fitted") == 2
    null = cells.loc[cells["modality"] == "random", "cr_lossless"].mean()
    assert f"random bytes {null:.2f}" in everything and "raw bytes 1.00" in everything
    assert seen.count("1200") == seen.count("75") == 6
    assert formatting.equation(fitted["text"]["lossless"]) in everything
    assert "RMSE" in everything and "±" in everything


@pytest.mark.parametrize(("protocol", "other"), [PROTOCOLS, PROTOCOLS[::-1]])
def test_a_protocol_without_cells_has_no_row(study, tmp_path, protocol, other):
    cells, fitted = study
    scaling.draw(cells.assign(**{f"cr_{protocol}": np.nan}), fitted, {"svg": tmp_path / "f.svg"})
    everything = "\n".join(words(tmp_path / "f.svg"))
    assert protocol not in everything and other in everything


def test_labels_of_meeting_curves_keep_apart():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.set(xscale="log", xlim=(1e4, 1e7), ylim=(0, 1))
    ends = {step: (1e6, 0.02 + 1e-4 * i) for i, step in enumerate((75, 150, 300, 600, 1200))}
    ratio_panel.label_ends(panel, ends, dict.fromkeys(ends, ("black", "o")))
    boxes = [text.get_window_extent() for text in panel.texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(panel.bbox.y0 <= box.y0 and box.y1 <= panel.bbox.y1 for box in boxes)


@pytest.mark.parametrize(
    ("number", "text"), [(75, "75"), (1200, "1200"), (143e3, "143k"), (1.9e6, "1.9M"), (1.41e9, "1.4B")]
)
def test_short_numbers(number, text):
    assert style.short(number) == text


def test_bad_requests_are_refused_and_leave_no_file(study, tmp_path):
    cells, fitted = study
    out = {"svg": tmp_path / "f.svg"}
    for arguments, message in (
        ((cells.drop(columns="step"), fitted, out), "lacks the columns step"),
        ((cells.assign(cr_lossless=np.nan, cr_published=np.nan), fitted, out), "no ratio"),
        ((cells, fitted, {"gif": tmp_path / "f.gif"}), "cannot write gif"),
    ):
        with pytest.raises(InputError, match=message):
            scaling.draw(*arguments)
    assert list(tmp_path.iterdir()) == []
