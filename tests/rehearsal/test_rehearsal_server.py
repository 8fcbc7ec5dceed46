"""The rehearsal over real HTTP on loopback."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner

from agents.commands import serve
from agents.rehearsal.backend import complete
from agents.rehearsal.faults import FAULTS, LASTING, Fault, drawn
from agents.rehearsal.request_log import LogError, call_key, read_log
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


IMPATIENT = 0.3
"""Seconds that a client waits for a server that never answers."""


def met(base: str, **body: Any) -> str:
    """What a client sees of one request."""
    try:
        response = CLIENT.post(
            f"{base}/chat/completions", json={"model": "default", "messages": MESSAGES, **body}, timeout=IMPATIENT
        )
        whole = response.json()
    except httpx.ReadTimeout:
        return "nothing"
    except httpx.RemoteProtocolError:
        return "hung up"
    except httpx.TransportError:
        return "reset"
    except json.JSONDecodeError:
        return f"{response.status_code}, not JSON"
    if response.status_code != 200:
        return f"{response.status_code}, {whole['error']['code']}"
    try:
        choice, message = whole["choices"][0], whole["choices"][0]["message"]
        if message.get("refusal"):
            return "refusal"
        tokens = whole["usage"]["completion_tokens"]
        is_whole = isinstance(message["content"], str) and isinstance(tokens, int) and tokens >= 0
        return str(choice["finish_reason"]) if is_whole else "wrong shape"
    except (AttributeError, LookupError, TypeError):
        return "wrong shape"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("rate_limit", {"429, rate_limit_exceeded"}),
        ("server_error", {"500, server_error"}),
        ("bad_gateway", {"502, not JSON"}),
        ("unavailable", {"503, not JSON"}),
        ("timeout", {"nothing"}),
        ("reset", {"reset"}),
        ("hang_up", {"hung up"}),
        ("slow", {"stop"}),
        ("truncated", {"200, not JSON"}),
        ("empty_choices", {"wrong shape"}),
        ("invalid_schema", {"wrong shape"}),
        ("wrong_model", {"404, model_not_found", "404, 404"}),
        ("refusal", {"refusal"}),
        ("content_filter", {"content_filter"}),
        ("prompt_filter", {"400, content_filter"}),
        ("context_overflow", {"400, context_length_exceeded", "400, 400"}),
    ],
)
def test_each_fault_is_what_it_is_called(fault: Fault, seen: set[str]) -> None:
    with serving(ServerSettings(fault_rate=1.0, faults=(fault,), slow_ms=1.0)) as base:
        assert {met(base, seed=seed) for seed in range(2 if fault == "timeout" else 12)} == seen


def test_a_slow_drip_never_pauses_and_never_ends() -> None:
    with serving(ServerSettings(fault_rate=1.0, faults=("slow_drip",), drip_ms=30.0)) as base:
        started = time.monotonic()
        body = {"model": "default", "messages": MESSAGES}
        with CLIENT.stream("POST", f"{base}/chat/completions", json=body, timeout=IMPATIENT) as response:
            assert response.status_code == 200
            for received, piece in enumerate(response.iter_bytes()):
                assert piece.strip() == b""
                if received >= 20:
                    break
        assert time.monotonic() - started > 20 * 0.03 > IMPATIENT


def test_a_server_that_keeps_clients_waiting_can_be_stopped() -> None:
    with serving(ServerSettings(fault_rate=1.0, faults=("timeout",))) as base:
        address = urlsplit(base)
        body = json.dumps({"model": "default", "messages": MESSAGES})
        waiting = http.client.HTTPConnection(address.hostname or "", address.port)
        waiting.request("POST", "/v1/chat/completions", body)
        while get(f"{base.removesuffix('/v1')}/health").json()["requests"] == 0:
            pass
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 10.0  # the client waits two minutes
    waiting.close()


def test_a_stream_meets_only_faults_before_its_first_byte() -> None:
    with serving(ServerSettings(fault_rate=1.0, faults=("empty_choices", "refusal", "truncated"))) as base:
        assert all(post(base, stream=True, seed=seed).text.endswith("data: [DONE]\n\n") for seed in range(9))
    with serving(ServerSettings(fault_rate=1.0, faults=("server_error",))) as base:
        assert post(base, stream=True).status_code == 500


def test_faults_come_at_the_rate_and_order_of_their_seed_and_a_retry_passes(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    kinds = tuple(kind for kind in FAULTS if kind not in ("timeout", "slow_drip"))
    settings = ServerSettings(fault_rate=0.4, faults=kinds, random_seed=1, slow_ms=1.0, log=str(log))

    def outcomes() -> list[str]:
        with serving(settings) as base:
            return [met(base, seed=7) for _ in range(100)]

    first = outcomes()
    assert first == outcomes()
    assert first.count("stop") > 40
    assert len(set(first)) > 8
    rows = read_log(log)
    assert [row.number for row in rows] == [*range(1, 101)] * 2
    assert [row.fault for row in rows[:100]] == [row.fault for row in rows[100:]]
    assert 25 <= sum(row.fault is not None for row in rows[:100]) <= 55
    assert not {row.fault for row in rows} & set(LASTING)  # seed 7 is not one of those


def test_a_lasting_fault_is_met_again_whenever_and_wherever_the_same_is_asked(tmp_path: Path) -> None:
    def lasting(order: list[int], log: Path, random_seed: int = 1) -> dict[int, set[str | None]]:
        faults: dict[str, Any] = {"faults": (*LASTING, "server_error"), "lasting_share": 0.6}
        settings = ServerSettings(fault_rate=0.5, random_seed=random_seed, log=str(log), **faults)
        with serving(settings) as base:
            for seed in order:
                met(base, seed=seed)
        found: dict[int, set[str | None]] = {}
        for row in read_log(log):
            found.setdefault(row.request["seed"], set()).add(row.fault if row.fault in LASTING else None)
        return found

    asked = list(range(60))
    once = lasting(asked, tmp_path / "once")
    assert once == lasting([*reversed(asked), *asked, *asked], tmp_path / "thrice")
    assert once != lasting(asked, tmp_path / "other", random_seed=2)
    assert 8 <= sum(kinds != {None} for kinds in once.values()) <= 30  # 18 are expected
    assert {kind for kinds in once.values() for kind in kinds} == {None, *LASTING}


@pytest.mark.parametrize(("rate", "share"), [(0.3, 0.1), (0.3, 1.0), (0.0, 0.5), (1.0, 0.0), (1.0, 1.0), (0.6, 0.5)])
def test_the_rate_is_that_of_all_faults_and_the_share_that_of_lasting_ones(rate: float, share: float) -> None:
    chances = [(Random(2 * number), Random(2 * number + 1)) for number in range(4000)]
    found = [drawn(FAULTS, rate, share, of_request=one, of_arrival=other) for one, other in chances]
    faults = [fault for fault in found if fault is not None]
    assert len(faults) / len(found) == pytest.approx(rate, abs=0.03)
    if faults:
        assert sum(fault in LASTING for fault in faults) / len(faults) == pytest.approx(share, abs=0.04)


def test_a_request_is_in_the_log_before_it_is_answered_and_its_end_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with serving(ServerSettings(fault_rate=1.0, faults=("timeout",), log=str(log))) as base:
        assert met(base, seed=1) == "nothing"
        (held,) = read_log(log)
        assert (held.fault, held.call) == ("timeout", call_key(MESSAGES, 1))
    with serving(ServerSettings(latency_ms=100.0, log=str(log)), api_key="right") as base:
        assert met(base, seed=1) == "401, invalid_api_key"
    with serving(ServerSettings(latency_ms=1000 * IMPATIENT + 100.0, log=str(log))) as base:
        assert met(base, seed=1) == "nothing"
    with serving(ServerSettings(log=str(log))) as base:
        answer = post(base, seed=2).json()["choices"][0]["message"]["content"]
        assert met(base, model="unknown") == "404, model_not_found"
    ends = [(row.end, row.status, row.content) for row in read_log(log)]
    late, good = ends.pop(2), ends.pop(2)
    assert ends == [("fault", 503, None), ("error", 401, None), ("error", 404, None)]
    assert (late, good) == (("left", 503, None), ("answered", 200, answer))
    assert len({row.call for row in read_log(log)}) == 3
    log.open("a").write('{"number": 9')  # a line that is being written
    assert len(read_log(log)) == 5


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
        pytest.raises(LogError, match="name another file"),
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


def test_kinds_of_faults_are_named_on_the_command_line() -> None:
    help_text = CliRunner().invoke(serve, ["rehearsal", "--help"]).output
    assert all(kind in help_text for kind in ("slow_drip", "context_overflow", "hang_up"))
    assert "--faults" in CliRunner().invoke(serve, ["rehearsal", "--fault", "reset"]).output
    unknown = CliRunner().invoke(serve, ["rehearsal", "--faults", "0.5", "--fault", "plague"])
    assert (unknown.exit_code, "'plague' is not one of" in unknown.output) == (2, True)


def test_the_commands_load_nothing_heavy() -> None:
    code = "import sys, agents.commands; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"litellm", "torch", "uvicorn", "starlette", "pydantic", "duckdb"} & set(eval(loaded))
