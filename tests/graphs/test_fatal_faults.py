"""What is the same for every dialogue stops the campaign at once, in one line, and the same campaign goes on when it is mended."""

from pathlib import Path
from typing import Any

import pytest

from agents.failures import ProviderError
from agents.rehearsal.request_log import read_log
from agents.rehearsal.server import ServerSettings, serving
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.seeds import load_seeds
from store.database import query

SEEDS, AT_ONCE = 12, 3
TRANSPORTS = ("direct", "litellm")


def play(database: Path, api_base: str, **model: Any) -> CampaignReport:
    settings = CampaignSettings.model_validate(
        {
            "recipe": "dialogue",
            "turns": 2,
            "concurrency": AT_ONCE,
            "seeds": {"format": "rehearsal", "limit": SEEDS},
            "models": {"default": {"model": "hosted_vllm/default", "api_base": api_base, **model}},
        }
    )
    return run_campaign(settings, load_seeds(settings).seeds, database)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_unknown_model_stops_the_campaign_without_a_retry(transport: str, tmp_path: Path) -> None:
    log, database = tmp_path / "log.jsonl", tmp_path / "corpus.duckdb"
    with serving(ServerSettings(log=str(log), latency_ms=20.0)) as address, pytest.raises(ProviderError) as raised:
        play(database, address, model="hosted_vllm/no-such", transport=transport)
    said = str(raised.value)
    assert (raised.value.kind, raised.value.exit_code) == ("unknown_model", 1)
    assert said.startswith(f"{address} does not know 'hosted_vllm/no-such'")
    assert "\n" not in said
    assert len(read_log(log)) == AT_ONCE  # each of those under way asked once, and nobody after them
    assert query(database, "SELECT count(*) AS n FROM dialogues") == [{"n": 0}]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_wrong_key_stops_the_campaign_which_goes_on_with_the_right_one(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, database = tmp_path / "log.jsonl", tmp_path / "corpus.duckdb"
    keyed = {"transport": transport, "api_key": "env:KEY_OF_THE_REHEARSAL"}
    with serving(ServerSettings(log=str(log)), api_key="right") as address:
        monkeypatch.setenv("KEY_OF_THE_REHEARSAL", "wrong")
        with pytest.raises(ProviderError, match="refused the key for 'hosted_vllm/default'") as raised:
            play(database, address, **keyed)
        assert (raised.value.kind, raised.value.exit_code) == ("bad_key", 1)
        assert len(read_log(log)) <= AT_ONCE
        monkeypatch.setenv("KEY_OF_THE_REHEARSAL", "right")
        report = play(database, address, **keyed)
    assert (report.done, report.failed, report.stop_reason) == (SEEDS, 0, None)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_model_that_is_gone_for_a_moment_stops_nothing(transport: str, tmp_path: Path) -> None:
    faults = ServerSettings(fault_rate=0.3, faults=("wrong_model",), random_seed=2, latency_ms=5.0)
    with serving(faults) as address:
        report = play(tmp_path / "corpus.duckdb", address, transport=transport, attempts=9)
    assert (report.done, report.failed, report.stop_reason) == (SEEDS, 0, None)
