"""Removal of personal data: how much is found and how much of what is found is right, by kind; and how fast it is.

500 synthetic texts with marked spans (Microsoft's presidio-research, MIT). The recognisers were improved by looking at
the texts of half of its templates; only the other half is reported as a result, the first one for comparison. A span
counts as found when any part of it is replaced, and as gone when all of it is; what is found is right when it touches a
marked span. Kinds that the platform does not look for are shown too, since they stay in the text. For false alarms in
ordinary requests: the validation part of CLINC150, where hardly anybody says who they are.

    python -m benchmarks.redaction [--model PIPELINE] [--json PATH]

`--model` adds a run with an installed spaCy pipeline.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from intern.learning.privacy.recognition import Recognition
from intern.learning.privacy.redact import Found, Redactor

FOLDER = report.DATA / "pii"
CLAIM = (
    "Without a language model, at least 90% of the mail addresses, telephone, card, account and identity numbers are"
    " taken out whole, at least 95% of what is taken out is personal data, and 1,000 characters take at most 20 ms."
)
NUMBERS = ("CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "US_DRIVER_LICENSE")
# The corpus's names for kinds -> ours; None for what the platform does not look for.
KINDS = {
    "PERSON": "PERSON",
    "STREET_ADDRESS": "ADDRESS",
    "ZIP_CODE": "ADDRESS",
    "GPE": "PLACE",
    "CREDIT_CARD": "CREDIT_CARD",
    "PHONE_NUMBER": "PHONE",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP_ADDRESS",
    "US_SSN": "NATIONAL_ID",
    "US_DRIVER_LICENSE": "DRIVING_LICENCE",
    "ORGANIZATION": None,
    "DATE_TIME": None,
    "TITLE": None,
    "AGE": None,
    "DOMAIN_NAME": None,
    "NRP": None,
}
Row = dict[str, Any]


def improved_on(row: Row) -> bool:
    """Whether the text was looked at while recognisers were made: by template, so that none is on both sides."""
    return hashlib.sha256(str(row["template_id"]).encode()).digest()[0] % 2 == 0


def measure(redactor: Redactor, rows: Sequence[Row]) -> dict[str, Any]:
    """Counts and shares for each kind that is marked, and for each kind that was found."""
    marked: dict[str, Counter[str]] = defaultdict(Counter)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        its = redactor.redact(row["full_text"]).found
        for span in row["spans"]:
            covered = overlap(its, span["start_position"], span["end_position"])
            marked[span["entity_type"]]["n"] += 1
            marked[span["entity_type"]]["found"] += covered > 0
            marked[span["entity_type"]]["gone"] += covered >= span["end_position"] - span["start_position"]
        for one in its:
            touched = [s for s in row["spans"] if s["start_position"] < one.end and s["end_position"] > one.start]
            found[one.kind]["n"] += 1
            found[one.kind]["right"] += bool(touched)
            found[one.kind]["right_kind"] += any(KINDS[s["entity_type"]] == one.kind for s in touched)
    total = sum(found.values(), Counter())
    return {
        "texts": len(rows),
        "marked": {name: shares(marked[name], "found", "gone") for name in KINDS if name in marked},
        "numbers_in_all": shares(sum((marked[name] for name in NUMBERS), Counter()), "found", "gone"),
        "found": {name: shares(found[name], "right", "right_kind") for name in sorted(found)},
        "found_in_all": shares(total, "right", "right_kind"),
    }


def shares(counts: Counter[str], *names: str) -> dict[str, float]:
    return {"n": counts["n"], **{name: counts[name] / counts["n"] if counts["n"] else 1.0 for name in names}}


def overlap(found: Sequence[Found], start: int, end: int) -> int:
    return sum(max(0, min(end, one.end) - max(start, one.start)) for one in found)


def speed(redactor: Redactor, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds a 1,000 characters: one short text at a time, and in documents of ten texts each."""
    documents = ["\n\n".join(texts[at : at + 10]) for at in range(0, len(texts), 10)]
    return {"short_texts": _rate(redactor, texts), "documents": _rate(redactor, documents)}


def _rate(redactor: Redactor, texts: Sequence[str]) -> float:
    redactor.redact(texts[0])
    start = time.perf_counter()
    for text in texts:
        redactor.redact(text)
    return (time.perf_counter() - start) * 1e6 / sum(map(len, texts))


def alarms(redactor: Redactor) -> dict[str, Any] | None:
    """Spans found in requests that have next to no personal data; None without that corpus."""
    file = report.DATA / "clinc150" / "val.jsonl"
    if not file.exists():
        return None
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    kinds = Counter(one.kind for text in texts for one in redactor.redact(text).found)
    return {"texts": len(texts), "spans": sum(kinds.values()), "kinds": dict(sorted(kinds.items()))}


def show(title: str, result: dict[str, Any]) -> None:
    rows: list[tuple[object, ...]] = [
        (name, KINDS[name] or "not looked for", its["n"], f"{its['found']:.2f}", f"{its['gone']:.2f}")
        for name, its in result["marked"].items()
    ]
    numbers = result["numbers_in_all"]
    rows.append(("mail and numbers together", "", numbers["n"], f"{numbers['found']:.2f}", f"{numbers['gone']:.2f}"))
    report.table(f"{title}: what is marked", ("marked as", "kind", "spans", "found", "gone"), rows)
    rows = [
        (name, its["n"], f"{its['right']:.2f}", f"{its['right_kind']:.2f}")
        for name, its in (*result["found"].items(), ("all", result["found_in_all"]))
    ]
    report.table(f"{title}: what was found", ("kind", "spans", "right", "right kind"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an installed spaCy pipeline, such as en_core_web_sm")
    parser.add_argument("--json", type=Path, help="where the results go (default: benchmarks/results/redaction.json)")
    arguments = parser.parse_args()
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is not there: this benchmark needs its corpus")
    rows = json.loads((FOLDER / "synth_dev.json").read_text(encoding="utf-8"))
    results: dict[str, Any] = {}
    for model in dict.fromkeys((None, arguments.model)):
        with Recognition(model=model) as recognition:
            redactor = Redactor(recognition)
            name = f"with {model}" if model else "without a model"
            result: dict[str, Any] = {
                "reported": measure(redactor, [row for row in rows if not improved_on(row)]),
                "improved_on": measure(redactor, [row for row in rows if improved_on(row)]),
                "ms_per_1000_characters": speed(redactor, [row["full_text"] for row in rows]),
                "alarms_in_requests": alarms(redactor),
            }
        results[name] = result
        show(f"{name}, reported half", result["reported"])
        pace, odd = result["ms_per_1000_characters"], result["alarms_in_requests"]
        print(f"{pace['short_texts']:.1f} ms a 1,000 characters of short texts, {pace['documents']:.1f} of documents")
        print("requests:", odd)
    print("written:", report.write("redaction", CLAIM, results, path=arguments.json))


if __name__ == "__main__":
    main()
