"""What can be said about this machine and this installation without opening a workspace.

In: `Settings`. Out: `Finding`s about Python, packages, processor, GPU, memory and disk. Blocking; it changes nothing.
The shape of a finding and the way checks run stand here; `intern/doctor.py` adds what only an open workspace tells.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement

from intern.errors import InternError
from intern.settings import Settings
from intern.types import Model

DISTRIBUTION = "llama-intern"
LITTLE_DISK = 2 * 10**9
TOO_LITTLE_DISK = 2 * 10**8

State = Literal["ok", "warn", "bad"]


class Finding(Model):
    """One choice: `part` made `choice` because of `reason`. `advice` says what to do when `state` is not ok."""

    part: str
    choice: str
    reason: str
    state: State = "ok"
    advice: str | None = None


Check = tuple[str, Callable[[], Iterator[Finding]]]


def examine_machine(settings: Settings) -> list[Finding]:
    """Python, packages, processor, GPU, memory, disk."""
    return run_checks(
        [
            ("python", _python),
            ("packages", _packages),
            ("processor", lambda: _processor(settings)),
            ("gpu", lambda: _gpu(settings)),
            ("memory", _memory),
            ("disk", lambda: _disk(settings.data)),
        ]
    )


def run_checks(checks: Sequence[Check]) -> list[Finding]:
    """The findings of every (part, check), in order; a check that raises becomes a bad finding of its part."""
    found: list[Finding] = []
    for part, check in checks:
        try:
            found.extend(check())
        except Exception as error:  # a doctor that falls ill helps nobody
            what = error.message if isinstance(error, InternError) else f"{type(error).__name__}: {error}"
            found.append(Finding(part=part, choice="unknown", reason=what, state="bad"))
    return found


def _python() -> Iterator[Finding]:
    yield Finding(
        part="python", choice=f"{platform.python_implementation()} {platform.python_version()}", reason=sys.executable
    )


def _packages() -> Iterator[Finding]:
    wrong: list[str] = []
    fitting = 0
    for text in metadata.requires(DISTRIBUTION) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting += 1
        else:
            wrong.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    yield Finding(
        part="packages",
        choice=f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)} with {fitting} packages as wanted",
        reason="; ".join(wrong) or "every requirement is met",
        state="bad" if wrong else "ok",
        advice="Install the locked requirements again." if wrong else None,
    )


def _processor(settings: Settings) -> Iterator[Finding]:
    usable, there = usable_cpus(), os.cpu_count() or 1
    chosen = settings.threads or usable
    yield Finding(
        part="processor",
        choice=f"{chosen} threads",
        reason=f"{'INTERN_THREADS; ' if settings.threads else ''}{usable} of {there} CPUs may be used "
        f"({platform.machine()}, {platform.system()})",
        state="warn" if chosen > usable else "ok",
        advice="More threads than CPUs slow the engine down: lower INTERN_THREADS." if chosen > usable else None,
    )


def _gpu(settings: Settings) -> Iterator[Finding]:
    cards = _cards()
    offloads = settings.engine == "llamacpp" and _llamacpp_sees_gpu()
    if not cards:
        yield Finding(part="gpu", choice="none", reason="no NVIDIA driver was found; the engine runs on the processor")
    elif offloads:
        layers = "as many layers as fit" if settings.gpu_layers < 0 else f"{settings.gpu_layers} layers"
        yield Finding(part="gpu", choice=", ".join(cards), reason=f"{layers} run on it (INTERN_GPU_LAYERS)")
    elif settings.engine == "llamacpp":
        yield Finding(
            part="gpu",
            choice=f"{', '.join(cards)}, not used",
            reason="the installed xllamacpp was built for the processor only",
            state="warn",
            advice="Install xllamacpp's CUDA build, or serve the model with vLLM and set INTERN_ENGINE=openai.",
        )
    else:
        yield Finding(part="gpu", choice=", ".join(cards), reason="the engine is another process; it decides")


def _cards() -> list[str]:
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _llamacpp_sees_gpu() -> bool:
    import xllamacpp

    return any(device["type"].name.endswith("GPU") for device in xllamacpp.get_device_info())


def _memory() -> Iterator[Finding]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        yield Finding(part="memory", choice="unknown", reason="this system does not tell")
        return
    yield Finding(
        part="memory",
        choice=f"{total / 2**30:.1f} GiB",
        reason=f"{free / 2**30:.1f} GiB of it unused now",
        state="warn" if total < 2 * 2**30 else "ok",
        advice="The default models need about 1.2 GB." if total < 2 * 2**30 else None,
    )


def _disk(data: Path) -> Iterator[Finding]:
    place = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    state: State = "bad" if free < TOO_LITTLE_DISK else "warn" if free < LITTLE_DISK else "ok"
    yield Finding(
        part="disk",
        choice=f"{free / 1e9:.1f} GB free",
        reason=f"where {data.absolute()} lies",
        state=state,
        advice=None if state == "ok" else "Database, index and caches grow there: make room.",
    )


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
