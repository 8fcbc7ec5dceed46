"""RMBoost's lab in miniature: every method's campaign, a language model, reward models of their pairs, and the page."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from configs.lab_settings import RmboostLabSettings
from configs.load import ConfigError, load
from lab.break_even import NO_PAIR, RIGHT, TIE, WRONG, BreakEven
from lab.commands import lab as lab_command
from lab.rmboost import RmboostLabResult, Trained, _jobs, claims, run_rmboost_lab
from lab.rmboost_material import (
    MIXED,
    MIXED_FROM,
    REAL,
    RECIPES,
    Played,
    Point,
    Quality,
    at_centre,
    campaign_of,
    grid,
    make_items,
    point_of,
    read_source,
    real_pairs,
    sources_of,
    truth,
)
from lab.rmboost_page import as_json, page, plot
from lab.tables import WIDTH
from store.database import query
from store.records import Message, PreferencePair

SMALL = [
    "random_seeds=[0]", "judge_errors=[0.0, 0.3]", "edit_failures=[0.0, 0.3]", "judge_error=0.3", "edit_failure=0.3",
    "verified_failures=[0.3]", "arms=[real, rmboost, real_rmboost]", "prompts=30", "pairs=20", "items=12", "dialogues=20",
    "language.steps=2", "fit.steps=2", "fit.batch_size=4", "processes=1",
    "language.tiny={hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, kv_heads: 1}",
]  # fmt: skip


def settings_of(*overrides: str) -> RmboostLabSettings:
    return load("rmboost", RmboostLabSettings, overrides=overrides, folder="lab")


# the grid


def test_each_campaign_is_played_once_however_many_points_need_it() -> None:
    points = grid(settings_of())
    assert len(set(points)) == len(points) == len({point.name for point in points})
    played = [point.played for point in points]
    assert {name: played.count(name) for name in RECIPES} == {
        "rlaif": 4, "rlaif_by_pair": 3, "rmboost": 4, "rlcd": 4, "rmboost_verified": 3, "rmboost_verified_by_pair": 3,
        "west_of_n": 0,
    }  # fmt: skip
    assert {at_centre(settings_of(), name) for name in RECIPES if name != "west_of_n"} <= set(points)


def test_a_method_stands_where_the_rates_that_it_depends_on_put_it() -> None:
    assert point_of("rlaif", 0.1, 0.3) == Point("rlaif", 0.1, None)
    assert point_of("rlcd", 0.1, 0.3) == Point("rlcd", None, 0.3)
    assert point_of("west_of_n", 0.1, 0.3) == Point("west_of_n", None, None)
    assert point_of("rlaif_by_pair", 0.0, None) == Point("rlaif", 0.0, None)  # a judge that never errs errs in no way


@pytest.mark.parametrize(
    ("point", "recipe", "judge", "writer"),
    [
        (Point("rlaif", 0.2, None), "rlaif", {"judge_error_rate": 0.2}, {}),
        (Point("rlaif_by_pair", 0.2, None), "rlaif", {"judge_error_rate": 0.0, "judge_blind_rate": 0.2}, {}),
        (Point("rmboost", None, 0.1), "rmboost", {"judge_error_rate": 0.0}, {"edit_failure_rate": 0.1}),
        (Point("rlcd", None, 0.1), "rlcd", {"judge_error_rate": 0.0}, {"edit_failure_rate": 0.1}),
    ],
)
def test_a_point_asks_for_its_rates_and_for_no_others(
    point: Point, recipe: str, judge: dict[str, float], writer: dict[str, float]
) -> None:
    campaign = campaign_of(settings_of(), point)
    assert campaign.recipe == recipe
    assert campaign.models.of("judge", 0).params == {"position_bias": 0.0, **judge}
    assert campaign.models.of("perturbation").params == {"mistake_rate": 0.15, **writer}
    assert campaign.pairing is not None
    assert not campaign.pairing.boost.verify


def test_only_a_verified_point_asks_the_judge_about_the_label() -> None:
    pairing = campaign_of(settings_of(), Point("rmboost_verified", 0.2, 0.2)).pairing
    assert pairing is not None
    assert pairing.boost.verify
    assert pairing.boost.require_agreement


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("judge_error=0.15", "judge_error: 0.15 is not on the grid"),
        ("edit_failures=[0.2, 0.1]", "edit_failures: sort them"),
        ("arms=[rmboost, rlaif]", "name it too"),
        ("arms=[real, real]", "arms names one of its items twice"),
        ("random_seeds=[1, 1]", "random_seeds names one of its items twice"),
    ],
)
def test_a_lab_that_cannot_compare_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        settings_of(override)


def test_an_arm_of_verified_pairs_needs_them_at_the_centre() -> None:
    with pytest.raises(ConfigError, match="verified_failures: an arm learns from verified pairs"):
        settings_of("arms=[real, rmboost_verified]", "verified_failures=[0.3]")
    assert settings_of("arms=[real, rmboost_verified]").arms == ("real", "rmboost_verified")


def test_an_arm_of_two_sources_is_the_real_pairs_and_the_methods() -> None:
    assert sources_of("real_rmboost") == ["real", "rmboost"]
    assert sources_of("rmboost") == ["rmboost"]
    assert sources_of("real") == ["real"]
    assert sources_of("more_real") == ["more_real"]


# the oracle


def test_the_oracle_says_which_of_two_lists_is_better() -> None:
    prompt = Message(role="user", content="Call me Ilse. Belo is red, big and old. Describe Belo.")

    def pair(chosen: str, rejected: str) -> PreferencePair:
        sides = [(prompt, Message(role="assistant", content=text)) for text in (chosen, rejected)]
        return PreferencePair("p", sides[0], sides[1], "train", "rmboost", 1, 1)

    right, one, two = "It is red, big and old, Ilse.", "It is red, small and old, Ilse.", "It is red and small, Ilse."
    assert truth(pair(right, one)) == "first"
    assert truth(pair(two, one)) == "second"
    assert truth(pair(one, "It is red, big and old, Omar.")) == "tie"


# the page, of figures that are made up


def quality(point: Point, seed: int, wrong: int) -> Quality:
    outcomes = WRONG * wrong + RIGHT * (90 - wrong) + TIE * 6 + NO_PAIR * 4
    if point.played == "rlaif_by_pair":
        outcomes = outcomes[::-1]  # other prompts than the others' wrong ones
    return Quality(point, seed, outcomes, 4.25, 1234.5, 44.4, 0.61, 0.6)


def made_up(settings: RmboostLabSettings) -> RmboostLabResult:
    """Wrong labels as often as the rate says, RLAIF's by pair among them; anew, a tenth of it."""
    rows = []
    for point in [*grid(settings), at_centre(settings, "west_of_n")]:
        share = point.edit_failure if point.edit_failure is not None else point.judge_error
        share = 0.05 if share is None else share
        share *= 0.1 if point.played in ("rlaif", "rmboost_verified", "rmboost_verified_by_pair") else 1.0
        rows += [quality(point, seed, round(90 * share)) for seed in settings.random_seeds]
    arms = [
        Trained(seed, arm, f"fit_{arm}", 300, dict.fromkeys(sources_of(arm), 700), 30.0, {REAL: wins, MIXED: wins})
        for arm in settings.arms
        for seed in settings.random_seeds
        for wins in [[1.0] * (80 if arm == "real_rmboost" else 60) + [0.0] * (20 if arm == "real_rmboost" else 40)]
    ]
    return RmboostLabResult(settings, rows, arms, 1.0)


