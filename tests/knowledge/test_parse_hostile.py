"""Documents made to do harm are refused or read harmlessly, and say which."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_documents import RELATIONS, docx, paragraph, pdf, zipped

from intern.errors import DocumentRefused
from intern.knowledge.document import ParsedDocument
from intern.knowledge.parse import Parser
from intern.parsers.text import normalise


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    parser = Parser(seconds=20, memory_bytes=1_000_000_000, pages=500, file_bytes=20_000_000, inflated_bytes=50_000_000)
    yield parser
    parser.close()


def refusal(parser: Parser, name: str, data: bytes) -> str:
    with pytest.raises(DocumentRefused) as refused:
        parser.parse(name, data)
    return refused.value.message


class TestZipBombs:
    def test_one_that_says_its_size_is_refused_before_it_is_inflated(self, parser: Parser) -> None:
        data = docx(paragraph("x"), parts={"word/media/a.bin": bytes(60_000_000)})
        began = time.monotonic()
        assert "would inflate to 60,00" in refusal(parser, "a.docx", data)
        assert time.monotonic() - began < 2

    def test_one_below_the_limit_is_refused_by_its_ratio(self, parser: Parser) -> None:
        data = docx(paragraph("x"), parts={"word/media/a.bin": bytes(40_000_000)})
        assert "compressed more than 300 times" in refusal(parser, "a.docx", data)

    def test_one_that_lies_about_its_size_inflates_no_further_than_it_said(self, parser: Parser) -> None:
        body = "<w:p><w:r><w:t>" + "x" * 3_000_000 + "</w:t></w:r></w:p>"
        data = bytearray(docx(body))
        real = data.rfind(b"PK\x01\x02")  # the central directory's entry of word/document.xml
        data[real + 24 : real + 28] = (1000).to_bytes(4, "little")
        assert "cannot be unpacked" in refusal(parser, "a.docx", bytes(data))

    def test_many_entries_are_refused(self, parser: Parser) -> None:
        data = docx(paragraph("x"), parts={f"word/{n}": "" for n in range(10_001)})
        assert "10,003 files inside" in refusal(parser, "a.docx", data)

    def test_one_inside_the_document_is_never_opened(self, parser: Parser) -> None:
        inner = zipped({"a": bytes(40_000_000)})
        document = parser.parse("a.docx", docx(paragraph("fine"), parts={"word/embeddings/b.zip": inner}))
        assert document.text == "fine"

    def test_a_relationship_that_leads_out_of_the_file_finds_nothing(self, parser: Parser) -> None:
        relations = RELATIONS.replace("word/document.xml", "../../../../etc/passwd")
        data = docx(paragraph("x"), parts={"_rels/.rels": relations})
        assert "damaged DOCX" in refusal(parser, "a.docx", data)

    @pytest.mark.parametrize("names", [["xl/workbook.xml"], ["ppt/presentation.xml"], ["mimetype"], ["whatever"]])
    def test_other_zips_are_refused_by_what_they_are(self, parser: Parser, names: list[str]) -> None:
        reason = refusal(parser, "a.docx", zipped(dict.fromkeys(names, "x")))
        assert any(what in reason for what in ("Excel", "PowerPoint", "OpenDocument", "ZIP archive"))


class TestXml:
    LAUGHS = '<!DOCTYPE d [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )

    def test_billion_laughs_in_a_docx_are_refused_at_once(self, parser: Parser) -> None:
        began = time.monotonic()
        reason = refusal(parser, "a.docx", docx(paragraph("&j;"), prolog=self.LAUGHS + "]>"))
        assert "declares entities" in reason or "not well-formed" in reason
        assert time.monotonic() - began < 2

    def test_an_external_entity_in_a_docx_is_refused(self, parser: Parser, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("TOP-SECRET")
        prolog = f'<!DOCTYPE d [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
        assert "declares entities" in refusal(parser, "a.docx", docx(paragraph("&x;"), prolog=prolog))

    def test_entities_in_html_and_xml_stay_unexpanded(self, parser: Parser, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("TOP-SECRET")
        prolog = f'<!DOCTYPE html [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
        for name in ("a.html", "a.xml", "a.xhtml"):
            assert "TOP-SECRET" not in parser.parse(name, f"{prolog}<html><p>hello &x;</p></html>".encode()).text
        assert len(parser.parse("a.html", (self.LAUGHS + "]><html><p>hello &j;</p></html>").encode()).text) < 2_000


class TestDepth:
    @pytest.mark.parametrize("tag", ["div", "b", "table><tr><td", "ul><li", "h1"])
    def test_deep_html_is_refused_or_survived_quickly(self, parser: Parser, tag: str) -> None:
        began = time.monotonic()
        try:
            assert "core" in parser.parse("a.html", (f"<{tag}>" * 100_000 + "core").encode()).text
        except DocumentRefused as refused:
            assert "nested too deeply" in refused.message  # noqa: PT017 (either outcome is right)
        assert time.monotonic() - began < 10

    @pytest.mark.parametrize("piece", ["<p>{}</p>", '<img src="data:{}">', "<script>{}</script>", "<!--{}-->"])
    def test_html_that_the_parser_would_cut_off_is_refused(self, parser: Parser, piece: str) -> None:
        data = ("<html><p>before</p>" + piece.format("x" * 12_000_000) + "<p>behind</p>").encode()
        assert "more than 10 MB in one piece" in refusal(parser, "a.html", data)

    def test_deep_docx_is_refused(self, parser: Parser) -> None:
        body = "<w:tbl><w:tr><w:tc>" * 5_000 + "</w:tc></w:tr></w:tbl>" * 5_000
        assert "nested too deeply" in refusal(parser, "a.docx", docx(body))

    def test_deep_mail_is_refused(self, parser: Parser) -> None:
        parts = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(3_000))
        mail = ("Subject: x\r\nFrom: a@b.test\r\nMIME-Version: 1.0\r\n" + parts).encode()
        assert re.search("parts nested too deeply|more than 1,000 parts", refusal(parser, "a.eml", mail))

    def test_deep_markdown_keeps_its_text(self, parser: Parser) -> None:
        assert parser.parse("a.md", (">" * 10_000 + " core\n\n# Top\n").encode()).headings[0].title == "Top"

    def test_a_licence_in_many_comments_is_read_at_once(self, parser: Parser) -> None:
        text = "<!-- a line of a licence -->\n" * 400 + "# Title\n\nThe text."
        assert "The text." in parser.parse("a.md", text.encode()).text

    def test_deep_json_is_just_text(self, parser: Parser) -> None:
        assert parser.parse("a.json", b"[" * 100_000).text.startswith("[[[")


class TestPdf:
    def test_a_scan_is_told_from_an_empty_document(self, parser: Parser) -> None:
        assert "no text on any of its 3 pages: it is probably a scan, run OCR first" in refusal(
            parser, "scan.pdf", pdf([[], [], []])
        )

    def test_an_encrypted_one_is_refused(self, parser: Parser) -> None:
        key = f"<{'41' * 32}>"
        trailer = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O {key} /U {key} >> /ID [<00><00>]"
        assert "is encrypted" in refusal(parser, "a.pdf", pdf([[(11.0, "secret")]], trailer=trailer))

    @pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
    def test_a_truncated_one_is_refused_or_read(self, parser: Parser, cut: float) -> None:
        data = pdf([[(11.0, f"page {n}")] for n in range(20)])
        try:
            assert parser.parse("a.pdf", data[: int(len(data) * cut)]).text
        except DocumentRefused as refused:
            assert "PDF" in refused.message or "no text" in refused.message  # noqa: PT017

    def test_a_page_tree_that_bites_its_tail_ends(self, parser: Parser) -> None:
        data = pdf([[(11.0, "hello")]]).replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]")
        assert refusal(parser, "a.pdf", data)


ENDINGS = st.sampled_from(["", ".txt", ".md", ".html", ".csv", ".tsv", ".eml", ".json", ".pdf", ".docx", ".jsonl"])
SEEDS = [
    docx(paragraph("Leave", '<w:outlineLvl w:val="0"/>') + paragraph("27 days")),
    pdf([[(20.0, "Leave"), (11.0, "27 days")]]),
    b"From: a@b.test\r\nSubject: =?utf-8?q?x?=\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<h1>Hi</h1>you",
    b"<!doctype html><table><tr><td>a<td>b</table><ul><li>c</ul><h2>d</h2><pre>e\n f</pre>",
    b'---\ntitle: x\n---\n# A\n\n* b\n\n```\n# c\n```\n\n| d | e |\n|---|---|\n| f | "g" |\n',
    json.dumps({"a": ["ü" * 5, None]}).encode(),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A document with some of its bytes overwritten, taken out or doubled."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data) - 1)) if data else 0
        end = min(len(data), start + draw(st.integers(0, 40)))
        data[start:end] = draw(st.one_of(st.binary(max_size=20), st.just(bytes(data[start:end]) * 2)))
    return bytes(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=ENDINGS, data=st.one_of(st.binary(max_size=400), damaged()))
def test_whatever_the_bytes_there_is_a_sound_document_or_a_refusal(parser: Parser, name: str, data: bytes) -> None:
    try:
        document = parser.parse(f"a{name}", data)
    except DocumentRefused as refused:
        assert "broke its parser" not in refused.message  # noqa: PT017
        return
    assert isinstance(document, ParsedDocument)
    assert document.text.strip()
    assert normalise(document.text) == document.text
    for heading in document.headings:
        assert document.text[heading.offset :].strip()
