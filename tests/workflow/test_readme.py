"""The numbers that README.md and docs/ show are those of docs/tables, and these are those of a fresh run."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT

_spec = importlib.util.spec_from_file_location("write_tables", ROOT / "docs/write_tables.py")
write_tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(write_tables)


@pytest.mark.parametrize("page", write_tables.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_studies(page):
    assert write_tables.render(page.read_text()) == page.read_text()


def test_a_number_that_moved_is_found():
    readme = (ROOT / "README.md").read_text()
    first = write_tables.real_model().splitlines()[2]
    assert first in readme
    moved = readme.replace(first, first.replace("0.1", "0.2", 1))
    assert write_tables.render(moved) == readme != moved


def test_every_mark_names_a_table_and_every_table_has_a_mark():
    text = "".join(page.read_text() for page in write_tables.PAGES)
    assert text.count("<!-- numbers: ") == text.count("<!-- end -->") == len(write_tables.MARKED.findall(text))
    named = {name for name, _ in write_tables.MARKED.findall(text)}
    assert {"real_model", "ladder_ranges", "ladder_text", "how_much_is_real", "prior_or_context"} <= named


@pytest.mark.slow
def test_the_tables_are_those_of_a_fresh_run(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    snakemake = Path(sys.executable).with_name("snakemake")
    tables = [f"results/embedded/tables/{name}.csv" for name in ("cells", "classical", "context")]
    ran = subprocess.run(
        [snakemake, "--cores", "8", *tables], cwd=tmp_path, capture_output=True, text=True, timeout=3600
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    write_tables.take(tmp_path / "results", tmp_path / "taken")
    taken = sorted((tmp_path / "taken").iterdir())
    assert [path.name for path in taken] == [f"embedded_{name}.csv" for name in ("cells", "classical", "context")]
    for path in taken:
        assert path.read_text() == (ROOT / "docs/tables" / path.name).read_text(), path.name
