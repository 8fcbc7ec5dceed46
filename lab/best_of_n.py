"""Multi-turn Best-of-N (MUSIC, arXiv 2512.24693, evaluation): whose picks make the better conversations?

For each N, the same seeds are played twice: reward model A picks among N candidates a turn, and reward model B does.
The two conversations of a seed then meet before the judges (`lab.match`), and both reward models say which of the two
whole conversations they prefer. The candidates are drawn for each side by itself: A's and B's differ from the first
turn on. One reward model is in memory at a time.

What differs from the paper: several judges, of which each settles both orders first; intervals over prompts; the
agreement of reward models and judges (all ours).
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agents.ledger import CampaignStopping
from configs.errors import DescantError
from configs.settings import CampaignSettings, ScorerSettings
from graphs.best_of_n import RewardModel
from graphs.campaign import campaign_identity, run_campaign
from graphs.cast import models_in_use, prompts_of
from graphs.progress import Progress, Silent
from lab.match import Conversation, Meeting, check_judges, conversations, hold_match, judging
from lab.win_rates import BestOfN, Side, agreements, win_rates
from store.database import query
from store.identity import match_id
from store.records import Fit, Message, Score, Seed
from store.writer import write_through
from train.score import load_scorer, model_source

CANDIDATES = (2, 4, 8)
"""MUSIC's."""
SCORED_AT_ONCE = 256
"""Whole conversations between two writes of their rewards (ours)."""


class BestOfNError(DescantError):
    """Raised here: an evaluation that could not be fair, or has nothing to compare."""


class ScoringError(DescantError):
    """Raised here: the reward model failed, such as for memory; what was played is kept."""

    exit_code = 1


