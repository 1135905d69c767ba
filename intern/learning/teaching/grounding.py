"""Whether an output rests on the passage that it was written from.

In: an output, the schema that it keeps, the passage, the words that are quoted from it, the request. Out: what speaks
against it, or None. A request proves nothing: what stands there and not in the passage counts neither for an output nor
against it, but a number must stand in the passage, or follow by one calculation from one of the quote and one of the
request. What the schema enumerates, and true and false, are labels and claim nothing (`intern/learning/claims.py`). It
compares words and numbers: that a sentence says the opposite with the same words, it does not see. Knows no teacher and
no examples.

A teacher invents, and one made-up number spoils an example: so numbers are taken out of the words first and compared by
what they mean, in digits, words, dates and percents, and short words count, but for English function words. What judges
answers (`judging/support.py`) only lays systems side by side, in any language: there a number is a word like others.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Set

from intern.learning.claims import claims, is_content
from intern.learning.examples.duplicates import words
from intern.schema import OutputSchema
from intern.types import Json

GROUNDED = 0.6  # least share of an output's content words that stand in its passage
_LETTERS = 3  # of a content word
_CALCULATED = 20  # numbers of a quote or a request that are calculated with
_FUNCTION_WORDS = frozenset(
    words(
        "all also and any are before both but can cannot could did does for from get gets had has have her him his how "
        "if into its may might more must nor not off only other our out over own please shall she should some such "
        "than that the their them then there these they this those too under until very was were what when where "
        "whether which who whom whose why will with would yes you your yours"
    )
)
_COUNTED = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMERALS = {word: str(number) for number, word in enumerate(_COUNTED)} | {"once": "1", "twice": "2"}
_NUMERALS |= {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80"}
_NUMERALS |= {"ninety": "90", "hundred": "100"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_GROUP = re.compile(r"\d+")
_NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,:]\d+)*")
_SPACED = re.compile(r"(?<![\w.,])\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?!\d)")
_PERCENT = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:%|per ?cent)", re.IGNORECASE)
_DATED = re.compile(r"\d[.\s]+([a-z]{3})[a-z]*|\b([a-z]{3})[a-z]*\.?\s+\d", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d?([./])\d\d?\1\d{2,4}")


def problem(
    output: Json,
    *,
    passage: str,
    quote: str,
    asked: str,
    schema: OutputSchema | None = None,
    free: frozenset[str] = frozenset(),
) -> str | None:
    """Why `output` does not rest on `passage`, in one sentence; None when it does. Properties named in `free` are not
    looked at."""
    stated = list(claims(output, schema, free))
    known = _numbers(passage)
    allowed = known | _derived(_numbers(quote), _numbers(asked))
    there, spelled, months = _content(passage), frozenset(words(passage)), _months(passage)
    echo = _content(asked) - there
    stand = checked = 0
    for claim in stated:
        if (unknown := _unknown(claim, spelled, allowed, allowed | months)) is not None:
            return f"'{unknown}' does not stand in the passage"
        content = _content(claim) - echo
        found = len(content & there)
        if content and not found:
            return "a text of it shares no word with the passage"
        stand, checked = stand + found, checked + len(content)
    if checked and stand < GROUNDED * checked:
        return f"only {stand / checked:.0%} of its words stand in the passage"
    if not checked and any(map(_content, stated)) and not any(map(_numbers, stated)):
        return "it only repeats the request"
    return None


def unquoted(output: Json, quote: str, schema: OutputSchema | None = None, free: frozenset[str] = frozenset()) -> bool:
    """Whether a quote has no content word and no number of what the output claims: it proves something else."""
    said = {item for claim in claims(output, schema, free) for item in (*_content(claim), *_numbers(claim))}
    return bool(said) and said.isdisjoint(_content(quote) | _numbers(quote))


def _content(text: str) -> frozenset[str]:
    """The words that say what a text is about: no numbers, no English function words."""
    return frozenset(
        word
        for word in words(_NUMBER.sub(" ", text))
        if is_content(word, _LETTERS) and word not in _FUNCTION_WORDS and word not in _NUMERALS
    )


def _unknown(claim: str, spelled: Set[str], allowed: Set[str], dated: Set[str]) -> str | None:
    """The first number of a claim, in digits or words, or the first code such as `ab12`, that stands nowhere. `dated`:
    what may stand in a date."""

    def stands(date: re.Match[str]) -> bool:
        return all(_readings(number) & dated for number in _GROUP.findall(date[0]))

    rest = _DATE.sub(lambda date: " " if stands(date) else date[0], claim)
    rest = _SPACED.sub(lambda number: " " if _plain(number[0]) in allowed else number[0], rest)
    for number in _NUMBER.findall(rest):
        if not _readings(number) & allowed:
            return str(number)
    for word in words(_NUMBER.sub(" ", rest)):
        if word in spelled or word == "one":
            continue
        if any(map(str.isdecimal, word)) or (word in _NUMERALS and _NUMERALS[word] not in allowed):
            return word
    return None


def _numbers(text: str) -> frozenset[str]:
    """Every number of a text, in digits or in English words, in every way that it can be read."""
    found = {reading for number in _NUMBER.findall(text) for reading in _readings(number)}
    found |= {_plain(number) for number in _SPACED.findall(text)}
    found |= {_NUMERALS[word] for word in words(text) if word in _NUMERALS}
    found |= {_shown(float(number.replace(",", ".")) / 100) for number in _PERCENT.findall(text)}
    return frozenset(found)


def _months(text: str) -> frozenset[str]:
    """The numbers of the months that it names in English beside a number."""
    named = {(before or after).lower() for before, after in _DATED.findall(text)}
    return frozenset(str(number) for number, month in enumerate(_MONTHS, 1) if month in named)


def _readings(number: str) -> set[str]:
    """`1.250` as 1250 and as 1.25, `1,250.50` as 1250.5, `07:30` as a time."""
    groups = _GROUP.findall(number)
    if ":" in number:
        return {":".join(group.lstrip("0") or "0" for group in groups)}
    *whole, last = groups
    found = {_shown(float("".join(groups)))} if all(len(group) == 3 for group in groups[1:]) else set()
    if whole and all(len(group) == 3 for group in whole[1:]):
        found.add(_shown(float(f"{''.join(whole)}.{last}")))
    return found or {number}


def _derived(quoted: Set[str], asked: Set[str]) -> set[str]:
    """What one calculation makes of a number of the quote and one of the request: 250 km at 0.32 are 80."""
    found = set()
    for x, y in itertools.product(_floats(quoted), _floats(asked)):
        found |= {x + y, abs(x - y), x * y, x * y / 100, *((x / y, y / x) if x and y else ())}
    return {_shown(value) for value in found} - asked


def _floats(numbers: Set[str]) -> list[float]:
    return [float(number) for number in sorted(numbers) if re.fullmatch(r"\d+(?:\.\d+)?", number)][:_CALCULATED]


def _plain(number: str) -> str:
    return _shown(float("".join(_GROUP.findall(number))))


def _shown(number: float) -> str:
    return f"{number:.15g}"
