"""The verbs of this floor: `fit`, `score`, `evaluate`, `serve DIR`. Parses, builds, calls one function, prints."""

import contextlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from store.human_feedback import LeftOut
    from train.language import LanguageFitResult
    from train.reward import FitResult
    from train.rewardbench import Name


@click.group()
def fit() -> None:
    """Train a model; the same command goes on where it was killed."""


@fit.command("reward")
@click.argument("config")
@click.option(
    "--db",
    metavar="FILE",
    help="The corpus: read from unless the config's data.path says otherwise, and the fit is kept there.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set steps=500."
)
@click.option("--arm", "arms", multiple=True, metavar="NAME", help="Only this arm of the config; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def fit_reward_command(
    config: str, db: str | None, overrides: tuple[str, ...], arms: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Train a reward model, or each of several arms, on preference pairs of whole conversations.

    CONFIG is a YAML file or the name of a preset. It may mix several sets of pairs: by weights, in stages, and without
    what stands in them twice (docs/mixing.md).
    """
    from configs.fit_settings import RewardFitSettings
    from configs.load import load
    from train.errors import TrainError, require_extra

    settings = load(config, RewardFitSettings, overrides=overrides, folder="fit")
    if arms and not settings.arms:
        raise TrainError(f"--arm {arms[0]}: {settings.name} has no arms: leave the option out")
    require_extra()
    from train.arms import corpus_of, fit_arms, in_corpus
    from train.progress import StderrProgress
    from train.reward import FitResult, fit_reward

    settings = in_corpus(settings, db or "corpus.duckdb")
    corpus = corpus_of(settings, db)
    results: dict[str, FitResult]
    if settings.arms:
        results = fit_arms(settings, arms=arms, corpus=corpus, progress=None if quiet else StderrProgress)
    else:
        with StderrProgress(settings.name) as progress:
            results = {settings.name: fit_reward(settings, progress=None if quiet else progress, corpus=corpus)}
    if as_json:
        shown = {name: result._asdict() | {"model_dir": str(result.model_dir)} for name, result in results.items()}
        click.echo(json.dumps(shown if settings.arms else shown[settings.name], indent=1))
        return
    for name, result in results.items():
        click.echo("\n".join(_fit_lines(name, result)))


def _language_command(objective: str, summary: str) -> None:
    """Adds `fit OBJECTIVE`."""

    @fit.command(objective, help=summary, short_help=summary.partition("\n")[0])
    @click.argument("config")
    @click.option(
        "--db",
        metavar="FILE",
        help="The corpus: read from unless --data or the config's data.path says otherwise, and the fit is kept there.",
    )
    @click.option(
        "--data", metavar="FILE", help="Learn from this file or Hugging Face dataset: the config's data.path."
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. --set epochs=1."
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("--quiet", is_flag=True, help="No progress on stderr.")
    def command(
        config: str, db: str | None, data: str | None, overrides: tuple[str, ...], as_json: bool, quiet: bool
    ) -> None:
        from configs.language_settings import AskFitSettings, DpoFitSettings, SftFitSettings
        from configs.load import load
        from train.errors import require_extra

        kinds: dict[str, type[AskFitSettings | SftFitSettings | DpoFitSettings]] = {
            "ask": AskFitSettings,
            "sft": SftFitSettings,
            "dpo": DpoFitSettings,
        }
        settings = load(config, kinds[objective], overrides=overrides, folder="fit")
        path = data or settings.data.path or db or "corpus.duckdb"
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"path": path})})
        require_extra()
        from train.dpo import fit_dpo
        from train.language import fit_language
        from train.progress import StderrProgress

        with StderrProgress(settings.name) as shown:
            progress, corpus = None if quiet else shown, Path(db) if db else None
            if isinstance(settings, DpoFitSettings):
                result = fit_dpo(settings, progress=progress, corpus=corpus)
            else:
                result = fit_language(settings, progress=progress, corpus=corpus)
        if as_json:
            click.echo(json.dumps(result._asdict() | {"model_dir": str(result.model_dir)}, indent=1))
        else:
            click.echo("\n".join(_language_lines(settings.name, result)))


_language_command(
    "ask",
    "Train a model of the user: the loss is on the user's turns alone.\n\nCONFIG is a YAML file or the name of a preset. The "
    "finished model's chat template opens the user's turn, so a plain chat request plays the user.",
)
_language_command(
    "sft",
    "Train an assistant on conversations: the loss is on the answers.\n\nCONFIG is a YAML file or the name of a preset.",
)
_language_command(
    "dpo",
    "Train an assistant on preference pairs, by DPO.\n\nCONFIG is a YAML file or the name of a preset. It starts from a model "
    "that has learned to answer (`descant fit sft`), which is the reference too.",
)


def _fit_lines(name: str, result: "FitResult") -> list[str]:
    """What a finished fit tells."""
    from train.sources_card import sources_lines

    card = result.data_card
    counts = card["splits"]["train"]
    lines = [_done_line(name, result)]
    if card.get("sources") and (card["sets"] or card["mixture"]):  # an older fit tells none
        lines += sources_lines(card)
    lines += [
        f"Train pairs: {counts['kept']} kept, {counts['dropped']} dropped as too long",
        f"(chosen {counts['chosen_too_long']}, rejected {counts['rejected_too_long']}), {counts['equal']} with equal sides.",
    ]
    if result.validation_accuracy is not None:
        n = card["splits"]["validation"]["kept"]
        lines.append(f"Validation accuracy: {result.validation_accuracy:.3f} on {n} pairs.")
    return [*lines, f"Model: {result.model_dir}"]


def _language_lines(name: str, result: "LanguageFitResult") -> list[str]:
    """What a finished fit of a language model tells."""
    card = result.data_card
    counts, held_out = card["splits"]["train"], card["splits"].get("validation", {}).get("kept", 0)
    reasons = {
        "too_long": "longer than max_length",
        "chosen_too_long": "chosen longer than max_length",
        "rejected_too_long": "rejected longer than max_length",
        "equal": "with equal sides",
        "nothing_to_learn": "without a turn to learn",
        "imitates_marks": "with the template's own marks in a text",
    }
    dropped = ", ".join(f"{counts[key]} {reason}" for key, reason in reasons.items() if counts.get(key))
    what = "pairs" if "groups" in counts else "conversations"
    kept = f"Train {what}: {counts['kept']} kept, {counts['dropped']} dropped" + (f" ({dropped})" if dropped else "")
    lines = [_done_line(name, result)]
    if "groups" in counts:
        lines.append(f"{kept}; {counts['groups']} chosen sides.")
        lines.append(
            f"As trees: {counts['tree_tokens']} tokens a pass instead of {counts['tokens']}."
            if card["trees"]
            else f"Sides go through the model one by one ({card['why_no_trees']})."
        )
    else:
        lines.append(f"{kept}; loss on {counts['targets']} of {counts['tokens']} tokens.")
        rows = ", ".join(f"{card[key]} {key}" for key in ("skipped", "repeated") if card[key])
        lines += [f"Left out before: {rows}."] if rows else []
    if result.validation_accuracy is not None:
        lines.append(
            f"Validation: loss {result.validation_loss:.3f}, chosen wins {result.validation_accuracy:.3f} of {held_out} pairs."
        )
    elif result.validation_loss is not None:
        lines.append(
            f"Validation loss: {result.validation_loss:.3f} a token (perplexity {math.exp(result.validation_loss):.1f}) "
            f"on {held_out} conversations."
        )
    return [*lines, f"Model: {result.model_dir}"]


def _done_line(name: str, result: "FitResult | LanguageFitResult") -> str:
    if result.already_done:
        return f"{name} is done already ({result.fit_id}): {result.steps} steps, nothing was trained."
    return f"{name} ({result.fit_id}): {result.steps} steps in {result.seconds:.0f} s."


@click.command()
@click.argument("input_path", metavar="INPUT")
@click.option(
    "--model", "model_dir", required=True, metavar="DIR", help="A fit's folder, a Hugging Face folder or an id."
)
@click.option("--db", metavar="FILE", help="Keep the scores in this corpus; INPUT itself when it is one.")
@click.option("--out", metavar="FILE", help="Write the scores here as JSONL, in place of stdout.")
@click.option(
    "--every-answer", is_flag=True, help="Also the reward after each answer, as if the conversation ended there."
)
@click.option("--engine", type=click.Choice(["torch"]), default="torch", show_default=True, help="What computes.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Conversations at once.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def score(
    input_path: str,
    model_dir: str,
    db: str | None,
    out: str | None,
    every_answer: bool,
    engine: str,
    batch_size: int,
    device: str,
) -> None:
    """Give every conversation of INPUT its reward.

    INPUT is a corpus (its dialogues), or a JSONL or Parquet file whose rows hold a list `messages`, or `chosen` and
    `rejected`. The id is the dialogue's, the row's own `id`, or the row's number from 1, with /chosen and /rejected.
    With --every-answer the corpus keeps a row for each assistant turn, and a JSON line has `answers`.
    """
    from train.errors import TrainError, require_extra

    require_extra()
    from store.queries import answers_of_dialogues
    from train.data import is_corpus, read_conversations
    from train.score import keep_scores, load_scorer

    del engine  # torch is the only one so far
    conversations = read_conversations(input_path)
    scorer = load_scorer(model_dir, device=device)
    tokens = scorer.encode([messages for _, messages in conversations])
    fits = [place for place, sequence in enumerate(tokens) if len(sequence) <= scorer.max_length]
    ids = [conversations[place][0] for place in fits]
    from_corpus = is_corpus(Path(input_path))
    answers: dict[str, list[float]] = {}
    if every_answer:
        whole = [conversations[place][1] for place in fits]
        found = scorer.score_answers(whole, [tokens[place] for place in fits], ids=ids, batch_size=batch_size)
        scored = dict(zip(ids, [rewards.whole for rewards in found], strict=True))
        answers = dict(zip(ids, [rewards.after_answers for rewards in found], strict=True))
    else:
        scored = dict(
            zip(ids, scorer.score_tokens([tokens[place] for place in fits], batch_size=batch_size), strict=True)
        )
    corpus = db or (input_path if from_corpus else None)
    if corpus:
        # A file's ids say nothing without its name, and would stand in the place of another file's.
        file = "" if from_corpus else f"{Path(input_path).name}:"
        turn_ids = answers_of_dialogues(input_path) if from_corpus and every_answer else {}
        after_answers = {
            f"{file}{key}": dict(zip(turn_ids.get(key) or map(str, range(1, len(rewards) + 1)), rewards, strict=True))
            for key, rewards in answers.items()
        }
        keep_scores(
            Path(corpus),
            scorer,
            {f"{file}{key}": reward for key, reward in scored.items()},
            after_answers=after_answers,
        )
    if out or not corpus:
        more = {key: {"answers": rewards} for key, rewards in answers.items()}
        lines = "".join(
            json.dumps({"id": key, "reward": reward} | more.get(key, {})) + "\n" for key, reward in scored.items()
        )
        try:
            Path(out).write_text(lines, encoding="utf-8") if out else click.echo(lines, nl=False)
        except OSError as error:
            raise TrainError(f"cannot write {out!r}: {error.strerror}") from error
    dropped = len(conversations) - len(scored)
    note = f"{len(scored)} conversations scored by {scorer.fit_id}"
    note += f", {dropped} left out: longer than the model's {scorer.max_length} tokens" if dropped else ""
    click.echo(note, err=not (corpus or out))
    unanswered = sum(messages[-1].role == "user" for _, messages in conversations)
    if unanswered:
        click.echo(
            f"{unanswered} of {len(conversations)} conversations end on a user turn, without an answer", err=True
        )


@click.group()
def evaluate() -> None:
    """Measure a trained model."""


def _check_plots(plots: tuple[str, ...]) -> None:
    from train.errors import TrainError

    for plot in plots:
        if Path(plot).suffix not in (".png", ".svg"):
            raise TrainError(f"--plot {plot!r}: name a .png or .svg file")


@evaluate.command("pairs")
@click.option(
    "--model", "model_dir", required=True, metavar="DIR", help="A fit's folder, a Hugging Face folder or an id."
)
@click.option(
    "--db", metavar="FILE", help="The corpus: read from unless --data is given, and the figures are kept there."
)
@click.option("--data", metavar="FILE", help="A preference file or a Hugging Face dataset's id.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--campaign", metavar="ID", help="Only pairs of this campaign (id or name).")
@click.option("--method", help="Only pairs made by this method.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["method", "kind", "first_divergent_turn", "n_turns", "length_ratio"]),
    help="Slice by this; given several times, crossed. Without it: by each alone.",
)
@click.option(
    "--plot", "plots", multiple=True, metavar="FILE", help="Draw the figures too: a .png or .svg; repeatable."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Conversations at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate_pairs_command(
    model_dir: str,
    db: str | None,
    data: str | None,
    split: str,
    campaign: str | None,
    method: str | None,
    by: tuple[str, ...],
    plots: tuple[str, ...],
    batch_size: int,
    as_json: bool,
) -> None:
    """Accuracy on held-out pairs, beside baselines that need no model."""
    from train.errors import require_extra

    require_extra()
    _check_plots(plots)
    from train.data import is_corpus, read_pairs
    from train.evaluate import evaluate_pairs, pairs_of_split
    from train.score import keep_metrics, load_scorer

    source = data or db or "corpus.duckdb"
    left_out: Counter[LeftOut] = Counter()
    pairs = read_pairs(source, campaign=campaign, method=method, left_out=left_out)
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        click.echo(f"{left_out.total()} comparisons make no pair: {reasons}", err=True)
    held_out = pairs_of_split(pairs, split, source=source)
    scorer = load_scorer(model_dir)
    evaluation = evaluate_pairs(
        held_out,
        scorer,
        train_pairs=[pair for pair in pairs if pair.split == "train"],
        split=split,
        by=by,
        batch_size=batch_size,
    )
    corpus = db or (source if is_corpus(Path(source)) else None)
    if plots:
        from train.plot import plot_evaluation

        plot_evaluation(evaluation, *map(Path, plots), title=f"{scorer.name}: which conversation is better?")
    if corpus:
        keep_metrics(Path(corpus), scorer, evaluation.metrics(scorer.fit_id, step=int(scorer.card.get("step", 0))))
    click.echo(evaluation.to_json() if as_json else evaluation.to_table())
    if is_corpus(Path(source)) and not as_json:
        from store.queries import was_rehearsed

        if was_rehearsed(source, campaign=campaign):
            click.echo("A rehearsal model played here: the figures say nothing about real models.")


def _benchmark_command(benchmark: "Name", dataset: str, summary: str) -> None:
    """Adds `evaluate BENCHMARK`."""

    @evaluate.command(benchmark, help=summary, short_help=summary.partition("\n")[0])
    @click.option(
        "--model", "model_dir", required=True, metavar="DIR", help="A fit's folder, a Hugging Face folder or an id."
    )
    @click.option(
        "--data", required=True, metavar="FILE", help=f"Its Parquet or JSONL file, or a dataset's id such as {dataset}."
    )
    @click.option("--db", metavar="FILE", help="Keep the figures in this corpus.")
    @click.option(
        "--plot", "plots", multiple=True, metavar="FILE", help="Draw the figures too: a .png or .svg; repeatable."
    )
    @click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Answers at once.")
    @click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
    def command(
        model_dir: str, data: str, db: str | None, plots: tuple[str, ...], batch_size: int, as_json: bool
    ) -> None:
        from train.errors import require_extra

        require_extra()
        _check_plots(plots)
        from train.rewardbench import evaluate_benchmark, read_benchmark
        from train.score import keep_metrics, load_scorer

        questions = read_benchmark(benchmark, data)
        scorer = load_scorer(model_dir)
        result = evaluate_benchmark(benchmark, questions, scorer, batch_size=batch_size)
        if db:
            keep_metrics(Path(db), scorer, result.metrics(scorer.fit_id, step=int(scorer.card.get("step", 0))))
        click.echo(result.to_json() if as_json else result.to_table())
        if plots:
            from train.plot import plot_benchmark

            plot_benchmark(result, *map(Path, plots), title=f"{scorer.name}: {benchmark}")


_benchmark_command(
    "rewardbench",
    "allenai/reward-bench",
    "RewardBench: single-turn pairs in four sections.\n\nA row has `prompt`, `chosen` and `rejected` (texts) and `subset`.",
)
_benchmark_command(
    "rewardbench2",
    "allenai/reward-bench-2",
    "RewardBench 2: the right answer among several, and ties.\n\nA row has `id`, `prompt`, `chosen` and `rejected` (lists "
    "of texts), `num_correct`, `total_completions` and `subset`.",
)


@click.command("DIR", short_help="A checkpoint of ours, by vLLM's own server.")
@click.argument("folder", metavar="", required=False)
@click.argument("flags", metavar="[-- VLLM_FLAGS...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--task",
    type=click.Choice(["chat", "reward"]),
    default="chat",
    show_default=True,
    help="Whether it answers or gives rewards.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--log", metavar="FILE", help="What vLLM prints.  [default: a temporary file, kept when the server dies]")
def serve_checkpoint(
    folder: str | None, flags: tuple[str, ...], task: str, host: str, port: int, log: str | None
) -> None:
    """Serve a checkpoint with vLLM until Ctrl-C, and print the settings by which a campaign reaches it.

    DIR is a fit's folder (fits/NAME), its model folder, or any Hugging Face folder. What stands behind `--` goes to vLLM
    as it is.
    """
    if folder is None:
        raise click.UsageError("DIR stands for a folder: name a fit's (fits/NAME) or a Hugging Face folder")
    from train.serving import ServerDiedError, new_log, read_checkpoint, served, settings_to_paste, watch

    as_task: Literal["chat", "reward"] = "reward" if task == "reward" else "chat"
    checkpoint = read_checkpoint(folder, task=as_task)
    place = Path(log) if log else new_log()
    click.echo(f"starting vLLM for {folder}; its log is {place}", err=True)
    is_kept = log is not None
    try:
        with (
            served(folder, task=as_task, host=host, port=port, log=place, flags=flags) as endpoint,
            contextlib.suppress(KeyboardInterrupt),
        ):
            click.echo(settings_to_paste(checkpoint, endpoint, as_task))
            click.echo("serving; Ctrl-C ends it", err=True)
            watch(endpoint, place)
    except ServerDiedError:  # whose line names the log
        is_kept = True
        raise
    finally:
        if not is_kept:
            place.unlink(missing_ok=True)


COMMANDS = [fit, score, evaluate]
JOINING = {"serve": serve_checkpoint}
"""Verbs that join a group of another floor."""
