"""What a run came to, for programs and for people: the contract's object, the rivals' table, the verdict in words.

In: a run as GET /api/runs/{id} gives it. Out: a dict, or lines on standard output. Decides nothing: numbers and reason
are the run's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from intern.cli import output
from intern.cli.progress import duration

HEADLINES = {
    "promote": "Better: the new adapter beats everything that it was compared with.",
    "reject": "Not better: the new adapter does not go into service.",
    "inconclusive": "Undecided: the held-out examples cannot tell whether the new adapter is better.",
    "prompting_is_enough": "Not needed: a prompt alone does as well.",
}
_ORDER = ("base", "few-shot", "retrieval", "serving", "candidate")

Body = Mapping[str, Any]


def contract(run: Body) -> dict[str, Any]:
    """The object that `learn --json` and `eval --json` print."""
    return {
        "rivals": {name: _rival(summary) | _apart(run, name) for name, summary in _rivals(run).items()},
        "verdict": run["decision"],
        "reason": run["reason"],
        "train_seconds": run["train_seconds"],
        "adapter": run["adapter"],
    }


def _rivals(run: Body) -> dict[str, Body]:
    found = (run.get("verdict") or {}).get("rivals", {})
    return {name: found[name] for name in (*_ORDER, *sorted(found.keys() - set(_ORDER))) if name in found}


def _rival(summary: Body) -> dict[str, Any]:
    return {
        "n": summary["n"],
        "valid": summary["valid"],
        "score": _interval(summary["score"]),
        "metrics": {field: _interval(interval) for field, interval in summary["metrics"].items()},
    }


def _apart(run: Body, name: str) -> dict[str, Any]:
    """The rival's paired difference from what serves, where there was no candidate to compare everybody with."""
    against = _against(run)
    if name not in against.get("differences", {}):
        return {}
    found = against["differences"][name]
    interval = found["interval"]
    of = {"field": against["field"]} if against.get("field") else {}
    return {"difference": {"from": against["rival"], **of, **_interval(interval), "n": interval["n"], "p": found["p"]}}


def _against(run: Body) -> Body:
    return (run.get("verdict") or {}).get("against") or {}


def _interval(interval: Body) -> dict[str, Any]:
    return {bound: interval[bound] for bound in ("mean", "low", "high")}


# --- for people ------------------------------------------------------------------------------------------------


def show(run: Body) -> None:
    """The rivals' table, the verdict in plain words, and what to do next."""
    rivals = _rivals(run)
    if rivals:
        columns = ["rival", "score", "95% interval", "valid", "examples", "prompt tokens", "seconds"]
        output.table(columns, [_row(name, summary) for name, summary in rivals.items()])
        fields = list(dict.fromkeys(field for summary in rivals.values() for field in summary["metrics"]))
        if len(fields) > 1:
            output.table(["field", *rivals], [[field, *_means(field, rivals)] for field in fields])
        if texts := _text_rows(rivals):
            output.table(["text field", *rivals], texts)
        if against := _against(run):
            called = f"{against['field'] or 'score'} against {against['rival']}"
            rows = [_difference(name, found) for name, found in against["differences"].items()]
            output.table([called, "difference", "95% interval", "McNemar p", "better", "worse", "examples"], rows)
    for line in probe_lines(run):
        output.piece(f"{line}\n")
    for line in phrase_lines(run):
        output.piece(f"{line}\n")
    for line in verdict_lines(run):
        output.piece(f"{line}\n")


def _row(name: str, summary: Body) -> tuple[str, ...]:
    score = summary["score"]
    bounds = "too few" if score["low"] is None else f"{score['low']:.2f} to {score['high']:.2f}"
    seconds = f"{summary['seconds']:.2f}" if summary.get("seconds") else ""  # all answers were remembered
    tokens = f"{summary['prompt_tokens']:.0f}" if summary.get("prompt_tokens") else ""
    return (name, f"{score['mean']:.3f}", bounds, f"{summary['valid']:.0%}", str(summary["n"]), tokens, seconds)


def _difference(name: str, found: Body) -> tuple[str, ...]:
    interval = found["interval"]
    bounds = "too few" if interval["low"] is None else f"{interval['low']:+.3f} to {interval['high']:+.3f}"
    p = "" if found["p"] is None else f"{found['p']:.2g}"
    counts = (str(found["wins"]), str(found["losses"]), str(interval["n"]))
    return (name, f"{interval['mean']:+.3f}", bounds, p, *counts)


def _text_rows(rivals: Mapping[str, Body]) -> list[list[str]]:
    """chrF and token F1, each a row a field: the score is their mean."""
    found = {name: summary.get("texts") or {} for name, summary in rivals.items()}
    fields = dict.fromkeys(field for texts in found.values() for field in texts)
    halves = {"chrf": "chrF", "token_f1": "token F1"}
    return [
        [f"{field}, {said}", *(f"{texts[field][half]:.3f}" if field in texts else "" for texts in found.values())]
        for field in fields
        for half, said in halves.items()
    ]


def _means(field: str, rivals: Mapping[str, Body]) -> list[str]:
    found = (summary["metrics"].get(field) for summary in rivals.values())
    return ["" if interval is None else f"{interval['mean']:.3f}" for interval in found]


