"""Whether what an answer says stands in the passages that it cites, and whether it cites the right ones.

In: a skill, an example, an answer, the passages that its prompt showed. Out: a `Grounding`. Decoding lets a model name
only documents that were shown, so that naming one is no achievement: words and numbers are compared instead. A content
word or number counts as supported where it stands in a cited passage, to the letter but for capitals; what the request
says already counts neither way, and what the schema enumerates is a label that states nothing
(`intern/learning/claims.py`). A right answer may use other words: what the expected output has by the same measure is
told beside it. That a sentence says the opposite with the same words is not seen. Knows no rivals and no models.

Words are those of the text metric, of four letters and more: no list of function words, so that every language is
measured alike, and a number is a word like others. What a teacher writes is held to more (`teaching/grounding.py`):
there one made-up number spoils an example, here it is one word of an answer that is laid beside other systems' answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from intern.learning.claims import claims, is_content
from intern.learning.judging.metrics import normal_form, words
from intern.skill import Skill
from intern.types import Example, Json, Model, Passage

_LETTERS = 4  # of a content word
_DIGIT = re.compile(r"\d")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class Grounding(Model):
    """Shares between 0 and 1; None where there is nothing to measure.

    `support`: of the answer's content words and numbers, those that stand in the passages it cites. `expected`: the
    same of the expected output and what that cites. `sources`: F1 of the documents cited against those expected.
    """

    support: float | None = None
    expected: float | None = None
    sources: float | None = None


def grounding(skill: Skill, example: Example, output: Json, passages: Sequence[Passage] | None) -> Grounding:
    """How one answer is grounded. `passages` are those in its prompt; None for a system whose prompts nobody knows.

    A skill without a field for citations is held to every passage that was shown. An answer that says no as the skill
    declares it states nothing; one that states something and cites nothing where a source is expected has no support.
    """
    field = skill.spec.retrieval.citations
    right = _cited(example.output, field)
    found = Grounding(sources=_f1(right, _cited(output, field)) if right else None)
    if passages is None or not skill.spec.retrieval.enabled:
        return found
    needed = bool(right)
    return found.model_copy(
        update={
            "support": _of(skill, output, example.text, passages, unfounded=0.0 if needed else None),
            "expected": _of(skill, example.output, example.text, passages, unfounded=None),
        }
    )


def support(said: Iterable[str], passages: Iterable[str], request: str = "") -> float | None:
    """Share of the content words and numbers in `said` that stand in `passages`; None where there is none to look for.

    Each counts once, and what stands in the `request` not at all.
    """
    known = _content([request])
    stated = _content(said) - known
    return len(stated & _content(passages)) / len(stated) if stated else None


def _of(
    skill: Skill, output: Json, request: str, passages: Sequence[Passage], *, unfounded: float | None
) -> float | None:
    """Support of one output; `unfounded` where it states something and no passage that was shown is cited for it."""
    field = skill.spec.retrieval.citations
    if _declines(skill, output):
        return None
    said = _stated(skill, output)
    if not _content(said):
        return None
    cited = _cited(output, field)
    shown = [f"{p.heading}\n{p.text}" for p in passages if field is None or p.document in cited]
    return support(said, shown, request) if shown else unfounded


def _declines(skill: Skill, output: Json) -> bool:
    refusal = skill.spec.learning.refusal
    if not refusal or not isinstance(output, Mapping):
        return False
    return all(normal_form(output.get(name)) == normal_form(value) for name, value in refusal.items())


def _cited(output: Json, field: str | None) -> set[str]:
    named = output.get(field) if field is not None and isinstance(output, Mapping) else None
    return {str(name) for name in named} if isinstance(named, list | tuple) else set()


def _f1(right: set[str], given: set[str]) -> float:
    return 2 * len(right & given) / (len(right) + len(given))


def _stated(skill: Skill, output: Json) -> list[str]:
    """The texts and numbers of an output that state something; a broken answer states nothing."""
    if skill.schema is None:
        return [output] if isinstance(output, str) else []
    if not isinstance(output, Mapping):
        return []
    citations = skill.spec.retrieval.citations
    return list(claims({name: value for name, value in output.items() if name != citations}, skill.schema))


def _content(texts: Iterable[str]) -> set[str]:
    """Content words and numbers; 1,500 and 1500 are one number."""
    found = {part for text in texts for word in words(text) for part in _THOUSANDS.sub("", word).split("-")}
    return {part for part in found if is_content(part, _LETTERS) or _DIGIT.search(part)}
