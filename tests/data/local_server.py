"""A web server in a thread, whose answers a test chooses."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What is behind a path.

    Attributes:
        body: the file. status: an error instead of it.
        cuts: after how many bytes of the file the connection breaks off, one for each request, then it holds.
        ranges: whether parts of it can be asked for. etag: changes nothing unless asked about.
        length: whether its length is told. shift: by how many bytes the part it sends is not the one asked for.
    """

    body: bytes = b""
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = ""
    length: bool = True
    shift: int = 0


class Server:
    """Pages by path, and the requests that came: (path, Range header, If-Range header)."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted, unless = self.headers.get("Range"), self.headers.get("If-Range")
                outer.asked.append((self.path, wanted, unless))
                page = outer.pages.get(self.path, Page(status=404))
                if page.status != 200:
                    self.send_error(page.status)
                    return
                start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and page.ranges else 0
                if unless is not None and unless != page.etag:
                    start = 0
                start += page.shift
                if start and start >= len(page.body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
                if page.length:
                    self.send_header("Content-Length", str(len(page.body) - start))
                if page.etag:
                    self.send_header("ETag", page.etag)
                self.end_headers()
                end = page.cuts.pop(0) if page.cuts else len(page.body)
                self.wfile.write(page.body[start:end])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
