"""What a JSON Schema says of one place in a value: its types, its choices, what it requires, what stands below it.

In: a schema node and the root that its references point into. Out: a `Place`, and from it the places below. It reads
`$ref`, `allOf`, `anyOf` and `oneOf`, and where a schema says more than that (`if`, `not`, patterns) it is permissive:
whether a finished value keeps the schema is for `OutputSchema.problems` to say. Knows nothing of rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from intern.schema import OutputSchema, alternatives, pointed
from intern.types import Json

ANY = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
MAX_LEAF_DEPTH = 3


class Place:
    """One place in a value. `kinds` are JSON Schema's type names; `number` always comes with `integer`."""

    def __init__(self, node: Json, root: Mapping[str, Json]) -> None:
        self._root = root
        self._node = node
        self._nodes = tuple(_conjuncts(node, root))

    @cached_property
    def kinds(self) -> frozenset[str]:
        """The types that a value may have here."""
        return _kinds(self._node, self._root, {})

    @cached_property
    def choices(self) -> tuple[Json, ...]:
        """The values of an `enum` or `const`, or of alternatives that are all such; empty: not closed."""
        for node in self._nodes:
            if "const" in node:
                return (node["const"],)
            if isinstance(node.get("enum"), list):
                return tuple(node["enum"])
            for key in ("anyOf", "oneOf"):
                closed = [_own_choices(option) for option in node.get(key) or ()]
                if closed and all(closed):
                    return tuple(choice for some in closed for choice in some)
        return ()

    @cached_property
    def required(self) -> frozenset[str]:
        """The properties that an object must have here."""
        return frozenset(name for node in self._nodes for name in node.get("required") or ())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The properties that are described here, in the schema's order."""
        return tuple(dict.fromkeys(name for node in self._nodes for name in node.get("properties") or ()))

    def child(self, name: str) -> Place:
        """The place of property `name`; one that is not described admits everything."""
        for node in self._nodes:
            if name in (node.get("properties") or ()):
                return Place(node["properties"][name], self._root)
        for node in self._nodes:
            if isinstance(extra := node.get("additionalProperties"), Mapping):
                return Place(extra, self._root)
        return Place({}, self._root)

    @cached_property
    def item(self) -> Place:
        """The place of an array's items."""
        return Place(next((node["items"] for node in self._nodes if "items" in node), None), self._root)

    @property
    def is_closed(self) -> bool:
        return bool(self.choices)

    def at(self, path: str) -> Place:
        """The place of a dotted path such as `vendor.name`; a property whose own name has a dot goes first."""
        if path in self.names or "." not in path:
            return self.child(path)
        first, _, rest = path.partition(".")
        return self.child(first).at(rest)


def top(schema: OutputSchema | None) -> Place:
    """The place of a whole output. Without a schema it admits everything."""
    return Place({}, {}) if schema is None else Place(schema.schema, schema.schema)


def leaves(place: Place, prefix: str = "", depth: int = 1) -> Iterator[tuple[str, Place]]:
    """(dotted path, place) of the properties of an object, and of objects inside it, down to three levels."""
    for name in place.names:
        below = place.child(name)
        yield prefix + name, below
        if "object" in below.kinds and below.names and depth < MAX_LEAF_DEPTH:
            yield from leaves(below, f"{prefix}{name}.", depth + 1)


def _conjuncts(node: Json, root: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """`node` and everything that must hold with it: the target of its reference and the members of allOf.

    An alternative to null (`anyOf: [X, {"type": "null"}]`) is looked into as well: it says what the value is like.
    """
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, Mapping):
            continue
        yield node
        if isinstance(ref := node.get("$ref"), str) and ref not in seen:
            seen.add(ref)
            waiting.append(pointed(ref, root))
        waiting += list(node.get("allOf") or ())
        either = alternatives(node)
        if len(either) == 1 and isinstance(either[0], Mapping):
            waiting.append({key: value for key, value in either[0].items() if key not in ("type", "enum", "const")})


def _kinds(node: Json, root: Mapping[str, Json], known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The types that `node` admits. `known`: references that were looked into, or are being."""
    if not isinstance(node, Mapping):
        return ANY
    found = ANY
    if "type" in node:
        types = {node["type"]} if isinstance(node["type"], str) else set(node["type"])
        found &= types | ({"integer"} if "number" in types else set())
    if "const" in node:
        found &= {_kind_of(node["const"])}
    if "enum" in node:
        found &= {_kind_of(value) for value in node["enum"]}
    if isinstance(ref := node.get("$ref"), str):
        if ref not in known:
            known[ref] = ANY  # a reference to itself says nothing new
            known[ref] = _kinds(pointed(ref, root), root, known)
        found &= known[ref]
    for part in node.get("allOf") or ():
        found &= _kinds(part, root, known)
    for key in ("anyOf", "oneOf"):
        if options := node.get(key):
            found &= frozenset[str]().union(*(_kinds(option, root, known) for option in options))
    return found


def _own_choices(node: Json) -> tuple[Json, ...]:
    if not isinstance(node, Mapping):
        return ()
    if "const" in node:
        return (node["const"],)
    return tuple(node["enum"]) if isinstance(node.get("enum"), list) else (None,) if node.get("type") == "null" else ()


def _kind_of(value: Json) -> str:
    if value is None:
        return "null"
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "object")
