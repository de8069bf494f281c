"""An emulated 64-bit Arm machine with Python, numpy, numba and tokenizers, in a folder; nothing is installed.

Debian's packages for it come by apt-get from the sources that this machine names, with lists of their own; the wheels
by pip, in the versions that run here. Run as a script, this file makes the folder, or says in one line why it cannot.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / ".portable"
PACKAGES = ("python3", "libstdc++6")  # and what they depend on
WHEELS = ("numpy", "numba", "llvmlite", "tokenizers")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
EMULATOR, ITS_PACKAGE = "qemu-aarch64-static", "qemu-user-static"


class Unavailable(Exception):
    """The machine cannot be made here; the message is one line."""


class Arm(NamedTuple):
    """command: what runs a Python script there, before its name; site: where its packages are, for PYTHONPATH."""

    command: list
    site: Path


def machine(folder=FOLDER):
    """The Arm machine in `folder`, made at the first call and when the versions here have changed."""
    pins = {name: version(name) for name in WHEELS}
    ready = folder / "arm64"
    about = ready / "ready.json"
    if not about.exists() or json.loads(about.read_text()) != pins:
        shutil.rmtree(ready, ignore_errors=True)
        being_made = folder / "arm64.partial"
        shutil.rmtree(being_made, ignore_errors=True)
        _emulator(being_made)
        _packages(being_made)
        _wheels(being_made, pins)
        (being_made / about.name).write_text(json.dumps(pins))
        being_made.rename(ready)
    root = ready / "root"
    return Arm([str(ready / EMULATOR), "-L", str(root), str(_python(root))], ready / "site")


def _emulator(folder):
    """Put the emulator into `folder`, from its package; the rest of that package is left out."""
    unpacked = folder / "emulator"
    _unpack(_apt(folder / "apt-here", None, "download", ITS_PACKAGE), unpacked)
    (found,) = unpacked.rglob(EMULATOR)
    found.rename(folder / EMULATOR)
    shutil.rmtree(unpacked)
    shutil.rmtree(folder / "apt-here")


def _packages(folder):
    apt = ("install", "--download-only", "--yes", "--no-install-recommends", *PACKAGES)
    _unpack(_apt(folder / "apt-arm64", "arm64", *apt), folder / "root")
    shutil.rmtree(folder / "apt-arm64")


def _apt(folder, architecture, *command):
    """Paths of the packages that `apt-get command` downloads, with lists and caches under `folder`."""
    folder = folder.resolve()
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed there: every dependency is fetched
    settings = {"Dir::State": folder / "state", "Dir::State::status": folder / "status", "Dir::Cache": folder / "cache",
                "Debug::NoLocking": "true"}  # fmt: skip
    if architecture:
        settings |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    if hasattr(os, "getuid") and os.getuid() == 0:
        settings["APT::Sandbox::User"] = "root"  # the folder may be closed to others
    apt = ["apt-get", "--quiet=2", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "-oAPT::Update::Error-Mode=any", "update"], folder)
    _run([*apt, *command], folder)
    found = sorted([*folder.glob("*.deb"), *folder.glob("cache/archives/*.deb")])
    if not found:
        raise Unavailable(f"apt-get {' '.join(command)}: downloaded nothing")
    return found


def _unpack(packages, folder):
    folder.mkdir(parents=True)
    for package in packages:
        _run(["dpkg", "-x", str(package), str(folder)], folder)


def _wheels(folder, pins):
    downloaded, site = folder / "wheels", folder / "site"
    python = _python(folder / "root").name.removeprefix("python")
    wanted = [f"{name}=={pin}" for name, pin in pins.items()]
    options = [option for platform in PLATFORMS for option in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    only = ["--only-binary=:all:", "--python-version", python, *options, "--dest", str(downloaded)]
    _run([*pip, *only, *wanted], folder)
    for wheel in downloaded.glob("*.whl"):
        shutil.unpack_archive(wheel, site, "zip")
    shutil.rmtree(downloaded)


def _python(root):
    """The interpreter, under the name that holds its version: python3.11."""
    found = [path for path in (root / "usr/bin").glob("python3.*") if path.name.removeprefix("python3.").isdecimal()]
    if len(found) != 1:
        raise Unavailable(f"{root}: expected one Python, found {[path.name for path in found]}")
    return found[0]


def _run(command, folder):
    try:
        ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{command[0]}: cannot be run here ({error.strerror})") from None
    if ran.returncode:
        lines = (ran.stderr.strip() or ran.stdout.strip() or "no message").splitlines()
        first = next((line for line in lines if line.startswith(("E:", "ERROR:"))), lines[-1])
        name = " ".join([Path(command[0]).name, *(word for word in command[1:] if not word.startswith("-"))][:4])
        raise Unavailable(f"{name}: {first}")


if __name__ == "__main__":
    try:
        print(f"emulated 64-bit Arm: {machine().command[-1]}")
    except Unavailable as reason:
        sys.exit(f"no emulated 64-bit Arm, so its tests were skipped: {reason}")
