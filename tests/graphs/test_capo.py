"""CaPO: context-dependent queries, three negatives of each side by side, and the branches and pairs that they make."""

import io
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.failures import ProviderError
from configs.errors import DescantError
from configs.load import load
from configs.settings import CONTEXT_KINDS, CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.export import export_pairs
from store.records import Dialogue, Judgement
from store.status import status_of
from store.transcript import show
from tests.graphs.conftest import DEFAULT_PARTS, FIRST, Part, Play, Played, seed_of, task_of
from tests.scripted import said, scripted_model
from train.data import read_pairs

CAPO = {"recipe": "capo", "turns": 3}
GOLD = seed_of(
    said("system", "The reader is a child of seven years."),
    said("user", "Who wrote the first dictionary of the language?"),
    said("assistant", "A schoolmaster did, four hundred years ago."),
    said("user", "Why did he write it?"),
    said("assistant", "To explain hard words."),
)
FROM_GOLD = {"recipe": "capo", "seed": GOLD, "capo": {"play": False}, "seeds": {"path": "x", "cut": "last_assistant"}}


def parts(**others: Part) -> dict[str, Part]:
    """A user who always points back, and an assistant who never says the same twice."""
    numbers = count(1)
    return {
        "ask": lambda text: f"And why is it {text.count('<user>')} like that?",
        "chat": lambda text: f"answer {next(numbers)} to <{text}>",
        **others,
    }


def of_branch(played: Played, branch: str) -> list[Dialogue]:
    return [dialogue for dialogue in played.of(Dialogue) if dialogue.branch == branch]


def texts_of(played: Played, dialogue: Dialogue) -> list[str]:
    return [played.turns[turn].content for turn in dialogue.turn_ids]


def test_each_dependent_query_has_one_chosen_and_three_rejected_on_one_trunk(play: Play) -> None:
    played = play(**CAPO, parts=parts())
    main = played.dialogues["main"]
    chosen, rejected = of_branch(played, "chosen"), of_branch(played, "rejected")
    assert [dialogue.n_turns for dialogue in chosen] == [2, 3]
    assert [dialogue.n_turns for dialogue in rejected] == [2] * 3 + [3] * 3
    for dialogue in chosen:
        assert dialogue.turn_ids == main.turn_ids[: len(dialogue.turn_ids)]
    for dialogue in rejected:
        assert dialogue.turn_ids[:-1] == main.turn_ids[: len(dialogue.turn_ids) - 1]
        assert played.turns[dialogue.turn_ids[-1]].parent_id == dialogue.turn_ids[-2]
    assert {dialogue.forked_from for dialogue in [*chosen, *rejected]} == {main.dialogue_id}
    assert len(played.turns) == 6 + 6
    assert [p.kind for p in played.perturbations] == [*CONTEXT_KINDS] * 2
    assert [p.dialogue_id for p in played.perturbations] == [dialogue.dialogue_id for dialogue in rejected]
    assert played.outcome.records[-1] == main
    assert (played.outcome.done, played.outcome.failed) == (1, 0)
    assert len({dialogue.dialogue_id for dialogue in played.of(Dialogue)}) == 1 + 2 + 6


def test_each_negative_that_did_not_miss_is_a_pair_with_the_same_chosen_side(play: Play) -> None:
    played = play(**CAPO, parts=parts())
    chosen, rejected = of_branch(played, "chosen"), of_branch(played, "rejected")
    assert [pair.chosen_id for pair in played.pairs] == [chosen[0].dialogue_id] * 3 + [chosen[1].dialogue_id] * 3
    assert [pair.rejected_id for pair in played.pairs] == [dialogue.dialogue_id for dialogue in rejected]
    assert [pair.first_divergent_turn for pair in played.pairs] == [2] * 3 + [3] * 3
    assert {(pair.method, pair.n_contrast_turns, pair.label_source) for pair in played.pairs} == {
        ("capo", 1, "construction")
    }


def test_the_answer_to_the_query_alone_is_what_the_transcript_keeps(play: Play) -> None:
    played = play(**FROM_GOLD)
    answers = [texts_of(played, dialogue)[-1] for dialogue in of_branch(played, "rejected")]
    assert answers == [
        "answer to <Why did he write it?>",
        "answer to <a guess of 1>",
        "answer to <a misreading of 1>",
    ]
    assert [p.altered_instruction for p in played.perturbations] == [None, "a guess of 1", "a misreading of 1"]
    assert {p.instruction for p in played.perturbations} == {"Why did he write it?"}


