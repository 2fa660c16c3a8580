"""A baseline of one's own beside the text: every other word of the context, measured on the same questions.

python examples/own_method.py
"""

from dataclasses import dataclass

import numpy as np

import latentwire as lw
from latentwire.methods import Method
from latentwire.methods.text import text_latent, text_prefix, with_context
from latentwire.metrics import f1


@lw.METHODS.register("every_other_word")
@dataclass
class EveryOtherWord(Method):
    """The first, third, fifth ... word of the context."""

    def encode(self, slots, reader):
        """UTF-8 text."""
        return [text_latent(with_context(slot, " ".join(slot.context.split()[::2]), reader), slot) for slot in slots]

    def prefix(self, latents, reader):
        """Embedded tokens of what is left."""
        return text_prefix(latents, reader)


reader = lw.load_reader("smollm2-135m")
examples = lw.DATASETS["facts"]().examples("heldout", seed=0, limit=8)
for name in ("full_text", "every_other_word", "no_context"):
    method, scores, sizes = lw.METHODS[name](), [], []
    for example in examples:
        latent, bytes_on_wire = lw.compress(method, reader, example, scope="context")
        answer = lw.answer(method, reader, example, latent, scope="context", max_new_tokens=12)
        scores.append(f1(answer, example.answers))
        sizes.append(bytes_on_wire)
    print(f"{name}: F1 {np.mean(scores):.2f}, {np.mean(sizes):.0f} bytes")
