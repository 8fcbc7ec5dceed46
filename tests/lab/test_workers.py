"""Jobs over processes: order, results, failures."""

import os
from pathlib import Path

import pytest

from configs.errors import DescantError
from lab.workers import Job, LabFolderError, WorkerDiedError, run_aloud, run_jobs


def add(*numbers: int) -> tuple[int, int]:
    """A job: the sum, and the process that made it."""
    return sum(numbers), os.getpid()


def fail() -> None:
    """A job that fails."""
    raise DescantError("no such thing")


def test_jobs_run_elsewhere_and_after_those_that_they_wait_for() -> None:
    order: list[object] = []
    jobs = [
        Job("last", add, (3,), after=("first", "second")),
        Job("first", add, (1,)),
        Job("second", add, (2,), after=("first",)),
    ]
    results = run_jobs(jobs, processes=1, done=lambda job, n: order.append((job.key, n)))
    assert order == [("first", 1), ("second", 2), ("last", 3)]
    assert {key: total for key, (total, _) in results.items()} == {"first": 1, "second": 2, "last": 3}
    assert os.getpid() not in {process for _, process in results.values()}


def test_a_failing_job_ends_the_run_with_what_it_raised() -> None:
    with pytest.raises(DescantError, match="no such thing"):
        run_jobs([Job("a", fail, ()), Job("b", add, (1,), after=("a",))], processes=1, done=lambda *_: None)


def die() -> None:
    """A job whose process ends without a word."""
    os._exit(9)


def test_a_worker_that_dies_is_said_in_one_line_that_tells_how_to_go_on() -> None:
    with pytest.raises(WorkerDiedError, match="the same command goes on") as died:
        run_jobs([Job("a", die, ())], processes=1, done=lambda *_: None)
    assert died.value.exit_code == 1


def test_a_job_that_waits_for_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no job can start"):
        run_jobs([Job("a", add, (1,), after=("b",))], processes=1, done=lambda *_: None)


def test_a_lab_whose_folder_cannot_be_made_says_so_before_any_job(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LabFolderError, match="name another with --out"):
        run_aloud([Job("a", fail, ())], tmp_path / "taken", processes=1)


def test_a_lab_tells_when_a_job_begins_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_aloud([Job(("arm", 0), add, (1,))], tmp_path / "lab", processes=1)
    begun, ended = capsys.readouterr().err.splitlines()
    assert begun.endswith("begins: arm, 0")
    assert ended.endswith("done, 1 of 1: arm, 0")
    assert (tmp_path / "lab").is_dir()
