"""Parrot's lab: what the oracle's grades become, what is claimed and told, and a miniature of the whole."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.lab_settings import ParrotLabSettings
from configs.load import ConfigError, load
from configs.settings import CONTEXT_KINDS, ContextKind
from lab.comparison import Wins
from lab.material import at_turn
from lab.parrot import NO_CAPO, SPREAD, STAGE, ParrotLabResult, Trained, claims, run_parrot_lab, sft_arms
from lab.parrot_material import (
    ALL,
    ALONE,
    DEPENDENT,
    EARLY,
    ERRORS,
    LATER,
    OWN,
    answers_to_others,
    graded,
    own_turn,
    pairs_of_errors,
    questions,
    rejecting,
)
from lab.parrot_page import PAPER, as_json, limits, page, plot
from lab.tables import WIDTH
from store.records import Message, PreferencePair

TALK = (
    "Call me Ilse. Belo is red and big. Kira is blue and big. What is the colour of Kira?",
    "It is blue, Ilse.",
    "And Belo?",
    "It is red, Ilse.",
    "Belo is small now. What is the size of Belo?",
    "It is small, Ilse.",
)


def say(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role=("user", "assistant")[n % 2], content=text) for n, text in enumerate(texts))


def pair(number: int, kind: ContextKind = "context_neglect", answer: str = "") -> PreferencePair:
    chosen = say("Call me Ilse. Belo is red. What is its colour?", "It is red, Ilse.", "And now?", f"It is {number}.")
    rejected = (*chosen[:-1], Message(role="assistant", content=answer or kind))
    return PreferencePair(f"pair_{number}_{kind}", chosen, rejected, "train", "capo", 2, 2, kinds=(kind,))


def contrast(number: int) -> dict[ContextKind, PreferencePair]:
    return {kind: pair(number, kind) for kind in CONTEXT_KINDS}


# grades


def test_an_answer_counts_by_its_turn_by_its_query_and_by_what_is_wrong_in_it() -> None:
    found = graded([say(*TALK)], [["It is blue, Ilse."], ["It is blue, Ilse."], ["Ilse, it is small."]])
    assert [found[at_turn(turn)] for turn in (1, 2, 3)] == [[1.0], [0.0], [1.0]]
    assert (found[EARLY], found[LATER], found[ALL]) == ([1.0, 0.0], [1.0], [1.0, 0.0, 1.0])
    assert found[DEPENDENT] == [0.0]  # `And Belo?` alone
    assert found[ALONE] == [1.0, 1.0]
    assert OWN not in found


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("I do not know that.", "neglected"),
        ("It is blue, Ilse.", "misread"),  # the other thing's
        ("It is big, Ilse.", "misread"),  # another attribute
        ("It is red, Omar.", "standing"),
        ("What a day!", "unreadable"),
        ("", "unreadable"),
        ("It is red, Ilse.", None),
    ],
)
def test_each_fault_has_the_papers_name(answer: str, error: str | None) -> None:
    found = graded([say(*TALK)], [["It is blue, Ilse."], [answer]])
    assert {name for name in ERRORS if found[name][1]} >= ({error} if error else set())
    assert [name for name in ("neglected", "misread", "unreadable") if found[name][1] and name != error] == []
    assert found["turn 2"] == [float(error is None)]


def test_a_fact_that_nobody_told_is_invented_and_one_that_held_before_is_misread() -> None:
    invented = graded([say(*TALK[:3])], [["It is blue, Ilse."], ["It is red, Ilse."]])
    assert invented["invented"] == [0.0, 0.0]
    lone = say("Call me Ilse. Belo is red. What is its colour?", "It is red, Ilse.", *TALK[4:])
    found = graded([lone], [["It is blue, Ilse."], ["It is big, Ilse."]])
    assert found["invented"] == [1.0, 1.0]
    stale = say("Call me Ilse. Belo is red and big. What is its size?", "It is big, Ilse.", *TALK[4:])
    assert graded([stale], [["It is big, Ilse."], ["It is big, Ilse."]])["misread"] == [0.0, 1.0]


def test_answers_after_the_models_own_history_are_cells_of_their_own() -> None:
    found = graded([say(*TALK)], [["It is blue, Ilse."]], [["It is blue, Ilse."], ["It is blue, Ilse."]])
    assert found[OWN] == [1.0, 0.0]
    assert found[own_turn(2)] == [0.0]
    assert found[ALL] == [1.0]


def test_a_question_is_the_conversation_up_to_the_users_message() -> None:
    assert questions([say(*TALK)], 2) == [say(*TALK)[:3]]


# pairs


def test_all_three_errors_share_the_queries_that_each_alone_has() -> None:
    contrasts = [contrast(number) for number in range(4)]
    alone = pairs_of_errors("hallucination", contrasts)
    together = pairs_of_errors("all_three", contrasts)
    assert [one.kinds for one in alone] == [("context_hallucination",)] * 4
    assert [one.kinds[0] for one in together] == [*CONTEXT_KINDS, CONTEXT_KINDS[0]]
    assert [one.chosen for one in together] == [one.chosen for one in alone]


def test_controls_reject_other_answers_to_the_same_queries_and_never_the_chosen_one() -> None:
    chosen = [pair(number) for number in range(4)]
    others = answers_to_others(chosen)
    assert others == ["It is 2.", "It is 3.", "It is 0.", "It is 1."]
    made = rejecting("arbitrary", chosen, ["It is 9.", "It is 1.", " ", "It is 9."])
    assert [one.rejected[-1].content for one in made] == ["It is 9.", "It is 9."]
    assert [one.chosen for one in made] == [chosen[0].chosen, chosen[3].chosen]
    assert all(one.rejected[:-1] == one.chosen[:-1] for one in made)


# claims and the page


def settings_of(*overrides: str) -> ParrotLabSettings:
    return load("parrot", ParrotLabSettings, overrides=overrides, folder="lab")


def result_of(shares: dict[str, float], *, errors: float = 0.2, n: int = 200) -> ParrotLabResult:
    """A lab in which each arm answers the same share of every cell right; 0.5 where none is named."""
    settings = settings_of()
    cells = [at_turn(turn) for turn in range(1, 9)] + [own_turn(turn) for turn in range(1, 9)]
    cells += [EARLY, LATER, ALL, OWN, DEPENDENT, ALONE]
    rows = []
    for arm in [STAGE, *sft_arms(settings), *settings.arms]:
        right = round(n * shares.get(arm, 0.5))
        wins = {cell: [1.0] * right + [0.0] * (n - right) for cell in cells}
        wins |= {error: [1.0] * round(n * errors) + [0.0] * (n - round(n * errors)) for error in ERRORS}
        rows += [Trained(seed, arm, f"fit {arm}", 10, 100, 1.0, wins) for seed in settings.random_seeds]
    return ParrotLabResult(settings, rows, 1.0)


def test_every_claim_of_the_paper_is_told_either_way() -> None:
    good = {"sft_1": 0.2, "sft_3": 0.3, "sft_5": 0.4, "sft_spread": 0.3, "more_sft": 0.5}
    good |= {"neglect": 0.6, "hallucination": 0.6, "misunderstanding": 0.6, "all_three": 0.8}
    verdicts = {claim.text: verdict for claim, _, verdict in result_of(good).findings()}
    assert verdicts.pop("misunderstanding alone costs on the first two turns") == "not reproduced"
    assert set(verdicts.values()) == {"reproduced"}
    assert len(verdicts) == len(claims(settings_of())) - 1 == 15
    bad = {arm: 1.0 - share for arm, share in good.items()}
    verdicts = {claim.text: verdict for claim, _, verdict in result_of(bad).findings()}
    assert verdicts.pop("misunderstanding alone costs on the first two turns") == "reproduced"
    assert set(verdicts.values()) == {"not reproduced"} | {"reproduced"} - {"reproduced"}


def test_a_claim_of_an_arm_that_is_left_out_is_not_made() -> None:
    few = settings_of("arms=[neglect]", "first=[3]")
    assert [claim.text for claim in claims(few)] == [
        "sft_all beats sft_3: more SFT turns are better",
        "neglect negatives alone help",
    ]
    assert SPREAD not in sft_arms(few)


def test_the_page_has_the_papers_figures_and_every_claim_in_80_columns(tmp_path: Path) -> None:
    result = result_of({"all_three": 0.75})
    text = page(result)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    rows = {line.split()[0]: line.split()[1:] for line in text.split("## By turn")[0].splitlines() if line}
    assert rows["all_three"] == ["75", "±3", "75", "±3", "7.04", "6.85"]
    assert rows["sft_3"] == ["50", "±4", "50", "±4", "6.14"]  # on MT-Bench the paper states none
    for claim in claims(result.settings):
        assert claim.text in text
    assert text.count("REPRODUCED: ") == len([f for f in result.findings() if f.verdict != "undecided"])
    told = as_json(result)
    assert {row["arm"] for row in told if "paper" in row} == set(PAPER)
    assert len([row for row in told if "claim" in row]) == len(claims(result.settings))
    plot(result, tmp_path / "a.png", tmp_path / "a.svg")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_what_leaves_nothing_to_mend_is_said() -> None:
    text = " ".join(limits(result_of({}, errors=0.0)))
    assert "hallucination cannot mend what is not broken" in text
    assert "50 % right" in text
    assert "there is room for CaPO" in text
    learned = " ".join(limits(result_of({NO_CAPO: 0.98, "neglect": 0.1})))
    assert "cannot mend" not in learned
    assert "little room left" in learned
    assert "cost accuracy on all turns in: neglect" in learned


def test_one_random_seed_decides_nothing() -> None:
    whole = result_of({"all_three": 1.0})
    one = whole._replace(arms=[row for row in whole.arms if row.random_seed == 0])
    assert {finding.verdict for finding in one.findings()} == {"undecided"}


def test_the_presets_are_valid_and_what_makes_no_sense_is_refused() -> None:
    assert load("parrot-quick", ParrotLabSettings, folder="lab").random_seeds == (0,)
    with pytest.raises(ConfigError, match="first: 8 of 8 turns"):
        settings_of("first=[8]")
    with pytest.raises(ConfigError, match="arms names one of its items twice"):
        settings_of("arms=[neglect, neglect]")


# the whole, in miniature

SMALL = [
    "random_seeds=[3]", "arms=[neglect, all_three, more_sft, own_neglect]", "turns=3", "first=[1]", "dialogues=30", "capo_dialogues=20", "queries=2", "pairs=12", "items=5",
    "stage.steps=3", "sft.steps=2", "dpo.steps=2", "stage.batch_size=4", "sft.batch_size=6", "dpo.batch_size=4",
    "stage.tiny={hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, kv_heads: 1}",
]  # fmt: skip


@pytest.mark.chain
def test_the_lab_runs_whole_goes_on_and_prints_the_same_page_again(tmp_path: Path) -> None:
    settings = settings_of(*SMALL)
    result = run_parrot_lab(settings, tmp_path / "lab", quiet=True)
    assert {row.arm for row in result.arms} == {STAGE, "sft_1", NO_CAPO, SPREAD, *settings.arms}
    wins: Wins = result.wins
    for row in result.arms:
        assert len(wins[row.arm, 3, ALL]) == 15 == len(wins[row.arm, 3, OWN])
        assert row.wins.keys() == result.arms[0].wins.keys()
    pairs = {row.arm: row.examples for row in result.arms if row.arm in settings.arms}
    assert pairs["neglect"] == pairs["all_three"] == pairs["more_sft"] == 12
    text = page(result)
    assert text.count("UNDECIDED") == len(claims(settings))
    answers = json.loads((tmp_path / "lab" / "3" / "arms" / "neglect" / "answers.json").read_text())
    assert [len(row) for row in answers["answers"]] == [5, 5, 5]

    from descant import build

    flags = [part for override in SMALL for part in ("--set", override)]
    again = CliRunner().invoke(build(), ["lab", "parrot", "--quiet", "--out", str(tmp_path / "lab"), *flags])
    assert again.exit_code == 0, again.output
    assert again.output.startswith(text)
    assert (tmp_path / "lab" / "report.txt").read_text() == text + "\n"
