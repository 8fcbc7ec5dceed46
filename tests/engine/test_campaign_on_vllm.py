"""A `music` campaign over HTTP against a real vLLM engine: noise for text, everything around it right."""

import json
from pathlib import Path

import pytest

from configs.load import validate
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.queries import preference_pairs

pytestmark = pytest.mark.engine
SEEDS = 6
MAX_TOKENS = 16


@pytest.fixture(scope="module")
def corpus(vllm_server: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    seeds = folder / "seeds.jsonl"
    rows = [
        {"task": "GR", "id": place, "history": [{"user": f"Who is taller, A or B{place}?", "bot": "A is."}]}
        for place in range(SEEDS)
    ]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = validate(
        {
            "name": "noise",
            "turns": 2,
            "seeds": {"path": str(seeds), "format": "mtbench101"},
            "perturb": {"verify": True},
            "models": {
                "default": {
                    "model": f"hosted_vllm/{vllm_server.model}",
                    "api_base": vllm_server.api_base,
                    "max_tokens": MAX_TOKENS,
                }
            },
        },
        CampaignSettings,
        where="test",
    )
    report = run_campaign(settings, load_seeds(settings).seeds, folder / "corpus.duckdb")
    assert (report.done, report.failed) == (2 * SEEDS, 0)
    return folder / "corpus.duckdb"


def test_every_call_has_the_engine_s_usage_and_an_unknown_price(corpus: Path) -> None:
    calls = query(corpus, "SELECT * FROM calls")
    # chosen: 2 answers, 1 question; rejected: 2 of answer, alter and verify, each verify asked twice again, 1 question
    assert len(calls) == SEEDS * 14
    assert {call["status"] for call in calls} == {"done"}
    for call in calls:  # noise ends early by chance
        assert call["completion_tokens"] == MAX_TOKENS or call["finish_reason"] == "stop"
        assert 0 < call["completion_tokens"] <= MAX_TOKENS
    assert all(call["prompt_tokens"] > 10 and call["cost_usd"] is None for call in calls)


def test_noise_of_a_judge_is_stored_as_invalid_and_never_as_a_verdict(corpus: Path) -> None:
    judgements = query(corpus, "SELECT verdict, raw FROM judgements")
    assert len(judgements) == 2 * SEEDS
    assert {judgement["verdict"] for judgement in judgements} == {"invalid"}
    assert all(judgement["raw"] for judgement in judgements)
    assert {row["verdict"] for row in query(corpus, "SELECT verdict FROM perturbations")} == {"unchecked"}


def test_every_seed_makes_a_pair_of_whole_conversations(corpus: Path) -> None:
    pairs = preference_pairs(corpus)
    assert len(pairs) == SEEDS
    for pair in pairs:
        assert [message.role for message in pair.chosen] == ["user", "assistant"] * 2
        assert pair.chosen[0] == pair.rejected[0]
        assert pair.chosen[1:] != pair.rejected[1:]
