"""The command line: there and back in processes of their own, laws of any table, and what goes wrong."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from bitlaw import __main__ as command_line
from bitlaw.compression import stream_format
from bitlaw.laws import fitting
from cell_process import WORKFLOW


def run(*arguments):
    """`python -m bitlaw` in a new process."""
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    command = [sys.executable, "-m", "bitlaw", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def call(monkeypatch, threads):
    """The same in this process, which spares the start of Python and torch."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitlaw", *map(str, arguments), "--threads", "1"])
        command_line.main()

    return main


def test_a_file_goes_through_two_processes_and_comes_back(tmp_path, neox_folder, passage):
    file, stream = tmp_path / "mixed.bin", tmp_path / "mixed.bin.blaw"
    content = passage.encode()[:700] + np.random.default_rng(2).bytes(100) + b"\x80" + passage.encode()[:1500]
    file.write_bytes(content)
    ran = run("compress", file, "--model", neox_folder)
    assert ran.returncode == 0, ran.stderr
    size = stream.stat().st_size
    said = f"{file} : {100 * size / len(content):.2f}% ({len(content)} => {size} bytes, {stream})\n"
    assert (ran.stdout, ran.stderr) == ("", said)
    file.unlink()
    ran = run("decompress", stream, "--model", neox_folder)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout, ran.stderr) == ("", f"{stream} : {len(content)} bytes ({file})\n")
    assert file.read_bytes() == content and sorted(tmp_path.iterdir()) == [file, stream]
    # and a process that fails says so by one line and its exit status
    stream.write_bytes(stream.read_bytes()[:-1])
    ran = run("decompress", stream, "--model", neox_folder, "--output", tmp_path / "out")
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith(f"bitlaw: {stream}: the stream ends") and ran.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [file, stream]


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_bytes_of_every_kind_come_back(call, tmp_path, neox_folder, size):
    file, back = tmp_path / "file.tar.gz", tmp_path / "back"
    file.write_bytes(np.random.default_rng(size).bytes(size))
    call("compress", file, "--model", neox_folder)
    stream = tmp_path / "file.tar.gz.blaw"
    assert size < stream.stat().st_size < 2 * size + 200
    call("decompress", stream, "--model", neox_folder, "--output", back)
    assert back.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_of_another_architecture_goes_there_and_back(call, tmp_path, gpt2_folder, passage, precision):
    file, stream, back = (tmp_path / name for name in ("text", "stream", "back"))
    file.write_text(passage[:200])
    call("compress", file, "--model", gpt2_folder, "--output", stream, "--precision", precision)
    assert stream_format.unpack(stream.read_bytes())[0].precision == precision
    call("decompress", stream, "--model", gpt2_folder, "--output", back)
    assert back.read_text() == passage[:200]


