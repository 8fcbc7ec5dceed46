"""Every setting of a campaign, typed, with its default and the default's reason.

Who plays stands in `configs.model_settings`. Loading, overriding and error messages live in `configs.load`; training has
its own settings in `configs.fit_settings`.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from configs.base import Settings
from configs.model_settings import ModelsSettings, Role
from configs.pairing_settings import METHODS, BoostSettings, PairingSettings

ContextKind = Literal["context_neglect", "context_hallucination", "context_misunderstanding"]
PerturbationKind = Literal["music_contrast"] | ContextKind
Recipe = Literal["dialogue", "music", "best_of_n", "capo", "rmboost", "rlaif", "rlcd", "west_of_n"]
CONTEXT_KINDS: tuple[ContextKind, ...] = ("context_neglect", "context_hallucination", "context_misunderstanding")
"""How an answer can fail its context (Parrot, section 3.3): ignore it, invent it, misread it."""


class SeedSettings(Settings):
    """Where dialogues start."""

    path: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A file of seeds (`.jsonl`, `.jsonl.gz`, `.parquet`, or a `.json` of one list), or a Hugging Face dataset: `OWNER/NAME` for its training split, `OWNER/NAME/PATH` for one file or folder of it (its files are read in turn, a row of each, so that a limit takes from all). A list of such takes a seed of each in turn: a limit of 40000 on two is 20000 of each. Null only with `format: rehearsal`, whose seeds are generated."""
    format: Literal[
        "auto",
        "messages",
        "mtbench",
        "mtbench101",
        "skywork",
        "ultrafeedback",
        "hh",
        "ultrainteract",
        "sharegpt",
        "ultrachat",
        "qa-feedback",
        "tldr",
        "rehearsal",
    ] = "auto"
    """The rows' shape; `auto` looks at the first one. Of preference data the chosen side is the conversation, of UltraInteract the trajectory that both answers follow."""
    limit: Annotated[int, Field(strict=True, ge=1)] | None = None
    """At most this many seeds, from the front; null takes all (100 for `rehearsal`)."""
    cut: Literal["first_user", "last_user", "last_assistant"] = "first_user"
    """How much of a given conversation to keep: the first user turn (our default; MUSIC does not state its rule), or the longest prefix that ends on a user or an assistant turn. A row that has no such turn is a bad row."""
    distinct: bool = False
    """Leave out rows whose kept part came before: preference data often has several pairs of one conversation. Otherwise each is a seed of its own."""
    world: Literal["easy", "hard", "lists"] = "easy"
    """Which rehearsal world `format: rehearsal` draws seeds from."""

    @model_validator(mode="after")
    def _path_or_rehearsal(self) -> "SeedSettings":
        if self.path is not None and self.format == "rehearsal":
            raise ValueError(
                "format 'rehearsal' generates its seeds and takes no file: with a file, set seeds.format=auto"
            )
        return self


class BernoulliSchedule(Settings):
    """Each turn is perturbed with this chance; at least one turn always is."""

    bernoulli: Annotated[float, Field(gt=0.0, le=1.0)]
    """Chance of each turn."""


class TurnRange(Settings):
    """A number of turns drawn uniformly, both ends included, for each seed."""

    low: Annotated[int, Field(strict=True, ge=1)]
    """Fewest assistant answers."""
    high: Annotated[int, Field(strict=True, ge=1)]
    """Most assistant answers."""

    @model_validator(mode="after")
    def _ordered(self) -> "TurnRange":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}: swap them")
        return self


class TurnWeights(Settings):
    """A number of turns drawn by weights, for each seed."""

    weights: Annotated[dict[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0.0)]], Field(min_length=1)]
    """How often each number of assistant answers is drawn, against the others: `{4: 1, 8: 2}` is 8 twice as often as 4."""


class TurnPoisson(Settings):
    """A number of turns drawn from a Poisson distribution, for each seed, and drawn again where it is out of bounds."""

    mean: Annotated[float, Field(gt=0.0, le=100.0)]
    """Of the distribution before the bounds."""
    low: Annotated[int, Field(strict=True, ge=1)] = 1
    """Fewest assistant answers."""
    high: Annotated[int, Field(strict=True, ge=1)] = 30
    """Most assistant answers."""

    @model_validator(mode="after")
    def _mean_within(self) -> "TurnPoisson":
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"mean {self.mean:g} is not between low {self.low} and high {self.high}")
        return self


