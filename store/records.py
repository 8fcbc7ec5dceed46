"""The nouns that all floors speak, as frozen pydantic models: one class a table of the corpus.

Field names are the column names. This file imports nothing of ours and no duckdb. A null that means
something says so in its field's docstring.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict

MessageRole = Literal["system", "user", "assistant"]
Branch = Literal["main", "chosen", "rejected", "candidate"]
Verdict = Literal["landed", "missed", "unchecked"]
CatchOutcome = Literal["asked_again", "ended", "failed", "no_pair", "left_out"]
Split = Literal["train", "validation", "test"]
CampaignStatus = Literal["running", "paused", "done"]
PausedBy = Literal["pause", "budget", "interrupt", "error", "retry-failed"]
"""`descant pause`, a cap, Ctrl-C or SIGTERM, what makes every dialogue fail, or failed dialogues that were opened again."""


def _is_plain(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in get_args(annotation))
    parts = get_args(annotation)
    return all(map(_is_plain, parts)) if parts else annotation in (str, int, bool, type(None), ...)


class Message(BaseModel):
    """One utterance as a model sees it."""

    model_config = ConfigDict(frozen=True)

    role: MessageRole
    content: str


class Record(BaseModel):
    """A row: `table` names where it is kept, `key` which columns make it one row."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",  # a diverged loss is kept as NaN, for which JSON has no number
    )

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]

    @classmethod
    def is_plain(cls) -> bool:
        """Whether its columns are texts, integers and lists of them: nothing that JSON libraries write in ways of their own."""
        return all(_is_plain(field.annotation) for field in cls.model_fields.values())


class Campaign(Record):
    """A run of a recipe."""

    table = "campaigns"
    key = ("campaign_id",)

    campaign_id: str
    name: str
    recipe: str
    config: dict[str, Any]
    """The resolved settings, without secrets."""
    config_hash: str
    version: str
    """Of Descant, when the campaign was last started."""
    status: CampaignStatus
    """As last written: a killed campaign's row stays `running`."""
    created_at: datetime
    finished_at: datetime | None = None
    """Null until the campaign is done."""
    n_seeds: int | None = None
    """Seeds that the last run was given; null when it did not say."""
    paused_by: PausedBy | None = None
    """Null while it is not paused, and where an earlier version did not say."""


class Seed(Record):
    """Where dialogues start."""

    table = "seeds"
    key = ("seed_id",)

    seed_id: str
    source: str
    """The file's name (without its folder), the Hugging Face dataset, or `rehearsal`."""
    messages: tuple[Message, ...]
    metadata: dict[str, Any] = {}
    split: Split


class Turn(Record):
    """One message in the tree of turns."""

    table = "turns"
    key = ("turn_id",)

    turn_id: str
    parent_id: str | None
    campaign_id: str
    seed_id: str
    depth: int
    """Place in the conversation, from 0."""
    role: MessageRole
    content: str
    agent: str
    """Who wrote it: `seed`, `user`, `assistant`."""
    call_id: str | None
    """Null for a turn that came with the seed."""
    perturbation_id: str | None = None


class Dialogue(Record):
    """A path through the tree, from root to leaf."""

    table = "dialogues"
    key = ("dialogue_id",)

    dialogue_id: str
    campaign_id: str
    seed_id: str
    branch: Branch
    trial: int
    persona: dict[str, Any] | None = None
    """Null: the user simulator was given none."""
    prompt_hashes: dict[str, str]
    forked_from: str | None = None
    turn_ids: tuple[str, ...]
    n_turns: int
    """Assistant answers, those of the seed included."""
    status: Literal["done", "failed", "open"]
    """`open`: it had ended, and is to be played again."""
    termination_reason: str
    """`max_turns`, `user_ended`, what the gate caught (`repetitive`, `short`, `sensitive`), or for a failed dialogue the
    error's kind, such as `timeout` or `context_overflow`, or how the user simulator broke its role, such as `leak`."""
    error: str | None = None


class Perturbation(Record):
    """One injected error."""

    table = "perturbations"
    key = ("perturbation_id",)

    perturbation_id: str
    dialogue_id: str
    turn_id: str
    kind: str
    instruction: str
    """The visible user turn that the answer should have followed."""
    altered_instruction: str | None
    """What was answered instead; null for context neglect, which answers the query itself, without its history."""
    direction: str | None = None
    aspects: tuple[str, ...] | None = None
    plan: str | None = None
    strength: float = 1.0
    verdict: Verdict
    verdict_source: str | None = None
    """The model that gave the verdict; null when unchecked."""
    attempts: int | None = 1
    """Tries that were altered and answered, the one that stands included."""


