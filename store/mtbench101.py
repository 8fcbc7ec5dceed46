"""MT-Bench-101 (Bai et al. 2024, arXiv 2402.14762): its dialogues as seeds, one for each turn that is judged.

A turn is answered after the gold turns before it, so that each is a dialogue of one answer whose seed is the gold
prefix. Knows no database.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from store.database import StoreError
from store.identity import seed_id, split_of
from store.records import Seed
from store.rows import RowError, lines_of, row_of
from store.shapes import SHAPES

TASKS = {
    "CM": "context memory",
    "AR": "anaphora resolution",
    "SI": "separate input",
    "TS": "topic shift",
    "CC": "content confusion",
    "CR": "content rephrasing",
    "FR": "format rephrasing",
    "SC": "self-correction",
    "SA": "self-affirmation",
    "MR": "mathematical reasoning",
    "GR": "general reasoning",
    "IC": "instruction clarification",
    "PI": "proactive interaction",
}
FIRST_TURN_SKIPPED = frozenset({"FR", "CR", "AR", "SA", "SC", "CM"})
"""Tasks whose first turn only sets the scene."""
BY_REFERENCE = frozenset({"MR", "GR"})
"""Tasks whose answers are graded by the gold answer."""


class GoldTurn(NamedTuple):
    """One turn that is judged."""

    seed: Seed
    """The gold turns before it, and its question."""
    dialogue: int
    """Its place in the file, from 0."""
    task: str
    turn: int
    """From 1."""
    gold: str
    """The answer that the file has."""


def gold_turns(path: str, *, limit: int | None = None) -> list[GoldTurn]:
    """The judged turns of the dialogues of a file, of the first `limit` ones.

    Raises:
        StoreError: the file cannot be read, is empty, or one of its rows is broken.
    """
    file = Path(path)
    found: list[GoldTurn] = []
    seen: Counter[str] = Counter()
    for dialogue, (number, line) in enumerate(lines_of(file, "MT-Bench-101's dialogues")):
        if limit is not None and dialogue >= limit:
            break
        try:
            row = row_of(line)
            messages = SHAPES["mtbench101"].messages(row)
            task = row.get("task")
            if task not in TASKS:
                raise RowError(f"the task {task!r} is none of {', '.join(TASKS)}")
        except RowError as error:
            raise StoreError(f"{file.name}:{number}: {error}; mend the line") from None
        for place in range(0, len(messages), 2):
            if place == 0 and task in FIRST_TURN_SKIPPED:
                continue
            before = messages[: place + 1]
            turn = place // 2 + 1
            # Two dialogues may begin alike, up to this turn or as a whole: the second argument counts those that came before,
            # so that each is a seed of its own.
            bare = seed_id(before, 0)
            seed = Seed(
                seed_id=seed_id(before, seen[bare]),
                source=file.name,
                messages=before,
                metadata={"task": task, "id": row.get("id", number), "turn": turn},
                split=split_of(before),
            )
            seen[bare] += 1
            found.append(GoldTurn(seed, dialogue, task, turn, messages[place + 1].content))
    if not found:
        raise StoreError(f"{path!r} holds no turn to judge: name MT-Bench-101's mtbench101.jsonl")
    return found
