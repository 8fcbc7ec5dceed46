"""Execute one seed of a recipe: from a seed to the records that it leaves. No config files, no disk.

`Recipe` holds the compiled graph; `play` runs it. `WAYS`, at the end, says of each recipe which graph that is and who plays a
seed on it: a new recipe is a line there. A dialogue that failed is a record with its reason.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from agents.ledger import CampaignStopping
from configs.pairing_settings import METHODS, Method
from configs.settings import CampaignSettings
from configs.settings import Recipe as RecipeName
from graphs.best_of_n import BestOfNState, RewardModel, build_best_of_n_graph
from graphs.candidates import with_candidates
from graphs.capo import CapoState, build_capo_graph
from graphs.cast import Cast
from graphs.dialogue import build_dialogue_graph, recursion_limit
from graphs.music import build_music_graph
from graphs.negatives import with_negatives
from graphs.outcome import Outcome, outcome_of
from graphs.pair_records import with_pairs
from graphs.pairing import PairingState, build_given_graph, build_pairing_graph, build_place_graph
from graphs.playing import played
from graphs.schedule import kinds_of, perturbed_answers, places_of_pairs, turns_of, without_history
from graphs.seeds import script_of
from graphs.state import DialogueState, Said, is_open
from graphs.trunk import Begun, Trunks
from store.identity import chance, dialogue_id
from store.records import Branch, Seed, Turn


class Playing(NamedTuple):
    """One playing of a seed, ready to begin."""

    seed: Seed
    trial: int
    start: dict[Branch, DialogueState]
    limits: Mapping[str, Any]

    @property
    def main(self) -> DialogueState:
        """What it starts from, where it has one branch."""
        return self.start["main"]


BuildGraph = Callable[[CampaignSettings, Cast, RewardModel | None], Any]
Play = Callable[["Recipe", Playing], Awaitable[Outcome]]
Part = TypeVar("Part")


class Way(NamedTuple):
    """How a recipe is played."""

    graph: BuildGraph
    play: Play
    branches: tuple[Branch, ...] = ("main",)


def branches_of(recipe: RecipeName) -> tuple[Branch, ...]:
    """The branches that every playing of a seed has; what else it leaves behind hangs on them."""
    return WAYS[recipe].branches


@dataclass(frozen=True)
class Recipe:
    """A compiled graph and what it needs to start a seed."""

    settings: CampaignSettings
    campaign_id: str
    prompt_hashes: Mapping[str, str]
    graph: Any
    branches: tuple[Branch, ...]
    scorer: RewardModel | None = None
    """Who picks, in `best_of_n` and `west_of_n`."""
    trunks: Trunks | None = None
    """What the dialogues of a fork begin with; null where they begin with their seeds."""

    @property
    def branches_at_once(self) -> int:
        """Branches of a seed that play side by side; those that share text follow one another."""
        perturb = self.settings.perturb
        return 1 if perturb is not None and perturb.share != "nothing" else len(self.branches)

    def plays(self, seed: Seed, trial: int) -> bool:
        """Whether there is such a playing: in a fork, where the other dialogue got as far."""
        return self.trunks is None or (seed.seed_id, trial) in self.trunks

    def dialogue_ids(self, seed: Seed, trial: int) -> dict[Branch, str]:
        return {branch: dialogue_id(self.campaign_id, seed.seed_id, branch, trial) for branch in self.branches}

    def start(self, seed: Seed, trial: int) -> dict[Branch, DialogueState]:
        """The state that each branch starts from. Chance comes from what the dialogue is, not from when it runs."""
        settings = self.settings
        drawn = chance(settings.random_seed, self.campaign_id, seed.seed_id, trial)
        turns = turns_of(settings.turns, drawn)
        if self.trunks is None:
            said, turns, more = Begun([Said(message, "seed", None) for message in seed.messages], turns, {})
        else:
            said, turns, more = self.trunks[seed.seed_id, trial].begin(turns)
        perturb = settings.perturb if settings.recipe != "capo" else None  # which plays first and perturbs afterwards
        answers = perturbed_answers(perturb, turns, drawn) if perturb else []
        kinds = kinds_of(perturb, turns, drawn) if perturb else []
        if perturb and not any(one.message.role == "assistant" for one in said):
            answers, kinds = without_history(perturb, answers, kinds, drawn)
        script: DialogueState = {"script": script_of(seed)} if settings.script is not None else {}
        return {
            branch: {
                **script,
                **more,
                "campaign_id": self.campaign_id,
                "dialogue_id": identity,
                "seed": said,
                "turns": turns,
                "perturbed_answers": [] if branch == "chosen" else answers,
                "kinds": kinds,
            }
            for branch, identity in self.dialogue_ids(seed, trial).items()
        }

    async def play(self, seed: Seed, trial: int) -> Outcome:
        """Run one seed to its end.

        The turns that a fork begins with are not among its records: they are another campaign's.

        Raises:
            ProviderError: only what is fatal for every dialogue.
            CampaignStopping: the campaign stops before the dialogue's end; nothing is left behind.
        """
        outcome = await self._play(seed, trial)
        if self.trunks is None:
            return outcome
        shared = set(self.trunks[seed.seed_id, trial].turn_ids)
        own = [record for record in outcome.records if not (isinstance(record, Turn) and record.turn_id in shared)]
        return outcome._replace(records=own)

    async def _play(self, seed: Seed, trial: int) -> Outcome:
        start = self.start(seed, trial)
        turns = max(state["turns"] for state in start.values())
        limits = {"recursion_limit": recursion_limit(turns, self.settings.perturb, self.settings.gate)}
        return await WAYS[self.settings.recipe].play(self, Playing(seed, trial, start, limits))

    def outcome(self, playing: Playing, ended: dict[Branch, DialogueState], **told: Any) -> Outcome:
        """What the branches of a playing leave behind; `told` as in `graphs.outcome.outcome_of`."""
        told = {"comparisons": [], "perturb": None} | told
        return outcome_of(playing.seed, playing.trial, ended, prompt_hashes=self.prompt_hashes, **told)


def build_recipe(
    settings: CampaignSettings,
    campaign_id: str,
    prompt_hashes: Mapping[str, str],
    cast: Cast,
    scorer: RewardModel | None = None,
    trunks: Trunks | None = None,
) -> Recipe:
    """The graph of a recipe. `scorer` picks in `best_of_n` and `west_of_n`, which cannot do without."""
    graph = WAYS[settings.recipe].graph(settings, cast, scorer)
    return Recipe(settings, campaign_id, prompt_hashes, graph, branches_of(settings.recipe), scorer, trunks)


def _dialogue(settings: CampaignSettings, cast: Cast, _: RewardModel | None) -> Any:
    return build_dialogue_graph(cast, settings.perturb)


async def _play_dialogue(recipe: Recipe, playing: Playing) -> Outcome:
    final: DialogueState = await played(recipe.graph, playing.main, playing.limits)
    return recipe.outcome(playing, {"main": final}, perturb=recipe.settings.perturb)


def _music(settings: CampaignSettings, cast: Cast, _: RewardModel | None) -> Any:
    return build_music_graph(cast, _whole(settings.perturb), judge_pairs=settings.judge_pairs)


async def _play_music(recipe: Recipe, playing: Playing) -> Outcome:
    final = await played(recipe.graph, playing.start, playing.limits)
    ended: dict[Branch, DialogueState] = {branch: final[branch] for branch in recipe.branches}
    if any(is_open(state) for state in ended.values()):
        raise CampaignStopping("the campaign stopped before the end of a branch")
    comparisons = final.get("comparisons", [])
    return recipe.outcome(playing, ended, comparisons=comparisons, perturb=recipe.settings.perturb)


def _best_of_n(settings: CampaignSettings, cast: Cast, scorer: RewardModel | None) -> Any:
    return build_best_of_n_graph(cast, settings.candidates, _whole(scorer))


async def _play_best_of_n(recipe: Recipe, playing: Playing) -> Outcome:
    final: BestOfNState = await played(recipe.graph, playing.main, playing.limits)
    outcome = recipe.outcome(playing, {"main": final})
    return with_candidates(outcome, final.get("candidates", []), fit_id=_whole(recipe.scorer).fit.fit_id)


def _capo(settings: CampaignSettings, cast: Cast, _: RewardModel | None) -> Any:
    return build_capo_graph(cast, _whole(settings.capo), _whole(settings.perturb))


async def _play_capo(recipe: Recipe, playing: Playing) -> Outcome:
    start = {"main": playing.main, "seed_id": playing.seed.seed_id, "trial": playing.trial}
    final: CapoState = await played(recipe.graph, start, playing.limits)
    outcome = recipe.outcome(playing, {"main": final["main"]})
    return with_negatives(outcome, final, playing.seed, _whole(recipe.settings.perturb))


def _pairing(settings: CampaignSettings, cast: Cast, scorer: RewardModel | None) -> Any:
    place, pairing = build_place_graph(settings, cast, scorer), _whole(settings.pairing)
    return build_pairing_graph(cast, pairing, place) if pairing.play else build_given_graph(pairing, place)


def _play_pairing(method: Method) -> Play:
    async def play(recipe: Recipe, playing: Playing) -> Outcome:
        pairing, start = _whole(recipe.settings.pairing), playing.main
        answers = start["turns"] if pairing.play else sum(said.message.role == "assistant" for said in start["seed"])
        places = places_of_pairs(pairing, answers, chance("places of pairs", start["dialogue_id"]))
        final: PairingState = await played(recipe.graph, {**start, "places": places}, playing.limits)
        outcome = recipe.outcome(playing, {"main": final})
        fit_id = recipe.scorer.fit.fit_id if recipe.scorer is not None else None
        return with_pairs(outcome, final, final.get("made", []), playing.seed, method, fit_id=fit_id)

    return play


def _whole(part: Part | None) -> Part:
    """What validated settings of a recipe have, and what its campaign is started with."""
    assert part is not None, "a recipe is given what it cannot do without"
    return part


WAYS: Mapping[RecipeName, Way] = {
    "dialogue": Way(_dialogue, _play_dialogue),
    "music": Way(_music, _play_music, branches=("chosen", "rejected")),
    "best_of_n": Way(_best_of_n, _play_best_of_n),
    "capo": Way(_capo, _play_capo),
    **{method: Way(_pairing, _play_pairing(method)) for method in METHODS},
}
"""Every recipe: what it plays on, how, and in which branches."""
