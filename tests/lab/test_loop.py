"""The loop that a user simulator learns by: rounds, what is kept of them, and the comparison with a prompted one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.rehearsal.backend import complete
from configs.load import ConfigError, load, validate
from configs.loop_settings import KeepSettings, LoopSettings
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.checkpoints import Serving
from graphs.seeds import load_seeds
from lab.loop import LoopError, kept_sessions, run_loop
from lab.simulators import cost_of, figure, statistics
from store.database import query
from tests.scripted import said, scripted_model
from tests.servers import Asked, scripted_server
from train.serving import objective_of, read_checkpoint

TALK = (
    said("user", "Call me Ilse. Belo is red and big. What is its size?"),
    said("assistant", "It is big, Ilse."),
    said("user", "And its colour?"),
    said("assistant", "It is red, Ilse."),
)


def test_statistics_of_a_conversation_are_as_counted_by_hand() -> None:
    turns, words, dependent, alike = statistics([TALK])
    assert turns.value == 2
    assert words.value == 3  # of "And its colour?"; the first query does not count
    assert dependent.value == 1
    # call me ilse belo is red and big what is its size (12 tokens), and its colour (3): "and its" is common
    assert alike.value == pytest.approx(100 * 2 * 2 / 15)
    assert (turns.n, turns.low, turns.high) == (1, 2, 2)


def test_a_figure_without_values_is_null_and_one_with_them_lies_in_its_interval() -> None:
    assert figure([]).value is None
    found = figure([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.low is not None
    assert found.high is not None
    assert 1.0 <= found.low < 2.5 < found.high <= 4.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"collect": {"recipe": "music", "simulator": "trained"}}, "collects plain conversations"),
        ({"collect": {"recipe": "dialogue"}}, "set collect.simulator=trained"),
        (
            {"collect": {"recipe": "dialogue", "simulator": "trained", "models": {"user": {"model": "openai/x"}}}},
            "the loop puts the trained model there",
        ),
    ],
)
def test_a_campaign_that_cannot_collect_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        validate(changes, LoopSettings, where="test")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A campaign of dialogues of one to three answers."""
    corpus = tmp_path_factory.mktemp("loop") / "corpus.duckdb"
    changes = ["seeds.format=rehearsal", "seeds.limit=20", "turns={low: 1, high: 3}", "name=sessions"]
    settings = load("dialogue", CampaignSettings, overrides=changes)
    report = run_campaign(settings, load_seeds(settings).seeds, corpus)
    return corpus, report.campaign_id


def test_what_is_not_kept_is_counted_by_its_reason(played: tuple[Path, str]) -> None:
    corpus, campaign = played
    lengths = [row["n_turns"] for row in query(corpus, "SELECT n_turns FROM dialogues")]
    kept, dropped = kept_sessions(corpus, campaign, KeepSettings(fewest_turns=2, most_self_rouge=100.0))
    assert dropped == {"too_few_turns": lengths.count(1)}
    assert len(kept) == len(lengths) - lengths.count(1)
    assert all(len(session.messages) >= 4 for session in kept)
    alike, dropped = kept_sessions(corpus, campaign, KeepSettings(fewest_turns=2, most_self_rouge=20.0))
    assert dropped["too_alike"] == len(kept) - len(alike) > 0


def settings_of(corpus: Path, **changes: Any) -> LoopSettings:
    overrides = [
        "fit.steps=3",
        "fit.tiny={hidden_size: 16, intermediate_size: 16, layers: 1, heads: 2, kv_heads: 1}",
        f"fit.data={json.dumps({'path': str(corpus), 'campaign': 'sessions'})}",
        "collect.seeds.limit=24",
        "collect.turns=2",
        "compare.seeds=4",
        *(f"{key}={json.dumps(value)}" for key, value in changes.items()),
    ]
    return load("ask-rehearsal", LoopSettings, overrides=overrides, folder="loop")


def test_seeds_of_one_split_alone_are_refused_before_anything_is_trained(
    played: tuple[Path, str], tmp_path: Path
) -> None:
    settings = settings_of(played[0], **{"collect.seeds.limit": 1})
    with pytest.raises(LoopError, match="in the train split: take more"):
        run_loop(settings, played[0], tmp_path / "out", serving=lambda: pytest.fail("nothing is served"))
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_a_campaign_is_refused_since_the_loop_s_own_dialogues_stand_there(
    played: tuple[Path, str], tmp_path: Path
) -> None:
    settings = settings_of(played[0], **{"fit.data.campaign": None})
    with pytest.raises(LoopError, match=r"set fit\.data\.campaign"):
        run_loop(settings, played[0], tmp_path / "out", serving=lambda: pytest.fail("nothing is served"))


