"""What a campaign will take: calls, tokens and dollars by role, from a handful of its dialogues, before any is spent.

The dialogues are recorded ones where the corpus has some of this campaign, or of another one that asks the same of the same
models; else they are rehearsed in memory (`graphs.rehearse`). What they used is scaled to all playings of all seeds that
are still to come. Nothing is sent, and nothing is written.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from agents.prices import Price, how_to_price, price_of
from agents.prompts import Prompts
from agents.rehearsal.backend import PREFIX
from configs.model_settings import ModelsSettings, Role
from configs.settings import CampaignSettings, CapSettings
from graphs.campaign import campaign_identity, check_scorer
from graphs.cast import models_in_use, prompts_of, require_named_models, roles_in_use, shape_of
from graphs.execute import branches_of
from graphs.rehearse import LENGTHS, Usage, rehearsed_usage
from graphs.spending import spent_by_role
from store import resume
from store.identity import chance, dialogue_id
from store.recorded import RecordedUse, recorded_campaigns, recorded_playings
from store.records import Seed

REHEARSED = 8
"""Playings that are rehearsed unless more are asked for."""
FEWEST_RECORDED = 2
"""Playings that are gone by: a single one says nothing of how far others may be from it."""
CONFIDENCE = 0.99
"""Of the interval for what is still to come, by Student's t over the playings that were looked at: wide, since a budget is
set by its end, and a few playings seldom show a rare retry."""
CHANCE = ("random_seed",)
"""What another campaign may differ in whose dialogues are gone by."""
FIGURES = ("calls", "prompt_tokens", "completion_tokens", "usd")
ROLES: tuple[Role, ...] = ("user", "assistant", "perturbation", "judge")
NAMELESS = {"name": "", "random_seed": 0}


class Range(NamedTuple):
    low: float
    expected: float
    high: float

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]  # not a longer tuple
        return Range(*(own + more for own, more in zip(self, other, strict=True)))


class Forecast(NamedTuple):
    """What is still to come of a role, or of all together."""

    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    usd: Range | None
    """Null: a price is unknown."""

    @property
    def tokens(self) -> Range:
        return self.prompt_tokens + self.completion_tokens


class Plan(NamedTuple):
    """The estimate of one campaign."""

    name: str
    campaign_id: str | None
    """Null where only a run can tell, since a reward model picks."""
    source: Literal["this campaign", "another campaign", "rehearsed"]
    recorded_in: str | None
    """The campaign whose dialogues were looked at."""
    sample: int
    """Playings that were looked at: a seed, played once with all its branches."""
    playings: int
    ended: int
    """That came to their end in earlier runs."""
    roles: dict[str, Forecast]
    total: Forecast
    spent: dict[str, Usage]
    """By role, what earlier runs paid."""
    seconds: float | None
    """At the campaign's concurrency, if the backend holds the pace that was recorded; null where it was rehearsed."""
    unpriced: tuple[str, ...]
    """For each model without a price, how to give it one."""
    is_rehearsal: bool
    """All of it is played by the built-in rehearsal, and its lengths are its own."""
    lost_tokens: int = 0
    """Of the playings that were looked at: at most so many for requests without an answer. The forecast has as many."""


