"""vLLM's own OpenAI server for a checkpoint: started with the right flags, waited for, and ended with all that it started.

A checkpoint is a plain Hugging Face folder, so vLLM loads it as it is; what its flags must say stands in the folder's
`config.json` and in `descant.json`, the card of a model of ours. The server runs from its module, since the `vllm`
command of the CPU build crashes, and in a process group of its own, since it starts processes itself. It ends with the
block that it was started for, and with this process, however that one dies. Knows nothing of who asks it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

from configs.errors import DescantError
from configs.model_settings import Endpoint
from train.errors import TrainError

Task = Literal["chat", "reward"]
HERE = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::", "")
SERVER = "vllm.entrypoints.openai.api_server"
START_TIMEOUT_SECONDS = 1800.0
"""A tiny model takes a minute or two on two busy cores, a large one some minutes; a server that fails ends long before."""
PROBE_SECONDS = 5.0
END_SECONDS = 10.0
CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""The head sizes of vLLM 0.32's attention on a CPU."""
CPU_BATCH_TOKENS = 8192
GPU_SHARE = 0.9
"""Of the GPU's memory, vLLM's own default; several servers divide it."""
SMALL_BYTES = 80_000_000
"""Of weights, below which one CPU thread is faster than several."""
HARMLESS = re.compile(r"(?:\s|\([^)]*\)|\x1b\[[\d;]*m)*(?:WARNING|INFO|DEBUG)\b")
"""A line of a log of a level that no server ends with, the process that wrote it before."""
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
"""Of each file of weights that has no card: so many pieces of so many bytes tell it from others."""
ID_LETTERS = 8

# Runs in the server's process before vLLM: on Linux it ends when the process that asked for it dies, even by SIGKILL.
DIE_WITH_PARENT = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the process that started this server is gone")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class ServerDiedError(DescantError):
    """Raised here: the server did not come up, or ended; the message names its log."""

    exit_code = 1


class Checkpoint(NamedTuple):
    """What a folder says of the model in it."""

    folder: Path
    """The Hugging Face folder itself."""
    served_name: str
    """The same weights have the same name wherever they lie: a campaign's identity holds it."""
    objective: str | None
    """What a model of ours was trained for (`ask`, `sft`, `dpo`, `reward`); null for others."""
    max_length: int | None
    """Tokens of a conversation; null leaves it to vLLM."""
    config: dict[str, Any]


def read_checkpoint(folder: str | Path, *, task: Task = "chat") -> Checkpoint:
    """The model in a fit's folder, its `model` folder, or any Hugging Face folder.

    Raises:
        TrainError: there is none, or one of the other kind.
    """
    given = str(folder)
    path = Path(folder).expanduser()
    if (path / "run.json").exists() and not (path / "model" / "config.json").exists():
        raise TrainError(f"the fit in {given!r} is not finished: run its descant fit command again, which goes on")
    if (path / "model" / "config.json").exists():
        path = path / "model"
    if not (path / "config.json").exists():
        what = "it has no config.json" if path.is_dir() else "there is no such folder"
        raise TrainError(
            f"no checkpoint in {given!r}: {what}; name a fit's folder (fits/NAME) or a Hugging Face folder"
        )
    path = path.resolve()
    config, card = _json(path / "config.json"), _json(path / "descant.json")
    is_reward = any("SequenceClassification" in name for name in config.get("architectures") or ())
    if is_reward and task == "chat":
        raise TrainError(
            f"{given!r} is a reward model, which says nothing: serve it with --task reward, or name a language model"
        )
    if task == "reward" and not is_reward:
        raise TrainError(f"{given!r} is a language model, which gives no rewards: serve it with --task chat")
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        raise TrainError(f"no weights in {given!r}: it has neither *.safetensors nor *.bin")
    if task == "chat" and (path / "training").is_dir():
        raise TrainError(
            f"{given!r} is a checkpoint on the way: the finished model alone has the chat template and the end marks to "
            "serve it with; name the fit's folder (fits/NAME)"
        )
    return Checkpoint(
        path, _served_name(path, card), card.get("objective"), _max_length(path, config, card, task), config
    )


