"""Keys: looked up by name, and kept out of everything that is written or shown.

A key is used at the moment of the call and nowhere else. Servers sometimes echo keys in error bodies, so
every text that leaves a call (responses, errors, log lines) passes a `Redactor` first.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from configs.errors import DescantError
from configs.model_settings import LOOKS_LIKE_A_KEY

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
KEY_NAME = re.compile(r"_API_KEY$")
"""Variables that LiteLLM takes keys from by itself."""
SHORTEST_GUESSED_SECRET = 12
"""Shorter environment values (`PASSWORD=test`) are words of ordinary text; a key that a config names is always hidden."""


MARKS_OF_KEYS = ("k-", "k_", "hf-", "hf_", "xai-", "xai_", "AIza", "Bearer ")
"""One of them stands in all that looks like a key; to look for them first is twenty times faster than the pattern."""


class KeyMissingError(DescantError):
    """Raised here: a config names an environment variable that is not set, or holds no key."""


def read_key(reference: str) -> str:
    """The value behind `env:NAME`."""
    name = reference.removeprefix("env:")
    value = os.environ.get(name)
    if not value:
        raise KeyMissingError(f"the environment variable {name} is not set or empty: export {name}=... and run again")
    if not value.isprintable():
        raise KeyMissingError(
            f"the environment variable {name} holds a line break or another character that no HTTP header takes: export it "
            "without, and run again"
        )
    return value


class Redactor:
    """Replaces known secrets, and what looks like a key, by a mark."""

    def __init__(self, named: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
        """`named`: references (`env:NAME`) that the config uses."""
        environment = os.environ if environment is None else environment
        used = {reference.removeprefix("env:") for reference in named}
        secrets = {
            form
            for name, value in environment.items()
            if value and (name in used or KEY_NAME.search(name) or _is_guessed_secret(name, value))
            for form in _forms_of(value)
        }
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "[redacted]")
        if any(mark in text for mark in MARKS_OF_KEYS):
            text = LOOKS_LIKE_A_KEY.sub("[redacted]", text)
        return text


def _is_guessed_secret(name: str, value: str) -> bool:
    return bool(SECRET_NAME.search(name)) and len(value) >= SHORTEST_GUESSED_SECRET


def _forms_of(secret: str) -> set[str]:
    """A secret as servers echo it: plain, percent-encoded, in base64."""
    return {secret, quote(secret), quote(secret, safe=""), b64encode(secret.encode()).decode().rstrip("=")}
