"""Every judge compares two sides, in both orders."""

from collections.abc import Awaitable, Callable, Sequence

from agents.failures import ProviderError
from agents.judge import Judge, Opinion, Presentation
from graphs.side_by_side import side_by_side
from graphs.state import Comparison

ORDERS: tuple[Presentation, ...] = ("chosen_first", "rejected_first")


async def in_both_orders(
    judges: Sequence[Judge], ask: Callable[[Judge, Presentation], Awaitable[Opinion]]
) -> list[Comparison]:
    """What each judge says in each order. A verdict that failed is left out; its failed call is in the journal."""
    asked = [(judge, order) for judge in judges for order in ORDERS]
    opinions = await side_by_side([ask(judge, order) for judge, order in asked])
    return [
        Comparison(judge.name, judge.index, order, opinion)
        for (judge, order), opinion in zip(asked, opinions, strict=True)
        if not isinstance(opinion, ProviderError)
    ]
