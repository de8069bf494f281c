"""Tables in pages of docs/, read."""

from pathlib import Path


def documented(page, section="Families"):
    """{family: last column of its row} of the table in a section of the page docs/models.md."""
    text = Path(page).read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {family: row[-1] for row in rows for family in row[0].replace("`", "").split(", ")}
