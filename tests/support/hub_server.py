"""A loopback server that answers like the Hugging Face Hub, as far as `huggingface_hub` and `datasets` ask.

    with HubServer() as hub:
        commit = hub.add("EleutherAI/pythia-70m", {"config.json": b"{}", "model.safetensors": b"..."}, "step1000")
        hub.add("datasets/ILSVRC/imagenet-1k", {"data/validation-00000-of-00001.parquet": b"..."})

and HF_ENDPOINT=hub.base leads the clients there. It answers model and dataset info, trees, paths-info, refs and files.
Small text files come from the hub itself, after a redirect on the same host; all others, as with LFS, from a second
server, `hub.storage`, to which the hub redirects. Both misbehave by their `rules` (see loopback): the hub's are keyed
by `hub.page(...)`, `hub.listing(...)` and `hub.file(...)`, the storage's by `hub.blob(data)`.
"""

import hashlib
import json
from urllib.parse import parse_qs, unquote

from loopback import Handler, Loopback

TEXT = (".json", ".md", ".txt", ".yaml", ".py", ".gitattributes")  # everything else is LFS
CACHED = "/api/resolve-cache/"


class HubServer(Loopback):
    """refs:  repository -> revision -> commit, where a data set's name begins with "datasets/"
    commits:  commit -> path -> bytes
    gated:    repository -> the tokens whose owners accepted its terms
    tokens:   tokens that are valid
    """

    def __init__(self):
        super().__init__(HubHandler)
        self.refs, self.commits, self.gated, self.tokens, self.storage = {}, {}, {}, set(), Loopback()

    def __enter__(self):
        self.storage.__enter__()
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        self.storage.__exit__()

    def add(self, repository, files, revision="main"):
        """Point `revision` of `repository` to a commit with `files` (path -> bytes): the commit, 40 hex digits."""
        content = json.dumps([repository, revision, *((path, sha256(files[path])) for path in sorted(files))])
        commit = hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs.setdefault(repository, {})[revision] = commit
        for path, data in files.items():
            if is_lfs(path):
                self.storage.files[self.blob(data)] = data
        return commit

    def page(self, repository, revision):
        """Path of the API at which clients resolve a revision."""
        return f"/api/{_kind(repository)}/revision/{revision}"

    def listing(self, repository, revision):
        return f"/api/{_kind(repository)}/tree/{revision}"

    def file(self, repository, revision, path):
        return f"/{repository}/resolve/{revision}/{path}"

    def blob(self, data):
        """Path in the storage."""
        return f"/blobs/{sha256(data)}"


class HubHandler(Handler):
    def find(self, path):
        path, _, query = path.partition("?")
        cached = path.startswith(CACHED)
        parts = path.removeprefix(CACHED).removeprefix("/api").strip("/").split("/")
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        if len(parts) < 2:
            return error(404, None, "Not found")
        if cached:
            parts.insert(2, "resolve")
        name, what, rest = "/".join(parts[:2]), parts[2] if parts[2:] else "revision", parts[3:]
        repository = f"datasets/{name}" if kind == "datasets" else name
        revision, inner = unquote(rest[0]) if rest else "main", "/".join(map(unquote, rest[1:]))
        refused = self.refused(repository)
        if refused and not (what == "revision" and "GatedRepo" in refused[1].values()):  # what describes it is public
            return refused
        if what == "auth-check":
            return answer({})
        if what == "refs":
            branches = [
                {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
                for n, c in self.loopback.refs[repository].items()
            ]
            return answer({"branches": branches, "tags": [], "converts": []})
        commit = self.loopback.refs[repository].get(revision, revision)
        if commit not in self.loopback.commits:
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = self.loopback.commits[commit]
        if cached or what == "resolve":
            return self.file(kind, name, cached, commit, files, inner)
        if what == "revision":
            names = sorted(files)
            full = [{"rfilename": n, "size": len(files[n]), **identity(n, files[n])} for n in names]
            siblings = [{("blobId" if k == "oid" else k): v for k, v in row.items()} for row in full]
            if "blobs" not in parse_qs(query):
                siblings = [{"rfilename": n} for n in names]
            about = {"id": name, "sha": commit, "private": False, "tags": [], "downloads": 0}
            return answer({**about, "gated": repository in self.loopback.gated and "manual", "siblings": siblings})
        if what == "tree":
            recursive = parse_qs(query).get("recursive", [""])[0].lower() in ("true", "1")
            rows = entries(files, inner, recursive)
            return answer(rows) if rows else error(404, "EntryNotFound", f"{inner} does not exist on {revision}")
        if what == "paths-info":
            wanted = self.form().get("paths", [])
            return answer([row for row in entries(files, "", True) if row["path"] in [w.strip("/") for w in wanted]])
        return error(404, "EntryNotFound", "Entry not found")

    def refused(self, repository):
        """The error of a repository that is not there, or not for this caller; None where it may be read."""
        here, token = self.loopback, self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in here.tokens:
            return error(401, None, "Invalid credentials in Authorization header")
        if repository not in here.refs:  # the Hub does not tell strangers what is missing and what is private
            return (
                error(404, "RepoNotFound", "Repository not found")
                if token
                else error(401, "RepoNotFound", "Invalid username or password.")
            )
        if token not in here.gated.get(repository, {token}):
            reason = "you must be authenticated" if not token else "you are not in the authorized list"
            return error(403 if token else 401, "GatedRepo", f"Access to {repository} is restricted: {reason}.")
        return None

    def file(self, kind, name, cached, commit, files, path):
        common = {"X-Repo-Commit": commit}
        if path not in files:
            status, headers, body = error(404, "EntryNotFound", "Entry not found")
            return status, {**headers, **common}, body
        data = files[path]
        if is_lfs(path):
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            return 302, {**common, **linked, "Location": self.loopback.storage.url(self.loopback.blob(data))}, b""
        if not cached:
            return 307, {**common, "Location": f"{CACHED}{kind}/{name}/{commit}/{path}"}, b""
        return 200, {**common, "ETag": f'"{blob_id(data)}"', "Content-Type": "text/plain"}, data

    def form(self):
        """The fields of a posted form or JSON object, each a list."""
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        return json.loads(text) if "json" in self.headers.get("Content-Type", "") else parse_qs(text)

    do_POST = Handler.do_GET


def _kind(repository):
    return repository if repository.startswith("datasets/") else f"models/{repository}"


def is_lfs(path):
    return not path.endswith(TEXT)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob_id(data):
    """What git calls the content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def identity(path, data):
    if not is_lfs(path):
        return {"oid": blob_id(data)}
    return {
        "oid": blob_id(b"pointer to " + data),
        "lfs": {"oid": sha256(data), "sha256": sha256(data), "size": len(data), "pointerSize": 134},
    }


def entries(files, folder, recursive):
    """Rows of a tree: the files and folders below `folder` ("" for all), those directly in it unless `recursive`."""
    prefix, rows = f"{folder}/" if folder else "", {}
    for path, data in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        above = path.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, len(above) + 1):
            name = prefix + "/".join(above[:depth])
            rows[name] = {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        rows[path] = {"type": "file", "path": path, "size": len(data), **identity(path, data)}
    return [row for path, row in rows.items() if recursive or "/" not in path.removeprefix(prefix)]


def answer(content, status=200):
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


def error(status, code, message):
    code = {"X-Error-Code": code} if code else {}
    return (
        status,
        {"Content-Type": "application/json", "X-Error-Message": message, **code},
        json.dumps({"error": message}).encode(),
    )
