"""What a start checks of models, and what it does not load for it."""

import subprocess
import sys
from typing import Any

import pytest

from agents.preflight import PreflightError, check
from agents.secrets import KeyMissingError
from configs.model_settings import ModelSettings
from tests.processes import ROOT
from tests.servers import scripted_server

PROBE = """
import sys
from agents.preflight import check
from agents.prices import price_of
from configs.model_settings import ModelSettings
models = [ModelSettings(model="rehearsal/default"), ModelSettings(model="hosted_vllm/x", api_base={url!r})]
models.append(ModelSettings(model="openai/x", api_base={url!r}, price={{"input": 1, "output": 2}}))
check(models)
for model in models:
    price_of(model)
print("litellm" in sys.modules)
"""


def test_models_that_go_the_direct_way_or_are_rehearsed_need_no_litellm() -> None:
    with scripted_server("hello") as server:
        probe = PROBE.format(url=server.url)
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"model": "rehearsal/nonsense"}, PreflightError, "unknown rehearsal model 'rehearsal/nonsense'"),
        ({"model": "hosted_vllm/x", "api_base": "http://127.0.0.1:1/v1"}, PreflightError, "nobody answers at"),
        (
            {"model": "hosted_vllm/x", "api_base": "http://127.0.0.1:1/v1", "api_key": "env:NO_SUCH_KEY"},
            KeyMissingError,
            "NO_SUCH_KEY",
        ),
        ({"model": "rehearsal/default", "headers": {"x": "env:NO_SUCH_KEY"}}, KeyMissingError, "NO_SUCH_KEY"),
    ],
)
def test_what_is_wrong_with_them_is_found_all_the_same(
    given: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(error, match=said):
        check([ModelSettings(**given)])
