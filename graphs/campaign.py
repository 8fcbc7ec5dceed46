"""A campaign: many seeds at once, stopped and resumed without loss. The batch layer over `graphs.execute`.

The order of things at the start is what keeps a mistake from leaving anything half made: the config is
valid and the seeds are read before the models are checked, the models before the database is opened.
"""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from agents.ledger import CampaignStopping, Ledger, Spending
from agents.preflight import check
from agents.prompts import Prompts
from configs.errors import DescantError
from configs.settings import CampaignSettings
from graphs.cast import build_cast, models_in_use
from graphs.execute import Recipe, build_recipe
from graphs.progress import Counters, Progress, Silent
from store import resume
from store.identity import campaign_id as identify
from store.identity import content_hash
from store.records import Branch, Campaign, CampaignStatus, Seed
from store.writer import Writer

INTERRUPTED = "interrupted: everything finished is kept, and the same command goes on from here"


class CampaignReport(NamedTuple):
    """How a run of a campaign ended."""

    campaign_id: str
    name: str
    seeds: int
    dialogues: int
    done: int
    failed: int
    pairs: int
    calls_sent: int
    calls_reused: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null when the price of some call is unknown."""
    seconds: float
    stop_reason: str | None
    """Null when every dialogue is done or failed."""


def campaign_identity(settings: CampaignSettings, prompts: Prompts) -> str:
    """Of all that shapes the text; a resume may change seeds, endpoints, concurrency, budget and limit."""
    perturb = settings.perturb.model_dump(mode="json") if settings.perturb else None
    turns = settings.turns if isinstance(settings.turns, int) else settings.turns.model_dump()
    return identify(
        name=settings.name,
        recipe=settings.recipe,
        random_seed=settings.random_seed,
        turns=turns,
        perturb=perturb,
        models={role: model.sampling() for role, model in models_in_use(settings).items()},
        prompt_hashes=prompts.hashes,
        judge_pairs=settings.judge_pairs,
    )


def run_campaign(
    settings: CampaignSettings, seeds: Sequence[Seed], database: Path, *, progress: Progress | None = None
) -> CampaignReport:
    """Run a campaign, or go on with it: what is done stays, what was paid is not paid again.

    Raises:
        PromptError, PreflightError, KeyMissingError, UnknownPriceError, StoreError: before anything is written.
        ProviderError, StoreError: what makes every dialogue fail (a full disk, too); the campaign is kept and can go on.
    """
    prompts = Prompts(settings.prompts)
    check(models_in_use(settings).values(), priced=settings.budget.usd is not None)
    campaign_id = campaign_identity(settings, prompts)
    with Writer(database) as writer:
        spent = Spending(**resume.spent(database, campaign_id)._asdict())
        ledger = Ledger(writer.append, settings.budget, spent)
        recipe = build_recipe(settings, campaign_id, prompts.hashes, build_cast(settings, prompts, ledger))
        ledger.remember(resume.open_calls(database, campaign_id))
        run = _Run(recipe, seeds, ledger, writer, progress or Silent())
        return run.run(resume.finished_dialogues(database, campaign_id), resume.created_at(database, campaign_id))


class _Run:
    """One process's work on a campaign."""

    def __init__(
        self, recipe: Recipe, seeds: Sequence[Seed], ledger: Ledger, writer: Writer, progress: Progress
    ) -> None:
        self.recipe = recipe
        self.settings = recipe.settings
        self.seeds = seeds
        self.ledger = ledger
        self.writer = writer
        self.progress = progress
        self.fatal: DescantError | None = None

    def run(self, finished: dict[str, str], created_at: datetime | None) -> CampaignReport:
        """`finished`: status by dialogue, of those that ended in earlier runs."""
        started = time.monotonic()
        created_at = created_at or datetime.now(UTC)
        trials = [(seed, trial) for seed in self.seeds for trial in range(self.settings.trials)]
        identities = [self.recipe.dialogue_ids(seed, trial) for seed, trial in trials]
        statuses = [finished.get(identity) for ids in identities for identity in ids.values()]
        self.counters = Counters(total=len(statuses), done=statuses.count("done"), failed=statuses.count("failed"))
        self.counters.done_before = self.counters.ended
        open_trials = [
            work for work, ids in zip(trials, identities, strict=True) if not finished.keys() >= set(ids.values())
        ]
        self.writer.append(self._campaign("running", created_at), *self.seeds)
        status: CampaignStatus = "paused"
        try:
            with self.progress:
                asyncio.run(self._play_all(iter(open_trials)))
            status = "paused" if self.ledger.stop_reason else "done"
        finally:
            self.writer.append(self._campaign(status, created_at))
        self.writer.flush()
        if self.fatal is not None:
            raise self.fatal
        return self._report(time.monotonic() - started)

    async def _play_all(self, work: Iterator[tuple[Seed, int]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            """The first Ctrl-C drains; a second one leaves the calls in flight."""
            if self.ledger.stop_reason is not None:
                task.cancel()
            self.ledger.stop(INTERRUPTED)

        with suppress(NotImplementedError, RuntimeError):  # no signal handlers outside a main thread
            loop.add_signal_handler(signal.SIGINT, interrupt)
            loop.add_signal_handler(signal.SIGTERM, interrupt)
        ticker = asyncio.create_task(self._tick())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.settings.concurrency):
                    group.create_task(self._worker(work))
        except asyncio.CancelledError:
            if self.ledger.stop_reason is None:
                raise
        finally:
            ticker.cancel()
            self.progress.update(self.counters, self.ledger)

    async def _tick(self) -> None:
        while True:
            self.progress.update(self.counters, self.ledger)
            await asyncio.sleep(0.25)

    async def _worker(self, work: Iterator[tuple[Seed, int]]) -> None:
        """Takes seeds until none is left or the campaign stops."""
        for seed, trial in work:
            if self.ledger.stop_reason is not None:
                return
            identities = self.recipe.dialogue_ids(seed, trial)
            self.counters.in_flight += len(identities)
            try:
                await self._play(seed, trial, identities)
            except CampaignStopping:
                return
            except DescantError as error:
                self.fatal = self.fatal or error
                self.ledger.stop(str(error))
                return
            finally:
                self.counters.in_flight -= len(identities)

    async def _play(self, seed: Seed, trial: int, identities: dict[Branch, str]) -> None:
        outcome = await self.recipe.play(seed, trial)
        self.writer.append(*outcome.records)
        for identity in identities.values():
            self.ledger.forget(identity)
        self.counters.done += outcome.done
        self.counters.failed += outcome.failed

    def _campaign(self, status: CampaignStatus, created_at: datetime) -> Campaign:
        config = self.settings.model_dump(mode="json")
        return Campaign(
            campaign_id=self.recipe.campaign_id,
            name=self.settings.name,
            recipe=self.settings.recipe,
            config=config,
            config_hash=content_hash(config),
            version=_version(),
            n_seeds=len(self.seeds),
            status=status,
            created_at=created_at,
            finished_at=datetime.now(UTC) if status == "done" else None,
        )

    def _report(self, seconds: float) -> CampaignReport:
        spent = self.ledger.spent
        return CampaignReport(
            campaign_id=self.recipe.campaign_id,
            name=self.settings.name,
            seeds=len(self.seeds),
            dialogues=self.counters.total,
            done=self.counters.done,
            failed=self.counters.failed,
            pairs=resume.pair_count(self.writer.path, self.recipe.campaign_id),
            calls_sent=self.ledger.sent,
            calls_reused=self.ledger.reused,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=None if spent.unpriced_calls else round(spent.cost_usd, 6),
            seconds=round(seconds, 2),
            stop_reason=self.ledger.stop_reason,
        )


def _version() -> str:
    try:
        return version("descant")
    except PackageNotFoundError:
        return "unknown"
