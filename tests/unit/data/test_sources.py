"""Sources over a loopback server: resume, failover, hashes, what an archive may not do, the package index."""

import gzip
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import link, tarred, zipped
from bitlaw import InputError
from bitlaw.data.package_index import pip_settings
from bitlaw.data.sources import fetch
from loopback import Loopback

DATA = np.random.default_rng(5).bytes(1_000_000)
LARGER = np.random.default_rng(6).bytes(3_000_000)
DEAD = "http://127.0.0.1:9/x.bin"  # the discard port: nobody listens


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server():
    with Loopback() as running:
        yield running


@pytest.fixture
def index(server, monkeypatch):
    """pip's configuration points to the loopback index and to nothing else."""
    for key in [k for k in os.environ if k.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.index_url)
    return server


def one(*places, **more):
    return {"licence": "CC0", "limit": 2_000_000, "places": list(places), **more}


def archive(server, name, data, members, tmp_path, **more):
    server.files[f"/{name}"] = data
    return fetch("data", one({"url": server.url(f"/{name}"), "members": members}, **more), tmp_path / "data")


def test_plain_file_and_provenance(server, tmp_path):
    server.files["/a%20b.bin"] = DATA
    place = {"url": server.url("/a%20b.bin"), "sha256": sha(DATA), "md5": hashlib.md5(DATA).hexdigest()}
    record = fetch("data", one(place), tmp_path / "data")
    assert (tmp_path / "data" / "a b.bin").read_bytes() == DATA
    assert record == json.loads((tmp_path / "data" / "source.json").read_text())
    assert record["name"] == "data" and record["licence"] == "CC0" and record["places"] == [place]
    (entry,) = record["files"]
    expected = {"path": "a b.bin", "bytes": len(DATA), "sha256": sha(DATA), "member": "a b.bin"}
    assert entry == {**expected, "place": server.url("/a%20b.bin")}
    assert sorted(p.name for p in (tmp_path / "data").glob("[!.]*")) == ["a b.bin", "source.json"]
    assert not list((tmp_path / ".downloads").iterdir())  # the archive is gone once its files are there


@pytest.mark.parametrize("pack, name", [(zipped, "x.zip"), (zipped, "x.whl"), (tarred, "x.tar.gz"), (tarred, "x.tgz")])
def test_archives_give_the_named_members_only(server, tmp_path, pack, name):
    members = {"a/one.txt": b"1", "a/two.txt": b"22", "a/b/three.gz": gzip.compress(b"333"), "a/other.py": b"no"}
    record = archive(server, name, pack(members), ["a/*.txt", "a/b/three.gz"], tmp_path)
    found = {p.name: p.read_bytes() for p in (tmp_path / "data").glob("[!.]*") if p.name != "source.json"}
    assert found == {"one.txt": b"1", "two.txt": b"22", "three": b"333"}
    assert {f["path"]: f["sha256"] for f in record["files"]} == {name: sha(data) for name, data in found.items()}


def test_single_gz(server, tmp_path):
    server.files["/corpus.gz"] = gzip.compress(DATA)
    fetch("data", one({"url": server.url("/corpus.gz")}), tmp_path / "data")
    assert (tmp_path / "data" / "corpus").read_bytes() == DATA


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 400_000), min_size=1, max_size=4), ranges=st.booleans())
def test_cut_connections_are_resumed(tmp_path_factory, cuts, ranges):
    with Loopback() as server:
        folder = tmp_path_factory.mktemp("cut")
        server.files["/x.bin"] = DATA
        source = one({"url": server.url("/x.bin"), "sha256": sha(DATA)})
        for cut in cuts:  # runs that fail leave their part to the next
            server.rules["/x.bin"] = [{"cut": cut, "ranges": ranges}]
            record = None
            try:
                record = fetch("data", source, folder / "data")
            except InputError:
                continue
            assert record["files"][0]["sha256"] == sha(DATA)
            assert (folder / "data" / "x.bin").read_bytes() == DATA


