"""An HTTP server with every behaviour that the HTTP port must handle, for test_http_client.

Prints its port, serves on loopback, and ends when its standard input closes. The path selects the behaviour;
`/firmware/sensor/<version>` serves ranges of the file given as the argument, and needs the API key. With
`--notification FILE`, the check-in answers that file's content once it exists. With `--cut-at`, the connection is
dropped each time that so many bytes of the image were sent in all.
"""

import argparse
import hashlib
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("image", type=Path)
arguments.add_argument("--notification", type=Path)
arguments.add_argument("--seconds-per-chunk", type=float, default=0)
arguments.add_argument("--cut-at", type=int, nargs="*", default=[])
options = arguments.parse_args()
connections = 0
image_bytes_sent = 0
cuts = sorted(options.cut_at)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        global connections
        connections += 1
        super().setup()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path.startswith("/firmware/") and status in {200, 206}:
            body = self.until_cut(body)
        self.wfile.write(body)

    def until_cut(self, body: bytes) -> bytes:
        global image_bytes_sent
        if cuts and image_bytes_sent + len(body) >= cuts[0]:
            body = body[: cuts.pop(0) - image_bytes_sent]
            self.close_connection = True
        image_bytes_sent += len(body)
        return body

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/firmware/"):
            self.firmware()
        elif path.endswith("/update"):
            there = options.notification and options.notification.exists()
            self.answer(*((200, options.notification.read_bytes()) if there else (204,)))
        elif path == "/connections":
            self.answer(200, str(connections).encode())
        elif path == "/image-bytes":
            self.answer(200, f"{image_bytes_sent} {len(options.cut_at) - len(cuts)}".encode())
        elif path == "/echo":
            self.answer(200, "".join(f"{k}: {v}\n" for k, v in self.headers.items()).encode())
        elif path == "/headers":
            self.answer(
                429, Retry_After="17", ETag='"tag"', Content_Range="bytes 1-2/3", Location="http://elsewhere.test/x"
            )
        elif path == "/long-location":
            self.answer(307, Location="http://elsewhere.test/" + "x" * 2100)
        elif path == "/redirect":
            self.answer(307, Location="/echo")
        elif path == "/close-early":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 400)
            self.close_connection = True
        elif path == "/close-after":
            self.answer(200, b"closed without a word")
            self.close_connection = True
        elif path == "/close-at-once":
            self.close_connection = True
        elif path == "/no-http":
            self.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
            self.close_connection = True
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for size in (1, 5000, 20000):
                self.wfile.write(b"%x\r\n%s\r\n" % (size, b"c" * size))
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/slow-head":
            time.sleep(2)
            self.answer(200, b"late")
        elif path == "/slow-body":
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            for byte in b"slow":
                time.sleep(0.4)
                self.wfile.write(bytes([byte]))
        else:
            self.answer(404, b"{}")

    def firmware(self) -> None:
        image = options.image.read_bytes()
        tag = '"' + hashlib.sha256(image).hexdigest() + '"'
        if self.headers.get("x-api-key") != "key":
            self.answer(403, b"{}")
            return
        time.sleep(options.seconds_per_chunk)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted:
            self.answer(200, image, ETag=tag)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(image) - 1)
        if first > last:
            self.answer(416, Content_Range=f"bytes */{len(image)}")
            return
        self.answer(206, image[first : last + 1], ETag=tag, Content_Range=f"bytes {first}-{last}/{len(image)}")


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect: they are part of the test."""


server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
