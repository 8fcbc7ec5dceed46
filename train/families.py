"""The families of models that are known here: their marks, their ways with special tokens, and a chat template of each.

The templates are ours, and write what those of the published chat models write of a conversation without system text;
tiny models are made with them. A model that is loaded keeps its own. Knows nothing of texts, weights or files.
"""

from typing import Any, NamedTuple

from configs.fit_settings import TinySettings

GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)


class Family(NamedTuple):
    """How the published models of a family read conversations."""

    model_type: str
    """What transformers calls it."""
    special_tokens: tuple[str, ...]
    """From id 0 on, in the published order."""
    eos: str
    """The end token that the published chat models' tokenizers name."""
    chat_template: str
    headers: tuple[str, ...]
    """What the template itself writes between the marks, as a tiny tokenizer has to know it."""
    bos: str | None = None
    pad: str | None = None
    """As published; `train.backbone` finds one where there is none."""
    unk: str | None = None

    @property
    def marks(self) -> list[str]:
        """Special tokens that have no other name."""
        return [token for token in self.special_tokens if token not in (self.bos, self.eos, self.pad, self.unk)]


_GEMMA: dict[str, Any] = {
    # The places of Gemma's special tokens: 0 pad, 1 eos, 2 bos, 3 unk; the turn marks follow here, and stand at 105 to 107 there.
    "special_tokens": ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    "eos": "<eos>",
    "chat_template": GEMMA,
    "headers": ("user\n", "model\n"),
    "bos": "<bos>",
    "pad": "<pad>",
    "unk": "<unk>",
}
_QWEN: dict[str, Any] = {
    "special_tokens": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "eos": "<|im_end|>",
    "chat_template": CHATML,
    "headers": ("user\n", "assistant\n"),
    "pad": "<|endoftext|>",
}
FAMILIES: dict[str, Family] = {
    "gemma2": Family("gemma2", **_GEMMA),
    "gemma3": Family("gemma3_text", **_GEMMA),
    # Llama-3.1's tokenizer has a token to pad with, and does not name it as such.
    "llama": Family(
        "llama",
        special_tokens=(
            "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
            "<|end_header_id|>", "<|eot_id|>",
        ),
        eos="<|eot_id|>",
        chat_template=LLAMA,
        headers=("user", "assistant"),
        bos="<|begin_of_text|>",
    ),
    "qwen2": Family("qwen2", **_QWEN),
    "qwen3": Family("qwen3", **_QWEN),
    "mistral": Family(
        "mistral",
        special_tokens=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        eos="</s>",
        chat_template=MISTRAL,
        headers=(),
        bos="<s>",
        unk="<unk>",
    ),
}  # fmt: skip


def shape_of(shape: TinySettings) -> dict[str, Any]:
    """What a tiny model's config says beyond its sizes: the parts that the families do not share."""
    head_dim = shape.hidden_size // shape.heads
    if shape.family == "gemma2":
        return {
            "head_dim": head_dim,
            "query_pre_attn_scalar": head_dim,
            "sliding_window": shape.sliding_window,
            "attn_logit_softcapping": shape.attention_softcap,
        }
    if shape.family == "gemma3":
        kinds = ("sliding_attention", "full_attention")  # published: five sliding layers to a full one
        return {
            "head_dim": head_dim,
            "query_pre_attn_scalar": head_dim,
            "sliding_window": shape.sliding_window,
            "layer_types": [kinds[layer % 2] for layer in range(shape.layers)],
        }
    if shape.family == "mistral":
        return {"head_dim": head_dim, "sliding_window": shape.sliding_window}
    return {} if shape.family == "qwen2" else {"head_dim": head_dim}
