"""`make test-gpu`: everything that needs an NVIDIA card, in about ten minutes, into results/gpu-report.md.

Ends with one line and status 1 where there is no card, where a test fails or a cell does not decode; what was found
until then is in the report. It needs no network: texts are this repository's own pages.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("workflow", "benchmarks", "tests/gpu")]

import gpu as cells_on_a_gpu  # noqa: E402
import speeds  # noqa: E402

from bitlaw.compression import known_answers  # noqa: E402
from bitlaw.runtime import fused  # noqa: E402

REPORT = ROOT / "results/gpu-report.md"
TOKENIZER = ROOT / "data/ladder/tokenizer.json"
CHUNK, CHUNKS = 1024, 256
TESTS = {
    "kernels against plain operations, bit by bit": ["-m", "kernel", "tests/kernels"],
    "engines, known answers and LLM.int8()": [
        *("tests/unit/models/test_exact_engines.py", "tests/unit/compression/test_known_answers.py"),
        *(
            "tests/unit/models/test_llm_int8.py",
            "tests/unit/models/test_transformers_lm.py",
            "tests/unit/test_doctor.py",
        ),
    ],
}


def the_card():
    """Lines that say what card, driver and libraries these are."""
    about = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    yield f"- {about.name}, {about.total_memory / 2**30:.0f} GiB, {about.multi_processor_count} multiprocessors"
    yield f"- driver {subprocess.run(query, capture_output=True, text=True).stdout.split()[0]}"
    for package in ("torch", "triton", "bitsandbytes", "transformers"):
        try:
            yield f"- {package} {version(package)}"
        except PackageNotFoundError:
            yield f"- {package}: not installed"
    yield f"- CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    yield f"- fused kernels: {'used' if fused.usable('cuda') else 'not used'}"


def tests():
    """Lines of the results of pytest."""
    for title, arguments in TESTS.items():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        said = ran.stdout.strip().splitlines() or [ran.stderr.strip() or "nothing said"]
        yield f"- {title}: {said[-1].strip('= ')}"
        if ran.returncode:
            yield from ("", "```", *said[-40:], "```", "")
            raise AssertionError(f"{title}: {said[-1]}")


def answers(device="cuda", names=None):
    """Lines of a table of known answers by plain operations and by kernels."""
    table = known_answers.read_table()
    engines = {"plain operations": known_answers.by_digits(device), "kernels": known_answers.by_kernels(device)}
    yield from ("| model | plain operations | kernels |", "|---|---|---|")
    wrong = []
    for name, expected, found in known_answers.compute(table, names or list(table["answers"]), engines):
        said = {engine: "agree" if value == expected else f"DIFFER: {value}" for engine, value in found.items()}
        wrong += [f"{name} by {engine}" for engine, value in found.items() if value != expected]
        yield f"| {name} | {said['plain operations']} | {said['kernels']} |"
    if wrong:
        raise AssertionError(f"known answers differ: {', '.join(wrong)}")
    if not fused.usable(device):
        raise AssertionError("there are no fused kernels here: both columns are plain operations")


def timings(**given):
    """Lines of a table of kernels' times."""
    yield from ("| what | kernel, ms | plain, ms | rate of the kernel |", "|---|---:|---:|---:|")
    for what, own, plain, rate in speeds.measure(**given):
        yield f"| {what} | {own * 1e3:.3g} | {'' if plain is None else f'{plain * 1e3:.3g}'} | {rate} |"


def source(folder):
    """A source folder of this repository's own texts."""
    folder.mkdir()
    files = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("workflow/bitlaw/**/*.py")])
    text = b"\n".join(path.read_bytes() for path in files)
    (folder / "text").write_bytes(text)
    files = [{"path": "text", "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}]
    (folder / "source.json").write_text(json.dumps({"name": "pages", "licence": "MIT", "files": files}))
    return folder


def cells(device="cuda", shapes=("70m", "1.4b"), chunks=CHUNKS, size=8192):
    """Lines of a table of cells, each of which decodes a chunk in another process."""
    peaks = {kind: cells_on_a_gpu.peak(kind, device, size) for kind in ("fp16", "int8")}
    yield f"Measured peaks: {', '.join(f'{kind} {found / 1e12:.3g} T/s' for kind, found in peaks.items())}."
    yield from ("", *cells_on_a_gpu.HEADINGS.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        length = cells_on_a_gpu.prepare(work, source(work / "source"), CHUNK, chunks, TOKENIZER)
        for cell in cells_on_a_gpu.cells(work, shapes, cells_on_a_gpu.PRECISIONS, TOKENIZER, length, peaks, device):
            yield cells_on_a_gpu.row(cell)


PARTS = {
    "The card": the_card,
    "Tests": tests,
    "Known answers of exact arithmetic": answers,
    "Kernels": timings,
    "Cells with random weights": cells,
}


def write(path, parts=PARTS):
    """Write the report, part by part, and print it; returns the titles of parts that failed, with why."""
    failed = []
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:

        def say(line):
            print(line, flush=True)
            print(line, file=file, flush=True)

        say("# What a card says: `make test-gpu`")
        for title, part in parts.items():
            say(f"\n## {title}\n")
            started = time.perf_counter()
            try:
                for line in part():
                    say(line)
            except Exception as error:  # the other parts are still asked, and the command fails
                failed.append(f"{title} ({(str(error).splitlines() or [type(error).__name__])[0]})")
                say(f"\nFAILED: {failed[-1]}\n\n```\n{traceback.format_exc()}```")
            say(f"\n({time.perf_counter() - started:.0f} s)")
    return failed


def main():
    if not torch.cuda.is_available():
        sys.exit(
            f"make test-gpu: torch {torch.__version__} can use no NVIDIA card here; nothing was run and "
            "nothing written: run it on a machine with one, with a torch for its driver"
        )
    failed = write(REPORT)
    if failed:
        sys.exit(f"make test-gpu: {len(failed)} of {len(PARTS)} parts failed: {'; '.join(failed)}; see {REPORT}")


if __name__ == "__main__":
    main()
