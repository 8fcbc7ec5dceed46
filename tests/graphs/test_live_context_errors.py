"""Errors of context in running conversations: where they fall, and that the conversation goes on from them."""

import random
from pathlib import Path
from typing import Any

import pytest

from configs.errors import DescantError
from configs.load import load
from configs.settings import CONTEXT_KINDS, CampaignSettings, PerturbationKind, PerturbSettings
from graphs.campaign import run_campaign
from graphs.schedule import without_history
from graphs.seeds import load_seeds
from store.context import context_dependent
from store.database import query
from tests.graphs.conftest import Play, Played, seed_of
from tests.scripted import said

POINTING, STANDING = "Why is it like that?", "What is the capital city of France?"
ALL = ["music_contrast", *CONTEXT_KINDS]


def asking(*queries: str) -> dict[str, Any]:
    left = iter(queries)
    return {"ask": lambda _: next(left)}


def perturbed_at(played: Played) -> list[tuple[int, str]]:
    """Which answers (from 0) are perturbed, and how."""
    return [((played.turns[p.turn_id].depth - 1) // 2, p.kind) for p in played.perturbations]


@pytest.mark.parametrize("kind", CONTEXT_KINDS)
@pytest.mark.parametrize("recipe", ["dialogue", "music"])
def test_the_conversation_goes_on_from_an_error_of_context(play: Play, kind: str, recipe: str) -> None:
    perturb = {"kinds": [kind], "schedule": "one", "verify": True}
    played = play(recipe=recipe, turns=4, perturb=perturb, trial=1)
    branch = "main" if recipe == "dialogue" else "rejected"
    (perturbation,) = played.perturbations
    depth = played.turns[perturbation.turn_id].depth
    texts = played.texts(branch)
    assert len(texts) == 8
    assert (perturbation.kind, perturbation.verdict, depth > 1) == (kind, "landed", True)
    assert perturbation.instruction == texts[depth - 1]
    altered = {"context_neglect": texts[depth - 1], "context_hallucination": "a guess of 1"}
    assert texts[depth] == f"answer to <{altered.get(kind, 'a misreading of 1')}>"
    later = [prompt for prompt in played.prompts("ask", branch) if texts[depth] in prompt]
    assert len(later) >= (7 - depth) // 2
    assert [j.rubric for j in played.judgements] == ["verify_context"]


def test_schedule_context_perturbs_exactly_the_answers_to_dependent_queries(play: Play) -> None:
    perturb = {"kinds": ["context_hallucination"], "schedule": "context"}
    queries = asking(STANDING, POINTING, STANDING, POINTING)
    played = play(recipe="dialogue", turns=5, perturb=perturb, parts=queries)
    assert perturbed_at(played) == [(2, "context_hallucination"), (4, "context_hallucination")]
    assert play(recipe="dialogue", turns=1, perturb=perturb).perturbations == []


@pytest.mark.parametrize("share", ["trunk", "rest"])
def test_branches_that_share_text_are_perturbed_at_dependent_queries_too(play: Play, share: str) -> None:
    perturb = {"kinds": ["context_misunderstanding"], "schedule": "context", "share": share}
    played = play(recipe="music", turns=4, perturb=perturb, parts=asking(STANDING, *[POINTING] * 9))
    assert perturbed_at(played) == [(2, "context_misunderstanding"), (3, "context_misunderstanding")]
    assert played.pairs[0].first_divergent_turn == 3
    nothing = play(recipe="music", turns=3, perturb=perturb, parts=asking(*[STANDING] * 9))
    assert (nothing.perturbations, nothing.pairs) == ([], [])
    assert nothing.texts("chosen") == nothing.texts("rejected")


@pytest.mark.parametrize("schedule", ["every", "one", "last", {"bernoulli": 0.4}])
@pytest.mark.parametrize("kinds", [["context_neglect"], [*CONTEXT_KINDS], ALL])
def test_an_error_of_context_never_falls_on_an_answer_without_history(play: Play, schedule: Any, kinds: Any) -> None:
    for trial in range(6):
        played = play(recipe="dialogue", turns=3, perturb={"schedule": schedule, "kinds": kinds}, trial=trial)
        found = perturbed_at(played)
        assert found
        assert all(place > 0 or kind == "music_contrast" for place, kind in found)


def test_a_seed_with_an_answer_is_history_enough(play: Play) -> None:
    seed = seed_of(said("user", "a"), said("assistant", "b"), said("user", "c"))
    played = play(recipe="dialogue", turns=1, perturb={"kinds": ["context_neglect"]}, seed=seed)
    assert [p.kind for p in played.perturbations] == ["context_neglect"]
    alone = play(recipe="dialogue", turns=1, perturb={"kinds": ["context_neglect"]})
    assert alone.perturbations == []


@pytest.mark.parametrize("share", ["trunk", "rest"])
def test_a_branch_cut_short_is_not_perturbed_where_it_has_no_history(play: Play, share: str) -> None:
    perturb = {"kinds": ["context_neglect"], "schedule": "last", "share": share}
    played = play(recipe="music", turns=5, perturb=perturb, parts={"ask": lambda _: "[END]"})
    assert (played.perturbations, played.pairs, played.outcome.done) == ([], [], 2)


@pytest.mark.parametrize(
    ("kinds", "first", "answers"),
    [
        (("context_neglect",), [0], {1, 2}),
        (("context_neglect",), [0, 2], {2}),
        (("context_neglect", "music_contrast"), [0, 2], {0, 2}),
    ],
)
def test_what_falls_on_the_first_answer_is_shifted(
    kinds: tuple[PerturbationKind, ...], first: list[int], answers: set[int]
) -> None:
    settings = PerturbSettings(kinds=kinds)
    drawn = [without_history(settings, first, ["context_neglect"] * 3, random.Random(n)) for n in range(20)]
    assert {answer for one in drawn for answer in one.answers} == answers
    assert {one.kinds[0] for one in drawn} == {"music_contrast" if 0 in answers else "context_neglect"}
    assert all(one.answers for one in drawn)


def test_contrasts_alone_are_drawn_as_ever() -> None:
    generator = random.Random(3)
    before = generator.getstate()
    drawn = without_history(PerturbSettings(), [0, 2], ["music_contrast"] * 3, generator)
    assert (drawn.answers, generator.getstate()) == ([0, 2], before)


def test_the_one_prompt_of_music_makes_no_errors_of_context() -> None:
    with pytest.raises(DescantError, match="altered_by: assistant is MUSIC's one prompt"):
        load(
            "dialogue", CampaignSettings, overrides=["perturb.altered_by=assistant", "perturb.kinds=[context_neglect]"]
        )


def test_mixed_kinds_in_a_campaign_of_the_rehearsal(tmp_path: Path) -> None:
    given = ["turns=4", "seeds.limit=8", f"perturb.kinds={ALL}", "perturb.verify=true", "seeds.format=rehearsal"]
    settings = load("dialogue", CampaignSettings, overrides=[*given, "perturb.schedule=context"])
    report = run_campaign(settings, load_seeds(settings).seeds, tmp_path / "corpus.duckdb")
    assert (report.done, report.failed) == (8, 0)
    rows = query(
        tmp_path / "corpus.duckdb",
        "SELECT messages, list(depth) AS depths FROM transcripts JOIN perturbations USING (dialogue_id) "
        "JOIN turns ON turns.turn_id = perturbations.turn_id GROUP BY ALL",
    )
    kinds = query(tmp_path / "corpus.duckdb", "SELECT DISTINCT kind FROM perturbations")
    assert {row["kind"] for row in kinds} == set(ALL)
    for row in rows:
        messages = [said(message["role"], message["content"]) for message in row["messages"]]
        dependent = {
            depth
            for depth in range(1, len(messages), 2)
            if context_dependent(messages[: depth - 1], messages[depth - 1].content)
        }
        assert set(row["depths"]) == dependent
