"""Records to store: one of every kind, and a small corpus with a perturbed pair."""

from collections.abc import Sequence
from datetime import UTC, datetime

from store.identity import content_hash, dialogue_id, pair_id, perturbation_id, seed_id, split_of, turn_id
from store.records import (
    Branch,
    Call,
    Campaign,
    Caught,
    Dialogue,
    DialogueStats,
    Fit,
    Judgement,
    Label,
    Message,
    MessageRole,
    MethodStats,
    Metric,
    Pair,
    PairStats,
    Perturbation,
    Record,
    Score,
    Seed,
    Turn,
)

NOW = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
BRANCHES: tuple[Branch, Branch] = ("chosen", "rejected")
NASTY = 'quotes " \' and \\ slashes, a\ttab, a\nline, NUL \x00, é, 漢字, 🎼, \u2028 and "}\n{"t":"turns"'


def campaign(identity: str = "camp_a", **changes: object) -> Campaign:
    fields: dict[str, object] = {
        "campaign_id": identity,
        "name": "first",
        "recipe": "music",
        "config": {"turns": 5, "models": {"default": {"model": "rehearsal/default", "top_p": None}}, "list": [1, 2.5]},
        "config_hash": "abc",
        "version": "0.1.0",
        "status": "running",
        "created_at": NOW,
    }
    return Campaign.model_validate(fields | changes)


def call(identity: str = "call_a", **changes: object) -> Call:
    fields: dict[str, object] = {
        "call_id": identity,
        "request_hash": "r1",
        "campaign_id": "camp_a",
        "dialogue_id": "dlg_a",
        "agent": "user",
        "purpose": "ask",
        "ordinal": 0,
        "model": "rehearsal/default",
        "messages": (Message(role="system", content="Task: ASK"), Message(role="user", content=NASTY)),
        "parameters": {"temperature": 0.7, "stop": ["a"]},
        "response": NASTY,
        "finish_reason": "stop",
        "status": "done",
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "cost_usd": 0.25,
        "latency_ms": 12.5,
        "attempts": 1,
        "created_at": NOW,
    }
    return Call.model_validate(fields | changes)


def turn(number: int, **changes: object) -> Turn:
    fields: dict[str, object] = {
        "turn_id": f"turn_{number:08d}",
        "parent_id": None,
        "campaign_id": "camp_a",
        "seed_id": "seed_a",
        "depth": 0,
        "role": "user",
        "content": f"turn number {number}",
        "agent": "user",
        "call_id": None,
    }
    return Turn.model_validate(fields | changes)


