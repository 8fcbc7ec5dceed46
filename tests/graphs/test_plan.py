"""Plans: what a campaign will take, told from a few of its dialogues, before anything is sent or written."""

import io
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from rich.console import Console

from agents.rehearsal.server import ServerSettings, serving
from configs.comparison import load_campaigns
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.cast import ModelMissingError
from graphs.commands import plan as plan_command
from graphs.plan import Forecast, Plan, Range, _range, check_budget, plan_campaign
from graphs.plan_table import amount, print_plans
from graphs.rehearse import PADDING, padded
from graphs.seeds import load_seeds
from store.database import query
from store.records import Message, Seed

QUESTIONS = (
    "Plan a weekend in Kyoto.",
    "Explain how a canal lock works.",
    "Write a story of a lighthouse.",
    "What is a tuple?",
)
CHEAP = {"input": 1.0, "output": 10.0}


def rehearsal(preset: str = "rehearsal", /, **overrides: Any) -> CampaignSettings:
    return load(preset, CampaignSettings, overrides=[f"{key}={json.dumps(value)}" for key, value in overrides.items()])


def plan_of(settings: CampaignSettings, database: Path, **given: Any) -> Plan:
    return plan_campaign(settings, load_seeds(settings).seeds, database, **given)


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def real(tmp_path: Path, **given: Any) -> CampaignSettings:
    """A campaign of models that no test calls."""
    file = tmp_path / "seeds.jsonl"
    rows = [{"messages": [{"role": "user", "content": text}]} for text in QUESTIONS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    default = {"model": "hosted_vllm/nobody", "max_tokens": 200, "price": CHEAP}
    data = {"recipe": "dialogue", "turns": 3, "seeds": {"path": str(file)}, "models": {"default": default}}
    return CampaignSettings.model_validate(data | given)


def used(database: Path) -> dict[str, tuple[int, int, int]]:
    rows = query(
        database,
        "SELECT agent, sum(attempts)::INT AS calls, sum(prompt_tokens)::INT AS p, sum(completion_tokens)::INT AS c "
        "FROM calls GROUP BY agent",
    )
    return {row["agent"]: (row["calls"], row["p"], row["c"]) for row in rows}


def figures(forecast: Forecast) -> tuple[Range, Range, Range]:
    return forecast.calls, forecast.prompt_tokens, forecast.completion_tokens


@pytest.mark.parametrize(
    ("preset", "more"),
    [
        ("rehearsal", {}),
        ("capo-rehearsal", {}),
        ("rehearsal", {"recipe": "dialogue", "judge_pairs": False, "perturb": None, "turns": {"low": 1, "high": 6}}),
    ],
    ids=["music", "capo", "turns drawn"],
)
def test_what_a_rehearsal_really_takes_lies_between_low_and_high(
    preset: str, more: dict[str, Any], tmp_path: Path
) -> None:
    settings = rehearsal(preset, **{"seeds.limit": 30, **more})
    found = plan_of(settings, tmp_path / "c.duckdb")
    assert (found.source, found.sample, found.playings) == ("rehearsed", 8, 30)
    run(settings, tmp_path / "c.duckdb")
    actual = used(tmp_path / "c.duckdb")
    assert actual.keys() == found.roles.keys()
    for role, figures_of_role in actual.items():
        for count, (low, expected, high) in zip(figures_of_role, figures(found.roles[role]), strict=True):
            assert low <= count <= high, role
            assert count == pytest.approx(expected, rel=0.35)


def test_with_every_playing_looked_at_a_rehearsal_is_told_exactly(tmp_path: Path) -> None:
    settings = rehearsal(**{"seeds.limit": 6})
    found = plan_of(settings, tmp_path / "c.duckdb", sample=6)
    run(settings, tmp_path / "c.duckdb")
    expected = {role: tuple(range_.expected for range_ in figures(f)) for role, f in found.roles.items()}
    assert expected == {role: pytest.approx(counts) for role, counts in used(tmp_path / "c.duckdb").items()}


def test_recorded_dialogues_tell_the_rest_within_a_few_percent(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 40}), database)
    before = used(database)
    settings = rehearsal(**{"seeds.limit": 100})
    found = plan_of(settings, database)
    assert (found.source, found.sample, found.playings, found.ended) == ("this campaign", 40, 100, 40)
    assert {role: usage.calls for role, usage in found.spent.items()} == {role: b[0] for role, b in before.items()}
    run(settings, database)
    for role, counts in used(database).items():
        for count, paid, range_ in zip(counts, before[role], figures(found.roles[role]), strict=True):
            assert range_.low <= count - paid <= range_.high
            assert count - paid == pytest.approx(range_.expected, rel=0.05)


