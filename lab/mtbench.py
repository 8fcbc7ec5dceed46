"""MT-Bench, its extension to eight turns, and MT-Bench-101: an assistant answers, judges grade every turn.

A benchmark is a campaign (`graphs.campaign`) and a judging of its dialogues (`graphs.judging`), and so resumes as they
do. MT-Bench's user speaks the question's own turns; where a question is extended, the simulator goes on after them.
MT-Bench-101 is one dialogue of one answer for each judged turn, after the gold turns before it.

What differs from the benchmarks: the judges' prompts are ours (one JSON object, one prompt for all of MT-Bench-101's
tasks), the reference shown is that of the turn alone, and the assistant has one temperature for all categories.
`docs/benchmarks.md` has the whole list.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from agents.ledger import CampaignStopping
from agents.preflight import check
from agents.prices import require_prices
from agents.prompts import JUDGING_VARIABLES, VARIABLES, Prompts
from configs.benchmark_settings import BenchmarkSettings
from configs.errors import DescantError
from configs.judge_settings import JudgeModelsSettings, JudgeSettings
from configs.settings import CampaignSettings, SeedSettings
from graphs.campaign import campaign_identity, run_campaign
from graphs.cast import ModelMissingError, prompts_of
from graphs.judging import Grading, judging_identity, run_judging
from graphs.progress import Progress, Silent
from graphs.seeds import load_seeds, script_of
from lab.mtbench_scores import (
    BenchmarkResult,
    Counts,
    Grade,
    Usage,
    lowest_grades,
    lowest_rows,
    mean_rows,
    turn_rows,
)
from store.database import query
from store.identity import content_hash
from store.judging import Reference, references_of
from store.mtbench101 import BY_REFERENCE, gold_turns
from store.queries import messages_of, was_rehearsed
from store.records import Seed
from store.seeds import shape_and_rows

REFERENCE_CATEGORIES = frozenset({"math", "coding", "reasoning"})
"""Whose answers MT-Bench grades by a reference."""


BENCHMARKS = {"mtbench": "MT-Bench", "mtbench101": "MT-Bench-101"}
"""By the shape of their files, which is the preset's name too."""
WHOLE = {"mtbench": 80, "mtbench101": 1388}
"""Questions, or dialogues, of the benchmark itself."""


class BenchmarkError(DescantError):
    """Raised here: no questions, questions that are none of the benchmark's, or nothing that could be judged."""


class Question(NamedTuple):
    """What one seed is to the benchmark."""

    seed: Seed
    question: str
    """The question or dialogue that it belongs to: what intervals are over."""
    category: str
    judged: tuple[int, ...]
    """Which answers of the conversation are graded, from 0: of turn 1, turn 2, ..."""


class Paper(NamedTuple):
    """The questions of a run, and what a run on them is called."""

    questions: list[Question]
    references: dict[str, Reference]
    source: str | None
    """Of the references: null where the questions bring them."""
    script: bool
    """Whether the script is all that the user says."""
    limit: int | None
    """Rows of the file that were asked for."""
    in_file: int
    """Questions, or dialogues, that the file has."""


def read_paper(settings: BenchmarkSettings, *, limit: int | None = None) -> Paper:
    """The questions, of the first `limit` rows of the file.

    Raises:
        BenchmarkError: no file is named, or its rows are none of this benchmark's.
        StoreError: a file cannot be read, or a row of it.
    """
    if settings.questions is None:
        raise BenchmarkError("no questions: pass --questions FILE, or set questions")
    shape, in_file = shape_and_rows(settings.questions)
    _check_shape(settings, shape)
    if settings.benchmark == "mtbench101":
        return _gold_paper(settings.questions, limit, in_file)
    seeds = load_seeds(_campaign(settings, script="only", limit=limit)).seeds
    turns = settings.turns_played
    scripts = [len(script_of(seed)) for seed in seeds]
    if settings.benchmark == "mtbench" and min(scripts) < turns:
        raise BenchmarkError(f"a question of {settings.questions!r} has {min(scripts)} turns: MT-Bench's have {turns}")
    only = max(scripts) >= turns
    questions = [
        Question(seed, seed.seed_id, str(seed.metadata.get("category", "none")), tuple(range(turns))) for seed in seeds
    ]
    guided = {q.seed.seed_id: q.seed.metadata for q in questions if q.category in REFERENCE_CATEGORIES}
    references = references_of(guided, settings.references)
    if settings.references is not None and guided and not references:
        raise BenchmarkError(
            f"{settings.references!r} has no right answer to any question of {settings.questions!r}: name MT-Bench's file of "
            "reference answers, whose lines have the questions' question_id"
        )
    source = (
        None if settings.references is None else content_hash(Path(settings.references).read_text(encoding="utf-8"))
    )
    return Paper(questions, references, source, only, limit, in_file)


