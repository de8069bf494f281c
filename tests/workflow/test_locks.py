"""The locks: every package that an installation needs, of a version and with the sha256 of its files."""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repository import ROOT, pins

LOCKS = ["requirements", "requirements-dev", "requirements-browser"]
# which build of torch fits is the user's choice; that build's own libraries come with it
FREE = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def locked(name):
    """Distribution to (version, hashes), of a lock."""
    entries = re.split(r"\n(?=\w)", (ROOT / f"{name}.lock").read_text())
    found = {}
    for entry in entries:
        pin = re.match(r"([\w.-]+)==([^\s;]+)", entry)
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
        assert pin and hashes, entry
        found[canonicalize_name(pin[1])] = (pin[2], hashes)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_the_versions_that_are_pinned(name):
    pinned = {n: v for lock in LOCKS[: LOCKS.index(name) + 1] for n, v in pins(f"{lock}.txt").items()}
    versions = {n: version for n, (version, _) in locked(name).items()}
    assert {n: v for n, v in pinned.items() if versions.get(n) != v} == {"torch": pins("requirements.txt")["torch"]}


def test_the_lock_holds_all_that_the_pinned_packages_need():
    lock, wanted, seen = locked("requirements-dev"), [*pins("requirements.txt"), *pins("requirements-dev.txt")], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in lock or FREE.fullmatch(name), f"{name} is in no lock: make lock"
        for requirement in map(Requirement, metadata.requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(canonicalize_name(requirement.name))
    assert len(seen) > 100


def test_the_lock_of_kernels_holds_triton_as_pinned():
    ((name, (version, _)),) = locked("requirements-kernels").items()
    assert {name: version} == pins("requirements-kernels.txt") and name == "triton"


def install(line, packages, target):
    """Install by one line of a lock, from the folder `packages` alone, as `make` does."""
    lock = target.with_suffix(".lock")
    lock.write_text(line)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-index"]
    command += ["--find-links", str(packages), "--target", str(target), "-r", str(lock)]
    return subprocess.run(command, capture_output=True, text=True, env={"PIP_CONFIG_FILE": "/dev/null"})


def test_a_wheel_that_is_not_the_locked_one_is_refused(tmp_path):
    version, _ = locked("requirements")["throttler"]
    wheel = tmp_path / f"throttler-{version}-py3-none-any.whl"
    about = f"throttler-{version}.dist-info"
    files = {
        "throttler.py": "tampered = True\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: throttler\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},\n"
        for name, text in files.items()
    )
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (files | {f"{about}/RECORD": record}).items():
            archive.writestr(name, text)
    (line,) = re.findall(r"^throttler==(?:.*\\\n)*.*\n", (ROOT / "requirements.lock").read_text(), re.M)
    refused = install(line, tmp_path, tmp_path / "refused")
    assert refused.returncode != 0 and "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "refused").exists()
    # it is the hash that it failed by
    own = f"throttler=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    taken = install(own, tmp_path, tmp_path / "taken")
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "taken/throttler.py").exists()
