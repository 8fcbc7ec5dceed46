"""An ask model, trained by `fit ask` and served by `run`, plays the user of a campaign over HTTP."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from configs.language_settings import AskFitSettings
from configs.load import validate
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.records import Message
from tests.processes import start_descant
from train.generate import generate
from train.language import fit_language

pytestmark = pytest.mark.engine
SEEDS, TURNS, STEPS = 8, 3, 120
MAX_TOKENS = 48
START_AND_PLAY_SECONDS = 400


class Ran(NamedTuple):
    """What `descant run` left behind."""

    report: dict[str, Any]
    said: str
    """On stderr."""
    corpus: Path
    model: Path
    fit_id: str


@pytest.fixture(scope="module")
def ran(vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("ask")
    sessions = validate(
        {"name": "sessions", "recipe": "dialogue", "turns": TURNS, "seeds": {"format": "rehearsal", "limit": 150}},
        CampaignSettings,
        where="test",
    )
    run_campaign(sessions, load_seeds(sessions).seeds, folder / "sessions.duckdb")
    fit = fit_language(
        validate(
            {
                "model": "tiny",
                "tiny": {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "kv_heads": 1}
                | {"vocab_size": 600},
                "data": {"path": str(folder / "sessions.duckdb")},
                "max_length": 1024,
                "learning_rate": 1e-2,
                "batch_size": 16,
                "steps": STEPS,
                "out": str(folder / "fits" / "ask"),
                "device": "cpu",
            },
            AskFitSettings,
            where="test",
        )
    )
    config = {
        "name": "asked",
        "recipe": "dialogue",
        "random_seed": 7,
        "turns": TURNS,
        "simulator": "trained",
        "seeds": {"format": "rehearsal", "limit": SEEDS},
        "models": {
            "default": {"model": "rehearsal/default"},
            "user": {"checkpoint": "fits/ask", "temperature": 0.0, "max_tokens": MAX_TOKENS},
        },
    }
    (folder / "asked.yaml").write_text(json.dumps(config))
    process = start_descant("run", "asked.yaml", "--db", "asked.duckdb", "--json", cwd=folder)
    out, err = process.communicate(timeout=START_AND_PLAY_SECONDS)
    assert process.returncode == 0, err
    return Ran(json.loads(out), err, folder / "asked.duckdb", fit.model_dir, fit.fit_id)


def as_messages(rows: Sequence[dict[str, str]]) -> list[Message]:
    return [Message.model_validate({"role": row["role"], "content": row["content"]}) for row in rows]


def test_every_dialogue_is_played_to_its_end_by_the_served_checkpoint(ran: Ran) -> None:
    name = f"hosted_vllm/ask-{ran.fit_id.removeprefix('fit_')[:8]}"
    assert (ran.report["done"], ran.report["failed"]) == (SEEDS, 0)
    assert ran.report["models"] == {"user": name, "assistant": "rehearsal/default"}
    asked = query(ran.corpus, "SELECT model, finish_reason, completion_tokens FROM calls WHERE agent = 'user'")
    assert len(asked) == SEEDS * (TURNS - 1)
    assert {call["model"] for call in asked} == {name}


def test_a_query_ends_with_its_turn_and_not_at_the_token_limit(ran: Ran) -> None:
    asked = query(ran.corpus, "SELECT response, finish_reason, completion_tokens FROM calls WHERE agent = 'user'")
    assert {call["finish_reason"] for call in asked} == {"stop"}
    assert all(0 < call["completion_tokens"] < MAX_TOKENS for call in asked)
    assert not any("<" in call["response"] or "\n" in call["response"].strip() for call in asked)


def test_over_http_it_asks_what_it_asks_in_process(ran: Ran) -> None:
    asked = query(ran.corpus, "SELECT messages, response FROM calls WHERE agent = 'user' ORDER BY call_id")
    histories = [as_messages(call["messages"]) for call in asked]
    assert all(history[-1].role == "assistant" for history in histories)
    in_process = generate(ran.model, histories, max_tokens=MAX_TOKENS, device="cpu")
    assert [call["response"].strip() for call in asked] == [text.strip() for text in in_process]
    assert len(set(in_process)) > 1


def test_it_asks_in_the_words_it_was_trained_on(ran: Ran) -> None:
    queries = query(ran.corpus, "SELECT content FROM turns WHERE role = 'user' AND depth > 0")
    assert sum("what" in row["content"].lower() for row in queries) > len(queries) / 2


def test_the_stored_config_names_the_checkpoint_and_no_server_is_left(ran: Ran) -> None:
    (campaign,) = query(ran.corpus, "SELECT config FROM campaigns")
    config = campaign["config"] if isinstance(campaign["config"], dict) else json.loads(campaign["config"])
    assert config["models"]["user"]["checkpoint"] == "fits/ask"
    assert config["models"]["user"]["api_base"] is None
    assert "starting vLLM for fits/ask (this takes about a minute) ..." in ran.said
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(ran.model).encode() in line for line in arguments)
