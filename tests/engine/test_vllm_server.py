"""vLLM's own OpenAI server answers what our model calls ask, over plain HTTP and through LiteLLM."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from configs.model_settings import Endpoint

pytestmark = pytest.mark.engine

MESSAGES = [{"role": "user", "content": "What does the harbour of Velmora sell?"}]


def complete(server: Endpoint, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{server.api_base}/chat/completions",
        data=json.dumps({"model": server.model, "messages": MESSAGES, **body}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_a_chat_completion_runs_to_its_token_limit_and_counts_its_usage(vllm_server: Endpoint) -> None:
    answer = complete(vllm_server, max_tokens=32)
    usage = answer["usage"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert usage["completion_tokens"] == 32
    assert usage["prompt_tokens"] > 10
    assert usage["total_tokens"] == usage["prompt_tokens"] + 32


def test_a_system_role_is_refused_as_gemma_refuses_it(vllm_server: Endpoint) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(vllm_server, messages=[{"role": "system", "content": "Be brief."}, *MESSAGES], max_tokens=4)
    assert refused.value.code == 400
    assert "System role not supported" in refused.value.read().decode()


def test_litellm_reaches_it_by_the_model_string_alone_with_many_seeded_calls_at_once(vllm_server: Endpoint) -> None:
    import litellm

    async def ask(seed: int) -> Any:
        return await litellm.acompletion(
            f"hosted_vllm/{vllm_server.model}",
            api_base=vllm_server.api_base,
            messages=[{"role": "user", "content": f"{seed}: " + "tell me more. " * 40}],
            max_tokens=32,
            temperature=0.7,
            seed=seed,
        )

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(ask(seed) for seed in range(32)))

    answers = asyncio.run(ask_all())
    assert [answer.usage.completion_tokens for answer in answers] == [32] * 32
    assert len({answer.choices[0].message.content for answer in answers}) > 1