def test_what_cannot_be_done_ends_in_one_line_and_no_file(
    call, tmp_path, neox_folder, other_neox_folder, gpt2_folder, tokenizer, passage
):
    def made(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    text, whole, out = made("text", passage[:300].encode()), tmp_path / "whole.blaw", tmp_path / "out"
    call("compress", text, "--model", neox_folder, "--output", whole)
    stream = whole.read_bytes()
    flipped = stream[:-9] + bytes([stream[-9] ^ 4]) + stream[-8:]
    broken = shutil.copytree(neox_folder, tmp_path / "broken")
    os.truncate(broken / "model.safetensors", 1000)
    larger = Tokenizer.from_str(tokenizer.to_str())
    larger.add_tokens(["Alice was", "White Rabbit", "of having", "daisy-chain", "beginning to get", "by her sister"])
    larger.save(str(tmp_path / "larger.json"))
    nameless = made("stream.mp4", stream)
    cases = [
        (("compress", tmp_path / "nowhere"), neox_folder, "nowhere: cannot be read"),
        (("compress", tmp_path), neox_folder, "cannot be read"),
        (("compress", text), tmp_path / "no_model", "no_model"),
        (("compress", text), broken, "not a safetensors file"),
        (("compress", text, "--precision", "int3"), neox_folder, "int3"),
        (("compress", text, "--tokenizer", tmp_path / "larger.json"), neox_folder, "give the tokenizer that belongs"),
        (("decompress", tmp_path / "nowhere.blaw"), neox_folder, "nowhere.blaw: cannot be read"),
        (("decompress", text), neox_folder, "not a bitlaw stream"),
        (("decompress", made("cut.blaw", stream[:-3])), neox_folder, "in the middle"),
        (("decompress", made("flip.blaw", flipped)), neox_folder, "does not pass its check"),
        (("decompress", whole), other_neox_folder, "another model"),
        (("decompress", whole), gpt2_folder, "another model"),
        (("decompress", whole, "--tokenizer", tmp_path / "larger.json"), neox_folder, "another tokenizer"),
    ]
    before = sorted(tmp_path.iterdir())
    for arguments, model, message in cases:
        with pytest.raises(SystemExit) as ended:
            call(*arguments, "--model", model, "--output", out)
        # Python prints a text given to sys.exit to standard error and exits with 1
        line = ended.value.code
        assert isinstance(line, str) and line.startswith("bitlaw: ") and "\n" not in line and message in line, line
        assert str(arguments[1]) in line
        assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(SystemExit, match="say where to write with --output"):
        call("decompress", nameless, "--model", neox_folder)
    assert sorted(tmp_path.iterdir()) == before


def listing(folder):
    """{path: content, or None of what is no file} of all below `folder`."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_no_folder_is_ever_replaced(call, tmp_path, neox_folder, passage):
    """Neither one named as the output nor the model's own, and this is said before the work begins."""
    text, stream, folder = tmp_path / "text", tmp_path / "s.blaw", tmp_path / "folder"
    text.write_text(passage[:300])
    call("compress", text, "--model", neox_folder, "--output", stream)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "t.blaw").write_bytes(stream.read_bytes())
    (tmp_path / "t").mkdir()  # where t.blaw goes by default
    before, model = listing(tmp_path), listing(neox_folder)
    for target in (folder, tmp_path / "empty", tmp_path / "link", tmp_path / "pipe", neox_folder, "/dev/null", "."):
        for command, file in (("compress", text), ("decompress", stream)):
            with pytest.raises(SystemExit) as ended:
                call(command, file, "--model", neox_folder, "--output", target)
            line = ended.value.code
            assert line.startswith(f"bitlaw: {file}: {target}: is a ") and "\n" not in line
            assert "never replaced" in line
    with pytest.raises(SystemExit, match="t: is a folder, which is never replaced"):
        call("decompress", tmp_path / "t.blaw", "--model", neox_folder)
    with pytest.raises(SystemExit, match="there is no folder"):
        call("compress", text, "--model", neox_folder, "--output", tmp_path / "new" / "s.blaw")
    assert listing(tmp_path) == before and listing(neox_folder) == model


def test_a_link_as_output_is_followed(call, tmp_path, neox_folder, passage):
    (tmp_path / "text").write_text(passage[:300])
    (tmp_path / "far").mkdir()
    (tmp_path / "text.blaw").symlink_to("far/s")
    call("compress", tmp_path / "text", "--model", neox_folder)
    assert (tmp_path / "text.blaw").is_symlink() and (tmp_path / "far" / "s").is_file()


