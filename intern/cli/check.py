"""Reads skill folders as the server would, and also looks for what is allowed and yet weak.

In: a skill folder. Out: a `Report` with every problem (the skill would not load) and every warning (it loads, and would
route or learn badly). Reads files only; needs no server.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

from intern.errors import SkillInvalid
from intern.skill import Skill, read_skill
from intern.types import Message, Model

NEAR = 0.8  # word Jaccard above which two inputs are near-copies
FEW_EXAMPLES = 20
FEW_HELDOUT = 20
FEW_UTTERANCES = 10


class Report(Model):
    """What is wrong with one folder. `problems` and `warnings` begin with file and, where there is one, line."""

    name: str
    folder: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_folder(folder: Path) -> Report:
    """Read one skill folder."""
    folder = folder.resolve()
    try:
        skill = read_skill(folder)
    except SkillInvalid as error:
        return Report(name=folder.name, folder=str(folder), problems=tuple(error.problems))
    return Report(name=folder.name, folder=str(folder), warnings=tuple(_weak(skill)))


def _weak(skill: Skill) -> Iterator[str]:
    examples = skill.examples
    heldout = sum(example.split == "heldout" for example in examples)
    if len(examples) < FEW_EXAMPLES:
        yield f"examples.jsonl: {len(examples)} examples; {FEW_EXAMPLES} and more make routing and learning sure"
    elif heldout < FEW_HELDOUT:
        yield f"examples.jsonl: {heldout} held out; with {FEW_HELDOUT} and more an adapter can be judged"
    if not skill.utterances and len(examples) < FEW_UTTERANCES:
        yield "utterances.txt: no utterances: the router has little more than the description to go by"
    if skill.spec.retrieval.enabled and not (skill.docs.is_dir() and any(skill.docs.iterdir())):
        yield "docs/: empty, and retrieval is enabled: bring documents with `intern ingest`, or disable it"
    lines = _lines(skill)
    texts = [_words(example.input) for example in examples]
    for first, second, overlap in near_copies(texts):
        splits = {examples[first].split or "train", examples[second].split or "train"}
        leak = "; one is held out, so its result would be known" if len(splits) > 1 else ""
        yield f"examples.jsonl:{lines[second]}: nearly the same as line {lines[first]} (Jaccard {overlap:.2f}){leak}"


def _lines(skill: Skill) -> list[int]:
    """The line of each example."""
    path = skill.folder / "examples.jsonl"
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    return [number for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _words(value: str | Sequence[Message]) -> frozenset[str]:
    text = value if isinstance(value, str) else " ".join(message.content for message in value)
    return frozenset(re.findall(r"\w+", text.lower()))


def near_copies(texts: Sequence[frozenset[str]]) -> list[tuple[int, int, float]]:
    """(first, second, Jaccard) of each pair of word sets more alike than NEAR, in order.

    Exact, by prefix filtering (Chaudhuri, Ganti and Kaushik, ICDE 2006): two sets can only be that alike when they
    share one of their rarest words, so only those are looked up.
    """
    counts = Counter(word for words in texts for word in words)
    by_word: dict[str, list[int]] = defaultdict(list)
    found: list[tuple[int, int, float]] = []
    for second, words in enumerate(texts):
        rarest = sorted(words, key=lambda word: (counts[word], word))[: len(words) - ceil(NEAR * len(words)) + 1]
        for first in sorted({number for word in rarest for number in by_word[word]}):
            overlap = len(words & texts[first]) / len(words | texts[first])
            if overlap > NEAR:
                found.append((first, second, overlap))
        for word in rarest:
            by_word[word].append(second)
    return found
