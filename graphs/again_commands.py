"""The verbs that play on what was played: `replay`, `fork`. Parses, builds, calls one function, prints."""

import json
from pathlib import Path

import click

from graphs.starting import sayer, starting


@click.command()
@click.argument("id")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--out", metavar="FILE", help="A new corpus that gets what was rebuilt, if all of it is equal.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def replay(id: str, db: str, out: str | None, as_json: bool) -> None:
    """Rebuild a dialogue or a campaign from the journal, without a call, and compare it byte by byte.

    ID is a dialogue's or a campaign's, or the beginning of one, or a campaign's name. Exit code 1 says that something
    differs. It may run beside the campaign.
    """
    from graphs.replay import replay as replayed
    from graphs.replay import report_lines

    report = replayed(db, id, out=None if out is None else Path(out))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        if report.dialogue_id is not None and report.equal:
            from rich.console import Console

            from store.transcript import show

            show(db, report.dialogue_id, Console(highlight=False))
            click.echo()
        click.echo("\n".join(report_lines(report, out=out)))
    if not report.equal:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("id")
@click.argument("config", required=False)
@click.option("--at", required=True, metavar="TURN", help="The last turn that is kept: its place from 0, or its id.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of what is forked.")
@click.option("--turns", type=click.IntRange(min=1), help="Answers to go on with; else to as many as the original's.")
@click.option("--name", help="The fork's name; NAME-fork unless given.")
@click.option("--limit", type=click.IntRange(min=1), help="Go on from dialogues of at most this many seeds.")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def fork(
    id: str,
    config: str | None,
    at: str,
    overrides: tuple[str, ...],
    turns: int | None,
    name: str | None,
    limit: int | None,
    db: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Go on from a turn of a dialogue with another model, user or perturbation: a new campaign that shares the trunk.

    ID is a dialogue's or a campaign's, or the beginning of one, or a campaign's name: of a campaign every dialogue that
    gets as far. The fork has its settings, with CONFIG (a YAML file or a preset) and --set laid over them. The same command
    resumes.
    """
    started = starting(id, quiet=quiet)
    from graphs.campaign import check_scorer, run_campaign
    from graphs.checkpoints import with_checkpoints
    from graphs.fork import fork_lines, fork_of
    from graphs.progress import Silent, StderrProgress
    from graphs.report import report_lines

    settings, seeds, trunks = fork_of(
        db, id, at, config=config, overrides=overrides, called=name, turns=turns, limit=limit
    )
    check_scorer(settings, is_there=settings.scorer is not None)
    floors = click.get_current_context().ensure_object(dict)
    scorer = floors["load_reward_model"](settings.scorer) if settings.scorer is not None else None
    progress = Silent() if quiet else StderrProgress(settings.name, started)
    with with_checkpoints(settings, floors["serving"], say=sayer(quiet, started)) as served:
        report = run_campaign(served, seeds, Path(db), progress=progress, scorer=scorer, trunks=trunks)
    if as_json:
        click.echo(json.dumps(report._asdict(), indent=2))
    else:
        click.echo(
            "\n".join([*report_lines(report, database=db, skipped=0), *fork_lines(db, report.campaign_id, trunks)])
        )
    if report.stop_reason is not None:
        raise click.exceptions.Exit(1)


COMMANDS = [replay, fork]
