"""A campaign: many seeds at once, stopped and resumed without loss. The batch layer over `graphs.execute`.

The order of things at the start is what keeps a mistake from leaving anything half made: the config is
valid and the seeds are read before the models are checked, the models before the database is opened.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from agents.gate_rules import patterns
from agents.ledger import Ledger
from agents.preflight import check
from agents.prices import require_prices
from agents.prompts import Prompts
from agents.transport import is_rehearsed
from configs.errors import DescantError
from configs.settings import CampaignSettings, GateSettings
from graphs.best_of_n import RewardModel
from graphs.cast import build_cast, models_in_use, prompts_of, require_named_models, roles_in_use
from graphs.control import Control
from graphs.crew import work_off
from graphs.execute import Recipe, branches_of, build_recipe
from graphs.garbage import seldom_collected
from graphs.progress import Counters, Progress, Silent
from graphs.spending import spent_so_far
from graphs.trunk import Trunks
from store import resume
from store.identity import campaign_id as identify
from store.identity import content_hash, dialogue_id
from store.records import Branch, Campaign, CampaignStatus, Seed
from store.retry import ToRetry
from store.writer import LOCK_PATIENCE_SECONDS, Writer


class CampaignReport(NamedTuple):
    """How a run of a campaign ended."""

    campaign_id: str
    name: str
    models: dict[str, str]
    """Model string by role, of the roles that play."""
    seeds: int
    """That this run was given."""
    dialogues: int
    """Of those seeds; `done` and `failed` too, whichever run they ended in."""
    done: int
    failed: int
    pairs: int
    """Of the whole campaign, as tokens and cost are, whichever run they are of."""
    near_identical: int
    """Pairs whose sides hardly differ (`store.pairs.similarity` of at least 0.9)."""
    chosen_longer: float | None
    """Share of pairs whose chosen side has more words, equal ones as half; null without pairs."""
    calls_sent: int
    """Requests of this run, retries included."""
    calls_reused: int
    """Calls of earlier runs that this run took from the journal."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null when the price of some call is unknown."""
    seconds: float
    """Of this run."""
    stop_reason: str | None
    """Null when every dialogue is done or failed."""
    caught: dict[str, int] | None = None
    """Queries that the gate did not let pass, by reason, of the whole campaign; null where there is no gate."""
    caught_outcomes: dict[str, int] | None = None
    """The same by what became of them: `asked_again`, or the dialogue `ended` or `failed`."""
    refused: dict[str, int] | None = None
    """Answers that could not stand in a pair, by reason, of the whole campaign; null where none are paired."""
    without_pair: int | None = None
    """Places of a dialogue that in the end got no pair."""
    calls_failed: int = 0
    """Calls of the whole campaign that failed for good; not all of them end a dialogue, such as a judge's."""
    budget: list[dict[str, Any]] | None = None
    """Each cap with what counts against it, by others that share it too; null where nothing is capped."""
    lost_tokens: int = 0
    """Of the whole campaign: at most so many more, for requests that brought no answer and may be billed all the same."""
    lost_usd: float | None = 0.0
    """Null when the price of some is unknown."""


class ForkMissingError(DescantError):
    """Raised here: settings of a fork, and nothing that it goes on from."""


class ScorerMissingError(DescantError):
    """Raised here: a campaign of `best_of_n` or `west_of_n` without a reward model that picks."""


def check_scorer(settings: CampaignSettings, *, is_there: bool) -> None:
    """Raise a ScorerMissingError for a recipe that picks by a reward model and has none."""
    if settings.recipe in ("best_of_n", "west_of_n") and not is_there:
        raise ScorerMissingError(
            f"recipe {settings.recipe} picks by a reward model: set scorer.model to a fit's folder (fits/NAME)"
        )


def check_campaign(
    settings: CampaignSettings,
    seeds: Sequence[Seed],
    database: Path,
    scorer: RewardModel | None = None,
    *,
    is_served: bool = True,
    trunks: Trunks | None = None,
) -> Prompts:
    """The prompts of a campaign, once nothing about it is found to be wrong: what can be told before anything is written.

    A campaign that is over asks nobody, so nobody need be there.

    Args:
        is_served: whether the checkpoints that play are served by now; else they are left to who serves them.

    Raises:
        ForkMissingError, ModelMissingError, ScorerMissingError, PromptError, PatternError, PreflightError, KeyMissingError, UnknownPriceError.
    """
    if settings.fork is not None and trunks is None:
        raise ForkMissingError("fork is what `descant fork ID --at TURN` sets: use that command, or drop the key")
    require_named_models(settings)
    check_scorer(settings, is_there=scorer is not None)
    prompts = prompts_of(settings)
    if not is_over(settings, seeds, database, scorer, trunks):
        asked = [model for model in models_in_use(settings).values() if is_served or model.checkpoint is None]
        require_prices(settings.budget, settings.models, roles_in_use(settings))
        check(asked)
    return prompts


