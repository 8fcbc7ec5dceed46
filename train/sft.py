"""A tiny model that has learned to answer, from scratch: what labs start their reward models from.

MUSIC (arXiv 2512.24693) starts from a model that has learned to talk. The loss is that of `train.language`, on the answers
and their end marks; the conversations of a step are drawn by chance, with replacement. A run is short and has no
checkpoints: killed, it starts again.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from configs.fit_settings import SftSettings
from configs.language_settings import SftFitSettings
from store.identity import chance, content_hash
from store.identity import fit_id as fit_identity
from store.records import Message
from train.backbone import settle_tokens
from train.causal import export_model
from train.errors import TrainError
from train.language import language_task
from train.loop import Show, Task, folder_of, run_fit
from train.model import tiny_language_model
from train.sessions import Session, encode_sessions, session_card
from train.tokenizer import train_tokenizer

BETAS = (0.9, 0.99)


def fit_sft(settings: SftSettings, conversations: Sequence[Sequence[Message]], *, progress: Show | None = None) -> Path:
    """Train on the answers of `conversations`, or find it done; the folder of the model, a plain Hugging Face one.

    Raises:
        TrainError: no conversations that fit into `max_length`, or a folder that holds another run.
    """
    data = content_hash([list(conversation) for conversation in conversations])
    fit_id = fit_identity(settings.name, "sft", settings.identity() | {"data": data})
    common = settings.model_dump(exclude={"warmup"})
    whole = SftFitSettings.model_validate(common | {"model": "tiny", "checkpoint_every": settings.steps})
    sessions = [Session(str(n), tuple(messages), "train") for n, messages in enumerate(conversations, start=1)]

    def prepare(out: Path, device: torch.device, resumed: Path | None) -> Task:
        del out, resumed
        texts = [message.content for conversation in conversations for message in conversation]
        tokenizer = train_tokenizer(
            texts, vocab_size=settings.tiny.vocab_size, max_length=settings.max_length, family=settings.tiny.family
        )
        settle_tokens(tokenizer)
        encoded = encode_sessions(whole, sessions, tokenizer)
        if not encoded.sessions:
            raise TrainError(f"none of {len(conversations)} conversations has at most {settings.max_length} tokens")
        model = tiny_language_model(
            settings.tiny, tokenizer, max_length=settings.max_length, random_seed=settings.random_seed
        )
        model = model.to(device).train()
        order, n = chance("sft", settings.random_seed), len(encoded.sessions)

        def export(folder: Path, origin: dict[str, Any]) -> None:
            export_model(folder, model, tokenizer, origin)

        return language_task(
            whole,
            model,
            tokenizer,
            encoded.sessions,
            [[order.randrange(n) for _ in range(settings.batch_size)] for _ in range(settings.steps)],
            optimizer=torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=BETAS, weight_decay=0.0),
            validate=dict,
            export=export,
            card=session_card("given", sessions, {"train": encoded}, max_length=settings.max_length),
            rise=math.ceil(settings.warmup * settings.steps),
            device=device,
        )

    run_fit(whole, fit_id=fit_id, objective="sft", prepare=prepare, progress=progress)
    return folder_of(whole) / "model"
