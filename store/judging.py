"""What a later judging reads: the pairs or conversations to judge, right answers for them, and what was said already."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import orjson

from store.database import StoreError, query, reading
from store.queries import messages_of
from store.records import Call, Message, Pair


class Conversation(NamedTuple):
    """A finished dialogue of the corpus."""

    dialogue_id: str
    turn_ids: tuple[str, ...]
    messages: tuple[Message, ...]


class Subject(NamedTuple):
    """What is judged: a pair's two sides, or one conversation."""

    seed_id: str
    pair_id: str | None
    sides: tuple[Conversation, ...]
    """Chosen and rejected, or the one."""


Selection = Mapping[str, str | None]
"""`campaign` (an id or a name), `method` and `split`; null takes all."""
_SELECTED = """
    ($campaign IS NULL OR pairs.campaign_id IN (
        SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
    )) AND ($method IS NULL OR pairs.method = $method) AND ($split IS NULL OR pairs.split = $split)
"""


def subjects_to_judge(
    path: str | os.PathLike[str], selection: Selection, limit: int | None, *, pairs: bool
) -> list[Subject]:
    """Pairs, in order of their ids, or conversations; at most `limit`.

    The conversations are those of pairs where a method is asked for, else all that are done; candidates that were not
    picked are none. They come seed by seed, so that a limit takes both sides of a pair.

    Raises:
        StoreError: no campaign has the id or name that is asked for.
    """
    with reading(path) as connection:
        known = connection.execute("SELECT campaign_id, name FROM campaigns WHERE recipe <> 'judge'").fetchall()
        campaign = selection["campaign"]
        if campaign is not None and not any(campaign in row for row in known):
            names = ", ".join(sorted({name for _, name in known})) or "none yet"
            raise StoreError(f"no campaign has the id or name {campaign!r}: there are {names}")
        at_most = int(limit) if limit else "ALL"
        rows = connection.execute(f"{_PAIRS if pairs else _DIALOGUES} LIMIT {at_most}", selection).fetchall()
        conversations = _conversations(connection, {side for row in rows for side in row[2:]})
    return [Subject(seed, pair, tuple(conversations[side] for side in sides)) for seed, pair, *sides in rows]


_PAIRS = f"""
    SELECT good.seed_id, pairs.pair_id, pairs.chosen_id, pairs.rejected_id
    FROM pairs JOIN dialogues AS good ON good.dialogue_id = pairs.chosen_id
    WHERE {_SELECTED} ORDER BY pairs.pair_id
"""
_DIALOGUES = f"""
    SELECT seed_id, NULL, dialogue_id FROM dialogues LEFT JOIN seeds USING (seed_id)
    WHERE dialogues.status = 'done' AND branch <> 'candidate'
        AND ($campaign IS NULL OR campaign_id IN (
            SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
        ))
        AND ($split IS NULL OR seeds.split = $split)
        AND ($method IS NULL OR dialogue_id IN (SELECT unnest([chosen_id, rejected_id]) FROM pairs WHERE {_SELECTED}))
    ORDER BY seed_id, trial, branch, dialogue_id
"""


def _conversations(connection: duckdb.DuckDBPyConnection, dialogue_ids: set[str]) -> dict[str, Conversation]:
    rows = connection.execute(
        """
        SELECT dialogue_id, dialogues.turn_ids, transcripts.messages
        FROM transcripts JOIN dialogues USING (dialogue_id)
            SEMI JOIN (SELECT unnest($ids) AS dialogue_id) USING (dialogue_id)
        """,
        {"ids": sorted(dialogue_ids)},
    ).fetchall()
    return {row[0]: Conversation(row[0], tuple(row[1]), messages_of(row[2])) for row in rows}


def all_rehearsed(path: str | os.PathLike[str], seed_ids: Sequence[str]) -> bool:
    """Whether all these seeds are of the rehearsal's own world."""
    rows = query(path, "SELECT seed_id FROM seeds WHERE source = 'rehearsal'")
    return set(seed_ids) <= {row["seed_id"] for row in rows}


class Reference(NamedTuple):
    """Right answers to a seed's user turns."""

    answers: tuple[str, ...]
    questions: tuple[str, ...]
    """The user turns that they answer; empty where nobody says, and then they are taken for those of any conversation."""

    def fitting(self, *conversations: Conversation) -> tuple[str, ...]:
        """The answers to the user turns that all conversations begin with.

        MT-Bench's second answer is to its second question, and a simulated user may have asked another one.
        """
        if not self.questions:
            return self.answers
        asked = [[m.content for m in conversation.messages if m.role == "user"] for conversation in conversations]
        fit = 0
        while fit < min(len(self.answers), len(self.questions)) and all(
            fit < len(turns) and turns[fit] == self.questions[fit] for turns in asked
        ):
            fit += 1
        return self.answers[:fit]


