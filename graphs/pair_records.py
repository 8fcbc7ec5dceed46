"""From the pairs of a dialogue to records: for each a dialogue that ends on the chosen answer and one that ends on the rejected.

The conversation is the dialogue of branch `main`. Both sides of a pair share its turns up to the two answers; a side that
the conversation went on from is that very turn. Samples that stand in no pair are dialogues of branch `candidate`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from configs.pairing_settings import Method
from graphs.best_of_n import Candidate
from graphs.outcome import Outcome, comparison_row, dialogue_row, stats_row
from graphs.place import Made
from graphs.state import Comparison, DialogueState, Said, messages_of
from store.identity import dialogue_id, judgement_id, pair_id, perturbation_id, turn_id
from store.pairs import first_divergent_turn, length_ratio, similarity
from store.records import Branch, Dialogue, Judgement, Pair, Perturbation, Record, Score, Seed, Turn

EDIT = "rmboost_edit"
"""The kind of perturbation that RMBoost's second answer is."""
Side = Literal["chosen", "rejected"]
ASPECT = "aspect: "
"""How the rubric of a verdict on one aspect begins."""


def with_pairs(
    outcome: Outcome,
    state: DialogueState,
    made: Sequence[Made],
    seed: Seed,
    method: Method,
    *,
    fit_id: str | None = None,
) -> Outcome:
    """The outcome of a conversation with its pairs; they stand before its own row, which comes last.

    Args:
        fit_id: of the reward model whose scores the pairs carry.
    """
    main = outcome.records[-1]
    assert isinstance(main, Dialogue), "a dialogue's row closes what belongs to it"
    turns = {record.turn_id: record for record in outcome.records if isinstance(record, Turn)}
    conversation = _Conversation(main, [turns[identity] for identity in main.turn_ids], state, seed, method)
    records: list[Record] = []
    for pair in made:
        records += conversation.pair(pair, fit_id)
    own = [conversation.edited.get(r.turn_id, r) if isinstance(r, Turn) else r for r in outcome.records[:-1]]
    return outcome._replace(records=[*own, *records, main])


