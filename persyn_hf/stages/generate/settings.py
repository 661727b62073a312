"""The settings of `generate`, and what follows from them for one teacher."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.backends.engines import messages
from persyn_hf.backends.engines.imported import ImportSettings
from persyn_hf.backends.engines.settings import (
    BY_SERVER,
    BatchSettings,
    ExecutorSettings,
    ServerSettings,
    VllmSettings,
    engine_arguments,
)
from persyn_hf.backends.grading.settings import CommandSettings, SandboxSettings
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.backends.loading import Dtype
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import Strict


FEW_SAMPLES = 2  # appendix A.1: teachers of 72B and over and Long-CoT teachers are sampled twice
LARGE_B = 72


class ChosenBy(Strict):
    """By what several samples are judged, taken from `score`."""

    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]]
    judge: JudgeSettings | None = None
    command: CommandSettings = CommandSettings()


class Settings(ImportSettings):
    """The way in which teachers are asked, or the table that their answers are imported from."""

    engine: Literal["transformers", "server", "batch", "vllm", "import"] = Field(
        default="transformers",
        description="The engine that asks teachers: in this process, at a server, by a vLLM that is started for it, "
        "a provider's batch API, or an import of answers that exist.",
    )
    samples: int = Field(
        default=4,
        ge=1,
        le=10_000,
        description="The answers per prompt and teacher. As in the paper, large (72B) and Long-CoT teachers give 2 at "
        "most, and greedy ones 1.",
    )
    temperature: float = Field(
        default=0.6, ge=0, le=100, description="The temperature of sampling; 0 is greedy. The paper: 0.6 for maths."
    )
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="The probability that the tokens to sample from hold together."
    )
    max_tokens: int = Field(
        default=2048, ge=1, le=100_000_000, description="The tokens of an answer at most. Longer ones are cut off."
    )
    batch_tokens: int = Field(
        default=32768,
        ge=1,
        le=10**9,
        description="Of `transformers`: rows times (prompt + max_tokens) of one batch at most.",
    )
    dtype: Dtype = Field(
        default="auto", description="The type of the weights, of `transformers` and `vllm`. auto: as they are stored."
    )
    device: str = Field(default="auto", description="Of `transformers`: the device: auto, cpu, cuda, cuda:1 or mps.")
    server: ServerSettings = Field(default=ServerSettings(), description="Of `engine: server`: where and how it asks.")
    batch: BatchSettings = Field(
        default=BatchSettings(), description="Of `engine: batch`: how the batch API of the `server` is used."
    )
    vllm: VllmSettings = Field(default=VllmSettings(), description="Of `engine: vllm`: how `vllm serve` is started.")
    executor: ExecutorSettings | None = Field(
        default=None,
        description="The Ray cluster that engines run on, or the Slurm job whose nodes run vLLM. Null: this machine.",
    )
    max_error_rate: float = Field(
        default=0.5, ge=0, le=1, description="The share of a teacher's requests that may fail before the run stops."
    )
    rerun: tuple[Literal["truncated", "errors"], ...] = Field(
        default=(),
        strict=False,
        description="The answers to ask again: those that were cut off by a smaller `max_tokens`, or errors.",
    )
    stop_when_correct: bool = Field(
        default=False, description="A further sample is asked only while none of the prompt and teacher is correct."
    )
    escalate: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="The further teachers to ask where no answer is right, best router score first.",
    )
    escalate_below: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Escalate only where the router was less sure than this: if it was sure and its teacher fails, "
        "all will. Null: always.",
    )
    verify: Literal["math", "command", "tests", "none"] = Field(
        default="math",
        description="The check of answers: math-verify against references, a command of yours, tests of code in a "
        "sandbox, or none.",
    )
    verify_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="The seconds that verifying one answer may take. Of `tests`: one run of the answer's code.",
    )
    choose_by: Literal["correct", "quality"] = Field(
        default="correct",
        description="The sample that is kept: a right one, else the first; or, of those equally right, the best by "
        "the judge or command of `score.quality`, which is asked about each.",
    )
    chosen_by: ChosenBy | None = Field(default=None, description="Of `choose_by: quality`: the judge and the command.")
    command: CommandSettings = Field(
        default=CommandSettings(), description="Of `verify: command`: the command that says true, false or null."
    )
    sandbox: SandboxSettings = Field(
        default=SandboxSettings(), description="Of `verify: tests`: the bounds of the code that is run."
    )

    @field_validator("rerun", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        tables = [name for name in ("path", "dataset") if getattr(self, name) is not None]
        if self.engine == "import" and len(tables) != 1:
            given = " and ".join(tables) or "neither"
            raise ValueError(f"engine `import` needs `path` or `dataset`, the table of responses, found {given}")
        if self.engine != "import" and tables:
            raise ValueError(f"engine `{self.engine}` knows no `{tables[0]}`; leave it out, or set `engine: import`")
        if self.engine == "batch" and self.executor is not None:
            raise ValueError("engine `batch` runs at the provider and knows no `executor`; leave one of them out")
        if (self.verify == "command") != bool(self.command.run):
            raise ValueError(
                "`verify: command` and `command: {run: [...]}` belong together, found only one of them; give both, or "
                "another `verify`"
            )
        if self.choose_by == "quality" and self.columns.quality is not None:
            raise ValueError(
                "`choose_by: quality` judges samples, and `columns.quality` brings their quality along; leave one out"
            )
        for name in ("stop_when_correct", "escalate"):
            if getattr(self, name) and (self.verify == "none" or self.engine == "import"):
                obstacle = "`verify: none`" if self.verify == "none" else "`engine: import`"
                raise ValueError(
                    f"`{name}` needs answers that are generated and verified, found {obstacle}; leave it out"
                )
        return self

    def of(self, teacher: Teacher) -> "Settings":
        """Return the settings by which one teacher is asked: its own sampling goes before that of all."""
        own = {name: getattr(teacher, name) for name in ("temperature", "top_p", "max_tokens")}
        given = {name: value for name, value in own.items() if value is not None}
        return self.model_copy(update=given) if given else self  # a copy for each of millions of prompts takes time


def check(settings: Settings, teachers: tuple[Teacher, ...]) -> None:
    """Refuse a teacher that cannot be asked as the settings say, before anything runs.

    Raises:
        RecipeError: it has no model, no url of its server is known, or its API does not take the settings.
    """
    if settings.engine == "import":
        return
    for teacher in teachers:
        if teacher.model is None:
            raise RecipeError(
                f"the teacher `{teacher.name}` has no `model`; name one, "
                "or import its responses with `generate.engine: import`"
            )
        options = engine_options(settings, teacher)
        if options["kind"] in BY_SERVER and not options["server"].urls:
            raise RecipeError(
                f"the teacher `{teacher.name}` is to be asked at a server, but no url is given; set "
                "`generate.server: {urls: [http://HOST:PORT/v1]}`, or `server: {urls: [...]}` at the teacher"
            )
        _check_executor(settings, teacher, options)
        own = settings.of(teacher)
        if options["kind"] in BY_SERVER and options["server"].api == "anthropic":
            fault = messages.refused(options["server"].extra, temperature=own.temperature, top_p=own.top_p)
            if fault is not None:
                raise RecipeError(f"the teacher `{teacher.name}`: {fault}")


def _check_executor(settings: Settings, teacher: Teacher, options: dict[str, Any]) -> None:
    """Refuse an executor that cannot run a teacher's engine (`RecipeError`)."""
    executor, engine = settings.executor, options["kind"]
    if executor is None:
        return
    if executor.kind == "slurm" and engine == "transformers":
        raise RecipeError(
            f"`generate.executor` is of kind slurm, which runs servers of vLLM, and the teacher `{teacher.name}` is "
            "asked by the engine `transformers`; set `generate.engine: vllm`, or leave `executor` out"
        )
    if engine == "vllm" and options["vllm"].distributed_executor_backend is not None:
        raise RecipeError(
            f"the teacher `{teacher.name}` is to run over nodes of a Ray cluster "
            "(`vllm.distributed_executor_backend`), and `generate.executor` runs it on single nodes; leave one out"
        )


