"""Budgets of campaigns, over real HTTP: the server's own log never shows a call too many, and a raised cap goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.prices import UnknownPriceError
from agents.rehearsal.server import ServerSettings, serving
from configs.judge_settings import JudgeSettings
from configs.settings import BudgetSettings, CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.judging import run_judging
from graphs.report import report_lines
from graphs.seeds import load_seeds
from graphs.spending import spent_so_far
from store.database import query

WHAT_STAYS = (
    "SELECT call_id, request_hash, agent, response, status, prompt_tokens, completion_tokens FROM calls ORDER BY ALL"
)
PRICE = {"input": 1.0, "output": 2.0}


def settings_for(api_base: str, **given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "budgets",
        "recipe": "music",
        "turns": 2,
        "concurrency": 6,
        "seeds": {"format": "rehearsal", "limit": 4},
        "perturb": {"verify": True},
        "models": {"default": {"model": "hosted_vllm/default", "api_base": api_base, "attempts": 9}},
    }
    return CampaignSettings.model_validate(data | given)


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def seen(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def status(database: Path) -> str:
    (row,) = query(database, "SELECT status FROM campaigns WHERE recipe <> 'judge'")
    return str(row["status"])


def test_a_role_s_budget_pauses_the_campaign_and_a_raised_one_ends_it_like_any_other(tmp_path: Path) -> None:
    log, database = tmp_path / "log.jsonl", tmp_path / "c.duckdb"
    with serving(ServerSettings(log=str(log))) as address:
        run(settings_for(address), tmp_path / "whole.duckdb")
        whole = seen(log)
        judged = query(tmp_path / "whole.duckdb", "SELECT count(*) AS n FROM calls WHERE agent = 'judge'")[0]["n"]
        assert judged > 5
        for judges in (3, 5, judged):
            report = run(settings_for(address, budget={"roles": {"judge": {"calls": judges}}}), database)
            assert query(database, "SELECT sum(attempts)::INT AS n FROM calls WHERE agent = 'judge'") == [{"n": judges}]
            assert report.budget is not None
            assert [(use["cap"], use["limit"], use["spent"]) for use in report.budget] == [
                ("budget.roles.judge.calls", judges, judges)
            ]
            told = report_lines(report, database="c.duckdb", skipped=0)
            assert f"budget     budget.roles.judge.calls: {judges} of {judges}" in told
            if judges < judged:
                assert status(database) == "paused"
                assert report.stop_reason is not None
                assert f"the budget of {judges} calls of judge is spent" in report.stop_reason
                assert "raise budget.roles.judge.calls" in report.stop_reason
        assert report.stop_reason is None
        assert seen(log) == 2 * whole
    assert status(database) == "done"
    assert query(database, WHAT_STAYS) == query(tmp_path / "whole.duckdb", WHAT_STAYS)


def test_the_server_never_sees_a_call_too_many_through_faults_and_resumes(tmp_path: Path) -> None:
    log, database = tmp_path / "log.jsonl", tmp_path / "c.duckdb"
    faults = ServerSettings(log=str(log), fault_rate=0.3, faults=("server_error", "reset", "truncated"), random_seed=4)
    with serving(faults) as address:
        for calls in (7, 8, 20):
            report = run(settings_for(address, budget={"calls": calls}), database)
            assert report.stop_reason is not None
            assert seen(log) == calls
            assert query(database, "SELECT sum(attempts)::INT AS n FROM calls") == [{"n": calls}]


def paid(database: Path) -> dict[str, float]:
    (row,) = query(
        database,
        "SELECT sum(prompt_tokens + completion_tokens + lost_tokens)::INT AS tokens, sum(cost_usd + lost_usd) AS usd "
        "FROM calls",
    )
    return row


def test_tokens_and_dollars_hold_over_resumes_and_are_used(tmp_path: Path) -> None:
    """A call holds about ten times what it uses, so that the end comes well before the cap in so small a campaign."""
    with serving() as address:
        default = {"model": "hosted_vllm/default", "api_base": address, "max_tokens": 40, "price": PRICE}
        given: dict[str, Any] = {"models": {"default": default}, "seeds": {"format": "rehearsal", "limit": 8}}
        run(settings_for(address, **given), tmp_path / "whole.duckdb")
        whole = paid(tmp_path / "whole.duckdb")
        for cap in ("tokens", "usd"):
            database = tmp_path / f"{cap}.duckdb"
            for share in (0.5, 0.8):
                limit = int(share * whole[cap]) if cap == "tokens" else share * whole[cap]
                report = run(settings_for(address, **given, budget={cap: limit}), database)
                assert report.stop_reason is not None
                assert f"raise budget.{cap}" in report.stop_reason
                assert 0.6 * limit < paid(database)[cap] <= limit


def test_what_was_spent_without_a_price_counts_once_there_is_one(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    with serving() as address:
        plain = settings_for(address, budget={"calls": 10})
        report = run(plain, database)
        assert report.cost_usd is None
        default = {"model": "hosted_vllm/default", "api_base": address, "price": PRICE}
        priced = settings_for(address, models={"default": default}, budget={"usd": 1e-9})
        spent, by_role = spent_so_far(database, [report.campaign_id], priced.budget, priced.models)
        wanted = (report.prompt_tokens * 1.0 + report.completion_tokens * 2.0) / 1e6
        assert spent.cost_usd == pytest.approx(wanted)
        assert spent.lost_usd == 0.0  # it was answered
        assert sum(one.cost_usd for one in by_role.values()) == pytest.approx(wanted)
        again = run(priced, database)
        assert again.calls_sent == 0
        assert again.stop_reason is not None
    untouched, _ = spent_so_far(database, [report.campaign_id], BudgetSettings(), priced.models)
    assert (untouched.cost_usd, untouched.lost_usd) == (0.0, 0.0)


def test_a_role_s_cap_in_dollars_asks_for_that_role_s_price_alone(tmp_path: Path) -> None:
    with serving() as address:
        models = {
            "default": {"model": "hosted_vllm/default", "api_base": address},
            "judges": [{"model": "hosted_vllm/judge", "api_base": address}],
        }
        budget = {"roles": {"judge": {"usd": 1.0}}}
        with pytest.raises(UnknownPriceError, match=r"hosted_vllm/judge.*models.judges.0.price="):
            run(settings_for(address, models=models, budget=budget), tmp_path / "c.duckdb")
    assert not (tmp_path / "c.duckdb").exists()


def test_a_later_judging_keeps_its_judges_within_their_budget(tmp_path: Path) -> None:
    log, database = tmp_path / "log.jsonl", tmp_path / "c.duckdb"
    settings = CampaignSettings.model_validate(
        {"recipe": "music", "turns": 1, "seeds": {"format": "rehearsal", "limit": 4}, "perturb": {"verify": False}}
    )
    run(settings, database)
    with serving(ServerSettings(log=str(log))) as address:
        models = {"default": {"model": "hosted_vllm/default", "api_base": address}}
        for calls in (2, 3):
            judging = JudgeSettings.model_validate({"models": models, "budget": {"roles": {"judge": {"calls": calls}}}})
            report = run_judging(judging, database)
            assert report.stop_reason is not None
            assert "calls of judge is spent" in report.stop_reason
            assert seen(log) == calls
    assert json.loads(log.read_text().splitlines()[0])