def references(path: str | os.PathLike[str], file: str | None) -> dict[str, Reference]:
    """Right answers by seed of a corpus, as `references_of`."""
    rows = query(path, "SELECT seed_id, metadata FROM seeds")
    return references_of({row["seed_id"]: orjson.loads(row["metadata"]) for row in rows}, file)


def references_of(seeds: Mapping[str, Mapping[str, Any]], file: str | None) -> dict[str, Reference]:
    """Right answers by seed: from a file, or else from what the seeds brought along.

    Args:
        seeds: metadata by seed.

    Raises:
        StoreError: the file cannot be read, or a line of it.
    """
    given: dict[str, tuple[str, ...]] = {}
    if file is None:
        given = {seed: _answers(metadata.get("reference")) for seed, metadata in seeds.items()}
    else:
        by_name: dict[str, list[str]] = {}
        for seed, metadata in seeds.items():
            for name in [seed, *(f"{key}={metadata[key]}" for key in ("question_id", "id") if key in metadata)]:
                by_name.setdefault(name, []).append(seed)
        for number, line in enumerate(_lines(file), start=1):
            name, answers = _row(line, f"{file}, line {number}")
            given |= dict.fromkeys(by_name.get(name, ()), answers)
    return {seed: Reference(answers, _answers(seeds[seed].get("turns"))) for seed, answers in given.items() if answers}


def _lines(file: str) -> list[bytes]:
    try:
        text = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"the references {file!r} cannot be read ({reason}): mend the path") from error
    return [line for line in text.splitlines() if line.strip()]


def _row(line: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    """What a line names, and its right answers."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise StoreError(
            f"{where}: not JSON ({error}): a line is an object such as a seed_id and a reference"
        ) from error
    if not isinstance(row, dict):
        raise StoreError(f"{where}: not an object with a seed_id, question_id or id, and a reference")
    answers = _answers(row.get("reference"))
    if not answers and isinstance(row.get("choices"), list) and row["choices"]:  # MT-Bench's reference answers
        first = row["choices"][0]
        answers = _answers(first.get("turns") if isinstance(first, dict) else None)
    if not answers:
        raise StoreError(f"{where}: no right answer: `reference` is a text, or a list of texts by turn")
    if isinstance(row.get("seed_id"), str):
        return row["seed_id"], answers
    for key in ("question_id", "id"):
        if key in row:
            return f"{key}={row[key]}", answers
    raise StoreError(f"{where}: names no seed: give it a seed_id, or the question_id or id of the seed's metadata")


def _answers(value: Any) -> tuple[str, ...]:
    """Texts by turn; empty where there are none."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if not all(isinstance(text, str) for text in texts) or not any(text.strip() for text in texts):
        return ()
    return tuple(texts)


def unsettled_calls(path: str | os.PathLike[str], campaign_id: str, label_set: str) -> list[Call]:
    """The calls of a judging that no judgement came of yet, in the order in which they began."""
    with reading(path) as connection:
        rows = connection.execute(
            f"""
            SELECT {", ".join(Call.model_fields)} FROM calls
            WHERE campaign_id = ? AND status <> 'superseded'
                AND call_id NOT IN (SELECT call_id FROM judgements WHERE label_set = ? AND call_id IS NOT NULL)
            ORDER BY created_at, call_id
            """,
            [campaign_id, label_set],
        ).fetchall()
    calls = [dict(zip(Call.model_fields, row, strict=True)) for row in rows]
    for call in calls:
        call["messages"] = None if call["messages"] is None else messages_of(call["messages"])
        call["parameters"] = orjson.loads(call["parameters"])
    return [Call.model_construct(**call) for call in calls]


class SoFar(NamedTuple):
    """What is there of a set of verdicts."""

    verdicts: dict[str, str]
    """By judgement."""
    is_anothers: bool
    """Whether the name belongs to a set that was asked for otherwise."""
    created_at: datetime | None
    """When this judging was first started; null when it never was."""


def so_far(path: str | os.PathLike[str], label_set: str, campaign_id: str) -> SoFar:
    with reading(path) as connection:
        verdicts = connection.execute(
            "SELECT judgement_id, verdict FROM judgements WHERE label_set = ?", [label_set]
        ).fetchall()
        judgings = connection.execute(
            "SELECT campaign_id, created_at FROM campaigns WHERE recipe = 'judge' AND name = ?", [label_set]
        ).fetchall()
    ours = dict(judgings).get(campaign_id)
    return SoFar(dict(verdicts), ours is None and bool(judgings or verdicts), ours)


def pairs_of(path: str | os.PathLike[str], pair_ids: Sequence[str]) -> list[Pair]:
    """The rows of these pairs."""
    with reading(path) as connection:
        rows = connection.execute(
            f"SELECT {', '.join(Pair.model_fields)} FROM pairs SEMI JOIN (SELECT unnest(?) AS pair_id) USING (pair_id)",
            [list(pair_ids)],
        ).fetchall()
    return [Pair.model_validate(dict(zip(Pair.model_fields, row, strict=True))) for row in rows]
