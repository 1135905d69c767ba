"""The quick start, for real: starts `make run` on a clean workspace, talks to it with the openai client, checks every
outcome, and writes the transcript to docs/quickstart.md.

    python docs/quickstart.py            run, assert, and fail when the transcript in docs/ no longer tells the truth
    python docs/quickstart.py --write    run, assert, and write docs/quickstart.md

Ends with exit code 1 and the reason when an outcome is not what the quick start promises.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import openai

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
KEY = "sk-intern-quickstart-0000000000"

TICKET = "The printer on the second floor shows error 49 and we must print the contracts today."
LEAVE = "How many days of annual leave can I carry over into next year?"
INVOICE = (
    "Hello,\n\nplease find below our invoice.\n\nBrightwell Catering GmbH\nInvoice no. BC-2291, 14 March 2026\n"
    "40 x lunch box at 8.50 EUR = 340.00 EUR\nDelivery 20.00 EUR\nSubtotal 360.00 EUR\nVAT 68.40 EUR\n"
    "Total 428.40 EUR, due by 28 March 2026\n\nKind regards\nMina Okafor"
)
INTERVIEW = (
    "I am interviewing a junior data analyst next week. Give me a question about SQL joins with a strong answer."
)
PROFILE = (
    "Write a profile: Amina Yusuf, nurse for 12 years, leads the night shift in a hospital in Leeds. She trains new "
    "colleagues, is good at triage and calm under pressure."
)
OUTSIDE = "Who won the football world cup in 1974?"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Page:
    """The transcript, as Markdown. What differs from run to run (ids, times) is left out or made constant."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def say(self, text: str) -> None:
        self.parts.append(text)

    def code(self, language: str, text: str) -> None:
        self.parts.append(f"```{language}\n{text.strip()}\n```")

    def text(self) -> str:
        return "\n\n".join(self.parts) + "\n"


def check(claim: str, holds: bool, seen: object) -> None:
    if not holds:
        sys.exit(f"The quick start promises: {claim}. Seen: {seen!r}")
    print(f"  ok: {claim}", flush=True)


def start(home: Path, port: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "INTERN_HOME": str(home), "INTERN_PORT": str(port), "INTERN_API_KEY": KEY}
    server = subprocess.Popen(["make", "run"], cwd=ROOT, env=environment, text=True, start_new_session=True)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"make run ended with {server.returncode} before it was ready")
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                return server
        except httpx2.HTTPError:
            pass
        time.sleep(0.2)
    sys.exit("make run was not ready after ten minutes")


def stop(server: subprocess.Popen[str]) -> None:
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(40)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        sys.exit("make run did not stop within 40 s of SIGTERM")


def ask(client: openai.OpenAI, text: str, model: str = "intern-auto") -> Any:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])


def field(answer: Any) -> dict[str, Any]:
    return dict(answer.model_extra["intern"])


def show(page: Page, text: str, answer: Any) -> None:
    intern = field(answer)
    page.say("> " + text.replace("\n", "\n> "))
    message = answer.choices[0].message
    route = intern["route"]
    lines = [f"model       {answer.model}", f"confidence  {route['confidence']:.2f}"]
    if message.refusal:
        lines.append(f"refusal     {message.refusal}")
    else:
        lines.append(f"answer      {message.content}")
    lines += [f"cites       {c['document']}, {c['heading']}, {c['start']}-{c['end']}" for c in intern["citations"]]
    page.code("text", "\n".join(lines))


def tour(client: openai.OpenAI, page: Page) -> None:
    page.say("## A request to each starter skill")
    page.say("Each goes to `intern-auto`, which chooses the skill.")
    expected = {
        TICKET: "support-triage",
        LEAVE: "policy-answers",
        INTERVIEW: "interview-coach",
        INVOICE: "invoice-extract",
        PROFILE: "profile-writer",
    }
    answers = {}
    for text, skill in expected.items():
        answer = answers[text] = ask(client, text)
        check(f"a request for {skill} is routed there", field(answer)["skill"] == skill, field(answer)["route"])
        check(f"the answer of {skill} keeps its schema", field(answer)["valid"], answer.choices[0].message.content)
        show(page, text, answer)

    sources = [c["document"] for c in field(answers[LEAVE])["citations"]]
    check("the policy answer cites annual-leave.md", "annual-leave.md" in sources, sources)
    schema = json.loads((ROOT / "skills" / "invoice-extract" / "schema.json").read_text())
    invoice = json.loads(answers[INVOICE].choices[0].message.content)
    check("the extraction has exactly the schema's fields", list(invoice) == list(schema["properties"]), invoice)

    page.say("## When nothing fits, it says so")
    answer = ask(client, OUTSIDE)
    message = answer.choices[0].message
    check("an out-of-scope request is declined", field(answer)["skill"] is None, field(answer))
    check("... and says why", "closest" in str(message.refusal).lower(), message.refusal)
    show(page, OUTSIDE, answer)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--write", action="store_true", help="write docs/quickstart.md")
    write = arguments.parse_args().write
    home = Path(tempfile.mkdtemp(prefix="intern-quickstart-"))
    subprocess.run(
        [sys.executable, "-m", "intern.cli", "init", str(home)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    port = free_port()
    page = Page()
    page.say("# Quick start")
    page.say(
        "This page is the transcript of a real run: `docs/quickstart.py` starts the server on a clean workspace, sends "
        "these requests with the official openai client, checks every outcome, and writes what it saw."
    )
    page.code("sh", "make run")
    page.say(
        "It sets everything up in `.venv`, starts on port 8000, and ends on the address, a key, and a curl command to "
        "paste. Then, in Python:"
    )
    page.code(
        "python",
        'import openai\n\nclient = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="sk-intern-...")\n'
        'client.chat.completions.create(model="intern-auto", messages=[{"role": "user", "content": "..."}])',
    )
    page.say(
        "The base model is small (135 million parameters) so that everything runs anywhere; what it writes is "
        "often poor before its skills are trained (`@base` below). Where a skill came with an adapter of its own "
        "it answers as `@v1`. What the platform promises, and this run checks, is the rest: the right skill, the "
        "right document, the right form, and an honest refusal. Larger models are one setting away "
        "(docs/models.md)."
    )
    server = start(home, port)
    try:
        tour(openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY), page)
    finally:
        stop(server)
        shutil.rmtree(home, ignore_errors=True)
    text = page.text()
    if write:
        PAGE.write_text(text)
        print(f"wrote {PAGE.relative_to(ROOT)}")
    elif _outline(PAGE.read_text()) != _outline(text):
        sys.exit("docs/quickstart.md no longer tells what a run shows: python docs/quickstart.py --write")


def _outline(text: str) -> list[str]:
    """What must be the same on every machine: headings, requests and models, not the model's words."""
    return [line for line in text.splitlines() if re.match(r"(#|>|model )", line)]


if __name__ == "__main__":
    main()
