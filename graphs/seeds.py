"""The seeds of a campaign: read from a file, or drawn from the rehearsal's world."""

from agents.rehearsal.world import WORLDS, generate_seeds
from configs.errors import DescantError
from configs.settings import CampaignSettings
from store.identity import seed_id, split_of
from store.records import Seed
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
        return read_seeds(chosen, skip_bad=skip_bad)
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
