"""Reading the one JSON object that a prompt asked for, out of what a model wrote."""

import json
from typing import Any

from agents.providers import ProviderError


def read_json(text: str, **fields: type) -> dict[str, Any]:
    """The first JSON object in `text` that has all `fields` with their types; text around it is passed over.

    Raises:
        ProviderError: of kind `invalid_schema`, when there is none.
    """
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start != -1:
        try:
            value, _ = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):  # a model that repeats itself nests without end
            value = None
        if isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in fields.items()):
            return value
        start = text.find("{", start + 1)
    wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
    raise ProviderError("invalid_schema", f"no JSON object with {wanted} in the answer {text[:80]!r}")
