"""Conversations to token ids, the way Gemma-2 reads them, and a small tokenizer for tiny models.

The chat template is Gemma's: no system role, and user and assistant alternate. System text is folded into
the first user turn before the template sees it; turns that do not alternate are refused. Knows nothing of
pairs, models or files other than tokenizer folders.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from store.records import Message
from train.errors import TrainError

# The places of Gemma's special tokens: 0 pad, 1 eos, 2 bos, 3 unk; the turn marks follow here, and stand at 106 and 107 there.
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
END_OF_TURN = "<end_of_turn>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, max_length: int) -> Any:
    """A byte-level BPE tokenizer with Gemma's special tokens and chat template, the same for the same texts in the same order.

    A word has one token at the start of a line and in its middle, since each line gets a leading space.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("\n"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        # The template's own words, so that a turn's opening costs few tokens however small the vocabulary is.
        [*texts, *["user\n", "model\n"] * 8],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=CHAT_TEMPLATE,
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
                "Gemma's chat template takes user and assistant in turns, starting with the user"
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


def answer_ends(tokenizer: Any, ids: Sequence[int], n_messages: int) -> list[int]:
    """Where each answer ends: the place of the last token that the conversation up to it would have.

    Args:
        n_messages: turns after folding; a conversation that ends on a user turn is counted to its last answer.
    """
    mark = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    starts = tokenizer.convert_tokens_to_ids("<start_of_turn>")
    ends = [place for place, token in enumerate(ids) if token == mark]
    if len(ends) != n_messages:
        raise TrainError(
            f"a conversation of {n_messages} turns has {len(ends)} turn marks: its text contains {END_OF_TURN!r}; clean it"
        )
    following = [end + 1 if end + 1 < len(ids) and ids[end + 1] != starts else end for end in ends]
    return following[1::2]


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    tokenizer.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
