"""One completion of the rehearsal: a request in, a text and its usage out, the same in process and over HTTP.

Chance comes from a hash of the request alone, so an answer depends on nothing but what was asked. Knows nothing of
LiteLLM or HTTP.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.lapses import LAPSES, Lapse, drawn_lapse
from agents.rehearsal.misbehaviour import KINDS, Misbehaviour, drawn
from agents.rehearsal.roles import asks_for_a_query, play, task_of
from configs.errors import DescantError
from store.identity import chance
from store.records import Message

MODELS: Mapping[str, Behaviour] = {
    "default": Behaviour(),
    "varied": Behaviour(mistake_rate=0.3, omission_rate=0.3),
    "careless": Behaviour(mistake_rate=0.3, judge_error_rate=0.2, position_bias=0.1),
    "misbehaving": Behaviour(**dict.fromkeys((f"{kind}_rate" for kind in KINDS), 0.08)),
    "perfect": Behaviour(mistake_rate=0.0, judge_error_rate=0.0, position_bias=0.0),
}
PREFIX = "rehearsal/"
LATER = ("omission_rate", "edit_failure_rate", *(f"{lapse}_rate" for lapse in LAPSES))
"""Rates that are part of a request's chance only where they are not 0. (A judge's blindness is none: it is the same for every request.)"""
TOKEN = re.compile(r"\S+\s*")
TOKENS_A_MESSAGE = 2  # for the role and the turn's end, as chat templates spend them


class RehearsalError(DescantError):
    """Raised here: a request that the rehearsal cannot take, such as an unknown model or a rate above 1."""


class UnknownModelError(RehearsalError):
    """Raised here: a model name after `rehearsal/` that stands for nothing."""


class Completion(NamedTuple):
    """An answer, with words for tokens."""

    model: str
    content: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


def complete(model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> Completion:
    """Answer one request. `parameters` as OpenAI names them, those of `Behaviour` among them; others change nothing."""
    name = model.removeprefix(PREFIX)
    behaviour = _behaviour(name, parameters)
    if parameters.get("n") not in (None, 1):
        raise RehearsalError(
            f"n={parameters['n']!r}: the rehearsal gives one answer a request; ask again with another seed"
        )
    limit = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise RehearsalError(f"max_tokens={limit!r}: give a whole number from 1")
    heard = [_message(message) for message in messages]
    content = play(heard, _chance_of(name, heard, parameters, behaviour), behaviour)
    tokens = TOKEN.findall(content)
    is_cut = limit is not None and len(tokens) > limit
    if is_cut:
        tokens = tokens[:limit]
        content = "".join(tokens).rstrip()
    prompt_tokens = sum(len(m.content.split()) + TOKENS_A_MESSAGE for m in heard)
    return Completion(name, content, "length" if is_cut else "stop", prompt_tokens, len(tokens))


def what_was_played(
    model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]
) -> Misbehaviour | Lapse | None:
    """How the user broke its role in the answer to a request, or a second answer cannot be used, known from the request's chance and not from its text."""
    name = model.removeprefix(PREFIX)
    behaviour = _behaviour(name, parameters)
    heard = [_message(message) for message in messages]
    task, _ = task_of(heard)
    if task in ("boost", "steer"):
        return drawn_lapse(_chance_of(name, heard, parameters, behaviour), behaviour.lapses, task)
    if not asks_for_a_query(heard):
        return None
    return drawn(_chance_of(name, heard, parameters, behaviour), behaviour.misbehaviour)


def _chance_of(name: str, heard: Sequence[Message], parameters: Mapping[str, Any], behaviour: Behaviour) -> Random:
    """The chance of one request. What is off changes no draw of those from before it was there."""
    rates: list[Any] = [behaviour.mistake_rate, behaviour.judge_error_rate, behaviour.position_bias]
    if behaviour.length_bias:
        rates.append(behaviour.length_bias)
    if any(behaviour.misbehaviour):
        rates.append(behaviour.misbehaviour)
    if more := {name: rate for name in LATER if (rate := getattr(behaviour, name))}:
        rates.append(more)
    return chance(
        "rehearsal",
        name,
        [(m.role, m.content) for m in heard],
        parameters.get("seed"),
        _number(parameters.get("temperature")),
        _number(parameters.get("top_p")),
        rates,
    )


def _behaviour(model: str, parameters: Mapping[str, Any]) -> Behaviour:
    preset = MODELS.get(model)
    if preset is None:
        raise UnknownModelError(
            f"unknown rehearsal model {model!r}: the models are {', '.join(PREFIX + m for m in MODELS)}"
        )
    given = {name: parameters[name] for name in Behaviour.model_fields if parameters.get(name) is not None}
    if not given:
        return preset
    try:
        behaviour = Behaviour(**{**preset.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise RehearsalError(f"{first['loc'][0]}={first['input']!r}: give a rate between 0 and 1") from error
    for called, rates in (("misbehaviour", behaviour.misbehaviour), ("unusable second answers", behaviour.lapses)):
        if (together := sum(rates)) > 1.0 + 1e-9:
            raise RehearsalError(f"the rates of {called} come to {together:g}: together they may be 1 at most")
    return behaviour


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _message(message: Mapping[str, Any]) -> Message:
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        content = "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise RehearsalError(
            f"a message needs a role (system, user, assistant) and text, not {role!r}: {content!r:.80}"
        )
    return Message.model_construct(role=role, content=content)
