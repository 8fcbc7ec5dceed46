"""The rehearsal through LiteLLM, in process."""

import asyncio
import logging
import os
from typing import Any

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from agents.rehearsal.backend import complete
from agents.rehearsal.provider import register

MESSAGES = [{"role": "user", "content": "Call me Ilse. Belo is red, big and old. What is its size?"}]


@pytest.fixture(autouse=True)
def _registered() -> None:
    litellm.suppress_debug_info = True
    register()


def ask(model: str = "rehearsal/default", **parameters: Any) -> Any:
    return asyncio.run(litellm.acompletion(model=model, messages=MESSAGES, **parameters))


def test_it_answers_as_the_backend_does_with_usage_and_at_no_cost() -> None:
    response, done = ask(temperature=0.7, seed=3), complete("default", MESSAGES, {"temperature": 0.7, "seed": 3})
    assert response.choices[0].message.content == done.content
    assert response.choices[0].finish_reason == "stop"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (
        done.prompt_tokens,
        done.completion_tokens,
    )
    assert litellm.completion_cost(response) == 0.0
    assert response._hidden_params["response_cost"] == 0.0


def test_its_own_parameters_arrive() -> None:
    answers = {ask(seed=seed, mistake_rate=1.0).choices[0].message.content for seed in range(5)}
    assert not answers & {"It is big, Ilse.", "Ilse, it is big."}


def test_max_tokens_ends_with_length() -> None:
    assert ask(max_tokens=1).choices[0].finish_reason == "length"


def test_the_synchronous_and_the_streamed_answer_are_the_same() -> None:
    text = ask(seed=1).choices[0].message.content
    assert litellm.completion(model="rehearsal/default", messages=MESSAGES, seed=1).choices[0].message.content == text
    chunks = litellm.completion(model="rehearsal/default", messages=MESSAGES, seed=1, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text


def test_registering_twice_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = list(litellm.custom_provider_map)
    with caplog.at_level(logging.WARNING):
        register()
    assert litellm.custom_provider_map == before
    assert not caplog.records


def test_an_unknown_model_is_a_bad_request_that_names_the_models() -> None:
    with pytest.raises(litellm.BadRequestError, match=r"'clever'.*rehearsal/default"):
        ask("rehearsal/clever")