def test_standard_input_and_output(tmp_path, neox_folder, passage):
    """By processes of their own: the data alone goes to standard output, all that is said to the other."""
    data = passage.encode()[:500] + b"\x80\n"
    command = [sys.executable, "-m", "bitlaw"]
    options = ["--model", str(neox_folder), "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}

    def through(*arguments, given):
        ran = subprocess.run([*command, *arguments, *options], input=given, env=environment, capture_output=True,
                             cwd=tmp_path)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout, ran.stderr.decode()

    stream, said = through("compress", "-", given=data)
    assert stream.startswith(b"blaw") and f"({len(data)} => {len(stream)} bytes, -)" in said
    (tmp_path / "s.blaw").write_bytes(stream)
    back, said = through("decompress", "s.blaw", "--output", "-", given=b"")
    assert back == data and said == f"s.blaw : {len(data)} bytes (-)\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "s.blaw"]
    nothing, said = through("decompress", "-", "--output", "./-", given=stream)
    assert (tmp_path / "-").read_bytes() == data and nothing == b"" and said == f"- : {len(data)} bytes (./-)\n"
    # what cannot be done leaves standard output empty
    ran = subprocess.run([*command, "decompress", "-", *options], input=stream[:-1], env=environment,
                         capture_output=True)  # fmt: skip
    assert ran.returncode == 1 and ran.stdout == b"" and ran.stderr.startswith(b"bitlaw: standard input: the stream")


@pytest.mark.parametrize("threads", ["0", "-1", "1025", str(10**30)])
def test_a_number_of_threads_that_cannot_be_is_one_line(monkeypatch, tmp_path, neox_folder, threads):
    (tmp_path / "text").write_text("x")
    for command in ("compress", "decompress"):
        arguments = ["bitlaw", command, tmp_path / "text", "--model", neox_folder, "--output", tmp_path / "out"]
        monkeypatch.setattr(sys, "argv", [*map(str, arguments), "--threads", threads])
        with pytest.raises(SystemExit, match=f"--threads {threads}: give a number from 1 to 1024"):
            command_line.main()
    assert list(tmp_path.iterdir()) == [tmp_path / "text"]


def test_ctrl_c_ends_in_one_line_and_no_file(tmp_path, neox_folder):
    """While the file is read, which here is a pipe: it can be opened for writing once the process has opened it."""
    os.mkfifo(tmp_path / "file")
    command = [sys.executable, "-m", "bitlaw", "compress", tmp_path / "file", "--model", neox_folder]
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW)}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell starts what runs behind it deaf to Ctrl-C
    process = subprocess.Popen(command, env=environment, preexec_fn=heard, **pipes)
    pipe = None
    while pipe is None and process.poll() is None:
        try:
            pipe = os.open(tmp_path / "file", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    os.close(pipe)
    assert (process.returncode, said, complained) == (130, b"", b"bitlaw: interrupted\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A table with other names than ours, two kinds of rows, and a planted law in one of them."""
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 1e7, 1e8, 1e9, 1e10], [1e3, 1e4, 1e5, 1e6]))
    loss = 1.7 + 40 * n**-0.3 + 9 * d**-0.25
    rows = [f"{a},{b},{c},good" for a, b, c in zip(n, d, loss, strict=True)] + ["1,1,1,bad"]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(["N,D,loss,kind", *rows]) + "\n")
    return path


COLUMNS = ("--size", "N", "--steps", "D", "--response", "loss", "--where", "kind=good")


@pytest.mark.parametrize("options", [(), ("--loss", "huber", "--log"), ("--loss", "l1"), ("--form", "coupled")])
def test_fit_finds_what_was_planted_in_any_table(table, call_without_threads, capsys, options):
    call_without_threads("fit", table, *COLUMNS, *options)
    law = json.loads(table.with_suffix(".law.json").read_text())
    said = capsys.readouterr().out
    for name, value in {"a": 1.7, "b": 40, "alpha": 0.3, "c": 9, "beta": 0.25}.items():
        assert law["coefficients"][name]["value"] == pytest.approx(value, rel=0.02), name
        assert f"  {name} " in said
    assert "of the starts end at this objective" in said and law["n"] == 20


def test_predict_reads_what_fit_wrote_and_says_when_it_extrapolates(table, call_without_threads, capsys):
    call_without_threads("fit", table, *COLUMNS, "--output", table.parent / "law.json")
    capsys.readouterr()
    call_without_threads("predict", "--law", table.parent / "law.json", "--params", 1e8, "--steps", 1e5)
    inside = capsys.readouterr().out
    assert (
        inside.startswith(f"loss {1.7 + 40 * 1e8**-0.3 + 9 * 1e5**-0.25:.4f} (95 % ") and "extrapolation" not in inside
    )
    call_without_threads("predict", "--law", table.parent / "law.json", "--params", 1e12, "--steps", 1e5)
    assert "extrapolation: params 1e+12 is 100 times above the data, which end at 1e+10" in capsys.readouterr().out