class Label(Record):
    """Which way a second answer is to differ, drawn and noted before it is asked for (RMBoost, arXiv 2407.16008)."""

    table = "labels"
    key = ("label_id",)

    label_id: str
    campaign_id: str
    dialogue_id: str
    """The conversation that the pair belongs to."""
    depth: int
    """The place in the conversation of the two answers, from 0."""
    direction: str
    """`better` or `worse`: what the second answer is to be."""
    aspects: tuple[str, ...] | None = None
    """Drawn with it; null where the model that writes the answer chooses."""
    created_at: datetime


class Caught(Record):
    """A query that the gate did not let pass, or an answer that cannot stand in a pair: it is no turn."""

    table = "caught"
    key = ("catch_id",)

    catch_id: str
    campaign_id: str
    dialogue_id: str
    depth: int
    """The place in the conversation that it was to take, from 0."""
    attempt: int
    """Which query at this place, from 0."""
    reason: str
    """Of a query a break of the user's role (`role_inversion`, `leak`, `early_end`, `restart`, `repetition`), or `repetitive`,
    `short`, `sensitive`, `garbled`, `unfinished`. Of an answer `unparsable`, `empty`, `cut_off`, `near_identical`,
    `speaks_of_editing`, `speaks_of_aspects`, `too_long`, `too_short`, or of two `tie`, `invalid`, `missed`, `unscorable`."""
    source: str
    """`rule`, or the judge that found it."""
    content: str
    """What was written; `[END]` where the user simulator ended the dialogue."""
    call_id: str
    """The call that wrote it."""
    outcome: CatchOutcome
    """Asked again, or the dialogue ended before the query, done or failed; of an answer asked again, no pair, or left out of
    several that made one."""
    agent: str | None = "user"
    """Who wrote it: `user`, `assistant` or `perturbation`; null in older rows, which are the user's."""


class Call(Record):
    """One LLM call: the journal. A call that is noted again under the same id and request replaces itself."""

    table = "calls"
    key = ("call_id", "request_hash")

    call_id: str
    request_hash: str
    campaign_id: str
    dialogue_id: str
    agent: str
    purpose: str
    ordinal: int
    model: str
    messages: tuple[Message, ...] | None
    """Null in a row that only notes the start, and where `based_on` tells what was sent (`store.requests`)."""
    parameters: dict[str, Any]
    response: str | None = None
    finish_reason: str | None = None
    """`stop`, `length`, or the provider's own word where OpenAI has none; the error's kind for a failed call."""
    status: Literal["started", "done", "failed", "superseded"]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    """Null: the price is unknown. 0.0: known to be free."""
    latency_ms: float | None = None
    attempts: int = 0
    error: str | None = None
    created_at: datetime
    lost_tokens: int | None = 0
    """At most so many tokens more may have been paid for: of requests that were sent and never answered, such as one that ran
    into a time-out, and in a `started` row of the one that is out."""
    lost_usd: float | None = 0.0
    """The same in dollars; null when the price is unknown."""
    based_on: str | None = None
    """The request_hash of the request that this one is kept as a change of; null where it is kept whole."""
    kept_head: int | None = None
    """Characters of that one's beginning."""
    kept_tail: int | None = None
    """Characters of its end."""
    inserted: str | None = None
    """What stands between the two."""


class Pair(Record):
    """A preference pair: two dialogues of one seed."""

    table = "pairs"
    key = ("pair_id",)

    pair_id: str
    campaign_id: str
    method: str
    chosen_id: str
    rejected_id: str
    first_divergent_turn: int
    """Which assistant answer differs first, from 1."""
    n_contrast_turns: int
    """Answers of the rejected side that were perturbed and not found to have missed."""
    aspects: tuple[str, ...] | None = None
    label_source: str
    """`construction`, or the judges or the reward model that gave the label."""
    intended_label: str | None
    """Which side was meant to be better: `chosen`; null where none was, as of two plain samples."""
    judged_label: str | None = None
    """`chosen`, `rejected` or `tie`: the majority of judges, each one's two orders settled first (a flip is a tie).

    Null when no judge was asked, or none could be read.
    """
    split: Split
    margin: float | None = None
    similarity: float | None = None
    """ROUGE-L F1 of what the sides wrote for themselves from the first difference on (`store.pairs.similarity`), turns that
    one shares with the other left out; null when not measured."""
    length_ratio: float | None = None
    """Words of chosen by words of rejected (`store.pairs.length_ratio`); null when not measured."""


