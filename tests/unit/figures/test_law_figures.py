import copy
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from bitlaw import InputError
from bitlaw.figures import contours, curves, excess, heldout, identifiability, residuals, style
from bitlaw.laws import fitting, formatting, profile_intervals

PICTURES = {
    "curves": curves.draw,
    "contours": contours.draw,
    "excess": excess.draw,
    "residuals": residuals.draw,
    "identifiability": identifiability.draw,
    "heldout": heldout.draw,
}
OPTIONAL = ("samples", "profile_curve", "holdouts", "reference", "at_ends_of_a", "params", "steps", "ratio")
SIZES, STEPS = (64e3, 160e3, 400e3, 900e3, 1.9e6), (75, 150, 300, 600, 1200)
TRUE = {"a": 0.2, "b": 15.0, "alpha": 0.5, "c": 5.0, "beta": 0.7}
REASON = "ratio rises with training at 5 of 5 sizes"


def law_with_all_keys(data):
    """A law and what says how well it is known, as a fit would give it: the numbers are plausible, no more."""
    p, s, ratio = (data[name].to_numpy(float) for name in ("params_total", "step", "cr_lossless"))
    law = fitting.fit(p, s, ratio)
    law |= {"params": p.tolist(), "steps": s.tolist(), "ratio": ratio.tolist()}
    best = [c["value"] or 0.0 for c in law["coefficients"].values()]
    law["samples"] = [[best[0] * f, best[1] / f, best[2], best[3] * f, best[4]] for f in (0.98, 1.0, 1.02)]
    law["samples"].append([float(ratio.mean()), 0.0, None, 0.0, None])  # terms that vanished
    alpha = np.geomspace(1e-3, 5.0, 21)
    objective = law["objective"] * (1 + np.log(alpha / max(best[2], 1e-3)) ** 2)
    law["profile_curve"] = {"alpha": alpha.tolist(), "a": (0.3 * alpha / (alpha + 0.5)).tolist()}
    law["profile_curve"] |= {"objective": objective.tolist(), "allowed": 1.2 * law["objective"]}
    far = s == s.max()
    held = {"params": p[far].tolist(), "steps": s[far].tolist(), "observed": ratio[far].tolist()}
    held["predicted"] = {"additive": (ratio[far] * 1.01).tolist(), "coupled": [None] * int(far.sum())}
    law["holdouts"] = {"last step": held, "far corner": held}
    law["at_ends_of_a"] = profile_intervals.at_ends_of_a(law)
    law["reference"] = {"coefficients": TRUE, "label": "printed, rounded"}
    return law


@pytest.fixture(scope="module")
def study():
    """A law (text), none (image), an unidentified exponent (speech), and cells without a fit (random)."""
    rng = np.random.default_rng(0)
    rows = []
    for p in SIZES:
        for s in STEPS:
            text = fitting.predict(
                {"form": "additive", "coefficients": {k: {"value": v} for k, v in TRUE.items()}}, p, s
            )
            rise = 0.05 * np.log(s / 75) + 0.01 * np.log(p / 64e3)
            rows.append(("text", p, s, float(text)))
            rows.append(("image", p, s, 1.1 + rise))
            rows.append(("speech", p, s, 1.3 + 8 * s**-0.9 + 2 * p**-0.4))
            rows.append(("random", p, s, 1.3))
    cells = pd.DataFrame(rows, columns=["modality", "params_total", "step", "cr_lossless"])
    cells["cr_lossless"] += 0.002 * rng.normal(size=len(cells))
    cells["cr_lossless_ci"], cells["cr_published"], cells["model"] = 0.004, cells["cr_lossless"] / 2, "m"
    found = {}
    for modality in ("text", "image", "speech"):
        found[modality] = {"lossless": law_with_all_keys(cells[cells["modality"] == modality])}
    speech = found["speech"]["lossless"]
    speech |= {"verdict": "law in size and training", "verdict_reasons": [], "supported": None}  # whatever the scatter
    speech["profile"]["alpha"] = {"low": None, "high": None, "low_unbounded": True, "high_unbounded": True}
    found["image"]["lossless"] |= {"verdict": "no law", "verdict_reasons": [REASON], "supported": None}
    return cells, found


