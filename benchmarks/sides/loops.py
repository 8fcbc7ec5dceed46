"""Two nested loops and nothing else: `aiohttp` sends each call itself, `litellm` by `litellm.acompletion`.

No retries, no limits, no journal, no store, no graph: the least that can be written with either library. The aiohttp loop
reads and writes JSON with orjson and lets its session hold as many connections as there are dialogues. The prompts are
Descant's own, so that the same bytes travel.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson

from agents.prompts import Prompts
from benchmarks.sides.task import MAX_TOKENS, TEMPERATURE, first_turns, measured, parser_of

Messages = list[dict[str, str]]
Ask = Callable[[Messages, int], Awaitable[str]]


async def play(number: int, first: str, turns: int, ask: Ask, around: tuple[str, str]) -> None:
    """One dialogue."""
    before, after = around
    messages = [{"role": "user", "content": first}]
    for turn in range(turns):
        if turn:
            shown = "\n".join(f"<{m['role']}>\n{m['content']}\n</{m['role']}>" for m in messages)
            said = await ask([{"role": "user", "content": before + shown + after}], number)
            messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": await ask(messages, number)})


async def play_all(dialogues: int, turns: int, concurrency: int, ask: Ask) -> None:
    around = user_prompt()
    waiting = iter(enumerate(first_turns(dialogues)))

    async def worker(waiting: Iterator[tuple[int, str]]) -> None:
        for number, first in waiting:
            await play(number, first, turns, ask, around)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker(waiting))


def user_prompt() -> tuple[str, str]:
    """What stands before and after the transcript in the user's prompt."""
    mark = "THE TRANSCRIPT"
    before, after = Prompts().render("ask", transcript=mark, turns_left=1).split(mark)
    return before, after


async def by_aiohttp(arguments: Any) -> None:
    import aiohttp

    url = f"{arguments.api_base}/chat/completions"
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(messages: Messages, seed: int) -> str:
            body = {
                "model": arguments.model,
                "messages": messages,
                "temperature": TEMPERATURE,
                "max_tokens": MAX_TOKENS,
                "seed": seed,
            }
            async with session.post(url, data=orjson.dumps(body), headers=headers) as response:
                text: str = orjson.loads(await response.read())["choices"][0]["message"]["content"]
            return text

        await play_all(arguments.dialogues, arguments.turns, arguments.concurrency, ask)


async def by_litellm(arguments: Any) -> None:
    import litellm

    litellm.suppress_debug_info = True

    async def ask(messages: Messages, seed: int) -> str:
        response = await litellm.acompletion(
            model=f"hosted_vllm/{arguments.model}",
            api_base=arguments.api_base,
            messages=messages,
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
            seed=seed,
        )
        return str(response.choices[0].message.content)

    await play_all(arguments.dialogues, arguments.turns, arguments.concurrency, ask)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--by", choices=["aiohttp", "litellm"], required=True)
    arguments = parser.parse_args()
    if arguments.by == "litellm":
        import os

        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm  # noqa: F401  (2.6 s, which are no part of the loop)
    with measured():
        asyncio.run((by_aiohttp if arguments.by == "aiohttp" else by_litellm)(arguments))


if __name__ == "__main__":
    main()
