"""JSON Schemas (2020-12) that answers must keep: checked before use, compiled to a grammar, validated after decoding.

In: a schema as parsed JSON. Out: an `OutputSchema` that gives the grammar for constrained decoding and the list of
problems of a finished value. Knows nothing of skills or engines' wire formats.

A schema comes from people and from API callers, so it is treated as hostile: size, depth, enum length, recursion and
patterns are bounded (a single enum of 20,000 values was seen to stall the embedded engine for 14 seconds), patterns run
on a linear-time regular expression engine, and references lead to subschemas of the document only. So whatever
validator and grammar come to apply has been looked at, and neither ever reads a file or the network.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from llguidance import LLMatcher

from intern import strict_json
from intern.errors import SchemaRefused
from intern.types import Json

MAX_BYTES = 65_536
MAX_DEPTH = 24
MAX_PLACE = 4_000
MAX_NODES = 2_000
MAX_ENUM = 1_000
MAX_PATTERN = 500
MAX_REPEAT = 10_000
MAX_ARRANGEMENTS = 500
MAX_VALUE_DEPTH = 64  # of an answer; pydantic serialises no value deeper than some 250

# Generators write these; every one is read as 2020-12. Another address would be one to fetch.
_DIALECTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
)

# Answers are written the way json.dumps writes them, and nothing else: fewer tokens than free whitespace (43 against
# 61 for a small invoice), and the very form that examples are trained in.
_WHITESPACE = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False, "lenient": True}

_DECODER = strict_json.decoder()

_SUBSCHEMAS = (
    *("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
)
_SUBSCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SUBSCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")


def canonical(value: Json) -> str:
    """The one text form of a JSON value that is generated, trained and stored: json.dumps, keys in given order."""
    return json.dumps(value, ensure_ascii=False)


class OutputSchema:
    """A checked schema. `grammar` is in llguidance's Lark form; `unenforced` names what only validation checks."""

    def __init__(self, schema: Mapping[str, Json], grammar: str, unenforced: tuple[str, ...], validator: Any) -> None:
        self.schema = schema
        self.grammar = grammar
        self.unenforced = unenforced
        self.digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
        self._validator = validator

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the top-level properties, in the order that answers write them."""
        return tuple(self.schema.get("properties", {}))

    def problems(self, value: Json) -> tuple[str, ...]:
        """What is wrong with `value`, one line each, at most ten; empty when it keeps the schema."""
        found = []
        for error in self._validator.iter_errors(value):
            place = "/".join(str(p) for p in error.instance_path)
            found.append(f"{place}: {error.message}"[:300] if place else error.message[:300])
            if len(found) == 10:
                break
        return tuple(found)

    def parse(self, text: str) -> tuple[Json, tuple[str, ...]]:
        """(value, problems) of an answer's text. The value is None when it is no JSON."""
        value, problems = parse_json(text)
        return value, problems or self.problems(value)


def parse_json(text: str) -> tuple[Json, tuple[str, ...]]:
    """(value, problems) of a text that should be JSON (RFC 8259: no NaN, no Infinity, no duplicate keys).

    What no database and no other program could take back is refused too: numbers out of range, halves of surrogate
    pairs, and nesting beyond MAX_VALUE_DEPTH.
    """
    try:
        value = _DECODER.decode(text)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, ("not valid JSON: it holds half of a surrogate pair",)
    except (ValueError, RecursionError) as error:
        return None, (f"not valid JSON: {error}",)
    if deeper_than(value, MAX_VALUE_DEPTH):
        return None, (f"nests deeper than {MAX_VALUE_DEPTH} levels",)
    return value, ()


def check_schema(schema: Json, *, param: str = "schema") -> OutputSchema:
    """Check and compile a schema. Raises SchemaRefused that says what is wrong and what would be right."""
    if not isinstance(schema, Mapping):
        raise SchemaRefused(f"A JSON Schema must be an object, not {type(schema).__name__}.", param=param)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaRefused(f"The schema is not plain JSON: {error}.", param=param) from error
    if len(text) > MAX_BYTES:
        raise SchemaRefused(f"The schema has {len(text)} bytes; at most {MAX_BYTES} are allowed.", param=param)
    try:
        return _compile(text)
    except SchemaRefused as error:
        raise SchemaRefused(error.message, param=param) from error