def campaign_identity(
    settings: CampaignSettings, prompts: Prompts, scorer: RewardModel | None = None, *, fit_id: str | None = None
) -> str:
    """Of all that shapes the text; a resume may change seeds, endpoints, concurrency, budget and limit.

    `fit_id`: the scorer's, where it need not be loaded.
    """
    fit_id = scorer.fit.fit_id if scorer else fit_id
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
        selection={"candidates": settings.candidates, "scorer": fit_id} if fit_id else None,
        queries=_queries(settings),
    )


def _queries(settings: CampaignSettings) -> dict[str, Any] | None:
    """How queries come about and which ones get negatives; null where all of it is plain."""
    shape = {
        "simulator": None if settings.simulator == "prompted" else settings.simulator,
        "script": settings.script,
        "gate": _gate(settings.gate) if settings.gate else None,
        "capo": settings.capo.model_dump(mode="json") if settings.capo else None,
        "pairing": settings.pairing.identity(settings.recipe) if settings.pairing else None,
        "fork": settings.fork.model_dump() if settings.fork else None,
    }
    return {name: value for name, value in shape.items() if value is not None} or None


def _gate(gate: GateSettings) -> dict[str, Any]:
    """The settings of a gate, its list of what is sensitive by what stands in it and not by where it lies."""
    found = None if gate.sensitive is False else [expression.pattern for expression in patterns(gate.sensitive)]
    return gate.model_dump(mode="json") | {"sensitive": found}


def run_campaign(
    settings: CampaignSettings,
    seeds: Sequence[Seed],
    database: Path,
    *,
    progress: Progress | None = None,
    scorer: RewardModel | None = None,
    sharing: Sequence[str] = (),
    trunks: Trunks | None = None,
) -> CampaignReport:
    """Run a campaign, or go on with it: what is done stays, what was paid is not paid again.

    Args:
        scorer: picks among the candidates of `best_of_n` and `west_of_n`; other recipes take none.
        sharing: other campaigns that the budget is for too: what they have paid counts.
        trunks: what the dialogues of a fork begin with (`graphs.fork`).

    Raises:
        ForkMissingError: a fork without its trunks.
        ScorerMissingError: `best_of_n` or `west_of_n` without a scorer.
        PromptError, PatternError, PreflightError, KeyMissingError, UnknownPriceError, StoreError: before anything is written.
        ProviderError, StoreError: what makes every dialogue fail (a full disk, too); the campaign is kept and can go on.
    """
    prompts = check_campaign(settings, seeds, database, scorer, trunks=trunks)
    campaign_id = campaign_identity(settings, prompts, scorer)
    with Writer(database, patience_seconds=LOCK_PATIENCE_SECONDS) as writer:
        spent, by_role = spent_so_far(database, [campaign_id, *sharing], settings.budget, settings.models)
        ledger = Ledger(writer.note, settings.budget, spent, by_role, leave=writer.leave)
        cast = build_cast(settings, prompts, ledger)
        recipe = build_recipe(settings, campaign_id, prompts.hashes, cast, scorer, trunks)
        if scorer and not resume.has_fit(database, scorer.fit.fit_id):
            writer.append(scorer.fit)
        ledger.remember(resume.open_calls(database, campaign_id))
        ledger.noted |= resume.noted_labels(database, campaign_id)
        ended = resume.finished_dialogues(database, campaign_id)
        created_at = resume.created_at(database, campaign_id) or datetime.now(UTC)
        run = _CampaignRun(recipe, seeds, ledger, writer, progress or Silent(), ended, created_at)
        return run.to_the_end()


def is_over(
    settings: CampaignSettings,
    seeds: Sequence[Seed],
    database: Path,
    scorer: RewardModel | None = None,
    trunks: Trunks | None = None,
) -> bool:
    """Whether every dialogue of these seeds has ended, as far as the database knows."""
    if not database.exists():
        return False
    identity = campaign_identity(settings, prompts_of(settings), scorer)
    ended = resume.finished_dialogues(database, identity)
    return all(
        dialogue_id(identity, seed.seed_id, branch, trial) in ended
        for seed in seeds
        for trial in range(settings.trials)
        if trunks is None or (seed.seed_id, trial) in trunks
        for branch in branches_of(settings.recipe)
    )


class Trial(NamedTuple):
    """One playing of a seed."""

    seed: Seed
    number: int
    dialogue_ids: dict[Branch, str]