def test_the_page_tells_every_method_and_claim_in_its_width() -> None:
    settings = settings_of()
    result = made_up(settings)
    text = page(result)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    for claim in claims(settings):
        assert claim.text in text
    told = {line.split("  ")[0]: line for line in text.split("## ")[1].splitlines()}
    assert "  20.0 [15.7, 25.2]     6    960    4.2    1234     44    0.61" in told["RMBoost"]  # 54 of 270
    assert "  20.0 [15.7, 25.2]" in told["RLAIF, pair"]
    assert "  2.2 [1.0, 4.8]" in told["RLAIF"]
    assert "REPRODUCED: real + RMBoost beats real alone, real-like items" in text
    assert "NOT REPRODUCED: RMBoost's pairs beat RLCD's, real-like items" in text  # equal: 0 with an interval of 0


def test_the_break_even_is_where_the_two_shares_meet() -> None:
    settings = settings_of()
    lines = {(line.played, line.rival, line.judge_error): line.found for line in made_up(settings).lines()}
    by_pair = lines["rmboost", "rlaif_by_pair", 0.2]
    assert by_pair is not None
    assert by_pair.value == pytest.approx(0.2)
    assert by_pair.low < 0.2 < by_pair.high
    anew = lines["rmboost", "rlaif", 0.2]
    assert anew is not None
    assert anew.value == pytest.approx(2 / 90)  # two wrong labels of 90, by a line from 0 to 9 at 10 %
    assert lines["rmboost_verified", "rlaif", 0.2] == BreakEven(math.inf, math.inf, math.inf)  # as clean, to the end
    assert ("rmboost_verified", "rlaif", 0.0) not in lines


def test_a_line_that_is_never_met_is_told_in_words(tmp_path: Path) -> None:
    settings = settings_of()
    rows = [
        row._replace(outcomes=WRONG * 100) if row.point.played == "rmboost" else row
        for row in made_up(settings).qualities
    ]
    result = made_up(settings)._replace(qualities=rows, arms=[])
    text = page(result)
    assert text.count("none") >= 4
    assert ">20" in text  # verified, at the end of its own rates
    assert "## What reward models learn" not in text
    found = [row["found"]["value"] for row in as_json(result) if row.get("played") == "rmboost" and "rival" in row]
    assert set(found) == {"none"}
    json.dumps(as_json(made_up(settings)), allow_nan=False)
    plot(made_up(settings), tmp_path / "curves.png", tmp_path / "curves.svg")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


# the chain


