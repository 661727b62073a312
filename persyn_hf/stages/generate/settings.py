"""Settings of `generate`, and what follows from them for one teacher."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.backends.engines.imported import ImportSettings
from persyn_hf.backends.engines.settings import RaySettings, ServerSettings, VllmSettings
from persyn_hf.backends.loading import Dtype
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section


FEW_SAMPLES = 2  # appendix A.1: teachers of 72B and over and Long-CoT teachers are sampled twice
LARGE_B = 72


class Settings(ImportSettings):
    """How teachers are asked, or where their answers are imported from."""

    engine: Literal["transformers", "server", "vllm", "import"] = "transformers"
    samples: int = Field(default=4, ge=1)  # per cell; at most 2 of large and Long-CoT teachers; 1 at temperature 0
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=2048, ge=1)
    batch_tokens: int = Field(default=32768, ge=1)  # transformers: rows x (prompt + max_tokens) of one batch
    dtype: Dtype = "auto"
    device: str = "auto"  # transformers
    server: ServerSettings = ServerSettings()
    vllm: VllmSettings = VllmSettings()
    executor: RaySettings | None = None  # null: this process
    max_error_rate: float = Field(default=0.5, ge=0, le=1)  # of one teacher's requests
    rerun: tuple[Literal["truncated", "errors"], ...] = Field(default=(), strict=False)  # ask these again
    stop_when_correct: bool = False  # ask for a further sample only while none is correct
    escalate: int = Field(default=0, ge=0)  # more teachers, best router score first, where no answer is right
    # null: always; else where the router was less sure that its teacher is as good as any: if that one fails, all will
    escalate_below: float | None = Field(default=None, gt=0, le=1)
    verify: Literal["math", "none"] = "math"
    verify_timeout_s: float = Field(default=5.0, gt=0)  # per response

    @field_validator("rerun", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        tables = [name for name in ("path", "dataset") if getattr(self, name) is not None]
        if self.engine == "import" and len(tables) != 1:
            found = " and ".join(tables) or "neither"
            raise ValueError(f"engine `import` needs `path` or `dataset`, the table of responses, found {found}")
        if self.engine != "import" and tables:
            raise ValueError(f"engine `{self.engine}` knows no `{tables[0]}`; leave it out, or set `engine: import`")
        for name in ("stop_when_correct", "escalate"):
            if getattr(self, name) and (self.verify == "none" or self.engine == "import"):
                found = "`verify: none`" if self.verify == "none" else "`engine: import`"
                raise ValueError(
                    f"`{name}` needs answers that are generated and verified, found {found}; leave it out"
                )
        return self


def check(settings: Settings, teachers: tuple[Teacher, ...]) -> None:
    """Refuse a teacher that cannot be asked as the settings say, before anything runs."""
    if settings.engine == "import":
        return
    for teacher in teachers:
        if teacher.model is None:
            raise RecipeError(
                f"the teacher `{teacher.name}` has no `model`; name one, "
                "or import its responses with `generate.engine: import`"
            )
        options = engine_options(settings, teacher)
        if options["kind"] == "server" and not options["server"].urls:
            raise RecipeError(
                f"the teacher `{teacher.name}` is to be asked at a server, but no url is given; set "
                "`generate.server: {urls: [http://HOST:PORT/v1]}`, or `server: {urls: [...]}` at the teacher"
            )


def engine_options(settings: Settings, teacher: Teacher) -> dict[str, Any]:
    """Arguments of `open_engine` for one teacher, whose own sections go on top of the stage's."""
    sections: dict[str, Any] = {}
    for name, model in (("server", ServerSettings), ("vllm", VllmSettings)):
        values = getattr(settings, name).model_dump(exclude_unset=True) | getattr(teacher, name)
        sections[name] = read_section(model, values, f"teachers.{teacher.name}.{name}")
    return {
        "kind": teacher.engine or settings.engine,
        "model": teacher.model,
        "revision": teacher.revision,
        "system_prompt": teacher.system_prompt,
        "batch_tokens": settings.batch_tokens,
        "dtype": settings.dtype,
        "device": settings.device,
        **sections,
    }


def num_gpus(settings: Settings, teacher: Teacher) -> float | None:
    """GPUs that the teacher holds while it answers; None: a server does not say."""
    options = engine_options(settings, teacher)
    if options["kind"] == "server":
        return None
    if settings.executor is not None:
        return settings.executor.gpus_per_replica
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(options["vllm"].gpus) if options["kind"] == "vllm" else 1


def num_samples(settings: Settings, teacher: Teacher) -> int:
    """Responses per cell: the teacher's own number, else the paper's rule; 1 where decoding is greedy."""
    if settings.temperature == 0:
        return 1
    if teacher.samples is not None:
        return teacher.samples
    few = teacher.long_cot or (teacher.params_b or 0) >= LARGE_B
    return min(settings.samples, FEW_SAMPLES) if few else settings.samples
