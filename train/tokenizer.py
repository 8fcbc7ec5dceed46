"""Conversations to token ids, the way a chat model reads them, and a small tokenizer for tiny models.

System text is folded into the first user turn before any chat template sees it, and turns that do not alternate are
refused: Gemma's template takes neither, Mistral's puts system text elsewhere as a conversation grows, and so all models
read the same conversation. Knows nothing of pairs, models or files other than tokenizer folders.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from store.records import Message
from train.errors import TrainError
from train.families import FAMILIES


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_length: int, family: str = "gemma2"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a family's special tokens and chat format, the same for the same texts in the same order.

    A word has one token at the start of a line and in its middle, since each line gets a leading space; but not for a Qwen,
    whose words are cut as Qwen cuts them: transformers reads any tokenizer beside a `qwen2` model so, whatever its file says.
    """
    known = FAMILIES[family]
    tokenizer = Tokenizer(models.BPE())
    if family in ("qwen2", "qwen3"):
        published = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = published.normalizer, published.pre_tokenizer
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex("\n"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        # The template's own words, so that a turn's opening costs few tokens however small the vocabulary is.
        [*texts, *[*known.headers] * 8],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(known.special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if known.bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{known.bos} $A",
            pair=f"{known.bos} $A $B",
            special_tokens=[(known.bos, tokenizer.token_to_id(known.bos))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=known.bos,
        eos_token=known.eos,
        pad_token=known.pad,
        unk_token=known.unk,
        additional_special_tokens=known.marks,
        chat_template=known.chat_template,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(model: str, *, needs_template: bool = True) -> Any:
    """The tokenizer of a folder or Hugging Face id; a TrainError when it cannot be had, or lacks the chat template it needs."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TrainError(f"no tokenizer in {model!r}: {_first_line(error)}") from error
    if needs_template and not tokenizer.chat_template:
        raise TrainError(
            f"the tokenizer of {model!r} has no chat template: take a chat model, such as google/gemma-2-9b-it"
        )
    return tokenizer


def token_counter(model: str) -> Callable[[Sequence[Message]], int]:
    """Counts the tokens of a conversation's texts, without those of a chat template."""
    tokenizer = load_tokenizer(model)

    def count(messages: Sequence[Message]) -> int:
        ids = tokenizer([message.content for message in messages], add_special_tokens=False)["input_ids"]
        return sum(map(len, ids))

    return count


def fold_system(conversation: Sequence[Message]) -> list[Message]:
    """The conversation with its opening system text at the head of the first user turn; a TrainError unless turns then alternate."""
    head = 0
    while head < len(conversation) and conversation[head].role == "system":
        head += 1
    turns = list(conversation[head:])
    if not turns:
        raise TrainError("a conversation without a user turn cannot be read: give it at least one")
    for place, message in enumerate(turns):
        expected = "user" if place % 2 == 0 else "assistant"
        if message.role != expected:
            raise TrainError(
                f"message {head + place + 1} is a {message.role} turn where a {expected} turn must stand: "
                "user and assistant take turns, and the user begins"
            )
    if head:
        system = "\n\n".join(message.content.strip() for message in conversation[:head])
        turns[0] = Message(role="user", content=f"{system}\n\n{turns[0].content.strip()}")
    return turns


def render(tokenizer: Any, conversation: Sequence[Message]) -> str:
    """The conversation as the model reads it, the begin token included as text."""
    messages = [{"role": message.role, "content": message.content} for message in fold_system(conversation)]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def encode(tokenizer: Any, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of whole conversations, never truncated. The template writes the begin token, so none is added."""
    if not conversations:
        return []
    texts = [render(tokenizer, conversation) for conversation in conversations]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    tokenizer.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
