"""Tiny real models, built in process: the readers that most tests run on. Same weights in every process."""

import functools
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from latentwire.reader import Layout, Reader
from latentwire.reader.prompts import ANCHOR, INSTRUCTION, WORKED_EXAMPLES

Family = Literal["llama", "gemma3", "qwen2"]
FAMILIES: tuple[Family, ...] = ("llama", "gemma3", "qwen2")

VOCAB_SIZE = 512
HIDDEN = 64
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = [
    INSTRUCTION,
    f"\n\nQuestion:\n{ANCHOR}",
    *(f"{context}\n\nQuestion: {question}\n{ANCHOR} {answer}" for context, question, answer in WORKED_EXAMPLES),
    "The river runs from the old mill to the sea, and the town on its bank is known for paper, glass and salt.",
    "When was the bridge built? Who wrote the book? Where is the museum? How many people live in the village?",
    "system user assistant one two three four five six seven eight nine ten 0 1 2 3 4 5 6 7 8 9",
]


@functools.cache
def tiny_model(family: Family, seed: int = 0) -> tuple[Any, PreTrainedTokenizerFast]:
    """A random causal LM of `family` in fp32, frozen, and its tokenizer. Shared: do not change it."""
    tokenizer = tiny_tokenizer(family)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": family == "gemma3",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if family == "llama":
            model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape))
        elif family == "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=2, **shape))
        else:
            layers = ["sliding_attention", "full_attention", "sliding_attention"]
            model = Gemma3ForCausalLM(
                Gemma3TextConfig(
                    num_hidden_layers=len(layers), layer_types=layers, sliding_window=16, head_dim=16, **shape
                )
            )
    return model.float().eval().requires_grad_(False), tokenizer


@functools.cache
def tiny_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `TEXT`, with the family's special tokens."""
    names = {
        "llama": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "gemma3": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        "qwen2": {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
    }[family]
    turns = [] if family == "gemma3" else ["<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=[*names.values(), *turns],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, additional_special_tokens=turns, **names)
    if turns:
        tokenizer.chat_template = TURNS
    return tokenizer


@functools.cache
def tiny_reader(family: Family, **layout: Any) -> Reader:
    """A reader on `tiny_model(family)`; the layout is plain with one worked example unless told otherwise."""
    model, tokenizer = tiny_model(family)
    return Reader(
        model, tokenizer, f"tiny-{family}", Layout(**{"style": "plain", "shots": 1, **layout}), f"tiny-{family}"
    )


def save_tiny(folder: Path, family: Family) -> Path:
    """Writes the tiny model and its tokenizer as a Hugging Face folder, and returns the folder."""
    model, tokenizer = tiny_model(family)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
