"""A checkpoint in a role: served for as long as a campaign runs, by whatever serves; here the rehearsal over HTTP."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.preflight import PreflightError
from agents.rehearsal.server import serving
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.cast import ModelMissingError
from graphs.checkpoints import CheckpointError, Say, Serving, with_checkpoints, with_judges
from graphs.judging import run_judging
from graphs.seeds import load_seeds
from store.database import query

OBJECTIVES: Mapping[str, str | None] = {"fits/chat": "sft", "fits/ask": "ask", "fits/other": None}


class Kitchen:
    """Serves folders by the rehearsal, and remembers what was served when."""

    def __init__(self) -> None:
        self.served: list[list[str]] = []
        self.open = 0

    def __call__(self) -> Serving:
        return Serving(OBJECTIVES.__getitem__, self.serve)

    def serve(self, folders: Sequence[str], *, say: Say) -> AbstractContextManager[Mapping[str, Endpoint]]:
        say(f"serving {folders}")
        return self._served(list(folders))

    @contextmanager
    def _served(self, folders: list[str]) -> Iterator[Mapping[str, Endpoint]]:
        self.served.append(folders)
        with serving() as base:
            self.open += 1
            try:
                yield {folder: Endpoint(base, "default") for folder in folders}
            finally:
                self.open -= 1


def never() -> Serving:
    raise AssertionError("nothing is to be served")


def settings(**models: Any) -> CampaignSettings:
    given = {"recipe": "dialogue", "turns": 2, "seeds": {"format": "rehearsal", "limit": 3}, "models": models}
    return CampaignSettings.model_validate(given)


def silent(_: str) -> None:
    pass


def test_a_campaign_with_a_checkpoint_resumes_at_another_port_as_the_same(tmp_path: Path) -> None:
    corpus, kitchen = tmp_path / "corpus.duckdb", Kitchen()
    written = settings(user={"checkpoint": "fits/chat"}, assistant={"model": "rehearsal/default"})
    seeds = load_seeds(written).seeds
    with with_checkpoints(written, kitchen, say=silent) as ready:
        first = run_campaign(ready, seeds[:2], corpus)
        assert kitchen.open == 1
    assert kitchen.open == 0
    with with_checkpoints(written, kitchen, say=silent) as ready:
        second = run_campaign(ready, seeds, corpus)
    assert first.campaign_id == second.campaign_id
    assert (first.done, second.done) == (2, 3)
    assert second.calls_sent == first.calls_sent // 2  # one seed of three was left
    assert first.models == {"user": "hosted_vllm/default", "assistant": "rehearsal/default"}
    (stored,) = query(corpus, "SELECT config FROM campaigns")
    assert '"checkpoint":"fits/chat"' in str(stored["config"]).replace(" ", "")
    assert "127.0.0.1" not in str(stored["config"])


def test_each_checkpoint_in_use_is_served_once_whatever_roles_it_plays(tmp_path: Path) -> None:
    kitchen = Kitchen()
    shared = settings(
        default={"checkpoint": "fits/chat"},
        assistant={"checkpoint": "fits/other"},
        perturbation={"checkpoint": "fits/no"},
    ).model_copy(update={"judge_pairs": True})
    with with_checkpoints(shared, kitchen, say=silent) as ready:
        assert ready.models.of("user") == ready.models.of("judge")
        report = run_campaign(ready, load_seeds(shared).seeds, tmp_path / "corpus.duckdb")
    assert report.done == 3
    assert kitchen.served == [["fits/chat", "fits/other"]]  # a recipe without perturbations has no use for the third


def test_without_checkpoints_nothing_is_served_and_the_settings_stay() -> None:
    plain = settings(default={"model": "rehearsal/default"})
    with with_checkpoints(plain, never, say=silent) as ready:
        assert ready is plain


def test_the_judges_of_a_judging_may_be_checkpoints(tmp_path: Path) -> None:
    corpus, kitchen = tmp_path / "corpus.duckdb", Kitchen()
    run_campaign(settings(), load_seeds(settings()).seeds, corpus)
    judging = JudgeSettings.model_validate({"rubric": "score", "models": {"judges": [{"checkpoint": "fits/chat"}]}})
    assert not judging.models.unnamed()
    with with_judges(judging, kitchen, say=silent) as ready:
        report = run_judging(ready, corpus)
    assert (report.verdicts, report.failed, report.judges) == (3, 0, {"hosted_vllm/default": "hosted_vllm/default"})


def test_a_campaign_whose_checkpoint_nobody_serves_is_refused(tmp_path: Path) -> None:
    unserved = settings(user={"checkpoint": "fits/chat"})
    with pytest.raises(PreflightError, match="nobody serves the checkpoint 'fits/chat': `descant run`"):
        run_campaign(unserved, load_seeds(unserved).seeds, tmp_path / "corpus.duckdb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("models", "simulator", "expected"),
    [
        ({"user": {"checkpoint": "fits/ask"}}, "prompted", "reads no instructions: set simulator: trained"),
        (
            {"user": {"checkpoint": "fits/chat"}},
            "trained",
            "was trained as sft, to answer: name one of descant fit ask",
        ),
        ({"assistant": {"checkpoint": "fits/ask"}}, "trained", "an ask model, which writes a user's queries"),
        ({"user": {"checkpoint": "fits/ask"}}, "trained", None),
        ({"user": {"checkpoint": "fits/other"}}, "trained", None),
    ],
)
def test_a_checkpoint_plays_only_what_it_was_trained_for(
    models: dict[str, Any], simulator: str, expected: str | None
) -> None:
    kitchen = Kitchen()
    asked = settings(**models).model_copy(update={"simulator": simulator})
    if expected is None:
        with with_checkpoints(asked, kitchen, say=silent):
            assert kitchen.open == 1
        return
    with pytest.raises(CheckpointError, match=expected):
        with_checkpoints(asked, kitchen, say=silent).__enter__()
    assert not kitchen.served


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"models": {"user": {"checkpoint": "fits/chat"}, "assistant": {"model": "nobody/x"}}}, PreflightError),
        ({"models": {"user": {"checkpoint": "fits/chat"}}, "seeds": {"path": "seeds.jsonl"}}, ModelMissingError),
        ({"models": {"user": {"checkpoint": "fits/chat"}}, "prompts": {"ask": "nowhere.md"}}, DescantError),
    ],
)
def test_what_is_wrong_elsewhere_is_told_before_anything_starts(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    mistaken = CampaignSettings.model_validate({"recipe": "dialogue", "seeds": {"format": "rehearsal"}} | changes)
    with pytest.raises(error):
        with_checkpoints(mistaken, never, say=silent).__enter__()


def test_the_servers_end_when_a_campaign_fails() -> None:
    kitchen = Kitchen()
    with (
        pytest.raises(KeyboardInterrupt),
        with_checkpoints(settings(user={"checkpoint": "fits/chat"}), kitchen, say=silent),
    ):
        raise KeyboardInterrupt
    assert kitchen.open == 0