def test_conditions_add_up_and_compare(tmp_path, call_without_threads):
    """Two experiments, twice the models: only what all conditions leave is fitted."""
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 1e7, 1e8, 1e9, 1e10], [1e3, 1e4, 1e5, 1e6]))
    lines = ["N,D,loss,experiment,seed"]
    for a, b in zip(n, d, strict=True):
        lines += [f"{a},{b},{1.7 + 40 * a**-0.3 + 9 * b**-0.25},first,1", f"{a},{b},9.5,first,2", f"{a},{b},9,second,1"]
    (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n")
    named = ("fit", tmp_path / "runs.csv", "--size", "N", "--steps", "D", "--response", "loss")
    for conditions, count in (
        (("experiment=first", "seed=1"), 20),
        (("seed=1", "experiment=first", "N>1e6"), 16),
        (("seed!=2", "experiment=first", "N<=1e9", "D<1e6"), 12),
    ):
        where = [word for condition in conditions for word in ("--where", condition)]
        call_without_threads(*named, *where, "--output", tmp_path / "law.json")
        law = json.loads((tmp_path / "law.json").read_text())
        assert law["n"] == count and law["coefficients"]["a"]["value"] == pytest.approx(1.7, rel=1e-3)


@pytest.fixture
def two_kinds(tmp_path):
    """Two groups of runs with two responses each and a standard error: grouped.csv."""
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 1e7, 1e8, 1e9], [1e3, 1e4, 1e5]))
    rng, parts = np.random.default_rng(0), []
    for kind, a in (("ours", 1.7), ("theirs", 2.1)):
        sigma = np.where(rng.random(12) < 0.5, 0.001, 0.03)
        loss = a + 40 * n**-0.3 + 9 * d**-0.25 + sigma * rng.normal(size=12)
        parts.append(pd.DataFrame({"N": n, "D": d, "loss": loss, "bits": 2 * loss, "se": sigma, "kind": kind}))
    pd.concat(parts).to_csv(tmp_path / "grouped.csv", index=False)
    return tmp_path / "grouped.csv"


GROUPED = ("--size", "N", "--steps", "D", "--response", "loss", "--by", "kind")


def test_groups_and_responses_become_laws_by_name(two_kinds, call_without_threads, capsys):
    call_without_threads("fit", two_kinds, *GROUPED, "--response", "bits", "--plot", two_kinds.with_suffix(".svg"),
                         "--compute")  # fmt: skip
    laws, said = json.loads(two_kinds.with_suffix(".law.json").read_text()), capsys.readouterr().out
    assert list(laws) == ["ours, loss", "ours, bits", "theirs, loss", "theirs, bits"]
    assert laws["ours, bits"]["ratio"] == pytest.approx(2 * np.array(laws["ours, loss"]["ratio"]))
    assert laws["theirs, loss"]["coefficients"]["a"]["value"] == pytest.approx(2.1, rel=0.1)
    for words in (
        "--- theirs, bits",
        "of the starts end at this objective",
        "forms compared",
        "predicted from the others",
    ):
        assert words in said
    drawn = two_kinds.with_suffix(".svg").read_text()
    assert "<!-- theirs, bits -->" in drawn and "<!-- 6 × N × D -->" in drawn
    asked = ("predict", "--law", two_kinds.with_suffix(".law.json"), "--params", 1e8, "--steps", 1e4)
    with pytest.raises(SystemExit, match="holds several laws; choose by --name: ours, loss, ours, bits"):
        call_without_threads(*asked)
    call_without_threads(*asked, "--name", "ours, bits")
    assert capsys.readouterr().out.startswith("bits ")


def test_standard_errors_weigh(two_kinds, call_without_threads):
    """Half of the rows are thirty times as sharp as the others; as a robust loss, which fits no other forms beside."""
    call_without_threads("fit", two_kinds, *GROUPED, "--sigma", "se", "--loss", "huber", "--delta", "1")
    law = json.loads(two_kinds.with_suffix(".law.json").read_text())["ours"]
    rows = pd.read_csv(two_kinds).query("kind == 'ours'")
    weighted, plain = (fitting.fit(rows["N"], rows["D"], rows["loss"], sigma=sigma) for sigma in (rows["se"], None))
    for name, entry in weighted["coefficients"].items():  # so wide a loss is least squares
        assert law["coefficients"][name]["value"] == pytest.approx(entry["value"], rel=1e-3), name
    sharp = (rows["se"] < 0.01).to_numpy()
    off, off_plain = (np.abs(np.array(found["residuals"])[sharp]).max() for found in (weighted, plain))
    assert off < 0.4 * off_plain and law["columns"]["sigma"] == "se"


def test_parquet_and_standard_input_give_the_same_law(two_kinds, call_without_threads, capsys, monkeypatch):
    text, where = two_kinds.read_text(), ("--where", "kind=ours")
    pd.read_csv(two_kinds).to_parquet(two_kinds.with_suffix(".parquet"))
    call_without_threads("fit", two_kinds, *GROUPED[:6], *where, "--output", two_kinds.parent / "a.json")
    call_without_threads("fit", two_kinds.with_suffix(".parquet"), *GROUPED[:6], *where)
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    call_without_threads("fit", "-", *GROUPED[:6], *where)
    said = capsys.readouterr()
    laws = [json.loads(said.out), *(json.loads((two_kinds.parent / name).read_text()) for name in
                                    ("a.json", "grouped.law.json"))]  # fmt: skip
    assert laws[0] == laws[1] == laws[2] and "law in size and training" in said.err


