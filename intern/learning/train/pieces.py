"""How a byte-level BPE tokenizer cuts a text into pieces before it merges, for base models read from a GGUF file.

In: a tokenizer that transformers made of a GGUF file, and that file. Out: the same tokenizer, cutting as the engine
does. The file names the way to cut (`tokenizer.ggml.pre`) and does not describe it. transformers knows many of these
names, but none of the models that take each digit by itself, SmolLM for one, and cuts their texts as GPT-2 did: the ids
then differ at spaces and line breaks before a digit, and a model is trained on prompts that it is never asked. A name
that nobody knows changes nothing: the comparison of prompts before an adapter counts will tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from intern.learning.adapters.gguf_head import read_head

_SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})


def cut_as_engine(tokenizer: Any, gguf: Path) -> None:
    """Set how `tokenizer` cuts texts by what the file says. Raises BrokenHead, OSError."""
    if read_head(gguf).metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        cut = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
        tokenizer.backend_tokenizer.pre_tokenizer = cut
