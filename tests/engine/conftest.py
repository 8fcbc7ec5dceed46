"""A real vLLM engine on the CPU, started once for all tests that ask for it."""

import importlib.util
from collections.abc import Iterator

import pytest

from benchmarks.tiny_vllm import make_tiny_causal_lm, serve
from configs.model_settings import Endpoint


@pytest.fixture(scope="session")
def vllm() -> None:
    """Skips where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: `make test` installs it")


@pytest.fixture(scope="session")
def vllm_server(vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:  # noqa: ARG001
    """A tiny Gemma-2 behind vLLM's OpenAI server: `.api_base` and `.model`."""
    folder = tmp_path_factory.mktemp("vllm")
    with serve(make_tiny_causal_lm(folder / "tiny"), log=folder / "vllm.log") as server:
        yield server
