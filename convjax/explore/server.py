"""The explorer's server: one static page, and the answers to what it asks. It speaks to this machine alone."""

import hmac
import io
import json
import secrets
import socket
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from convjax.errors import UsageError
from convjax.explore.answers import Answers
from convjax.explore.pictures import MAX_BYTES

HOST = "127.0.0.1"
_STATIC = Path(__file__).parent / "static"
_MAX_JSON = 2**16
_THUMBNAIL = 112
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets through only what is addressed to this server by its own name and begins with the token.

    The token is the first part of each path, so that a page without it can neither read nor guess an address here,
    and nothing has to be kept in a cookie. Other names in the Host header are those of a page that has had its own
    name point to this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: set[str], token: str) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        given = scope["path"].split("/")[1]
        if host not in self._hosts:
            refusal = "this server answers to its own address alone"
        elif not hmac.compare_digest(given.encode(), self._token.encode()):
            refusal = "open the whole address that convjax explore printed: it holds a token"
        else:
            await self._app(scope, receive, send)
            return
        await PlainTextResponse(f"{refusal}\n", 403, _HEADERS)(scope, receive, send)


def application(answers: Answers, token: str, port: int) -> ASGIApp:
    """Returns the server of the page at `http://127.0.0.1:PORT/TOKEN/`."""

    async def ask(request: Request) -> Response:
        content = json.loads(await _body(request, _MAX_JSON))
        answer = await run_in_threadpool(answers, request.path_params["question"], content)
        if answer is None:
            raise HTTPException(404)
        return JSONResponse(answer, headers=_HEADERS)

    async def upload(request: Request) -> Response:
        content = await _body(request, MAX_BYTES)
        return JSONResponse(await run_in_threadpool(answers.uploaded, content), headers=_HEADERS)

    def thumbnail(request: Request) -> Response:
        image = answers.pictures[request.path_params["image"]].image.convert("RGB")
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        png = io.BytesIO()
        image.save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers=_HEADERS)

    def page(_: Request) -> Response:
        return Response((_STATIC / "index.html").read_bytes(), media_type="text/html", headers=_HEADERS)

    async def wrong(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400, headers=_HEADERS)

    routes = [
        Route("/", page),
        Route("/ask/{question}", ask, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/images/{image}.png", thumbnail),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    handlers: Any = {UsageError: wrong, ValueError: wrong}
    return Guard(
        Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers=handlers),
        {f"{HOST}:{port}", f"localhost:{port}"},
        token,
    )


async def _body(request: Request, limit: int) -> bytes:
    """Returns a request's body.

    Raises:
        UsageError: it is larger than the limit; the rest of it is not kept.
    """
    content, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            content += chunk
    if size > limit:
        raise UsageError(f"the file is too large: {size / 2**20:.1f} MiB, at most {limit / 2**20:.3g} are taken")
    return bytes(content)


class Server:
    """A server that listens on this machine, at a port that is free unless one is given."""

    def __init__(self, answers: Answers, port: int | None) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port or 0))
            self._socket.listen()
        except OSError as error:
            self._socket.close()
            raise UsageError(f"--port {port} cannot be used ({error.strerror}): leave it out for a free one") from error
        port = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(24)
        self.address = f"http://{HOST}:{port}/{token}/"
        self._app = application(answers, token, port)

    def run(self) -> None:
        """Answers until interrupted."""
        config = uvicorn.Config(
            self._app, log_level="warning", lifespan="off", ws="none", server_header=False, timeout_graceful_shutdown=1
        )
        uvicorn.Server(config).run(sockets=[self._socket])
