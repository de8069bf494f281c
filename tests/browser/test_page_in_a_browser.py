"""The page in headless Chromium, from disk and without a network: figure, tables, links, phone, print, axe-core.

Screenshots are left in results/screenshots for people to look at. Run by `make test-browser`.
"""

import re

import pytest

import made_up
from bitlaw.report import page
from repository import ROOT

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


@pytest.fixture(scope="module")
def address(made_up_study, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, made_up_study)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Open the page in a new context; whatever it asks of a network or complains of fails the test."""
    contexts, complaints = [], []

    def at(viewport=DESKTOP, drawn=True, **options):
        context = browser.new_context(viewport=viewport, offline=True, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url) if network(request.url) else None)
        tab.goto(address)
        if drawn:
            tab.wait_for_selector("#chart[data-drawn]")
        return tab

    yield at
    for context in contexts:
        context.close()
    assert not complaints


def network(url):
    return not url.startswith(("file:", "data:", "blob:"))


def change(tab, act):
    """Do something that draws the figure again, and wait until it stands."""
    before = tab.get_attribute("#chart", "data-drawn")
    act()
    tab.wait_for_function("before => document.getElementById('chart').dataset.drawn !== before", arg=before)


def points(tab):
    """{description of a cell: its place on the screen} of the figure."""
    found = tab.query_selector_all("#chart [aria-roledescription=point]")
    return {mark.get_attribute("aria-label"): mark.bounding_box() for mark in found}


def height_of_ratio(tab, modality):
    """Screen height of the cells of a modality."""
    return {about: box["y"] for about, box in points(tab).items() if about.startswith(f"{modality},")}


def labels(tab):
    """The numbers at the axes of the figure."""
    return tab.locator("#chart .role-axis-label text").all_text_contents()


def test_every_cell_is_in_the_figure_with_the_numbers_of_the_table(opened, made_up_study):
    described = points(opened())
    cells = made_up.read_cells(made_up_study)
    assert len(described) == len(cells)
    for row in cells.to_dict("records"):
        expected = (
            f"{row['modality']}, {row['model']}, step {row['step']:,}, {row['params_total']:,} parameters: "
            f"lossless {row['cr_lossless']:.3f} ± {row['cr_lossless_ci']:.3f}, "
            f"published {row['cr_published']:.3f} ± {row['cr_published_ci']:.3f}"
        )
        assert expected in described


def test_switching_the_protocol_changes_the_numbers_to_those_of_the_table(opened, made_up_study):
    tab = opened()
    cells = made_up.read_cells(made_up_study)
    cells = cells[(cells["modality"] == "image") & (cells["model"] == "large")]
    for protocol in ("lossless", "published"):
        if protocol == "published":
            change(tab, lambda: tab.check("input[value=published]"))
        grid = tab.locator(f"#table-image-{protocol}")
        assert grid.is_visible()
        shown = grid.locator("tbody tr", has_text="large").locator("td").all_inner_texts()
        assert shown[1:] == [f"{ratio:.3f}" for ratio in cells[f"cr_{protocol}"]]
        other = "published" if protocol == "lossless" else "lossless"
        assert not tab.locator(f"#table-image-{other}").is_visible()
        axis = [float(text) for text in labels(tab) if re.fullmatch(r"\d\.\d+", text)]
        assert min(axis) < cells[f"cr_{protocol}"].max() < max(axis)
    assert "published" in tab.inner_text("#status")


def test_hiding_a_modality_takes_its_panel_away(opened):
    tab = opened()
    assert any(about.startswith("random,") for about in points(tab))
    change(tab, lambda: tab.uncheck("input[value=random]"))
    left = points(tab)
    assert len(left) == 18 and not any(about.startswith("random,") for about in left)
    change(tab, lambda: tab.check("input[value=random]"))
    assert len(points(tab)) == 27


def test_axes_turn_logarithmic_and_sizes_are_counted_otherwise(opened):
    tab = opened()
    before = {about: box["x"] for about, box in points(tab).items()}
    change(tab, lambda: tab.uncheck("input[name=log][value=x]"))
    linear = {about: box["x"] for about, box in points(tab).items()}
    small, middle, large = (next(a for a in before if a.startswith(f"text, {m}, step 75,")) for m in made_up.SIZES)
    assert (before[middle] - before[small]) / (before[large] - before[small]) == pytest.approx(0.496, abs=0.02)
    assert (linear[middle] - linear[small]) / (linear[large] - linear[small]) == pytest.approx(0.199, abs=0.02)
    heights = height_of_ratio(tab, "text")
    change(tab, lambda: tab.check("input[name=log][value=y]"))
    assert height_of_ratio(tab, "text") != heights
    assert "1M" in labels(tab) and "500k" not in labels(tab)
    change(tab, lambda: tab.select_option("#size", "nonembedding"))
    assert "500k" in labels(tab) and "1M" not in labels(tab)


def test_pointing_at_a_cell_shows_it_and_a_click_opens_its_provenance(opened):
    tab = opened()
    mark = next(m for m in tab.query_selector_all("#chart [aria-roledescription=point]")
                if m.get_attribute("aria-label").startswith("text, large, step 75,"))  # fmt: skip
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = tab.wait_for_selector("#vg-tooltip-element.visible")
    words = tip.inner_text()
    assert "large" in words and "75" in words and "lossless" in words and "published" in words and "±" in words
    mark.click(force=True)
    tab.wait_for_function("location.hash === '#cell-text-large-step75'")
    cell = tab.locator("#cell-text-large-step75")
    assert cell.get_attribute("open") is not None
    assert cell.locator("a").get_attribute("href") == "cells/text/large/step75.json"
    assert "weights_sha256" in cell.inner_text()


def column(tab, table, number):
    return tab.locator(f"#table-{table} tbody tr > :nth-child({number})").all_inner_texts()


def test_a_heading_sorts_its_column_both_ways_by_keyboard(opened, made_up_study):
    tab = opened()
    ratios = sorted(made_up.read_cells(made_up_study)["cr_lossless"])
    button = tab.locator("#table-cells thead button", has_text="lossless")
    head = tab.locator("#table-cells thead th", has_text="lossless")
    button.focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(tab, "cells", 5) == [f"{ratio:.4f}" for ratio in ratios]
    tab.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(tab, "cells", 5) == [f"{ratio:.4f}" for ratio in reversed(ratios)]
    tab.locator("#table-cells thead button", has_text="model").click()
    assert head.get_attribute("aria-sort") is None
    assert column(tab, "cells", 2) == ["large"] * 9 + ["middle"] * 9 + ["small"] * 9


def test_a_table_is_copied_as_csv_and_latex(opened, made_up_study):
    tab = opened(permissions=["clipboard-read", "clipboard-write"])
    tab.click("#table-cells [data-copy=csv]")
    tab.wait_for_function("document.getElementById('status').textContent === 'Copied 28 lines'")
    lines = tab.evaluate("navigator.clipboard.readText()").splitlines()
    first = made_up.read_cells(made_up_study).iloc[0]
    assert lines[0].startswith("modality,model,step,parameters,lossless,±,published")
    assert lines[1].split(",")[:5] == ["text", "small", "75.0", "64000.0", repr(float(first["cr_lossless"]))]
    tab.click("#table-audit [data-copy=latex]")
    tab.wait_for_function("document.getElementById('status').textContent === 'Copied 12 lines'")
    latex = tab.evaluate("navigator.clipboard.readText()")
    assert latex.startswith("\\begin{tabular}{lrrr}\n\\toprule\n") and "$\\to$" in latex and "→" not in latex


def test_the_keyboard_gets_from_the_skip_link_to_the_figures_form(opened):
    tab = opened()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "protocol"
    change(tab, lambda: tab.keyboard.press("ArrowRight"))
    assert tab.is_checked("input[value=published]")


def test_without_javascript_the_static_figure_and_every_table_are_there(opened):
    tab = opened(drawn=False, java_script_enabled=False)
    assert tab.locator("img.static").is_visible() and not tab.locator("#controls").is_visible()
    assert tab.locator("#table-text-lossless").is_visible() and tab.locator("#table-text-published").is_visible()
    assert not tab.locator("[data-copy]").first.is_visible()


def test_print_shows_the_static_figure_and_no_controls(opened):
    tab = opened()
    tab.emulate_media(media="print")
    assert tab.locator("img.static").is_visible()
    assert tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert not tab.locator("#chart").is_visible() and not tab.locator("#controls").is_visible()
    assert tab.evaluate("getComputedStyle(document.querySelector('.tall .scroll')).maxHeight") == "none"


@pytest.mark.parametrize(("name", "viewport"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_nothing_is_wider_than_the_screen(opened, name, viewport):
    tab = opened(viewport)
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    svg = tab.locator("#chart svg").bounding_box()
    assert svg["x"] >= 0 and svg["x"] + svg["width"] <= viewport["width"]
    if name == "phone":  # panels stand one below the other
        assert len({round(box["x"] / 100) for about, box in points(tab).items() if ", small, step 75," in about}) == 1
    folder = ROOT / "results" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=folder / f"{name}.png", full_page=True)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_serious(opened, viewport):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = opened(viewport)
    tab.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    found = axe.run(tab).response["violations"]
    serious = [(v["id"], v["impact"], [n["html"][:150] for n in v["nodes"][:3]]) for v in found
               if v["impact"] in ("serious", "critical")]  # fmt: skip
    assert not serious


def test_tables_of_coefficients_are_folded_and_printed(opened):
    tab = opened()
    folded = "[...document.querySelectorAll('#laws details')].map((part) => part.open)"
    assert tab.evaluate(folded) and not any(tab.evaluate(folded))
    tab.pdf()
    assert all(tab.evaluate(folded))
