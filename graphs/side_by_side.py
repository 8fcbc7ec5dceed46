"""Calls side by side whose failures are data: all come back, and are noted in the journal, before anything raises."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from agents.failures import ProviderError

Result = TypeVar("Result")


async def side_by_side(calls: Sequence[Awaitable[Result]]) -> list[Result | ProviderError]:
    """What each call gave, in their order; a provider's failure stands where its answer would.

    Raises:
        ProviderError: what is fatal for every dialogue.
        CampaignStopping: the campaign stops; an exception on the way would have cancelled the other calls.
    """
    replies = await asyncio.gather(*calls, return_exceptions=True)
    found: list[Result | ProviderError] = []
    for reply in replies:
        if isinstance(reply, ProviderError) and not reply.fatal:
            found.append(reply)
        elif isinstance(reply, BaseException):
            raise reply
        else:
            found.append(reply)
    return found
