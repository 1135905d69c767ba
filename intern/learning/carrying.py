"""What a run does and what comes of it: its work by kind, its verdict kept, its adapter promoted if the gate says so.

In: a run, and the loop that was made for it. Out: what is new about the run at its end; verdict, model card and
examples where they belong, the adapter in service. Knows nothing of queues, of turns, or of how a run fails:
`learner.py` does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from intern.errors import Conflict, InternError, StoreFailure
from intern.learning.adapters.adapter import verify, write_card
from intern.learning.adapters.deployments import Deployments
from intern.learning.journal import Journal
from intern.learning.loop.contracts import Parts
from intern.learning.loop.folder import RunFolder
from intern.learning.loop.growing import GROWTH
from intern.learning.loop.judging import Verdict
from intern.learning.loop.loop import Finished, Loop
from intern.learning.settled import OUT_OF_REACH, StoreAway, settled, stored
from intern.learning.train.job import Event
from intern.library import SkillLibrary
from intern.skill import Skill
from intern.store import learning as store
from intern.store import records
from intern.types import Adapter, Dataset, Example, Json, Run

log = logging.getLogger(__name__)

Keep = Callable[[Run, Mapping[str, Json], Adapter | None], Awaitable[None]]


class Carrying:
    """The work of runs, one at a time. `keep` stores a verdict; it raises CancelledError for a run that another process
    ended meanwhile."""

    def __init__(
        self, parts: Parts, library: SkillLibrary, deployments: Deployments, journal: Journal, keep: Keep
    ) -> None:
        self._parts = parts
        self._library = library
        self._deployments = deployments
        self._journal = journal
        self._keep = keep

    async def carry_out(self, newest: Callable[[], Run], loop: Loop, skill: Skill) -> dict[str, Json]:
        """Carry out the run's work; returns what came of it. `newest` is the run as it is at the time."""
        run = newest()
        if run.decision is not None and await stored(self._went_live, run):
            if run.stage != GROWTH:  # else that was told
                await self._journal.tell(run, Event(kind="promoted", stage="promote", text=f"{run.adapter} serves"))
            return {"stage": "promote"}
        if run.decision is not None and run.stage == GROWTH:  # all but that was done
            return {"stage": "evaluate"}
        serving = await stored(self._serving, run)
        folder = RunFolder(self._parts.runs_folder / run.id)
        asked = await asyncio.to_thread(folder.asked, needed=bool(run.recipe.get("asked")))
        if run.kind == "learn":
            finished = await loop.learn(serving=serving, force=bool(run.recipe.get("force")))
            return await self._conclude(newest, finished, serving, skill)
        if run.kind == "evaluate":
            other = None if asked.adapter is None else await stored(self._named, run, asked.adapter)
            verdict = await loop.compare(serving=serving, other=other, examples=asked.examples, outside=asked.outside)
            body = verdict.model_dump(mode="json")
            await self._keep(newest(), body, None)
            await self._journal.tell(run, Event(kind="verdict", stage="evaluate", numbers=body))
            return {"adapter": serving.name if serving else None}
        written = await loop.synthesize(asked.count)
        added = await stored(self._add_examples, run, written.examples)
        refused = Counter(row.reason for row in written.refused)
        reason = f"{added} examples were written from {written.passages} passages; {len(written.refused)} were refused."
        if written.ended is not None:
            reason += f" Then the teacher was asked no more: {written.ended}"
            await self._journal.tell(run, Event(kind="warning", stage="synthesize", text=written.ended))
        numbers = {"added": added, "refused": dict(refused), "failed": written.failed}
        await self._journal.tell(run, Event(kind="written", stage="synthesize", text=reason, numbers=numbers))
        return {"reason": reason}

    async def grow(self, newest: Callable[[], Run], loop: Loop) -> None:
        """Have the loop say what more examples would bring, after `carry_out`. Whatever that fails with, the verdict
        stands. Raises StoreAway."""
        run = newest()
        try:
            kept = Verdict.model_validate(await stored(self._verdict, run))
            if kept.growth is not None:
                return
            growth = await loop.grow(kept, parts=bool(run.recipe.get("growth")))
            if growth is not None:
                body = kept.model_copy(update={"growth": growth}).model_dump(mode="json")
                await self._keep(newest(), body, await stored(self._made, run))
        except (StoreAway, *OUT_OF_REACH):
            raise
        except Exception as error:
            why = _why(error, run, "does not say what more examples would bring")
            text = f"what more examples would bring is not known: {why}"
            await self._journal.tell(run, Event(kind="warning", stage=GROWTH, text=text))

    async def _conclude(
        self, newest: Callable[[], Run], finished: Finished, judged: Adapter | None, skill: Skill
    ) -> dict[str, Json]:
        """Keep the verdict, and promote where the gate says so. What fails from here on takes nothing of it back."""
        ruling = finished.ruling
        adapter = finished.adapter.model_copy(update={"decision": ruling.decision})
        verdict = finished.verdict.model_dump(mode="json")
        ended: dict[str, Json] = {
            "dataset": finished.dataset.id,
            "adapter": adapter.name,
            "decision": ruling.decision,
            "reason": ruling.reason,
            "train_seconds": finished.train_seconds,
        }
        run = newest().model_copy(update=ended)
        try:
            await self._keep(run, verdict, adapter)
        except StoreAway:
            raise
        except StoreFailure as error:  # it is in the store, if not beside the adapter
            await self._journal.tell(run, Event(kind="warning", stage="evaluate", text=error.message))
        await settled(self._describe, adapter, finished.dataset, verdict)
        await self._journal.tell(run, Event(kind="verdict", stage="evaluate", text=ruling.reason, numbers=verdict))
        if ruling.decision == "promote" and run.recipe.get("promote", True) and not finished.approve:
            try:
                await self._promote(run, adapter, judged, skill)
            except (StoreAway, *OUT_OF_REACH):
                raise
            except Exception as error:
                why = _why(error, run, "did not promote")
                text = f"{adapter.name} does not serve: {why} A person can promote it."
                await self._journal.tell(run, Event(kind="warning", stage="promote", text=text))
            else:
                ended["stage"] = "promote"
        return ended

    async def _promote(self, run: Run, adapter: Adapter, judged: Adapter | None, skill: Skill) -> None:
        """Let the adapter serve, if all is as it was when the run began. Raises Conflict when it is not, NotFound when
        the skill is gone, AdapterRefused, EngineFailure."""
        former = await stored(self._version, run)
        if await stored(self._serving, run) != judged:
            raise Conflict("Something else serves now than it was judged against.")
        now_is = self._library.get(run.team, run.skill)
        if now_is.digest != skill.digest:
            raise Conflict("The skill was changed while it trained.")
        if now_is.spec.learning.approve:
            raise Conflict("The skill asks for approval by now.")
        await self._journal.tell(run, Event(kind="stage", stage="promote", text=f"{adapter.name} goes live"))
        await self._deployments.promote(
            run.team, run.skill, adapter.version, by=_promoter(run), reason=run.reason or "", former=former
        )
        await self._journal.tell(run, Event(kind="promoted", stage="promote", text=f"{adapter.name} serves"))

    # --- the store; blocking -------------------------------------------------------------------------------------

    def _serving(self, run: Run) -> Adapter | None:
        """The adapter in service, as the store has it: another process may have promoted it a moment ago."""
        with self._parts.database.connect() as connection:
            deployment = store.get_deployment(connection, run.team, run.skill)
            if deployment is None or deployment.version is None or (run.team, run.skill) in self._deployments.problems:
                return None
            return store.get_adapter(connection, run.team, run.skill, deployment.version)

    def _verdict(self, run: Run) -> Mapping[str, Json] | None:
        with self._parts.database.connect() as connection:
            return store.get_verdict(connection, run.team, run.id)

    def _made(self, run: Run) -> Adapter:
        """The adapter that the run made."""
        return self._named(run, str(run.adapter))

    def _named(self, run: Run, name: str) -> Adapter:
        """An adapter of the run's skill, SKILL@vN. Raises NotFound."""
        with self._parts.database.connect() as connection:
            return store.get_adapter(connection, run.team, run.skill, int(name.rpartition("@v")[2]))

    def _describe(self, adapter: Adapter, dataset: Dataset, verdict: Mapping[str, Json]) -> None:
        """Write the adapter's model card beside it; no run fails for want of one."""
        from intern.learning.export import card
        from intern.learning.export.describe import describe

        folder = self._parts.adapters_folder / adapter.digest
        try:
            files = verify(folder, base=adapter.base)
            skill = self._library.get(adapter.team, adapter.skill)
            write_card(folder, card.render(describe(files, skill, self._parts.base, dataset, verdict)))
        except InternError as error:
            log.warning("the adapter %s has no model card: %s", adapter.name, error.message)
        except Exception:
            log.exception("the adapter %s has no model card", adapter.name)

    def _version(self, run: Run) -> int | None:
        """The version in service, whether or not it could be loaded."""
        with self._parts.database.connect() as connection:
            deployment = store.get_deployment(connection, run.team, run.skill)
        return None if deployment is None else deployment.version

    def _went_live(self, run: Run) -> bool:
        """Whether the run had promoted its adapter before the process ended. Its decision and verdict were kept then;
        judged again, the adapter would have itself for a rival."""
        with self._parts.database.connect() as connection:
            changes = store.deployment_history(connection, run.team, run.skill)
        return any(change.by == _promoter(run) for change in changes)

    def _add_examples(self, run: Run, examples: Sequence[Example]) -> int:
        with self._parts.database.begin() as connection:
            known = {row.example.id for row in store.collected(connection, run.team, run.skill)}
            new = [example for example in examples if example.id not in known]
            records.add_examples(connection, run.team, run.skill, new)
        return len(examples)  # those that it had added before it was interrupted, too


def _promoter(run: Run) -> str:
    """As whom a run changes what serves."""
    return f"run {run.id}"


def _why(error: Exception, run: Run, what: str) -> str:
    """The error that is being handled, in a sentence. Of one that is not the house's own the log has the rest."""
    if isinstance(error, InternError):
        return error.message
    log.exception("run %s %s", run.id, what)
    return f"{type(error).__name__}."
