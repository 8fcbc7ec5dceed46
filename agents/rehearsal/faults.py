"""Faults of a backend on demand: their kinds, which request meets which, and what stands in place of an answer.

PASSING faults come by arrival: another request, a retry too, may pass. LASTING faults hang on what is asked, so a retry, a
resumed run and another server of the same fault seed meet the same. Bodies are worded as the servers of the field word
them. Knows nothing of HTTP libraries, and imports nothing, so that a command's help can list the kinds.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple, TypeGuard, get_args

Passing = Literal[
    "rate_limit",
    "server_error",
    "bad_gateway",
    "unavailable",
    "timeout",
    "reset",
    "hang_up",
    "slow",
    "slow_drip",
    "truncated",
    "empty_choices",
    "invalid_schema",
    "wrong_model",
]
Lasting = Literal["refusal", "content_filter", "prompt_filter", "context_overflow"]
Fault = Literal[Passing, Lasting]
FAULTS: tuple[Fault, ...] = get_args(Fault)
LASTING: tuple[Lasting, ...] = get_args(Lasting)

WINDOW = 4096
"""The context window that an overflow speaks of."""
LINK = "https://go.microsoft.com/fwlink/?linkid=2198766"


class Substitute(NamedTuple):
    """What a client gets in place of an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"


def drawn(
    kinds: Sequence[Fault], rate: float, lasting_share: float, *, of_request: Random, of_arrival: Random
) -> Fault | None:
    """The fault that a request meets, if any.

    Args:
        rate: the share of requests that meet one.
        lasting_share: of faults, the share that lasts, where `kinds` holds both sorts.
        of_request: chance that depends on what is asked.
        of_arrival: chance that depends on how many requests came before.
    """
    lasting = [kind for kind in kinds if is_lasting(kind)]
    passing = [kind for kind in kinds if not is_lasting(kind)]
    share = lasting_share if lasting and passing else float(bool(lasting))
    lasts = rate * share
    if lasting and of_request.random() < lasts:
        return of_request.choice(lasting)
    if passing and of_arrival.random() < (rate - lasts) / (1.0 - lasts):
        return of_arrival.choice(passing)
    return None


def is_lasting(kind: Fault) -> TypeGuard[Lasting]:
    return kind in LASTING


def substitute(
    kind: Fault,
    whole: Mapping[str, Any],
    request: Mapping[str, Any],
    random: Random,
    *,
    prompt_tokens: int,
    retry_after_seconds: float = 1.0,
) -> Substitute | None:
    """What a fault sends; null for those that do something to the connection or to the time.

    Args:
        whole: the answer as it would have been.
        request: what was asked.
        random: picks among several wordings of one kind.
        prompt_tokens: of the request, by the server's count.
        retry_after_seconds: what a 429 asks for.
    """
    match kind:
        case "rate_limit":
            headers = {"Retry-After": f"{retry_after_seconds:g}"}
            return _failure(429, "Rate limit reached (rehearsed)", "rate_limit_exceeded", headers=headers)
        case "server_error":
            return _failure(500, "The server had an error (rehearsed)", "server_error")
        case "bad_gateway":
            return Substitute(502, b"<html><body>502 Bad Gateway</body></html>", media_type="text/html")
        case "unavailable":
            return Substitute(503, b"no healthy upstream", media_type="text/plain")
        case "truncated":
            body = _json(whole)
            return Substitute(200, body[: len(body) // 2])
        case "empty_choices":
            return Substitute(200, _json({**whole, "choices": []}))
        case "invalid_schema":
            return Substitute(200, _json(random.choice(wrong_shapes(whole))))
        case "wrong_model":
            return _wrong_model(str(request["model"]), random)
        case "refusal":
            said = {"role": "assistant", "content": None, "refusal": "I'm sorry, I can't assist with that request."}
            return Substitute(200, _json(_with_choice(whole, message=said)))
        case "content_filter":
            said = {"role": "assistant", "content": ""}
            return Substitute(200, _json(_with_choice(whole, message=said, finish_reason="content_filter")))
        case "prompt_filter":
            return _prompt_filter()
        case "context_overflow":
            return _context_overflow(request, prompt_tokens, random)
    return None


def wrong_shapes(whole: Mapping[str, Any]) -> list[Any]:
    """Valid JSON that is no answer: what proxies, gateways and half-finished servers send with a 200."""
    choice = whole["choices"][0]
    return [
        {**whole, "choices": choice["message"]["content"]},
        {**whole, "choices": [{"index": 0, "finish_reason": "stop"}]},
        {**whole, "choices": [None]},
        {key: value for key, value in whole.items() if key != "choices"},
        _with_choice(whole, message={"role": "assistant", "content": 17}),
        _with_choice(whole, message=choice["message"]["content"]),
        {**whole, "usage": {"prompt_tokens": "many", "completion_tokens": -1, "total_tokens": None}},
        {"error": {"message": "upstream failed", "code": 502}},
        [whole],
        None,
    ]


def _wrong_model(model: str, random: Random) -> Substitute:
    if random.random() < 0.5:  # vLLM's
        return _failure(404, f"The model `{model}` does not exist.", 404, kind="NotFoundError", param="model")
    message = f"The model `{model}` does not exist or you do not have access to it."
    return _failure(404, message, "model_not_found", kind="invalid_request_error")


def _prompt_filter() -> Substitute:
    """Azure's: the prompt is refused before a model has seen it."""
    levels = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual")}
    found = {**levels, "violence": {"filtered": True, "severity": "medium"}}
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        f"Please modify your prompt and retry. To learn more about our content filtering policies please read: {LINK}",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found},
    }
    return Substitute(400, _json({"error": error}))


def _context_overflow(request: Mapping[str, Any], prompt_tokens: int, random: Random) -> Substitute:
    start = f"This model's maximum context length is {WINDOW} tokens. However, "
    asked = WINDOW + prompt_tokens
    wording = random.randrange(3)
    if wording == 0:  # vLLM's
        text = f"{start}your prompt contains {asked} input tokens, which exceeds this limit even without any output tokens."
        message = f"{text} Please reduce the length of the input prompt."
        return _failure(400, message, 400, kind="BadRequestError", param="input_tokens")
    if wording == 1:
        message = f"{start}your messages resulted in {asked} tokens. Please reduce the length of the messages."
    else:
        answer = request.get("max_tokens") or 16
        parts = f"{asked + answer} tokens ({asked} in the messages, {answer} in the completion)"
        message = f"{start}you requested {parts}. Please reduce the length of the messages or completion."
    return _failure(400, message, "context_length_exceeded", kind="invalid_request_error", param="messages")


def _failure(
    status: int,
    message: str,
    code: str | int,
    *,
    kind: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Substitute:
    error = {"message": message, "type": kind or code, "param": param, "code": code}
    return Substitute(status, _json({"error": error}), headers or {})


def _with_choice(whole: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**whole, "choices": [{**whole["choices"][0], **changes}]}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
