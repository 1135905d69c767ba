"""Whether a dataset is worth training on, and if not, what is missing, in sentences with numbers.

In: a dataset before it is stored, the skill's schema. Out: a `Readiness`. Decides nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from intern.learning.examples.items import Built, canonical
from intern.learning.examples.splitting import HELDOUT_GROUPS
from intern.schema import MAX_NODES, OutputSchema, followed
from intern.types import Json, Model

ENOUGH = 100  # examples of which HELDOUT_GROUPS are drawn nearly for sure, where none is named


class Readiness(Model):
    """Whether a dataset is worth training on; `missing` says what is not there yet, `notes` what to know anyway."""

    ready: bool
    train: int
    heldout: int
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, int] = {}


def readiness(built: Built, schema: OutputSchema | None, *, min_examples: int) -> Readiness:
    """What is missing before training makes sense, in sentences with numbers. `min_examples` counts all that a dataset
    has, those that it holds out too: whoever brings examples brings both, and does not choose."""
    missing, notes = [], list(built.notes)
    train = [row.example for row in built.train]
    usable = len(train) + len(built.heldout)
    if usable < min_examples:
        missing.append(f"{usable} examples, {min_examples} needed.")
    elif not train:
        missing.append(f"All {usable} examples are held out: there is none to train on.")
    outputs = {canonical(example.output) for example in train}
    if len(train) > 1 and len(outputs) == 1:
        missing.append("Every example has the same output: there is nothing to learn from them.")
    if len(built.heldout) < HELDOUT_GROUPS:
        notes.append(
            f"{len(built.heldout)} held-out examples; under {HELDOUT_GROUPS} no adapter can be proved better. Of about "
            f'{ENOUGH} so many are held out by themselves; those with "split": "heldout" always are.'
        )
    for path, values in enumerated(schema).items():
        seen = Counter(str(_at(example.output, path)) for example in train)
        never = [value for value in values if not seen[str(value)]]
        if never:
            notes.append(f"`{'.'.join(path)}` never has the value{'s' * (len(never) > 1)} {_listed(never)}.")
    reasons = Counter(row.reason for row in built.dropped)
    if reasons["contradiction"]:
        notes.append(f"{reasons['contradiction']} examples contradict others and are left out.")
    return Readiness(
        ready=not missing,
        train=len(train),
        heldout=len(built.heldout),
        missing=tuple(missing),
        notes=tuple(notes),
        dropped=dict(reasons),
    )


def enumerated(schema: OutputSchema | None) -> dict[tuple[str, ...], list[Json]]:
    """Fields of the output, by path, that can only have a few values."""
    found: dict[tuple[str, ...], list[Json]] = {}
    if schema is None:
        return found
    waiting: list[tuple[Json, tuple[str, ...], frozenset[str]]] = [(schema.schema, (), frozenset())]
    for _ in range(MAX_NODES):  # parts that many others refer to are at as many places, and at more below them
        if not waiting:
            break
        part, path, above = waiting.pop()
        opened = set(above)  # an object that has itself as a part is looked into once
        node = followed(part, schema.schema, opened)
        if path and isinstance(node.get("enum"), list) and len(node["enum"]) <= 50:
            found[path] = node["enum"]
        elif path and node.get("type") == "boolean":
            found[path] = [True, False]
        below = [(child, (*path, name), frozenset(opened)) for name, child in (node.get("properties") or {}).items()]
        waiting += below[::-1]
    return found


def _at(value: Json, path: Sequence[str]) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _listed(values: Sequence[Json]) -> str:
    names = [f"`{json.dumps(value, ensure_ascii=False).strip(chr(34))}`" for value in values[:5]]
    return ", ".join(names) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