def test_resume_asks_only_for_the_rest(server, tmp_path):
    server.files["/x.bin"] = DATA
    server.rules["/x.bin"] = [{"cut": 300_000}] * 3
    fetch("data", one({"url": server.url("/x.bin"), "sha256": sha(DATA)}), tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == DATA
    assert [(asked, status) for _, asked, status in server.requests] == [
        (None, 200),
        ("bytes=300000-", 206),
        ("bytes=600000-", 206),
        ("bytes=900000-", 206),
    ]


def leave_part(server, tmp_path, **place):
    """A run that fails after 400,000 bytes of /x.bin: the part stays in the cache. Returns the source."""
    server.files["/x.bin"] = DATA
    server.rules["/x.bin"] = [{"cut": 400_000}, {"status": 503}]
    source = one({"url": server.url("/x.bin"), **place})
    with pytest.raises(InputError, match="503"):
        fetch("data", source, tmp_path / "data")
    (part,) = (tmp_path / ".downloads" / "data").glob("*.part")
    assert part.read_bytes() == DATA[:400_000]
    assert not (tmp_path / "data").exists()
    server.requests.clear()
    return source


def test_part_of_an_earlier_run_is_used(server, tmp_path):
    source = leave_part(server, tmp_path)
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == DATA
    assert server.requests == [("/x.bin", "bytes=400000-", 206)]


def test_server_without_ranges_restarts(server, tmp_path):
    source = leave_part(server, tmp_path)
    server.rules["/x.bin"] = {"ranges": False}
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == DATA
    assert server.requests == [("/x.bin", "bytes=400000-", 200)]


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:99:-1], DATA[:300_000], DATA[:400_000]])
@pytest.mark.parametrize("validated, hashed", [(True, True), (False, True), (True, False), (False, False)])
def test_file_changed_since_is_fetched_anew(server, tmp_path, new, validated, hashed):
    source = leave_part(server, tmp_path, **({"sha256": sha(new)} if hashed else {}))
    server.files["/x.bin"] = new
    if not validated:  # as a server without ETag and Last-Modified would have it: sizes and hashes must do
        (note,) = (tmp_path / ".downloads" / "data").glob("*.json")
        note.write_text(json.dumps({**json.loads(note.read_text()), "validator": None}))
    if not validated and not hashed and len(new) == len(DATA):
        return  # nothing tells this file from the old one
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == new


# Without a declared hash nothing but sizes, types and validators tells whether what came is what was asked for.


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "Application/XHTML+XML"])
def test_a_web_page_is_not_taken_for_the_file(server, tmp_path, kind):
    server.files |= {"/x.bin": b"<html>please log in</html>", "/good.bin": DATA}
    server.rules["/x.bin"] = {"headers": {"Content-Type": kind}}
    record = fetch("data", one({"url": server.url("/x.bin")}, {"url": server.url("/good.bin")}), tmp_path / "data")
    assert record["places"] == [{"url": server.url("/good.bin")}]
    with pytest.raises(InputError, match="a web page came instead of the file"):
        fetch("data", one({"url": server.url("/x.bin")}), tmp_path / "other")
    assert not list(tmp_path.rglob("*.part"))
    # by its hash it is what was asked for, and by its name it may be
    fetch("data", one({"url": server.url("/x.bin"), "sha256": sha(server.files["/x.bin"])}), tmp_path / "hashed")
    server.files["/x.html"], server.rules["/x.html"] = server.files["/x.bin"], server.rules["/x.bin"]
    fetch("data", one({"url": server.url("/x.html")}), tmp_path / "page")