@pytest.fixture(scope="module")
def drawn(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, draw in PICTURES.items():
        draw(*study, {kind: folder / f"{name}.{kind}" for kind in ("svg", "pdf", "png")})
    return folder


def words(svg):
    """The texts of an svg whose glyphs are paths, joined: matplotlib leaves each as a comment."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", svg.read_text(), flags=re.DOTALL)).replace("\u2009", " ")


def overlaps(figure, monkeypatch):
    """Texts that leave the page, and pairs of which one covers the other; among those drawn (not ticks out of view)."""
    boxes, draw = {}, Text.draw

    def watched(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            boxes[id(text)] = (text.get_text(), text.get_window_extent(renderer).padded(-1))

    monkeypatch.setattr(Text, "draw", watched)
    figure.draw_without_rendering()
    boxes, page = list(boxes.values()), figure.bbox.padded(1)
    off = [name for name, box in boxes if not page.contains(*box.p0) or not page.contains(*box.p1)]
    return off + [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other)]


def test_the_files_are_what_they_say_and_nothing_else_is_left(drawn):
    assert sorted(p.name for p in drawn.iterdir()) == sorted(
        f"{n}.{k}" for n in PICTURES for k in ("svg", "pdf", "png")
    )
    for name in PICTURES:
        assert (drawn / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (drawn / f"{name}.svg").read_text()
        assert imread(drawn / f"{name}.png").shape[1] == round(style.WIDTH * 200), name


@pytest.mark.parametrize("name", PICTURES)
def test_bytes_repeat_and_hold_no_date(study, drawn, tmp_path, name):
    PICTURES[name](*study, {kind: tmp_path / kind for kind in ("svg", "pdf", "png")})
    for kind in ("svg", "pdf", "png"):
        assert (tmp_path / kind).read_bytes() == (drawn / f"{name}.{kind}").read_bytes(), kind
    assert b"Date" not in (tmp_path / "pdf").read_bytes() and "<dc:date>" not in (tmp_path / "svg").read_text()


@pytest.mark.parametrize("name", PICTURES)
def test_every_modality_is_there_and_a_refused_law_is_words(drawn, name):
    seen = words(drawn / f"{name}.svg")
    for modality in ("text", "image", "speech", "random"):
        assert re.search(rf"^{modality}$", seen, flags=re.MULTILINE)
    assert re.sub(r"\s", " ", seen).count(f"no law: {REASON}") == 1
    assert "no law fitted" in seen


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("modalities", [("text",), ("text", "image", "speech"), ("text", "image", "speech", "random")])
def test_no_text_covers_another(study, tmp_path, monkeypatch, name, modalities):
    figures = []
    monkeypatch.setattr(style, "write", lambda figure, out: figures.append(overlaps(figure, monkeypatch)))
    cells, found = study
    PICTURES[name](cells[cells["modality"].isin(modalities)], found, {"svg": tmp_path / "f.svg"})
    assert figures == [[]]


@pytest.mark.parametrize("name", PICTURES)
def test_a_law_without_the_optional_keys_is_drawn_and_what_is_missing_said(study, tmp_path, name):
    cells, found = study
    bare = {key: value for key, value in found["text"]["lossless"].items() if key not in OPTIONAL}
    cells = cells[cells["modality"] == "text"].drop(columns="cr_lossless_ci")
    PICTURES[name](cells, {"text": {"lossless": bare}}, {"svg": tmp_path / "f.svg"})
    missing = {"curves": "no samples: no bands", "identifiability": "no profile computed"}
    assert ({"heldout": "no cells held out"} | missing).get(name, "text") in words(tmp_path / "f.svg")


def test_curves_say_law_errors_published_law_and_null(study, drawn):
    seen, law = words(drawn / "curves.svg"), study[1]["text"]["lossless"]
    assert formatting.equation(law) in seen and "±" in seen
    assert "- - published (printed, rounded): $" in seen and "outside the panels" in seen
    assert "random bytes 1.30" in seen and "size $P$" in seen and "step $S$" in seen


def test_excess_shows_what_a_does_and_which_exponent_is_not_known(study, drawn):
    seen, profile = words(drawn / "excess.svg"), study[1]["text"]["lossless"]["profile"]
    assert f"$a$ {profile['a']['low']:.3f}: α" in seen and f"$a$ {profile['a']['high']:.3f}: α" in seen
    assert f"{profile['alpha']['low']:.2g} to {profile['alpha']['high']:.2g}" in seen
    assert re.sub(r"\s", " ", seen).count("(95 %: unbounded), not identified") == 1


def test_residuals_are_numbers_and_cells_out_of_the_fit_stand_in_parentheses(study, tmp_path):
    cells, found = study
    law = copy.deepcopy(found["text"]["lossless"])
    for name in ("params", "steps"):
        law[name] = law[name][1:]
    PICTURES["residuals"](cells[cells["modality"] == "text"], {"text": {"lossless": law}}, {"svg": tmp_path / "f.svg"})
    seen = words(tmp_path / "f.svg")
    number = f"{1000 * law['residuals'][0]:+.1f}".replace("-", "−")
    assert f"({number})" in seen and seen.count("(") == 1


@pytest.mark.parametrize(
    ("open_ends", "text"), [(("low", "high"), "← unbounded →"), (("low",), "← unbounded\n"), (("high",), "unbounded →")]
)
def test_an_unbounded_profile_says_so(study, tmp_path, open_ends, text):
    cells, found = study
    law = copy.deepcopy(found["text"]["lossless"])
    for end in open_ends:
        law["profile"]["alpha"] |= {end: None, f"{end}_unbounded": True}
    laws_, cells = {"text": {"lossless": law}}, cells[cells["modality"] == "text"]
    PICTURES["identifiability"](cells, laws_, {"svg": tmp_path / "f.svg"})
    assert text in words(tmp_path / "f.svg") + "\n"


def test_heldout_names_kinds_and_forms_and_leaves_out_a_form_without_numbers(drawn):
    seen = words(drawn / "heldout.svg")
    for name in ("last step", "far corner", "additive", "coupled"):
        assert name in seen
    assert "RMSE additive" in seen and "RMSE coupled" not in seen and ", coupled" not in seen


@pytest.fixture(scope="module")
def training_only(study):
    """A law whose size term the data do not support."""
    cells = study[0][study[0]["modality"] == "text"].copy()
    cells["modality"] = "lines"
    cells["cr_lossless"] = 0.4 + 8 * cells["step"] ** -0.9 + 0.004 * np.random.default_rng(2).normal(size=len(cells))
    law = law_with_all_keys(cells)
    assert law["verdict"] == "law in training only"
    alone = law["supported"]
    alone["at_ends_of_a"] = profile_intervals.at_ends_of_a(alone)
    alone["samples"] = [[entry["value"] * f for entry in alone["coefficients"].values()] for f in (0.98, 1, 1.02)]
    return cells, {"lines": {"lossless": law}}


@pytest.mark.parametrize("name", PICTURES)
def test_only_the_term_that_the_data_support_is_drawn_and_written(training_only, tmp_path, monkeypatch, name):
    cells, found = training_only
    figures = []

    def written(figure, out):
        figures.append(overlaps(figure, monkeypatch))

    PICTURES[name](cells, found, {"svg": tmp_path / "f.svg"})
    seen = re.sub(r"\s", " ", words(tmp_path / "f.svg"))
    law = found["lines"]["lossless"]
    assert "P^{-" not in seen.replace(formatting.equation({"form": "additive", "coefficients": {
        key: {"value": value} for key, value in TRUE.items()}}), "")  # fmt: skip
    if name != "heldout":
        assert law["verdict_reasons"][0] in seen
    if name in ("curves", "contours"):
        assert formatting.equation(law["supported"]) in seen
    if name == "curves":  # the same curve at every size
        predicted = fitting.predict(law["supported"], np.array(SIZES), 300.0)
        assert np.ptp(np.broadcast_to(predicted, 5)) == 0
    if name == "excess":
        assert "CR − $a$" in seen and "β = −slope" in seen and "α = −slope" not in seen
    monkeypatch.setattr(style, "write", written)
    PICTURES[name](cells, found, {"svg": tmp_path / "g.svg"})
    assert figures == [[]]


@pytest.mark.parametrize("name", PICTURES)
def test_bad_requests_are_refused_and_leave_no_file(study, tmp_path, name):
    cells, found = study
    out = {"svg": tmp_path / "f.svg"}
    other = {"text": {"lossless": found["text"]["lossless"] | {"params_kind": "non-embedding"}}}
    for arguments, message in (
        ((cells, found, out, "cr_lossless"), "protocol 'cr_lossless'"),
        ((cells.assign(cr_published=np.nan), found, out, "published"), "no cell has a published ratio"),
        ((cells.drop(columns="step"), found, out), "lacks the columns step"),
        ((cells, found, {"gif": tmp_path / "f.gif"}), "cannot write gif"),
        ((cells, other, out), "non-embedding parameters"),
    ):
        with pytest.raises(InputError, match=message):
            PICTURES[name](*arguments)
    assert list(tmp_path.iterdir()) == []
