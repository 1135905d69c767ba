"""A skill folder: read it, check it, write it.

In: a folder `skills/<name>/` with skill.yaml and, beside it, schema.json, examples.jsonl, utterances.txt and docs/.
Out: an immutable `Skill`, or SkillInvalid with *every* problem found, each naming file and line or key and what would
be right. Knows nothing of teams, databases or servers; `intern/library.py` keeps the skills of a workspace.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from intern.errors import Conflict, InvalidInput, SchemaRefused, SkillInvalid
from intern.measures import Measures, misfits
from intern.schema import OutputSchema, check_schema, followed
from intern.types import Example, Json, Message, Metric, Model, Split

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
RESERVED = frozenset({"auto", "base"})
MAX_FILE = 50_000_000
MAX_PERSON = 200  # characters of the name by which a person's data is found, as of `user` in requests
_LONG_NUMBER = "not valid JSON: a number of thousands of digits"


class Retrieval(Model):
    """`passages` is how many are shown to the model. `citations` names the output field that lists document names."""

    enabled: bool = False
    passages: int = Field(default=4, ge=1, le=50)
    citations: str | None = None


class Prompting(Model):
    """Worked examples in the base model's prompt: none, the same ones for every request, or the nearest to it. They
    come from the skill's newest dataset. An adapter answers without them."""

    examples: Literal["none", "fixed", "nearest"] = "none"


class Generation(Model):
    """Defaults for decoding; a request may override them. `temperature` 0 is greedy."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=32_768)


class ReviewRule(Model):
    """Which answers a person should look at: all, none, or a random share `rate`; low confidence always."""

    mode: Literal["auto", "always", "sample"] = "auto"
    rate: float = Field(default=0.1, ge=0, le=1)
    below_confidence: float = Field(default=0.0, ge=0, le=1)


class Learning(Model):
    """When the skill is trained, on what, and who lets an adapter go live.

    `auto`: by itself, after `new_examples` more than last time, after `every_days`, or when people accept clearly fewer
    answers than before; at most `runs_a_week` times. `approve`: a person promotes. `redact` `collected`: the folder's
    own examples are invented and hold nobody's data. `refusal` is how the output says no, such as `{found: false}`.
    `primary` is the output field by which adapters are judged; None: the mean over all.
    """

    min_examples: int = Field(default=50, ge=1)
    auto: bool = False
    new_examples: int = Field(default=50, ge=1)
    every_days: int | None = Field(default=None, ge=1)
    runs_a_week: int = Field(default=3, ge=1, le=100)
    approve: bool = False
    redact: Literal["all", "collected"] = "all"
    refusal: dict[str, Json] | None = Field(default=None, min_length=1, max_length=1)
    primary: str | None = None


class SkillSpec(BaseModel):
    """What stands in skill.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1, max_length=2_000)
    instructions: str = Field(min_length=1, max_length=20_000)
    output: str | None = None
    retrieval: Retrieval = Retrieval()
    prompting: Prompting = Prompting()
    generation: Generation = Generation()
    review: ReviewRule = ReviewRule()
    learning: Learning = Learning()
    evaluation: Measures = Measures()
    metrics: dict[str, Metric] = Field(default_factory=dict)


