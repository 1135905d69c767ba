"""Logging set up once by whoever starts the process: for a person on a terminal, otherwise a JSON object a line.

Every line made while a request is served carries its `request_id`. Modules log through the standard library and put
fields into `extra`; they never log what a request says.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

# Libraries that tell at `info` what nobody asked for.
_CHATTY = (
    "alembic",
    "bm25s",
    "chromadb",
    "httpx",
    "httpx2",
    "openai",
    "urllib3",
    "sentence_transformers",
    "transformers",
)


def _without_color_message(_: Any, __: str, event: EventDict) -> EventDict:
    """uvicorn sends each of its messages twice."""
    event.pop("color_message", None)
    return event


def set_up_logging(level: str = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send every logger's lines to `stream` (standard error). JSON when `as_json`, or when it is no terminal."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_color_message,
    ]
    last: list[Processor]
    if as_json or not stream.isatty():
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.rich_traceback)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").propagate = False  # Observed writes a better one
