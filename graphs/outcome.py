"""From the ended branches of a seed to records: turns in a tree, perturbations, dialogues, the pair, verdicts."""

from collections.abc import Mapping, Sequence
from itertools import takewhile, zip_longest
from typing import NamedTuple

from agents.judge import Opinion, settled
from configs.settings import PerturbSettings
from graphs.state import Alteration, Comparison, DialogueState, messages_of
from store.identity import catch_id, judgement_id, pair_id, perturbation_id, turn_id
from store.measure import measure
from store.pairs import first_divergent_turn, length_ratio, majority, similarity
from store.records import (
    Branch,
    Caught,
    Dialogue,
    DialogueStats,
    Judgement,
    Message,
    Pair,
    Perturbation,
    Record,
    Seed,
    Turn,
)

LABEL_SET = "campaign"
"""Verdicts that a campaign makes as it runs; later judging adds sets of other names."""


class Outcome(NamedTuple):
    """What a seed left behind."""

    records: list[Record]
    """In the order in which they are written: a dialogue after all that belongs to it."""
    done: int
    failed: int


def outcome_of(
    seed: Seed,
    trial: int,
    ended: Mapping[Branch, DialogueState],
    comparisons: Sequence[Comparison],
    *,
    prompt_hashes: Mapping[str, str],
    perturb: PerturbSettings | None,
) -> Outcome:
    """Records of one seed; the branches share the turns of their trunk, which the first branch wrote."""
    states = list(ended.values())
    trunk = chain(states[0], seed, None, writer=states[0]["dialogue_id"], start=0, stop=_shared(states))
    records: list[Record] = [*trunk]
    dialogues: dict[Branch, Dialogue] = {}
    for branch, state in ended.items():
        own = chain(state, seed, trunk[-1].turn_id, writer=state["dialogue_id"], start=len(trunk), stop=None)
        records += own
        records += perturbations_of(state, own, first_depth=len(trunk))
        records += _caught(state)
        shares = state is not states[0] and len(trunk) > len(state["seed"])
        forked_from = states[0]["dialogue_id"] if shares else state.get("forked_from")
        dialogues[branch] = dialogue_row(seed, trial, branch, state, [*trunk, *own], prompt_hashes, forked_from)
        records.append(stats_row(dialogues[branch], state))
    records += _pairs(seed, ended, dialogues, comparisons, perturb)
    records += dialogues.values()
    failed = sum(dialogue.status == "failed" for dialogue in dialogues.values())
    return Outcome(records, len(dialogues) - failed, failed)


def _shared(states: Sequence[DialogueState]) -> int:
    """How many turns all branches begin with: the seed's, and those that one took over from the first with their calls.

    Equal texts that two branches wrote each for itself are not shared: their calls differ.
    """
    seed = len(states[0]["seed"])
    if len(states) == 1:
        return seed
    spoken = zip(*(state.get("said", []) for state in states), strict=False)
    return seed + sum(1 for _ in takewhile(lambda same: all(said == same[0] for said in same), spoken))


def chain(
    state: DialogueState, seed: Seed, parent: str | None, *, writer: str, start: int, stop: int | None
) -> list[Turn]:
    """The turns from `start` to `stop` of a dialogue, each the child of the one before.

    Those of another dialogue that it starts from are among them, under their own ids.
    """
    others = state.get("turn_ids", [])
    perturbed = {alteration.depth: alteration for alteration in state.get("alterations", [])}
    turns: list[Turn] = []
    for depth, said in enumerate([*state["seed"], *state.get("said", [])][:stop]):
        if depth < start:
            continue
        altered = perturbed.get(depth)
        turn = Turn(
            turn_id=others[depth] if depth < len(others) else turn_id(parent, writer, depth),
            parent_id=parent,
            campaign_id=state["campaign_id"],
            seed_id=seed.seed_id,
            depth=depth,
            role=said.message.role,
            content=said.message.content,
            agent=said.agent,
            call_id=said.call_id,
            perturbation_id=perturbation_id(state["dialogue_id"], depth, altered.kind) if altered else None,
        )
        turns.append(turn)
        parent = turn.turn_id
    return turns


def perturbations_of(state: DialogueState, own: Sequence[Turn], *, first_depth: int) -> list[Record]:
    """What was injected into a branch, and the verdict on it if somebody checked."""
    records: list[Record] = []
    for alteration in state.get("alterations", []):
        turn = own[alteration.depth - first_depth]
        records.append(
            Perturbation(
                perturbation_id=turn.perturbation_id or "",
                dialogue_id=state["dialogue_id"],
                turn_id=turn.turn_id,
                kind=alteration.kind,
                instruction=alteration.instruction,
                altered_instruction=alteration.altered_instruction,
                verdict=alteration.verdict,
                verdict_source=alteration.judge if alteration.verdict != "unchecked" else None,
                attempts=alteration.attempts,
            )
        )
        records += [
            _verification(state["dialogue_id"], turn.turn_id, alteration, attempt, opinion)
            for attempt, opinion in enumerate(alteration.opinions)
        ]
    return records


def _caught(state: DialogueState) -> list[Record]:
    """What the gate did not let pass."""
    return [
        Caught(
            catch_id=catch_id(state["dialogue_id"], catch.depth, catch.attempt),
            campaign_id=state["campaign_id"],
            dialogue_id=state["dialogue_id"],
            **catch._asdict(),
        )
        for catch in state.get("caught", [])
    ]


