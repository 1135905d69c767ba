"""`intern doctor`: every automatic choice with its reason, and what is amiss."""

from __future__ import annotations

from typing import Any

from intern.cli import output
from intern.cli.connection import connect
from intern.cli.options import AsJson, Home, Key, Url, load_settings
from intern.errors import InternError


def doctor(as_json: AsJson = False, home: Home = None, url: Url = None, key: Key = None) -> None:
    """Show every automatic choice with its reason: engine, models, database, index, skills, machine.

    Asks the process that owns the workspace; when none does, opens the workspace itself. When that fails, it says why,
    and what it can see from outside. Exit code 1 when something is bad.

    ```bash
    intern doctor
    intern doctor --json | jq '.data[] | select(.state != "ok")'
    ```
    """
    findings = _findings(home, url, key)
    bad = sum(finding["state"] == "bad" for finding in findings)
    if output.plain(as_json):
        output.document({"data": findings})
    else:
        rows = [
            (f["part"], f["state"], f["choice"], f["reason"] + (f"\n→ {f['advice']}" if f["advice"] else ""))
            for f in findings
        ]
        output.table(["part", "state", "choice", "reason"], rows)
    if bad:
        first = next(finding for finding in findings if finding["state"] == "bad")
        raise InternError(f"{bad} bad: {first['part']}: {first['reason']}")


def _findings(home: Any, url: str | None, key: str | None) -> list[dict[str, Any]]:
    """What the API says; with an engine or a workspace that does not open, that first, and then the rest."""
    if url is not None:
        with connect(home, url, key) as api:
            return list(api.get("/api/doctor")["data"])
    from intern.machine import Finding, examine_machine

    trouble: list[Finding] = []
    for engine in (True, False):
        try:
            with connect(home, url, key, engine=engine) as api:
                found = list(api.get("/api/doctor")["data"])
            return [*(finding.model_dump() for finding in trouble), *found]
        except InternError as error:
            part = "engine" if engine else "workspace"
            trouble = [Finding(part=part, choice="does not open", reason=error.message, state="bad")]
    return [finding.model_dump() for finding in (*trouble, *examine_machine(load_settings(home=home)))]