class Skill:
    """One skill, read and checked. `digest` changes whenever a prompt or its decoding would."""

    def __init__(
        self,
        name: str,
        spec: SkillSpec,
        schema: OutputSchema | None,
        examples: tuple[Example, ...],
        utterances: tuple[str, ...],
        folder: Path,
    ) -> None:
        self.name = name
        self.spec = spec
        self.schema = schema
        self.examples = examples
        self.utterances = utterances
        self.folder = folder

    @cached_property
    def digest(self) -> str:
        spec = self.spec.model_dump(mode="json", include={"instructions", "retrieval", "prompting", "generation"})
        body = json.dumps([self.name, spec, self.schema.digest if self.schema else None], sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """How each output field is compared: as declared, otherwise by its schema's type."""
        if self.schema is None:
            return {"text": "text"}
        return {
            name: self.spec.metrics.get(name) or _metric_of(self.schema.schema, name) for name in self.schema.properties
        }

    @property
    def docs(self) -> Path:
        return self.folder / "docs"


def _metric_of(schema: Mapping[str, Json], name: str) -> Metric:
    node = followed(schema["properties"][name], schema)
    if "enum" in node or "const" in node:
        return "exact"
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "array" in kinds:
        return "set"
    if "number" in kinds:
        return "number"
    return "text" if "string" in kinds and node.get("maxLength", 1_000) > 80 else "exact"


# --- reading ---------------------------------------------------------------------------------------------------


def read_skill(folder: Path) -> Skill:
    """Read and check a skill folder. Raises SkillInvalid with every problem found."""
    name = folder.name
    problems: list[str] = []
    check_name(name, problems)
    spec = _read_spec(folder / "skill.yaml", problems)
    schema = _read_schema(folder, spec, problems) if spec else None
    if spec and (schema is not None or spec.output is None):
        _check_fields(spec, schema, problems)
    broken_schema = spec is None or (spec.output is not None and schema is None)
    examples = _read_examples(folder / "examples.jsonl", schema, problems, check_output=not broken_schema)
    utterances = _read_utterances(folder / "utterances.txt", problems)
    if problems or spec is None:
        raise SkillInvalid(name, problems)
    return Skill(name, spec, schema, examples, utterances, folder)


def check_name(name: str, problems: list[str]) -> None:
    """Add a problem when `name` cannot name a skill."""
    if not NAME.fullmatch(name):
        problems.append(f"folder name '{name[:80]}': use 1 to 64 of a-z, 0-9 and '-', not '-' first or last")
    elif name in RESERVED:
        problems.append(f"folder name '{name}': this name is reserved; choose another")


def _text(path: Path, problems: list[str]) -> str | None:
    try:
        if path.stat().st_size > MAX_FILE:
            problems.append(f"{path.name}: larger than {MAX_FILE // 1_000_000} MB")
            return None
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.append(f"{path.name}:{line}: byte {error.start} is not UTF-8; save the file as UTF-8")
    except OSError as error:
        problems.append(f"{path.name}: cannot be read: {error.strerror}")
    return None


def _read_spec(path: Path, problems: list[str]) -> SkillSpec | None:
    if not path.is_file():
        problems.append("skill.yaml: missing; it holds title, description and instructions")
        return None
    if (text := _text(path, problems)) is None:
        return None
    try:
        node = yaml.compose(text, Loader=_PlainLoader)
        value = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"skill.yaml:{mark.line + 1}" if mark else "skill.yaml"
        problems.append(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}")
        return None
    if not isinstance(value, dict):
        problems.append("skill.yaml:1: must hold keys such as title, description, instructions")
        return None
    before = len(problems)
    for line, key in _duplicate_keys(node):
        problems.append(f"skill.yaml:{line}: key '{key}' stands twice; keep one")
    try:
        spec = SkillSpec.model_validate(value)
    except ValidationError as error:
        problems.extend(_explain(e, node) for e in error.errors())
        return None
    return spec if len(problems) == before else None


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors, which are of no use here and can inflate a small file without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)


