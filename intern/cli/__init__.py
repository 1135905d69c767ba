"""The command line `intern`: a client of the HTTP API, one file a noun.

In: arguments, standard input, INTERN_* settings. Out: rich text on a terminal, JSON otherwise or with --json; exit
code 0, 1 with a one-line reason on standard error when something was refused or failed, 2 on wrong usage. Commands
speak the API: of the workspace's owner, of --url, or of a private server that lives as long as the command.
Modules here import nothing heavy before their command runs, so that --help answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import typer

from intern.cli import (
    adapters,
    ask,
    datasets,
    doctor,
    evaluate,
    examples,
    export,
    ingest,
    init,
    keys,
    learn,
    output,
    retrieve,
    route,
    runs,
    skills,
    up,
)
from intern.errors import InternError

app = typer.Typer(
    name="intern",
    help="An intern for business teams: sends each task to the skill that fits it, answers from that skill's documents "
    "in its output format, and learns from corrections.",
    epilog="Start with: intern init DIR, then intern up in that folder.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.command("up")(up.up)
app.command("serve")(up.serve)
app.command("doctor")(doctor.doctor)
app.command("ask")(ask.ask)
app.command("route")(route.route)
app.command("retrieve")(retrieve.retrieve)
app.command("ingest")(ingest.ingest)
app.command("learn")(learn.learn)
app.command("eval")(evaluate.evaluate)
skills.app.command("ready")(datasets.ready)
app.add_typer(skills.app, name="skills")
app.add_typer(examples.app, name="examples")
app.add_typer(datasets.app, name="datasets")
app.add_typer(runs.app, name="runs")
adapters.app.command("export")(export.export)
app.add_typer(adapters.app, name="adapters")
app.add_typer(keys.app, name="keys")


def _version(asked: bool) -> None:
    if asked:
        from intern import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    try:
        app(list(arguments), prog_name="intern")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except InternError as error:
        print(f"intern: {output.clean(' '.join(error.message.split()))}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    """The entry point of the `intern` command."""
    signal.signal(signal.SIGTERM, _end)
    sys.exit(run(sys.argv[1:]))


def _end(*_: object) -> None:
    """Leave as at Ctrl-C, so that what was opened is closed: a training is put down, not cut off."""
    raise SystemExit(128 + signal.SIGTERM)
