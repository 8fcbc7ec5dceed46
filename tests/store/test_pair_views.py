"""What a pair costs and how good it is, as views: of small corpora that are counted by hand."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import binomtest

from store.database import query
from store.pair_figures import method_stats, pair_stats, unmeasured_methods, unmeasured_pairs
from store.pair_report import reports_of
from store.pair_table import print_report
from store.records import CatchOutcome, Caught, Dialogue, Judgement, MethodStats, Pair, PairStats, Record
from tests.store.store_samples import call, campaign, corpus, pair_corpus

Fill = Callable[..., Path]


def pair(number: int, campaign_id: str = "camp_a", method: str = "rmboost", **changes: Any) -> Pair:
    fields = {
        "pair_id": f"pair_{number}",
        "campaign_id": campaign_id,
        "method": method,
        "chosen_id": f"dlg_{number}_good",
        "rejected_id": f"dlg_{number}_bad",
        "first_divergent_turn": 1,
        "n_contrast_turns": 0,
        "label_source": "construction",
        "intended_label": "chosen",
        "split": "train",
    }
    return Pair.model_validate(fields | changes)


def verdict(number: int, said: str, order: str = "single", **changes: Any) -> Judgement:
    fields = {
        "judgement_id": f"judg_{number}_{order}_{changes.get('label_set', 'mine')}_{changes.get('judge', 'm')}",
        "label_set": "mine",
        "pair_id": f"pair_{number}",
        "judge_model": "m",
        "judge": "m",
        "rubric": "compare",
        "presentation": order,
        "verdict": said,
    }
    return Judgement.model_validate(fields | changes)


def both(number: int, first: str, second: str, **changes: Any) -> list[Record]:
    return [verdict(number, first, "chosen_first", **changes), verdict(number, second, "rejected_first", **changes)]


def grade(dialogue: str, score: float | None, **changes: Any) -> Judgement:
    fields: dict[str, Any] = {
        "judgement_id": f"judg_{dialogue}_{changes.get('rubric', 'score')}",
        "pair_id": None,
        "dialogue_id": dialogue,
        "rubric": "score",
        "verdict": "invalid" if score is None else "scored",
        "score": score,
    }
    return verdict(0, "x").model_copy(update=fields | changes)


def test_a_pair_costs_what_the_campaign_paid_superseded_and_failed_calls_too(fill: Fill) -> None:
    db = fill(
        campaign(recipe="rmboost"),
        pair(1),
        pair(2),
        call("call_1", prompt_tokens=100, completion_tokens=10, cost_usd=0.5),
        call("call_2", prompt_tokens=50, completion_tokens=5, cost_usd=0.25, status="superseded"),
        call("call_3", prompt_tokens=7, completion_tokens=None, cost_usd=None, status="failed"),
        call("call_4", prompt_tokens=None, completion_tokens=None, cost_usd=None, status="started"),
        # a later judging is a campaign of its own
        campaign("camp_j", name="mine", recipe="judge"),
        call("call_5", campaign_id="camp_j", prompt_tokens=1000, cost_usd=9.0),
    )
    (row,) = query(db, "FROM pair_costs")
    assert row == {
        "campaign_id": "camp_a",
        "name": "first",
        "method": "rmboost",
        "pairs": 2,
        "calls": 3,
        "prompt_tokens": 157,
        "completion_tokens": 15,
        "cost_usd": 0.75,
        "calls_a_pair": 1.5,
        "prompt_tokens_a_pair": 78.5,
        "completion_tokens_a_pair": 7.5,
        "cost_usd_a_pair": 0.375,
        "lost_tokens": 0,
        "lost_usd": 0.0,
        "lost_tokens_a_pair": 0.0,
        "lost_usd_a_pair": 0.0,
    }


def test_what_requests_without_an_answer_may_have_cost_is_told_apart_from_what_answers_cost(fill: Fill) -> None:
    db = fill(
        campaign(),
        pair(1),
        pair(2),
        call("call_1", cost_usd=0.5, lost_tokens=100, lost_usd=0.25),
        call("call_2", cost_usd=None, status="failed", lost_tokens=300, lost_usd=0.75),
        call("call_3", cost_usd=None, status="started", lost_tokens=999, lost_usd=9.0),  # still out
    )
    (row,) = query(db, "SELECT cost_usd, lost_tokens, lost_usd, lost_tokens_a_pair, lost_usd_a_pair FROM pair_costs")
    assert tuple(row.values()) == (0.5, 400, 1.0, 200.0, 0.5)
    (usage,) = query(db, "SELECT cost_usd, lost_tokens, lost_usd FROM usage_by_agent")
    assert tuple(usage.values()) == (0.5, 400, 1.0)
    (report,) = reports_of(db, ["camp_a"])
    page = io.StringIO()
    print_report([report], Console(file=page))
    shown = [" ".join(line.split()) for line in page.getvalue().splitlines()]
    assert "tokens lost, at most 200" in shown
    assert "USD lost, at most 0.5" in shown


def test_lost_tokens_without_a_price_make_the_lost_dollars_unknown(fill: Fill) -> None:
    db = fill(
        campaign(), pair(1), call("call_1", lost_tokens=0, lost_usd=None), call("call_2", lost_tokens=5, lost_usd=None)
    )
    assert query(db, "SELECT lost_usd FROM usage_by_agent") == [{"lost_usd": None}]
    assert query(db, "SELECT lost_usd FROM pair_costs") == [{"lost_usd": None}]


def test_one_answered_call_of_unknown_price_makes_the_cost_unknown(fill: Fill) -> None:
    db = fill(campaign(), pair(1), call("call_1"), call("call_2", cost_usd=None))
    (row,) = query(db, "SELECT cost_usd, cost_usd_a_pair FROM pair_costs")
    assert row == {"cost_usd": None, "cost_usd_a_pair": None}


def test_a_campaign_that_made_no_pair_has_its_calls_and_no_cost_a_pair(fill: Fill) -> None:
    db = fill(campaign(recipe="rlaif"), call("call_1"), campaign("camp_d", recipe="dialogue"))
    (row,) = query(db, "SELECT method, pairs, calls, calls_a_pair FROM pair_costs")
    assert row == {"method": "rlaif", "pairs": 0, "calls": 1, "calls_a_pair": None}


def test_methods_of_one_campaign_share_its_calls(fill: Fill) -> None:
    db = fill(
        campaign(), pair(1), pair(2, method="base"), pair(3, method="base"), *(call(f"call_{n}") for n in range(6))
    )
    rows = query(db, "SELECT method, pairs, calls, calls_a_pair FROM pair_costs ORDER BY method")
    assert [tuple(row.values()) for row in rows] == [("base", 2, 6, 2.0), ("rmboost", 1, 6, 2.0)]


def test_a_judge_is_settled_over_both_orders_and_the_set_by_its_majority(fill: Fill) -> None:
    db = fill(
        campaign(),
        *(pair(number) for number in range(1, 8)),
        *both(1, "chosen", "chosen"),
        *both(2, "rejected", "rejected"),
        *both(3, "chosen", "rejected"),  # a flip: tie
        *both(4, "tie", "tie"),
        *both(5, "chosen", "invalid"),
        verdict(6, "chosen", "chosen_first"),  # one order alone says nothing
        *both(7, "chosen", "chosen", rubric="aspect: helpfulness"),  # nor does one aspect
        *both(1, "chosen", "chosen", judge="n"),
        *both(2, "chosen", "chosen", judge="n"),  # against m: tie
        *both(3, "rejected", "rejected", judge="n"),  # against a tie: no majority, tie
        *both(3, "rejected", "rejected", judge="o"),  # now two of three
        *both(5, "rejected", "rejected", judge="n"),  # the only one that could be read
    )
    rows = query(db, "SELECT judge, pairs, agree, disagree, tie, invalid, noise FROM label_noise ORDER BY judge")
    assert [tuple(row.values()) for row in rows] == [
        ("m", 5, 1, 1, 2, 1, 0.5),
        ("majority", 5, 1, 2, 2, 0, pytest.approx(2 / 3)),
        ("n", 4, 2, 2, 0, 0, 0.5),
        ("o", 1, 0, 1, 0, 0, 1.0),
    ]


def test_most_ties_make_a_tie_whatever_the_others_say(fill: Fill) -> None:
    db = fill(
        campaign(),
        pair(1),
        *(
            verdict(1, said, judge=f"j{n}")
            for n, said in enumerate(["tie", "tie", "tie", "chosen", "chosen", "rejected"])
        ),
    )
    row = query(db, "SELECT agree, disagree, tie FROM label_noise WHERE judge = 'majority'")[0]
    assert tuple(row.values()) == (0, 0, 1)


@pytest.mark.parametrize(("wrong", "right"), [(0, 4), (1, 3), (3, 1), (4, 0), (2, 9)])
def test_the_interval_is_wilsons(fill: Fill, wrong: int, right: int) -> None:
    said = ["rejected"] * wrong + ["chosen"] * right + ["tie"] * 2
    db = fill(campaign(), *(pair(n) for n in range(len(said))), *(verdict(n, said[n]) for n in range(len(said))))
    row = query(db, "SELECT DISTINCT noise, low, high FROM label_noise")[0]
    expected = binomtest(wrong, wrong + right).proportion_ci(method="wilson")
    assert row["noise"] == pytest.approx(wrong / (wrong + right))
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_where_all_is_tied_there_is_no_noise_to_speak_of(fill: Fill) -> None:
    db = fill(campaign(), pair(1), verdict(1, "tie"))
    row = query(db, "SELECT noise, low, high, tie FROM label_noise WHERE judge = 'majority'")[0]
    assert tuple(row.values()) == (None, None, None, 1)


def test_grades_of_both_sides_are_compared(fill: Fill) -> None:
    db = fill(
        campaign(),
        *(pair(number) for number in range(1, 6)),
        *(grade("dlg_1_good", 8), grade("dlg_1_bad", 3)),
        *(grade("dlg_2_good", 3), grade("dlg_2_bad", 8)),
        *(grade("dlg_3_good", 5), grade("dlg_3_bad", 5)),
        *(grade("dlg_4_good", 5), grade("dlg_4_bad", None)),
        grade("dlg_5_good", 5),
        *(grade("dlg_5_good", 1, rubric="realism"), grade("dlg_5_bad", 9, rubric="realism")),  # of the user
    )
    row = query(db, "SELECT pairs, agree, disagree, tie, invalid FROM label_noise WHERE judge = 'm'")[0]
    assert tuple(row.values()) == (4, 1, 1, 1, 1)


def measured(db: Path) -> tuple[dict[str, PairStats], dict[str, MethodStats]]:
    ids = [row["campaign_id"] for row in query(db, "SELECT campaign_id FROM campaigns")]
    stats = {stat.pair_id: stat for stat in pair_stats(db, unmeasured_pairs(db, ids))}
    return stats, {one.campaign_id: one for m in unmeasured_methods(db, ids) for one in [method_stats(db, m)]}


@pytest.mark.parametrize("last_only", [False, True])
def test_only_what_a_side_wrote_for_itself_is_measured(fill: Fill, last_only: bool) -> None:
    db = fill(*corpus(2, last_only=last_only))
    stats, methods = measured(db)
    (stat, _) = stats.values()
    if last_only:  # chosen answer two | rejected answer two: 4 different of 6; of runs of two 3 of 4
        assert stat == PairStats(
            pair_id=stat.pair_id, chosen_words=3, rejected_words=3, distinct_1=4 / 6, distinct_2=3 / 4
        )
    else:  # and before them chosen answer one | rejected answer one: 5 of 12; ca ao at ra: 6 of 8
        assert (stat.chosen_words, stat.rejected_words) == (6, 6)
        assert stat.distinct_1 == pytest.approx(5 / 12)
        assert stat.distinct_2 == pytest.approx(4 / 8)  # chosen answer, rejected answer, answer one, answer two
    (method,) = methods.values()
    assert (method.pairs, method.seeds, method.samples) == (2, 2, 0)
    # of two seeds: equal sides meet with 1, others share "answer (one|two)" (2/3), "answer" or a side and "answer"
    expected = {True: (1 + 1 + 2 / 3 + 2 / 3) / 4, False: (4 * 1 + 8 * 2 / 3 + 4 * 1 / 3) / 16}
    assert method.self_rouge == pytest.approx(100 * expected[last_only])


def test_equal_answers_before_the_first_difference_are_not_measured_though_no_turn_is_shared(fill: Fill) -> None:
    records = [
        record.model_copy(update={"first_divergent_turn": 2}) if isinstance(record, Pair) else record
        for record in corpus(1)
    ]
    ((stat,), _) = (tuple(found.values()) for found in measured(fill(*records)))
    assert isinstance(stat, PairStats)
    assert (stat.chosen_words, stat.rejected_words) == (3, 3)  # the second answers alone


def test_what_is_measured_is_not_missing_until_pairs_are_added(fill: Fill) -> None:
    records, pairs = pair_corpus([(10, 20), (30, 40)])
    db = fill(*records)
    stats, methods = measured(db)
    assert set(stats) == set(pairs)
    fill(*stats.values(), *methods.values())
    assert measured(db) == ({}, {})
    more, all_pairs = pair_corpus([(10, 20), (30, 40), (15, 15)])
    fill(*more)
    stats, methods = measured(db)
    assert set(stats) == set(all_pairs) - set(pairs)
    assert [one.pairs for one in methods.values()] == [3]
    (row,) = query(db, "SELECT pairs, measured FROM pair_diversity")
    assert row == {"pairs": 3, "measured": 2}  # of old, until the report is asked for again


def test_one_query_compares_methods(fill: Fill) -> None:
    rmboost, rlaif = corpus(3, campaign_id="camp_a"), corpus(2, campaign_id="camp_b", last_only=True)
    pairs_a = [record for record in rmboost if isinstance(record, Pair)]
    relabelled = [
        one.model_copy(
            update={
                "method": "rmboost",
                "length_ratio": (2.0, 1.0, 0.5)[n],
                "similarity": (0.95, 0.9, 0.1)[n],
                "judged_label": ("chosen", "rejected", None)[n],
            }
        )
        for n, one in enumerate(pairs_a)
    ]
    ids = [one.pair_id for one in pairs_a]
    fates: list[tuple[CatchOutcome, str]] = [
        ("asked_again", "perturbation"),
        ("no_pair", "assistant"),
        ("no_pair", "assistant"),  # of the same place: one without a pair
        ("ended", "user"),
    ]
    caught = [
        Caught(
            catch_id=f"catch_{n}",
            campaign_id="camp_a",
            dialogue_id="d",
            depth=1,
            attempt=n,
            reason="empty",
            source="rule",
            content="",
            call_id="c",
            outcome=outcome,
            agent=agent,
        )
        for n, (outcome, agent) in enumerate(fates)
    ]
    said = [
        verdict(0, "rejected", pair_id=ids[0], judgement_id="j0", label_set="oracle", rubric="oracle"),
        verdict(0, "chosen", pair_id=ids[1], judgement_id="j1", label_set="oracle", rubric="oracle"),
        verdict(0, "tie", pair_id=ids[2], judgement_id="j2", label_set="oracle", rubric="oracle"),
        verdict(0, "chosen", pair_id=ids[0], judgement_id="j3", label_set="few"),
        *(verdict(0, "chosen", pair_id=ids[n], judgement_id=f"k{n}", label_set="most") for n in (0, 1)),
        *(verdict(0, "chosen", pair_id=ids[n], judgement_id=f"l{n}", label_set="campaign") for n in (0, 1, 2)),
    ]
    db = fill(*rmboost, *relabelled, *rlaif, *caught, *said, *(call(f"call_{n}") for n in range(6)))
    stats, methods = measured(db)
    fill(*stats.values(), *methods.values())
    rows = query(
        db,
        """
        SELECT method, pairs, calls_a_pair, oracle_noise, oracle_tie, judged_by, judged_pairs, judged_noise,
            labelled_pairs, labels_agree, near_identical, chosen_longer, caught, without_pair, chosen_words
        FROM pair_report ORDER BY campaign_id
        """,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("rmboost", 3, 2.0, 0.5, pytest.approx(1 / 3), "most", 2, 0.0, 2, 0.5, 2, 0.5, 3, 1, 6.0),
        ("music", 2, 0.0, None, None, None, None, None, 0, None, 0, None, 0, 0, 3.0),
    ]


def test_a_place_that_got_its_pair_after_all_is_not_without_one(fill: Fill) -> None:
    records = corpus(1)
    (pair_of,) = (record for record in records if isinstance(record, Pair))
    (chosen,) = (r for r in records if isinstance(r, Dialogue) and r.dialogue_id == pair_of.chosen_id)
    forked = chosen.model_copy(update={"forked_from": "dlg_main"})
    place = len(chosen.turn_ids) - 1
    caught = [
        Caught(
            catch_id=f"catch_{dialogue}_{depth}",
            campaign_id=pair_of.campaign_id,
            dialogue_id=dialogue,
            depth=depth,
            attempt=0,
            reason="empty",
            source="rule",
            content="",
            call_id="c",
            outcome="no_pair",
            agent="perturbation",
        )
        for dialogue, depth in (("dlg_main", place), ("dlg_main", place - 2), ("dlg_other", place))
    ]
    db = fill(*records, forked, *caught)
    assert query(db, "SELECT caught, without_pair FROM pair_report") == [{"caught": 3, "without_pair": 2}]
