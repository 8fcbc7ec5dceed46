"""From the negatives of a `capo` seed to records: branches of one trunk, and their pairs.

The conversation is the dialogue of branch `main`. For each query with negatives one dialogue of branch `chosen` ends on
the answer that the conversation has, and shares all its turns; up to three of branch `rejected` share the turns before
that answer and end on one of their own. A negative that failed is a failed dialogue without an answer.
"""

from collections.abc import Sequence
from itertools import groupby

from configs.settings import PerturbSettings
from graphs.capo import CapoState, Found
from graphs.outcome import LABEL_SET, Outcome, chain, dialogue_row, perturbations_of, stats_row
from graphs.state import DialogueState, messages_of
from store.identity import dialogue_id, judgement_id, pair_id
from store.pairs import first_divergent_turn, length_ratio, similarity
from store.records import Dialogue, Judgement, Pair, Record, Seed, Turn

METHOD = "capo"


def with_negatives(outcome: Outcome, final: CapoState, seed: Seed, perturb: PerturbSettings) -> Outcome:
    """The outcome of a conversation with its negatives; they stand before its own row, which comes last."""
    main = outcome.records[-1]
    assert isinstance(main, Dialogue), "a dialogue's row closes what belongs to it"
    turns = {record.turn_id: record for record in outcome.records if isinstance(record, Turn)}
    path = [turns[identity] for identity in main.turn_ids]
    records: list[Record] = [_finding(main, path, query) for query in final.get("found", []) if query.opinion]
    kinds = list(perturb.kinds)
    negatives = sorted(
        final.get("negatives", []), key=lambda state: (len(state["seed"]), kinds.index(state["kinds"][0]))
    )
    for depth, states in groupby(negatives, key=lambda state: len(state["seed"])):
        good = _chosen(final["main"], main, depth)
        chosen = dialogue_row(seed, main.trial, "chosen", good, path[: depth + 1], main.prompt_hashes, main.dialogue_id)
        records += [stats_row(chosen, good), chosen]
        for state in states:
            records += _rejected(state, good, chosen, main, seed, path[:depth], perturb)
    return outcome._replace(records=[*outcome.records[:-1], *records, main])


def _finding(main: Dialogue, path: Sequence[Turn], query: Found) -> Judgement:
    """What the judge found on a query, whether it got negatives or not."""
    opinion, turn = query.opinion, path[query.depth - 1]
    assert opinion is not None, "only an opinion is a finding"
    return Judgement(
        judgement_id=judgement_id(LABEL_SET, main.dialogue_id, turn.turn_id, 0, "single"),
        label_set=LABEL_SET,
        dialogue_id=main.dialogue_id,
        turn_id=turn.turn_id,
        judge_model=query.judge or "",
        rubric="depends",
        presentation="single",
        verdict=opinion.verdict,
        rationale=opinion.rationale,
        raw=opinion.raw,
        call_id=opinion.call_id,
        judge=opinion.judge,
        error=opinion.error,
    )


def _chosen(main_state: DialogueState, main: Dialogue, depth: int) -> DialogueState:
    """The conversation up to the answer at `depth`, all of it taken over."""
    return {
        "campaign_id": main.campaign_id,
        "dialogue_id": dialogue_id(main.campaign_id, main.seed_id, f"chosen {depth}", main.trial),
        "seed": [*main_state["seed"], *main_state.get("said", [])][: depth + 1],
        "termination_reason": "max_turns",
    }


def _rejected(
    state: DialogueState,
    good: DialogueState,
    chosen: Dialogue,
    main: Dialogue,
    seed: Seed,
    before: Sequence[Turn],
    perturb: PerturbSettings,
) -> list[Record]:
    """One negative: its turn, what was done to it and said of it, its dialogue, and the pair where it makes one."""
    own = chain(state, seed, before[-1].turn_id, writer=state["dialogue_id"], start=len(before), stop=None)
    dialogue = dialogue_row(seed, main.trial, "rejected", state, [*before, *own], main.prompt_hashes, main.dialogue_id)
    records: list[Record] = [*own, *perturbations_of(state, own, first_depth=len(before)), stats_row(dialogue, state)]
    wanted = ("landed",) if perturb.require_landed else ("landed", "unchecked")
    lands = any(alteration.verdict in wanted for alteration in state.get("alterations", []))
    sides = messages_of(good), messages_of(state)
    divergent = first_divergent_turn(*sides)
    if dialogue.status == "failed" or not lands or divergent is None:
        return [*records, dialogue]
    pair = Pair(
        pair_id=pair_id(chosen.dialogue_id, dialogue.dialogue_id, METHOD),
        campaign_id=main.campaign_id,
        method=METHOD,
        chosen_id=chosen.dialogue_id,
        rejected_id=dialogue.dialogue_id,
        first_divergent_turn=divergent,
        n_contrast_turns=1,
        label_source="construction",
        intended_label="chosen",
        split=seed.split,
        similarity=similarity(*sides),
        length_ratio=length_ratio(*sides),
    )
    return [*records, dialogue, pair]
