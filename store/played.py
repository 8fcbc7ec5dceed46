"""What a corpus keeps of dialogues that were played, as records again. Knows nothing of how they are played.

A playing is a seed and a trial: all dialogues that came of it, their turns, and what hangs on them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

import duckdb
import orjson

from store.database import StoreError, query, reading
from store.queries import campaigns_called, resolve_id, the_one_called
from store.records import (
    Call,
    Campaign,
    Caught,
    Dialogue,
    DialogueStats,
    Fit,
    Judgement,
    Label,
    Pair,
    Perturbation,
    Record,
    Score,
    Seed,
    Turn,
)
from store.tables import TABLES

OWN_LABEL_SET = "campaign"
"""The verdicts that a campaign makes as it runs; sets of other names came later."""
Kind = TypeVar("Kind", bound=Record)


class Playing(NamedTuple):
    """One playing of a seed."""

    seed_id: str
    trial: int


class Found(NamedTuple):
    """What an id names."""

    campaign_id: str
    dialogue_id: str | None
    """Null where it names the campaign."""
    playing: Playing | None = None


class Origin(NamedTuple):
    """A dialogue that others may go on from."""

    dialogue: Dialogue
    seed: Seed
    turns: list[Turn]


class Kept(NamedTuple):
    """What one playing left behind."""

    playing: Playing
    seed: Seed
    records: list[Record]
    """Turns, dialogues and what hangs on them; not the labels, the calls, and what belongs to another campaign."""
    labels: list[Label]
    calls: list[Call]
    """Superseded ones too, in the order in which they began."""
    borrowed: list[Turn]
    """Turns of the dialogues' paths that another campaign wrote."""
    relabelled: frozenset[str]
    """Pairs that later judges gave verdicts on, by id: their judged_label may be those judges'."""


def find(path: str | os.PathLike[str], name: str) -> Found:
    """The dialogue or the campaign that an id, the beginning of one, or a campaign's name means.

    Raises:
        StoreError: nothing is called so, several things are, it is neither, or it has not ended.
    """
    named = the_one_called(name, campaigns_called(path, name))
    if named is not None:
        return Found(named, None)
    try:
        kind, identity = resolve_id(path, name)
    except StoreError:
        begun = query(path, "SELECT DISTINCT dialogue_id FROM calls WHERE starts_with(dialogue_id, ?) LIMIT 2", [name])
        if len(begun) == 1 and name.startswith("dlg_"):
            raise StoreError(_unended(begun[0]["dialogue_id"])) from None
        raise
    if kind == "campaign":
        return Found(identity, None)
    if kind != "dialogue":
        raise StoreError(f"{identity} is a {kind}: name a dialogue (dlg_...), or a campaign by its id or its name")
    (row,) = query(path, "SELECT campaign_id, seed_id, trial, status FROM dialogues WHERE dialogue_id = ?", [identity])
    if row["status"] == "open":
        raise StoreError(_unended(identity))
    return Found(row["campaign_id"], identity, Playing(row["seed_id"], row["trial"]))


def _unended(dialogue: str) -> str:
    return f"dialogue {dialogue} has not ended: the command that started its campaign goes on with it"


def campaign(path: str | os.PathLike[str], campaign_id: str) -> Campaign:
    with reading(path) as connection:
        (found,) = _records(connection, Campaign, "campaign_id = ?", [campaign_id])
    return found


def prompt_hashes(path: str | os.PathLike[str], campaign_id: str) -> dict[str, str]:
    """The hashes of the prompts that a campaign is played with, by name; empty before a dialogue has ended."""
    rows = query(path, "SELECT prompt_hashes FROM dialogues WHERE campaign_id = ? LIMIT 1", [campaign_id])
    return dict(orjson.loads(rows[0]["prompt_hashes"])) if rows else {}


def reward_models(path: str | os.PathLike[str], campaign_id: str) -> list[Fit]:
    """The reward models whose scores a campaign's dialogues have; where they have none, all that the corpus knows."""
    own = "fit_id IN (SELECT fit_id FROM scores JOIN dialogues USING (dialogue_id) WHERE campaign_id = ?)"
    with reading(path) as connection:
        return _records(connection, Fit, own, [campaign_id]) or _records(connection, Fit, "objective = 'reward'", [])


