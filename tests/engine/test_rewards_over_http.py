"""Rewards from vLLM over HTTP are those of the torch scorer."""

import json
import urllib.request
from pathlib import Path

import pytest

from configs.fit_settings import TinySettings
from store.records import Message
from train.backbone import settle_tokens
from train.checkpoint import save_model
from train.model import tiny_model
from train.score import load_scorer
from train.serving import served
from train.tokenizer import fold_system, train_tokenizer

pytestmark = pytest.mark.engine
THINGS = ("tea", "rye", "oil", "ink")
FAMILIES = ("gemma2", "llama")
"""Each costs a start of vLLM; all six were tried by hand."""


def conversations() -> list[list[Message]]:
    """Eight of one to four turns, half of them with system text."""
    made = []
    for place in range(8):
        turns = [Message(role="system", content="Speak of one thing.")] if place % 2 else []
        for turn in range(place // 2 + 1):
            thing = THINGS[(place + turn) % len(THINGS)]
            turns += [
                Message(role="user", content=f"Please speak of {thing} now.\nOnly of it."),
                Message(role="assistant", content=f"  It is {thing}, and {place * turn} of it. "),
            ]
        made.append(turns)
    return made


@pytest.fixture(scope="module", params=FAMILIES)
def reward_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with random weights so large that its rewards lie far apart."""
    shape = TinySettings(
        family=request.param, hidden_size=64, intermediate_size=128, layers=2, heads=2, kv_heads=1, vocab_size=400,
        initializer_range=0.5,
    )  # fmt: skip
    words = [f"Please speak of {thing} now. It is so." for thing in THINGS]
    tokenizer = train_tokenizer(words, vocab_size=400, max_length=512, family=shape.family)
    settle_tokens(tokenizer)
    folder = tmp_path_factory.mktemp("reward") / "model"
    model = tiny_model(shape, tokenizer, max_length=512, random_seed=1)
    save_model(folder, model, tokenizer, {"fit_id": "fit_0123456789", "name": "tiny", "objective": "reward"})
    return folder


@pytest.mark.usefixtures("vllm")
def test_eight_conversations_get_the_torch_scorer_s_rewards(reward_model: Path) -> None:
    expected = load_scorer(reward_model).score(conversations())
    assert max(expected) - min(expected) > 1.0
    assert not all(0.0 <= reward <= 1.0 for reward in expected)  # a sigmoid over them would show
    found = []
    with served(reward_model, task="reward") as endpoint:
        for conversation in conversations():
            messages = [message.model_dump(include={"role", "content"}) for message in fold_system(conversation)]
            request = urllib.request.Request(
                endpoint.api_base.removesuffix("/v1") + "/classify",
                data=json.dumps({"model": endpoint.model, "messages": messages}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                (row,) = json.load(response)["data"]
            (reward,) = row["probs"]
            found.append(reward)
    assert found == pytest.approx(expected, abs=1e-4)
