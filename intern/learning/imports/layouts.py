"""What a file's columns are: recognised by name and shape, otherwise guessed, and said as a `Mapping`.

In: column names, a sample of rows, the skill's schema. Out: a mapping; its `layout` says what was recognised, and
everything but the project's own layout is for a person to look at before it is used. Raises InvalidInput that lists the
columns when nothing can be told. Knows nothing of files, and changes no row.

Recognised: the project's own (input, output), OpenAI's chat (messages), ShareGPT (conversations), Alpaca (instruction,
input, output), Dolly (instruction, context, response), prompt and completion, question and answer, text and label. For
a skill with a schema, columns that are like its fields in name and content become the output, one field each.

A column of short texts with a name for people may be who wrote the requests, or the requests: who wrote them is guessed
last, from the columns that are left.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Mapping as Map
from contextlib import suppress
from functools import partial
from typing import Any

from intern.errors import InvalidInput
from intern.learning.fields import Place, leaves, top
from intern.learning.imports.coercion import coerce, is_boolean_word
from intern.learning.imports.conversation import looks_like_turns, split_conversation
from intern.learning.imports.importing import SPLITS
from intern.learning.imports.mapping import OWN, OWN_COLUMNS, Layout, Mapping, holes, make_mapping
from intern.learning.imports.nulls import is_null_word
from intern.learning.imports.rowfile import names_shown
from intern.schema import OutputSchema, parse_json
from intern.skill import MAX_PERSON
from intern.types import Json

INPUTS = (
    *("input", "prompt", "question", "query", "instruction", "request", "message", "text", "body", "utterance"),
    *("sentence", "content", "email", "mail", "ticket", "review", "comment", "description", "document", "transcript"),
)
BESIDE = ("subject", "title", "context", "background", "passage", "details", "notes")  # inputs, but rarely alone
OUTPUTS = (
    *(
        "output",
        "completion",
        "response",
        "answer",
        "reply",
        "chosen",
        "target",
        "expected",
        "ideal",
        "label",
        "labels",
    ),
    *("intent", "class", "category", "tag", "tags", "sentiment", "summary", "result", "solution", "translation"),
)
EXTRAS = {
    "id": ("id", "example_id", "uid", "uuid", "guid", "row_id"),
    "group": ("group", "group_id", "thread", "thread_id", "conversation_id"),
    "person": (
        *("person", "person_id", "customer", "customer_id", "user", "user_id", "author", "author_id", "requester"),
        *("requester_id", "sender", "from", "email", "mail"),
    ),
    "split": ("split", "subset", "fold", "partition"),
    "contributor": ("contributor", "annotator", "annotator_id", "labeler", "labeller", "worker_id"),
}
# Layouts with a name: their input columns, of which the first must be there, and their output column.
NAMED: tuple[tuple[Layout, tuple[str, ...], str], ...] = (
    ("alpaca", ("instruction", "input"), "output"),
    ("dolly", ("instruction", "context"), "response"),
    ("prompt-completion", ("prompt",), "completion"),
    ("question-answer", ("question", "context"), "answer"),
    ("text-label", ("text",), "label"),
)
ALIKE = 0.7  # likeness from which a column is taken for a field
_FITTING = 0.5  # share of a column's cells that must be of the field's type
_TELLING = 0.6  # share of them that must be choices of the field, where nothing in the names speaks for it
_COMPARED = 50  # rows whose cells are compared with fields
_COMPARED_PAIRS = 10_000  # of columns and fields; with more than these, only equal names make a pair
_COMPARED_NAME = 100  # characters
MAX_INPUTS = 100
_COMMA = re.compile(r"[+-]?[\d.]*\d,\d{1,2}")
_POINT = re.compile(r"[+-]?[\d,]*\d\.\d{1,2}")
_EITHER_MARK = (OWN, OWN.model_copy(update={"decimal": ","}))
_ADDRESS = re.compile(r"(?:[^<>@]{1,100}<)?[^\s<>@]+@[^\s<>@]+\.[^\s<>@]+>?")
_LONGEST_NAME = 4  # words
# Different authors that a column must name, of as many rows or more: languages and kinds of customers are fewer.
_AUTHORS = 5
_AUTHORS_SHARE = 0.2  # of the rows
_ANSWERED_BY = ("assistant", "bot", "response")  # columns beside which `user` is what the user said
_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def guess_mapping(
    columns: Sequence[str],
    sample: Sequence[Map[str, Json]],
    schema: OutputSchema | None,
    *,
    given: Map[str, Any] | None = None,
) -> Mapping:
    """The likeliest mapping. `given` are keys of a mapping that stand already. Raises InvalidInput."""
    given = given or {}
    guess = _Guess(columns, sample, schema)
    taken = _columns_of(given)
    has_input = bool({"input", "template", "messages"} & given.keys())
    if not has_input and "output" not in given:
        keys = guess.whole()
    elif "output" not in given:
        keys = guess.answers(str(given["messages"])) if "messages" in given else guess.output(taken)
    else:
        keys = {} if has_input else guess.input(taken)
    taken |= _columns_of(keys)
    return make_mapping({**({} if keys.get("layout") == "own" else guess.extras(taken)), **keys, **given})


def _columns_of(keys: Map[str, Any]) -> set[str]:
    """The columns that keys of a mapping, unchecked yet, name."""
    template = keys.get("template")
    names: list[Any] = [*holes(template)] if isinstance(template, str) else []
    for key in ("input", "output", "messages", *EXTRAS):
        value = keys.get(key)
        value = value.values() if isinstance(value, Map) else value
        names += value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return {name for name in names if isinstance(name, str)}


class _Guess:
    """Answers parts of the question as keys of a mapping. Raises InvalidInput where a part cannot be told."""

    def __init__(self, columns: Sequence[str], sample: Sequence[Map[str, Json]], schema: OutputSchema | None) -> None:
        self._columns = tuple(columns)
        self._sample = sample
        self._schema = schema
        self._leaves = tuple(leaves(top(schema)))
        self._by_name = {name.strip().casefold(): name for name in reversed(self._columns)}

    def whole(self) -> dict[str, Any]:
        if self._is_own():
            return OWN.model_dump(exclude_defaults=True)
        for column in self._columns:
            cells = self._cells(column)
            if cells and _mostly(looks_like_turns, cells):
                return {"layout": _dialect(cells[0]), "messages": column, **self.answers(column)}
        for layout, inputs, output in NAMED:
            present = [self._by_name[name] for name in inputs if name in self._by_name]
            if inputs[0] in self._by_name and output in self._by_name:
                answer = self._by_name[output]
                if (keys := self._one_column(answer)) is not None:
                    return {"layout": layout, "input": present, **keys}
        keys = self.output(set())
        named = {**self.input(_columns_of(keys)), **keys}
        return {"layout": "records", **named} if named.get("labels") and self._schema else named

    def input(self, taken: Collection[str]) -> dict[str, Any]:
        """The columns with a name for inputs; without any, all that are not taken."""
        free = self._free(taken)
        found = [name for name in free if name.strip().casefold() in (*INPUTS, *BESIDE)]
        found = found or [name for name in self._columns if name not in taken and name.strip().casefold() in INPUTS]
        found = found or free
        if not found:
            raise self._unclear("no column is left for the input")
        return {"input": found[:MAX_INPUTS], **({"labels": True} if len(found) > 1 else {})}

    def output(self, taken: Collection[str]) -> dict[str, Any]:
        """A column with a name for outputs, or columns like the schema's fields, or the only one left."""
        free = self._free(taken)
        named = next((self._by_name[name] for name in OUTPUTS if self._by_name.get(name) in free), None)
        if named is not None and self._schema is not None and self._holds_json(named):
            return {"output": named}
        if self._schema is not None and (fields := self._fields(free)):
            return {"output": fields, **self._marks(fields)}
        if named is None:
            left = [name for name in free if name.strip().casefold() not in (*INPUTS, *BESIDE)]
            named = left[0] if len(left) == 1 else free[1] if len(free) == 2 and not taken else None
        keys = None if named is None else self._one_column(named)
        if keys is None:
            raise self._unclear("which column holds the output cannot be told")
        return keys

    def answers(self, column: str) -> dict[str, Any]:
        """How the answers of a conversation become the output: as they are, or as the only field of the schema."""
        answers = []
        for cell in self._cells(column):
            with suppress(InvalidInput):
                answers.append(split_conversation(cell, column, "keep")[1])
        single = self._single_field
        as_they_are = single is None or not answers or _mostly(_is_json, answers)
        return {} if as_they_are else {"output": {single: column}}

    def extras(self, taken: Collection[str]) -> dict[str, Any]:
        found = {}
        for key, names in EXTRAS.items():
            there = (self._by_name[name] for name in names if name in self._by_name)
            free = (name for name in there if name not in taken and name not in top(self._schema).names)
            column = next((name for name in free if key != "person" or self._says_who(name)), None)
            if column is None:
                continue
            if key != "split" or all(str(cell).strip().casefold() in SPLITS for cell in self._cells(column)):
                found[key] = column
        return found

    def _says_who(self, column: str) -> bool:
        """Whether a column with a name for people holds numbers, names or addresses of many, and neither what they
        wrote nor a field of the output."""
        name = column.strip().casefold()
        if name == "user" and any(other in self._by_name for other in _ANSWERED_BY):
            return False
        if max((_likeness(column, field, close=True) for field, _ in self._leaves), default=0.0) >= ALIKE:
            return False
        cells = self._cells(column, len(self._sample))
        # Of two columns one is the input and one the output.
        if len(self._columns) < 3 or not cells or not all(_names_one(cell, name in INPUTS) for cell in cells):
            return False
        if all(isinstance(cell, str) and is_boolean_word(cell) for cell in cells):
            return False
        return len(set(map(str, cells))) >= min(len(cells), max(_AUTHORS, _AUTHORS_SHARE * len(cells)))

    def _is_for_sure_who(self, column: str) -> bool:
        """Whether a column says who, and what it holds can be no request: numbers, addresses, or ids by its name."""
        name = column.strip().casefold()
        if name not in EXTRAS["person"] or not self._says_who(column):
            return False
        return name.endswith("_id") or all(
            str(cell).strip().isdecimal() or _is_address(cell) for cell in self._cells(column)
        )

    def _is_own(self) -> bool:
        if not set(self._columns) <= set(OWN_COLUMNS) or not {"input", "output"} & set(self._columns):
            return False
        texts = [cell for cell in self._cells("output") if isinstance(cell, str)]
        return self._single_field is None or not texts or _mostly(_is_json, texts)

    def _one_column(self, column: str) -> dict[str, Any] | None:
        """One column as the output; with a schema it holds JSON or the only field. None: neither."""
        if self._schema is None or self._holds_json(column):
            return {"output": column}
        single = self._single_field
        if single is None or single in self._columns:
            return None
        return {"output": {single: column}, **self._marks({single: column})}

    @property
    def _single_field(self) -> str | None:
        names = top(self._schema).names
        return names[0] if len(names) == 1 else None

    def _free(self, taken: Collection[str]) -> list[str]:
        """The columns that are not taken, and are not for something else than input and output."""
        others = {name for key, name in self.extras(taken).items() if key != "person"}
        left = [name for name in self._columns if name not in taken and name not in others]
        return [name for name in left if not self._is_for_sure_who(name)]

    def _cells(self, column: str, rows: int = _COMPARED) -> list[Json]:
        """The first cells of a column that hold something."""
        found = (cells.get(column) for cells in self._sample[:rows])
        return [cell for cell in found if not (cell is None or (isinstance(cell, str) and is_null_word(cell)))]

    def _holds_json(self, column: str) -> bool:
        if not top(self._schema).kinds & {"object", "array"}:
            return True
        return _mostly(lambda cell: isinstance(cell, dict | list) or _is_json(cell), self._cells(column))

    def _fields(self, free: Sequence[str]) -> dict[str, str]:
        """Field -> column, the likest pairs first, in the schema's order."""
        pairs = sorted(self._likenesses(free), key=lambda pair: -pair[0])
        found: dict[str, str] = {}
        for _, field, column in pairs:
            related = any(f"{other}.".startswith(f"{field}.") or f"{field}.".startswith(f"{other}.") for other in found)
            if not related and column not in found.values():
                found[field] = column
        return {field: found[field] for field, _ in self._leaves if field in found}

    def _likenesses(self, free: Sequence[str]) -> Iterator[tuple[float, str, str]]:
        close = len(free) * len(self._leaves) <= _COMPARED_PAIRS
        for column in free:
            cells = self._cells(column) if close else []
            for field, place in self._leaves:
                likeness = _likeness(column, field, close=close)
                if likeness < 1:
                    if not close or column.strip().casefold() in INPUTS:
                        continue
                    fits = partial(_fits, place=place)
                    if _can_be_told(place) and cells and _mostly(fits, cells, _TELLING):
                        likeness = max(likeness, ALIKE)
                    elif likeness >= ALIKE and not _mostly(fits, cells):
                        continue
                if likeness >= ALIKE:
                    yield likeness, field, column

    def _marks(self, fields: Map[str, str]) -> dict[str, Any]:
        """The separator of lists and the decimal mark, where the cells show another than the default."""
        lists, numbers = [], []
        for field, column in fields.items():
            place = top(self._schema).at(field)
            texts = [cell for cell in self._cells(column) if isinstance(cell, str) and not cell.startswith("[")]
            if "string" not in place.kinds:
                lists += texts if "array" in place.kinds else []
                numbers += texts if "number" in place.kinds else []
        marks: dict[str, Any] = {}
        separator = next((mark for mark in (";", "|", "\n", ",") if any(mark in text for text in lists)), ";")
        if separator != ";":
            marks["separator"] = separator
        if any(_COMMA.fullmatch(text.strip()) for text in numbers) and not any(
            _POINT.fullmatch(text.strip()) for text in numbers
        ):
            marks["decimal"] = ","
        return marks

    def _unclear(self, what: str) -> InvalidInput:
        fields = top(self._schema).names
        wanted = f" The output's fields are {names_shown(fields)}." if fields else ""
        if len(self._sample) == 1:
            for name, cell in self._sample[0].items():
                if isinstance(cell, list) and cell and isinstance(cell[0], dict):
                    wanted = f" If the rows are the list in '{name[:80]}', save that list as the file."
        return InvalidInput(
            f"The columns are {names_shown(self._columns)}, and {what}.{wanted} Say which are input and output.",
            param="columns",
        )


