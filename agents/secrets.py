"""Keys: looked up by name, and kept out of everything that is written or shown.

A key is used at the moment of the call and nowhere else. Servers sometimes echo keys in error bodies, so
every text that leaves a call (responses, errors, log lines) passes a `Redactor` first.
"""

import os
import re
from collections.abc import Iterable, Mapping

from configs.errors import DescantError

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|hf|xai)[-_]|AIza)(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{12,}"
    r"|(?<=Bearer )(?=[A-Za-z._~+/=-]*\d)[A-Za-z0-9._~+/=-]{8,}"
)
"""With a digit, as keys have them: `hf_hub_download_file` and `pk_customer_orders` are words of ordinary answers."""
SHORTEST_GUESSED_SECRET = 12
"""Shorter environment values (`PASSWORD=test`) are words of ordinary text; a key that a config names is always hidden."""


class KeyMissingError(DescantError):
    """Raised here: a config names an environment variable that is not set."""


def read_key(reference: str) -> str:
    """The value behind `env:NAME`."""
    name = reference.removeprefix("env:")
    value = os.environ.get(name)
    if not value:
        raise KeyMissingError(f"the environment variable {name} is not set or empty: export {name}=... and run again")
    return value


class Redactor:
    """Replaces known secrets, and what looks like a key, by a mark."""

    def __init__(self, named: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
        """`named`: references (`env:NAME`) that the config uses."""
        environment = os.environ if environment is None else environment
        used = {reference.removeprefix("env:") for reference in named}
        secrets = {
            value
            for name, value in environment.items()
            if value and (name in used or (SECRET_NAME.search(name) and len(value) >= SHORTEST_GUESSED_SECRET))
        }
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "[redacted]")
        return LOOKS_LIKE_A_KEY.sub("[redacted]", text)
