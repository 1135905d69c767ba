"""Words that tell names of people from other words in capitals; from the lists beside this file."""

from __future__ import annotations

import re
from pathlib import Path


def _listed(name: str) -> frozenset[str]:
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


NO_NAMES = _listed("no_names.txt")
EVERYDAY = _listed("everyday_names.txt")


def plausible(name: str) -> bool:
    """Whether this could be a person, as far as words tell: no heading, no company, no everyday word alone."""
    words = [word.casefold().strip(".,'’") for word in name.split()]
    return not any(word in NO_NAMES for word in words) and (len(words) > 1 or words[0] not in EVERYDAY)


def parts(name: str) -> list[str]:
    """The parts of a full name that stand for the person on their own: no initials, no everyday words."""
    words = [word for word in re.findall(r"[^\W\d_][^\W\d_'’-]*(?:['’-][^\W\d_]+)*", name) if len(word) > 2]
    return [w for w in words if w[0].isupper() and w.casefold() not in EVERYDAY | NO_NAMES] if " " in name else []
