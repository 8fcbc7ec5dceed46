"""Commands of the agents: serving the rehearsal. Imports nothing heavy before a command runs."""

import click

from agents.rehearsal.faults import FAULTS, Fault

ANY_FOLDER = "DIR"
"""The verb under which a command stands that serves what is no verb: `serve fits/ask`."""


class ServeGroup(click.Group):
    """`serve VERB`, and `serve DIR` for anything that is no verb, with options before or behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names) and ANY_FOLDER in self.commands:
            args = [ANY_FOLDER, *args]
        return super().parse_args(ctx, args)


@click.group(cls=ServeGroup)
def serve() -> None:
    """Serve a model over HTTP, in OpenAI's protocol."""


@serve.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8011, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--latency",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Milliseconds to wait before each answer.",
)
@click.option(
    "--faults",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="Share of requests that meet a fault, of all kinds or of those that --fault names.",
)
@click.option(
    "--fault", "kinds", multiple=True, type=click.Choice(FAULTS), help="A kind of fault; give it again for more."
)
@click.option("--seed", default=0, show_default=True, help="Which requests meet which fault.")
@click.option("--api-key", metavar="env:NAME", help="Ask callers for the key that this environment variable holds.")
@click.option(
    "--log",
    type=click.Path(dir_okay=False),
    help="Append each request to this JSONL file as it arrives; what became of it goes to FILE.ends.",
)
def rehearsal(
    host: str,
    port: int,
    latency: float,
    faults: float,
    kinds: tuple[Fault, ...],
    seed: int,
    api_key: str | None,
    log: str | None,
) -> None:
    """The rehearsal backend: rule-based, deterministic, free, in a closed world with known truth."""
    from agents.rehearsal.server import ServerSettings, key_from
    from agents.rehearsal.server import serve as serve_rehearsal

    if kinds and not faults:
        raise click.UsageError("--fault names the kinds: say with --faults what share of the requests meets one")
    settings = ServerSettings(latency_ms=latency, fault_rate=faults, faults=kinds or FAULTS, random_seed=seed, log=log)
    serve_rehearsal(host, port, settings, api_key=key_from(api_key))


COMMANDS = [serve]
