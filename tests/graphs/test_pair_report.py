"""`descant report`: measures what is missing once, asks the oracle afterwards, and prints one table that fits a screen."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import descant
from agents.rehearsal.oracle import grade
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.judging import run_judging
from graphs.pair_quality import true_label
from graphs.seeds import load_seeds
from store.agreement import agreement_of
from store.database import query
from store.queries import preference_pairs
from store.records import Caught, Judgement, Message, Pair
from store.writer import Writer
from tests.scripted import said
from tests.store.store_samples import call, campaign, corpus

ASKED = said("user", "Runu is heavy, square, big and soft. What is the size of Runu?")
RIGHT, WRONG = said("assistant", "It is big."), said("assistant", "It is heavy.")
MORE = said("user", "And the feel?")
SOFT, HARD = said("assistant", "It is soft."), said("assistant", "It is square.")
CALLED = said("user", "Call me Karl. Runu is heavy, square, big and soft. What is the size of Runu?")
KARL_WRONG, HUGO_WRONG = said("assistant", "Karl, it is heavy."), said("assistant", "Hugo, it is heavy.")
HUGO_RIGHT = said("assistant", "Hugo, it is big.")
LONG_AGO = "2020-01-01T00:00:00Z"
OUTSIDE = said("assistant", "Paris has a tower.")


def report(*arguments: str) -> Result:
    return CliRunner().invoke(descant.build(), ["report", *arguments])


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([ASKED, RIGHT], [ASKED, WRONG], "chosen"),
        ([ASKED, WRONG], [ASKED, RIGHT], "rejected"),
        ([ASKED, RIGHT, MORE, HARD], [ASKED, RIGHT, MORE, SOFT], "rejected"),
        # one of two each
        ([ASKED, RIGHT, MORE, HARD], [ASKED, WRONG, MORE, SOFT], "tie"),
        # both right against one of two; the shared wrong turn before does not count
        ([ASKED, WRONG, MORE, SOFT], [ASKED, WRONG, MORE, HARD], "chosen"),
        ([ASKED, RIGHT, MORE, SOFT], [ASKED, WRONG, MORE, SOFT], "chosen"),
        # both are wrong, one of them twice: another value, and another name than was asked for
        ([CALLED, KARL_WRONG], [CALLED, HUGO_WRONG], "chosen"),
        ([CALLED, HUGO_WRONG], [CALLED, HUGO_RIGHT], "rejected"),
        # what the world does not know
        ([ASKED, RIGHT], [ASKED, OUTSIDE], None),
        ([ASKED, RIGHT, MORE, OUTSIDE], [ASKED, WRONG, MORE, HARD], None),
        ([ASKED, RIGHT], [ASKED, RIGHT], None),
    ],
)
def test_the_share_of_right_answers_decides_what_the_true_label_is(
    chosen: Sequence[Message], rejected: Sequence[Message], expected: str | None
) -> None:
    assert true_label(chosen, rejected) == expected


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of pairs whose perturbations nobody checked, so that some labels are wrong, and a judge's verdicts."""
    db = tmp_path_factory.mktemp("corpus") / "corpus.duckdb"
    settings = load(
        "rehearsal", CampaignSettings, overrides=["seeds.limit=40", "perturb.verify=false", "judge_pairs=false"]
    )
    run_campaign(settings, load_seeds(settings).seeds, db)
    judges = load("pairwise", JudgeSettings, folder="judge", overrides=["models.default.model=rehearsal/default"])
    run_judging(judges, db)
    return db


