"""Commands of the store: what is in a corpus, and how it gets out. Imports nothing heavy before a command runs."""

import sys
from typing import TYPE_CHECKING

import click

from store.control_commands import COMMANDS as CONTROL

if TYPE_CHECKING:
    from store.importing import CountTokens

database_option = click.option(
    "--db", default="corpus.duckdb", show_default=True, type=click.Path(), help="The corpus to look at."
)


@click.command()
@database_option
@click.option("--campaign", metavar="ID", help="Only this campaign, by id or name.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def status(db: str, campaign: str | None, as_json: bool) -> None:
    """How campaigns stand: what runs now, then seeds, dialogues, calls, tokens and cost by role."""
    from store.status import print_status, status_of

    found = status_of(db, campaign=campaign)
    if as_json:
        import orjson

        click.echo(orjson.dumps(found, default=str, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    print_status(found, Console(highlight=False))


@click.command()
@click.argument("id")
@database_option
def show(id: str, db: str) -> None:
    """A dialogue, pair, seed, campaign or call, to be read. ID may be the beginning of one, or a campaign's name."""
    from rich.console import Console

    from store.transcript import show as show_stored

    show_stored(db, id, Console(highlight=False))


@click.command()
@click.argument("name", required=False)
@database_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def schema(name: str | None, db: str, as_json: bool) -> None:
    """The tables and views, with what each column means; or only the one called NAME."""
    from store.schema import print_schema, schema_of

    relations = schema_of(db, name)
    if as_json:
        import orjson

        click.echo(orjson.dumps(relations, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    print_schema(relations, Console(highlight=False))


@click.command()
@click.argument("query")
@database_option
@click.option(
    "--format",
    "format_name",
    type=click.Choice(("table", "json", "csv", "parquet")),
    help="A table, which is what a screen gets, shows the first 200 rows; the others give all.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="A file instead of the screen; .csv, .json, .parquet or .txt (a table) says the format.",
)
def sql(query: str, db: str, format_name: str | None, out: str | None) -> None:
    """Ask the corpus: one SELECT, read-only. `descant schema` lists what there is."""
    from store.sql import format_of, print_table, table_of, write_answer

    format_name = format_of(format_name, out)
    if format_name == "parquet" and out is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a screen: give --out FILE, or pipe it")
    if format_name != "table":
        write_answer(db, query, format_name, out, sys.stdout.buffer)
        return
    from rich.console import Console

    from store.database import StoreError

    answer = table_of(db, query)
    if out is None:
        print_table(answer, Console(highlight=False))
    else:
        try:
            with click.open_file(out, "w", encoding="utf-8", atomic=True) as file:
                print_table(answer, Console(file=file, highlight=False))
        except OSError as error:
            raise StoreError(f"cannot write {out!r}: {error.strerror}") from error
    if answer.has_more:
        click.echo(f"the first {len(answer.rows)} rows; --format csv or json gives all", err=True)


@click.command()
@click.argument("out", type=click.Path(dir_okay=False))
@database_option
@click.option(
    "--format",
    "format_name",
    type=click.Choice(("skywork", "trl", "trl-explicit")),
    required=True,
    help="Whose shape the rows have; OUT's suffix (.jsonl or .parquet) says how they are written.",
)
@click.option("--campaign", help="Only this campaign, by id or name.")
@click.option("--split", type=click.Choice(("train", "validation", "test")), help="Only this split.")
def export(out: str, db: str, format_name: str, campaign: str | None, split: str | None) -> None:
    """Write the preference pairs to OUT."""
    from store.export import export_pairs

    count = export_pairs(db, out, format_name, campaign=campaign, split=split)
    click.echo(f"{count} pairs written to {out}", err=True)


@click.command()
@click.argument("label_set", required=False)
@database_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def agreement(label_set: str | None, db: str, as_json: bool) -> None:
    """How far judges agree with each other and with labels, and which way they lean.

    Of every set of verdicts, or of LABEL_SET alone; `campaign` is what campaigns with judge_pairs make.
    """
    from store.agreement import agreement_of, label_sets

    names = [label_set] if label_set is not None else label_sets(db)
    reports = [agreement_of(db, name) for name in names or ["campaign"]]
    if as_json:
        import orjson

        click.echo(orjson.dumps([report.to_json() for report in reports], option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    from store.agreement_table import print_agreement

    for number, report in enumerate(reports):
        if number:
            click.echo()
        print_agreement(report, Console(highlight=False))


FORMATS = (
    "auto",
    "messages",
    "mtbench101",
    "skywork",
    "ultrafeedback",
    "hh",
    "ultrainteract",
    "sharegpt",
    "ultrachat",
    "qa-feedback",
    "tldr",
)
format_option = click.option(
    "--format",
    "shape",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="Whose shape the rows have.",
)
tokenizer_option = click.option(
    "--tokenizer", metavar="MODEL", help="Count tokens by this model's tokenizer (needs the train extra)."
)
skip_option = click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be read, and count them.")


@click.command("import")
@click.argument("file")
@database_option
@format_option
@click.option("--name", help="The campaign's name; the file's own unless given.")
@tokenizer_option
@skip_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def import_conversations(
    file: str, db: str, shape: str, name: str | None, tokenizer: str | None, skip_bad: bool, as_json: bool
) -> None:
    """Store the conversations of FILE, whole, as a campaign that is done.

    FILE is JSON lines, gzipped or not, Parquet, or a Hugging Face dataset. Importing it again adds nothing.
    """
    from store.importing import import_file

    report = import_file(file, db, name=name, shape=shape, skip_bad=skip_bad, count_tokens=_counter(tokenizer))
    for skipped in report.skipped:
        click.echo(f"skipped {skipped}", err=True)
    if as_json:
        import orjson

        click.echo(orjson.dumps(report._asdict() | {"skipped": len(report.skipped)}, option=orjson.OPT_INDENT_2))
        return
    left_out = f", {len(report.skipped)} bad rows left out" if report.skipped else ""
    click.echo(f"{report.campaign_id}  {report.name}: {report.conversations} conversations, {report.new} new{left_out}")


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--db", type=click.Path(), help="The corpus to look at; corpus.duckdb unless FILEs are given.")
@click.option("--campaign", help="Only this campaign, by id or name.")
@format_option
@tokenizer_option
@skip_option
@click.option("--beside-parrot", is_flag=True, help="Under it, the figures that Parrot's paper reports.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def stats(
    files: tuple[str, ...],
    db: str | None,
    campaign: str | None,
    shape: str,
    tokenizer: str | None,
    skip_bad: bool,
    beside_parrot: bool,
    as_json: bool,
) -> None:
    """Parrot's table of campaigns, and of FILEs of conversations.

    Sessions, turns, words, tokens, context-dependent queries and Self-ROUGE. FILEs are read and not kept.
    """
    from store.corpus_stats import PUBLISHED, print_stats, stats_of_campaigns, stats_of_file

    skipped: list[str] | None = [] if skip_bad else None
    count_tokens = _counter(tokenizer)
    rows = [] if files and not (db or campaign) else stats_of_campaigns(db or "corpus.duckdb", campaign)
    rows += [stats_of_file(file, shape, count_tokens=count_tokens, skipped=skipped) for file in files]
    for line in skipped or ():
        click.echo(f"skipped {line}", err=True)
    if as_json:
        import orjson

        shown = [row._asdict() for row in (*rows, *(PUBLISHED if beside_parrot else ()))]
        click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    print_stats(rows, Console(highlight=False), published=beside_parrot)


def _counter(tokenizer: str | None) -> "CountTokens | None":
    """Built where the tokenizers are: this floor must not see them."""
    if tokenizer is None:
        return None
    counter: CountTokens = click.get_current_context().ensure_object(dict)["load_token_counter"](tokenizer)
    return counter


COMMANDS = [status, *CONTROL, show, schema, sql, export, import_conversations, stats, agreement]
