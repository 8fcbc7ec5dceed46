"""Bringing conversations of others into a corpus: whole, as a campaign of recipe `import` whose dialogues are all done.

A file is read twice: once to check every row, so that a broken one leaves nothing half written, and once to write.
Ids are hashes of what a conversation says, so that importing the same file again adds nothing.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import orjson

from store.database import StoreError, database_path, query
from store.identity import content_hash, dialogue_id, import_id, seed_id, split_of, turn_id
from store.measure import Measured, measure
from store.records import Campaign, CampaignStatus, Dialogue, DialogueStats, Message, Record, Seed, Turn
from store.seeds import Conversation, conversations, source_name
from store.shapes import SHAPES
from store.writer import LOCK_PATIENCE_SECONDS, Writer

CountTokens = Callable[[Sequence[Message]], int]
"""Tokens of a conversation's texts."""
WRITTEN_AT_ONCE = 100
"""Conversations."""


class ImportReport(NamedTuple):
    """What became of a file."""

    campaign_id: str
    name: str
    conversations: int
    """That the file holds, repeated ones too."""
    new: int
    """Of them, those that the corpus lacked."""
    skipped: list[str]
    """A line for each broken row that was left out."""


def import_file(
    source: str,
    database: str | os.PathLike[str],
    *,
    name: str | None = None,
    shape: str = "auto",
    skip_bad: bool = False,
    count_tokens: CountTokens | None = None,
) -> ImportReport:
    """Store the conversations of a file or a dataset; `name` is the campaign's, the file's own unless given.

    Raises:
        StoreError: the file is missing, empty or unreadable, holds no conversations, or (unless `skip_bad`) a broken row;
            or another writer holds the database.
    """
    name = name or _name_of(source)
    checked: list[str] = []
    rows = whole_conversations(source, shape, skipped=checked if skip_bad else None)
    given = {seed.seed_id for seed in _seeds(rows, source_name(source))}
    campaign = import_id(name)
    created_at, sources, before = _known(database, campaign)
    sources = list(dict.fromkeys([*sources, source_name(source)]))
    config = {
        "source": sources[0] if len(sources) == 1 else sources,
        "format": shape,
        "counts_tokens": count_tokens is not None,
    }

    def state(status: CampaignStatus) -> Campaign:
        return Campaign(
            campaign_id=campaign,
            name=name,
            recipe="import",
            config=config,
            config_hash=content_hash(config),
            version=_version(),
            status=status,
            created_at=created_at,
            finished_at=datetime.now(UTC) if status == "done" else None,
            n_seeds=len(before | given),
        )

    with Writer(database, patience_seconds=LOCK_PATIENCE_SECONDS) as writer:
        writer.append(state("running"))
        waiting: list[Record] = []
        rows = whole_conversations(source, shape, skipped=[] if skip_bad else None)
        for number, record in enumerate(_records(rows, campaign, source_name(source), count_tokens), start=1):
            waiting += record
            if number % WRITTEN_AT_ONCE == 0:
                writer.append(*waiting)
                waiting.clear()
        writer.append(*waiting, state("done"))
    _, _, after = _known(database, campaign)
    return ImportReport(campaign, name, len(given), len(after - before), checked)


def whole_conversations(
    source: str, shape: str = "auto", *, skipped: list[str] | None = None
) -> Iterator[Conversation]:
    """The conversations of a file or a dataset, answers and all.

    Raises:
        StoreError: as `store.seeds.conversations`, and for a file that is empty or holds questions alone.
    """
    found = False
    for conversation in conversations(source, shape, skipped):
        if conversation.shape is SHAPES["mtbench"]:
            raise StoreError(
                f"{source!r} holds questions without answers (mtbench), and no conversations: use it for seeds"
            )
        found = True
        yield conversation
    if not found:
        why = (
            f"none of its {len(skipped)} rows could be read, the first because: {skipped[0]}"
            if skipped
            else "it is empty"
        )
        raise StoreError(f"{source!r} holds no conversations: {why}")


def _records(
    rows: Iterator[Conversation],
    campaign: str,
    source: str,
    count_tokens: CountTokens | None,
) -> Iterator[list[Record]]:
    """The rows of each conversation; the dialogue, which makes the others count, goes last."""
    for seed in _seeds(rows, source):
        tokens = count_tokens(seed.messages) if count_tokens else None
        yield _dialogue(seed, campaign, measure(seed.messages), tokens)


def _seeds(rows: Iterator[Conversation], source: str) -> Iterator[Seed]:
    """Each conversation as a seed, a repeated one as one of its own."""
    seen: Counter[str] = Counter()
    for _, row, shape, messages in rows:
        text = content_hash(list(messages))
        yield Seed(
            seed_id=seed_id(messages, seen[text]),
            source=source,
            messages=messages,
            metadata=shape.metadata(row),
            split=split_of(messages),
        )
        seen[text] += 1


def _dialogue(seed: Seed, campaign: str, measured: Measured, tokens: int | None) -> list[Record]:
    identity = dialogue_id(campaign, seed.seed_id, "main", 0)
    turns: list[Turn] = []
    parent: str | None = None
    for depth, message in enumerate(seed.messages):
        turn = Turn(
            turn_id=turn_id(parent, identity, depth),
            parent_id=parent,
            campaign_id=campaign,
            seed_id=seed.seed_id,
            depth=depth,
            role=message.role,
            content=message.content,
            agent="seed",
            call_id=None,
            perturbation_id=None,
        )
        turns.append(turn)
        parent = turn.turn_id
    stats = DialogueStats(
        dialogue_id=identity,
        n_words=measured.n_words,
        n_tokens=tokens,
        context_dependent_turns=measured.context_dependent_turns,
        self_rouge=measured.self_rouge,
    )
    dialogue = Dialogue(
        dialogue_id=identity,
        campaign_id=campaign,
        seed_id=seed.seed_id,
        branch="main",
        trial=0,
        prompt_hashes={},
        turn_ids=tuple(turn.turn_id for turn in turns),
        n_turns=measured.turns,
        status="done",
        termination_reason="imported",
    )
    return [seed, *turns, stats, dialogue]


def _known(database: str | os.PathLike[str], campaign: str) -> tuple[datetime, list[str], set[str]]:
    """When an import of this name was begun first, now if never, what it was of, and the seeds of its dialogues."""
    if not database_path(database).exists():
        return datetime.now(UTC), [], set()
    found = query(database, "SELECT created_at, config FROM campaigns WHERE campaign_id = ?", [campaign])
    if not found:
        return datetime.now(UTC), [], set()
    named = orjson.loads(found[0]["config"])["source"]
    sources = [named] if isinstance(named, str) else list(named)
    seeds = query(database, "SELECT DISTINCT seed_id FROM dialogues WHERE campaign_id = ?", [campaign])
    return found[0]["created_at"].replace(tzinfo=UTC), sources, {row["seed_id"] for row in seeds}


def _name_of(source: str) -> str:
    """`chats.jsonl.gz` is `chats`, a dataset keeps its name."""
    path = Path(source)
    return path.name.split(".")[0] or path.name if path.exists() else source


def _version() -> str:
    try:
        return version("descant")
    except PackageNotFoundError:
        return "unknown"
