"""The best_of_n recipe: who is picked, what is kept of the others, and the same picks after a crash."""

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.failures import ProviderError
from configs.load import ConfigError, load
from configs.settings import CampaignSettings
from graphs.best_of_n import Candidate, RewardModel, judged_by_reward
from graphs.campaign import CampaignReport, ScorerMissingError, run_campaign
from graphs.seeds import load_seeds
from graphs.state import Said
from store.database import query
from store.records import Dialogue, Message, Score, Turn
from store.writer import Writer
from tests.graphs.conftest import Play, Played, reward_model
from tests.scripted import said

pytestmark = pytest.mark.chain

Conversations = Sequence[Sequence[Message]]


def by_last_number(conversations: Conversations) -> list[float | None]:
    """The number that an answer ends on is its reward."""
    return [float(messages[-1].content.split()[-1]) for messages in conversations]


def numbered(*numbers: float) -> dict[str, Any]:
    """An assistant whose answers end on these numbers, in the order of the calls."""
    left = iter(numbers)
    return {"chat": lambda _: f"answer {next(left)}"}


BEST_OF_3: dict[str, Any] = {"recipe": "best_of_n", "turns": 2, "candidates": 3}


def candidates_of(played: Played) -> list[Dialogue]:
    return [dialogue for dialogue in played.of(Dialogue) if dialogue.branch == "candidate"]


def test_the_user_goes_on_from_the_candidate_with_the_highest_reward(play: Play) -> None:
    played = play(**BEST_OF_3, parts=numbered(1, 3, 2, 6, 5, 4), picks_by=reward_model(by_last_number))
    assert played.texts() == ["the first instruction", "answer 3", "question 1", "answer 6"]
    (prompt,) = played.prompts("ask")
    assert "answer 3" in prompt
    assert "answer 1" not in prompt
    main = played.dialogues["main"]
    assert (main.status, main.termination_reason, main.n_turns) == ("done", "max_turns", 2)
    assert (played.outcome.done, played.outcome.failed, played.pairs) == (1, 0, [])


def test_every_candidate_is_kept_with_its_reward(play: Play) -> None:
    played = play(**BEST_OF_3, parts=numbered(1, 3, 2, 6, 5, 4), picks_by=reward_model(by_last_number))
    main, others = played.dialogues["main"], candidates_of(played)
    assert len({other.dialogue_id for other in others}) == 4
    assert {(other.forked_from, other.termination_reason) for other in others} == {(main.dialogue_id, "not_picked")}
    paths = [[played.turns[turn].content for turn in other.turn_ids] for other in others]
    history = ["the first instruction", "answer 3", "question 1"]
    assert paths == [
        [*history[:1], "answer 1"],
        [*history[:1], "answer 2"],
        [*history, "answer 5"],
        [*history, "answer 4"],
    ]
    for other in others:
        assert other.turn_ids[:-1] == main.turn_ids[: len(other.turn_ids) - 1]
        assert played.turns[other.turn_ids[-1]].parent_id == other.turn_ids[-2]
    rewards = {played.turns[score.turn_id].content: score.reward for score in played.of(Score)}
    assert rewards == {f"answer {number}": number for number in range(1, 7)}
    owners = {score.dialogue_id: score.turn_id for score in played.of(Score)}
    assert all(owners[other.dialogue_id] == other.turn_ids[-1] for other in others)
    assert {score.fit_id for score in played.of(Score)} == {"fit_toy"}
    calls = {call.call_id: call.response for call in played.calls if call.purpose == "answer"}
    assert {turn.call_id: turn.content for turn in played.of(Turn) if turn.agent == "assistant"} == calls


def test_the_dialogue_is_written_after_all_that_belongs_to_it(play: Play) -> None:
    played = play(**BEST_OF_3, parts=numbered(1, 3, 2, 6, 5, 4), picks_by=reward_model(by_last_number))
    assert played.outcome.records[-1] == played.dialogues["main"]


def test_candidates_are_calls_of_their_own_with_seeds_of_their_own(play: Play) -> None:
    played = play(**BEST_OF_3, parts=numbered(*range(6)), picks_by=reward_model(by_last_number))
    answers = [call for call in played.calls if call.purpose == "answer"]
    assert sorted(call.ordinal for call in answers) == [0, 0, 1, 1, 2, 2]
    assert len({call.call_id for call in answers}) == len({call.parameters["seed"] for call in answers}) == 6