def objective_of(folder: str) -> str | None:
    """What a language model of ours was trained for; null for others."""
    return read_checkpoint(folder).objective


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(content, dict):
        raise TrainError(f"cannot read {str(path)!r}: it is no JSON object")
    return content


def _served_name(folder: Path, card: dict[str, Any]) -> str:
    """`NAME-<first of the fit's id>`, of a checkpoint on the way with its step; by the folder's content without a card."""
    if "fit_id" in card:
        name, identity = str(card.get("name") or "model"), str(card["fit_id"]).removeprefix("fit_")
        step = f"-step-{card.get('step', 0)}" if (folder / "training").is_dir() else ""
    else:
        name, identity, step = folder.name, _fingerprint(folder), ""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-') or 'model'}-{identity[:ID_LETTERS]}{step}"


def _fingerprint(folder: Path) -> str:
    """A hash of a model that is not ours: its small files whole, its weights by pieces from all over each file."""
    digest = sha256()
    for path in sorted(
        (*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.safetensors"), *folder.glob("*.bin"))
    ):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            if path.suffix in (".json", ".jinja") or size <= SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _max_length(folder: Path, config: dict[str, Any], card: dict[str, Any], task: Task) -> int | None:
    """The length that a chat model was trained with; otherwise, and for rewards as `train.score` has it, the lesser of tokenizer's and model's."""
    if task == "chat" and isinstance(card.get("max_length"), int):
        return int(card["max_length"])
    limits = [config.get("max_position_embeddings"), _json(folder / "tokenizer_config.json").get("model_max_length")]
    given = [int(limit) for limit in limits if isinstance(limit, int | float)]
    return min(given) if given else None


@contextmanager
def served(
    folder: str | Path,
    *,
    task: Task = "chat",
    host: str = HERE,
    port: int | None = None,
    log: Path | None = None,
    max_model_len: int | None = None,
    flags: Sequence[str] = (),
) -> Iterator[Endpoint]:
    """Serve the model in `folder` with vLLM until the block ends.

    Args:
        port: null or 0 takes a free one.
        log: what the server prints; null is a file for temporary things, which is kept only when the server dies.
        max_model_len: tokens of a conversation, in place of the model's own.
        flags: more of vLLM's flags; they win over ours.

    Raises:
        TrainError: vLLM is not there, the folder holds no such model, or the port is taken; nothing was started.
        ServerDiedError: the server did not come up, or it ended while the block failed.
    """
    checkpoint = read_checkpoint(folder, task=task)
    if max_model_len is not None:
        checkpoint = checkpoint._replace(max_length=max_model_len)
    require_vllm()
    on_cpu = not _sees_a_gpu()
    if on_cpu:
        _check_heads(checkpoint, str(folder))
    port = port or _free_port()
    _check_port(host, port)
    reached_at = HERE if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    endpoint = Endpoint(
        f"http://{reached_at}:{port}/v1",
        checkpoint.served_name,
        "env:VLLM_API_KEY" if os.environ.get("VLLM_API_KEY") else None,
    )
    command = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), "-m", SERVER]
    command += ["--host", host, "--port", str(port), *server_flags(checkpoint, task, on_cpu=on_cpu), *flags]
    is_kept, log = log is not None, log or new_log()
    try:
        output = log.open("wb")
    except OSError as error:
        raise TrainError(f"cannot write the log {str(log)!r}: {error.strerror}") from error
    with output:
        process = subprocess.Popen(
            command,
            env=_environment(checkpoint, on_cpu=on_cpu),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, endpoint, log, str(folder))
            try:
                yield endpoint
            except DescantError as error:
                if _has_ended(process):
                    raise _died(
                        f"the vLLM server of {str(folder)!r} ended with exit code {process.returncode}", log
                    ) from error
                raise
        except ServerDiedError:
            is_kept = True
            raise
        finally:
            _end(process)
            if not is_kept:
                log.unlink(missing_ok=True)


