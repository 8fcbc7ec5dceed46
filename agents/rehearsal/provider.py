"""The rehearsal as a LiteLLM provider: `litellm.acompletion(model="rehearsal/default", ...)` inside the process.

LiteLLM hands every keyword that it does not know itself to a custom provider's `optional_params`, and to the JSON
body of `openai/` and `hosted_vllm/` requests (at its top level, as `extra_body` also does). So
`params: {mistake_rate: 0.1}` in a config reaches the rehearsal either way. Importing this file imports LiteLLM.
"""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network for a price list on import

import litellm
from litellm.llms.custom_llm import CustomLLM

from agents.rehearsal.backend import MODELS, PREFIX, Completion, RehearsalError, complete

PROVIDER = PREFIX.rstrip("/")
PRICES = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_creation_input_token_cost",
    "cache_read_input_token_cost",
)


class RehearsalProvider(CustomLLM):  # type: ignore[misc]  # litellm is not followed by mypy
    """Answers completions at once and for nothing."""

    def completion(self, model: str, messages: list[dict[str, Any]], *_: Any, **kwargs: Any) -> Any:
        response = kwargs["model_response"]
        done = _complete(model, messages, kwargs["optional_params"])
        choice = response.choices[0]
        choice.message.content, choice.finish_reason = done.content, done.finish_reason
        response.model = PREFIX + done.model
        response.usage = litellm.Usage(**_usage(done))
        return response

    async def acompletion(self, model: str, messages: list[dict[str, Any]], *_: Any, **kwargs: Any) -> Any:
        return self.completion(model, messages, **kwargs)

    def streaming(self, model: str, messages: list[dict[str, Any]], *_: Any, **kwargs: Any) -> Iterator[Any]:
        done = _complete(model, messages, kwargs["optional_params"])
        yield {
            "text": done.content,
            "is_finished": True,
            "finish_reason": done.finish_reason,
            "index": 0,
            "tool_use": None,
            "usage": _usage(done),
        }

    async def astreaming(
        self, model: str, messages: list[dict[str, Any]], *_: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        for chunk in self.streaming(model, messages, **kwargs):
            yield chunk


def _complete(model: str, messages: list[dict[str, Any]], parameters: dict[str, Any]) -> Completion:
    try:
        return complete(model, messages, parameters)
    except RehearsalError as error:
        raise litellm.BadRequestError(str(error), model=PREFIX + model, llm_provider=PROVIDER) from error


def _usage(done: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


def register() -> None:
    """Make `rehearsal/...` known to LiteLLM, at a price of nothing; a second call changes nothing."""
    if any(entry["provider"] == PROVIDER for entry in litellm.custom_provider_map):
        return
    litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": RehearsalProvider()})
    free = {"litellm_provider": PROVIDER, "mode": "chat"} | dict.fromkeys(PRICES, 0.0)
    litellm.register_model({PREFIX + model: dict(free) for model in MODELS})
