"""A small web server on the loopback interface, for tests: it serves bytes from a dict and misbehaves as told."""

import hashlib
import html
import json
import os
import re
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback:
    """Use as `with Loopback() as server:`; then `server.url("/name")` is where `server.files["/name"]` is served.

    files:    path -> bytes
    rules:    path -> what goes wrong there: a dict (at every request) or a list of dicts (one a request, then no more):
              status   answer with this status instead
              cut      close the connection after so many bytes of the body; with reset: True, reset it
              hang     wait so many seconds before the answer
              pace     seconds to wait after each 64 KiB of the body
              ranges   False: ignore Range and send the whole
              if_range False: ignore If-Range and send the part
              endless  True: do not tell the length, and send zeros after the body until the client goes away
              headers  send these, too
    sent:     path -> bytes of bodies sent so far
    requests: list of (path, value of Range or None, status), in order of arrival; a HEAD's path begins with "HEAD "
    index:    "html" (PEP 503) or "json" (PEP 691): how the package index at `server.index_url` answers
    """

    def __init__(self, handler=None):
        self.handler = handler or Handler
        self.files, self.rules, self.requests, self.packages, self.index = {}, {}, [], {}, "html"
        self.sent = {}

    def __enter__(self):
        handler = type("Handler", (self.handler,), {"loopback": self})
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


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def find(self, path):
        """(status, headers, body) of what is at `path`, query included."""
        here, kind = self.loopback, "application/octet-stream"
        data = here.files.get(path)
        project = re.fullmatch(r"/simple/([^/]+)/", path)
        if project and project[1] in here.packages:
            kind, data = self.page(project[1], here.packages[project[1]])
        if data is None:
            return 404, {"Content-Type": kind}, b""
        return 200, {"Content-Type": kind, "ETag": f'"{hashlib.md5(data).hexdigest()}"'}, data

    def do_GET(self):
        here, path, asked = self.loopback, self.path, self.headers.get("Range")
        rule = here.rules.get(path.partition("?")[0], {})
        if isinstance(rule, list):
            rule = rule.pop(0) if rule else {}
        time.sleep(rule.get("hang", 0))
        status, headers, body = self.find(path)
        if rule.get("status", status) != status:
            status, headers, body = rule["status"], {}, b""
        if status == 200:
            headers = {**headers, "Accept-Ranges": "bytes"}
            tags = (None, headers.get("ETag")) if rule.get("if_range", True) else (self.headers.get("If-Range"),)
            if asked and rule.get("ranges", True) and self.headers.get("If-Range") in tags:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
                first, last = int(first), min(int(last or len(body)), len(body) - 1)
                status = 206 if first < len(body) else 416
                what = f"{first}-{last}" if status == 206 else "*"
                headers["Content-Range"] = f"bytes {what}/{len(body)}"
                body = body[first : last + 1]
        here.requests.append((f"HEAD {path}" if self.command == "HEAD" else path, asked, status))
        self.send_response(status)
        endless = rule.get("endless", False)
        length = {} if endless else {"Content-Length": str(len(body))}
        for name, value in {**headers, **length, **rule.get("headers", {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = rule.get("cut", len(body))
        try:
            for at in range(0, min(cut, len(body)), 1 << 16):
                self.wfile.write(body[at : min(at + (1 << 16), cut)])
                here.sent[path] = here.sent.get(path, 0) + min(1 << 16, cut - at)
                time.sleep(rule.get("pace", 0))
            while endless:
                self.wfile.write(bytes(1 << 16))
        except OSError:  # the client was killed, as some tests do
            self.close_connection = True
        if cut < len(body):
            self.close_connection = True
            if rule.get("reset"):  # a close that does not wait for what was sent is a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())

    do_HEAD = do_GET

    def page(self, project, files):
        if self.loopback.index == "json":
            rows = [{"filename": f, "url": f"../../files/{f}", "hashes": {"sha256": h}} for f, h in files]
            body = {"meta": {"api-version": "1.0"}, "name": project, "files": rows}
            return "application/vnd.pypi.simple.v1+json", json.dumps(body).encode()
        rows = "".join(f'<a href="../../files/{html.escape(f)}#sha256={h}">{html.escape(f)}</a><br>' for f, h in files)
        return "text/html", f"<!DOCTYPE html><html><body>{rows}</body></html>".encode()
