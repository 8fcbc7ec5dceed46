"""The loop that all trainings share: from an objective's batches to a folder with the trained model.

An objective says what a step's loss is (`Task`); this file owns everything else: the run's folder, checkpoints and
resuming, the learning rate, curves, validation, the rows in the corpus, and what is said when a fit stops. A run is a
function of its settings and its data. Killed at any step and started again, it continues from its newest checkpoint and
ends, on a CPU, with the weights of a run that was never killed, bit for bit. Knows neither losses nor data.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from configs.fit_settings import FitSettings
from store.records import Fit, Metric, Record
from train.checkpoint import (
    checkpoint_step,
    newest_checkpoint,
    open_run,
    read_metrics,
    restore,
    save_checkpoint,
    trim_metrics,
    write_json,
)
from train.errors import InterruptedFitError, StoppedError
from train.model import computing, device_of, fitting_threads

BETAS = (0.9, 0.999)
CURVE_EVERY = 10  # steps that one point of a curve in the corpus is the mean of
CURVES = ("loss", "accuracy", "margin", "gradient_norm")

# Shapes: F figures.


class Progress(NamedTuple):
    """What a fit says after each step."""

    step: int
    steps: int
    loss: float
    accuracy: float | None
    """Share of the step's comparisons that chosen won; null where nothing is compared."""
    items_per_second: float
    """Pairs or conversations."""
    tokens_per_second: float
    """Real tokens, padding not counted."""


Show = Callable[[Progress], None]


class Task(NamedTuple):
    """What the loop needs to know of an objective that is ready to train."""

    model: Any
    """In training mode and where it computes; its checkpoints are those of `save_pretrained`."""
    tokenizer: Any
    optimizer: torch.optim.Optimizer
    plan: Sequence[Sequence[int]]
    """The items of each step."""
    figures: tuple[str, ...]
    """Names of what `slices` gives, `loss` the first."""
    slices: Callable[[Sequence[int]], Iterator[tuple[Tensor, Tensor]]]
    """The batch's losses slice by slice, each to be differentiated, with figures_F; both add up to the batch's."""
    tokens: Callable[[Sequence[int]], int]
    size: Callable[[Sequence[int]], int]
    """Pairs or conversations in a batch."""
    names: Callable[[Sequence[int]], list[str]]
    """What a batch's items are called, where something is wrong with them."""
    validate: Callable[[], dict[str, float]]
    """Figures on held-out data, empty without any; the model is left in training mode."""
    export: Callable[[Path, dict[str, Any]], None]
    """Writes the finished model into a folder, with the card that is given."""
    card: dict[str, Any]
    """What was learned from."""
    rise: int
    """Steps over which the learning rate rises."""


class Finished(NamedTuple):
    """What a run's `result.json` says."""

    found: dict[str, Any]
    already_done: bool


def matrices_decay(model: Any, settings: FitSettings) -> torch.optim.Optimizer:
    """AdamW on all weights that are trained, with weight decay on matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=BETAS,
        fused=True,
    )


def rising_and_falling(step: int, steps: int, *, rise: int, schedule: Literal["cosine", "linear", "constant"]) -> float:
    """The share of the peak learning rate at step `step`, from 1: a linear rise over the first `rise` steps, then `schedule`.

    A function of the step, so a resume needs no scheduler state.
    """
    if step <= rise:
        return step / rise
    done = (step - rise - 1) / max(1, steps - rise)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def run_fit(
    settings: FitSettings,
    *,
    fit_id: str,
    objective: str,
    prepare: Callable[[Path, torch.device, Path | None], Task],
    summary: Callable[[Mapping[str, float]], dict[str, Any]] = lambda validation: {},  # noqa: ARG005
    corpus: Path | None = None,
    arm: str | None = None,
    progress: Show | None = None,
) -> Finished:
    """Train, or go on with a run; a finished one is left as it is.

    Args:
        prepare: reads data and model, given the run's folder, the device, and the checkpoint to go on from.
        summary: what the result says of the last validation.
        corpus: where the fit and its curves are kept too.

    Raises:
        TrainError: a folder that holds another run, and what `prepare` raises.
        StoppedError: the loss is not a finite number.
        InterruptedFitError: Ctrl-C while it trained.
    """
    started = time.monotonic()
    out = folder_of(settings)
    with open_run(out, fit_id, settings.model_dump(mode="json")) as run:
        result = out / "result.json"
        if result.exists():
            return Finished(json.loads(result.read_text("utf-8")), already_done=True)
        device = device_of(settings.device)
        resumed = newest_checkpoint(out)
        card: dict[str, Any] = {}

        def keep(status: Literal["running", "done", "failed"], records: Sequence[Record] = ()) -> None:
            if corpus is None:
                return
            from store.writer import write_through

            fit = Fit(
                fit_id=fit_id,
                name=settings.name,
                objective=objective,
                arm=arm,
                config=settings.model_dump(mode="json"),
                data_card=card,
                checkpoint=str(out / "model") if status == "done" else None,
                status=status,
                created_at=datetime.fromisoformat(run["created_at"]),
            )
            write_through(corpus, [fit, *records])

        origin = {"name": settings.name, "fit_id": fit_id, "objective": objective, "max_length": settings.max_length}
        try:
            task = prepare(out, device, resumed)
            card = task.card
            write_json(out / "data_card.json", card)
            keep("running")
            with fitting_threads(task.model, device), computing(settings.precision, device), _chance(settings, device):
                validation = _steps(settings, out, origin, task, resumed, progress)
        except StoppedError:
            keep("failed", curves(fit_id, out / "metrics.jsonl"))
            raise
        except KeyboardInterrupt:
            raise InterruptedFitError(_interrupted(settings.name, newest_checkpoint(out))) from None
        keep("done", curves(fit_id, out / "metrics.jsonl"))
        found: dict[str, Any] = {
            "fit_id": fit_id,
            "steps": len(task.plan),
            "seconds": round(time.monotonic() - started, 3),
            "data_card": card,
        }
        found |= summary(validation)
        write_json(result, found)
        return Finished(found, already_done=False)


def folder_of(settings: FitSettings) -> Path:
    return Path(settings.out or f"fits/{settings.name}")


def origin_of(model: str) -> str:
    """What stands for the weights to start from in a fit's identity: the fit that made them, wherever they lie."""
    card = Path(model).expanduser() / "descant.json"
    if not card.is_file():
        return model
    found = json.loads(card.read_text("utf-8"))
    return f"{found['fit_id']} at {found['step']}" if {"fit_id", "step"} <= found.keys() else model


