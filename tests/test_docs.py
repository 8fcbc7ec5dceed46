"""The docs say what the code does: commands, graphs, presets, folders."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import descant
from configs.describe import page as settings_page
from configs.load import load, presets
from configs.settings import CampaignSettings
from graphs.draw import page

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> dict[str, click.Command]:
    """Every verb, those of groups as `group verb`."""
    found: dict[str, click.Command] = {}
    for name, command in descant.build().commands.items():
        inner = command.commands if isinstance(command, click.Group) else {}
        found |= {f"{name} {verb}": under for verb, under in inner.items()} if inner else {name: command}
    return found


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_readme_shows_every_command(name: str) -> None:
    assert f"descant {name}" in README


def test_every_command_in_the_readme_exists_with_its_options() -> None:
    known = commands()
    shown = re.findall(r"^descant (.+)$", README.replace("\\\n", " "), flags=re.MULTILINE)
    assert len(shown) > 10
    for line in shown:
        words = line.split("#")[0].split()
        command = known.get(" ".join(words[:2])) or known.get(words[0])
        assert command is not None, f"README: `descant {line}`"
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"README: `descant {line}`"


def test_the_readme_example_config_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "my-campaign.yaml").write_text(block)
    settings = load(str(tmp_path / "my-campaign.yaml"), CampaignSettings)
    assert settings.models.of("judge").model == "anthropic/claude-sonnet-4-5"


def test_the_readme_map_names_every_folder() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders >= {"configs", "store", "agents", "graphs", "train", "lab"}
    for folder in folders:
        assert re.search(rf"^{folder}/ ", README, flags=re.MULTILINE), folder


def test_the_diagrams_are_those_of_the_compiled_graphs() -> None:
    assert (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8") == page()


def test_the_settings_page_is_that_of_the_settings() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_langgraph_json_names_factories_of_graphs() -> None:
    graphs = json.loads((ROOT / "langgraph.json").read_text())["graphs"]
    for place in graphs.values():
        path, name = place.split(":")
        module = importlib.import_module(path.removeprefix("./").removesuffix(".py").replace("/", "."))
        assert "__start__" in getattr(module, name)().get_graph().nodes


def test_every_campaign_preset_opens_with_a_comment_that_says_what_it_is() -> None:
    for name in presets():
        assert (ROOT / "configs" / "presets" / f"{name}.yaml").read_text().startswith("# ")


def test_the_help_of_the_whole_command_fits_a_terminal() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "descant.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
