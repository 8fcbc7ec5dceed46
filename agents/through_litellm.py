"""Requests through LiteLLM, to any provider that it knows."""

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

from agents.failures import too_late, unusable
from agents.prices import price_of
from agents.providers import classified, endpoint_arguments, load_litellm
from agents.secrets import Redactor
from agents.transport import Answer, Spoken, answer_of
from configs.model_settings import ModelSettings

TIMEOUT_SLACK = 1.1
"""Our own limit stands behind LiteLLM's, for transports on which that one restarts with every byte."""


class ThroughLiteLLM:
    """Sends one role's requests through LiteLLM, to any provider."""

    def __init__(self, settings: ModelSettings, redact: Redactor) -> None:
        self._settings = settings
        self._redact = redact
        self._price = price_of(settings)

    @cached_property
    def _endpoint(self) -> dict[str, Any]:
        return endpoint_arguments(self._settings)

    async def send(self, spoken: Spoken, parameters: Mapping[str, Any]) -> Answer:
        """One request. See `agents.transport.Transport`."""
        settings = self._settings
        litellm = load_litellm()
        try:
            async with asyncio.timeout(settings.timeout_seconds * TIMEOUT_SLACK + 1.0):
                response = await litellm.acompletion(
                    model=settings.model,
                    messages=[dict(message) for message in spoken],
                    timeout=settings.timeout_seconds,
                    max_retries=0,
                    num_retries=0,
                    drop_params=True,  # of those that a provider does not take, such as `seed`
                    **self._endpoint,
                    **deepcopy(dict(parameters)),  # it writes into what it is given, such as `metadata`
                )
        except TimeoutError:
            raise too_late(settings.timeout_seconds) from None
        except Exception as error:  # noqa: BLE001 - whatever a provider's adapter raises is that provider's failure
            raise classified(error, settings, self._redact) from None
        return self._read(response)

    def _read(self, response: Any) -> Answer:
        usage = getattr(response, "usage", None)
        choices = getattr(response, "choices", None)
        if not isinstance(choices, list) or not choices:
            error = unusable("the response has no choices")
            error.kind = "empty_choices"
            raise error
        message = getattr(choices[0], "message", None)
        if message is None:
            raise unusable("the response's choice has no message")
        # a server that counts nothing has used 0 tokens in LiteLLM's eyes, and no prompt is so short
        counted = usage if getattr(usage, "prompt_tokens", None) else None
        hidden = getattr(response, "_hidden_params", None) or {}
        said = getattr(message, "provider_specific_fields", None) or {}
        return answer_of(
            text=message.content,
            refusal=getattr(message, "refusal", None) or said.get("refusal"),
            finish_reason=_finish_reason(choices[0]),
            prompt_tokens=getattr(counted, "prompt_tokens", None),
            completion_tokens=getattr(counted, "completion_tokens", None),
            cost_usd=self._cost(usage, hidden.get("response_cost")),
            redact=self._redact,
        )

    def _cost(self, usage: Any, by_litellm: float | None) -> float | None:
        """Dollars, by the config's own price where it gives one."""
        prompt, completion = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if not self._price.is_own or prompt is None or completion is None:
            return by_litellm
        cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0
        return self._price.cost_of(prompt, completion, cached)


def _finish_reason(choice: Any) -> object:
    """The provider's own word, which LiteLLM keeps beside the one that it makes of it: `stop` for any that it does not know."""
    kept = getattr(choice, "provider_specific_fields", None) or {}
    return kept.get("native_finish_reason", choice.finish_reason)
