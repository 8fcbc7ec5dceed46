"""What tokens cost: by the config, by LiteLLM's map as LiteLLM itself counts, or unknown."""

import random
from typing import Any

import pytest

from agents.prices import Price, UnknownPriceError, how_to_price, price_of, require_prices
from agents.providers import load_litellm
from configs.load import validate
from configs.model_settings import ModelSettings, ModelsSettings
from configs.settings import BudgetSettings

TEXT_MODES = ("chat", "completion", "responses")


def price(model: str, **settings: Any) -> Price:
    return price_of(ModelSettings(model=model, **settings))


def by_litellm(model: str, prompt: int, completion: int, cached: int = 0) -> float:
    """What `completion_cost` says of a response, as `response_cost` comes about."""
    litellm = load_litellm()
    response = litellm.ModelResponse(model=model)
    response.usage = litellm.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details={"cached_tokens": cached} if cached else None,
    )
    return float(litellm.completion_cost(completion_response=response, model=model))


def some_models(number: int) -> list[str]:
    """Models of LiteLLM's map, drawn over all of it."""
    litellm = load_litellm()
    names = sorted(name for name, entry in litellm.model_cost.items() if entry.get("mode") in TEXT_MODES)
    return random.Random(0).sample(names, number)


def test_costs_are_litellm_s_own_for_models_of_its_map_and_a_reservation_is_never_less() -> None:
    drawn = random.Random(1)
    compared = uneven = 0
    for model in some_models(100):
        found = price(model)
        if not found.is_known:
            continue
        uneven += not found.is_even
        for prompt, completion, cached in ((1000, 500, 0), (130_000, 1, 0), (3000, 77, 2048), (300_000, 4000, 0)):
            prompt += drawn.randrange(50)
            cost = found.cost_of(prompt, completion, cached)
            assert cost is not None
            assert cost <= found.most(prompt, completion) * (1 + 1e-9), model
            if model.count("/") > 1:  # a region, or a maker's name, which LiteLLM reads out of an answer otherwise
                continue
            assert cost == pytest.approx(by_litellm(model, prompt, completion, cached)), (model, prompt, cached)
            compared += 1
    assert compared > 150
    assert uneven > 5


def test_a_long_prompt_costs_what_litellm_asks_above_its_threshold() -> None:
    found = price("gemini/gemini-2.5-pro")
    assert not found.is_even
    below, above = found.cost_of(200_000, 100), found.cost_of(200_001, 100)
    assert below is not None
    assert above is not None
    assert above > 1.9 * below
    assert found.most(200_000, 100) >= above * 0.99


def test_cached_tokens_cost_what_the_map_says_of_them() -> None:
    found = price("openai/gpt-4o")
    assert found.is_even
    assert found.cost_of(2000, 10, 1500) == pytest.approx(by_litellm("openai/gpt-4o", 2000, 10, 1500))
    assert (found.cost_of(2000, 10, 1500) or 0) < (found.cost_of(2000, 10) or 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"price": {"input": 3.0, "output": 15.0, "cached": 0.3}},
        {
            "params": {
                "input_cost_per_token": 3e-6,
                "output_cost_per_token": 15e-6,
                "cache_read_input_token_cost": 0.3e-6,
            }
        },
    ],
    ids=["price", "params"],
)
def test_the_config_s_own_price_goes_before_the_map(settings: dict[str, Any]) -> None:
    for model in ("openai/gpt-4o", "hosted_vllm/mine"):
        found = price(model, **settings)
        assert found.is_own
        assert found.cost_of(1000, 100) == pytest.approx(0.0045)
        assert found.cost_of(1000, 100, 400) == pytest.approx(0.0045 - 400 * 2.7e-6)
        assert found.most(1000, 100) == pytest.approx(0.0045)


def test_a_cached_token_costs_as_any_other_unless_said() -> None:
    assert price("hosted_vllm/mine", price={"input": 1.0, "output": 2.0}).cost_of(10, 5, 10) == pytest.approx(2e-5)


@pytest.mark.parametrize(
    "model",
    [
        "hosted_vllm/nobody-knows",
        "hosted_vllm/gpt-4o",  # on a server of one's own it is not OpenAI's
        "openai/nobody-knows",
        "dashscope/qwen3-30b-a3b",  # in LiteLLM's map, without a price
        "bedrock/us-east-1/1-month-commitment/anthropic.claude-instant-v1",  # priced by the second
        "no-such-provider/x",
    ],
)
def test_a_price_that_nobody_knows_is_null(model: str) -> None:
    found = price(model)
    assert not found.is_known
    assert found.cost_of(1000, 1000) is None


