"""Causal language models: loaded, given adapters, read for the log-probabilities of targets, and exported.

Attention is `eager` where the model caps its attention logits (Gemma-2): transformers' default drops the cap without a word.
Batches are padded on the right and passed without a mask: no real token sees what comes after it. Knows nothing of data.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from configs.language_settings import AskFitSettings, LanguageFitSettings, LoraSettings
from train.backbone import positions_of, settle_embeddings, settle_tokens, text_only
from train.checkpoint import save_model
from train.errors import TrainError
from train.masks import IGNORED
from train.model import pretrained, tiny_language_model
from train.reading import hidden_at, pad_right, reads_streams
from train.score import model_source
from train.templates import answering_template, asking_template, end_mark, give_template
from train.tokenizer import load_tokenizer, train_tokenizer

PLAIN_HEADS = {"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"}
"""Model types whose logits are `lm_head(hidden)`, capped where the config says so: the head is then read at targets only."""

# Shapes: B conversations, T tokens, A targets, D hidden size, V vocabulary.


def causal_model(settings: LanguageFitSettings, resumed: Path | None, texts: Sequence[str]) -> tuple[Any, Any]:
    """Model and tokenizer, from the newest checkpoint, else from where the settings say.

    Args:
        texts: what the tokenizer of a `tiny` model is made of.

    Raises:
        TrainError: no such model, or one that cannot be trained so.
    """
    if resumed is not None and settings.lora is None:
        tokenizer = load_tokenizer(str(resumed))
        return pretrained_language_model(str(resumed), tokenizer), tokenizer
    model, tokenizer = start_model(settings, texts)
    exported_template(
        tokenizer, asks=isinstance(settings, AskFitSettings)
    )  # what fails at the end fails before the first step
    if settings.lora is not None:
        model = with_adapters(model, settings.lora, resumed, random_seed=settings.random_seed)
    return model, tokenizer


def start_model(settings: LanguageFitSettings, texts: Sequence[str]) -> tuple[Any, Any]:
    """Where the training starts from."""
    if settings.model == "tiny":
        tokenizer = train_tokenizer(
            texts, vocab_size=settings.tiny.vocab_size, max_length=settings.max_length, family=settings.tiny.family
        )
        if settings.chat_template is not None:
            give_template(tokenizer, settings.chat_template)
        settle_tokens(tokenizer)
        model = tiny_language_model(
            settings.tiny, tokenizer, max_length=settings.max_length, random_seed=settings.random_seed
        )
        return model, tokenizer
    source = model_source(settings.model)
    tokenizer = load_tokenizer(source, needs_template=settings.chat_template is None)
    tokenizer.chat_template = answering_template(tokenizer.chat_template or "") or None  # of a model that asks
    added = give_template(tokenizer, settings.chat_template) if settings.chat_template is not None else 0
    settle_tokens(tokenizer)
    model = pretrained_language_model(source, tokenizer)
    if added:
        if settings.lora is not None:
            raise TrainError(
                f"chat_template {settings.chat_template!r} needs {added} new tokens, which adapters do not learn: take "
                "chat_template plain, or lora null"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.random_seed)
            model.resize_token_embeddings(max(len(tokenizer), model.get_input_embeddings().weight.shape[0]))
    settle_embeddings(model, tokenizer)
    positions = positions_of(model.config) or settings.max_length
    if settings.max_length > positions:
        raise TrainError(
            f"max_length {settings.max_length} is more than the {positions} positions of {settings.model!r}"
        )
    tokenizer.model_max_length = settings.max_length
    return model, tokenizer


def pretrained_language_model(source: str, tokenizer: Any) -> Any:
    """A language model in fp32 from a folder or Hugging Face id."""
    from transformers import AutoModelForCausalLM

    model = text_only(pretrained(AutoModelForCausalLM, source, tokenizer))
    model.config.use_cache = False
    return model


def with_adapters(model: Any, lora: LoraSettings, resumed: Path | None, *, random_seed: int) -> Any:
    """The model with its own weights frozen and adapters beside them: new ones that change nothing yet, or a checkpoint's."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if resumed is not None:
        adapted = PeftModel.from_pretrained(model, str(resumed), is_trainable=True)
        for parameter in adapted.parameters():
            parameter.data = parameter.data.clone()
        return adapted
    targets = lora.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float divides as well
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed)
            return get_peft_model(model, config)
    except ValueError as error:
        raise TrainError(f"lora: {str(error).splitlines()[0]}") from None