def _duplicate_keys(node: yaml.Node | None) -> Iterable[tuple[int, str]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
            yield from _duplicate_keys(value)


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """The line that `loc` stands on, or of the nearest parent that stands somewhere."""
    line = 1
    for part in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((k, v) for k, v in node.value if k.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _explain(error: Any, node: yaml.Node | None) -> str:
    loc = error["loc"]
    key = ".".join(str(p) for p in loc)
    place = f"skill.yaml:{_line(node, loc)}: key '{key}'"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        known = _keys_at(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        return f"{place} is unknown; " + (f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}")
    said = error["msg"].removeprefix("Value error, ")
    return f"{place}: {said[0].lower()}{said[1:]}, not {_shown(error['input'])}"


def _shown(value: object) -> str:
    try:
        return json.dumps(value, default=str)[:80]
    except (TypeError, ValueError):  # YAML has keys that JSON has not
        return repr(value)[:80]


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = SkillSpec
    for part in loc:
        if isinstance(part, int):  # a place in a list of models
            continue
        kind: Any = model.model_fields[part].annotation if part in model.model_fields else None
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def _read_schema(folder: Path, spec: SkillSpec, problems: list[str]) -> OutputSchema | None:
    if spec.output is None:
        return None
    path = folder / spec.output
    if Path(spec.output).name != spec.output or not path.is_file():
        problems.append(f"skill.yaml: key 'output': '{spec.output}' is no file beside skill.yaml")
        return None
    if (text := _text(path, problems)) is None:
        return None
    try:
        return check_schema(json.loads(text))
    except json.JSONDecodeError as error:
        problems.append(f"{spec.output}:{error.lineno}: not valid JSON: {error.msg}")
    except ValueError:
        problems.append(f"{spec.output}: {_LONG_NUMBER}")
    except RecursionError:
        problems.append(f"{spec.output}: nests too deep")
    except SchemaRefused as error:
        problems.append(f"{spec.output}: {error.message}")
    return None


def _check_fields(spec: SkillSpec, schema: OutputSchema | None, problems: list[str]) -> None:
    fields = schema.properties if schema else ()
    named = [(f"metrics.{name}", name) for name in spec.metrics]
    if spec.retrieval.citations is not None:
        named.append(("retrieval.citations", spec.retrieval.citations))
    named += [(f"learning.refusal.{name}", name) for name in spec.learning.refusal or ()]
    if spec.learning.primary is not None:
        named.append(("learning.primary", spec.learning.primary))
        if spec.metrics.get(spec.learning.primary) == "ignore":
            problems.append("skill.yaml: key 'learning.primary': the field's metric is 'ignore', so it has no score")
    there = f"; it has {', '.join(fields)}" if fields else " (it has no schema)"
    problems += [
        f"skill.yaml: key '{key}': the output has no such field{there}" for key, name in named if name not in fields
    ]
    problems += [f"skill.yaml: {line}" for line in misfits(spec.evaluation, schema.schema if schema else None)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    input: str | list[_Turn] = Field(min_length=1)
    output: Json
    id: str | None = Field(default=None, min_length=1, max_length=200)
    group: str | None = None
    person: str | None = Field(default=None, min_length=1, max_length=MAX_PERSON)
    split: Split | None = None


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str


_Row.model_rebuild()


def parse_example(value: Json, schema: OutputSchema | None, *, check_output: bool = True) -> Example:
    """An Example from a row `{"input", "output", "id"?, "group"?, "person"?, "split"?}`. Raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput('an example must be an object {"input": ..., "output": ...}')
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("half of a surrogate pair (\\ud800 to \\udfff) stands alone; this is no text") from error
    try:
        row = _Row.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"][:1])
        what = {"missing": "is missing", "extra_forbidden": f"is unknown; known are {', '.join(_Row.model_fields)}"}
        raise InvalidInput(f"key '{key}' {what.get(first['type'], first['msg'].lower())}", param=key) from error
    if check_output:
        if schema is None and not isinstance(row.output, str):
            raise InvalidInput("key 'output' must be a text: the skill has no schema", param="output")
        if schema is not None and (broken := schema.problems(row.output)):
            raise InvalidInput(f"key 'output' breaks the schema: {broken[0]}", param="output")
    turns = (
        row.input if isinstance(row.input, str) else tuple(Message(role=t.role, content=t.content) for t in row.input)
    )
    if not isinstance(turns, str) and turns[-1].role != "user":
        raise InvalidInput("key 'input': the last message must be the user's", param="input")
    ident = row.id or hashlib.sha256(json.dumps(value["input"], sort_keys=True).encode()).hexdigest()[:16]
    return Example(id=ident, input=turns, output=row.output, group=row.group, split=row.split, person=row.person)


def _read_examples(
    path: Path, schema: OutputSchema | None, problems: list[str], *, check_output: bool
) -> tuple[Example, ...]:
    if not path.exists() or (text := _text(path, problems)) is None:
        return ()
    found: list[Example] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path.name}:{number}"
        try:
            example = parse_example(json.loads(line), schema, check_output=check_output)
        except json.JSONDecodeError as error:
            problems.append(f"{place}: not valid JSON: {error.msg} (column {error.colno}); one object a line")
        except ValueError:
            problems.append(f"{place}: {_LONG_NUMBER}")
        except RecursionError:
            problems.append(f"{place}: nests too deep")
        except InvalidInput as error:
            problems.append(f"{place}: {error.message}")
        else:
            if example.id in seen:
                problems.append(
                    f"{place}: id '{example.id}' stands already on line {seen[example.id]}; ids must differ"
                )
            seen.setdefault(example.id, number)
            found.append(example)
    return tuple(found)


def _read_utterances(path: Path, problems: list[str]) -> tuple[str, ...]:
    if not path.exists() or (text := _text(path, problems)) is None:
        return ()
    return tuple(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))


# --- writing ---------------------------------------------------------------------------------------------------


def write_skill(
    root: Path,
    name: str,
    spec: Mapping[str, Json],
    *,
    schema: Mapping[str, Json] | None = None,
    examples: Iterable[Mapping[str, Json]] = (),
    utterances: Iterable[str] = (),
) -> Skill:
    """Make a new skill folder below `root`, whole or not at all. Raises Conflict when it exists, SkillInvalid."""
    problems: list[str] = []
    check_name(name, problems)
    if problems:
        raise SkillInvalid(name[:80], problems)
    root.mkdir(parents=True, exist_ok=True)
    if (root / name).exists():
        raise Conflict(f"The skill '{name}' exists already.")
    place = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    try:
        folder = place / name
        folder.mkdir()
        body = dict(spec)
        if schema is not None:
            body["output"] = "schema.json"
            write_file(folder / "schema.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
        write_file(
            folder / "skill.yaml", yaml.dump(body, sort_keys=False, allow_unicode=True, Dumper=_Dumper, width=100)
        )
        rows = [json.dumps(row, ensure_ascii=False) for row in examples]
        if rows:
            write_file(folder / "examples.jsonl", "\n".join(rows) + "\n")
        lines = [" ".join(u.split()) for u in utterances]
        if lines:
            write_file(folder / "utterances.txt", "\n".join(lines) + "\n")
        read_skill(folder)
        try:
            folder.rename(root / name)
        except OSError as error:
            if (root / name).exists():
                raise Conflict(f"The skill '{name}' exists already.") from error
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return read_skill(root / name)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, the way a person would."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def write_file(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
