"""Names for personal data that was taken out: the same value, the same placeholder.

In: kinds and values as they stood in texts. Out: placeholders such as `<EMAIL_1>`. Two spellings of one value count as
one: capitals of an address, spaces of a number, the first name alone of a person whose full name is known.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from datetime import date

from intern.learning.privacy.recognisers.words import parts

# Placeholders, and Slack's mentions of people, channels and groups, which name nobody by themselves.
MARKUP = re.compile(r"<[A-Z][A-Z_]*_\d+>|<[@#!][\w^][^<>\s]*>")
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z_]*)_(\d+)>")
_TITLES = {"mr", "mrs", "ms", "miss", "mx", "dr", "prof", "herr", "frau"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Scope:
    """The placeholders of one example, or of one document or thread if several examples share it. For one thread.

    `values` are the texts that stand for known values, with their kind.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._people: dict[str, set[str]] = {}  # placeholder -> words of the names that go by it
        self._last: dict[str, int] = defaultdict(int)

    def reserve(self, text: str) -> None:
        """Leave out the numbers of placeholders that a text has already."""
        for kind, number in _PLACEHOLDER.findall(text):
            self._last[kind] = max(self._last[kind], int(number))

    def placeholder(self, kind: str, value: str) -> str:
        """The placeholder of a value, a new one if it is new."""
        key = (kind, identity(kind, value))
        if key not in self._names:
            self._names[key] = (kind == "PERSON" and self._known_person(key[1])) or self._new(kind)
            if kind == "PERSON":
                self._people.setdefault(self._names[key], set()).update(key[1].split())
        self.values.update(mentions(kind, value))
        return self._names[key]

    def _new(self, kind: str) -> str:
        self._last[kind] += 1
        return f"<{kind}_{self._last[kind]}>"

    def _known_person(self, name: str) -> str | None:
        """The one person so far whose name has these words or is among them."""
        words = set(name.split())
        same = [known for known, its in self._people.items() if words <= its or its <= words]
        return same[0] if len(same) == 1 else None


def identity(kind: str, value: str) -> str:
    """What two spellings of one value have in common."""
    text = unicodedata.normalize("NFKC", value).casefold()
    if kind == "PERSON":
        return " ".join(word for word in re.findall(r"[^\W\d_]+", text) if word not in _TITLES)
    if kind == "EMAIL":
        return text.replace("%40", "@")
    if kind == "PHONE":
        return re.sub(r"\D", "", text)[-9:]  # with or without the country's code
    if kind == "DATE_OF_BIRTH":
        return _date(text) or " ".join(text.split())
    if kind in ("ADDRESS", "PLACE"):
        return " ".join(re.findall(r"\w+", text))
    return re.sub(r"[\W_]+", "", text)


def mentions(kind: str, value: str) -> dict[str, str]:
    """Texts that stand for the value wherever else they occur, with the kind; short numbers could be anything."""
    if kind == "PERSON":
        whole = [value] if len(value) > 2 else []
        return dict.fromkeys([*whole, *parts(value)], kind)
    letters = any(c.isalpha() for c in value)
    return {value: kind} if len(value) >= (5 if letters else 7) else {}


def _date(text: str) -> str | None:
    """A date in ISO form; None where day and month cannot be told apart."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    month = next((i for i, name in enumerate(_MONTHS, 1) if re.search(rf"\b{name}", text)), None)
    try:
        if month and len(numbers) == 2:
            return date(numbers[1], month, numbers[0]).isoformat()
        if not month and len(numbers) == 3:
            year, first, second = numbers if numbers[0] > 31 else (numbers[2], numbers[1], numbers[0])
            if numbers[0] > 31 or first == second:
                return date(year, first, second).isoformat()
            if max(first, second) > 12 and min(first, second) <= 12:
                return date(year, min(first, second), max(first, second)).isoformat()
            if "." in text:  # the German way: day, month, year
                return date(year, first, second).isoformat()
    except ValueError:
        pass
    return None
