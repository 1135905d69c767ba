"""How a command reaches the API: `connect` finds or starts a server, `Api` speaks to it.

A workspace that another process owns is reached at the address that it announced, with its local token. While that
process is still loading, or is a short-lived command, it is waited for. A workspace that nobody owns is opened for the
duration of the command behind a private server on a free loopback port. Errors of the API come back as `InternError`s
with the server's own words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from intern.cli.options import load_settings
from intern.cli.output import note
from intern.errors import (
    Conflict,
    EngineUnavailable,
    InternError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    WorkspaceBusy,
)

if TYPE_CHECKING:
    import httpx2

    from intern.settings import Settings

WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 900.0


class Api:
    """The API at `url`, with `key`. Thread-safe. Every method raises InternError with the server's reason.

    `private`: the server is this command's own, and ends with it.
    """

    def __init__(self, url: str, key: str, *, local: bool, private: bool = False) -> None:
        import httpx2

        self.url = url.rstrip("/")
        self.private = private
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            # The way to this machine's own server never leads through a proxy.
            trust_env=not local,
        )

    def get(self, path: str, **params: Any) -> Any:
        return self._call("GET", path, params=params)

    def text(self, path: str) -> str:
        """What is no JSON, as it is."""
        return self._send("GET", path).text

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, content=_encode(body), headers={"content-type": "application/json"})

    def upload(self, path: str, files: list[tuple[str, Any]], fields: Mapping[str, str]) -> Any:
        """Multipart: `files` are (name, bytes or open binary file), each sent as a part called `file`."""
        return self._call("POST", path, files=[("file", pair) for pair in files], data=dict(fields))

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def events(self, path: str, body: Any = None, **params: Any) -> Iterator[dict[str, Any]]:
        """The objects of a server-sent event stream: what `body` is answered with, or without one what is there to get.

        An error event raises, and so does an end without [DONE]: EngineUnavailable when the server stops or is lost.
        """
        import httpx2

        headers = {"accept": "text/event-stream"} | ({} if body is None else {"content-type": "application/json"})
        method, content = ("GET", None) if body is None else ("POST", _encode(body))
        try:
            with self._http.stream(method, path, content=content, headers=headers, params=params) as response:
                if response.status_code >= 400:
                    response.read()
                    raise refusal(response)
                for text in response.iter_lines():
                    if not text.startswith("data:"):
                        continue
                    data = text.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    event = json.loads(data)
                    if "error" in event:
                        stopping = event["error"].get("code") == "server_stopping"
                        kind = EngineUnavailable if stopping else InternError
                        raise kind(str(event["error"].get("message", event["error"])))
                    yield event
        except httpx2.TransportError as error:
            raise self._lost(error) from error
        raise EngineUnavailable("The answer broke off before its end.")

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._send(method, path, **arguments)
        if response.status_code == 204 or not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise InternError(f"{self.url} answered {path} with something else than JSON.") from error

    def _send(self, method: str, path: str, **arguments: Any) -> httpx2.Response:
        import httpx2

        try:
            response = self._http.request(method, path, **arguments)
        except httpx2.TransportError as error:
            raise self._lost(error) from error
        if response.status_code >= 400:
            raise refusal(response)
        return response

    def _lost(self, error: Exception) -> InternError:
        return EngineUnavailable(f"The server at {self.url} cannot be reached: {str(error) or type(error).__name__}.")


def segment(name: str) -> str:
    """A name as one part of a URL's path."""
    return quote(name, safe="")


def _encode(body: Any) -> bytes:
    # Escapes keep lone surrogates sendable: the server says what is wrong with them.
    return json.dumps(body).encode()


def refusal(response: httpx2.Response) -> InternError:
    """The error that an answer of status 400 and above stands for."""
    param = None
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"the server answered {response.status_code} at {response.request.url.path}"
    match response.status_code:
        case 401:
            return NotAuthenticated(message)
        case 403:
            return NotAllowed(message)
        case 409:
            return Conflict(message)
        case 429:
            after = response.headers.get("retry-after", "")
            return Overloaded(message, retry_after=float(after) if after.isdigit() else 1.0)
        case 503:
            return EngineUnavailable(message)
        case status if status < 500:
            return InvalidInput(message, param=param)
        case _:
            return InternError(message)


@contextmanager
def connect(home: Path | None, url: str | None, key: str | None, *, engine: bool = False) -> Iterator[Api]:
    """The API to work through. `engine`: the command will generate, so a private server loads the engine.

    Raises WorkspaceBusy when the owner neither announces an address nor leaves for a minute, and whatever opening a
    workspace raises.
    """
    settings = load_settings(home=home)
    with ExitStack() as stack:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise InvalidInput(f"--url must be like https://host:port, not '{url}'.")
            secret = key or (settings.api_key.get_secret_value() if settings.api_key else "")
            api = Api(url, secret, local=False)
        else:
            api = _own(settings, key, engine, stack)
        stack.callback(api.close)
        yield api


def _own(settings: Settings, key: str | None, engine: bool, stack: ExitStack) -> Api:
    """The API of the workspace's owner, or of a private server that `stack` stops."""
    from intern.ownership import is_owned, read_owner

    check_home(settings)
    deadline = time.monotonic() + WAIT_SECONDS
    told = False
    while True:
        if is_owned(settings.data):
            owner = read_owner(settings.data)
            if owner is not None and owner.url:
                return Api(owner.url, key or owner.token, local=True)
        else:
            from intern.cli.serving import PrivateServer

            with suppress(WorkspaceBusy):  # another command was faster
                server = PrivateServer(settings, engine=engine)
                stack.callback(server.stop)
                return Api(server.url, key or server.token, local=True, private=True)
        if time.monotonic() > deadline:
            raise WorkspaceBusy(
                f"Another command has been working on {settings.home.resolve()} for {WAIT_SECONDS:.0f} s. "
                "While `intern up` runs there, any number of commands can work at once."
            )
        if not told:
            note("Waiting for another command that works on this workspace.")
            told = True
        time.sleep(_POLL_SECONDS)


def check_home(settings: Settings) -> None:
    """Raises InvalidInput when the workspace has no skills folder."""
    if not settings.skills.is_dir():
        raise InvalidInput(
            f"'{settings.home.resolve()}' is no workspace: it has no skills folder. Make one with `intern init DIR`, "
            "and name it with --home or INTERN_HOME."
        )