def test_a_body_packed_on_the_way_is_not_taken_for_the_file(server, tmp_path):
    server.files |= {"/x.bin": gzip.compress(DATA), "/x.gz": gzip.compress(DATA)}
    for path in server.files:
        server.rules[path] = {"headers": {"Content-Encoding": "gzip"}}
    with pytest.raises(InputError, match="packed"):
        fetch("data", one({"url": server.url("/x.bin")}), tmp_path / "data")
    fetch("data", one({"url": server.url("/x.gz")}), tmp_path / "data")  # how some servers send a .gz that they store
    assert (tmp_path / "data" / "x").read_bytes() == DATA


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_a_rest_of_another_version_is_not_joined_to_the_part(server, tmp_path, hashed, header):
    """A server that sends a part whatever If-Range says, and tells that it is of another file of the same size."""
    other = DATA[::-1]
    tags = {
        "ETag": ('"one"', '"two"'),
        "Last-Modified": ("Sat, 01 Aug 2020 00:00:00 GMT", "Sun, 02 Aug 2020 00:00:00 GMT"),
    }
    weak = {} if header == "ETag" else {"ETag": 'W/"same"'}
    first, second = ({**weak, header: tag} for tag in tags[header])
    server.files["/x.bin"] = DATA
    server.rules["/x.bin"] = [{"cut": 400_000, "headers": first}, {"status": 503}]
    source = one({"url": server.url("/x.bin")} | ({"sha256": sha(other)} if hashed else {}))
    with pytest.raises(InputError, match="503"):
        fetch("data", source, tmp_path / "data")
    server.files["/x.bin"] = other
    server.rules["/x.bin"] = {"headers": second, "if_range": False}
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == other
    assert [asked for _, asked, _ in server.requests[2:]] == ["bytes=400000-", None]


def test_an_end_that_contradicts_the_size_first_told_is_not_believed(server, tmp_path):
    source = leave_part(server, tmp_path)
    server.rules["/x.bin"] = [{"status": 416, "headers": {"Content-Range": "bytes */400000"}}]
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == DATA
    assert server.requests == [("/x.bin", "bytes=400000-", 416), ("/x.bin", None, 200)]


@pytest.mark.parametrize("length", ["abc", "-5", "1e6", "0x10", "1000000, 5"])
def test_a_length_that_is_no_number_goes_to_the_next_place(server, tmp_path, length):
    server.files |= {"/x.bin": DATA, "/good.bin": DATA}
    server.rules["/x.bin"] = {"headers": {"Content-Length": length}}
    good = {"url": server.url("/good.bin")}
    assert fetch("data", one({"url": server.url("/x.bin")}, good), tmp_path / "data")["places"] == [good]


@pytest.mark.parametrize("told", [True, False])
def test_the_limit_bounds_a_download_whose_hash_is_not_known(server, tmp_path, told):
    server.files["/x.zip"] = zipped({"a": b"1", "b": LARGER})
    rule = {} if told else {"endless": True}
    server.rules["/x.zip"] = {"pace": 0.02, **rule}
    source = one({"url": server.url("/x.zip"), "members": ["a"]}) | {"limit": 300_000}
    with pytest.raises(InputError, match=r"passes the limit of 300000; raise `limit`, or give the archive's sha256"):
        fetch("data", source, tmp_path / "data")
    assert not list(tmp_path.rglob("*.part")) and server.sent.get("/x.zip", 0) < 1_500_000
    server.rules.clear()
    known = {"url": server.url("/x.zip"), "members": ["a"], "sha256": sha(server.files["/x.zip"])}
    fetch("data", one(known) | {"limit": 300_000}, tmp_path / "data")  # more than is extracted, as it should be
    (tmp_path / "x.zip").write_bytes(server.files["/x.zip"])
    with pytest.raises(InputError, match="passes the limit of 300000"):
        fetch(
            "data", one({"url": (tmp_path / "x.zip").as_uri(), "members": ["a"]}) | {"limit": 300_000}, tmp_path / "o"
        )


