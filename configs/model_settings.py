"""Which model plays a role, and how it is reached: part of a campaign's and a judging's settings.

Settings hold no secrets: a key is named (`env:NAME`), never written.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator

from configs.base import Settings

SECRET_PARAMETER = re.compile(
    r"secret|passw|passphrase|credential|authorization|^key$|(?:api|access|private|session|auth)_?key$"
    r"|(?<!cost_per)(?:^|_)token$",
    re.IGNORECASE,
)
"""Names under which secrets travel; `max_tokens` and `input_cost_per_token` are none."""
LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|hf|xai)[-_]|AIza)(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{12,}"
    r"|(?<=Bearer )(?=[A-Za-z._~+/=-]*\d)[A-Za-z0-9._~+/=-]{8,}"
)
"""With a digit, as keys have them: `hf_hub_download_file` and `pk_customer_orders` are words of ordinary answers."""
OWN_SETTINGS = frozenset(
    (
        "api_key",
        "api_base",
        "base_url",
        "extra_headers",
        "headers",
        "model",
        "messages",
        "stream",
        "timeout",
        "drop_params",
    )
)
"""Of a role, or of what we send for it: not taken among `params` too."""
SENDS_BY_ITSELF = frozenset(
    (
        *("num_retries", "max_retries", "retry_policy", "retry_strategy", "fallbacks", "default_fallbacks"),
        *("context_window_fallback_dict", "context_window_fallbacks", "content_policy_fallbacks"),
    )
)
"""Words that make LiteLLM ask again, or ask another model."""
UNNAMED_MODEL = "rehearsal/default"
"""What plays a role that no config names a model for."""
MOST_TOKENS = 10**9
"""No answer has more."""
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")
"""Words under `params` that bound an answer, whichever a provider goes by: budgets hold the largest."""
NUMBERS = ("n", "best_of")
"""And those that ask for several."""
Role = Literal["user", "assistant", "perturbation", "judge"]
Transport = Literal["auto", "direct", "litellm"]
KEY_FIELDS = ("api_key", "headers")
ENDPOINT_FIELDS = ("model", "checkpoint", "api_base", *KEY_FIELDS, "params", "price", "transport", "rpm", "tpm")


class Endpoint(NamedTuple):
    """Where a checkpoint that is being served answers."""

    api_base: str
    model: str
    """The name that the server gives it, which tells its weights: the fit's name and the beginning of its id."""
    api_key: str | None = None
    """`env:NAME` where the server asks for a key."""

    @property
    def litellm_model(self) -> str:
        return f"hosted_vllm/{self.model}"


class PriceSettings(Settings):
    """What a model's tokens cost, in dollars a million."""

    input: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """Of the prompt."""
    output: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    """Of the answer."""
    cached: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    """Of the part of a prompt that the provider found in its cache, and says so; null: as `input`."""


