"""One adapter leaves the house: found, written in a process of its own, tried, described, put in place as a whole.

In: an adapter's name, a format, a name for the folder below the team's exports. Out: events, the last of which has what
was made. Until then nothing stands under the folder's name; a failure or a cancelled export leaves nothing behind.
Knows nothing of HTTP, nor of where a folder goes from here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import re
import shutil
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from intern.engines.base import Engine
from intern.errors import Conflict, InvalidInput, NotFound, StoreFailure, TrainingUnavailable
from intern.learning.adapters.adapter import AdapterFiles, read_verdict, verify
from intern.learning.adapters.gguf_head import read_head
from intern.learning.adapters.manifest import as_json
from intern.learning.adapters.shapes import read_shape
from intern.learning.disk import sync
from intern.learning.examples.rows import prompt_of
from intern.learning.export import card, gguf_model, process
from intern.learning.export.describe import describe
from intern.learning.export.formats import FOLDER, Agreement, ExportJob, Format, Prompt
from intern.learning.loop.contracts import BaseModel, Parts
from intern.learning.train.job import Event
from intern.library import SkillLibrary
from intern.skill import Skill
from intern.store import learning as store
from intern.types import Adapter, Dataset, Example, Json, Model, now

HELDOUT = 20  # examples that the export is tried on
TEXT_TOKENS = 64  # of an answer in free text that are compared; one in JSON is compared to its end
REPORT = "export.json"

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_NAME = re.compile(r"([a-z0-9-]+)@v([1-9][0-9]{0,8})")
_STAGING = ".exporting-"
_FORMER = ".former-"  # what a forced export takes the place of, until that stands there
_ROOM = 50_000_000  # bytes beyond what is counted: tokenizer, card, the job's own files
_NEEDED: Mapping[str, Sequence[str]] = {
    "peft": ("torch", "transformers", "peft"),
    "merged": ("torch", "transformers", "peft"),
}


class Exported(Model):
    """What was made. `folder` is where it lies on this machine; `files` are names to sizes in bytes."""

    name: str
    format: Format
    folder: str
    bytes: int
    files: Mapping[str, int]
    agreement: Agreement


@dataclass(frozen=True)
class _Chosen:
    """Everything that an export is of."""

    adapter: Adapter
    files: AdapterFiles
    skill: Skill
    base: BaseModel
    dataset: Dataset | None
    heldout: Sequence[Example]

    @property
    def stem(self) -> str:
        return f"{self.adapter.skill}-v{self.adapter.version}"


class Exporter:
    """`root` holds a folder of exports for each team; `engine` counts the tokens of prompts.

    One export at a time: others wait.
    """

    def __init__(
        self, parts: Parts, library: SkillLibrary, engine: Engine, root: Path, *, gpu_layers: int = -1
    ) -> None:
        self._parts = parts
        self._library = library
        self._engine = engine
        self._root = root
        self._gpu_layers = gpu_layers
        self._going = asyncio.Lock()

    async def export(
        self, team: str, name: str, *, format: Format, folder: str | None = None, force: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Export `name` (`skill@vN`, or a skill for what serves it); the last event is `exported` with an `Exported`.

        `folder` is a name below the team's exports, by default after adapter and format; `force` replaces what lies
        there. Raises NotFound, InvalidInput, Conflict when the folder exists, AdapterRefused when the adapter is not
        sound or the export does not keep what it learned, TrainingUnavailable when a library is missing or the engine
        runs no base model of its own, ModelUnavailable, StoreFailure.
        """
        chosen = await asyncio.to_thread(self._choose, team, name)
        _check_installed(format)
        target = self._target(team, folder or f"{chosen.stem}-{format}")
        check_free(target, force)
        async with self._going:
            await asyncio.to_thread(self._sweep, target.parent)
            await asyncio.to_thread(self._check_room, target.parent, chosen, format)
            yield Event(kind="stage", stage="prompts", text=f"rendering held-out examples of {chosen.skill.name}")
            prompts = await self._prompts(team, chosen)
            staging = target.with_name(f"{_STAGING}{uuid.uuid4().hex}")
            try:
                job = self._job(chosen, format)
                await asyncio.to_thread(process.prepare, staging, job, prompts)
                agreement: Agreement | None = None
                async with aclosing(process.run(staging, job)) as events:
                    async for event in events:
                        if event.kind == "done":
                            agreement = Agreement.model_validate(event.numbers)
                        else:
                            yield event
                assert agreement is not None
                made = await asyncio.to_thread(self._finish, staging, target, chosen, job, agreement, force)
            except OSError as error:
                raise StoreFailure(f"The export cannot be written: {error.strerror or error}.") from error
            finally:
                await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        text = f"{chosen.adapter.name} is exported as {format}"
        yield Event(kind="exported", stage="done", text=text, numbers=made.model_dump(mode="json"))

    # --- before; blocking -------------------------------------------------------------------------------------------

    def _choose(self, team: str, name: str) -> _Chosen:
        base = self._parts.base
        if base is None:
            raise TrainingUnavailable(
                "Only adapters of the embedded engine are exported here; use INTERN_ENGINE=llamacpp."
            )
        with self._parts.database.connect() as connection:
            known = _NAME.fullmatch(name)
            if known is not None:
                adapter = store.get_adapter(connection, team, known[1], int(known[2]))
            else:
                self._library.get(team, name)
                deployment = store.get_deployment(connection, team, name)
                if deployment is None or deployment.version is None:
                    raise NotFound("adapter", name, "The base model serves this skill; name a version, SKILL@vN.")
                adapter = store.get_adapter(connection, team, name, deployment.version)
            dataset = store.get_dataset(connection, team, adapter.dataset) if adapter.dataset else None
            heldout = store.dataset_examples(connection, team, dataset.id, "heldout") if dataset else []
        skill = self._library.get(team, adapter.skill)
        files = verify(
            self._parts.adapters_folder / adapter.digest, base=base.sha256, shape=read_shape(Path(base.path))
        )
        # Where the dataset's own are gone (erased, or an adapter from elsewhere), the skill's examples must do.
        heldout = heldout or sorted(skill.examples, key=lambda example: example.split != "heldout")
        if not heldout:
            raise InvalidInput(f"The skill {skill.name} has no example to try the export on. Add some.", param="name")
        return _Chosen(adapter, files, skill, base, dataset, heldout)

    def _target(self, team: str, folder: str) -> Path:
        if not _FOLDER.fullmatch(folder):
            raise InvalidInput(
                f"'{folder[:120]}' is no name for an export: up to 100 letters, digits and ._@- and no path.",
                param="folder",
            )
        return self._root / team / folder

    def _sweep(self, folder: Path) -> None:
        """Remove what a crash left, and put back what it took away. No other process works here: the workspace has one
        owner."""
        for left in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        for former in folder.glob(f"{_FORMER}*"):
            target = folder / former.name.removeprefix(_FORMER)
            if target.exists():
                shutil.rmtree(former, ignore_errors=True)
            else:
                os.rename(former, target)

    def _check_room(self, folder: Path, chosen: _Chosen, format: Format) -> None:
        """Raises StoreFailure, with the numbers, when the disk has too little room."""
        folder.mkdir(parents=True, exist_ok=True)
        base = Path(chosen.base.path)
        if format in gguf_model.NUMBERS:
            needed = gguf_model.merged_bytes(base, chosen.files.lora, gguf_model.NUMBERS[format])
        else:
            weights = sum(math.prod(tensor.shape) for tensor in read_head(base).tensors.values())
            adapter = sum(file.size for file in chosen.files.manifest.files.values())
            needed = 2 * weights if format == "merged" else adapter
            if not any(self._parts.cache.glob("base-*")):  # the base model in transformers' format, in float32
                needed += 4 * weights
        needed += _ROOM
        if (free := shutil.disk_usage(folder).free) < needed:
            raise StoreFailure(
                f"The export needs {_megabytes(needed)} in '{folder}', and {_megabytes(free)} are free: make room."
            )

    async def _prompts(self, team: str, chosen: _Chosen) -> list[Prompt]:
        retrieve = self._parts.retriever(team)
        found: list[Prompt] = []
        for example in chosen.heldout:
            prompt = await prompt_of(
                chosen.skill, example, retrieve, self._engine, passage_tokens=self._parts.passage_tokens
            )
            if prompt is not None:
                found.append(Prompt(id=example.id, messages=prompt.messages))
            if len(found) == HELDOUT:
                break
        if not found:
            raise InvalidInput("No held-out example fits the model's context.", param="name")
        return found

    def _job(self, chosen: _Chosen, format: Format) -> ExportJob:
        skill, parts = chosen.skill, self._parts
        generation = skill.spec.generation
        settings: dict[str, Json] = {"do_sample": generation.temperature > 0, "max_new_tokens": generation.max_tokens}
        if generation.temperature > 0:
            settings["temperature"] = generation.temperature
            settings |= {} if generation.top_p is None else {"top_p": generation.top_p}
        to_the_letter = [name for name, metric in skill.metrics.items() if metric in ("exact", "number", "set")]
        return ExportJob(
            format=format,
            name=chosen.adapter.name,
            adapter=str(chosen.files.folder),
            base=chosen.base.path,
            cache=str(parts.cache),
            context=parts.context,
            threads=parts.threads,
            gpu_layers=self._gpu_layers,
            grammar=skill.schema.grammar if skill.schema else None,
            fields=tuple(to_the_letter) if skill.schema else (),
            answer_tokens=generation.max_tokens if skill.schema else min(generation.max_tokens, TEXT_TOKENS),
            generation=settings,
            metadata={
                "general.name": f"{skill.spec.title} ({chosen.adapter.name})",
                "general.description": skill.spec.description,
            },
            stem=chosen.stem,
        )

    # --- after; blocking ----------------------------------------------------------------------------------------------

    def _finish(
        self, staging: Path, target: Path, chosen: _Chosen, job: ExportJob, agreement: Agreement, force: bool
    ) -> Exported:
        """Describe the export and put it in place. Raises Conflict when the place was taken meanwhile."""
        folder = staging / FOLDER
        if chosen.skill.schema is not None:
            (folder / "schema.json").write_bytes(as_json(chosen.skill.schema.schema))
        subject = describe(
            chosen.files,
            chosen.skill,
            chosen.base,
            chosen.dataset,
            read_verdict(chosen.files.folder) or {},
            format=job.format,
            agreement=agreement,
            file=gguf_model.file_name(job.stem, job.format) if job.format in gguf_model.NUMBERS else None,
        )
        (folder / "README.md").write_text(card.render(subject), encoding="utf-8")
        report = {
            "name": chosen.adapter.name,
            "digest": chosen.files.digest,
            "format": job.format,
            "base": chosen.files.manifest.base.model_dump(),
            "dataset": chosen.files.manifest.dataset,
            "agreement": agreement.model_dump(mode="json"),
            "created": now().isoformat(),
        }
        (folder / REPORT).write_bytes(as_json(report))
        for path in (*folder.iterdir(), folder):
            sync(path)
        check_free(target, force)
        former = target.with_name(f"{_FORMER}{target.name}")
        if target.exists():
            os.rename(target, former)
        try:
            os.rename(folder, target)
        except OSError:
            if former.exists():
                os.rename(former, target)
            raise
        sync(target.parent)
        shutil.rmtree(former, ignore_errors=True)
        sizes = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
        return Exported(
            name=chosen.adapter.name,
            format=job.format,
            folder=str(target.resolve()),
            bytes=sum(sizes.values()),
            files=sizes,
            agreement=agreement,
        )


def check_free(target: Path, force: bool) -> None:
    """Raises Conflict when something lies there: anything without `force`, and what is no export in any case."""
    if not os.path.lexists(target):
        return
    if not force:
        raise Conflict(f"'{target}' exists. Choose another folder, or replace it (force).")
    if not (target / REPORT).is_file():
        raise Conflict(f"'{target}' exists and is no export, so it is not replaced. Choose another folder.")


# --- inside ------------------------------------------------------------------------------------------------------


def _check_installed(format: Format) -> None:
    missing = [name for name in _NEEDED.get(format, ("gguf",)) if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingUnavailable.lacks(f"The format {format}", missing)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
