"""The judge: does an answer fail its instruction, which of two conversations is better, how good is one.

Its verdict is read from one JSON object. An answer that cannot be read is asked for again with what was wrong, a
bounded number of times; after that the verdict is `invalid`, with the raw text, and never a win for anybody.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agents.failures import ProviderError
from agents.gate_rules import ROLE_BREAKS
from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import CallSite, DialogueSoFar
from agents.structured import read_json, unreadable
from configs.settings import ContextKind
from store.identity import call_id as identify_call
from store.pairs import settled as settled  # part of what a judge says: a flip is a tie
from store.records import Message

Presentation = Literal["chosen_first", "rejected_first"]
LOWEST_SCORE, HIGHEST_SCORE = 1, 10
REPAIRS = 2
"""Ours."""
REPAIR = "Your last reply to this could not be used: {problem}. Reply again, with nothing but the one JSON object that is asked for above."
NO_CONTENT = ("content_filter", "empty_choices", "bad_response")
"""Kinds of failure in which the provider did answer, but with nothing in it."""
RATIONALE_CHARACTERS = 400
"""What a schema allows for one sentence."""
RETRY_STRIDE, REPAIR_STRIDE = 1_000, 1_000_000
"""A call's ordinal is the judge's place, plus these times the attempt and the repair: each ask is a call of its own."""


class Opinion(NamedTuple):
    """What a judge said, with its raw text. `verdict` is `invalid` when it could not be read; then `error` says why."""

    verdict: str
    """`landed`, `missed`, `chosen`, `rejected`, `tie`, `scored`, `depends`, `stands_alone`, `none` or a break of the user's role (the
    gate's), or `invalid`."""
    rationale: str | None
    raw: str
    """The last answer that was not empty; what the provider said where it gave none."""
    call_id: str
    """Of the last ask."""
    score: float | None = None
    """From 1 to 10, where the rubric asks for one."""
    error: str | None = None
    judge: str = ""
    """Which judge, apart from others of the same model."""
    aspects: tuple[tuple[str, str], ...] = ()
    """Of two answers that were compared by aspect: each aspect with its verdict; those that were not said are left out."""


class Verdict(NamedTuple):
    """What was read from an answer."""

    verdict: str
    score: float | None = None
    aspects: tuple[tuple[str, str], ...] = ()


Read = Callable[[str], tuple[dict[str, Any], Verdict]]
"""From an answer to its fields and what they say; raises where they say nothing usable."""


