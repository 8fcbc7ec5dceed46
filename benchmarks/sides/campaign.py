"""Descant's side: `run_campaign` with recipe `dialogue`, journal and store on, as `descant run` does it.

With `--forget` a writer is put in that notes nothing: what is left is the campaign without journaling and storing.
"""

import argparse
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from benchmarks.sides.task import MAX_TOKENS, TEMPERATURE, first_turns, measured, parser_of
from configs.settings import CampaignSettings
from graphs import campaign
from store.identity import seed_id, split_of
from store.records import Message, Record, Seed
from store.writer import Writer


class Forgetful(Writer):
    """Takes records and keeps none."""

    def append(self, *records: Record) -> None:
        pass

    async def note(self, *records: Record) -> None:
        pass

    def leave(self, *records: Record) -> None:
        pass


def settings_of(arguments: argparse.Namespace) -> CampaignSettings:
    model = {"model": f"hosted_vllm/{arguments.model}", "api_base": arguments.api_base}
    model |= {"temperature": TEMPERATURE, "max_tokens": MAX_TOKENS, **json.loads(arguments.model_settings)}
    return CampaignSettings.model_validate(
        {
            "name": "throughput",
            "recipe": "dialogue",
            "turns": arguments.turns,
            "concurrency": arguments.concurrency,
            "seeds": {"path": "-"},
            "models": {"default": model},
        }
    )


def seeds_of(dialogues: int) -> list[Seed]:
    opened = [(Message(role="user", content=text),) for text in first_turns(dialogues)]
    return [
        Seed(seed_id=seed_id(messages, 0), source="-", messages=messages, split=split_of(messages))
        for messages in opened
    ]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--forget", action="store_true", help="Without journal and store.")
    parser.add_argument("--model-settings", default="{}", help="More settings of the model, as JSON.")
    arguments = parser.parse_args()
    settings, seeds = settings_of(arguments), seeds_of(arguments.dialogues)
    forgetting = patch.object(campaign, "Writer", Forgetful) if arguments.forget else nullcontext()
    with tempfile.TemporaryDirectory() as folder, forgetting, measured():
        report = campaign.run_campaign(settings, seeds, Path(folder) / "corpus.duckdb")
    assert report.done == arguments.dialogues, report


if __name__ == "__main__":
    main()