def _kind_of_turns(value: Any) -> str:
    """Which distribution a mapping means, by a key that only it has."""
    keys = value.keys() if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    if "weights" in keys:
        return "weights"
    if "mean" in keys:
        return "poisson"
    return "range" if isinstance(value, dict | TurnRange) else "number"


Turns = Annotated[
    Annotated[int, Field(strict=True, ge=1), Tag("number")]
    | Annotated[TurnRange, Tag("range")]
    | Annotated[TurnWeights, Tag("weights")]
    | Annotated[TurnPoisson, Tag("poisson")],
    Discriminator(_kind_of_turns),
]


class GateSettings(Settings):
    """What a user's query must not be, before it stands in a dialogue: the bad turn alone is asked again.

    Parrot (arXiv 2310.07301) drops repetitive, short and sensitive queries and states no threshold: the figures are ours,
    as all the other checks are.
    """

    repetitive: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.7
    """ROUGE-L F1 to any earlier query of the dialogue above which a query is `repetitive`; null allows all but the same words (`role`)."""
    min_words: Annotated[int, Field(strict=True, ge=0)] = 3
    """A query of fewer words is `short`; an empty one always is."""
    sensitive: str | Literal[False] | None = None
    """A file of regular expressions, one a line: a query that one of them finds is `sensitive`. Null takes our own list; false allows all."""
    garbled: bool = True
    """Catch a query that is `garbled` (broken or control characters, a word of more than 80 letters, one word or syllable eight times in a row) or `unfinished` (cut off by `max_tokens`) (ours)."""
    role: bool = True
    """Catch a simulator that breaks its role: it answers as the assistant (`role_inversion`), tells its instructions or its reasoning (`leak`), takes leave in words before it may (`early_end`), starts the conversation over (`restart`), says a query again (`repetition`)."""
    fewest_turns: Annotated[int, Field(strict=True, ge=1)] | None = None
    """A user who ends the dialogue before this many answers is an `early_end`; null: before the dialogue's target number of turns."""
    model: bool = False
    """Where the rules find nothing, ask the first judge whether the query keeps to the user's role."""
    retries: Annotated[int, Field(strict=True, ge=0)] = 3
    """How often one query is asked for again. After that a query that broke its role fails the dialogue, and one that is repetitive, short, sensitive, garbled or unfinished ends it before that query; either way it is not stored as a turn."""

    @model_validator(mode="after")
    def _model_asks_about_the_role(self) -> "GateSettings":
        if self.model and not self.role:
            raise ValueError("model asks whether a query keeps to the user's role: with role: false, drop it")
        return self


class CapoSettings(Settings):
    """Which context-dependent queries get negatives (CaPO: Parrot, section 3.3); the negatives themselves stand under `perturb`.

    All negatives of a dialogue are made side by side, so several times `concurrency` calls are in flight.
    """

    check: bool = True
    """Ask the first judge whether a query that the rules found does depend on its context (Parrot's second step)."""
    queries: Annotated[int, Field(strict=True, ge=1)] | None = None
    """At most this many queries of a dialogue, drawn by chance; null takes all."""
    play: bool = True
    """Play dialogues and take their answers as chosen; false takes the seed's own conversation, answers and all, and plays nothing (`seeds.cut: last_assistant`)."""