class _Conversation:
    """The dialogue that pairs hang on."""

    def __init__(self, main: Dialogue, path: Sequence[Turn], state: DialogueState, seed: Seed, method: Method) -> None:
        self.main = main
        self.path = path
        self.said = [*state["seed"], *state.get("said", [])]
        self.seed = seed
        self.method = method
        self.edited: dict[str, Turn] = {}
        """Turns of the conversation that are second answers, with their perturbation."""

    def pair(self, made: Made, fit_id: str | None) -> list[Record]:
        """Both sides with what was done to them and said of them, and the pair."""
        answers: dict[Side, Said] = {"chosen": made.chosen, "rejected": made.rejected}
        states = {branch: self._state(made, said, branch) for branch, said in answers.items()}
        sides: dict[Side, Dialogue] = {}
        records: list[Record] = []
        for branch, said in answers.items():
            state, is_second = states[branch], made.second == branch
            turn, is_own = self._turn(made, said, state["dialogue_id"], is_edit=is_second)
            sides[branch] = self._dialogue(branch, state, turn)
            records += [*([turn] if is_own else []), stats_row(sides[branch], state), sides[branch]]
            if is_second:
                records.append(self._edit(made, state["dialogue_id"], turn))
        contents = messages_of(states["chosen"]), messages_of(states["rejected"])
        divergent = first_divergent_turn(*contents)
        assert divergent is not None, "answers that are the same make no pair"
        pair = Pair(
            pair_id=pair_id(sides["chosen"].dialogue_id, sides["rejected"].dialogue_id, self.method),
            campaign_id=self.main.campaign_id,
            method=self.method,
            chosen_id=sides["chosen"].dialogue_id,
            rejected_id=sides["rejected"].dialogue_id,
            first_divergent_turn=divergent,
            n_contrast_turns=int(made.second == "rejected" and made.verdict != "missed"),
            aspects=made.aspects,
            label_source=made.label_source,
            intended_label="chosen" if made.intended else None,
            judged_label=made.judged_label,
            split=self.seed.split,
            margin=made.margin,
            similarity=similarity(*contents),
            length_ratio=length_ratio(*contents),
        )
        verdicts = [row for comparison in made.comparisons for row in _verdicts(pair.pair_id, comparison)]
        return [*records, *self._candidates(made, states, fit_id), pair, *verdicts]

    def _state(self, made: Made, said: Said, branch: str) -> DialogueState:
        """A side as a dialogue that took over the conversation up to its last answer."""
        name = " ".join(filter(None, (branch, str(made.depth), made.key)))
        return {
            "campaign_id": self.main.campaign_id,
            "dialogue_id": dialogue_id(self.main.campaign_id, self.main.seed_id, name, self.main.trial),
            "seed": self.said[: made.depth],
            "said": [said],
            "termination_reason": "max_turns",
        }

    def _turn(self, made: Made, said: Said, writer: str, *, is_edit: bool) -> tuple[Turn, bool]:
        """The turn of a side's answer, and whether it is its own: not where the conversation has it already."""
        there = self.path[made.depth] if made.depth < len(self.path) else None
        edit = perturbation_id(writer, made.depth, EDIT) if is_edit else None
        if there is not None and self.said[made.depth] == said:
            if edit is None:
                return there, False
            self.edited[there.turn_id] = there.model_copy(update={"perturbation_id": edit})
            return self.edited[there.turn_id], False
        before = self.path[made.depth - 1]
        turn = Turn(
            turn_id=turn_id(before.turn_id, writer, made.depth),
            parent_id=before.turn_id,
            campaign_id=self.main.campaign_id,
            seed_id=self.seed.seed_id,
            depth=made.depth,
            role=said.message.role,
            content=said.message.content,
            agent=said.agent,
            call_id=said.call_id,
            perturbation_id=edit,
        )
        return turn, True

    def _dialogue(self, branch: Branch, state: DialogueState, turn: Turn) -> Dialogue:
        turns = [*self.path[: turn.depth], turn]
        return dialogue_row(
            self.seed, self.main.trial, branch, state, turns, self.main.prompt_hashes, self.main.dialogue_id
        )

    def _edit(self, made: Made, writer: str, turn: Turn) -> Perturbation:
        """What the second answer was written for, and what became of it."""
        assert made.drawn is not None, "a second answer has its label"
        judges = dict.fromkeys(comparison.opinion.judge for comparison in made.comparisons)
        return Perturbation(
            perturbation_id=turn.perturbation_id or "",
            dialogue_id=writer,
            turn_id=turn.turn_id,
            kind=EDIT,
            instruction=self.said[made.depth - 1].message.content,
            altered_instruction=None,
            direction=made.drawn.direction,
            aspects=made.aspects,
            plan=made.plan,
            verdict=made.verdict,
            verdict_source=", ".join(judges) if made.verdict != "unchecked" else None,
            attempts=made.attempts,
        )

    def _candidates(self, made: Made, states: Mapping[Side, DialogueState], fit_id: str | None) -> list[Record]:
        """The reward of every sample, and those that stand in no pair as dialogues of their own."""
        if not made.candidates or fit_id is None:
            return []
        sides = {made.chosen: states["chosen"]["dialogue_id"], made.rejected: states["rejected"]["dialogue_id"]}
        records: list[Record] = []
        for candidate in made.candidates:
            owner = sides.get(candidate.said)
            if owner is None:
                state = self._state(made, candidate.said, f"candidate {candidate.ordinal}")
                state["termination_reason"] = _fate(candidate)
                turn, is_own = self._turn(made, candidate.said, state["dialogue_id"], is_edit=False)
                dialogue, owner = self._dialogue("candidate", state, turn), state["dialogue_id"]
                records += [*([turn] if is_own else []), stats_row(dialogue, state), dialogue]
            if candidate.reward is not None:
                records.append(Score(fit_id=fit_id, dialogue_id=owner, reward=candidate.reward))
        return records


def _fate(candidate: Candidate) -> str:
    return "not_picked" if candidate.fate == "picked" else candidate.fate


def _verdicts(pair: str, comparison: Comparison) -> list[Judgement]:
    """A judge's verdict in one order, overall and on each aspect."""
    overall = comparison_row(pair, comparison, rubric="prefer")
    return [
        overall,
        *(
            overall.model_copy(
                update={
                    "judgement_id": judgement_id(
                        overall.label_set,
                        pair,
                        None,
                        f"{comparison.judge_index}, {aspect}",
                        comparison.presentation,
                    ),
                    "rubric": f"{ASPECT}{aspect}",
                    "verdict": verdict,
                }
            )
            for aspect, verdict in comparison.opinion.aspects
        ),
    ]