def _dialect(cell: Json) -> Layout:
    return "sharegpt" if '"from"' in (cell if isinstance(cell, str) else json.dumps(cell)) else "openai"


def _mostly(holds: Callable[[Any], bool], cells: Sequence[Json], share: float = _FITTING) -> bool:
    return sum(holds(cell) for cell in cells) >= share * len(cells)


def _names_one(cell: Json, mails: bool) -> bool:
    """Whether a cell is a number, a name or a mail address, and where it is about `mails`, only the latter."""
    text = cell if isinstance(cell, str) else ""
    if mails or _is_address(cell):
        return _is_address(cell)
    return type(cell) is int or (0 < len(text) <= MAX_PERSON and len(text.split()) <= _LONGEST_NAME)


def _is_address(cell: Json) -> bool:
    return isinstance(cell, str) and bool(_ADDRESS.fullmatch(cell.strip()))


def _is_json(cell: Json) -> bool:
    """Whether a cell is the text of a JSON object or list."""
    return isinstance(cell, str) and cell.lstrip()[:1] in ("{", "[") and not parse_json(cell)[1]


def _can_be_told(place: Place) -> bool:
    """Whether cells alone show that they belong to a field: it has a few choices, all of them words."""
    words = [choice for choice in place.choices if choice is not None]
    return len(words) > 1 and all(isinstance(word, str) and len(word) > 1 for word in words)


def _fits(cell: Json, place: Place) -> bool:
    """Whether a cell can be what the field takes, whatever the marks of decimals and lists are."""
    if "array" in place.kinds and "string" not in place.kinds:
        return isinstance(cell, str | list)
    for rules in _EITHER_MARK:
        with suppress(InvalidInput):
            value = coerce(cell, place, rules)
            if value in place.choices if place.is_closed else "string" in place.kinds or not isinstance(value, str):
                return True
    return False


def _likeness(column: str, field: str, *, close: bool) -> float:
    """How alike two names are, 0 to 1: the same words, all words of one in the other, or nearly the same letters."""
    ours, theirs = (_WORD.findall(_HUMP.sub(" ", name).casefold()) for name in (column, field))
    if not ours or not theirs:
        return 0.0
    if "".join(ours) == "".join(theirs):
        return 1.0
    if not close or len(column) > _COMPARED_NAME:
        return 0.0
    few, many = sorted((set(ours), set(theirs)), key=len)
    if few <= many:
        return 0.75 + 0.2 * len(few) / len(many)
    ratio = difflib.SequenceMatcher(None, "".join(ours), "".join(theirs)).ratio()
    return 0.9 * ratio if ratio >= 0.8 else 0.0
