"""What is written in digits and fixed forms: addresses of mail, telephones, cards, accounts, documents, birth dates.

In: a text. Out: spans. A form that ordinary business numbers share (orders, amounts, dates) counts only with a valid
checksum or with a word beside it that says what it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import phonenumbers
import regex  # type: ignore[import-untyped]

from intern.learning.privacy.recognisers import COVER, LIKELY, PLAIN, PROVEN, Span, spanning

_MONTHS = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|f[eé]vr(?:ier)?|mar(?:ch|s|zo)?|m[aä]rz|apr(?:il)?|avr(?:il)?|may|mai|"
    r"june?|juni|juin|july?|juli|juil(?:let)?|aug(?:ust)?|août|sep(?:t(?:ember|embre)?)?|o[ck]t(?:ober|obre)?|"
    r"nov(?:ember|embre)?|de[cz](?:ember)?|d[eé]cembre|enero|febrero|abril|mayo|junio|julio|agosto|septiembre|octubre|"
    r"noviembre|diciembre)\b\.?"
)
DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ]\d{4}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2}|"
    rf"\d{{1,2}}(?:st|nd|rd|th)?\.?(?:\s+of)?[\s-]*{_MONTHS}[\s,-]*\d{{2,4}}|{_MONTHS}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}})"
    r"(?!\d)"
)

_EMAIL = regex.compile(
    r"(?<![\w.+'-])[\w+'-]+(?:\.[\w+'-]+)*(?:@|%40)(?:\w(?:[\w-]*\w)?\.)+\p{L}[\p{L}\d-]*\p{L}(?!\w)"
)
_SPELLED_EMAIL = regex.compile(
    r"(?i)\b[\w.+-]+\s*[\[({]\s*at\s*[\])}]\s*[\w-]+(?:(?:\.|\s*[\[({]\s*dot\s*[\])}]\s*|\s+dot\s+)[\w-]+)+"
)

_DIGITS = regex.compile(
    r"(?<![\w.:/@$€£¥%+-])(?<!\d,)(?:\+|00)?\(?\d(?:(?:[ \u00a0().\-/]{1,2}| - )?\d){5,17}(?=x\d|[^\w@%]|$)(?![.,]\d)"
)
_EXTENSION = regex.compile(r"(?i)\s?(?:x|ext\.?|extension|durchwahl)\s?\d{1,6}\b")
_PHONE_BEFORE = regex.compile(
    r"(?i)\b(?:\w*phone|tel(?:\.|e[fp]h?on\w*)?|t[eé]l[eé](?:f|ph)on[eo]|mobile?|m[oó]vil|handy|cell|whats\s?app|signal|sms|"
    r"fax|call|calls|called|dial|ring|text|reach\w*|hotline|direct(?:\s+line)?|desk|office|contact|at|on)\b"
    r"(?:\s+(?:number|no\.?|nr\.?|me|us|him|her|them|is|it|the|my|our|at|on|back|via|by|now|to|for|work|home|new))*"
    r"[\s:.=#\-–/(]*$"
)
_WEAK_BEFORE = regex.compile(r"(?i)(?<!\w)(?:at|on)[\s:]*$")
_PHONE_AFTER = regex.compile(r"(?i)^\s*[-,(]?\s*(?:office|fax|mobile|cell|home|work|phone|direct)\b")
_OTHER_NUMBER = regex.compile(
    r"(?i)(?:order|invoice|bill|ticket|case|ref(?:erence)?|policy|claim|po|tracking|booking|item|sku|art(?:icle)?|"
    r"amount|total|sum|version|isbn|issn|ean|upc|gtin|serial|part|model|customer|account|id|contract|batch|lot|"
    r"card|nr|vat|page|pages|code|transaction|receipt|quote|job|incident|request|bug|issue|release)"
    r"[\s:.=#\-–]*(?:(?:number|no|nr|num|id)\b[\s:.=#\-–]*)?(?:is\s+)?$"
)
_NEVER_PHONE = regex.compile(
    r"(?:\d{1,3}(?:[ . ]\d{3})+|\d+\.\d{1,2}|(?:19|20)\d\d\s?[-/ ]\s?(?:19|20)\d\d|\d{1,3}(?:\.\d{1,3}){3}|"
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})(?:\s.*)?)"
)
_NATIONAL = regex.compile(r"(?:1[-. ])?\(?[2-9]\d{2}\)?[-. ]\s?\d{3}[-. ]\d{4}|\(?0[\d ().\-/]+|\(\d{2,5}\)[\d .\-]+")
_REGIONS = ("US", "GB", "FR", "DE", "ES", "IT", "AU", "IN")

_CARD = regex.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){11,18}(?!\w|[-.,]\d)")
_CARD_BEFORE = regex.compile(
    r"(?i)\b(?:cards?|visa|master\s?card|maestro|amex|american express|pan|cc)\b[^.!?\n]{0,25}$"
)
# Issuer ranges (ISO/IEC 7812) with their lengths.
_ISSUERS = regex.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[689]\d)\d{11,13}|35(?:2[89]|[3-8]\d)\d{12}|(?:2131|1800)\d{11}|6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}"
)

_VALUE = r"(?P<value>(?:[A-Z]{0,4}\d[A-Z\d]*|[A-Z]{1,3}(?=[ -]\d))(?:[ .\-/]?(?:[A-Z]{0,3}\d[A-Z\d]*|[A-Z](?![\w])))*)"
_LABELS: dict[str, str] = {
    "NATIONAL_ID": r"social\s+(?:security|insurance)|ssn|s\.?i\.?n\.?|national\s+insurance|ni\s+number|nino|nhs|itin|"
    r"tin|tax(?:payer)?[\s-]*id(?:entification)?|national\s+id(?:entity)?(?:\s+card)?|identity\s+card|id[\s-]card|"
    r"aadhaar|pesel|personnummer|codice\s+fiscale|dni|nie|nif|cpf|curp|medicare|medicaid|bsn|avs|ahv|personal\s+id|"
    r"steuer-?id(?:nr)?|sozialversicherung\w*|personalausweis\w*|health\s+insurance|resident\s+permit",
    "PASSPORT": r"passport|reisepass\w*|passeport|pasaporte|passaporto",
    "DRIVING_LICENCE": r"driv(?:er|ing)[’']?s?[’']?\s+licen[cs]e|driver\s+id|dl|f[uü]hrerschein\w*|"
    r"permis\s+de\s+conduire",
    "BANK_ACCOUNT": r"(?:bank\s+)?account\s+(?:number|no\b|nr\b|\#)|acct|routing|sort\s+code|kontonummer|bsb",
    "IBAN": r"iban",
}
_LABELLED = {
    kind: regex.compile(
        rf"(?i:(?<![\w])(?:{label})(?![\w]))(?i:[\s:.=\#\-–(]*(?:number|no|nr|num|id|code|card|is|was|are|=|it[’']s)\b)*"
        rf"[\s:.=\#\-–(]*{_VALUE}(?![\w@])"
    )
    for kind, label in _LABELS.items()
}
_IBAN = regex.compile(r"(?i)\b[a-z]{2}\d{2}(?:[ -]?[a-z\d]{4}){2,7}(?:[ -]?[a-z\d]{1,3})?\b")
_CVV = regex.compile(r"(?i)\b(?:cvv2?|cvc2?|security\s+code)[\s:=]*(?:is\s+)?(?P<value>\d{3,4})\b")

_BIRTH = regex.compile(
    r"(?i)\b(?:born(?:\s+on)?|date\s+of\s+birth|d\.?\s?o\.?\s?b\b\.?|birth\s?-?date|birthday|geboren(?:\s+am)?|geb\.|"
    r"geburtsdatum|n[eé]e?\s+le|date\s+de\s+naissance|fecha\s+de\s+nacimiento|nacid[oa]\s+el|data\s+di\s+nascita|"
    rf"nat[oa]\s+il|data\s+urodzenia|ur\.)(?:[^\d{COVER}]{{0,30}}?)(?P<value>{DATE})"
)

_CREDENTIALS = regex.compile(r"(?i)\b[a-z][a-z\d+.-]{1,15}://(?P<value>[^\s/@:<>\"']{1,80}:[^\s/@<>\"']{1,120})@")
_PROFILE = regex.compile(
    r"(?i)\b(?:https?://)?(?:[a-z]{2,3}\.)?(?:linkedin\.com/(?:in|pub)|facebook\.com|instagram\.com|twitter\.com|x\.com|"
    r"t\.me|wa\.me|github\.com|gitlab\.com|tiktok\.com|xing\.com/profile|youtube\.com)/(?P<value>@?[\w.%-]*\w)"
)
_ETHEREUM = regex.compile(r"\b0x[a-fA-F\d]{40}\b")
_IPV4 = regex.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = regex.compile(r"(?<![\w:.])(?=[\da-fA-F:]*:[\da-fA-F:]*:)[\da-fA-F:]{4,39}(?![\w:])")
_VERSION_BEFORE = regex.compile(r"(?i)(?:version|release|build|firmware|v|ver\.?|rev\.?)[\s:]*$")


def find(text: str) -> Iterator[Span]:
    """Everything this module knows, overlapping where it is ambiguous."""
    yield from _emails(text)
    yield from _cards(text)
    yield from _ibans(text)
    yield from _labelled(text)
    yield from _phones(text)
    yield from _births(text)
    yield from _network(text)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812-1, annex B."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _emails(text: str) -> Iterator[Span]:
    if "@" in text or "%40" in text:
        for match in _EMAIL.finditer(text):
            yield spanning("EMAIL", match, PROVEN)
    for match in _SPELLED_EMAIL.finditer(text):
        yield spanning("EMAIL", match, PLAIN)


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = "".join(c for c in match.group() if c.isdigit())
        said = _CARD_BEFORE.search(text, max(0, match.start() - 60), match.start()) is not None
        if len(set(digits)) < 2:
            continue
        if luhn(digits) and (said or _ISSUERS.fullmatch(digits)):
            yield spanning("CREDIT_CARD", match, PROVEN)
        elif said:
            yield spanning("CREDIT_CARD", match, PLAIN)
    for match in _CVV.finditer(text):
        yield spanning("CREDIT_CARD", match, PROVEN, "value")


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        words = list(regex.finditer(r"[^ -]+", text, pos=match.start(), endpos=match.end()))
        for last in range(len(words), 0, -1):  # what follows may look like one more group
            value = text[match.start() : words[last - 1].end()]
            if iban(value):
                yield Span("IBAN", match.start(), match.start() + len(value), PROVEN)
                break


def iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616, ISO/IEC 7064 MOD 97-10) and the length is possible."""
    value = regex.sub(r"[ -]", "", text).upper()
    return 15 <= len(value) <= 34 and int("".join(str(int(c, 36)) for c in value[4:] + value[:4])) % 97 == 1


