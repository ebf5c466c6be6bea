"""A web server on this machine that serves bytes like a download site, and fails in the ways that such sites fail."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Files by path, and what is to go wrong: settings may be changed between requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, list[int]] = {}  # bytes after which the next answers break off
        self.refuse_with: dict[str, list[int]] = {}  # status codes of the next answers
        self.knows_ranges = True
        self.sends_etags = True
        self.sends_length = True
        self.requests: list[tuple[str, str | None]] = []  # path and Range header
        self.url = ""

    def etag(self, path: str) -> str:
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked = self.path, self.headers.get("Range")
            server.requests.append((path, asked))
            if codes := server.refuse_with.get(path):
                return self.send_error(codes.pop(0))
            if path not in server.files:
                return self.send_error(404)
            content, first = server.files[path], 0
            unchanged = self.headers.get("If-Range") in (None, server.etag(path))
            if asked and server.knows_ranges and unchanged:
                first = int(asked.removeprefix("bytes=").rstrip("-"))
                if first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if server.sends_length:
                self.send_header("Content-Length", str(len(content) - first))
            if server.sends_etags:
                self.send_header("ETag", server.etag(path))
            self.end_headers()
            limits = server.break_after.get(path)
            self.wfile.write(content[first : first + limits.pop(0)] if limits else content[first:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def running_server() -> Iterator[FileServer]:
    """A server on a free port of 127.0.0.1, stopped at the end; its address is `.url`."""
    server = FileServer()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
