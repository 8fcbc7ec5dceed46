"""From a YAML file or a preset's name, and `--set key=value`, to validated settings.

The only place where a config is checked: after it nobody checks again. Every mistake becomes one line
that names the key by its path and says what to do.
"""

import difflib
import types
import typing
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from configs.errors import DescantError
from configs.model_settings import ENDPOINT_FIELDS, KEY_FIELDS

SettingsType = TypeVar("SettingsType", bound=BaseModel)


class ConfigError(DescantError):
    """Raised here: a config that cannot be found, read or understood."""


def load(source: str, kind: type[SettingsType], *, overrides: Sequence[str] = (), folder: str = "") -> SettingsType:
    """Read settings of type `kind` from a YAML file or a preset.

    A file may hold `variants`: named sets of keys, of which `--set variant=NAME` lays one over the file, beneath all
    other overrides.

    Args:
        source: a path, or the name of a preset in `configs/presets/<folder>` (for "fit" in `configs/recipes` too).
        overrides: `key.path=value` strings; the value is read as YAML.
        folder: which presets belong to `kind` ("" for campaigns, "fit" for trainings).
    """
    return validate(read(source, overrides=overrides, folder=folder), kind, where=source)


def read(source: str, *, overrides: Sequence[str] = (), folder: str = "") -> dict[str, Any]:
    """The keys of a YAML file or a preset as plain data, the overrides in their place; `load` says what the arguments are."""
    data = _read_yaml(_find(source, folder), where=source)
    chosen = [override for override in overrides if override.partition("=")[0].strip() == "variant"]
    data = _with_variant(data, chosen, where=source)
    for override in overrides:
        if override not in chosen:
            _override(data, override)
    return data


def laid_over(
    under: dict[str, Any], source: str | None, *, overrides: Sequence[str] = (), folder: str = ""
) -> dict[str, Any]:
    """Keys that are there, those of a YAML file or a preset laid over them, then the overrides; mappings key by key.

    A role that is given a model or a checkpoint of its own keeps nothing of the endpoint that it had, and one that is given
    another address no key.
    """
    over = read(source, folder=folder) if source is not None else {}
    data = _laid_over(_without_left_endpoints(under, over, overrides), over)
    for override in overrides:
        _override(data, override)
    return data


def _without_left_endpoints(under: dict[str, Any], over: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The keys without the endpoints of roles that are given others."""
    named = {tuple(override.partition("=")[0].strip().split(".")) for override in overrides}
    roles = over.get("models")
    for role, own in roles.items() if isinstance(roles, dict) else ():
        named |= {("models", role, key) for key in own} if isinstance(own, dict) else set()
    models = dict(under.get("models") or {})
    for path in sorted(named):
        if len(path) < 3 or path[0] != "models" or path[-1] not in ("model", "checkpoint", "api_base"):
            continue
        left = KEY_FIELDS if path[-1] == "api_base" else ENDPOINT_FIELDS
        role = models.get(path[1])
        if isinstance(role, dict):
            models[path[1]] = {key: value for key, value in role.items() if key not in left}
        elif isinstance(role, list):
            models[path[1]] = [
                {key: value for key, value in judge.items() if key not in left} if str(place) == path[2] else judge
                for place, judge in enumerate(role)
            ]
    return {**under, "models": models} if models else under


def _with_variant(data: dict[str, Any], chosen: Sequence[str], *, where: str) -> dict[str, Any]:
    """The file's keys, those of the chosen variant laid over them."""
    variants = data.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(keys, dict) for keys in variants.values()):
        raise ConfigError(f"{where}: variants: should be a mapping from a name to a mapping of keys")
    for override in chosen:
        name = override.partition("=")[2].strip()
        if name not in variants:
            known = f"its variants are {', '.join(variants)}" if variants else "it has none"
            raise ConfigError(f"--set variant={name}: {where} has no such variant; {known}")
        data = _laid_over(data, variants[name])
    return data


