"""The web application: routes, error shape, request ids, limits and counts around one `Workspace`.

`create_app` takes a workspace that the caller opened and closes it when the server stops. Every route is a
`KeyedRoute`, which asks for a key, but the two of health that are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from intern import __version__
from intern.workspace import Workspace
from server import errors, health
from server.api import routes as api
from server.auth import KeyRing
from server.health import Readiness
from server.limits import BodyLimit, KnownHosts
from server.metrics import Metrics
from server.observability import Observed
from server.openai import routes as openai
from server.tracing import Tracing, open_tracing

ROUTERS = (health.router, health.counted, openai.router, api.router)


def create_app(workspace: Workspace, *, warm: bool = True, tracing: Tracing | None = None) -> FastAPI:
    """The ASGI application. With `warm`, every part is opened before the first request is taken.

    `tracing` replaces the collector that the settings name. Raises InvalidInput when that one cannot be used.
    """
    settings = workspace.settings
    if tracing is None and settings.otlp_endpoint:
        tracing = open_tracing(settings.otlp_endpoint)
    if tracing is not None:
        workspace.pipeline.span = tracing.stage

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        try:
            if warm:
                await workspace.warm(workspace.say)
            workspace.start()
            yield
        finally:
            await workspace.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="LLaMA Intern",
        version=__version__,
        description="Tasks in, routed, grounded, schema-valid answers out. OpenAI-compatible under /v1.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    metrics = Metrics(load=lambda: workspace.engine.load, backlog=lambda: workspace.recorder.backlog)
    app.state.workspace = workspace
    app.state.keys = KeyRing(workspace)
    app.state.metrics = metrics
    app.state.readiness = Readiness(workspace)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit, json_bytes=settings.body_bytes, upload_bytes=settings.upload_bytes)
    if settings.allowed_hosts:
        app.add_middleware(KnownHosts, hosts=settings.allowed_hosts)
    app.add_middleware(Observed, metrics=metrics, tracing=tracing)
    return app
