"""The image is built by the same steps as `make run`, from files that exist, with settings that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from intern.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
MAKEFILE = (ROOT / "Makefile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["intern"]


def instructions(name: str) -> list[str]:
    return [" ".join(line.split()[1:]) for line in DOCKERFILE.splitlines() if line.split()[:1] == [name]]


def recipe(target: str) -> str:
    found = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)
    assert found is not None, f"the Makefile has no target {target}"
    return found[1]


def test_the_same_torch_and_the_same_locks_in_the_same_order() -> None:
    torch = re.search(r"^TORCH := (\S+)$", MAKEFILE, re.M)
    assert torch is not None
    locks = re.findall(r"requirements/\w+\.txt", recipe("$(VENV)/.serve"))
    assert locks
    installs = [run for run in instructions("RUN") if " pip install " in run]
    assert len(installs) == 4
    assert torch[1] in installs[0].split()
    assert "--require-hashes" in installs[1]
    assert "--no-deps" in installs[1]
    assert re.findall(r"requirements/\w+\.txt", installs[1]) == locks
    assert re.findall(r"requirements/\w+\.txt", installs[2]) == re.findall(
        r"requirements/\w+\.txt", recipe("$(VENV)/.train")
    )
    assert "--no-deps --require-hashes" in installs[2]
    assert '[ "$TRAIN" = 1 ]' in installs[2]
    assert "--no-deps --no-build-isolation" in installs[3]


def test_what_is_copied_is_in_the_repository_and_reaches_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [word for copy in instructions("COPY") if "--from" not in copy for word in copy.split()[:-1]]
    assert {"intern", "server", "skills", "adapters", "pyproject.toml"} <= set(sources)
    for source in sources:
        tracked = subprocess.run(
            ["git", "ls-files", source], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert tracked, f"COPY {source}: no such tracked file"
        assert source.split("/")[0] not in ignored


def test_it_serves_without_root_and_by_settings_that_exist() -> None:
    assert instructions("USER") == ["1000:1000"]
    known = {f"INTERN_{name.upper()}" for name in Settings.model_fields}
    set_here = {*re.findall(r"\bINTERN_[A-Z_]+(?==)", DOCKERFILE), *COMPOSE["environment"]}
    assert set_here
    assert set_here <= known
    start = (ROOT / "docker" / "start.sh").read_text()
    command = re.search(r"exec \$\(BIN\)/(.+)$", recipe("run"), re.M)
    assert command is not None
    assert start.rstrip().endswith(f"exec {command[1]}")


def test_compose_passes_every_setting_on_that_the_image_leaves_open() -> None:
    known = {f"INTERN_{name.upper()}" for name in Settings.model_fields}
    assert COMPOSE["environment"].keys() == known - set(re.findall(r"\bINTERN_[A-Z_]+(?==)", DOCKERFILE))
    assert set(COMPOSE["environment"].values()) == {None}, "a value of its own would replace what was set"


def start(folder: Path) -> list[str]:
    """Run the image's start on `folder`, with the real `intern init` and no `intern up`; what was called."""
    called = folder / "called"
    program = folder / "bin" / "intern"
    program.parent.mkdir(exist_ok=True)
    real = f'if [ "$1" = init ]; then exec {sys.executable} -m intern.cli "$@"; fi'
    program.write_text(f'#!/bin/sh\necho "$1" >> {called}\n{real}\n')
    program.chmod(0o755)
    home = folder / "workspace"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "INTERN_HOME": str(home)}
    subprocess.run(["sh", ROOT / "docker" / "start.sh"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return called.read_text().split()


def test_an_empty_workspace_gets_the_starter_skills_once(tmp_path: Path) -> None:
    assert start(tmp_path) == ["init", "up"]
    skills = tmp_path / "workspace" / "skills"
    assert {path.name for path in skills.iterdir()} == {path.parent.name for path in ROOT.glob("skills/*/skill.yaml")}
    shutil.rmtree(skills / "support-triage")
    assert start(tmp_path) == ["init", "up", "up"], "a workspace that has skills is left alone"
    assert not (skills / "support-triage").exists()


def test_the_port_is_the_same_everywhere() -> None:
    (port,) = instructions("EXPOSE")
    assert f"INTERN_PORT={port}" in DOCKERFILE
    assert f"http://127.0.0.1:{port}/readyz" in DOCKERFILE
    (published,) = COMPOSE["ports"]
    assert published == f"127.0.0.1:{port}:{port}"
    volumes = [volume.split(":")[1] for volume in COMPOSE["volumes"]]
    assert volumes == instructions("VOLUME")
