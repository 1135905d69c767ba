"""What a report is made of beside the run and its verdict. Data only; `findings.py` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from intern.learning.judging.outcomes import Outcome
from intern.types import Dataset, Model


class Service(Model):
    """Where the run's adapter stands now. `going`: the run has not come to an end yet; `waits`: it never served, with
    `why` where it was to and could not; `served`: it did, and something else does now; `gone`: its skill was deleted.
    """

    state: Literal["going", "serves", "served", "waits", "gone"]
    why: str = ""


@dataclass(frozen=True)
class Kept:
    """What is left of a run beside its verdict. All but the title may be missing.

    `curves` are as an adapter's provenance keeps them (`manifest.Provenance`); `outcomes` are rival's name to its
    outcomes; `service` is where the run's adapter stands now.
    """

    skill_title: str
    dataset: Dataset | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    outcomes: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    service: Service | None = None
