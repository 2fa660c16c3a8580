"""The bodies of requests and answers, as the official OpenAI clients send and read them, and latents among them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from latentwire.errors import RequestError


class Body(BaseModel):
    """A request's body; fields that it does not know are refused where they would change the answer, else ignored."""

    model_config = ConfigDict(extra="allow")


class TextPart(BaseModel):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class LatentPart(BaseModel):
    """A latent in a message: its bytes in base64, or the id under which the server keeps it."""

    type: Literal["latent"]
    data: str | None = None
    id: str | None = Field(default=None, max_length=64)


Part = Annotated[TextPart | LatentPart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def parts(self) -> list[TextPart | LatentPart]:
        """Its parts, of which there is at least one."""
        if isinstance(self.content, str):
            return [TextPart(type="text", text=self.content)]
        if not self.content:
            raise RequestError("expected a message with at least one part, got none")
        return self.content

    def text(self) -> str:
        """Its text, where nothing but text may stand."""
        found = self.parts()
        if not all(isinstance(part, TextPart) for part in found):
            raise RequestError(
                f"expected text alone in a message of the {self.role}, got a latent; put it in the user's"
            )
        return "\n\n".join(part.text for part in found if isinstance(part, TextPart))


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool = False


class Sampling(Body):
    """What chats and completions have in common."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(given) > 4 or not all(given):
            raise RequestError('expected up to four texts in "stop", none of them empty, got others', "stop")
        return tuple(given)

    def refuse_what_cannot_work(self, fields: dict[str, Any]) -> None:
        """Raise `RequestError` for fields that a server of latents has no answer to, unless they ask for nothing."""
        for name, idle in fields.items():
            given = getattr(self, name, None) if name in type(self).model_fields else (self.model_extra or {}).get(name)
            if given is not None and given not in idle:
                raise RequestError(f"expected a request without {name}, got {given!r}: {WHY[name]}; leave it out", name)


WHY = {
    "n": "one answer is given",
    "best_of": "one answer is given",
    "echo": "latents have no text to repeat",
    "suffix": "text is continued, not filled in",
    "logprobs": "latents have no token probabilities",
    "top_logprobs": "latents have no token probabilities",
    "prompt_logprobs": "latents have no token probabilities",
    "frequency_penalty": "latents have no tokens to count",
    "presence_penalty": "latents have no tokens to count",
    "repetition_penalty": "latents have no tokens to count",
    "logit_bias": "it is not supported",
    "tools": "the readers call no tools",
    "tool_choice": "the readers call no tools",
    "functions": "the readers call no tools",
    "response_format": "answers are text",
    "audio": "answers are text",
}
IDLE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (),
    "prompt_logprobs": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "audio": (),
}


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class CompletionRequest(Sampling):
    """`POST /v1/completions`; `latents` stand before the prompt."""

    prompt: str = ""
    latents: list[LatentPart] = []


class EncodeRequest(BaseModel):
    """`POST /v1/latents`."""

    text: str = Field(min_length=1)
    name: str = ""
    compression: int | None = None
    codec: str | None = None
    metadata: dict[str, str] = {}
    expires_in: float | None = Field(default=None, description="Seconds until the server forgets it.")
    store: bool = True
    include_data: bool = True
