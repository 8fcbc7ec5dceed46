"""Prompts as files: found, rendered, hashed.

A prompt is a Jinja file in `agents/prompts/`; its first line lists its variables in a comment. A variable
that is missing is an error. A config may replace a prompt by path; the replacement's hash is what is stored.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables

from configs.errors import DescantError
from store.identity import content_hash
from store.records import Message

VARIABLES = {
    "ask": {"transcript", "turns_left"},
    "alter": {"transcript", "instruction", "missed"},
    "contrast": {"transcript", "missed"},
    "verify": {"transcript", "answer"},
    "compare": {"conversation_a", "conversation_b"},
}
"""What each prompt of any campaign is given."""
GATE_VARIABLES = {"ask_again": {"transcript", "turns_left", "caught"}, "gate": {"transcript", "query"}}
"""Of a campaign with a gate on its user's queries."""
CONTEXT_VARIABLES = {
    "depends": {"transcript", "query"},
    "guess": {"query", "missed"},
    "misread": {"transcript", "query", "missed"},
    "verify_context": {"transcript", "answer", "kind"},
}
"""Of a campaign with errors of context (CaPO)."""
PREFER = {"prefer": {"transcript", "answer_a", "answer_b", "aspects", "by_aspect"}}
"""What a judge of two answers is given."""
BOOST = {"boost": {"transcript", "answer", "direction", "aspects", "most", "refused"}}
"""What the writer of a second answer is given (RMBoost)."""
STEER = {"steer": {"transcript", "direction", "aspects"}}
"""What the writer of a good or a poor answer is given (RLCD)."""
JUDGING_VARIABLES = {
    "compare": VARIABLES["compare"],
    "reference_compare": {"conversation_a", "conversation_b", "reference"},
    "score": {"transcript"},
    "score_turn": {"transcript", "answer"},
    "reference": {"transcript", "reference"},
    "reference_turn": {"transcript", "answer", "reference"},
    "realism": {"transcript"},
}
"""What each prompt of a later judging is given. Apart from the others, so that they are no part of a campaign's identity."""
SAMPLES: dict[str, object] = {
    "caught": [("reason", "sample")],
    "refused": [("reason", "sample")],
    "aspects": {"sample": "sample"},
    "most": 1,
    "by_aspect": True,
}
"""What a prompt is tried with before a campaign begins; a variable that is not here is a text."""
OUR_TAGS = (
    "transcript",
    "user",
    "assistant",
    "system",
    "conversation_a",
    "conversation_b",
    "instruction",
    "answer",
    "reference",
    "missed",
    "query",
    "caught",
    "answer_a",
    "answer_b",
    "refused",
)


class PromptError(DescantError):
    """Raised here: a prompt file is missing, does not parse, or wants a variable that it is not given."""


class Prompts:
    """All prompts of a campaign, or of a judging (`variables`), with the replacements that its config names."""

    def __init__(
        self,
        replacements: Mapping[str, str] | None = None,
        *,
        variables: Mapping[str, set[str]] = VARIABLES,
    ) -> None:
        replacements = replacements or {}
        for name in replacements:
            if name not in variables:
                raise PromptError(f"unknown prompt {name!r}: the prompts are {', '.join(variables)}")
        self.texts = {name: _read(name, replacements.get(name)) for name in variables}
        environment = Environment(
            undefined=StrictUndefined, keep_trailing_newline=False, trim_blocks=True, lstrip_blocks=True
        )
        self._templates = {}
        for name, text in self.texts.items():
            try:
                self._templates[name] = environment.from_string(text)
                used = find_undeclared_variables(environment.parse(text))
                unknown = used - variables[name]
            except TemplateSyntaxError as error:
                raise PromptError(f"prompt {name!r}, line {error.lineno}: {error.message}") from error
            if unknown:
                raise PromptError(
                    f"prompt {name!r} wants {', '.join(sorted(unknown))}: "
                    f"its variables are {', '.join(sorted(variables[name]))}"
                )
            if not used:
                raise PromptError(
                    f"prompt {name!r} shows the model nothing of what it is about: its variables are "
                    f"{', '.join(sorted(variables[name]))}, written as {{{{ {min(variables[name])} }}}}"
                )
            self.render(name, **{variable: SAMPLES.get(variable, "sample") for variable in variables[name]})

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Content hash by prompt name: part of a campaign's identity, stored with every dialogue."""
        return {name: content_hash(text) for name, text in self.texts.items()}

    def render(self, name: str, **variables: object) -> str:
        try:
            return self._templates[name].render(**variables).strip()
        except UndefinedError as error:
            raise PromptError(f"prompt {name!r}: {error.message}") from error
        except Exception as error:
            raise PromptError(f"prompt {name!r} cannot be rendered: {type(error).__name__}: {error}") from error


def _read(name: str, replacement: str | None) -> str:
    if replacement is None:
        return files("agents").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    try:
        return Path(replacement).read_text(encoding="utf-8")
    except OSError as error:
        raise PromptError(f"cannot read {replacement!r} for prompt {name!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"{replacement!r} for prompt {name!r} is not a UTF-8 text file") from error


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as text inside a prompt: each turn between tags of its role, each tag on a line of its own.

    Tags of ours inside a turn are defused, so that no turn can end the transcript or speak as another role.
    """
    return "\n".join(f"<{m.role}>\n{defused(m.content)}\n</{m.role}>" for m in messages)


def defused(text: str) -> str:
    """Text that another model or a person wrote, with our tags broken, to stand inside them in a prompt."""
    if "<" not in text:
        return text
    for tag in OUR_TAGS:
        text = text.replace(f"</{tag}>", f"< /{tag}>").replace(f"<{tag}>", f"< {tag}>")
    return text
