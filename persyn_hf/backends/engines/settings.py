"""The settings of engines in a recipe: `generate.server`, `generate.vllm`, `generate.executor`."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.strict import Strict, read_section


class Connection(Strict):
    """The urls of servers that give the same answers, and how these are fetched."""

    place: ClassVar[str]  # where in a recipe this stands

    urls: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = Field(
        default=(),
        strict=False,
        description="The addresses of servers that give the same answers. They share the load.",
    )
    api_key_env: str | None = Field(
        default=None, description="The environment variable that holds the key. Null: no key is sent."
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=100_000,
        description="The requests in flight per url at the start. The number adapts to what the server takes.",
    )
    max_concurrency: int = Field(
        default=256, ge=1, le=100_000, description="The requests in flight per url that are never exceeded."
    )
    timeout_s: float = Field(default=600, gt=0, le=604_800, description="The seconds that one answer may take.")
    attempts: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="The attempts per request, where it times out or the server fails (status 5xx).",
    )
    patience_s: float = Field(
        default=300, ge=0, le=2_592_000, description="The seconds for which a server that is away is waited for."
    )

    def options(self) -> dict[str, Any]:
        """Return the arguments of a `Client`, except the urls."""
        return {
            "api_key": self.api_key(),
            "concurrency": self.concurrency,
            "max_concurrency": self.max_concurrency,
            "timeout_s": self.timeout_s,
            "attempts": self.attempts,
            "patience_s": self.patience_s,
            "key_hint": (
                f"check the key in the environment variable {self.api_key_env}"
                if self.api_key_env
                else f"where it wants a key, let `{self.place}.api_key_env` name the variable that holds it"
            ),
        }

    def api_key(self) -> str | None:
        """Read the key from the environment; None if no variable is named. Raises `RecipeError` where it is unset."""
        variable = self.api_key_env
        if variable is None:
            return None
        key = os.environ.get(variable, "").strip()
        if not key:
            raise RecipeError(
                f"`{self.place}.api_key_env` names the environment variable {variable}, which is not set or empty; "
                f"set it: export {variable}=..."
            )
        if not (key.isascii() and key.isprintable()):
            raise RecipeError(f"the environment variable {variable} holds no key: it has characters that no key has")
        return key


class ServerSettings(Connection):
    """The settings of endpoints. Only `api` and `extra` may change an answer, and `tokenizer` its length."""

    place = "generate.server"

    api: Literal["openai", "anthropic"] = Field(
        default="openai",
        description="The form of the API: OpenAI's chat completions and batch files, which most servers speak, or "
        "Anthropic's messages and message batches.",
    )
    # max_completion_tokens: null sends max_tokens under that name, as some servers want it.
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="More fields of the request's body, such as reasoning_effort. "
        "Null leaves a field of ours out (seed: null), or renames it (max_completion_tokens: null).",
    )
    tokenizer: str | None = Field(
        default=None,
        description="The Hub id or folder of the tokenizer that counts where the server does not. "
        "Null: that of a `model` which is a folder here, else nothing is counted.",
    )


class BatchSettings(Strict):
    """How a provider's batch API is used. Address, key and `extra` are those of `server`."""

    poll_s: float = Field(
        default=60, gt=0, le=86_400, description="The seconds between two looks at batches that are under way."
    )
    window: str = Field(default="24h", description="The time within which the provider is to answer. OpenAI has 24h.")
    max_requests: int = Field(
        default=50_000,
        ge=1,
        le=1_000_000,
        description="The requests of one batch at most. OpenAI takes 50,000, Anthropic 100,000.",
    )
    max_bytes: int = Field(
        default=95_000_000,
        ge=1,
        le=10**10,
        description="The bytes of one batch at most. Groq takes 100 MB, OpenAI 200 MB, Anthropic 256 MB.",
    )
    attempts: int = Field(
        default=3, ge=1, le=1000, description="The times that a request is sent whose batch expires or fails."
    )