def load_reward_model(settings: ScorerSettings) -> RewardModel:
    """The reward model that the settings name, as the graphs take it."""
    scorer = load_scorer(settings.model)
    card = scorer.card
    fit = Fit(
        fit_id=scorer.fit_id,
        name=scorer.name,
        objective="reward",
        config=card.get("config") or {},
        data_card={},
        checkpoint=str(scorer.model.config.name_or_path),
        status="done",
        created_at=datetime.now(UTC),
    )

    def rewards(conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        try:
            sequences = scorer.encode(conversations)
            fits = [place for place, sequence in enumerate(sequences) if len(sequence) <= scorer.max_length]
            found = scorer.score_tokens([sequences[place] for place in fits])
        except RuntimeError as error:  # torch's, running out of memory among them
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ScoringError(
                f"the reward model {settings.model!r} failed ({line}): mend that and run the same command again"
            ) from error
        by_place = dict(zip(fits, found, strict=True))
        return [by_place.get(place) for place in range(len(sequences))]

    return RewardModel(fit, rewards)


Load = Callable[[ScorerSettings], RewardModel]


def evaluate_best_of_n(
    settings: CampaignSettings,
    seeds: Sequence[Seed],
    models: tuple[str, str],
    database: Path,
    *,
    candidates: Sequence[int] = CANDIDATES,
    progress: Callable[[str], Progress] = lambda _: Silent(),
    load: Load = load_reward_model,
) -> BestOfN:
    """Play, judge and count, or go on with it: what is paid for is not paid again.

    Args:
        settings: a campaign of `best_of_n`; its scorer and its number of candidates are replaced.
        models: A's and B's reward model, as folders or Hugging Face ids.
        progress: from a part's name to what shows it.
        load: from a model's name to a reward model.

    Raises:
        BestOfNError: another recipe, turns that are drawn, twice the same model, or no seed that both sides ended.
        CampaignStopping: interrupted, or the budget, one for all parts, is spent; the same command goes on.
    """
    if settings.recipe != "best_of_n":
        raise BestOfNError(
            f"recipe {settings.recipe!r} picks no candidates: set recipe=best_of_n, or take the preset best-of-n"
        )
    if not isinstance(settings.turns, int):
        raise BestOfNError("turns is a range, and both sides need as many: set turns to a number")
    if load is load_reward_model:
        for model in models:
            model_source(model)  # that there is no such model is known before anything is paid
    check_judges(settings)
    bench = _Bench(load)
    sides = (_side(bench, models[0]), _side(bench, models[1]))
    if sides[0].fit_id == sides[1].fit_id:
        raise BestOfNError(f"{models[0]!r} and {models[1]!r} are the same reward model ({sides[0].fit_id}): name two")

    played: dict[tuple[int, int], str] = {}
    parts = _parts(settings, models, sides, candidates)
    sent = 0
    for place in (1, 0) if bench.holds(models[1]) else (0, 1):
        for n in candidates:
            own = _side_of(settings, models[place], n)
            shown = progress(f"{'AB'[place]}, N={n}")
            report = run_campaign(own, seeds, database, progress=shown, scorer=bench.get(models[place]), sharing=parts)
            if report.stop_reason is not None:
                raise CampaignStopping(report.stop_reason)
            played[place, n] = report.campaign_id
            sent += report.calls_sent
    meetings: dict[int, list[Meeting]] = {}
    unmatched: dict[int, int] = {}
    seed_ids = [seed.seed_id for seed in seeds]
    for n in candidates:
        campaigns = (played[0, n], played[1, n])
        ours, theirs = (
            {(one.seed_id, one.trial): one for one in conversations(database, campaign, seed_ids)}
            for campaign in campaigns
        )
        both = sorted(ours.keys() & theirs.keys())
        unmatched[n] = len(seeds) * settings.trials - len(both)
        match = hold_match(
            settings,
            campaigns,
            [(ours[key], theirs[key]) for key in both],
            database,
            name=f"{settings.name}: {sides[0].name} meets {sides[1].name}, N={n}",
            progress=progress(f"judges, N={n}"),
            sharing=parts,
        )
        meetings[n] = match.meetings
        sent += match.calls_sent
    if not any(meetings.values()):
        raise BestOfNError('no seed was played to its end by both sides: see why with descant sql "FROM errors"')
    met = [one for those in meetings.values() for meeting in those for one in (meeting.dialogue, meeting.opponent)]
    order = (0, 1) if bench.holds(models[0]) else (1, 0)
    rewards = {place: _whole_rewards(bench, models[place], sides[place], met, database) for place in order}
    judges = [settings.models.of("judge", place).model for place in range(len(settings.models.judges))]
    found = BestOfN(
        name=settings.name,
        sides=sides,
        judges=judges,
        turns=settings.turns,
        seeds=len(seeds),
        unmatched=unmatched,
        win_rates=win_rates(meetings, len(judges)),
        agreements=agreements(meetings, [rewards[0], rewards[1]], len(judges)),
        campaigns={n: (played[0, n], played[1, n]) for n in candidates},
        calls_sent=sent,
        rehearsed=any(model.model.startswith("rehearsal/") for model in models_in_use(judging(settings)).values()),
    )
    write_through(database, found.metrics())
    return found


def _side_of(settings: CampaignSettings, model: str, n: int) -> CampaignSettings:
    """The campaign in which a reward model picks among n candidates."""
    return settings.model_copy(update={"candidates": n, "scorer": ScorerSettings(model=model)})


def _parts(
    settings: CampaignSettings, models: tuple[str, str], sides: tuple[Side, Side], candidates: Sequence[int]
) -> list[str]:
    """All campaigns and matches, which share the one budget: what any of them paid in an earlier run counts for each."""
    prompts, found = prompts_of(settings), []
    for n in candidates:
        ids = [
            campaign_identity(_side_of(settings, model, n), prompts, fit_id=side.fit_id)
            for model, side in zip(models, sides, strict=True)
        ]
        found += [*ids, match_id(*ids)]
    return found


class _Bench:
    """Holds the one reward model that is in memory."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._held: tuple[str, RewardModel] | None = None

    def holds(self, model: str) -> bool:
        return self._held is not None and self._held[0] == model

    def get(self, model: str) -> RewardModel:
        if self._held is None or self._held[0] != model:
            self._held = None  # before the other is loaded
            self._held = (model, self._load(ScorerSettings(model=model)))
        return self._held[1]


def _side(bench: _Bench, model: str) -> Side:
    fit = bench.get(model).fit
    return Side(fit.name, fit.fit_id, model)


def _whole_rewards(
    bench: _Bench, model: str, side: Side, met: Sequence[Conversation], database: Path
) -> dict[str, float]:
    """The side's reward of each whole conversation that it can read; kept in `scores`, and taken from there."""
    rows = query(database, "SELECT dialogue_id, reward FROM scores WHERE fit_id = ? AND turn_id = ''", [side.fit_id])
    rewards = {row["dialogue_id"]: float(row["reward"]) for row in rows}
    missing = [one for one in met if one.dialogue_id not in rewards]
    for start in range(0, len(missing), SCORED_AT_ONCE):
        part = missing[start : start + SCORED_AT_ONCE]
        found = bench.get(model).rewards([one.messages for one in part])
        scores = [
            Score(fit_id=side.fit_id, dialogue_id=one.dialogue_id, reward=reward)
            for one, reward in zip(part, found, strict=True)
            if reward is not None and math.isfinite(reward)
        ]
        write_through(database, scores)
        rewards |= {score.dialogue_id: score.reward for score in scores}
    return rewards
