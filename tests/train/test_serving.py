"""Serving: which flags a checkpoint gets, what is refused before anything starts, and that nothing outlives its block.

A stand-in takes vLLM's place here; `tests/engine` serves with vLLM itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.fit_settings import TinySettings
from configs.model_settings import Endpoint
from tests.processes import ROOT, descant, start_descant, wait_until
from tests.train.stand_in_vllm import write_stand_in
from train.checkpoint import save_model
from train.errors import TrainError
from train.model import tiny_language_model, tiny_model
from train.serving import (
    Checkpoint,
    ServerDiedError,
    read_checkpoint,
    reason_of,
    serve_all,
    served,
    server_flags,
    settings_to_paste,
    watch,
)
from train.tokenizer import train_tokenizer

CARD = {"name": "ask of mine", "fit_id": "fit_0123456789ab", "objective": "ask", "max_length": 96, "step": 3}


def make(folder: Path, *, heads: int = 2, card: dict[str, Any] | None = None, kind: Any = tiny_language_model) -> Path:
    """A checkpoint with heads of 64 / `heads` dimensions."""
    shape = TinySettings(hidden_size=64, intermediate_size=64, layers=1, heads=heads, kv_heads=1, vocab_size=400)
    tokenizer = train_tokenizer(["Please speak of tea now."], vocab_size=400, max_length=128)
    save_model(folder, kind(shape, tokenizer, max_length=128, random_seed=0), tokenizer, CARD if card is None else card)
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit's folder with a finished ask model."""
    fit = tmp_path_factory.mktemp("fits") / "ask"
    make(fit / "model")
    (fit / "run.json").write_text("{}")
    return fit


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fits") / "rm", card=CARD | {"name": "rm"}, kind=tiny_model)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Puts the stand-in in vLLM's place; gives what its server was started with."""
    write_stand_in(tmp_path / "packages", tmp_path / "kept.json")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    for name in ("VLLM_API_KEY", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.delenv(name, raising=False)
    return lambda: dict(json.loads((tmp_path / "kept.json").read_text()))


def lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def flag(flags: list[str], name: str) -> str:
    return flags[flags.index(name) + 1]


def test_a_server_has_its_flags_and_ends_with_its_children(chat: Path, kept: Callable[[], dict[str, Any]]) -> None:
    with served(chat) as endpoint:
        seen = kept()
        assert endpoint.litellm_model == "hosted_vllm/ask-of-mine-01234567"
        assert endpoint.api_base == f"http://127.0.0.1:{flag(seen['flags'], '--port')}/v1"
        assert flag(seen["flags"], "--model") == str((chat / "model").resolve())
        assert flag(seen["flags"], "--max-model-len") == "96"
        assert seen["cache"] == "1"
        assert lives(seen["pid"])
        assert lives(seen["child"])
    assert not lives(seen["pid"])
    wait_until(lambda: not lives(seen["child"]), seconds=10)


def test_it_ends_when_its_block_fails_and_when_it_is_interrupted(
    chat: Path, kept: Callable[[], dict[str, Any]]
) -> None:
    for stop in (ValueError, KeyboardInterrupt):
        with pytest.raises(stop), served(chat):
            raise stop
        wait_until(lambda: not lives(kept()["child"]), seconds=10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_it_ends_when_the_process_that_asked_for_it_is_killed(
    chat: Path, kept: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    code = f"from train.serving import served\nwith served({str(chat)!r}):\n    print('up', flush=True)\n    input()"
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    ) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == b"up\n"
        asker.kill()
    pid = kept()["pid"]
    wait_until(lambda: not lives(pid), seconds=10)
    os.kill(kept()["child"], signal.SIGKILL)  # a stand-in does not look after its child, as vLLM does


@pytest.mark.usefixtures("kept")
def test_a_server_that_does_not_come_up_is_one_line_with_the_reason_and_the_log(chat: Path, tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    with pytest.raises(ServerDiedError) as raised, served(chat, log=log, flags=["--die-of", "ValueError: no room"]):
        pass
    assert raised.value.exit_code == 1
    assert str(raised.value) == (
        f"vLLM could not serve {str(chat)!r}: it ended with exit code 1 (ValueError: no room); its log is {log}"
    )


@pytest.mark.usefixtures("kept")
def test_a_block_that_fails_because_its_server_died_says_so(chat: Path, tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"

    def ask() -> None:
        with served(chat, log=log, flags=["--die-after", "0.5"]):
            wait_until(lambda: "OutOfMemory" in log.read_text(), seconds=10)
            raise TrainError("nobody answers")

    with pytest.raises(ServerDiedError, match=r"ended with exit code 3 \(OutOfMemoryError: no memory for the engine\)"):
        ask()


def test_the_same_model_under_two_names_is_served_once(
    chat: Path, kept: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(chat), str(chat / "model")]
    with serve_all(folders, say=print) as endpoints:
        assert endpoints[folders[0]] == endpoints[folders[1]]
        assert capsys.readouterr().out.count("starting vLLM") == 1
    assert not lives(kept()["pid"])


@pytest.mark.usefixtures("kept")
def test_a_port_that_is_taken_is_refused_before_anything_starts(chat: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(TrainError, match=f"cannot listen on 127.0.0.1:{port}.*take another --port"),
            served(chat, port=port),
        ):
            pass


def test_without_vllm_one_line_says_how_to_get_it(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.serving.find_spec", lambda name: None if name == "vllm" else object())
    with pytest.raises(
        TrainError, match=r"vllm is not installed, which serving needs: pip install 'descant\[train,vllm"
    ):
        served(chat).__enter__()


def test_a_model_of_the_other_kind_is_refused(chat: Path, reward: Path) -> None:
    with pytest.raises(TrainError, match="is a reward model, which says nothing: serve it with --task reward"):
        read_checkpoint(reward)
    with pytest.raises(TrainError, match="is a language model, which gives no rewards"):
        read_checkpoint(chat, task="reward")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ("nothing", "there is no such folder; name a fit's folder"),
        ("empty", "it has no config.json; name a fit's folder"),
        ("unfinished", "is not finished: run its descant fit command again"),
        ("weightless", "it has neither"),
        ("broken", "cannot read"),
    ],
)
def test_a_folder_without_a_model_is_one_clear_line(made: str, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / made
    if made != "nothing":
        folder.mkdir()
    if made == "unfinished":
        (folder / "run.json").write_text("{}")
    if made in ("weightless", "broken"):
        (folder / "config.json").write_text("{" if made == "broken" else '{"architectures": ["Gemma2ForCausalLM"]}')
    with pytest.raises(TrainError, match=expected) as raised:
        read_checkpoint(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("kept")
def test_heads_that_vllm_cannot_run_on_a_cpu_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TrainError, match="its attention heads have 16 dimensions, and 32 is the smallest"):
        served(make(tmp_path / "small", heads=4)).__enter__()


def test_the_served_name_tells_the_weights(tmp_path: Path, chat: Path) -> None:
    assert read_checkpoint(chat / "model").served_name == read_checkpoint(chat).served_name
    plain = make(tmp_path / "plain", card={})
    name = read_checkpoint(plain).served_name
    assert name.startswith("plain-")
    weights = bytearray((plain / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (plain / "model.safetensors").write_bytes(weights)
    assert read_checkpoint(plain).served_name != name
    on_the_way = make(tmp_path / "step-00000003", kind=tiny_model)
    (on_the_way / "training").mkdir()
    assert read_checkpoint(on_the_way, task="reward").served_name == "ask-of-mine-01234567-step-3"


def test_a_language_model_on_the_way_is_refused_since_its_template_comes_at_the_end(tmp_path: Path) -> None:
    (make(tmp_path / "step-00000003") / "training").mkdir()
    with pytest.raises(TrainError, match="a checkpoint on the way: the finished model alone has the chat template"):
        read_checkpoint(tmp_path / "step-00000003")


def checkpoint(**changes: Any) -> Checkpoint:
    config = {
        "num_hidden_layers": 42,
        "num_key_value_heads": 8,
        "num_attention_heads": 16,
        "hidden_size": 3584,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    }
    return Checkpoint(Path("/m"), "m-1", None, 4096, config)._replace(**changes)


def test_a_gpu_gets_vllm_s_own_defaults_and_a_cpu_what_it_cannot_do_without() -> None:
    assert server_flags(checkpoint(), "chat", on_cpu=False) == [
        *("--model", "/m", "--served-model-name", "m-1", "--max-model-len", "4096")
    ]
    flags = server_flags(checkpoint(max_length=None), "chat", on_cpu=True)
    assert "--max-model-len" not in flags
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= set(flags)
    assert flag(flags, "--dtype") == "float32"
    assert int(flag(flags, "--max-num-batched-tokens")) >= 8192


def test_rewards_are_read_without_an_activation(reward: Path) -> None:
    found = read_checkpoint(reward, task="reward")
    assert found.max_length == 128  # the tokenizer's and the model's, as the torch scorer has it
    flags = server_flags(found, "reward", on_cpu=False)
    assert flag(flags, "--runner") == "pooling"
    assert json.loads(flag(flags, "--pooler-config")) == {"use_activation": False}
    assert "--hf-overrides" not in flags


def test_a_gemma_3_is_served_by_the_name_under_which_vllm_finds_its_weights() -> None:
    seen = checkpoint(config={"architectures": ["Gemma3TextForSequenceClassification"]})
    flags = server_flags(seen, "reward", on_cpu=False)
    assert json.loads(flag(flags, "--hf-overrides")) == {"architectures": ["Gemma3ForSequenceClassification"]}


def test_the_settings_to_paste_name_the_role_that_a_model_was_trained_for() -> None:
    endpoint = Endpoint("http://127.0.0.1:8000/v1", "m-1")
    assert settings_to_paste(checkpoint(objective="ask"), endpoint, "chat") == (
        "models:\n  user:\n    model: hosted_vllm/m-1\n    api_base: http://127.0.0.1:8000/v1\nsimulator: trained"
    )
    locked = endpoint._replace(api_key="env:VLLM_API_KEY")
    assert settings_to_paste(checkpoint(objective="sft"), locked, "chat").splitlines()[1:] == [
        *("  assistant:", "    model: hosted_vllm/m-1", "    api_base: http://127.0.0.1:8000/v1"),
        "    api_key: env:VLLM_API_KEY",
    ]
    assert settings_to_paste(checkpoint(), endpoint, "reward").startswith("curl -s http://127.0.0.1:8000/classify ")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("killed\n\n", "killed"),
        ("(APIServer pid=1) pydantic.ValidationError: too long\nbye", "ValidationError: too long"),
        (
            "ERROR [core.py:1] ValueError: head size 16\nRuntimeError: Engine core initialization failed. See root cause",
            "ValueError: head size 16",
        ),
        (
            "(EngineCore pid=2) ERROR 11-21 [core.py:1] ValueError: head size 16\n"
            "(APIServer pid=1) WARNING 11-21 14:00:01 [net.py:7] Failed: OSError: [Errno 24] Too many open files. "
            "Consider increasing with ulimit -n\nINFO:     RuntimeError: none",
            "ValueError: head size 16",
        ),
        ("Killed\n\x1b[0;36m(APIServer pid=1)\x1b[0;0m INFO 11-21 14:00:01 [loader.py:1] Loading weights", "Killed"),
    ],
)
def test_the_reason_of_a_log_is_the_first_cause(log: str, expected: str | None) -> None:
    assert reason_of(log) == expected


def test_a_server_that_is_gone_with_its_log_is_told_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ServerDiedError, match=r"is gone .*its log .*none\.log cannot be read"):
        watch(Endpoint("http://127.0.0.1:1/v1", "m-1"), tmp_path / "none.log")


def test_the_command_serves_until_ctrl_c_and_ends_everything(
    chat: Path, kept: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    stand_in = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    process = start_descant("serve", str(chat), "--port", "0", cwd=tmp_path, environment=stand_in)
    assert process.stdout is not None
    assert [process.stdout.readline().split()[0] for _ in range(5)] == [
        *("models:", "user:", "model:", "api_base:", "simulator:")
    ]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    wait_until(lambda: not lives(kept()["child"]), seconds=10)


def test_the_command_ends_with_the_engine_and_exit_code_1(
    chat: Path, kept: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    del kept
    stand_in = {"PYTHONPATH": os.environ["PYTHONPATH"]}
    done = descant(
        *("serve", "--port", "0", "--log", "vllm.log", str(chat), "--", "--die-after", "1"),
        cwd=tmp_path,
        environment=stand_in,
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "OutOfMemoryError: no memory for the engine); its log is vllm.log" in line


def test_serve_help_shows_both_kinds_and_a_mistake_is_one_line(tmp_path: Path) -> None:
    shown = descant("serve", "--help", cwd=tmp_path).stdout
    assert "rehearsal" in shown
    assert "DIR" in shown
    done = descant("serve", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no checkpoint in 'nowhere': there is no such folder")
    assert len(done.stderr.splitlines()) == 2 - done.stderr.endswith("\n")
