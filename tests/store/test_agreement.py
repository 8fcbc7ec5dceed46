"""Agreement figures: published examples, scikit-learn's kappa, degenerate cases, and biases worked out by hand."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from store.agreement import (
    Level,
    _cells,
    _kappa,
    agreement_of,
    bootstrap,
    krippendorff_alpha,
    label_sets,
    labels_by_judge,
)
from store.database import StoreError
from store.pairs import majority
from store.records import Judgement, Record
from tests.store.store_samples import campaign, pair_corpus

KRIPPENDORFF_2011 = [  # section C and D: four observers, twelve units, missing values
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level: Level, published: float) -> None:
    alpha = krippendorff_alpha(list(zip(*KRIPPENDORFF_2011, strict=True)), level)
    assert alpha == pytest.approx(published, abs=0.0005)


def test_alpha_of_the_published_examples_of_two_observers() -> None:
    binary = zip((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0), strict=True)
    assert krippendorff_alpha(list(binary), "nominal") == pytest.approx(0.095, abs=0.0005)
    letters = zip("aabbdcccedda", "babbbccceddd", strict=True)
    assert krippendorff_alpha(list(letters), "nominal") == pytest.approx(0.692, abs=0.0005)


@pytest.mark.parametrize(
    "units",
    [[], [(None, None)], [(1, None), (None, 2)], [(1, 1), (1, 1)], [(3,), (4,)]],
    ids=["no units", "no values", "never two values", "one category", "one judge"],
)
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_not_defined_without_two_values_that_differ(units: list[tuple[int | None, ...]], level: Level) -> None:
    assert krippendorff_alpha(units, level) is None


def test_alpha_is_one_for_equals_and_below_zero_for_opposites() -> None:
    assert krippendorff_alpha([(1, 1), (2, 2), (3, None)], "interval") == 1.0
    assert (krippendorff_alpha([(1, 2), (2, 1)] * 20, "nominal") or 0.0) < -0.9


@pytest.mark.parametrize("weights", [None, "quadratic"])
def test_kappa_of_the_intervals_is_scikit_learns(weights: str | None) -> None:
    from sklearn.metrics import cohen_kappa_score

    random = Random(1)
    a = [random.randrange(4) for _ in range(80)]
    b = [x if random.random() < 0.6 else random.randrange(4) for x in a]
    ours = _kappa(4, weights)(_cells(a, b, 4).sum(0))
    assert float(ours) == pytest.approx(cohen_kappa_score(a, b, weights=weights))


def test_a_bootstrap_draws_whole_clusters() -> None:
    values = np.array([[1.0, 1.0], [0.0, 1.0]] * 50)
    share: Callable[..., np.ndarray] = lambda sums: sums[..., 0] / sums[..., 1]  # noqa: E731
    alone = bootstrap([str(place) for place in range(100)], values, share, n=100)
    assert (alone.low, alone.high) == pytest.approx((0.40, 0.60), abs=0.015)  # 0.5 -+ 1.96 * 0.05
    pairs = bootstrap([str(place // 2) for place in range(100)], values, share, n=100)
    assert (pairs.value, pairs.low, pairs.high) == (0.5, 0.5, 0.5)  # every cluster holds one of each
    tens = bootstrap([str(place % 2 * 5 + place // 20) for place in range(100)], values, share, n=100)
    assert tens.high is not None
    assert alone.high is not None
    assert tens.high - 0.5 > 2 * (alone.high - 0.5)


def test_a_majority_leaves_out_what_could_not_be_read() -> None:
    assert majority(["chosen", "rejected", "chosen"]) == "chosen"
    assert majority(["chosen", "invalid", "invalid"]) == "chosen"
    assert majority(["chosen", "rejected"]) == majority(["tie"]) == "tie"
    assert majority(["invalid"]) is majority([]) is None


# sets of verdicts on stored pairs


def verdict(pair: str, order: str, said: str, judge: str = "m", label_set: str = "set") -> Judgement:
    return Judgement(
        judgement_id=f"judg_{label_set}_{judge}_{pair}_{order}",
        label_set=label_set,
        pair_id=pair,
        judge_model=judge,
        judge=judge,
        rubric="compare",
        presentation=order,
        verdict=said,
    )


def both(pair: str, first: str, second: str, judge: str = "m", label_set: str = "set") -> list[Record]:
    return [
        verdict(pair, "chosen_first", first, judge, label_set),
        verdict(pair, "rejected_first", second, judge, label_set),
    ]


Fill = Callable[..., Path]


def test_figures_of_a_small_set_are_those_worked_out_by_hand(fill: Fill) -> None:
    # In pairs 0 to 3 the chosen side is longer, in 4 to 7 the rejected one.
    records, pairs = pair_corpus([(30, 10)] * 4 + [(10, 30)] * 4)
    records += both(pairs[0], "chosen", "chosen") + both(pairs[1], "chosen", "chosen")
    records += both(pairs[2], "chosen", "rejected")  # the first side twice
    records += both(pairs[3], "tie", "chosen")
    records += both(pairs[4], "rejected", "rejected") + both(pairs[5], "rejected", "chosen")  # the second side twice
    records += both(pairs[6], "chosen", "rejected") + both(pairs[7], "invalid", "chosen")
    records += [record for pair in pairs[:6] for record in both(pair, "chosen", "chosen", judge="other")]
    report = agreement_of(fill(*records), "set")
    m, other = report.judges
    assert (m.judge, m.verdicts, m.invalid) == ("m", 15, 1)
    # pair 2: +1, pair 3: tie against a win of the second-shown: -1/2, pair 5: -1, pair 6: +1, four others 0 -> 0.5 / 7
    assert m.position_bias.value == pytest.approx(0.5 / 7)
    assert m.position_bias.n == 7
    assert m.consistency.value == pytest.approx(3 / 7)
    # the label says shorter (4-7, 7 readable verdicts): longer won in 4, 4, 5, 6; the label says longer (0-3, 8): shorter won once
    assert m.length_bias.value == pytest.approx(4 / 7 - 1 / 8)
    assert (other.position_bias.value, other.length_bias.value, other.consistency.value) == (0.0, 0.0, 1.0)
    table = {(row.one, row.other): row for row in report.agreements}
    # settled: chosen chosen tie tie rejected tie tie, and other always chosen on the first six
    assert table["m", "other"].agreement.value == pytest.approx(2 / 6)
    assert table["m", "intended"].agreement.n == 7
    assert table["m", "intended"].agreement.value == pytest.approx(2 / 7)
    assert table["other", "intended"].kappa.value == 1.0
    # under both namings: m has c c t t r t and r r t t c t, other c x 6 and r x 6. Observed 4/12; expected by margins
    # m: c 3/12, t 6/12, r 3/12; other: c 1/2, r 1/2 -> 0.25; kappa = (1/3 - 1/4) / (3/4)
    assert table["m", "other"].kappa.value == pytest.approx((1 / 3 - 1 / 4) / (3 / 4))
    assert report.alpha.n == 6
    assert report.alpha_level == "nominal"


def test_a_judge_that_is_always_right_agrees_beyond_chance_although_it_always_says_chosen(fill: Fill) -> None:
    records, pairs = pair_corpus([(10, 20)] * 5)
    for judge in ("a", "b"):
        records += [record for pair in pairs for record in both(pair, "chosen", "chosen", judge=judge)]
    report = agreement_of(fill(*records), "set")
    assert [row.kappa[:3] for row in report.agreements] == [(1.0, 1.0, 1.0)] * 3  # with their intervals
    assert report.alpha.value == 1.0


def test_sets_are_compared_with_each_other_on_common_pairs(fill: Fill) -> None:
    records, pairs = pair_corpus([(10, 20)] * 4)
    records += [record for pair in pairs for record in both(pair, "chosen", "chosen")]
    records += [record for pair in pairs[:2] for record in both(pair, "rejected", "rejected", label_set="campaign")]
    db = fill(*records)
    assert label_sets(db) == ["campaign", "set"]
    (row,) = [row for row in agreement_of(db, "set").agreements if row.other == "campaign/m"]
    assert (row.agreement.n, row.agreement.value) == (2, 0.0)


def scored(dialogue: str, score: float | None, judge: str) -> Judgement:
    return Judgement(
        judgement_id=f"judg_{judge}_{dialogue}",
        label_set="set",
        dialogue_id=dialogue,
        judge_model=judge,
        judge=judge,
        rubric="score",
        presentation="single",
        verdict="invalid" if score is None else "scored",
        score=score,
    )


def test_scores_become_verdicts_on_pairs_and_are_compared_as_numbers(fill: Fill) -> None:
    records, _ = pair_corpus([(20, 10)] * 2 + [(10, 20)] * 2)
    sides: list[tuple[str, str]] = [(r.chosen_id, r.rejected_id) for r in records if r.table == "pairs"]  # type: ignore[attr-defined]
    given: dict[str, Sequence[tuple[float | None, float | None]]] = {
        "a": [(9, 2), (5, 5), (3, 8), (7, None)],
        "b": [(9, 2), (6, 5), (3, 8), (7, 1)],
    }
    for judge, scores in given.items():
        for (chosen, rejected), (one, other) in zip(sides, scores, strict=True):
            records += [scored(chosen, one, judge), scored(rejected, other, judge)]
    report = agreement_of(fill(*records), "set")
    a, b = report.judges
    assert (a.verdicts, a.invalid) == (7, 1)
    assert a.mean_score == pytest.approx(39 / 7)
    assert a.position_bias.n == 0
    assert b.length_bias.value == pytest.approx(1 / 2)
    on = {(row.one, row.other, row.on): row for row in report.agreements}
    assert on["a", "b", "scores"].agreement.value == pytest.approx(6 / 7)
    assert 0.9 < (on["a", "b", "scores"].kappa.value or 0.0) < 1.0
    assert on["a", "intended", "verdicts"].agreement.n == 3  # one of them could not be read
    assert on["b", "intended", "verdicts"].agreement.value == pytest.approx(3 / 4)
    assert report.alpha_level == "interval"
    units = [(9, 9), (2, 2), (5, 6), (5, 5), (3, 3), (8, 8), (7, 7)]
    assert report.alpha.value == pytest.approx(krippendorff_alpha(units, "interval"))
    assert report.alpha.n == 7


def test_what_is_not_defined_is_null_and_can_be_printed(fill: Fill) -> None:
    from rich.console import Console

    from store.agreement_table import print_agreement

    records, pairs = pair_corpus([(10, 10)])
    records += both(pairs[0], "tie", "tie", judge="a") + both(pairs[0], "tie", "tie", judge="b")
    records += both(pairs[0], "invalid", "", judge="c")
    report = agreement_of(fill(*records), "set")
    assert report.alpha.value is None
    assert [row.kappa.value for row in report.agreements if row.other == "b"] == [None]
    assert {judge.length_bias.value for judge in report.judges} == {None}
    console = Console(record=True, width=200)
    print_agreement(report, console)
    assert not math.isnan(len(console.export_text()))
    assert report.to_json()["alpha"] == {"value": None, "low": None, "high": None, "n": 1}


def test_an_unknown_set_names_those_that_there_are(fill: Fill) -> None:
    records, pairs = pair_corpus([(10, 20)])
    db = fill(campaign())
    with pytest.raises(StoreError, match="no set of verdicts 'set': there are none yet: `descant judge CONFIG`"):
        agreement_of(db, "set")
    fill(*records, *both(pairs[0], "tie", "tie", label_set="mine"))
    with pytest.raises(StoreError, match="there are mine"):
        agreement_of(db, "set")


def test_the_oracle_needs_no_orders_and_verdicts_on_single_aspects_are_none_on_the_pair(fill: Fill) -> None:
    records, pairs = pair_corpus([(10, 10)])
    aspect = [
        row.model_copy(update={"rubric": "aspect: honesty", "judgement_id": f"{row.judgement_id}_a"})
        for row in both(pairs[0], "rejected", "rejected")
        if isinstance(row, Judgement)
    ]
    oracle = verdict(pairs[0], "single", "chosen", judge="rehearsal/oracle", label_set="oracle")
    db = fill(*records, *both(pairs[0], "chosen", "chosen"), *aspect, oracle)
    assert labels_by_judge(db, "set") == {"m": {pairs[0]: "chosen"}}
    assert labels_by_judge(db, "oracle") == {"rehearsal/oracle": {pairs[0]: "chosen"}}
