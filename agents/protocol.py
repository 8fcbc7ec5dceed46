"""What an agent is: given the dialogue so far, it returns the next message.

Agents keep no conversation in themselves; the dialogue is the argument, so that any agent can be replayed,
forked and tested with a list.
"""

from typing import NamedTuple, Protocol

from store.records import Message


class CallSite(NamedTuple):
    """Which call of a dialogue this is; all but `turns_left` make the call's id."""

    campaign_id: str
    dialogue_id: str
    depth: int
    agent: str
    purpose: str
    ordinal: int = 0
    turns_left: int = 0
    """Assistant answers still to come: where calls have to wait, those of nearly finished dialogues go first."""


class Refused(NamedTuple):
    """A query that a gate did not let pass, and why."""

    reason: str
    content: str


class DialogueSoFar(NamedTuple):
    """All that an agent may know of a dialogue."""

    campaign_id: str
    dialogue_id: str
    messages: tuple[Message, ...]
    turns_left: int
    """Assistant answers still to come."""
    script: tuple[str, ...] = ()
    """User turns that the seed brings along, the first included; spoken where a campaign follows a script."""
    refused: tuple[Refused, ...] = ()
    """What the user wrote for the next turn before, and a gate did not let pass."""

    @property
    def depth(self) -> int:
        """The place in the conversation that the next message takes, from 0."""
        return len(self.messages)

    @property
    def instruction(self) -> str:
        """The user turn that waits for an answer."""
        return self.messages[-1].content

    def site(self, agent: str, purpose: str, ordinal: int = 0) -> CallSite:
        """The call that an agent makes here. `ordinal` tells apart several of one purpose."""
        return CallSite(self.campaign_id, self.dialogue_id, self.depth, agent, purpose, ordinal, self.turns_left)


class Utterance(NamedTuple):
    """What an agent said."""

    content: str
    call_id: str | None
    """Null for words that came with the seed: nobody was called."""
    ends_dialogue: bool = False
    """The user is done; `content` is empty then, or the last words that end in the mark."""
    completion_tokens: int | None = None
    """Null: the provider reported no usage."""
    altered_instruction: str | None = None
    """What was answered in place of the visible instruction."""
    cut_off: bool = False
    """A text that the model did not finish: it ran into `max_tokens`."""


class Agent(Protocol):
    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        """The next message of the role that this agent plays.

        Raises:
            ProviderError: the model gave none.
        """
        ...
