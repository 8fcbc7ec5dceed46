"""Requests straight to an OpenAI-compatible endpoint: `hosted_vllm/...`, and `openai/...` with an api_base.

LiteLLM spends 2 to 4 ms of CPU on a call, a post on a shared aiohttp session a tenth of that. What is sent and what is made
of the answer are the same; where a model's parameters are LiteLLM's own business, it sends.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import orjson
from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL

from agents.failures import (
    LONGEST_COMPLAINT,
    ProviderError,
    complaint,
    lost,
    one_line,
    parsed,
    refused_by_status,
    retry_after_of,
    sent_on,
    too_late,
    unusable,
)
from agents.prices import PRICE_PARAMETER, Price, price_of
from agents.secrets import Redactor, read_key
from agents.transport import Answer, Spoken, answer_of
from configs.errors import DescantError
from configs.model_settings import ModelSettings

PROVIDERS = ("hosted_vllm/", "openai/")
NOT_JUST_COMPATIBLE = ("api.openai.com",)
"""Hosts whose newer models want other parameters than they are given here: LiteLLM translates."""
TRANSLATED = re.compile(r"^openai/(?:.*/)?(?:o\d|gpt-5)")
"""Such models by name, which gateways offer under addresses of their own."""
LONGEST_BODY = 32 << 20
"""Bytes of a response that are read: no answer is so long, and a server that never ends must not fill the memory."""
OWN_ADDRESS = "HOSTED_VLLM_API_BASE"
KEY_VARIABLES = {"hosted_vllm/": "HOSTED_VLLM_API_KEY", "openai/": "OPENAI_API_KEY"}
PLAIN_PARAMETERS = {
    *(
        "extra_body",
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "n",
        "presence_penalty",
        "response_format",
    ),
    *(
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "chat_template_kwargs",
        "structured_outputs",
    ),
    *("min_tokens", "ignore_eos", "skip_special_tokens", "reasoning_effort"),
}
"""Sent as they are by LiteLLM too; what else there is may be an endpoint's own, or LiteLLM's."""


class NotDirectError(DescantError):
    """Raised here: `transport: direct` for a model that cannot be reached so."""


def takes_directly(settings: ModelSettings) -> bool:
    """Whether requests for this model are posted by ourselves.

    Raises:
        NotDirectError: the config says so, and it cannot be.
    """
    if settings.transport == "litellm":
        return False
    problem = _why_not(settings)
    if problem is not None and settings.transport == "direct":
        raise NotDirectError(
            f"transport: direct is not possible for {settings.model!r}: {problem}; set transport: auto or litellm"
        )
    return problem is None


def _why_not(settings: ModelSettings) -> str | None:
    if not settings.model.startswith(PROVIDERS):
        return f"only {' and '.join(name + '...' for name in PROVIDERS)} speak OpenAI's protocol"
    address = _address(settings)
    if address is None:
        return "no api_base says where"
    if urlsplit(address).hostname in NOT_JUST_COMPATIBLE and settings.transport == "auto":
        return f"LiteLLM knows better what {urlsplit(address).hostname} takes"
    if TRANSLATED.match(settings.model) and settings.transport == "auto":
        return f"LiteLLM knows better what {settings.model!r} takes"
    own = {name for name in settings.params if not PRICE_PARAMETER.search(name)} - PLAIN_PARAMETERS
    if own:  # loads LiteLLM, which takes seconds, only for words that are not plainly the endpoint's
        from agents.providers import parameters_of_litellm

        own = own & parameters_of_litellm()
    return f"params.{min(own)} is LiteLLM's own" if own else None


def _address(settings: ModelSettings) -> str | None:
    if settings.api_base is None and settings.model.startswith("hosted_vllm/"):
        return os.environ.get(OWN_ADDRESS) or None
    return settings.api_base


class Direct:
    """Posts chat completions to one endpoint for one role's model."""

    def __init__(self, settings: ModelSettings, redact: Redactor) -> None:
        address = _address(settings)
        assert address is not None, "takes_directly has looked"
        self._url = address.rstrip("/") + "/chat/completions"
        self._where = address
        self._model = settings.model
        self._name = settings.model.partition("/")[2]
        self._timeout_seconds = settings.timeout_seconds
        self._headers = _headers(settings)
        self._proxy = _proxy(address)
        self._redact = redact
        self._price: Price = price_of(settings)

    async def send(self, spoken: Spoken, parameters: Mapping[str, Any]) -> Answer:
        """One request. See `agents.transport.Transport`."""
        body = orjson.dumps(
            {"model": self._name, "messages": spoken} | _sent(parameters), option=orjson.OPT_NON_STR_KEYS
        )
        session = await shared_session()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with session.post(
                    self._url, data=body, headers=self._headers, allow_redirects=False, **self._proxy
                ) as response:
                    raw = await _body(response)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise lost(self._where, self._model, one_line(str(error), self._redact)) from None
            raise too_late(self._timeout_seconds) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise lost(self._where, self._model, one_line(str(error) or type(error).__name__, self._redact)) from None
        except (aiohttp.ClientError, ValueError) as error:  # what came is not HTTP
            raise unusable(one_line(f"{type(error).__name__}: {error}", self._redact)) from None
        if onwards := response.headers.get("Location") if 300 <= response.status < 400 else None:
            raise sent_on(self._where, self._model, one_line(onwards, self._redact))
        if not 200 <= response.status < 300:
            said, code = complaint(raw)
            raise refused_by_status(
                response.status,
                one_line(said, self._redact),
                model=self._model,
                where=self._where,
                code=code,
                retry_after=retry_after_of(response.headers),
            )
        if len(raw) > LONGEST_BODY:
            raise unusable(f"the response is longer than {LONGEST_BODY >> 20} MiB")
        return self._read(raw)

    def _read(self, raw: bytes) -> Answer:
        data = parsed(raw)
        if not isinstance(data, dict):
            shown = one_line(raw[:LONGEST_COMPLAINT].decode("utf-8", "replace"), self._redact)
            raise unusable(f"the response is no JSON object: {shown[:200]!r}")
        usage: dict[str, Any] = data.get("usage") or {}
        if not isinstance(usage, dict):
            raise unusable(f"the response's usage is no object but {type(usage).__name__}")
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise self._without_choices(raw, data)
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise unusable("the response's choice has no message")
        return answer_of(
            text=message.get("content"),
            refusal=message.get("refusal"),
            finish_reason=choices[0].get("finish_reason"),
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=self._cost(prompt, completion, _cached(usage)),
            redact=self._redact,
        )

    def _without_choices(self, raw: bytes, data: Mapping[str, Any]) -> ProviderError:
        """A 200 without an answer; some gateways hand on an error so, with the status that they got in its code."""
        said, _ = complaint(raw)
        error, choices = data.get("error"), data.get("choices")
        status = error.get("code") if isinstance(error, dict) else None
        if isinstance(status, int) and status >= 400:
            return refused_by_status(status, one_line(said, self._redact), model=self._model, where=self._where)
        problem = "the response has no choices" if choices == [] else f"the response has no list of choices: {said}"
        empty = unusable(one_line(problem, self._redact))
        empty.kind = "empty_choices" if choices == [] else empty.kind
        return empty

    def _cost(self, prompt: object, completion: object, cached: int) -> float | None:
        if not isinstance(prompt, int) or not isinstance(completion, int):
            return None
        return self._price.cost_of(prompt, completion, cached)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """A response's body, or more than `LONGEST_BODY` of its beginning."""
    parts: list[bytes] = []
    left = LONGEST_BODY
    async for part in response.content.iter_any():
        parts.append(part)
        left -= len(part)
        if left < 0:
            response.close()
            break
    return b"".join(parts)


