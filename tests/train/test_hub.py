"""What `--model` may name, and what is said when there is no model: one line, at once."""

import json
import logging
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.train.conftest import MakePairs, MakeSettings
from train.errors import TrainError
from train.reward import fit_reward
from train.score import model_source


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with fits of its own and an empty cache of the hub beside it."""
    (tmp_path / "work" / "fits" / "kept" / "model").mkdir(parents=True)
    (tmp_path / "work" / "fits" / "kept" / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("name", ["fits/nope", "./org/nope", "~/nope", "/org/nope", "nope", "a/b/c"])
def test_a_missing_path_is_not_asked_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the network itself is forbidden here
    with pytest.raises(TrainError, match=r"no model in '.*nope|c': name a fit's folder \(fits/NAME\)"):
        model_source(name)


def test_a_fit_is_found_by_its_folder() -> None:
    assert model_source("fits/kept") == "fits/kept/model"


def test_offline_an_id_must_stand_in_the_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainError, match="not in the local cache, and HF_HUB_OFFLINE"):
        model_source("org/nope")
    cached = here.parent / "cache" / "models--org--nope"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text(json.dumps({}))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert model_source("org/nope") == "org/nope"


def test_a_hub_that_does_not_answer_is_asked_once_and_leaves_no_folder(
    here: Path,
    tiny_settings: MakeSettings,
    make_pairs: MakePairs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/{revision}/{filename}")
    settings = tiny_settings(model="org/nope", out="fits/new")
    with caplog.at_level(logging.INFO), pytest.raises(TrainError, match=r"'org/nope'.*could not be asked") as mistake:
        fit_reward(settings, pairs=make_pairs(10))
    assert "\n" not in str(mistake.value)
    assert not [record for record in caplog.records if "Retrying" in record.message]
    assert not (here / "fits" / "new").exists()