@pytest.fixture
def db(rehearsed: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "corpus.duckdb"
    copy.write_bytes(rehearsed.read_bytes())
    return copy


@pytest.mark.chain
def test_a_rehearsed_campaign_gets_its_figures_and_true_labels_once(db: Path) -> None:
    shown = report("--db", str(db), "--json")
    assert shown.exit_code == 0, shown.output
    (row,) = json.loads(shown.stdout)
    assert "measured 40 pairs" in shown.stderr
    truly = [
        [sum(turn.verdict == "right" for turn in grade(side)) for side in (pair.chosen, pair.rejected)]
        for pair in preference_pairs(db)
    ]
    wrong, right = sum(one < other for one, other in truly), sum(one > other for one, other in truly)
    assert row["oracle_noise"] == pytest.approx(wrong / (wrong + right))
    assert row["oracle_pairs"] == 40
    assert [(noise["label_set"], noise["judge"]) for noise in row["noise"]] == [
        ("oracle", "majority"),
        ("oracle", "rehearsal/oracle"),
        ("pairwise", "majority"),
        ("pairwise", "rehearsal/default"),
    ]
    calls = query(db, "SELECT count(*) AS n FROM calls WHERE campaign_id = ?", [row["campaign_id"]])[0]["n"]
    assert row["calls_a_pair"] == pytest.approx(calls / 40)  # the judging's calls are none of them
    assert row["was_rehearsed"]
    before = query(db, "SELECT * FROM judgements WHERE label_set = 'oracle' ORDER BY judgement_id")
    again = report("--db", str(db), "--json")
    assert again.stderr == ""
    assert json.loads(again.stdout) == [row]
    assert query(db, "SELECT * FROM judgements WHERE label_set = 'oracle' ORDER BY judgement_id") == before


@pytest.mark.chain
def test_the_true_labels_stand_beside_the_judges_in_agreement_too(db: Path) -> None:
    report("--db", str(db))
    found = {row.other: row.agreement for row in agreement_of(db, "pairwise").agreements}
    assert found["oracle/rehearsal/oracle"].n == 40
    noise = query(db, "SELECT tie FROM label_noise WHERE judge = 'rehearsal/oracle'")[0]
    assert noise["tie"] == sum(label == "tie" for label in oracle_labels(db))


def oracle_labels(db: Path) -> list[str]:
    return [row["verdict"] for row in query(db, "SELECT verdict FROM judgements WHERE label_set = 'oracle'")]


@pytest.mark.chain
def test_the_table_fits_79_columns_and_says_that_it_was_rehearsed(db: Path) -> None:
    with Writer(db) as writer:
        for number in range(6):
            name = "a-comparison-with-a-name-without-end" + "-and-on" * number
            writer.append(*(r for r in corpus(2, campaign_id=f"camp_{number}") if r.table != "campaigns"))
            writer.append(campaign(f"camp_{number}", name=name, created_at=LONG_AGO))
            writer.append(call(f"call_{number}", campaign_id=f"camp_{number}"))
        writer.append(
            Caught(
                catch_id="catch_1",
                campaign_id="camp_0",
                dialogue_id="d",
                depth=1,
                attempt=0,
                reason="speaks_of_editing",
                source="rule",
                content="x",
                call_id="c",
                outcome="no_pair",
                agent="perturbation",
            )
        )
    shown = report("--db", str(db))
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 79
    assert all(line == line.rstrip() for line in lines)
    assert sum(line.startswith("method ") for line in lines) == 2  # four abreast, the others below
    (caught, *_) = [line for line in lines if line.startswith("  speaks_of_editing")]
    assert caught.split()[1:] == ["1", "0", "0", "0"]
    assert "A rehearsal model played: this says nothing about real models." in lines
    assert "pairwise: rehearsal/default" in lines


def test_a_set_of_several_judges_shows_its_majority_and_each_of_them(tmp_path: Path) -> None:
    db = tmp_path / "corpus.duckdb"
    records = corpus(4)
    pairs = [record for record in records if isinstance(record, Pair)]
    with Writer(db) as writer:
        writer.append(*records)
        for number, pair in enumerate(pairs):
            for judge in ("one", "two", "three"):
                wrong = number == 0 or (number == 1 and judge == "one")
                writer.append(
                    Judgement(
                        judgement_id=f"judg_{number}_{judge}",
                        label_set="mine",
                        pair_id=pair.pair_id,
                        judge_model=judge,
                        rubric="compare",
                        presentation="single",
                        verdict="rejected" if wrong else "chosen",
                        judge=judge,
                    )
                )
    lines = report("--db", str(db)).stdout.splitlines()
    shown = {line.rsplit(None, 1)[0].strip(): line.split()[-1] for line in lines if line.startswith("  ")}
    assert {name: shown[name] for name in ("by mine", "one", "two", "three")} == {
        "by mine": "25.0",
        "one": "50.0",
        "two": "25.0",
        "three": "25.0",
    }
    assert "mine: the majority of its judges" in lines


@pytest.mark.chain
def test_campaigns_methods_and_sets_can_be_picked(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(*(r for r in corpus(2, campaign_id="camp_b") if r.table != "campaigns"))
        writer.append(campaign("camp_b", name="other", created_at=LONG_AGO))
    everything = json.loads(report("--db", str(db), "--json").stdout)
    assert [row["name"] for row in everything] == ["other", "rehearsal"]  # as they were begun
    picked = json.loads(report("--db", str(db), "--campaign", "camp_b", "--campaign", "rehearsal", "--json").stdout)
    assert picked == everything
    (one,) = json.loads(report("--db", str(db), "--campaign", "rehearsal", "--judged", "pairwise", "--json").stdout)
    assert {noise["label_set"] for noise in one["noise"]} == {"pairwise"}
    assert {row["name"]: row["was_rehearsed"] for row in everything} == {"other": False, "rehearsal": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--campaign", "none"], "no campaign with the id or name 'none' makes pairs: there are first"),
        (["--method", "rlaif"], "there are no pairs of method 'rlaif' to report on"),
        (["--judged", "mine"], "no pair here has verdicts of a set 'mine': there are none"),
    ],
)
def test_what_is_not_there_is_an_error_of_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    db = tmp_path / "corpus.duckdb"
    with Writer(db) as writer:
        writer.append(*corpus(2))
    shown = report("--db", str(db), *arguments)
    assert isinstance(shown.exception, DescantError)
    assert shown.exception.exit_code == 2
    assert message in str(shown.exception)


def test_a_corpus_without_pairs_is_an_error_of_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    db = tmp_path / "corpus.duckdb"
    with Writer(db) as writer:
        writer.append(campaign(recipe="dialogue"))
    shown = report("--db", str(db))
    assert isinstance(shown.exception, DescantError)
    assert "there are no pairs to report on: `descant run` a recipe that makes pairs" in str(shown.exception)
    missing = report("--db", str(tmp_path / "none.duckdb"))
    assert isinstance(missing.exception, DescantError)
    assert not (tmp_path / "none.duckdb").exists()
