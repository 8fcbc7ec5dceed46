"""A later judging: a new set of verdicts on what a corpus already has. Nothing in it is made anew.

Each verdict is a row as soon as it is there, and what is there is not asked for again, so the same command goes on.
The judges' calls belong to a campaign of their own (recipe `judge`), so that cost and budget stand apart.
"""

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agents.failures import ProviderError
from agents.judge import Judge, Opinion, Presentation, names_apart
from agents.ledger import Ledger
from agents.llm import LanguageModel
from agents.preflight import check
from agents.prices import require_prices
from agents.prompts import JUDGING_VARIABLES, Prompts
from agents.protocol import DialogueSoFar
from agents.secrets import Redactor
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.model_settings import ModelSettings
from graphs.campaign import descant_version
from graphs.cast import ModelMissingError
from graphs.comparing import ORDERS
from graphs.control import Control
from graphs.crew import work_off
from graphs.garbage import seldom_collected
from graphs.progress import Counters, Progress, Silent
from graphs.spending import spent_so_far
from store import judging as stored
from store.agreement import labels_by_judge
from store.identity import content_hash, judgement_id
from store.judging import Conversation, Reference, SoFar, Subject
from store.pairs import majority
from store.records import Campaign, CampaignStatus, Judgement
from store.writer import LOCK_PATIENCE_SECONDS, Writer


class JudgingError(DescantError):
    """Raised here: nothing to judge, or a set of that name that was asked for otherwise."""


class JudgingReport(NamedTuple):
    """How a judging ended."""

    label_set: str
    campaign_id: str
    """Of the judges' calls."""
    rubric: str
    judges: dict[str, str]
    """Model string by judge."""
    subjects: int
    """Pairs or conversations that this run was given."""
    without_reference: int
    """Of them, those that are left out since no right answer is known."""
    verdicts: int
    """Of these subjects, whichever run they came in; `invalid` and `failed` too."""
    invalid: int
    """Verdicts of the whole set that could not be read."""
    failed: int
    """Verdicts that this run did not get, since the provider failed: the same command asks again."""
    open: int
    """Verdicts that are still to be asked for."""
    relabelled: int
    """Pairs whose judged_label this run set."""
    calls_sent: int
    calls_reused: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null when the price of some call is unknown."""
    lost_tokens: int
    """At most so many more, for requests that brought no answer and may be billed all the same."""
    lost_usd: float | None
    """Null when the price of some is unknown."""
    seconds: float
    stop_reason: str | None


class Task(NamedTuple):
    """One verdict to be had."""

    judgement_id: str
    subject: Subject
    judge: int
    presentation: str
    """`chosen_first`, `rejected_first` or `single`."""
    place: int | None
    """Where in the conversation the answer stands that is graded alone; null for the whole."""
    reference: tuple[str, ...]


class Grading(NamedTuple):
    """What a caller wants graded of a campaign's dialogues, and by what; in place of all answers by stored references."""

    answers: Mapping[str, Collection[int]]
    """By seed, which answers of its conversation are graded, from 0; a seed that is missing is left out."""
    references: Mapping[str, Reference]
    """Right answers by seed."""
    source: str | None = None
    """What tells these right answers from others; null where the seeds themselves bring them."""


class Plan(NamedTuple):
    """Everything that a judging wants to know."""

    tasks: list[Task]
    subjects: int
    without_reference: int
    seeds: int


