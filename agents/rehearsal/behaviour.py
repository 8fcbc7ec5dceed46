"""How faulty the rehearsal is."""

from typing import Annotated

from pydantic import Field

from agents.rehearsal.misbehaviour import KINDS
from configs.base import Settings


class Behaviour(Settings):
    """How faulty the rehearsal is: request parameters of its own."""

    mistake_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Natural mistakes of the assistant, a turn (the prototype's noise)."""
    judge_error_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Verdicts of `verify`, `depends` and the comparisons that are turned round, and scores that are drawn blindly."""
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

    @property
    def misbehaviour(self) -> tuple[float, ...]:
        """The rates of how the user breaks its role, in the order of `KINDS`."""
        return tuple(getattr(self, f"{kind}_rate") for kind in KINDS)
