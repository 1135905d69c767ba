"""`intern learn`: a skill's examples become an adapter, which goes live only when it is measurably better."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from intern.cli import output
from intern.cli.connection import Api, connect
from intern.cli.options import AsJson, Home, Key, Url
from intern.cli.runs import ENDED, Detach, again, attend
from intern.errors import Conflict


def learn(
    skill: Annotated[str, typer.Argument(metavar="SKILL", help="The skill that learns.")],
    recipe: Annotated[
        Literal["lora", "qlora-4bit", "lora-8bit", "completion-then-sft", "dpo"],
        typer.Option("--recipe", "-r", help="How it is trained; see above."),
    ] = "lora",
    variant: Annotated[
        Literal["original", "augmented"],
        typer.Option("--variant", help="Augmented: also on examples written from the skill's documents."),
    ] = "original",
    force: Annotated[bool, typer.Option("--force", help="Train even on too few examples.")] = False,
    promote: Annotated[bool, typer.Option(help="Let it go live when it is better, without asking.")] = True,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also train on parts of the examples: what would 50 more bring?")
    ] = False,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Its peak; follows from the base model's width: 0.002 for the default one.", show_default=False
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the examples; by itself 3, more for few.", show_default=False)
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the adapter's matrices; 16.", show_default=False)] = None,
    alpha: Annotated[
        int | None, typer.Option(help="Strength: updates count alpha / rank; 32.", show_default=False)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Examples an optimiser step; 8.", show_default=False)] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Share of the adapter's inputs left out at random; 0.", show_default=False)
    ] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        typer.Option(
            help="In which type matrices are multiplied; by default auto: bfloat16 where that is faster.",
            show_default=False,
        ),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(help="completion-then-sft: tokens of one piece of a document; 512.", show_default=False),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="dpo: strength of the tie to the first stage; smaller lets answers move further; 0.1.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of shuffling, initial weights and dropout; 0.", show_default=False)
    ] = None,
    detach: Detach = False,
    as_json: AsJson = False,
    home: Home = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Learn from a skill's examples: dataset, training, evaluation, verdict; minutes on a laptop.

    The new adapter and its rivals (the base model alone, with fixed or with the nearest examples in the prompt, and
    the adapter in service) answer the same held-out examples. Only an adapter that is better than all of them, beyond
    chance, goes into service. The verdict is one of: promote, reject, inconclusive, prompting_is_enough; each is a good
    end, with exit code 0. Exit code 1 means that nothing could be learned, and says why: too few examples, for one
    (see `intern skills ready`).

    The recipes:

    - lora: LoRA on the unquantised base model; the default
    - qlora-4bit: LoRA on the base model in 4-bit NF4 (bitsandbytes): a third of the memory; for CUDA
    - lora-8bit: LoRA on the base model in 8 bits (bitsandbytes); for CUDA
    - completion-then-sft: first the skill's documents as plain text, then its examples on top, in one run
    - dpo: first the examples, then pairs of a corrected answer and the rejected one (direct preference optimisation)

    Ctrl-C asks whether to cancel the run or to leave it running. One that was interrupted goes on with the next
    `intern up` or `intern learn`. A training that failed keeps its work, and goes on with `intern runs resume RUN`.

    ```bash
    intern learn support-triage
    intern learn support-triage --no-promote --epochs 2 --rank 8
    intern learn support-triage --growth
    intern learn policy-answers --recipe completion-then-sft --chunk-tokens 256 --variant augmented
    intern learn support-triage --json > verdict.json
    intern runs follow $(intern learn support-triage --detach --json | jq -r .id)
    ```
    """
    given = {
        "rank": rank,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch": batch,
        "dropout": dropout,
        "precision": precision,
        "chunk_tokens": chunk_tokens,
        "beta": beta,
        "seed": seed,
    }
    numbers = {name: value for name, value in given.items() if value is not None}
    body = {"skill": skill, "recipe": {"name": recipe, **numbers}, "variant": variant}
    with connect(home, url, key, engine=True) as api:
        carry_out(api, body | {"force": force, "promote": promote, "growth": growth}, detach=detach, as_json=as_json)


def carry_out(api: Api, body: dict[str, Any], *, detach: bool, as_json: bool) -> None:
    """Begin a run, follow it, and print what it came to. Raises InternError when it does not come to an end.

    Where nothing else works on the workspace, a run of the same kind that was left in the middle goes on instead.
    """
    try:
        run = api.post("/api/runs", body)
    except Conflict as error:
        left = _left(api, body["skill"])
        if left is None:
            raise Conflict(f"{error.message} `intern runs list --skill {body['skill']}` shows it.") from error
        if not _alike(left, body):
            raise Conflict(
                f"The run {left['id']} of this skill, of the kind {left['kind']}, has not ended, and nothing works on "
                f"it now. `intern up` goes on with it; `intern runs cancel {left['id']}` gives it up."
            ) from error
        run = left
        output.note(f"The run {run['id']} of this skill has not ended; it goes on, as it was asked for then.")
    attend(api, run, detach=detach, as_json=as_json)


def _left(api: Api, skill: str) -> dict[str, Any] | None:
    """The run that stands in the way of a new one, where it is this command that carries it out."""
    if not api.private:
        return None
    listed: list[dict[str, Any]] = api.get("/api/runs", skill=skill)["data"]
    return next((run for run in listed if run["state"] not in ENDED), None)


def _alike(left: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a run that was left does what is asked for now."""
    same = left["kind"] == body.get("kind", "learn") and again(left) is not None
    return same and not any(body.get(key) for key in ("examples", "outside", "adapter"))
