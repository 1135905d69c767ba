"""Examples written from a skill's documents by a teacher model, and the filters that they must pass.

In: passages, a teacher engine, the examples that there are. Out: examples tied to their passage, and the refused ones
with the reason. A teacher invents: what it writes counts only if it quotes its passage, says nothing that is not there,
asks what retrieval answers with that passage again (round-trip consistency, Alberti et al., arXiv 1906.05416), repeats
nothing, and no document has more than its share.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from intern.engines.base import Engine, EngineRequest
from intern.errors import EngineFailure, InternError
from intern.learning.examples.duplicates import find_copies
from intern.learning.examples.rows import Retrieves, conversation_of
from intern.learning.judging.evaluate import generate
from intern.prompt import show
from intern.schema import OutputSchema, parse_json
from intern.skill import Skill
from intern.store.records import has_nul
from intern.types import Example, Json, Message, Model, Passage, Sampling

A_PASSAGE = 3  # pairs asked of one passage
GROUNDED = 0.6  # least share of an answer's content words that stand in its passage or request
NEAR = 0.7  # word Jaccard from which two requests are copies
_TOKENS = 1_000
_WORD = re.compile(r"\w+")
_LEAST = 3  # letters of a content word

_TASK = """You write training examples for an assistant. Its instructions:
---
{instructions}
---
Below is one passage of the documents that it answers from. Write {count} requests that different people could really
send and that this passage answers, each worded in its own way, without naming the passage. For each give the output
that the assistant must give, exactly in its form, and a quote: the words of the passage, copied letter by letter, that
the output rests on. Use nothing but the passage. Answer with JSON: {{"examples": [{{"input", "output", "quote"}}]}}."""


class Refused(Model):
    """A pair that the teacher wrote and that does not count."""

    input: str
    reason: str  # no_form, no_quote, not_grounded, not_found, copy, share
    detail: str = ""


class Synthesized(Model):
    examples: tuple[Example, ...]
    refused: tuple[Refused, ...]
    passages: int
    failed: int = 0  # passages at which the teacher failed


class Synthesis:
    """One skill's documents before a teacher."""

    def __init__(self, skill: Skill, teacher: Engine, retrieve: Retrieves, *, existing: Sequence[Example] = ()) -> None:
        self._skill = skill
        self._teacher = teacher
        self._retrieve = retrieve
        self._existing = existing
        self._refused: list[Refused] = []

    async def write(
        self,
        passages: Sequence[Passage],
        *,
        most: int = 0,
        tell: Callable[[int, int, int], Awaitable[None]] | None = None,
    ) -> Synthesized:
        """Examples from `passages`, in an order that visits every document early, until there are `most` (0: no limit).

        `tell` gets (passages read, passages, examples so far). Raises the engine's error when the teacher fails at
        each of the first three passages; a single failure is counted.
        """
        ordered = by_turns(passages)
        found: list[Example] = []
        failed = read = 0
        for read, passage in enumerate(ordered, 1):
            try:
                written = await self._asked(passage)
            except InternError:
                failed += 1
                if failed == read >= min(3, len(ordered)):
                    raise
                continue
            found += [example for pair in written if (example := await self._checked(pair, passage)) is not None]
            if tell is not None:
                await tell(read, len(ordered), len(found))
            if most and len(found) >= 1.3 * most:  # some will prove to be copies
                break
        kept = self._balanced(self._new(found))
        return Synthesized(
            examples=tuple(kept[:most] if most else kept), refused=tuple(self._refused), passages=read, failed=failed
        )

    async def _asked(self, passage: Passage) -> list[Mapping[str, Json]]:
        task = _TASK.format(instructions=self._skill.spec.instructions.strip(), count=A_PASSAGE)
        request = EngineRequest(
            messages=(Message(role="system", content=task), Message(role="user", content=show(passage))),
            sampling=Sampling(temperature=0.7, max_tokens=_TOKENS, seed=int(_hash(passage.id)[:7], 16)),
            schema_=_pairs_schema(self._skill.schema),
        )
        text = (await generate(self._teacher, request)).text
        value, problems = parse_json(text)
        pairs = value.get("examples") if isinstance(value, dict) else None
        if problems or not isinstance(pairs, list):
            raise EngineFailure("The teacher did not answer in the form that it was asked for.")
        return [pair for pair in pairs if isinstance(pair, dict)]

    async def _checked(self, pair: Mapping[str, Json], passage: Passage) -> Example | None:
        """The pair as an example, or None with the reason noted."""
        asked = pair.get("input")
        if not isinstance(asked, str) or len(asked.split()) < 3:
            self._refuse(str(asked), "no_form", "the request is no sentence")
            return None
        if problem := self._problem(pair, asked, passage):
            self._refuse(asked, *problem)
            return None
        example = Example(
            id=f"syn-{_hash(passage.id, asked)[:16]}",
            input=asked.strip(),
            output=self._with_citation(pair["output"], passage),
            group=passage.document,
            provenance="synthesis",
            contributor="synthesis",
            passage=passage.id,
        )
        if self._skill.spec.retrieval.enabled:
            shown = await self._retrieve(self._skill, conversation_of(example))
            if passage.id not in {p.id for p in shown}:
                self._refuse(asked, "not_found", "retrieval does not find the passage with this request")
                return None
        return example

    def _problem(self, pair: Mapping[str, Json], asked: str, passage: Passage) -> tuple[str, str] | None:
        """(reason, detail) why the pair does not rest on its passage; None when it does."""
        output, quote = pair.get("output"), pair.get("quote")
        if has_nul(output) or has_nul(asked):
            return "no_form", "it holds a NUL character"
        if problem := self._form(output):
            return "no_form", problem
        if not isinstance(quote, str) or len(quote) < 8 or _plain(quote) not in _plain(passage.text):
            return "no_quote", "its quote does not stand in the passage"
        if (share := grounded(output, f"{passage.text} {passage.heading} {asked}", self._free())) < GROUNDED:
            return "not_grounded", f"only {share:.0%} of its words stand in the passage"
        return None

    def _form(self, output: Json) -> str | None:
        if self._skill.schema is None:
            return None if isinstance(output, str) and output.strip() else "the output is no text"
        problems = self._skill.schema.problems(output)
        return problems[0] if problems else None

    def _free(self) -> frozenset[str]:
        """Fields whose values need not stand in a passage: citations."""
        field = self._skill.spec.retrieval.citations
        return frozenset({field} if field else ())

    def _with_citation(self, output: Json, passage: Passage) -> Json:
        field = self._skill.spec.retrieval.citations
        return (
            {**output, field: [passage.document]}
            if field and isinstance(output, dict) and output.get(field)
            else output
        )

    def _new(self, found: Sequence[Example]) -> list[Example]:
        """Those that repeat neither an example that there is nor each other."""
        known = [example.text for example in self._existing]
        copies = {index for index, _, _ in find_copies([*known, *(e.text for e in found)], NEAR)}
        kept = []
        for place, example in enumerate(found, len(known)):
            if place in copies:
                self._refuse(example.text, "copy", "another example asks the same")
            else:
                kept.append(example)
        return kept

    def _balanced(self, found: Sequence[Example]) -> list[Example]:
        """No document has more than twice an even share."""
        documents = {example.group for example in found}
        share = max(3, 2 * len(found) // max(len(documents), 1))
        counts: Counter[str | None] = Counter()
        kept = []
        for example in found:
            counts[example.group] += 1
            if counts[example.group] > share:
                self._refuse(example.text, "share", f"{example.group} has {share} already")
            else:
                kept.append(example)
        return kept

    def _refuse(self, asked: str, reason: str, detail: str) -> None:
        self._refused.append(Refused(input=asked[:300], reason=reason, detail=detail))


def by_turns(passages: Sequence[Passage]) -> list[Passage]:
    """Passages so that the documents take turns, each in its own order."""
    queues: dict[str, list[Passage]] = {}
    for passage in sorted(passages, key=lambda p: (p.document, p.start)):
        queues.setdefault(passage.document, []).append(passage)
    longest = max(map(len, queues.values()), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue)]


