"""What Parrot's lab prints: tables beside the paper's figures, what became of each claim, a plot. Knows no models and no campaigns."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from lab.comparison import FEWEST, FEWEST_SEEDS, Wins, accuracy, difference
from lab.material import at_turn
from lab.parrot import NO_CAPO, SPREAD, STAGE, ParrotLabResult, sft_arms
from lab.parrot_material import ALL, ALONE, DEPENDENT, EARLY, ERRORS, LATER, OWN, own_turn
from lab.tables import COLOURS, WIDTH, findings_table, gain, has, points, share, table

NOTE = (
    "The backend was the rehearsal: a rule-based stand-in for a language model in a small closed world, and the models "
    "trained are of less than a million weights. These figures test the claims there; they say nothing of real models."
)
LEARNED, SEEN = 0.9, 0.01
"""Accuracy from which something counts as learned, and share of the answers from which an error counts as made (ours)."""
SHORT = {
    EARLY: "1-2",
    LATER: "later",
    ALL: "all",
    DEPENDENT: "depends",
    ALONE: "alone",
    OWN: "own",
    "unreadable": "other",
}
ERROR_OF_ARM = {"neglect": "neglected", "hallucination": "invented", "misunderstanding": "misread"}


class Scores(NamedTuple):
    """The paper's figures, judged 1 to 10; null where it states none."""

    mt_bench: float | None
    mt_bench_plus: float


PAPER: dict[str, Scores] = {
    "sft_1": Scores(None, 5.90),
    "sft_3": Scores(None, 6.14),
    "sft_5": Scores(None, 6.32),
    NO_CAPO: Scores(6.81, 6.56),
    "neglect": Scores(6.84, 6.72),
    "hallucination": Scores(7.06, 6.73),
    "misunderstanding": Scores(6.71, 6.69),
    "all_three": Scores(7.04, 6.85),
}
EXPLAINED = {
    STAGE: "what all arms start from, SFT on all turns that was broken off early",
    NO_CAPO: "SFT on all answers; Parrot's model without CaPO, and where DPO starts",
    SPREAD: "SFT on all turns, with as many answers a step as sft_1 (ours)",
    "neglect": "DPO against answers without the history",
    "hallucination": "DPO against answers to a guess at the missing context",
    "misunderstanding": "DPO against answers that misread the history",
    "all_three": "DPO against the three in turn, as many pairs",
    "more_sft": "as many more steps of SFT on the same chosen answers (ours)",
    "own_neglect": "DPO against the SFT model's own answers without the history (ours)",
    "arbitrary": "DPO against right answers to other queries (ours)",
}


def page(result: ParrotLabResult) -> str:
    """The whole page as plain text, at most WIDTH wide."""
    settings, wins = result.settings, result.wins
    arms = [*sft_arms(settings), *settings.arms]
    parts = [
        fill(NOTE, WIDTH),
        f"## Beside the paper (world {settings.world})",
        paper_table(wins, arms),
        fill(
            "Ours: right answers to held-out conversations with their right history, in %, by the oracle. Parrot's: a judge's "
            "1 to 10 (arXiv 2310.07301); MT-Bench has the first two turns, MT-Bench++ all 8. Scales differ: compare "
            "the order of rows, not figures.",
            WIDTH,
        ),
        "\n".join(explained(settings.arms, sft_arms(settings))),
        fill(taken(result), WIDTH),
        "## By turn",
        turn_table(wins, [STAGE, *arms], settings.turns),
        "## By kind of query, and by kind of error",
        kind_table(wins, [STAGE, *arms]),
        "## Gained by DPO on the SFT that it starts from",
        gain_table(wins, settings.arms),
        "## What became of each claim",
        fill(
            f"Accuracy gained, in points. Nothing is decided on fewer than {FEWEST} items or {FEWEST_SEEDS} random seeds; intervals "
            "are over items.",
            WIDTH,
        ),
        findings_table(result.findings(), "items"),
        "## What a tiny model did not learn",
        "\n".join(fill(line, WIDTH) for line in limits(result)),
    ]
    return "\n\n".join(part for part in parts if part)


