"""What a campaign keeps of each dialogue beside its turns: counted from the stored text again."""

from pathlib import Path

import pytest

from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.context import context_dependent
from store.database import query
from store.records import Message
from store.rouge import rouge_l


@pytest.mark.parametrize("recipe", ["dialogue", "music"])
def test_every_dialogue_is_measured_with_its_seed(tmp_path: Path, recipe: str) -> None:
    settings = CampaignSettings.model_validate(
        {"recipe": recipe, "turns": 4, "seeds": {"format": "rehearsal", "limit": 4, "world": "hard"}}
    )
    run_campaign(settings, load_seeds(settings).seeds, tmp_path / "corpus.duckdb")
    rows = query(
        tmp_path / "corpus.duckdb",
        "SELECT messages, n_words, n_tokens, context_dependent_turns, self_rouge "
        "FROM transcripts JOIN dialogue_stats USING (dialogue_id)",
    )
    assert len(rows) == (4 if recipe == "dialogue" else 8)
    for row in rows:
        messages = [Message(**message) for message in row["messages"]]
        places = [place for place, message in enumerate(messages) if message.role == "user"]
        queries = [messages[place].content for place in places]
        pairs = [rouge_l(one, other) for place, one in enumerate(queries) for other in queries[:place]]
        assert row["self_rouge"] == pytest.approx(100 * sum(pairs) / len(pairs))
        assert row["context_dependent_turns"] == sum(
            context_dependent(messages[:place], messages[place].content) for place in places
        )
        assert row["n_words"] == sum(len(message.content.split()) for message in messages)
        assert row["n_tokens"] > 0
    assert any(row["context_dependent_turns"] for row in rows), "the rehearsal's user asks `And the price?`"
