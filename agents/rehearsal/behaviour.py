"""How faulty the rehearsal is."""

from typing import Annotated

from pydantic import Field

from agents.rehearsal.lapses import LAPSES
from agents.rehearsal.misbehaviour import KINDS
from configs.base import Settings


class Behaviour(Settings):
    """How faulty the rehearsal is: request parameters of its own."""

    mistake_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Natural mistakes of the assistant, a turn (the prototype's noise); in a description, each part."""
    omission_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Telling words of a question from outside the world that the assistant passes over, each by itself; above 0 its phrasing varies too."""
    judge_error_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Verdicts of `verify`, `depends` and the comparisons that are turned round, and scores that are drawn blindly; each time anew."""
    judge_blind_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Pairs of answers that the judge of `prefer` gets wrong whichever stands first and however often it is asked."""
    position_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Comparisons that go to A whatever is said."""
    length_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Comparisons that go to the side whose assistant wrote more characters, whatever is said."""
    role_inversion_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Queries of the user in which it answers as the assistant. This rate and the next four are shares of one draw."""
    leak_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Queries in which it tells its instructions or its reasoning."""
    early_end_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Times when it ends the dialogue in place of a query."""
    restart_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Queries in which it begins the conversation over."""
    repetition_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Queries in which it says an earlier one again."""
    edit_failure_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Answers of `boost` and `steer` that go the other way than they were asked to, where there is such a way: damaged to be better, mended to be worse."""
    repeat_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`) that say the first one again. This rate and the next five are shares of one draw."""
    empty_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`, `steer`) with nothing in them."""
    editing_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`, `steer`) that speak of having been edited."""
    aspects_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`, `steer`) that speak of an aspect."""
    unparsable_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`) that are not the JSON that was asked for."""
    endless_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Second answers (`boost`, `steer`) of so many words that any limit cuts them off."""

    @property
    def lapses(self) -> tuple[float, ...]:
        """The rates of how a second answer cannot be used, in the order of `LAPSES`."""
        return tuple(getattr(self, f"{lapse}_rate") for lapse in LAPSES)

    @property
    def misbehaviour(self) -> tuple[float, ...]:
        """The rates of how the user breaks its role, in the order of `KINDS`."""
        return tuple(getattr(self, f"{kind}_rate") for kind in KINDS)