def plan_campaign(
    settings: CampaignSettings,
    seeds: Sequence[Seed],
    database: Path,
    *,
    sample: int | None = None,
    tokens_an_answer: int | None = None,
) -> Plan:
    """Estimate what a campaign will still take.

    Args:
        sample: playings to look at; null takes all that are recorded, or rehearses eight.
        tokens_an_answer: how long answers are expected to be, where they are rehearsed.

    Raises:
        ModelMissingError, ScorerMissingError, PromptError, PatternError, StoreError: what `run` would find wrong, too.
    """
    require_named_models(settings)
    check_scorer(settings, is_there=settings.scorer is not None)
    prompts = prompts_of(settings)
    playings = [(seed, trial) for seed in seeds for trial in range(settings.trials)]
    found = _recorded(settings, prompts, database)
    campaign_id = found.own_id or campaign_identity(settings, prompts)
    ended = resume.finished_dialogues(database, campaign_id) if found.own_id else {}
    over = sum(_is_over(settings, campaign_id, seed, trial, ended) for seed, trial in playings)
    is_rehearsal = all(model.model.startswith(PREFIX) for model in models_in_use(settings).values())
    prices = {role: price_of(model) for role, model in models_in_use(settings).items()}
    seconds: list[float] = []
    lost_tokens = 0
    if found.uses:
        keys = _drawn(settings, sorted(found.uses), sample or len(found.uses))
        seconds = [sum(use.seconds for use in found.uses[key]) for key in keys]
        lost_tokens = sum(use.lost_tokens for key in keys for use in found.uses[key])
        looked_at = [[_usage(found.uses[key], prices)] * len(LENGTHS) for key in keys]
    else:
        chosen = _drawn(settings, playings, sample or REHEARSED)
        by_length = [
            rehearsed_usage(settings, prompts, campaign_id, chosen, length, tokens_an_answer=tokens_an_answer)
            for length in (LENGTHS[:1] if is_rehearsal else LENGTHS)
        ]
        by_length *= len(LENGTHS) // len(by_length)
        looked_at = [list(lengths) for lengths in zip(*by_length, strict=True)]
    spent = _spent(database, campaign_id, settings.models) if found.own_id else {}
    half_played = _half_played(database, campaign_id, prices) if found.own_id else {}
    names = [role for role in ROLES if any(role in usage for lengths in looked_at for usage in lengths)]
    remaining = len(playings) - over
    pace = _pace(settings)
    return Plan(
        name=settings.name,
        campaign_id=found.own_id or (campaign_id if settings.scorer is None else None),
        source=found.source,
        recorded_in=found.recorded_in,
        sample=len(looked_at),
        playings=len(playings),
        ended=over,
        roles={
            role: _forecast(
                [[usage.get(role, Usage()) for usage in lengths] for lengths in looked_at],
                remaining,
                half_played.get(role, Usage()),
            )
            for role in names
        },
        total=_forecast(
            [[_together(usage) for usage in lengths] for lengths in looked_at], remaining, _together(half_played)
        ),
        spent=spent,
        seconds=statistics.fmean(seconds) * remaining / min(pace, max(1, remaining)) if seconds else None,
        unpriced=_unpriced(settings),
        is_rehearsal=is_rehearsal,
        lost_tokens=lost_tokens,
    )


def _unpriced(settings: CampaignSettings) -> tuple[str, ...]:
    """For each model without a price, in one line, its roles and how to give it one."""
    roles: dict[tuple[str, str], list[str]] = {}
    for role, index in roles_in_use(settings):
        model = settings.models.of(role, index)
        if not price_of(model).is_known:
            of = roles.setdefault((model.model, how_to_price(settings.models, role, index)), [])
            of += [role] if role not in of else []
    return tuple(f"{model} ({', '.join(of)}): {how}" for (model, how), of in roles.items())


class _Recorded(NamedTuple):
    """What the corpus has to go by."""

    source: Literal["this campaign", "another campaign", "rehearsed"]
    own_id: str | None
    """The campaign's own id, where the corpus knows it."""
    recorded_in: str | None
    uses: Mapping[tuple[str, int], Sequence[RecordedUse]]


def _recorded(settings: CampaignSettings, prompts: Prompts, database: Path) -> _Recorded:
    """Playings of this campaign, else of the fullest one that differs from it in its name and its chance alone."""
    nothing = _Recorded("rehearsed", None, None, {})
    if not database.exists():
        return nothing
    own_id = campaign_identity(settings, prompts) if settings.scorer is None else None
    if own_id is not None and resume.created_at(database, own_id) is None:
        own_id = None
    shape, likest = shape_of(settings, without=CHANCE), None
    for campaign in recorded_campaigns(database, settings.recipe):
        other = _read(campaign.config)
        if other is None or shape_of(other, without=CHANCE) != shape:
            continue
        is_same = (other.name, other.random_seed) == (settings.name, settings.random_seed)
        if own_id is None and settings.scorer is not None and is_same:
            own_id = campaign.campaign_id
        likest = likest or campaign
    if own_id is not None and len(uses := recorded_playings(database, own_id)) >= FEWEST_RECORDED:
        return _Recorded("this campaign", own_id, own_id, uses)
    if likest is not None and len(uses := recorded_playings(database, likest.campaign_id)) >= FEWEST_RECORDED:
        return _Recorded("another campaign", own_id, f"{likest.name} ({likest.campaign_id})", uses)
    return nothing._replace(own_id=own_id)


