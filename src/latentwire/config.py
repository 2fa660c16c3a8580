"""`Recipe`: one YAML file, checked as a whole before anything is loaded. Unknown keys are errors, not silence."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from latentwire.errors import RecipeError
from latentwire.registry import nearest
from latentwire.specs import Spec, explain

P = TypeVar("P", bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Part):
    """Which examples train and which evaluate. A spec is `{name: <dataset>, ...its fields}`."""

    train: tuple[Spec, ...] = ({"name": "facts"},)
    eval: Spec = {"name": "facts"}
    train_split: Literal["train", "all"] = "train"
    eval_split: Literal["heldout", "all"] = "heldout"
    limit: Positive | None = None
    eval_limit: Positive | None = None
    seed: int = 0
    eval_seed: int = 0


class ReaderSpec(_Part):
    """The frozen causal LM and how it is asked."""

    name: str
    style: Literal["plain", "chat"] = "plain"
    shots: Annotated[int, Field(ge=0, le=2)] = 2
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    device_map: str | None = None
    quantization: dict[str, Any] | None = None
    max_prompt_tokens: Positive | None = None
    too_long: Literal["error", "truncate"] = "error"


class ObjectiveSpec(_Part):
    """Weights by objective name; "shares" makes them shares of the gradient norm, "plain" factors of the losses."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {"reconstruct": 1.0}
    balance: Literal["shares", "plain"] = "shares"


class TrainSpec(_Part):
    """The one training loop's settings. `steps` or `seconds`, where given, replaces `epochs`.

    `start_from` is the folder of a finished run of the same method and readers, whose weights training goes on from.
    `tuned_lr` is the learning rate of new task tokens, a wire's and the ladder's tuned rungs', `lr` where it is not given. Those that
    come with `start_from` learn at `lr`.
    """

    start_from: str | None = None
    epochs: Annotated[float, Field(gt=0)] = 3.0
    steps: Positive | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    batch_tokens: Positive = 4096
    batch_examples: Positive = 16
    micro_examples: Positive | Literal["auto"] = 8
    lr: Annotated[float, Field(gt=0)] = 1e-2
    tuned_lr: Annotated[float, Field(gt=0)] | None = None
    warmup: Share = 0.05
    vocabulary_share: Share = 0.1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 60.0
    seed: int = 0

    @property
    def micro(self) -> int:
        """Prompts that go through the reader at once."""
        return self.micro_examples if isinstance(self.micro_examples, int) else self.batch_examples


class MoreRung(_Part):
    """A rung that only this recipe has: what a person reads, and its method."""

    name: str
    of: Spec


class EvalSpec(_Part):
    """The ladder, in each scope: all rungs, or those that `rungs` names. What `rungs` holds as `{name: rung, of: method}`
    stands there beside them."""

    scopes: tuple[Literal["prompt", "context"], ...] = ("prompt", "context")
    rungs: tuple[str | MoreRung, ...] | None = None
    max_new_tokens: Positive = 32
    batch: Positive = 8
    resamples: Positive = 10_000


class VerdictSpec(_Part):
    """Where target, success and failure lie: as a ratio to the raw embeddings' F1, a share of the gap, or an absolute F1; or
    `lead`, without lines: to be clearly ahead of all rungs of no more positions.

    What is not given is 0.70, 0.65 and 0.50 of F1, their ratios to a text that reaches 0.82, or 0.60, 0.45 and 0.30 of the gap.
    """

    measure: Literal["ratio", "share_of_gap", "f1", "lead"] = "ratio"
    target: float
    success: float
    failure: float

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("measure") == "share_of_gap":
            return {"target": 0.60, "success": 0.45, "failure": 0.30, **values}
        text = 1.0 if values.get("measure") == "f1" else 0.82
        return {"target": 0.70 / text, "success": 0.65 / text, "failure": 0.50 / text, **values}

    @model_validator(mode="after")
    def _rise(self) -> "VerdictSpec":
        if not self.failure <= self.success <= self.target:
            raise ValueError(
                f"must rise from failure {self.failure:g} over success {self.success:g} to target {self.target:g}"
            )
        return self


