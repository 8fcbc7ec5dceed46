"""Fork: a new campaign whose dialogues begin with the turns of others, up to one that is named, and go on their own way.

The turns are shared, not copied. What a fork goes on from is part of its settings and so of its identity; the same command
goes on with it. Knows how the settings of a fork come about, and what its dialogues begin with; `graphs.campaign` runs it.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from configs.errors import DescantError
from configs.load import laid_over, validate
from configs.settings import CampaignSettings, ForkSettings
from configs.settings import Recipe as RecipeName
from graphs.execute import Recipe, branches_of
from graphs.state import Said
from graphs.trunk import Trunk, Trunks
from store import played
from store.played import Origin
from store.records import Campaign, Message, Seed, Turn

OF_OTHER_RECIPES = ("capo", "pairing", "scorer", "judge_pairs")
"""Settings that a fork of another recipe does not take over."""


class ForkError(DescantError):
    """Raised here: nothing to go on from, or not from there."""


class Fork(NamedTuple):
    """A campaign that is ready to run."""

    settings: CampaignSettings
    seeds: list[Seed]
    trunks: Trunks


def fork_of(
    database: str | os.PathLike[str],
    name: str,
    at: str,
    *,
    config: str | None = None,
    overrides: Sequence[str] = (),
    called: str | None = None,
    turns: int | None = None,
    limit: int | None = None,
) -> Fork:
    """The fork of a dialogue, or of every dialogue of a campaign that gets as far.

    Args:
        name: an id, the beginning of one, or a campaign's name.
        at: the last turn that is kept, by its place from 0 or by its id.
        config: a YAML file or a preset, laid over the settings of what is forked.
        overrides: `key.path=value`, laid over both.
        called: the fork's name.
        turns: how many answers it goes on with.
        limit: at most so many seeds, the first by their ids; no part of what the fork is, so that more may follow.

    Raises:
        ForkError, ConfigError, StoreError.
    """
    found = played.find(database, name)
    campaign = played.campaign(database, found.campaign_id)
    of = found.dialogue_id or found.campaign_id
    origins = played.origins(database, of)
    if not origins:
        raise ForkError(f"no dialogue of {of} has ended: there is nothing to fork yet")
    place = _place(at, origins, of, is_one=found.dialogue_id is not None)
    over = laid_over({}, config, overrides=[one for one in overrides if not one.startswith("models.")])
    recipe = over.get("recipe") or "dialogue"
    if recipe not in get_args(RecipeName):
        raise ForkError(f"a fork is one campaign of one recipe: recipe {recipe!r} is none")
    under = _taken_over(campaign, recipe, origins[0]) | {"recipe": recipe, "name": f"{campaign.name}-fork"}
    if found.dialogue_id is not None:
        under["trials"] = 1
    elif over.get("trials", under.get("trials", 1)) != under.get("trials", 1):
        raise ForkError("trials: every dialogue of a campaign is forked once; fork one dialogue to go on several times")
    same_length = turns is None and "turns" not in over
    fork = ForkSettings(of=of, at=place, same_length=same_length)
    given = [f"turns={turns}"] if turns is not None else []
    given += [f"name={called}"] if called is not None else []
    data = laid_over(under, config, overrides=[*overrides, *given]) | {"fork": fork.model_dump()}
    settings = validate(data, CampaignSettings, where=config or f"the fork of {of}")
    trunks = trunks_of(database, settings)
    seeds = sorted({seed for seed, _ in trunks})[:limit]
    kept = {(seed, trial): trunk for (seed, trial), trunk in trunks.items() if seed in set(seeds)}
    return Fork(settings, played.seeds(database, seeds), kept)


def trunks_of(database: str | os.PathLike[str], settings: CampaignSettings) -> Trunks:
    """What the dialogues of a fork begin with, by seed and trial.

    Raises:
        ForkError: nothing of what was forked gets as far, or has an answer left to give.
    """
    fork = settings.fork
    assert fork is not None, "these are the settings of a fork"
    origins = [one for one in played.origins(database, fork.of) if len(one.turns) > fork.at]
    lengths = _Lengths(database)
    trunks: dict[tuple[str, int], Trunk] = {}
    for origin in origins:
        kept = origin.turns[: fork.at + 1]
        answers = _answers(kept)
        left = lengths.of(origin) - answers if fork.same_length else None
        if not _holds_a_query(kept) or (left is not None and left < 1):
            continue
        said = tuple(Said(Message(role=turn.role, content=turn.content), turn.agent, turn.call_id) for turn in kept)
        trunk = Trunk(origin.dialogue.dialogue_id, tuple(turn.turn_id for turn in kept), said, left)
        one = origin.dialogue.dialogue_id == fork.of
        for trial in range(settings.trials) if one else [origin.dialogue.trial]:
            trunks[origin.dialogue.seed_id, trial] = trunk
    if not trunks:
        raise ForkError(_nothing_left(fork, origins))
    return trunks


class _Lengths:
    """How many answers dialogues have, or were to have."""

    def __init__(self, database: str | os.PathLike[str]) -> None:
        self._database = database
        self._recipes: dict[str, Recipe | None] = {}

    def of(self, origin: Origin) -> int:
        """All answers of a dialogue that is done; of one that failed, those that it was started for."""
        dialogue = origin.dialogue
        if dialogue.status == "done":
            return dialogue.n_turns
        if dialogue.campaign_id not in self._recipes:
            self._recipes[dialogue.campaign_id] = self._recipe(dialogue.campaign_id)
        recipe = self._recipes[dialogue.campaign_id]
        if recipe is None:
            return dialogue.n_turns
        state = next(iter(recipe.start(origin.seed, dialogue.trial).values()))
        return sum(said.message.role == "assistant" for said in state["seed"]) + state["turns"]

    def _recipe(self, campaign_id: str) -> Recipe | None:
        """The recipe of a campaign as far as a start needs it; null for one that plays nothing."""
        campaign = played.campaign(self._database, campaign_id)
        if campaign.recipe not in get_args(RecipeName):
            return None
        settings = validate(campaign.config, CampaignSettings, where=f"the stored settings of {campaign_id}")
        trunks = trunks_of(self._database, settings) if settings.fork is not None else None
        return Recipe(settings, campaign_id, {}, None, branches_of(settings.recipe), None, trunks)


def _taken_over(campaign: Campaign, recipe: str, origin: Origin) -> dict[str, Any]:
    """The settings of what is forked, as far as the fork's recipe has them too.

    A perturbation goes on where the dialogue was perturbed by a schedule: a plain one, or the rejected side of `music`.
    """
    if campaign.recipe not in get_args(RecipeName):
        return {}
    under = dict(campaign.config)
    if campaign.recipe == recipe:
        return under
    under = {key: value for key, value in under.items() if key not in OF_OTHER_RECIPES}
    perturb: Mapping[str, Any] | None = under.pop("perturb", None)
    scheduled = campaign.recipe == "dialogue" or (campaign.recipe, origin.dialogue.branch) == ("music", "rejected")
    if perturb and scheduled and recipe in ("dialogue", "music"):
        under["perturb"] = {**perturb, "share": "nothing"}
    return under


def _place(at: str, origins: Sequence[Origin], of: str, *, is_one: bool) -> int:
    """The place of the last turn that is kept.

    Raises:
        ForkError: it is no turn of what is forked.
    """
    longest = max(origins, key=lambda origin: len(origin.turns))
    if at.isdecimal():
        place, first, last = int(at), _first_query(longest.turns), len(longest.turns) - 1
        if not first <= place <= last:
            raise ForkError(
                f"{of} has no turn {place} to go on from: --at takes {first} to {last}, as `descant show` counts"
            )
        return place
    if not is_one:
        raise ForkError(f"--at {at!r}: the dialogues of a campaign are forked at a place, such as --at 2")
    places = [turn.depth for turn in longest.turns if turn.turn_id.startswith(at)]
    if len(places) != 1:
        raise ForkError(
            f"--at {at!r}: {'no turn' if not places else 'more than one turn'} of {of} has an id that begins so; `descant "
            "show` prints the places of its turns"
        )
    return places[0]


def _nothing_left(fork: ForkSettings, origins: Sequence[Origin]) -> str:
    if not origins:
        return f"no dialogue of {fork.of} has a turn {fork.at}: `descant show` prints the places of turns"
    return f"turn {fork.at} of {fork.of} is its end, so no answer is left to give: say with --turns how many more there shall be"


def _answers(turns: Sequence[Turn]) -> int:
    return sum(turn.role == "assistant" for turn in turns)


def _holds_a_query(turns: Sequence[Turn]) -> bool:
    return any(turn.role == "user" for turn in turns)


def _first_query(turns: Sequence[Turn]) -> int:
    return next((place for place, turn in enumerate(turns) if turn.role == "user"), 0)


def fork_lines(database: str | os.PathLike[str], campaign_id: str, trunks: Trunks) -> list[str]:
    """What a fork went on from and its first dialogue, for people."""
    made = played.dialogues_of(database, campaign_id, limit=1)
    first = next(iter(trunks.values()))
    whose = (
        first.dialogue_id if len({trunk.dialogue_id for trunk in trunks.values()}) == 1 else f"{len(trunks)} dialogues"
    )
    lines = [f"fork       goes on from turn {len(first.turn_ids) - 1} of {whose}"]
    return lines + [f"dialogue   descant show --db {os.fspath(database)} {identity}" for identity in made]