def test_a_law_in_one_variable_is_listed_without_the_other(tmp_path, call_without_threads, capsys):
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 1e7, 1e8, 1e9], [1e3, 1e4, 1e5]))
    loss = 2 + 9 * d**-0.25 + 0.01 * np.random.default_rng(3).normal(size=12)
    pd.DataFrame({"N": n, "D": d, "loss": loss}).to_csv(tmp_path / "t.csv", index=False)
    call_without_threads("fit", tmp_path / "t.csv", *GROUPED[:6])
    said = capsys.readouterr().out
    assert "training-only: loss = a + c S^-beta" in said and "  alpha" not in said
    assert "law in training only: no dependence on size seen" in said
    asked = ("predict", "--law", tmp_path / "t.law.json", "--steps", 1e6, "--params")
    call_without_threads(*asked, 1e7)
    assert "law in training only: no dependence on size seen" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="params 1e.10 is 10 times above the data.*ask within 1e.06 to 1e.09"):
        call_without_threads(*asked, 1e10)


def test_a_law_of_a_loss_is_not_called_a_ratio(table, call_without_threads, capsys):
    call_without_threads("fit", table, *COLUMNS)
    said = capsys.readouterr().out
    assert "loss = a + b P^-alpha + c S^-beta" in said and "P: N, S: D" in said and "CR" not in said
    call_without_threads("predict", "--law", table.with_suffix(".law.json"), "--params", 1e8, "--steps", 1e5)
    assert capsys.readouterr().out.startswith("loss 2.")


def test_predict_takes_the_protocol_that_a_studys_laws_have(table, call_without_threads, capsys, tmp_path):
    call_without_threads("fit", table, *COLUMNS)
    law, laws = json.loads(table.with_suffix(".law.json").read_text()), tmp_path / "text.json"
    laws.write_text(json.dumps({"published": law | {"response": "CR"}}))
    capsys.readouterr()
    call_without_threads("predict", "--law", laws, "--params", 1e8, "--steps", 1e5)
    alone = capsys.readouterr().out
    call_without_threads("predict", "--law", laws, "--params", 1e8, "--steps", 1e5, "--protocol", "published")
    assert capsys.readouterr().out == alone and alone.startswith("CR 2.")


