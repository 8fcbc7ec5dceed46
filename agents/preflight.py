"""What can be known to be wrong with a model before the first call: provider, key, address."""

import os
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from agents.direct import takes_directly
from agents.providers import load_litellm
from agents.rehearsal.backend import MODELS, PREFIX
from agents.secrets import KeyMissingError, read_key
from agents.transport import is_rehearsed
from configs.errors import DescantError
from configs.model_settings import ModelSettings

CONNECT_SECONDS = 5.0
NO_ADDRESS_OF_ITS_OWN = {"hosted_vllm": "HOSTED_VLLM_API_BASE"}
"""Providers that are a server of the user's: LiteLLM would send to OpenAI's address without one."""
KEY_AT_ANY_ADDRESS = ("anthropic",)
"""Providers whose clients refuse to send without a key, to a local server too."""


class PreflightError(DescantError):
    """Raised here: no call to this model could succeed."""


def check(models: Iterable[ModelSettings]) -> None:
    """Raise the first thing that is wrong; nothing is sent but one TCP handshake for each `api_base`.

    Raises:
        PreflightError: an unknown provider, or an address where nobody answers.
        NotDirectError: `transport: direct` for a model that cannot be reached so.
        KeyMissingError: the provider needs a key that is not in the environment.
    """
    reached = set()
    for settings in models:
        _check_provider(settings)
        if settings.api_base and settings.api_base not in reached:
            _check_address(settings.api_base)
            reached.add(settings.api_base)


def _check_provider(settings: ModelSettings) -> None:
    if settings.checkpoint is not None:
        raise PreflightError(
            f"nobody serves the checkpoint {settings.checkpoint!r}: `descant run`, `descant judge` and `descant evaluate` do "
            "while they run; elsewhere start it with `descant serve`, and name model and api_base in its place"
        )
    if is_rehearsed(settings):
        _check_references(settings)
        _check_rehearsal(settings.model)
        return
    if takes_directly(settings):  # which says so where it is told to and cannot be
        _check_references(settings)
        return  # such an endpoint may do without a key, and loading LiteLLM takes seconds
    litellm = load_litellm()
    try:
        _, provider, *_ = litellm.get_llm_provider(settings.model)
    except litellm.BadRequestError as error:
        raise PreflightError(
            f"unknown model provider in {settings.model!r}: write provider/model as LiteLLM does, "
            "for example 'openai/gpt-4o', 'hosted_vllm/my-model' or 'rehearsal/default'"
        ) from error
    address_variable = NO_ADDRESS_OF_ITS_OWN.get(provider)
    if address_variable and not settings.api_base and not os.environ.get(address_variable):
        raise PreflightError(
            f"model {settings.model!r} is served by you, and no api_base says where: "
            "set api_base where this model is named (under models.default, .user, .judges.0, ...), for example to "
            "http://127.0.0.1:8000/v1"
        )
    _check_references(settings)
    if provider == "rehearsal":
        _check_rehearsal(settings.model)
    if settings.api_key or (settings.api_base and provider not in KEY_AT_ANY_ADDRESS):
        return
    needed = litellm.validate_environment(settings.model)
    # without its other names: a cloud's credentials may also come from a profile or from the machine
    keys = [name for name in needed["missing_keys"] if name.endswith("_API_KEY")]
    if not needed["keys_in_environment"] and keys:
        raise KeyMissingError(
            f"model {settings.model!r} needs a key: export {' or '.join(keys)}, or name a variable with api_key: env:NAME"
        )


def _check_references(settings: ModelSettings) -> None:
    for reference in [settings.api_key, *settings.headers.values()]:
        if reference:
            read_key(reference)


def _check_rehearsal(model: str) -> None:
    if model.removeprefix(PREFIX) not in MODELS:
        raise PreflightError(
            f"unknown rehearsal model {model!r}: the models are {', '.join(PREFIX + name for name in MODELS)}"
        )


def _check_address(api_base: str) -> None:
    parts = urlsplit(api_base)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise PreflightError(
            f"nobody answers at {api_base!r} ({error.strerror or error}): start the server, or mend api_base"
        ) from error
