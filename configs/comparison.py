"""A config whose `recipe` is a list: several campaigns on the same seeds, told apart by their recipe alone.

Each recipe gets the sections that it reads, so that one config can hold what all of them need. The campaigns are validated
like any other, before anything runs.
"""

from collections.abc import Sequence
from typing import Any

from configs.load import ConfigError, read, validate
from configs.pairing_settings import METHODS
from configs.settings import CampaignSettings

READERS: dict[str, tuple[str, ...]] = {
    "perturb": ("dialogue", "music", "capo"),
    "judge_pairs": ("music",),
    "capo": ("capo",),
    "pairing": METHODS,
    "pairing.boost": ("rmboost",),
    "scorer": ("best_of_n", "west_of_n"),
}
"""Which recipes read a section, or a part of one, that not every one does."""


def load_campaigns(source: str, *, overrides: Sequence[str] = ()) -> list[CampaignSettings]:
    """The campaigns of a config: one, or one for each recipe of its list, called `NAME-RECIPE`.

    Raises:
        ConfigError: the config is wrong, the list is empty or names a recipe twice, or none of its recipes reads a section.
    """
    data = read(source, overrides=overrides)
    recipes = data.get("recipe")
    if not isinstance(recipes, list):
        return [validate(data, CampaignSettings, where=source)]
    if not recipes:
        raise ConfigError(f"{source}: recipe: the list is empty: name at least one recipe")
    twice = [recipe for place, recipe in enumerate(recipes) if recipe in recipes[:place]]
    if twice:
        raise ConfigError(f"{source}: recipe: {twice[0]!r} is named twice: name each once")
    for section, readers in READERS.items():
        if _at(data, section) and not any(recipe in readers for recipe in recipes):
            raise ConfigError(
                f"{source}: {section}: none of the recipes {', '.join(map(str, recipes))} reads it: drop it"
            )
    name = data.get("name", CampaignSettings.model_fields["name"].default)
    return [validate(_of(data, recipe, name), CampaignSettings, where=source) for recipe in recipes]


def _at(data: dict[str, Any], section: str) -> Any:
    """What stands under a section, or under a part of it (`section.part`); null where nothing does."""
    name, _, part = section.partition(".")
    found = data.get(name)
    return found.get(part) if part and isinstance(found, dict) else None if part else found


def _of(data: dict[str, Any], recipe: Any, name: Any) -> dict[str, Any]:
    """What a recipe reads of the config."""
    kept = dict(data)
    for section in (section for section, readers in READERS.items() if recipe not in readers):
        whole, _, part = section.partition(".")
        if not part:
            kept.pop(whole, None)
        elif isinstance(kept.get(whole), dict):
            kept[whole] = {key: value for key, value in kept[whole].items() if key != part}
    return {**kept, "recipe": recipe, "name": f"{name}-{recipe}"}