@contextmanager
def serve_all(folders: Sequence[str], *, say: Callable[[str], None] = lambda _: None) -> Iterator[dict[str, Endpoint]]:
    """Serve several chat models for as long as the block runs: where each answers, by folder.

    One after the other, since each takes its share of the GPU's memory as it finds it. Two names of one model are served once.

    Args:
        say: is told what is waited for.
    """
    names = {folder: read_checkpoint(folder).served_name for folder in folders}
    distinct = len(set(names.values()))
    flags = ["--gpu-memory-utilization", f"{GPU_SHARE / distinct:.3f}"] if distinct > 1 and _sees_a_gpu() else []
    endpoints: dict[str, Endpoint] = {}
    with ExitStack() as servers:
        for folder, name in names.items():
            if name not in endpoints:
                started = time.monotonic()
                say(f"starting vLLM for {folder} (this takes about a minute) ...")
                endpoints[name] = servers.enter_context(served(folder, flags=flags))
                say(f"{folder} is served as {name} after {time.monotonic() - started:.0f} s")
        yield {folder: endpoints[name] for folder, name in names.items()}


def watch(endpoint: Endpoint, log: Path) -> None:
    """Return never, while the server is well.

    Raises:
        ServerDiedError: it answers no more, or says that its engine is dead.
    """
    while True:
        time.sleep(1.0)
        try:
            _probe(endpoint)
        except TimeoutError:
            continue  # busy
        except OSError as error:
            raise _died(f"the vLLM server at {endpoint.api_base} is gone ({error})", log) from error


def settings_to_paste(checkpoint: Checkpoint, endpoint: Endpoint, task: Task) -> str:
    """How a config, or a shell, reaches the server."""
    if task == "reward":
        key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if endpoint.api_key else ""
        body = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        }
        return (
            f"curl -s {endpoint.api_base.removesuffix('/v1')}/classify -H 'Content-Type: application/json'{key} "
            f"-d '{json.dumps(body)}'\n"
            "# the reward of the conversation is data[0].probs[0] of the answer: the raw figure, no probability"
        )
    role = "user" if checkpoint.objective == "ask" else "assistant"
    lines = ["models:", f"  {role}:", f"    model: {endpoint.litellm_model}", f"    api_base: {endpoint.api_base}"]
    lines += [f"    api_key: {endpoint.api_key}"] if endpoint.api_key else []
    lines += ["simulator: trained"] if checkpoint.objective == "ask" else []
    return "\n".join(lines)


def server_flags(checkpoint: Checkpoint, task: Task, *, on_cpu: bool) -> list[str]:
    """What vLLM must be told of a checkpoint; the reasons stand in docs/serving.md."""
    flags = ["--model", str(checkpoint.folder), "--served-model-name", checkpoint.served_name]
    length = checkpoint.max_length
    if length is not None:
        flags += ["--max-model-len", str(length)]
    if task == "reward":
        flags += ["--runner", "pooling", "--pooler-config", json.dumps({"use_activation": False})]
        if checkpoint.config.get("architectures") == ["Gemma3TextForSequenceClassification"]:
            # vLLM 0.32 looks for this name's weights without the `model.` before them, and finds none; so by the other name.
            flags += ["--hf-overrides", json.dumps({"architectures": ["Gemma3ForSequenceClassification"]})]
    if on_cpu:
        flags += ["--dtype", "float32", "--enforce-eager"]
        # vLLM 0.32 on the CPU dies of a request that has a seed and whose prompt is read in chunks: so, whole prompts only.
        longest = length or int(checkpoint.config.get("max_position_embeddings") or 0)
        flags += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(longest, CPU_BATCH_TOKENS))]
    return flags