@pytest.mark.parametrize("deleted", [True, False])
def test_what_places_gave_first_they_must_give_again(server, tmp_path, deleted):
    server.files |= {"/1.bin": b"first", "/2.bin": b"other"}
    source = one({"url": server.url("/1.bin")}, {"url": server.url("/2.bin")})
    fetch("data", source, tmp_path / "data")
    if deleted:  # the record of the hashes outlives the folder
        shutil.rmtree(tmp_path / "data")
    server.files["/1.bin"] = b"changed"
    with pytest.raises(InputError, match="not the bytes that these places first gave") as refused:
        fetch("data", source, tmp_path / "data")
    (record,) = (tmp_path / ".hashes").iterdir()
    assert all(part in str(refused.value) for part in (str(record), "1.bin", sha(b"changed"), "2.bin", sha(b"other")))
    assert (tmp_path / "data").exists() != deleted and not list(tmp_path.rglob("*.part"))
    server.files["/2.bin"] = b"first"  # the same bytes under another name are as good
    assert fetch("data", source, tmp_path / "data")["places"] == [{"url": server.url("/2.bin")}]
    fetch("data", one({"url": server.url("/1.bin")}), tmp_path / "data")  # other places begin anew
    assert (tmp_path / "data" / "1.bin").read_bytes() == b"changed"
    record.write_text("{")
    with pytest.raises(InputError, match=r"\.json cannot be read .*; delete it"):
        fetch("data", source, tmp_path / "data")
    record.unlink()
    fetch("data", source, tmp_path / "data")


def test_complete_part_needs_no_download(server, tmp_path):
    server.files["/x.zip"] = zipped({"a": DATA})
    bad = one({"url": server.url("/x.zip"), "members": ["b"]})
    with pytest.raises(InputError, match="no member 'b'"):
        fetch("data", bad, tmp_path / "data")
    fetch("data", one({"url": server.url("/x.zip"), "members": ["a"]}), tmp_path / "data")
    assert [status for *_, status in server.requests] == [200, 416]
    with pytest.raises(InputError, match="no member 'b'"):
        fetch("data", bad, tmp_path / "data")
    server.requests.clear()
    known = {"url": server.url("/x.zip"), "members": ["a"], "sha256": sha(server.files["/x.zip"])}
    fetch("data", one(known), tmp_path / "data")
    assert server.requests == []


def test_killed_download_goes_on(server, tmp_path):
    server.files["/x.bin"] = DATA
    server.rules["/x.bin"] = {"pace": 0.05}
    source = one({"url": server.url("/x.bin"), "sha256": sha(DATA)})
    code = f"from bitlaw.data.sources import fetch; fetch('data', {source!r}, {str(tmp_path / 'data')!r})"
    path = os.pathsep.join(p for p in sys.path if p)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    end = time.monotonic() + 15
    while not [p for p in tmp_path.glob(".downloads/data/*.part") if p.stat().st_size > 100_000]:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    server.rules.clear()
    server.requests.clear()
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == DATA
    ((_, asked, status),) = server.requests
    assert status == 206 and int(asked.removeprefix("bytes=").removesuffix("-")) > 100_000


@pytest.mark.parametrize("trouble", ["dead", 500, 503, 404, "checksum", "broken", "hang"])
def test_failover_within_seconds(server, tmp_path, trouble, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "bitlaw")
    monkeypatch.setattr("bitlaw.data.download.TIMEOUT", (5, 0.3))
    server.files |= {"/bad.zip": zipped({"a": b"changed"}), "/good.zip": zipped({"a": b"good"})}
    first = {"url": server.url("/bad.zip"), "members": ["a"]}
    if trouble == "dead":
        first["url"] = DEAD
    elif trouble == "checksum":
        first["sha256"] = sha(b"something else")
    elif trouble == "broken":
        server.files["/bad.zip"] = b"<html>please log in</html>"
    else:
        server.rules["/bad.zip"] = {"hang": 1} if trouble == "hang" else {"status": trouble}
    second = {"url": server.url("/good.zip"), "members": ["a"]}
    start = time.monotonic()
    record = fetch("data", one(first, second), tmp_path / "data")
    assert time.monotonic() - start < 3
    assert (tmp_path / "data" / "a").read_bytes() == b"good" and record["places"] == [second]
    assert first["url"] in caplog.text and f"taken from {second['url']}" in caplog.text