def _interrupted(name: str, checkpoint: Path | None) -> str:
    if checkpoint is None:
        return f"the fit {name!r} was interrupted before its first checkpoint: the same command starts it again"
    return (
        f"the fit {name!r} was interrupted; its last checkpoint is at step {checkpoint_step(checkpoint)}: "
        "the same command goes on from there"
    )


@contextmanager
def _chance(settings: FitSettings, device: torch.device) -> Iterator[None]:
    """torch's own chance (dropout) drawn from the run's seed, and as before afterwards."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(settings.random_seed)
        yield


def _steps(
    settings: FitSettings, out: Path, origin: dict[str, Any], task: Task, resumed: Path | None, progress: Show | None
) -> dict[str, float]:
    """The loop, from the resumed checkpoint to the saved model; gives the last validation's figures."""
    steps = len(task.plan)
    if settings.activation_checkpointing:
        task.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    done = restore(resumed, task.model, task.optimizer) if resumed else 0
    metrics = out / "metrics.jsonl"
    trim_metrics(metrics, done)
    validation: dict[str, float] = {}
    with metrics.open("a", encoding="utf-8") as log:
        for step in range(done + 1, steps + 1):
            began = time.perf_counter()
            batch = task.plan[step - 1]
            learning_rate = settings.learning_rate * rising_and_falling(
                step, steps, rise=task.rise, schedule=settings.schedule
            )
            for group in task.optimizer.param_groups:
                group["lr"] = learning_rate
            figures = _step(settings, task, batch, step)
            seconds = time.perf_counter() - began
            tokens = task.tokens(batch)
            line = {
                "step": step,
                **figures,
                "learning_rate": learning_rate,
                "tokens": tokens,
                "seconds": round(seconds, 5),
            }
            last = step == steps
            if last or (settings.evaluate_every and step % settings.evaluate_every == 0):
                validation = task.validate()
                line |= {f"validation_{name}": value for name, value in validation.items()}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if progress:
                speeds = (task.size(batch) / seconds, tokens / seconds)
                progress(Progress(step, steps, figures["loss"], figures.get("accuracy"), *speeds))
            if last:
                task.export(out / "model", origin | {"step": step})
            elif step % settings.checkpoint_every == 0:
                save_checkpoint(
                    out, step, task.model, task.tokenizer, task.optimizer, origin | {"step": step}, keep=settings.keep
                )
    return validation


def _step(settings: FitSettings, task: Task, batch: Sequence[int], step: int) -> dict[str, float]:
    """One step of the optimiser on a batch; gives its figures."""
    task.optimizer.zero_grad()
    sums_F: Tensor | None = None
    for loss, figures_F in task.slices(batch):
        loss.backward()  # type: ignore[no-untyped-call]
        sums_F = figures_F if sums_F is None else sums_F + figures_F
    assert sums_F is not None, "a batch has at least one slice"
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, settings.gradient_clip))
    figures = dict(zip(task.figures, sums_F.tolist(), strict=True))
    if not (math.isfinite(figures["loss"]) and math.isfinite(norm)):
        names = task.names(batch)
        raise StoppedError(
            f"step {step}: loss {figures['loss']} with a gradient of norm {norm}; lower learning_rate, or look at what the "
            f"batch holds ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        )
    task.optimizer.step()
    return figures | {"gradient_norm": norm}


def curves(fit_id: str, metrics: Path) -> list[Metric]:
    """The run's curves as rows: means over every CURVE_EVERY steps, and validation where it was measured."""
    lines = read_metrics(metrics) if metrics.exists() else []
    points: list[Metric] = []
    for start in range(0, len(lines), CURVE_EVERY):
        few = lines[start : start + CURVE_EVERY]
        means = {name: _mean(line[name] for line in few) for name in CURVES if name in few[0]}
        means["tokens_per_second"] = sum(line["tokens"] for line in few) / sum(line["seconds"] for line in few)
        points += [
            Metric(fit_id=fit_id, name=name, slice="train", value=value, step=few[-1]["step"])
            for name, value in means.items()
        ]
    points += [
        Metric(fit_id=fit_id, name=name.removeprefix("validation_"), slice="validation", value=value, step=line["step"])
        for line in lines
        for name, value in line.items()
        if name.startswith("validation_")
    ]
    return points


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
