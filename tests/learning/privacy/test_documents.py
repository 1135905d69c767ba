"""What owners' documents state stays; what others bring switches nothing off, and goes from what is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from intern.errors import InvalidInput, NotFound
from intern.learning.privacy.documents import PIECE, Documents, Source, pieces
from intern.learning.privacy.recognisers import Span
from intern.learning.privacy.recognition import Recognition
from intern.learning.privacy.redact import Redactor

HOTLINE = "For questions write to desk@larkmoor.example."
LIST = "Write to eve@example.com, or to desk@larkmoor.example."


@pytest.fixture(scope="module")
def recognition() -> Iterator[Recognition]:
    with Recognition() as recognition:
        yield recognition


class Counting:
    """A recogniser that keeps what it was asked."""

    def __init__(self, recognition: Recognition) -> None:
        self.asked: list[str] = []
        self._recognition = recognition

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        self.asked += texts
        return self._recognition.find(texts)


def source(name: str, text: str, *, owned: bool = True, digest: str = "1") -> Source:
    return Source(id=name, digest=digest, name=name, owned=owned, read=lambda: text)


def test_only_what_owners_state_may_stay(recognition: Recognition) -> None:
    documents = Documents(Redactor(recognition))
    stated = documents.stated([source("a.md", HOTLINE), source("b.md", LIST, owned=False)])
    assert stated == {"desk@larkmoor.example"}


def test_a_text_keeps_what_owners_state_and_nothing_else(recognition: Recognition) -> None:
    documents = Documents(Redactor(recognition))
    sources = [source("a.md", HOTLINE), source("b.md", LIST, owned=False)]
    texts, left_out = documents.freed(sources, documents.stated(sources))
    assert texts == [f"a.md\n{HOTLINE}", "b.md\nWrite to <EMAIL_1>, or to desk@larkmoor.example."]
    assert left_out == 0


def test_a_document_is_searched_once_while_its_content_stays(recognition: Recognition) -> None:
    counting = Counting(recognition)
    documents = Documents(Redactor(counting))
    first, other = source("a.md", HOTLINE), source("b.md", "Call us.")
    documents.stated([first, other])
    assert counting.asked == [HOTLINE, "Call us."]
    assert documents.stated([first, other]) == {"desk@larkmoor.example"}
    assert len(counting.asked) == 2
    changed = source("a.md", "Write to help@larkmoor.example.", digest="2")
    assert documents.stated([changed, other]) == {"help@larkmoor.example"}
    assert counting.asked[2:] == ["Write to help@larkmoor.example."]


def test_nothing_of_a_document_outlives_it(recognition: Recognition) -> None:
    documents = Documents(Redactor(recognition))
    assert documents.stated([source("a.md", HOTLINE)])
    assert documents.stated([]) == frozenset()
    assert documents._stated == {}


def test_a_document_that_is_no_longer_its_owners_states_nothing(recognition: Recognition) -> None:
    documents = Documents(Redactor(recognition))
    assert documents.stated([source("a.md", HOTLINE)])
    assert documents.stated([source("a.md", HOTLINE, owned=False)]) == frozenset()


def test_a_document_that_was_deleted_meanwhile_is_passed_over(recognition: Recognition) -> None:
    def gone() -> str:
        raise NotFound("document", "a.md")

    documents = Documents(Redactor(recognition))
    lost = Source(id="a", digest="1", name="a.md", owned=True, read=gone)
    assert documents.stated([lost]) == frozenset()
    assert documents.freed([lost, source("b.md", "Fine.")], frozenset()) == (["b.md\nFine."], 0)


def test_a_document_that_cannot_be_searched_is_left_out_and_counted() -> None:
    class Refuses:
        def find(self, texts: Sequence[str]) -> list[list[Span]]:
            if any("bad" in text for text in texts):
                raise InvalidInput("It took too long.")
            return [[] for _ in texts]

    documents = Documents(Redactor(Refuses()))
    assert documents.freed([source("a.md", "bad"), source("b.md", "good")], frozenset()) == (["b.md\ngood"], 1)


def test_a_long_document_is_freed_in_pieces_as_if_it_were_one(recognition: Recognition) -> None:
    """A name that only a greeting at the end gives away goes from the beginning, too."""
    filler = "Nothing happens here at all, day after day.\n" * (PIECE // 40)
    text = f"Szymborska was late.\n{filler}Dear Ms Szymborska,\nmy mail is eve@example.com."
    assert len(text) > PIECE
    (freed,), _ = Documents(Redactor(recognition)).freed([source("long.md", text)], frozenset())
    assert "Szymborska" not in freed
    assert "eve@example.com" not in freed
    assert freed.startswith("long.md\n<PERSON_1> was late.\n")
    assert freed.count("Nothing happens here at all") == PIECE // 40


@pytest.mark.parametrize(
    "text", ["", "word", "a line\n" * 40, "words " * 40, "x" * 200, "\n" * 99, " " * 99, "ab\n\n\ncd" * 9]
)
def test_pieces_put_together_are_the_text(text: str) -> None:
    cut = list(pieces(text, 20))
    assert "".join(cut) == text
    assert all(len(piece) <= 20 for piece in cut)
    assert all(cut[:-1])


def test_pieces_are_cut_behind_lines_and_words() -> None:
    assert list(pieces("one two\nthree four five", 12)) == ["one two\n", "three four ", "five"]
