"""The repository as a person gets it, for tests that run it."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def clone_to(folder):
    """Copy the files that git knows to `folder`, as a fresh clone has them, and add a text, notes/a.txt; the folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("It was the best of times, it was the worst of times. " * 200)
    return folder
