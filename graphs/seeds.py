"""The seeds of a campaign: read from a file, or drawn from the rehearsal's world."""

from collections import Counter
from collections.abc import Sequence

from agents.rehearsal.world import WORLDS, generate_seeds
from configs.errors import DescantError
from configs.settings import CampaignSettings
from store.identity import content_hash, seed_id, split_of
from store.records import Message, Seed
from store.seeds import SeedFile, read_seeds

DEFAULT_REHEARSAL_SEEDS = 100


class SeedsMissingError(DescantError):
    """Raised here: a config without seeds."""


def load_seeds(settings: CampaignSettings, *, skip_bad: bool = False) -> SeedFile:
    """The seeds that `settings.seeds` names, at most its limit.

    Raises:
        SeedsMissingError: neither a path nor `format: rehearsal`.
        StoreError: the file cannot be read, is empty, or has a broken line and `skip_bad` is not set.
    """
    chosen = settings.seeds
    if chosen.format != "rehearsal":
        if chosen.path is None:
            raise SeedsMissingError("no seeds: pass --seeds FILE, or set seeds.path, or seeds.format: rehearsal")
        found = read_seeds(chosen, skip_bad=skip_bad)
        return found if settings.script is None else found._replace(seeds=_with_scripts(found.seeds))
    seeds = []
    occurrences: dict[str, int] = {}
    for messages in generate_seeds(chosen.limit or DEFAULT_REHEARSAL_SEEDS, settings.random_seed, WORLDS[chosen.world]):
        first = messages[0].content
        occurrence = occurrences.get(first, 0)
        occurrences[first] = occurrence + 1
        seeds.append(
            Seed(
                seed_id=seed_id(messages, occurrence),
                source="rehearsal",
                messages=messages,
                metadata={"world": chosen.world},
                split=split_of(messages),
            )
        )
    return SeedFile(seeds, [])


def script_of(seed: Seed) -> list[str]:
    """The user turns that a seed brings along, the first included; empty where it brings none."""
    turns = seed.metadata.get("turns")
    return turns if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns) else []


def _with_scripts(seeds: Sequence[Seed]) -> list[Seed]:
    """Seeds whose ids speak of their scripts too: questions that only begin alike make other dialogues.

    Raises:
        SeedsMissingError: a seed has no further turns.
    """
    found = []
    seen: Counter[str] = Counter()
    for place, seed in enumerate(seeds, start=1):
        script = script_of(seed)
        if not script:
            raise SeedsMissingError(
                f"seed {place} of {seed.source!r} brings no `turns`, which script: needs: take MT-Bench's questions, or drop script"
            )
        whole = [*seed.messages, *(Message(role="user", content=turn) for turn in script)]
        text = content_hash(whole)
        found.append(seed.model_copy(update={"seed_id": seed_id(whole, seen[text])}))
        seen[text] += 1
    return found
