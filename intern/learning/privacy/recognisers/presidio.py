"""Microsoft Presidio's recognisers as this platform uses them, and a spaCy model's names and places if one is named.

In: a text. Out: spans. Identity numbers that are digits only look like any other number, and one in ten passes its
checksum: those count only with one of the recogniser's own context words before them. Presidio's engine is not used:
it wants a language model for its contexts.

Importing Presidio imports spaCy, which imports torch and transformers where they are installed: 420 MB and five
seconds in place of 100 MB and one and a half. `load` therefore hides those two from the process that it is called in,
which must be one of its own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import regex  # type: ignore[import-untyped]

from intern.learning.privacy.recognisers import LIKELY, PLAIN, PROVEN, Span
from intern.learning.privacy.recognisers.words import plausible

# Recogniser -> kind, for those whose form or checksum no ordinary number has.
ALONE = {
    "CryptoRecognizer": "CRYPTO_WALLET",
    "MacAddressRecognizer": "MAC_ADDRESS",
    "UsSsnRecognizer": "NATIONAL_ID",
    "UsItinRecognizer": "NATIONAL_ID",
    "UsMbiRecognizer": "NATIONAL_ID",
    "UkNinoRecognizer": "NATIONAL_ID",
    "UkDrivingLicenceRecognizer": "DRIVING_LICENCE",
    "ItFiscalCodeRecognizer": "NATIONAL_ID",
    "FiPersonalIdentityCodeRecognizer": "NATIONAL_ID",
    "DeSocialSecurityRecognizer": "NATIONAL_ID",
    "KrRrnRecognizer": "NATIONAL_ID",
}
# The others: kind, and the words of which one must stand before the number (None: Presidio's own).
WITH_CONTEXT: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "UsPassportRecognizer": ("PASSPORT", ("passport",)),
    "UsLicenseRecognizer": ("DRIVING_LICENCE", ("driver", "drivers", "driver's", "driving", "dmv", "dl")),
    "UsBankRecognizer": ("BANK_ACCOUNT", ("account", "acct", "bank")),
    "AbaRoutingRecognizer": ("BANK_ACCOUNT", None),
    "NhsRecognizer": ("NATIONAL_ID", None),
    "UkPassportRecognizer": ("PASSPORT", None),
    "CaSinRecognizer": ("NATIONAL_ID", ("sin", "social insurance")),
    "AuTfnRecognizer": ("NATIONAL_ID", None),
    "AuMedicareRecognizer": ("NATIONAL_ID", None),
    "SgFinRecognizer": ("NATIONAL_ID", None),
    "InAadhaarRecognizer": ("NATIONAL_ID", None),
    "InPanRecognizer": ("NATIONAL_ID", None),
    "InPassportRecognizer": ("PASSPORT", None),
    "InVoterRecognizer": ("NATIONAL_ID", None),
    "ZaIdNumberRecognizer": (
        "NATIONAL_ID",
        ("identity number", "id number", "south african id", "rsa id", "national id"),
    ),
    "NgNinRecognizer": ("NATIONAL_ID", None),
    "EsNifRecognizer": ("NATIONAL_ID", None),
    "EsNieRecognizer": ("NATIONAL_ID", None),
    "EsPassportRecognizer": ("PASSPORT", None),
    "ItPassportRecognizer": ("PASSPORT", None),
    "ItDriverLicenseRecognizer": ("DRIVING_LICENCE", None),
    "PlPeselRecognizer": ("NATIONAL_ID", None),
    "SePersonnummerRecognizer": ("NATIONAL_ID", ("personnummer", "personal identity number", "samordningsnummer")),
    "DeTaxIdRecognizer": ("NATIONAL_ID", None),
    "DeHealthInsuranceRecognizer": ("NATIONAL_ID", None),
    "DeIdCardRecognizer": ("NATIONAL_ID", None),
    "DePassportRecognizer": ("PASSPORT", None),
    "DeFuehrerscheinRecognizer": ("DRIVING_LICENCE", None),
    "TrNationalIdRecognizer": ("NATIONAL_ID", None),
    "ThTninRecognizer": ("NATIONAL_ID", None),
}
ENTITIES = {"PERSON": "PERSON", "PER": "PERSON", "GPE": "PLACE", "LOC": "PLACE", "FAC": "PLACE"}
_CONTEXT_CHARACTERS = 45
_SURE = 0.5  # Presidio's score of a pattern that needs no context


class Presidio:
    """Loaded recognisers. `find` may be called by one thread at a time."""

    def __init__(
        self, alone: Sequence[tuple[Any, str]], with_context: Sequence[tuple[Any, str, Any]], model: Any
    ) -> None:
        self._alone = alone
        self._with_context = with_context
        self._model = model

    def find(self, text: str) -> Iterator[Span]:
        """Every identity number, wallet and hardware address; names and places only with a model."""
        if any(c.isdigit() for c in text):
            for recogniser, kind in self._alone:
                for found in recogniser.analyze(text, [], None):
                    if found.score >= _SURE:
                        yield Span(kind, found.start, found.end, PROVEN if found.score >= 1 else PLAIN)
            for recogniser, kind, context in self._with_context:
                words = [match.end() for match in context.finditer(text)]
                if not words:
                    continue
                for found in recogniser.analyze(text, [], None):
                    if any(0 <= found.start - end <= _CONTEXT_CHARACTERS for end in words):
                        yield Span(kind, found.start, found.end, PROVEN)
        if self._model is not None:
            yield from self._named(text)

    def _named(self, text: str) -> Iterator[Span]:
        for entity in self._model(text).ents:
            kind = ENTITIES.get(entity.label_)
            line = entity.text.strip().split("\n")[0].rstrip()
            start = text.find(line, entity.start_char, entity.end_char)
            # A small model takes amounts and headings of business papers for names.
            proper = line and not any(c.isdigit() for c in line) and any(c.isupper() for c in line)
            if kind and proper and (kind == "PLACE" or plausible(line)):
                yield Span(kind, start, start + len(line), LIKELY)


def load(model: str | None = None) -> Presidio:
    """Import Presidio, and the spaCy model if one is named. Raises ImportError or OSError when it is not installed."""
    for name in ("torch", "transformers"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    from presidio_analyzer import predefined_recognizers as available

    alone = [(getattr(available, name)(), kind) for name, kind in ALONE.items()]
    with_context = []
    for name, (kind, own) in WITH_CONTEXT.items():
        recogniser = getattr(available, name)()
        words = "|".join(regex.escape(word.strip()) for word in own or recogniser.context)
        with_context.append((recogniser, kind, regex.compile(rf"(?i)(?<!\w)(?:{words})(?!\w)")))
    if model is None:
        return Presidio(alone, with_context, None)
    import spacy

    language = spacy.load(model, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer"])
    return Presidio(alone, with_context, language)