class Made(NamedTuple):
    settings: RmboostLabSettings
    out: Path
    result: RmboostLabResult


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("lab")
    settings = settings_of(*SMALL)
    return Made(settings, out, run_rmboost_lab(settings, out, quiet=True))


@pytest.mark.chain
def test_noise_follows_from_the_rates_that_were_set(made: Made) -> None:
    assert {row.point for row in made.result.qualities} == {*grid(made.settings), at_centre(made.settings, "west_of_n")}
    for row in made.result.qualities:
        assert len(row.outcomes) == made.settings.prompts
        assert set(row.outcomes) <= {RIGHT, WRONG, TIE, NO_PAIR}
        assert row.outcomes.count(RIGHT) > row.outcomes.count(WRONG)
        if (row.point.judge_error or 0.0) == (row.point.edit_failure or 0.0) == 0 and row.point.played != "west_of_n":
            assert row.outcomes.count(WRONG) <= 1  # a poor answer may come out better by its own mistakes
    blind = made.result.outcomes(point_of("rlaif_by_pair", 0.3, None))[0]
    assert blind.count(WRONG) > 0


@pytest.mark.chain
def test_items_have_true_labels_and_stand_on_prompts_that_nothing_learned_from(made: Made) -> None:
    corpus = made.out / "0" / "corpus.duckdb"
    items = make_items(made.settings, 0, corpus)
    assert len(items[REAL]) == 12
    assert 8 <= len(items[MIXED]) <= 12
    assert {pair.method for pair in items[MIXED]} == set(MIXED_FROM)
    assert all(truth(pair) == "first" and pair.split == "test" for pairs in items.values() for pair in pairs)
    learned = {
        pair.chosen[:-1]
        for arm in made.settings.arms
        for source in sources_of(arm)
        for pair in read_source(made.settings, source, 0, corpus)
    }
    assert learned
    assert all(pair.chosen[:-1] not in learned for pairs in items.values() for pair in pairs)


@pytest.mark.chain
def test_real_labels_are_wrong_as_often_as_was_asked(made: Made) -> None:
    corpus = made.out / "0" / "corpus.duckdb"

    def wrong(share: float) -> float:
        pairs = real_pairs(made.settings.model_copy(update={"real_noise": share}), 0, corpus, "train")
        return sum(truth(pair) == "second" for pair in pairs) / len(pairs)

    assert wrong(0.0) == 0.0
    assert 0.1 < wrong(0.4) < 0.7
    assert wrong(1.0) == 1.0


@pytest.mark.chain
def test_west_of_n_picks_by_the_reward_model_of_the_real_pairs(made: Made) -> None:
    rows = query(
        made.out / "0" / "corpus.duckdb",
        "SELECT DISTINCT label_source, arm FROM pairs JOIN fits ON name = label_source WHERE method = 'west_of_n'",
    )
    assert rows == [{"label_source": "lab-rmboost-real", "arm": "real"}]
    arms = {row.arm: row for row in made.result.arms}
    assert list(arms) == ["real", "rmboost", "real_rmboost"]
    assert arms["real_rmboost"].pairs == arms["real"].pairs | arms["rmboost"].pairs
    assert {row.steps for row in arms.values()} == {2}


@pytest.mark.chain
def test_the_same_command_goes_on_and_finds_the_same(made: Made) -> None:
    def count() -> int:
        return int(query(made.out / "0" / "corpus.duckdb", "SELECT count(*) AS n FROM calls")[0]["n"])

    before = count()
    again = run_rmboost_lab(made.settings, made.out, quiet=True)
    assert count() == before
    assert page(again) == page(made.result)
    (made.out / "0" / "quality" / f"{Point('rlcd', None, 0.3).name}.json").unlink()
    assert page(run_rmboost_lab(made.settings, made.out, quiet=True)) == page(made.result)
    assert count() == before  # the campaign is found done


@pytest.mark.chain
def test_jobs_of_a_random_seed_never_write_beside_a_campaign(made: Made) -> None:
    after = {job.key: job.after for job in _jobs(made.settings, made.out)}
    assert after["west of n", 0] == (("picker", 0),)
    assert all(after[arm, 0] == (("west of n", 0),) for arm in made.settings.arms)


@pytest.mark.chain
def test_the_command_prints_the_page_and_says_where_it_is_kept(made: Made) -> None:
    arguments = ["rmboost", "--out", str(made.out), "--quiet", *[part for one in SMALL for part in ("--set", one)]]
    told = CliRunner().invoke(lab_command, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    assert page(made.result) in told.output
    assert (made.out / "report.txt").read_text("utf-8").strip() == page(made.result)
    rows = json.loads(CliRunner().invoke(lab_command, [*arguments, "--json"], catch_exceptions=False).stdout)
    played: set[Played] = {row["played"] for row in rows if "noise" in row}
    assert played == {
        "rlaif",
        "rlaif_by_pair",
        "rmboost",
        "rlcd",
        "rmboost_verified",
        "rmboost_verified_by_pair",
        "west_of_n",
    }
