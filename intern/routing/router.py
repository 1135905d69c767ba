"""The router: a request in, a Route out: the skill that serves it with calibrated confidence, or abstention.

In, when fitting: each skill's texts, texts that belong nowhere, and texts judged wrong for a skill. A request is
compared with all of them (index.py) and scored by a trained linear head (head.py); calibrate.py turns both into one
probability and a threshold. Blocking throughout: call it off the event loop. It knows no store, no tasks and no skill
folders, and decides nothing but the route.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from intern.models.embedder import Embedder, Vectors
from intern.routing.cache import Cache
from intern.routing.calibrate import BUILT_IN, Calibration, calibrate
from intern.routing.head import Head, train
from intern.routing.index import ExampleIndex, Ints
from intern.routing.state import Learned, State, abstained
from intern.routing.texts import GENERAL, Material, SkillTexts, beginning
from intern.types import Route

# Part of the key of what is kept on disk: raise it whenever training or calibration change.
_VERSION = "3"
_GENERAL_TEAM = "\0general"  # cannot be a team's name
_CHARACTERS_A_TOKEN = 8  # bounds the beginning of a text that is embedded, and kept when it is learned
_RESEMBLES = 0.6  # a general out-of-scope request this similar to a skill's text may well be in scope there

__all__ = ["Router", "SkillTexts"]


class Router:
    """Routes requests of any number of teams. Every method blocks and is thread-safe.

    `cache` keeps vectors and trained heads between starts (None: nowhere). `refuse_rate` is the share of in-scope
    requests that may be refused to keep out-of-scope ones out; 0 never abstains for lack of confidence.
    """

    def __init__(self, embedder: Embedder, *, cache: Path | None, refuse_rate: float = 0.04) -> None:
        self._embedder = embedder
        self._cache = Cache(cache, embedder)
        self._refuse_rate = refuse_rate
        self._states: dict[str, State] = {}
        self._swap = threading.Lock()  # held for moments: while a state is replaced
        self._training = threading.Lock()  # held while fitting: one team at a time is enough for the cores

    @cached_property
    def _general(self) -> Vectors:
        return self._cache.vectors(_GENERAL_TEAM, GENERAL, {})

    def embed(self, text: str) -> Vectors:
        """The request's vector, (dimension,), for `route` and for retrieval alike. Of a longer text the beginning
        counts, as far as the embedder reads: in mails the request stands there, history and signatures behind it."""
        vector: Vectors = self._embedder.embed([beginning(text, self._longest)])[0]
        return vector

    def fit(
        self,
        team: str,
        skills: Sequence[SkillTexts],
        *,
        out_of_scope: Sequence[str] = (),
        wrong: Sequence[tuple[str, str]] = (),
        known: int | None = None,
    ) -> None:
        """Learn the team's skills anew from everything that is known; replaces what was fitted or learned before
        the call; of what was learned the first `known` (see `learned`), so that a judgement that came in while the
        caller gathered its texts stays in use.

        `out_of_scope` are texts that belong to no skill, `wrong` are (text, skill) pairs that do not belong together.
        New skills and texts serve from their nearest examples as soon as they are embedded (about 1,000 short texts
        or 100 long ones a second on two cores); the head follows when it is trained: a second or two for a thousand
        texts, half a minute for 15,000. Requests meanwhile see the old state, then the quick one, then the full one,
        each whole. Raises ValueError when a skill is given twice.
        """
        with self._training:
            before = self._states.get(team)
            seen = len(before.learned) if before else 0
            seen = seen if known is None else min(seen, known)
            material = Material(skills, out_of_scope, wrong, self._longest)
            key = material.key(f"{_VERSION} {self._embedder.id}")
            if before and before.complete and before.key == key:
                self._replace(team, before, seen)
                return
            vectors = self._cache.vectors(team, material.texts, before.vectors_by_text() if before else {})
            examples = vectors[: len(material.owners)]
            outside = self._outside(examples, vectors[material.outside_rows])
            trained = self._cache.trained(team, key)
            if trained is None:
                self._replace(team, _state(material, key, vectors, outside, *_quick(before, material)), seen)
                seen = 0
                trained = self._train(material, examples, outside)
                self._cache.keep(team, key, *trained)
            self._replace(team, _state(material, key, vectors, outside, *trained, complete=True), seen)

    def learn(self, team: str, text: str, *, skill: str | None, not_skill: str | None = None) -> None:
        """Use a person's judgement from the next request on: `text` belongs to `skill` (None with `not_skill` None:
        to no skill at all; None otherwise: unknown), and not to `not_skill`. The head learns it with the next
        `fit`, which must be given it among its texts. Blank texts are ignored."""
        kept = beginning(text, self._longest)
        if not kept:
            return
        item = Learned(kept, self.embed(kept), skill, not_skill)
        with self._swap:
            state = self._states.get(team) or _empty(self._embedder.dimension, self._longest)
            self._states[team] = replace(state, learned=(*state.learned, item))

    def learned(self, team: str) -> int:
        """How many judgements are in use that no `fit` was given yet."""
        state = self._states.get(team)
        return len(state.learned) if state else 0

    def skills(self, team: str) -> tuple[str, ...]:
        """Names of the skills that the team's requests can be routed to now."""
        state = self._states.get(team)
        return state.skills if state else ()

    def route(
        self, team: str, text: str, *, vector: Vectors | None = None, among: Collection[str] | None = None
    ) -> Route:
        """Which skill serves `text`. `vector` is what `embed` gave for it, if it is there already; `among` are the
        skills that this caller may use. Abstains, with the reason, when nothing fits well enough, and on blank text."""
        if not text.strip():
            return abstained("The request is empty.")
        state = self._states.get(team)
        if state is None or not state.skills:
            return abstained("There is no skill yet that could take requests.")
        return state.route(
            beginning(text, self._longest),
            self.embed(text) if vector is None else vector,
            refuse_rate=self._refuse_rate,
            among=among,
        )

    @property
    def _longest(self) -> int:
        return self._embedder.max_tokens * _CHARACTERS_A_TOKEN

    def _replace(self, team: str, state: State, seen: int) -> None:
        """Swap the team's state in, keeping what was learned since the fit began: its caller cannot have known it."""
        with self._swap:
            now = self._states.get(team)
            self._states[team] = replace(state, learned=now.learned[seen:] if now else ())

    def _outside(self, examples: Vectors, judged: Vectors) -> Vectors:
        """Out-of-scope requests: the general ones, less those that resemble this team's own work, and the judged
        ones."""
        nearest = np.full(len(self._general), -1.0, dtype=np.float32)
        for start in range(0, len(examples), 4096):
            nearest = np.maximum(nearest, (self._general @ examples[start : start + 4096].T).max(axis=1))
        return np.concatenate([self._general[nearest < _RESEMBLES], judged])

    def _train(self, material: Material, examples: Vectors, outside: Vectors) -> tuple[Head | None, Ints, Calibration]:
        """The head, each row's cell in the index, and the calibration, from the utterances alone."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        plain, owners = material.is_utterance, material.owners
        # One thread for the linear algebra: beside a language model that uses every core, waiting for a second one
        # takes ten times as long as doing without it.
        with threadpool_limits(limits=1, user_api="blas"):
            head, cells = train(examples[plain], owners[plain], outside)
            calibration = calibrate(examples[plain], owners[plain], len(material.names), outside)
        every = owners + (int(cells.max()) + 1 if len(cells) else 0)
        every[plain] = cells
        return head, every, calibration


def _quick(before: State | None, material: Material) -> tuple[Head | None, Ints, Calibration]:
    """What serves until the new head is trained: the old head, for the skills that are still there."""
    numbers = {name: number for number, name in enumerate(material.names)}
    head = None
    if before is not None and before.head is not None:
        head = before.head.without({old: numbers[name] for old, name in enumerate(before.skills) if name in numbers})
    return head, material.owners, before.calibration if before is not None and head is not None else BUILT_IN


def _state(
    material: Material,
    key: str,
    vectors: Vectors,
    outside: Vectors,
    head: Head | None,
    cells: Ints,
    calibration: Calibration,
    *,
    complete: bool = False,
) -> State:
    index = ExampleIndex(vectors[: len(material.owners)], material.owners, cells, len(material.names))
    return State(
        key=key,
        skills=material.names,
        texts=tuple(material.texts[int(row)] for row in index.order),
        index=index,
        outside=outside,
        head=head,
        calibration=calibration,
        judged=tuple(Learned(material.texts[row], vectors[row], None, skill) for row, skill in material.verdicts),
        complete=complete,
    )


def _empty(dimension: int, longest: int) -> State:
    nothing = np.zeros((0, dimension), dtype=np.float32)
    return _state(Material((), (), (), longest), "", nothing, nothing, None, np.zeros(0, np.int32), BUILT_IN)
