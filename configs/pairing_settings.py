"""How two answers to one prompt become a preference pair: RMBoost and the three methods that it is measured against.

Read by the recipes `rmboost`, `rlaif`, `rlcd` and `west_of_n` alone. "RMBoost" names what the paper states (arXiv
2407.16008); its lists of aspects and its figures are not known to us, so all else is ours.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Settings

Method = Literal["rmboost", "rlaif", "rlcd", "west_of_n"]
METHODS: tuple[Method, ...] = ("rmboost", "rlaif", "rlcd", "west_of_n")
"""The recipes that make a pair of two answers to one prompt."""
Direction = Literal["better", "worse"]
Domain = Literal["general", "long_form_qa", "summaries", "safety"]

ASPECTS: dict[Domain, dict[str, str]] = {
    "general": {
        "instruction following": "does what the user asked for, and keeps every condition that the user set",
        "helpfulness": "gives the user what serves their purpose",
        "honesty": "says what it knows and what it does not, and claims no more",
        "truthfulness": "what it states is right, by the conversation and by the world",
    },
    "long_form_qa": {
        "relevance": "answers this question, and nothing that was not asked",
        "factuality": "every statement is right, by what the conversation gives",
        "completeness": "leaves out nothing that the question needs",
    },
    "summaries": {
        "coherence": "reads as one well-ordered text",
        "accuracy": "says nothing that the source does not say",
        "coverage": "holds what matters most in the source",
    },
    "safety": {
        "harmlessness": "helps nobody to harm themselves or others",
        "respect": "insults nobody and takes nobody for less",
        "care": "where a request is risky, says what is at stake and where help is to be had, and refuses no harmless one",
    },
}
"""The aspects of each domain and what each asks of an answer. The names of the first three are RMBoost's as far as we know them; `safety` and all meanings are ours."""


class BernoulliPlaces(Settings):
    """Each answer with this chance; at least one always."""

    bernoulli: Annotated[float, Field(gt=0.0, le=1.0)]
    """Chance of each answer."""


class BoostSettings(Settings):
    """RMBoost's second answer: the label first, then the answer that is to deserve it."""

    labels: Literal["draw", "both"] = "draw"
    """How the label of a pair comes about, before its second answer is written. `draw`: by chance, for each pair. `both`: two second answers, one to be better and one to be worse, two pairs."""
    better: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """With `draw`: the chance that the second answer is to be the better one (ours; the paper's share is not known to us)."""
    chosen_by: Literal["model", "chance"] = "model"
    """Who chooses the aspects among the domain's: the model that writes the second answer, or chance, before it is asked."""
    most_aspects: Annotated[int, Field(strict=True, ge=1)] = 2
    """At most this many aspects a pair; with `chance`, from one to so many."""
    repairs: Annotated[int, Field(strict=True, ge=0)] = 2
    """How often a second answer that cannot be used is asked for again, with what was wrong; each is counted under its reason."""
    longest: Annotated[float, Field(ge=1.0)] | None = None
    """A second answer of more than so many times the first one's words is `too_long`, and one of so many times fewer `too_short`; null lets any length pass."""
    verify: bool = False
    """Ask every judge, in both orders, which answer is better, overall and in each chosen aspect. It becomes the pair's judged label."""
    require_agreement: bool = True
    """With `verify`: an answer that the judges find not to deserve its label makes no pair; false keeps the pair, with both labels."""


class PairingSettings(Settings):
    """Where in a dialogue pairs are made, and what is held against them."""

    places: Literal["every", "one", "last"] | BernoulliPlaces = "every"
    """Which answers of a dialogue get a pair: every one, one drawn uniformly, the last alone, or each with a chance."""
    go_on_from: Literal["first", "chosen", "rejected"] = "chosen"
    """Which answer the dialogue goes on from after a pair: the one that was written first (for `rlcd` the one asked to be good), or a side of the pair. Where no pair came about, the first."""
    play: bool = True
    """Play dialogues. False takes the seed's own conversation, answers and all, and only writes what pairs need (`seeds.cut: last_assistant`): RMBoost's first answer is then the conversation's own, the other methods take its history."""
    redraws: Annotated[int, Field(strict=True, ge=0)] = 2
    """How often the answers to a prompt are written anew where they make no pair: a second answer that stayed unusable after its repairs, a tie, two that hardly differ. RMBoost keeps the label, so that the share of labels stays what it was."""
    near_identical: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Likeness from which on two answers hardly differ and make no pair (`agents.answer_rules`)."""
    domain: Domain = "general"
    """Whose aspects answers are written for and judged by."""
    aspects: dict[str, str] | None = None
    """Your own aspects, each with what it asks of an answer; null takes the domain's."""
    boost: BoostSettings = BoostSettings()

    @model_validator(mode="after")
    def _some_aspect(self) -> "PairingSettings":
        if self.aspects is not None:
            if not self.aspects:
                raise ValueError("aspects is empty: name at least one, or drop it for the domain's")
            if blank := [name for name, meaning in self.aspects.items() if not name.strip() or not meaning.strip()]:
                raise ValueError(f"aspects.{blank[0]}: say what it asks of an answer")
        return self

    @property
    def meanings(self) -> dict[str, str]:
        """The aspects by name, with what each asks of an answer."""
        return ASPECTS[self.domain] if self.aspects is None else self.aspects

    def identity(self, method: str) -> dict[str, object]:
        """What shapes the answers of a method: the settings that it reads."""
        unread = {"domain", "aspects"} if method != "rmboost" else {"domain"}
        shape: dict[str, object] = self.model_dump(mode="json", exclude={*unread, "boost"})
        if method != "west_of_n":
            shape["aspects"] = dict(self.meanings)
        if method == "rmboost":
            shape["boost"] = self.boost.model_dump(mode="json")
        return shape
