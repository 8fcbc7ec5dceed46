"""How faulty the rehearsal is."""

from typing import Annotated

from pydantic import Field

from configs.base import Settings


class Behaviour(Settings):
    """How faulty the rehearsal is: request parameters of its own."""

    mistake_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Natural mistakes of the assistant, a turn (the prototype's noise)."""
    judge_error_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Verdicts of `verify` and the comparisons that are turned round, and scores that are drawn blindly."""
    position_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Comparisons that go to A whatever is said."""
    length_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Comparisons that go to the side whose assistant wrote more characters, whatever is said."""