def probe_lines(run: Body) -> list[str]:
    """What was measured beside the score, where the skill declares it, a line each."""
    lines = []
    for name, probed in ((run.get("verdict") or {}).get("probes") or {}).items():
        if identity := probed["identity"]:
            of, missed = identity["share"]["n"], [asked["question"] for asked in identity["missed"]]
            wrong = f"; wrong: {', '.join(missed[:3])}{', ...' if len(missed) > 3 else ''}" if missed else ""
            lines.append(f"{name}: {of - len(missed)} of {of} questions about itself right{wrong}")
        if found := probed["consistency"]:
            again = f"{found['repeats']} sampled answers to one request"
            lines.append(f"{name}: {again} agree by {found['agreement']['mean']:.2f} (1: always the same)")
        for found in probed["attributes"]:
            shares = ", ".join(
                f"{share['value']} {share['share']['mean']:.0%} ({share['reference']:.0%})"
                for share in found["shares"][:5]
            )
            apart = "further from it than chance explains" if found["p"] < 0.05 else "no further than chance explains"
            lines.append(f"{name}: {found['name']} (in the reference): {shares}; {apart}")
    return [*lines, ""] if lines else []


def phrase_lines(run: Body) -> list[str]:
    """What the candidate, or the adapter in service, says far more often than its training data, a line each."""
    phrases = (run.get("verdict") or {}).get("phrases") or {}
    name = "candidate" if "candidate" in _rivals(run) else "serving"
    lines = [
        f'{name} overuses "{found["text"]}": in {found["outputs"]} of {found["of_outputs"]} answers, '
        f"{found['training']} of {found['of_training']} training outputs"
        for found in phrases.get(name, ())[:3]
    ]
    return [*lines, ""] if lines else []


def verdict_lines(run: Body) -> list[str]:
    """The verdict and what to do next; for a run without one, what there is to say."""
    if run["decision"] is None:
        rivals = _rivals(run)
        if not rivals:
            return [str(run["reason"])] if run["reason"] else []
        return _measured(run, rivals)
    lines = [HEADLINES.get(run["decision"], str(run["decision"])), str(run["reason"] or "")]
    if run["train_seconds"]:
        lines.append(f"{run['adapter']} was trained in {duration(run['train_seconds'])}.")
    if growth := (run.get("verdict") or {}).get("growth"):
        gain = growth["gain"]
        span = f"{gain['low']:.2f} to {gain['high']:.2f}"
        lines.append(f"{growth['more']} more examples would add about {gain['mean']:.2f} to the score ({span}).")
    return [*lines, "", *(f"Next: {step}" for step in next_steps(run))]


def _measured(run: Body, rivals: Mapping[str, Body]) -> list[str]:
    """What a measurement without a candidate says: who is better or worse than what serves, beyond chance."""
    lines = [f"Highest score: {max(rivals, key=lambda name: rivals[name]['score']['mean'])}."]
    if other := (run.get("verdict") or {}).get("other"):
        lines.append(f"The candidate is {other}.")
    if against := _against(run):
        intervals = {name: found["interval"] for name, found in against["differences"].items()}
        better = [name for name, interval in intervals.items() if (interval["low"] or 0) > 0]
        worse = [name for name, interval in intervals.items() if (interval["high"] or 0) < 0]
        open_ = [name for name in intervals if name not in (*better, *worse)]
        for names, said in ((better, "Better"), (worse, "Worse")):
            if names:
                lines.append(f"{said} than {against['rival']}, beyond chance: {', '.join(names)}.")
        if open_:
            lines.append(f"No telling from {against['rival']} by these examples: {', '.join(open_)}.")
        lines.append("Go by the differences, on the examples that both answered: overlapping intervals say nothing.")
    if seen := (run.get("verdict") or {}).get("trained_on"):
        lines.append(f"{seen} of these examples, or near copies, were trained on: such an adapter's score says little.")
    return lines


def next_steps(run: Body) -> list[str]:
    """What a person can do now, with the commands to do it."""
    look = f"intern runs report {run['id']} > report.html   shows which answers changed, and how"
    return [*_of_service(run), *_advice(run), look]


def _of_service(run: Body) -> list[str]:
    """Where the adapter stands, where that asks for something or is not what the verdict alone would make of it."""
    skill, adapter = run["skill"], run["adapter"]
    if run["serves"]:
        why = "" if run["decision"] == "promote" else ", since somebody promoted it"
        return [f"{adapter} serves{why}. To take it back: intern adapters rollback {skill}"]
    if run["decision"] != "promote":
        return []
    stands, promote = run["service"], f"intern adapters promote {adapter}"
    if stands["state"] == "gone":
        return [f"{adapter} went with its skill, which was deleted"]
    if stands["state"] == "going":
        return [f"the run has not ended; whether {adapter} goes into service is decided at its end"]
    if stands["state"] == "served":
        return [f"{adapter} served, and something else does now: {promote}"]
    if stands["why"]:
        return [f"{adapter} did not go into service. {stands['why'].removesuffix('.')}: {promote}"]
    return [f"{adapter} waits for your approval: {promote}"]


def _advice(run: Body) -> list[str]:
    """What the verdict asks for; nothing where it is to promote."""
    skill = run["skill"]
    if run["decision"] == "promote":
        return []
    if run["decision"] == "inconclusive":
        collect = ((run.get("verdict") or {}).get("ruling") or {}).get("collect")
        more = f"about {collect} more" if collect else "more"
        return [f"bring {more} examples (reviews, or intern examples import {skill} FILE), then learn again"]
    if run["decision"] == "prompting_is_enough":
        from intern.learning.judging.outcomes import EXAMPLES_OF

        best = ((run.get("verdict") or {}).get("ruling") or {}).get("best_prompt")
        if best in EXAMPLES_OF:
            key = f"prompting: {{examples: {EXAMPLES_OF[best]}}}"
            return [f"put `{key}` into skill.yaml, and prompts have them from now on"]
        if run["serves"]:
            return ["the base model with the skill's instructions does as well"]
        return ["nothing: the base model with the skill's instructions does it"]
    stays = "" if run["serves"] else "what served before still serves. "
    return [f"{stays}Correct or add examples of {skill}, then learn again"]
