"""How right one answer is: the expected output and the given one in, a score between 0 and 1 a field out.

Knows no rivals, models or statistics. Everywhere a missing key is null, and strings are compared trimmed, with runs of
whitespace as one space and capitals alike, except where a metric says otherwise:

- exact: 1 for equal JSON values, else 0. `1` and `1.0` are equal; `"1"` and `1` are not.
- text: the mean of chrF (Popovic 2015; sacrebleu's, in which capitals count) and token F1 (Rajpurkar et al. 2016).
- number: equal within a millionth. A numeric string is no number.
- set: F1 over the items, order-free, repeated items counted. Items that are objects are matched one to one as well as
  can be, each pair by its share of equal leaves, so that an invoice line with one wrong number still counts in part.
- ignore: not scored.

Null for null is 1, null for anything else 0, and the other way round; two empty arrays are 1. A nested object scores
the mean over its leaves; an answer that is no object where one is expected scores 0 on every field.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np
from sacrebleu.metrics.chrf import CHRF
from scipy.optimize import linear_sum_assignment

from intern.errors import InvalidInput
from intern.learning.judging.outcomes import TextScores
from intern.types import Json, Metric

_CHRF = CHRF()  # chrF2: six character n-grams, no word n-grams
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # written without spaces: each character is a word
_LETTER = rf"(?:(?![{_CJK}])\w)"
_WORD = re.compile(rf"[{_CJK}]|{_LETTER}+(?:[.,'-]{_LETTER}+)*")  # 1.5 is one word and not 15
_ARTICLES = frozenset({"a", "an", "the"})


def score_fields(expected: Json, output: Json, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The score of each field of `metrics` that is not ignored.

    A text skill has strings and the one field {"text": "text"}. Without any metric (a schema that names no properties)
    the one field is `output`, compared as exact. Raises InvalidInput where every field is ignored, or fields are to be
    compared and the expected output has none.
    """
    if not metrics:
        return {"output": score_value(expected, output, "exact")}
    compared = {name: metric for name, metric in metrics.items() if metric != "ignore"}
    if not compared:
        raise InvalidInput("Every field is ignored; give at least one field another metric.", param="metrics")
    if isinstance(expected, Mapping):
        if not isinstance(output, Mapping):
            return dict.fromkeys(compared, 0.0)
        return {name: score_value(expected.get(name), output.get(name), metric) for name, metric in compared.items()}
    if len(compared) > 1:
        raise InvalidInput(
            f"The expected output is no object, and {len(compared)} fields are to be compared: {', '.join(compared)}.",
            param="expected",
        )
    return {name: score_value(expected, output, metric) for name, metric in compared.items()}


def text_fields(expected: Json, output: Json, metrics: Mapping[str, Metric]) -> dict[str, TextScores]:
    """chrF and token F1 apart, for each field that is compared as text; their mean is the field's score."""
    found = {}
    for name in (name for name, metric in metrics.items() if metric == "text"):
        if isinstance(expected, Mapping):
            pair = expected.get(name), output.get(name) if isinstance(output, Mapping) else None
            lost = not isinstance(output, Mapping)
        else:
            pair, lost = (expected, output), False
        halves = ([0.0] if lost else _leaf_scores(*pair, half) for half in (_chrf_alone, _token_f1_alone))
        chrf_mean, f1_mean = (sum(scores) / len(scores) for scores in halves)
        found[name] = TextScores(chrf=chrf_mean, token_f1=f1_mean)
    return found


def mean_score(fields: Mapping[str, float]) -> float:
    """The score of a whole answer: the plain mean over its fields."""
    return sum(fields.values()) / len(fields)


def score_value(expected: Json, output: Json, metric: Metric) -> float:
    """The score of one value by one metric; the mean over the leaves of an object."""
    scores = _leaf_scores(expected, output, _BY_METRIC[metric])
    return sum(scores) / len(scores)


def exact_match(expected: Json, output: Json) -> bool:
    """Whether the whole output is equal, by the rules of exact."""
    return normal_form(expected) == normal_form(output)


def text_score(expected: str, output: str) -> float:
    """Mean of chrF and token F1 of two texts, 0 to 1."""
    return sum(_halves(expected, output)) / 2


def _halves(expected: str, output: str) -> tuple[float, float]:
    """(chrF, token F1) of two texts; the same text is 1 by both, and an empty one 0."""
    if _collapsed(expected) == _collapsed(output):
        return 1.0, 1.0
    if not expected.strip() or not output.strip():
        return 0.0, 0.0
    return chrf(expected, output), token_f1(expected, output)


def chrf(expected: str, output: str) -> float:
    """chrF of two texts, 0 to 1."""
    return min(1.0, float(_CHRF.sentence_score(output, [expected]).score) / 100)


def token_f1(expected: str, output: str) -> float:
    """F1 over the words of two texts, without articles, punctuation and capitals; order-free."""
    right, given = (Counter(word for word in words(text) if word not in _ARTICLES) for text in (expected, output))
    if not right or not given:
        return float(words(expected) == words(output))
    return 2 * (right & given).total() / (right.total() + given.total())


