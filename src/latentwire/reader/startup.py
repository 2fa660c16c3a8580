"""What is checked and found out about a model when a `Reader` is made of it."""

from typing import TYPE_CHECKING, Any

import torch

from latentwire.errors import ReaderError
from latentwire.reader.inputs import Inputs

if TYPE_CHECKING:
    from latentwire.reader import Reader


@torch.no_grad()
def expect_one_reading(reader: "Reader") -> None:
    """Logits from ids, from embedded ids and from the reader's `head` must be the same.

    Raises:
        ReaderError: They are not.
    """
    ids = torch.linspace(0, reader.vocab_size - 1, 8, device=reader.device).long()[None]
    embeds = reader.embed(ids)
    from_ids = reader.model(input_ids=ids).logits.float()
    from_embeds = reader.model(inputs_embeds=embeds).logits.float()
    hidden = reader.hidden_states(Inputs(embeds, torch.ones_like(ids, dtype=torch.bool)))
    from_head = reader.head(hidden).float()
    rounding = 1e-4 if reader.dtype == torch.float32 else 2e-2
    for found, words, cause, allowed in (
        (from_embeds, "ids and from embedded ids", "with ids than embed them", 1e-4),
        (from_head, "the model and from its output head", "with hidden states than project them", rounding),
    ):
        difference = float((from_ids - found).abs().max())
        if not difference <= allowed * max(1.0, float(from_ids.abs().max())):
            raise ReaderError(
                f"reader '{reader.name}': expected equal logits from {words}, got a difference of {difference:.3g};"
                f" this model does more {cause} and cannot read a prefix"
            )


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a text: the model's configured ones and the tokenizer's EOS."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*several, tokenizer.eos_token_id] if token is not None}
