"""Stand-ins for the slow parts: an embedder of hashed words, a parser in this process, and a knowledge base on both."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import Engine

from intern.errors import DocumentRefused
from intern.knowledge import ExactIndex, Knowledge, Upload, VectorIndex
from intern.knowledge.document import ParsedDocument
from intern.models.embedder import Vectors
from intern.store.engine import open_database


class WordEmbedder:
    """Vectors of hashed words: texts that share words are near. `asked` keeps every text that was embedded."""

    dimension = 256
    max_tokens = 256

    def __init__(self, id: str = "words-1", salt: str = "") -> None:
        self.id = id
        self.salt = salt
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.extend(texts)
        vectors = np.full((len(texts), self.dimension), 1e-4, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.sha256((self.salt + word).encode()).digest()
                vectors[row, digest[0]] += 1.0 if digest[1] % 2 else -1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+", text))


class PlainParser:
    """UTF-8 text; its first line is the title. `parsed` keeps every name that was parsed."""

    def __init__(self) -> None:
        self.parsed: list[str] = []

    def parse(self, name: str, data: bytes) -> ParsedDocument:
        self.parsed.append(name)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise DocumentRefused("is not text", document=name) from error
        title = text.partition("\n")[0].strip("# ")
        return ParsedDocument(text=text, media_type="text/plain", title=title)

    def close(self) -> None:
        pass


def uploads(**texts: str) -> list[Upload]:
    """Uploads named after the keywords, with '.txt' behind."""
    return [Upload(f"{name}.txt", text.encode()) for name, text in texts.items()]


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'lite.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def other_embedder() -> WordEmbedder:
    return WordEmbedder("words-2", salt="other")


@pytest.fixture
def parser() -> PlainParser:
    return PlainParser()


@pytest.fixture
def index() -> VectorIndex:
    return ExactIndex()


@pytest.fixture
def knowledge(database: Engine, embedder: WordEmbedder, parser: PlainParser, index: VectorIndex) -> Knowledge:
    return Knowledge(database, embedder, parser, index)


@pytest.fixture
def files() -> Callable[..., list[Upload]]:
    return uploads
