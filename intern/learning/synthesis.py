"""Examples written from a skill's documents by a teacher model, and the filters that they must pass.

In: passages, a teacher engine, the examples that there are. Out: examples tied to their passage, and the refused ones
with the reason. A teacher invents: what it writes counts only if it quotes its passage, says nothing that is not there
(`teaching/grounding.py`), asks what retrieval answers with that passage again (round-trip consistency, Alberti et al.,
arXiv 1906.05416), repeats nothing, and neither a document nor a value of the first enumerated field has more than its
share. What was read is kept in a file, passage by passage, so that nothing is asked twice after an interruption.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from pathlib import Path

from intern.engines.base import Engine
from intern.errors import InternError
from intern.learning.claims import claims
from intern.learning.examples.duplicates import find_copies, words
from intern.learning.examples.readiness import enumerated
from intern.learning.examples.rows import Retrieves, conversation_of
from intern.learning.judging.evaluate import generate
from intern.learning.settled import settled
from intern.learning.teaching import grounding
from intern.learning.teaching.asking import Formless, pairs_of, request_for
from intern.learning.teaching.reading import Reading, Readings
from intern.learning.teaching.reading import Refused as Refused
from intern.skill import Skill
from intern.store.records import has_nul
from intern.types import Example, Json, Model, Passage

NEAR = 0.7  # word Jaccard from which two requests are copies
DEAD = 3  # passages in a row without an answer, after which the teacher is not asked any more
MUTE = 10  # the same for answers in another form than asked for: a weak teacher may have a bad stretch
_QUOTED = 4  # least words of a quote
_ASKING = ("?", "\uff1f", "\u061f")  # question marks: Latin, of full width, Arabic


class Synthesized(Model):
    examples: tuple[Example, ...]
    refused: tuple[Refused, ...]
    passages: int  # read, also by an earlier life of the run
    failed: int = 0  # passages at which the teacher failed
    ended: str | None = None  # why it was given up before the last passage; what it had written counts


class Synthesis:
    """One skill's documents before a teacher. `file`: where what was read is kept, and found again."""

    def __init__(
        self,
        skill: Skill,
        teacher: Engine,
        retrieve: Retrieves,
        *,
        existing: Sequence[Example] = (),
        file: Path | None = None,
    ) -> None:
        self._skill = skill
        self._teacher = teacher
        self._retrieve = retrieve
        self._existing = existing
        self._readings = Readings(file)
        self._refused: list[Refused] = []

    async def write(
        self,
        passages: Sequence[Passage],
        *,
        most: int = 0,
        tell: Callable[[int, int, int], Awaitable[None]] | None = None,
    ) -> Synthesized:
        """Examples from `passages`, in an order that visits every document early, until there are `most` (0: no limit).

        `tell` gets (passages read, passages, examples so far). A teacher that fails at DEAD passages in a row, or gives
        MUTE answers in a row without the form, is asked no more, and neither is one whose answers cannot be kept any
        more. Raises its error when it has answered at none of the passages till then, or of the first DEAD;
        StoreFailure when not even the first answer can be kept.
        """
        ordered = by_turns(passages)
        known = await settled(self._readings.known)
        again: set[str] = set()  # ids of examples that an earlier life of the run found
        found: list[Example] = []
        failures: list[InternError] = []  # since the last answer
        failed = answered = 0
        ended: str | None = None
        for place, passage in enumerate(ordered, 1):
            if (read := known.get(passage.id)) is not None:
                again |= {example.id for example in read.examples}
            else:
                try:
                    written = await self._asked(passage)
                except InternError as error:
                    failed += 1
                    failures.append(error)
                    if not answered and len(failures) >= min(DEAD, len(ordered)):
                        raise
                    if _given_up(failures):
                        break
                    continue
                try:
                    read = await self._looked_at(written, passage)
                except InternError as error:  # the disk is full, for one: what there is by now was paid for
                    if not answered:
                        raise
                    ended = error.message
                    break
                failures.clear()
            answered += 1
            found += [example for example in read.examples if self._form(example.output) is None]
            self._refused += read.refused
            if tell is not None:
                await tell(place, len(ordered), len(found))
            if most and len(found) >= 1.3 * most:  # some will prove to be copies
                break
        kept = self._balanced(self._new(found, again))
        return Synthesized(
            examples=tuple(kept[:most] if most else kept),
            refused=tuple(self._refused),
            passages=answered + failed,
            failed=failed,
            ended=ended or (failures[-1].message if _given_up(failures) else None),
        )

    async def _asked(self, passage: Passage) -> list[Mapping[str, Json]]:
        request = request_for(self._skill, passage, seed=int(_hash(passage.id)[:7], 16))
        return pairs_of((await generate(self._teacher, request)).text)

    async def _looked_at(self, written: Sequence[Mapping[str, Json]], passage: Passage) -> Reading:
        """Which of a passage's pairs count, kept in the file before anything else is asked."""
        examples, refused = [], []
        for pair in written:
            checked = await self._checked(pair, passage)
            if isinstance(checked, Example):
                examples.append(checked)
            else:
                refused.append(checked)
        read = Reading(passage=passage.id, examples=tuple(examples), refused=tuple(refused))
        await settled(self._readings.add, read)
        return read

    async def _checked(self, pair: Mapping[str, Json], passage: Passage) -> Example | Refused:
        """The pair as an example, or why it is none."""
        asked = pair.get("input")
        if not isinstance(asked, str) or len(asked.split()) < 3:
            return _refused(str(asked), "no_form", "the request is no sentence")
        if problem := self._problem(pair, asked, passage):
            return _refused(asked, *problem)
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
                return _refused(asked, "not_found", "retrieval does not find the passage with this request")
        return example

    def _problem(self, pair: Mapping[str, Json], asked: str, passage: Passage) -> tuple[str, str] | None:
        """(reason, detail) why the pair does not rest on its passage; None when it does."""
        output, quote = pair.get("output"), pair.get("quote")
        if has_nul(output) or has_nul(asked):
            return "no_form", "it holds a NUL character"
        if problem := self._form(output):
            return "no_form", problem
        if problem := self._unasked(asked, output, passage):
            return "no_request", problem
        if not isinstance(quote, str) or not words(quote) or _plain(quote) not in _plain(passage.text):
            return "no_quote", "its quote does not stand in the passage"
        if len(words(quote)) < min(_QUOTED, len(words(passage.text))):
            return "no_quote", f"its quote has fewer than {_QUOTED} words"
        schema, free = self._skill.schema, self._free()
        text = f"{passage.heading}\n{passage.text}"
        problem = grounding.problem(output, passage=text, quote=quote, asked=asked, schema=schema, free=free)
        if problem is not None:
            return "not_grounded", problem
        if grounding.unquoted(output, quote, schema, free):
            return "no_quote", "its quote says nothing of the output"
        return None

    def _unasked(self, asked: str, output: Json, passage: Passage) -> str | None:
        """Why nobody would ask that; None when somebody may. A weak teacher copies the passage instead of asking."""
        if asked.rstrip().endswith(_ASKING):  # a list of questions may well be a document
            return None
        request = words(asked)
        if any(words(claim) == request for claim in claims(output, self._skill.schema, self._free())):
            return "the output is the request again"
        if f" {' '.join(request)} " in f" {' '.join(words(passage.heading + ' ' + passage.text))} ":
            return "the request is a piece of the passage"
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

    def _new(self, found: Sequence[Example], again: set[str]) -> list[Example]:
        """Those that repeat neither an example that there is nor each other. What the run itself had added before it
        was interrupted (`again`) is no other example."""
        known = [example.text for example in self._existing if example.id not in again]
        copies = {index for index, _, _ in find_copies([*known, *(e.text for e in found)], NEAR)}
        kept = []
        for place, example in enumerate(found, len(known)):
            if place in copies:
                self._refused.append(_refused(example.text, "copy", "another example asks the same"))
            else:
                kept.append(example)
        return kept

    def _balanced(self, found: Sequence[Example]) -> list[Example]:
        """No document has more than twice an even share, and no value of the first field that can only have some."""
        documents = [example.group for example in found]
        kept = self._shared(found, documents, len(set(documents)))
        for path, values in enumerated(self._skill.schema).items():
            given = [json.dumps(_at(example.output, path)) for example in kept]
            if len(set(given)) > 1:  # nothing balances examples that all have the same
                kept = self._shared(kept, given, len(values), f"{'.'.join(path)} = ")
            break
        return kept

    def _shared(self, found: Sequence[Example], kinds: Sequence[Hashable], parts: int, what: str = "") -> list[Example]:
        """Those of each kind up to twice an even share of `parts`."""
        share = max(3, 2 * len(found) // max(parts, 1))
        counts: Counter[Hashable] = Counter()
        kept = []
        for example, kind in zip(found, kinds, strict=True):
            counts[kind] += 1
            if counts[kind] > share:
                self._refused.append(_refused(example.text, "share", f"{what}{kind} has {share} already"))
            else:
                kept.append(example)
        return kept


def by_turns(passages: Sequence[Passage]) -> list[Passage]:
    """Passages so that the documents take turns, each in its own order."""
    queues: dict[str, list[Passage]] = {}
    for passage in sorted(passages, key=lambda p: (p.document, p.start)):
        queues.setdefault(passage.document, []).append(passage)
    longest = max(map(len, queues.values()), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue)]


def _given_up(failures: Sequence[InternError]) -> bool:
    """Whether the failures since the last answer are so many that no further passage is worth asking."""
    silent = 0
    for failure in reversed(failures):
        if isinstance(failure, Formless):
            break
        silent += 1
    return silent >= DEAD or len(failures) >= MUTE


def _refused(asked: str, reason: str, detail: str) -> Refused:
    return Refused(input=asked[:300], reason=reason, detail=detail)


def _at(value: Json, path: Sequence[str]) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "replace")).hexdigest()