def _check_shape(settings: BenchmarkSettings, shape: str | None) -> None:
    """Raise a BenchmarkError for the file of the other benchmark."""
    expected = "mtbench101" if settings.benchmark == "mtbench101" else "mtbench"
    if shape in BENCHMARKS and shape != expected:
        raise BenchmarkError(f"{settings.questions!r} is {BENCHMARKS[shape]}'s file: use the preset {shape}")


def _gold_paper(path: str, limit: int | None, in_file: int) -> Paper:
    turns = gold_turns(path, limit=limit)
    references = {
        turn.seed.seed_id: Reference(("",) * (turn.turn - 1) + (turn.gold,), ())
        for turn in turns
        if turn.task in BY_REFERENCE
    }
    questions = [Question(turn.seed, str(turn.dialogue), turn.task, (turn.turn - 1,)) for turn in turns]
    return Paper(questions, references, None, True, limit, in_file)


def what_is_run(settings: BenchmarkSettings, paper: Paper) -> str:
    """In words: an extension is never called MT-Bench++ itself."""
    seeds = [question.seed for question in paper.questions]
    n, turns, file = len(seeds), settings.turns_played, Path(settings.questions or "").name
    if settings.benchmark == "mtbench101":
        dialogues = len({question.question for question in paper.questions})
        return f"MT-Bench-101: {dialogues} dialogues, {n} judged turns, each answered after the gold turns before it"
    if settings.benchmark == "mtbench":
        return f"MT-Bench: {n} questions of {turns} turns, from {file}"
    if not paper.script:
        model = settings.models.of("user").model
        return (
            f"MT-Bench extended to {turns} turns by the simulator {model} (ours; the paper's MT-Bench++ was written by people "
            f"and is not public): {n} questions, from {file}"
        )
    written = sorted({str(seed.metadata["extended_by"]) for seed in seeds if "extended_by" in seed.metadata})
    by = f", written by the simulator {', '.join(written)} (ours; not the paper's MT-Bench++)" if written else ""
    heard = sorted({str(seed.metadata["answered_by"]) for seed in seeds if "answered_by" in seed.metadata})
    by += f" as it heard the answers of {', '.join(heard)}" if heard else ""
    return f"{turns} turns from {file}{by}: {n} questions"


def what_it_is_called(settings: BenchmarkSettings, paper: Paper) -> str:
    """The benchmark's name for machines: eight turns are never called MT-Bench++, which is not public."""
    if settings.benchmark != "mtbench++":
        return settings.benchmark
    if not paper.script or any("extended_by" in question.seed.metadata for question in paper.questions):
        return "mtbench-extended"
    return f"{settings.turns_played} turns from {Path(settings.questions or '').name}"


def what_is_left_out(settings: BenchmarkSettings, paper: Paper) -> str | None:
    """In words, where a figure is not of the whole benchmark."""
    shape = "mtbench101" if settings.benchmark == "mtbench101" else "mtbench"
    unit = "dialogues" if shape == "mtbench101" else "questions"
    taken = paper.in_file if paper.limit is None else min(paper.limit, paper.in_file)
    if taken < paper.in_file:
        return f"Of the first {taken} of {paper.in_file} {unit} alone."
    if taken < WHOLE[shape]:
        return f"Of {taken} {unit}, all that the file has: {BENCHMARKS[shape]} has {WHOLE[shape]}."
    return None


