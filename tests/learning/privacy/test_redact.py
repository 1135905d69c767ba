"""Personal data goes, everything else stays, and the same value is the same placeholder wherever it stands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intern.errors import InvalidInput, TrainingUnavailable
from intern.learning.examples.dataset import build
from intern.learning.examples.items import Gathered
from intern.learning.privacy.occurrences import Occurrences
from intern.learning.privacy.placeholders import Scope
from intern.learning.privacy.places import place_of
from intern.learning.privacy.recognisers import Span, disjoint
from intern.learning.privacy.recognisers.numbers import iban, luhn
from intern.learning.privacy.recognition import Recognition
from intern.learning.privacy.redact import MAX_CHARACTERS, MAX_TEXTS, MAX_VALUES, RedactedExample, Redactor
from intern.schema import check_schema
from intern.skill import read_skill
from intern.types import Example, Json, Message

SKILLS = Path(__file__).parents[3] / "skills"
CORPUS = Path(__file__).parents[4] / "shared" / "data" / "pii" / "synth_dev.json"


@pytest.fixture(scope="module")
def recognition() -> Iterator[Recognition]:
    with Recognition() as recognition:
        yield recognition


@pytest.fixture(scope="module")
def redactor(recognition: Recognition) -> Redactor:
    return Redactor(recognition)


def example(input: str | Sequence[Message], output: Json = "") -> Example:
    return Example(id="e", input=input if isinstance(input, str) else tuple(input), output=output)


def done(redactor: Redactor, input: str | Sequence[Message], output: Json = "", **how: Any) -> RedactedExample:
    return redactor.redact_example(example(input, output), **how)


# --- what is recognised ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Write to anna.nowak@example.com.", "Write to <EMAIL_1>."),
        ("x?email=anna%40example.com&y", "x?email=<EMAIL_1>&y"),
        ("mail: j.doe (at) example (dot) org", "mail: <EMAIL_1>"),
        ("Call +48 600 100 200, please", "Call <PHONE_1>, please"),
        ("Tel. 030 1234567", "Tel. <PHONE_1>"),
        ("(212) 456-7890 is my number", "<PHONE_1> is my number"),
        ("please ring me 555-0117", "please ring me <PHONE_1>"),
        ("Mobile:\n9498777106", "Mobile:\n<PHONE_1>"),
        ("card 4111 1111 1111 1111 exp 12/27", "card <CREDIT_CARD_1> exp 12/27"),
        ("paid with 378282246310005", "paid with <CREDIT_CARD_1>"),
        ("My card number is 4111 1111 1111 1112", "My card number is <CREDIT_CARD_1>"),
        ("IBAN DE89 3704 0044 0532 0130 00 is mine", "IBAN <IBAN_1> is mine"),
        ("pay to gb82west12345698765432", "pay to <IBAN_1>"),
        ("account number 12345678, sort code 12-34-56", "account number <BANK_ACCOUNT_1>, sort code <BANK_ACCOUNT_2>"),
        ("SSN 078-05-1120", "SSN <NATIONAL_ID_1>"),
        ("My NHS number is 943 476 5919", "My NHS number is <NATIONAL_ID_1>"),
        ("NI number AB 12 34 56 C", "NI number <NATIONAL_ID_1>"),
        ("PESEL 44051401359", "PESEL <NATIONAL_ID_1>"),
        ("RSSMRA85T10A562S", "<NATIONAL_ID_1>"),
        ("aadhaar 2345 6789 0124", "aadhaar <NATIONAL_ID_1>"),
        ("passport no. C01X00T47", "passport no. <PASSPORT_1>"),
        ("driver's license D1234567", "driver's license <DRIVING_LICENCE_1>"),
        ("born on 12 May 1980 in Kraków", "born on <DATE_OF_BIRTH_1> in Kraków"),
        ("DOB: 1980-05-12", "DOB: <DATE_OF_BIRTH_1>"),
        ("I live at 12 Oak Lane, Springfield, IL 62704", "I live at <ADDRESS_1>"),
        ("Hauptstraße 5, 10115 Berlin", "<ADDRESS_1>"),
        ("12 rue de la Paix, 75002 Paris", "<ADDRESS_1>"),
        ("ul. Słowicza 10, 53-320 Wrocław", "<ADDRESS_1>"),
        ("Address: 412 Monterey Ave, Capitola, CA 95010\nParking: 3", "Address: <ADDRESS_1>\nParking: 3"),
        ("P.O. Box 123", "<ADDRESS_1>"),
        ("postcode SW1A 1AA", "postcode <ADDRESS_1>"),
        ("client 203.0.113.7 was blocked", "client <IP_ADDRESS_1> was blocked"),
        ("from 2001:db8::8a2e:370:7334", "from <IP_ADDRESS_1>"),
        ("MAC 00:1B:44:11:3A:B7", "MAC <MAC_ADDRESS_1>"),
        ("https://bob:secret@example.com/x", "https://<CREDENTIALS_1>@example.com/x"),
        ("https://www.linkedin.com/in/anna-nowak", "https://www.linkedin.com/in/<PROFILE_1>"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "<CRYPTO_WALLET_1>"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "<CRYPTO_WALLET_1>"),
        ("Dear Ms. Nowak, thanks", "Dear Ms. <PERSON_1>, thanks"),
        ("Sehr geehrter Herr Müller, danke", "Sehr geehrter Herr <PERSON_1>, danke"),
        ("Hi Anna and Jo, see below", "Hi <PERSON_1> and <PERSON_2>, see below"),
        ("My name is Anna Nowak.", "My name is <PERSON_1>."),
        ("my name is anna nowak", "my name is <PERSON_1>"),
        ("Kind regards,\nAnna Nowak\nHead of Sales", "Kind regards,\n<PERSON_1>\nHead of Sales"),
        ("It is broken again. Anna", "It is broken again. <PERSON_1>"),
        ("From: Anna Nowak <a@b.com>", "From: <PERSON_1> <<EMAIL_1>>"),
        ("Anna Nowak\nSales\nanna.nowak@b.com", "<PERSON_1>\nSales\n<EMAIL_1>"),
        ("Anna Nowak's address is new", "<PERSON_1>'s address is new"),
        ("on behalf of Jan van der Berg", "on behalf of <PERSON_1>"),
    ],
)
def test_personal_data_goes(redactor: Redactor, text: str, redacted: str) -> None:
    assert redactor.redact(text).text == redacted


@pytest.mark.parametrize(
    "text",
    [
        "Invoice 20417 of 14 March 2025 over £1,234.56, 1 234 567,00 EUR or 1.234.567",
        "order 123456789012, ticket 4400123, ref. 12-3456-78, serial 1234-5678-90, SKU 12-34-56-78-90",
        "12345678901234 and 8830 2291 and 1Z999AA10123456784",
        "ISBN 978-3-16-148410-0, UUID 123e4567-e89b-12d3-a456-426614174000",
        "at 10:30 on 12.05.2025, from 2019-2020, 2025-03-14 12:30:00",
        "version 1.2.3.4 listens on 127.0.0.1; pkg@1.2.3, @app.route, https://example.com/a/b?x=1",
        "Wax foundation ....... 50 ... 1.10 .... 55.00",
        "Dear Customer, hello. Hi team, please! Dear Hiring Manager,",
        "Best regards\nThe Support Team",
        "Kind regards\nBrackenfield Joinery Ltd",
        "From: Ngata Beekeeping Supplies\nTo: Hollow Hill Orchard\nNo: 00573",
        "I am German. This is Important: my name is wrong, and my name is not on the list.",
        "5 Star Hotel, room 12 Oak, Section 3 Place, 12 Month Plan",
        "Cities:\n9. Custom\n10. Berlin",
        "card ending 1234; the account was opened in 2019; extension 4400",
    ],
)
def test_ordinary_business_text_stays(redactor: Redactor, text: str) -> None:
    assert redactor.redact(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "ask <EMAIL_1> and <PERSON_2> about <ADDRESS_7>",
        "<@U024BE7LH> wrote in <#C024BE7LR|general>, <!here>",
        "*bold* _it_ ~no~ `code` > quote [x](https://example.com) <b>x</b>",
    ],
)
def test_placeholders_and_markup_stay(redactor: Redactor, text: str) -> None:
    assert redactor.redact(text).text == text


def test_markup_around_personal_data_stays(redactor: Redactor) -> None:
    text = "**anna@b.com** <mailto:anna@b.com|anna@b.com> [mail](mailto:anna@b.com)"
    assert redactor.redact(text).text == "**<EMAIL_1>** <mailto:<EMAIL_1>|<EMAIL_1>> [mail](mailto:<EMAIL_1>)"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("ftp://<PERSON_1>:secret@example.com", "ftp://<PERSON_1><CREDENTIALS_1>@example.com"),
        ("ftp://bob:se<PERSON_1>@example.com", "ftp://<CREDENTIALS_1><PERSON_1>@example.com"),
    ],
)
def test_what_stands_around_a_placeholder_goes_too(redactor: Redactor, text: str, redacted: str) -> None:
    assert redactor.redact(text).text == redacted


def test_what_is_found_points_into_the_original_text_and_quotes_nothing(redactor: Redactor) -> None:
    text = "Hi Anna,\nmy mail is jo@b.com, or <EMAIL_4>"
    redacted = redactor.redact(text)
    assert [(f.kind, text[f.start : f.end]) for f in redacted.found] == [("PERSON", "Anna"), ("EMAIL", "jo@b.com")]
    assert "Anna" not in redacted.model_dump_json()


# --- the same value, the same placeholder ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("a@b.com, A@B.com, c@d.com", "<EMAIL_1>, <EMAIL_1>, <EMAIL_2>"),
        ("call +1 212-456-7890 or (212) 456-7890", "call <PHONE_1> or <PHONE_1>"),
        ("born on 12 May 1980; DOB 1980-05-12; DOB 1980-05-13",
         "born on <DATE_OF_BIRTH_1>; DOB <DATE_OF_BIRTH_1>; DOB <DATE_OF_BIRTH_2>"),
        ("My name is Anna Nowak. Call Mrs Nowak, or just Anna, or ANNA, but not Annabel.",
         "My name is <PERSON_1>. Call Mrs <PERSON_1>, or just <PERSON_1>, or ANNA, but not Annabel."),
        ("I spoke with Mark Price. Mark the price.", "I spoke with <PERSON_1>. Mark the price."),
        ("a@b.com and <EMAIL_1>", "<EMAIL_2> and <EMAIL_1>"),
    ],
)  # fmt: skip
def test_spellings_of_one_value_share_a_placeholder(redactor: Redactor, text: str, redacted: str) -> None:
    assert redactor.redact(text).text == redacted


def test_an_output_still_repeats_what_its_input_says(redactor: Redactor) -> None:
    text = "Hi, it's about Rosalind, rosalind@b.com. My name is Jo Park, ring me on 555-0142."
    output = {
        "customer": "Jo Park",
        "contact": ["555-0142"],
        "about": {"mail": "rosalind@b.com", "full_name": "Rosalind"},
    }
    redacted = done(redactor, text, output)
    assert redacted.problem is None
    assert redacted.example.output == {
        "customer": "<PERSON_2>",
        "contact": ["<PHONE_1>"],
        "about": {"mail": "<EMAIL_1>", "full_name": "<PERSON_1>"},
    }
    assert redacted.example.input == (
        "Hi, it's about <PERSON_1>, <EMAIL_1>. My name is <PERSON_2>, ring me on <PHONE_1>."
    )


def test_what_only_the_output_gives_away_goes_from_the_input_too(redactor: Redactor) -> None:
    redacted = done(
        redactor, "Profile of Giulia Ferrantelli, physician. Giulia likes hills.", {"name": "Giulia Ferrantelli"}
    )
    assert redacted.example.input == "Profile of <PERSON_1>, physician. <PERSON_1> likes hills."
    assert redacted.example.output == {"name": "<PERSON_1>"}


def test_every_turn_of_a_conversation_shares_the_placeholders(redactor: Redactor) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "find", "arguments": '{"mail": "a@b.com", "n": 1.50}'},
    }
    turns = [
        Message(role="user", content="I am a@b.com"),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content='[{"phone": "555-0142", "since": 20190401}]', tool_call_id="call_1"),
        Message(role="user", content="So is 555-0142 right?"),
    ]
    redacted = done(redactor, turns, "Yes, a@b.com, <EMAIL_7>.")
    assert isinstance(redacted.example.input, tuple)
    first, second, third, fourth = redacted.example.input
    assert first.content == "I am <EMAIL_8>"
    assert second.tool_calls[0]["function"]["arguments"] == '{"mail": "<EMAIL_8>", "n": 1.50}'
    assert (second.tool_calls[0]["id"], third.tool_call_id) == ("call_1", "call_1")
    assert third.content == '[{"phone": "<PHONE_1>", "since": 20190401}]'
    assert fourth.content == "So is <PHONE_1> right?"
    assert redacted.example.output == "Yes, <EMAIL_8>, <EMAIL_7>."
    assert {f.where for f in redacted.found} == {
        *("input/0/content", "input/1/tool_calls/0/function/arguments/*", "input/2/content/*"),
        *("input/3/content", "output"),
    }


def test_a_scope_may_span_the_examples_of_one_document(redactor: Redactor) -> None:
    scope = Scope()
    one = redactor.redact("My name is Anna Nowak", scope)
    other = redactor.redact("Thanks, Bob. P.S. Nowak agrees.", scope)
    assert one.text == "My name is <PERSON_1>"
    assert "P.S. <PERSON_1> agrees" in other.text
    assert redactor.redact("My name is Anna Nowak").text == "My name is <PERSON_1>", "scopes know nothing of each other"


def test_what_the_skills_own_documents_state_may_stay(redactor: Redactor) -> None:
    stated = redactor.stated(["Report it on the security hotline, phone 555-0188.", "Nothing here."])
    output = {"answer": "Call 555-0188.", "owner": "my phone is 555-0142"}
    redacted = done(redactor, "Whom do I call? My phone is 555 0188.", output, keep=stated)
    assert redacted.example.output == {"answer": "Call 555-0188.", "owner": "my phone is <PHONE_1>"}
    assert redacted.example.input == "Whom do I call? My phone is 555 0188."


# --- structure stays -------------------------------------------------------------------------------------------------

SCHEMA = check_schema(
    {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "properties": {
            "owner": {"enum": ["Anna Nowak", "Ben Ode"]},
            "team": {"$ref": "#/$defs/team"},
            "mail": {"type": "string", "maxLength": 40},
            "checked_mail": {"type": "string", "format": "email"},
            "amount": {"type": "number"},
            "id": {"type": "integer"},
        },
        "$defs": {"team": {"anyOf": [{"const": "Anna Nowak"}, {"type": "null"}]}},
    }
)


def test_enumerated_values_numbers_and_keys_stay(redactor: Redactor) -> None:
    output = {"owner": "Anna Nowak", "team": "Anna Nowak", "amount": 1234567.5, "id": 4111, "mail": "a@b.com"}
    redacted = done(redactor, "My name is Anna Nowak, a@b.com", output, schema=SCHEMA)
    assert redacted.problem is None
    assert redacted.example.input == "My name is <PERSON_1>, <EMAIL_1>"
    assert redacted.example.output == {**output, "mail": "<EMAIL_1>"}
    assert list(redacted.example.output) == list(output)


def test_an_output_that_would_break_its_schema_says_so(redactor: Redactor) -> None:
    redacted = done(redactor, "I am a@b.com", {"checked_mail": "a@b.com"}, schema=SCHEMA)
    assert redacted.problem is not None
    assert redacted.problem == "without personal data the output breaks the schema at checked_mail"


@pytest.mark.parametrize(
    ("input", "output", "problem"),
    [
        ("x", {"card_number": 4111111111111111}, "output/* is personal data (CREDIT_CARD) in a number"),
        ("x", {"by": {"a@b.com": "1"}}, "output/*: a key is personal data (EMAIL) in a key"),
        ('{"phone": 2124567890}', "x", "input/* is personal data (PHONE) in a number"),
        ('{"a@b.com": true}', "x", "input: a key is personal data (EMAIL) in a key"),
    ],
)
def test_what_has_no_room_for_a_placeholder_is_a_problem(
    redactor: Redactor, input: str, output: Json, problem: str
) -> None:
    redacted = done(redactor, input, output)
    assert redacted.problem == f"{problem}, which has no placeholder"
    assert redactor.for_schema(None)(example(input, output)) == (redacted.example, redacted.problem)


@pytest.mark.parametrize(
    ("input", "output", "problem"),
    [
        ("x", {"mail": "Nowak, Anna (ill) wrote: a@b.com, c@d.com, e@f.com"}, "output breaks the schema at mail"),
        (
            "x",
            {"phone": {"Anna Nowak": {"phone": 2124567890}}},
            "output/phone/*/* is personal data (PHONE) in a number",
        ),
        ('{"Anna Nowak": {"phone": 2124567890}}', {}, "input/* is personal data (PHONE) in a number"),
        ("x", {"notes": {"Anna Nowak": "x, a@b.com", "Nowak": "a@b.com"}}, "output breaks the schema at notes/*"),
        ("x", {"notes": {"Anna: Nowak": "x, a@b.com"}}, "output breaks the schema at notes/*"),
        ("x", {"list": ["", "x, a@b.com"]}, "output breaks the schema at list/1"),
        ("x", {"by": {"Anna Nowak": {"a@b.com": "x"}}}, "output/*/*: a key is personal data (EMAIL) in a key"),
    ],
)
def test_a_problem_quotes_neither_values_nor_keys_that_people_made(
    redactor: Redactor, input: str, output: Json, problem: str
) -> None:
    short = {"type": "string", "maxLength": 10}
    schema = check_schema(
        {
            "type": "object",
            "properties": {
                "mail": {"type": "string", "maxLength": 50},
                "phone": {"type": "object"},
                "notes": {"type": "object", "additionalProperties": short},
                "list": {"type": "array", "items": short},
            },
        }
    )
    said = done(redactor, input, output, schema=schema).problem
    assert said is not None
    assert problem in said
    assert "Nowak" not in said


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("Anna: Nowak", ""),
        ({"491711234567": "too long a text"}, " at *"),
        ({"list": ["x", "too long: a text"]}, " at list/1"),
        ({"list": {"1": "x"}}, " at list"),
        ({}, ""),
    ],
)
def test_the_place_of_a_problem_is_all_that_is_said_of_it(output: Json, place: str) -> None:
    short = {"type": "string", "maxLength": 10}
    schema = check_schema(
        {
            "type": "object",
            "properties": {"list": {"type": "array", "items": short}},
            "additionalProperties": short,
            "minProperties": 1,
        }
    )
    assert place_of(schema.problems(output)[0], schema) == place


def test_a_dataset_says_nothing_of_people_in_what_it_left_out(redactor: Redactor) -> None:
    text = {"type": "string", "maxLength": 20}
    schema = check_schema({"type": "object", "properties": {"note": text}, "additionalProperties": text})
    outputs: list[Json] = [
        {"AnnaNowak": "is ill, and has been so for long"},
        {"note": "Nowak: a@b.com, c@d.com"},
        {"note": "x", "Nowak": {"phone": 2124567890}},
    ]
    loose = check_schema({"type": "object", "properties": {"note": text}})
    for output, rules in zip(outputs, (schema, schema, loose), strict=True):
        row = Gathered(example=example("hello", output))
        (dropped,) = build("s", [row], schema=rules, redact=redactor.for_schema(rules), secret="lot").dropped
        assert "Nowak" not in dropped.detail
        assert "ill" not in dropped.detail


def test_numbers_that_name_nobody_are_no_problem(redactor: Redactor) -> None:
    output = {"population": 8141000000, "views": 123456789, "stamp": 1732190000, "price": 4111111111111111.5}
    assert done(redactor, json.dumps(output), output).problem is None


def test_json_in_a_text_stays_json_and_keeps_its_spelling(redactor: Redactor) -> None:
    text = '{ "mail":"a@b.com",\n  "note": "Zo\\u00eb says \\"hi\\", a@b.com", "sum": 1.50, "n": null }'
    redacted = done(redactor, text).example.input
    assert redacted == '{ "mail":"<EMAIL_1>",\n  "note": "Zo\\u00eb says \\"hi\\", <EMAIL_1>", "sum": 1.50, "n": null }'


# --- whatever the text -----------------------------------------------------------------------------------------------

PIECES = [
    *("Dear Ms. Nowak,", "My name is Anna Nowak", "Kind regards,\n", "Anna", "Thanks, ", "Jo Park", "<PERSON_1>"),
    *("From: ", "anna@example.com", "+48 600 100 200", "555-0142", "phone ", "call", "card", "4111 1111 1111 1111"),
    *("DE89370400440532013000", "12 Oak Lane", ", Springfield, IL 62704", "Address: ", "born on ", "12 May 1980"),
    *("1980-05-12", "10.0.0.1", "SSN ", "078-05-1120", "\n", " ", " ", ". ", ", ", "\n\n", ": ", "<EMAIL_1>", "<@U1>"),
    *("\ufffc", '"', "{", "é", "invoice 20417", "£12.50", "x"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
values = st.recursive(
    st.one_of(texts, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
quickly = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quickly
@given(text=texts)
def test_redacting_twice_changes_nothing(redactor: Redactor, text: str) -> None:
    once = redactor.redact(text)
    twice = redactor.redact(once.text)
    assert twice.text == once.text
    assert twice.found == ()


@quickly
@given(text=texts, output=values)
def test_an_example_keeps_its_shape_and_loses_what_was_found(redactor: Redactor, text: str, output: Json) -> None:
    redacted = done(redactor, text, output)
    if redacted.problem is not None:
        return
    assert shape(redacted.example.output) == shape(output)
    again = redactor.redact_example(redacted.example)
    assert (again.example, again.found) == (redacted.example, ())
    said = json.dumps([redacted.example.input, redacted.example.output], ensure_ascii=False)
    for found in redacted.found:
        if found.where == "input" and found.kind in ("EMAIL", "CREDIT_CARD"):
            assert not re.search(rf"(?<![\w-]){re.escape(text[found.start : found.end])}(?![\w-])", said)


def shape(value: Json) -> Json:
    """A value with every text the same."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "" if isinstance(value, str) else value


