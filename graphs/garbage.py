"""Python's garbage collector while a campaign runs: it leaves alone what was there before, and comes less often.

LiteLLM, LangGraph and pydantic load about a million objects that live as long as the process. Each full collection walks
through all of them, for nothing, and holds up every dialogue: that was a quarter of a campaign's CPU time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 100_000
"""That are made before the youngest are looked at (Python's own: 700): a node of a graph alone makes hundreds, and all but a
few are freed without the collector."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within the block, what was there before it is not looked at; a dialogue's own garbage is collected as ever."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
