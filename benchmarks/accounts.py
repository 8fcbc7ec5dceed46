"""Whether the server's log, the journal and two corpora agree: what was asked, what was paid, what came of it.

Knows neither processes nor faults; `benchmarks.faults_and_kills` makes what is checked here.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from agents.rehearsal.request_log import Arrival, call_key
from store.database import query
from store.records import Message
from store.requests import Change, as_text, changed, from_text
from store.segments import journal_folder, segments

IDS = {
    "campaigns": "campaign_id",
    "seeds": "seed_id",
    "dialogues": "dialogue_id",
    "turns": "turn_id",
    "perturbations": "perturbation_id",
    "judgements": "judgement_id",
    "pairs": "pair_id",
    "calls": "call_id",
    "dialogue_stats": "dialogue_id",
}
HOW_IT_WENT = {"created_at", "latency_ms", "attempts", "lost_tokens", "lost_usd"}
"""Columns of a call that tell how it went, not what was said."""
NOTED_WITHIN_SECONDS = 1.0
"""So long after the server answered may an answer still be on its way into the journal, on a machine that is busy."""

Row = dict[str, Any]


class Killed(NamedTuple):
    """What was known when a process had been killed."""

    arrivals: int
    """Requests that the server had got."""
    at: float
    """In seconds since 1970."""
    paid: frozenset[str]
    """Calls whose answer the journal had, as `call_key`s."""
    twice: tuple[str, ...]
    """Calls that the journal had as done more than once, or as started again after that; there must be none."""

    def leaves_open(self, log: Sequence[Arrival]) -> set[str]:
        """The calls that were in flight: asked before, not in the journal, and not answered long before either."""
        return {
            arrival.call
            for arrival in log[: self.arrivals]
            if arrival.call is not None
            and arrival.call not in self.paid
            and (arrival.ended_at is None or arrival.ended_at > self.at - NOTED_WITHIN_SECONDS)
        }


def when_killed(database: Path, arrivals: int, at: float) -> Killed:
    """Read the journal, and the database behind it, as the dead process left them."""
    rows: dict[str, Row] = {}
    if database.exists():
        for row in query(database, "SELECT call_id, request_hash, status, messages, parameters FROM requests"):
            rows[row["call_id"]] = row | {"parameters": orjson.loads(row["parameters"])}
    done = {identity: row for identity, row in rows.items() if row["status"] == "done"}
    noted_as_done: set[str] = set()
    twice = []
    for row in _noted_calls(database):
        identity = row["call_id"]
        if identity in noted_as_done:
            twice.append(identity)
        if row["status"] == "done":
            noted_as_done.add(identity)
            done[identity] = row
        rows[identity] = row
    _make_whole(rows.values())
    paid = {call_key(row["messages"], row["parameters"]["seed"]) for row in done.values()}
    return Killed(arrivals, at, frozenset(paid), tuple(twice))


def _make_whole(rows: Iterable[Row]) -> None:
    """Put the messages where the journal has a request as a change of another one."""
    by_hash = {row["request_hash"]: row for row in rows}
    for row in by_hash.values():
        if row.get("based_on") is not None:
            base = as_text([Message.model_validate(message) for message in by_hash[row["based_on"]]["messages"]])
            assert base is not None, "it is a change of a text"
            change = Change(row["kept_head"], row["kept_tail"], row["inserted"])
            row["messages"] = [message.model_dump() for message in from_text(changed(base, change))]


def _noted_calls(database: Path) -> Iterator[Row]:
    for segment in segments(journal_folder(database)):
        whole, _, _ = segment.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            noted = orjson.loads(line)
            if noted["t"] == "calls":
                yield noted["r"]


class Payments(NamedTuple):
    """What the server's log says of calls that were asked more than once."""

    requests: int
    calls: int
    again_though_noted: int
    """Requests for calls whose answer the journal had at a kill before them."""
    answered_again: int
    """Calls that the server answered whole more than once."""
    not_in_flight: int
    """Of those, the ones that neither a kill between the two answers nor the caller's own time-out explains."""
    timed_out: int
    """Of those, the ones that were asked again after their time-out: the answer came too late."""
    in_flight: int
    """Calls in flight at the kills, all kills together."""
    noted_twice: int


def payments(log: Sequence[Arrival], kills: Sequence[Killed], timeout_seconds: float) -> Payments:
    again = sum(
        arrival.call in kill.paid for kill in kills for arrival in log[kill.arrivals :] if arrival.call is not None
    )
    asked: dict[str, list[int]] = {}
    for place, arrival in enumerate(log):
        if arrival.call is not None:
            asked.setdefault(arrival.call, []).append(place)
    open_at = [kill.leaves_open(log) for kill in kills]
    several, late, unexplained = 0, set[str](), set[str]()
    for call, places in asked.items():
        answered = [place for place in places if log[place].end == "answered"]
        several += len(answered) > 1
        for first in answered[:-1]:
            then = places[places.index(first) + 1]
            if any(first < kill.arrivals <= then and call in left for kill, left in zip(kills, open_at, strict=True)):
                continue
            has_timed_out = log[then].at - log[first].at >= timeout_seconds - NOTED_WITHIN_SECONDS / 2
            (late if has_timed_out else unexplained).add(call)
    return Payments(
        requests=len(log),
        calls=len({arrival.call for arrival in log}),
        again_though_noted=again,
        answered_again=several,
        not_in_flight=len(unexplained),
        timed_out=len(late),
        in_flight=sum(map(len, open_at)),
        noted_twice=sum(len(kill.twice) for kill in kills),
    )


