"""sdialog's side, in its own way: two `Agent`s with personas, `dialog_with`, its OpenAI backend. Runs in its own environment.

sdialog has no concurrency of its own: an agent's call blocks. So dialogues are played by threads, each with two agents
of its own that it takes again for the next dialogue; `--processes` shares the threads out among several processes.
The user's first words are given, as for the other sides. Its progress bars and its log of requests are off. The prompts are its own: a system
message with the persona, and the conversation, for both agents.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from typing import Any

from benchmarks.sides.task import MAX_TOKENS, TEMPERATURE, first_turns, measured, parser_of


def play_all(arguments: Any, firsts: Sequence[str], threads: int) -> None:
    from sdialog.agents import Agent
    from sdialog.personas import Persona

    model = {
        "model": f"openai:{arguments.model}",
        "base_url": arguments.api_base,
        "api_key": "none-needed",
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
    }
    waiting = iter(firsts)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def worker() -> None:
        user = Agent(persona=Persona(name="User", role="a person who talks with an AI assistant"), **model)
        assistant = Agent(persona=Persona(name="Assistant", role="a helpful AI assistant"), can_finish=False, **model)
        while True:
            with lock:
                first = next(waiting, None)
            if first is None:
                return
            user.set_first_utterances(first)
            try:
                dialog = user.dialog_with(assistant, max_turns=2 * arguments.turns, keep_bar=False)
                assert len(dialog) == 2 * arguments.turns, f"the dialogue ended after {len(dialog)} turns"
            except BaseException as error:
                failures.append(error)
                raise

    workers = [threading.Thread(target=worker) for _ in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    if failures:
        raise SystemExit(f"sdialog failed: {failures[0]!r}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.INFO)  # it tells of every request
    import sdialog.agents  # noqa: F401  (many seconds, which are no part of the dialogues)

    firsts = first_turns(arguments.dialogues)
    n = arguments.processes
    with measured():
        if n == 1:
            play_all(arguments, firsts, arguments.concurrency)
            return
        context = multiprocessing.get_context("fork")
        parts = [
            context.Process(target=play_all, args=(arguments, firsts[part::n], arguments.concurrency // n))
            for part in range(n)
        ]
        for part in parts:
            part.start()
        for part in parts:
            part.join()
        if any(part.exitcode for part in parts):
            raise SystemExit("sdialog failed in one of its processes")


if __name__ == "__main__":
    main()
