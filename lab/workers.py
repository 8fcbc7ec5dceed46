"""Jobs over several processes, each when the jobs that it waits for are done. Knows nothing of what they do."""

import sys
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from configs.errors import DescantError


@dataclass(frozen=True)
class Job:
    """One call of a function of a module, in a process of its own."""

    key: Hashable
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[Hashable, ...] = ()
    """Keys of the jobs that must be done before."""


class WorkerDiedError(DescantError):
    """Raised here: a process ended without a word, such as for want of memory."""

    exit_code = 1


class LabFolderError(DescantError):
    """Raised here: a lab without a place to work in."""


def run_aloud(jobs: Sequence[Job], out: Path, *, processes: int, quiet: bool = False) -> dict[Hashable, Any]:
    """`run_jobs` for a lab in the folder `out`, and on stderr when each job begins and when it is done.

    Raises:
        LabFolderError: the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabFolderError(
            f"cannot make the folder {str(out)!r} ({error.strerror}): name another with --out"
        ) from error
    started = time.monotonic()

    def say(text: str, job: Job) -> None:
        if not quiet:
            what = ", ".join(map(str, job.key)) if isinstance(job.key, tuple) else str(job.key)
            minutes = (time.monotonic() - started) / 60
            print(f"lab: {minutes:4.1f} min: {text}: {what}", file=sys.stderr, flush=True)

    return run_jobs(
        jobs,
        processes=processes,
        done=lambda job, n: say(f"done, {n} of {len(jobs)}", job),
        begun=lambda job: say("begins", job),
    )


def run_jobs(
    jobs: Sequence[Job],
    *,
    processes: int,
    done: Callable[[Job, int], None],
    begun: Callable[[Job], None] = lambda _job: None,
) -> dict[Hashable, Any]:
    """What each job gave, by key. Earlier jobs of the list go first where several can.

    Args:
        done: called after each job with the job and how many are done.
        begun: called when a job starts.

    Raises:
        WorkerDiedError: a process died.
        Exception: what the first failing job raised; those that run are waited for, the others never start.
    """
    waiting = list(jobs)
    results: dict[Hashable, Any] = {}
    running: dict[Future[Any], Job] = {}
    # Fresh processes: a forked one would take over locks and threads of torch and of the event loop.
    with ProcessPoolExecutor(max_workers=processes, mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                ready = [job for job in waiting if all(key in results for key in job.after)]
                for job in ready[: processes - len(running)]:  # the pool's own queue would not know what is ready
                    waiting.remove(job)
                    begun(job)
                    running[pool.submit(job.work, *job.arguments)] = job
                if not running:
                    raise ValueError(
                        f"no job can start: {[job.key for job in waiting]} wait for jobs that are not there"
                    )
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job = running.pop(future)
                    results[job.key] = future.result()
                    done(job, len(results))
        except BrokenProcessPool:
            raise WorkerDiedError(
                "a worker process died (was it killed, or is memory short?): what is done is kept, and the same command goes on"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results