def _read(config: dict[str, Any]) -> CampaignSettings | None:
    """The settings of a stored campaign; null where they are of a version that had others."""
    try:
        return CampaignSettings.model_validate(config)
    except ValidationError:
        return None


def _drawn(settings: CampaignSettings, things: Sequence[Any], number: int) -> list[Any]:
    """Some of the things by the campaign's chance, or all of them, in their order."""
    if number >= len(things):
        return list(things)
    places = chance("plan", settings.random_seed, len(things)).sample(range(len(things)), number)
    return [things[place] for place in sorted(places)]


def _is_over(settings: CampaignSettings, campaign_id: str, seed: Seed, trial: int, ended: Mapping[str, str]) -> bool:
    return all(
        ended.get(dialogue_id(campaign_id, seed.seed_id, branch, trial)) in ("done", "failed")
        for branch in branches_of(settings.recipe)
    )


def _usage(uses: Sequence[RecordedUse], prices: Mapping[str, Price]) -> dict[str, Usage]:
    """What a recorded playing used, by role; in dollars as recorded, unless the config names a price of its own.

    What may have been paid for nothing counts too: on the same backend requests will be lost again.
    """
    found: dict[str, Usage] = {}
    for use in uses:
        price = _price_of(use.agent, use.model, prices)
        usd, lost_usd = use.cost_usd, use.lost_usd
        if price is not None and (price.is_own or usd is None):
            a_call = [round(tokens / max(1, use.calls)) for tokens in (use.prompt_tokens, use.completion_tokens)]
            usd = (
                price.cost_of(use.prompt_tokens, use.completion_tokens)
                if price.is_even
                else _times(price.cost_of(*a_call), use.calls)
            )
        if price is not None and (price.is_own or lost_usd is None):
            lost_usd = _lost_at(price, use.lost_tokens)
        together = None if usd is None or lost_usd is None else usd + lost_usd
        usage = Usage(use.calls, use.prompt_tokens + use.lost_tokens, use.completion_tokens, together)
        found[use.agent] = found.get(use.agent, Usage()) + usage
    return found