def _sent(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the body: prices stay here, and `extra_body` is a way to write parameters, not one of them."""
    sent = {name: value for name, value in parameters.items() if not PRICE_PARAMETER.search(name)}
    extra = sent.pop("extra_body", None)
    return sent | extra if isinstance(extra, dict) else sent


def _headers(settings: ModelSettings) -> dict[str, str]:
    provider = next(name for name in PROVIDERS if settings.model.startswith(name))
    variable = settings.api_key or KEY_VARIABLES[provider]
    key = read_key(variable) if settings.api_key or os.environ.get(variable) else None
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers | {name: read_key(value) for name, value in settings.headers.items()}


def _proxy(address: str) -> dict[str, Any]:
    """The environment's proxy for an address, looked up once: aiohttp's `trust_env` does it for each request, and takes keys
    from `~/.netrc` besides, which it cannot send beside ours."""
    try:
        proxy, login = get_env_proxy_for_url(URL(address))
    except LookupError:
        return {}
    return {"proxy": proxy, "proxy_auth": login}


def _cached(usage: Mapping[str, Any]) -> int:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return cached if isinstance(cached, int) else 0


async def _session_for_a_loop() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncIterator[Any]]]
_sessions = WeakKeyDictionary()


async def shared_session() -> aiohttp.ClientSession:
    """The running loop's one session, so that all roles share its connections.

    It lives in an asynchronous generator, which `asyncio.run` closes when the loop ends.
    """
    loop = asyncio.get_running_loop()
    held = _sessions.get(loop)
    if held is None or held[0].closed:
        life = _session_for_a_loop()
        held = (await anext(life), life)
        _sessions[loop] = held
    return held[0]
