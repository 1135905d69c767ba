"""Data goes one way: a part imports the vocabulary and what lies before it, and the library imports no web edge.

`MAY` says for every part of `intern/` what else of the house it may import, at any depth of the code. A new part must
be entered here, which is the moment to think about where it belongs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

VOCABULARY = {"types", "errors", "settings"}
MAY: dict[str, set[str]] = {
    "__init__": set(),
    "types": set(),
    "errors": set(),
    "settings": set(),
    "ownership": VOCABULARY,
    "apart": VOCABULARY,
    "threads": VOCABULARY,
    "strict_json": VOCABULARY,
    "schema": VOCABULARY | {"strict_json"},
    "measures": VOCABULARY | {"schema"},
    "parsers": VOCABULARY | {"apart"},
    "models": VOCABULARY,
    "engines": VOCABULARY | {"schema"},
    "skill": VOCABULARY | {"schema", "measures"},
    "library": VOCABULARY | {"skill"},
    "store": VOCABULARY,
    "routing": VOCABULARY | {"models"},
    "knowledge": VOCABULARY | {"apart", "models", "store", "parsers"},
    "prompt": VOCABULARY | {"schema", "skill", "engines"},
    "stages": VOCABULARY | {"skill", "models"},
    "inflight": VOCABULARY | {"schema", "skill", "engines", "prompt"},
    "pipeline": VOCABULARY
    | {"schema", "skill", "library", "models", "engines", "store", "prompt", "stages", "inflight"},
    "reviews": VOCABULARY | {"skill", "library", "store"},
    "learning": VOCABULARY
    | {"__init__", "apart", "strict_json", "schema", "measures", "skill", "library", "models", "engines", "store"}
    | {"parsers", "prompt"},
    "workspace": VOCABULARY
    | {"__init__", "ownership", "schema", "skill", "library", "models", "engines", "store", "routing", "knowledge"}
    | {"pipeline", "prompt", "reviews", "machine", "threads", "learning"},
    "removal": VOCABULARY | {"skill", "store", "learning", "workspace"},
    "machine": VOCABULARY | {"ownership", "models", "store"},
    "doctor": VOCABULARY | {"ownership", "machine", "workspace", "models", "store"},
}
# The same for the parts of intern/learning.
LEARNING: dict[str, set[str]] = {
    "__init__": set(),
    "settled": set(),
    "disk": set(),
    "train": {"adapters", "disk"},
    "adapters": {"disk"},
    "fields": set(),
    "claims": {"fields"},
    "imports": {"fields"},
    "privacy": {"fields"},
    "examples": {"privacy", "train"},
    "judging": {"claims", "examples", "settled", "train"},
    "teaching": {"claims", "examples"},
    "synthesis": {"claims", "examples", "judging", "settled", "teaching"},
    "loop": {"adapters", "disk", "examples", "judging", "settled", "synthesis", "train"},
    "reports": {"judging", "loop"},
    "export": {"adapters", "disk", "examples", "judging", "loop", "train"},
    "parts": {"examples", "judging", "loop", "privacy"},
    "journal": {"adapters", "settled", "train"},
    "carrying": {"adapters", "export", "journal", "loop", "settled", "train"},
    "leftovers": {"adapters", "journal", "loop", "train"},
    "budget": set(),
    "learner": {"adapters", "budget", "carrying", "journal", "leftovers", "loop", "settled", "train"},
    "triggers": {"budget", "examples"},
    "erasure": {"learner", "loop", "parts"},
}
EDGES = {"cli"}  # of the library: it may use all of it


def part_of(module: str) -> str:
    """intern.engines.base -> engines"""
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path, root: Path = ROOT) -> set[str]:
    """Every module that a file imports, inside functions and for type checking too."""
    found: set[str] = set()
    package = ".".join(path.relative_to(root).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, (package if node.level else "", node.module or "")))
            # `from intern import pipeline` names a module, `from intern.types import Ask` does not; both are kept.
            found |= {base} if base != "intern" else {f"intern.{name.name}" for name in node.names}
    return found


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


def parts() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sources("intern"):
        found.setdefault(path.relative_to(ROOT / "intern").parts[0].removesuffix(".py"), []).append(path)
    return found


def test_there_is_a_rule_for_every_part() -> None:
    assert parts().keys() - EDGES == MAY.keys()


@pytest.mark.parametrize("part", sorted(MAY))
def test_a_part_imports_only_what_lies_before_it(part: str) -> None:
    for path in parts().get(part, ()):
        used = {part_of(m) for m in imported(path) if m == "intern" or m.startswith("intern.")}
        assert used - {part, "__version__"} <= MAY[part], path


def test_the_parts_of_learning_keep_their_order_too() -> None:
    folder = ROOT / "intern" / "learning"
    found: dict[str, set[str]] = {}
    for path in sources("intern/learning"):
        part = path.relative_to(folder).parts[0].removesuffix(".py")
        used = {m.split(".")[2] for m in imported(path) if m.startswith("intern.learning.")}
        found[part] = found.get(part, set()) | (used - {part})
    assert found.keys() == LEARNING.keys()
    assert {part: used - LEARNING[part] for part, used in found.items() if used - LEARNING[part]} == {}


@pytest.mark.parametrize("rules", [MAY, LEARNING])
def test_the_rules_allow_no_circle(rules: dict[str, set[str]]) -> None:
    done: set[str] = set()
    while len(done) < len(rules):
        ready = {part for part, needs in rules.items() if part not in done and needs <= done}
        assert ready, f"these need each other: {sorted(rules.keys() - done)}"
        done |= ready


@pytest.mark.parametrize("folder", ["intern", "server"])
def test_the_library_imports_no_edge_and_the_edge_no_command_line(folder: str) -> None:
    never = {"intern": ("server", "tests", "benchmarks"), "server": ("intern.cli", "tests", "benchmarks")}[folder]
    for path in sources(folder):
        for module in imported(path):
            assert not any(module == name or module.startswith(f"{name}.") for name in never), (path, module)


@pytest.mark.parametrize("module", ["fastapi", "starlette"])
def test_no_web_framework_in_the_library(module: str) -> None:
    for path in sources("intern"):
        assert not any(name == module or name.startswith(f"{module}.") for name in imported(path)), path


def test_only_settings_reads_the_environment() -> None:
    """Nothing deep inside reads it; setting a variable for a library that only knows variables is something else."""
    for path in (*sources("intern"), *sources("server")):
        if path.relative_to(ROOT).parts[:2] == ("intern", "cli") or path.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            reads = isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.getenv", "os.environ.get")
            reads |= (
                isinstance(node, ast.Subscript)
                and isinstance(node.ctx, ast.Load)
                and ast.unparse(node.value) == "os.environ"
            )
            system = "COMSPEC" in ast.unparse(node)  # where Windows lies is the system's to say, and no setting
            assert system or not reads, f"{path}:{getattr(node, 'lineno', 0)}"


def test_the_check_sees_every_kind_of_import(tmp_path: Path) -> None:
    probe = tmp_path / "intern" / "probe.py"
    probe.parent.mkdir()
    probe.write_text(
        "import intern.store.keys, os\nfrom intern import doctor\nfrom . import cli\n"
        "def f():\n    from intern.engines.base import Token\n"
    )
    found = imported(probe, tmp_path)
    assert found == {"intern.store.keys", "os", "intern.doctor", "intern.cli", "intern.engines.base"}


def test_serving_needs_nothing_of_what_only_learning_needs() -> None:
    """The server's lock lacks these; and a training library costs seconds and hundreds of megabytes."""
    only_learning = [
        "accelerate",
        "bitsandbytes",
        "datasets",
        "gguf",
        "matplotlib",
        "peft",
        "presidio_analyzer",
        "spacy",
        "trl",
    ]
    program = (
        "import sys, intern.workspace, intern.cli, intern.cli.up, server.app; "
        f"print([name for name in {only_learning} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
