"""Answers that are written for a label: RMBoost's second answer, and RLCD's good and poor one.

RMBoost (arXiv 2407.16008) shows the writer the first answer, says whether the second one is to be better or worse, and in
which respects; that the respects and a short plan come before the answer, in one JSON object, is ours. RLCD asks for a good
and for a poor answer apart: neither sees another. Whether an answer can stand in a pair is not known here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.failures import ProviderError
from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import DialogueSoFar, Refused, Utterance
from agents.structured import read_json
from configs.pairing_settings import Direction
from store.records import Message

PLAN_CHARACTERS = 600
"""What a schema allows for a plan of one or two sentences."""


class SecondAnswer(NamedTuple):
    """What the writer gave; without an `utterance` it could not be read, and `problem` says why."""

    raw: str
    call_id: str
    utterance: Utterance | None = None
    aspects: tuple[str, ...] = ()
    plan: str | None = None
    cut_off: bool = False
    """The model did not finish: it ran into `max_tokens`."""
    problem: str | None = None


class SecondAnswerWriter:
    """RMBoost's writer: the perturbation agent's model."""

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts

    async def write(
        self,
        dialogue: DialogueSoFar,
        first: str,
        direction: Direction,
        aspects: Mapping[str, str],
        *,
        most: int | None = None,
        refused: Sequence[Refused] = (),
        longest: float | None = None,
        ordinal: int = 0,
    ) -> SecondAnswer:
        """Another answer to a dialogue that ends on the user's turn, better or worse than `first`.

        Args:
            aspects: name to meaning; the writer chooses `most` of them, or takes all of them where that is null.
            refused: what it wrote for this pair before, and why that cannot be used.
            longest: times the first answer's characters that a schema allows; prompts say nothing of it.
            ordinal: tells apart the calls at one place of the dialogue.

        Raises:
            ProviderError: the model gave no answer at all.
        """
        prompt = self._prompts.render(
            "boost",
            transcript=transcript(dialogue.messages),
            answer=defused(first),
            direction=direction,
            aspects=dict(aspects),
            most=None if most is None else min(most, len(aspects)),
            refused=[(reason, defused(text)) for reason, text in refused],
        )
        reply = await self._model.complete(
            [Message(role="user", content=prompt)],
            dialogue.site("perturbation", "boost", ordinal),
            schema=_schema(aspects, most, None if longest is None else int(longest * max(len(first), 40))),
        )
        cut_off = reply.finish_reason == "length"
        try:
            fields = read_json(reply.text, aspects=list, plan=str, answer=str)
            chosen = _chosen(fields["aspects"], aspects, most)
        except ProviderError as error:
            return SecondAnswer(reply.text, reply.call_id, cut_off=cut_off, problem=str(error))
        utterance = Utterance(
            fields["answer"].strip(), reply.call_id, completion_tokens=reply.completion_tokens, cut_off=cut_off
        )
        return SecondAnswer(reply.text, reply.call_id, utterance, chosen, fields["plan"].strip() or None, cut_off)


class SteeredAssistant:
    """RLCD's writer: the assistant's own model, asked for a good or for a poor answer."""

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts

    async def answer(
        self, dialogue: DialogueSoFar, direction: Direction, aspects: Mapping[str, str], *, ordinal: int = 0
    ) -> Utterance:
        """An answer to a dialogue that ends on the user's turn; `better` stands for good, `worse` for poor."""
        prompt = self._prompts.render(
            "steer", transcript=transcript(dialogue.messages), direction=direction, aspects=dict(aspects)
        )
        reply = await self._model.complete(
            [Message(role="user", content=prompt)], dialogue.site("assistant", f"steer_{direction}", ordinal)
        )
        return Utterance(
            reply.text.strip(),
            reply.call_id,
            completion_tokens=reply.completion_tokens,
            cut_off=reply.finish_reason == "length",
        )


def _chosen(named: Sequence[Any], offered: Mapping[str, str], most: int | None) -> tuple[str, ...]:
    """The aspects as they are called in the config; all that was offered where there was nothing to choose.

    Raises:
        ProviderError: of kind `invalid_schema`: none of them, one that is not among them, or too many.
    """
    if most is None:
        return tuple(offered)
    by_plain = {name.casefold(): name for name in offered}
    plain = [str(name).strip().casefold() for name in named]
    if strange := [name for name in plain if name not in by_plain]:
        raise ProviderError(
            "invalid_schema", f'"aspects" names {strange[0][:40]!r}, and the aspects are {", ".join(offered)}'
        )
    chosen = tuple(dict.fromkeys(by_plain[name] for name in plain))
    if not 1 <= len(chosen) <= most:
        raise ProviderError("invalid_schema", f'"aspects" names {len(chosen)}, and it must be 1 to {most} of them')
    return chosen


def _schema(aspects: Mapping[str, str], most: int | None, longest_characters: int | None) -> dict[str, Any]:
    """The JSON object that `boost` asks for, for a provider that holds a model to it."""
    answer: dict[str, Any] = {"type": "string", "minLength": 1}
    if longest_characters is not None:
        answer["maxLength"] = longest_characters
    listed = {"type": "array", "items": {"enum": list(aspects)}, "minItems": 1, "maxItems": most or len(aspects)}
    fields: dict[str, Any] = {
        "aspects": listed,
        "plan": {"type": "string", "minLength": 1, "maxLength": PLAN_CHARACTERS},
        "answer": answer,
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
