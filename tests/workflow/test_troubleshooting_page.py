"""The page on troubleshooting quotes messages that the program, or a program under it, really has."""

import re

import pytest

from repository import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
# Snakemake's and the system's: see tests/drills
OTHERS = {"Directory cannot be locked", "No space left on device", "This could indicate a clock skew problem"}
QUOTED = re.findall(r"^\| (`.*?`(?: … `.*?`)*)", PAGE, re.M)


def source():
    """All string constants of the program, line breaks between their parts undone."""
    files = [*(ROOT / "workflow").rglob("*.py"), ROOT / "Snakefile"]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_is_in_the_program(quoted):
    parts = re.findall(r"`(.*?)`", quoted)
    assert set(parts) <= OTHERS or all(part in source() for part in parts), quoted


def test_there_are_messages():
    assert len(QUOTED) >= 10
