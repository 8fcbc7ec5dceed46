"""The folder of a training run: checkpoints that are never torn, and what is needed to go on exactly.

    OUT/run.json                      which fit this is; a folder holds one
    OUT/data_card.json                what it learned from
    OUT/metrics.jsonl                 a line a step
    OUT/checkpoints/step-00000200/    a plain Hugging Face folder (of adapters, where only they are trained), and training/
                                      beside the weights: optimiser, chance, manifest
    OUT/model/                        the finished model, a plain Hugging Face folder
    OUT/result.json                   written last: the fit is done

A folder is written beside its place, synced and renamed; its manifest names every file and its size, and one that does
not agree is passed over. The learning rate and the order of the pairs are functions of the step, so neither needs state.
Knows nothing of losses or data.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.errors import TrainError

STATE = "training"
MANIFEST = "manifest.json"


@contextmanager
def open_run(out: Path, fit_id: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Hold the run's folder for this process, and give what `run.json` says: fit_id, settings, created_at.

    Raises:
        TrainError: the folder cannot be written, holds another fit or other files, or another process trains in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise TrainError(f"cannot write to {str(out)!r}: {error.strerror}; name another folder with out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainError(f"another process is training in {str(out)!r}: wait for it, or name another out") from None
        yield from _claimed(out, fit_id, settings)


def _claimed(out: Path, fit_id: str, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The claim on a folder, taken back when the fit is refused before it has left anything there."""
    is_new = not (out / "run.json").exists()
    run = _claim(out, fit_id, settings)
    try:
        yield run
    except TrainError:
        if is_new and {entry.name for entry in out.iterdir()} <= {"run.json", ".lock"}:
            (out / "run.json").unlink()
            (out / ".lock").unlink()
            out.rmdir()
        raise


def _claim(out: Path, fit_id: str, settings: dict[str, Any]) -> dict[str, Any]:
    path = out / "run.json"
    if path.exists():
        run: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if run["fit_id"] != fit_id:
            raise TrainError(
                f"{str(out)!r} holds another fit ({run['fit_id']}): the settings or the training pairs differ; "
                "take another folder (out), or remove this one"
            )
        return run
    if any(entry.name != ".lock" for entry in out.iterdir()):
        raise TrainError(f"{str(out)!r} holds files that are no fit's: take another folder (out)")
    run = {"fit_id": fit_id, "settings": settings, "created_at": datetime.now(UTC).isoformat()}
    write_json(path, run)
    return run


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Written beside and renamed, so that it is whole or not there."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def save_model(folder: Path, model: Any, tokenizer: Any, card: dict[str, Any]) -> None:
    """A Hugging Face folder that transformers and vLLM load as it is; `descant.json` in it says whose it is."""

    def fill(partial: Path) -> None:
        _fill_model(partial, model, tokenizer, card)

    _write_folder(folder, fill)


def save_checkpoint(
    out: Path,
    step: int,
    model: Any,
    tokenizer: Any,
    optimizer: torch.optim.Optimizer,
    card: dict[str, Any],
    *,
    keep: int,
) -> Path:
    """A checkpoint after `step` steps; older ones than the newest `keep` are removed once it stands."""
    folder = out / "checkpoints" / f"step-{step:08d}"

    def fill(partial: Path) -> None:
        _fill_model(partial, model, tokenizer, card)
        (partial / STATE).mkdir()
        save_file(_optimizer_state(model, optimizer) | _chance_state(), partial / STATE / "state.safetensors")
        sizes = {str(f.relative_to(partial)): f.stat().st_size for f in sorted(partial.rglob("*")) if f.is_file()}
        write_json(partial / STATE / MANIFEST, {"step": step, "files": sizes})

    _write_folder(folder, fill)
    for old in sorted(folder.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return folder


def newest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint; torn ones are passed over, and half-written ones removed."""
    for partial in (*out.glob(".*.partial"), *(out / "checkpoints").glob(".*.partial")):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    for folder in sorted((out / "checkpoints").glob("step-*"), reverse=True):
        if _is_whole(folder):
            return folder
    return None


def restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint's optimiser and chance back (the model was loaded from the folder); gives its step."""
    state = load_file(folder / STATE / "state.safetensors")
    for name, parameter in _trained(model):
        # Copied into fresh memory: a mapped file's alignment could change the last bit of a sum.
        optimizer.state[parameter] = {
            "step": torch.empty((), dtype=torch.float32, device=parameter.device).copy_(state[f"{name}.step"]),
            "exp_avg": torch.empty_like(parameter).copy_(state[f"{name}.exp_avg"]),
            "exp_avg_sq": torch.empty_like(parameter).copy_(state[f"{name}.exp_avg_sq"]),
        }
    torch.set_rng_state(state["chance.cpu"].clone())
    if "chance.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["chance.cuda"].clone())
    return checkpoint_step(folder)


def checkpoint_step(folder: Path) -> int:
    """After which step a checkpoint was saved."""
    step: int = json.loads((folder / STATE / MANIFEST).read_text("utf-8"))["step"]
    return step


def trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which will be taken again, and a torn last line."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    partial.rename(path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the process was killed while it wrote this line
    return lines


def _fill_model(folder: Path, model: Any, tokenizer: Any, card: dict[str, Any]) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "descant.json", card)


def _write_folder(folder: Path, fill: Any) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    if folder.exists():  # a torn one, or the same step saved again
        shutil.rmtree(folder)
    partial.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / STATE / MANIFEST).read_text("utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, json.JSONDecodeError, KeyError):
        return False


def _optimizer_state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().contiguous()
        for name, parameter in _trained(model)
        for key, value in optimizer.state[parameter].items()
    }


def _trained(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights that the optimiser has a state of, by name."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _chance_state() -> dict[str, Tensor]:
    chance = {"chance.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        chance["chance.cuda"] = torch.cuda.get_rng_state()
    return chance
