"""Bytes of a text file to a string, strictly: no replacement characters, no guess that the bytes contradict.

In: bytes, and the character set that the file itself declares, if any. Out: a string, not yet normalised. Raises
Refused with the byte and its position when the bytes are not text, or damaged.

Order: byte order mark, UTF-8, the declared character set, then charset-normalizer's statistical detection.
"""

from __future__ import annotations

import codecs
import contextlib
import re

from intern.parsers.limits import Refused

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    r"(utf-?(8|16|32)(-?[bl]e)?|us-ascii|ascii|latin-?1|iso-?8859-\d{1,2}|windows-?\d{3,4}|cp\d{3,4}"
    r"|koi8-[rut]|gbk|gb2312|gb18030|big5(-hkscs)?|shift[_-]?jis|euc-(jp|kr)|iso-2022-(jp|kr)|mac-?roman)"
)
_CANDIDATES = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "iso8859_2",
    "iso8859_5",
    "koi8_r",
    "shift_jis",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
    "mac_roman",
]
_CONTROL = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "mac_roman")
_MULTIBYTE = ("shift_jis", "cp932", "euc_jp", "gb18030", "big5", "cp949")
_LATIN_SHARE = 0.4  # accented letters among all letters: fewer in any language of the Latin script
_SAMPLE = 64_000
_CONTROLS_ALLOWED = 200  # one control character in so many bytes is a blemish; more is a binary file


_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_-]{3,20})""", re.I)


def declared_charset(data: bytes) -> str | None:
    """The character set that an HTML or XML file names near its start."""
    found = _CHARSET.search(data[:2048]) if data.lstrip()[:1] == b"<" else None
    return found[1].decode("ascii") if found else None


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`. `declared` is what the file says of its own character set; it is believed if it fits."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding)
    _refuse_binary(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        position = error.start
    if declared and _DECLARED.fullmatch(declared.strip().lower()):
        # A wrong label is common; then the bytes decide below.
        with contextlib.suppress(LookupError, UnicodeError):
            return data.decode(declared.strip())
    _refuse_damaged(data, position)
    return _detect(data, position)


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Refused(
            _at(
                f"begins with the mark of {encoding.upper().replace('-SIG', '')} text but is damaged", data, error.start
            )
        ) from None


def _refuse_binary(data: bytes) -> None:
    controls = sum(1 for _ in _CONTROL.finditer(data[:1_000_000]))
    if controls * _CONTROLS_ALLOWED > min(len(data), 1_000_000):
        first = _CONTROL.search(data)
        assert first is not None
        raise Refused(_at("is binary data, not text", data, first.start()))


def _refuse_damaged(data: bytes, position: int) -> None:
    """Text in another character set hardly ever holds valid UTF-8 sequences; text with many of them was UTF-8 once."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = sum(1 for character in text if character > "\x7f") - bad
    if good > 3 * bad:
        raise Refused(_at("is damaged UTF-8", data, position) + ". Save it again as UTF-8")


def _detect(data: bytes, position: int) -> str:
    from charset_normalizer import from_bytes

    # The sample is cut where the first odd byte is near, and at line ends, so that no character is cut in two.
    start = data.rfind(b"\n", 0, max(0, position - _SAMPLE // 2)) + 1
    end = data.find(b"\n", start + _SAMPLE)
    sample = data[start : end if end >= 0 else len(data)][: 4 * _SAMPLE]
    matches = list(from_bytes(sample, cp_isolation=_CANDIDATES))
    if matches:
        best = max(matches, key=lambda match: (-match.chaos, match.coherence))
        equals = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
        names = {name for match in equals for name in (match.encoding, *match.could_be_from_charset)}
        latin = sum(byte >= 0xC0 for byte in sample) < _LATIN_SHARE * sum(chr(byte).isalpha() for byte in sample)
        if latin and "cp1252" in names:
            # The detector cannot tell Western text from its cousins where texts are short; nearly always it is this.
            order = ["cp1252", "iso8859_1"]
        elif best.coherence > 0 or (best.encoding in (_LATIN if latin else _MULTIBYTE) and len(equals) <= 2):
            order = [best.encoding]
        else:
            order = []  # several readings, no evidence for one: a guess would be stored as if it were the text
        for name in order:
            with contextlib.suppress(UnicodeError):
                return data.decode(name)
    raise Refused(_at("is in a character set that cannot be recognised", data, position) + ". Save it as UTF-8")


def _at(what: str, data: bytes, position: int) -> str:
    return f"{what} (byte 0x{data[position]:02x} at position {position})"
