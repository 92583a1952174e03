"""A real S3 over HTTP for tests: moto's server as a process of its own, and a proxy that makes it ill."""

import contextlib
import http.client
import os
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

#: Never to be found in anything that is written.
KEY, SECRET = "AKIDNEVERTOBEWRITTEN", "secret/never+to/be+written"

_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # ends with whoever started it
"""


@contextlib.contextmanager
def serve_s3(bucket: str = "tests") -> Iterator[str]:
    """Serve an S3 with one bucket; give its endpoint."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        endpoint = f"http://127.0.0.1:{_read_port(server)}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=30).close()
        yield endpoint
    finally:
        server.stdin.close()
        server.stdout.close()
        server.kill()
        server.wait(10)


def _read_port(server: subprocess.Popen[str], seconds: float = 90.0) -> int:
    """Read what the server prints once it listens; moto takes its time to be imported."""
    assert server.stdout is not None
    is_told, _, _ = select.select([server.stdout], [], [], seconds)
    assert is_told, f"no S3 after {seconds:g} s"
    line = server.stdout.readline()
    assert line, f"the S3 ended with {server.wait(10)}"
    return int(line)


def environment(endpoint: str) -> dict[str, str]:
    """What a user would set."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }


def assert_no_secret(text: str) -> None:
    """Hold that a text tells nothing of the credentials."""
    assert not any(word in text for word in (KEY, SECRET, SECRET.replace("/", "")))


class Proxy:
    """Stands before a server, and answers 503 in its place, or late, when told to."""

    def __init__(self, endpoint: str):
        self.behind = urlsplit(endpoint).netloc
        self.requests: list[tuple[str, str]] = []  #: method and path of what came through
        self.refused = 0
        self.delay = 0.0  #: s, before every answer
        self._ill_until = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def refuse_for(self, seconds: float) -> None:
        """Answer 503 SlowDown to all that comes, for a while."""
        self._ill_until = time.monotonic() + seconds

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(proxy.delay)
                if time.monotonic() < proxy._ill_until:
                    proxy.refused += 1
                    return self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                proxy.requests.append((self.command, self.path))
                connection = http.client.HTTPConnection(proxy.behind, timeout=60)
                connection.request(self.command, self.path, body=body or None, headers=dict(self.headers))
                answer = connection.getresponse()
                given = answer.read()
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
                connection.close()
                return self.answer(answer.status, headers, given)

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for key, value in headers.items():
                    if key.lower() != "content-length" or self.command == "HEAD":
                        self.send_header(key, value)
                if self.command != "HEAD" or "content-length" not in map(str.lower, headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *_: object) -> None:
                pass

        return Handler