class Judge:
    """A model that judges.

    Args:
        index: its place among the config's judges.
        known_as: what tells it from other judges of the same model; the model string unless given.
        label_set: the set of a later judging, which keeps its calls apart from the campaign's own.
        repairs: how often an answer that cannot be read is asked for again.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Prompts,
        index: int = 0,
        *,
        known_as: str | None = None,
        label_set: str | None = None,
        repairs: int = REPAIRS,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self.index = index
        self.known_as = known_as or model.name
        self._prefix = f"{label_set}/" if label_set else ""
        self._repairs = repairs

    @property
    def name(self) -> str:
        """The model string."""
        return self._model.name

    async def verify(self, dialogue: DialogueSoFar, answer: str, *, attempt: int = 0) -> Opinion:
        """Whether `answer` fails the dialogue's visible instruction: `landed` if it does, else `missed`.

        `attempt`: which answer at this place of the dialogue, where a missed one was tried again.
        """
        prompt = self._prompts.render("verify", transcript=transcript(dialogue.messages), answer=defused(answer))
        return await self._ask(prompt, self._site(dialogue, "verify", self.index + RETRY_STRIDE * attempt), _read_fails)

    async def gate(self, dialogue: DialogueSoFar, query: str, *, attempt: int = 0) -> Opinion:
        """Whether `query` keeps to the user's role as the dialogue's next turn: `none`, or how it breaks it.

        `attempt`: which query at this place of the dialogue, where a caught one was asked for again.
        """
        prompt = self._prompts.render("gate", transcript=transcript(dialogue.messages), query=defused(query))
        return await self._ask(prompt, self._site(dialogue, "gate", self.index + RETRY_STRIDE * attempt), _read_problem)

    async def verify_context(
        self, dialogue: DialogueSoFar, answer: str, *, kind: ContextKind, attempt: int = 0
    ) -> Opinion:
        """Whether `answer` fails what the query means, as an error of this kind would: `landed` if it does, else `missed`."""
        prompt = self._prompts.render(
            "verify_context", transcript=transcript(dialogue.messages), answer=defused(answer), kind=kind
        )
        site = self._site(dialogue, "verify_context", self.index + RETRY_STRIDE * attempt)
        return await self._ask(prompt, site, _read_fails)

    async def compare(
        self,
        dialogue: DialogueSoFar,
        rejected: tuple[Message, ...],
        presentation: Presentation,
        *,
        reference: Sequence[str] = (),
    ) -> Opinion:
        """Which conversation is better: `dialogue` (the chosen one) or `rejected`; or `tie`.

        `reference`: right answers by turn, which the judge is then shown and told to go by.
        """
        sides = (transcript(dialogue.messages), transcript(rejected))
        first, second = sides if presentation == "chosen_first" else sides[::-1]
        shown = {"conversation_a": first, "conversation_b": second}
        purpose = "compare"
        if reference:
            purpose, shown["reference"] = "reference_compare", reference_text(reference)
        ordinal = 2 * self.index + (presentation == "rejected_first")
        prompt, site = self._prompts.render(purpose, **shown), self._site(dialogue, purpose, ordinal)
        return await self._ask(prompt, site, _reads_better(presentation), schema=_better_schema())

    async def prefer(
        self,
        dialogue: DialogueSoFar,
        chosen: str,
        rejected: str,
        presentation: Presentation,
        *,
        aspects: Mapping[str, str],
        by_aspect: bool = False,
        attempt: int = 0,
    ) -> Opinion:
        """Which of two answers to a dialogue that ends on the user's turn is better: `chosen`, `rejected` or `tie`.

        Args:
            aspects: what the judge goes by, name to meaning.
            by_aspect: ask for a verdict on each of them, too.
            attempt: which two answers at this place, where others were compared before.
        """
        first, second = (chosen, rejected) if presentation == "chosen_first" else (rejected, chosen)
        prompt = self._prompts.render(
            "prefer",
            transcript=transcript(dialogue.messages),
            answer_a=defused(first),
            answer_b=defused(second),
            aspects=dict(aspects),
            by_aspect=by_aspect,
        )
        ordinal = 2 * self.index + (presentation == "rejected_first") + RETRY_STRIDE * attempt
        return await self._ask(
            prompt,
            self._site(dialogue, "prefer", ordinal),
            _reads_better(presentation, aspects if by_aspect else {}),
            schema=_better_schema(aspects if by_aspect else ()),
        )

    async def score(self, dialogue: DialogueSoFar, *, reference: Sequence[str] = ()) -> Opinion:
        """A grade of the whole conversation, from 1 to 10; by right answers for each turn where they are given."""
        shown = {"transcript": transcript(dialogue.messages)}
        purpose = "score"
        if reference:
            purpose, shown["reference"] = "reference", reference_text(reference)
        return await self._ask(
            self._prompts.render(purpose, **shown), self._site(dialogue, purpose, self.index), _read_score
        )

    async def realism(self, dialogue: DialogueSoFar) -> Opinion:
        """How like a person's the user's turns are, from 1 to 10."""
        prompt = self._prompts.render("realism", transcript=transcript(dialogue.messages))
        return await self._ask(prompt, self._site(dialogue, "realism", self.index), _read_score)

    async def score_turn(self, dialogue: DialogueSoFar, answer: str, *, reference: str = "") -> Opinion:
        """A grade of one answer to a dialogue that ends on the user's turn, from 1 to 10."""
        shown = {"transcript": transcript(dialogue.messages), "answer": defused(answer)}
        purpose = "score_turn"
        if reference:
            purpose, shown["reference"] = "reference_turn", reference_text([reference])
        return await self._ask(
            self._prompts.render(purpose, **shown), self._site(dialogue, purpose, self.index), _read_score
        )

    async def depends(self, before: DialogueSoFar, query: str) -> Opinion:
        """Whether the user's next message cannot be understood without the dialogue before it: `depends` or `stands_alone`."""
        prompt = self._prompts.render("depends", transcript=transcript(before.messages), query=defused(query))
        return await self._ask(prompt, self._site(before, "depends", self.index), _read_depends)

    def _site(self, dialogue: DialogueSoFar, purpose: str, ordinal: int) -> CallSite:
        return dialogue.site("judge", self._prefix + purpose, ordinal)

    async def _ask(
        self, prompt: str, site: CallSite, read: Read, *, schema: Mapping[str, Any] | None = None
    ) -> Opinion:
        """Ask, and ask again with what was wrong.

        Raises:
            ProviderError: no answer came at all, as after a time-out. One without content is an `invalid` opinion.
        """
        raw, problem, call = "", "", ""
        for repair in range(self._repairs + 1):
            here = site._replace(ordinal=site.ordinal + REPAIR_STRIDE * repair)
            text = prompt if not repair else f"{prompt}\n\n{REPAIR.format(problem=defused(problem))}"
            try:
                reply = await self._model.complete([Message(role="user", content=text)], here, schema=schema)
            except ProviderError as error:
                if error.fatal or error.kind not in NO_CONTENT:
                    raise
                call = identify_call(here.dialogue_id, here.depth, here.agent, here.purpose, here.ordinal)
                raw, problem = raw or str(error), f"{error.kind}: {error}"
                break
            call, raw = reply.call_id, reply.text or raw
            try:
                fields, verdict = read(reply.text)
            except ProviderError as error:
                problem = str(error) if reply.text.strip() else "the answer is empty"
                continue
            return Opinion(
                verdict.verdict,
                _rationale(fields),
                reply.text,
                call,
                score=verdict.score,
                judge=self.known_as,
                aspects=verdict.aspects,
            )
        return Opinion("invalid", None, raw, call, error=problem, judge=self.known_as)