def ended_playings(path: str | os.PathLike[str], campaign_id: str) -> dict[Playing, set[str]]:
    """The playings with their ended dialogues; more of their dialogues may not have ended."""
    rows = query(
        path,
        """
        SELECT seed_id, trial, list(dialogue_id) AS dialogues FROM dialogues
        WHERE campaign_id = ? AND status <> 'open' GROUP BY ALL ORDER BY ALL
        """,
        [campaign_id],
    )
    return {Playing(row["seed_id"], row["trial"]): set(row["dialogues"]) for row in rows}


def dialogues_of(path: str | os.PathLike[str], campaign_id: str, *, limit: int) -> list[str]:
    """The first ended dialogues of a campaign, by id."""
    rows = query(
        path,
        "SELECT dialogue_id FROM dialogues WHERE campaign_id = ? AND status <> 'open' ORDER BY trial, branch, 1 LIMIT ?",
        [campaign_id, limit],
    )
    return [row["dialogue_id"] for row in rows]


def models_of_calls(path: str | os.PathLike[str], campaign_id: str) -> list[dict[str, Any]]:
    """Which model answered, by agent, purpose and ordinal."""
    return query(
        path,
        "SELECT DISTINCT agent, purpose, ordinal, model FROM calls WHERE campaign_id = ? AND status <> 'superseded'",
        [campaign_id],
    )


def seeds(path: str | os.PathLike[str], seed_ids: Sequence[str]) -> list[Seed]:
    with reading(path) as connection:
        return _records(connection, Seed, "seed_id IN (SELECT unnest(?))", [list(seed_ids)])


def origins(path: str | os.PathLike[str], identity: str) -> list[Origin]:
    """A dialogue, or those of a campaign that have ended, with their whole paths: its main ones, else its chosen ones.

    One that is to be played again still has the turns that others may have gone on from.
    """
    with reading(path) as connection:
        dialogues = _records(
            connection,
            Dialogue,
            "dialogue_id = $1 OR (campaign_id = $1 AND branch IN ('main', 'chosen') AND status <> 'open')",
            [identity],
        )
        if any(dialogue.branch == "main" and dialogue.dialogue_id != identity for dialogue in dialogues):
            dialogues = [dialogue for dialogue in dialogues if dialogue.branch == "main"]
        ids = sorted({turn for dialogue in dialogues for turn in dialogue.turn_ids})
        turns = {turn.turn_id: turn for turn in _records(connection, Turn, "turn_id IN (SELECT unnest(?))", [ids])}
        seed_ids = [dialogue.seed_id for dialogue in dialogues]
        found = {seed.seed_id: seed for seed in _records(connection, Seed, "seed_id IN (SELECT unnest(?))", [seed_ids])}
    return [Origin(one, found[one.seed_id], [turns[turn] for turn in one.turn_ids]) for one in dialogues]


