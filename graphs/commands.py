"""The verbs of this floor: `plan`, `run`, `judge`, `context`, `report`. Parses, builds, calls one function, prints."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphs import again_commands
from graphs.starting import sayer, starting

if TYPE_CHECKING:
    from configs.settings import CampaignSettings
    from graphs.best_of_n import RewardModel


@click.command()
@click.argument("config")
@click.option(
    "--seeds",
    "seeds_path",
    metavar="FILE",
    help="Seeds: a file or a Hugging Face dataset, in place of the config's seeds.path.",
)
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many seeds, from the front.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set turns=3.")
@click.option("--skip-bad", is_flag=True, help="Leave out seeds that cannot be read, and count them.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def run(
    config: str,
    seeds_path: str | None,
    db: str,
    limit: int | None,
    overrides: tuple[str, ...],
    skip_bad: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a campaign, or go on with it: the same command resumes.

    CONFIG is a YAML file or the name of a preset. Where its recipe is a list, each recipe is a campaign of its own on the
    same seeds, one after the other; the budget is for all of them.
    """
    started = starting(config, quiet=quiet)
    say = sayer(quiet, started)
    from configs.comparison import load_campaigns
    from graphs.campaign import CampaignReport, campaign_identity, check_campaign, check_scorer, run_campaign
    from graphs.checkpoints import with_checkpoints
    from graphs.namesakes import namesake_line
    from graphs.progress import Silent, StderrProgress
    from graphs.report import report_lines
    from graphs.seeds import load_seeds

    extra = [f"seeds.path={json.dumps(seeds_path)}"] if seeds_path else []
    extra += [f"seeds.limit={limit}"] if limit else []
    campaigns = load_campaigns(config, overrides=[*overrides, *extra])
    seeds = load_seeds(campaigns[0], skip_bad=skip_bad)  # the same for all of them
    for skipped in seeds.skipped:
        click.echo(f"skipped {skipped}", err=True)
    floors = click.get_current_context().ensure_object(dict)
    parts: list[tuple[CampaignSettings, RewardModel | None, str]] = []
    for settings in campaigns:  # what is wrong with any of them is told before the first one plays
        check_scorer(settings, is_there=settings.scorer is not None)
        scorer = floors["load_reward_model"](settings.scorer) if settings.scorer is not None else None
        prompts = check_campaign(settings, seeds.seeds, Path(db), scorer, is_served=False)
        identity = campaign_identity(settings, prompts, scorer)
        if (line := namesake_line(settings, identity, db)) is not None:
            say(line)
        parts.append((settings, scorer, identity))
    reports: list[CampaignReport] = []
    for settings, scorer, identity in parts:
        progress = Silent() if quiet else StderrProgress(settings.name, started)
        others = {other for _, _, other in parts if other != identity} | {report.campaign_id for report in reports}
        with with_checkpoints(settings, floors["serving"], say=say) as served:
            report = run_campaign(
                served, seeds.seeds, Path(db), progress=progress, scorer=scorer, sharing=sorted(others)
            )
        reports.append(report)
        if not as_json:
            lines = report_lines(report, database=db, skipped=len(seeds.skipped))
            click.echo("\n".join(lines if len(reports) == 1 else ["", *lines]))
        if report.stop_reason is not None:
            break
    if as_json:
        shown = [report._asdict() | {"skipped_seeds": len(seeds.skipped)} for report in reports]
        click.echo(json.dumps(shown if len(campaigns) > 1 else shown[0], indent=2))
    if reports[-1].stop_reason is not None:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("config")
@click.option(
    "--seeds",
    "seeds_path",
    metavar="FILE",
    help="Seeds: a file or a Hugging Face dataset, in place of the config's seeds.path.",
)
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus, if there is one.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many seeds, from the front.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set turns=3.")
@click.option("--skip-bad", is_flag=True, help="Leave out seeds that cannot be read, and count them.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="Playings of seeds to look at: 8 where they are rehearsed, all that are recorded.",
)
@click.option(
    "--tokens-an-answer",
    type=click.IntRange(min=1),
    help="How long a real model's answers are expected to be, where they are rehearsed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    config: str,
    seeds_path: str | None,
    db: str,
    limit: int | None,
    overrides: tuple[str, ...],
    skip_bad: bool,
    sample: int | None,
    tokens_an_answer: int | None,
    as_json: bool,
) -> None:
    """Estimate what a campaign will take before any is spent: calls, tokens and dollars by role, low, expected and high.

    CONFIG and the options as for `run`. It goes by recorded dialogues where the corpus has some, else it rehearses a few in
    memory. Nothing is sent or written, and no key is needed.
    """
    from configs.comparison import load_campaigns
    from graphs.plan import check_budget, plan_campaign
    from graphs.plan_table import print_plans, to_json, verdicts_json
    from graphs.seeds import load_seeds

    extra = [f"seeds.path={json.dumps(seeds_path)}"] if seeds_path else []
    extra += [f"seeds.limit={limit}"] if limit else []
    campaigns = load_campaigns(config, overrides=[*overrides, *extra])
    seeds = load_seeds(campaigns[0], skip_bad=skip_bad)
    for skipped in seeds.skipped:
        click.echo(f"skipped {skipped}", err=True)
    plans = [
        plan_campaign(settings, seeds.seeds, Path(db), sample=sample, tokens_an_answer=tokens_an_answer)
        for settings in campaigns
    ]
    verdicts = check_budget(plans, campaigns[0])
    if as_json:
        shown = {"campaigns": [to_json(found) for found in plans], "budget": verdicts_json(verdicts)}
        click.echo(json.dumps(shown, indent=2))
        return
    from rich.console import Console

    print_plans(plans, verdicts, Console(highlight=False))