def causal_of(model: Any) -> Any:
    """The language model itself, of one with adapters too; the adapters work inside it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def target_losses(
    model: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    targets: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    device: torch.device,
    streams: bool | None = None,
) -> Tensor:
    """loss_A = -log p(target | what stands before it), of all targets, sequence by sequence.

    Args:
        groups: token sequences; those of a group may begin alike.
        targets: of each sequence, counted through all groups; IGNORED where there is none. The first token has none.
        streams: null reads a stream where the model can.
    """
    wanted = [
        (sequence, place, target)
        for sequence, of_sequence in enumerate(targets)
        for place, target in enumerate(of_sequence)
        if target != IGNORED and place
    ]
    logits_AV = next_logits(
        model,
        groups,
        [(sequence, place - 1) for sequence, place, _ in wanted],
        pad_token_id=pad_token_id,
        device=device,
        streams=streams,
    )
    target_A = torch.tensor([target for _, _, target in wanted], dtype=torch.long, device=device)
    return cross_entropy(logits_AV, target_A, reduction="none")


def next_logits(
    model: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    readings: Sequence[tuple[int, int]],
    *,
    pad_token_id: int,
    device: torch.device,
    streams: bool | None = None,
) -> Tensor:
    """logits_AV in fp32 of what follows the tokens that `readings` name; see `train.reading.hidden_at`.

    Gemma-2 caps its logits, cap * tanh(logit / cap), and so does this.
    """
    causal = causal_of(model)
    if causal.config.model_type not in PLAIN_HEADS:
        ids_BT = pad_right([sequence for group in groups for sequence in group], pad_token_id, device)
        row_A, place_A = torch.tensor(readings, dtype=torch.long, device=device).reshape(-1, 2).T
        logits: Tensor = causal(input_ids=ids_BT, use_cache=False).logits[row_A, place_A].float()
        return logits
    as_stream = reads_streams(causal) if streams is None else streams
    hidden_AD = hidden_at(causal.model, groups, readings, pad_token_id=pad_token_id, device=device, streams=as_stream)
    logits_AV = causal.lm_head(hidden_AD).float()
    cap = getattr(causal.config, "final_logit_softcapping", None)
    capped_AV: Tensor = cap * torch.tanh(logits_AV / cap) if cap else logits_AV
    return capped_AV


def exported_template(tokenizer: Any, *, asks: bool) -> tuple[str, str]:
    """The mark at which the exported model stops, and its chat template.

    Raises:
        TrainError: a chat template that a model of this role cannot be served with.
    """
    if asks:
        return end_mark(tokenizer, "user"), asking_template(tokenizer)
    return end_mark(tokenizer, "assistant"), tokenizer.chat_template


def export_model(folder: Path, model: Any, tokenizer: Any, card: dict[str, Any], *, asks: bool = False) -> None:
    """A plain Hugging Face folder, adapters merged into the weights, that stops where a turn of its role ends.

    Args:
        asks: the model plays the user: its chat template's generation prompt opens the user's turn.
    """
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    tokenizer = deepcopy(tokenizer)  # the exported template is not the one that is trained with
    end, template = exported_template(tokenizer, asks=asks)
    mark = tokenizer.convert_tokens_to_ids(end)
    generation = model.generation_config
    before = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    ends = [tokenizer.eos_token_id, mark, *before]
    generation.eos_token_id = list(dict.fromkeys(end for end in ends if end is not None))
    generation.bos_token_id = tokenizer.bos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    tokenizer.chat_template = template
    model.config.use_cache = True
    save_model(folder, model, tokenizer, card)