def _verification(dialogue_id: str, turn: str, alteration: Alteration, attempt: int, opinion: Opinion) -> Judgement:
    """The verdict on one try: of the turn as it stands for the last one, of an answer that was taken back before it."""
    return Judgement(
        judgement_id=judgement_id(LABEL_SET, dialogue_id, turn, f"0, try {attempt + 1}" if attempt else 0, "single"),
        label_set=LABEL_SET,
        dialogue_id=dialogue_id,
        turn_id=turn,
        judge_model=alteration.judge or "",
        rubric="verify" if alteration.kind == "music_contrast" else "verify_context",
        presentation="single",
        verdict=opinion.verdict,
        rationale=opinion.rationale,
        raw=opinion.raw,
        call_id=opinion.call_id,
        judge=opinion.judge,
        error=opinion.error,
    )


def dialogue_row(
    seed: Seed,
    trial: int,
    branch: Branch,
    state: DialogueState,
    turns: Sequence[Turn],
    prompt_hashes: Mapping[str, str],
    forked_from: str | None,
) -> Dialogue:
    error = state.get("error")
    return Dialogue(
        dialogue_id=state["dialogue_id"],
        campaign_id=state["campaign_id"],
        seed_id=seed.seed_id,
        branch=branch,
        trial=trial,
        prompt_hashes=dict(prompt_hashes),
        forked_from=forked_from,
        turn_ids=tuple(turn.turn_id for turn in turns),
        n_turns=sum(turn.role == "assistant" for turn in turns),
        status="done" if error is None else "failed",
        termination_reason=state["termination_reason"],
        error=error,
    )


def stats_row(dialogue: Dialogue, state: DialogueState) -> DialogueStats:
    measured = measure(messages_of(state))
    tokens = [said.completion_tokens for said in state.get("said", []) if said.call_id is not None]
    known = [count for count in tokens if count is not None]
    return DialogueStats(
        dialogue_id=dialogue.dialogue_id,
        n_words=measured.n_words,
        n_tokens=sum(known) if len(known) == len(tokens) else None,
        context_dependent_turns=measured.context_dependent_turns,
        self_rouge=measured.self_rouge,
    )


def _pairs(
    seed: Seed,
    ended: Mapping[Branch, DialogueState],
    dialogues: Mapping[Branch, Dialogue],
    comparisons: Sequence[Comparison],
    perturb: PerturbSettings | None,
) -> list[Record]:
    """The pair of the two branches with its verdicts, or nothing.

    There is no pair when a branch failed, when every perturbation missed (or, with `require_landed`, none
    is known to have landed), or when the answers came out the same.
    """
    if "chosen" not in ended or any(dialogue.status == "failed" for dialogue in dialogues.values()):
        return []
    wanted = ("landed",) if perturb is not None and perturb.require_landed else ("landed", "unchecked")
    contrasts = sum(alteration.verdict in wanted for alteration in ended["rejected"].get("alterations", []))
    sides = messages_of(ended["chosen"]), messages_of(ended["rejected"])
    divergent = first_divergent_turn(*sides)
    if contrasts == 0 or divergent is None:
        return []
    chosen, rejected = dialogues["chosen"], dialogues["rejected"]
    pair = Pair(
        pair_id=pair_id(chosen.dialogue_id, rejected.dialogue_id, "music"),
        campaign_id=chosen.campaign_id,
        method="music",
        chosen_id=chosen.dialogue_id,
        rejected_id=rejected.dialogue_id,
        first_divergent_turn=divergent,
        n_contrast_turns=contrasts,
        label_source="construction",
        intended_label="chosen",
        judged_label=judged_label(comparisons),
        split=seed.split,
        similarity=similarity(*_own_texts(ended)),
        length_ratio=length_ratio(*sides),
    )
    return [pair, *(comparison_row(pair.pair_id, comparison) for comparison in comparisons)]


def _own_texts(ended: Mapping[Branch, DialogueState]) -> list[list[Message]]:
    """What the chosen and the rejected side wrote for themselves: turns that one took over from the other left out."""
    spoken = zip_longest(ended["chosen"].get("said", []), ended["rejected"].get("said", []))
    own = [said for said in spoken if said[0] != said[1]]
    return [[said.message for said in side if said is not None] for side in zip(*own, strict=True)]


def judged_label(comparisons: Sequence[Comparison]) -> str | None:
    """The judges' majority, each judge's two orders settled first; `tie` when there is none, null when nobody could say."""
    by_judge: dict[int, list[str]] = {}
    for comparison in comparisons:
        by_judge.setdefault(comparison.judge_index, []).append(comparison.opinion.verdict)
    labels = [settled(*verdicts) for verdicts in by_judge.values() if len(verdicts) == 2]
    return majority(labels)


def comparison_row(pair: str, comparison: Comparison, *, rubric: str = "compare") -> Judgement:
    """A judge's verdict on a pair, in one order."""
    opinion = comparison.opinion
    return Judgement(
        judgement_id=judgement_id(LABEL_SET, pair, None, comparison.judge_index, comparison.presentation),
        label_set=LABEL_SET,
        pair_id=pair,
        judge_model=comparison.judge,
        rubric=rubric,
        presentation=comparison.presentation,
        verdict=opinion.verdict,
        rationale=opinion.rationale,
        raw=opinion.raw,
        call_id=opinion.call_id,
        judge=opinion.judge,
        error=opinion.error,
    )