def engine_options(settings: Settings, teacher: Teacher) -> dict[str, Any]:
    """Return the arguments of `open_engine` for one teacher; its own sections go on top of the stage's."""
    own = {"server": teacher.server, "vllm": teacher.vllm}
    kind, where = teacher.engine or settings.engine, f"teachers.{teacher.name}"
    decided = engine_arguments(settings, kind, own, teacher.chat_template_kwargs, where)
    return {"model": teacher.model, "revision": teacher.revision, "system_prompt": teacher.system_prompt, **decided}


def num_gpus(settings: Settings, teacher: Teacher) -> float | None:
    """Return the number of GPUs that a teacher holds while it answers; None: not known, as a server does not say."""
    options = engine_options(settings, teacher)
    if options["kind"] in BY_SERVER:
        return None
    if settings.executor is not None:
        servers = settings.executor.replicas if settings.executor.kind == "slurm" else 1  # an actor times itself
        return settings.executor.gpus_per_replica * servers
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(options["vllm"].gpus) if options["kind"] == "vllm" else 1


def num_samples(settings: Settings, teacher: Teacher) -> int:
    """Return the responses per cell: the teacher's own number, else by the paper's rule; 1 where decoding is greedy.

    The rule: `settings.samples`, but `FEW_SAMPLES` at most for Long-CoT teachers and those of 72 billion parameters
    and over.
    """
    if settings.of(teacher).temperature == 0:
        return 1
    if teacher.samples is not None:
        return teacher.samples
    few = teacher.long_cot or (teacher.params_b or 0) >= LARGE_B
    return min(settings.samples, FEW_SAMPLES) if few else settings.samples
