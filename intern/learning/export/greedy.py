"""Models read greedily, token by token: what an answer is compared with when a model was exported.

In: prompts and answers as token ids. Out: at each place of an answer, the token that the model itself finds most likely
there, given the answer so far (teacher forcing). Two models' free texts part at the first near-tie and differ from
there on, which says nothing; their choices along one text can be counted. Knows nothing of skills or formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2

from intern.engines.llamacpp import LlamaCppEngine
from intern.errors import EngineFailure
from intern.types import Json, Message

_ENDED = -1  # no token: the model said nothing more


class Chooses(Protocol):
    async def prompt_ids(self, messages: Sequence[Message]) -> list[int]: ...

    async def choices(self, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
        """The most likely next token at each place of `answer`. Raises EngineFailure."""
        ...


@dataclass(frozen=True)
class Greedy:
    """A greedy answer. `ids` end with the token that ends the turn, unless it was cut short."""

    ids: list[int]
    text: str


class LlamaCppReader(LlamaCppEngine):
    """The embedded engine, one request at a time, with at most one adapter. `bare`: without it."""

    def __init__(self, path: Path, *, adapter: Path | None, context: int, threads: int, gpu_layers: int) -> None:
        super().__init__(
            path,
            model=path.stem,
            context=context,
            slots=1,
            threads=threads,
            gpu_layers=gpu_layers,
            adapters={} if adapter is None else {"adapter": str(adapter)},
        )

    async def answer(
        self, prompt: Sequence[int], limit: int, *, grammar: str | None = None, bare: bool = False
    ) -> Greedy:
        """The greedy answer, of at most `limit` tokens, in `grammar` if there is one. Raises EngineFailure."""
        body: dict[str, Json] = {"prompt": list(prompt), "n_predict": limit, "return_tokens": True}
        body |= {"temperature": 0, "cache_prompt": True}
        if grammar is not None:
            body["grammar"] = grammar
        found = await self._post("/completion", body, bare)
        return Greedy([int(token) for token in found["tokens"]], str(found["content"]))

    async def choices(self, prompt: Sequence[int], answer: Sequence[int], *, bare: bool = False) -> list[int]:
        """As `Chooses`. The model goes on freely until its choice is another than the answer's; from behind that place
        it is read again."""
        found: list[int] = []
        while len(found) < len(answer):
            rest = answer[len(found) :]
            said = (await self.answer([*prompt, *answer[: len(found)]], len(rest), bare=bare)).ids or [_ENDED]
            parted = next(
                (place for place, pair in enumerate(zip(said, rest, strict=False)) if pair[0] != pair[1]), None
            )
            found += said if parted is None else said[: parted + 1]
        return found

    async def pieces(self, answer: Greedy) -> list[bytes]:
        """The bytes of each token of an answer, none for the one that ends it. Where its text has other tokens than the
        model wrote, the whole text stands at the first."""
        body: dict[str, Json] = {"content": answer.text, "add_special": False, "with_pieces": True}
        found = [(t["id"], _bytes(t["piece"])) for t in (await self._post("/tokenize", body))["tokens"]]
        written = [ident for ident, _ in found] == answer.ids[: len(found)] and len(answer.ids) <= len(found) + 1
        pieces = [piece for _, piece in found] if written else [answer.text.encode()]
        return [*pieces, *[b""] * (len(answer.ids) - len(pieces))]

    async def _post(self, path: str, body: dict[str, Json], bare: bool = False) -> Any:
        with self._joined() as server:
            adapter = None if bare else next(iter(server.adapters), None)
            try:
                response = await server.http.post(path, json=body | server.choose(adapter), timeout=None)
                response.raise_for_status()
                return response.json()
            except (httpx2.HTTPError, ValueError) as error:
                raise EngineFailure(f"llama.cpp failed ({type(error).__name__}).") from error


def _bytes(piece: str | list[int]) -> bytes:
    """llama.cpp gives a piece that is no UTF-8 by itself as numbers."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)


class TorchReader:
    """A model of transformers', with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer

    async def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        from intern.learning.train.tokens import prompt_ids

        return prompt_ids(self._tokenizer, messages)

    async def choices(self, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
        """As `Chooses`, in one pass."""
        import torch

        if not answer:
            return []
        ids = torch.tensor([[*prompt, *answer]], device=self._model.device)
        with torch.no_grad():
            logits = self._model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
        if not bool(torch.isfinite(logits).all()):
            raise EngineFailure("The model computes values that are not finite.")
        return [int(token) for token in logits.argmax(-1)]