def test_a_single_recorded_dialogue_tells_no_range_and_is_not_gone_by(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 1}), database)
    for name in ("rehearsal", "another"):
        found = plan_of(rehearsal(**{"seeds.limit": 20, "name": name}), database)
        assert (found.source, found.ended) == ("rehearsed", int(name == "rehearsal"))
        assert found.total.prompt_tokens.low < found.total.prompt_tokens.expected < found.total.prompt_tokens.high


def test_a_campaign_that_asks_the_same_of_the_same_models_is_gone_by_and_named(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 5, "name": "first"}), database)
    found = plan_of(rehearsal(**{"seeds.limit": 20, "name": "second", "random_seed": 3}), database)
    assert found.source == "another campaign"
    assert found.recorded_in is not None
    assert found.recorded_in.startswith("first (camp_")
    assert (found.ended, found.spent, found.sample) == (0, {}, 5)
    for other in ({"turns": 2}, {"models.user.temperature": 0.1}, {"perturb.verify": False}):
        assert plan_of(rehearsal(**{"seeds.limit": 5, "name": "third", **other}), database).source == "rehearsed"


def test_what_open_dialogues_have_paid_is_taken_off(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    whole = plan_of(rehearsal(**{"seeds.limit": 20}), database, sample=20).total.calls.expected
    stopped = run(rehearsal(**{"seeds.limit": 20, "budget.calls": 150, "concurrency": 40}), database)
    assert stopped.stop_reason is not None
    found = plan_of(rehearsal(**{"seeds.limit": 20}), database, sample=8)
    assert 0 <= found.ended < 20
    spent = sum(usage.calls for usage in found.spent.values())
    assert spent == 150
    assert spent + found.total.calls.expected == pytest.approx(whole, rel=0.1)


def test_what_is_over_costs_nothing_more(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 3}), database)
    found = plan_of(rehearsal(**{"seeds.limit": 3}), database)
    assert found.ended == found.playings == 3
    assert found.total.calls == Range(0, 0, 0)
    assert found.total.tokens == Range(0, 0, 0)


def test_a_plan_sends_nothing_writes_nothing_and_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = real(tmp_path, models={"default": {"model": "openai/gpt-4o-mini", "api_key": "env:NOT_SET_ANYWHERE"}})
    found = plan_of(settings, tmp_path / "c.duckdb")
    assert found.total.usd is not None
    assert 0 < found.total.usd.low < found.total.usd.expected < found.total.usd.high
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]


def test_a_plan_reads_the_corpus_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 2}), database)
    before = database.read_bytes()
    plan_of(rehearsal(**{"seeds.limit": 9}), database)
    assert database.read_bytes() == before


def test_answers_are_as_long_as_said_and_prompts_grow_with_them(tmp_path: Path) -> None:
    """Of four seeds and three turns: the assistant's third prompt holds two earlier answers, and two of the user's."""
    found = plan_of(real(tmp_path), tmp_path / "none", tokens_an_answer=100)
    assistant = found.roles["assistant"]
    assert assistant.calls == Range(12, 12, 12)
    assert found.roles["user"].calls == Range(8, 8, 8)
    assert assistant.completion_tokens.high == 12 * 200
    assert assistant.completion_tokens.expected == 12 * 100
    assert assistant.completion_tokens.low < 12 * 50
    longer = plan_of(real(tmp_path), tmp_path / "none", tokens_an_answer=150)
    grown = longer.roles["assistant"].prompt_tokens.expected - assistant.prompt_tokens.expected
    earlier_answers = 4 * (2 + 4)  # in the second prompt an answer and a query, in the third two of each
    assert grown == pytest.approx(50 * earlier_answers, rel=0.03)
    read = longer.roles["user"].prompt_tokens.expected - found.roles["user"].prompt_tokens.expected
    assert read == pytest.approx(50 * 4 * (1 + 3), rel=0.03)


def test_dollars_are_tokens_times_the_role_s_prices(tmp_path: Path) -> None:
    found = plan_of(real(tmp_path), tmp_path / "none")
    for forecast in (*found.roles.values(), found.total):
        assert forecast.usd is not None
        for length in ("expected",):
            wanted = getattr(forecast.prompt_tokens, length) * 1e-6 + getattr(forecast.completion_tokens, length) * 1e-5
            assert getattr(forecast.usd, length) == pytest.approx(wanted)