def test_the_candidates_of_one_history_are_scored_together_beside_the_event_loop(play: Play) -> None:
    asked: list[Conversations] = []
    threads = set()

    def rewards(conversations: Conversations) -> list[float | None]:
        asked.append(conversations)
        threads.add(threading.current_thread())
        return [0.0] * len(conversations)

    played = play(**BEST_OF_3, parts=numbered(*range(6)), picks_by=reward_model(rewards))
    assert [len(conversations) for conversations in asked] == [3, 3]
    assert [[message.content for message in messages] for messages in asked[1]] == [
        ["the first instruction", "answer 0", "question 1", f"answer {number}"] for number in (3, 4, 5)
    ]
    assert threading.main_thread() not in threads
    assert played.texts()[1::2] == ["answer 0", "answer 3"]  # a tie goes to the first


@pytest.mark.parametrize(
    ("rewards", "fates"),
    [
        ([1.0, 2.0, 2.0], ["not_picked", "picked", "not_picked"]),
        ([math.nan, -5.0, None], ["reward_not_finite", "picked", "too_long_to_score"]),
        ([math.inf, 0.0, -math.inf], ["reward_not_finite", "picked", "reward_not_finite"]),
        ([math.nan, None, math.nan], ["reward_not_finite", "too_long_to_score", "reward_not_finite"]),
    ],
)
def test_only_a_finite_reward_can_win(rewards: list[float | None], fates: list[str]) -> None:
    waiting = [(ordinal, Said(said("assistant", "x"), "assistant", f"call_{ordinal}")) for ordinal in range(3)]
    scored: list[Candidate] = judged_by_reward(waiting, rewards, depth=1)
    assert [candidate.fate for candidate in scored] == fates
    kept = [reward if reward is not None and math.isfinite(reward) else None for reward in rewards]
    assert [candidate.reward for candidate in scored] == kept


@pytest.mark.parametrize(("reward", "reason"), [(math.nan, "reward_not_finite"), (None, "too_long_to_score")])
def test_a_dialogue_without_a_candidate_to_pick_ends_and_says_why(
    play: Play, reward: float | None, reason: str
) -> None:
    def rewards(conversations: Conversations) -> list[float | None]:
        return [reward if len(messages) > 2 else 0.0 for messages in conversations]

    played = play(**BEST_OF_3, parts=numbered(*range(6)), picks_by=reward_model(rewards))
    main = played.dialogues["main"]
    assert (main.status, main.termination_reason, main.n_turns) == ("failed", reason, 1)
    assert "no candidate for answer 2 can be scored" in str(main.error)
    assert [other.termination_reason for other in candidates_of(played)] == ["not_picked"] * 2 + [reason] * 3
    assert len(played.of(Score)) == 3


def test_a_candidate_that_fails_is_left_out_and_only_all_of_them_end_the_dialogue(play: Play) -> None:
    answers = iter(["a 1", None, "a 0", None, None, None])

    def chat(_: str) -> str:
        from litellm import BadRequestError

        answer = next(answers)
        if answer is None:
            raise BadRequestError("no", "x", "scripted")
        return answer

    played = play(**BEST_OF_3, parts={"chat": chat}, picks_by=reward_model(by_last_number))
    assert played.texts() == ["the first instruction", "a 1", "question 1"]
    assert (played.dialogues["main"].status, played.dialogues["main"].termination_reason) == ("failed", "bad_request")
    assert [played.turns[other.turn_ids[-1]].content for other in candidates_of(played)] == ["a 0"]


def test_what_is_fatal_for_one_candidate_is_fatal(play: Play) -> None:
    def chat(_: str) -> str:
        from litellm import AuthenticationError

        raise AuthenticationError("no", "scripted", "x")

    with pytest.raises(ProviderError, match="refused the key"):
        play(**BEST_OF_3, parts={"chat": chat}, picks_by=reward_model(by_last_number))