def run_judging(
    settings: JudgeSettings,
    database: Path,
    *,
    campaign: str | None = None,
    method: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    relabel: bool = False,
    grading: Grading | None = None,
    sharing: Sequence[str] = (),
    progress: Progress | None = None,
) -> JudgingReport:
    """Judge the selected pairs or conversations, or go on with it.

    Args:
        relabel: write the judges' majority into `pairs.judged_label` when all verdicts are there.
        grading: which single answers are graded, and by what references; only with `per_turn`.
        sharing: campaigns that the budget is for too: what they have paid counts, here and in the report.

    Raises:
        JudgingError, ModelMissingError, PromptError, PreflightError, KeyMissingError, UnknownPriceError, StoreError:
            before anything is written.
        ProviderError, StoreError: what makes every call fail; what was said is kept.
    """
    prompts = Prompts(settings.prompts, variables=JUDGING_VARIABLES)
    models = settings.models.resolved()
    names = names_apart([model.model for model in models])
    selection = {"campaign": campaign, "method": method, "split": split}
    subjects = stored.subjects_to_judge(database, selection, limit, pairs=settings.compares)
    if grading is not None:
        subjects = [subject for subject in subjects if subject.seed_id in grading.answers]
    if not subjects:
        what = "pairs" if settings.compares else "finished conversations"
        raise JudgingError(f"no {what} to judge: `descant status` shows what there is; try another selection")
    seeds = {subject.seed_id for subject in subjects}
    if settings.models.unnamed() and not stored.all_rehearsed(database, sorted(seeds)):
        raise ModelMissingError(
            "no model for a judge: set models.default.model to a LiteLLM model string (rehearsal/default is the built-in "
            "stand-in, which knows nothing of real seeds)"
        )
    references: Mapping[str, Reference] | None = None
    if settings.by_reference:
        references = grading.references if grading else stored.references(database, settings.references)
    plan = _plan(settings, subjects, names, references, grading.answers if grading else None)
    if not plan.tasks:
        raise JudgingError(
            f"none of the {len(subjects)} subjects has a right answer to go by: give a file with --set references=FILE, "
            "or take seeds that bring a `reference`, as MT-Bench's do"
        )
    roles = settings.models.as_roles()
    require_prices(settings.budget, roles, [("judge", index) for index in range(len(models))])
    check(models)
    source: object = None
    if grading is not None:
        source = grading.source
    elif settings.references is not None and references is not None:
        source = sorted(reference.answers for reference in references.values())
    campaign_id = judging_identity(settings, prompts, source)
    with Writer(database, patience_seconds=LOCK_PATIENCE_SECONDS) as writer:
        # It may have taken in what a killed process left.
        so_far = stored.so_far(database, settings.name, campaign_id)
        if so_far.is_anothers:
            raise JudgingError(
                f"the set {settings.name!r} was made with other judges, another rubric or other prompts: "
                "choose another name for this one with --set name=NAME"
            )
        spent, by_role = spent_so_far(database, [campaign_id, *sharing], settings.budget, roles)
        ledger = Ledger(writer.note, settings.budget, spent, by_role, leave=writer.leave)
        if so_far.created_at is not None:
            ledger.remember(stored.unsettled_calls(database, campaign_id, settings.name))
        run = _JudgingRun(
            settings, campaign_id, models, names, prompts, plan, so_far, ledger, writer, progress or Silent()
        )
        return run.to_the_end(relabel=relabel)


def judging_identity(settings: JudgeSettings, prompts: Prompts, source: object) -> str:
    """Of all that shapes the verdicts; selection, endpoints, repairs, concurrency and budget may change in between.

    `source`: what tells right answers that were given from others; null where the seeds bring theirs.
    """
    first, *others = settings.purposes
    return "camp_" + content_hash(
        "judge",
        settings.name,
        first,
        [model.sampling() for model in settings.models.resolved()],
        prompts.hashes[first],
        source,
        *(prompts.hashes[other] for other in others),
    )


def _plan(
    settings: JudgeSettings,
    subjects: Sequence[Subject],
    names: Sequence[str],
    references: Mapping[str, Reference] | None,
    wanted: Mapping[str, Collection[int]] | None,
) -> Plan:
    """What to ask: every judge, every order, every answer. Judges take turns, so that a budget that runs out is shared."""
    tasks: list[Task] = []
    without = 0
    for subject in subjects:
        right: tuple[str, ...] = ()
        if references is not None:
            known = references.get(subject.seed_id)
            right = known.fitting(*subject.sides) if known else ()
            if not any(right):
                if settings.otherwise == "leave_out":
                    without += 1
                    continue
                right = ()
        answers = None if wanted is None else wanted[subject.seed_id]
        for judge, name in enumerate(names):
            tasks += _tasks(settings, subject, judge, name, right, answers)
    return Plan(tasks, len(subjects), without, len({subject.seed_id for subject in subjects}))


