"""Pairs a second of a reward model that reads streams, beside the same model on padded batches, on one core.

    .venv/bin/python -m benchmarks.stream_speed --conversations mtbench101.jsonl      rows of MT-Bench-101
    .venv/bin/python -m benchmarks.stream_speed --sizes 4M --rounds 3                 conversations that are made here

One training step each, interleaved, on the same groups and equal weights, fp32: Bradley-Terry loss, gradients, AdamW. Groups are
pairs that differ in the last turn, one chosen and three rejected answers to the last turn (CaPO), pairs that share their first
turn alone (MUSIC), and pairs of single turns; and eight candidates of one history are scored. `padded` is transformers' `eager`
on a batch padded to its longest row. Times are CPU seconds of one thread. `share of peak` is what the linear layers of a
stream's tokens need (six operations a weight and token, two where nothing is learned) by the best rate of a matrix product.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.functional import softplus
from transformers import Gemma2Config, Gemma2ForSequenceClassification

from benchmarks.made_corpus import CorpusMaker
from store.records import Turn
from train.attention import NAME
from train.model import rewards
from train.stream import stream_of

VOCABULARY = 4_000
SIZES = {
    "4M": {"num_hidden_layers": 6, "hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 4},
    "29M": {"num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8},
}
BEGIN, TURN = 1, 2
MADE_TURNS = 4_000
Conversation = list[list[int]]
Group = list[list[int]]


class Kind(NamedTuple):
    """What is compared, and how many of it go into a step."""

    name: str
    make: Callable[[random.Random, list[Conversation]], Group]
    at_once: int
    learns: bool = True


def conversations(path: Path | None) -> list[Conversation]:
    """As tokens by message, of conversations of at least two answers."""
    if path is None:
        texts = list(_made())
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [[text for turn in row["history"] for text in (turn["user"], turn["bot"])] for row in rows]
    texts = [text for text in texts if len(text) >= 4 and len(text) % 2 == 0]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<begin>", "<turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((message for text in texts for message in text), trainer)
    return [[[TURN, *tokenizer.encode(message).ids] for message in text] for text in texts]


def _made() -> Any:
    for made in CorpusMaker(MADE_TURNS).made():
        turns = {record.turn_id: record for record in made.records if isinstance(record, Turn)}
        parents = {turn.parent_id for turn in turns.values()}
        for leaf in turns.keys() - parents:
            path, at = [], turns.get(leaf)
            while at is not None:
                path.append(at.content)
                at = turns.get(at.parent_id or "")
            yield path[::-1]


def _flat(messages: Sequence[Sequence[int]]) -> list[int]:
    return [BEGIN, *(token for message in messages for token in message)]


def _last_turn(n: int) -> Callable[[random.Random, list[Conversation]], Group]:
    def make(chance: random.Random, found: list[Conversation]) -> Group:
        whole = chance.choice(found)
        return [_flat(whole), *(_flat([*whole[:-1], chance.choice(found)[-1]]) for _ in range(n - 1))]

    return make


def _music(chance: random.Random, found: list[Conversation]) -> Group:
    whole = chance.choice(found)
    return [_flat(whole), _flat([whole[0], *chance.choice(found)[1:]])]


def _single(chance: random.Random, found: list[Conversation]) -> Group:
    whole = chance.choice(found)
    return [_flat(whole[:2]), _flat([whole[0], chance.choice(found)[-1]])]


KINDS = (
    Kind("last turn", _last_turn(2), 8),
    Kind("one chosen, three rejected", _last_turn(4), 4),
    Kind("MUSIC: first turn shared", _music, 8),
    Kind("single turn", _single, 16),
    Kind("eight candidates scored", _last_turn(8), 2, learns=False),
)


def model_of(size: str, attention: str) -> Any:
    torch.manual_seed(0)
    heads = SIZES[size]["num_attention_heads"]
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        head_dim=SIZES[size]["hidden_size"] // heads,
        num_key_value_heads=heads // 2,
        sliding_window=512,
        num_labels=1,
        pad_token_id=0,
        **SIZES[size],
    )
    config._attn_implementation = attention
    return Gemma2ForSequenceClassification(config).train()


def step(model: Any, groups: list[Group], optimizer: Any, *, streams: bool, learns: bool) -> tuple[float, float]:
    """CPU seconds of one step, and its loss."""
    started = time.process_time()
    readings = [(row, len(one) - 1) for row, one in enumerate(one for group in groups for one in group)]
    n = len(groups[0])
    with torch.set_grad_enabled(learns):
        reward_N = rewards(model, groups, readings, pad_token_id=0, device=torch.device("cpu"), streams=streams)
        reward_GN = reward_N.view(-1, n)
        loss = softplus(reward_GN[:, 1:] - reward_GN[:, :1]).mean()
    if learns:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.process_time() - started, loss.item()


def peak_rate() -> float:
    """Operations a second of the best of some matrix products."""
    one, other = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = [time.process_time()]
    for _ in range(20):
        one @ other
        times.append(time.process_time())
    return 2 * 1024**3 / min(later - earlier for earlier, later in pairwise(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=Path, help="JSONL of MT-Bench-101; else some are made")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = conversations(arguments.conversations)
    lengths = sorted(len(_flat(one)) for one in found)
    print(f"{len(found)} conversations of {lengths[len(lengths) // 2]} tokens in the median, {lengths[-1]} at most")
    for size in arguments.sizes:
        sides = {"stream": model_of(size, NAME), "padded": model_of(size, "eager")}
        optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) for name, model in sides.items()}
        matrices = sum(
            weight.numel()
            for name, weight in sides["stream"].named_parameters()
            if weight.ndim == 2 and "embed" not in name
        )
        print(
            f"\n{size}: {sum(weight.numel() for weight in sides['stream'].parameters()) / 1e6:.1f}M parameters, fp32, one thread"
        )
        print(
            f"{'':<28} {'stream':>8} {'padded':>8}   groups/s {'times':>6}  {'each round':<30} {'share of peak':>13} {'loss apart':>10}"
        )
        warm = [_single(random.Random(1), found)]
        for name, model in sides.items():
            step(model, warm, optimizers[name], streams=name == "stream", learns=True)
        for kind in KINDS:
            chance = random.Random(0)
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            shares, apart = [], 0.0
            for _ in range(arguments.rounds):
                groups = [kind.make(chance, found) for _ in range(kind.at_once)]
                losses = []
                for name, model in sides.items():
                    taken, loss = step(model, groups, optimizers[name], streams=name == "stream", learns=kind.learns)
                    seconds[name].append(taken)
                    losses.append(loss)
                apart = max(apart, abs(losses[0] - losses[1]))
                operations = (6 if kind.learns else 2) * matrices * len(stream_of(groups).ids)
                shares.append(operations / seconds["stream"][-1] / peak_rate())
            times = [other / one for one, other in zip(seconds["stream"], seconds["padded"], strict=True)]
            rate = {name: kind.at_once / statistics.median(taken) for name, taken in seconds.items()}
            each = " ".join(f"{ratio:.1f}" for ratio in times)
            print(
                f"{kind.name:<28} {rate['stream']:>8.2f} {rate['padded']:>8.2f} {'':>10} {statistics.median(times):>6.2f}  "
                f"{each:<30} {statistics.median(shares):>13.0%} {apart:>10.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
