"""Serves a workspace: the web edge on a socket, in this process (`intern up`) or in a thread (a private server).

The edges are found by their entry points (group `intern.edges`), since the library imports none of them: `web` is a
function of a `Workspace` and `warm` that returns a Starlette application, `logs` sets up logging.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

import uvicorn

from intern.errors import Conflict, InternError, ModelUnavailable
from intern.settings import Settings
from intern.workspace import Workspace

GRACE_SECONDS = 5  # what open requests and streams get when the server stops
LAST_SECONDS = 25.0  # after which one that still hangs is ended: a long prompt or document cannot be interrupted
LOADING_SECONDS = 3.0  # the same while it is loading, when there is nothing to lose
_GROUP = "intern.edges"


def load_edge() -> Callable[..., Any]:
    """The function that makes the web application. Raises ModelUnavailable when it is not installed."""
    found = list(entry_points(group=_GROUP, name="web"))
    if not found:
        raise ModelUnavailable("The web application is not installed. Install the project: pip install -e .")
    make: Callable[..., Any] = found[0].load()
    return make


def set_up_logging(settings: Settings) -> None:
    """The edges' way of logging, to standard error; where they have none, Python's own, from warnings up."""
    found = list(entry_points(group=_GROUP, name="logs"))
    if found:
        found[0].load()(settings.log_level, as_json=settings.log_json)
    else:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger().handlers[0].setLevel(logging.WARNING)


def log_only_the_unexpected() -> None:
    """A command says itself what went wrong: of the log, show what carries a traceback."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.addFilter(lambda record: record.exc_info is not None)
        root.addHandler(handler)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one. Raises Conflict when the port is taken, InternError otherwise."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Only a listening socket keeps others from the port; requests wait in the queue while models load.
            listener.listen(1024)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} on {host} is taken by another program. Stop it, or choose another port with --port or "
                "INTERN_PORT."
            ) from error
        raise InternError(f"The server cannot listen on {host}:{port}: {error.strerror or error}.") from error
    return listener


def address(listener: socket.socket) -> str:
    """The URL that this machine's programs reach a listening socket at."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class EdgeServer(uvicorn.Server):
    """uvicorn, without its own signal handling; `ready` is called once it answers. It has stopped when every request
    has come to its end, also those that it had to cancel, so that nothing uses the parts that are closed next."""

    def __init__(self, app: Any, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        requests = tuple(self.server_state.tasks)
        if self.force_exit:  # the grace was cut short: uvicorn has cancelled nothing
            for request in requests:
                request.cancel()
        if requests:
            await asyncio.wait(requests)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    workspace: Workspace, listener: socket.socket, ready: Callable[[], None], *, warm: bool, servers: list[EdgeServer]
) -> None:
    """Serve until the server, put into `servers` once it is there, is told to stop. Closes the workspace."""
    try:
        app = load_edge()(workspace, warm=warm)
    except BaseException:
        await workspace.close()
        raise
    # Entered here and not by uvicorn, which would log what breaks while loading, and only then say nothing of it.
    async with app.router.lifespan_context(app):
        server = EdgeServer(app, ready)
        servers.append(server)
        await server.serve([listener])


async def serve_until_signalled(workspace: Workspace, listener: socket.socket, ready: Callable[[], None]) -> bool:
    """As `serve`, warm, until SIGINT or SIGTERM; a second one cuts the grace short. False: stopped while loading."""
    servers: list[EdgeServer] = []
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(serve(workspace, listener, ready, warm=True, servers=servers))

    def stop() -> None:
        watchdog = threading.Timer(LAST_SECONDS if servers else LOADING_SECONDS, _give_up)
        watchdog.daemon = True
        watchdog.start()
        if not servers:
            task.cancel()
        elif servers[0].should_exit:
            servers[0].force_exit = True
        else:
            servers[0].should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def _give_up() -> None:
    print("intern: did not stop in time; ended", file=sys.stderr, flush=True)
    os._exit(1)


class PrivateServer:
    """A server for one command: loopback, free port, its own thread. Raises what opening the workspace raises."""

    def __init__(self, settings: Settings, *, engine: bool) -> None:
        log_only_the_unexpected()
        self._settings = settings
        self._engine = engine
        self._servers: list[EdgeServer] = []
        self._opened: Future[tuple[str, str]] = Future()
        self._thread = threading.Thread(target=self._run, name="private server", daemon=True)
        self._thread.start()
        self.url, self.token = self._opened.result()

    def stop(self) -> None:
        """End it and close the workspace; waits for both."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
            if not self._opened.done():
                self._opened.set_exception(InternError("The private server ended before it began."))
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)

    async def _serve(self) -> None:
        workspace = Workspace(self._settings)
        if self._engine:
            try:
                await workspace.load_engine()
            except BaseException:
                await workspace.close()
                raise
        listener = bind("127.0.0.1", 0)
        opened = (address(listener), workspace.ownership.token)
        await serve(workspace, listener, lambda: self._opened.set_result(opened), warm=False, servers=self._servers)
