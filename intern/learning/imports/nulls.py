"""The null rule: what becomes of fields without a value, the same for imported cells and for JSON records.

`keep`     null stays null; the schema says where it may stand.
`drop`     a null field is left out; an error where the schema requires the field.
`explain`  null becomes a declared text such as "not stated"; an error where no text may stand.

In: a value, a rule, the skill's schema. Out: the value without nulls that the rule does not want. Whether the result
keeps the schema is for `OutputSchema.problems` to say. Knows nothing of files and columns.
"""

from __future__ import annotations

from typing import Literal

from intern.errors import InvalidInput
from intern.learning.fields import Place, top
from intern.schema import MAX_VALUE_DEPTH, OutputSchema, deeper_than
from intern.types import Json

NullRule = Literal["keep", "drop", "explain"]

NOT_STATED = "not stated"
# Texts that say "no value" in exports of spreadsheets, databases and data frames, in lower case.
NULL_WORDS = ("", "null", "none", "n/a", "#n/a", "nan")


def apply_null_rule(
    value: Json, rule: NullRule, schema: OutputSchema | None, *, text: str = NOT_STATED, place: Place | None = None
) -> Json:
    """`value` with its nulls treated by `rule`; `text` is what `explain` writes. Lists lose their nulls under `drop`.

    `place` is where in the schema the value stands, if it is not a whole output. Raises InvalidInput whose `param` is
    the dotted path of a field that the rule cannot be applied to.
    """
    if deeper_than(value, MAX_VALUE_DEPTH):
        raise InvalidInput(f"nests deeper than {MAX_VALUE_DEPTH} levels")
    return value if rule == "keep" else _treated(value, rule, text, place or top(schema), ())


def is_null_word(text: str, words: tuple[str, ...] = NULL_WORDS) -> bool:
    """Whether a cell's text stands for null. Letters' case and spaces around it do not matter."""
    return text.strip().casefold() in words


def _treated(value: Json, rule: NullRule, text: str, place: Place, path: tuple[str, ...]) -> Json:
    if value is None:
        if rule == "drop":
            raise _refused(path, "is null and nothing can be left out there: use the rule keep or explain")
        if "string" not in place.kinds or (place.is_closed and text not in place.choices):
            raise _refused(path, f"is null and cannot be '{text}': only fields of free text can explain a null")
        return text
    if isinstance(value, dict):
        found = {}
        for name, child in value.items():
            if rule == "drop" and child is None:
                if name in place.required:
                    raise _refused((*path, name), "is null and required: the rule drop cannot leave it out")
                continue
            found[name] = _treated(child, rule, text, place.child(name), (*path, name))
        return found
    if isinstance(value, list):
        kept = [item for item in value if item is not None] if rule == "drop" else value
        return [_treated(item, rule, text, place.item, (*path, str(n))) for n, item in enumerate(kept)]
    return value


def _refused(path: tuple[str, ...], what: str) -> InvalidInput:
    name = ".".join(path)
    return InvalidInput(f"field '{name}' {what}" if path else f"the output {what}", param=name or None)
