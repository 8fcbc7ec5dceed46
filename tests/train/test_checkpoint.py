"""A fit that is killed and started again ends as one that never was; what is torn is never loaded."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.fit_settings import RewardFitSettings
from store.records import PreferencePair
from tests.train.conftest import MakePairs, MakeSettings
from train.checkpoint import newest_checkpoint, open_run, read_metrics
from train.errors import InterruptedFitError, TrainError
from train.loop import Progress
from train.progress import StderrProgress
from train.reward import fit_reward

REPOSITORY = Path(__file__).parents[2]


def kill(settings: RewardFitSettings, step: int) -> None:
    """Run the fit in a process of its own, which ends itself by SIGKILL after `step` steps."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.fit_and_die", settings.model_dump_json(), str(step)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def interrupt(settings: RewardFitSettings, step: int, pairs: list[PreferencePair] | None) -> None:
    """Run the fit here, and raise out of it after `step` steps."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedFitError):
        fit_reward(settings, pairs=pairs, progress=stop)


def weights(folder: str | None) -> bytes:
    return (Path(str(folder)) / "model" / "model.safetensors").read_bytes()


def curve(folder: str | None) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(Path(str(folder)) / "metrics.jsonl")]


@pytest.mark.chain
def test_a_fit_killed_at_random_steps_ends_bit_for_bit_as_one_that_never_was(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    settings = tiny_settings(steps=14, out=str(tmp_path / "whole"), read_at="every_answer", weight_decay=0.1)
    fit_reward(settings, pairs=make_pairs(60))
    killed = settings.model_copy(update={"out": str(tmp_path / "killed")})
    first, second = sorted(random.sample(range(1, 14), 2))
    kill(killed, first)
    interrupt(killed, second, make_pairs(60))
    result = fit_reward(killed, pairs=make_pairs(60))
    assert not result.already_done
    assert weights(killed.out) == weights(settings.out)
    assert curve(killed.out) == curve(settings.out)


def test_ctrl_c_says_where_the_fit_goes_on_and_the_next_run_says_so_too(
    tiny_settings: MakeSettings, make_pairs: MakePairs, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings()

    def press_ctrl_c(progress: Progress) -> None:
        if progress.step in (2, 6):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedFitError, match="before its first checkpoint: the same command starts it again"):
        fit_reward(settings, pairs=make_pairs(40), progress=press_ctrl_c)
    with pytest.raises(InterruptedFitError, match="last checkpoint is at step 4: the same command") as stop:
        fit_reward(settings, pairs=make_pairs(40), progress=lambda now: press_ctrl_c(now) if now.step > 2 else None)
    assert stop.value.exit_code == 1
    with StderrProgress("toy") as progress:
        fit_reward(settings, pairs=make_pairs(40), progress=progress)
    assert capsys.readouterr().err.splitlines()[0] == "fit toy: goes on from step 4"


def test_a_finished_fit_does_nothing_and_says_so(tiny_settings: MakeSettings, make_pairs: MakePairs) -> None:
    settings = tiny_settings()
    first = fit_reward(settings, pairs=make_pairs(40))
    before = weights(settings.out)
    steps: list[object] = []
    again = fit_reward(settings, pairs=make_pairs(40), progress=steps.append)
    assert (first.already_done, again.already_done) == (False, True)
    assert (again.fit_id, again.steps, steps) == (first.fit_id, 12, [])
    assert weights(settings.out) == before


def test_torn_checkpoints_are_passed_over(tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path) -> None:
    settings = tiny_settings(steps=14, keep=3)
    interrupt(settings, 13, make_pairs(60))
    out = tmp_path / "fit"
    checkpoints = sorted((out / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step-00000004", "step-00000008", "step-00000012"]
    model = checkpoints[2] / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    (checkpoints[1] / "training" / "manifest.json").write_text('{"st', encoding="utf-8")
    half = out / "checkpoints" / ".step-00000016.partial"
    half.mkdir()
    assert newest_checkpoint(out) == checkpoints[0]
    assert not half.exists()
    fit_reward(settings, pairs=make_pairs(60))
    whole = settings.model_copy(update={"out": str(tmp_path / "whole")})
    fit_reward(whole, pairs=make_pairs(60))
    assert weights(out.as_posix()) == weights(whole.out)


def test_only_the_newest_checkpoints_are_kept(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    fit_reward(tiny_settings(checkpoint_every=2, keep=2), pairs=make_pairs(40))
    names = sorted(path.name for path in (tmp_path / "fit" / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000010"]


def test_a_folder_of_another_fit_is_refused(tiny_settings: MakeSettings, make_pairs: MakePairs) -> None:
    fit_reward(tiny_settings(), pairs=make_pairs(40))
    with pytest.raises(TrainError, match="holds another fit"):
        fit_reward(tiny_settings(learning_rate=1e-3), pairs=make_pairs(40))
    with pytest.raises(TrainError, match="holds another fit"):
        fit_reward(tiny_settings(), pairs=make_pairs(45))


def test_a_folder_of_something_else_is_refused_and_left_alone(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TrainError, match="no fit's"):
        fit_reward(tiny_settings(), pairs=make_pairs(40))
    assert (tmp_path / "fit" / "thesis.txt").read_text("utf-8") == "mine"


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "fit", "fit_a", {}),
        pytest.raises(TrainError, match="another process"),
        open_run(tmp_path / "fit", "fit_a", {}),
    ):
        pass


def test_a_torn_last_line_of_the_metrics_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo', encoding="utf-8")
    assert read_metrics(path) == [{"step": 1}]