def test_all_places_failing_gives_one_line(server, tmp_path):
    server.files["/x.bin"] = DATA
    source = one({"url": DEAD}, {"url": server.url("/none")}, {"url": server.url("/x.bin"), "md5": "0" * 32})
    with pytest.raises(InputError) as error:
        fetch("data", source, tmp_path / "data")
    text = str(error.value)
    assert "\n" not in text and "sources.data.places" in text
    assert all(part in text for part in (DEAD, "ConnectionError", "404", "md5", hashlib.md5(DATA).hexdigest()))
    assert not (tmp_path / "data").exists()
    assert not list(tmp_path.rglob("*.part"))  # what failed its hash is not kept


def test_expected_hashes_of_files_hold_for_every_place(server, tmp_path):
    server.files |= {"/1.zip": zipped({"a": b"forged"}), "/2.zip": zipped({"x/a": b"true"})}
    places = [{"url": server.url("/1.zip"), "members": ["a"]}, {"url": server.url("/2.zip"), "members": ["x/a"]}]
    files = {"a": {"sha256": sha(b"true"), "md5": hashlib.md5(b"true").hexdigest()}}
    record = fetch("data", one(*places, files=files), tmp_path / "data")
    assert record["places"] == [places[1]] and (tmp_path / "data" / "a").read_bytes() == b"true"
    with pytest.raises(InputError, match="a has md5"):
        fetch("data", one(places[0], files=files), tmp_path / "data")
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(InputError, match="b is listed under `files` but was not extracted"):
        fetch("data", one(places[0], files={"b": {"md5": "0"}}), tmp_path / "data")


def test_all_places_are_needed(server, tmp_path):
    server.files |= {"/1.zip": zipped({"a": b"1"}), "/2.zip": zipped({"b": b"2"})}
    places = [{"url": server.url(f"/{i}.zip"), "members": ["?"]} for i in (1, 2)]
    record = fetch("data", one(*places, all=True), tmp_path / "data")
    assert record["places"] == places
    assert [(f["path"], f["place"]) for f in record["files"]] == [("a", places[0]["url"]), ("b", places[1]["url"])]
    with pytest.raises(InputError, match="not every place gave its files"):
        fetch("data", one(*places, {"url": DEAD}, all=True), tmp_path / "other")
    server.files["/2.zip"] = zipped({"a": b"2"})
    with pytest.raises(InputError, match="second file would be called 'a'"):
        fetch("data", one(*places, all=True), tmp_path / "other")
    server.files |= {"/1.zip": zipped({"a": bytes(600)}), "/2.zip": zipped({"b": bytes(600)})}
    with pytest.raises(InputError, match="limit of 1000 bytes"):  # all files together
        fetch("data", one(*places, all=True) | {"limit": 1000}, tmp_path / "other")


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
@pytest.mark.parametrize("pack, file", [(zipped, "x.zip"), (tarred, "x.tar.gz")])
def test_paths_that_lead_out_are_refused(server, tmp_path, name, pack, file):
    for wanted in (name, "*.txt"):
        with pytest.raises(InputError, match="leads out of the folder"):
            archive(server, file, pack({name: b"x"}), [wanted], tmp_path)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\x7f", "a\u2028b"])
