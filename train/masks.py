"""Which tokens of a conversation belong to which turn, for any tokenizer with a chat template.

A turn's place is found in the rendered text, by characters: the template is rendered once with a placeholder for every
text, and what stands between the placeholders is the template's own. Tokens are laid over it by their offsets, so no token
id and no template is known here. A turn ends with the template's mark (a special token behind the text), which belongs to
it: a model that never learns the mark never stops. System text, folded into the first user turn, belongs to no turn.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jinja2.exceptions import TemplateError

from store.records import Message
from train.errors import TrainError
from train.tokenizer import fold_system

IGNORED = -100  # cross_entropy leaves such targets out
PLACEHOLDER = "\ue000{}\ue001"  # characters for private use, which no template and no sane text has


class Span(NamedTuple):
    """Where a turn stands in the rendered text."""

    role: str
    start: int
    """Its first character; of a first user turn the first behind the system text."""
    end: int
    """Behind its end mark, or behind its text where the template writes none."""
    is_marked: bool


class Read(NamedTuple):
    """A conversation as the model reads it."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Of each token: its first character and the one behind its last."""
    spans: list[Span]

    def targets(self, role: Literal["user", "assistant"], turns: Sequence[int] | None = None) -> list[int]:
        """For each token itself where it belongs to a turn of `role`, else IGNORED.

        Args:
            turns: only these of the role's turns, from 0; null for all.
        """
        wanted = [span for span in self.spans if span.role == role]
        if turns is not None:
            wanted = [wanted[place] for place in turns]
        return [
            token if any(start < span.end and max(end, start + 1) > span.start for span in wanted) else IGNORED
            for token, (start, end) in zip(self.ids, self.offsets, strict=True)
        ]


class Reader:
    """Reads conversations with one tokenizer; what it knows of the chat template it finds out once for each length."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise TrainError(
                f"{type(tokenizer).__name__} does not say where its tokens stand: a fast tokenizer is needed"
            )
        self.tokenizer = tokenizer
        self.marks = special_texts(tokenizer)
        self._skeletons: dict[int, list[str]] = {}

    def read(self, conversations: Sequence[Sequence[Message]]) -> list[Read]:
        """Token ids of whole conversations, never truncated. The template writes the begin token, so none is added."""
        if not conversations:
            return []
        placed = [self.place(conversation) for conversation in conversations]
        found = self.tokenizer(
            [text for text, _ in placed],
            add_special_tokens=False,
            truncation=False,
            verbose=False,
            return_offsets_mapping=True,
        )
        return [
            Read(ids, [tuple(offset) for offset in offsets], spans)
            for ids, offsets, (_, spans) in zip(found["input_ids"], found["offset_mapping"], placed, strict=True)
        ]

    def place(self, conversation: Sequence[Message]) -> tuple[str, list[Span]]:
        """The conversation as text, and where its turns stand.

        Raises:
            TrainError: turns that do not alternate, or a template that changes the texts.
        """
        turns = fold_system(conversation)
        text = rendered(self.tokenizer, turns)
        skeleton = self.skeleton(len(turns))
        written = _as_written(turns, skeleton, text)
        if written is None:
            raise TrainError(
                "the chat template changes the texts of turns, so that none can be found in what it writes: name another "
                "with chat_template"
            )
        spans, place = [], len(skeleton[0])
        for turn, content, behind in zip(turns, written, skeleton[1:], strict=True):
            end = place + len(content)
            mark = mark_of(behind, self.marks)
            spans.append(Span(turn.role, place, end + len(mark), bool(mark)))
            place = end + len(behind)
        if conversation[0].role == "system":  # folded in at the head of the first turn's text, which ends with its own
            own = next(message.content.strip() for message in conversation if message.role == "user")
            spans[0] = spans[0]._replace(start=len(skeleton[0]) + len(written[0]) - len(own))
        return text, spans

    def answer_ends(self, conversation: Sequence[Message], read: Read) -> list[int] | None:
        """Where each answer ends: the place of the last token that the conversation up to it would have.

        Null where such a beginning is written otherwise when something follows, as Qwen-3's template does with answers.

        Raises:
            TrainError: a text contains the mark that ends a turn.
        """
        turns = len(read.spans)
        whole, behind_tokens, found = self.skeleton(turns), [end for _, end in read.offsets], []
        ends = {mark_of(piece, self.marks).strip() for piece in whole[1:]} - {""}
        for mark in sorted(ends):
            if any(mark in message.content for message in conversation):
                raise TrainError(f"its text contains {mark!r}, one of the turn marks: clean it")
        for count in range(2, turns + 1, 2):
            alone, span = self.skeleton(count), read.spans[count - 1]
            if alone[:-1] != whole[:count] or not whole[count].startswith(alone[-1]):
                return None
            stop = span.end - len(mark_of(whole[count], self.marks)) + len(alone[-1])
            last = bisect_right(behind_tokens, stop) - 1
            while read.offsets[last][0] >= stop:  # an empty token that belongs to what follows
                last -= 1
            if last + 1 < len(read.offsets) and read.offsets[last + 1][0] < stop < read.offsets[last + 1][1]:
                return None  # a token reaches over the end
            found.append(last)
        return found

    def imitates_marks(self, conversation: Sequence[Message]) -> bool:
        """Whether a text holds what would be read as one of the tokenizer's marks."""
        return any(mark in message.content for message in conversation for mark in self.marks)

    def skeleton(self, turns: int) -> list[str]:
        """What the template writes around the texts of so many turns: one piece more than turns."""
        if turns not in self._skeletons:
            self._skeletons[turns] = skeleton_of(self.tokenizer, turns)
        return self._skeletons[turns]


def skeleton_of(tokenizer: Any, turns: int) -> list[str]:
    """What the chat template writes around the texts of a conversation of so many turns, the user's first."""
    roles = ["user" if place % 2 == 0 else "assistant" for place in range(turns)]
    texts = [PLACEHOLDER.format(place) for place in range(turns)]
    messages = [Message(role=role, content=text) for role, text in zip(roles, texts, strict=True)]  # type: ignore[arg-type]
    rest, pieces = rendered(tokenizer, messages), []
    for text in texts:
        before, found, rest = rest.partition(text)
        if not found:
            raise TrainError("the chat template leaves out or reorders turns: name another with chat_template")
        pieces.append(before)
    return [*pieces, rest]


def rendered(tokenizer: Any, turns: Sequence[Message]) -> str:
    """The text that the chat template writes."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except TemplateError as error:
        raise TrainError(f"the chat template refuses a conversation: {error}") from None


def mark_of(behind: str, marks: Sequence[str]) -> str:
    """The special token that stands first in `behind`, the space before it included; empty without one."""
    bare = behind.lstrip()
    found = max((mark for mark in marks if bare.startswith(mark)), key=len, default="")
    return behind[: len(behind) - len(bare)] + found if found else ""


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """The texts that a tokenizer reads as tokens of their own with a meaning."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def _as_written(turns: Sequence[Message], skeleton: Sequence[str], text: str) -> list[str] | None:
    """The texts as the template wrote each: as it is, or without the space around it, or before it; null for another text."""
    if not text.startswith(skeleton[0]):
        return None
    written, place = [], len(skeleton[0])
    for turn, behind in zip(turns, skeleton[1:], strict=True):
        ways = (turn.content, turn.content.strip(), turn.content.lstrip("\n"), turn.content.rstrip())
        found = next((way for way in ways if text.startswith(way + behind, place)), None)
        if found is None:
            return None
        written.append(found)
        place += len(found) + len(behind)
    return written if place == len(text) else None
