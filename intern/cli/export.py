"""`intern adapters export`: an adapter as files for other programs, here or on the Hugging Face hub."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from intern.cli import output, progress
from intern.cli.connection import connect, segment
from intern.cli.options import AsJson, Home, Key, Url
from intern.errors import InternError, InvalidInput, NotAuthenticated, StoreFailure

Push = Annotated[
    str | None,
    typer.Option("--push", metavar="OWNER/REPO", help="Also upload it to the Hugging Face hub.", show_default=False),
]


def export(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="SKILL@vN, or SKILL for the one that serves it.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder to make; otherwise one in data/exports.", show_default=False),
    ] = None,
    format: Annotated[
        Literal["peft", "merged", "gguf-f16", "gguf-q8_0", "gguf-q4_0"],
        typer.Option("--format", help="peft: the adapter alone. The others: merged into its base model."),
    ] = "peft",
    push: Push = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see what --push uploads.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that lies there.")] = False,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Export an adapter for other programs: transformers and vLLM (peft, merged), llama.cpp and Ollama (gguf).

    The files are loaded and tried on held-out examples before they are out: an export that lost what was learned is
    refused. A model card with scores, licence and how to load it lies beside them. It takes minutes.

    --push makes the repository private; the token is the one of `hf auth login`, or HF_TOKEN.

    ```bash
    intern adapters export support-triage --to ./triage
    intern adapters export support-triage@v3 --to ./triage-gguf --format gguf-q8_0
    intern adapters export support-triage --format merged --push acme/triage
    ```
    """
    from intern.learning.export.exporter import check_free

    if url is not None and (to is not None or push is not None):
        raise InvalidInput("Through --url an export stays on the server: leave --to and --push out, or work there.")
    token = _token(push) if push is not None else None
    body: dict[str, Any] = {"format": format, "force": force, "stream": True}
    if to is not None:
        check_free(to, force)
        body["folder"] = f"leaving-{uuid.uuid4().hex}"  # it is moved away when it is finished
    with connect(home, url, key, engine=True) as api, progress.shown(quiet=as_json) as take:
        made: dict[str, Any] = {}
        for event in api.events(f"/api/adapters/{segment(adapter)}/export", body):
            take(event)
            made = event["numbers"] if event["kind"] == "exported" else made
    if to is not None:
        made["folder"] = str(_move(Path(made["folder"]), to.absolute(), force=force))
    if push is not None and token is not None:
        made["url"] = _push(Path(made["folder"]), push, token, public=public, name=made["name"])
    if output.plain(as_json):
        output.document(made)
    else:
        _show(made, remote=url is not None)


def _move(source: Path, target: Path, *, force: bool) -> Path:
    """Put a finished export where it was wanted, as a whole. Raises Conflict, StoreFailure; then it is still there."""
    from intern.learning.export.exporter import check_free

    hidden = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    former = hidden.with_name(f"{hidden.name}-former")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_dev != target.parent.stat().st_dev:
            _check_room(source, target.parent)
        shutil.copytree(source, hidden, copy_function=_link)
        check_free(target, force)
        if target.exists():
            target.rename(former)
        hidden.rename(target)
    except OSError as error:
        if former.exists() and not target.exists():
            former.rename(target)
        reason = error.strerror or "a file cannot be copied"
        raise StoreFailure(f"'{target}' cannot be made: {reason}. The export is in '{source}'.") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
    shutil.rmtree(source, ignore_errors=True)
    return target


def _check_room(source: Path, folder: Path) -> None:
    """Raises StoreFailure, with the numbers, when a copy of `source` does not fit the volume of `folder`."""
    size = sum(path.stat().st_size for path in source.iterdir())
    if (free := shutil.disk_usage(folder).free) < size:
        raise StoreFailure(
            f"'{folder}' has {free // 1_000_000} MB free, and {size // 1_000_000} MB are needed. "
            f"The export is in '{source}'."
        )


def _link(source: str, target: str) -> None:
    """On the same volume no byte need be copied."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _token(repository: str) -> str:
    from huggingface_hub import get_token

    from intern.learning.export.hub import check_repository

    check_repository(repository)
    token = get_token()
    if token is None:
        raise NotAuthenticated("--push needs a token of the hub. Log in with 'hf auth login', or set HF_TOKEN.")
    return token


def _push(folder: Path, repository: str, token: str, *, public: bool, name: str) -> str:
    from intern.learning.export.hub import push

    try:
        with output.progress(f"uploading to {repository}", None):
            return push(folder, repository, token=token, private=not public, message=f"{name}, by LLaMA Intern")
    except InternError as error:
        error.message += f" The export is in '{folder}'."
        raise


def _show(made: dict[str, Any], *, remote: bool) -> None:
    found = made["agreement"]
    output.table(["file", "bytes"], [(name, f"{size:,}") for name, size in made["files"].items()])
    fields = "" if found["fields"] is None else f", {found['fields']:.1%} of the fields"
    output.note(
        f"Tried on {found['examples']} held-out examples: it keeps {found['tokens']:.1%} of the next tokens{fields}."
    )
    output.note(f"{made['name']} is exported{' on the server' if remote else ''} to {made['folder']}")
    if "url" in made:
        output.note(f"Uploaded: {made['url']}")