class _CampaignRun:
    """One process's work on a campaign.

    A dialogue that ended in an earlier run, failed ones too, is not played again.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[Seed],
        ledger: Ledger,
        writer: Writer,
        progress: Progress,
        ended: Mapping[str, str],
        created_at: datetime,
    ) -> None:
        """`ended`: `done` or `failed` by dialogue, of those that ended in earlier runs."""
        self.recipe = recipe
        self.settings = recipe.settings
        self.seeds = seeds
        self.ledger = ledger
        self.writer = writer
        self.progress = progress
        self.created_at = created_at
        trials = [
            Trial(seed, number, recipe.dialogue_ids(seed, number))
            for seed in seeds
            for number in range(self.settings.trials)
            if recipe.plays(seed, number)
        ]
        self.trials = {(trial.seed.seed_id, trial.number): trial for trial in trials}
        self.open_trials = [trial for trial in trials if any(id not in ended for id in trial.dialogue_ids.values())]
        statuses = [ended.get(identity) for trial in trials for identity in trial.dialogue_ids.values()]
        done, failed = statuses.count("done"), statuses.count("failed")
        self.counters = Counters(total=len(statuses), done=done, failed=failed, ended_before=done + failed)
        self.control = Control(writer, self._campaign, take_back=self._take_back)

    def to_the_end(self) -> CampaignReport:
        """Play what is open until it ended or the campaign stops; then tell."""
        started = time.monotonic()
        self.writer.append(self._campaign("running"), *self.seeds)
        status: CampaignStatus = "paused"
        try:
            with self.progress, seldom_collected():
                fatal = asyncio.run(
                    work_off(
                        self.open_trials,
                        self._play,
                        workers=max(1, self.settings.concurrency // self.recipe.branches_at_once),
                        ledger=self.ledger,
                        counters=self.counters,
                        progress=self.progress,
                        in_flight=self.recipe.branches_at_once,
                        staggered=not all(is_rehearsed(model) for model in models_in_use(self.settings).values()),
                        watch=self.control,
                    )
                )
            status = "paused" if self.ledger.stop_reason else "done"
        finally:
            self.writer.append(self._campaign(status))
        self.writer.flush()
        if fatal is not None:
            raise fatal
        return self._report(time.monotonic() - started)

    async def _play(self, trial: Trial) -> None:
        outcome = await self.recipe.play(trial.seed, trial.number)
        # First of all, for `retry-failed` may see that they failed as soon as it is noted, and remember their calls.
        for identity in trial.dialogue_ids.values():
            self.ledger.forget(identity)
        await self.writer.note(*outcome.records)
        self.counters.done += outcome.done
        self.counters.failed += outcome.failed

    async def _take_back(self, found: ToRetry) -> list[Trial]:
        """The trials of this run that are open again, their calls remembered; another run's are left to it."""
        own = [row for row in found.dialogues if row.campaign_id == self.recipe.campaign_id]
        taken = {key: self.trials[key] for row in own if (key := (row.seed_id, row.trial)) in self.trials}
        calls = await asyncio.to_thread(
            resume.open_calls, self.writer.path, self.recipe.campaign_id, dialogue_ids=found.with_calls
        )
        self.ledger.remember(calls)
        for row in own:
            if (row.seed_id, row.trial) in taken:
                self.counters.done -= row.status == "done"
                self.counters.failed -= row.status == "failed"
        self.counters.ended_before = min(self.counters.ended_before, self.counters.ended)
        return list(taken.values())

    def _campaign(self, status: CampaignStatus) -> Campaign:
        config = self.settings.model_dump(mode="json")
        return Campaign(
            campaign_id=self.recipe.campaign_id,
            name=self.settings.name,
            recipe=self.settings.recipe,
            config=config,
            config_hash=content_hash(config),
            version=descant_version(),
            n_seeds=len(self.seeds),
            status=status,
            created_at=self.created_at,
            finished_at=datetime.now(UTC) if status == "done" else None,
            paused_by=self.ledger.paused_by(status),
        )

    def _report(self, seconds: float) -> CampaignReport:
        spent = resume.spent(self.writer.path, self.recipe.campaign_id)
        catches = resume.catches(self.writer.path, self.recipe.campaign_id) if self.settings.gate else None
        refused = None
        if self.settings.pairing is not None:
            refused = resume.catches(self.writer.path, self.recipe.campaign_id, of_user=False)
        balance = resume.pair_balance(self.writer.path, self.recipe.campaign_id)
        return CampaignReport(
            campaign_id=self.recipe.campaign_id,
            name=self.settings.name,
            models={role: model.model for role, model in models_in_use(self.settings).items()},
            seeds=len(self.seeds),
            dialogues=self.counters.total,
            done=self.counters.done,
            failed=self.counters.failed,
            pairs=balance.pairs,
            near_identical=balance.near_identical,
            chosen_longer=None if balance.chosen_longer is None else round(balance.chosen_longer, 4),
            calls_sent=self.ledger.sent,
            calls_reused=self.ledger.reused,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=None if spent.unpriced_calls else round(spent.cost_usd, 6),
            seconds=round(seconds, 2),
            stop_reason=self.ledger.stop_reason,
            caught=catches and catches.by_reason,
            caught_outcomes=catches and catches.by_outcome,
            refused=refused and refused.by_reason,
            without_pair=refused and refused.places_without_pair,
            calls_failed=resume.failed_calls(self.writer.path, self.recipe.campaign_id),
            budget=[use._asdict() for use in self.ledger.budget.uses()] or None,
            lost_tokens=spent.lost_tokens,
            lost_usd=None if spent.unpriced_lost else round(spent.lost_usd, 6),
        )


def descant_version() -> str:
    try:
        return version("descant")
    except PackageNotFoundError:
        return "unknown"
