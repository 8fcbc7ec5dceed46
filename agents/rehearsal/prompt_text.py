"""How the rehearsal reads the text of a prompt: its sections, the turns of its transcript, what was tried before."""

import re

import orjson

from store.records import Message

MISSED = re.compile(r"^<missed>\n(.*?)\n</missed>$", re.DOTALL | re.MULTILINE)
CAUGHT = re.compile(r"^<caught>\n(.*?)\n</caught>$", re.DOTALL | re.MULTILINE)
REFUSED = re.compile(r"^(.*):\n<refused>\n", re.MULTILINE)
TURN = re.compile(r"^<(user|assistant|system)>\n(.*?)\n?^</\1>$", re.DOTALL | re.MULTILINE)


def section(prompt: str, tag: str) -> str:
    start, end = prompt.find(f"<{tag}>\n"), prompt.rfind(f"\n</{tag}>")
    return prompt[start + len(tag) + 3 : end] if 0 <= start < end else ""


def missed_in(prompt: str) -> list[str]:
    """What was tried in vain; it stands behind the transcript, and the query, where the prompt has them."""
    start = max(prompt.rfind("\n</transcript>"), prompt.find("\n</query>"), 0)
    return MISSED.findall(prompt[start:])


def caught_in(prompt: str) -> list[str]:
    """The queries that could not be used; they stand behind the transcript."""
    return CAUGHT.findall(prompt[max(prompt.rfind("\n</transcript>"), 0) :])


def refusals_in(prompt: str) -> list[str]:
    """Why earlier second answers could not be used, in words; they stand behind the first answer."""
    return REFUSED.findall(prompt[max(prompt.rfind("\n</answer>"), 0) :])


def transcript_in(prompt: str) -> list[Message]:
    return turns_in(section(prompt, "transcript"))


def turns_in(text: str) -> list[Message]:
    # a prompt comes from outside: its roles are those of TURN, so that validation would only cost time
    return [Message.model_construct(role=role, content=content) for role, content in TURN.findall(text)]


def as_json(**values: object) -> str:
    return orjson.dumps(values).decode()
