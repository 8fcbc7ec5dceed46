"""Later judging: new sets of verdicts on a corpus that stays as it is; stopped and resumed, nothing is paid twice."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import descant
from agents.rehearsal.backend import complete
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.judging import JudgingReport, run_judging
from graphs.seeds import load_seeds
from store.agreement import agreement_of
from store.commands import show as show_verb
from store.database import query
from store.judging import Conversation, Reference, references
from store.records import Dialogue, Message, Seed
from store.writer import Writer
from tests.scripted import said, scripted_model
from tests.servers import Asked, failure, scripted_server

pytestmark = pytest.mark.chain

N_PAIRS = 12
REHEARSED = {"models": {"default": {"model": "rehearsal/default"}}}
JUDGEMENTS = "SELECT * EXCLUDE (call_id) FROM judgements WHERE label_set <> 'campaign' ORDER BY judgement_id"
Corpus = Callable[[], Path]


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rehearsal's own pairs, compared by the campaign's judge."""
    database = tmp_path_factory.mktemp("corpus") / "corpus.duckdb"
    settings = load("rehearsal", CampaignSettings, overrides=[f"seeds.limit={N_PAIRS}", "perturb.verify=false"])
    assert run_campaign(settings, load_seeds(settings).seeds, database).pairs == N_PAIRS
    return database


@pytest.fixture
def corpus(judged_once: Path, tmp_path: Path) -> Path:
    """A corpus of one's own."""
    copy = tmp_path / "corpus.duckdb"
    copy.write_bytes(judged_once.read_bytes())
    return copy


def settings_for(preset: str = "pairwise", **given: Any) -> JudgeSettings:
    named = load(preset, JudgeSettings, folder="judge").model_dump(exclude_unset=True)
    return JudgeSettings.model_validate({**named, **REHEARSED, **given})


def judge(database: Path, preset: str = "pairwise", **given: Any) -> JudgingReport:
    selection = {key: given.pop(key) for key in ("campaign", "method", "split", "limit", "relabel") if key in given}
    return run_judging(settings_for(preset, **given), database, **selection)


def rows(database: Path, sql: str = JUDGEMENTS) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(database, sql)]


EVERYTHING = "SELECT " + ", ".join(
    f"(SELECT sum(hash(row)) FROM {table} AS row {where})"
    for table, where in {
        **dict.fromkeys(("seeds", "turns", "dialogues", "perturbations", "pairs"), ""),
        "judgements": "WHERE label_set = 'campaign'",
        "calls": "WHERE purpose NOT LIKE 'pairwise/%'",
    }.items()
)
"""One figure a table, without what a judging called `pairwise` adds."""


def test_a_set_is_added_and_nothing_else_is_touched(corpus: Path) -> None:
    before = rows(corpus, EVERYTHING)
    judges = {"judges": [{}, {}, {"model": "rehearsal/careless"}], **REHEARSED["models"]}
    report = judge(corpus, models=judges)
    assert (report.subjects, report.verdicts, report.calls_sent) == (N_PAIRS, 6 * N_PAIRS, 6 * N_PAIRS)
    assert (report.failed, report.open, report.invalid, report.stop_reason) == (0, 0, 0, None)
    assert rows(corpus, EVERYTHING) == before
    by_judge = rows(
        corpus, "SELECT judge, judge_model, count(*) FROM judgements WHERE label_set = 'pairwise' GROUP BY ALL"
    )
    assert sorted(by_judge) == [
        ("rehearsal/careless", "rehearsal/careless", 2 * N_PAIRS),
        ("rehearsal/default", "rehearsal/default", 2 * N_PAIRS),
        ("rehearsal/default#2", "rehearsal/default", 2 * N_PAIRS),
    ]
    usage = rows(corpus, "SELECT agent, calls, cost_usd FROM usage_by_agent WHERE campaign = 'pairwise' ORDER BY calls")
    assert usage == [("judge", 2 * N_PAIRS, 0.0), ("judge", 4 * N_PAIRS, 0.0)]