AT = ("--params", 1, "--steps", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "none.csv"), "none.csv: cannot be read (No such file"),
        (("fit", "runs.csv", "--size", "M"), "no column 'M'; it has N, D, loss, kind"),
        (("fit", "runs.csv", *COLUMNS[:4], "--response", "kind"), "column 'kind' holds 'good'; numbers are needed"),
        (("fit", "runs.csv", *COLUMNS, "--form", "cubic"), "form 'cubic': choose one of"),
        (
            ("fit", "runs.csv", *COLUMNS, "--loss", "huber", "--delta", "-1"),
            "delta -1: needs a positive, finite",
        ),
        (("fit", "runs.csv", *COLUMNS, "--loss", "huber", "--delta", "nan"), "delta nan: needs a positive, finite"),
        (
            ("fit", "runs.csv", *COLUMNS[:6], "--where", "kind=nope"),
            "has kind=nope; column 'kind' holds bad, good",
        ),
        (("fit", "runs.csv", *COLUMNS, "--where", "N=3"), "no row has kind=good and N=3; column 'N' holds 1e+06,"),
        (("fit", "runs.csv", *COLUMNS, "--where", "N=many"), "--where N=many: column 'N' holds numbers"),
        (("fit", "runs.csv", *COLUMNS, "--where", "kind"), "--where kind: needs COLUMN=VALUE"),
        (("fit", "runs.csv", *COLUMNS, "--where", "sort=good"), "no column 'sort'"),
        (("fit", "runs.csv", "--size", "N", "--steps", "N", "--response", "loss"), "--size and --steps are both 'N'"),
        (("fit", "runs.csv", "--size", "N", "--steps", "D", "--response", "D"), "--steps and --response are both 'D'"),
        (("fit", "runs.csv", *COLUMNS, "--output", "no/law.json"), "no: is no folder"),
        (
            ("fit", "runs.csv", *COLUMNS, "--plot", "no/law.svg"),
            "no: is no folder; make it first, or name another --plot",
        ),
        (("fit", "runs.csv", *COLUMNS, "--plot", "law.gif"), "--plot law.gif: needs a name that ends in .svg, .pdf"),
        (("fit", "runs.csv", *COLUMNS, "--compute"), "--compute: an axis of what is drawn; name where to draw"),
        (("fit", "runs.csv", *COLUMNS, "--by", "sort"), "no column 'sort'; it has N, D, loss, kind"),
        (("fit", "runs.csv", *COLUMNS, "--by", "N"), "--size and --by are both 'N'"),
        (("fit", "runs.csv", *COLUMNS, "--sigma", "loss"), "--response and --sigma are both 'loss'"),
        (("fit", "runs.csv", *COLUMNS[:6], "--by", "kind"), "bad: law: 1 distinct cells; 5 coefficients need"),
        (("fit", "law.parquet", *COLUMNS), "law.parquet: cannot be read"),
        (
            ("predict", "--law", "old.json", *AT),
            "old.json: verdict 'law' of the law is none that is known; fit it again",
        ),
        (("fit", "runs.tsv", *COLUMNS), "runs.tsv: separated by tabs; needs commas"),
        (("fit", "runs.jsonl", *COLUMNS), "runs.jsonl: looks like JSON; needs CSV"),
        (("fit", "holes.csv", *COLUMNS), "holes.csv: row 3, column 'loss' holds nan; a law needs finite, positive"),
        (("fit", "signs.csv", *COLUMNS), "signs.csv: row 2, column 'D' holds -1000.0; a law needs finite, positive"),
        (("predict", "--law", "runs.csv", *AT), "holds no law"),
        (("predict", "--law", "half.json", *AT), "half.json: no whole law: it lacks coefficients.c"),
        (("predict", "--law", "empty.json", *AT), "empty.json: holds no law"),
        (
            ("predict", "--law", "law.json", "--params", "inf", "--steps", 1),
            "params inf and steps 1 must be positive",
        ),
        (
            ("predict", "--law", "law.json", "--params", 1, "--steps", "nan"),
            "params 1 and steps nan must be positive",
        ),
        (("predict", "--law", "law.json", *AT, "--protocol", "published"), "one law, of no protocol; leave --protocol"),
        (
            ("predict", "--law", "study.json", *AT, "--protocol", "lossles"),
            "no law of protocol 'lossles'; it has loss",
        ),
    ],
)
def test_bad_tables_and_laws_are_one_line(table, call_without_threads, monkeypatch, arguments, message):
    monkeypatch.chdir(table.parent)
    rows = table.read_text().splitlines()
    table.with_suffix(".tsv").write_text("\n".join(rows).replace(",", "\t"))
    table.with_suffix(".jsonl").write_text('{"N": 1, "D": 2, "loss": 3, "kind": "good"}\n')
    (table.parent / "holes.csv").write_text("\n".join([*rows[:3], "1e6,1e5,,good", *rows[4:]]))
    (table.parent / "signs.csv").write_text("\n".join([*rows[:2], "1e6,-1000,3,good", *rows[3:]]))
    coefficients = {name: {"value": 1.0} for name in ("a", "b", "alpha", "c", "beta")}
    law = {"form": "additive", "response": "CR", "n": 9, "degrees_of_freedom": 4, "coefficients": coefficients}
    law |= {
        "params": [1, 2],
        "steps": [1, 2],
        "ratio": [1, 1],
        "residuals": [0.1, 0.1],
        "objective": 0.02,
        "log": False,
    }
    law |= {"P0": 1.4, "S0": 1.4, "loss": "ls"}
    (table.parent / "law.json").write_text(json.dumps(law))
    (table.parent / "study.json").write_text(json.dumps({"lossless": law}))
    (table.parent / "old.json").write_text(json.dumps(law | {"verdict": "law"}))
    (table.parent / "law.parquet").write_text("PAR1")
    del coefficients["c"]
    (table.parent / "half.json").write_text(json.dumps(law))
    (table.parent / "empty.json").write_text("[]")
    before = sorted(table.parent.iterdir())
    with pytest.raises(SystemExit) as stop:
        call_without_threads(*arguments)
    assert message in str(stop.value) and "\n" not in str(stop.value)
    assert sorted(table.parent.iterdir()) == before


@pytest.fixture
def call_without_threads(monkeypatch):
    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["bitlaw", *map(str, arguments)])
        command_line.main()

    return main
