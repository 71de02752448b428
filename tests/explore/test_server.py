"""The explorer's server from outside: the real command, and requests that no page of its own would make."""

import io
import json
import re
import socket
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from real_command import Command
from served import explorer


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with explorer() as found:
        yield found


def request(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    """Returns status, body and headers of an answer."""
    asked = urllib.request.Request(url, body, {"Content-Type": "application/octet-stream", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def refused(answer: tuple[int, bytes, Any]) -> str:
    assert answer[0] == 400
    return str(json.loads(answer[1])["error"])


def encoded(width: int, height: int) -> bytes:
    """A PNG file of red pixels."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG file whose header promises so many pixels, and nothing after it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_the_page_may_load_nothing_from_elsewhere(address: str) -> None:
    status, body, headers = request(address)
    assert status == 200
    assert not re.search(rb"(?:src|href)=\"(?!static/|#)", body)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"


def test_only_who_knows_the_token_is_answered(address: str) -> None:
    parts = urlsplit(address)
    root = f"{parts.scheme}://{parts.netloc}"
    assert len(parts.path) > 30
    for path in (
        "",
        "/",
        "/static/explore.js",
        "/ask/start",
        f"{parts.path[:-2]}{'y' if parts.path[-2] == 'x' else 'x'}/",
        f"/x{parts.path}",
        "/favicon.ico",
    ):
        status, body, _ = request(root + path)
        assert (status, b"token" in body) == (403, True), path
    with explorer() as other:
        assert urlsplit(other).path != parts.path


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
def test_other_names_in_the_host_header_are_refused(address: str, host: str) -> None:
    # A page elsewhere may have its own name point to this machine; its requests carry that name.
    assert request(address, Host=host.format(port=urlsplit(address).port))[0] == 403
    assert request(address, Host=f"localhost:{urlsplit(address).port}")[0] == 200


def test_it_listens_on_this_machine_alone(address: str) -> None:
    port = urlsplit(address).port
    with socket.socket() as elsewhere:
        # Another of the machine's own addresses is free only if the server has not taken them all.
        elsewhere.bind(("127.0.0.2", port))


def test_nothing_beside_the_page_can_be_read(address: str) -> None:
    for path in ("static/../server.py", "static/%2e%2e/server.py", "static//etc/passwd", "nothing"):
        assert request(address + path)[0] in (404, 405), path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image that Pillow can read (PNG, JPEG,"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (claiming(40_000, 30_000), "pixel"),
        (claiming(5_000, 5_000), "5000 x 5000 pixels; at most 24,000,000 are taken"),
        (encoded(3, 3), "at least 4 x 4"),
        (claiming(64, 64), "damaged or truncated"),
        (bytes(21 * 2**20), "too large: 21.0 MiB, at most 20 are taken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_upload_is_answered_in_words(address: str, content: bytes, message: str) -> None:
    assert message in refused(request(f"{address}upload", content))


def test_the_latest_eight_uploads_are_kept(address: str) -> None:
    keys = [json.loads(request(f"{address}upload", encoded(8, 8))[1])["id"] for _ in range(9)]
    status, body, headers = request(f"{address}images/{keys[-1]}.png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    with Image.open(io.BytesIO(body)) as thumbnail:
        assert thumbnail.getpixel((0, 0)) == (255, 0, 0)
    assert request(f"{address}images/{keys[1]}.png")[0] == 200
    assert "no longer here" in refused(request(f"{address}images/{keys[0]}.png"))


KERNEL = [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("question", "content", "message"),
    [
        ("convolution", b"{", "Expecting property name"),
        ("convolution", b"[]", "an object"),
        ("convolution", {"image": "example0"}, "the request lacks 'convolution'"),
        ("convolution", {"image": "example99", "convolution": {"kernel": KERNEL}}, "no longer here"),
        ("convolution", {"image": 1, "convolution": {"kernel": KERNEL}}, "image is 1"),
        ("convolution", {"image": "example0", "convolution": {}}, "kernel"),
        ("convolution", {"image": "example0", "convolution": {"kernel": KERNEL, "colour": 1}}, "colour"),
        ("convolution", {"image": "example0", "convolution": {"kernel": KERNEL, "stride": 0}}, "stride is 0"),
        ("convolution", {"image": "example0", "convolution": {"kernel": KERNEL, "stride": "2"}}, "stride is '2'"),
        (
            "convolution",
            {"image": "example0", "convolution": {"kernel": KERNEL, "side": 8, "padding": "VALID", "dilation": 5}},
            "a window spanning 11 pixels does not fit",
        ),
        ("network", {"image": "example0", "depth": 1}, "start with a run"),
        ("patch", {"image": "example0", "depth": 1, "part": "stem", "channel": 0, "unit": 5}, "unit is 5"),
    ],
)
def test_a_wrong_question_is_answered_in_words(address: str, question: str, content: Any, message: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    assert message in refused(request(f"{address}ask/{question}", body))


def test_wrong_usage_is_told_before_anything_starts(convjax: Command, address: str, tmp_path: Path) -> None:
    for arguments, message in (
        (["--port", str(urlsplit(address).port)], "leave it out for a free one"),
        (["--port", "70000"], "--port is 70000: it must be from 1 to 65535"),
        ([str(tmp_path)], "holds neither weights nor a run"),
        ([str(tmp_path), "--checkpoint", "first"], "--checkpoint is 'first'"),
    ):
        done = convjax("explore", "--no-browser", *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert message in done.stderr
