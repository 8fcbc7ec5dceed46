"""How well context-dependent turns are found: by rules alone, and by rules and a model, against labels made by hand.

Reads a file of conversations and keeps nothing: calls of this measurement are not journaled.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.judge import Judge
from agents.ledger import Ledger, forget
from agents.llm import LanguageModel
from agents.preflight import check
from agents.prices import require_prices
from agents.prompts import CONTEXT_VARIABLES, Prompts
from agents.protocol import DialogueSoFar
from agents.secrets import Redactor
from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from graphs.crew import work_off
from graphs.progress import Counters, Silent
from store.context import SIGNS, signs_of
from store.importing import whole_conversations
from store.records import Message
from store.rows import lines_of, row_of

NOT_KEYS = ("turn", "depends", "unsure")
"""Fields of a label that do not name its conversation."""


class LabelsError(DescantError):
    """Raised here: labels that cannot be read, or that name turns which the file lacks."""


class Label(NamedTuple):
    """What a person said of one user turn."""

    depends: bool
    unsure: bool


class Labelled(NamedTuple):
    """A labelled turn with what was found of it."""

    before: tuple[Message, ...]
    query: str
    label: Label
    signs: list[str]


class Found(NamedTuple):
    """Precision and recall of one way to find dependent turns."""

    way: str
    found: int
    """Turns that it calls dependent."""
    right: int
    """Of them, those that are labelled so."""
    dependent: int
    """Turns that are labelled so."""
    precision: tuple[float, float, float] | None
    """With its 95 % Wilson interval; null where nothing was found."""
    recall: tuple[float, float, float] | None


class ContextReport(NamedTuple):
    """What the rules find in a file, and how far labels agree."""

    dialogues: int
    user_turns: int
    later_turns: int
    """User turns with an answer before them, which alone can depend on their context."""
    found: int
    by_sign: dict[str, int]
    """A turn counts for each of its signs."""
    labels: int = 0
    unsure: int = 0
    ways: tuple[Found, ...] = ()
    ways_sure: tuple[Found, ...] = ()
    """The same without the turns whose reader was unsure."""
    model: str | None = None
    invalid: int = 0
    """Opinions of the model that could not be read; they count as `stands alone`."""


def check_context(source: str, labels: str | None, settings: JudgeSettings | None) -> ContextReport:
    """Count what the rules find, and score them where there are labels.

    Args:
        labels: JSON lines with `turn` (from 1), `depends`, perhaps `unsure`, and the ids of the conversation as the file has them.
        settings: whose first judge is asked about the labelled turns; null asks nobody.

    Raises:
        LabelsError, StoreError, PreflightError, ProviderError.
    """
    wanted = _read_labels(labels) if labels else {}
    keys = next(iter(wanted))[0] if wanted else ()
    missing = dict(wanted)
    by_sign: Counter[str] = Counter()
    dialogues = user_turns = later = found = 0
    labelled: list[Labelled] = []
    for _, row, _, messages in whole_conversations(source):
        dialogues += 1
        identity = _identity(row, [name for name, _ in keys])
        turn = 0
        for place, message in enumerate(messages):
            if message.role != "user":
                continue
            turn += 1
            before = messages[:place]
            signs = signs_of(before, message.content)
            user_turns += 1
            later += any(other.role == "assistant" for other in before)
            found += bool(signs)
            by_sign.update(signs)
            label = missing.pop((identity, turn), None)
            if label is not None:
                labelled.append(Labelled(before, message.content, label, signs))
    if missing:
        (lost, turn), *_ = missing
        raise LabelsError(
            f"{source!r} lacks turn {turn} of {dict(lost)}, which {labels!r} labels: is it the labelled file?"
        )
    counts = ContextReport(dialogues, user_turns, later, found, {name: by_sign[name] for name in SIGNS})
    if not labelled:
        return counts
    ways: dict[str, list[bool]] = {"rules": [bool(item.signs) for item in labelled]}
    model, invalid = None, 0
    if settings is not None:
        verdicts = asyncio.run(_ask(labelled, settings))
        model = settings.models.resolved()[0].model
        invalid = verdicts.count("invalid")
        said = [verdict == "depends" for verdict in verdicts]
        ways["model"] = said
        ways["rules and model"] = [rule and word for rule, word in zip(ways["rules"], said, strict=True)]
    truth = [item.label.depends for item in labelled]
    sure = [not item.label.unsure for item in labelled]
    return counts._replace(
        labels=len(labelled),
        unsure=sure.count(False),
        ways=tuple(_scored(way, said, truth) for way, said in ways.items()),
        ways_sure=tuple(_scored(way, _only(said, sure), _only(truth, sure)) for way, said in ways.items()),
        model=model,
        invalid=invalid,
    )


async def _ask(labelled: Sequence[Labelled], settings: JudgeSettings) -> list[str]:
    """The first judge's verdict on each turn, in order."""
    chosen = settings.models.resolved()[0]
    require_prices(settings.budget, settings.models.as_roles(), [("judge", 0)])
    check([chosen])
    ledger = Ledger(forget, settings.budget)
    redact = Redactor({*chosen.headers.values(), *([chosen.api_key] if chosen.api_key else [])})
    judge = Judge(
        LanguageModel(chosen, ledger, redact),
        Prompts(settings.prompts, variables=CONTEXT_VARIABLES),
        repairs=settings.repairs,
    )
    verdicts = [""] * len(labelled)

    async def work(place: int) -> None:
        item = labelled[place]
        dialogue = DialogueSoFar("context check", f"labelled turn {place}", item.before, 0)
        verdicts[place] = (await judge.depends(dialogue, item.query)).verdict

    error = await work_off(
        range(len(labelled)),
        work,
        workers=settings.concurrency,
        ledger=ledger,
        counters=Counters(len(labelled), unit="turns"),
        progress=Silent(),
    )
    if error is not None:
        raise error
    if ledger.stop_reason is not None:
        raise CheckStoppedError(f"stopped before all labelled turns were asked about: {ledger.stop_reason}")
    return verdicts


