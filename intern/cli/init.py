"""`intern init`: a new workspace with the starter skills."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from intern.cli import output
from intern.cli.options import AsJson
from intern.errors import Conflict, InternError, StoreFailure

SHARED = "share/llama-intern/skills/"  # where a wheel puts the starter skills, below the environment's prefix


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make it in; it may exist already.")],
    empty: Annotated[bool, typer.Option("--empty", help="Without the starter skills.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a workspace: a folder with skills, adapters and data.

    The starter skills and their adapters are copied in, to use, change or delete. A folder that has skills already is
    left as it is.

    ```bash
    intern init my-intern && cd my-intern && intern up
    intern init my-intern --empty
    ```
    """
    target = folder / "skills"
    names: list[str] = []
    try:
        if folder.exists() and not folder.is_dir():
            raise Conflict(f"'{folder}' is a file; a workspace is a folder.")
        if target.exists():
            raise Conflict(f"'{folder}' is a workspace already: it has a skills folder. Nothing was changed.")
        folder.mkdir(parents=True, exist_ok=True)
        if empty:
            target.mkdir()
        else:
            starters = find_starters()
            _copy(shipped(starters.with_name("adapters")), folder / "adapters")
            skills = sorted(path.parent for path in starters.glob("*/skill.yaml"))
            _copy(skills, target)  # last: it is what makes the folder a workspace
            names = [skill.name for skill in skills]
        for name in ("adapters", "data"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise StoreFailure(f"'{folder}' cannot be written: {error.strerror or error}.") from error
    if output.plain(as_json):
        output.document({"home": str(folder.resolve()), "skills": names})
    else:
        output.note(f"{folder} is a workspace with {len(names)} skills: {', '.join(names) or 'none yet'}.")
        output.note(f"Next: cd {folder} && intern up")


def shipped(root: Path) -> list[Path]:
    """The starter skills' adapters below `root`, with the list that names them; nothing else that lies there."""
    names = root / "shipped.json"
    return [names, *(root / name for name in json.loads(names.read_text(encoding="utf-8")))] if names.exists() else []


def _copy(paths: Sequence[Path], target: Path) -> None:
    """Copy files and folders below `target`; where there is none yet, whole or not at all."""
    if target.exists():
        return  # an adapters folder that is there belongs to somebody
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for path in paths:
            if path.is_dir():
                shutil.copytree(path, place / path.name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
            else:
                shutil.copy(path, place / path.name)
        place.chmod(0o755)
        place.rename(target)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def find_starters() -> Path:
    """The starter skills: of the checkout that this code lies in, or those that the installed wheel brought.

    Raises InternError when there are none.
    """
    checkout = Path(__file__).parents[2] / "skills"
    if (Path(__file__).parents[2] / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    from importlib.metadata import PackageNotFoundError, files

    try:
        for file in files("llama-intern") or ():
            before, shared, _ = str(file.locate()).replace("\\", "/").rpartition(SHARED)
            if shared and Path(before + shared).is_dir():
                return Path(before + shared)
    except PackageNotFoundError:
        pass
    raise InternError("The starter skills are not installed. Take --empty, and make skills with `intern skills new`.")