def words(text: str) -> list[str]:
    """The words of a text in small letters; numbers, contractions and hyphenated words are one word each."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold().replace("’", "'"))


def normal_form(value: Json) -> Hashable:
    """The same for values that count as equal: capitals, whitespace and keys with null make no difference."""
    if isinstance(value, str):
        return "string", _collapsed(value).casefold()
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, Mapping):
        return "object", frozenset((name, normal_form(v)) for name, v in value.items() if v is not None)
    if isinstance(value, Sequence):
        return "array", tuple(normal_form(v) for v in value)
    return None


# --- what is left out ------------------------------------------------------------------------------------------


def null_decisions(expected: Json, output: Json, fields: Iterable[str] | None = None) -> list[tuple[bool, bool]]:
    """(null was right, null was given) for each leaf of two objects; of the top-level `fields` only, if given.

    An answer that is no object leaves nothing out: it said something else.
    """
    if not isinstance(expected, Mapping):
        return []
    named = expected if fields is None else {name: expected.get(name) for name in fields}
    if not isinstance(output, Mapping):
        return [(null, False) for null in _nulls(named)]
    extra = () if fields is not None else (name for name in output if name not in named)
    found: list[tuple[bool, bool]] = []
    for name in (*named, *extra):
        right, given = named.get(name), output.get(name)
        if isinstance(right, Mapping) and (given is None or isinstance(given, Mapping)):
            found += null_decisions(right, given or {})
        else:
            found.append((right is None, given is None))
    return found


def null_precision_recall(
    pairs: Iterable[tuple[Json, Json]], fields: Iterable[str] | None = None
) -> tuple[float | None, float | None]:
    """Of the nulls given, the share that is right; of the nulls that are right, the share given. None without any.

    `pairs` are (expected, output).
    """
    chosen = None if fields is None else tuple(fields)
    decisions = [decision for expected, output in pairs for decision in null_decisions(expected, output, chosen)]
    both = sum(right and given for right, given in decisions)
    answered, rightly = sum(given for _, given in decisions), sum(right for right, _ in decisions)
    return both / answered if answered else None, both / rightly if rightly else None


def _nulls(value: Mapping[str, Json]) -> list[bool]:
    return [
        null for child in value.values() for null in (_nulls(child) if isinstance(child, Mapping) else [child is None])
    ]


# --- the metrics -----------------------------------------------------------------------------------------------

Compare = Callable[[Json, Json], float]


def _leaf_scores(expected: Json, output: Json, compare: Compare) -> list[float]:
    if isinstance(expected, Mapping):
        if not isinstance(output, Mapping):
            return [0.0] * max(1, len(_nulls(expected)))
        # What is given and not expected is wrong too, unless it is null.
        extra = [name for name, value in output.items() if name not in expected and value is not None]
        names = [*expected, *extra]
        return [s for name in names for s in _leaf_scores(expected.get(name), output.get(name), compare)] or [1.0]
    if expected is None or output is None:
        return [float(expected is output)]
    return [compare(expected, output)]


def _exact(expected: Json, output: Json) -> float:
    return float(normal_form(expected) == normal_form(output))


def _text(expected: Json, output: Json) -> float:
    both = isinstance(expected, str) and isinstance(output, str)
    return text_score(expected, output) if both else _exact(expected, output)


def _chrf_alone(expected: Json, output: Json) -> float:
    both = isinstance(expected, str) and isinstance(output, str)
    return _halves(expected, output)[0] if both else _exact(expected, output)


def _token_f1_alone(expected: Json, output: Json) -> float:
    both = isinstance(expected, str) and isinstance(output, str)
    return _halves(expected, output)[1] if both else _exact(expected, output)


def _number(expected: Json, output: Json) -> float:
    if not _is_number(expected) or not _is_number(output):
        return _exact(expected, output)
    try:
        return float(math.isclose(expected, output, rel_tol=1e-6, abs_tol=1e-9))
    except OverflowError:  # whole numbers too long for a float
        return float(expected == output)


def _set(expected: Json, output: Json) -> float:
    if not isinstance(expected, list | tuple) or not isinstance(output, list | tuple):
        return _exact(expected, output)
    if not expected and not output:
        return 1.0
    if any(isinstance(item, Mapping) for item in (*expected, *output)):
        alike = np.asarray([[_alike(one, other) for other in output] for one in expected]).reshape(
            len(expected), len(output)
        )
        shared = float(alike[linear_sum_assignment(alike, maximize=True)].sum())
    else:
        shared = (Counter(map(normal_form, expected)) & Counter(map(normal_form, output))).total()
    return 2 * shared / (len(expected) + len(output))


def _alike(expected: Json, output: Json) -> float:
    scores = _leaf_scores(expected, output, _number)
    return sum(scores) / len(scores)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


_BY_METRIC: Mapping[str, Compare] = {"exact": _exact, "text": _text, "number": _number, "set": _set}