def test_an_unknown_price_is_said_with_the_way_to_set_it(tmp_path: Path) -> None:
    models = {"default": {"model": "hosted_vllm/nobody"}, "assistant": {"model": "rehearsal/default"}}
    settings = real(tmp_path, models=models, budget={"usd": 5.0, "calls": 100})
    found = plan_of(settings, tmp_path / "none")
    assert found.total.usd is None
    assert found.roles["user"].usd is None
    assert found.roles["assistant"].usd == Range(0, 0, 0)
    (line,) = found.unpriced
    assert "hosted_vllm/nobody (user)" in line
    assert "--set 'models.default.price=" in line
    assert [(cap.cap, cap.verdict) for cap in check_budget([found], settings)] == [
        ("budget.usd", "unknown"),
        ("budget.calls", "enough"),
    ]


def test_a_plan_says_whether_each_cap_will_do(tmp_path: Path) -> None:
    budget = {"calls": 20, "tokens": 100_000, "roles": {"assistant": {"calls": 11}, "user": {"tokens": 5000}}}
    settings = real(tmp_path, budget=budget)
    found = plan_of(settings, tmp_path / "none")
    assert {cap.cap: cap.verdict for cap in check_budget([found], settings)} == {
        "budget.calls": "enough",
        "budget.tokens": "enough",
        "budget.roles.assistant.calls": "not enough",
        "budget.roles.user.tokens": "may not be enough",
    }
    twice = {cap.cap: cap.verdict for cap in check_budget([found, found], settings)}
    assert twice["budget.calls"] == "not enough"


def test_what_was_spent_counts_against_a_cap(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    run(rehearsal(**{"seeds.limit": 4}), database)
    settings = rehearsal(**{"seeds.limit": 8, "budget.calls": 100})
    (cap,) = check_budget([plan_of(settings, database)], settings)
    assert cap.spent == 72
    assert cap.verdict == "not enough"


def test_retries_of_the_backend_are_in_what_was_recorded(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    with serving(ServerSettings(fault_rate=0.3, faults=("server_error",), random_seed=2)) as address:
        default = {"model": "hosted_vllm/default", "api_base": address, "attempts": 9}
        settings = CampaignSettings.model_validate(
            {
                "recipe": "dialogue",
                "turns": 2,
                "seeds": {"format": "rehearsal", "limit": 3},
                "models": {"default": default},
            }
        )
        report = run(settings, database)
    assert report.calls_sent > 9
    more = settings.model_copy(update={"seeds": settings.seeds.model_copy(update={"limit": 6})})
    assert plan_of(more, database).total.calls.expected == pytest.approx(report.calls_sent)


def test_padding_is_for_what_later_prompts_show() -> None:
    assert padded("hello", 8) == "hello" + 3 * PADDING
    assert padded("hello", 3) == "hello"
    assert padded('{"better": "A"}', 900) == '{"better": "A"}'
    assert json.loads(padded('{"answer": "é", "plan": "p"}', 31))["answer"].count(PADDING) > 0
    assert padded("{broken", 900) == "{broken"
    assert PADDING.strip()


def test_models_that_nobody_named_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"set models.default.model"):
        plan_of(real(tmp_path, models={}), tmp_path / "none")


def test_a_single_seed_has_no_spread_and_is_planned_all_the_same(tmp_path: Path) -> None:
    seed = Seed(
        seed_id="seed_1", source="test", messages=(Message(role="user", content="hello"),), metadata={}, split="train"
    )
    found = plan_campaign(real(tmp_path), [seed], tmp_path / "none")
    assert found.total.calls == Range(5, 5, 5)


def test_the_command_prints_every_role_of_every_recipe_and_json_for_machines(tmp_path: Path) -> None:
    config = tmp_path / "both.yaml"
    config.write_text(
        "name: both\nrecipe: [music, dialogue]\nturns: 2\nseeds: {format: rehearsal, limit: 3}\nbudget: {calls: 90}\n"
    )
    at = ["--db", str(tmp_path / "c.duckdb")]
    told = CliRunner().invoke(plan_command, [str(config), *at])
    assert told.exit_code == 0, told.output
    assert all(len(line) <= 80 for line in told.output.splitlines() if not line.startswith(("budget", "from")))
    for word in ("both-music", "both-dialogue", "perturbation", "all of them together", "budget.calls 90: enough"):
        assert word in told.output
    ended = CliRunner().invoke(plan_command, [str(config), *at, "--json", "--limit", "2", "--sample", "1"])
    shown = json.loads(ended.output)
    assert [part["sample"] for part in shown["campaigns"]] == [1, 1]
    together = sum(part["total"]["calls"]["expected"] for part in shown["campaigns"])
    assert shown["budget"][0]["forecast"]["expected"] == together
    assert len(load_campaigns(str(config))) == 2
    assert not (tmp_path / "c.duckdb").exists()


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (9_999.4, "9,999"), (12_340, "12.3k"), (999_600, "1.00M"), (2.5e9, "2.50G")]
)
def test_counts_fit_into_a_column(count: float, shown: str) -> None:
    assert amount(count) == shown


