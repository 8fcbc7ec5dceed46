"""A campaign whose writers are made to lapse stores none of it in a pair, and counts each under its reason.

What was played is known from each request's own chance (`what_was_played`), and what an answer is worth from the oracle: neither
from the rules nor from a judge.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.rehearsal.backend import what_was_played
from agents.rehearsal.lapses import LAPSES, OF_A_PLAIN_ANSWER
from agents.rehearsal.oracle import better
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.records import Message

REASON_OF = {
    "repeat": "near_identical",
    "empty": "empty",
    "editing": "speaks_of_editing",
    "aspects": "speaks_of_aspects",
    "unparsable": "unparsable",
    "endless": "cut_off",
}
ASKED_BESIDE_A_CAUGHT_ONE = """
SELECT calls.call_id FROM calls JOIN calls AS other USING (dialogue_id, ordinal) JOIN caught ON caught.call_id = other.call_id
"""
RATES = {f"{lapse}_rate": 0.08 for lapse in LAPSES}
FORMS: dict[str, dict[str, Any]] = {
    "rmboost": {"recipe": "rmboost", "world": "lists", "lapsing": "perturbation", "purposes": ("boost",)},
    "rmboost_hard": {"recipe": "rmboost", "world": "hard", "lapsing": "perturbation", "purposes": ("boost",)},
    "rlcd": {"recipe": "rlcd", "world": "lists", "lapsing": "assistant", "purposes": ("steer_better", "steer_worse")},
}


@pytest.fixture(scope="module", params=FORMS)
def lapsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    form = FORMS[request.param]
    models: dict[str, Any] = {"assistant": {"model": "rehearsal/varied"}}
    models[form["lapsing"]] = {"model": "rehearsal/varied", "max_tokens": 200, "params": RATES}
    settings = CampaignSettings.model_validate(
        {
            "name": request.param,
            "recipe": form["recipe"],
            "turns": 2,
            "seeds": {"format": "rehearsal", "world": form["world"], "limit": 50},
            "pairing": {"redraws": 4},
            "models": {"default": {"model": "rehearsal/default"}, **models},
        }
    )
    database = tmp_path_factory.mktemp("lapsed") / "corpus.duckdb"
    run_campaign(settings, load_seeds(settings).seeds, database)
    return request.param, database


def played_in(database: Path, purposes: tuple[str, ...]) -> dict[str, str]:
    """The lapse by the call that played it."""
    calls = query(
        database, "SELECT * FROM requests WHERE list_contains($purposes, purpose)", {"purposes": list(purposes)}
    )
    played = {
        call["call_id"]: what_was_played(call["model"], call["messages"], json.loads(call["parameters"]))
        for call in calls
    }
    return {call_id: lapse for call_id, lapse in played.items() if lapse is not None}


def test_every_lapse_is_caught_for_what_it_is_and_stands_in_no_pair(lapsed: tuple[str, Path]) -> None:
    name, database = lapsed
    played = played_in(database, FORMS[name]["purposes"])
    unusable = set(played)
    kinds = LAPSES if FORMS[name]["recipe"] == "rmboost" else OF_A_PLAIN_ANSWER
    assert min(Counter(played.values())[kind] for kind in kinds) >= 3
    caught = {row["call_id"]: row["reason"] for row in query(database, "FROM caught")}
    if name == "rlcd":  # of two that speak alike of their making, to refuse one is enough
        beside = {row["call_id"] for row in query(database, ASKED_BESIDE_A_CAUGHT_ONE)}
        played = {call: lapse for call, lapse in played.items() if call in caught or call not in beside}
    assert {call: caught.get(call) for call in played} == {call: REASON_OF[lapse] for call, lapse in played.items()}
    sides = query(
        database,
        "SELECT call_id FROM turns JOIN dialogues ON turn_id = turn_ids[-1] WHERE branch IN ('chosen', 'rejected')",
    )
    assert len(sides) > 80
    assert not {row["call_id"] for row in sides} & unusable


def test_what_is_left_deserves_its_label(lapsed: tuple[str, Path]) -> None:
    """Without a failing edit RMBoost's labels are right; a good and a poor answer are written apart, and now and then tie."""
    name, database = lapsed
    verdicts = Counter[str]()
    for row in query(database, "SELECT chosen, rejected FROM preference_pairs"):
        chosen, rejected = ([Message.model_validate(m) for m in row[side]] for side in ("chosen", "rejected"))
        assert chosen[:-1] == rejected[:-1]
        verdicts[better(chosen[:-1], chosen[-1].content, rejected[-1].content)] += 1
    assert verdicts["unknown"] == 0
    if name == "rlcd":
        assert verdicts["first"] > 0.75 * verdicts.total()
    else:
        assert set(verdicts) == {"first"}
