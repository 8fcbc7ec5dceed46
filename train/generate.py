"""What a language model says next, for many conversations at once, by transformers: a user's turn from a model that asks,
an answer from one that answers. vLLM is faster on a GPU; this needs no server. Knows nothing of training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from store.records import Message
from train.causal import pretrained_language_model
from train.errors import TrainError
from train.model import device_of, fitting_threads
from train.score import model_source
from train.templates import is_asking
from train.tokenizer import fold_system, load_tokenizer


def generate(
    model_dir: str | Path,
    conversations: Sequence[Sequence[Message]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    batch_size: int = 64,
    random_seed: int = 0,
    device: str = "auto",
) -> list[str]:
    """The next turn of each conversation, in their order, without its end mark.

    A model that asks takes conversations that end on an answer, and an empty one for a first query; others take
    conversations that end on a user turn.

    Args:
        temperature: 0 takes the likeliest token each time; else tokens are drawn, the same for the same `random_seed`.

    Raises:
        TrainError: no such model, or a conversation that leaves no room for `max_tokens`.
    """
    if not conversations:
        return []
    source = model_source(model_dir)
    tokenizer = load_tokenizer(source)
    where = device_of(device)
    model = pretrained_language_model(source, tokenizer).to(where).eval()
    prompts = [prompt(tokenizer, conversation) for conversation in conversations]
    sequences: list[list[int]] = tokenizer(prompts, add_special_tokens=False, verbose=False)["input_ids"]
    room = int(getattr(model.config, "max_position_embeddings", 0) or 10**9) - max_tokens
    for place, sequence in enumerate(sequences):
        if len(sequence) > room:
            raise TrainError(
                f"conversation {place + 1} has {len(sequence)} tokens, and the model takes {room + max_tokens} with the "
                f"{max_tokens} that it may write: it is not truncated; leave it out"
            )
    texts = [""] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    devices = [torch.cuda.current_device()] if where.type == "cuda" else []
    with fitting_threads(model, where), torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(random_seed)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            written = _continued(
                model, tokenizer, [sequences[place] for place in places], max_tokens, temperature, where
            )
            for place, text in zip(places, written, strict=True):
                texts[place] = text
    return texts


def prompt(tokenizer: Any, conversation: Sequence[Message]) -> str:
    """The conversation as the model reads it, the next turn opened."""
    turns = list(conversation)
    if not is_asking(str(tokenizer.chat_template)) or any(turn.role != "system" for turn in turns):
        turns = fold_system(turns)
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    (text,) = tokenizer.apply_chat_template([messages], tokenize=False, add_generation_prompt=True)
    return str(text)


def _continued(
    model: Any,
    tokenizer: Any,
    sequences: Sequence[Sequence[int]],
    max_tokens: int,
    temperature: float,
    device: torch.device,
) -> list[str]:
    """What a batch goes on with; padded on the left, so that all begin to write at the same place."""
    longest = max(len(sequence) for sequence in sequences)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids_BT = torch.tensor([[pad] * (longest - len(s)) + list(s) for s in sequences], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences], device=device)
    # What a model's own generation config says of sampling (Gemma's top_k, top_p) is not asked for here.
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    found = model.generate(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        max_new_tokens=max_tokens,
        use_cache=True,
        pad_token_id=pad,
        **sampling,
    )
    return [text.strip() for text in tokenizer.batch_decode(found[:, longest:], skip_special_tokens=True)]
