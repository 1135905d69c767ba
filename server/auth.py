"""Who may call: a `KeyedRoute` asks for a key before a byte of the body is read, and no other kind of route is open
but health's. Admin routes ask for an admin's key besides.

In: the Authorization header (Bearer). Out: a `Caller`. Keys are looked up by hash and remembered for a few seconds. The
token that the workspace's owner wrote for this machine's user counts as an admin key of the default team.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from intern.errors import InvalidInput, NotAllowed, NotAuthenticated
from intern.store import keys
from intern.types import DEFAULT_TEAM, Caller, Json
from intern.workspace import Workspace
from server import body

REMEMBERED_SECONDS = 5.0
LOCAL = "local"
_CACHE_SIZE = 10_000


class KeyRing:
    """Finds keys. `forget` must be called when a key is revoked, so that it stops working at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, tuple[float, keys.Key]] = {}

    async def find(self, secret: str) -> keys.Key | None:
        if secrets.compare_digest(secret.encode(), self._workspace.ownership.token.encode()):
            return keys.Key(id=LOCAL, team=DEFAULT_TEAM, name="this machine", role="admin", prefix="", created="")
        digest = keys.hash_key(secret)
        known = self._known.get(digest)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        key = await self._workspace.threads.promptly(self._look_up, secret)
        if key is None:
            self._known.pop(digest, None)
            return None
        if len(self._known) > _CACHE_SIZE:
            self._known.clear()
        self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, key)
        return key

    def forget(self) -> None:
        self._known.clear()

    def _look_up(self, secret: str) -> keys.Key | None:
        with self._workspace.database.connect() as connection:
            return keys.find_key(connection, secret)


class _ReadRequest(Request):
    """A request whose JSON was read already."""

    value: Json = None

    async def json(self) -> Json:
        return self.value


class KeyedRoute(APIRoute):
    """A route that answers nobody without a key, whatever its function declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def keyed(request: Request) -> Response:
            await authenticate(request)
            if "\x00" in request.scope["path"] or b"%00" in request.scope["query_string"]:
                raise InvalidInput("The address holds a NUL character.")
            read = _ReadRequest(request.scope, request.receive)
            if _is_json(request.headers.get("content-type", "")) and (raw := await read.body()):
                read.value = body.parse(raw)
            return await handle(read)

        return keyed


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def authenticate(request: Request) -> None:
    """Put the key behind the request into its state. Raises NotAuthenticated."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise NotAuthenticated("No API key was sent. Send it as 'Authorization: Bearer sk-intern-...'.")
    ring: KeyRing = request.app.state.keys
    key = await ring.find(secret.strip())
    if key is None:
        raise NotAuthenticated("The API key is not valid: it is unknown or was revoked.")
    request.state.key = key


async def key_of(request: Request) -> keys.Key:
    """The key that the route was entered with. Raises NotAuthenticated on a route that asked for none."""
    key = getattr(request.state, "key", None)
    if not isinstance(key, keys.Key):
        raise NotAuthenticated("This needs an API key.")
    return key


Entered = Annotated[keys.Key, Depends(key_of)]


async def user(key: Entered) -> Caller:
    return Caller(team=key.team, key=key.id)


async def admin(key: Entered) -> Caller:
    """As `user`, for admin keys only. Raises NotAllowed."""
    if key.role != "admin":
        raise NotAllowed("This needs an admin key.")
    return Caller(team=key.team, key=key.id)


async def operator(key: Entered) -> Caller:
    """As `admin`, for what shows or changes every team's: admin keys of the default team. Raises NotAllowed."""
    if key.team != DEFAULT_TEAM:
        raise NotAllowed(f"This needs an admin key of the team '{DEFAULT_TEAM}', which runs the installation.")
    return await admin(key)


User = Annotated[Caller, Depends(user)]
Admin = Annotated[Caller, Depends(admin)]
Operator = Annotated[Caller, Depends(operator)]


async def workspace_of(request: Request) -> Workspace:
    workspace: Workspace = request.app.state.workspace
    return workspace


Work = Annotated[Workspace, Depends(workspace_of)]
