"""A model that plays back replies: a LiteLLM provider `scripted/NAME`, inside the process, without a network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from agents.budget import Spending
from agents.ledger import Ledger, Note, forget
from agents.llm import LanguageModel
from agents.protocol import CallSite
from agents.providers import load_litellm
from agents.secrets import Redactor
from configs.model_settings import ModelSettings
from configs.settings import BudgetSettings
from store.records import Call, Message, Record

Speak = Callable[[list[dict[str, str]]], str]
"""From a request's messages to the answer."""


class CutOff(str):
    """An answer that ran into `max_tokens`."""


_SPEAKERS: dict[str, Speak] = {}


@contextmanager
def scripted_model(speak: Speak | Sequence[str], name: str = "x") -> Iterator[str]:
    """Yields the model string of a model that answers by `speak`, or by replies in their order."""
    _register()
    _SPEAKERS[name] = speak if callable(speak) else _in_order(speak)
    try:
        yield f"scripted/{name}"
    finally:
        del _SPEAKERS[name]


def _in_order(replies: Sequence[str]) -> Speak:
    left = iter(replies)
    return lambda _: next(left)


def _register() -> None:
    litellm = load_litellm()
    if any(entry["provider"] == "scripted" for entry in litellm.custom_provider_map):
        return
    from litellm.llms.custom_llm import CustomLLM

    class Provider(CustomLLM):  # type: ignore[misc]  # litellm is not followed by mypy
        async def acompletion(self, model: str, messages: list[dict[str, str]], *_: Any, **kwargs: Any) -> Any:
            response = kwargs["model_response"]
            reply = _SPEAKERS[model](messages)
            response.choices[0].message.content = str(reply)
            response.choices[0].finish_reason = "length" if isinstance(reply, CutOff) else "stop"
            response.usage = litellm.Usage(prompt_tokens=11, completion_tokens=7, total_tokens=18)
            return response

    litellm.custom_provider_map.append({"provider": "scripted", "custom_handler": Provider()})


@dataclass
class PatientLedger(Ledger):
    """Notes how long it was asked to wait before a retry, and does not wait."""

    note: Note = forget
    pauses: list[float] = field(default_factory=list)
    notes: list[Call] = field(default_factory=list)

    def __post_init__(self, caps: BudgetSettings | None, spent_by_role: Mapping[str, Spending] | None) -> None:
        super().__post_init__(caps, spent_by_role)
        self.note = self._keep

    async def _keep(self, *records: Record) -> None:
        self.notes.extend(record for record in records if isinstance(record, Call))

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def site(purpose: str = "ask", *, depth: int = 1, dialogue: str = "dlg_1", ordinal: int = 0) -> CallSite:
    return CallSite("camp_1", dialogue, depth, "user", purpose, ordinal)


def language_model(
    model: str, *, ledger: Ledger | None = None, budget: BudgetSettings | None = None, **settings: Any
) -> LanguageModel:
    """A role's model with a ledger of its own unless one is given."""
    ledger = ledger or PatientLedger(caps=budget)
    role = ModelSettings(model=model, **settings)
    return LanguageModel(role, ledger, Redactor([role.api_key or "", *role.headers.values()]))


def said(role: str, content: str) -> Message:
    return Message.model_validate({"role": role, "content": content})


HELLO = (said("user", "hello"),)
