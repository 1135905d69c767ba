"""What the pipeline needs of the parts that it joins, and what stands in where a workspace has no such part.

Router, knowledge base, worked examples, adapters: of each a protocol with the few methods that a request goes through.
Knows nothing of what stands behind them, nor the order in which they are called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from intern.errors import NotFound
from intern.models.embedder import Vectors
from intern.skill import Skill
from intern.types import Lease, Message, Passage, Route


class Routes(Protocol):
    """The part of the router that the pipeline uses; blocking, but not for long once it is `ready`."""

    async def ready(self, team: str) -> None: ...

    def route(self, team: str, text: str, *, vector: Vectors | None = None) -> Route: ...

    def embed(self, text: str) -> Vectors: ...


class Retrieves(Protocol):
    """The part of the knowledge base that the pipeline uses; blocking, but not for long once it is `ready`."""

    async def ready(self, team: str, skill: str) -> None: ...

    def retrieve(
        self, team: str, skill: str, query: str | Sequence[Message], *, limit: int, vector: Vectors | None = None
    ) -> list[Passage]: ...


class Adapters(Protocol):
    """Who answers which skill. A lease keeps its adapter loaded until it is released."""

    async def acquire(self, team: str, skill: str, version: str | None) -> Lease: ...

    def release(self, lease: Lease) -> None: ...


class Shows(Protocol):
    """Worked examples for a skill's prompt, as turns of the conversation, within `room` tokens; none where it asks for
    none."""

    async def shown(
        self, team: str, skill: Skill, request: str | Vectors, *, room: int
    ) -> Sequence[Sequence[Message]]: ...


class NoExamples:
    """Prompts without examples."""

    async def shown(self, team: str, skill: Skill, request: str | Vectors, *, room: int) -> Sequence[Sequence[Message]]:
        return ()


class BaseOnly:
    """No adapters: the base model serves every skill."""

    async def acquire(self, team: str, skill: str, version: str | None) -> Lease:
        if version not in (None, "base"):
            raise NotFound("model", f"intern/{skill}@{version}", "The skill has no adapter of this version.")
        return Lease()

    def release(self, lease: Lease) -> None:
        pass
