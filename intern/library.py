"""The skills of a workspace, kept in step with their folders while the platform runs.

In: `skills/` for the default team, `teams/<team>/skills/` for others. Out: the newest good version of each skill and
the problems of those that cannot be read. A skill whose folder breaks keeps serving its last good version. Knows
nothing of routing or documents: `refresh` reports what changed, and the workspace acts on it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from intern.errors import InvalidInput, NotFound, SkillInvalid
from intern.skill import NAME, Skill, read_skill
from intern.types import DEFAULT_TEAM, Model

_FILES = ("skill.yaml", "examples.jsonl", "utterances.txt")

log = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int], ...]


class Changes(Model):
    """What `refresh` found, as (team, skill) pairs. `documents` are skills whose docs/ changed."""

    added: frozenset[tuple[str, str]] = frozenset()
    changed: frozenset[tuple[str, str]] = frozenset()
    removed: frozenset[tuple[str, str]] = frozenset()
    documents: frozenset[tuple[str, str]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.documents)

    @property
    def teams(self) -> frozenset[str]:
        """Teams whose router must be fitted again."""
        return frozenset(team for team, _ in self.added | self.changed | self.removed)


class SkillLibrary:
    """Thread-safe: readers always see whole skills."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._skills: Mapping[tuple[str, str], Skill] = {}
        self._problems: Mapping[tuple[str, str], tuple[str, ...]] = {}
        self._signatures: dict[tuple[str, str], Signature] = {}
        self._documents: dict[tuple[str, str], Signature] = {}

    def folder(self, team: str) -> Path:
        """Where a team's skill folders lie."""
        if not NAME.fullmatch(team):
            raise InvalidInput(f"'{team[:80]}' is no team name: use a-z, 0-9 and '-'.", param="team")
        return self._home / "skills" if team == DEFAULT_TEAM else self._home / "teams" / team / "skills"

    def get(self, team: str, name: str) -> Skill:
        """Raises NotFound, or SkillInvalid when the folder is there but was never good."""
        if (skill := self._skills.get((team, name))) is not None:
            return skill
        if (problems := self._problems.get((team, name))) is not None:
            raise SkillInvalid(name, list(problems))
        there = ", ".join(s.name for s in self.all(team))
        raise NotFound("skill", name, f"There are: {there}." if there else "There are no skills yet.")

    def all(self, team: str) -> list[Skill]:
        return [skill for (owner, _), skill in sorted(self._skills.items()) if owner == team]

    @property
    def teams(self) -> list[str]:
        return sorted({DEFAULT_TEAM, *(team for team, _ in self._skills)})

    def problems(self, team: str | None = None) -> dict[tuple[str, str], tuple[str, ...]]:
        """What is wrong with which skill folder now, whether or not an older version of it serves."""
        return {key: found for key, found in self._problems.items() if team in (None, key[0])}

    def refresh(self) -> Changes:
        """Read what changed on disk since the last call. Costs a few `stat` calls a skill when nothing did."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> Changes:
        skills, problems = dict(self._skills), dict(self._problems)
        added: set[tuple[str, str]] = set()
        changed: set[tuple[str, str]] = set()
        documents: set[tuple[str, str]] = set()
        there = self._folders()
        for key, folder in there.items():
            signature, docs = _signature(folder), _docs_signature(folder / "docs")
            if self._documents.get(key, ()) != docs:
                documents.add(key)
                self._documents[key] = docs
            if self._signatures.get(key) == signature:
                continue
            self._signatures[key] = signature
            try:
                skill = read_skill(folder)
            except SkillInvalid as error:
                problems[key] = tuple(error.problems)
                continue
            except Exception as error:  # whatever one folder holds, the others go on
                log.exception("skill %s could not be read", key[1])
                problems[key] = (f"the folder could not be read: {type(error).__name__}: {error}"[:300],)
                continue
            problems.pop(key, None)
            (changed if key in skills else added).add(key)
            skills[key] = skill
        removed = set(skills) - set(there)
        for key in removed:
            del skills[key]
        for key in (set(self._signatures) | set(self._documents)) - set(there):
            self._signatures.pop(key, None)
            self._documents.pop(key, None)
            problems.pop(key, None)
        self._skills, self._problems = skills, problems
        return Changes(
            added=frozenset(added),
            changed=frozenset(changed),
            removed=frozenset(removed),
            documents=frozenset(documents & set(skills)),
        )

    def _folders(self) -> dict[tuple[str, str], Path]:
        roots = {DEFAULT_TEAM: self._home / "skills"}
        teams = self._home / "teams"
        if teams.is_dir():
            roots |= {
                t.name: t / "skills" for t in teams.iterdir() if NAME.fullmatch(t.name) and t.name != DEFAULT_TEAM
            }
        return {
            (team, entry.name): Path(entry.path)
            for team, root in roots.items()
            if root.is_dir()
            for entry in os.scandir(root)
            if entry.is_dir() and not entry.name.startswith((".", "_"))
        }


def _signature(folder: Path) -> Signature:
    names = [*_FILES, *(p.name for p in folder.glob("*.json"))]
    return tuple(_stamp(folder / name) for name in sorted(names))


def _docs_signature(folder: Path) -> Signature:
    if not folder.is_dir():
        return ()
    return tuple(_stamp(p) for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (str(path), 0, -1)
    return (str(path), status.st_mtime_ns, status.st_size)