@click.command()
@click.argument("config")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--campaign", metavar="ID", help="Only this campaign, by id or name.")
@click.option("--method", help="Only pairs of this method, such as music.")
@click.option("--split", type=click.Choice(("train", "validation", "test")), help="Only this split.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many pairs, or conversations to score.")
@click.option("--relabel", is_flag=True, help="Write the judges' majority into the pairs' judged_label.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set name=mine."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def judge(
    config: str,
    db: str,
    campaign: str | None,
    method: str | None,
    split: str | None,
    limit: int | None,
    relabel: bool,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Add a set of verdicts to a corpus, or go on with it: the same command resumes.

    CONFIG is a YAML file or a preset: pairwise, single, reference.
    """
    started = starting(config, quiet=quiet)
    from configs.judge_settings import JudgeSettings
    from configs.load import load
    from graphs.checkpoints import with_judges
    from graphs.judging import run_judging
    from graphs.progress import Silent, StderrProgress
    from graphs.report import judging_lines
    from store.agreement import agreement_of

    settings = load(config, JudgeSettings, overrides=overrides, folder="judge")
    serving = click.get_current_context().ensure_object(dict)["serving"]
    with with_judges(settings, serving, say=sayer(quiet, started)) as settings:
        report = run_judging(
            settings,
            Path(db),
            campaign=campaign,
            method=method,
            split=split,
            limit=limit,
            relabel=relabel,
            progress=Silent() if quiet else StderrProgress(settings.name, started),
        )
    figures = agreement_of(db, settings.name) if report.verdicts > report.open + report.failed else None
    if as_json:
        found = None if figures is None else figures.to_json()
        click.echo(json.dumps(report._asdict() | {"agreement": found}, indent=2))
    else:
        click.echo("\n".join(judging_lines(report, database=db)))
        if figures is not None:
            from rich.console import Console

            from store.agreement_table import print_agreement

            click.echo()
            print_agreement(figures, Console(highlight=False))
    if report.stop_reason is not None:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("file")
@click.option(
    "--labels", metavar="FILE", help="User turns labelled by hand, JSON lines: precision and recall are told."
)
@click.option("--ask", is_flag=True, help="Ask a model about the labelled turns too: 'rules and model'.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Which model is asked: --set models.default.model=...; the rehearsal unless set.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def context(file: str, labels: str | None, ask: bool, overrides: tuple[str, ...], as_json: bool) -> None:
    """Count the context-dependent user turns that rules find in FILE, and score rules and a model against labels."""
    from configs.judge_settings import JudgeSettings
    from configs.load import load
    from graphs.context_check import check_context, context_lines

    if (ask or overrides) and labels is None:
        raise click.UsageError("a model is asked about labelled turns alone: give --labels FILE")
    settings = load("single", JudgeSettings, overrides=overrides, folder="judge") if ask or overrides else None
    report = check_context(file, labels, settings)
    if as_json:
        shown = report._asdict()
        shown |= {key: [way._asdict() for way in shown[key]] for key in ("ways", "ways_sure")}
        click.echo(json.dumps(shown, indent=2))
    else:
        click.echo("\n".join(context_lines(report)))


@click.command()
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option(
    "--campaign", "campaigns", multiple=True, metavar="ID", help="Only this campaign, by id or name; several."
)
@click.option("--method", help="Only pairs of this method, such as rmboost.")
@click.option(
    "--judged", "label_sets", multiple=True, metavar="LABEL_SET", help="Only by this set of verdicts; several."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def report(db: str, campaigns: tuple[str, ...], method: str | None, label_sets: tuple[str, ...], as_json: bool) -> None:
    """What pairs cost and how good they are, campaign beside campaign.

    Calls, tokens and dollars a pair, wrong labels, variety, length and what was caught; views: pair_report and others.
    """
    from graphs.pair_quality import measure_pairs
    from store.pair_report import campaigns_with_pairs, reports_of, to_json

    ids = campaigns_with_pairs(db, campaigns, method)
    measured = measure_pairs(Path(db), ids)
    if measured:
        click.echo(f"measured {measured} pairs", err=True)
    reports = reports_of(db, ids, method, label_sets)
    if as_json:
        click.echo(json.dumps(to_json(reports), indent=2))
        return
    from rich.console import Console

    from store.pair_table import print_report

    print_report(reports, Console(highlight=False))


COMMANDS = [plan, run, judge, context, report, *again_commands.COMMANDS]
