"""The verbs of this floor: `demo`, `lab`, `evaluate best-of-n`, `evaluate mtbench`. Parses, builds, calls one function, prints."""

import json
from pathlib import Path
from typing import Any

import click

from train.commands import evaluate


@click.command()
@click.option("--out", default="descant-demo", show_default=True, metavar="DIR", help="Where everything is kept.")
@click.option(
    "--seeds",
    type=click.IntRange(min=20),
    help="Seeds of the campaign, 2,000 unless given; a few hundred teach the model little.",
)
def demo(out: str, seeds: int | None) -> None:
    """Run the main job end to end on the built-in backend: no key, no GPU, no network."""
    from train.errors import require_extra

    require_extra()
    from rich.console import Console

    from lab.demo import run_demo

    run_demo(Path(out), Console(), seeds=seeds)


@click.command("best-of-n")
@click.argument("config")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="DIR",
    help="A reward model: a fit's folder, a Hugging Face folder or an id. Given twice: A's, then B's.",
)
@click.option("--candidates", default="2,4,8", show_default=True, metavar="N,N,...", help="Candidates a turn.")
@click.option("--seeds", "seeds_path", metavar="FILE", help="Seeds, in place of the config's seeds.path.")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many seeds, from the front.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set turns=3.")
@click.option("--skip-bad", is_flag=True, help="Leave out seeds that cannot be read, and count them.")
@click.option(
    "--plot", "plots", multiple=True, metavar="FILE", help="Draw the win rates too: a .png or .svg; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def best_of_n(
    config: str,
    models: tuple[str, ...],
    candidates: str,
    seeds_path: str | None,
    db: str,
    limit: int | None,
    overrides: tuple[str, ...],
    skip_bad: bool,
    plots: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Let two reward models pick, and judges compare the conversations: the same command resumes.

    CONFIG is a YAML file or the name of a preset.
    """
    from train.errors import TrainError, require_extra

    if len(models) != 2:
        raise click.UsageError(f"--model is given {len(models)} times: name two reward models, A's and B's")
    numbers = candidate_numbers(candidates)
    for plot in plots:
        if Path(plot).suffix not in (".png", ".svg"):
            raise TrainError(f"--plot {plot!r}: name a .png or .svg file")
    from configs.load import load
    from configs.settings import CampaignSettings

    extra = [f"seeds.path={json.dumps(seeds_path)}"] if seeds_path else []
    extra += [f"seeds.limit={limit}"] if limit else []
    settings = load(config, CampaignSettings, overrides=[*overrides, *extra])
    require_extra()
    from graphs.checkpoints import with_checkpoints
    from graphs.progress import Progress, Silent, StderrProgress
    from graphs.seeds import load_seeds
    from lab.best_of_n import evaluate_best_of_n
    from lab.win_rates import plot_win_rates

    def progress(part: str) -> Progress:
        return Silent() if quiet else StderrProgress(part)

    seeds = load_seeds(settings, skip_bad=skip_bad)
    for skipped in seeds.skipped:
        click.echo(f"skipped {skipped}", err=True)
    serving = click.get_current_context().ensure_object(dict)["serving"]
    with with_checkpoints(
        settings, serving, say=lambda line: None if quiet else click.echo(line, err=True), judged=True
    ) as settings:
        found = evaluate_best_of_n(
            settings, seeds.seeds, (models[0], models[1]), Path(db), candidates=numbers, progress=progress
        )
    if plots:
        plot_win_rates(found, *map(Path, plots))
    click.echo(found.to_json() if as_json else found.to_table())


def candidate_numbers(text: str) -> list[int]:
    """`2,4,8` as numbers, in order and each once."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise click.UsageError(f"--candidates {text!r}: write whole numbers from 1 with commas, such as 2,4,8")
    return numbers


evaluate.add_command(best_of_n)


@click.command()
@click.argument("config")
@click.option("--questions", metavar="FILE", help="The benchmark's questions, in place of the config's questions.")
@click.option("--references", metavar="FILE", help="MT-Bench's reference answers, in place of the config's references.")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many questions, or dialogues, from the front.")
@click.option(
    "--save-questions", metavar="FILE", help="Write the extended questions, for other assistants to answer the same."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set variant=rehearsal."
)
@click.option(
    "--plot", "plots", multiple=True, metavar="FILE", help="Draw the figures too: a .png or .svg; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def mtbench(
    config: str,
    questions: str | None,
    references: str | None,
    db: str,
    limit: int | None,
    save_questions: str | None,
    overrides: tuple[str, ...],
    plots: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Let an assistant answer MT-Bench, its extension to 8 turns, or MT-Bench-101, and judges grade every turn.

    CONFIG is a YAML file or a preset: mtbench, mtbench-extended, mtbench101. The same command resumes.
    """
    from configs.benchmark_settings import BenchmarkSettings
    from configs.load import load
    from train.errors import TrainError, require_extra

    for plot in plots:
        require_extra()
        if Path(plot).suffix not in (".png", ".svg"):
            raise TrainError(f"--plot {plot!r}: name a .png or .svg file")
    named = {"questions": questions, "references": references}
    extra = [f"{key}={json.dumps(file)}" for key, file in named.items() if file]
    settings = load(config, BenchmarkSettings, overrides=[*overrides, *extra], folder="benchmark")
    from graphs.checkpoints import with_checkpoints
    from graphs.progress import Progress, Silent, StderrProgress
    from lab.mtbench import campaign_of, evaluate_benchmark, read_paper
    from lab.mtbench_scores import plot_benchmark

    def progress(part: str) -> Progress:
        return Silent() if quiet else StderrProgress(part)

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    paper = read_paper(settings, limit=limit)
    serving = click.get_current_context().ensure_object(dict)["serving"]
    with with_checkpoints(campaign_of(settings, paper), serving, say=say, judged=True) as campaign:
        found = evaluate_benchmark(
            settings.model_copy(update={"models": campaign.models}),
            paper,
            Path(db),
            save_questions=Path(save_questions) if save_questions else None,
            progress=progress,
            say=say,
        )
    if plots:
        plot_benchmark(found, *map(Path, plots))
    click.echo(found.to_json() if as_json else found.to_table())


evaluate.add_command(mtbench)


@click.group()
def lab() -> None:
    """Test the papers' claims against known truth, on the rehearsal backend."""


@lab.command("music")
@click.option("--quick", is_flag=True, help="A first look: one random seed, small sets, under five minutes.")
@click.option("--full", is_flag=True, help="Both worlds, every schedule and mixture, without a limit of time.")
@click.option("--out", metavar="DIR", help="Where everything is kept.  [default: descant-lab/music, -quick, -full]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set items=500."
)
@click.option("--json", "as_json", is_flag=True, help="Print accuracies and findings as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def lab_music(quick: bool, full: bool, out: str | None, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Do contrasts in several turns make a better reward model? (MUSIC, arXiv 2512.24693)

    The same command goes on where it was stopped.
    """
    from configs.lab_settings import MusicLabSettings
    from configs.load import load
    from train.errors import require_extra

    if quick and full:
        raise click.UsageError("--quick and --full exclude each other: take one, or neither")
    preset = "music-quick" if quick else "music-full" if full else "music"
    settings = load(preset, MusicLabSettings, overrides=overrides, folder="lab")
    require_extra()
    from lab.music import run_music_lab
    from lab.music_page import as_json as json_of
    from lab.music_page import page, plot

    folder = Path(out or f"descant-lab/{preset}")
    result = run_music_lab(settings, folder, quiet=quiet)
    plot(result, folder / "curves.png", folder / "curves.svg")
    kept = "by world and random seed the corpus,\nthe items and the models"
    _tell(page(result), json_of(result) if as_json else None, folder, kept, result.seconds)


@lab.command("parrot")
@click.option("--quick", is_flag=True, help="A first look: one random seed, small sets, under five minutes.")
@click.option("--out", metavar="DIR", help="Where everything is kept.  [default: descant-lab/parrot, -quick]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set dpo.steps=200."
)
@click.option("--json", "as_json", is_flag=True, help="Print accuracies and findings as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def lab_parrot(quick: bool, out: str | None, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Do more turns of SFT, and DPO against errors of context, make a better assistant? (Parrot, arXiv 2310.07301)

    The same command goes on where it was stopped.
    """
    from configs.lab_settings import ParrotLabSettings
    from configs.load import load
    from train.errors import require_extra

    preset = "parrot-quick" if quick else "parrot"
    settings = load(preset, ParrotLabSettings, overrides=overrides, folder="lab")
    require_extra()
    from lab.parrot import run_parrot_lab
    from lab.parrot_page import as_json as json_of
    from lab.parrot_page import page, plot

    folder = Path(out or f"descant-lab/{preset}")
    result = run_parrot_lab(settings, folder, quiet=quiet)
    plot(result, folder / "curves.png", folder / "curves.svg")
    kept = "by random seed the corpus,\nthe models and their answers"
    _tell(page(result), json_of(result) if as_json else None, folder, kept, result.seconds)


@lab.command("rmboost")
@click.option("--quick", is_flag=True, help="A first look: one random seed, small sets, under five minutes.")
@click.option("--out", metavar="DIR", help="Where everything is kept.  [default: descant-lab/rmboost, -quick]")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set prompts=200."
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def lab_rmboost(quick: bool, out: str | None, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Whose labels are wrong how often, and what do reward models learn from them? (RMBoost, arXiv 2407.16008)

    RMBoost, RLAIF, RLCD and West-of-N on the same prompts. The same command goes on where it was stopped.
    """
    from configs.lab_settings import RmboostLabSettings
    from configs.load import load
    from train.errors import require_extra

    preset = "rmboost-quick" if quick else "rmboost"
    settings = load(preset, RmboostLabSettings, overrides=overrides, folder="lab")
    require_extra()
    from lab.rmboost import run_rmboost_lab
    from lab.rmboost_page import as_json as json_of
    from lab.rmboost_page import page, plot

    folder = Path(out or f"descant-lab/{preset}")
    result = run_rmboost_lab(settings, folder, quiet=quiet)
    plot(result, folder / "curves.png", folder / "curves.svg")
    kept = "by random seed the corpus,\nwhat became of each label and the models"
    _tell(page(result), json_of(result) if as_json else None, folder, kept, result.seconds)


def _tell(text: str, rows: list[dict[str, Any]] | None, folder: Path, kept: str, seconds: float) -> None:
    """Keep a lab's page, and print it, or its figures where JSON is asked for."""
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    if rows is not None:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(
        f"{text}\n\nKept in {folder}: report.txt, results.json, curves.png, and {kept}. {seconds / 60:.1f} minutes."
    )


@click.command()
@click.argument("config")
@click.option("--db", default="corpus.duckdb", show_default=True, metavar="FILE", help="The corpus.")
@click.option("--out", metavar="DIR", help="Where the fits are kept.  [default: loops/NAME]")
@click.option("--seeds", "seeds_path", metavar="FILE", help="Seeds, in place of the config's collect.seeds.path.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set rounds=3.")
@click.option("--json", "as_json", is_flag=True, help="Print the rounds and the comparison as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def loop(
    config: str,
    db: str,
    out: str | None,
    seeds_path: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a user simulator, let it collect, filter, train again; then compare it with a prompted one.

    CONFIG is a YAML file or a preset. The same command goes on where it was stopped.
    """
    from configs.load import load
    from configs.loop_settings import LoopSettings
    from train.errors import require_extra

    extra = [f"collect.seeds.path={json.dumps(seeds_path)}"] if seeds_path else []
    settings = load(config, LoopSettings, overrides=[*overrides, *extra], folder="loop")
    require_extra()
    from graphs.progress import Progress, Silent, StderrProgress
    from lab.loop import run_loop
    from train.progress import StderrProgress as FitProgress

    def progress(part: str) -> Progress:
        return Silent() if quiet else StderrProgress(part)

    found = run_loop(
        settings,
        Path(db),
        Path(out or f"loops/{settings.name}"),
        serving=click.get_current_context().ensure_object(dict)["serving"],
        progress=progress,
        fit_progress=None if quiet else FitProgress,
        say=lambda line: None if quiet else click.echo(line, err=True),
    )
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else found.to_table())


COMMANDS = [demo, loop, lab]
