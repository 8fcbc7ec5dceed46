"""Whole conversations to learn from: of a corpus, a file or a dataset, as tokens with the turns that carry loss marked.

A conversation longer than `max_length` is dropped and counted, never truncated. Splits are by the first user turn, as
those of seeds, so that what grew from one question stands on one side. Knows nothing of models or losses.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.language_settings import AskFitSettings, SessionSettings, SftFitSettings
from configs.pairing_settings import METHODS
from store.identity import content_hash, split_of
from store.records import Message, Split
from train.data import is_corpus
from train.errors import TrainError
from train.masks import IGNORED, Reader


class Session(NamedTuple):
    """A conversation as training reads it, whatever file or table it came from."""

    session_id: str
    messages: tuple[Message, ...]
    split: Split


class Sessions(NamedTuple):
    """What a source held."""

    sessions: list[Session]
    skipped: list[str]
    """A line for each row that is no conversation."""
    repeated: int
    """Conversations left out because an equal one came before."""


class EncodedSession(NamedTuple):
    """A conversation that fits; `targets` are its tokens where they carry loss."""

    session_id: str
    ids: list[int]
    targets: list[int]
    n_turns: int

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        return 1

    @property
    def n_targets(self) -> int:
        return sum(target != IGNORED for target in self.targets)


class EncodedSplit(NamedTuple):
    """What a split became."""

    sessions: list[EncodedSession]
    kept: list[Session]
    """The same conversations as text, in the same order."""
    counts: dict[str, int]


def read_sessions(settings: SessionSettings) -> Sessions:
    """Whole conversations in the source's order (a corpus's by dialogue_id).

    Raises:
        TrainError: no source is named, or it holds no conversation that passes the filters.
        StoreError: it cannot be read.
    """
    if settings.path is None:
        raise TrainError("no data is named: set data.path, or name a corpus with --db")
    skipped: list[str] = []
    found = _of_corpus(settings) if is_corpus(Path(settings.path)) else _of_file(settings, skipped)
    kept: dict[str, Session] = {}
    for session in found:
        text = content_hash(list(session.messages)) if settings.distinct else session.session_id
        kept.setdefault(text, session)
    if not kept:
        why = f": none of its {len(skipped)} rows could be read, the first because: {skipped[0]}" if skipped else ""
        filters = ("campaign", "branches", "method") if is_corpus(Path(settings.path)) else ()
        wanted = [f"{name} {getattr(settings, name)!r}" for name in filters if getattr(settings, name)]
        raise TrainError(
            f"no conversations in {settings.path!r}" + (f" of {' and '.join(wanted)}" if wanted else "") + why
        )
    return Sessions(list(kept.values()), skipped, len(found) - len(kept))


def _of_corpus(settings: SessionSettings) -> list[Session]:
    from store.database import query
    from store.queries import messages_of

    rows = query(
        str(settings.path),
        """
        SELECT dialogue_id, messages, split FROM transcripts
        WHERE status = 'done' AND len(messages) > 0 AND list_contains($branches, branch)
            AND ($campaign IS NULL OR campaign_id IN (
                SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
            ))
            AND ($method IS NULL OR dialogue_id IN (SELECT chosen_id FROM pairs WHERE method = $method))
            AND ($perturbed OR dialogue_id NOT IN (
                SELECT spoken.dialogue_id FROM (SELECT dialogue_id, unnest(turn_ids) AS turn_id FROM dialogues) AS spoken
                JOIN turns USING (turn_id) JOIN perturbations USING (perturbation_id)
                WHERE verdict <> 'missed' AND coalesce(perturbations.direction, '') <> 'better'
            ))
            AND ($method IS NOT NULL OR branch <> 'chosen' OR campaign_id NOT IN (
                SELECT campaign_id FROM campaigns WHERE list_contains($of_main, recipe)
            ))  -- whose chosen sides are beginnings of their main dialogues, which are read already
        ORDER BY dialogue_id
        """,
        {
            "campaign": settings.campaign,
            "method": settings.method,
            "branches": list(settings.branches),
            "perturbed": settings.perturbed,
            "of_main": ["capo", *METHODS],
        },
    )
    return [
        Session(row["dialogue_id"], messages, row["split"] or split_of(messages))
        for row in rows
        for messages in [messages_of(row["messages"])]
    ]


def _of_file(settings: SessionSettings, skipped: list[str]) -> list[Session]:
    from store.seeds import conversations

    bad = skipped if settings.skip_bad else None
    rows = conversations(str(settings.path), settings.format, bad, to_skip="--set data.skip_bad=true")
    return [Session(row.place, row.messages, split_of(row.messages)) for row in rows]


def limited_sessions(sessions: Sequence[Session], limit: int | None, *, random_seed: int) -> list[Session]:
    """`sessions` with at most `limit` of the train split, drawn by chance but always the same; a larger limit adds to them."""
    if limit is None:
        return list(sessions)
    train = [session.session_id for session in sessions if session.split == "train"]
    kept = set(sorted(train, key=lambda identity: content_hash("limit", random_seed, identity))[:limit])
    return [session for session in sessions if session.split != "train" or session.session_id in kept]


def learned_part(
    settings: AskFitSettings | SftFitSettings, messages: Sequence[Message]
) -> tuple[tuple[Message, ...], list[int]]:
    """What of a conversation the model reads, and which of its role's turns carry loss, from 0; empty where none does.

    Both end with the last turn that is learned: nothing behind it could change the loss.
    """
    role = "user" if settings.objective == "ask" else "assistant"
    places = [place for place, message in enumerate(messages) if message.role == role]
    turns = list(range(len(places)))
    if isinstance(settings, AskFitSettings):
        turns = turns if settings.first_query else turns[1:]
    else:
        turns = turns[: settings.turns]
    return (tuple(messages[: places[turns[-1]] + 1]) if turns else ()), turns


def encode_sessions(
    settings: AskFitSettings | SftFitSettings, sessions: Sequence[Session], tokenizer: Any
) -> EncodedSplit:
    """Tokens and targets of all sessions that fit into `max_length` and have a turn to learn, with counts of the others.

    Raises:
        TrainError: a session whose turns do not alternate, or a template that cannot be used.
    """
    reader = Reader(tokenizer)
    role = "user" if settings.objective == "ask" else "assistant"
    counts = Counter(
        conversations=len(sessions),
        kept=0,
        dropped=0,
        too_long=0,
        nothing_to_learn=0,
        imitates_marks=0,
        tokens=0,
        targets=0,
    )
    kept: list[Session] = []
    parts: list[tuple[tuple[Message, ...], list[int]]] = []
    for session in sessions:
        part, turns = learned_part(settings, session.messages)
        if not turns:
            counts["nothing_to_learn"] += 1
        elif reader.imitates_marks(part):
            counts["imitates_marks"] += 1
        else:
            kept.append(session)
            parts.append((part, turns))
    try:
        found = reader.read([part for part, _ in parts])
    except TrainError:
        for session, (part, _) in zip(kept, parts, strict=True):  # say which
            try:
                reader.place(part)
            except TrainError as error:
                raise TrainError(f"conversation {session.session_id}: {error}") from None
        raise
    encoded, fitting = [], []
    for session, (part, turns), read in zip(kept, parts, found, strict=True):
        if len(read.ids) > settings.max_length:
            counts["too_long"] += 1
            continue
        one = EncodedSession(session.session_id, read.ids, read.targets(role, turns), len(part))  # type: ignore[arg-type]
        counts["kept"] += 1
        counts["tokens"] += len(one.ids)
        counts["targets"] += one.n_targets
        encoded.append(one)
        fitting.append(session)
    counts["dropped"] = len(sessions) - counts["kept"]
    return EncodedSplit(encoded, fitting, dict(counts))


def session_card(
    source: str, sessions: Sequence[Session], encoded: Mapping[str, EncodedSplit], *, max_length: int
) -> dict[str, Any]:
    """What was learned from: the source, counts a split, what was dropped and why, and hashes of the texts."""
    splits = Counter(session.split for session in sessions)
    return {
        "source": Path(source).name if Path(source).exists() else source,
        "max_length": max_length,
        "n_messages": dict(
            sorted(Counter(str(len(session.messages)) for session in sessions).items(), key=lambda n: int(n[0]))
        ),
        "splits": {
            split: encoded[split].counts | {"hash": sessions_hash(encoded[split].kept)}
            if split in encoded
            else {"conversations": n}
            for split, n in sorted(splits.items())
        },
    }


def sessions_hash(sessions: Sequence[Session]) -> str:
    return content_hash([list(session.messages) for session in sessions])
