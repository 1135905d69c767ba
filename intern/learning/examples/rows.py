"""Examples to training rows: the prompt as serving renders it, the answer as the model must write it.

In: a skill, examples, the retriever, an engine (for its tokenizer). Out: `Row`s. `intern/prompt.py` renders both
serving and training, so that a model is trained on what it will be asked, with the passages that retrieval really
finds. An example whose sources retrieval does not find is left out: it would teach to answer without them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from intern import prompt as prompts
from intern.engines.base import Engine
from intern.errors import ContextOverflow
from intern.learning.train.job import Pair, Row
from intern.schema import followed
from intern.skill import Skill
from intern.types import Dropped, Example, Json, Message, Passage


class Retrieves(Protocol):
    async def __call__(self, skill: Skill, conversation: Sequence[Message]) -> Sequence[Passage]:
        """The passages that serving would show for this conversation."""
        ...


def conversation_of(example: Example) -> tuple[Message, ...]:
    """The input as messages."""
    return (Message(role="user", content=example.input),) if isinstance(example.input, str) else example.input


async def make_rows(
    skill: Skill, examples: Sequence[Example], retrieve: Retrieves, engine: Engine, *, passage_tokens: int
) -> tuple[list[Row], list[Dropped]]:
    """The rows, and the examples that make none."""
    rows: list[Row] = []
    dropped: list[Dropped] = []
    for example in examples:
        prompt = await prompt_of(skill, example, retrieve, engine, passage_tokens=passage_tokens)
        if prompt is None:
            dropped.append(Dropped(example=example.id, reason="too_long", detail="its prompt exceeds the context"))
            continue
        if lost := _not_shown(skill, example, prompt.passages):
            detail = f"retrieval does not find its source {lost}"
            dropped.append(Dropped(example=example.id, reason="source_not_found", detail=detail))
            continue
        rows.append(Row(id=example.id, messages=prompt.messages, completion=written(skill, example.output)))
    return rows, dropped


async def make_pairs(
    skill: Skill,
    pairs: Sequence[tuple[Example, Json]],
    retrieve: Retrieves,
    engine: Engine,
    *,
    passage_tokens: int,
) -> list[Pair]:
    """Preference pairs from corrected answers: (the example with the right output, the output that was wrong).

    An answer that broke off, or was no JSON for another reason, is a text where the schema wants an object: the model
    cannot write the quoted text that would stand for it here, and nothing is learned from preferring another to it.
    """
    found = []
    for example, wrong in pairs:
        if skill.schema is not None and isinstance(wrong, str) and skill.schema.problems(wrong):
            continue
        prompt = await prompt_of(skill, example, retrieve, engine, passage_tokens=passage_tokens)
        chosen, rejected = written(skill, example.output), written(skill, wrong)
        if prompt is not None and chosen != rejected:
            found.append(Pair(id=example.id, messages=prompt.messages, chosen=chosen, rejected=rejected))
    return found


async def prompt_of(
    skill: Skill, example: Example, retrieve: Retrieves, engine: Engine, *, passage_tokens: int
) -> prompts.Prompt | None:
    """What serving would send to the engine for this example; None when it does not fit the context."""
    conversation = conversation_of(example)
    passages = await retrieve(skill, conversation) if skill.spec.retrieval.enabled else ()
    try:
        return await prompts.build(skill, conversation, passages, engine, passage_tokens=passage_tokens)
    except ContextOverflow:
        return None


def written(skill: Skill, output: Json) -> str:
    """The output as the model writes it: JSON the way decoding is constrained to it, keys in the schema's order."""
    if skill.schema is None:
        return str(output)
    schema = skill.schema.schema
    return json.dumps(_ordered(output, schema, schema), ensure_ascii=False)


def _ordered(value: Json, node: Json, schema: Mapping[str, Json]) -> Json:
    node = followed(node, schema)
    if isinstance(value, dict):
        properties = node.get("properties") or {}
        names = [name for name in properties if name in value] + [name for name in value if name not in properties]
        return {name: _ordered(value[name], properties.get(name), schema) for name in names}
    if isinstance(value, list):
        return [_ordered(item, node.get("items"), schema) for item in value]
    return value


def _not_shown(skill: Skill, example: Example, passages: Sequence[Passage]) -> str | None:
    """The first document that the right answer cites and the prompt does not show."""
    field = skill.spec.retrieval.citations
    if not skill.spec.retrieval.enabled or field is None or not isinstance(example.output, dict):
        return None
    cited = example.output.get(field)
    shown = {passage.document for passage in passages}
    return next((str(name) for name in cited if name not in shown), None) if isinstance(cited, list) else None
