"""The starter skills' own adapters: trained by the product as a user would, shipped where the gate promotes them.

    python docs/starters.py --home DIR                     every skill without one, in a workspace in DIR
    python docs/starters.py --home DIR support-triage      one, also where it has one
    python docs/starters.py --home DIR policy-answers --epochs 2     with an option of `intern learn`

Takes an hour or more a skill on two cores. What a run cannot end goes on from its last checkpoint when the
same folder is named again. A promoted adapter is copied to adapters/ in place of the skill's former one, named in
adapters/shipped.json and in pyproject.toml; the scores of every one go into docs/skills.md, with the verdict where that
is another. Commit all of it together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from quickstart import ROOT

from intern.cli.init import shipped as adapters_of

RANK = "4"  # a quarter of the default, and of its files: every clone brings them
ADAPTERS = ROOT / "adapters"
NAMES = ADAPTERS / "shipped.json"
PROJECT = ROOT / "pyproject.toml"
PAGE = ROOT / "docs" / "skills.md"
RIVALS = ("base", "retrieval", "candidate")
HEAD = (
    "| skill | in | out | score: base model, with the nearest examples in the prompt, with its adapter |\n"
    "|---|---|---|---|"
)


def shipped() -> dict[str, Path]:
    """The adapters that are shipped: folders by skill."""
    return {read(folder / "manifest.json")["skill"]: folder for folder in adapters_of(ADAPTERS) if folder != NAMES}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def intern(home: Path, *arguments: str) -> None:
    environment = {**os.environ, "INTERN_HOME": str(home)}
    subprocess.run([sys.executable, "-m", "intern.cli", *arguments], cwd=ROOT, env=environment, check=True)


def newest(home: Path, skill: str) -> Path:
    """The adapter of the skill that was made last in that workspace."""
    found = [path.parent for path in home.glob("adapters/*/manifest.json") if read(path)["skill"] == skill]
    return max(found, key=lambda folder: read(folder / "manifest.json")["created"])


def decision(adapter: Path) -> str:
    found: str = read(adapter / "verdict.json")["ruling"]["decision"]
    return found


def ship(skill: str, adapter: Path) -> None:
    """Put an adapter in the place of the skill's former one."""
    by_skill = shipped()
    former = by_skill.get(skill)
    by_skill[skill] = ADAPTERS / adapter.name
    if not by_skill[skill].exists():
        shutil.copytree(adapter, by_skill[skill])
    digests = [by_skill[name].name for name in sorted(by_skill)]
    NAMES.write_text(json.dumps(digests, indent=1) + "\n")
    lines = [f'"share/llama-intern/adapters" = ["adapters/{NAMES.name}"]']
    lines += [f'"share/llama-intern/adapters/{digest}" = ["adapters/{digest}/*.*"]' for digest in digests]
    others = re.sub(r'"share/llama-intern/adapters.*\n', "", PROJECT.read_text())
    table = "[tool.setuptools.data-files]\n"
    PROJECT.write_text(others.replace(table, table + "".join(f"{line}\n" for line in lines)))
    if former is not None and former != by_skill[skill]:
        shutil.rmtree(former)


def write_scores(skill: str, adapter: Path) -> None:
    """The skill's row in the table of starter skills in docs/skills.md."""
    text = PAGE.read_text(encoding="utf-8")
    begin = text.index("| skill | in | out")
    end = text.index("\n\n", begin)
    rows = []
    for line in text[begin:end].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == f"`{skill}`":
            cells[3] = scores(adapter)
        rows.append(f"| {' | '.join(cells)} |")
    PAGE.write_text("\n".join([text[:begin] + HEAD, *rows]) + text[end:], encoding="utf-8")


def scores(adapter: Path) -> str:
    rivals = read(adapter / "verdict.json")["rivals"]
    base, nearest, own = (rivals[name]["score"]["mean"] for name in RIVALS)
    if decision(adapter) == "promote":
        return f"{base:.2f}, {nearest:.2f}, **{own:.2f}**"
    return f"{base:.2f}, {nearest:.2f}, {own:.2f}: not shipped, {decision(adapter).replace('_', ' ')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skill", nargs="*", help="which; otherwise every one that has no adapter yet")
    parser.add_argument("--home", type=Path, required=True, help="the workspace to train in; made if it is missing")
    arguments, options = parser.parse_known_args()
    home = arguments.home.resolve()
    if not (home / "skills").exists():
        intern(home, "init", str(home))
    every = sorted(path.parent.name for path in home.glob("skills/*/skill.yaml"))
    for skill in arguments.skill or [name for name in every if name not in shipped()]:
        print(f"== {skill}", flush=True)
        intern(home, "learn", skill, "--rank", RANK, *options)
        adapter = newest(home, skill)
        if decision(adapter) == "promote":
            ship(skill, adapter)
        if decision(adapter) == "promote" or skill not in shipped():
            write_scores(skill, adapter)
        print(f"{skill}: {scores(adapter)}", flush=True)


if __name__ == "__main__":
    main()
