"""Which of a training's items each step takes: batches of like length in an order that mixes lengths. Knows only their sizes."""

import math
from collections.abc import Sequence
from typing import Protocol

from store.identity import chance, content_hash

WINDOW = 32  # batches that are sorted by length together: enough to waste little, few enough to keep lengths mixed


class Item(Protocol):
    """What one step may take: a pair, a conversation, or several pairs that stay together."""

    @property
    def tokens(self) -> int:
        """What it is sorted by."""

    @property
    def n_turns(self) -> int: ...

    @property
    def size(self) -> int:
        """How much of a batch it fills."""


def plan_batches(
    items: Sequence[Item],
    *,
    batch_size: int,
    steps: int,
    random_seed: int,
    short_first_share: float | None = None,
) -> list[list[int]]:
    """Which items each step takes, as places in `items`: a function of its arguments alone, so that a resume finds its place.

    Every item comes once a pass. Batches hold items of like length, in an order that mixes lengths. With
    `short_first_share`, the pool grows from the items of fewest turns to all of them over that share of the steps.
    """
    turns = sorted({item.n_turns for item in items})
    plan: list[list[int]] = []
    while len(plan) < steps:
        most = turns[-1]
        if short_first_share is not None:
            stage = len(turns) * len(plan) // max(1, math.ceil(steps * short_first_share))
            most = turns[min(stage, len(turns) - 1)]
        pool = [place for place, item in enumerate(items) if item.n_turns <= most]
        one_pass = _batches(items, pool, batch_size, content_hash(random_seed, len(plan)))
        if short_first_share is not None and most != turns[-1]:  # no stage outlasts its share
            one_pass = one_pass[: max(1, math.ceil(steps * short_first_share / len(turns)))]
        plan += one_pass
    return plan[:steps]


def plan_stages(
    items: Sequence[Item], stages: Sequence[tuple[Sequence[int], int]], *, batch_size: int, random_seed: int
) -> list[list[int]]:
    """A curriculum: each stage's places in `items` for as many steps as it is given, one stage after another."""
    plan: list[list[int]] = []
    for number, (places, steps) in enumerate(stages):
        of_stage = [items[place] for place in places]
        salt = chance("stage", random_seed, number).getrandbits(62)
        batches = plan_batches(of_stage, batch_size=batch_size, steps=steps, random_seed=salt)
        plan += [[places[place] for place in batch] for batch in batches]
    return plan


def _batches(items: Sequence[Item], pool: Sequence[int], batch_size: int, salt: str) -> list[list[int]]:
    """One pass over the pool."""
    random = chance("batches", salt)
    order = list(pool)
    random.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * WINDOW):
        window = sorted(order[start : start + batch_size * WINDOW], key=lambda place: items[place].tokens)
        batches += _filled(items, window, batch_size)
    random.shuffle(batches)
    return batches


def _filled(items: Sequence[Item], places: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of at most `batch_size` in their order; an item that is larger has one of its own."""
    batches: list[list[int]] = []
    room = 0
    for place in places:
        size = items[place].size
        if size > room:
            batches.append([])
            room = batch_size
        batches[-1].append(place)
        room -= size
    return batches