def names_apart(models: Sequence[str]) -> list[str]:
    """A name for each judge: its model string, with `#2`, `#3`, ... where that comes again."""
    seen = Counter[str]()
    names = []
    for model in models:
        seen[model] += 1
        names.append(model if seen[model] == 1 else f"{model}#{seen[model]}")
    return names


def reference_text(answers: Sequence[str]) -> str:
    """Right answers as text inside a prompt, one for each turn of the assistant."""
    return transcript([Message(role="assistant", content=answer) for answer in answers])


def _reads_better(presentation: Presentation, aspects: Collection[str] = ()) -> Read:
    """Reads which side is better, and for each aspect that is asked about, where the judge said so."""
    names = ("chosen", "rejected") if presentation == "chosen_first" else ("rejected", "chosen")
    verdicts = {"a": names[0], "b": names[1], "tie": "tie"}
    plain = {aspect.casefold(): aspect for aspect in aspects}

    def read(text: str) -> tuple[dict[str, Any], Verdict]:
        fields = read_json(text, better=str)
        verdict = verdicts.get(fields["better"].strip().lower())
        if verdict is None:
            raise unreadable(f'"better" is {fields["better"][:40]!r}, and it must be "A", "B" or "tie"')
        given = fields.get("aspects")
        given = given if isinstance(given, dict) else {}
        said = {str(name).casefold(): str(side).strip().lower() for name, side in given.items()}
        found = {aspect: verdicts[said[name]] for name, aspect in plain.items() if said.get(name) in verdicts}
        return fields, Verdict(verdict, aspects=tuple(found.items()))

    return read


def _better_schema(aspects: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in which a judge says which side is better."""
    side = {"enum": ["A", "B", "tie"]}
    fields: dict[str, Any] = {"rationale": {"type": "string", "maxLength": RATIONALE_CHARACTERS}}
    if aspects:
        by_aspect: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(aspects, side)}
        fields["aspects"] = by_aspect | {"required": list(aspects), "additionalProperties": False}
    fields["better"] = side
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _read_fails(text: str) -> tuple[dict[str, Any], Verdict]:
    fields = read_json(text, fails=bool)
    return fields, Verdict("landed" if fields["fails"] else "missed")


def _read_depends(text: str) -> tuple[dict[str, Any], Verdict]:
    fields = read_json(text, depends=bool)
    return fields, Verdict("depends" if fields["depends"] else "stands_alone")


def _read_problem(text: str) -> tuple[dict[str, Any], Verdict]:
    fields = read_json(text, problem=str)
    problem = fields["problem"].strip().strip("`").lower()
    if problem not in ("none", *ROLE_BREAKS):
        raise unreadable(
            f'"problem" is {fields["problem"][:40]!r}, and it must be one of none, {", ".join(ROLE_BREAKS)}'
        )
    return fields, Verdict(problem)


def _read_score(text: str) -> tuple[dict[str, Any], Verdict]:
    fields = read_json(text, score=(int, float))
    score = fields["score"]
    if score not in range(LOWEST_SCORE, HIGHEST_SCORE + 1):  # 7.0 is in it, 7.5 and NaN are not
        shown = str(score)[:40]
        raise unreadable(f'"score" is {shown}, and it must be a whole number from {LOWEST_SCORE} to {HIGHEST_SCORE}')
    return fields, Verdict("scored", float(score))


def _rationale(fields: dict[str, Any]) -> str | None:
    rationale = fields.get("rationale")
    return rationale if isinstance(rationale, str) else None
