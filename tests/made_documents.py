"""Documents made by hand for tests: PDF, DOCX from raw XML, and ZIPs that are up to no good."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

Line = tuple[float, str]  # size of type in points, text


def pdf(pages: Sequence[Sequence[Line]], *, trailer: str = "", title: str | None = None, shared: bool = False) -> bytes:
    """A PDF with these lines on its pages, 14 points apart. `shared`: every page shows the first page's content."""
    objects: dict[int, bytes] = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    objects[3] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    kids = []
    number = 4
    content = 0
    for lines in pages:
        if not (shared and content):
            content = number
            number += 1
            objects[content] = _stream(_show(lines))
        objects[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>"
        ).encode()
        kids.append(f"{number} 0 R")
        number += 1
    objects[2] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>".encode()
    if title is not None:
        objects[number] = f"<< /Title ({title}) >>".encode()
        trailer += f" /Info {number} 0 R"
    return assemble(objects, trailer)


def pdf_with_stream(stream: bytes) -> bytes:
    """A PDF of one page whose content is `stream`, deflated."""
    data = zlib.compress(stream, 9)
    return assemble(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            4: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
            b"/Resources << /Font << /F 3 0 R >> >> >>",
            5: b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(data), data),
        }
    )


def assemble(objects: Mapping[int, bytes], trailer: str = "") -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = {}
    for number, body in sorted(objects.items()):
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    xref = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets.get(number, 0)
    out += f"trailer\n<< /Size {size} /Root 1 0 R {trailer} >>\nstartxref\n{xref}\n%%EOF\n".encode()
    return bytes(out)


def _show(lines: Sequence[Line]) -> bytes:
    out, y = [], 760.0
    for size, text in lines:
        y -= max(14.0, size * 1.3)
        escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
        out.append(f"BT /F {size} Tf 50 {y:.1f} Td ({escaped}) Tj ET")
    return "\n".join(out).encode("latin-1")


def _stream(data: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data)


RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body: str, *, prolog: str = "", parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """A DOCX whose document has `body` (WordprocessingML, prefix w), with other parts beside it."""
    document = f"{prolog}<w:document {WORD}><w:body>{body}</w:body></w:document>"
    return zipped({"_rels/.rels": RELATIONS, "word/document.xml": document, **(parts or {})})


def paragraph(text: str, properties: str = "") -> str:
    return f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()
