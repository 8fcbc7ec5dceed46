"""The rehearsal over real HTTP on loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from agents.commands import serve
from agents.rehearsal.backend import complete
from agents.rehearsal.server import ServerError, ServerSettings, key_from, serving

CLIENT = httpx.Client(trust_env=False, timeout=10.0)
MESSAGES = [{"role": "user", "content": "Call me Ilse. Belo is red, big and old. What is its size?"}]


def post(base: str, **body: Any) -> httpx.Response:
    body = {"model": "default", "messages": MESSAGES, **body}
    return CLIENT.post(f"{base}/chat/completions", json=body)


def get(address: str, **kwargs: Any) -> httpx.Response:
    return CLIENT.get(address, **kwargs)


def test_the_same_request_gets_the_same_text_as_in_process() -> None:
    parameters = {"temperature": 0.7, "seed": 5, "max_tokens": 64, "mistake_rate": 0.5}
    with serving() as base:
        for seed in range(10):
            body = post(base, **{**parameters, "seed": seed}).json()
            done = complete("rehearsal/default", MESSAGES, {**parameters, "seed": seed})
            assert body["choices"][0]["message"] == {"role": "assistant", "content": done.content}
            assert body["usage"]["total_tokens"] == done.prompt_tokens + done.completion_tokens


def test_models_and_health_are_listed() -> None:
    with serving() as base:
        assert "default" in [row["id"] for row in get(f"{base}/models").json()["data"]]
        assert get(f"{base.removesuffix('/v1')}/health").json()["status"] == "ok"


def test_a_stream_brings_the_same_text_as_events() -> None:
    with serving() as base:
        lines = [line.removeprefix("data: ") for line in post(base, stream=True, seed=2).text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    pieces = [json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert "".join(pieces) == complete("default", MESSAGES, {"seed": 2}).content


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "clever"}, 404, "model_not_found"),
        ({"mistake_rate": 7}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": "hello"}, 400, "invalid_request_error"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_request_error"),
    ],
)
def test_bad_requests_get_an_error_in_openai_form(body: dict[str, Any], status: int, code: str) -> None:
    with serving() as base:
        response = post(base, **body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_body_that_is_not_json_is_a_bad_request() -> None:
    with serving() as base:
        assert CLIENT.post(f"{base}/chat/completions", content=b"{").status_code == 400


def test_a_key_is_asked_for_when_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEARSAL_TEST_KEY", "planted-key")
    with serving(api_key=key_from("env:REHEARSAL_TEST_KEY")) as base:
        assert post(base).status_code == 401
        right = {"Authorization": "Bearer planted-key"}
        assert get(f"{base}/models", headers=right).status_code == 200
        assert get(f"{base}/models", headers={"Authorization": "Bearer nö".encode()}).status_code == 401
    with pytest.raises(ServerError, match="env:NAME"):
        key_from("planted-key")


def test_faults_come_at_the_rate_and_order_of_their_seed_and_a_retry_passes(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    settings = ServerSettings(fault_rate=0.4, random_seed=1, slow_ms=1.0, log=str(log))

    def outcomes() -> list[str]:
        seen = []
        with serving(settings) as base:
            for number in range(60):
                try:
                    response = post(base, seed=number)
                    seen.append(str(response.status_code))
                    if response.status_code == 429:
                        assert response.headers["retry-after"] == "1"
                    if response.status_code == 200:
                        response.json()
                except json.JSONDecodeError:
                    seen[-1] = "truncated"
                except httpx.TransportError:
                    seen.append("reset")
        return seen

    first = outcomes()
    assert first == outcomes()
    assert {"200", "429", "500", "502", "truncated", "reset"} <= set(first)
    rows = [json.loads(line) for line in log.read_text().splitlines()][:60]
    assert {row["fault"] for row in rows} >= {"slow", None}
    assert [row["request"]["seed"] for row in rows] == list(range(60))
    assert "planted" not in log.read_text()


def test_latency_is_waited_for() -> None:
    with serving(ServerSettings(latency_ms=80.0)) as base:
        started = time.monotonic()
        post(base)
        assert time.monotonic() - started >= 0.08


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(serve, ["rehearsal", "--port", str(port)])
    assert isinstance(result.exception, ServerError)
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port" in str(result.exception)


def test_a_log_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="name another file"),
        serving(ServerSettings(log=str(tmp_path / "no" / "log"))),
    ):
        pass


def test_the_command_says_when_it_is_ready_and_what_to_paste() -> None:
    code = "from agents.commands import serve; serve(['rehearsal', '--port', '0'])"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        try:
            ready, pasted = process.stderr.readline(), process.stderr.readline()
            base = ready.split()[-1]
            assert get(f"{base}/models").status_code == 200
            assert f'api_base: "{base}"' in pasted
        finally:
            process.terminate()


def test_the_commands_load_nothing_heavy() -> None:
    code = "import sys, agents.commands; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"litellm", "torch", "uvicorn", "starlette", "pydantic", "duckdb"} & set(eval(loaded))
