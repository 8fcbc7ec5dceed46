"""Commands of the agents: serving the rehearsal. Imports nothing heavy before a command runs."""

import click

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
    help="Share of requests that meet a fault: 429, 500, 502, a reset, a slow or a truncated answer.",
)
@click.option("--seed", default=0, show_default=True, help="Which requests meet which fault.")
@click.option("--api-key", metavar="env:NAME", help="Ask callers for the key that this environment variable holds.")
@click.option("--log", type=click.Path(dir_okay=False), help="Append each request and its answer to this JSONL file.")
def rehearsal(
    host: str, port: int, latency: float, faults: float, seed: int, api_key: str | None, log: str | None
) -> None:
    """The rehearsal backend: rule-based, deterministic, free, in a closed world with known truth."""
    from agents.rehearsal.server import ServerSettings, key_from
    from agents.rehearsal.server import serve as serve_rehearsal

    settings = ServerSettings(latency_ms=latency, fault_rate=faults, random_seed=seed, log=log)
    serve_rehearsal(host, port, settings, api_key=key_from(api_key))


COMMANDS = [serve]
