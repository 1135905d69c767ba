"""Options that many commands take, and the settings that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intern.errors import InvalidInput

if TYPE_CHECKING:
    from intern.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, also on a terminal.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Show so many, the newest ones.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The workspace; otherwise INTERN_HOME, or the current folder.", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Work through this server instead of the workspace's own.", show_default=False),
]
Key = Annotated[
    str | None, typer.Option("--key", help="API key for --url; otherwise INTERN_API_KEY.", show_default=False)
]
Rows = Annotated[
    str | None,
    typer.Option("--file", "-f", help='JSON lines, each {"input": ...}; - is standard input.', show_default=False),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Rows of --file under way at once.")]


def load_settings(**given: Any) -> Settings:
    """Settings from the environment; what is `given`, unless None, goes first. Raises InvalidInput naming it."""
    from pydantic import ValidationError

    from intern.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"INTERN_{str(first['loc'][0]).upper()}" if first["loc"] else "INTERN_*"
        raise InvalidInput(f"{name}: {first['msg']}, not {first['input']!r}.") from error
