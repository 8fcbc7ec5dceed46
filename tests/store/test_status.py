"""How campaigns stand, for machines and on a terminal of 80 columns."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from store.records import Dialogue, PausedBy
from store.status import print_status, status_of
from store.writer import Writer
from tests.store.store_samples import call, campaign, corpus


def screen(status: dict[str, Any], width: int = 80) -> list[str]:
    file = io.StringIO()
    print_status(status, Console(file=file, force_terminal=True, color_system=None, width=width, highlight=False))
    return file.getvalue().splitlines()


def test_each_of_three_campaigns_has_its_own_usage(fill: Callable[..., Path]) -> None:
    db = fill(
        *(campaign(f"camp_{name}", name=f"campaign {name}") for name in "abc"),
        *(call(f"call_{name}{n}", campaign_id=f"camp_{name}") for name in "ab" for n in range(1 + (name == "b"))),
    )
    found = status_of(db)["campaigns"]
    assert [(row["campaign_id"], [usage["calls"] for usage in row["usage"]]) for row in found] == [
        ("camp_a", [1]),
        ("camp_b", [2]),
        ("camp_c", []),
    ]
    assert "campaign_id" not in found[0]["usage"][0]
    lines = screen(status_of(db))
    assert [line.split("  ")[0] for line in lines if line.startswith("campaign")] == [f"campaign {n}" for n in "abc"]


LONG = "hosted_vllm/meta-llama/Llama-3.3-70B-Instruct"


@pytest.fixture
def busy(fill: Callable[..., Path]) -> dict[str, Any]:
    """A campaign with large figures everywhere."""
    usage = {"prompt_tokens": 123_456_789, "completion_tokens": 999_999, "cost_usd": 1234.5678, "latency_ms": 12345.0}
    agents = ("user", "assistant", "perturbation", "judge")
    db = fill(*corpus(1), *(call(f"call_{agent}", agent=agent, **usage) for agent in agents))
    status = status_of(db)
    for row in status["campaigns"][0]["usage"]:
        row["calls"], row["failed"], row["in_flight"] = 200_000, 9_999, 3
    return status


def test_the_table_fits_80_columns_and_breaks_no_name(busy: dict[str, Any]) -> None:
    lines = screen(busy)
    assert max(map(len, lines)) <= 80
    for agent in ("user", "assistant", "perturbation", "judge"):
        (row,) = [line for line in lines if line.startswith(agent + " ")]
        assert row.split() == [agent, "rehearsal/default", "200,000", "9,999", "123M", "1.00M", "1234.57", "12345"]
    assert "calls without an answer so far: 12" in lines


@pytest.mark.parametrize(
    ("paused_by", "shown"),
    [
        ("budget", "out of budget"),
        ("interrupt", "stopped early, by Ctrl-C or a signal"),
        ("error", "stopped by an error"),
        ("retry-failed", "failed dialogues are to be played again"),
        (None, "paused"),
        ("pause", "interrupted"),  # it was held, and its process is gone
    ],
)
def test_a_pause_is_called_by_what_made_it(fill: Callable[..., Path], paused_by: PausedBy | None, shown: str) -> None:
    status = status_of(fill(campaign(status="paused", paused_by=paused_by)))
    assert screen(status)[0].endswith(f"  {shown}")
    assert max(map(len, screen(status))) <= 80


def test_a_held_campaign_is_held_as_long_as_its_process_lives(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(campaign(status="paused", paused_by="pause"))
        writer.flush()
        assert "held by `descant pause`" in screen(status_of(db))[0]


def test_what_answers_cost_and_what_was_lost_stand_apart(fill: Callable[..., Path]) -> None:
    lost = {"lost_tokens": 12_345, "lost_usd": 0.5}
    db = fill(campaign(), call("call_1", cost_usd=0.25), call("call_2", agent="judge", cost_usd=0.125, **lost))
    assert "lost: up to 12.3k tokens more ($0.5000), for requests without an answer" in screen(status_of(db))
    db = fill(call("call_3", agent="judge", lost_tokens=100, lost_usd=None))
    assert "lost: up to 12.4k tokens more (price unknown), for requests without an answer" in screen(status_of(db))


def test_negatives_are_counted_beside_the_dialogues_that_they_hang_on(fill: Callable[..., Path]) -> None:
    like = next(record for record in corpus(1) if isinstance(record, Dialogue))
    ended = [("main", "done"), ("main", "failed"), ("chosen", "done"), ("rejected", "done"), ("rejected", "failed")]
    rows = [
        like.model_copy(update={"dialogue_id": f"dlg_{n}", "branch": branch, "status": status})
        for n, (branch, status) in enumerate(ended)
    ]
    (found,) = status_of(fill(campaign(recipe="capo"), *rows))["campaigns"]
    assert (found["dialogues_done"], found["dialogues_failed"], found["beside"]) == (1, 1, 3)


def test_a_longer_model_name_is_cut_where_there_is_no_room_for_it(busy: dict[str, Any]) -> None:
    for row in busy["campaigns"][0]["usage"]:
        row["model"] = LONG
    lines = screen(busy)
    assert max(map(len, lines)) <= 80
    assert sum("hosted_vllm/meta" in line and "…" in line for line in lines) == 4
    assert sum(LONG in line for line in screen(busy, width=120)) == 4
    page = io.StringIO()
    print_status(busy, Console(file=page))
    assert page.getvalue().count(LONG) == 4
