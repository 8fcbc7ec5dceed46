"""Execute one seed of a recipe: from a seed to the records that it leaves. No config files, no disk.

`Recipe` holds the compiled graph; `play` runs it. A dialogue that failed is a record with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import cast as cast_to

from agents.ledger import CampaignStopping
from configs.pairing_settings import METHODS
from configs.settings import CampaignSettings
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
from graphs.state import Comparison, DialogueState, Said, is_open
from graphs.trunk import Begun, Trunks
from store.identity import chance, dialogue_id
from store.records import Branch, Seed, Turn


def branches_of(recipe: str) -> tuple[Branch, ...]:
    """The branches that every playing of a seed has; what else it leaves behind hangs on them."""
    return ("chosen", "rejected") if recipe == "music" else ("main",)


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
        if self.settings.recipe == "capo":
            return await self._play_capo(seed, trial, start["main"], limits)
        if self.settings.pairing is not None:
            return await self._play_pairs(seed, trial, start["main"], limits)
        if self.branches == ("main",):
            ended: dict[Branch, DialogueState] = {"main": await played(self.graph, start["main"], limits)}
            comparisons: list[Comparison] = []
        else:
            final = await played(self.graph, start, limits)
            ended = {branch: final[branch] for branch in self.branches}
            comparisons = final.get("comparisons", [])
            if any(is_open(state) for state in ended.values()):
                raise CampaignStopping("the campaign stopped before the end of a branch")
        outcome = outcome_of(
            seed, trial, ended, comparisons, prompt_hashes=self.prompt_hashes, perturb=self.settings.perturb
        )
        if self.scorer is None:
            return outcome
        candidates = cast_to(BestOfNState, ended["main"]).get("candidates", [])
        return with_candidates(outcome, candidates, fit_id=self.scorer.fit.fit_id)

    async def _play_capo(self, seed: Seed, trial: int, start: DialogueState, limits: Mapping[str, Any]) -> Outcome:
        perturb = self.settings.perturb
        assert perturb is not None, "validated settings of `capo` have a perturbation"
        final: CapoState = await played(self.graph, {"main": start, "seed_id": seed.seed_id, "trial": trial}, limits)
        main: dict[Branch, DialogueState] = {"main": final["main"]}
        outcome = outcome_of(seed, trial, main, [], prompt_hashes=self.prompt_hashes, perturb=None)
        return with_negatives(outcome, final, seed, perturb)

    async def _play_pairs(self, seed: Seed, trial: int, start: DialogueState, limits: Mapping[str, Any]) -> Outcome:
        pairing, recipe = self.settings.pairing, self.settings.recipe
        assert pairing is not None, "validated settings of such a recipe have its own"
        assert recipe in METHODS, "and only they have"
        answers = start["turns"] if pairing.play else sum(said.message.role == "assistant" for said in start["seed"])
        places = places_of_pairs(pairing, answers, chance("places of pairs", start["dialogue_id"]))
        final: PairingState = await played(self.graph, {**start, "places": places}, limits)
        main: dict[Branch, DialogueState] = {"main": final}
        outcome = outcome_of(seed, trial, main, [], prompt_hashes=self.prompt_hashes, perturb=None)
        fit_id = self.scorer.fit.fit_id if self.scorer is not None else None
        return with_pairs(outcome, final, final.get("made", []), seed, recipe, fit_id=fit_id)


def build_recipe(
    settings: CampaignSettings,
    campaign_id: str,
    prompt_hashes: Mapping[str, str],
    cast: Cast,
    scorer: RewardModel | None = None,
    trunks: Trunks | None = None,
) -> Recipe:
    """The graph of a recipe. `scorer` picks in `best_of_n` and `west_of_n`, which cannot do without."""
    graph = _graph(settings, cast, scorer)
    return Recipe(settings, campaign_id, prompt_hashes, graph, branches_of(settings.recipe), scorer, trunks)


def _graph(settings: CampaignSettings, cast: Cast, scorer: RewardModel | None) -> Any:
    if settings.recipe == "music":
        assert settings.perturb is not None, "validated settings of `music` have a perturbation"
        return build_music_graph(cast, settings.perturb, judge_pairs=settings.judge_pairs)
    if settings.recipe == "best_of_n":
        assert scorer is not None, "a campaign of `best_of_n` is started with its scorer"
        return build_best_of_n_graph(cast, settings.candidates, scorer)
    if settings.recipe == "capo":
        assert settings.capo is not None, "validated settings of `capo` have its own"
        assert settings.perturb is not None, "and a perturbation"
        return build_capo_graph(cast, settings.capo, settings.perturb)
    if settings.pairing is not None:
        place, pairing = build_place_graph(settings, cast, scorer), settings.pairing
        return build_pairing_graph(cast, pairing, place) if pairing.play else build_given_graph(pairing, place)
    return build_dialogue_graph(cast, settings.perturb)