def test_an_interrupted_judging_goes_on_and_pays_nothing_twice(corpus: Path) -> None:
    heard: list[str] = []

    def speak(messages: list[dict[str, str]]) -> str:
        heard.append(messages[-1]["content"])
        if len(heard) == N_PAIRS:
            os.kill(os.getpid(), signal.SIGINT)  # drains
        return json.dumps({"better": "A" if len(heard[-1]) % 2 else "tie"})

    with scripted_model(speak) as model:
        given: dict[str, Any] = {"concurrency": 4, "models": {"default": {"model": model}}}
        stopped = judge(corpus, **given)
        assert "the same command goes on from here" in (stopped.stop_reason or "")
        assert N_PAIRS <= stopped.calls_sent == len(rows(corpus)) < 2 * N_PAIRS
        assert rows(corpus, STATUS) == [("pairwise", "paused")]
        on = judge(corpus, **given)
        assert stopped.calls_sent + on.calls_sent == len(heard) == len(set(heard)) == 2 * N_PAIRS
    assert rows(corpus, STATUS) == [("pairwise", "done")]


def test_a_killed_judging_takes_what_was_answered_from_the_journal(corpus: Path, tmp_path: Path) -> None:
    """A kill leaves calls without judgements: here those of a first ask whose repair never came."""
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(corpus.read_bytes())
    heard: list[str] = []

    def speak(messages: list[dict[str, str]]) -> str:
        heard.append(messages[-1]["content"])
        return '{"better": "B"}' if "could not be used" in heard[-1] else "no idea"

    with scripted_model(speak) as model:
        given: dict[str, Any] = {"models": {"default": {"model": model}}, "concurrency": 1, "limit": 2}
        assert judge(corpus, budget={"calls": 3}, **given).calls_sent == 3
        assert [row[0] for row in rows(corpus, "SELECT raw FROM judgements WHERE label_set <> 'campaign'")] == [
            '{"better": "B"}'
        ]
        report = judge(corpus, **given)
        assert (report.calls_reused, report.calls_sent, report.verdicts) == (1, 5, 4)
        assert len(set(heard)) == len(heard) == 8
        judge(copy, **given)
    assert rows(corpus) == rows(copy)


STATUS = "SELECT name, status FROM campaigns WHERE recipe = 'judge'"


NO_CONTENT = failure(400, "blocked by our content management policy", code="content_filter")
UNUSABLE = ("", "I'm sorry, I can't help with that.", '{"better": "7", "score": 0}', NO_CONTENT)


def test_what_says_nothing_usable_is_stored_as_invalid_and_never_wins(corpus: Path) -> None:
    with scripted_server(lambda asked: UNUSABLE[len(asked.body["messages"][0]["content"]) % 4]) as server:
        models = {"default": {"model": "hosted_vllm/m", "api_base": server.url}}
        report = judge(corpus, models=models, limit=10)
    assert report.verdicts == report.invalid == 20
    assert (report.failed, report.open) == (0, 0)
    found = rows(corpus, "SELECT verdict, score, raw, error FROM judgements WHERE label_set = 'pairwise'")
    assert {row[:2] for row in found} == {("invalid", None)}
    kept = {row[2] for row in found}
    assert kept <= {*UNUSABLE[:3], *(raw for raw in kept if "content management policy" in raw)}
    assert len(kept) > 2
    assert all(row[3] for row in found)
    assert [row for row in agreement_of(corpus, "pairwise").agreements if row.agreement.n] == []


def test_a_provider_that_is_down_for_some_leaves_them_for_the_next_run(corpus: Path) -> None:
    def sometimes(asked: Asked) -> Any:
        return failure(503) if asked.body["seed"] % 2 else '{"better": "tie"}'

    with scripted_server(sometimes) as server:
        models = {"default": {"model": "hosted_vllm/m", "api_base": server.url, "attempts": 1}}
        report = judge(corpus, models=models)
        assert 0 < report.failed < report.verdicts
        assert len(rows(corpus)) == report.verdicts - report.failed
        assert rows(corpus, "SELECT count(*) FROM errors WHERE agent = 'judge'") == [(report.failed,)]
        server.script = ['{"better": "tie"}']
        again = judge(corpus, models=models)
    assert (again.calls_sent, again.failed, again.open) == (report.failed, 0, 0)
    assert len(rows(corpus)) == report.verdicts


def test_a_wrong_key_stops_at_once_and_keeps_what_was_said(corpus: Path) -> None:
    with scripted_server('{"better": "A"}', failure(401, "wrong key")) as server:
        models = {"default": {"model": "hosted_vllm/m", "api_base": server.url}}
        with pytest.raises(DescantError, match="refused the key") as raised:
            judge(corpus, models=models, concurrency=1)
    assert raised.value.exit_code == 1
    assert len(rows(corpus)) == 1
    assert rows(corpus, STATUS) == [("pairwise", "paused")]


