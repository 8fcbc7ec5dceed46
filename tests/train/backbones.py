"""Tiny reward models of every family, and conversations for them to read."""

from pathlib import Path
from typing import Any, get_args

from configs.fit_settings import TinySettings
from store.records import Message
from tests.train.conftest import THINGS, say
from train.backbone import settle_tokens
from train.checkpoint import save_model
from train.model import tiny_model
from train.tokenizer import train_tokenizer

FAMILIES: tuple[str, ...] = get_args(TinySettings.model_fields["family"].annotation)
CONVERSATIONS: list[tuple[Message, ...]] = [
    say("Hi.", "It is tea."),
    say("Please speak of tea now.", "It is rye. " * 6, "And now?", "It is oil."),
    say("Only a question so far"),
    (Message(role="system", content="Be brief."), *say("Please speak of ink.", "Ink.", "More.", "It is ink.\nSo it is.")),
    say("Hi. ", "  It is rye. "),
    say(*["It is so."] * 7),
]  # fmt: skip


def shape_for(family: str, **changes: object) -> TinySettings:
    """Weights so large that rewards lie far apart, and a window that the longer conversations leave."""
    given = {
        "family": family, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "kv_heads": 1,
        "vocab_size": 400, "initializer_range": 0.2, "sliding_window": 24,
    }  # fmt: skip
    return TinySettings.model_validate(given | changes)


def tokenizer_for(family: str) -> Any:
    """As the family publishes them: nothing is settled."""
    words = [f"Please speak of {thing} now. It is so." for thing in THINGS]
    return train_tokenizer(words, vocab_size=400, max_length=256, family=family)


def save_tiny(folder: Path, family: str, **changes: object) -> Path:
    tokenizer = tokenizer_for(family)
    settle_tokens(tokenizer)
    model = tiny_model(shape_for(family, **changes), tokenizer, max_length=256, random_seed=1)
    save_model(folder, model, tokenizer, {"fit_id": f"fit_{family}", "name": family})
    return folder


def pads_with_its_end_token(folder: Path) -> Any:
    """Change a saved model's folder to the habit that hides the end token; gives the tokenizer."""
    import json

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["pad_token_id"] = tokenizer.pad_token_id
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer
