"""Text that another program wrote in the contexts' place: how other prompt compressors come onto the ladder.

context ─ looked up in the other program's file ─▶ text ─ wire ─▶ the reader's tokens
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from latentwire.errors import MethodError
from latentwire.latent import Latent
from latentwire.methods import METHODS, Method
from latentwire.methods.text import text_latent, text_prefix, with_context
from latentwire.reader import Prefix, Reader, Slot


@METHODS.register("rewritten")
@dataclass
class Rewritten(Method):
    """Rewritten contexts from a file. What their writing took is not in the rows: it happened elsewhere.

    Attributes:
        path: JSON lines with the fields "text" and "rewritten", one for each context; None leaves all as they are.
    """

    path: str | None = None

    def encode(self, slots: Sequence[Slot], reader: Reader) -> list[Latent]:
        """Text of each slot with what the file has for its context.

        Raises:
            MethodError: The file cannot be read, or a context is not in it.
        """
        return [text_latent(with_context(slot, self._rewritten(slot.context), reader), slot) for slot in slots]

    def prefix(self, latents: Sequence[Latent], reader: Reader) -> Prefix:
        """Embedded tokens of the text."""
        return text_prefix(latents, reader)

    def _rewritten(self, context: str) -> str:
        if self.path is None:
            return context
        if context not in self._known:
            raise MethodError(
                f"expected the context '{context[:40]}' in {self.path}, got {len(self._known)} others; let the other program"
                " rewrite the contexts that are evaluated here"
            )
        return self._known[context]

    @cached_property
    def _known(self) -> Mapping[str, str]:
        try:
            lines = [json.loads(line) for line in Path(str(self.path)).read_text(encoding="utf-8").split("\n") if line]
            return {str(line["text"]): str(line["rewritten"]) for line in lines}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MethodError(
                f"expected JSON lines with 'text' and 'rewritten' in {self.path}, got {type(error).__name__}: {error}; write"
                " the file anew"
            ) from None