def test_the_seeds_own_answers_are_chosen_and_nothing_is_played(play: Play) -> None:
    played = play(**FROM_GOLD)
    assert texts_of(played, played.dialogues["main"]) == [message.content for message in GOLD.messages]
    assert played.dialogues["main"].termination_reason == "as_given"
    (chosen,) = of_branch(played, "chosen")
    assert chosen.turn_ids == played.dialogues["main"].turn_ids
    assert {call.purpose for call in played.calls} == {
        *("depends", "guess", "misread", "verify_context"),
        *("answer_neglect", "answer_guess", "answer_misread"),
    }
    assert len(played.pairs) == 3


def test_queries_of_the_seed_itself_get_no_negatives_where_the_dialogue_is_played(play: Play) -> None:
    played = play(recipe="capo", seed=GOLD, turns=1, parts=parts())
    assert [dialogue.n_turns for dialogue in of_branch(played, "chosen")] == [3]  # "Why did he write it?" is answer 2
    assert len(of_branch(played, "rejected")) == 3


def test_without_its_history_a_query_stands_alone_and_a_misread_one_keeps_it(play: Play) -> None:
    played = play(**FROM_GOLD)
    shown = {call.purpose: call.messages or () for call in played.calls}
    assert [m.content for m in shown["answer_neglect"]] == ["Why did he write it?"]
    assert [m.content for m in shown["answer_guess"]] == ["a guess of 1"]
    history = [message.content for message in GOLD.messages[:-2]]
    (guess,) = shown["guess"]
    assert "Why did he write it?" in guess.content
    assert not any(text in guess.content for text in history)
    (misread,) = shown["misread"]
    assert all(text in misread.content for text in [*history, "Why did he write it?"])
    told = "\n".join(message.content for message in shown["answer_misread"])
    assert all(text in told for text in [*history, "a misreading of 1"])
    assert "Why did he write it?" not in told


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [('{"depends": false}', "stands_alone"), ("Hm.", "invalid"), ('{"depends": true}', "depends")],
)
def test_only_a_query_that_the_judge_confirms_gets_negatives(play: Play, finding: str, verdict: str) -> None:
    played = play(**CAPO, parts=parts(depends=lambda _: finding))
    findings = [j for j in played.of(Judgement) if j.rubric == "depends"]
    assert [j.verdict for j in findings] == [verdict] * 2
    queries = [turn for turn in played.dialogues["main"].turn_ids if played.turns[turn].role == "user"]
    assert [j.turn_id for j in findings] == queries[1:]
    assert len(played.pairs) == (6 if verdict == "depends" else 0)
    assert len(of_branch(played, "chosen")) == (2 if verdict == "depends" else 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("perturb.schedule=one", "drop perturb.schedule"),
        ("perturb.share=rest", "share=rest is for the two branches"),
        ("perturb.altered_by=assistant", "context_neglect is an error of context"),
        ("perturb.kinds=[music_contrast]", "music_contrast is none"),
        ("judge_pairs=true", "drop judge_pairs"),
        ("capo.play=false", "takes the answers that seeds have"),
        ("capo.queries=0", "greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(override: str, message: str) -> None:
    with pytest.raises(DescantError, match=message):
        load("capo", CampaignSettings, overrides=[override])


MISSED, LANDED = '{"rationale": "it serves", "fails": false}', '{"fails": true}'


def test_what_missed_is_tried_again_and_the_perturbation_agent_is_told(play: Play) -> None:
    left = {kind: iter([MISSED, MISSED, LANDED]) for kind in CONTEXT_KINDS}

    def verify(text: str) -> str:
        (kind,) = [kind for kind in CONTEXT_KINDS if f"\n{kind}: " in text]
        return next(left[kind])

    played = play(**FROM_GOLD, parts=parts(verify_context=verify))
    assert [(p.verdict, p.attempts) for p in played.perturbations] == [("landed", 3)] * 3
    assert [p.altered_instruction for p in played.perturbations] == [None, "a guess of 3", "a misreading of 3"]
    assert "<missed>\na guess of 1\n</missed>\n<missed>\na guess of 2\n</missed>" in played.asked("guess")[2]
    assert "<missed>\na misreading of 1\n</missed>" in played.asked("misread")[1]
    for purpose in ("answer_neglect", "guess", "answer_guess", "misread", "answer_misread"):
        ordinals = [call.ordinal for call in played.calls if call.purpose == purpose]
        assert sorted(ordinals) == [0, 1, 2], purpose
    assert len({call.call_id for call in played.calls}) == len(played.calls)
    checks = [j for j in played.judgements if j.rubric == "verify_context"]
    assert [j.verdict for j in checks] == ["missed", "missed", "landed"] * 3
    assert len({j.judgement_id for j in played.judgements}) == len(played.judgements)
    assert len(played.pairs) == 3


@pytest.mark.parametrize(
    ("verdict", "require_landed", "stored", "n_pairs"),
    [
        (MISSED, False, "missed", 0),
        ("Hm.", False, "unchecked", 3),
        ("Hm.", True, "unchecked", 0),
        (LANDED, True, "landed", 3),
    ],
)
def test_only_a_negative_that_did_not_miss_makes_a_pair(
    play: Play, verdict: str, require_landed: bool, stored: str, n_pairs: int
) -> None:
    perturb = {"require_landed": require_landed, "retries": 1}
    played = play(**FROM_GOLD, perturb=perturb, parts=parts(verify_context=lambda _: verdict))
    assert {p.verdict for p in played.perturbations} == {stored}
    assert (len(played.pairs), len(of_branch(played, "rejected"))) == (n_pairs, 3)
    assert {p.attempts for p in played.perturbations} == {2 if stored == "missed" else 1}


def test_without_verification_negatives_are_unchecked_pairs(play: Play) -> None:
    played = play(**FROM_GOLD, perturb={"verify": False})
    assert {p.verdict for p in played.perturbations} == {"unchecked"}
    assert (len(played.pairs), [j.rubric for j in played.judgements]) == (3, ["depends"])


def test_a_negative_with_the_chosen_answer_is_no_pair(play: Play) -> None:
    played = play(**FROM_GOLD, parts={"chat": lambda _: "To explain hard words."})
    assert (len(of_branch(played, "rejected")), played.pairs) == (3, [])


@pytest.mark.parametrize(
    ("kinds", "agents"),
    [
        (["context_neglect"], {"assistant", "judge"}),
        (["context_misunderstanding", "context_hallucination"], {"assistant", "judge", "perturbation"}),
    ],
)
def test_only_the_kinds_that_are_asked_for_are_made(play: Play, kinds: list[str], agents: set[str]) -> None:
    played = play(**FROM_GOLD, perturb={"kinds": kinds})
    assert [p.kind for p in played.perturbations] == kinds
    assert {call.agent for call in played.calls} == agents


def test_so_many_queries_are_drawn_by_chance_and_always_the_same(play: Play) -> None:
    capo = {"queries": 2}
    steady = parts(chat=lambda text: f"answer to <{text}>")  # numbers would follow the order in which calls come home
    trials = [play(recipe="capo", turns=6, capo=capo, parts=steady, trial=trial) for trial in range(5)]
    drawn = [tuple(dialogue.n_turns for dialogue in of_branch(trial, "chosen")) for trial in trials]
    assert {len(one) for one in drawn} == {2}
    assert len(set(drawn)) > 1
    again = play(recipe="capo", turns=6, capo=capo, parts=steady, trial=0)
    assert again.outcome.records == trials[0].outcome.records
    assert len([j for j in again.judgements if j.rubric == "depends"]) == 5  # every query was judged


def fails(text: str) -> str:
    from litellm import BadRequestError

    raise BadRequestError(f"maximum context length is 8: {text[:9]}", "x", "scripted")


def test_a_negative_that_fails_is_lost_alone(play: Play) -> None:
    played = play(**FROM_GOLD, parts=parts(guess=fails))
    lost, *_ = [dialogue for dialogue in of_branch(played, "rejected") if dialogue.status == "failed"]
    assert (lost.termination_reason, lost.n_turns) == ("context_overflow", 1)
    assert lost.turn_ids == played.dialogues["main"].turn_ids[:-1]
    assert "maximum context length" in (lost.error or "")
    assert [p.kind for p in played.perturbations] == ["context_neglect", "context_misunderstanding"]
    assert (len(played.pairs), played.outcome.done, played.outcome.failed) == (2, 1, 0)


def test_a_finding_that_fails_leaves_its_query_out(play: Play) -> None:
    played = play(**FROM_GOLD, parts=parts(depends=fails))
    assert (played.judgements, played.pairs) == ([], [])
    assert (played.outcome.done, len(played.of(Dialogue))) == (1, 1)


def test_a_conversation_that_failed_gets_no_negatives(play: Play) -> None:
    played = play(**CAPO, parts=parts(ask=lambda text: fails(text) if text.count("<user>") == 2 else "Why is it so?"))
    assert (played.outcome.done, played.outcome.failed) == (0, 1)
    assert [dialogue.branch for dialogue in played.of(Dialogue)] == ["main"]


def test_what_is_fatal_for_one_negative_stops_after_the_others_came_home(play: Play) -> None:
    def refuse(_: str) -> str:
        from litellm import AuthenticationError

        raise AuthenticationError("no", "scripted", "x")

    spoken: list[str] = []

    def verify(text: str) -> str:
        spoken.append(text)
        return LANDED

    with pytest.raises(ProviderError, match="refused the key"):
        play(**FROM_GOLD, parts=parts(guess=refuse, verify_context=verify))
    assert len(spoken) == 2


# whole campaigns


TABLES = {
    **dict.fromkeys(("seeds", "turns", "dialogues", "perturbations", "pairs", "judgements", "dialogue_stats"), "*"),
    "calls": "call_id, request_hash, dialogue_id, purpose, ordinal, response, status",
}


def rehearsed(**given: Any) -> CampaignSettings:
    seeds = {"format": "rehearsal", "limit": 3}
    data = {"recipe": "capo", "turns": 3, "seeds": seeds, "models": {"judges": [{"params": {"judge_error_rate": 0.2}}]}}
    return CampaignSettings.model_validate(data | given)


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(tuple(map(str, row.values())) for row in query(database, f"SELECT {columns} FROM {table}"))
        for table, columns in TABLES.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of a campaign that ran through at once."""
    database = tmp_path_factory.mktemp("whole") / "corpus.duckdb"
    report = run(rehearsed(), database)
    assert (report.dialogues, report.done, report.failed, report.stop_reason) == (3, 3, 0, None)
    assert report.pairs > 9
    return database


def test_a_stopped_campaign_goes_on_to_the_same_rows_and_pays_nothing_twice(whole: Path, tmp_path: Path) -> None:
    database, sent = tmp_path / "corpus.duckdb", 0
    (all_calls,) = query(whole, "SELECT count(*) AS n FROM calls")
    for calls in range(12, all_calls["n"], 19):  # in the dialogue, among findings, among negatives
        report = run(rehearsed(budget={"calls": calls}), database)
        assert report.stop_reason is not None
        sent += report.calls_sent
    report = run(rehearsed(concurrency=1), database)
    assert sent + report.calls_sent == all_calls["n"]
    assert (report.dialogues, report.done, report.failed) == (3, 3, 0)
    assert contents(database) == contents(whole)


def test_a_finished_campaign_sends_nothing_more(whole: Path, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    database.write_bytes(whole.read_bytes())
    report = run(rehearsed(), database)
    assert (report.calls_sent, report.done) == (0, 3)


def test_pairs_are_read_and_exported_with_their_shared_prompt(whole: Path, tmp_path: Path) -> None:
    pairs = read_pairs(str(whole), method="capo")
    assert {kind for pair in pairs for kind in pair.kinds} == set(CONTEXT_KINDS)
    for pair in pairs:
        assert pair.chosen[:-1] == pair.rejected[:-1]
        assert pair.chosen[-1] != pair.rejected[-1]
        assert (len(pair.kinds), pair.n_contrast_turns) == (1, 1)
    target = tmp_path / "pairs.jsonl"
    assert export_pairs(whole, target, "trl-explicit") == len(pairs)
    assert target.read_text().count("\n") == len(pairs)


def test_a_seed_with_a_lost_negative_is_done(tmp_path: Path) -> None:
    def speak(messages: list[dict[str, str]]) -> str:
        task, text = task_of(messages)
        return {**DEFAULT_PARTS, **parts(guess=fails)}[task](text)

    database = tmp_path / "corpus.duckdb"
    with scripted_model(speak) as model:
        given = {"models": {"default": {"model": model}}, "turns": 2, "seeds": {"path": "x"}}
        report = run_campaign(rehearsed(**given), [FIRST], database)
        again = run_campaign(rehearsed(**given), [FIRST], database)
    assert (report.dialogues, report.done, report.failed) == (1, 1, 0)
    assert (again.done, again.calls_sent) == (1, 0)
    (campaign,) = status_of(database)["campaigns"]
    assert (campaign["seeds_done"], campaign["seeds_failed"], campaign["status"]) == (1, 0, "done")
    reasons = query(database, "SELECT what, reason FROM errors ORDER BY what")
    assert [(row["what"], row["reason"]) for row in reasons] == [
        ("call", "context_overflow"),
        ("dialogue", "context_overflow"),
    ]


def test_a_negative_is_shown_with_its_kind(whole: Path) -> None:
    (row,) = query(
        whole,
        "SELECT dialogue_id, altered_instruction FROM perturbations WHERE kind = 'context_hallucination' LIMIT 1",
    )
    page = io.StringIO()
    show(whole, row["dialogue_id"], Console(file=page, width=200))
    assert "[PERTURBED: context_hallucination, it " in page.getvalue()
    assert f"answered instead: {row['altered_instruction']}" in page.getvalue()
