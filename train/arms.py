"""Trainings that are compared: each arm learns from its sets of pairs together, all at equal steps.

The paper's comparison (MUSIC, arXiv 2512.24693) is a plain union of the base pairs and its own: so it is here, unless a
mixture is asked for. The control arms (as many more single-turn pairs, a contrast in the last turn only) are ours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from configs.fit_settings import PairSettings, RewardFitSettings
from train.data import is_corpus
from train.errors import TrainError
from train.mixture import Sets
from train.progress import StderrProgress
from train.reward import FitResult, fit_reward
from train.sources import Undecided, read_sets


def fit_arms(
    settings: RewardFitSettings,
    *,
    arms: Sequence[str] = (),
    sets: Sets | None = None,
    corpus: Path | None = None,
    progress: Callable[[str], StderrProgress] | None = None,
) -> dict[str, FitResult]:
    """Train each arm (or go on with it) in a folder of its own under `settings.out`; the results by arm.

    Args:
        arms: only these; empty means all.
        sets: pairs by name, instead of reading `settings.sets`.
        corpus: where the fits are kept too.
        progress: gives what an arm's progress is shown with, by the fit's name.

    Raises:
        TrainError: an arm that the settings do not name, and what `fit_reward` raises.
    """
    for arm in arms:
        if arm not in settings.arms:
            raise TrainError(f"no arm is called {arm!r}: {settings.name} has {', '.join(settings.arms) or 'none'}")
    wanted = list(arms or settings.arms)
    undecided: Undecided | None = None
    if sets is None:
        sets, undecided = read_sets(settings, [name for arm in wanted for name in settings.arms[arm]])
    root = Path(settings.out or f"fits/{settings.name}")
    results: dict[str, FitResult] = {}
    for arm in wanted:
        names = settings.arms[arm]
        own = settings.model_copy(
            update={
                "name": f"{settings.name}-{arm}",
                "out": str(root / arm),
                "sets": {name: settings.sets[name] for name in names},
                "arms": {},
                "mixture": settings.mixture and settings.mixture.of_sets(names),
            }
        )
        of_arm = {name: sets[name] for name in names}
        if progress is None:
            results[arm] = fit_reward(own, sets=of_arm, undecided=undecided, corpus=corpus, arm=arm)
            continue
        with progress(own.name) as shown:
            results[arm] = fit_reward(own, sets=of_arm, undecided=undecided, corpus=corpus, arm=arm, progress=shown)
    return results


def in_corpus(settings: RewardFitSettings, database: str) -> RewardFitSettings:
    """The settings with `database` wherever a set, or the data where there are no sets, names no source."""

    def placed(data: PairSettings) -> PairSettings:
        return data.model_copy(update={"path": database}) if data.path is None else data

    if settings.sets:
        return settings.model_copy(update={"sets": {name: placed(data) for name, data in settings.sets.items()}})
    return settings.model_copy(update={"data": placed(settings.data)})


def corpus_of(settings: RewardFitSettings, database: str | None) -> Path | None:
    """Where fits are kept beside their folders: the corpus that the command names, or the first that they read."""
    if database:
        return Path(database)
    sources = [data.path for data in settings.sets.values()] or [settings.data.path]
    return next((Path(source) for source in sources if source and is_corpus(Path(source))), None)
