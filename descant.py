"""The command line: puts the floors' verbs together, and turns errors into one line and an exit code.

The only file that sees every floor. Each floor keeps its own verbs in its `commands.py`, which import
nothing heavy before they run, so that `descant --help` answers at once.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from configs.settings import ScorerSettings
    from graphs.best_of_n import RewardModel
    from graphs.checkpoints import Serving
    from store.importing import CountTokens

FLOORS = ("configs", "store", "agents", "graphs", "train", "lab")
PANELS = ("graphs", "store", "agents", "train", "lab")
"""Which `commands.py` are put together, in the order of `--help`."""


def check_packages() -> str | None:
    """What is wrong when another package of the same name shadows one of ours."""
    home = Path(__file__).resolve().parent
    for name in FLOORS:
        found = importlib.util.find_spec(name)
        where = Path(found.origin).resolve().parent.parent if found and found.origin else None
        if where != home:
            return (
                f"the package {name!r} of Descant is hidden by another one at {where}: "
                "install Descant into an environment of its own"
            )
    return None


def descant_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("descant")
    except PackageNotFoundError:
        return "from a checkout, not installed"


def build() -> click.Group:
    """The `descant` command with the verbs of every floor."""

    @click.group(
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 100,
            "obj": {
                "load_reward_model": load_reward_model,
                "serving": serving,
                "load_token_counter": load_token_counter,
            },
        }
    )
    @click.version_option(version=descant_version())
    def descant() -> None:
        """Simulate multi-turn dialogues with LLM agents, make them go wrong on purpose, keep every turn in
        DuckDB, and train reward models that judge whole conversations."""

    for floor in PANELS:
        commands = importlib.import_module(f"{floor}.commands")
        for command in commands.COMMANDS:
            descant.add_command(command)
        for name, command in getattr(commands, "JOINING", {}).items():
            group = descant.commands[name]
            assert isinstance(group, click.Group)
            group.add_command(command)
    return descant


def load_reward_model(scorer: "ScorerSettings") -> "RewardModel":
    """What `run` picks candidates with: its floor must not see the one that trains and scores."""
    from train.errors import require_extra

    require_extra()
    from lab.best_of_n import load_reward_model

    return load_reward_model(scorer)


def serving() -> "Serving":
    """What `run` and `judge` serve checkpoints by, for the same reason."""
    from graphs.checkpoints import Serving
    from train.serving import objective_of, serve_all

    return Serving(objective_of, serve_all)


def load_token_counter(model: str) -> "CountTokens":
    """What `import` and `stats` count tokens with."""
    from train.errors import require_extra

    require_extra()
    from train.tokenizer import token_counter

    return token_counter(model)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 paused or stopped, 2 the user's mistake."""
    from configs.errors import DescantError

    shadowed = check_packages()
    if shadowed:
        fail(shadowed, 2)
    try:
        code = build().main(prog_name="descant", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.UsageError as error:
        context = error.ctx.command_path if error.ctx else "descant"
        fail(f"{error.format_message()} (see `{context} --help`)", 2)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted: the same command goes on or begins again", 1)
    except DescantError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