def evaluate_benchmark(
    settings: BenchmarkSettings,
    paper: Paper,
    database: Path,
    *,
    save_questions: Path | None = None,
    progress: Callable[[str], Progress] = lambda _: Silent(),
    say: Callable[[str], None] = lambda _: None,
) -> BenchmarkResult:
    """Answer, judge and count, or go on with it: what is paid for is not paid again.

    Args:
        paper: what `read_paper` made of the same settings.
        save_questions: where an extension's questions are written, with all their turns, for other assistants.
        progress: from a part's name to what shows it.
        say: is told beforehand how many calls it takes.

    Raises:
        BenchmarkError, StoreError, ModelMissingError, PreflightError, PromptError: before anything is paid.
        CampaignStopping: interrupted, or the budget is spent; the same command goes on.
    """
    what = what_is_run(settings, paper)
    if save_questions is not None and (settings.benchmark != "mtbench++" or paper.script):
        raise BenchmarkError(f"--save-questions keeps what a simulator wrote, and nothing is extended here: {what}")
    judging = _judging(settings)
    prompts = Prompts(judging.prompts, variables=JUDGING_VARIABLES)
    if judging.models.unnamed():
        raise ModelMissingError("no model for a judge: set models.judges.0.model to a LiteLLM model string")
    judges = judging.models.resolved()
    require_prices(settings.budget, judging.models.as_roles(), [("judge", index) for index in range(len(judges))])
    check(judges)
    say(f"{what}\n{_bill(settings, paper)}")
    answers = campaign_of(settings, paper)
    campaign_id = campaign_identity(answers, prompts_of(answers))
    label_set = f"{settings.name}.{content_hash(campaign_id, judging_identity(judging, prompts, paper.source))[:10]}"
    judging = judging.model_copy(update={"name": label_set})
    campaign = run_campaign(
        answers,
        [question.seed for question in paper.questions],
        database,
        progress=progress("answers"),
        sharing=[judging_identity(judging, prompts, paper.source)],  # which has paid, if this is not the first run
    )
    if campaign.stop_reason is not None:
        raise CampaignStopping(campaign.stop_reason)
    if not campaign.done:
        raise BenchmarkError('no dialogue was played to its end: see why with descant sql "FROM errors"')
    if save_questions is not None:
        _save(save_questions, settings, paper, campaign.campaign_id, database)
    judged = run_judging(
        judging,
        database,
        campaign=campaign.campaign_id,
        grading=Grading({q.seed.seed_id: q.judged for q in paper.questions}, paper.references, paper.source),
        sharing=[campaign.campaign_id],
        progress=progress("verdicts"),
    )
    if judged.stop_reason is not None:
        raise CampaignStopping(judged.stop_reason)
    grades = _grades(database, label_set, paper)
    incomplete = 0
    if settings.benchmark == "mtbench101":
        turns = _judged_turns(paper)
        lowest, incomplete = lowest_grades(grades, turns)
        headline, categories = lowest_rows(lowest)
        curve = turn_rows(grades)
    else:
        headline, curve, categories = mean_rows(grades)
    found = BenchmarkResult(
        name=settings.name,
        benchmark=what_it_is_called(settings, paper),
        what=what,
        left_out=what_is_left_out(settings, paper),
        assistant=settings.models.of("assistant").model,
        judges=tuple(judged.judges),
        label_set=label_set,
        campaign_id=campaign.campaign_id,
        judging_id=judged.campaign_id,
        counts=_counts(database, paper, settings, campaign.campaign_id, grades, judged.verdicts, incomplete),
        headline=headline,
        turns=curve,
        categories=categories,
        usage=_usage(database, campaign.campaign_id, judged.campaign_id),
        calls_sent=campaign.calls_sent + judged.calls_sent,
        rehearsed=any(was_rehearsed(database, campaign=one) for one in (campaign.campaign_id, judged.campaign_id)),
    )
    return found


def campaign_of(settings: BenchmarkSettings, paper: Paper) -> CampaignSettings:
    """The campaign in which the assistant answers this paper."""
    return _campaign(settings, script="only" if paper.script else "first", limit=paper.limit)


def _campaign(settings: BenchmarkSettings, *, script: str, limit: int | None) -> CampaignSettings:
    shape = "mtbench101" if settings.benchmark == "mtbench101" else "mtbench"
    return CampaignSettings.model_validate(
        {
            "name": settings.name,
            "recipe": "dialogue",
            "random_seed": settings.random_seed,
            "seeds": SeedSettings.model_validate({"path": settings.questions, "format": shape, "limit": limit}),
            "turns": settings.turns_played,
            "script": script,
            "simulator": settings.simulator if script == "first" else "prompted",
            "gate": settings.gate if script == "first" else None,
            "concurrency": settings.concurrency,
            "judge_repairs": settings.repairs,
            "prompts": {name: path for name, path in settings.prompts.items() if name not in _judges_prompts()},
            "models": settings.models,
            "budget": settings.budget,
        }
    )


def _judging(settings: BenchmarkSettings) -> JudgeSettings:
    """The judging of every turn: by its right answer where one is known, else without."""
    return JudgeSettings(
        name=settings.name,
        rubric="reference",
        per_turn=True,
        otherwise="score",
        models=JudgeModelsSettings(default=settings.models.default, judges=settings.models.judges).served(
            settings.models.endpoints
        ),
        repairs=settings.repairs,
        concurrency=settings.concurrency,
        prompts={name: path for name, path in settings.prompts.items() if name in _judges_prompts()},
        budget=settings.budget,
    )


def _judges_prompts() -> set[str]:
    return JUDGING_VARIABLES.keys() - VARIABLES.keys()