def one_of_each() -> list[Record]:
    """Every field filled somewhere, every optional field null somewhere."""
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=NASTY))
    return [
        campaign(),
        campaign("camp_b", finished_at=NOW, n_seeds=7, status="done", config={}),
        Seed(seed_id="seed_a", source="a.jsonl", messages=messages, metadata={"id": 1, "task": "GR"}, split="train"),
        Seed(seed_id="seed_b", source="rehearsal", messages=messages[1:], split="test"),
        turn(1),
        turn(2, parent_id="turn_00000001", role="assistant", content=NASTY, call_id="call_a", perturbation_id="pert_a"),
        Dialogue(
            dialogue_id="dlg_a",
            campaign_id="camp_a",
            seed_id="seed_a",
            branch="main",
            trial=2,
            persona={"name": "Ilse", "traits": ["curt"]},
            prompt_hashes={"ask": "h1"},
            forked_from="dlg_0",
            turn_ids=("turn_00000001", "turn_00000002"),
            n_turns=1,
            status="done",
            termination_reason="max_turns",
        ),
        Dialogue(
            dialogue_id="dlg_b",
            campaign_id="camp_a",
            seed_id="seed_a",
            branch="rejected",
            trial=0,
            prompt_hashes={},
            turn_ids=(),
            n_turns=0,
            status="failed",
            termination_reason="timeout",
            error="no answer in 120 s",
        ),
        Perturbation(
            perturbation_id="pert_a",
            dialogue_id="dlg_a",
            turn_id="turn_00000002",
            kind="music_contrast",
            instruction="Name three rivers.",
            altered_instruction="Name three lakes.",
            direction="worse",
            aspects=("accuracy", "coverage"),
            plan="swap the noun",
            strength=0.5,
            verdict="landed",
            verdict_source="rehearsal/judge",
            attempts=2,
        ),
        Perturbation(
            perturbation_id="pert_b",
            dialogue_id="dlg_a",
            turn_id="turn_00000001",
            kind="music_contrast",
            instruction="x",
            altered_instruction=None,
            verdict="unchecked",
        ),
        Caught(
            catch_id="catch_a",
            campaign_id="camp_a",
            dialogue_id="dlg_a",
            depth=2,
            attempt=1,
            reason="leak",
            source="rule",
            content=NASTY,
            call_id="call_a",
            outcome="asked_again",
        ),
        Label(
            label_id="label_a",
            campaign_id="camp_a",
            dialogue_id="dlg_a",
            depth=3,
            direction="worse",
            aspects=("factuality", NASTY),
            created_at=NOW,
        ),
        call(),
        call("call_b", status="started", messages=None, response=None, prompt_tokens=None, cost_usd=None, error="boom"),
        Pair(
            pair_id="pair_a",
            campaign_id="camp_a",
            method="music",
            chosen_id="dlg_a",
            rejected_id="dlg_b",
            first_divergent_turn=1,
            n_contrast_turns=2,
            aspects=("style",),
            label_source="construction",
            intended_label="chosen",
            judged_label="tie",
            split="validation",
            margin=0.5,
            similarity=0.25,
            length_ratio=1.5,
        ),
        PairStats(pair_id="pair_a", chosen_words=12, rejected_words=0, distinct_1=0.5, distinct_2=None),
        MethodStats(
            campaign_id="camp_a",
            method="music",
            pairs=1,
            pairs_hash="p1",
            seeds=1,
            self_rouge=12.5,
            self_rouge_low=10.0,
            self_rouge_high=15.0,
            distinct_1=0.75,
            distinct_1_low=None,
            distinct_1_high=None,
            distinct_2=None,
            distinct_2_low=None,
            distinct_2_high=None,
            samples=1,
        ),
        Judgement(
            judgement_id="judg_a",
            label_set="first",
            pair_id="pair_a",
            dialogue_id="dlg_a",
            turn_id="turn_00000002",
            judge_model="rehearsal/judge",
            rubric="compare",
            presentation="chosen_first",
            verdict="chosen",
            score=7.0,
            rationale="better",
            raw=NASTY,
            call_id="call_a",
            judge="rehearsal/judge#2",
            error="no JSON object",
        ),
        Judgement(
            judgement_id="judg_b", label_set="first", judge_model="m", rubric="r", presentation="single", verdict="tie"
        ),
        DialogueStats(dialogue_id="dlg_a", n_words=12, n_tokens=30, context_dependent_turns=1, self_rouge=0.25),
        DialogueStats(dialogue_id="dlg_b", n_words=0),
        Fit(
            fit_id="fit_a",
            name="tiny",
            objective="reward",
            arm="music",
            config={"steps": 3},
            data_card={"pairs": 10},
            checkpoint="models/tiny",
            status="done",
            created_at=NOW,
        ),
        Metric(fit_id="fit_a", name="accuracy", slice="all", value=0.75, low=0.5, high=0.9, n=10, step=3),
        Metric(fit_id="fit_a", name="loss", slice="all", value=float("inf")),
        Score(fit_id="fit_a", dialogue_id="dlg_a", reward=-1.5),
        Score(fit_id="fit_a", dialogue_id="dlg_a", turn_id="turn_00000002", reward=2.0),
    ]


def corpus(n_pairs: int = 3, *, campaign_id: str = "camp_a", last_only: bool = False) -> list[Record]:
    """A campaign of pairs with two answers a side; they share the first user turn, or all but the last answer."""
    records: list[Record] = [campaign(campaign_id, status="done", finished_at=NOW)]
    for number in range(n_pairs):
        opening = (Message(role="user", content=f"Tell me about river {number}."),)
        seed = Seed(seed_id=seed_id(opening, 0), source="s.jsonl", messages=opening, split=split_of(opening))
        records.append(seed)
        sides: list[str] = []
        trunk: list[Turn] = []
        for branch in BRANCHES:
            path, made = _play(campaign_id, seed, branch, trunk)
            records += made
            trunk = trunk or path[: 3 if last_only else 1]
            sides.append(dialogue_id(campaign_id, seed.seed_id, branch, 0))
        records.append(
            Pair(
                pair_id=pair_id(sides[0], sides[1], "music"),
                campaign_id=campaign_id,
                method="music",
                chosen_id=sides[0],
                rejected_id=sides[1],
                first_divergent_turn=2 if last_only else 1,
                n_contrast_turns=1,
                label_source="construction",
                intended_label="chosen",
                split=seed.split,
            )
        )
    return records