class Recipe(_Part):
    """Everything that decides a run's numbers. A method may serve several readers: the first, and `further_readers`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
    data: DataSpec = DataSpec()
    reader: ReaderSpec
    further_readers: tuple[ReaderSpec, ...] = ()
    method: Spec = {"name": "per_token"}
    objective: ObjectiveSpec = ObjectiveSpec()
    train: TrainSpec = TrainSpec()
    eval: EvalSpec = EvalSpec()
    verdict: VerdictSpec = VerdictSpec.model_validate({})

    @model_validator(mode="after")
    def _named_apart(self) -> "Recipe":
        names = [Path(reader.name).name for reader in self.readers]
        if len(set(names)) < len(names):
            raise ValueError(f"further_readers: expected names that differ in their last part, got {', '.join(names)}")
        return self

    @property
    def readers(self) -> tuple[ReaderSpec, ...]:
        """All readers, the first one first."""
        return (self.reader, *self.further_readers)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `key.sub=value` overrides. `$NAME` in strings is taken from the environment.

    Raises:
        RecipeError: No such file, no YAML, or any number of wrong fields, all named at once.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"expected a recipe file, found nothing at {path}; give the path of a YAML recipe") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a YAML recipe, got {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected a mapping of recipe fields, got {type(raw).__name__}")
    for entry in overrides:
        override(raw, entry)
    return make_recipe(expand(raw), str(path))


def make_recipe(raw: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain values; `RecipeError` names every wrong field at once."""
    return check(Recipe, raw, where)


def check(kind: type[P], raw: Mapping[str, Any], where: str) -> P:
    """A recipe or a part of one from plain values; `RecipeError` names every wrong field at once."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(dict(item), kind) for item in error.errors()]
        raise RecipeError(f"{where}: {'; '.join(problems)}") from None


def override(raw: dict[str, Any], entry: str) -> None:
    """Set `key.sub=value` in a recipe's plain values; `RecipeError` where that is not what `entry` says."""
    key, equals, value = entry.partition("=")
    if not equals or not key:
        raise RecipeError(f"expected an override as key=value, got '{entry}'")
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise RecipeError(f"override '{entry}': '{parent}' is a single value and has no field '{last}'")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"override '{entry}': expected a YAML value, got {' '.join(str(error).split())}") from None


def combinations(grid: Sequence[str]) -> list[list[str]]:
    """All combinations of `key=a,b` lists as lists of `key=value`."""
    axes = []
    for entry in grid:
        key, equals, values = entry.partition("=")
        if not equals or not values:
            raise RecipeError(f"expected a grid entry as key=value,value, got '{entry}'")
        axes.append([f"{key}={value}" for value in values.split(",")])
    return [list(point) for point in itertools.product(*axes)]


def dump(recipe: Recipe) -> str:
    """The recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def expand(value: Any) -> Any:
    """Plain values with `$NAME` in strings taken from the environment; `RecipeError` where it is not set."""
    if isinstance(value, str):
        missing = [name for name in re.findall(r"\$\{?(\w+)", value) if name not in os.environ]
        if missing:
            raise RecipeError(
                f"expected the environment variable {', '.join(missing)} in '{value}' to be set, got none; e.g."
                f" {missing[0]}=<folder>"
            )
        return os.path.expandvars(value)
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    return [expand(item) for item in value] if isinstance(value, list) else value


def _explain(error: dict[str, Any], kind: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        location = [str(part) for part in error["loc"]]
        place = ".".join(location)
        known = _fields(location[:-1], kind)
        return f"unknown field '{place}': {nearest(location[-1], known)}" if known else f"unknown field '{place}'"
    return explain(error)


def _fields(parents: list[str], kind: type[BaseModel]) -> list[str]:
    part: Any = kind
    for parent in parents:
        part = part.model_fields[parent].annotation
    return list(part.model_fields)