def _environment(checkpoint: Checkpoint, *, on_cpu: bool) -> dict[str, str]:
    """What is set for the server unless the user has set it."""
    ours = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if on_cpu:
        ours["VLLM_CPU_KVCACHE_SPACE"] = str(_cache_gib(checkpoint))
        if sum(path.stat().st_size for path in checkpoint.folder.glob("*.safetensors")) < SMALL_BYTES:
            ours["OMP_NUM_THREADS"] = "1"
    return ours | dict(os.environ)


def _cache_gib(checkpoint: Checkpoint) -> int:
    """Memory for keys and values in fp32: one conversation of full length must fit, and 1 GiB is enough for small models."""
    config = checkpoint.config
    try:
        a_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * _head_dim(config) * 4
    except KeyError:  # a shape not known here
        return 1
    length = checkpoint.max_length or int(config.get("max_position_embeddings") or 0)
    return max(1, ceil(int(a_token) * length / 2**30))


def _head_dim(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _check_heads(checkpoint: Checkpoint, given: str) -> None:
    if not {"hidden_size", "num_attention_heads"} <= checkpoint.config.keys():
        return
    size = _head_dim(checkpoint.config)
    if size not in CPU_HEADS:
        raise TrainError(
            f"vLLM on a CPU cannot serve {given!r}: its attention heads have {size} dimensions, and {CPU_HEADS[0]} is the "
            f"smallest that works (of {', '.join(map(str, CPU_HEADS))}): train one with fewer heads or a larger hidden_size"
        )


def require_vllm() -> None:
    """Raise a TrainError when vLLM is not installed."""
    for package in ("torch", "transformers", "vllm"):
        if find_spec(package) is None:
            raise TrainError(
                f"{package} is not installed, which serving needs: pip install 'descant[train,vllm]' on a GPU machine; "
                "docs/install.md tells how on a CPU"
            )


def _sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def new_log() -> Path:
    handle, path = tempfile.mkstemp(prefix="descant-vllm-", suffix=".log")
    os.close(handle)
    return Path(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        port: int = probe.getsockname()[1]
        return port


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TrainError(f"cannot listen on {host}:{port} ({error.strerror}): take another --port") from error


def _probe(endpoint: Endpoint) -> None:
    """Ask for the server's health, straight and through no proxy; an OSError when it is not well."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(endpoint.api_base.removesuffix("/v1") + "/health", timeout=PROBE_SECONDS).close()
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from error
        raise


def _wait_until_healthy(process: "subprocess.Popen[bytes]", endpoint: Endpoint, log: Path, given: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _probe(endpoint)
        except OSError:
            time.sleep(0.2)
        else:
            return
    what = "did not answer in time" if process.poll() is None else f"ended with exit code {process.returncode}"
    raise _died(f"vLLM could not serve {given!r}: it {what}", log)


def _died(what: str, log: Path) -> ServerDiedError:
    try:
        reason = reason_of(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:  # removed meanwhile
        return ServerDiedError(f"{what}; its log {log} cannot be read")
    return ServerDiedError(f"{what}{f' ({reason})' if reason else ''}; its log is {log}")


def reason_of(log: str) -> str | None:
    """The line of a log that says why the server ended: its last exception but the ones that only speak of another.

    A warning may name an exception that the server lived on with.
    """
    found = None
    said = [line for line in log.splitlines() if not HARMLESS.match(line)]
    for line in said:
        error = re.search(r"(?<![\w.])((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): (?=\S)(.+)", line)
        if error and "root cause" not in line and "failed core proc" not in line.lower():
            found = f"{error[1].rpartition('.')[2]}: {error[2].strip()}"
    lines = [line.strip() for line in said if line.strip()]
    reason = found or (lines[-1] if lines else None)
    return reason if reason is None or len(reason) <= 300 else f"{reason[:299]}…"


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether the server is gone; one whose engine died takes a moment to follow it."""
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and the engine and worker processes that it started: they share its process group."""
    for which in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, which)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