def kept(path: str | os.PathLike[str], campaign_id: str, playings: Sequence[Playing]) -> list[Kept]:
    """What the playings left behind, in their order; the database is read as of one moment."""
    with reading(path) as connection:
        dialogues = _records(
            connection,
            Dialogue,
            "campaign_id = ? AND (seed_id, trial) IN (SELECT (unnest(?), unnest(?)))",
            [campaign_id, [one.seed_id for one in playings], [one.trial for one in playings]],
        )
        ids = [dialogue.dialogue_id for dialogue in dialogues]
        of_these = "dialogue_id IN (SELECT unnest(?))"
        pairs = _records(connection, Pair, "chosen_id IN (SELECT unnest(?))", [ids])
        pair_ids = [pair.pair_id for pair in pairs]
        paths = sorted({identity for dialogue in dialogues for identity in dialogue.turn_ids})
        turns = _records(connection, Turn, "turn_id IN (SELECT unnest(?))", [paths])
        hanging: list[Perturbation | Caught | DialogueStats | Score] = [
            *_records(connection, Perturbation, of_these, [ids]),
            *_records(connection, Caught, of_these, [ids]),
            *_records(connection, DialogueStats, of_these, [ids]),
            *_records(connection, Score, of_these, [ids]),
        ]
        judgements = _records(
            connection,
            Judgement,
            "label_set = ? AND (dialogue_id IN (SELECT unnest(?)) OR pair_id IN (SELECT unnest(?)))",
            [OWN_LABEL_SET, ids, pair_ids],
        )
        later = connection.execute(
            "SELECT DISTINCT pair_id FROM judgements WHERE label_set <> ? AND pair_id IN (SELECT unnest(?))",
            [OWN_LABEL_SET, pair_ids],
        ).fetchall()
        labels = _records(connection, Label, of_these, [ids])
        calls = _records(connection, Call, f"campaign_id = ? AND {of_these}", [campaign_id, ids], "created_at, call_id")
        seeds = _records(connection, Seed, "seed_id IN (SELECT unnest(?))", [[one.seed_id for one in playings]])

    home = {dialogue.dialogue_id: Playing(dialogue.seed_id, dialogue.trial) for dialogue in dialogues}
    home |= {pair.pair_id: home[pair.chosen_id] for pair in pairs}
    by_seed = {seed.seed_id: seed for seed in seeds}
    by_turn = {turn.turn_id: turn for turn in turns}
    parts = {one: Kept(one, by_seed[one.seed_id], [], [], [], [], frozenset()) for one in playings}
    for dialogue in dialogues:
        parts[home[dialogue.dialogue_id]].records.append(dialogue)
    for one, path_turns in _turns_by_playing(dialogues, by_turn).items():
        parts[one].records.extend(turn for turn in path_turns if turn.campaign_id == campaign_id)
        parts[one].borrowed.extend(turn for turn in path_turns if turn.campaign_id != campaign_id)
    for record in hanging:
        parts[home[record.dialogue_id]].records.append(record)
    for pair in pairs:
        parts[home[pair.pair_id]].records.append(pair)
    for judgement in judgements:
        parts[home[judgement.dialogue_id or judgement.pair_id or ""]].records.append(judgement)
    for label in labels:
        parts[home[label.dialogue_id]].labels.append(label)
    for call in calls:
        parts[home[call.dialogue_id]].calls.append(call)
    relabelled: dict[Playing, set[str]] = {}
    for (pair_id,) in later:
        relabelled.setdefault(home[pair_id], set()).add(pair_id)
    return [parts[one]._replace(relabelled=frozenset(relabelled.get(one, ()))) for one in playings]


def _turns_by_playing(dialogues: Iterable[Dialogue], turns: Mapping[str, Turn]) -> dict[Playing, list[Turn]]:
    """The turns of the paths, each once."""
    found: dict[Playing, dict[str, Turn]] = {}
    for dialogue in dialogues:
        own = found.setdefault(Playing(dialogue.seed_id, dialogue.trial), {})
        own.update((identity, turns[identity]) for identity in dialogue.turn_ids if identity in turns)
    return {one: list(of_path.values()) for one, of_path in found.items()}


def _records(
    connection: duckdb.DuckDBPyConnection,
    kind: type[Kind],
    where: str,
    parameters: Sequence[Any],
    order: str = "",
) -> list[Kind]:
    """The rows of a table as records."""
    names, json = list(kind.model_fields), _json_columns(kind.table)
    cursor = connection.execute(
        f"SELECT {', '.join(names)} FROM {kind.table} WHERE {where} ORDER BY {order or ', '.join(kind.key)}", parameters
    )
    return [
        kind.model_validate({name: _value(value, name in json) for name, value in zip(names, row, strict=True)})
        for row in cursor.fetchall()
    ]


@cache
def _json_columns(table: str) -> frozenset[str]:
    (found,) = (one for one in TABLES if one.name == table)
    return frozenset(column.name for column in found.columns if column.type == "JSON")


def _value(value: Any, is_json: bool) -> Any:
    """As a record has it: JSON as data, times with their zone."""
    if is_json and value is not None:
        return orjson.loads(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