def test_one_price_of_the_two_is_no_price() -> None:
    assert not price("hosted_vllm/mine", params={"input_cost_per_token": 1e-6}).is_known


def test_the_rehearsal_is_free_and_a_checkpoint_is_asked_about() -> None:
    assert price("rehearsal/default").cost_of(10**6, 10**6) == 0.0
    assert not price("fits/ask", checkpoint="fits/ask").is_known
    assert price("fits/ask", checkpoint="fits/ask", price={"input": 0, "output": 0}).cost_of(9, 9) == 0.0


MODELS = {
    "default": {"model": "hosted_vllm/mine"},
    "assistant": {"model": "openai/gpt-4o"},
    "judges": [{"model": "rehearsal/default"}, {"model": "hosted_vllm/judge"}],
}


@pytest.mark.parametrize(
    ("budget", "roles", "place"),
    [
        ({"usd": 1.0}, [("assistant", 0), ("user", 0)], "budget.usd needs .*hosted_vllm/mine.*models.default.price="),
        ({"roles": {"user": {"usd": 1.0}}}, [("user", 0)], "budget.roles.user.usd needs .*models.default.price="),
        (
            {"roles": {"judge": {"usd": 1.0}}},
            [("judge", 0), ("judge", 1)],
            "'hosted_vllm/judge' .*models.judges.1.price=",
        ),
        ({"usd": 1.0}, [("assistant", 0), ("judge", 0)], None),
        ({"roles": {"judge": {"usd": 1.0}}}, [("user", 0), ("assistant", 0), ("judge", 0)], None),
        ({"tokens": 1000, "roles": {"user": {"calls": 5}}}, [("user", 0), ("judge", 1)], None),
    ],
    ids=["campaign", "role", "second judge", "all known", "others unknown", "no dollars"],
)
def test_a_cap_in_dollars_asks_for_the_prices_that_it_needs(
    budget: dict[str, Any], roles: list[Any], place: str | None
) -> None:
    caps, models = BudgetSettings.model_validate(budget), ModelsSettings.model_validate(MODELS)
    if place is None:
        require_prices(caps, models, roles)
        return
    with pytest.raises(UnknownPriceError, match=place):
        require_prices(caps, models, roles)


def test_what_the_line_says_to_set_gives_the_price() -> None:
    from configs.load import _override

    models = ModelsSettings.model_validate(MODELS)
    told = how_to_price(models, "judge", 1).partition("--set ")[2].strip("'")
    data: dict[str, Any] = {"models": MODELS}
    _override(data, told)
    again = validate(data["models"], ModelsSettings, where="test")
    assert price_of(again.of("judge", 1)).cost_of(1_000_000, 0) == pytest.approx(0.15)
    assert not price_of(again.of("user")).is_known


def test_a_price_belongs_to_its_endpoint() -> None:
    models = ModelsSettings.model_validate({"default": {"model": "openai/a", "price": {"input": 1, "output": 1}}})
    assert price_of(models.of("user")).is_known
    other = ModelsSettings.model_validate(
        {"default": {"model": "openai/a", "price": {"input": 1, "output": 1}}, "user": {"model": "openai/b"}}
    )
    assert not price_of(other.of("user")).is_known


def test_a_price_is_no_part_of_what_shapes_a_text() -> None:
    priced = ModelSettings(model="openai/a", price={"input": 1, "output": 1})  # type: ignore[arg-type]
    assert priced.sampling() == ModelSettings(model="openai/a").sampling()


def test_litellm_s_map_has_no_price_of_a_server_of_the_user_s() -> None:
    """So that it need not be loaded to say so."""
    litellm = load_litellm()
    names = [
        name
        for name, entry in litellm.get_model_cost_map(url="").items()  # as it comes: calls with a price add to it
        if "hosted_vllm" in (name.split("/")[0], entry.get("litellm_provider"))
    ]
    assert names == []
    for name in ("gpt-4o", "openai/gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct"):
        with pytest.raises(Exception, match="isn't mapped"):
            litellm.get_model_info(f"hosted_vllm/{name}")
        assert not price(f"hosted_vllm/{name}").is_known
