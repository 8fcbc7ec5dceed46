"""Ids: hashes of what a thing is, never of when or how fast it was made.

The same campaign, killed and resumed, on any number of workers, has the same ids. Chance is drawn from the
same tuples through `chance`, so it is the same too.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from store.records import Message, Split

ID_BYTES = 10  # 80 bits: a collision among 10 million rows has a chance of about 4e-11


def content_hash(*parts: Any) -> str:
    """The hash of a tuple of JSON values (pydantic models included), as 20 hexadecimal digits."""
    canonical = orjson.dumps(parts, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.blake2b(canonical, digest_size=ID_BYTES).hexdigest()


def _plain(value: Any) -> Any:
    if type(value) is Message:  # by the hundred in each call of a long dialogue; both of its fields are plain texts
        return value.__dict__
    return value.model_dump(mode="json")


def chance(*parts: Any) -> random.Random:
    """A random generator that depends on the tuple alone."""
    return random.Random(content_hash(*parts))


def campaign_id(
    *,
    name: str,
    recipe: str,
    random_seed: int,
    turns: Any,
    perturb: Any,
    models: Mapping[str, Any],
    prompt_hashes: Mapping[str, str],
    judge_pairs: bool = False,
    selection: Mapping[str, Any] | None = None,
    queries: Mapping[str, Any] | None = None,
) -> str:
    """Of what shapes the text: never of seeds, endpoint, concurrency, budget or limit, which a resume may change.

    `selection`: how answers are picked, for recipes that pick. `queries`: how the user's queries come about, where that is
    not the plain way.
    """
    picked = [dict(part) for part in (selection, queries) if part is not None]
    return "camp_" + content_hash(
        name, recipe, random_seed, turns, perturb, dict(models), dict(prompt_hashes), judge_pairs, *picked
    )


def match_id(campaign: str, opponent: str) -> str:
    """Of two campaigns whose conversations meet before judges; it is a campaign of its own, of judges' calls."""
    return "camp_" + content_hash("match", campaign, opponent)


def import_id(name: str) -> str:
    """Of conversations that were imported under a name; it is a campaign of its own."""
    return "camp_" + content_hash("import", name)


def seed_id(messages: Sequence[Message], occurrence: int) -> str:
    """`occurrence`: how often the same messages came before in the file."""
    return "seed_" + content_hash(list(messages), occurrence)


def dialogue_id(campaign_id: str, seed_id: str, branch: str, trial: int) -> str:
    return "dlg_" + content_hash(campaign_id, seed_id, branch, trial)


def turn_id(parent_id: str | None, first_writer: str, depth: int) -> str:
    """`first_writer`: the dialogue that wrote the turn, so that equal texts of two siblings stay two turns."""
    return "turn_" + content_hash(parent_id, first_writer, depth)


def call_id(dialogue_id: str, depth: int, agent: str, purpose: str, ordinal: int) -> str:
    return "call_" + content_hash(dialogue_id, depth, agent, purpose, ordinal)


def perturbation_id(dialogue_id: str, depth: int, kind: str) -> str:
    return "pert_" + content_hash(dialogue_id, depth, kind)


def catch_id(dialogue_id: str, depth: int, attempt: int) -> str:
    return "catch_" + content_hash(dialogue_id, depth, attempt)


def label_id(dialogue_id: str, depth: int, place: str) -> str:
    """`place`: which of several pairs at one place of the dialogue."""
    return "label_" + content_hash(dialogue_id, depth, place)


def pair_id(chosen_id: str, rejected_id: str, method: str) -> str:
    return "pair_" + content_hash(chosen_id, rejected_id, method)


def judgement_id(label_set: str, subject_id: str, turn_id: str | None, judge: int | str, presentation: str) -> str:
    """`subject_id`: the pair or dialogue that is judged; `judge`: its place in the config."""
    return "judg_" + content_hash(label_set, subject_id, turn_id, judge, presentation)


def fit_id(name: str, objective: str, config: Mapping[str, Any]) -> str:
    return "fit_" + content_hash(name, objective, dict(config))


def split_of(messages: Sequence[Message]) -> Split:
    """The split of a seed, fixed by its first user turn: 80 % train, 10 % validation, 10 % test.

    By that text, not by id, so that neither a repeated seed nor one that is cut elsewhere stands on two sides.
    """
    first = next((place for place, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
    share = int(content_hash("split", list(messages[: first + 1])), 16) / float(1 << (8 * ID_BYTES))
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"
