"""The verbs of this floor: `demo`. Parses, builds, calls one function, prints."""

from pathlib import Path

import click


@click.command()
@click.option("--out", default="descant-demo", show_default=True, metavar="DIR", help="Where everything is kept.")
@click.option("--seeds", type=click.IntRange(min=20), help="Fewer or more seeds than the preset's.")
def demo(out: str, seeds: int | None) -> None:
    """Run the main job end to end on the built-in backend: no key, no GPU, no network."""
    from train.errors import require_extra

    require_extra()
    from rich.console import Console

    from lab.demo import run_demo

    run_demo(Path(out), Console(), seeds=seeds)


COMMANDS = [demo]
