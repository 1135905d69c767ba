"""A conversation in OpenAI's or ShareGPT's shape as input and output of an example.

In: a list of turns, {"role", "content"} or {"from", "value"}. Out: the input (a text, or messages) and the output.
The rule, declared here and in docs/importing.md: the last assistant turn is the output, what stands before it is the
input, and what stands behind it is left out. A turn whose `weight` is 0 is no output: so OpenAI's fine-tuning files
mark what is not to be learned. Raises InvalidInput that names the turn, with the column as `param`.
"""

from __future__ import annotations

from collections.abc import Mapping as Map

from intern.errors import InvalidInput
from intern.schema import parse_json
from intern.types import Json

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
}


def split_conversation(cell: Json, column: str, system: str) -> tuple[Json, str]:
    """(input, output) of a conversation: the input is a text if it is one user turn, else messages."""
    if isinstance(cell, str):
        cell, problems = parse_json(cell)
        if problems:
            raise InvalidInput(f"must be a list of turns: {problems[0]}", param=column)
    if not isinstance(cell, list) or not all(isinstance(turn, dict) for turn in cell):
        raise InvalidInput("must be a list of turns with role and content, or from and value", param=column)
    last = next((n for n in reversed(range(len(cell))) if _is_output(cell[n])), None)
    if last is None:
        raise InvalidInput("has no assistant turn; the last one would be the output", param=column)
    answer = content_of(cell[last], last + 1, column)
    if not answer.strip():
        raise InvalidInput(f"turn {last + 1} is the output and has no text", param=column)
    turns = turns_of(cell[:last], column)
    if system == "drop":
        turns = [turn for turn in turns if turn["role"] != "system"]
    if not turns or turns[-1]["role"] != "user":
        raise InvalidInput(f"turn {last + 1} is the output; a user's turn must stand before it", param=column)
    return (turns[0]["content"] if len(turns) == 1 else turns), answer


def _is_output(turn: Map[str, Json]) -> bool:
    return _role(turn) == "assistant" and turn.get("weight") != 0


def _role(turn: Map[str, Json]) -> str | None:
    role = turn.get("role", turn.get("from"))
    return ROLES.get(role.strip().casefold()) if isinstance(role, str) else None


def turns_of(cell: list[Json], column: str) -> list[dict[str, str]]:
    turns = []
    for number, turn in enumerate(cell, 1):
        role = _role(turn) if isinstance(turn, dict) else None
        if role is None:
            said = turn.get("role", turn.get("from")) if isinstance(turn, dict) else turn
            raise InvalidInput(
                f"turn {number} is of the role '{str(said)[:40]}'; only system, user and assistant can be learned from",
                param=column,
            )
        turns.append({"role": role, "content": content_of(turn, number, column)})
    return turns


def content_of(turn: Map[str, Json], number: int, column: str) -> str:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        what = "calls a tool" if turn.get("tool_calls") else "has no text"
        raise InvalidInput(f"turn {number} {what}; only texts can be learned from", param=column)
    return content


def looks_like_turns(cell: Json) -> bool:
    """Whether a cell, or the JSON in it, is a list of turns, a user's and an assistant's among them."""
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        cell, _ = parse_json(cell)
    if not isinstance(cell, list) or not all(isinstance(turn, dict) for turn in cell):
        return False
    return {"user", "assistant"} <= {_role(turn) for turn in cell}
