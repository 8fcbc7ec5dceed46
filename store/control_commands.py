"""The commands for a campaign that runs in another process: `pause`, `resume`, `concurrency`, `retry-failed`."""

import json
import time
from collections.abc import Sequence
from typing import Any

import click

GO_ON = "the `descant run` command that began it goes on"
PAUSE_PATIENCE_SECONDS = 5.0
"""How long `pause` waits for calls in flight before it says how many are left."""
LOOK_SECONDS = 0.1
RETRY_PATIENCE_SECONDS = 120.0
"""A campaign reads its failed dialogues back before it answers."""

database_option = click.option(
    "--db", default="corpus.duckdb", show_default=True, type=click.Path(), help="The corpus that the campaign writes."
)


@click.command()
@database_option
def pause(db: str) -> None:
    """Hold the running campaign: calls in flight come back and are kept, no new one starts.

    Its process stays and waits for `descant resume`; one that is killed meanwhile goes on by its run command.
    """
    from store.control import NobodyListensError, ask, tell

    said = tell(db, {"ask": "pause"}, instead=f"there is nothing to pause; {GO_ON}")
    deadline = time.monotonic() + PAUSE_PATIENCE_SECONDS
    while said["calls_in_flight"] and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        answer = ask(db, {"ask": "status"})
        if answer is None:
            raise NobodyListensError(f"the campaign {said['name']} ended meanwhile: `descant status` says how")
        said = answer
    if not said["held"]:
        raise NobodyListensError(f"the campaign {said['name']} is {said['state']}: somebody else said so meanwhile")
    left = said["calls_in_flight"]
    still = f"{left} calls are still out and will be kept" if left else "no call is out"
    click.echo(f"{said['name']} is held: {still}; `descant resume` goes on")


@click.command()
@database_option
def resume(db: str) -> None:
    """Let a campaign go on that `descant pause` holds."""
    from store.control import tell

    said = tell(db, {"ask": "resume"}, instead=f"there is nothing to resume; {GO_ON}")
    click.echo(f"{said['name']} goes on: {_dialogues(said)}, {said['concurrency']} at once")


@click.command()
@click.argument("n", type=click.IntRange(min=1))
@database_option
def concurrency(n: int, db: str) -> None:
    """Let the running campaign have N dialogues in play at once, from now until it ends.

    Where a seed has two branches that play side by side, both count: an odd N is rounded down, and 1 means 2. More begin at
    once, one after another; those over are played to their end first.
    """
    from store.control import tell

    said = tell(
        db,
        {"ask": "concurrency", "n": n},
        instead=f"give `--set concurrency={n}` to the `descant run` command that begins it or goes on",
    )
    now, before = said["concurrency"], said["before"]
    over = max(0, said["open"] - now)
    late = f"; the {over} over are played to their end" if over else ""
    beside = said["side_by_side"]
    odd = f" (not {n}: a seed's {beside} branches play side by side, and each is a dialogue)" if now != n else ""
    click.echo(f"{said['name']}: {before} -> {now} {said['unit']} at once{odd}{late}")


@click.command("retry-failed")
@database_option
@click.option("--campaign", metavar="ID", help="Only this campaign, by id or name.")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="KIND",
    help="Only dialogues that ended so, such as timeout; several. `descant sql 'FROM errors'` has them.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def retry_failed(db: str, campaign: str | None, reasons: tuple[str, ...], as_json: bool) -> None:
    """Have failed dialogues played again; what was answered is not asked again.

    A campaign that runs takes its own back at once; otherwise its `descant run` command plays them.
    """
    from store.control import ask
    from store.retry import reopen_failed
    from store.writer import LockedError

    request = {"ask": "retry_failed", "campaign": campaign, "reasons": list(reasons)}
    said = ask(db, request, timeout_seconds=RETRY_PATIENCE_SECONDS)
    if said is None:
        try:
            said = reopen_failed(db, campaign=campaign, reasons=reasons).to_json() | {"taken_back": 0}
        except LockedError:  # a campaign may have begun meanwhile
            said = ask(db, request, timeout_seconds=RETRY_PATIENCE_SECONDS)
            if said is None:
                raise
    click.echo(json.dumps(said, indent=2) if as_json else "\n".join(_retried(said, reasons)))


def _retried(said: dict[str, Any], asked: Sequence[str]) -> list[str]:
    lines = []
    if said["dialogues"]:
        plays = f"the same `descant run` command plays them ({', '.join(said['campaigns'])})"
        if said["taken_back"] == said["trials"]:
            plays = "the running campaign plays them"
        elif said["taken_back"]:
            plays = f"the running campaign plays its own, {plays}"
        lines.append(f"{_failed(said['dialogues'])} to be played again ({_counted(said['reasons'])}): {plays}")
    if said["same_again"]:
        one = next(iter(said["same_again"]))
        lines.append(
            f"{_failed(sum(said['same_again'].values()))} left as they are ({_counted(said['same_again'])}): all their calls have "
            f"answers, so they would end the same; --reason {one} plays them all the same"
        )
    if said["waiting"] and not said["dialogues"]:
        lines.append(
            f"nothing more to play again: {said['waiting']} dialogues that were opened before have not ended yet"
        )
    strange = [reason for reason in dict.fromkeys(asked) if reason not in said["all_reasons"]]
    if strange and said["all_reasons"]:
        lines.append(f"no dialogue failed by {', '.join(strange)}: there are {_counted(said['all_reasons'])}")
    return lines or ["no dialogue failed: nothing to play again"]


def _failed(n: int) -> str:
    return f"{n} failed dialogue{' is' if n == 1 else 's are'}"


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items())


def _dialogues(said: dict[str, Any]) -> str:
    return f"{said['done']} of {said['total']} {said['unit']} done, {said['failed']} failed, {said['open']} open"


COMMANDS = [pause, resume, concurrency, retry_failed]