def _labelled(text: str) -> Iterator[Span]:
    for kind, pattern in _LABELLED.items():
        for match in pattern.finditer(text):
            value = match.group("value")
            is_date = kind != "BANK_ACCOUNT" and regex.fullmatch(DATE, value)  # a sort code looks like one
            if len(value) >= 5 and sum(c.isdigit() for c in value) >= 4 and not is_date:
                yield spanning(kind, match, PROVEN, "value")


def _phones(text: str) -> Iterator[Span]:
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        while text[end - 1] in " (.-/":
            end -= 1
        number = text[start:end]
        if number.count("(") != number.count(")"):
            if not number.startswith("("):
                continue
            start, number = start + 1, number[1:]
        digits = sum(c.isdigit() for c in number)
        if not 6 <= digits <= 15 or ".." in number or _NEVER_PHONE.fullmatch(number):
            continue
        weight = _phone_weight(text, number, digits, start, end)
        if weight:
            extension = _EXTENSION.match(text, end)
            yield Span("PHONE", start, extension.end() if extension else end, weight)


def _phone_weight(text: str, number: str, digits: int, start: int, end: int) -> int:
    before = text[max(0, start - 45) : start]
    if _OTHER_NUMBER.search(before):
        return 0
    international = number.startswith(("+", "00"))
    if international and digits >= 8:
        return PROVEN if _valid(number.replace("00", "+", 1) if number.startswith("00") else number, None) else PLAIN
    said = _PHONE_BEFORE.search(before)
    if said and _WEAK_BEFORE.search(before):  # "at 1234567" may be anything
        said = None if number.isdigit() else said
    if said or _PHONE_AFTER.match(text[end : end + 20]):
        return PLAIN
    if digits >= 9 and not number.isdigit() and _NATIONAL.fullmatch(number):
        return LIKELY if any(_valid(number, region) for region in _REGIONS) else 0
    return 0


def _valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _births(text: str) -> Iterator[Span]:
    for match in _BIRTH.finditer(text):
        yield spanning("DATE_OF_BIRTH", match, PROVEN, "value")


def _network(text: str) -> Iterator[Span]:
    if "://" in text:
        for match in _CREDENTIALS.finditer(text):
            yield spanning("CREDENTIALS", match, PROVEN + 1, "value")  # not a mail address, though it looks like one
    if "/" in text:
        for match in _PROFILE.finditer(text):
            yield spanning("PROFILE", match, PLAIN, "value")
    if "0x" in text:
        for match in _ETHEREUM.finditer(text):
            yield spanning("CRYPTO_WALLET", match, PROVEN)
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        says_version = _VERSION_BEFORE.search(text, max(0, match.start() - 20), match.start())
        # These name no machine of anybody's.
        general = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
        if not says_version and not general and not match.group().startswith("255."):
            yield spanning("IP_ADDRESS", match, PLAIN)