class VllmSettings(Strict):
    """The settings of `vllm serve`, which is started for one teacher at a time."""

    tensor_parallel_size: int = Field(
        default=1, ge=1, le=1024, description="The GPUs that share one copy of the model."
    )
    data_parallel_size: int = Field(default=1, ge=1, le=1024, description="The copies of the model.")
    pipeline_parallel_size: int = Field(
        default=1, ge=1, le=1024, description="The groups of GPUs, such as nodes, that each hold some of the layers."
    )
    distributed_executor_backend: Literal["ray"] | None = Field(
        default=None,
        description="Ray: one server runs over nodes of the Ray cluster that this node is in. Null: on this node.",
    )
    args: tuple[str, ...] = Field(default=(), strict=False, description="More arguments of `vllm serve`.")
    start_timeout_s: float = Field(
        default=1800,
        gt=0,
        le=604_800,
        description="The seconds until the server must be ready. Loading 72B from a network disk takes a while.",
    )
    max_restarts: int = Field(default=3, ge=0, le=1000, description="The restarts after crashes, per teacher.")
    concurrency: int = Field(
        default=256, ge=1, le=100_000, description="The requests in flight per copy. vLLM queues what does not fit."
    )
    timeout_s: float = Field(default=3600, gt=0, le=604_800, description="The seconds that one answer may take.")
    attempts: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="The attempts per request, where it times out, the server fails (status 5xx) or dies.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "VllmSettings":
        for name, *short in (("--pipeline-parallel-size", "-pp"), ("--distributed-executor-backend",)):
            key = name[2:].replace("-", "_")
            if value_of(self.args, name, *short) is not None and key in self.model_fields_set:
                raise ValueError(f"`args` holds {name}, and `{key}` is set; leave it out of `args`")
        if self.distributed_executor_backend is not None and self.data_parallel_size > 1:
            raise ValueError(
                "a server over nodes of a Ray cluster holds one copy of the model, got data_parallel_size "
                f"{self.data_parallel_size}; set it to 1, or leave `distributed_executor_backend` out"
            )
        return self

    @property
    def gpus(self) -> int:
        """The number of GPUs that one server holds."""
        return self.gpus_per_copy * self.data_parallel_size

    @property
    def gpus_per_copy(self) -> int:
        """The number of GPUs that one copy of the model holds, its pipeline stages included."""
        stages = value_of(self.args, "--pipeline-parallel-size", "-pp")
        return self.tensor_parallel_size * int(stages or self.pipeline_parallel_size)

    @property
    def layout(self) -> dict[str, str]:
        """The arguments of `vllm serve` that say how the model lies on GPUs."""
        sizes = {name: str(getattr(self, name)) for name in ("tensor_parallel_size", "data_parallel_size")}
        if self.pipeline_parallel_size > 1:
            sizes["pipeline_parallel_size"] = str(self.pipeline_parallel_size)
        if self.distributed_executor_backend is not None:
            sizes["distributed_executor_backend"] = self.distributed_executor_backend
        return {f"--{name.replace('_', '-')}": value for name, value in sizes.items()}


# Where and how fast an engine runs is not covered by fingerprints; what may change its answers is.
VLLM_NOT_COVERED = frozenset(f"vllm.{key}" for key in VllmSettings.model_fields if key != "args")
SERVER_COVERED = ("api", "extra", "tokenizer")
BATCH_NOT_COVERED = frozenset(f"batch.{key}" for key in BatchSettings.model_fields)
BY_SERVER = ("server", "batch")  # engines that ask an address
ENGINE_NOT_COVERED = (
    VLLM_NOT_COVERED
    | BATCH_NOT_COVERED
    | {f"server.{key}" for key in ServerSettings.model_fields if key not in SERVER_COVERED}
)


def engine_arguments(
    asking: Any, kind: str, own: Mapping[str, Mapping[str, Any]], template_kwargs: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the arguments of `open_engine` that the settings of a stage and a model's own sections decide.

    Args:
        asking: settings with `server`, `vllm`, `batch`, `batch_tokens`, `dtype` and `device`.
        kind: the engine.
        own: the model's own keys of `server` and `vllm`, which go on top.
        template_kwargs: what the chat template is told; a server is sent it, too.
        where: the place of the model in the recipe, for what is not valid.
    """
    sections: dict[str, Any] = {}
    for name in ("server", "vllm"):
        given = getattr(asking, name)
        values = given.model_dump(exclude_unset=True) | dict(own.get(name, {}))
        sections[name] = read_section(type(given), values, f"{where}.{name}")
    if kind in BY_SERVER and template_kwargs:
        sent = sections["server"].extra.get("chat_template_kwargs") or {}
        extra = sections["server"].extra | {"chat_template_kwargs": {**sent, **template_kwargs}}
        sections["server"] = sections["server"].model_copy(update={"extra": extra})
    return {
        "kind": kind,
        "template_kwargs": template_kwargs,
        "batch": asking.batch,
        "batch_tokens": asking.batch_tokens,
        "dtype": asking.dtype,
        "device": asking.device,
        **sections,
    }


def value_of(args: Sequence[str], *names: str) -> str | None:
    """Find the value of an argument, `--name value` or `--name=value`, None without one; the last one counts."""
    last = None
    for position, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") in names:
            last = value if equals else "".join(args[position + 1 : position + 2])
    return last


class ExecutorSettings(Strict):
    """The settings of work on several machines: of a Ray cluster, or of a Slurm job."""

    kind: Literal["ray", "slurm"] = Field(
        description="What starts the replicas: ray, as actors of a Ray cluster; slurm, by srun on the nodes of the "
        "Slurm job that the run is in."
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=100_000,
        description="The actors or servers, in `generate` per teacher; of other stages the launchers, on a node each.",
    )
    gpus_per_replica: float | int = Field(default=0, ge=0, le=1024, description="The GPUs of one replica.")
    cpus_per_replica: float | int = Field(
        default=1,
        gt=0,
        le=4096,
        description="The CPU cores of one replica. Where it is left out with slurm: those of the node, shared evenly.",
    )
    address: str | None = Field(
        default=None,
        description="Of ray: the address of a running cluster; auto is the one this node is in. Null starts one here.",
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> "ExecutorSettings":
        if self.kind == "slurm":
            if self.address is not None:
                raise ValueError("`address` is that of a Ray cluster, and `kind` is slurm; leave it out")
            for name in ("gpus_per_replica", "cpus_per_replica"):
                value = getattr(self, name)
                if value != int(value):
                    raise ValueError(f"Slurm gives whole GPUs and CPU cores, got {name} {value:g}; round it up")
        return self
