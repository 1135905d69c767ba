"""/api/runs/{run}/report and /against: what came of a run, and of two side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import HTMLResponse, JSONResponse, Response

from intern.errors import InvalidInput, NotFound, TrainingUnavailable
from intern.learning.judging.outcomes import CANDIDATE, Outcome
from intern.learning.judging.side_by_side import side_by_side
from intern.learning.loop.judging import Verdict
from intern.learning.reports.kept import Kept
from intern.learning.train.job import read_lines
from intern.store import learning as store
from intern.types import Dataset, Run
from server.api.adapters import find_adapter, read_manifest
from server.api.runs import find_run, service
from server.auth import KeyedRoute, User, Work

router = APIRouter(prefix="/api/runs", route_class=KeyedRoute, tags=["runs"])


@router.get("/{run}/report", response_model=None)
def report(
    run: str,
    caller: User,
    workspace: Work,
    form: Annotated[Literal["html", "json"] | None, Query(alias="format")] = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """The report of a run: one HTML page, or the same facts as JSON where `format` or Accept ask for that. It quotes
    held-out requests and answers."""
    found, verdict = find_run(workspace, caller.team, run)
    if verdict is None:
        raise NotFound("report", run, f"The run is {found.state} and has no verdict.")
    try:
        from intern.learning.reports.report import render_html, render_json
    except ImportError as error:
        raise TrainingUnavailable.lacks("A report", [str(error.name)]) from error
    judged = Verdict.model_validate(verdict)
    kept = _kept(workspace, found, tuple(judged.rivals))
    headers = {"x-content-type-options": "nosniff", "cache-control": "no-store", "vary": "accept"}
    if form == "json" or (form is None and accept.split(",")[0].split(";")[0].strip() == "application/json"):
        return JSONResponse(render_json(found, judged, kept), headers=headers)
    return HTMLResponse(render_html(found, judged, kept), headers=headers)


@router.get("/{run}/against/{other}")
def against(run: str, other: str, caller: User, workspace: Work) -> dict[str, Any]:
    """The run's candidate and another run's, on the held-out examples that both answered: what a dataset variant or a
    recipe brought."""
    runs = [find_run(workspace, caller.team, name)[0] for name in (run, other)]
    if runs[0].skill != runs[1].skill:
        raise InvalidInput(f"{run} is of the skill {runs[0].skill}, and {other} of {runs[1].skill}.", param="other")
    outcomes = [_outcomes(workspace.parts.runs_folder / found.id, CANDIDATE) for found in runs]
    for found, answered in zip(runs, outcomes, strict=True):
        if not answered:
            raise InvalidInput(
                f"{found.id} has no candidate's answers: it is a run of the kind {found.kind}, {found.state}."
            )
    compared = side_by_side(*outcomes, name=other)
    return {"run": runs[0].id, "other": runs[1].id, **compared.model_dump(mode="json")}


def _kept(workspace: Work, run: Run, rivals: Sequence[str]) -> Kept:
    """What is left of a run, for its report."""
    skill = next((s for s in workspace.library.all(run.team) if s.name == run.skill), None)
    return Kept(
        skill_title=skill.spec.title if skill else run.skill,
        dataset=_dataset(workspace, run),
        curves=_curves(workspace, run),
        outcomes={name: _outcomes(workspace.parts.runs_folder / run.id, name) for name in rivals},
        service=service(workspace, run),
    )


def _dataset(workspace: Work, run: Run) -> Dataset | None:
    if run.dataset is None:
        return None
    with workspace.database.connect() as connection, suppress(NotFound):  # its skill was deleted
        return store.get_dataset(connection, run.team, run.dataset)
    return None


def _curves(workspace: Work, run: Run) -> Mapping[str, Sequence[float]]:
    if run.adapter is None:
        return {}
    with suppress(NotFound):  # its skill was deleted
        manifest, _ = read_manifest(workspace, find_adapter(workspace, run.team, run.adapter))
        return manifest.curves if manifest is not None and manifest.run == run.id else {}
    return {}


def _outcomes(folder: Path, rival: str) -> list[Outcome]:
    return list(read_lines(folder / f"outcomes-{rival}.jsonl", Outcome))