def _play(campaign_id: str, seed: Seed, branch: Branch, trunk: list[Turn]) -> tuple[list[Turn], list[Record]]:
    identity = dialogue_id(campaign_id, seed.seed_id, branch, 0)
    roles: tuple[MessageRole, ...] = ("user", "assistant", "user", "assistant")
    texts = (seed.messages[0].content, f"{branch} answer one", "And then?", f"{branch} answer two")
    path = list(trunk)
    records: list[Record] = []
    for depth in range(len(path), 4):
        parent = path[-1].turn_id if path else None
        perturbed = perturbation_id(identity, depth, "music_contrast") if branch == "rejected" and depth == 3 else None
        made = Turn(
            turn_id=turn_id(parent, identity, depth),
            parent_id=parent,
            campaign_id=campaign_id,
            seed_id=seed.seed_id,
            depth=depth,
            role=roles[depth],
            content=texts[depth],
            agent="seed" if depth == 0 else roles[depth],
            call_id=None,
            perturbation_id=perturbed,
        )
        path.append(made)
        records.append(made)
        if perturbed is not None:
            records.append(
                Perturbation(
                    perturbation_id=perturbed,
                    dialogue_id=identity,
                    turn_id=made.turn_id,
                    kind="music_contrast",
                    instruction="And then?",
                    altered_instruction="And before?",
                    verdict="landed",
                    verdict_source="rehearsal/judge",
                )
            )
    records.append(
        Dialogue(
            dialogue_id=identity,
            campaign_id=campaign_id,
            seed_id=seed.seed_id,
            branch=branch,
            trial=0,
            prompt_hashes={"ask": content_hash("ask")},
            turn_ids=tuple(turn.turn_id for turn in path),
            n_turns=2,
            status="done",
            termination_reason="max_turns",
        )
    )
    records.append(DialogueStats(dialogue_id=identity, n_words=sum(len(text.split()) for text in texts)))
    return path, records


def pair_corpus(lengths: Sequence[tuple[int, int]], campaign_id: str = "camp_pairs") -> tuple[list[Record], list[str]]:
    """A campaign of pairs whose sides are one answer of so many characters each (chosen, rejected); and the pairs' ids."""
    records: list[Record] = [campaign(campaign_id)]
    pairs: list[str] = []
    for number, characters in enumerate(lengths):
        messages = (Message(role="user", content=f"Question {number}?"),)
        seed = Seed(seed_id=seed_id(messages, 0), source="s", messages=messages, split=split_of(messages))
        opening = Turn(
            turn_id=turn_id(None, seed.seed_id, 0),
            parent_id=None,
            campaign_id=campaign_id,
            seed_id=seed.seed_id,
            depth=0,
            role="user",
            content=messages[0].content,
            agent="seed",
            call_id=None,
        )
        records += [seed, opening]
        sides = []
        for branch, length in zip(BRANCHES, characters, strict=True):
            identity = dialogue_id(campaign_id, seed.seed_id, branch, 0)
            text = f"{branch} {number} ".ljust(length, "x")[:length]
            answer = opening.model_copy(
                update={
                    "turn_id": turn_id(opening.turn_id, identity, 1),
                    "parent_id": opening.turn_id,
                    "depth": 1,
                    "role": "assistant",
                    "content": text,
                    "agent": "assistant",
                }
            )
            records += [
                answer,
                Dialogue(
                    dialogue_id=identity,
                    campaign_id=campaign_id,
                    seed_id=seed.seed_id,
                    branch=branch,
                    trial=0,
                    prompt_hashes={},
                    turn_ids=(opening.turn_id, answer.turn_id),
                    n_turns=1,
                    status="done",
                    termination_reason="max_turns",
                ),
            ]
            sides.append(identity)
        pairs.append(pair_id(sides[0], sides[1], "music"))
        records.append(
            Pair(
                pair_id=pairs[-1],
                campaign_id=campaign_id,
                method="music",
                chosen_id=sides[0],
                rejected_id=sides[1],
                first_divergent_turn=1,
                n_contrast_turns=1,
                label_source="construction",
                intended_label="chosen",
                split=seed.split,
            )
        )
    return records, pairs