def _tasks(
    settings: JudgeSettings,
    subject: Subject,
    judge: int,
    name: str,
    right: tuple[str, ...],
    answers: Collection[int] | None,
) -> Iterator[Task]:
    """One judge's verdicts on a subject, on these of its answers or on all."""

    def task(presentation: str, place: int | None = None, reference: tuple[str, ...] = right) -> Task:
        identity = subject.pair_id or subject.sides[0].dialogue_id
        turn = None if place is None else subject.sides[0].turn_ids[place]
        return Task(
            judgement_id(settings.name, identity, turn, name, presentation),
            subject,
            judge,
            presentation,
            place,
            reference,
        )

    if settings.compares:
        yield from map(task, ORDERS)
    elif not settings.per_turn:
        yield task("single")
    else:
        places = [place for place, m in enumerate(subject.sides[0].messages) if m.role == "assistant"]
        for answer, place in enumerate(places):
            if answers is not None and answer not in answers:
                continue
            if answer < len(right) and right[answer]:
                yield task("single", place, (right[answer],))
            elif not settings.by_reference or settings.otherwise == "score":
                yield task("single", place, ())


class _JudgingRun:
    """One process's work on a set of verdicts."""

    def __init__(
        self,
        settings: JudgeSettings,
        campaign_id: str,
        models: Sequence[ModelSettings],
        names: Sequence[str],
        prompts: Prompts,
        plan: Plan,
        so_far: SoFar,
        ledger: Ledger,
        writer: Writer,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.campaign_id = campaign_id
        self.models = dict(zip(names, (model.model for model in models), strict=True))
        self.plan = plan
        self.ledger = ledger
        self.writer = writer
        self.progress = progress
        redact = Redactor(_keys(models))
        self.judges = [
            Judge(
                LanguageModel(model, ledger, redact),
                prompts,
                index,
                known_as=name,
                label_set=settings.name,
                repairs=settings.repairs,
            )
            for index, (name, model) in enumerate(zip(names, models, strict=True))
        ]
        self.open_tasks = [task for task in plan.tasks if task.judgement_id not in so_far.verdicts]
        self.invalid = list(so_far.verdicts.values()).count("invalid")
        done = len(plan.tasks) - len(self.open_tasks)
        self.counters = Counters(total=len(plan.tasks), done=done, ended_before=done, unit="verdicts")
        self.created_at = so_far.created_at or datetime.now(UTC)

    def to_the_end(self, *, relabel: bool) -> JudgingReport:
        """Ask for what is missing until it is there or the judging stops; then tell."""
        started = time.monotonic()
        self.writer.append(self._campaign("running"))
        status: CampaignStatus = "paused"
        try:
            with self.progress, seldom_collected():
                fatal = asyncio.run(
                    work_off(
                        self.open_tasks,
                        self._judge,
                        workers=min(self.settings.concurrency, len(self.open_tasks)),
                        ledger=self.ledger,
                        counters=self.counters,
                        progress=self.progress,
                        watch=Control(self.writer, self._campaign),
                    )
                )
            status = "paused" if self.ledger.stop_reason else "done"
        finally:
            self.writer.append(self._campaign(status))
        self.writer.flush()
        if fatal is not None:
            raise fatal
        relabelled = self._relabel() if relabel and status == "done" else 0
        return self._report(relabelled, time.monotonic() - started)

    async def _judge(self, task: Task) -> None:
        """One verdict; a call that failed in passing is in the journal, and the same command asks again."""
        try:
            opinion = await self._opinion(task)
        except ProviderError as error:
            if error.fatal:
                raise
            self.counters.failed += 1
            return
        await self.writer.note(self._judgement(task, opinion))
        self.counters.done += 1
        self.invalid += opinion.verdict == "invalid"

    def _opinion(self, task: Task) -> Coroutine[None, None, Opinion]:
        judge, sides = self.judges[task.judge], task.subject.sides
        if task.presentation != "single":
            order: Presentation = "chosen_first" if task.presentation == "chosen_first" else "rejected_first"
            return judge.compare(self._so_far(sides[0]), sides[1].messages, order, reference=task.reference)
        if self.settings.rubric == "realism":
            return judge.realism(self._so_far(sides[0]))
        if task.place is None:
            return judge.score(self._so_far(sides[0]), reference=task.reference)
        before = self._so_far(sides[0], task.place)
        return judge.score_turn(before, sides[0].messages[task.place].content, reference="".join(task.reference))

    def _so_far(self, side: Conversation, place: int | None = None) -> DialogueSoFar:
        return DialogueSoFar(self.campaign_id, side.dialogue_id, side.messages[:place], 0)

    def _judgement(self, task: Task, opinion: Opinion) -> Judgement:
        side = task.subject.sides[0]
        return Judgement(
            judgement_id=task.judgement_id,
            label_set=self.settings.name,
            pair_id=task.subject.pair_id,
            dialogue_id=None if task.subject.pair_id else side.dialogue_id,
            turn_id=None if task.place is None else side.turn_ids[task.place],
            judge_model=self.judges[task.judge].name,
            rubric="score" if self.settings.by_reference and not task.reference else self.settings.rubric,
            presentation=task.presentation,
            verdict=opinion.verdict,
            score=opinion.score,
            rationale=opinion.rationale,
            raw=opinion.raw,
            call_id=opinion.call_id,
            judge=opinion.judge,
            error=opinion.error,
        )

    def _relabel(self) -> int:
        """The majority of the set's judges as `judged_label` of its pairs; how many pairs have one now."""
        votes: dict[str, list[str]] = {}
        for labels in labels_by_judge(self.writer.path, self.settings.name).values():
            for pair, label in labels.items():
                votes.setdefault(pair, []).append(label)
        pairs = stored.pairs_of(self.writer.path, list(votes))
        self.writer.append(*(pair.model_copy(update={"judged_label": majority(votes[pair.pair_id])}) for pair in pairs))
        self.writer.flush()
        return len(pairs)

    def _campaign(self, status: CampaignStatus) -> Campaign:
        config = self.settings.model_dump(mode="json")
        return Campaign(
            campaign_id=self.campaign_id,
            name=self.settings.name,
            recipe="judge",
            config=config,
            config_hash=content_hash(config),
            version=descant_version(),
            n_seeds=self.plan.seeds,
            status=status,
            created_at=self.created_at,
            finished_at=datetime.now(UTC) if status == "done" else None,
            paused_by=self.ledger.paused_by(status),
        )

    def _report(self, relabelled: int, seconds: float) -> JudgingReport:
        spent = self.ledger.spent
        counters = self.counters
        return JudgingReport(
            label_set=self.settings.name,
            campaign_id=self.campaign_id,
            rubric=self.settings.purpose,
            judges=self.models,
            subjects=self.plan.subjects,
            without_reference=self.plan.without_reference,
            verdicts=counters.total,
            invalid=self.invalid,
            failed=counters.failed,
            open=counters.total - counters.done - counters.failed,
            relabelled=relabelled,
            calls_sent=self.ledger.sent,
            calls_reused=self.ledger.reused,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
            cost_usd=None if spent.unpriced_calls else round(spent.cost_usd, 6),
            lost_tokens=spent.lost_tokens,
            lost_usd=None if spent.unpriced_lost else round(spent.lost_usd, 6),
            seconds=round(seconds, 2),
            stop_reason=self.ledger.stop_reason,
        )


def _keys(models: Sequence[ModelSettings]) -> set[str]:
    """Every `env:NAME` that the judges' models name."""
    named = {value for model in models for value in model.headers.values()}
    return named | {model.api_key for model in models if model.api_key}
