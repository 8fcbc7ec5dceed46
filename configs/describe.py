"""Writes `docs/settings.md` from the settings themselves: `python -m configs.describe > docs/settings.md`."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.benchmark_settings import BenchmarkSettings
from configs.fit_settings import RewardFitSettings
from configs.judge_settings import JudgeSettings
from configs.lab_settings import MusicLabSettings, ParrotLabSettings, RmboostLabSettings
from configs.language_settings import AskFitSettings, DpoFitSettings, SftFitSettings
from configs.load import models_in, presets
from configs.loop_settings import LoopSettings
from configs.model_settings import UNNAMED_MODEL, ModelSettings, RoleSettings
from configs.settings import CampaignSettings

PAGES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Campaigns: `descant run CONFIG`", "", CampaignSettings),
    ("Judging: `descant judge CONFIG`", "judge", JudgeSettings),
    ("Benchmarks of assistants: `descant evaluate mtbench CONFIG`", "benchmark", BenchmarkSettings),
    ("Reward models: `descant fit reward CONFIG`", "fit", RewardFitSettings),
    ("Models of the user: `descant fit ask CONFIG`", "fit", AskFitSettings),
    ("Models of the assistant: `descant fit sft CONFIG`", "fit", SftFitSettings),
    ("Preference optimisation: `descant fit dpo CONFIG`", "fit", DpoFitSettings),
    ("Simulators that learn in rounds: `descant loop CONFIG`", "loop", LoopSettings),
    ("Labs: `descant lab music`", "lab", MusicLabSettings),
    ("Labs: `descant lab parrot`", "lab", ParrotLabSettings),
    ("Labs: `descant lab rmboost`", "lab", RmboostLabSettings),
)


def page() -> str:
    """The whole Markdown page."""
    parts = [
        "# Settings",
        "Written from the code by `python -m configs.describe`; a test keeps this page true. A config is a YAML file "
        "with these keys, or a preset's name; `--set key.path=value` overrides one, and a list's items are counted "
        "from 0 (`models.judges.0.model`).",
    ]
    seen: set[type[BaseModel]] = set()  # what several pages hold stands on the first
    for title, folder, kind in PAGES:
        objective = kind.model_fields["objective"].default if folder == "fit" else None
        names = presets(folder, objective=objective)
        parts += [f"## {title}", f"Presets: {', '.join(f'`{name}`' for name in names)}."]
        parts += _tables(kind, seen)
    return "\n\n".join(parts) + "\n"


def _tables(kind: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """A table for a settings class, then one for each class that its fields hold."""
    seen.add(kind)
    rows = ["| key | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {_default(name, field, kind)} | {_meaning(field)} |" for name, field in kind.model_fields.items()
    ]
    yield f"### {kind.__name__}"
    yield (kind.__doc__ or "").strip().replace("\n    ", "\n")
    yield "\n".join(rows)
    for field in kind.model_fields.values():
        for inner in models_in(field.annotation):
            if inner not in seen:
                yield from _tables(inner, seen)


def _default(name: str, field: FieldInfo, kind: type[BaseModel]) -> str:
    """What holds where nothing is set; of a role's model that is what holds where `default` sets nothing either."""
    if kind is RoleSettings and name == "model":
        return f"`{UNNAMED_MODEL}`"
    if kind is RoleSettings and name in ModelSettings.model_fields:
        field = ModelSettings.model_fields[name]
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, BaseModel) or (isinstance(value, tuple) and any(isinstance(v, BaseModel) for v in value)):
        return f"see {'RoleSettings' if isinstance(value, tuple) else type(value).__name__}"
    return "`null`" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"


def _meaning(field: FieldInfo) -> str:
    held = ", ".join(inner.__name__ for inner in models_in(field.annotation))
    text = field.description or (f"See {held}." if held else "")
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    print(page(), end="")