def paper_table(wins: Wins, arms: Sequence[str]) -> str:
    """Arms down; ours on the turns of MT-Bench and of MT-Bench++, and Parrot's figures."""
    lines = [["", "turns 1-2", "all turns", "MT-Bench", "MT-Bench++"]]
    for arm in arms:
        scores = PAPER.get(arm)
        theirs = ["", ""] if scores is None else [_score(scores.mt_bench), _score(scores.mt_bench_plus)]
        lines.append([arm, *[share(accuracy(wins, arm, cell)) for cell in (EARLY, ALL)], *theirs])
    return table(lines)


def turn_table(wins: Wins, arms: Sequence[str], turns: int) -> str:
    """Accuracy by turn, and of all turns after the model's own answers."""
    lines = [["accuracy, %", *[str(turn) for turn in range(1, turns + 1)], OWN]]
    lines += [
        [arm, *[_percent(wins, arm, at_turn(turn)) for turn in range(1, turns + 1)], _percent(wins, arm, OWN)]
        for arm in arms
    ]
    one = accuracy(wins, arms[0], at_turn(1))
    note = (
        f"{one.n} items a turn: give or take up to {max(50 * (a.high - a.low) for a in _each(wins, arms, turns)):.0f} points (Wilson, "
        f"95 %). `{OWN}`: all turns again, after the model's own earlier answers."
    )
    return table(lines) + "\n" + fill(note, WIDTH)


def kind_table(wins: Wins, arms: Sequence[str]) -> str:
    """Accuracy by kind of query, and the share of answers with each error."""
    lines = [["%", *(SHORT.get(cell, cell) for cell in (DEPENDENT, ALONE, *ERRORS))]]
    lines += [[arm, *[_percent(wins, arm, cell) for cell in (DEPENDENT, ALONE, *ERRORS)]] for arm in arms]
    note = (
        "Right answers to queries that depend on their context by rules, and to those that stand alone; then the share of all answers that "
        "say they do not know (neglected), tell what nobody said (invented), take another part of the conversation (misread), "
        "break the standing instruction, or are none of this world (other)."
    )
    return table(lines) + "\n" + fill(note, WIDTH)


def gain_table(wins: Wins, arms: Sequence[str]) -> str:
    columns = [cell for cell in (EARLY, LATER, ALL, DEPENDENT, ALONE, OWN) if has(wins, NO_CAPO, cell)]
    lines = [["gain, points", *(SHORT.get(cell, cell) for cell in columns)]]
    lines += [[arm, *[gain(difference(wins, arm, NO_CAPO, (cell,))) for cell in columns]] for arm in arms]
    return (
        table(lines)
        + "\n"
        + fill(
            "Turns 1-2, the later ones, all; queries that depend on their context or stand alone; all turns after the model's own "
            "answers. Paired on the same items, with half widths of 95 % intervals.",
            WIDTH,
        )
    )


def explained(arms: Sequence[str], sft: Sequence[str]) -> list[str]:
    """A line for each arm."""
    lines = []
    for arm in (STAGE, *sft, *arms):
        first = arm.removeprefix("sft_")
        text = EXPLAINED.get(arm) or f"SFT on the first {'answer' if first == '1' else f'{first} answers'}"
        lines.append(f"{arm}: {text}")
    return lines


def taken(result: ParrotLabResult) -> str:
    """How much each arm learned from."""
    settings = result.settings
    examples = {row.arm: row.examples for row in result.arms if row.random_seed == settings.random_seeds[0]}
    pairs = ", ".join(f"{arm} {examples[arm]}" for arm in settings.arms)
    return (
        f"Random seeds {', '.join(map(str, settings.random_seeds))}. The stage took {settings.stage.steps} steps of {settings.stage.batch_size} "
        f"conversations, each SFT {settings.sft.steps} of {settings.sft.batch_size}, DPO {settings.dpo.steps} of {settings.dpo.batch_size} pairs "
        f"(beta {settings.dpo.beta:g}, learning rate {settings.dpo.learning_rate:g}). Learned from in random seed {settings.random_seeds[0]}: "
        f"{settings.dialogues} conversations; pairs (or conversations): {pairs}. The paper's arms have as many queries, "
        "so its three errors together have three times the pairs of one."
    )