@pytest.mark.parametrize("pack, file", [(zipped, "x.zip"), (tarred, "x.tar.gz")])
def test_names_that_cannot_be_printed_are_refused(server, tmp_path, name, pack, file):
    with pytest.raises(InputError, match="has characters in its name that cannot be printed") as refused:
        archive(server, file, pack({name: b"x"}), ["*"], tmp_path)
    assert str(refused.value).isprintable()
    with pytest.raises(InputError, match="the nearest are") as refused:  # nor are they printed otherwise
        archive(server, file, pack({name: b"x"}), ["other"], tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(server, tmp_path, kind):
    with pytest.raises(InputError, match="'a' is a link or device"):
        archive(server, "x.tar.gz", tarred({"a": link("a", kind)}), ["a"], tmp_path)


def test_links_in_zip_are_refused(server, tmp_path):
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o120777 << 16
    with pytest.raises(InputError, match="'a' is a link or device"):
        archive(server, "x.zip", zipped({info: "/etc/passwd"}), ["a"], tmp_path)


@pytest.mark.parametrize("file", ["x.zip", "x.tar.gz", "x.gz", "twice.zip"])
def test_bombs_are_stopped_at_the_limit(server, tmp_path, file):
    zeros = bytes(20_000_000)
    pack = {"x.zip": zipped, "x.tar.gz": tarred}.get(file)
    data = pack({"a": zeros}) if pack else gzip.compress(zeros, 1)
    if file == "twice.zip":  # the declared size is that of the inner file, which is small
        data = zipped({"a.gz": data})
    assert len(data) < 200_000
    with pytest.raises(InputError, match="passes the limit of 2000000 bytes"):
        archive(server, file, data, ["*"], tmp_path)
    assert not (tmp_path / "data").exists() and sum(p.stat().st_size for p in tmp_path.rglob("*")) < 300_000


def test_forged_size_is_not_believed(server, tmp_path):
    data = bytearray(zipped({"a": bytes(5_000_000)}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = data.index(mark) + at
        data[where : where + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InputError, match="not a readable archive"):
        archive(server, "x.zip", bytes(data), ["a"], tmp_path)


def test_missing_member_is_named_with_its_neighbours(server, tmp_path):
    with pytest.raises(InputError, match=r"x.zip has no member 'a/enwik9'; the nearest are a/enwik8"):
        archive(server, "x.zip", zipped({"a/enwik8": b"", "readme": b""}), ["a/enwik9"], tmp_path)


def test_two_members_of_one_name(server, tmp_path):
    with pytest.raises(InputError, match="second file would be called 'x'"):
        archive(server, "x.tar.gz", tarred({"a/x": b"1", "b/x": b"2"}), ["*/x"], tmp_path)
    with pytest.raises(InputError, match=r"second file would be called 'source\.json'"):
        archive(server, "x.zip", zipped({"source.json": b"{}", "source.json.gz": gzip.compress(b"")}), ["*"], tmp_path)
    with pytest.raises(InputError, match=r"second file would be called '\.written\.json'"):
        archive(server, "x.zip", zipped({".written.json": b"[]"}), ["*"], tmp_path)


def test_archive_needs_limit_and_members(server, tmp_path):
    server.files["/x.zip"] = zipped({"a": b""})
    with pytest.raises(InputError, match="`members` is not given"):
        fetch("data", one({"url": server.url("/x.zip")}), tmp_path / "data")
    source = one({"url": server.url("/x.zip"), "members": ["a"]})
    del source["limit"]
    with pytest.raises(InputError, match="`limit` is not given"):
        fetch("data", source, tmp_path / "data")


def package(file="my_data-1.0.tar.gz", **more):
    return {"package": "My.data==1.0", "file": file, "members": ["my_data-1.0/x"], **more}


@pytest.mark.parametrize("kind", ["html", "json"])
def test_package_from_an_index(index, tmp_path, kind):
    index.index = kind
    data = tarred({"my_data-1.0/x": b"payload", "my_data-1.0/setup.py": b"raise SystemExit('never run')"})
    index.add_package("my-data", "my_data-1.0.tar.gz", data)
    index.add_package("my-data", "my_data-1.0-py3-none-any.whl", b"other")
    place = package(sha256=sha(data))
    record = fetch("data", one(place), tmp_path / "data")
    assert (tmp_path / "data" / "x").read_bytes() == b"payload"
    assert record["places"] == [place]
    assert record["files"][0]["place"] == "My.data==1.0 (my_data-1.0.tar.gz)"
    assert [path for path, *_ in index.requests] == ["/simple/my-data/", "/files/my_data-1.0.tar.gz"]


@pytest.mark.parametrize("kind", ["html", "json"])
def test_package_is_held_to_the_hash_of_its_index(index, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("bitlaw.data.package_index.pip_settings", lambda: {"index-url": index.index_url})
    index.index = kind
    index.add_package("my-data", "my_data-1.0.tar.gz", tarred({"my_data-1.0/x": b"payload"}))
    index.files["/files/my_data-1.0.tar.gz"] = tarred({"my_data-1.0/x": b"forged"})
    with pytest.raises(InputError, match="sha256"):
        fetch("data", one(package()), tmp_path / "data")


def test_part_is_not_taken_for_whole_by_a_hash_of_another_kind(index, tmp_path, monkeypatch):
    """An index may give hashes that are not checked here: they say nothing about what an earlier run left."""
    data = DATA[:200_000]
    monkeypatch.setattr("bitlaw.data.package_index.pip_settings", lambda: {"index-url": index.index_url})
    index.files |= {"/files/x.bin": data, "/simple/my-data/": b'<a href="/files/x.bin#sha512=00">x.bin</a>'}
    index.rules["/simple/my-data/"] = {"headers": {"Content-Type": "text/html"}}
    index.rules["/files/x.bin"] = [{"cut": 70_000}, {"status": 503}]
    source = one({"package": "my-data==1.0", "file": "x.bin"})
    with pytest.raises(InputError, match="503"):
        fetch("data", source, tmp_path / "data")
    fetch("data", source, tmp_path / "data")
    assert (tmp_path / "data" / "x.bin").read_bytes() == data
    assert index.requests[-1] == ("/files/x.bin", "bytes=70000-", 206)


def test_package_over_several_indexes(index, tmp_path, monkeypatch):
    """Missing folders, a dead index and one without the file are passed over; the message names them all."""
    data = tarred({"my_data-1.0/x": b"payload"})
    index.add_package("my-data", "my_data-1.0.tar.gz", data)
    missing = (tmp_path / "none" / "simple").as_uri()
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{missing} {index.index_url}")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    fetch("data", one(package(sha256=sha(data))), tmp_path / "data")
    with pytest.raises(InputError) as error:
        fetch("data", one(package("my_data-2.0.tar.gz")), tmp_path / "other")
    text = str(error.value)
    assert all(part in text for part in (missing, str(tmp_path / "wheels"), "127.0.0.1:9", "does not list"))
    assert "secret" not in text


def test_settings_are_those_of_pip(tmp_path, monkeypatch):
    """The environment wins over the file, the section of `download` over the global one; empty values do not count."""
    for key in [k for k in os.environ if k.startswith("PIP_")]:
        monkeypatch.delenv(key)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://a\ncert = /g.pem\nextra-index-url =\n    http://x\n    http://y\n"
        "[download]\ncert = /d.pem\n[install]\ncert = /i.pem\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("PIP_INDEX_URL", "http://b")
    monkeypatch.setenv("PIP_CERT", "")
    found = pip_settings()
    assert found["index-url"] == "http://b" and found["cert"] == "/d.pem" and found["find-links"] == "/wheels"
    assert found["extra-index-url"].split() == ["http://x", "http://y"]


@pytest.mark.parametrize("page", [True, False])
def test_package_from_find_links_without_index(index, tmp_path, monkeypatch, page):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "my_data-1.0.tar.gz").write_bytes(tarred({"my_data-1.0/x": b"payload"}))
    if page:
        (wheels / "index.html").write_text('<a href="my_data-1.0.tar.gz">my_data-1.0.tar.gz</a>')
    found = {"index-url": index.index_url, "find-links": wheels.as_uri(), "no-index": "true"}
    monkeypatch.setattr("bitlaw.data.package_index.pip_settings", lambda: found)
    fetch("data", one(package()), tmp_path / "data")
    assert (tmp_path / "data" / "x").read_bytes() == b"payload" and index.requests == []


def test_generator_is_deterministic(tmp_path):
    source = {"generator": "uniform", "bytes": 100_003, "seed": 1, "licence": "CC0"}
    first, again, other = (
        fetch("random", s, tmp_path / str(i)) for i, s in enumerate([source, source, source | {"seed": 2}])
    )
    assert first["files"] == again["files"] != other["files"]
    data = (tmp_path / "0" / "random.bin").read_bytes()
    assert len(data) == 100_003 and first["files"][0]["path"] == "random.bin"
    assert data[:8].hex() == "ffe42279f3bd0683"  # the stream itself is fixed: results may be compared between machines
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    assert ((counts - 390.6) ** 2 / 390.6).sum() < 350  # chi-square, 255 degrees of freedom
    with pytest.raises(InputError, match="'normal' is unknown"):
        fetch("random", source | {"generator": "normal"}, tmp_path / "x")


@pytest.mark.parametrize("key", ["bytes", "seed"])
@pytest.mark.parametrize("value", [None, -1, 1.5, True, "8"])
def test_generator_settings_that_cannot_be(tmp_path, key, value):
    source = {"generator": "uniform", "bytes": 8, "seed": 1, "licence": "CC0", key: value}
    with pytest.raises(InputError, match=rf"^sources\.random: {key} is {value!r}; set it to a whole number"):
        fetch("random", source, tmp_path / "data")
    del source[key]
    with pytest.raises(InputError, match=rf"{key} is None"):
        fetch("random", source, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_local_folder_is_listed_not_copied(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / "mine" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    source = {"folder": "mine", "pattern": "*.txt", "licence": "own"}
    record = fetch("mine", source, tmp_path / "data")
    assert [f["path"] for f in record["files"]] == [str(tmp_path / "mine" / n) for n in ("a.txt", "b.txt")]
    assert record["files"][0] | {"bytes": 5, "sha256": sha(b"a.txt")} == record["files"][0]
    assert [p.name for p in Path("data").glob("[!.]*")] == ["source.json"]
    with pytest.raises(InputError, match="no file matches"):
        fetch("mine", source | {"pattern": "*.wav"}, tmp_path / "data")


@pytest.mark.parametrize("pattern", ["", ".", "/etc/*", "../*", "a/../../*"])
def test_a_pattern_that_leaves_the_folder_is_refused(tmp_path, pattern):
    (tmp_path / "mine").mkdir()
    (tmp_path / "outside").write_text("x")
    source = {"folder": str(tmp_path / "mine"), "pattern": pattern, "licence": "own"}
    with pytest.raises(InputError, match=r"mine: `pattern` is .*; give one that stays in the folder"):
        fetch("mine", source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_with_something_of_somebody_elses_is_refused_and_kept(server, tmp_path):
    archive(server, "x.zip", zipped({"a": b"old"}), ["a"], tmp_path)
    (tmp_path / "data" / "my notes").write_text("mine")
    with pytest.raises(InputError, match="data: holds 'my notes', which was not written here"):
        archive(server, "x.zip", zipped({"a": b"new"}), ["a"], tmp_path)
    assert (tmp_path / "data" / "a").read_bytes() == b"old" and (tmp_path / "data" / "my notes").exists()
    (tmp_path / "data" / "my notes").unlink()
    (tmp_path / "data" / "source.json").unlink()  # as Snakemake deletes the target of a rule that runs again
    archive(server, "y.zip", zipped({"a": b"new"}), ["a"], tmp_path)
    assert (tmp_path / "data" / "a").read_bytes() == b"new"


def test_an_old_folder_is_replaced_whole_or_kept(server, tmp_path):
    archive(server, "x.zip", zipped({"a": b"old"}), ["a"], tmp_path)
    with pytest.raises(InputError):
        archive(server, "x.zip", zipped({"b": b"new"}), ["a"], tmp_path)
    assert (tmp_path / "data" / "a").read_bytes() == b"old"
    archive(server, "x.zip", zipped({"b": b"new"}), ["b"], tmp_path)
    assert sorted(p.name for p in (tmp_path / "data").glob("[!.]*")) == ["b", "source.json"]