class PairStats(Record):
    """What SQL cannot count about a pair, of the answers that its sides wrote for themselves."""

    table = "pair_stats"
    key = ("pair_id",)

    pair_id: str
    chosen_words: int
    rejected_words: int
    distinct_1: float | None
    """Of both sides together (`store.diversity.distinct`); null where they have no words."""
    distinct_2: float | None


class MethodStats(Record):
    """How varied the answers of a campaign's pairs of one method are (`store.diversity.between`)."""

    table = "method_stats"
    key = ("campaign_id", "method")

    campaign_id: str
    method: str
    pairs: int
    pairs_hash: str
    """Of the ids of these pairs: another one means that the figures are of old."""
    seeds: int
    self_rouge: float | None
    """From 0 to 100; null where no two seeds have answers."""
    self_rouge_low: float | None
    self_rouge_high: float | None
    distinct_1: float | None
    """Null where the answers fill no sample."""
    distinct_1_low: float | None
    """Null where samples are too few."""
    distinct_1_high: float | None
    distinct_2: float | None
    distinct_2_low: float | None
    distinct_2_high: float | None
    samples: int
    """That distinct-n is the mean of."""


class Judgement(Record):
    """One judge's verdict."""

    table = "judgements"
    key = ("judgement_id",)

    judgement_id: str
    label_set: str
    pair_id: str | None = None
    dialogue_id: str | None = None
    turn_id: str | None = None
    judge_model: str
    rubric: str
    presentation: str
    """Which side was shown first: `chosen_first`, `rejected_first`, or `single`; `dialogue_first`, `opponent_first`."""
    verdict: str
    """`chosen`, `rejected`, `tie`, `landed`, `missed`, `scored`, or `invalid` when the answer could not be read."""
    score: float | None = None
    rationale: str | None = None
    raw: str | None = None
    call_id: str | None = None
    opponent_id: str | None = None
    """The dialogue that `dialogue_id` was compared with; null where it met none."""
    judge: str | None = None
    """Which judge: the model string, with `#2`, `#3`, ... for further judges of the same model."""
    error: str | None = None
    """Why the verdict is `invalid`; null otherwise."""


class DialogueStats(Record):
    """What SQL cannot count."""

    table = "dialogue_stats"
    key = ("dialogue_id",)

    dialogue_id: str
    n_words: int
    n_tokens: int | None = None
    """Completion tokens of the dialogue's own turns; null where a provider did not report usage. Of an imported dialogue those of all turns; null without a tokenizer."""
    context_dependent_turns: int | None = None
    """User turns that rules find to depend on their context; null when not counted, as for candidates that were not picked."""
    self_rouge: float | None = None
    """From 0 to 100 (`store.rouge`); null when not measured, and below two user turns."""


class Fit(Record):
    """A training run."""

    table = "fits"
    key = ("fit_id",)

    fit_id: str
    name: str
    objective: str
    arm: str | None = None
    config: dict[str, Any]
    data_card: dict[str, Any]
    checkpoint: str | None
    status: Literal["running", "done", "failed"]
    created_at: datetime


class Metric(Record):
    """A point of a curve, or one figure of an evaluation with its interval."""

    table = "metrics"
    key = ("fit_id", "name", "slice", "step")

    fit_id: str
    name: str
    slice: str
    """`all`, or what the figure is restricted to, such as `n_turns=3`."""
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    step: int = 0


class Score(Record):
    """A reward of a dialogue, or with `turn_id` of its prefix up to that turn ("" for the whole dialogue)."""

    table = "scores"
    key = ("fit_id", "dialogue_id", "turn_id")

    fit_id: str
    dialogue_id: str
    turn_id: str = ""
    reward: float


RECORDS: dict[str, type[Record]] = {
    kind.table: kind
    for kind in (
        Campaign,
        Seed,
        Turn,
        Dialogue,
        Perturbation,
        Label,
        Caught,
        Call,
        Pair,
        PairStats,
        MethodStats,
        Judgement,
        DialogueStats,
        Fit,
        Metric,
        Score,
    )
}


class PreferencePair(NamedTuple):
    """A pair as training and evaluation read it, whatever file or table it came from."""

    pair_id: str
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    split: str
    method: str
    n_turns: int
    """Assistant answers of the chosen side."""
    first_divergent_turn: int
    """Which assistant answer differs first, from 1; 0 when the sides are equal."""
    margin: float | None = None
    kinds: tuple[str, ...] = ()
    """The perturbation kinds of the rejected side that did not miss, in order of the alphabet; a file says none."""
    n_contrast_turns: int = 0
    """Answers of the rejected side that were perturbed and not found to have missed; 0 where a file says nothing."""
