"""A campaign's dialogues rehearsed in memory, to see what they would ask of its models: no key, no network, no disk.

Recipe, turns, prompts and seeds are the campaign's own; every answer is the rehearsal's, which plays a role by its rules.
So the calls are real in kind and, as far as a model's whims do not change them, in number; the lengths of answers are not.
They are therefore given: each answer counts as so many tokens, and where it goes into a later prompt it is padded to that
length, so that prompts grow as they would. The rehearsal itself never sees the padding.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from agents.failures import ProviderError
from agents.ledger import CampaignStopping, Ledger, forget
from agents.llm import LanguageModel, Reply, fold_system, request_parameters
from agents.prices import Price, price_of
from agents.prompts import Prompts
from agents.protocol import CallSite
from agents.rehearsal.backend import PREFIX, RehearsalError
from agents.rehearsal.backend import complete as rehearse
from agents.secrets import Redactor
from configs.model_settings import ModelSettings
from configs.settings import CampaignSettings
from graphs.best_of_n import RewardModel
from graphs.cast import build_cast
from graphs.execute import build_recipe
from store.identity import call_id as identify_call
from store.records import Fit, Message, Seed

Length = Literal["low", "expected", "high"]
LENGTHS: tuple[Length, ...] = ("low", "expected", "high")
BYTES_A_TOKEN: Mapping[Length, float] = {"low": 5.0, "expected": 4.0, "high": 3.0}
"""Of text in UTF-8. English has 4 to 5 in today's tokenizers; code, names and other scripts have fewer."""
TOKENS_A_MESSAGE: Mapping[Length, int] = {"low": 3, "expected": 4, "high": 8}
"""What a chat template puts around each."""
PADDING = "\N{INVISIBLE SEPARATOR}"
"""Stands for one byte of an answer that nobody wrote. No rule of ours takes it for a letter, a blank or a word."""
STAND_IN = "rehearsal/varied"
"""Its answers to one prompt differ, as those of models do that are asked at a temperature."""


class Usage(NamedTuple):
    """What some calls use."""

    calls: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    usd: float | None = 0.0
    """Null: the price of some is unknown."""

    def __add__(self, other: "Usage") -> "Usage":  # type: ignore[override]  # not a longer tuple
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        calls, prompt = self.calls + other.calls, self.prompt_tokens + other.prompt_tokens
        return Usage(calls, prompt, self.completion_tokens + other.completion_tokens, usd)


Count = Callable[[str, Usage], None]
"""Takes what a call of a role uses."""


class RehearsedModel(LanguageModel):
    """Plays a role by the rehearsal, and counts what the model that the settings name would be asked for.

    A role that the settings give to the rehearsal counts as that does, in words and exactly.
    """

    def __init__(self, settings: ModelSettings, length: Length, tokens_an_answer: int | None, count: Count) -> None:
        super().__init__(settings, Ledger(forget), Redactor(()))
        self._length: Length = length
        self._tokens_an_answer = tokens_an_answer
        self._count = count
        self._cost: Price = price_of(settings)

    async def complete(
        self,
        messages: Sequence[Message],
        site: CallSite,
        *,
        schema: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Reply:
        sent = fold_system(messages) if self.settings.system_role == "fold" else tuple(messages)
        call_id = identify_call(site.dialogue_id, site.depth, site.agent, site.purpose, site.ordinal)
        parameters = request_parameters(self.settings, call_id)
        is_own = self.settings.model.startswith(PREFIX)
        shown = [{"role": message.role, "content": message.content.replace(PADDING, "")} for message in sent]
        asked = parameters if is_own else {"seed": parameters["seed"]}
        try:
            done = rehearse(self.settings.model if is_own else STAND_IN, shown, asked)
        except RehearsalError as error:
            raise ProviderError("bad_request", str(error)) from None
        text, prompt, completion = done.content, done.prompt_tokens, done.completion_tokens
        if not is_own:
            bytes_a_token = BYTES_A_TOKEN[self._length]
            prompt = math.ceil(sum(_bytes(message.content) for message in sent) / bytes_a_token)
            prompt += TOKENS_A_MESSAGE[self._length] * len(sent)
            completion = self._tokens(text, int(parameters["max_tokens"]))
            text = padded(text, round(completion * bytes_a_token))
        self._count(site.agent, Usage(1, prompt, completion, self._cost.cost_of(prompt, completion)))
        return Reply(text, call_id, done.finish_reason, completion)

    def _tokens(self, text: str, most: int) -> int:
        """How long an answer is taken to be: what the rehearsal wrote, all that it may be, or their geometric mean."""
        written = min(most, max(1, math.ceil(_bytes(text) / BYTES_A_TOKEN[self._length])))
        if self._length == "low":
            return written
        if self._length == "high":
            return most
        return min(most, self._tokens_an_answer) if self._tokens_an_answer else round(math.sqrt(written * most))


def padded(text: str, size: int) -> str:
    """A text as if it had so many bytes; of a JSON object its `answer`, which alone of it is shown to anybody later."""
    missing = size - _bytes(text)
    if missing <= 0:
        return text
    if not text.lstrip().startswith("{"):
        return text + PADDING * missing
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict) or not isinstance(fields.get("answer"), str):
        return text
    return json.dumps({**fields, "answer": fields["answer"] + PADDING * missing}, ensure_ascii=False)


def _bytes(text: str) -> int:
    """Of UTF-8; a padding sign is one."""
    padding = text.count(PADDING)
    return padding + len(text.replace(PADDING, "").encode() if padding else text.encode())


def rehearsed_usage(
    settings: CampaignSettings,
    prompts: Prompts,
    campaign_id: str,
    playings: Iterable[tuple[Seed, int]],
    length: Length,
    *,
    tokens_an_answer: int | None = None,
) -> list[dict[str, Usage]]:
    """What each playing of a seed would use, by role, with answers of a length.

    Args:
        tokens_an_answer: of the expected length, in place of our guess.
    """
    found: list[dict[str, Usage]] = []

    def count(role: str, usage: Usage) -> None:
        found[-1][role] = found[-1].get(role, Usage()) + usage

    def model(role: ModelSettings) -> LanguageModel:
        return RehearsedModel(role, length, tokens_an_answer, count)

    scorer = _picks_the_last() if settings.scorer is not None else None
    cast = build_cast(settings, prompts, Ledger(forget), make_model=model)
    recipe = build_recipe(settings, campaign_id, prompts.hashes, cast, scorer)
    for seed, trial in playings:
        found.append({})
        asyncio.run(_play(recipe.play(seed, trial)))
    return found


async def _play(playing: Any) -> None:
    """To its end, or to where the rehearsal cannot go on: what was asked up to there is counted."""
    try:
        await playing
    except (ProviderError, CampaignStopping):
        return


def _picks_the_last() -> RewardModel:
    """A reward model that likes a later answer better than an earlier one: which one is picked changes no call."""
    fit = Fit(
        fit_id="fit_rehearsed",
        name="rehearsed",
        objective="reward",
        config={},
        data_card={},
        checkpoint=None,
        status="done",
        created_at=datetime.now(UTC),
    )
    return RewardModel(fit, lambda conversations: [float(place) for place in range(len(conversations))])
