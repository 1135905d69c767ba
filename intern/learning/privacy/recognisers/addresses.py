"""Postal addresses, by the shapes that streets, boxes and postcodes are written in, and by the words before them.

In: a text. Out: spans. A town or a country alone is no address; a street needs its number.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex  # type: ignore[import-untyped]

from intern.learning.privacy.recognisers import LIKELY, PLAIN, Span

_SMALL = (
    r"(?:de|del|della|delle|di|do|da|dos|das|des|du|d[’']|la|las|le|les|el|los|al|van|von|vom|zum|zur|am|der|den|the|of|"
    r"and|na)"
)
_SHORT = r"(?:(?:St|Ave|Av|Rd|Blvd|Ln|Dr|Ct|Sq|Pl|Apt|Ste|Str|Bldg|Fl|Rm|No|Nr|Mt|Ft|N|S|E|W|u|ul|al|pl|os|krt)\.)"
_WORD = rf"(?:{_SHORT}|\p{{Lu}}[\p{{L}}\p{{M}}’'-]*|\d{{1,3}}(?:st|nd|rd|th)\b|{_SMALL}\b)"
_WORDS = rf"{_WORD}(?:[ \t]+{_WORD}){{0,5}}"
_NUMBER = r"(?:(?:[Nn][°ºo]\.?\s?)?\d{1,6}(?:[-/]\d{1,5})?\s?[a-zA-Z]?\b)"
_TOKEN = rf"(?:{_WORD}|\#?\d[\d-]*[A-Za-z]?\b\.?)"
# From one part to the next: on the same line, or on the next one unless that is blank or begins with a label.
_BREAK = r"(?:[ \t]*,?[ \t]+|[ \t]*,?\n(?![ \t>]*(?:\n|[\p{L} ]{1,25}:))[ \t>,]*|,)"
_UNIT = rf"{_BREAK}(?i:apt|apartment|suite|ste|unit|flat|floor|room|rm|box|bldg|building|\#)\.?[ \t]*\d[\w-]{{0,6}}\b"
_LABELS = (
    r"(?:Invoice|Order|Date|Due|Phone|Tel|Telephone|Fax|Mobile|E-?mail|No|Nr|Ref|Reference|Customer|Account|VAT|Total|Subtotal|"
    r"Amount|Bill|Page|Quote|Ticket|Case|Policy|Claim|Dear|Please|Thank|Thanks|Regards|Hi|Hello|I|We|My|Our|The|It|If|And|But|So)\b"
)
_PROPER = rf"(?!(?i:{_LABELS}))\p{{Lu}}[\p{{L}}\p{{M}}’'.-]*"
_POSTAL = (
    r"(?:\d{5}-\d{4}|\d{4}-\d{3}|\d{4}[ ]?[A-Z]{2}|\d{2}-\d{3}|\d{3}[ ]\d{2}|\d{4,6}|"
    r"[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d)\b"
)
_TOWNS = rf"(?:,[ \t]*{_PROPER}(?:[ \t-]{_PROPER}){{0,2}})"
_REST = (
    rf"(?:{_UNIT}){{0,2}}"
    # Town and postcode in either order, over a few lines; or towns after commas; or what ends the line behind a unit.
    rf"(?:{_BREAK}(?:\p{{Lu}}{{1,2}}-)?(?:{_PROPER}{_BREAK}){{0,5}}{_POSTAL}(?:[ \t]+{_PROPER}){{0,3}}{_TOWNS}?"
    rf"|{_TOWNS}{{1,3}}"
    rf"|(?<=\d)[ \t]+(?:{_PROPER}[ \t]+){{0,2}}{_PROPER}(?=[ \t]*(?:[.,;?!\n]|$)))?"
)
_ENGLISH = (
    r"(?:Street|Str|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Square|Sq|Way|Place|Pl|Terrace|Ter|Parkway|"
    r"Pkwy|Circle|Cir|Highway|Hwy|Close|Crescent|Cres|Gardens|Grove|Mews|Quay|Alley|Trail|Turnpike|Pike|Esplanade|Expressway|"
    r"Freeway|Streets|Roads|Avenues|Squares|Parks?|Hills?|Ridge|Row|Walk)\b\.?"
)
_SUFFIX = (
    r"(?:stra(?:ß|ss)e|str\.|weg|gasse|platz|allee|damm|ufer|chaussee|gade|vej|veien|vegen|vei|v[äa]gen|gatan|gata|katu|tie|"
    r"kuja|polku|laan|straat|plein|kade|gracht|dijk|singel|stræde|gränd|torget|torvet|braut|stígur|vegur|ulica|utca)"
)
_PREFIX = (
    r"(?:Rue|Avenue|Av\.|Boulevard|Bd\.?|Place|Chemin|All[ée]e|Impasse|Quai|Cours|Route|Via|Viale|Vicolo|Piazza|Corso|Strada|"
    r"Contrada|Calle|C/|Avenida|Avda\.?|Paseo|Plaza|Carrera|Camino|Carretera|Rua|Travessa|Pra[çc]a|Largo|Estrada|Ulica|ul\.|"
    r"al\.|os\.|pl\.|Bulevardul|Jalan|Jl\.|Strada\s+Provinciale|Am|An\s+der|Auf\s+der|Zum|Zur)"
)
_LOWER_PREFIX = r"(?:rue|avenue|boulevard|chemin|all[ée]e|impasse|quai|calle|rua|avenida|via)"  # behind a number
_LATER = (
    r"(?:u\.|utca|út|útja|tér|krt\.|ulica|Weg|Stra(?:ß|ss)e|Str\.|Gasse|Allee|Platz|Ring|vej|gade|gate|tie|katu|laan|"
    r"straat)"
)
_TOKENS = rf"{_TOKEN}(?:[ \t]+{_TOKEN}){{0,6}}"

_FIRST = r"(?<![\w.,])(?:\d{1,6}[ \t]+)?"
_BEFORE = r"(?:\b\d{1,6},?[ \t]+)?"
_FORMS = tuple(
    regex.compile(form)
    for form in (
        rf"{_FIRST}{_NUMBER},?[ \t]+(?:{_WORD}[ \t]+){{1,5}}{_ENGLISH}(?:[ \t]+[NSEW]{{1,2}}\b\.?)?{_REST}",
        rf"{_BEFORE}\b\p{{Lu}}[\p{{L}}\p{{M}}-]*{_SUFFIX},?[ ]{{0,2}}{_NUMBER}{_REST}",
        rf"{_BEFORE}\b(?:\p{{Lu}}[\p{{L}}\p{{M}}-]*[ \t]+){{1,3}}{_LATER}[ ]{{0,2}}{_NUMBER}\.?{_REST}",
        rf"{_FIRST}{_NUMBER},?[ \t]+(?:bis,?[ \t]+)?(?:{_PREFIX}|{_LOWER_PREFIX})[ \t]+{_WORDS}{_REST}",
        rf"{_BEFORE}(?<!\w){_PREFIX}[ \t]+{_WORDS},?[ \t]+{_NUMBER}{_REST}",
        # A unit behind a number makes a street of whatever stands before.
        rf"{_BEFORE}\b(?:{_PROPER}[ \t]+){{1,4}}\d{{1,5}}[a-z]?\.?{_UNIT}{_REST}",
        rf"(?i:\bcorner\s+of)[ \t]+{_TOKENS}[ \t]+(?:and|&)[ \t]+{_TOKENS}",
        r"(?i:\b(?:p\.?\s?o\.?\s?box|post\s?box|postfach|apartado|casilla|boîte\s+postale|b\.p\.))[ \t]*\d{1,6}\b"
        rf"{_REST}",
        r"(?i:\b(?:psc|unit|cmr)[ \t]+\d{1,5},?[ \t]+box[ \t]+\d{1,5})[\s,]+(?:APO|FPO|DPO)[ \t]+A[AEP][ \t]+"
        r"\d{5}(?:-\d{4})?",
        # Town, state and ZIP code; a British postcode, which stands for some fifteen households.
        r"\b\p{Lu}[\p{L}.’'-]*(?:[ \t]+\p{Lu}[\p{L}.’'-]*){0,2},?[ \t]+[A-Z]{2}[ \t]+\d{5}(?:-\d{4})?\b",
        r"\b(?:[A-PR-UWYZ]\d{1,2}|[A-PR-UWYZ][A-HK-Y]\d{1,2}|[A-PR-UWYZ]\d[A-HJKPSTUW]|[A-PR-UWYZ][A-HK-Y]\d[ABEHMNPRV-Y])"
        r"[ ]\d[ABD-HJLNP-UW-Z]{2}\b",
    )
)
_CUE = (
    r"(?i:\b(?:address(?:es)?(?:\s+(?:is|was|to|with|at|for|from|it[’']s))*(?:[^.:\n\d]{0,40}(?=:))?|adresse|direcci[óo]n|indirizzo|adres|anschrift|"
    r"liv(?:e|es|ed|ing)\s+(?:at|in|on)|resid(?:e|es|ing)\s+(?:at|in)|located\s+(?:at|in|on)|office\s+is\s+(?:at|in)|situated\s+(?:at|in)|"
    r"moved\s+to|moving\s+to|arrived\s+at|(?:ship|send|sent|deliver|delivered|return|returned|mail|post|forward|dispatch)(?:\s+(?:it|them|"
    r"this|that|everything|the\s+\w+|my\s+\w+|a\s+\w+(?:\s+\w+)?))?\s+to|come\s+to|visit\s+us\s+at|the\s+corner\s+of|street|stra(?:ß|ss)e))"
    r"[ \t]*[:=–-]?[ \t]*(?:\n[ \t]*)?"
)
_AFTER_CUE = regex.compile(rf"{_CUE}(?P<value>{_TOKEN}(?:{_BREAK}{_TOKEN}){{1,16}}\.?)")
_POSTCODE = regex.compile(
    r"(?i:\b(?:zip|post(?:al)?)(?:[ \t-]?code)?|\bplz|\bcode\s+postal|\bpostcode)[ \t]*(?:is|:|=|#)?[ \t]*"
    r"(?P<value>\d{2}-\d{3}|\d{5}-\d{4}|\d{3}[ ]\d{2}|\d{4}[ ]?[A-Z]{2}|\d{4,6}|[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2})\b"
)
_LAST_SMALL = regex.compile(rf"(?:[\s,]+{_SMALL})+$")
_YEAR = regex.compile(r"(?:19|20)\d\d")


def find(text: str) -> Iterator[Span]:
    """Every address that has a known form, or that a word announces; what overlaps is one address."""
    if not any(c.isdigit() for c in text):
        return
    found = [
        (match.start(), match.start() + len(match.group().rstrip(" \t\n,")), PLAIN)
        for form in _FORMS
        for match in form.finditer(text)
    ]
    found += [(match.start("value"), match.end("value"), LIKELY) for match in _POSTCODE.finditer(text)]
    for match in _AFTER_CUE.finditer(text):
        value = _LAST_SMALL.sub("", match.group("value")).rstrip()
        numbers = regex.findall(r"\d+", value)
        if any(c.isalpha() for c in value) and not all(_YEAR.fullmatch(number) for number in numbers):
            found.append((match.start("value"), match.start("value") + len(value), LIKELY))
    found.sort()
    while found:
        start, end, weight = found.pop(0)
        while found and found[0][0] < end:
            _, other, its_weight = found.pop(0)
            end, weight = max(end, other), max(weight, its_weight)
        yield Span("ADDRESS", start, end, weight)