@lru_cache(maxsize=256)
def _compile(text: str) -> OutputSchema:
    schema = json.loads(text)
    if deeper_than(schema, 3 * MAX_DEPTH):  # a level of a schema is at most two of JSON; the rest is for values
        raise SchemaRefused(f"The schema nests deeper than {MAX_DEPTH} levels.")
    dialect = schema.get("$schema", _DIALECTS[0])
    if not isinstance(dialect, str) or dialect.removesuffix("#") not in _DIALECTS:
        raise SchemaRefused(f"$schema '{str(dialect)[:100]}' is not known; leave it out or use '{_DIALECTS[0]}'.")
    plain = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    try:
        jsonschema_rs.meta.validate(plain)
        places = _check_bounds(plain)
        if not _Termination(places).holds(plain):
            raise SchemaRefused("The schema requires itself without end: give the recursion a way to stop.")
        validator = jsonschema_rs.Draft202012Validator(
            plain,
            validate_formats=True,
            retriever=_retrieve_nothing,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1_000_000),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        message = getattr(error, "message", None) or str(error)
        raise SchemaRefused(f"Not a valid JSON Schema (2020-12): {message[:300]}") from error
    except RecursionError as error:
        raise SchemaRefused("The schema's references make too long a chain. Use fewer of them.") from error
    narrowed = {k: v for k, v in _spelled_out(plain).items() if k != "x-guidance"}
    body = json.dumps({"x-guidance": _WHITESPACE, **narrowed})
    grammar = f"%llguidance {{}}\nstart: %json {body}"
    # An engine that gets a grammar it cannot parse may decode without any: never send one unchecked.
    failed, notes = LLMatcher.validate_grammar_with_warnings(grammar)
    if failed:
        reason = notes[0].split("failed to compile JSON schema: ")[-1].split("\n   1 |")[0].strip()
        raise SchemaRefused(f"The schema cannot be used to constrain answers: {reason[:300]}.")
    return OutputSchema(schema, grammar, tuple(notes), validator)


def _retrieve_nothing(address: str) -> Json:
    raise ValueError("nothing is fetched")


def _spelled_out(node: Json) -> Json:
    """`node` with short arrays of different choices written out as an enum of whole arrays.

    llguidance cannot enforce uniqueItems, and a small model likes to repeat itself; the tag set of a ticket, say, has
    few enough arrangements to list.
    """
    if not isinstance(node, Mapping):
        return node
    choices = (node.get("items") or {}).get("enum") if isinstance(node.get("items"), Mapping) else None
    if node.get("type") == "array" and node.get("uniqueItems") is True and isinstance(choices, list):
        # 1.0 is an integer to JSON Schema
        least, most = int(node.get("minItems", 0)), min(int(node.get("maxItems", len(choices))), len(choices))
        sizes = range(least, most + 1)
        if len(choices) <= 20 and sum(math.perm(len(choices), size) for size in sizes) <= MAX_ARRANGEMENTS:
            return {"enum": [list(some) for size in sizes for some in itertools.permutations(choices, size)]}
    spelled = dict(node)
    spelled |= {key: _spelled_out(node[key]) for key in _SUBSCHEMAS if key in node}
    spelled |= {key: [_spelled_out(child) for child in node[key]] for key in _SUBSCHEMA_LISTS if key in node}
    for key in _SUBSCHEMA_MAPS:
        if key in node:
            spelled[key] = {name: _spelled_out(child) for name, child in node[key].items()}
    return spelled


def pointed(reference: str, schema: Mapping[str, Json]) -> Json:
    """The part of a schema that a reference inside it leads to (a JSON Pointer, RFC 6901); None for none, and for an
    anchor's name."""
    start, *parts = unquote(reference).removeprefix("#").split("/")
    node: Json = None if start else schema
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            node = node.get(name) if isinstance(node, Mapping) else None
    return node


def followed(node: Json, schema: Mapping[str, Json], seen: set[str] | None = None) -> Mapping[str, Json]:
    """What a part of a schema says together with what its references lead to, and with its one alternative to null;
    what stands nearer goes first. `seen` takes the references on the way; those that it has already lead nowhere. A
    chain is followed for MAX_DEPTH parts: no generator writes longer ones, and requests wait for this."""
    found: dict[str, Json] = {}
    seen = set() if seen is None else seen
    for _ in range(MAX_DEPTH):
        if not isinstance(node, Mapping):
            break
        for key, value in node.items():
            found.setdefault(key, value)
        reference = node.get("$ref")
        if isinstance(reference, str):
            node = None if reference in seen else pointed(reference, schema)
            seen.add(reference)
        else:
            either = alternatives(node)
            node = either[0] if len(either) == 1 else None
    return found


def alternatives(node: Mapping[str, Json]) -> list[Json]:
    """What a part of a schema lets an answer choose from (`anyOf`, `oneOf`), null aside, however that is written."""
    return [some for some in node.get("anyOf") or node.get("oneOf") or () if not _is_null(some)]


