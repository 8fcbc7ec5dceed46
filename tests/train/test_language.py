"""Models of the user and of the assistant: that they learn, resume, merge their adapters, and speak in their role."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.fit_settings import TinySettings
from configs.language_settings import AskFitSettings, LanguageFitSettings, SftFitSettings
from store.records import Message
from tests.train.conftest import say
from train.causal import causal_model, export_model
from train.checkpoint import read_metrics
from train.errors import InterruptedFitError, StoppedError, TrainError
from train.generate import generate
from train.language import fit_language
from train.loop import Progress
from train.sessions import Session

REPOSITORY = Path(__file__).parents[2]
THINGS = ("tea", "rye", "oil", "ink")
TINY = TinySettings(hidden_size=32, intermediate_size=64, layers=1, heads=2, kv_heads=1, vocab_size=330)


def talks(n: int) -> list[Session]:
    """The user asks for a thing, hears a number, and asks what that number was of."""
    found = []
    for number in range(n):
        thing = THINGS[number % 4]
        turns = say(f"Give me {thing}.", f"One {thing}.", "Thanks. What is it?", f"It is {thing}.")
        found.append(Session(f"s{number}", turns, "validation" if number % 5 == 0 else "train"))
    return found


def ask(out: Path, **changes: object) -> AskFitSettings:
    return AskFitSettings.model_validate(_given(out) | changes)


def sft(out: Path, **changes: object) -> SftFitSettings:
    return SftFitSettings.model_validate(_given(out) | changes)


def _given(out: Path) -> dict[str, object]:
    return {
        "model": "tiny", "tiny": TINY, "max_length": 128, "learning_rate": 2e-2, "batch_size": 8, "steps": 12,
        "checkpoint_every": 4, "out": str(out),
    }  # fmt: skip


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fits") / "ask"
    fit_language(ask(out, steps=60), sessions=talks(40))
    return out


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fits") / "sft"
    fit_language(sft(out, steps=60), sessions=talks(40))
    return out


def test_a_model_of_the_user_asks_and_one_of_the_assistant_answers(asking: Path, answering: Path) -> None:
    talk = talks(1)[0].messages
    asked = generate(asking, [talk[:2], (), (Message(role="system", content="Be brief."),)], max_tokens=20)
    assert asked[0] == "Thanks. What is it?"
    assert asked[1] in {f"Give me {thing}." for thing in THINGS}
    assert len(asked) == 3
    several = generate(answering, [talk[:1], talk[:3]] * 3, max_tokens=20, batch_size=4)
    assert several == several[:2] * 3  # neither the batch nor its padding changes an answer
    assert several[0] in {f"One {thing}." for thing in THINGS}
    assert several[1] in {f"It is {thing}." for thing in THINGS}


def test_sampling_depends_on_the_seed_alone(asking: Path) -> None:
    conversations: list[Any] = [()] * 6
    hot = [generate(asking, conversations, max_tokens=12, temperature=3.0, random_seed=seed) for seed in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]


def test_a_conversation_that_leaves_no_room_is_refused(asking: Path) -> None:
    with pytest.raises(TrainError, match=r"conversation 1 has .* and the model takes 128 with the 120"):
        generate(asking, [talks(1)[0].messages[:2]], max_tokens=120)


def test_the_exported_user_works_with_plain_transformers(asking: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(asking / "model")
    model = AutoModelForCausalLM.from_pretrained(asking / "model", attn_implementation="eager")
    messages = [message.model_dump() for message in talks(1)[0].messages[:2]]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<bos><start_of_turn>user\nGive me tea.<end_of_turn>\n<start_of_turn>model\nOne tea.<end_of_turn>\n"
        "<start_of_turn>user\n"
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False) == text.removesuffix("<start_of_turn>user\n")
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(written).strip() == "Thanks. What is it?<end_of_turn>"  # and there it stops by itself
    system = [{"role": "system", "content": " Be brief. "}]
    opened = tokenizer.apply_chat_template(system, tokenize=False, add_generation_prompt=True)
    assert opened == "<bos><start_of_turn>user\nBe brief.\n\n"
    folded = tokenizer.apply_chat_template(system + messages, tokenize=False, add_generation_prompt=True)
    assert folded.startswith("<bos><start_of_turn>user\nBe brief.\n\nGive me tea.<end_of_turn>\n")
    assert folded.endswith("<start_of_turn>user\n")


def test_the_next_round_starts_from_an_asking_model_and_asks_again(asking: Path, tmp_path: Path) -> None:
    again = fit_language(ask(tmp_path / "again", model=str(asking), learning_rate=1e-5, steps=2), sessions=talks(40))
    templates = [AutoTokenizer.from_pretrained(folder).chat_template for folder in (asking / "model", again.model_dir)]
    assert templates[0] == templates[1]
    answers = fit_language(sft(tmp_path / "sft", model=str(asking), steps=1), sessions=talks(40)).model_dir
    assert "answering template begins" not in AutoTokenizer.from_pretrained(answers).chat_template


def test_a_fit_keeps_its_card_curve_and_result(tmp_path: Path) -> None:
    result = fit_language(ask(tmp_path / "fit", evaluate_every=6), sessions=talks(20))
    card = json.loads((result.model_dir / "descant.json").read_text("utf-8"))
    assert card == {
        "name": "ask", "fit_id": result.fit_id, "objective": "ask", "max_length": 128, "base": "tiny", "step": 12,
    }  # fmt: skip
    lines = read_metrics(tmp_path / "fit" / "metrics.jsonl")
    assert [line["step"] for line in lines if "validation_perplexity" in line] == [6, 12]
    assert lines[-1]["validation_loss"] == result.validation_loss
    assert result.data_card["splits"]["train"]["kept"] == 16
    again = fit_language(ask(tmp_path / "fit", evaluate_every=6), sessions=talks(20))
    assert (again.already_done, again.fit_id) == (True, result.fit_id)
    with pytest.raises(TrainError, match="holds another fit"):
        fit_language(ask(tmp_path / "fit", first_query=False), sessions=talks(20))


@pytest.mark.chain
def test_a_fit_killed_at_a_random_step_ends_bit_for_bit_as_one_that_never_was(tmp_path: Path) -> None:
    changes = {"accumulate": 3, "lora": {"rank": 4, "dropout": 0.2}}
    whole, killed = ask(tmp_path / "whole", **changes), ask(tmp_path / "killed", **changes)
    fit_language(whole, sessions=talks(40))
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.test_language", killed.model_dump_json(), str(random.randint(5, 11))],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen: list[Progress] = []
    fit_language(killed, sessions=talks(40), progress=seen.append)
    assert seen[0].step in (5, 9)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_an_interrupted_fit_of_all_weights_says_where_it_goes_on_and_does(tmp_path: Path) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.step == 6:
            raise KeyboardInterrupt

    fit_language(ask(tmp_path / "whole"), sessions=talks(40))
    with pytest.raises(InterruptedFitError, match="its last checkpoint is at step 4: the same command goes on"):
        fit_language(ask(tmp_path / "cut"), sessions=talks(40), progress=press_ctrl_c)
    fit_language(ask(tmp_path / "cut"), sessions=talks(40))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["all weights", "adapters"])
def test_slices_and_recomputed_activations_follow_the_path_of_the_whole_batch(
    tmp_path: Path, lora: dict[str, int] | None
) -> None:
    losses: list[list[float]] = []
    for changes in ({}, {"accumulate": 4}, {"activation_checkpointing": True}):
        out = tmp_path / f"fit{len(losses)}"
        fit_language(ask(out, steps=4, lora=lora, **changes), sessions=talks(40))
        losses.append([line["loss"] for line in read_metrics(out / "metrics.jsonl")])
    assert losses[0][0] != losses[0][3]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], abs=1e-6)


def test_merged_weights_give_the_logits_of_the_model_with_adapters(tmp_path: Path, answering: Path) -> None:
    settings = sft(tmp_path, model=str(answering), lora={"rank": 4, "target_modules": ["q_proj", "down_proj"]})
    model, tokenizer = causal_model(settings, None, [])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name for name in trained)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == {"q_proj", "down_proj"}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # which begin at 0, so that the adapters change nothing yet
                parameter.normal_(std=0.1)
    ids = torch.randint(6, 300, (2, 20))
    with torch.no_grad():
        adapted = model.eval()(input_ids=ids).logits
    export_model(tmp_path / "model", model, tokenizer, {})
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    plain = AutoModelForCausalLM.from_pretrained(answering / "model", attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=ids).logits, adapted, atol=1e-5)
        assert not torch.allclose(plain(input_ids=ids).logits, adapted, atol=1e-1)


def test_adapters_leave_the_start_model_alone_and_their_checkpoints_hold_no_more(
    tmp_path: Path, answering: Path
) -> None:
    before = weights(answering)
    fit_language(sft(tmp_path / "fit", model=str(answering), lora={}), sessions=talks(40))
    assert weights(answering) == before != weights(tmp_path / "fit")
    checkpoint = tmp_path / "fit" / "checkpoints" / "step-00000008"
    assert (checkpoint / "adapter_model.safetensors").exists()
    assert not (checkpoint / "model.safetensors").exists()
    assert not list((tmp_path / "fit" / "model").glob("adapter*"))


def test_another_architecture_and_a_template_by_name(tmp_path: Path, answering: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(answering / "model")
    tokenizer.chat_template = None
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    start = str(tmp_path / "llama")
    with pytest.raises(TrainError, match="has no chat template"):
        fit_language(ask(tmp_path / "a", model=start), sessions=talks(20))
    plain = fit_language(ask(tmp_path / "b", model=start, chat_template="plain", steps=60), sessions=talks(40))
    assert generate(plain.model_dir, [talks(1)[0].messages[:2]], max_tokens=20) == ["Thanks. What is it?"]
    chatml = fit_language(sft(tmp_path / "c", model=start, chat_template="chatml", steps=2), sessions=talks(20))
    assert AutoModelForCausalLM.from_pretrained(chatml.model_dir).config.vocab_size == len(tokenizer) + 2
    with pytest.raises(TrainError, match="needs 2 new tokens, which adapters do not learn"):
        fit_language(sft(tmp_path / "d", model=start, chat_template="chatml", lora={}), sessions=talks(20))
    with pytest.raises(TrainError, match="max_length 256 is more than the 128 positions"):
        fit_language(sft(tmp_path / "e", model=start, chat_template="plain", max_length=256), sessions=talks(20))


INSTRUCTIONS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)


def test_a_template_that_cannot_be_exported_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "inst.jinja").write_text(INSTRUCTIONS)
    seen: list[Progress] = []
    given = {"chat_template": str(tmp_path / "inst.jinja")}
    with pytest.raises(TrainError, match="the chat template ends user turns without a mark"):
        fit_language(ask(tmp_path / "ask", **given), sessions=talks(20), progress=seen.append)
    assert not seen
    assert not (tmp_path / "ask").exists()
    assert fit_language(sft(tmp_path / "sft", steps=1, **given), sessions=talks(20)).steps == 1, "answers have an end"


def test_what_cannot_be_trained_on_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        TrainError, match="none of 16 training conversations can be learned from: 16 are longer than max_length"
    ):
        fit_language(ask(tmp_path / "a", max_length=8), sessions=talks(20))
    with pytest.raises(TrainError, match="train split"):
        fit_language(ask(tmp_path / "a"), sessions=talks(1))
    with pytest.raises(TrainError, match="no model in"):
        fit_language(ask(tmp_path / "a", model=str(tmp_path / "absent")), sessions=talks(20))
    with pytest.raises(TrainError, match="lora: "):
        fit_language(ask(tmp_path / "a", lora={"target_modules": ["no_such_layer"]}), sessions=talks(20))
    broken = [Session("s1", (*say("A?", "a."), Message(role="assistant", content="b.")), "train")]
    with pytest.raises(TrainError, match="conversation s1: message 3 is a assistant turn where a user turn must stand"):
        fit_language(sft(tmp_path / "a"), sessions=broken)
    assert not (tmp_path / "a").exists()


def test_a_loss_that_is_not_a_number_stops_and_names_conversations(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"lower learning_rate, or look at what the batch holds \(s"):
        fit_language(ask(tmp_path / "a", learning_rate=1e30, warmup_epochs=0.0), sessions=talks(20))


def main() -> None:
    """Run a fit, and kill this process once a step is reached."""
    settings: LanguageFitSettings = AskFitSettings.model_validate_json(sys.argv[1])
    assert isinstance(settings, AskFitSettings)

    def die(progress: Progress) -> None:
        if progress.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    fit_language(settings, sessions=talks(40), progress=die)


if __name__ == "__main__":
    main()