def _bill(settings: BenchmarkSettings, paper: Paper) -> str:
    """How many calls it takes, retries and repairs apart."""
    judges = len(settings.models.judges)
    if settings.benchmark == "mtbench101":
        answers, queries = len(paper.questions), 0
    else:
        turns = settings.turns_played
        scripts = [min(len(script_of(q.seed)), turns) for q in paper.questions]
        answers = sum(scripts) if paper.script else turns * len(scripts)
        queries = answers - sum(scripts)
    calls = answers + queries + answers * judges
    asked = f"{answers} answers, " + (f"{queries} queries of the simulator, " if queries else "")
    return f"{asked}{answers * judges} verdicts: {calls} calls, those that are paid already included"


def _judged_turns(paper: Paper) -> dict[str, list[int]]:
    """By dialogue of MT-Bench-101, the turns that are judged, from 1."""
    turns: dict[str, list[int]] = {}
    for question in paper.questions:
        turns.setdefault(question.question, []).extend(answer + 1 for answer in question.judged)
    return turns


def _grades(database: Path, label_set: str, paper: Paper) -> list[Grade]:
    """The verdicts on the questions of this run, in their order."""
    rows = query(
        database,
        """
        SELECT dialogues.seed_id, turns.depth // 2 + 1 AS turn, judgements.judge, judgements.rubric, judgements.score
        FROM judgements JOIN dialogues USING (dialogue_id) JOIN turns USING (turn_id)
        WHERE judgements.label_set = ? ORDER BY judgements.judge, turn
        """,
        [label_set],
    )
    by_seed: dict[str, list[tuple[int, str, str, float | None]]] = {}
    for row in rows:
        by_seed.setdefault(row["seed_id"], []).append((row["turn"], row["judge"], row["rubric"], row["score"]))
    return [
        Grade(question.question, question.category, turn, judge, rubric == "reference", score)
        for question in paper.questions
        for turn, judge, rubric, score in by_seed.get(question.seed.seed_id, ())
    ]


def _counts(
    database: Path,
    paper: Paper,
    settings: BenchmarkSettings,
    campaign_id: str,
    grades: Sequence[Grade],
    asked: int,
    incomplete: int,
) -> Counts:
    rows = query(
        database,
        """
        SELECT dialogues.seed_id, dialogues.status, count(*) FILTER (turns.role = 'user') AS asked
        FROM (SELECT dialogue_id, seed_id, status, unnest(turn_ids) AS turn_id FROM dialogues WHERE campaign_id = ?)
            AS dialogues JOIN turns USING (turn_id)
        GROUP BY ALL
        """,
        [campaign_id],
    )
    wanted = {question.seed.seed_id: question for question in paper.questions}
    played = [row for row in rows if row["seed_id"] in wanted]
    turns = settings.turns_played
    return Counts(
        questions=len({question.question for question in paper.questions}),
        failed=sum(row["status"] == "failed" for row in played),
        short=0
        if settings.benchmark == "mtbench101"
        else sum(row["status"] == "done" and row["asked"] < turns for row in played),
        verdicts=len(grades),
        by_reference=sum(grade.by_reference for grade in grades),
        invalid=sum(grade.score is None for grade in grades),
        missing=asked - len(grades),
        incomplete=incomplete,
    )


def _usage(database: Path, *campaigns: str) -> list[Usage]:
    rows = query(
        database,
        """
        SELECT agent, sum(calls)::BIGINT AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
            sum(completion_tokens)::BIGINT AS completion_tokens,
            CASE WHEN count(cost_usd) = count(*) THEN sum(cost_usd) END AS cost_usd
        FROM usage_by_agent WHERE list_contains(?, campaign_id) GROUP BY agent ORDER BY agent
        """,
        [list(campaigns)],
    )
    return [Usage(**row) for row in rows]


def _save(path: Path, settings: BenchmarkSettings, paper: Paper, campaign_id: str, database: Path) -> None:
    """The questions with every turn that was spoken, in MT-Bench's format; the file is there whole or not at all."""
    rows = query(
        database,
        "SELECT seed_id, messages FROM transcripts WHERE campaign_id = ? AND status = 'done' AND trial = 0",
        [campaign_id],
    )
    spoken = {row["seed_id"]: [m.content for m in messages_of(row["messages"]) if m.role == "user"] for row in rows}
    origin = {
        "extended_by": f"{settings.models.of('user').model} ({settings.simulator})",
        "answered_by": settings.models.of("assistant").model,
        "campaign_id": campaign_id,
    }
    lines = [
        orjson.dumps({**question.seed.metadata, "turns": spoken[question.seed.seed_id], **origin})
        for question in paper.questions
        if question.seed.seed_id in spoken
    ]
    half = path.with_name(f"{path.name}.half")
    try:
        half.write_bytes(b"\n".join(lines) + b"\n")
        half.replace(path)
    except OSError as error:
        raise BenchmarkError(f"cannot write the questions to {str(path)!r}: {error.strerror}") from error
