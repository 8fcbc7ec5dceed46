"""A campaign against a backend that fails in every way, killed on its way: the small one of `benchmarks.faults_and_kills`."""

from pathlib import Path

import pytest

from benchmarks.faults_and_kills import Shape, prove

SMALL = Shape(
    dialogues=40,
    kills=2,
    kills_under_budget=1,
    latency_ms=10.0,
    slow_ms=50.0,
    concurrency=16,
    retry_after_seconds=0.1,
    timeout_seconds=2.5,
    random_seed=16,
)


@pytest.mark.chain
def test_faults_and_kills_lose_nothing_pay_nothing_twice_and_pass_no_budget(tmp_path: Path) -> None:
    broken = [f"{verdict.what}: {verdict.found}" for verdict in prove(tmp_path, SMALL) if not verdict.holds]
    assert not broken
