"""A server that is killed at any step of going live serves, started again, what served before or the new adapter.

Real server, real engine: see killed_server.py.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
from learning.adapters import killed_server
from learning.adapters.killed_server import STEPS
from made_export import SKILL, add_adapter, make_home, open_workspace

from intern.store import keys
from intern.types import Json

# The processes are forked from one that has imported everything, which takes half of a server's start.
SERVERS = multiprocessing.get_context("forkserver")
SERVERS.set_forkserver_preload([killed_server.__name__, "xllamacpp", "intern.learning.export.describe"])
# Each takes seconds; these are always tried, the others with what takes minutes.
SOME = ("when the verdict lies beside the adapter", "when the row has changed", "before the run is saved as done")
FLIPPED = tuple(STEPS).index("when the row has changed")


class House:
    """A workspace whose skill is served by v1."""

    def __init__(self, home: Path, key: str) -> None:
        self.home = home
        self.key = key

    def copy(self, home: Path) -> House:
        shutil.copytree(self.home, home)
        return House(home, self.key)

    def run(self, step: str | None = None) -> tuple[int | None, list[dict[str, Any]]]:
        """How the server's process ended, and what it said."""
        said = self.home.with_name(f"{uuid.uuid4().hex}.jsonl")
        process = SERVERS.Process(target=killed_server.main, args=(self.home, self.key, step, said))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            pytest.fail("it goes on after five minutes")
        return process.exitcode, [json.loads(line) for line in said.read_text().splitlines(keepends=True)]


@pytest.fixture(scope="module")
def house(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    home = make_home(tmp_path_factory.mktemp("killed") / "home", model_path)
    workspace = open_workspace(home)
    add_adapter(workspace, home.with_name("first"))
    with workspace.database.begin() as connection:
        _, key = keys.create_key(connection, team="default", name="test", role="admin")
    workspace.recorder.close()
    workspace.database.dispose()
    workspace.ownership.release()
    return House(home, key)


@pytest.fixture(scope="module")
def outputs(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    """What each version answers, from a server that nobody kills."""
    code, said = house.copy(tmp_path_factory.mktemp("unhurt") / "home").run()
    assert code == 0
    answers = {line["adapter"]: line["output"] for line in said if "adapter" in line}
    assert sorted(answers) == [f"{SKILL}@v1", f"{SKILL}@v2"]
    assert answers[f"{SKILL}@v1"] != answers[f"{SKILL}@v2"]
    check(said, answers)
    return answers


def check(said: list[dict[str, Any]], outputs: dict[str, Json]) -> None:
    """Every request was answered, by an adapter that could have, with what that one says."""
    for line in said:
        if "status" in line:
            assert line["status"] == 200
            assert line["output"] == outputs[line["adapter"]]


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step in SOME else pytest.mark.trains) for step in STEPS]
)
def test_a_server_that_is_killed_goes_on_with_the_old_or_the_new_adapter_and_ends_its_run(
    house: House, outputs: dict[str, Json], tmp_path: Path, step: str
) -> None:
    home = house.copy(tmp_path / "home")
    code, before = home.run(step)
    assert code == -signal.SIGKILL
    check(before, outputs)
    code, after = home.run()
    assert code == 0
    check(after, outputs)
    # Before the row has changed it may be the new one, too: the former engine ends beside the promotion, and the next
    # server promotes as soon as it can.
    could = (2,) if tuple(STEPS).index(step) >= FLIPPED else (1, 2)
    assert after[0]["adapter"] in [f"{SKILL}@v{version}" for version in could]
    (ended,) = [line for line in after if "run" in line]
    assert ended["run"] == {"state": "done", "stage": "promote", "decision": "promote", "adapter": f"{SKILL}@v2"}
    assert ended["runs"] == 1
    assert after[-1]["adapter"] == f"{SKILL}@v2"
