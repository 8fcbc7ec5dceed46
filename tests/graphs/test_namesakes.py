"""What is said before a campaign begins beside another one of its name."""

from pathlib import Path
from typing import Any

import pytest

from configs.settings import CampaignSettings
from graphs.campaign import campaign_identity, run_campaign
from graphs.cast import prompts_of
from graphs.namesakes import namesake_line
from graphs.seeds import load_seeds


def settings_of(**given: Any) -> CampaignSettings:
    data: dict[str, Any] = {"name": "mine", "recipe": "dialogue", "turns": 2}
    return CampaignSettings.model_validate({**data, "seeds": {"format": "rehearsal", "limit": 1}, **given})


def identity(settings: CampaignSettings) -> str:
    return campaign_identity(settings, prompts_of(settings))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("namesakes") / "corpus.duckdb"
    for settings in (settings_of(), settings_of(turns=3, random_seed=7)):
        run_campaign(settings, load_seeds(settings).seeds, path)
    return path


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"turns": 4}, "turns is 4, and 2"),
        ({"turns": 4, "random_seed": 7}, "turns is 4, and 3"),  # of two namesakes the one that is more like it
        (
            {"models": {"default": {"model": "rehearsal/default", "temperature": 0.1}, "user": {"temperature": 0.7}}},
            "models.assistant.temperature is 0.1, and 0.7",
        ),
        (
            {"simulator": "trained", "gate": {}, "turns": 5, "random_seed": 1},
            "; simulator is 'trained', and 'prompted'",
        ),
    ],
)
def test_the_setting_that_differs_is_told(database: Path, changed: dict[str, Any], told: str) -> None:
    settings = settings_of(**changed)
    line = namesake_line(settings, identity(settings), database)
    assert line is not None
    assert line.startswith(f"a new campaign begins, {identity(settings)}: ")
    assert told in line
    assert line.endswith(" in " + line.split(" in ")[1])
    assert "which has the name 'mine' too" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"concurrency": 3, "budget": {"calls": 5}, "trials": 2, "seeds": {"format": "rehearsal", "limit": 9}},
        {"name": "another", "turns": 9},
    ],
)
def test_nothing_is_said_of_a_campaign_that_goes_on_or_has_a_name_of_its_own(
    database: Path, changed: dict[str, Any]
) -> None:
    settings = settings_of(**changed)
    assert namesake_line(settings, identity(settings), database) is None


def test_nothing_is_said_where_there_is_no_corpus(tmp_path: Path) -> None:
    assert namesake_line(settings_of(), "camp_x", tmp_path / "none.duckdb") is None


def test_prompts_that_differ_are_told_where_no_setting_does(database: Path) -> None:
    line = namesake_line(settings_of(), "camp_of_other_prompts", database)
    assert line is not None
    assert "its prompts, its reward model or its version of Descant are not those in camp_" in line