def limits(result: ParrotLabResult) -> list[str]:
    """What the figures say of the models' reach, whichever way they go: what is not learned, and what leaves nothing to mend."""
    wins, arms = result.wins, result.settings.arms
    lines = []
    base = accuracy(wins, NO_CAPO, ALL).value
    if base < LEARNED:
        lines.append(
            f"SFT on all turns ({NO_CAPO}) answers {100 * base:.0f} % right: this world's conversations are not learned whole in so many steps, "
            "and there is room for CaPO."
        )
    else:
        lines.append(
            f"SFT on all turns ({NO_CAPO}) answers {100 * base:.0f} % right: there is little room left for CaPO to show."
        )
    for arm, error in ERROR_OF_ARM.items():
        made = accuracy(wins, NO_CAPO, error).value
        if arm in arms and made < SEEN:
            lines.append(
                f"It makes errors of the kind that {arm} stands for ({error}) in {100 * made:.1f} % of its answers: DPO against "
                f"{arm} cannot mend what is not broken, and its effect here, if any, is another."
            )
    best = max([NO_CAPO, *arms], key=lambda arm: accuracy(wins, arm, ALL).value)
    most = max(ERRORS, key=lambda error: accuracy(wins, best, error).value)
    lines.append(
        f"The best model here ({best}) still gets {100 * (1 - accuracy(wins, best, ALL).value):.0f} % wrong, most often by error "
        f"{most} ({100 * accuracy(wins, best, most).value:.0f} % of its answers)."
    )
    worse = [arm for arm in arms if difference(wins, arm, NO_CAPO, (ALL,)).high < 0]
    if worse:
        lines.append(f"Further training cost accuracy on all turns in: {', '.join(worse)}.")
    return lines


def plot(result: ParrotLabResult, *paths: Path) -> None:
    """Accuracy by turn: the SFT arms on the left, CaPO's on the right."""
    import matplotlib
    from matplotlib.figure import Figure

    from train.plot import SETTINGS, save_figure

    settings, wins = result.settings, result.wins
    turns = range(1, settings.turns + 1)
    for path in paths:
        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(10.0, 4.4), layout="constrained")
            left, right = figure.subplots(1, 2, sharey=True)
            for axes, arms, title in (
                (left, [STAGE, *sft_arms(settings)], "SFT on the first turns, and on all"),
                (right, [NO_CAPO, *settings.arms], "from SFT on all turns: CaPO and controls"),
            ):
                for place, arm in enumerate(arms):
                    shift = 0.06 * (place - (len(arms) - 1) / 2)
                    found = [accuracy(wins, arm, at_turn(turn)) for turn in turns]
                    points(axes, [turn + shift for turn in turns], found, COLOURS[place % len(COLOURS)], arm, line=True)
                axes.set_title(title, fontsize=10)
                axes.set_xticks(list(turns))
                axes.set_xlabel("turn")
                axes.legend(frameon=False, fontsize=8, ncols=2)
            left.set_ylabel("right answers, right history")
            left.set_ylim(0, 1.02)
            save_figure(figure, path)


def as_json(result: ParrotLabResult) -> list[dict[str, Any]]:
    """Every figure of the page, a row each."""
    wins, settings = result.wins, result.settings
    cells = [EARLY, LATER, ALL, DEPENDENT, ALONE, OWN, *ERRORS]
    cells += [name(turn) for name in (at_turn, own_turn) for turn in range(1, settings.turns + 1)]
    rows: list[dict[str, Any]] = []
    for arm in [STAGE, *sft_arms(settings), *settings.arms]:
        paper = PAPER.get(arm)
        for cell in cells:
            if has(wins, arm, cell):
                row = {"arm": arm, "items": cell, **accuracy(wins, arm, cell)._asdict()}
                rows.append(row | ({"paper": paper._asdict()} if paper and cell == ALL else {}))
    for claim, found, verdict in result.findings():
        rows.append({"claim": claim._asdict(), "difference": found._asdict(), "verdict": verdict})
    return rows


def _each(wins: Wins, arms: Sequence[str], turns: int) -> list[Any]:
    return [accuracy(wins, arm, at_turn(turn)) for arm in arms for turn in range(1, turns + 1)]


def _percent(wins: Wins, arm: str, cell: str) -> str:
    return f"{100 * accuracy(wins, arm, cell).value:.0f}" if has(wins, arm, cell) else ""


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
