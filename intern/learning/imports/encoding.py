"""The bytes of a file as text, and the name of the encoding that they are in, for people to judge.

In: bytes. Out: the text and the encoding's name. What `intern.parsers.decode` recognises is read; what is no text, is
damaged, or mixes two encodings is refused with the line where it shows. Knows nothing of rows.
"""

from __future__ import annotations

import re

from intern.errors import InvalidInput
from intern.parsers.decode import decode
from intern.parsers.limits import Refused

_PROGRAMS = (
    (b"PK\x03\x04", "a spreadsheet or zip file; save the sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet; save the sheet as CSV in UTF-8"),
    (b"PAR1", "a Parquet file; write it as JSON lines"),
    (b"\x1f\x8b", "compressed; unpack it first"),
)
_WESTERN = ("cp1252", "iso8859_1", "cp1250", "cp1254", "cp1257", "iso8859_2", "mac_roman")
_OTHERS = ("cp1251", "koi8_r", "iso8859_5", "cp1253", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "cp949")


def read_text(data: bytes) -> tuple[str, str]:
    """(text, name of the encoding). Raises InvalidInput with the line that is no text."""
    for mark, what in _PROGRAMS:
        if data.startswith(mark):
            raise InvalidInput(f"The file is {what}.", param="file")
    if _is_bare_utf16(data):
        raise InvalidInput("The file is UTF-16 without its byte order mark; save it as UTF-8.", param="file")
    try:
        text = decode(data)
    except Refused as error:
        found = re.search(r"position (\d+)", str(error))
        line = _lines_before(data, int(found[1])) + 1 if found else 1
        raise InvalidInput(f"line {line}: the file {error}.", param="file") from error
    encoding = _encoding(data, text)
    if encoding in _WESTERN:
        _refuse_mixed(data)
    return text, {"cp1252": "windows-1252", "iso8859_1": "iso-8859-1"}.get(encoding, encoding)


def _is_bare_utf16(data: bytes) -> bool:
    """Whether nearly every second byte is NUL, and no other: Western text in UTF-16."""
    sample = data[:1000]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    return (
        not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0")) and even * odd == 0 and even + odd > len(sample) // 3
    )


def _lines_before(data: bytes, position: int) -> int:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data[:position].decode("utf-16", "replace").count("\n")
    return data.count(b"\n", 0, position)


def _encoding(data: bytes, text: str) -> str:
    for mark, name in ((b"\xef\xbb\xbf", "utf-8 with byte order mark"), (b"\xff\xfe\0\0", "utf-32")):
        if data.startswith(mark):
            return name
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for name in ("utf-8", *_WESTERN, *_OTHERS):
        try:
            if text.encode(name) == data:
                return name
        except UnicodeError:
            continue
    return "another encoding than utf-8"


def _refuse_mixed(data: bytes) -> None:
    """Text of a Western encoding hardly ever holds valid UTF-8 beyond ASCII: then two files were joined."""
    utf8: int | None = None
    other: int | None = None
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.isascii():
            continue
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            other = other or number
        else:
            utf8 = utf8 or number
        if utf8 and other:
            raise InvalidInput(
                f"line {max(utf8, other)}: in another encoding than line {min(utf8, other)}: one is UTF-8, one is not. "
                "Save the whole file as UTF-8.",
                param="file",
            )
