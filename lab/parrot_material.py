"""What Parrot's lab learns from and is asked: campaigns on the rehearsal backend, and held-out conversations with known truth.

Plain conversations for the first stage and SFT; others, through recipe `capo`, for the preference pairs; and held-out
conversations of the test split in which every answer is right, whose user turns are the questions. Pairs and plain
conversations keep the assistant's natural mistakes: the oracle grades held-out answers and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.rehearsal.oracle import grade
from configs.lab_settings import ParrotArm, ParrotLabSettings
from configs.model_settings import ModelsSettings, RoleSettings
from configs.settings import CONTEXT_KINDS, CampaignSettings, CapoSettings, ContextKind, PerturbSettings
from lab.material import at_turn, play, read_plain, seeds_of
from store.context import context_dependent
from store.queries import preference_pairs
from store.records import Message, PreferencePair
from train.sessions import Session

PLAIN, CAPO, HELD_OUT = "plain", "capo", "held out"
"""The campaigns' names."""
KIND_OF_ARM: dict[ParrotArm, ContextKind] = {
    "neglect": "context_neglect",
    "hallucination": "context_hallucination",
    "misunderstanding": "context_misunderstanding",
}

EARLY, LATER, ALL, OWN = "turns 1-2", "later turns", "all turns", "own history"
"""Items of several turns: those of MT-Bench, those that MT-Bench++ adds, both; and both again after the model's own answers."""
DEPENDENT, ALONE = "dependent", "self-contained"
"""Queries that depend on their context by the rules of `store.context`, and the others."""
ERRORS: Mapping[str, tuple[str, ...]] = {
    "neglected": ("no answer",),
    "invented": ("invented fact", "wrong value"),
    "misread": ("wrong attribute", "wrong entity", "stale fact"),
    "standing": ("standing instruction broken",),
    "unreadable": ("outside the world",),
}
"""What an answer's faults are called on the page, by the oracle's reasons: it says that it does not know, tells what nobody said, takes another part of the conversation, breaks the standing instruction, or is no answer of this world."""


def make_material(settings: ParrotLabSettings, random_seed: int, corpus: Path) -> None:
    """Play the campaigns of one random seed into `corpus`, or go on with them."""
    seeds = seeds_of("train", settings.dialogues + settings.capo_dialogues, settings.world, random_seed)
    plain = CampaignSettings(name=PLAIN, recipe="dialogue", turns=settings.turns)
    play(plain, settings.world, random_seed, seeds[: settings.dialogues], corpus)
    capo = CampaignSettings(
        name=CAPO,
        recipe="capo",
        turns=settings.turns,
        capo=CapoSettings(queries=settings.queries),
        perturb=PerturbSettings(kinds=CONTEXT_KINDS, verify=True),
    )
    play(capo, settings.world, random_seed, seeds[settings.dialogues :], corpus)
    held_out = CampaignSettings(
        name=HELD_OUT,
        recipe="dialogue",
        turns=settings.turns,
        models=ModelsSettings(default=RoleSettings(model="rehearsal/perfect")),
    )
    play(held_out, settings.world, random_seed, seeds_of("test", settings.items, settings.world, random_seed), corpus)


def read_sessions(corpus: Path) -> list[Session]:
    """The plain conversations, all of the train split."""
    return [Session(f"plain {n}", talk, "train") for n, talk in enumerate(read_plain(corpus, PLAIN))]


def read_held_out(corpus: Path, turns: int) -> list[tuple[Message, ...]]:
    """The held-out conversations that went on to their last turn; their answers are the right ones."""
    talks = [talk for talk in read_plain(corpus, HELD_OUT) if len(talk) == 2 * turns]
    assert all(turn.verdict == "right" for talk in talks for turn in grade(talk)), "the perfect assistant makes none"
    return talks


# the pairs


