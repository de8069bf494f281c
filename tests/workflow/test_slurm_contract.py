"""What Snakemake hands to sbatch under the shipped profiles, recorded by stand-ins on PATH; no cluster is needed.

The stand-in for sbatch refuses every job, so that all attempts of each are seen at once.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bitlaw import study
from bitlaw.runtime import resources
from repository import ROOT, rules

SNAKEMAKE = Path(sys.executable).with_name("snakemake")
PARAMETERS = {"small": 64_000, "middle": 1_400_000_000, "large": 12_000_000_000}
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text()) | {
    "study": "contract",
    "precision": "fp32",
    "modalities": [{"name": "random", "source": "random", "cut": "bytes", "sampling": "head"}],
    "models": [{"name": name, "folder": "models/{name}/step{step}", "tokenizer": "any"} for name in PARAMETERS],
    "steps": [1],
    "tokenizers": {"any": "models/tokenizer.json"},
}
STAND_IN = """#!/bin/sh
case "$0" in
*/sbatch) for word; do printf '%s\\0' "$word"; done > "$CALLS/$$"; echo refused >&2; exit 1 ;;
*/scontrol) echo "MinJobAge = 300 sec"; echo "MaxArraySize = 1001" ;;
*/sinfo) echo "PARTITION"; echo "main*" ;;
*/sacctmgr | */sshare) echo my-project ;;
esac
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder in which only cells are left to do, with models of three sizes whose files hold nothing."""
    folder = tmp_path_factory.mktemp("contract")
    dataset = study.dataset(CONFIG, "random")
    for number, name in enumerate(  # in the order of their dates, or Snakemake would make them anew
        ["data/raw/random/source.json", f"data/shards/{dataset}/manifest.json", "models/tokenizer.json"]
        + [f"data/shards/{dataset}/{name}" for name in study.arrays(CONFIG)]
        + [f"models/{model}/step1/{file}" for model in PARAMETERS for file in ("config.json", "model.safetensors")]
        + [f"data/tokens/{dataset}/any.npz"]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        if path.suffix == ".safetensors":
            os.truncate(path, 2 * PARAMETERS[path.parts[-3]])
        os.utime(path, (2e9 + number, 2e9 + number))
    for name in ("workflow", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "contract.yaml").write_text(json.dumps(CONFIG))
    (folder / "bin").mkdir()
    for name in ("sbatch", "squeue", "sacct", "sacctmgr", "sshare", "scancel", "scontrol", "sinfo"):
        (folder / "bin" / name).write_text(STAND_IN)
        (folder / "bin" / name).chmod(0o755)
    return folder


def submitted(folder, profile, *arguments):
    """Model to the lists of words that sbatch was called with, in the order of the attempts."""
    calls = folder / f"calls-{profile}-{len(list(folder.iterdir()))}"
    calls.mkdir()
    command = [
        *("timeout", "-k", "5", "60", SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--directory", folder),
        *("--profile", f"profiles/{profile}", "--configfile", "contract.yaml"),
        *("--slurm-init-seconds-before-status-checks", "1"),
        *(f"results/contract/cells/random/{model}/step1.json" for model in PARAMETERS),
        *arguments,
    ]
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CALLS": str(calls)}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert "refused" in ran.stderr, ran.stdout + ran.stderr
    found = {model: [] for model in PARAMETERS}
    for call in calls.iterdir():
        words = call.read_text().split("\0")[:-1]
        wrapped = next(word for word in words if word.startswith("--wrap"))
        model = re.search(r"model=([a-z]+)", wrapped)[1]
        found[model].append((int(re.search(r"--attempt '?(\d+)", wrapped)[1]), words))
    return {model: [words for _, words in sorted(attempts)] for model, attempts in found.items()}


def value(words, flag):
    return words[words.index(flag) + 1]


@pytest.fixture(scope="module")
def plain(folder):
    return submitted(folder, "slurm", "--config", "device=cpu", "max_mem_mb=256000", "max_minutes=1440")


def test_each_cell_is_one_job_of_one_task_and_tried_four_times(plain):
    for attempts in plain.values():
        assert len(attempts) == 4
        for words in attempts:
            assert "--ntasks=1" in words and "--cpus-per-task=2" in words and "--no-requeue" in words
            assert not any(word.startswith(("--gpus", "--gres", "--ntasks-per-gpu", "--array")) for word in words)
            assert "--keep-incomplete" in words[-1] or any("--keep-incomplete" in word for word in words)


def test_memory_and_time_double_with_each_attempt_up_to_the_cap(plain):
    for model, attempts in plain.items():
        asked = [(int(value(words, "--mem")), int(value(words, "-t"))) for words in attempts]
        tokens = CONFIG["chunks"] * CONFIG["chunk_bytes"]
        memory = resources.memory_mb(PARAMETERS[model], "fp32", "cpu")
        minutes = resources.minutes(PARAMETERS[model], "fp32", "cpu", tokens, CONFIG["chunk_bytes"])
        assert asked == [(min(memory * f, 256_000), min(minutes * f, 1440)) for f in (1, 2, 4, 8)]
    memory = [int(value(words, "--mem")) for words in plain["large"]]
    assert memory[0] > 2.5 * 12e9 * 4 / 1e6 and memory[1] == 2 * memory[0] and memory[2:] == [256_000, 256_000]


def test_the_partition_follows_the_size_of_the_model_and_the_attempt(plain):
    assert [value(words, "-p") for words in plain["small"]] == ["short"] * 4
    assert [value(words, "-p") for words in plain["middle"]] == ["short", "long", "long", "long"]
    assert [value(words, "-p") for words in plain["large"]] == ["long"] * 4


def test_a_gpu_is_asked_for_as_gpus(folder):
    for attempts in submitted(folder, "slurm", "--retries", "0").values():
        (words,) = attempts
        assert "--gpus=1" in words and value(words, "-p") == "gpu" and "--cpus-per-task=2" in words
        assert not any(word.startswith(("--gres", "--ntasks")) for word in words)


def test_a_gpu_is_asked_for_as_gres_where_the_cluster_wants_that(folder):
    for attempts in submitted(folder, "slurm-gres", "--retries", "0").values():
        (words,) = attempts
        assert "--gres=gpu:1" in words and value(words, "-p") == "main" and value(words, "-A") == "my-project"
        assert not any(word.startswith(("--gpus", "--ntasks")) for word in words)


def test_the_start_of_a_job_imports_no_torch(folder):
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "-n",
        "--nolock",
    ]
    command += ["--directory", folder, "--configfile", "contract.yaml", "--cores", "1", "--allowed-rules", "compress"]
    command += ["--target-jobs", "compress:modality=random,model=small,step=1", "--force", "--mode", "remote"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^compress +1$", ran.stdout, re.M)
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", ran.stderr, re.M))
    assert "bitlaw.study" in loaded and not {"torch", "transformers", "numba", "scipy"} & loaded


@pytest.mark.parametrize("profile", ["slurm", "slurm-gres"])
def test_a_profile_has_neither_groups_nor_arrays_nor_tasks(profile):
    text = (ROOT / "profiles" / profile / "profile.v9+.yaml").read_text()
    keys = yaml.safe_load(text)
    assert not {"groups", "group-components", "slurm-array-jobs"} & set(keys)
    assert not {"tasks", "ntasks"} & set(keys["default-resources"])


def test_downloads_are_the_jobs_that_run_where_snakemake_does():
    """The others never need the network; compute nodes may have none."""
    with_jobs = {name: rule for name, rule in rules().items() if rule["script"]}
    assert {name for name, rule in with_jobs.items() if rule["local"]} == {"fetch", "fetch_model", "fetch_tokenizer"}


def test_what_a_cell_asks_for_grows_with_all_that_it_depends_on():
    assert resources.memory_mb(70e6, "fp32", "cpu") < resources.memory_mb(410e6, "fp32", "cpu")
    assert resources.memory_mb(410e6, "fp16", "cpu") < resources.memory_mb(410e6, "fp32", "cpu")
    more = {"parameters": 12e9, "precision": "int8", "tokens": 2048 * 2048, "steps": 4096}
    base = {"parameters": 1e9, "precision": "fp16", "device": "cuda", "tokens": 24 * 2048, "steps": 2048}
    for key, value in more.items():
        assert resources.minutes(**base | {"tokens": 2048 * 2048} | {key: value}) >= resources.minutes(**base), key
        assert resources.minutes(**base | {key: value}, attempt=2, most=30) <= 30
    assert resources.minutes(**base | {"parameters": 12e9}) > resources.minutes(**base)


def test_parameters_are_the_nominal_ones_or_what_the_files_can_hold(tmp_path):
    weights = [tmp_path / "a", tmp_path / "b"]
    for path in weights:
        path.write_bytes(b"\0" * 100)
    assert resources.parameters(None, weights) == 100
    assert resources.parameters(70_000_000, weights) == 70_000_000
    with pytest.raises(FileNotFoundError):
        resources.parameters(None, [tmp_path / "not there yet"])