def test_how_answers_are_picked_is_part_of_what_a_campaign_is(play: Play) -> None:
    def campaign(picks_by: RewardModel, **given: Any) -> str:
        played = play(**{**BEST_OF_3, **given}, parts={"chat": lambda _: "1"}, picks_by=picks_by)
        return played.dialogues["main"].campaign_id

    toy, other = reward_model(by_last_number), reward_model(by_last_number, "other")
    assert len({campaign(toy), campaign(other), campaign(toy, candidates=2)}) == 3
    assert campaign(toy) == campaign(reward_model(by_last_number), concurrency=3)
    plain = [play(recipe="dialogue", candidates=n).dialogues["main"].campaign_id for n in (2, 3)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(
    ("preset", "override", "message"),
    [
        ("dialogue", "scorer.model=fits/x", "scorer picks candidates in the recipes best_of_n and west_of_n"),
        ("best-of-n", "perturb.schedule=one", "drop perturb"),
        ("best-of-n", "judge_pairs=true", "drop judge_pairs"),
        ("best-of-n", "candidates=0", "greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(preset: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(preset, CampaignSettings, overrides=[override])


def rehearsed(**given: Any) -> CampaignSettings:
    models = {"assistant": {"model": "rehearsal/careless"}}
    seeds = {"format": "rehearsal", "limit": 4}
    data = {"name": "best", "recipe": "best_of_n", "turns": 2, "candidates": 3, "seeds": seeds, "models": models}
    return CampaignSettings.model_validate(data | given)


def run(settings: CampaignSettings, database: Path, rewards: Any) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database, scorer=reward_model(rewards))


def by_letters(conversations: Conversations) -> list[float | None]:
    """A reward that looks at the whole conversation."""
    return [float(sum(map(ord, "".join(m.content for m in messages))) % 97) for messages in conversations]


def contents(database: Path) -> dict[str, list[Any]]:
    tables = {"turns": "*", "dialogues": "*", "scores": "*", "fits": "fit_id", "calls": "call_id, response, status"}
    return {
        table: sorted(str(tuple(row.values())) for row in query(database, f"SELECT {columns} FROM {table}"))
        for table, columns in tables.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of a campaign that ran through at once, on a fit that it knew before."""
    database = tmp_path_factory.mktemp("whole") / "corpus.duckdb"
    with Writer(database) as writer:
        writer.append(reward_model(by_letters).fit.model_copy(update={"config": {"steps": 7}}))
    report = run(rehearsed(), database, by_letters)
    assert (report.done, report.calls_sent) == (4, N_CALLS)
    return database


N_CALLS = 4 * (3 + 1 + 3)
"""Of four seeds: three candidates, the user, three candidates."""


def test_a_campaign_that_crashed_picks_the_same_and_pays_nothing_twice(whole: Path, tmp_path: Path) -> None:
    asked = 0

    def crash(conversations: Conversations) -> list[float | None]:
        nonlocal asked
        asked += 1
        if asked == 4:  # the second dialogue's second answer
            raise MemoryError("gone")
        return by_letters(conversations)

    database = tmp_path / "crashed.duckdb"
    with pytest.raises(BaseExceptionGroup):
        run(rehearsed(concurrency=1), database, crash)
    paid = query(database, "SELECT call_id FROM calls WHERE status = 'done'")
    assert len(paid) == N_CALLS // 2
    again = run(rehearsed(), database, by_letters)
    assert again.calls_sent == N_CALLS - len(paid)
    assert contents(database) == contents(whole)


def test_candidates_of_the_rehearsal_differ_by_chance_alone(whole: Path) -> None:
    rows = query(
        whole,
        "SELECT count(DISTINCT content) AS texts, count(*) AS n FROM turns WHERE role = 'assistant' GROUP BY parent_id",
    )
    assert [row["n"] for row in rows] == [3] * 8
    assert sum(row["texts"] > 1 for row in rows) > 4


def test_candidates_are_no_dialogues_in_the_counts_of_a_campaign(whole: Path) -> None:
    assert query(whole, "SELECT count(*) AS n FROM dialogues WHERE branch = 'candidate'") == [{"n": 4 * 2 * 2}]
    (stats,) = query(whole, "SELECT dialogues, turns FROM campaign_stats")
    assert stats == {"dialogues": 4, "turns": 2.0}


def test_a_fit_that_the_corpus_knows_keeps_its_row(whole: Path) -> None:
    assert query(whole, "SELECT config->>'steps' AS steps FROM fits") == [{"steps": "7"}]


def test_a_campaign_that_picks_needs_somebody_who_picks(tmp_path: Path) -> None:
    with pytest.raises(ScorerMissingError, match=r"set scorer\.model"):
        run_campaign(rehearsed(), load_seeds(rehearsed()).seeds, tmp_path / "corpus.duckdb")
    assert list(tmp_path.iterdir()) == []
