"""Every error a user can cause. Each message says what was expected, what came, and what to do.

The command line prints the message as one line and exits with code 2; ``--debug`` shows the traceback.
"""


class LatentWireError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class RegistryError(LatentWireError):
    """A name that no registry entry carries."""


class RecipeError(LatentWireError):
    """A recipe with unknown keys, wrong types or values that do not fit together."""


class DataError(LatentWireError):
    """A data set that is missing, malformed, too small, or overlaps with the evaluation."""


class ReaderError(LatentWireError):
    """A reader that cannot be loaded or does not behave as a frozen causal LM must."""


class PromptError(LatentWireError):
    """An example that cannot be laid out as a prompt (too long, empty segment, no chat template)."""


class MethodError(LatentWireError):
    """A method whose configuration does not fit the reader or the corpus."""


class LatentError(LatentWireError):
    """A latent whose payload, identity or dtype is not what its receiver expects."""


class FormatError(LatentError):
    """Bytes that are no message: another magic, a version this reader does not know, reserved bits that are set."""


class TruncatedError(FormatError):
    """Bytes that end before the message does."""


class TrailingBytesError(FormatError):
    """Bytes after the message's end."""


class LimitError(LatentError):
    """A message that asks for more than the operator allows."""


class ChecksumError(FormatError):
    """A message some of whose bits have changed on the way."""


class SignatureError(LatentError):
    """A message without the signature that is asked for, or with one that another key made."""


class CodecError(FormatError):
    """A codec that this reader does not know, or a payload that is not as long as its codec, vectors and width say."""


class SpaceError(LatentError):
    """A latent of another space than its receiver reads, or of another width."""


class ValuesError(LatentError):
    """A payload with values that no sender means: NaN, infinity, scales below zero, token ids or text that are none."""


class WireError(LatentWireError):
    """A wire's folder that is missing, damaged, of another version or encoder, or lacks the reader asked for."""


class StoreError(LatentWireError):
    """A store that cannot be opened or written, an id that it does not hold, an expiry in the past."""


class ExpiryError(StoreError):
    """An expiry in the past."""


class NotStoredError(StoreError):
    """An id that a store does not hold: unknown, deleted or expired."""


class BusyError(LatentWireError):
    """A server with as many waiting requests as it holds, or one that is shutting down (`ClosingError`).

    Attributes:
        retry_after: Seconds after which to come again.
    """

    retry_after: float = 1.0


class ClosingError(BusyError):
    """A server that is shutting down and takes nothing more."""


class ServerError(LatentWireError):
    """A server that cannot be reached, fails, or lets nobody in without a key."""


class UnknownReaderError(LatentWireError):
    """A reader that a server does not have."""


class RequestError(LatentWireError):
    """A request that asks for what a server of latents cannot do, or does not say what it means.

    Args:
        message: What was expected, what came, what to do.
        param: The field that is at fault.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class FeatureError(LatentWireError):
    """Encoder features on disk that are of another encoder, too large, damaged, or cannot be written."""


class TrainingError(LatentWireError):
    """Training that cannot go on: a loss that is not finite, a checkpoint of another recipe."""


class RunError(LatentWireError):
    """A run folder that is in use, already filled, incomplete, or cannot be written."""
