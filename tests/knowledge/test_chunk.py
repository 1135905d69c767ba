"""Chunks are exact, ordered, complete and small enough, and their cuts fall where a reader would put them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from intern.knowledge.chunk import LIMIT, TARGET, Chunk, chunk, embedding_text
from intern.knowledge.document import Heading, ParsedDocument
from intern.models.source import resolve
from intern.parsers.markdown import read
from intern.settings import Settings

ROOT = Path(__file__).parents[2]
Count = Callable[[str], int]


def words(text: str) -> int:
    """Counts like a tokenizer: words, and each other visible character."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def squared(text: str) -> int:
    """Counts a whole higher than its parts together, as no tokenizer should."""
    return len(text) ** 2 // 40


def plain(text: str, *headings: tuple[int, int, str], title: str | None = None) -> ParsedDocument:
    found = tuple(Heading(offset=offset, level=level, title=name) for offset, level, name in headings)
    return ParsedDocument(text=text, media_type="text/plain", headings=found, title=title)


def markdown(text: str) -> ParsedDocument:
    parsed = read(text)
    return plain(parsed.text, *parsed.headings, title=parsed.title)


def texts(document: ParsedDocument, chunks: list[Chunk]) -> list[str]:
    return [document.text[piece.start : piece.end] for piece in chunks]


def cut(text: str, target: int = TARGET, limit: int = LIMIT, count: Count = words) -> list[str]:
    document = markdown(text)
    return texts(document, chunk(document, count=count, target=target, limit=limit))


