"""Whether a dataset is worth training on, and what it lacks."""

from __future__ import annotations

from made_examples import SCHEMA, example, made

from intern.learning.examples.readiness import enumerated, readiness
from intern.schema import MAX_NODES, check_schema


def test_readiness_names_what_is_missing() -> None:
    built = made([example(n, split="train" if n < 21 else "heldout") for n in range(31)])
    found = readiness(built, SCHEMA, min_examples=50)
    assert not found.ready
    assert found.missing == (
        "31 examples, 50 needed.",
        "Every example has the same output: there is nothing to learn from them.",
    )
    assert any(
        note.startswith("10 held-out examples; under 30 no adapter can be proved better.") for note in found.notes
    )
    assert "`topic` never has the values `refund`, `other`." in found.notes
    assert "`urgent` never has the values `true`, `false`." in found.notes


def test_enough_varied_examples_are_ready() -> None:
    topics = ["order", "refund", "other"]
    built = made([example(n, topics[n % 3]) for n in range(300)])
    found = readiness(built, SCHEMA, min_examples=50)
    assert found.ready
    assert found.missing == ()


def test_so_many_examples_are_needed_wherever_they_stand_but_not_all_held_out() -> None:
    built = made([example(n, "refund" if n % 2 else "order") for n in range(50)])
    assert (len(built.train) < 50, readiness(built, SCHEMA, min_examples=50).missing) == (True, ())
    assert readiness(built, SCHEMA, min_examples=51).missing == ("50 examples, 51 needed.",)
    held = made([example(n, split="heldout") for n in range(50)])
    missing = ("All 50 examples are held out: there is none to train on.",)
    assert readiness(held, SCHEMA, min_examples=50).missing == missing


def test_fields_with_few_values_are_found_through_references() -> None:
    """As pydantic writes the schema of a model with enums and parts."""
    schema = check_schema(
        {
            "$defs": {
                "Colour": {"enum": ["red", "green"], "type": "string"},
                "Part": {
                    "type": "object",
                    "properties": {
                        "colour": {"$ref": "#/$defs/Colour"},
                        "inner": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
                    },
                },
            },
            "type": "object",
            "properties": {
                "shade": {"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}]},
                "part": {"$ref": "#/$defs/Part"},
                "sure": {"type": "boolean"},
            },
        }
    )
    assert list(enumerated(schema).items()) == [
        (("shade",), ["red", "green"]),
        (("part", "colour"), ["red", "green"]),
        (("sure",), [True, False]),
    ]


def test_parts_that_are_at_very_many_places_are_not_looked_into_at_all_of_them() -> None:
    parts = {
        f"p{n}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/p{n + 1}"} for side in ("left", "right")}}
        for n in range(14)
    }
    schema = check_schema(
        {
            "type": "object",
            "properties": {"sure": {"type": "boolean"}, "tree": {"$ref": "#/$defs/p0"}},
            "$defs": {**parts, "p14": {"enum": ["leaf", "none"]}},
        }
    )
    assert ("sure",) in enumerated(schema)
    assert len(enumerated(schema)) < MAX_NODES
