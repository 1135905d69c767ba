"""Names of people, by what is said around them: forms of address, greetings, introductions, closings, labels.

In: a text. Out: spans. Without a language model a name in the middle of a sentence is not found: that is what the
optional spaCy model is for. The contexts are English, with the common ones of German, French, Spanish and Italian.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import regex  # type: ignore[import-untyped]

from intern.learning.privacy.recognisers import LIKELY, PLAIN, Span, spanning
from intern.learning.privacy.recognisers.words import NO_NAMES

_NOT_AFTER_NAME_IS = NO_NAMES | {
    *("wrong", "incorrect", "correct", "missing", "misspelled", "misspelt", "spelled", "spelt", "different", "still"),
    *("being", "changed", "listed", "required", "needed", "empty", "invalid", "unknown", "already", "never", "written"),
    *("shown", "displayed", "used", "taken", "called", "longer", "too", "long", "short"),
}

_WORD = r"(?:\p{Lu}['’])?\p{Lu}[\p{L}\p{M}]{0,30}+(?:['’-](?!s\b)\p{L}[\p{L}\p{M}]{0,30}+){0,3}+"
_SMALL = r"(?:van|von|vom|der|den|de|da|di|do|dos|das|del|della|du|la|le|el|al|bin|binti|ibn|ben|ter|ten|te|zu|af)"
_PART = rf"(?:\p{{Lu}}\.(?=[ \t])|{_WORD})"
_NEXT = rf"[ \t]+(?:{_SMALL}[ \t]+){{0,2}}{_PART}"
_NAME = rf"{_PART}(?:{_NEXT}){{0,3}}"
_FULL = rf"{_PART}(?:{_NEXT}){{1,3}}"  # at least two parts
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Mx|Mister|Dr|Prof|Professor|Doctor|Herrn?|Frau|Mme|Mlle|Monsieur|Madame|Señora?|Sra?|Signora?|"
    r"Sig|Pan|Pani|(?i:mrs?|ms|dr|prof)(?=\.))\b\.?(?:\s+(?:Dr|Prof)\.?)?"
)
_TITLED = rf"(?:{_TITLE}\s+)?"
_GREETINGS = (
    r"(?i:dear|hi|hello|hey|greetings|good\s+(?:morning|afternoon|evening|day)|hallo|moin|guten\s+tag|liebe[rs]?|"
    r"sehr\s+geehrte[rs]?|bonjour|cher|ch[eè]re|salut|hola|estimad[oa]s?|querid[oa]|ciao|gentile|buongiorno|"
    r"cze[sś][cć]|witaj)"
)
_CLOSINGS = (
    r"(?i:(?:with[ ])?(?:(?:best|kind|kindest|warm|warmest|many|friendly)[ ])?(?:regards|wishes|greetings|thanks)|best|"
    r"sincerely|yours(?:\s+(?:truly|sincerely|faithfully))?|respectfully|cheers|thanks(?:\s+[\p{L} ]{1,25})?|"
    r"thank\s+you(?:\s+[\p{L} ]{1,25})?|all\s+the\s+best|take\s+care|mit\s+freundlichen\s+gr[uü][sß]+en|"
    r"(?:viele|liebe|beste|herzliche)\s+gr[uü][sß]+e|mfg|lg|vg|cordialement|bien\s+[àa]\s+vous|saludos|un\s+saludo|"
    r"atentamente|cordiali\s+saluti|pozdrawiam)"
)
_FINISHED = r"(?<=\S\S[.!?)]+)(?<!(?:^|\n)[ \t]*\d{1,3}[.)])"  # "10. Berlin" is an item of a list
_SHORT_CLOSING = r"(?:[-–—][ \t]*)?(?:(?i:thx|tx|ty|gr\.?|gru(?:ß|ss)|lg|vg|mfg)[ \t,]+)?"
_LABELS = (
    r"(?i:(?:full|first|last|family|given|middle|maiden|user|contact|customer|client|patient|employee|guest|candidate|"
    r"applicant|account|card\s*holder|passenger|student|tenant|owner|buyer|seller|insured|recipient|sender|driver)"
    r"(?:[’']s)?\s*name|surname|forename|vorname|nachname|nom|pr[eé]nom|nombre|apellidos?|cognome|contact\s+person|"
    r"card\s?holder|account\s+holder|policy\s*holder|beneficiary|patient|passenger|candidate|applicant|interviewe[er]|"
    r"attn|attention|c/o|(?:prepared|written|approved|reviewed|reported|submitted|requested|directed|created)\s+by|"
    r"signed(?:\s+by)?|author|assignee|reporter|sender|recipient|(?:account|case|line)\s+manager|"
    r"ansprechpartner(?:in)?|z\.\s?hd\.)"
)
_KIN = (
    r"(?:husband|wife|son|daughter|brother|sister|mother|father|friend|colleague|boss|manager|supervisor|doctor|lawyer|"
    r"assistant|partner|neighbou?r|flatmate|roommate)"
)

_AFTER_TITLE = regex.compile(rf"(?<![\w.]){_TITLE}\s+(?P<name>{_NAME})")
_LEADING_TITLE = regex.compile(rf"{_TITLE}\s+")
_LOWER_INTRODUCTION = regex.compile(
    r"(?i)\bmy\s+(?:full\s+)?name(?:[’']s|\s+is)\s+(?P<name>\p{L}[\p{L}'’-]+(?:\s+\p{L}[\p{L}'’-]+){0,2})"
    r"(?=\s*(?:[.,;!?\n]|$|\band\b))"
)
_LOCAL_PART = regex.compile(r"([\p{L}\d._+-]{3,64})@")
_TWO_WORDS = regex.compile(rf"{_WORD}[ \t]+(?:\p{{Lu}}\.?[ \t]+)?(?:{_SMALL}[ \t]+){{0,2}}{_WORD}")

_PLAIN = tuple(
    regex.compile(form)
    for form in (
        # Dear Ms Nowak, / Hi Anna and Jo,
        rf"(?:^|(?<=[\n.!?>]))[ \t>*_]{{0,9}}{_GREETINGS}[ \t,]+{_TITLED}(?P<name>{_NAME})"
        rf"(?:\s+(?:and|&|und|et|y|e)\s+(?P<other>{_NAME}))?(?=[ \t]*(?:[,!.:;\n–—]|-\s|$))",
        # My name is Anna Nowak
        rf"(?i:\b(?:(?:full\s+|first\s+|last\s+)?name(?:[’']s|\s+is|\s+was)|(?:i\s+am|i[’']m)\s+called|ich\s+hei[sß]+e|"
        rf"je\s+m[’']appelle|me\s+llamo|mi\s+chiamo|nazywam\s+si[eę]|signed))[ \t:]+{_TITLED}(?P<name>{_NAME})",
        # Kind regards,\nAnna Nowak / Thanks, Anna
        rf"(?m:^)[ \t>]*{_CLOSINGS}[ \t,.!;–-]{{0,9}}\n(?:[ \t>]{{0,9}}\n){{0,3}}[ \t>*_–-]{{0,9}}"
        rf"{_TITLED}(?P<name>{_NAME})[ \t]*(?=[\n,(|]|$)",
        r"(?i:\b(?:thanks|thank\s+you|regards|cheers|best(?:\s+(?:wishes|regards))?|sincerely|greetings|yours))"
        rf"[ \t]*[,!.–-]+[ \t]*(?:-\s*)?{_TITLED}(?P<name>{_NAME})[ \t.]*$",
        # Contact person: Anna Nowak / a line of its own, Name: Anna
        rf"(?<!\w){_LABELS}[ \t]*[:=][ \t]*[\"“]?{_TITLED}(?P<name>{_NAME})",
        rf"(?im:^[ \t>*|-]*name)[ \t*]*[:=][ \t]*{_TITLED}(?P<name>{_NAME})[ \t]*(?m:$)",
        rf"(?im:^[ \t>*]*(?:billing|shipping|delivery|postal|home)\s+address)[ \t*]*:[ \t]*\n?[ \t]*{_TITLED}"
        rf"(?P<name>{_FULL})(?=[ \t]*(?:[\n,;]|$))",
        # From: Anna Nowak <anna@...> / the head of a mail without addresses
        rf"(?im:^[ \t>*]*(?:from|to|cc|bcc|reply-to|von|an|de))[ \t*]*:[ \t\"]*{_TITLED}(?:(?P<one>{_NAME})"
        rf"(?=[\"]?[ \t]*[<\[])|(?P<name>{_FULL})(?=[ \t]*\n(?:[^\n]*\n){{0,4}}?[ \t>*]*"
        r"(?i:subject|betreff|objet|asunto)[ \t*]*:))",
        rf"(?P<name>{_FULL})[\"”]?[ \t]*[<(\[](?:mailto:)?[\w.+-]+@",
        # What is your name? It's Anna.
        r"(?i:\bname\b[^.?!\n]{0,30}\?)\s*(?:(?i:user|customer|client|caller|agent|me|answer|a)\s*:\s*)?"
        rf"(?:(?i:it[’']s|it\s+is|this\s+is)\s+)?(?P<name>{_NAME})(?=[ \t]*(?:[.,;!\n]|$))",
    )
)
_LIKELY = tuple(
    regex.compile(form)
    for form in (
        # A name alone at the very end, behind a finished sentence: so people sign informal requests.
        rf"{_FINISHED}[ \t]{{0,3}}{_SHORT_CLOSING}(?P<name>{_WORD}(?:[ \t]+(?:\p{{Lu}}\.[ \t]*)?{_WORD})?)\.?\s*$",
        rf"{_FINISHED}[ \t]{{0,3}}\n{{1,2}}[ \t]*{_SHORT_CLOSING}(?P<name>{_WORD})\s*$",
        rf"{_FINISHED}[ \t]{{1,2}}[-–—][ \t]*(?P<name>{_WORD}(?:[ \t]+{_WORD})?)[ \t]*(?=\n|$)",
        # I am Anna Nowak / this is Anna from the bakery
        r"(?i:\b(?:i\s+am|i[’']m|this\s+is|hier\s+ist|you\s+are\s+speaking\s+(?:to|with)))\s+"
        rf"{_TITLED}(?:(?P<name>{_FULL})|(?P<one>{_NAME})(?=,?\s+(?i:from|calling|speaking|writing|here\b)))",
        # on behalf of Anna Nowak / it is under Anna Nowak / my wife, Anna Nowak
        r"(?i:\b(?:on\s+behalf\s+of|in\s+the\s+name\s+of|under\s+the\s+name(?:\s+of)?|"
        r"(?:it[’']s|is|booked|registered|listed|filed|made)\s+under|name\b[^.\n]{0,60}\bto|"
        r"(?:spoke|speak|speaking|talk|talked|talking|met|meeting|chat|chatted)\s+(?:with|to)|"
        rf"my\s+{_KIN},?|married\s+to|named|addressed\s+to))\s+{_TITLED}(?P<name>{_FULL})",
        rf"(?i:\bmy\s+{_KIN},?)\s+(?P<name>{_WORD})(?=[\s,.!?’'])",
        rf"(?i:\badd(?:ing)?|remov(?:e|ing))\s+(?P<name>{_FULL})\s+(?i:as\s+(?:an?|my|the)\b|to\s+(?:my|the|our)\b)",
        # Anna Nowak's address / Anna Nowak lives at
        rf"(?P<name>{_NAME})['’]s?\s+(?i:(?:(?:home|new|old|email|e-mail|phone|mobile|postal|date|bank|current)\s+)*"
        r"(?:address|phone|number|mobile|birthday|e-?mail|passport|salary|account|contract|cv|r[eé]sum[eé]|daughter|son|"
        r"wife|husband|kids?|mother|father|parents|of\s+birth)\b)",
        rf"(?P<name>{_NAME})\s+(?i:lives\s+(?:at|in|on)|was\s+born|resides\s+(?:at|in)|passed\s+away)\b",
    )
)


def find(text: str) -> Iterator[Span]:
    """Every name that its surroundings give away."""
    for match in _AFTER_TITLE.finditer(text):
        yield from _named(text, match.start("name"), match.end("name"), PLAIN, whole=False)
    for patterns, weight in ((_PLAIN, PLAIN), (_LIKELY, LIKELY)):
        for pattern in patterns:
            for match in pattern.finditer(text):
                for group, value in match.groupdict().items():
                    if value:
                        yield from _named(text, match.start(group), match.end(group), weight, whole=True)
    for match in _LOWER_INTRODUCTION.finditer(text):
        if not any(word in _NOT_AFTER_NAME_IS for word in match.group("name").casefold().split()):
            yield spanning("PERSON", match, LIKELY, "name")
    yield from _named_in_mail(text)


def _named(text: str, start: int, end: int, weight: int, *, whole: bool) -> Iterator[Span]:
    """The span up to the first word that belongs to no name. `whole`: nothing at all if there is such a word."""
    if title := _LEADING_TITLE.match(text, start, end):
        start = title.end()
    good = start
    for word in regex.finditer(r"\S+", text, pos=start, endpos=end):
        if word.group().casefold().strip(".,'’") in NO_NAMES:
            if whole:
                return
            break
        good = word.end()
    name = text[start:good]
    if any(c.islower() for c in name) or " " in name:  # a lone word in capitals is rather an abbreviation
        yield Span("PERSON", start, good, weight)


def _named_in_mail(text: str) -> Iterator[Span]:
    """`Anna Nowak`, where the text has anna.nowak@ too."""
    locals_ = [_plain(match.group(1)) for match in _LOCAL_PART.finditer(text)]
    for match in _TWO_WORDS.finditer(text) if locals_ else ():
        words = [_plain(word) for word in regex.findall(r"\p{L}{3,}", match.group())]
        if any(sum(word in local for word in words) > 1 for local in locals_):
            yield spanning("PERSON", match, PLAIN)


def _plain(text: str) -> str:
    """Small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