def _price_of(agent: str, model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price that the config has for an agent's model."""
    return next(
        (price for role, price in prices.items() if (role.partition("_")[0], price.model) == (agent, model)), None
    )


def _lost_at(price: Price, tokens: int) -> float | None:
    """What so many lost tokens cost at most."""
    return tokens * price.dearest if price.is_known or not tokens else None


def _times(usd: float | None, calls: int) -> float | None:
    return None if usd is None else usd * calls


def _spent(database: Path, campaign_id: str, models: ModelsSettings) -> dict[str, Usage]:
    """What earlier runs paid; what may have been paid for nothing counts too, as it does against a budget."""
    return {
        role: Usage(
            spent.calls,
            spent.prompt_tokens + spent.lost_tokens,
            spent.completion_tokens,
            None if spent.unpriced_calls else spent.cost_usd + spent.lost_usd,
        )
        for role, spent in spent_by_role(database, [campaign_id], models).items()
    }


def _half_played(database: Path, campaign_id: str, prices: Mapping[str, Price]) -> dict[str, Usage]:
    """What the answered calls of open dialogues used, requests in vain included: they are not asked again."""
    found: dict[str, Usage] = {}
    for call in resume.open_calls(database, campaign_id):
        if call.status == "done":
            prompt, completion, lost = call.prompt_tokens or 0, call.completion_tokens or 0, call.lost_tokens or 0
            use = RecordedUse(
                call.agent, call.model, call.attempts, prompt, completion, call.cost_usd, 0.0, lost, call.lost_usd
            )
            found[call.agent] = found.get(call.agent, Usage()) + _usage([use], prices)[call.agent]
    return found


def _together(by_role: Mapping[str, Usage]) -> Usage:
    total = Usage()
    for usage in by_role.values():
        total += usage
    return total


def _forecast(looked_at: Sequence[Sequence[Usage]], remaining: int, half_played: Usage) -> Forecast:
    """From the use of each playing, with low, expected and high answers, to that of those that remain."""
    ranges: list[Range | None] = []
    for figure in FIGURES:
        values = [[getattr(usage, figure) for usage in lengths] for lengths in looked_at]
        paid = getattr(half_played, figure) or 0.0
        if any(value is None for lengths in values for value in lengths):
            ranges.append(None)
        else:
            low, expected, high = _range(values, remaining)
            ranges.append(Range(*(max(0.0, value - paid) for value in (low, expected, high))))
    calls, prompt, completion, usd = ranges
    assert calls is not None, "calls are always counted"
    assert prompt is not None, "and so are tokens"
    assert completion is not None, "of both kinds"
    return Forecast(calls, prompt, completion, usd)


def _range(values: Sequence[Sequence[float]], remaining: int) -> Range:
    """The sum over so many playings, each like those that were looked at: a prediction interval around the mean.

    The low end is of the playings with low answers, the high end of those with high ones. Where few playings that differ much
    would let it sink to nothing, and each of them used some, it is what one of them used at the least.
    """
    n = len(values)
    low, expected, high = ([lengths[place] for lengths in values] for place in range(len(LENGTHS)))
    reach = 0.0
    if n > 1 and remaining:
        from scipy.stats import t

        reach = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(remaining * (1 + remaining / n))
    least = statistics.fmean(low) * remaining - reach * (statistics.stdev(low) if n > 1 else 0.0)
    if least <= 0.0 and remaining:
        least = min(low)
    most = statistics.fmean(high) * remaining + reach * (statistics.stdev(high) if n > 1 else 0.0)
    middle = statistics.fmean(expected) * remaining
    return Range(max(0.0, min(least, middle)), middle, max(most, middle))


def _pace(settings: CampaignSettings) -> int:
    """Playings at once."""
    shares = settings.perturb is not None and settings.perturb.share != "nothing"
    return max(1, settings.concurrency // (1 if shares else len(branches_of(settings.recipe))))


class CapVerdict(NamedTuple):
    """A cap against what was spent and what is still to come."""

    cap: str
    """`budget.usd`, `budget.roles.judge.calls`."""
    limit: float
    spent: float
    forecast: Range | None
    """Spent and still to come together; null: a price is unknown."""

    @property
    def verdict(self) -> str:
        if self.forecast is None:
            return "unknown"
        if self.forecast.high <= self.limit:
            return "enough"
        return "may not be enough" if self.forecast.expected <= self.limit else "not enough"


def check_budget(plans: Sequence[Plan], settings: CampaignSettings) -> list[CapVerdict]:
    """Whether the config's caps will do for all its campaigns together."""
    found = _verdicts("budget", settings.budget, [plan.total for plan in plans], [_together(p.spent) for p in plans])
    for role, caps in settings.budget.roles.items():
        forecasts = [plan.roles[role] for plan in plans if role in plan.roles]
        spent = [plan.spent.get(role, Usage()) for plan in plans]
        found += _verdicts(f"budget.roles.{role}", caps, forecasts, spent)
    return found


def _verdicts(name: str, caps: CapSettings, forecasts: Sequence[Forecast], spent: Sequence[Usage]) -> list[CapVerdict]:
    verdicts = []
    for cap, limit in (("usd", caps.usd), ("tokens", caps.tokens), ("calls", caps.calls)):
        if limit is None:
            continue
        paid: float | None = 0.0
        coming: Range | None = Range(0.0, 0.0, 0.0)
        for usage in spent:
            more = usage.prompt_tokens + usage.completion_tokens if cap == "tokens" else getattr(usage, cap)
            paid = None if paid is None or more is None else paid + more
        for forecast in forecasts:
            ahead = getattr(forecast, cap)
            coming = None if coming is None or ahead is None else coming + ahead
        both = None if coming is None or paid is None else Range(*(value + paid for value in coming))
        verdicts.append(CapVerdict(f"{name}.{cap}", limit, paid or 0.0, both))
    return verdicts