def test_what_recorded_playings_lost_is_foreseen_as_well(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    with serving() as api_base:
        settings = over_http(api_base)
        run(settings, database)
        before = plan_of(over_http(api_base, limit=12), database)
        lose(database, tokens=1000, usd=0.5)
        after = plan_of(over_http(api_base, limit=12), database)
    calls = sum(counts[0] for counts in used(database).values())
    assert before.lost_tokens == 0
    assert after.lost_tokens == 1000 * calls
    assert after.total.tokens.expected - before.total.tokens.expected == pytest.approx(1000 * calls)
    assert after.total.completion_tokens == before.total.completion_tokens
    dearest = CHEAP["output"] / 1e6  # the config's price goes before what was recorded
    assert before.total.usd is not None
    assert after.total.usd is not None
    assert after.total.usd.expected - before.total.usd.expected == pytest.approx(1000 * calls * dearest)
    page = io.StringIO()
    print_plans([after], [], Console(file=page))
    assert "their requests without an answer count too, at the most they can cost" in page.getvalue()


def test_a_price_that_is_given_later_tells_what_was_spent_before(tmp_path: Path) -> None:
    database = tmp_path / "c.duckdb"
    with serving() as api_base:
        run(over_http(api_base, price=None), database)
        lose(database, tokens=100, usd=None)
        unknown = plan_of(over_http(api_base, limit=12, price=None), database)
        known = plan_of(settings := over_http(api_base, limit=12, **{"budget": {"usd": 5.0}}), database)
    assert [usage.usd for usage in unknown.spent.values()] == [None, None]
    prompt, completion, calls = (sum(counts[place] for counts in used(database).values()) for place in (1, 2, 0))
    spent = sum(usage.usd or 0.0 for usage in known.spent.values())
    assert spent == pytest.approx((prompt * 1.0 + completion * 10.0 + 100 * calls * 10.0) / 1e6)
    (verdict,) = check_budget([known], settings)
    assert verdict.verdict == "enough"
    assert verdict.spent == pytest.approx(spent)


def test_models_without_a_price_are_told_once_with_their_roles(tmp_path: Path) -> None:
    default = {"model": "hosted_vllm/nobody", "max_tokens": 200}
    settings = real(
        tmp_path, recipe="music", turns=1, models={"default": default, "judges": [{}, {}]}, judge_pairs=True
    )
    (line,) = plan_of(settings, tmp_path / "c.duckdb", sample=1).unpriced
    assert line.startswith(
        "hosted_vllm/nobody (user, assistant, perturbation, judge): give it in dollars a million tokens"
    )


def test_the_low_end_is_not_nothing_where_every_playing_used_some() -> None:
    assert _range([[10, 10, 10], [1000, 1000, 1000]], 5).low == 10
    assert _range([[0, 0, 0], [1000, 1000, 1000]], 5).low == 0
    assert _range([[10, 10, 10], [1000, 1000, 1000]], 0).low == 0
    steady = _range([[100, 100, 100], [101, 101, 101], [102, 102, 102]], 50)
    assert 102 < steady.low < steady.expected == 50 * 101


def over_http(
    api_base: str, *, limit: int = 6, price: dict[str, float] | None = CHEAP, **given: Any
) -> CampaignSettings:
    """A dialogue of two answers, asked over HTTP."""
    default = {"model": "hosted_vllm/default", "api_base": api_base, "price": price}
    data = {"name": "http", "recipe": "dialogue", "turns": 2, "seeds": {"format": "rehearsal", "limit": limit}}
    return CampaignSettings.model_validate({**data, "models": {"default": default}, **given})


def lose(database: Path, *, tokens: int, usd: float | None) -> None:
    """As if each call had lost so much before its answer came."""
    with duckdb.connect(database) as connection:
        connection.execute("UPDATE calls SET lost_tokens = ?, lost_usd = ?", [tokens, usd])