class PerturbSettings(Settings):
    """Which errors are injected, when, and whether anybody checks that they landed."""

    kinds: tuple[PerturbationKind, ...] = ("music_contrast",)
    """Drawn uniformly for each perturbed turn when there are several."""
    schedule: Literal["every", "one", "last", "context"] | BernoulliSchedule = "every"
    """Which assistant turns are perturbed (our default: the MUSIC paper does not state its schedule): every one, one drawn uniformly, the last alone (the ordinary preference pair), those whose query depends on its context by the rules of `store.context`, or each with a chance. Recipe `capo` has its own rule and reads none. Errors of context need a history: they never fall on an answer without one."""
    share: Literal["nothing", "trunk", "rest"] = "nothing"
    """What the rejected branch of `music` shares with the chosen one after the seed. `nothing`: two live branches, as in MUSIC. `trunk`: every turn before its first perturbed answer, after which it lives on by itself. `rest`: all text but the perturbed answers, each of which is written after the chosen branch's history. The last two are ours, not the paper's: the chosen branch is played first, and where it ends before the first scheduled answer, its last answer is perturbed."""
    altered_by: Literal["perturbation", "assistant"] = "perturbation"
    """Who alters the instruction: the perturbation agent, so that it is recorded and checked (our default), or the assistant in the one prompt that also answers (as in MUSIC)."""
    verify: bool = False
    """Ask the first judge whether each perturbed answer fails the visible instruction."""
    retries: Annotated[int, Field(strict=True, ge=0)] = 2
    """With `verify`: how often a perturbed answer that was found to miss is altered and answered anew; the last try stands (ours: the paper tells of no check)."""
    require_landed: bool = False
    """Make pairs only from branches with a verified perturbation; needs `verify`. Recipe `capo` does so unless this is false (ours): there an unreadable verdict makes no pair."""

    @model_validator(mode="after")
    def _landed_needs_verify(self) -> "PerturbSettings":
        if not self.kinds:
            raise ValueError("kinds is empty: name at least one, or drop `perturb`")
        if self.require_landed and not self.verify:
            raise ValueError("require_landed needs verify: true, since unverified perturbations never count as landed")
        return self

    @model_validator(mode="after")
    def _one_prompt_contrasts_only(self) -> "PerturbSettings":
        if self.altered_by == "assistant" and (strange := [kind for kind in self.kinds if kind in CONTEXT_KINDS]):
            raise ValueError(
                f"altered_by: assistant is MUSIC's one prompt, and {strange[0]} is an error of context: leave it to the "
                "perturbation agent"
            )
        return self


class CapSettings(Settings):
    """Hard caps; null is no cap."""

    usd: Annotated[float, Field(gt=0.0)] | None = None
    """Dollars, by the roles' prices (`models.*.price`, else LiteLLM's)."""
    tokens: Annotated[int, Field(strict=True, gt=0)] | None = None
    """Prompt and completion together."""
    calls: Annotated[int, Field(strict=True, gt=0)] | None = None
    """Requests sent, retries included."""

    @property
    def caps_anything(self) -> bool:
        return not (self.usd is None and self.tokens is None and self.calls is None)


class BudgetSettings(CapSettings):
    """Hard caps of a campaign, and of its roles."""

    roles: dict[Role, CapSettings] = Field(default={})
    """Caps of single roles, beside those of the campaign: `{judge: {usd: 2.0}}`. All judges are one role."""

    @property
    def caps_anything(self) -> bool:
        return super().caps_anything or any(caps.caps_anything for caps in self.roles.values())

    @property
    def needs_prices(self) -> bool:
        """Whether dollars are capped anywhere."""
        return any(caps.usd is not None for caps in (self, *self.roles.values()))


class ScorerSettings(Settings):
    """The reward model that picks among candidates."""

    model: str
    """A fit's folder (`fits/NAME`), a Hugging Face folder or an id."""
    engine: Literal["torch"] = "torch"
    """What computes the rewards."""


class ForkSettings(Settings):
    """Where a campaign goes on from dialogues of another one: `descant fork` writes it."""

    of: str
    """The dialogue, or the campaign, by its whole id."""
    at: Annotated[int, Field(strict=True, ge=0)]
    """The place of the last turn that is kept, from 0, as `turns.depth` counts and `descant show` prints."""
    same_length: bool = True
    """Go on to as many answers as the original has, or was to have where it failed; false: `turns` answers more."""


