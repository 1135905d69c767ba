"""What a card says of an adapter: of its manifest, its verdict and its base model's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from intern.learning.adapters.adapter import AdapterFiles
from intern.learning.adapters.gguf_head import BrokenHead, Scalar, read_head
from intern.learning.export.card import Subject
from intern.learning.export.formats import Agreement, Format
from intern.learning.judging.outcomes import Summary
from intern.learning.loop.contracts import BaseModel
from intern.skill import Skill
from intern.types import Dataset, Json


def describe(
    files: AdapterFiles,
    skill: Skill,
    base: BaseModel | None,
    dataset: Dataset | None,
    verdict: Mapping[str, Json],
    *,
    format: Format = "peft",
    agreement: Agreement | None = None,
    file: str | None = None,
) -> Subject:
    """The subject of a card: of the adapter itself, or, with `agreement`, of an export of it.

    `verdict` is empty where it was not evaluated. Of a `base` that is not here only the name is told. Blocking.
    """
    ruling = verdict.get("ruling") or {}
    about = _metadata(Path(base.path)) if base else {}
    repository, base_file = _on_hub(base.reference) if base else (None, None)
    return Subject(
        skill=skill,
        manifest=files.manifest,
        format=format,
        agreement=agreement,
        rivals={name: Summary.model_validate(body) for name, body in (verdict.get("rivals") or {}).items()},
        decision=ruling.get("decision", ""),
        reason=ruling.get("reason", ""),
        dataset=dataset,
        file=file,
        base_repo=repository,
        base_file=base_file or (Path(base.path).name if base else None),
        base_title=_text(about, "general.name"),
        licence=_text(about, "general.license"),
        max_lora_rank=files.lora.max_lora_rank,
    )


def _metadata(base: Path) -> Mapping[str, Scalar | None]:
    try:
        return read_head(base).metadata
    except (OSError, BrokenHead):
        return {}


def _text(metadata: Mapping[str, Scalar | None], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _on_hub(reference: str) -> tuple[str | None, str | None]:
    """(OWNER/REPO, file in it) of a base model that was named `hub:OWNER/REPO[/FILE][@REVISION]`."""
    kind, _, rest = reference.partition(":")
    parts = rest.partition("@")[0].split("/")
    if kind != "hub" or len(parts) < 2:
        return None, None
    return "/".join(parts[:2]), "/".join(parts[2:]) or None