def _is_null(node: Json) -> bool:
    return isinstance(node, Mapping) and (
        node.get("type") in ("null", ["null"])
        or node.get("enum") == [None]
        or ("const" in node and node["const"] is None)
    )


def _children(node: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """(JSON Pointer from `node`, subschema) of each. The metaschema must hold for `node`."""
    for key in _SUBSCHEMAS:
        if key in node:
            yield key, node[key]
    for key in _SUBSCHEMA_LISTS:
        for i, child in enumerate(node.get(key, ())):
            yield f"{key}/{i}", child
    for key in _SUBSCHEMA_MAPS:
        for name, child in node.get(key, {}).items():
            if not isinstance(child, list):  # `dependencies` may also list names
                yield f"{key}/{name.replace('~', '~0').replace('/', '~1')}", child


def _check_bounds(schema: Mapping[str, Json]) -> dict[str, Json]:
    """The subschemas by every reference that leads to them. The metaschema must hold for `schema`."""
    stack: list[tuple[str, Json, int]] = [("#", schema, 1)]
    places: dict[str, Json] = {}
    references: list[tuple[str, str, str]] = []
    nodes = enum_values = 0
    while stack:
        path, node, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise SchemaRefused(f"The schema nests deeper than {MAX_DEPTH} levels (at {path[:200]}).")
        if nodes > MAX_NODES:
            raise SchemaRefused(f"The schema has more than {MAX_NODES} parts.")
        if len(path) > MAX_PLACE:
            raise SchemaRefused(f"The schema's names are too long (at {path[:200]}).")
        places[path] = node
        if isinstance(node, bool):
            continue
        enum_values += len(node.get("enum", ()))
        if enum_values > MAX_ENUM:
            raise SchemaRefused(f"The schema's enums hold more than {MAX_ENUM} values in all.")
        places |= {f"#{node[key]}": node for key in ("$anchor", "$dynamicAnchor") if key in node}
        references += [(path, key, node[key]) for key in ("$ref", "$dynamicRef") if key in node]
        for key in ("$id", "$schema"):
            if key in node:
                raise SchemaRefused(f"{path}: {key} may stand only at the top of the schema.")
        patterns = [node["pattern"]] if "pattern" in node else []
        if any(len(pattern) > MAX_PATTERN for pattern in (*patterns, *node.get("patternProperties", ()))):
            raise SchemaRefused(f"{path}: a pattern is longer than {MAX_PATTERN} characters.")
        for key in ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"):
            if node.get(key, 0) > MAX_REPEAT:
                raise SchemaRefused(f"{path}: {key} is {node[key]}; at most {MAX_REPEAT} is allowed.")
        stack.extend((f"{path}/{name}", child, depth + 1) for name, child in _children(node))
    for path, key, reference in references:
        if not reference.startswith("#"):
            raise SchemaRefused(f"{path[:200]}: {key} '{reference[:100]}' leaves the schema; only '#/...' may be used.")
        if unquote(reference) not in places:
            raise SchemaRefused(
                f"{path[:200]}: what {key} '{reference[:100]}' points to does not exist or is no subschema; "
                "put shared parts under '$defs'."
            )
    return places


class _Termination:
    """Whether a finite value can keep a schema: false for one that requires itself through every path."""

    def __init__(self, places: Mapping[str, Json]) -> None:
        self.places = places
        self.steps = 0

    def holds(self, node: Json, open_refs: frozenset[str] = frozenset()) -> bool:
        self.steps += 1
        if self.steps > 20 * MAX_NODES:  # definitions that refer to each other in every order
            raise SchemaRefused("The schema's references are too entangled. Use fewer of them.")
        if not isinstance(node, Mapping) or "enum" in node or "const" in node:
            return True
        if "$ref" in node:
            ref = unquote(node["$ref"])
            if ref in open_refs or not self.holds(self.places[ref], open_refs | {ref}):
                return False
        for key in ("anyOf", "oneOf"):
            if (options := node.get(key)) and not any(self.holds(o, open_refs) for o in options):
                return False
        if not all(self.holds(part, open_refs) for part in node.get("allOf", ())):
            return False
        kinds = node.get("type")
        if isinstance(kinds, list) and set(kinds) - {"object", "array"}:
            return True
        required, properties = node.get("required"), node.get("properties")
        if required is not None and properties is not None:
            return all(self.holds(properties[name], open_refs) for name in required if name in properties)
        if node.get("minItems", 0) > 0 and "items" in node:
            return self.holds(node["items"], open_refs)
        return True


def deeper_than(value: Json, limit: int) -> bool:
    """Whether a JSON value nests deeper than `limit` levels; without recursion, so at any depth."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
