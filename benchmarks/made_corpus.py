"""A corpus of any size for measurements: every kind of row in due numbers, with varied words and no model asked.

Three recipes take turns: `music` (two branches of one opening, each answer of the rejected one perturbed and verified),
`dialogue` (one branch) and `rmboost` (a second answer to the last query: two dialogues forked from the main one). Some
dialogues fail, some queries are caught, most pairs are judged by two judges in both orders. Words are drawn from a
vocabulary of 20,000 with frequencies after Zipf, since a database compresses what repeats itself.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count
from typing import Any, NamedTuple

from store.identity import (
    call_id,
    catch_id,
    content_hash,
    dialogue_id,
    judgement_id,
    label_id,
    pair_id,
    perturbation_id,
    seed_id,
    split_of,
    turn_id,
)
from store.records import (
    Branch,
    Call,
    Campaign,
    Caught,
    Dialogue,
    DialogueStats,
    Fit,
    Judgement,
    Label,
    Message,
    MessageRole,
    MethodStats,
    Metric,
    Pair,
    PairStats,
    Perturbation,
    Record,
    Score,
    Seed,
    Turn,
)

START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
ANSWERS = 5
"""Assistant answers a dialogue."""
USER_WORDS, ANSWER_WORDS = (6, 24), (20, 90)
SHARES = (("music", 5), ("dialogue", 3), ("rmboost", 2))
"""Of the turns, by recipe, in tenths."""
TABLES_OF_TURNS = ("turns", "dialogues", "dialogue_stats")


class Made(NamedTuple):
    """What hangs together and is appended at once: what a seed became."""

    records: list[Record]
    turns: int


class _Words:
    """Texts of words drawn after Zipf."""

    def __init__(self, random_seed: int) -> None:
        self.random = random.Random(random_seed)
        onsets = [
            "b",
            "br",
            "d",
            "dr",
            "f",
            "g",
            "gr",
            "h",
            "k",
            "kl",
            "l",
            "m",
            "n",
            "p",
            "pr",
            "r",
            "s",
            "st",
            "t",
            "v",
        ]
        vowels = ["a", "e", "i", "o", "u", "ai", "ou", "ea"]
        vocabulary: dict[str, None] = {}
        while len(vocabulary) < 20_000:
            syllables = self.random.choice((1, 2, 2, 3))
            vocabulary["".join(self.random.choice(onsets) + self.random.choice(vowels) for _ in range(syllables))] = (
                None
            )
        self._vocabulary = list(vocabulary)[:20_000]
        self._weights = list(accumulate(1 / rank for rank in range(1, 20_001)))
        self._drawn: list[str] = []
        self._used = 0

    def text(self, between: tuple[int, int]) -> str:
        length = self.random.randint(*between)
        if self._used + length > len(self._drawn):
            self._drawn = self.random.choices(self._vocabulary, cum_weights=self._weights, k=100_000)
            self._used = 0
        self._used += length
        return " ".join(self._drawn[self._used - length : self._used]).capitalize() + "."


class CorpusMaker:
    """Makes records campaign by campaign, as campaigns of `turns` turns in all would leave them.

    Args:
        campaigns: of each recipe; the first of them has half of the recipe's turns, the others share the rest.
    """

    def __init__(self, turns: int, *, campaigns: int = 3, random_seed: int = 0) -> None:
        self.turns = turns
        self._sizes = [0.5, *[0.5 / (campaigns - 1)] * (campaigns - 1)] if campaigns > 1 else [1.0]
        self._words = _Words(random_seed)
        self._random = self._words.random
        self._number = count()

    def made(self) -> Iterator[Made]:
        """Everything, in the order in which campaigns write it."""
        for recipe, tenths in SHARES:
            for place, size in enumerate(self._sizes):
                yield from self._campaign(recipe, place, int(self.turns * tenths / 10 * size))
        yield Made(list(self._fits()), 0)

    def _campaign(self, recipe: str, place: int, turns: int) -> Iterator[Made]:
        identity = "camp_" + content_hash("made", recipe, place)
        config = {"recipe": recipe, "turns": ANSWERS, "models": {"default": {"model": "hosted_vllm/made-8b"}}}
        campaign = Campaign(
            campaign_id=identity,
            name=f"{recipe}-{place}",
            recipe=recipe,
            config=config,
            config_hash=content_hash(config),
            version="0.1.0",
            status="done",
            created_at=self._now(),
            finished_at=START,
            n_seeds=turns // (2 * ANSWERS),
        )
        yield Made([campaign], 0)
        played = {"music": self._music, "dialogue": self._dialogue, "rmboost": self._rmboost}[recipe]
        pairs = made = 0
        while made < turns:
            seed = self._seed()
            scene = _Scene(self, campaign, seed)
            played(scene)
            pairs += scene.paired
            made += scene.turns
            yield Made([seed, *scene.records], scene.turns)
        if pairs:
            share = self._random.random
            yield Made([_method_stats(identity, recipe, pairs, share)], 0)

    def _seed(self) -> Seed:
        messages = (Message.model_construct(role="user", content=self._words.text(USER_WORDS)),)
        return Seed.model_construct(
            seed_id=seed_id(messages, next(self._number)),
            source="made.jsonl",
            messages=messages,
            metadata={"task": self._random.choice(("GR", "CM", "SI", "AR")), "row": next(self._number)},
            split=split_of(messages),
        )

    def _music(self, scene: "_Scene") -> None:
        opening = scene.opening()
        sides = [scene.play(branch, [opening], perturbed=branch == "rejected") for branch in ("chosen", "rejected")]
        if sides[0].status == sides[1].status == "done":
            scene.pair(sides[0], sides[1], "music", contrasts=ANSWERS)

    def _dialogue(self, scene: "_Scene") -> None:
        scene.play("main", [scene.opening()])

    def _rmboost(self, scene: "_Scene") -> None:
        main = scene.play("main", [scene.opening()])
        if main.status != "done":
            return
        direction = self._random.choice(("better", "worse"))
        scene.label(main, direction)
        if self._random.random() < 0.1:
            scene.lost(main)
            return
        sides = [
            scene.fork(main, branch, edited=branch == direction_side(direction)) for branch in ("chosen", "rejected")
        ]
        scene.pair(sides[0], sides[1], "rmboost", contrasts=0, aspects=("relevance", "factuality"))

    def _fits(self) -> Iterator[Record]:
        for number in range(8):
            fit = f"fit_{number:020x}"
            yield Fit(
                fit_id=fit,
                name=f"reward-{number}",
                objective="reward",
                config={"steps": 2000},
                data_card={"pairs": 1000},
                checkpoint=f"fits/{number}",
                status="done",
                created_at=START,
            )
            for step in range(0, 2000, 10):
                for name in ("loss", "accuracy", "margin"):
                    yield Metric(fit_id=fit, name=name, slice="all", value=self._random.random(), step=step)
            for turns in range(1, 9):
                yield Metric(fit_id=fit, name="accuracy", slice=f"n_turns={turns}", value=0.7, low=0.6, high=0.8, n=500)

    def _now(self) -> datetime:
        return START + timedelta(milliseconds=next(self._number))


def direction_side(direction: str) -> str:
    return "chosen" if direction == "better" else "rejected"


class _Scene:
    """What one seed becomes."""

    def __init__(self, maker: CorpusMaker, campaign: Campaign, seed: Seed) -> None:
        self.records: list[Record] = []
        self.turns = 0
        self.paired = 0
        self._maker = maker
        self._words = maker._words
        self._random = maker._random
        self._campaign = campaign
        self._seed = seed
        self._texts: dict[str, Turn] = {}

    def opening(self) -> Turn:
        first = dialogue_id(self._campaign.campaign_id, self._seed.seed_id, "main", 0)
        return self._turn([], first, "user", self._seed.messages[0].content, agent="seed", call=None)

    def play(self, branch: Branch, path: list[Turn], *, perturbed: bool = False) -> Dialogue:
        """A dialogue that goes on from `path`; one in a hundred fails on the way."""
        identity = dialogue_id(self._campaign.campaign_id, self._seed.seed_id, branch, 0)
        path = list(path)
        fails_at = self._random.randrange(2, 2 * ANSWERS) if self._random.random() < 0.01 else None
        while len(path) < 2 * ANSWERS and len(path) != fails_at:
            asking = len(path) % 2 == 0
            if asking and self._random.random() < 0.02:
                self._catch(identity, path, "repetitive", "asked_again", agent="user")
            self._say(identity, path, perturbed=perturbed and not asking)
        if fails_at is not None and len(path) == fails_at:
            self._call(identity, path, "user" if len(path) % 2 == 0 else "assistant", failed=True)
        failed = len(path) < 2 * ANSWERS
        return self._dialogue(identity, branch, path, error="no answer in 120 s" if failed else None)

    def fork(self, main: Dialogue, branch: Branch, *, edited: bool) -> Dialogue:
        """The main dialogue with its last answer, or with another one in its place."""
        identity = dialogue_id(self._campaign.campaign_id, self._seed.seed_id, branch, 0)
        path = [self._texts[turn] for turn in main.turn_ids]
        if edited:
            path = path[:-1]
            self._say(identity, path, kind="rmboost_edit", perturbed=True)
        return self._dialogue(identity, branch, path, forked_from=main.dialogue_id)

    def label(self, main: Dialogue, direction: str) -> None:
        depth = main.n_turns * 2 - 1
        self.records.append(
            Label.model_construct(
                label_id=label_id(main.dialogue_id, depth, "0"),
                campaign_id=self._campaign.campaign_id,
                dialogue_id=main.dialogue_id,
                depth=depth,
                direction=direction,
                aspects=("relevance", "factuality"),
                created_at=self._maker._now(),
            )
        )

    def lost(self, main: Dialogue) -> None:
        """The second answer could not stand in a pair."""
        path = [self._texts[turn] for turn in main.turn_ids[:-1]]
        self._catch(main.dialogue_id, path, "near_identical", "no_pair", agent="perturbation")

    def pair(
        self,
        chosen: Dialogue,
        rejected: Dialogue,
        method: str,
        *,
        contrasts: int,
        aspects: tuple[str, ...] | None = None,
    ) -> None:
        """With what was measured of it and, for nine in ten, what two judges and the oracle said."""
        chance = self._random.random
        identity = pair_id(chosen.dialogue_id, rejected.dialogue_id, method)
        judged = "chosen" if chance() < 0.8 else "rejected"
        self.paired += 1
        self.records += [
            Pair.model_construct(
                pair_id=identity,
                campaign_id=self._campaign.campaign_id,
                method=method,
                chosen_id=chosen.dialogue_id,
                rejected_id=rejected.dialogue_id,
                first_divergent_turn=1 if method == "music" else ANSWERS,
                n_contrast_turns=contrasts,
                aspects=aspects,
                label_source="construction",
                intended_label="chosen",
                judged_label=judged,
                split=self._seed.split,
                margin=None,
                similarity=chance(),
                length_ratio=0.5 + chance(),
            ),
            PairStats.model_construct(
                pair_id=identity, chosen_words=200, rejected_words=180, distinct_1=chance(), distinct_2=chance()
            ),
            self._judgement("oracle", identity, "oracle", "single", "chosen" if chance() < 0.95 else "tie"),
        ]
        if chance() < 0.9:
            for judge in ("hosted_vllm/judge-70b", "hosted_vllm/judge-32b"):
                for order in ("chosen_first", "rejected_first"):
                    said = judged if chance() < 0.9 else "tie"
                    self.records.append(self._judgement("judged", identity, judge, order, said))

    def _judgement(self, label_set: str, pair: str, judge: str, order: str, said: str) -> Judgement:
        why = "" if judge == "oracle" else self._words.text((10, 40))
        return Judgement.model_construct(
            judgement_id=judgement_id(label_set, pair, None, judge, order),
            label_set=label_set,
            pair_id=pair,
            judge_model=judge,
            rubric="oracle" if judge == "oracle" else "compare",
            presentation=order,
            verdict=said,
            rationale=why,
            raw=f'{{"verdict": "{said}", "why": "{why}"}}',
            judge=judge,
        )

    def _say(self, identity: str, path: list[Turn], *, perturbed: bool, kind: str = "music_contrast") -> None:
        """The next turn of a dialogue, with the call that wrote it."""
        role: MessageRole = "user" if len(path) % 2 == 0 else "assistant"
        text = self._words.text(USER_WORDS if role == "user" else ANSWER_WORDS)
        call = self._call(identity, path, role, text)
        perturbation = perturbation_id(identity, len(path), kind) if perturbed else None
        asked = path[-1].content if path else ""
        path.append(self._turn(path, identity, role, text, agent=role, call=call, perturbation=perturbation))
        if perturbation is None:
            return
        verdict = self._random.choices(("landed", "missed", "unchecked"), (90, 6, 4))[0]
        altered = self._words.text(USER_WORDS)
        self._call(identity, path[:-1], "perturbation", altered)
        self._call(identity, path, "judge", '{"landed": true}')
        self.records.append(
            Perturbation.model_construct(
                perturbation_id=perturbation,
                dialogue_id=identity,
                turn_id=path[-1].turn_id,
                kind=kind,
                instruction=asked,
                altered_instruction=altered,
                direction="worse" if kind == "rmboost_edit" else None,
                aspects=("relevance", "factuality") if kind == "rmboost_edit" else None,
                plan=self._words.text(USER_WORDS) if kind == "rmboost_edit" else None,
                verdict=verdict,
                verdict_source=None if verdict == "unchecked" else "hosted_vllm/made-8b",
            )
        )

    def _turn(
        self,
        path: Sequence[Turn],
        writer: str,
        role: MessageRole,
        text: str,
        *,
        agent: str,
        call: str | None,
        perturbation: str | None = None,
    ) -> Turn:
        parent = path[-1].turn_id if path else None
        turn = Turn.model_construct(
            turn_id=turn_id(parent, writer, len(path)),
            parent_id=parent,
            campaign_id=self._campaign.campaign_id,
            seed_id=self._seed.seed_id,
            depth=len(path),
            role=role,
            content=text,
            agent=agent,
            call_id=call,
            perturbation_id=perturbation,
        )
        self._texts[turn.turn_id] = turn
        self.turns += 1
        self.records.append(turn)
        return turn

    def _call(self, identity: str, path: Sequence[Turn], agent: str, text: str = "", *, failed: bool = False) -> str:
        """A user simulator is sent one message with the transcript, an assistant the turns as they are."""
        if agent == "assistant":
            sent = tuple(Message.model_construct(role=turn.role, content=turn.content) for turn in path)
        else:
            transcript = "\n".join(f"{turn.role}: {turn.content}" for turn in path)
            sent = (
                Message.model_construct(role="user", content=f"Task: {agent.upper()}\n{INSTRUCTIONS}\n{transcript}"),
            )
        call = call_id(identity, len(path), agent, "made", 0)
        ended: dict[str, Any] = {
            "response": text,
            "finish_reason": "stop",
            "status": "done",
            "prompt_tokens": sum(len(message.content) for message in sent) // 4,
            "completion_tokens": len(text) // 4,
            "cost_usd": 1e-6 * len(text),
        }
        if failed:
            ended = {"finish_reason": "timeout", "status": "failed", "error": "no answer in 120 s"}
        self.records.append(
            Call.model_construct(
                call_id=call,
                request_hash=content_hash(call, text),
                campaign_id=self._campaign.campaign_id,
                dialogue_id=identity,
                agent=agent,
                purpose={"user": "ASK", "assistant": "chat", "judge": "VERIFY"}.get(agent, "ALTER"),
                ordinal=0,
                model="hosted_vllm/made-8b",
                messages=sent,
                parameters={"temperature": 0.7, "max_tokens": 512},
                latency_ms=self._random.lognormvariate(6, 0.5),
                attempts=1,
                created_at=self._maker._now(),
                **ended,
            )
        )
        return call

    def _catch(self, identity: str, path: Sequence[Turn], reason: str, outcome: Any, *, agent: str) -> None:
        text = self._words.text(USER_WORDS)
        self.records.append(
            Caught.model_construct(
                catch_id=catch_id(identity, len(path), 0),
                campaign_id=self._campaign.campaign_id,
                dialogue_id=identity,
                depth=len(path),
                attempt=0,
                reason=reason,
                source="rule",
                content=text,
                call_id=self._call(identity, path, f"{agent}", text),
                outcome=outcome,
                agent=agent,
            )
        )

    def _dialogue(
        self,
        identity: str,
        branch: Branch,
        path: Sequence[Turn],
        *,
        error: str | None = None,
        forked_from: str | None = None,
    ) -> Dialogue:
        dialogue = Dialogue.model_construct(
            dialogue_id=identity,
            campaign_id=self._campaign.campaign_id,
            seed_id=self._seed.seed_id,
            branch=branch,
            trial=0,
            prompt_hashes={"ask": "0123456789abcdef0123"},
            forked_from=forked_from,
            turn_ids=tuple(turn.turn_id for turn in path),
            n_turns=len(path) // 2,
            status="failed" if error else "done",
            termination_reason="timeout" if error else "max_turns",
            error=error,
        )
        words = sum(turn.content.count(" ") + 1 for turn in path)
        self.records.append(
            DialogueStats.model_construct(
                dialogue_id=identity,
                n_words=words,
                n_tokens=words * 4 // 3,
                context_dependent_turns=self._random.randrange(ANSWERS),
                self_rouge=100 * self._random.random(),
            )
        )
        if self._random.random() < 0.2:
            self.records.append(
                Score.model_construct(fit_id=f"fit_{0:020x}", dialogue_id=identity, reward=self._random.gauss(0, 1))
            )
        self.records.append(dialogue)
        return dialogue


def _method_stats(identity: str, method: str, pairs: int, share: Any) -> MethodStats:
    ends = {
        f"{name}{end}": share() for name in ("self_rouge", "distinct_1", "distinct_2") for end in ("", "_low", "_high")
    }
    return MethodStats(
        campaign_id=identity, method=method, pairs=pairs, pairs_hash="made", seeds=pairs, samples=20, **ends
    )


INSTRUCTIONS = (
    "You play a person who talks with an assistant. Say what this person would say next, in one message, and nothing "
    "else. Do not repeat what was asked before, do not answer for the assistant, and stay with the subject unless the "
    "conversation has come to its end; then write [END]."
)
