"""What routing is fitted on: skills' texts and judgements in, numbered rows and a content hash out. Knows no
vectors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from intern.routing.index import Ints
from intern.types import Model

Judgement = tuple[str | None, str | None, str]  # skill, not_skill, text: see Router.learn

GENERAL = tuple(
    line
    for line in Path(__file__).with_name("out_of_scope.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
)


class SkillTexts(Model):
    """What routing knows of a skill: `utterances` are its folder's utterances and example inputs, and texts that
    reviews gave to it. Order does not matter; repeats and blanks count once or not at all."""

    skill: str
    title: str = ""
    description: str = ""
    utterances: tuple[str, ...] = ()


class Material:
    """Everything one fit learns from, in an order that does not depend on how it was given.

    `texts` has the examples first, then the judged texts. `owners` numbers the skill of each example row;
    `is_utterance` is False for the rows that hold a skill's title and description, which take part in the nearest
    examples but are no requests to train on. `verdicts` are (row, skill it is wrong for, or None: for all of them);
    `outside_rows` are the latter's rows.
    """

    def __init__(
        self, skills: Sequence[SkillTexts], out_of_scope: Sequence[str], wrong: Sequence[tuple[str, str]], longest: int
    ) -> None:
        given = sorted(skills, key=lambda s: s.skill)
        self.names: tuple[str, ...] = tuple(s.skill for s in given)
        if len(set(self.names)) != len(self.names):
            raise ValueError("A skill was given twice.")
        examples: list[tuple[int, str, bool]] = []
        for number, skill in enumerate(given):
            utterances = {beginning(text, longest) for text in skill.utterances} - {""}
            examples += [(number, text, True) for text in sorted(utterances)]
            about = beginning(
                ". ".join(part.strip() for part in (skill.title, skill.description) if part.strip()), longest
            )
            if about and about not in utterances:
                examples.append((number, about, False))
        nowhere = sorted({beginning(text, longest) for text in out_of_scope} - {""})
        apart = sorted({(beginning(text, longest), skill) for text, skill in wrong if text.strip()})
        count = len(examples)
        self.owners: Ints = np.asarray([number for number, _, _ in examples], dtype=np.int32)
        self.is_utterance: npt.NDArray[np.bool_] = np.asarray([plain for _, _, plain in examples], dtype=bool)
        self.texts = [text for _, text, _ in examples] + nowhere + [text for text, _ in apart]
        self.outside_rows = np.arange(count, count + len(nowhere))
        self.verdicts: list[tuple[int, str | None]] = [(count + n, None) for n in range(len(nowhere))]
        self.verdicts += [(count + len(nowhere) + n, skill) for n, (_, skill) in enumerate(apart)]
        self._contents = [self.names, examples, nowhere, apart]

    def key(self, version: str) -> str:
        """A hash of all of it and of the general out-of-scope requests; `version` stands for the code that learns
        from it."""
        body = json.dumps([version, self._contents, GENERAL])
        return hashlib.sha256(body.encode()).hexdigest()


def standing(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Of (skill, not_skill, text), oldest first, those that a later judgement of the same text has not overruled.

    The last one that says where a text belongs overrules every earlier place of it, and every earlier word that it does
    not belong there; one that only says where it does not belong overrules those that had put it there.
    """
    kept: list[Judgement] = []
    places: dict[str, str | None] = {}  # by text: where it belongs at last
    barred: dict[str, set[str]] = {}  # by text: where a later judgement says that it does not belong
    for skill, not_skill, text in reversed(judgements):
        words = bare_words(text)
        if skill is None and not_skill is not None:
            if places.get(words) == not_skill:
                continue
            barred.setdefault(words, set()).add(not_skill)
        elif words in places or skill in barred.get(words, ()):
            continue
        else:
            places[words] = skill
        kept.append((skill, not_skill, text))
    return kept[::-1]


def bare_words(text: str) -> str:
    """The text without capitals and punctuation, where that leaves anything."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def beginning(text: str, longest: int) -> str:
    """The text with its white space made single blanks, cut to `longest` characters."""
    return " ".join(text[: 4 * longest].split())[:longest]