class CheckStoppedError(DescantError):
    """Raised here: a budget or Ctrl-C ended the asking."""

    exit_code = 1


def _only(values: Sequence[bool], kept: Sequence[bool]) -> list[bool]:
    return [value for value, is_kept in zip(values, kept, strict=True) if is_kept]


def _scored(way: str, said: Sequence[bool], truth: Sequence[bool]) -> Found:
    right = sum(word and fact for word, fact in zip(said, truth, strict=True))
    found, dependent = sum(said), sum(truth)
    return Found(way, found, right, dependent, _share(right, found), _share(right, dependent))


def _share(wins: int, n: int) -> tuple[float, float, float] | None:
    from scipy.stats import binomtest

    if n == 0:
        return None
    interval = binomtest(wins, n).proportion_ci(confidence_level=0.95, method="wilson")
    return wins / n, float(interval.low), float(interval.high)


Identity = tuple[tuple[str, Any], ...]


def _identity(row: Mapping[str, Any], names: Sequence[str]) -> Identity:
    return tuple((name, row.get(name)) for name in names)


def _read_labels(path: str) -> dict[tuple[Identity, int], Label]:
    labels: dict[tuple[Identity, int], Label] = {}
    names: list[str] | None = None
    for number, line in lines_of(Path(path), "labels"):
        try:
            row = row_of(line)
        except ValueError as error:
            raise LabelsError(f"{path}:{number}: {error}: mend the line") from None
        turn, depends, unsure = row.get("turn"), row.get("depends"), row.get("unsure", False)
        if type(turn) is not int or type(depends) is not bool or type(unsure) is not bool:
            raise LabelsError(f'{path}:{number}: "turn" must be a whole number, "depends" (and "unsure") true or false')
        here = sorted(row.keys() - set(NOT_KEYS))
        names = here if names is None else names
        if here != names or not names:
            raise LabelsError(f"{path}:{number}: every label names its conversation by the same ids, as the first does")
        labels[_identity(row, names), turn] = Label(depends, unsure)
    if not labels:
        raise LabelsError(f"{path!r} holds no labels: it is empty")
    return labels


def context_lines(report: ContextReport) -> list[str]:
    """For people, in 80 columns."""
    lines = [
        f"dialogues   {report.dialogues}, {report.user_turns} user turns, {report.later_turns} of them after an answer",
        f"found       {report.found} context-dependent turns by rules, {report.found / max(1, report.dialogues):.2f} a dialogue",
        "",
        *(f"  {name:<14}{count:>6}" for name, count in sorted(report.by_sign.items(), key=lambda item: -item[1])),
    ]
    if report.labels:
        lines += [
            "",
            f"labels      {report.labels} turns, {report.ways[0].dependent} of them dependent, {report.unsure} unsure",
        ]
        if report.model:
            lines.append(f"model       {report.model}, {report.invalid} answers could not be read")
        head = f"{'':<18}{'found':>6}{'right':>7}   {'precision':<19}{'recall':<19}"
        lines += ["", head.rstrip(), *map(_way_line, report.ways)]
        if report.unsure:
            lines += [f"without the {report.unsure} unsure", *map(_way_line, report.ways_sure)]
        lines.append("In brackets 95 % Wilson intervals.")
    return lines


def _way_line(found: Found) -> str:
    return f"  {found.way:<16}{found.found:>6}{found.right:>7}   {_range(found.precision):<19}{_range(found.recall):<19}".rstrip()


def _range(figure: tuple[float, float, float] | None) -> str:
    return "-" if figure is None else "{:.2f} [{:.2f}, {:.2f}]".format(*figure)