class RoleSettings(Settings):
    """One role's model. What a role leaves out falls back on `models.default`; the defaults here hold where that leaves it out too.

    A role that names its own `model` or `checkpoint` inherits neither of the two, nor `api_base`, `api_key`, `headers`,
    `params`, `price`, `transport`, `rpm` and `tpm`: they belong to the endpoint, and a key must not travel to another
    one. Nor does one that names only its own `api_base` inherit `api_key` and `headers`.
    """

    model: str | None = None
    """A LiteLLM model string, such as `openai/gpt-4o`, `hosted_vllm/my-model` or `rehearsal/default`."""
    checkpoint: str | None = None
    """In place of `model` and `api_base`: a language model on this machine (a fit's folder such as `fits/ask`, or a Hugging Face folder), which vLLM serves for as long as the campaign runs."""
    api_base: str | None = None
    """The endpoint's address, without user or query."""
    api_key: str | None = None
    """`env:NAME`: the environment variable that holds the key. Null leaves it to LiteLLM's own variables."""
    headers: dict[str, str] | None = None
    """Extra HTTP headers; each value is `env:NAME`, since headers often carry secrets."""
    temperature: Annotated[float, Field(ge=0.0)] | None = None
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Nucleus sampling; null sends nothing."""
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=MOST_TOKENS)] | None = None
    """Completion tokens at most."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] | None = None
    """For one attempt, from sending to the whole answer."""
    attempts: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Tries in all when the failure is of a kind that passes (429, 5xx, time-out, lost connection)."""
    system_role: Literal["fold", "native"] | None = None
    """`fold` puts system text into the first user message (Gemma's template has no system role); `native` sends it as is."""
    json_schema: bool | None = None
    """Send the schema of the JSON object that some prompts ask for (`boost`, and the judges' comparisons), for providers that hold their models to it; false asks in words alone (our default, which every provider takes)."""
    params: dict[str, Any] | None = None
    """Anything else LiteLLM takes."""
    price: PriceSettings | None = None
    """What its tokens cost, in dollars a million: `{input: 0.15, output: 0.60}`; null takes LiteLLM's price, if it has one. Budgets in dollars need it, reports tell by it."""
    transport: Transport | None = None
    """How requests travel. `direct`: posted to an OpenAI-compatible endpoint (`hosted_vllm/...`, or `openai/...` with an api_base) on connections of our own, at a tenth of LiteLLM's work. `litellm`: through LiteLLM, to any provider. `auto`: directly where that is the same, else through LiteLLM (our default)."""
    rpm: Annotated[float, Field(gt=0.0)] | None = None
    """Requests a minute that the endpoint takes, retries included; null leaves it to the limiter, which learns from its 429s. Roles that share an endpoint share the lowest."""
    tpm: Annotated[float, Field(gt=0.0)] | None = None
    """Tokens a minute that the endpoint takes, prompt and completion together; null as for `rpm`."""

    @field_validator("api_key")
    @classmethod
    def _key_by_name(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("env:"):
            raise ValueError("a key is never written into a config: export it and write `env:NAME`")
        return value

    @field_validator("headers")
    @classmethod
    def _headers_by_name(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, content in (value or {}).items():
            if not content.startswith("env:"):
                raise ValueError(f"header {name!r}: write `env:NAME`, since header values often are secrets")
        return value

    @field_validator("api_base")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if "@" in value or parts.query or parts.fragment:
            raise ValueError(
                "an api_base with a user, a query or a fragment is refused: pass keys as `api_key: env:NAME`"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # a wrong port raises
            raise ValueError(f"{value!r} is not an http(s) address: write for example 'http://127.0.0.1:8000/v1'")
        return value

    @field_validator("params")
    @classmethod
    def _no_secret_params(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        given = dict(value or {})
        extra = given.get("extra_body")
        for name, content in [*given.items(), *(extra.items() if isinstance(extra, dict) else ())]:
            if name in OWN_SETTINGS:
                raise ValueError(f"params.{name} is refused: use the setting of the role itself")
            if name in SENDS_BY_ITSELF:
                raise ValueError(
                    f"params.{name} is refused: requests that LiteLLM sends by itself would pass budgets and limits"
                )
            is_count = type(content) is int and 1 <= content <= MOST_TOKENS
            if name in (*LENGTHS, *NUMBERS) and content is not None and not is_count:
                raise ValueError(f"params.{name} is a whole number from 1 to {MOST_TOKENS}")
            if name == "max_tokens" and content is None and not given.get("max_completion_tokens"):
                raise ValueError(
                    "params.max_tokens is null, and nothing else bounds an answer: give params.max_completion_tokens"
                )
        for name, content in _leaves_of(value):
            _refuse_what_json_lacks(name, content)
            if SECRET_PARAMETER.search(name) or (isinstance(content, str) and LOOKS_LIKE_A_KEY.search(content)):
                raise ValueError(f"params.{name} is refused, since params are stored: export it as LiteLLM's variable")
        return value

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        for name in self.params or {}:
            if self.price is not None and name in ("input_cost_per_token", "output_cost_per_token"):
                raise ValueError(f"price and params.{name} are both given: drop the latter")
        return self

    @model_validator(mode="after")
    def _checkpoint_or_endpoint(self) -> Self:
        if self.checkpoint is not None:
            for name in ("model", "api_base", *KEY_FIELDS):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"checkpoint and {name} are both given: a checkpoint is served on this machine; drop one of the two"
                    )
        return self


def _refuse_what_json_lacks(name: str, value: Any) -> None:
    """What requests are made of, and are known again by."""
    is_number = type(value) is float and math.isfinite(value)
    is_whole = type(value) is int and -(2**63) <= value < 2**64
    if not (value is None or is_number or is_whole or isinstance(value, str | bool | dict | list)):
        what = "a whole number over 64 bits" if type(value) is int else f"no JSON ({type(value).__name__})"
        raise ValueError(f"params.{name} is {what}, which no request can carry: write it as a text, or leave it out")


def _canonical(address: str) -> str:
    """An address without what makes no difference: a slash at its end, capitals of its host, the usual port."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    where = host if port in (None, usual) else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"


def _leaves_of(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested mappings with its value, and every item of lists under their list's name."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
            yield from _leaves_of(item, str(key))
    elif isinstance(value, list):
        for item in value:
            yield name, item
            yield from _leaves_of(item, name)


class ModelSettings(Settings):
    """One role's model with nothing left open: what a call is made from."""

    model: str
    checkpoint: str | None = None
    """One that plays the role and is not served: it has to be before a call can be made."""
    api_base: str | None = None
    api_key: str | None = None
    headers: dict[str, str] = Field(default={})
    temperature: float = 0.7
    top_p: float | None = None
    max_tokens: int = 512
    timeout_seconds: float = 120.0
    attempts: int = 5
    system_role: Literal["fold", "native"] = "fold"
    json_schema: bool = False
    params: dict[str, Any] = Field(default={})
    price: PriceSettings | None = None
    transport: Transport = "auto"
    rpm: float | None = None
    tpm: float | None = None

    @property
    def endpoint(self) -> tuple[str, str | None]:
        """Model and address, the same for every way to write an address."""
        return self.model, None if self.api_base is None else _canonical(self.api_base)

    def sampling(self) -> dict[str, Any]:
        """What changes the text that comes back: part of a campaign's identity; endpoint and patience are not."""
        shape = self.model_dump(include={"model", "temperature", "top_p", "max_tokens", "system_role", "params"})
        return shape | {"json_schema": True} if self.json_schema else shape


class ModelsSettings(Settings):
    """The models by role."""

    default: RoleSettings = RoleSettings()
    """What every role falls back on. Real seeds want a model here or in each role; only `format: rehearsal` does without."""
    user: RoleSettings = RoleSettings()
    """The user simulator."""
    assistant: RoleSettings = RoleSettings()
    """The system under test."""
    perturbation: RoleSettings = RoleSettings()
    """Who writes altered instructions, and RMBoost's second answers."""
    judges: Annotated[tuple[RoleSettings, ...], Field(min_length=1)] = (RoleSettings(),)
    """Who verifies perturbations (the first), and compares conversations or two answers (all)."""

    _endpoints: dict[str, Endpoint] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _an_address_is_no_checkpoint_s(self) -> Self:
        if self.default.checkpoint is not None:
            named = {"user": self.user, "assistant": self.assistant, "perturbation": self.perturbation}
            for name, own in [*named.items(), *((f"judges.{n}", judge) for n, judge in enumerate(self.judges))]:
                if own.model is None and (own.api_base or own.api_key or own.headers):
                    raise ValueError(
                        f"{name} has an endpoint of its own and no model, and default names a checkpoint: name its model"
                    )
        return self

    def served(self, endpoints: Mapping[str, Endpoint]) -> Self:
        """The same models with the places where their checkpoints answer, which are never stored."""
        found = self.model_copy()
        found._endpoints = dict(endpoints)
        return found

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Where checkpoints answer, by their folders as the config names them."""
        return self._endpoints

    def is_named(self, role: Role, index: int = 0) -> bool:
        """Whether the config says which model plays a role, itself or through `default`."""
        return any(
            named is not None for own in (self._own(role, index), self.default) for named in (own.model, own.checkpoint)
        )

    def named_at(self, role: Role, index: int = 0) -> str:
        """Where the config names the model that plays a role, and what belongs to it: `models.user`, or `models.default`."""
        own = self._own(role, index)
        if own.model is None and own.checkpoint is None:
            return "models.default"
        return f"models.judges.{index}" if role == "judge" else f"models.{role}"

    def checkpoint_of(self, role: Role, index: int = 0) -> str | None:
        """The checkpoint that plays a role, its own or the one of `default`; null where a model does."""
        own = self._own(role, index)
        return own.checkpoint if own.model or own.checkpoint else self.default.checkpoint

    def of(self, role: Role, index: int = 0) -> ModelSettings:
        """The settings of a role, with what it leaves open taken from `default`; a model that nobody names is the rehearsal.

        Where a checkpoint plays it that is not served, they say which, and no call can be made from them.
        """
        own = self._own(role, index)
        given = own.model_dump(exclude_none=True)
        inherited = self.default.model_dump(exclude_none=True)
        named = {"model", "checkpoint"} & given.keys()
        kept_back = ENDPOINT_FIELDS if named else KEY_FIELDS if "api_base" in given else ()
        inherited = {key: value for key, value in inherited.items() if key not in kept_back}
        found = {"model": UNNAMED_MODEL} | inherited | given
        checkpoint = found.get("checkpoint")
        if checkpoint in self._endpoints:
            endpoint = self._endpoints[checkpoint]
            served = {"model": endpoint.litellm_model, "api_base": endpoint.api_base, "api_key": endpoint.api_key}
            found |= {**served, "checkpoint": None}
        elif checkpoint is not None:
            found["model"] = checkpoint
        return ModelSettings(**found)

    def _own(self, role: Role, index: int) -> RoleSettings:
        own: RoleSettings = self.judges[index] if role == "judge" else getattr(self, role)
        return own
