"""Trainer and engine read the same ids: both cut a text in the way that the GGUF file names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from made_base import write_tiny_base

from intern.engines.llamacpp import LlamaCppEngine
from intern.learning.train.base import load_tokenizer
from intern.learning.train.tokens import prompt_ids
from intern.types import Message

TEXTS = [
    "Service call                  95.00\nSales tax                33.20\n\nTotal  1,250.50",
    "Invoice 2024\n\n60 days\n\n\n   7\t8\r\n9",
    "It's 12345678 o'clock, I'LL see; we'd've been (there) -- 3.14159!!!\n\n",
    "Größe 3½ m², №12, ٣٤٥ ريال, 二〇二四年12月3日, emoji 👩‍👩‍👧 x10",
    "   leading, trailing   ",
    "a\u00a0b  1\u20092\u3000 3",
    '{"total": 1250.5, "lines": [[1,  2], [3,\t4]]}\n\t\tend',
    "def f(x):\n    return x  +  1  # 100%",
]


@pytest.mark.parametrize("cuts", [None, "starcoder", "llama-bpe", "qwen2"])
def test_trainer_and_engine_read_the_same_ids(tmp_path: Path, model_path: Path, cuts: str | None) -> None:
    base = write_tiny_base(model_path, tmp_path / "base.gguf", cuts=cuts)
    tokenizer = load_tokenizer(base)
    prompts = [[Message(role="system", content="Sort it."), Message(role="user", content=text)] for text in TEXTS]

    async def engines() -> list[list[int]]:
        engine = LlamaCppEngine(base, model="tiny", context=1024, slots=1)
        await engine.start()
        try:
            return [await engine.prompt_ids(messages) for messages in prompts]
        finally:
            await engine.close()

    theirs = asyncio.run(engines())
    for messages, ids in zip(prompts, theirs, strict=True):
        assert prompt_ids(tokenizer, messages) == ids, messages[-1].content