@pytest.fixture(scope="module")
def wordpieces() -> Count:
    tokenizer = Tokenizer.from_file(str(resolve(Settings.model_fields["embedder"].default) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


LINES = st.sampled_from(
    ["# A", "## B", "### C", "## B", "", "", "A sentence. And another one! Is it? Yes.", "- item one", "- item two:",
     "1. step", "  - deeper", "| a | b |", "|---|---|", "word " * 40, "x" * 300, "中文没有空格的句子。" * 20,
     "e\u0301" * 30, "👩\u200d💻" * 20, "\t", "ends with a colon:", "```", "Dr. No lives in St. Ives.",
     "ประเทศไทย" * 30]
)  # fmt: skip
TEXTS = st.one_of(st.lists(LINES, max_size=40).map("\n".join), st.text(max_size=400))


@pytest.mark.parametrize(
    "count", [words, len, lambda text: len(text.encode()), lambda text: len(text.split()), squared]
)
@settings(max_examples=80, deadline=None)
@given(text=TEXTS, target=st.integers(1, 60), more=st.integers(0, 60))
def test_chunks_are_in_order_exact_complete_and_none_is_too_large(
    count: Count, text: str, target: int, more: int
) -> None:
    document = markdown(text)
    limit = target + more
    chunks = chunk(document, count=count, target=target, limit=limit)
    end = 0
    for ordinal, piece in enumerate(chunks):
        assert piece.ordinal == ordinal
        assert end <= piece.start < piece.end
        assert not document.text[end : piece.start].strip(), "text was lost"
        own = document.text[piece.start : piece.end]
        assert own == own.strip()
        assert count(own) <= limit or len(own) == 1
        end = piece.end
    assert not document.text[end:].strip(), "text was lost"
    assert len({piece.id for piece in chunks}) == len(chunks)
    assert chunk(document, count=count, target=target, limit=limit) == chunks


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_what_is_embedded_is_never_cut_by_the_embedder(wordpieces: Count, text: str) -> None:
    document = markdown(text)
    for piece in chunk(document, count=wordpieces):
        own = document.text[piece.start : piece.end]
        assert wordpieces(embedding_text(document.title or "", piece.heading, own)) <= LIMIT


def test_an_edit_elsewhere_leaves_ids_as_they_are() -> None:
    body = "".join(f"## Section {n}\n\n" + f"Rule {n} is about something. " * 60 + "\n\n" for n in range(8))
    before = {piece.id for piece in chunk(markdown(body), count=words)}
    changed = body.replace("Rule 4 is about something.", "Rule 4 has changed a lot in this place.", 3)
    after = {piece.id for piece in chunk(markdown("A new preamble of the document.\n\n" + changed), count=words)}
    assert len(before) > 12
    assert 0 < len(before - after) <= 4


def test_equal_passages_of_a_document_have_ids_of_their_own() -> None:
    chunks = chunk(markdown("## A\n\nSame text.\n\n# B\n\n" + "x " * 300 + "\n\n## A\n\nSame text."), count=words)
    assert len({piece.id for piece in chunks}) == len(chunks)


def test_headings_are_paths_and_stand_in_the_chunk_they_belong_to() -> None:
    text = "# Leave\n\n" + "Intro words here. " * 20 + "\n\n## Carry-over\n\n" + "Carry words here. " * 20
    document = markdown(text)
    chunks = chunk(document, count=words, target=60)
    assert [piece.heading for piece in chunks] == ["Leave", "Leave > Carry-over"]
    assert [own.split("\n")[0] for own in texts(document, chunks)] == ["# Leave", "## Carry-over"]


def test_a_heading_is_never_left_without_its_text() -> None:
    sections = [f"## Part {n}\n\n" + "Some words of a rule. " * (5 + 7 * n) for n in range(12)]
    long = "## A heading that is so long that it could nearly stand alone\n\n" + "word " * 66
    pieces = cut("\n\n".join(["# All", *sections, long, "# Empty at the end"]), target=40, limit=120)
    assert len(pieces) > len(sections)
    for own in pieces:
        assert not own.splitlines()[-1].startswith("## ")
        assert own != "# Empty at the end"


def test_headings_without_text_go_with_what_they_head() -> None:
    document = markdown("# Handbook\n\n## Leave\n\n### Carry-over\n\nUp to five days. " + "More of it here. " * 20)
    chunks = chunk(document, count=words)
    assert [piece.heading for piece in chunks] == ["Handbook > Leave > Carry-over"]
    assert chunks[0].start == 0


def test_small_neighbours_under_one_parent_are_put_together_and_others_are_not() -> None:
    text = "# FAQ\n\n## When?\n\nAt noon.\n\n## Where?\n\nAt home.\n\n# Rules\n\nBe kind."
    chunks = chunk(markdown(text), count=words)
    assert [piece.heading for piece in chunks] == ["FAQ > When?; Where?", "Rules"]


def test_paragraphs_are_kept_whole_before_sentences() -> None:
    paragraphs = [" ".join(f"Paragraph {n} has sentence {m}." for m in range(9)) for n in range(6)]
    assert cut("\n\n".join(paragraphs), target=50, limit=100) == paragraphs


def test_sentences_are_kept_whole() -> None:
    text = " ".join(f"Sentence {n} was written by Dr. Smith for approx. 3.5 people, e.g. Ann." for n in range(40))
    pieces = cut(text, target=60, limit=100)
    assert len(pieces) > 5
    assert all(own.startswith("Sentence") and own.endswith("Ann.") for own in pieces)


def test_a_list_stays_with_the_line_that_announces_it() -> None:
    filler = "Some other words of a rule. " * 12
    text = f"{filler}\n\nPlease keep to these periods:\n\n- two days before\n- four weeks before\n\n{filler}"
    with_list = [own for own in cut(text, target=70, limit=120) if "these periods" in own]
    assert "two days" in with_list[0]
    assert "four weeks" in with_list[0]


def test_table_rows_are_never_torn_and_short_tables_stay_whole() -> None:
    rows = "\n".join(f"| item {n} | costs {n} euros |" for n in range(6))
    text = "Words before it. " * 20 + "\n\n| what | price |\n|---|---|\n" + rows + "\n\n" + "Words behind it. " * 20
    assert sum("| item" in own for own in cut(text, target=80, limit=140)) == 1
    long = "\n".join(f"| item {n} | costs {n} euros |" for n in range(100))
    assert all(line.startswith("| ") and line.endswith("|") for own in cut(long) for line in own.split("\n"))


def test_rows_of_a_csv_are_never_torn() -> None:
    rows = "\n".join(f"name: Person {n}; note: Long. And longer. {n}" for n in range(200))
    document = ParsedDocument(text=rows, media_type="text/csv")
    pieces = texts(document, chunk(document, count=words))
    assert len(pieces) > 1
    for own in pieces:
        assert all(line.startswith("name: Person") for line in own.split("\n"))


def test_text_without_spaces_is_cut_after_its_own_punctuation() -> None:
    pieces = cut("员工每年享有二十七天的年假，请提前申请。" * 40, target=60, limit=100, count=len)
    assert len(pieces) > 5
    assert all(own.endswith("。") for own in pieces)


def test_marks_stay_with_the_letter_they_belong_to() -> None:
    pieces = cut("e\u0301\u0323" * 400, target=10, limit=15)
    assert len(pieces) > 1
    for own in pieces:
        assert own[0] not in "\u0301\u0323"


def test_a_run_without_any_break_is_cut_although_a_tokenizer_counts_it_as_one_word(wordpieces: Count) -> None:
    document = plain("x" * 100_000)
    assert wordpieces(document.text) == 1
    assert all(piece.end - piece.start < 3_000 for piece in chunk(document, count=wordpieces))


def test_titles_of_any_length_leave_room_for_text(wordpieces: Count) -> None:
    title = "标题很长" * 70
    text = f"{title}\n\n{title}\n\n" + "正文。" * 300
    document = plain(text, (0, 1, title), (len(title) + 2, 2, title), title=title)
    pieces = chunk(document, count=wordpieces)
    assert len(pieces) > 1
    for piece in pieces:
        own = text[piece.start : piece.end]
        assert len(piece.heading) <= 200
        assert wordpieces(embedding_text(title, piece.heading, own)) <= LIMIT


def test_what_is_embedded_names_title_and_path_once() -> None:
    assert (
        embedding_text("Leave", "Leave > Carry-over", "## Carry-over\n\nFive days.") == "Leave > Carry-over\nFive days."
    )
    assert embedding_text("Handbook", "Leave", "Leave\nFive days.") == "Handbook > Leave\nFive days."
    assert embedding_text("Handbook", "", "Five days.") == "Handbook\nFive days."
    assert embedding_text("", "", "Five days.") == "Five days."


@pytest.mark.parametrize(
    "text", ["." * 300_000, "a. A. " * 20_000, ". " + '"' * 300_000, "a\n" * 50_000, "x" * 300_000]
)
def test_the_work_grows_with_the_length_of_hostile_text_and_not_with_its_square(text: str) -> None:
    began = time.process_time()
    assert chunk(plain(text), count=words)
    assert time.process_time() - began < 10


def test_fifty_thousand_headings_are_no_hardship() -> None:
    """The work grows with the document, not with its square: what is counted, all calls together, stays bounded."""
    headings = [(3 * n, 1 + n % 9, "h") for n in range(50_000)]
    text = "h\n\n" * 50_000 + "end"
    counted = 0

    def count(piece: str) -> int:
        nonlocal counted
        counted += len(piece)
        return words(piece)

    assert chunk(plain(text, *headings), count=count)
    assert counted < 60 * len(text)


def test_an_empty_document_has_no_chunks() -> None:
    assert chunk(plain(""), count=words) == []
    assert chunk(plain(" \n "), count=words) == []


def test_the_starter_handbook_is_cut_at_its_headings(wordpieces: Count) -> None:
    handbook = sorted((ROOT / "skills" / "policy-answers" / "docs").glob("*.md"))
    assert handbook
    for path in handbook:
        document = markdown(path.read_text(encoding="utf-8"))
        chunks = chunk(document, count=wordpieces)
        assert len(chunks) >= len(document.headings) / 2
        for piece in chunks:
            assert piece.heading.startswith(document.title or "?")
            assert wordpieces(document.text[piece.start : piece.end]) <= LIMIT
            assert document.text[piece.end - 1] in ".:|)*`" or piece.end == len(document.text), document.text[
                piece.end - 60 : piece.end
            ]
