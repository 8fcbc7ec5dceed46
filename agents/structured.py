"""Reading the one JSON object that a prompt asked for, out of what a model wrote."""

import json
from typing import Any

from agents.failures import ProviderError


def read_json(text: str, **fields: type | tuple[type, ...]) -> dict[str, Any]:
    """The first JSON object in `text` that has all `fields` with their types; text around it is passed over.

    True and false are no numbers here. A text may hold line breaks as they are, which JSON forbids and models write.

    Raises:
        ProviderError: of kind `invalid_schema`, when there is none.
    """
    decoder = json.JSONDecoder(strict=False)
    start = text.find("{")
    while start != -1:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # a model that repeats itself nests, or counts, without end
            value = None
        if isinstance(value, dict) and all(_is_a(value.get(name), kind) for name, kind in fields.items()):
            return value
        start = text.find("{", start + 1)
    wanted = ", ".join(f"{name} ({_name(kind)})" for name, kind in fields.items())
    raise unreadable(f"no JSON object with {wanted} in the answer {text[:80]!r}")


def unreadable(problem: str) -> ProviderError:
    """What is wrong with an answer that says nothing usable."""
    return ProviderError("invalid_schema", problem)


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (not isinstance(value, bool) or kind is bool)


def _name(kind: type | tuple[type, ...]) -> str:
    return "number" if isinstance(kind, tuple) else kind.__name__
