"""A cell's value as the schema's type of its field: texts become numbers, booleans, lists, choices and nulls.

In: a cell, the place of the field in the schema, a mapping's rules. Out: a JSON value, which the schema may still
refuse. Texts stay exactly as they are wherever the field takes text. Knows nothing of rows and files.
"""

from __future__ import annotations

import json
import math
import re

from intern.errors import InvalidInput
from intern.learning.fields import Place
from intern.learning.imports.mapping import Mapping
from intern.learning.imports.nulls import is_null_word
from intern.schema import canonical, parse_json
from intern.types import Json

_TRUE = frozenset({"true", "yes", "y", "t", "1", "x"})
_FALSE = frozenset({"false", "no", "n", "f", "0"})
_PLAIN = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_CODE = re.compile(r"[+-]?0\d")  # 007: where a text may stand too, it is one
_MAX_DIGITS = 300
_ANYTHING = Place({}, {}).kinds


def is_boolean_word(text: str) -> bool:
    """Whether a cell's text is one of those that are read as true or false."""
    return text.strip().casefold() in _TRUE | _FALSE


def coerce(cell: Json, place: Place, rules: Mapping) -> Json:
    """The cell as the type that its field takes. Raises InvalidInput that says what would be right.

    A null word is null, unless the field's choices have it, or the field takes lists and no null: then none is there.
    """
    if not isinstance(cell, str):
        return _loosened(cell, place)
    if (choice := _choice(cell, place)) is not None:
        return choice[0]
    if is_null_word(cell, rules.null_words):
        return [] if "array" in place.kinds and "null" not in place.kinds else None
    if place.is_closed:
        raise InvalidInput(f"'{cell[:80]}' is none of {_shown(place.choices)}")
    return _of_kind(cell, place, rules)


def as_text(cell: Json) -> str:
    """A cell as a text for people and prompts; an object as lines `key: value`."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, dict):
        return "\n".join(f"{key}: {_inline(value)}" for key, value in cell.items())
    return _inline(cell)


def _inline(cell: Json) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list) and all(isinstance(item, str | int | float) for item in cell):
        return ", ".join(_inline(item) for item in cell)
    return canonical(cell)


def _choice(text: str, place: Place) -> tuple[Json] | None:
    """The choice that the text spells, in a tuple; letters' case and spaces around it do not matter."""
    if text in place.choices:
        return (text,)
    folded = text.strip().casefold()
    alike = [choice for choice in place.choices if choice is not None and as_text(choice).casefold() == folded]
    return (alike[0],) if len(alike) == 1 and folded else None


def _of_kind(text: str, place: Place, rules: Mapping) -> Json:
    kinds, bare = place.kinds, text.strip()
    if "boolean" in kinds and "string" not in kinds and bare.casefold() in _TRUE | _FALSE and not _wants_number(place):
        return bare.casefold() in _TRUE
    is_code = "string" in kinds and _CODE.match(bare)
    number = _number(bare, rules) if _wants_number(place) and not is_code else None
    if number is not None and ("number" in kinds or number == int(number)):
        return number
    if "string" in kinds:
        return text
    if "array" in kinds and not bare.startswith("["):
        return [coerce(part.strip(), place.item, rules) for part in text.split(rules.separator) if part.strip()]
    if kinds & {"array", "object"} and bare[:1] in ("[", "{"):
        value, problems = parse_json(bare)
        if problems:
            raise InvalidInput(f"{problems[0]}: {text[:80]}")
        return value
    raise InvalidInput(f"'{text[:80]}' is no {_wanted(kinds, rules)}")


def _wants_number(place: Place) -> bool:
    return bool(place.kinds & {"integer", "number"}) and place.kinds != _ANYTHING


def _number(text: str, rules: Mapping) -> int | float | None:
    """The number that a text spells, or None. Groups of three digits may be parted by the other mark."""
    if rules.decimal == ",":
        text = text.translate({ord(","): ".", ord("."): ","})
    if len(text) > _MAX_DIGITS or not _PLAIN.fullmatch(text):
        return None
    plain = text.replace(",", "").removeprefix("+")
    if not re.search(r"[.eE]", plain):
        return int(plain)
    number = float(plain)
    return number if math.isfinite(number) else None


def _loosened(cell: Json, place: Place) -> Json:
    """A JSON value where the schema wants another type that says the same."""
    if cell is None:
        return None
    if place.is_closed:
        choice = None if cell in place.choices else _choice(as_text(cell), place)
        return cell if choice is None else choice[0]
    kinds = place.kinds
    if isinstance(cell, int | float) and not isinstance(cell, bool) and not kinds & {"integer", "number"}:
        return json.dumps(cell) if "string" in kinds else cell
    if "array" in kinds and not isinstance(cell, list) and not kinds & {"object", "string", "number", "boolean"}:
        return [cell]
    return cell


def _wanted(kinds: frozenset[str], rules: Mapping) -> str:
    if kinds & {"integer", "number"}:
        return f"number such as 3{rules.decimal}5" if "number" in kinds else "whole number such as 3"
    if "boolean" in kinds:
        return "boolean such as true, false, yes or no"
    if "null" in kinds and len(kinds) == 1:
        return "null"
    return "JSON object or list" if kinds & {"object", "array"} else "value that the field takes"


def _shown(choices: tuple[Json, ...]) -> str:
    shown = ", ".join(as_text(choice)[:40] for choice in choices[:12] if choice is not None)
    return f"{shown} and {len(choices) - 12} more" if len(choices) > 12 else shown