def test_relabelling_writes_the_majority_and_only_when_asked(corpus: Path) -> None:
    labels = "SELECT judged_label, count(*) FROM pairs GROUP BY 1"
    before = rows(corpus, labels)
    with scripted_model(lambda _: '{"better": "A"}') as model:
        models = {"default": {"model": model}}
        assert judge(corpus, models=models, name="ties", limit=2).relabelled == 0
        assert rows(corpus, labels) == before
        again = judge(corpus, models=models, name="ties", relabel=True)
    assert (again.relabelled, again.calls_sent) == (N_PAIRS, 2 * N_PAIRS - 4)
    assert rows(corpus, labels) == [("tie", N_PAIRS)]
    with scripted_model(lambda _: "?") as model:
        judge(corpus, models={"default": {"model": model}}, name="nobody", relabel=True, limit=5)
    assert sorted(rows(corpus, labels), key=str) == [("tie", N_PAIRS - 5), (None, 5)]


def test_conversations_are_scored_whole_or_answer_by_answer(corpus: Path) -> None:
    whole = judge(corpus, "single")
    assert whole.verdicts == whole.subjects == 2 * N_PAIRS
    turns = judge(corpus, "single", name="turns", per_turn=True, limit=4)
    answers = rows(corpus, "SELECT turn_id, judge, score FROM judgements WHERE label_set = 'turns'")
    assert len(answers) == len({row[0] for row in answers}) == turns.verdicts == 12
    roles = rows(corpus, "SELECT DISTINCT role FROM turns JOIN judgements USING (turn_id) WHERE label_set = 'turns'")
    assert roles == [("assistant",)]
    assert {row[2] for row in answers} <= set(map(float, range(1, 11)))
    sides = "SELECT DISTINCT dialogue_id FROM judgements WHERE label_set = 'turns'"
    assert rows(corpus, f"SELECT count(*) FROM pairs WHERE chosen_id IN ({sides}) AND rejected_id IN ({sides})") == [
        (2,)
    ]
    # the sides whose answers are contrasted get lower scores
    (row,) = [row for row in agreement_of(corpus, "single").agreements if row.other == "intended"]
    assert row.agreement.n == N_PAIRS
    assert (row.agreement.value or 0.0) > 0.8


REFERENCES = ("It is big, Ilse.", "It is red, Ilse.")


def write_reference_corpus(path: Path) -> None:
    """Seeds with right answers in their metadata, as MT-Bench's, each with a dialogue that meets them or does not."""
    from datetime import UTC, datetime

    from store.identity import dialogue_id, seed_id, turn_id
    from store.records import Campaign, Turn

    with Writer(path) as writer:
        writer.append(
            Campaign(
                campaign_id="camp_r",
                name="r",
                recipe="dialogue",
                config={},
                config_hash="",
                version="",
                status="done",
                created_at=datetime.now(UTC),
            )
        )
        for number, second in enumerate(("What is its colour?", "And its age?")):
            # by the text alone the facts are unknown: only the references tell what is right
            first = f"Call me Ilse. What is the size of Belo, for the {number + 1}. time?"
            seed = Seed(
                seed_id=seed_id([said("user", first)], 0),
                source="mt",
                messages=(said("user", first),),
                metadata={
                    "question_id": 80 + number,
                    "turns": [first, "What is its colour?"],
                    "reference": [*REFERENCES],
                },
                split="train",
            )
            identity, parent, path_of = dialogue_id("camp_r", seed.seed_id, "main", 0), None, []
            for depth, text in enumerate((first, "It is big, Ilse.", second, "It is blue, Ilse.")):
                turn = Turn(
                    turn_id=turn_id(parent, identity, depth),
                    parent_id=parent,
                    campaign_id="camp_r",
                    seed_id=seed.seed_id,
                    depth=depth,
                    role="assistant" if depth % 2 else "user",
                    content=text,
                    agent="x",
                    call_id=None,
                )
                writer.append(turn)
                parent = turn.turn_id
                path_of.append(turn.turn_id)
            dialogue = Dialogue(
                dialogue_id=identity,
                campaign_id="camp_r",
                seed_id=seed.seed_id,
                branch="main",
                trial=0,
                prompt_hashes={},
                turn_ids=tuple(path_of),
                n_turns=2,
                status="done",
                termination_reason="max_turns",
            )
            writer.append(seed, dialogue)


