"""What the calls of a negative show of its history, read from the journal: nothing, or all of it."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query

SPAN = 25
"""Characters: so much of the history and no less counts as shown."""
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtbench101.jsonl"
WITHOUT_HISTORY = ("answer_neglect", "guess", "answer_guess")
WITH_HISTORY = ("misread", "answer_misread")


class Shown(NamedTuple):
    """One call of a negative, with the conversation that it is a negative of."""

    purpose: str
    messages: str
    """What the model was shown."""
    history: list[str]
    query: str


def spans(text: str) -> set[str]:
    return {text[start : start + SPAN] for start in range(len(text) - SPAN + 1)}


def leaked(call: Shown) -> set[str]:
    """Spans of the history that the call shows and the query lacks."""
    told = set[str]().union(*map(spans, call.history))
    return (spans(call.messages) & told) - spans(call.query)


def calls_of(database: Path) -> list[Shown]:
    """Every call of a perturbed answer, with the turns that stand before that answer."""
    rows = query(
        database,
        """
        SELECT calls.purpose, calls.messages, transcripts.messages AS conversation, turns.depth
        FROM calls JOIN transcripts USING (dialogue_id) JOIN perturbations USING (dialogue_id)
        JOIN turns ON turns.turn_id = perturbations.turn_id
        WHERE calls.agent IN ('assistant', 'perturbation') AND calls.status = 'done' AND branch = 'rejected'
        """,
    )
    found = []
    for row in rows:
        shown = json.loads(row["messages"]) if isinstance(row["messages"], str) else row["messages"]
        before = [message["content"] for message in row["conversation"][: row["depth"]]]
        text = "\n".join(message["content"] for message in shown)
        found.append(Shown(row["purpose"], text, before[:-1], before[-1]))
    return found


def run(database: Path, *overrides: str) -> list[Shown]:
    settings = load("capo-rehearsal", CampaignSettings, overrides=overrides)
    report = run_campaign(settings, load_seeds(settings).seeds, database)
    assert report.pairs > 0
    return calls_of(database)


def check(calls: list[Shown]) -> None:
    purposes = Counter(call.purpose for call in calls)
    assert set(purposes) == {*WITHOUT_HISTORY, *WITH_HISTORY}
    for call in calls:
        if call.purpose in WITHOUT_HISTORY:
            assert not leaked(call), call
        else:
            assert all(text in call.messages for text in call.history), call
            if call.purpose == "misread":
                assert call.query in call.messages


@pytest.mark.parametrize("world", ["easy", "hard"])
def test_in_the_rehearsals_journal_only_a_misunderstanding_has_read_the_history(world: str, tmp_path: Path) -> None:
    errs = (
        'models.judges=[{"params": {"judge_error_rate": 0.3}}]'  # so that negatives are found to miss, and tried again
    )
    calls = run(tmp_path / "corpus.duckdb", f"seeds.world={world}", "seeds.limit=6", "capo.check=false", errs)
    check(calls)
    assert sum("<missed>" in call.messages for call in calls) > 2


def test_of_real_conversations_only_a_misunderstanding_has_read_the_history(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"MT-Bench-101 is not there ({DATA}); download it to run this test")
    seeds = tmp_path / "seeds.jsonl"
    with DATA.open("rb") as rows, seeds.open("wb") as some:
        some.writelines(islice(rows, 0, None, 40))
    given = ["capo.play=false", "capo.check=false", f"seeds.path={seeds}", "seeds.format=mtbench101"]
    model = "models.default.model=rehearsal/default"
    calls = run(tmp_path / "corpus.duckdb", *given, "seeds.limit=null", "seeds.cut=last_assistant", model)
    check(calls)
    assert len({call.query for call in calls}) > 25


HISTORY = ["The cat of the old schoolmaster sleeps.", "It sleeps on the dictionary that he wrote."]


@pytest.mark.parametrize(
    ("shown", "query_text", "leaks"),
    [
        ("Why does it sleep?", "Why does it sleep?", False),
        ("The cat of the old school is asleep, why?", "Why does it sleep?", True),
        ("The cat of the old scho", "Why does it sleep?", False),  # 23 characters
        ("Why on the dictionary that he wrote?", "Why on the dictionary that he wrote?", False),  # the query's own
        ("Why on the dictionary that he wrote. Then?", "Why on the dictionary that?", True),
    ],
)
def test_a_span_of_the_history_that_the_query_lacks_is_found(shown: str, query_text: str, leaks: bool) -> None:
    assert bool(leaked(Shown("guess", shown, HISTORY, query_text))) is leaks