class Corpus(NamedTuple):
    """All rows of the tables that are compared."""

    tables: Mapping[str, list[Row]]

    def by_id(self, table: str) -> dict[str, Row]:
        return {row[IDS[table]]: row for row in self.tables[table]}


def corpus_of(database: Path) -> Corpus:
    whole = {"calls": "requests"}  # as which they are stored depends on where a run began
    return Corpus(
        {
            table: query(database, f"SELECT * FROM {whole.get(table, table)} ORDER BY {key}")
            for table, key in IDS.items()
        }
    )


def duplicates(corpus: Corpus) -> dict[str, int]:
    """Rows too many, by table; tables without any are left out."""
    extra = {table: len(rows) - len(corpus.by_id(table)) for table, rows in corpus.tables.items()}
    return {table: count for table, count in extra.items() if count}


class Ends(NamedTuple):
    """How the dialogues of a corpus ended."""

    missing: int
    """Dialogues of the faultless corpus that are not there, and such as are only here."""
    done: int
    failed: Counter[str]
    """By termination reason."""
    nameless: int
    """Neither done nor failed, or without a reason, or failed without an error."""


def ends_of(corpus: Corpus, faultless: Corpus) -> Ends:
    rows = corpus.tables["dialogues"]
    nameless = sum(
        row["status"] not in ("done", "failed")
        or not row["termination_reason"]
        or (row["status"] == "failed") != bool(row["error"])
        for row in rows
    )
    failed = Counter(row["termination_reason"] for row in rows if row["status"] == "failed")
    missing = corpus.by_id("dialogues").keys() ^ faultless.by_id("dialogues").keys()
    return Ends(len(missing), sum(row["status"] == "done" for row in rows), failed, nameless)


def good_dialogues(corpus: Corpus) -> set[str]:
    """Those that are done, and none of whose calls failed: a judge's failure leaves a dialogue done, but unchecked."""
    hurt = {row["dialogue_id"] for row in corpus.tables["calls"] if row["status"] == "failed"}
    return {row["dialogue_id"] for row in corpus.tables["dialogues"] if row["status"] == "done"} - hurt


def differences(corpus: Corpus, faultless: Corpus, good: Collection[str]) -> dict[str, tuple[int, int]]:
    """Of the good dialogues, by table: how many rows were compared, and how many differ or are on one side alone.

    Their calls may be fewer, since a pair whose other side failed is not judged; those that there are must agree. A judge who
    compares is noted with the chosen side and reads both, so such a call counts where both are good.
    """
    found = {}
    for table in IDS:
        ours, theirs = (_belonging(table, side, good) for side in (corpus, faultless))
        if table == "calls":
            theirs = {identity: row for identity, row in theirs.items() if identity in ours}
        differing = sum(ours.get(identity) != theirs.get(identity) for identity in ours.keys() | theirs.keys())
        found[table] = (len(ours), differing)
    del found["campaigns"]  # its config says where the server listens
    return found


def _belonging(table: str, corpus: Corpus, good: Collection[str]) -> dict[str, Row]:
    """The rows of a table that belong to good dialogues, or to pairs of two of them, without how their calls went."""
    dialogues = corpus.by_id("dialogues")
    pairs = {
        row["pair_id"] for row in corpus.tables["pairs"] if row["chosen_id"] in good and row["rejected_id"] in good
    }
    turns = {turn for identity in good if identity in dialogues for turn in dialogues[identity]["turn_ids"]}
    seeds = {dialogues[identity]["seed_id"] for identity in good if identity in dialogues}
    hurt = {(row["seed_id"], row["trial"]) for identity, row in dialogues.items() if identity not in good}

    def belongs(row: Row) -> bool:
        match table:
            case "seeds":
                return row["seed_id"] in seeds
            case "turns":
                return row["turn_id"] in turns
            case "pairs":
                return row["pair_id"] in pairs
            case "judgements" if row["dialogue_id"] is None:
                return row["pair_id"] in pairs
            case "calls" if row["purpose"] == "compare":
                chosen = dialogues[row["dialogue_id"]]
                return (chosen["seed_id"], chosen["trial"]) not in hurt
            case "campaigns":
                return False
        return row["dialogue_id"] in good

    dropped = HOW_IT_WENT if table == "calls" else set()
    return {
        identity: {name: value for name, value in row.items() if name not in dropped}
        for identity, row in corpus.by_id(table).items()
        if belongs(row)
    }