def grounded(output: Json, source: str, free: frozenset[str] = frozenset()) -> float:
    """Share of the content words in an output's texts that stand in `source`; numbers must, else it is 0."""
    texts = _texts(output, free)
    words = [word for text in texts for word in _WORD.findall(text.casefold())]
    there = set(_WORD.findall(source.casefold()))
    if any(word not in there for word in words if word.isdecimal()):
        return 0.0
    content = [word for word in words if len(word) >= _LEAST and not word.isdecimal()]
    return sum(word in there for word in content) / len(content) if content else 1.0


def _texts(value: Json, free: frozenset[str]) -> list[str]:
    """Texts of several words: a single one is a label, not a statement."""
    if isinstance(value, str):
        return [value] if len(value.split()) > 1 else []
    if isinstance(value, dict):
        return [text for name, item in value.items() if name not in free for text in _texts(item, free)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, free)]
    return []


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "replace")).hexdigest()


def _pairs_schema(schema: OutputSchema | None) -> dict[str, Json]:
    output: Json = {"type": "string"} if schema is None else {k: v for k, v in schema.schema.items() if k != "$schema"}
    definitions = output.pop("$defs", None) if isinstance(output, dict) else None
    pair = {
        "type": "object",
        "additionalProperties": False,
        "required": ["input", "quote", "output"],
        "properties": {"input": {"type": "string"}, "quote": {"type": "string"}, "output": output},
    }
    whole: dict[str, Json] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["examples"],
        "properties": {"examples": {"type": "array", "minItems": 1, "maxItems": A_PASSAGE, "items": pair}},
    }
    return whole if definitions is None else {**whole, "$defs": definitions}
