"""Running a compiled graph to its end."""

from collections.abc import Mapping
from typing import Any


async def played(graph: Any, start: Mapping[Any, Any], limits: Mapping[str, Any]) -> Any:
    """The state in which a graph ends.

    By LangGraph's second format, which streams the values alone: the first adds every node's update to that.

    Args:
        limits: `recursion_limit` (`graphs.dialogue.recursion_limit`).
    """
    return (await graph.ainvoke(start, limits, version="v2")).value
