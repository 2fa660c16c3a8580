"""What a reader keeps of the positions it has read: bytes of keys and values, by its own cache layout."""

from typing import Any


def cache_bytes(config: Any, positions: float, bytes_per_value: int) -> float:
    """Bytes of keys and values of `positions` positions: two vectors for each layer and key-value head.

    A layer with a sliding window keeps no more positions than its window.
    """
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    layers = getattr(config, "layer_types", None) or ["full_attention"] * int(config.num_hidden_layers)
    window = getattr(config, "sliding_window", None) or positions
    kept = sum(min(positions, window) if kind == "sliding_attention" else positions for kind in layers)
    return 2.0 * kept * heads * width * bytes_per_value
