"""The page's server: what it answers to whom.

It answers requests to this machine's own address that know the token, from the page itself: others' pages that happen
to be open in the same browser can neither read nor change anything.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from vision_longformer.explore.actions import Actions, ask_for
from vision_longformer.explore.overlays import FarOutError
from vision_longformer.explore.session import Session, StaleError
from vision_longformer.images import ImageError
from vision_longformer.segmentation.token_head import MAX_CLASSES

HOSTS = ("127.0.0.1", "localhost")
MAX_BODY = 2**20  # bytes: a stroke of the most points
TOO_LARGE = f"what was sent is larger than {MAX_BODY:,} bytes"
STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "painting.js": ("painting.js", "text/javascript; charset=utf-8"),
    "remembered.js": ("remembered.js", "text/javascript; charset=utf-8"),
    "scale_bar.js": ("scale_bar.js", "text/javascript; charset=utf-8"),
    "talk.js": ("talk.js", "text/javascript; charset=utf-8"),
    "openseadragon.min.js": ("vendor/openseadragon.min.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Any], Any]


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def build_app(session: Session, actions: Actions, *, token: str) -> Guard:
    """Return the application of a session; its page is at /TOKEN/."""
    web = _Web(session, actions)
    routes = [
        Route(f"/{token}/api/state", web.state),
        Route(f"/{token}/api/{{action}}", web.act, methods=["POST"]),
        Route(f"/{token}/tiles/{{image:int}}/{{level:int}}/{{column:int}}_{{row:int}}", web.tile),
        Route(
            f"/{token}/overlay/{{kind}}/{{image:int}}/{{revision:int}}/{{level:int}}/{{column:int}}_{{row:int}}",
            web.overlay,
        ),
        Route(f"/{token}/files/{{number:int}}", web.file),
        Route(f"/{token}/{{name}}", web.static),
        Route(f"/{token}/", web.static),
    ]
    return Guard(Starlette(routes=routes), token)


class _Web:
    def __init__(self, session: Session, actions: Actions) -> None:
        self.session, self.actions = session, actions

    async def static(self, request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in STATIC:
            return _refuse(404, "there is no such page")
        path, kind = STATIC[name]
        text = files("vision_longformer.explore").joinpath("static", *path.split("/")).read_bytes()
        return Response(text, media_type=kind, headers={"cache-control": "no-cache"})

    async def state(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self.actions.state))

    async def act(self, request: Request) -> Response:
        action = ask_for(request.path_params["action"])
        if action is None:
            return _refuse(404, "there is no such action")
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return _refuse(415, "what is sent must be JSON")
        try:
            body = json.loads(await request.body() or b"{}")
        except _TooLargeError:
            return _refuse(413, TOO_LARGE)
        except ValueError:
            return _refuse(400, "what was sent is no JSON")
        if not isinstance(body, dict):
            return _refuse(400, "what was sent must be an object")
        return await run_in_threadpool(self._act, action, body)

    def _act(self, action: Callable[[Actions, Mapping[str, Any]], dict[str, Any]], body: dict[str, Any]) -> Response:
        try:
            return JSONResponse(action(self.actions, body))
        except (ValueError, ImportError, OSError, MemoryError) as error:
            return _refuse(400, str(error) or "there is not enough memory")

    async def tile(self, request: Request) -> Response:
        return await run_in_threadpool(self._tile, **request.path_params)

    def _tile(self, image: int, level: int, column: int, row: int) -> Response:
        try:
            data = self.session.image(image).tiles.tile(level, column, row)
        except ImageError as error:
            return _refuse(500, str(error))
        except ValueError as error:
            return _refuse(404, str(error))
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def overlay(self, request: Request) -> Response:
        given = request.query_params.get("hidden", "").split(",")
        hidden = {number for number in range(MAX_CLASSES) if str(number) in given}
        return await run_in_threadpool(self._overlay, hidden=hidden, **request.path_params)

    def _overlay(
        self, kind: str, image: int, revision: int, level: int, column: int, row: int, hidden: set[int]
    ) -> Response:
        if kind not in ("classes", "doubt", "similar"):
            return _refuse(404, "there is no such overlay")
        try:
            place = {"level": level, "column": column, "row": row}
            data = self.session.overlay(kind, image, revision, hidden=hidden, **place)  # type: ignore[arg-type]
        except StaleError as error:
            return _refuse(409, str(error), revision=self.session.revision)
        except FarOutError as error:
            return _refuse(422, str(error), revision=revision)
        except ValueError as error:
            return _refuse(404, str(error), revision=revision)
        headers = {"cache-control": "no-store", "x-revision": str(revision)}
        return Response(data, media_type="image/png", headers=headers)

    async def file(self, request: Request) -> Response:
        written = self.actions.written
        number = request.path_params["number"]
        if number >= len(written) or not Path(written[number]).is_file():
            return _refuse(404, "there is no such file")
        path = Path(written[number])
        return FileResponse(path, filename=path.name, headers={"cache-control": "no-store"})


class Guard:
    """Refuses requests that do not come from the page.

    Args:
        app: What answers the others.
        token: That the address must begin with.
    """

    def __init__(self, app: Starlette, token: str) -> None:
        self.app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._refusal(scope, headers)
        if answer is None:
            await self.app(scope, _LimitedBody(receive), _with_headers(send))
            return
        await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """Return why a request is refused; None if it is not."""
        host = headers.get("host", "")
        if urlsplit(f"//{host}").hostname not in HOSTS:
            return _refuse(403, "this page is for this machine alone, at 127.0.0.1")
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(first.encode(), self._token.encode()):
            return _refuse(403, "the address lacks the token: take it from the terminal as it is printed there")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return _refuse(403, "requests of other pages are refused")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _refuse(403, "requests of other pages are refused")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY:
            return _refuse(413, TOO_LARGE)
        return None


class _TooLargeError(Exception):
    """A body without a length is too long."""


class _LimitedBody:
    def __init__(self, receive: Receive) -> None:
        self._receive, self._seen = receive, 0

    async def __call__(self) -> Any:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > MAX_BODY:
            raise _TooLargeError
        return message


def _with_headers(send: Send) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await send(message)

    return sending


def _refuse(status: int, sentence: str, *, revision: int | None = None) -> Response:
    headers = {"cache-control": "no-store"} | ({} if revision is None else {"x-revision": str(revision)})
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)