def _laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings key by key; anything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def validate(data: dict[str, Any], kind: type[SettingsType], *, where: str) -> SettingsType:
    """Settings from plain data; `where` opens the message of a ConfigError."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error, kind)}") from None


def presets(folder: str = "", *, objective: str | None = None) -> list[str]:
    """Names of the presets that come with Descant; of trainings, those with this `objective`."""
    found = _preset_files(folder)
    if objective is None:
        return sorted(found)
    return sorted(
        name
        for name, file in found.items()
        if _read_yaml(file.read_text("utf-8"), where=name).get("objective") == objective
    )


def _preset_files(folder: str) -> dict[str, Traversable]:
    """The presets of a kind by name: trainings stand in two folders, single ones and those with arms."""
    roots = [files("configs").joinpath("presets", *([folder] if folder else []))]
    roots += [files("configs").joinpath("recipes")] if folder == "fit" else []
    entries = (entry for root in roots for entry in root.iterdir())
    return {entry.name.removesuffix(".yaml"): entry for entry in entries if entry.name.endswith(".yaml")}


def _find(source: str, folder: str) -> str:
    """The text of the config."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or _is_file(path):  # a folder named like a preset hides none
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read config {source!r}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{source}: not a UTF-8 text file; a config is YAML") from error
    names = presets(folder)
    if source not in names:
        nearest = difflib.get_close_matches(source, names, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ConfigError(f"no preset or file {source!r}: {hint}the presets are {', '.join(names)}")
    return _preset_files(folder)[source].read_text("utf-8")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null byte: no path
        return False


def _read_yaml(text: str, *, where: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise ConfigError(f"{where}: not a config: it is nested too deeply") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = (getattr(error, "problem", None) or str(error).splitlines()[0]).split(" with value ")[0]
        raise ConfigError(f"{where}: not valid YAML: {line}{problem}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a config is a mapping of keys to values, not a {type(data).__name__}")
    return data


def _override(data: dict[str, Any], override: str) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path, separator, text = override.partition("=")
    path = path.strip()
    if not separator or not path:
        raise ConfigError(f"--set {override!r}: write it as key.path=value")
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"--set {path}: the value is not valid YAML") from error  # which may be a key: not shown
    here: Any = data
    keys = path.split(".")
    for depth, key in enumerate(keys[:-1]):
        below = _at(here, key, path)
        if below is None:
            below = [] if keys[depth + 1].isdigit() else {}
            _put(here, key, below, path)
        elif not isinstance(below, dict | list):
            raise ConfigError(f"--set {path}: {'.'.join(keys[: depth + 1])} is a value without keys of its own")
        here = below
    _put(here, keys[-1], value, path)


def _at(here: Any, key: str, path: str) -> Any:
    """What stands there; null for a key that is not there yet, or the place after a list's end."""
    if isinstance(here, dict):
        return here.get(key)
    place = _place(here, key, path)
    return here[place] if place < len(here) else None


def _put(here: Any, key: str, value: Any, path: str) -> None:
    if isinstance(here, dict):
        here[key] = value
    else:
        place = _place(here, key, path)
        here[place : place + 1] = [value]


def _place(items: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) > len(items):
        raise ConfigError(f"--set {path}: {key!r} is no place in a list of {len(items)}; places start at 0")
    return int(key)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line for the first wrong key, and how many more there are."""
    by_key: dict[str, list[str]] = {}
    for detail in _relevant(error.errors()):
        path, message = _describe(detail, kind)
        messages = by_key.setdefault(path, [])
        if message not in messages:
            messages.append(message)
    path, messages = next(iter(by_key.items()))
    more = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
    return f"{path}: {' or '.join(messages)}{more}" if path else " or ".join(messages) + more


def _relevant(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Unknown keys first, and without what a union's other members said: a mapping was meant as one, a scalar too."""
    meant_for = [
        detail
        for detail in details
        if isinstance(detail["input"], dict) == (detail["type"] in ("model_type", "dict_type", "value_error"))
        or detail["type"] in ("extra_forbidden", "missing")
    ]
    return sorted(meant_for or details, key=lambda detail: detail["type"] != "extra_forbidden")


def _describe(detail: ErrorDetails, kind: type[BaseModel]) -> tuple[str, str]:
    """The key's path as the user wrote it, and what is wrong with it."""
    path: list[str] = []
    models: list[type[BaseModel]] = [kind]
    for step in detail["loc"]:
        fields = [model.model_fields[step] for model in models if isinstance(step, str) and step in model.model_fields]
        if fields:
            models = [m for field in fields for m in models_in(field.annotation)]
            path.append(str(step))
        elif isinstance(step, int) or (step == detail["loc"][-1] and detail["type"] == "extra_forbidden"):
            path.append(str(step))
    dotted = ".".join(path)
    if detail["type"] == "extra_forbidden":
        allowed = sorted({name for model in models for name in model.model_fields})
        key = str(detail["loc"][-1])
        nearest = difflib.get_close_matches(key, allowed, n=1)
        nearest += [name for name in allowed if key in name.split("_") and name not in nearest]
        hint = (
            f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"the keys here are {', '.join(allowed)}"
        )
        return dotted, f"unknown key; {hint}"
    if detail["type"] == "value_error":
        return dotted, detail["msg"].removeprefix("Value error, ")
    if detail["type"] in ("model_type", "dict_type"):
        keys = [name for model in models for name in model.model_fields]
        return dotted, "should be a mapping" + (f" with keys such as {', '.join(keys[:3])}" if keys else "")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    shown = repr(detail["input"])
    if detail["type"] == "literal_error" and models:
        message += f" or a mapping with {', '.join(models[-1].model_fields)}"
    if len(shown) > 60 or {"api_key", "headers", "params"} & set(path):  # never echo what may be a secret
        return dotted, message
    return dotted, f"{message}, but it is {shown}"


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """All settings classes that an annotation can hold."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in models_in(part)]
