"""What MUSIC's lab prints: tables, the paper's claim beside what was found, a plot. Knows no models and no campaigns."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from configs.lab_settings import Arm, WorldName
from lab.comparison import FEWEST, FEWEST_SEEDS, Wins, accuracy, difference
from lab.material import SETS_OF_ARM, SEVERAL, SINGLE, STANDING, at_turn, cells
from lab.music import COST, OURS, LabResult
from lab.tables import COLOURS, WIDTH, findings_table, gain, has, points, share, table

PAPER = (
    "MUSIC (arXiv 2512.24693) claims that contrasts in several turns make a reward model better on multi-turn "
    "conversations and cost nothing on single turns (RewardBench: 86.0 without, 86.6 with; Best-of-N: more wins, the more "
    "candidates). It states no figure by turn."
)
NOTE = (
    "The backend was the rehearsal: a rule-based stand-in for a language model in a small closed world, and the reward "
    "models are of less than a million weights. These figures test the claim there; they say nothing of real models."
)
SHORT = {SINGLE: "single", SEVERAL: "several", STANDING: "standing"}


def page(result: LabResult) -> str:
    """The whole page as plain text, at most 79 wide."""
    settings = result.settings
    parts = [fill(NOTE, WIDTH), fill(PAPER, WIDTH)]
    for world in settings.worlds:
        steps = settings.fit.steps
        parts += [
            f"## World {world}: equal steps ({steps} of {settings.fit.batch_size} pairs)",
            accuracy_table(result.wins(world), settings.arms, settings.turns),
            _arms_explained(settings.arms),
            gain_table(result.wins(world), settings.arms, settings.turns),
            fill(
                f"What became of each claim (accuracy gained, in points). Nothing is decided on fewer than {FEWEST} items or {FEWEST_SEEDS} random seeds; intervals are over items.",
                WIDTH,
            ),
            findings_table(result.findings(world)),
            fill(at_least_as_good(result.wins(world), settings.arms, settings.turns), WIDTH)
            if OURS in settings.arms
            else "",
            f"## World {world}: equal tokens",
            _tokens(result, world),
            accuracy_table(result.wins(world, equal_tokens=True), settings.arms, settings.turns),
            findings_table(result.findings(world, equal_tokens=True)),
        ]
    return "\n\n".join(part for part in parts if part)


def accuracy_table(wins: Wins, arms: Sequence[Arm], turns: int) -> str:
    """Arms down, kinds of items across."""
    header, counts = ["accuracy, %"], ["pairs"]
    columns = [cell for cell in cells(turns) if has(wins, arms[0], cell)]
    for cell in columns:
        header.append(SHORT.get(cell, cell))
        counts.append(str(accuracy(wins, arms[0], cell).n))
    lines = [[arm, *[share(accuracy(wins, arm, cell)) for cell in columns]] for arm in arms]
    return (
        table([header, counts, *lines])
        + "\n"
        + fill(
            "`turn N`: the only error is in answer N. `standing`: it breaks the standing instruction. Half widths of Wilson's "
            "95 % intervals; all random seeds pooled.",
            WIDTH,
        )
    )


def gain_table(wins: Wins, arms: Sequence[Arm], turns: int) -> str:
    """What each arm gains on the base, on the same items; and our arm on each other one."""
    columns = [cell for cell in cells(turns) if has(wins, arms[0], cell)]
    pairs: list[tuple[Arm, Arm]] = [(arm, "base") for arm in arms if arm != "base"]
    pairs += [(OURS, arm) for arm in arms if OURS in arms and arm not in (OURS, "base")]
    header = ["gain, points", *[SHORT.get(cell, cell) for cell in columns]]
    lines = [
        [f"{arm} - {rival}", *[gain(difference(wins, arm, rival, (cell,))) for cell in columns]] for arm, rival in pairs
    ]
    return table([header, *lines]) + "\n" + fill("Paired on the same items, with half widths of 95 % intervals.", WIDTH)


def at_least_as_good(wins: Wins, arms: Sequence[Arm], turns: int) -> str:
    """Whether our arm is within COST of every other arm on every turn and on single turns, and where it is not."""
    worse, unsure = [], []
    for cell in [SINGLE, *(at_turn(turn) for turn in range(1, turns + 1))]:
        for arm in arms:
            if arm == OURS or not has(wins, arm, cell):
                continue
            found = difference(wins, OURS, arm, (cell,))
            if found.high < -COST:
                worse.append(f"{arm} on {cell}")
            elif found.low <= -COST:
                unsure.append(f"{arm} on {cell}")
    margin = f"{100 * COST:.0f} points"
    if worse:
        return f"{OURS} is behind by more than {margin}: {', '.join(worse)}."
    if unsure:
        return (
            f"{OURS} is nowhere shown to be behind another arm, but its interval does not exclude a loss of more than "
            f"{margin} against: {', '.join(unsure)}."
        )
    return f"{OURS} is at least as good as every other arm on every turn and on single turns (within {margin})."


def plot(result: LabResult, *paths: Path) -> None:
    """Accuracy by the turn of the only error for every arm, the other kinds of items beside it; a row a world."""
    import matplotlib
    from matplotlib.figure import Figure

    from train.plot import SETTINGS, save_figure

    settings = result.settings
    beside = [SINGLE, SEVERAL, STANDING]
    for path in paths:
        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(9.0, 3.9 * len(settings.worlds)), layout="constrained")
            rows = figure.subplots(len(settings.worlds), 2, squeeze=False, width_ratios=(3, 2), sharey=True)
            for world, (curves, others) in zip(settings.worlds, rows, strict=True):
                wins = result.wins(world)
                for place, arm in enumerate(settings.arms):
                    shift = 0.05 * (place - (len(settings.arms) - 1) / 2)
                    colour = COLOURS[place % len(COLOURS)]
                    turns = range(1, settings.turns + 1)
                    found = [accuracy(wins, arm, at_turn(turn)) for turn in turns]
                    points(curves, [turn + shift for turn in turns], found, colour, arm, line=True)
                    known = [cell for cell in beside if has(wins, arm, cell)]
                    found = [accuracy(wins, arm, cell) for cell in known]
                    points(others, [beside.index(cell) + 2 * shift for cell in known], found, colour, arm, line=False)
                curves.set_xticks(list(range(1, settings.turns + 1)))
                curves.set_xlabel("turn of the only error")
                curves.set_ylabel(f"pairwise accuracy, world {world}")
                others.set_xticks(range(len(beside)), [SHORT[cell] for cell in beside])
                curves.axhline(0.5, color="#cccccc", linewidth=1, zorder=0)
                others.axhline(0.5, color="#cccccc", linewidth=1, zorder=0)
            rows[0][0].legend(frameon=False, fontsize=8)
            save_figure(figure, path)


def as_json(result: LabResult) -> list[dict[str, Any]]:
    """Every figure of the page, a row each."""
    rows: list[dict[str, Any]] = []
    for world in result.settings.worlds:
        for equal_tokens in (False, True):
            at = {"world": world, "equal": "tokens" if equal_tokens else "steps"}
            wins = result.wins(world, equal_tokens=equal_tokens)
            for arm in result.settings.arms:
                for cell in cells(result.settings.turns):
                    if has(wins, arm, cell):
                        rows.append({**at, "arm": arm, "items": cell, **accuracy(wins, arm, cell)._asdict()})
            for claim, found, verdict in result.findings(world, equal_tokens=equal_tokens):
                rows.append({**at, "claim": claim._asdict(), "difference": found._asdict(), "verdict": verdict})
    return rows


def _tokens(result: LabResult, world: WorldName) -> str:
    rows = [row for row in result.at_equal_tokens if row.world == world]
    shown = {
        arm: f"{arm} {sum(row.steps for row in rows if row.arm == arm) / len(result.settings.random_seeds):.0f}"
        for arm in result.settings.arms
    }
    millions = [row.tokens / 1e6 for row in rows]
    return fill(
        f"The same runs at the checkpoints nearest to the tokens of the arm with the fewest ({min(millions):.2f} to "
        f"{max(millions):.2f} million), before their learning rate has come down. Steps, on average: "
        f"{', '.join(shown.values())}.",
        WIDTH,
    )


def _arms_explained(arms: Sequence[Arm]) -> str:
    return "\n".join(f"{arm}: {' + '.join(SETS_OF_ARM[arm])}" for arm in arms)