def read_contrasts(corpus: Path, most: int) -> list[dict[ContextKind, PreferencePair]]:
    """Queries of which each error landed, and the pair of each: so that arms differ in what is rejected alone."""
    queries: dict[tuple[Message, ...], dict[ContextKind, PreferencePair]] = {}
    for pair in preference_pairs(corpus, campaign=CAPO, split="train"):  # by pair_id, which is a hash
        for kind in CONTEXT_KINDS:
            if kind in pair.kinds:
                queries.setdefault(pair.chosen, {})[kind] = pair
    return [by_kind for by_kind in queries.values() if len(by_kind) == len(CONTEXT_KINDS)][:most]


def pairs_of_errors(arm: ParrotArm, contrasts: Sequence[Mapping[ContextKind, PreferencePair]]) -> list[PreferencePair]:
    """A pair of each query: of the arm's kind, or of each kind in turn."""
    if arm in KIND_OF_ARM:
        return [by_kind[KIND_OF_ARM[arm]] for by_kind in contrasts]
    return [by_kind[CONTEXT_KINDS[n % len(CONTEXT_KINDS)]] for n, by_kind in enumerate(contrasts)]


def rejecting(arm: ParrotArm, chosen: Sequence[PreferencePair], answers: Sequence[str]) -> list[PreferencePair]:
    """The same queries and chosen answers, with these answers rejected; none where an answer is the chosen one, or empty."""
    return [
        pair._replace(
            pair_id=f"{arm} {pair.pair_id}",
            rejected=(*pair.chosen[:-1], Message(role="assistant", content=answer)),
            method=arm,
            kinds=(),
        )
        for pair, answer in zip(chosen, answers, strict=True)
        if answer.strip() not in ("", pair.chosen[-1].content.strip())
    ]


def answers_to_others(chosen: Sequence[PreferencePair]) -> list[str]:
    """For each query the chosen answer to another one."""
    answers = [pair.chosen[-1].content for pair in chosen]
    half = len(answers) // 2
    return answers[half:] + answers[:half]


def chosen_sessions(chosen: Sequence[PreferencePair]) -> list[Session]:
    return [Session(pair.pair_id, pair.chosen, "train") for pair in chosen]


# the questions, and what became of them


def questions(talks: Sequence[Sequence[Message]], turn: int) -> list[tuple[Message, ...]]:
    """Each conversation up to the user's message of this turn, from 1."""
    return [tuple(talk[: 2 * turn - 1]) for talk in talks]


def graded(
    talks: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]], own: Sequence[Sequence[str]] = ()
) -> dict[str, list[float]]:
    """What the oracle says of answers, by cell: 1 for each that is right; of the cells of ERRORS, 1 for each that has it.

    Args:
        answers: turn by turn, an answer to each conversation.
        own: the same, after the model's own earlier answers.
    """
    found: dict[str, list[float]] = {name: [] for name in (EARLY, LATER, ALL, DEPENDENT, ALONE, *ERRORS)}
    for turn, row in enumerate(answers, 1):
        found[at_turn(turn)] = []
        for talk, answer in zip(talks, row, strict=True):
            asked = talk[: 2 * turn - 1]
            reasons = _reasons(asked, answer)
            is_right = float(reasons == ("right",))
            depends = context_dependent(asked[:-1], asked[-1].content)
            for cell in (at_turn(turn), ALL, EARLY if turn <= 2 else LATER, DEPENDENT if depends else ALONE):
                found[cell].append(is_right)
            for error, names in ERRORS.items():
                found[error].append(float(any(reason in names for reason in reasons)))
    for turn, row in enumerate(own, 1):
        rights = [
            float(_reasons(talk[: 2 * turn - 1], answer) == ("right",)) for talk, answer in zip(talks, row, strict=True)
        ]
        found[own_turn(turn)] = rights
        found.setdefault(OWN, []).extend(rights)
    return found


def own_turn(turn: int) -> str:
    """The name of the items of this turn, from 1, that follow on the model's own answers."""
    return f"own history, turn {turn}"


def _reasons(asked: Sequence[Message], answer: str) -> tuple[str, ...]:
    return grade([*asked, Message(role="assistant", content=answer)])[-1].reasons