def test_references_of_the_seeds_or_of_a_file_guide_the_grades(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    write_reference_corpus(database)
    perfect = {"models": {"default": {"model": "rehearsal/perfect"}}}
    whole = judge(database, "reference", name="whole", **perfect)
    assert (whole.subjects, whole.verdicts, whole.without_reference) == (2, 2, 0)
    # the second dialogue's user asked another second question, to which no right answer is known
    prompts = rows(database, "SELECT messages[1].content FROM calls WHERE purpose = 'whole/reference'")
    told = sorted(("And its age?" in row[0], "It is red, Ilse." in row[0]) for row in prompts)
    assert told == [(False, True), (True, False)]
    file = tmp_path / "gpt-4.jsonl"
    line = {"question_id": 80, "choices": [{"index": 0, "turns": ["It is small, Ilse.", "It is blue, Ilse."]}]}
    file.write_text(json.dumps(line) + "\n")
    other = judge(database, "reference", name="file", per_turn=True, references=str(file), **perfect)
    assert (other.verdicts, other.without_reference) == (2, 1)
    graded = rows(
        database, "SELECT score FROM judgements JOIN turns USING (turn_id) WHERE label_set = 'file' ORDER BY depth"
    )
    assert graded == [(1.0,), (10.0,)]


def test_a_right_answer_is_only_shown_for_the_question_that_it_answers() -> None:
    def asked(*questions: str) -> Conversation:
        return Conversation("d", (), tuple(Message(role="user", content=question) for question in questions))

    reference = Reference(("a", "b"), ("one", "two"))
    assert reference.fitting(asked("one", "two", "three")) == ("a", "b")
    assert reference.fitting(asked("one", "two"), asked("one", "other")) == ("a",)
    assert reference.fitting(asked("other", "two")) == ()
    assert Reference(("a", "b"), ()).fitting(asked("whatever")) == ("a", "b")


def test_pairs_are_compared_by_reference(corpus: Path, tmp_path: Path) -> None:
    (pair,) = query(corpus, "SELECT seed_id, rejected FROM preference_pairs ORDER BY pair_id LIMIT 1")
    wrong = [message["content"] for message in pair["rejected"] if message["role"] == "assistant"]
    file = tmp_path / "wrong.jsonl"
    file.write_text(json.dumps({"seed_id": pair["seed_id"], "reference": wrong}))
    report = judge(
        corpus,
        "reference",
        rubric="reference_compare",
        references=str(file),
        models={"default": {"model": "rehearsal/perfect"}},
    )
    assert (report.subjects, report.without_reference, report.verdicts) == (N_PAIRS, N_PAIRS - 1, 2)
    assert {row[0] for row in rows(corpus, "SELECT verdict FROM judgements WHERE label_set = 'reference'")} == {
        "rejected"
    }


REFUSED: dict[str, dict[str, Any]] = {
    "no campaign has the id or name 'nobody': there are rehearsal": {"campaign": "nobody"},
    "no pairs to judge": {"method": "capo"},
    "none of the 24 subjects has a right answer to go by": {"preset": "reference"},
    "'nowhere.jsonl' cannot be read": {"preset": "reference", "references": "nowhere.jsonl"},
    "unknown rehearsal model": {"models": {"default": {"model": "rehearsal/best"}}},
    "unknown prompt 'ask': the prompts are compare, reference_compare": {"prompts": {"ask": "x.md"}},
}


def test_what_cannot_be_judged_is_refused_before_anything_is_written(corpus: Path) -> None:
    before = corpus.read_bytes()
    for expected, given in REFUSED.items():
        with pytest.raises(DescantError, match=expected) as raised:
            judge(corpus, **given)
        assert raised.value.exit_code == 2
    assert corpus.read_bytes() == before
    assert sorted(path.name for path in corpus.parent.iterdir()) == ["corpus.duckdb"]


def test_a_corpus_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DescantError, match="there is no database"):
        judge(tmp_path / "corpus.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_name_stands_for_one_way_of_judging(corpus: Path) -> None:
    judge(corpus, limit=1)
    for other in (
        {"models": {"default": {"model": "rehearsal/careless"}}},
        {"models": {"default": {"model": "rehearsal/default", "temperature": 1.0}}},
    ):
        with pytest.raises(DescantError, match="choose another name for this one with --set name=NAME"):
            judge(corpus, **other)
    assert judge(corpus, limit=2, concurrency=1, repairs=0).calls_sent == 2


BROKEN = {
    "{": "line 2: not JSON",
    "[]": "line 2: not an object",
    '{"seed_id": "x"}': "line 2: no right answer",
    '{"reference": "x"}': "line 2: names no seed",
    '{"seed_id": "x", "reference": [1]}': "line 2: no right answer",
}


def test_a_broken_line_of_references_is_named(judged_once: Path, tmp_path: Path) -> None:
    file = tmp_path / "references.jsonl"
    for line, expected in BROKEN.items():
        file.write_text('{"id": 3, "reference": "x"}\n' + line)
        with pytest.raises(DescantError, match=expected):
            references(judged_once, str(file))


def command(*arguments: str) -> Result:
    chosen = ["--quiet", "--set", "models.default.model=rehearsal/default"]
    return CliRunner().invoke(descant.build(), ["judge", *arguments, *chosen])


def test_the_command_prints_its_report_with_the_figures(corpus: Path) -> None:
    at = ("--db", str(corpus), "--limit", "4")
    paused = command("pairwise", *at, "--set", "budget.calls=3", "--json")
    report = json.loads(paused.stdout)
    assert (paused.exit_code, report["open"]) == (1, 5)
    assert "budget of 3 calls is spent" in report["stop_reason"]
    assert report["agreement"]["judges"][0]["verdicts"] == 3
    done = command("pairwise", *at)
    assert done.exit_code == 0
    for line in (
        "verdicts   8 there, 0 failed, 0 open; 0 of the set invalid",
        "calls      5 sent",
        "says nothing about real",
    ):
        assert line in done.stdout
    assert "\nlabel set pairwise (compare), 4 pairs\n" in done.stdout

    show = CliRunner().invoke(show_verb, [rows(corpus, "SELECT min(pair_id) FROM pairs")[0][0], "--db", str(corpus)])
    assert "\npairwise · rehearsal/default · chosen first: " in show.stdout
    assert "\ncampaign · rehearsal/default · rejected first: " in show.stdout


# what was planted in the rehearsal's judge is found


def planted(pairs: int, **rates: float) -> Any:
    """The figures of a judge with known faults, on made-up pairs of known truth and length, asked without a database."""
    from agents.prompts import Prompts, transcript
    from agents.rehearsal.world import PEOPLE
    from store.agreement import PairFacts, Said, _figures

    render = Prompts().render
    facts, verdicts = {}, []
    for number in range(pairs):
        name = PEOPLE[number % len(PEOPLE)]
        ask = said("user", f"Call me {name}. Belo is big. What is its size, {number}?".replace(f", {number}", ""))
        right, wrong = f"It is big, {name}.", f"It is small, {name}."  # the wrong one is longer
        if number % 2:
            wrong = "Noted."
        sides = [transcript([ask, said("assistant", text)]) for text in (right, wrong)]
        facts[str(number)] = PairFacts(str(number), "c", "r", "chosen", len(right), len(wrong))
        for order in ("chosen_first", "rejected_first"):
            a, b = sides if order == "chosen_first" else sides[::-1]
            prompt = render("compare", conversation_a=a, conversation_b=b)
            request = {"seed": 2 * number + (order == "chosen_first"), "judge_error_rate": 0.1, "position_bias": 0.0}
            text = complete("default", [{"role": "user", "content": prompt}], {**request, **rates}).content
            better = {"A": a, "B": b}[json.loads(text)["better"]]
            verdict = "chosen" if better is sides[0] else "rejected"
            verdicts.append(Said("m", "compare", str(number), str(number), None, None, order, verdict, None))
    return _figures("m", verdicts, {}, facts)


def inside(figure: Any, value: float) -> bool:
    return bool(figure.low <= value <= figure.high)


def test_an_unbiased_judge_shows_no_bias() -> None:
    figures = planted(400)
    assert inside(figures.position_bias, 0.0)
    assert inside(figures.length_bias, 0.0)
    assert abs(figures.position_bias.value) < 0.05
    assert abs(figures.length_bias.value) < 0.07
    assert figures.consistency.value == pytest.approx(0.82, abs=0.05)  # 0.9^2 + 0.1^2


def test_planted_biases_are_found_each_by_its_own_figure() -> None:
    position = planted(400, position_bias=0.3)
    assert position.position_bias.value == pytest.approx(0.3, abs=0.06)
    assert position.position_bias.low > 0.1
    assert inside(position.length_bias, 0.0)
    length = planted(400, length_bias=0.3)
    assert length.length_bias.value == pytest.approx(0.3, abs=0.08)
    assert length.length_bias.low > 0.1
    assert inside(length.position_bias, 0.0)
    assert length.length_coefficient > 0.5
