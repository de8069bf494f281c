"""A small web server on the loopback interface, for tests: it serves bytes from a dict and misbehaves as told."""

import hashlib
import html
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback:
    """Use as `with Loopback() as server:`; then `server.url("/name")` is where `server.files["/name"]` is served.

    files:    path -> bytes
    rules:    path -> what goes wrong there: a dict (at every request) or a list of dicts (one a request, then no more):
              status   answer with this status instead
              cut      close the connection after so many bytes of the body
              hang     wait so many seconds before the answer
              pace     seconds to wait after each 64 KiB of the body
              ranges   False: ignore Range and send the whole
    requests: list of (path, value of Range or None, status), in order of arrival
    index:    "html" (PEP 503) or "json" (PEP 691): how the package index at `server.index_url` answers
    """

    def __init__(self):
        self.files, self.rules, self.requests, self.packages, self.index = {}, {}, [], {}, "html"

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"loopback": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def url(self, path):
        return self.base + path

    @property
    def index_url(self):
        return self.url("/simple")

    def add_package(self, project, file, data):
        """Put the archive `file` (bytes `data`) of `project` (normalised name) on the index."""
        self.files[f"/files/{file}"] = data
        self.packages.setdefault(project, []).append((file, hashlib.sha256(data).hexdigest()))

    def count(self, path):
        return sum(1 for asked, *_ in self.requests if asked == path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        here, path, asked = self.loopback, self.path, self.headers.get("Range")
        rule = here.rules.get(path, {})
        if isinstance(rule, list):
            rule = rule.pop(0) if rule else {}
        time.sleep(rule.get("hang", 0))
        project = re.fullmatch(r"/simple/([^/]+)/", path)
        kind, data = "application/octet-stream", here.files.get(path)
        if project and project[1] in here.packages:
            kind, data = self.page(here.packages[project[1]])
        status, first, extra = rule.get("status", 200 if data is not None else 404), 0, {}
        if status == 200:
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            extra = {"ETag": tag, "Accept-Ranges": "bytes"}
            if asked and rule.get("ranges", True) and self.headers.get("If-Range", tag) == tag:
                first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                status = 206 if first < len(data) else 416
                what = f"{first}-{len(data) - 1}" if status == 206 else "*"
                extra["Content-Range"] = f"bytes {what}/{len(data)}"
        body = data[first:] if status in (200, 206) else b""
        here.requests.append((path, asked, status))
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = rule.get("cut", len(body))
        try:
            for at in range(0, min(cut, len(body)), 1 << 16):
                self.wfile.write(body[at : min(at + (1 << 16), cut)])
                time.sleep(rule.get("pace", 0))
        except OSError:  # the client was killed, as some tests do
            self.close_connection = True
        if cut < len(body):
            self.close_connection = True

    def page(self, files):
        if self.loopback.index == "json":
            rows = [{"filename": f, "url": f"../../files/{f}", "hashes": {"sha256": h}} for f, h in files]
            body = {"meta": {"api-version": "1.0"}, "files": rows}
            return "application/vnd.pypi.simple.v1+json", json.dumps(body).encode()
        rows = "".join(f'<a href="../../files/{html.escape(f)}#sha256={h}">{html.escape(f)}</a><br>' for f, h in files)
        return "text/html", f"<!DOCTYPE html><html><body>{rows}</body></html>".encode()
