"""Settings of a benchmark: what fits together, and presets that are what they say."""

from typing import Any

import pytest

from configs.benchmark_settings import BenchmarkSettings
from configs.load import ConfigError, load, presets, validate


def test_the_presets_play_two_turns_eight_and_one() -> None:
    assert presets("benchmark") == ["mtbench", "mtbench-extended", "mtbench101"]
    played = {name: load(name, BenchmarkSettings, folder="benchmark").turns_played for name in presets("benchmark")}
    assert played == {"mtbench": 2, "mtbench-extended": 8, "mtbench101": 1}


@pytest.mark.parametrize("name", ["mtbench", "mtbench-extended", "mtbench101"])
def test_each_preset_has_a_variant_that_needs_no_key(name: str) -> None:
    settings = load(name, BenchmarkSettings, folder="benchmark", overrides=["variant=rehearsal"])
    assert {settings.models.of(role).model for role in ("user", "assistant", "judge")} == {"rehearsal/default"}
    assert settings.models.of("judge").temperature == 0.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"turns": 8}, "turns is for benchmark mtbench"),
        ({"benchmark": "mtbench101", "gate": {}}, "gate is for benchmark mtbench"),
        ({"benchmark": "mtbench101", "references": "x"}, "bring their own right answers"),
        ({"name": "two words"}, "no name of a run"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(given, BenchmarkSettings, where="x.yaml")
