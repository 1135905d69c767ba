"""A mail message (.eml): subject, who and when, the body, and the names of the attachments.

In: bytes of RFC 5322 with MIME. Out: Parsed. The plain body is preferred, HTML is used where there is no other.
Attachments are named, never opened; remote content is never fetched.
"""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message
from typing import cast

from intern.parsers import html
from intern.parsers.decode import decode
from intern.parsers.limits import Limits, Refused
from intern.parsers.text import MAX_TITLE, Parsed, TextBuilder, one_line

_MAX_PARTS = 1_000
_MAX_FIELD = 2_000


def read(data: bytes, limits: Limits) -> Parsed:
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        texts, attachments = _parts(message)
    except RecursionError:
        raise Refused("has parts nested too deeply") from None
    builder = TextBuilder(limits)
    subject = _field(message, "subject")[:MAX_TITLE]
    builder.heading(1, subject)
    for name in ("From", "To", "Cc", "Date"):
        if value := _field(message, name):
            builder.line(f"{name}: {value}")
    for media_type, content in texts:
        if media_type == "text/html":
            if content.strip():
                html.read_into(builder, content)
        else:
            builder.paragraph(content)
    if attachments:
        builder.paragraph("Attachments: " + ", ".join(attachments))
    return builder.finish("message/rfc822", subject)


def _parts(message: EmailMessage) -> tuple[list[tuple[str, str]], list[str]]:
    """The bodies as (media type, text), and the attachments' names."""
    plain: list[str] = []
    rich: list[str] = []
    attachments: list[str] = []
    waiting: list[Message] = [message]
    seen = 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > _MAX_PARTS:
            raise Refused(f"has more than {_MAX_PARTS:,} parts")
        media_type = part.get_content_type()
        if part.is_multipart() and media_type != "message/rfc822":
            waiting.extend(reversed(cast(list[Message], part.get_payload())))
        elif part.get_content_disposition() == "attachment" or media_type not in ("text/plain", "text/html"):
            attachments.append(_name(part))
        else:
            (plain if media_type == "text/plain" else rich).append(_text(part))
    if any(text.strip() for text in plain):
        return [("text/plain", text) for text in plain], attachments
    return [("text/html", text) for text in rich], attachments


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return ""
    try:
        charset = part.get_content_charset()
    except (LookupError, UnicodeError, ValueError):
        charset = None
    return decode(payload, charset)


def _name(part: Message) -> str:
    try:
        name = one_line(part.get_filename() or "")
    except Exception:  # the header parser raises many things on malformed names
        name = ""
    if not name and part.get_content_type() == "message/rfc822":
        return "a forwarded message"
    return name[:MAX_TITLE] or f"unnamed ({part.get_content_type()})"


def _field(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name, ""))
    except Exception:  # as above: a header that cannot be decoded is no reason to lose the mail
        value = next((str(raw) for key, raw in message.raw_items() if key.lower() == name.lower()), "")
    return one_line(value)[:_MAX_FIELD]
