"""While a campaign runs, the garbage collector leaves alone what was there before, and is afterwards as it was."""

import gc
import weakref

import pytest

from graphs.garbage import seldom_collected


class Thing:
    """Can be part of a cycle, and be seen to go."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_there_is_left_alone_and_new_garbage_is_not() -> None:
    thresholds = gc.get_threshold()
    old = Thing()
    seen = weakref.ref(old)
    with seldom_collected():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] > thresholds[0]
        new = weakref.ref(Thing())
        del old
        gc.collect()
        assert seen() is not None
        assert new() is None
    gc.collect()
    assert seen() is None
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0


def test_the_collector_is_as_it_was_after_a_failure() -> None:
    thresholds = gc.get_threshold()
    with pytest.raises(ValueError, match="stop"), seldom_collected():
        raise ValueError("stop")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)
