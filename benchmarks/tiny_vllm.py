"""A tiny Gemma-2 with random weights behind a real vLLM server: what tests and benchmarks talk to over HTTP.

Its text is noise and never ends by itself (it is cut at `max_tokens`); everything around it is real: the OpenAI
protocol, the tokenizer and chat template, usage, batching. Run it by itself to have a server:

    .venv/bin/python -m benchmarks.tiny_vllm --port 8000
"""

import argparse
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.model_settings import Endpoint
from train.serving import served

MODEL = "tiny"
MAX_TOKENS_OF_A_SEQUENCE = 8192
PROSE = Path(__file__).resolve().parent.parent / "agents" / "prompts"


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
def serve(folder: Path, *, log: Path, port: int | None = None) -> Iterator[Endpoint]:
    """Serve the model in `folder` with vLLM until the block ends; ServerDiedError when it does not come up.

    Where a request has a JSON schema, blanks between its parts are not allowed: so small a model would write nothing else.
    """
    flags = [
        "--max-num-seqs",
        "64",
        "--structured-outputs-config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
    ]
    with served(folder, port=port, log=log, flags=flags) as endpoint:
        yield endpoint


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a tiny Gemma-2 of noise with vLLM on the CPU.")
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "vllm.log")
        with serve(make_tiny_causal_lm(Path(folder, MODEL)), log=log, port=port) as server:
            print(f"{server.litellm_model} at {server.api_base}; Ctrl-C ends it", flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