class CampaignSettings(Settings):
    """A campaign: a recipe over seeds."""

    name: str = "campaign"
    """What people call it; part of its identity."""
    recipe: Recipe = "music"
    """`dialogue`: one conversation a seed. `music`: a chosen and a rejected branch that both live on. `best_of_n`: several candidates for each answer, of which a reward model picks one. `capo`: a conversation whose context-dependent queries each get negatives beside the answer (Parrot). `rmboost`: a second answer written for a label that was drawn before (RMBoost), and its three rivals on the same prompts: `rlaif`, two samples that judges label; `rlcd`, a good and a poor answer asked for apart; `west_of_n`, the best and the worst of several samples by a reward model. A list of recipes compares them on the same seeds: each is a campaign of its own, called `NAME-RECIPE`."""
    random_seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] = 0
    """Of all chance in the campaign."""
    seeds: SeedSettings = SeedSettings()
    turns: Turns = 5
    """Assistant answers a dialogue, the one to the seed's open user turn included (MUSIC: 5; 1 in the recipes of `pairing`): a number, or a distribution to draw from."""
    simulator: Literal["prompted", "trained"] = "prompted"
    """How the user's model is asked. `prompted`: one message with instructions and the transcript. `trained`: the bare conversation, which a model of `descant fit ask` goes on with a query of its own; its endpoint must take messages that end on an assistant's turn, as vLLM does (`hosted_vllm/...`) and some providers do not."""
    script: Literal["only", "first"] | None = None
    """What becomes of the further user turns that a seed brings along (`turns` of MT-Bench's questions). `only`: the user speaks them as they are, the dialogue ends where they end, and no user model is asked. `first`: after them the simulator goes on. Null leaves them out."""
    gate: GateSettings | None = None
    """Checks on the user's queries; null lets every query pass."""
    trials: Annotated[int, Field(strict=True, ge=1)] = 1
    """Times each seed is played."""
    concurrency: Annotated[int, Field(strict=True, ge=1)] = 128
    """Dialogues in play at once; the two branches of a music seed are two, unless they share text and follow one another."""
    perturb: PerturbSettings | None = None
    """Null means none for `dialogue` and the defaults for `music`; for `capo` the three errors of context, each verified and landed."""
    capo: CapoSettings | None = None
    """Only with recipe `capo`; null means its defaults there."""
    pairing: PairingSettings | None = None
    """Only with the recipes `rmboost`, `rlaif`, `rlcd` and `west_of_n`; null means their defaults there."""
    candidates: Annotated[int, Field(strict=True, ge=1)] = 4
    """Answers that `best_of_n` and `west_of_n` draw for each turn (MUSIC compares 2, 4 and 8; our default is the middle one). They are asked for side by side, so up to `concurrency` times as many calls are in flight."""
    scorer: ScorerSettings | None = None
    """Who picks among the candidates of `best_of_n`, and finds the best and the worst for `west_of_n`: its reward of the whole conversation up to each. `descant evaluate best-of-n` puts each `--model` here."""
    fork: ForkSettings | None = None
    """Set by `descant fork` alone: the dialogues begin with turns of others, in place of their seeds. Null for all other campaigns."""
    judge_pairs: bool = False
    """Show each finished pair to every judge, in both orders, and store the verdicts."""
    judge_repairs: Annotated[int, Field(strict=True, ge=0)] = 2
    """Times a judge is asked again, with what was wrong, when its answer cannot be read (our default); then the verdict is `invalid`."""
    prompts: dict[str, str] = Field(default={})
    """Path of a file that replaces a prompt, by name: ask (the user's), alter (the perturbation agent's), contrast (both in one), verify and compare (the judges'); with a gate ask_again and gate; with errors of context depends, guess, misread and verify_context; of rmboost boost (the second answer's), of rlcd steer, of rlaif and `verify` prefer (the judges')."""
    models: ModelsSettings = ModelsSettings()
    budget: BudgetSettings = BudgetSettings()

    @model_validator(mode="after")
    def _only_best_of_n_picks(self) -> "CampaignSettings":
        if self.recipe not in ("best_of_n", "west_of_n") and self.scorer is not None:
            raise ValueError(
                f"scorer picks candidates in the recipes best_of_n and west_of_n: with recipe {self.recipe}, drop it"
            )
        if self.recipe == "best_of_n" and self.perturb is not None:
            raise ValueError("recipe best_of_n picks among plain answers: drop perturb")
        if self.recipe == "best_of_n" and self.judge_pairs:
            raise ValueError(
                "recipe best_of_n makes no pairs: drop judge_pairs; `descant evaluate best-of-n` lets two conversations "
                "meet before the judges"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _recipes_are_whole(cls, data: Any) -> Any:
        """What `music` and `capo` cannot do without stands in the settings, defaults and all."""
        if not isinstance(data, dict):
            return data
        recipe = data.get("recipe", "music")
        if recipe == "music" and data.get("perturb") is None:
            return {**data, "perturb": {}}
        if recipe == "capo":
            perturb = {"kinds": CONTEXT_KINDS, "verify": True} | dict(data.get("perturb") or {})
            perturb.setdefault("require_landed", perturb["verify"])
            return {**data, "perturb": perturb, "capo": data.get("capo") or {}}
        if recipe in METHODS:
            return {"turns": 1, **data, "pairing": data.get("pairing") or {}}
        return data

    @model_validator(mode="after")
    def _only_methods_pair(self) -> "CampaignSettings":
        if self.recipe not in METHODS:
            if self.pairing is not None:
                raise ValueError(f"pairing is for the recipes {', '.join(METHODS)}: with recipe {self.recipe}, drop it")
            return self
        assert self.pairing is not None, "a config of such a recipe is given its settings"
        if self.perturb is not None:
            raise ValueError(f"recipe {self.recipe} makes its pairs in its own way: drop perturb")
        if self.judge_pairs:
            raise ValueError(
                f"recipe {self.recipe} makes its pairs in its own way: drop judge_pairs; `descant judge pairwise` labels "
                "them afterwards"
            )
        if self.recipe != "rmboost" and self.pairing.boost != BoostSettings():
            raise ValueError(f"pairing.boost is for recipe rmboost: with recipe {self.recipe}, drop it")
        if not self.pairing.play and self.turns != 1:
            raise ValueError("pairing.play: false plays no turns, and takes those that a conversation has: drop turns")
        if self.recipe == "west_of_n" and self.candidates < 2:
            raise ValueError("candidates: west_of_n takes the best and the worst of at least 2")
        if not self.pairing.play and (self.seeds.cut != "last_assistant" or self.seeds.format == "rehearsal"):
            raise ValueError(
                "pairing.play: false takes the answers that seeds have: name a file of conversations, and set "
                "seeds.cut=last_assistant"
            )
        return self

    @model_validator(mode="after")
    def _only_capo_has_its_settings(self) -> "CampaignSettings":
        if self.recipe != "capo":
            if self.capo is not None:
                raise ValueError(f"capo is for recipe capo: with recipe {self.recipe}, drop it")
            return self
        assert self.perturb is not None, "a config of capo is given the three errors"
        if strange := [kind for kind in self.perturb.kinds if kind not in CONTEXT_KINDS]:
            raise ValueError(
                f"perturb.kinds: recipe capo makes errors of context, and {strange[0]} is none: the kinds are "
                f"{', '.join(CONTEXT_KINDS)}"
            )
        if self.perturb.schedule != "every":
            raise ValueError("recipe capo perturbs the answers to context-dependent queries: drop perturb.schedule")
        if self.judge_pairs:
            raise ValueError("recipe capo verifies each negative by itself: drop judge_pairs")
        assert self.capo is not None, "a config of capo is given its settings"
        if not self.capo.play and (self.seeds.cut != "last_assistant" or self.seeds.format == "rehearsal"):
            raise ValueError(
                "capo.play: false takes the answers that seeds have: name a file of conversations, and set "
                "seeds.cut=last_assistant"
            )
        return self

    @model_validator(mode="after")
    def _forks_are_played(self) -> "CampaignSettings":
        given = next((name for name in ("capo", "pairing") if (part := getattr(self, name)) and not part.play), None)
        if self.fork is not None and given is not None:
            raise ValueError(
                f"{given}.play: false takes conversations as they are, and a fork goes on with one: drop it"
            )
        return self

    @model_validator(mode="after")
    def _sharing_needs_two_branches(self) -> "CampaignSettings":
        if self.perturb is not None and self.perturb.share != "nothing" and self.recipe != "music":
            raise ValueError(
                f"perturb.share={self.perturb.share} is for the two branches of recipe music: with recipe {self.recipe}, "
                "drop it"
            )
        return self