@given(st.lists(st.builds(Span, st.sampled_from("AB"), st.integers(0, 30), st.integers(0, 30), st.integers(1, 3))))
def test_no_two_spans_overlap_and_the_heaviest_stays(spans: list[Span]) -> None:
    kept = disjoint(spans)
    assert all(one.end <= other.start for one, other in pairwise(kept))
    real = [span for span in spans if span.end > span.start]
    assert {span.weight for span in kept} >= ({max(span.weight for span in real)} if real else set())


@pytest.mark.parametrize(
    "unit",
    [
        "Aa ",
        "Aa-",
        "A. ",
        "1 ",
        "12-",
        "(1)",
        "a@",
        "x@x.",
        "\n",
        "> ",
        "my name is ",
        "1 Main Street ",
        "thanks ",
        "born ",
    ],
)
def test_no_text_takes_forever(recognition: Recognition, unit: str) -> None:
    """A recogniser that needs the square of the length would run into the limit of the call."""
    assert len(recognition.find([unit * (40_000 // len(unit))])) == 1


class Mails:
    """A recogniser of mail addresses and nothing else."""

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[Span("EMAIL", *found.span(), 3) for found in re.finditer(r"\w+@\w+\.org", text)] for text in texts]


def test_much_personal_data_in_a_long_text_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are redacted in the server's process: a search for all values at once would hold up its threads."""
    text = " ".join(f"user{n}@example.org" for n in range(MAX_VALUES))
    text += " a." * ((MAX_CHARACTERS - len(text)) // 3 - 10)
    find, searched = Occurrences.find, []

    def counting(self: Occurrences, some: str) -> Iterator[tuple[int, int]]:
        searched.append(len(some))
        return find(self, some)

    monkeypatch.setattr(Occurrences, "find", counting)
    redacted = done(Redactor(Mails()), text, "user7@example.org")
    assert 0 < sum(searched) < 3 * len(text)  # whatever the number of values
    assert (redacted.problem, redacted.example.output) == (None, "<EMAIL_8>")


@pytest.mark.parametrize(
    ("input", "problem"),
    [
        (
            "x" * (MAX_CHARACTERS + 1),
            "It is too long to be searched for personal data: more than 200,000 ",
        ),
        (json.dumps([""] * (MAX_TEXTS + 1)), "It is too long to be searched"),
        (json.dumps({"k" * 100_000: ["x"] * 10_000}), "It is too long to be searched"),
        (" ".join(f"user{n}@example.org" for n in range(MAX_VALUES + 1)), "more than 2,000 different values"),
    ],
    ids=["one text", "many texts", "one key for many texts", "many values"],
)
def test_an_example_without_measure_is_left_out_with_the_reason(input: str, problem: str) -> None:
    redacted = done(Redactor(Mails()), input)
    assert redacted.problem is not None
    assert problem in redacted.problem
    with pytest.raises(InvalidInput, match=re.escape(redacted.problem)):
        Redactor(Mails()).redact(input if "values" in problem else "x" * (MAX_CHARACTERS + 1))


def test_an_example_may_be_as_long_as_that() -> None:
    assert done(Redactor(Mails()), "x " * (MAX_CHARACTERS // 2)).problem is None


def test_threads_may_share_a_redactor(redactor: Redactor) -> None:
    texts = [f"mail {n}: user{n}@example.com, Dear Ms Nowak" for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        redacted = [result.text for result in pool.map(redactor.redact, texts)]
    assert redacted == [f"mail {n}: <EMAIL_1>, Dear Ms <PERSON_1>" for n in range(40)]


@pytest.mark.parametrize("folder", sorted(p.name for p in SKILLS.iterdir() if p.is_dir()))
def test_the_starter_skills_can_be_redacted_and_keep_their_schemas(redactor: Redactor, folder: str) -> None:
    skill = read_skill(SKILLS / folder)
    redacted = [redactor.redact_example(one, skill.schema) for one in skill.examples[::7]]
    assert [r.problem for r in redacted if r.problem] == []
    for once in redacted:
        assert redactor.redact_example(once.example, skill.schema).found == ()


# --- the process -----------------------------------------------------------------------------------------------------


def test_nothing_passes_that_could_not_be_searched_in_time() -> None:
    text = "My name is Anna Nowak. " * 5_000
    with Recognition(seconds=0.0, more=0.0) as impatient:
        redactor = Redactor(impatient)
        with pytest.raises(InvalidInput, match="took too long"):
            redactor.redact(text)
        redacted = done(redactor, text)
        assert redacted.problem is not None
        assert "took too long" in redacted.problem


def test_a_process_that_was_killed_is_replaced() -> None:
    with Recognition() as recognition:
        recognition.find(["x"])
        first = recognition.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert recognition.find(["a@b.com"]) == [[Span("EMAIL", 0, 7, 3)]]
        assert recognition.pid not in (first, None)
    assert recognition.pid is None


def test_an_idle_process_ends() -> None:
    with Recognition(idle=0.05) as recognition:
        recognition.find(["x"])
        pid = recognition.pid
        if pid is not None:  # else it has ended already
            gone = os.pidfd_open(pid)
            assert select.select([gone], [], [], 30.0)[0], "it did not end"
            os.close(gone)
        assert recognition.find(["a@b.com"])[0]


def test_a_model_that_is_not_installed_says_so() -> None:
    with (
        Recognition(model="en_no_such_pipeline") as recognition,
        pytest.raises(TrainingUnavailable, match="The spaCy pipeline 'en_no_such_pipeline' cannot be loaded"),
    ):
        recognition.find(["x"])


MODEL = """
import sys
sys.modules.update(torch=None, transformers=None)  # spaCy would load them, and needs neither
import spacy
model = spacy.blank("en")
named = [("PERSON", "Katrine"), ("GPE", "Kenosha"), ("PERSON", "4,250.00"), ("PERSON", "Bill"), ("ORG", "Acme")]
model.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": text} for label, text in named])
model.to_disk(sys.argv[1])
"""


def test_a_named_model_adds_names_and_places_but_no_amounts(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MODEL, str(tmp_path / "model")], check=True, timeout=120)
    text = "Why is Katrine of Acme so far from Kenosha? Bill: 4,250.00"
    redacted = "Why is <PERSON_1> of Acme so far from <PLACE_1>? Bill: 4,250.00"
    with Recognition(model=str(tmp_path / "model")) as recognition:
        assert Redactor(recognition).redact(text).text == redacted
    with Recognition() as recognition:
        assert Redactor(recognition).redact(text).text == text


# --- checksums, and a public corpus ----------------------------------------------------------------------------------


@given(st.integers(10**10, 10**18))
def test_luhn_accepts_one_check_digit_in_ten(number: int) -> None:
    assert sum(luhn(f"{number}{digit}") for digit in range(10)) == 1


@given(st.text("0123456789", min_size=11, max_size=30), st.integers(0, 99), st.integers(1, 9))
def test_iban_accepts_its_check_digits_and_no_other_digit(account: str, place: int, more: int) -> None:
    valid = f"DE{98 - int(account + '131400') % 97:02}{account}"
    assert iban(valid)
    at = 4 + place % len(account)
    assert not iban(f"{valid[:at]}{(int(valid[at]) + more) % 10}{valid[at + 1 :]}")


@pytest.mark.skipif(not CORPUS.is_file(), reason="the corpus of personal data is not there")
def test_numbers_and_mail_of_the_public_corpus_are_found(redactor: Redactor) -> None:
    """The half that benchmarks/redaction.py reports."""
    rows = [
        row
        for row in json.loads(CORPUS.read_text(encoding="utf-8"))
        if hashlib.sha256(str(row["template_id"]).encode()).digest()[0] % 2
    ]
    formal = {"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "US_DRIVER_LICENSE"}
    gone, wrong, number = [], 0, 0
    for row in rows:
        found = redactor.redact(row["full_text"]).found
        gone += [
            any(f.start <= s["start_position"] and s["end_position"] <= f.end for f in found)
            for s in row["spans"]
            if s["entity_type"] in formal
        ]
        touched = [
            any(s["start_position"] < f.end and f.start < s["end_position"] for s in row["spans"]) for f in found
        ]
        wrong, number = wrong + touched.count(False), number + len(touched)
    assert len(gone) > 40
    assert sum(gone) / len(gone) >= 0.9
    assert wrong / number <= 0.05
