"""What a role's tokens cost: by the config's own prices, else by LiteLLM's price map; null where nobody says.

Knows nothing of budgets' state or of requests: it turns numbers of tokens into dollars.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.providers import load_litellm
from agents.rehearsal.backend import PREFIX
from configs.errors import DescantError
from configs.model_settings import ModelSettings, ModelsSettings, Role
from configs.settings import BudgetSettings

PRICE_PARAMETER = re.compile(r"cost_per_|_token_cost")
"""Names under which LiteLLM takes prices among `params`: no provider is sent them."""
TOKENS_A_UNIT = 1_000_000
"""Prices in a config are for so many tokens, as providers' lists have them."""
PROMPT_PRICE = re.compile(r"^(input_cost_per_token|cache_(creation|read)_input_token_cost)")
COMPLETION_PRICE = re.compile(r"^output_cost_per_(reasoning_)?token")
ASKED_FOR = re.compile(r"_(batches|flex|priority|balanced|fast|ultrafast|decisions)$|above_1hr")
"""Prices in LiteLLM's map of services that nobody gets who has not asked for them."""
UNEVEN = re.compile(r"_above_\d|tiered_pricing|off_peak|per_request|per_second|per_character|per_query")
"""Keys of its map that say that a request costs more, or less, than its tokens times two prices."""
OWN_SERVERS = ("hosted_vllm/",)
"""Of these LiteLLM's map has none: they are servers of the user's. Not asking it saves the seconds that it takes to load."""
PROBES = ((1, 0), (0, 1), (1000, 500), (120_000, 7000))
"""Prompt and completion tokens at which a price that looks even has to be so."""


class UnknownPriceError(DescantError):
    """Raised here: a cap in dollars over a model without a price."""