def test_conversations_of_equal_queries_are_kept_once(tmp_path: Path) -> None:
    """A user who always says the same, after the same first query of each of two seeds."""
    corpus = tmp_path / "corpus.duckdb"
    seeds = tmp_path / "seeds.jsonl"
    row = {"messages": [{"role": "user", "content": "Call me Ilse. Belo is red and big. What is its size?"}]}
    seeds.write_text((json.dumps(row) + "\n") * 3)
    with scripted_model(
        lambda messages: "And its colour?" if "Task: ask" in messages[0]["content"] else "Red."
    ) as model:
        changes = {
            "recipe": "dialogue",
            "turns": 2,
            "seeds": {"path": str(seeds)},
            "models": {"default": {"model": model}},
        }
        settings = validate(changes, CampaignSettings, where="test")
        report = run_campaign(settings, load_seeds(settings).seeds, corpus)
    kept, dropped = kept_sessions(corpus, report.campaign_id, KeepSettings())
    assert len(kept) == 1
    assert dropped == {"said_before": 2}


def test_a_dialogue_that_failed_costs_too(tmp_path: Path) -> None:
    """Three dialogues of one call each, of which two failed: a call a dialogue, not three."""
    corpus = tmp_path / "corpus.duckdb"
    said = iter(["And its colour?", "I am the user simulator.", "I am the user simulator."])
    changes = {
        "recipe": "dialogue",
        "turns": 2,
        "concurrency": 1,
        "seeds": {"format": "rehearsal", "limit": 3},
        "gate": {"retries": 0},
    }
    with scripted_model(lambda _: next(said)) as model:
        settings = validate(changes | {"models": {"user": {"model": model}}}, CampaignSettings, where="test")
        report = run_campaign(settings, load_seeds(settings).seeds, corpus)
    assert (report.done, report.failed) == (1, 2)
    cost = cost_of(corpus, report)
    assert (cost.calls, cost.prompt_tokens, cost.completion_tokens) == (1.0, 11.0, 7.0)


def rehearse(asked: Asked) -> str:
    """The rehearsal, under whatever name it is asked."""
    return complete("default", asked.body["messages"], asked.body).content


@pytest.mark.chain
def test_two_rounds_and_the_comparison_run_from_one_config_and_again_for_nothing(
    played: tuple[Path, str], tmp_path: Path
) -> None:
    """The rehearsal's server stands where vLLM's would: it plays the user of a bare conversation, too."""
    served: list[str] = []
    settings = settings_of(played[0])
    with scripted_server(rehearse) as server:

        @contextmanager
        def serve(folders: Sequence[str], *, say: Any) -> Iterator[Mapping[str, Endpoint]]:  # noqa: ARG001
            served.extend(folders)
            yield {folder: Endpoint(server.url, read_checkpoint(folder).served_name) for folder in folders}

        first = run_loop(settings, played[0], tmp_path / "out", serving=lambda: Serving(objective_of, serve))
    assert len(served) == 3  # two rounds, and the comparison
    calls = query(played[0], "SELECT count(*) AS n FROM calls")
    # Again, with nobody there: no server is started, nothing is asked, nothing trained.
    again = run_loop(settings, played[0], tmp_path / "out", serving=lambda: pytest.fail("nothing is served"))
    assert query(played[0], "SELECT count(*) AS n FROM calls") == calls
    assert all(one.fit.already_done for one in again.rounds)
    assert again.comparison == first.comparison
    assert [one.number for one in first.rounds] == [1, 2]
    assert first.rounds[1].sessions == first.rounds[0].sessions + first.rounds[0].kept
    collected = first.rounds[0].campaign
    assert first.rounds[0].kept + sum(first.rounds[0].dropped.values()) == collected.done + collected.failed
    assert first.comparison is not None
    trained, prompted, real = first.comparison.simulators
    assert (trained.name, prompted.name, real.name) == ("trained", "prompted", "real")
    assert trained.model.startswith("hosted_vllm/ask-rehearsal-round-2-")
    held_out = query(
        played[0],
        "SELECT count(*) AS n FROM transcripts JOIN campaigns USING (campaign_id) WHERE split <> 'train' AND name = 'sessions'",
    )
    assert real.dialogues == held_out[0]["n"]
    assert trained.dialogues + trained.failed == prompted.dialogues + prompted.failed == 4
    assert trained.realism.value is not None
    assert trained.cost is not None
    assert trained.cost.calls > 0
    assert "says nothing about real models" in first.comparison.to_table()
    assert all(len(line) <= 79 for line in first.comparison.to_table().splitlines() if "/" not in line)
    rows = query(played[0], "SELECT DISTINCT name FROM metrics WHERE name LIKE 'simulator_%'")
    assert {"simulator_realism", "simulator_self_rouge"} <= {row["name"] for row in rows}
