"""What is checked of a model before it is trained or asked for rewards: its layout, its attention, its pad and its end token.

Our own rewards are read at a place that is counted, so that no pad token can change them. Others find the last token of a
conversation by looking for pad tokens: transformers' `...ForSequenceClassification` takes the rightmost that is none. Where
a tokenizer has no pad token, or pads with the token that ends turns (the habit with Llama and Mistral), they would read the
token before the last; torch would never train the end token's embedding either. So the checkpoints of ours name a pad token
that no conversation ends with. Knows nothing of data and losses.
"""

import re
from typing import Any, NamedTuple

import torch

from train.attention import NAME
from train.errors import TrainError
from train.masks import mark_of, skeleton_of, special_texts
from train.reading import why_no_streams

NEW_PAD = "<|pad|>"
PADS = ("<pad>", "[PAD]", NEW_PAD, "<|finetune_right_pad_id|>", "<|endoftext|>")
"""Tokens that published tokenizers have to pad with, whether they say so or not."""
RESERVED = re.compile(r"<\|?(?:reserved_special_token_|unused|extra_id_)\d+\|?>|\[control_\d+\]")
"""Tokens that published tokenizers keep free."""
A_DAY = "26 Jul 2024"
"""What Llama-3.1's template says where no date is to be had."""
FROZEN = "{%- macro strftime_now(format) -%}" + A_DAY + "{%- endmacro -%}"


class Tokens(NamedTuple):
    """What was settled of a tokenizer."""

    pad_token: str
    end_token: str | None
    """The mark behind an answer; null where the template writes none, and the answer's own last token is read."""


def settle_tokens(tokenizer: Any) -> Tokens:
    """Make sure of a pad token that neither ends text nor is written by the chat template: its own, a free one, or a new one.

    A tokenizer that has been settled stays as it is. A new token has no embedding yet: `settle_embeddings` gives it one.
    """
    pieces = skeleton_of(tokenizer, 2)
    template = [number for piece in pieces for number in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    taken = {*template, tokenizer.eos_token_id, tokenizer.bos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in taken:
        vocabulary = tokenizer.get_vocab()
        reserved = sorted(filter(RESERVED.fullmatch, special_texts(tokenizer)), key=vocabulary.__getitem__)
        wishes = [*PADS, *reserved, tokenizer.unk_token]
        free = [token for token in wishes if token in vocabulary and vocabulary[token] not in taken]
        tokenizer.add_special_tokens({"pad_token": free[0] if free else NEW_PAD})
    end = mark_of(pieces[2], special_texts(tokenizer)).strip()
    return Tokens(str(tokenizer.pad_token), end or None)


def settle_embeddings(model: Any, tokenizer: Any) -> None:
    """Make the model pad as its tokenizer does; a new pad token's embedding is zero, and is never seen."""
    embeddings = model.get_input_embeddings()
    if len(tokenizer) > embeddings.weight.shape[0]:
        with torch.random.fork_rng(devices=[]):
            embeddings = model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            embeddings.weight[tokenizer.pad_token_id] = 0.0
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    embeddings.padding_idx = tokenizer.pad_token_id  # the one row that torch does not train


def backbone_card(model: Any, tokenizer: Any) -> dict[str, Any]:
    """What a fit's data card says of the model that is trained, once its tokens are settled."""
    tokens = settle_tokens(tokenizer)
    return {
        "model_type": model.config.model_type,
        "attention": model.config._attn_implementation,
        "pad_token": tokens.pad_token,
        "end_token": tokens.end_token,
    }


def reading_pad(tokenizer: Any) -> int:
    """What fills a batch up that is read at counted places: any token will do, since no real one sees it."""
    wishes = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in wishes if token is not None)


def freeze_date(tokenizer: Any) -> None:
    """A chat template that writes today's date (Llama-3.2's does) writes one and the same, or rewards would change overnight."""
    template = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template and not template.startswith(FROZEN):
        tokenizer.chat_template = FROZEN + template


def attention_of(config: Any) -> str | None:
    """Ours where a model can read streams; else `eager` where attention logits are capped, since transformers' default drops the
    cap; else that default."""
    text = config.get_text_config()
    if why_no_streams(text) is None:
        return NAME
    return "eager" if getattr(text, "attn_logit_softcapping", None) else None


def positions_of(config: Any) -> int | None:
    """Tokens that a model has positions for, where its config says so."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if positions is None else int(positions)


def check_layout(model: Any, source: str) -> None:
    """Raise a TrainError unless it is a decoder with a linear head on its last hidden states."""
    if not (hasattr(model, "model") and hasattr(model, "score")):
        raise TrainError(
            f"{source!r} is a {type(model).__name__}, whose layout is not known here: take a Gemma-2 or Gemma-3, Llama, "
            "Mistral, Qwen-2 or Qwen-3"
        )


def text_only(model: Any) -> Any:
    """Of a Gemma-3 that sees pictures too the model of text in it, with its head; any other as it is.

    A checkpoint of text alone is what transformers and vLLM read without a picture processor.
    """
    if model.config.model_type != "gemma3":
        return model
    from transformers import Gemma3ForCausalLM, Gemma3TextForSequenceClassification

    config = model.config.get_text_config()
    config.num_labels = model.config.num_labels
    config.name_or_path, config.dtype = model.config.name_or_path, model.config.dtype
    head = "score" if hasattr(model, "score") else "lm_head"
    kind: Any = Gemma3TextForSequenceClassification if head == "score" else Gemma3ForCausalLM
    with torch.device("meta"):
        text = kind(config)
    text.model = model.model.language_model
    setattr(text, head, getattr(model, head))
    if head == "lm_head":
        text.generation_config = model.generation_config
        text.tie_weights()
    return text
