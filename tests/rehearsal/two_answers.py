"""Requests of the tasks that make preference pairs, on the real prompts."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agents.prompts import BOOST, PREFER, STEER, VARIABLES, Prompts, transcript
from agents.rehearsal.backend import complete
from configs.pairing_settings import ASPECTS
from store.records import Message
from tests.scripted import said

PROMPTS = Prompts(variables=VARIABLES | BOOST | STEER | PREFER)
GENERAL = ASPECTS["general"]


def request(task: str, history: Sequence[Message], **given: Any) -> list[dict[str, Any]]:
    variables: dict[str, Any] = {"transcript": transcript(history), "aspects": GENERAL, **given}
    return [{"role": "user", "content": PROMPTS.render(task, **variables)}]


def answered(history: Sequence[Message], *, model: str = "varied", **parameters: Any) -> str:
    return complete(model, [message.model_dump() for message in history], parameters).content


def steered(history: Sequence[Message], direction: str, *, model: str = "varied", **parameters: Any) -> str:
    return complete(model, request("steer", history, direction=direction), parameters).content


def boosted(
    history: Sequence[Message],
    first: str,
    direction: str,
    *,
    aspects: Mapping[str, str] = GENERAL,
    most: int | None = 2,
    refused: Sequence[tuple[str, str]] = (),
    model: str = "perfect",
    **parameters: Any,
) -> dict[str, Any]:
    shown = {"answer": first, "direction": direction, "aspects": aspects, "most": most, "refused": list(refused)}
    reply: dict[str, Any] = json.loads(complete(model, request("boost", history, **shown), parameters).content)
    return reply


def preferred(
    history: Sequence[Message],
    a: str,
    b: str,
    *,
    aspects: Mapping[str, str] = GENERAL,
    by_aspect: bool = False,
    model: str = "perfect",
    **parameters: Any,
) -> dict[str, Any]:
    shown = {"answer_a": a, "answer_b": b, "aspects": aspects, "by_aspect": by_aspect}
    reply: dict[str, Any] = json.loads(complete(model, request("prefer", history, **shown), parameters).content)
    return reply


def played(start: Sequence[Message], turns: int, *, model: str = "varied", seed: int = 0) -> list[Message]:
    """The history of a dialogue, up to the user's message of that turn."""
    messages = list(start)
    for turn in range(1, turns):
        messages.append(said("assistant", answered(messages, model=model, seed=seed + turn)))
        asked = request("ask", messages, turns_left=turns - turn)
        messages.append(said("user", complete(model, asked, {"seed": seed + turn}).content))
    return messages


def within(hits: int, n: int, rate: float, *, deviations: float = 3.5) -> bool:
    """Whether a share is what its rate says, within its sampling interval."""
    return abs(hits / n - rate) <= deviations * math.sqrt(max(rate * (1 - rate), 1 / n) / n)
