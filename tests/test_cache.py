"""What the cache layout says is what the reader's own cache holds."""

import pytest
import torch

from latentwire.reader.cache import cache_bytes
from tiny import FAMILIES, tiny_reader


@pytest.mark.parametrize("size", [3, 12, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_by_layout_are_those_of_a_cache_that_was_filled(family, size):
    reader = tiny_reader(family)
    ids = torch.arange(size)[None]
    out = reader.model(input_ids=ids, use_cache=True)
    held = sum(
        part.numel() * part.element_size()
        for layer in out.past_key_values.layers
        for part in (layer.keys, layer.values)
    )
    kept = cache_bytes(reader.model.config, size, reader.dtype.itemsize)
    assert held <= kept * 1.0001
    assert held >= kept * 0.9  # a sliding layer keeps its window less the token that comes next
