"""A user simulator that learns in rounds: ask, collect, filter, train again; then it meets a prompted one.

Parrot (arXiv 2310.07301) trains its simulator once on real sessions and collects with it. Going round again, with what
was collected and kept beside the real sessions, is ours. Every step finds what it did before: the fits in their
folders, the campaigns and verdicts in the corpus; so the same command goes on where it was stopped.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from agents.ledger import CampaignStopping
from configs.errors import DescantError
from configs.language_settings import AskFitSettings
from configs.loop_settings import KeepSettings, LoopSettings
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, is_over, run_campaign
from graphs.cast import roles_in_use
from graphs.checkpoints import Serving, with_checkpoints, with_judges
from graphs.progress import Progress, Silent
from graphs.seeds import load_seeds
from lab.simulators import Comparison, compare
from store.database import query
from store.queries import messages_of
from store.records import Seed
from store.rouge import self_rouge
from train.data import is_corpus
from train.language import LanguageFitResult, fit_language
from train.progress import StderrProgress as FitProgress
from train.serving import read_checkpoint
from train.sessions import Session, limited_sessions, read_sessions

NOWHERE = "http://127.0.0.1:9/v1"
"""An address that nobody is asked at."""


class LoopError(DescantError):
    """Raised here: nothing to learn from or to collect with."""


Serve = Callable[[CampaignSettings, Sequence[Seed]], AbstractContextManager[CampaignSettings]]
"""From a campaign and its seeds to the campaign with its checkpoints served, for as long as the block runs."""


class Round(NamedTuple):
    """One training and what it collected."""

    number: int
    fit: LanguageFitResult
    sessions: int
    """That it learned from, those of the validation split included."""
    campaign: CampaignReport
    kept: int
    """Conversations for the next round."""
    dropped: dict[str, int]
    """The others, by reason."""


class LoopResult(NamedTuple):
    """The rounds, and the comparison where one was asked for."""

    name: str
    to_collect: int
    """Seeds of the train split, which the rounds collect from."""
    held_out: int
    """The others, of which the comparison takes some."""
    rounds: list[Round]
    comparison: Comparison | None
    seconds: float

    def to_table(self) -> str:
        """For people."""
        parts = [f"seeds      {self.to_collect} to collect from, {self.held_out} held out for the comparison"]
        for one in self.rounds:
            collected = one.campaign.done + one.campaign.failed
            parts += [
                f"round {one.number}",
                f"  fit        {one.fit.model_dir}: {one.sessions} sessions, {one.fit.steps} steps",
                f"  collected  {collected} conversations, {one.campaign.failed} failed; kept {one.kept}",
            ]
            parts += [f"  dropped    {count} {reason}" for reason, count in sorted(one.dropped.items())]
        if self.comparison is not None:
            parts += ["", self.comparison.to_table()]
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.name,
            "to_collect": self.to_collect,
            "held_out": self.held_out,
            "rounds": [
                {
                    "number": one.number,
                    "fit_id": one.fit.fit_id,
                    "model": str(one.fit.model_dir),
                    "sessions": one.sessions,
                    "steps": one.fit.steps,
                    "campaign_id": one.campaign.campaign_id,
                    "done": one.campaign.done,
                    "failed": one.campaign.failed,
                    "kept": one.kept,
                    "dropped": one.dropped,
                }
                for one in self.rounds
            ],
            "comparison": self.comparison.to_json() if self.comparison else None,
            "seconds": round(self.seconds, 1),
        }


def run_loop(
    settings: LoopSettings,
    corpus: Path,
    out: Path,
    *,
    serving: Callable[[], Serving],
    progress: Callable[[str], Progress] = lambda _: Silent(),
    fit_progress: Callable[[str], FitProgress] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> LoopResult:
    """Go through the rounds and the comparison, or on with them.

    Args:
        corpus: where campaigns, fits and verdicts are kept; the sessions are read from it too where `fit.data` names nothing.
        out: the folder of the fits.
        serving: gives what serves checkpoints.
        progress: from a part's name to what shows it.
        fit_progress: the same for a training; null shows none.
        say: takes a line for people.

    Raises:
        LoopError: no seeds to collect from or to compare on.
        CampaignStopping: a campaign or a judging stopped; the same command goes on.
        TrainError, ServerDiedError, and what a campaign raises.
    """
    started = time.monotonic()
    seeds = load_seeds(settings.collect).seeds
    to_collect = [seed for seed in seeds if seed.split == "train"]
    held_out = [seed for seed in seeds if seed.split != "train"]
    if not to_collect:
        raise LoopError(f"none of the {len(seeds)} seeds is in the train split: take more seeds to collect from")
    if settings.compare is not None and not held_out:
        raise LoopError(f"all {len(seeds)} seeds are in the train split: take more, or set compare to null")
    data = settings.fit.data
    data = data.model_copy(update={"path": data.path or str(corpus)})
    if data.campaign is None and is_corpus(Path(str(data.path))):
        raise LoopError(
            "fit.data names no campaign, and the loop's own dialogues stand in the corpus too: set fit.data.campaign to the "
            "one of real sessions, or fit.data.path to a file of them"
        )
    real = limited_sessions(read_sessions(data).sessions, data.limit, random_seed=settings.fit.random_seed)
    sessions = real
    serve = partial(_served, corpus=corpus, serving=serving, say=say)
    rounds: list[Round] = []
    for number in range(1, settings.rounds + 1):
        name = f"{settings.name}-round-{number}"
        own = data.model_copy(update={"limit": None})  # the real ones are limited already
        chosen = settings.fit.model_copy(update={"name": name, "out": str(out / f"round-{number}"), "data": own})
        fitted = _fit(chosen, sessions, corpus, fit_progress)
        campaign = settings.collect.model_copy(
            update={"name": name, "random_seed": settings.collect.random_seed + number}
        )
        with serve(played_by(campaign, fitted.model_dir), to_collect) as ready:
            report = play(ready, to_collect, corpus, progress(name))
        kept, dropped = kept_sessions(corpus, report.campaign_id, settings.keep)
        rounds.append(Round(number, fitted, len(sessions), report, len(kept), dropped))
        known = {session.messages for session in sessions}
        sessions = [*sessions, *(session for session in kept if session.messages not in known)]
    comparison = None
    if settings.compare is not None:
        trained = played_by(settings.collect, rounds[-1].fit.model_dir)
        comparison = compare(
            settings,
            trained,
            rounds[-1].fit,
            held_out[: settings.compare.seeds],
            corpus,
            play=play,
            serve=serve,
            judged_by=partial(with_judges, serving=serving, say=say),
            progress=progress,
            real=real,
        )
    return LoopResult(settings.name, len(to_collect), len(held_out), rounds, comparison, time.monotonic() - started)


def _fit(
    settings: AskFitSettings,
    sessions: Sequence[Session],
    corpus: Path,
    progress: Callable[[str], FitProgress] | None,
) -> LanguageFitResult:
    if progress is None:
        return fit_language(settings, sessions=sessions, corpus=corpus)
    with progress(settings.name) as shown:
        return fit_language(settings, sessions=sessions, corpus=corpus, progress=shown)


def played_by(campaign: CampaignSettings, folder: Path) -> CampaignSettings:
    """The campaign with the checkpoint as its user; how it samples stays as the campaign says."""
    user = campaign.models.user.model_copy(update={"checkpoint": str(folder)})
    return campaign.model_copy(update={"models": campaign.models.model_copy(update={"user": user})})


@contextmanager
def _served(
    campaign: CampaignSettings,
    seeds: Sequence[Seed],
    *,
    corpus: Path,
    serving: Callable[[], Serving],
    say: Callable[[str], None],
) -> Iterator[CampaignSettings]:
    """The campaign with its checkpoints served; one that is over starts no server."""
    folders = {campaign.models.checkpoint_of(role, index) for role, index in roles_in_use(campaign)} - {None}
    named = {str(folder): Endpoint(NOWHERE, read_checkpoint(str(folder)).served_name) for folder in folders}
    unserved = campaign.model_copy(update={"models": campaign.models.served(named)})
    if is_over(unserved, seeds, corpus):  # its identity needs the served names alone, and nobody will be asked
        yield unserved
        return
    with with_checkpoints(campaign, serving, say=say) as ready:
        yield ready


def play(campaign: CampaignSettings, seeds: Sequence[Seed], corpus: Path, progress: Progress) -> CampaignReport:
    report = run_campaign(campaign, seeds, corpus, progress=progress)
    if report.stop_reason is not None:
        raise CampaignStopping(report.stop_reason)
    return report


def kept_sessions(corpus: Path, campaign_id: str, keep: KeepSettings) -> tuple[list[Session], dict[str, int]]:
    """The campaign's conversations that are good enough to learn from, and the others counted by the first reason found."""
    rows = query(
        corpus,
        """
        SELECT dialogue_id, status, termination_reason, n_turns, split, messages FROM transcripts
        WHERE campaign_id = ? ORDER BY dialogue_id
        """,
        [campaign_id],
    )
    kept: list[Session] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        messages = messages_of(row["messages"])
        queries = tuple(message.content for message in messages if message.role == "user")
        alike = self_rouge(queries)
        if row["status"] != "done":
            dropped[f"failed: {row['termination_reason']}"] += 1
        elif row["termination_reason"] not in ("max_turns", "user_ended") and not keep.cut_short:
            dropped[f"cut_short: {row['termination_reason']}"] += 1
        elif row["n_turns"] < keep.fewest_turns:
            dropped["too_few_turns"] += 1
        elif alike is not None and alike > keep.most_self_rouge:
            dropped["too_alike"] += 1
        elif queries in seen:
            dropped["said_before"] += 1
        else:
            seen.add(queries)
            kept.append(Session(row["dialogue_id"], messages, row["split"]))
    return kept, dict(dropped)
