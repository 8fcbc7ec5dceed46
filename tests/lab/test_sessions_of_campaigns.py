"""What language models learn from of a corpus that campaigns of several kinds have filled: no planted error, nothing twice."""

from pathlib import Path
from typing import Any

import pytest

from agents.rehearsal.oracle import grade
from configs.language_settings import SessionSettings
from configs.load import validate
from configs.settings import CONTEXT_KINDS, CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from train.errors import TrainError
from train.sessions import Session, read_sessions


def play(corpus: Path, **given: Any) -> None:
    defaults = {"turns": 4, "seeds": {"format": "rehearsal", "limit": 12}}
    settings = validate(defaults | given, CampaignSettings, where="test")
    run_campaign(settings, load_seeds(settings).seeds, corpus)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sessions") / "corpus.duckdb"
    perfect = {"default": {"model": "rehearsal/perfect"}}
    errors = {"schedule": "context", "kinds": list(CONTEXT_KINDS), "verify": True}
    play(path, name="live", recipe="dialogue", perturb=errors, models=perfect)
    play(path, name="capo", recipe="capo", models=perfect)
    boosts = {"name": "boosts", "recipe": "rmboost", "turns": 3, "models": perfect}
    play(path, **boosts, pairing={"boost": {"better": 0.5}})
    play(path, **boosts | {"name": "worse"}, pairing={"go_on_from": "rejected", "boost": {"better": 0.0}})
    misbehaving = {"user": {"model": "rehearsal/misbehaving"}}
    play(path, name="failing", recipe="dialogue", gate={"retries": 0, "repetitive": 0.95}, models=misbehaving)
    return path


def sessions(corpus: Path, **given: Any) -> list[Session]:
    return read_sessions(SessionSettings(path=str(corpus), **given)).sessions


def test_dialogues_with_a_planted_error_are_read_only_where_they_are_asked_for(corpus: Path) -> None:
    hit = query(
        corpus,
        "SELECT DISTINCT dialogue_id FROM perturbations JOIN dialogues USING (dialogue_id) WHERE branch = 'main'",
    )
    assert hit
    clean = sessions(corpus, campaign="live")
    assert {session.session_id for session in clean}.isdisjoint({row["dialogue_id"] for row in hit})
    assert all(turn.verdict == "right" for session in clean for turn in grade(session.messages))
    everything = sessions(corpus, campaign="live", perturbed=True)
    assert {row["dialogue_id"] for row in hit} <= {session.session_id for session in everything}
    assert any(turn.verdict == "wrong" for session in everything for turn in grade(session.messages))


def test_no_conversation_of_capo_is_the_beginning_of_another(corpus: Path) -> None:
    found = [session.messages for session in sessions(corpus, campaign="capo")]
    assert len(found) == 12
    assert not any(one != other and other[: len(one)] == one for one in found for other in found)
    chosen = sessions(corpus, campaign="capo", method="capo")  # the chosen sides of pairs, where they are asked for
    assert len(chosen) > len(found)


def test_dialogues_that_failed_are_not_learned_from(corpus: Path) -> None:
    statuses = {
        row["dialogue_id"]: row["status"]
        for row in query(
            corpus,
            "SELECT dialogue_id, transcripts.status FROM transcripts JOIN campaigns USING (campaign_id) WHERE name = 'failing'",
        )
    }
    assert set(statuses.values()) == {"done", "failed"}
    read = {session.session_id for session in sessions(corpus, campaign="failing")}
    assert {statuses[identity] for identity in read} == {"done"}


def test_conversations_of_rmboost_are_read_once_and_none_that_went_on_from_a_worse_answer(corpus: Path) -> None:
    found = sessions(corpus, campaign="boosts")
    branches = query(
        corpus,
        "SELECT branch, count(*) AS n FROM dialogues JOIN campaigns USING (campaign_id) WHERE name = 'boosts' GROUP BY 1",
    )
    assert {row["branch"] for row in branches} == {"main", "chosen", "rejected"}
    assert len(found) == 12
    assert all(turn.verdict == "right" for session in found for turn in grade(session.messages))
    assert sessions(corpus, campaign="worse", perturbed=True)
    with pytest.raises(TrainError, match="no conversations"):
        sessions(corpus, campaign="worse")
