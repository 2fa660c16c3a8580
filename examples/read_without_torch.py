"""What is in a file of latents, read by a program that has numpy and xxhash and nothing else of ours but the format.

latentwire encode wires/facts a.txt b.txt -o out.lw && python examples/read_without_torch.py out.lw
"""

import sys
from pathlib import Path

import numpy as np

import latentwire as lw

for message in lw.unpack_all(Path(sys.argv[1]).read_bytes()):
    vectors = message.latent().payload
    lengths = np.linalg.norm(vectors, axis=1)
    print(f"{message.name}: {vectors.shape[0]} vectors of width {vectors.shape[1]}, mean length {lengths.mean():.2f}")
assert "torch" not in sys.modules