@dataclass(frozen=True)
class Price:
    """What the tokens of one role's model cost, in dollars a token."""

    model: str
    prompt: float | None = None
    """At the dearest, and exactly where `is_even`; null: unknown."""
    completion: float | None = None
    cached: float | None = None
    """A prompt token that the provider had in its cache; null where LiteLLM has to say."""
    is_own: bool = False
    """The config gives it: it goes before whatever LiteLLM says."""
    is_even: bool = True
    """A request costs its tokens times these prices, however long it is; else LiteLLM is asked each time."""

    @property
    def is_known(self) -> bool:
        return self.prompt is not None and self.completion is not None

    def cost_of(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
        """Dollars of one answered request; null where the price is unknown.

        Args:
            prompt_tokens: all of them, the cached ones too.
        """
        if self.prompt is None or self.completion is None:
            return None
        if self.is_even and not cached_tokens:
            return prompt_tokens * self.prompt + completion_tokens * self.completion
        if self.is_even and self.cached is not None:
            fresh = max(prompt_tokens - cached_tokens, 0)
            return fresh * self.prompt + cached_tokens * self.cached + completion_tokens * self.completion
        return _by_litellm(self.model, prompt_tokens, completion_tokens, cached_tokens)

    @property
    def dearest(self) -> float:
        """Of any token; 0 where the price is unknown."""
        return max(self.prompt or 0.0, self.cached or 0.0, self.completion or 0.0)

    def most(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a request of at most so many tokens costs at most; nothing where the price is unknown."""
        return prompt_tokens * max(self.prompt or 0.0, self.cached or 0.0) + completion_tokens * (
            self.completion or 0.0
        )


def price_of(settings: ModelSettings) -> Price:
    """The price of a role's model: its own `price`, `params.input_cost_per_token` and `output_cost_per_token`, or LiteLLM's."""
    model, own = settings.model, settings.price
    if own is not None:
        cached = own.input if own.cached is None else own.cached
        prompt, completion, cached = (usd / TOKENS_A_UNIT for usd in (own.input, own.output, cached))
        return Price(model, prompt, completion, cached, is_own=True)
    given = [settings.params.get(name) for name in ("input_cost_per_token", "output_cost_per_token")]
    prices = [float(price) for price in given if isinstance(price, int | float)]
    if len(prices) == 2:
        cached = settings.params.get("cache_read_input_token_cost", prices[0])
        return Price(model, prices[0], prices[1], float(cached), is_own=True)
    if model.startswith(PREFIX):
        return Price(model, 0.0, 0.0, 0.0)
    is_ours = settings.checkpoint is not None or model.startswith(OWN_SERVERS)
    return Price(model) if is_ours else _of_the_map(settings)


def require_prices(budget: BudgetSettings, models: ModelsSettings, roles: Iterable[tuple[Role, int]]) -> None:
    """Raise an UnknownPriceError for the first of these roles whose dollars are capped, and whose price nobody knows.

    A cap of the whole campaign needs the price of all, one of a role only that role's.
    """
    for role, index in roles:
        own = budget.roles.get(role)
        capped = "budget.usd" if budget.usd is not None else f"budget.roles.{role}.usd" if own and own.usd else None
        if capped is None or price_of(settings := models.of(role, index)).is_known:
            continue
        raise UnknownPriceError(
            f"{capped} needs the price of {settings.model!r} ({role}), and LiteLLM knows none: {how_to_price(models, role, index)}"
        )


def how_to_price(models: ModelsSettings, role: Role, index: int = 0) -> str:
    """What somebody has to write who knows what a role's model costs."""
    where = models.named_at(role, index)
    return f"give it in dollars a million tokens, for example --set '{where}.price={{input: 0.15, output: 0.60}}'"


def _of_the_map(settings: ModelSettings) -> Price:
    """By LiteLLM's price map, of which an entry without a price for tokens (or with one for time) says nothing."""
    entry = _entry(settings.model)
    if entry is None:
        return Price(settings.model)
    tiers = [tier for tier in entry.get("tiered_pricing") or () if isinstance(tier, dict)]
    asked = "service_tier" in settings.params
    prompt, completion = (
        [usd for table in (entry, *tiers) for usd in _prices(table, names, asked=asked)]
        for names in (PROMPT_PRICE, COMPLETION_PRICE)
    )
    by_time = any("per_second" in name and price for name, price in entry.items())
    if not prompt or not completion or by_time or _by_litellm(settings.model, 1000, 1000, 0) is None:
        return Price(settings.model)
    first, second = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if isinstance(first, int | float) and isinstance(second, int | float) and _is_even(settings.model, entry):
        return Price(settings.model, float(first), float(second))
    uplift = max(
        [1.0, *(float(by) for name, by in entry.items() if "uplift_multiplier" in name and isinstance(by, int | float))]
    )
    return Price(settings.model, max(prompt) * uplift, max(completion) * uplift, is_even=False)


def _entry(model: str) -> Mapping[str, Any] | None:
    """What LiteLLM's map has of a model, as it stands there."""
    litellm = load_litellm()
    try:
        key = litellm.get_model_info(model)["key"]
    except Exception:  # noqa: BLE001 - LiteLLM raises bare Exceptions for a model that it does not know
        return None
    found = litellm.model_cost.get(key)
    return found if isinstance(found, dict) else None


def _prices(entry: Mapping[str, Any], names: re.Pattern[str], *, asked: bool) -> list[float]:
    """The prices of an entry that may be asked for a token; `asked`: a service of another price was."""
    return [
        float(price)
        for name, price in entry.items()
        if names.match(name) and isinstance(price, int | float) and (asked or not ASKED_FOR.search(name))
    ]


def _is_even(model: str, entry: Mapping[str, Any]) -> bool:
    prompt, completion = entry["input_cost_per_token"], entry["output_cost_per_token"]
    if any(UNEVEN.search(name) and price for name, price in entry.items() if not ASKED_FOR.search(name)):
        return False
    costs = (_by_litellm(model, *probe, 0) for probe in PROBES)
    wanted = (first * prompt + second * completion for first, second in PROBES)
    return all(cost is not None and math.isclose(cost, usd) for cost, usd in zip(costs, wanted, strict=True))


def _by_litellm(model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> float | None:
    """Dollars of a request by LiteLLM's own calculation, which takes a tenth of a millisecond and more."""
    litellm = load_litellm()
    details = {"prompt_tokens_details": {"cached_tokens": cached_tokens}} if cached_tokens else {}
    usage = litellm.Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        **details,
    )
    try:
        cost = litellm.cost_per_token(
            model=model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, usage_object=usage
        )
    except Exception:  # noqa: BLE001 - bare Exceptions again
        return None
    return float(sum(cost))
