"""Chat templates: three for models without one, and the one with which a model of the user asks instead of answering.

What Gemma's template, made to ask, writes of a query and its answer, the last line being its generation prompt:

    <bos><start_of_turn>user
    What is tea?<end_of_turn>
    <start_of_turn>model
    A drink.<end_of_turn>
    <start_of_turn>user

"""

from pathlib import Path
from typing import Any

from store.records import Message
from train.errors import TrainError
from train.families import CHATML, GEMMA
from train.masks import PLACEHOLDER, mark_of, rendered, skeleton_of, special_texts

PLAIN = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ ('USER: ' if message['role'] == 'user' else 'ASSISTANT: ') + message['content'] | trim + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TEMPLATES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gemma": (GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    "chatml": (CHATML, ("<|im_start|>", "<|im_end|>")),
    "plain": (PLAIN, ()),
}
"""Each with the marks that must be tokens of their own."""


BEGIN, END = "{# the answering template begins #}", "{# the answering template ends #}"
"""Jinja's comments around the template that an asking one was made of, by which `answering_template` finds it again."""


def give_template(tokenizer: Any, name: str) -> int:
    """Put a template by name or by file into a tokenizer; gives how many marks became new tokens.

    Raises:
        TrainError: no such template.
    """
    if name in TEMPLATES:
        template, marks = TEMPLATES[name]
    else:
        try:
            template, marks = Path(name).read_text(encoding="utf-8"), ()
        except OSError as error:
            raise TrainError(
                f"chat_template {name!r}: neither one of {', '.join(TEMPLATES)} nor a file ({error.strerror})"
            ) from None
    tokenizer.chat_template = template
    known = special_texts(tokenizer)
    missing = [mark for mark in marks if mark not in known]
    return (
        int(tokenizer.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False))
        if missing
        else 0
    )


def end_mark(tokenizer: Any, role: str) -> str:
    """The special token behind the turns of `role`, at which a model that plays it must stop.

    Raises:
        TrainError: the template writes none.
    """
    behind = skeleton_of(tokenizer, 3)[1 if role == "user" else 2]
    mark = mark_of(behind, special_texts(tokenizer)).strip()
    if not mark:
        raise TrainError(
            f"the chat template ends {role} turns without a mark, so a model could not learn where they end: name another "
            "with chat_template, such as plain"
        )
    return mark


def asking_template(tokenizer: Any) -> str:
    """The tokenizer's chat template, changed so that its generation prompt opens the user's turn.

    A plain chat-completions request with the conversation so far then gets what the user says next. Without any message,
    or with system text alone, it gets a first query.

    Raises:
        TrainError: a template that writes a conversation's beginning otherwise when something follows.
    """
    first, second = PLACEHOLDER.format(0), PLACEHOLDER.format(1)
    so_far = rendered(tokenizer, [Message(role="user", content=first), Message(role="assistant", content=second)])
    pieces = skeleton_of(tokenizer, 3)
    longer = pieces[0] + first + pieces[1] + second + pieces[2]
    if not longer.startswith(so_far):
        raise TrainError(
            "the chat template does not go on where a conversation ended, so that no user turn can be opened: name another "
            "with chat_template"
        )
    # A blank at a header's end is read as part of the word that follows, which the model writes.
    header, opening = longer[len(so_far) :].rstrip(" "), pieces[0].rstrip(" ")
    # Jinja drops one line's end at a template's own end, but would write it in the middle of this one.
    original = answering_template(str(tokenizer.chat_template)).removesuffix("\n")
    # System text goes to the head of the first turn that follows, as `fold_system` has it in training: many templates refuse
    # a system turn. That is the second message, or, where there is none, the query that the model is about to write.
    return (
        "{% set asks = add_generation_prompt %}{% set add_generation_prompt = false %}"
        "{% set told = messages[0]['content'] | trim + '\\n\\n' if messages and messages[0]['role'] == 'system' else '' %}"
        "{% if told and messages | length > 1 %}"
        "{% set messages = [{'role': 'user', 'content': told + messages[1]['content'] | trim}] + messages[2:] %}"
        "{% endif %}"
        "{% if messages and messages[0]['role'] != 'system' %}"
        f"{BEGIN}{original}{END}"
        f"{{% if asks %}}{{{{ {_literal(header)} }}}}{{% endif %}}"
        f"{{% elif asks %}}{{{{ {_literal(opening)} + told }}}}{{% endif %}}"
    )


def answering_template(template: str) -> str:
    """The chat template that an asking one was made of; any other as it is."""
    _, begun, rest = template.partition(BEGIN)
    return rest.partition(END)[0] if begun else template


def is_asking(template: str) -> bool:
    return BEGIN in template


def _literal(text: str) -> str:
    """A text as Jinja writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
