"""The settings of `evaluate`: what is asked of a student, and how."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.grading.settings import SandboxSettings
from persyn_hf.backends.harness.likelihood import INVERSE_PERPLEXITY
from persyn_hf.backends.harness.livebench_scripts import LiveBenchSettings
from persyn_hf.backends.harness.questions import Source
from persyn_hf.backends.launching.settings import Executor
from persyn_hf.backends.references import Lists
from persyn_hf.backends.source_rows import RaggedRows
from persyn_hf.recipe.roles import check_config_name
from persyn_hf.recipe.strict import Strict


TESTS = "tests"  # the metric of items whose answers are code
LIVEBENCH = "livebench"  # name of the one task that LiveBench is


class Columns(Strict):
    """The names of the columns of a task's items."""

    question: str | list[str] = Field(
        default="question", description="The column of the question. Several columns are joined."
    )
    answer: str | list[str] = Field(
        default="answer",
        description="The column of the reference answer, or `struct.field`; of tests, also several.",
    )


class Task(Strict):
    """A task: questions of one's own with `path` or `dataset`, graded or weighed; else a task of the harness."""

    name: str = Field(description="The name of the task, and of its part of the dataset.")
    harness: str | None = Field(
        default=None,
        description="The harness's name of the task, where it is another or the items come from `path` or `dataset`.",
    )
    metric: str | None = Field(
        default=None,
        description="The metric of the harness's task that counts; null takes its first. Of items of your own: "
        "inverse_perplexity weighs the reference answer, tests runs code, null has math-verify grade.",
    )
    filter: str | None = Field(
        default=None,
        description="The harness's filter that counts, which finds the answer in what was said. Null takes the first.",
    )
    path: str | None = Field(
        default=None, description="The file of the items: .jsonl, .json, .csv, .tsv or .parquet, text also as .gz."
    )
    dataset: str | None = Field(default=None, description="The data set of the items, a Hub id or a local folder.")
    config: str | None = Field(
        default=None, description="The config of the data set. Null takes its default, or its only one."
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the data set on the Hub. Null takes the newest."
    )
    split: str = Field(default="test", description="The split of the data set; `train+test` joins two.")
    columns: Columns = Field(default=Columns(), description="The names of the columns of the items.")
    reference_lists: Lists | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="all: an answer must give all values of a list of references; any: one of them. "
        "Null is all, and the run tells of lists.",
    )
    ragged_rows: RaggedRows = Field(
        default="refuse",
        exclude_if=lambda value: value == "refuse",
        description="What becomes of a CSV's rows that do not fit its header: the run refuses them, or skips and "
        "counts them.",
    )
    reference_after: str | None = Field(
        default=None,
        description='The mark behind which the reference stands; the last one counts. GSM8K has "####".',
    )
    limit: int | None = Field(
        default=None, ge=1, le=10**12, description="The first items to ask at most. Null takes `evaluate.limit`."
    )
    num_fewshot: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="The worked examples before each question. Null: 0 for items of your own, else the harness's.",
    )
    fewshot_path: str | None = Field(
        default=None, description="A file with the same columns. Its first rows are the worked examples."
    )
    fewshot_split: str | None = Field(
        default=None, description="A split of the data set. Its first rows are the worked examples."
    )

    _name = field_validator("name")(check_config_name)

    @property
    def source(self) -> Source | None:
        """Return where the items come from; None: from where the harness has them."""
        if self.path is None and self.dataset is None:
            return None
        return Source(
            path=self.path, dataset=self.dataset, config=self.config, revision=self.revision, split=self.split
        )

    @property
    def examples(self) -> Source | None:
        """Return where the worked examples come from; None: there are none of the task's own."""
        if self.fewshot_path is not None:
            return Source(path=self.fewshot_path)
        if self.fewshot_split is not None:
            return Source(dataset=self.dataset, config=self.config, revision=self.revision, split=self.fewshot_split)
        return None

    @property
    def is_stock(self) -> bool:
        """Say whether the harness knows the answers and scores them."""
        return self.harness is not None or self.source is None

    @property
    def is_weighed(self) -> bool:
        """Say whether the reference answers are weighed, and nothing is generated."""
        return not self.is_stock and self.metric == INVERSE_PERPLEXITY

    @property
    def is_tested(self) -> bool:
        """Say whether answers are code, and their references tests that are run."""
        return not self.is_stock and self.metric == TESTS

    @property
    def answer_columns(self) -> list[str]:
        """Return the columns of the reference answer."""
        return [self.columns.answer] if isinstance(self.columns.answer, str) else self.columns.answer

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        if self.path is not None and self.dataset is not None:
            raise ValueError(f"`{self.name}` has both `path` and `dataset`; keep one of them")
        for key in ("config", "revision"):
            if self.dataset is None and getattr(self, key) is not None:
                raise ValueError(f"`{self.name}`: `{key}` is of a `dataset`, and none is read; take it out")
        skips = self.ragged_rows == "skip"
        if skips and self.path is None:
            raise ValueError(f"`{self.name}`: `ragged_rows` is of a CSV in `path`, and none is read; take it out")
        if self.is_stock and (self.reference_after or self.reference_lists or skips or self.examples):
            what = "is a task of the harness, which" if self.harness else "has no `path` or `dataset`: the harness"
            raise ValueError(f"`{self.name}` {what} knows its own answers; take out the keys about them")
        if self.is_stock and self.source is not None and self.num_fewshot:
            raise ValueError(
                f"`{self.name}`: `num_fewshot` must be 0, the harness would draw examples from your items"
            )
        if not self.is_stock and self.filter:
            raise ValueError(f"`{self.name}` has items of its own; `filter` is for tasks of the harness")
        if not self.is_stock and self.metric not in (None, INVERSE_PERPLEXITY, TESTS):
            raise ValueError(
                f"`{self.name}` has items of its own, whose `metric` is null (graded by math-verify), "
                f"{INVERSE_PERPLEXITY} or {TESTS}, got {self.metric!r}"
            )
        if isinstance(self.columns.answer, list) and not self.is_tested:
            raise ValueError(
                f"`{self.name}`: several columns of an answer are tests; name one, or set `metric: {TESTS}`"
            )
        if self.is_tested and (self.reference_after or self.reference_lists or self.examples):
            raise ValueError(
                f"`{self.name}` has tests, which are taken as they stand and show no answers; take out "
                "`reference_after`, `reference_lists` and the worked examples"
            )
        if self.is_weighed and (self.reference_after or self.reference_lists):
            raise ValueError(
                f"`{self.name}` is weighed by {INVERSE_PERPLEXITY}, which takes each answer as it stands; take out "
                "`reference_after` and `reference_lists`"
            )
        if self.fewshot_split is not None and self.dataset is None:
            raise ValueError(f"`{self.name}`: `fewshot_split` is of a `dataset`; use `fewshot_path`")
        if not self.is_stock and bool(self.num_fewshot) != bool(self.examples):
            raise ValueError(
                f"`{self.name}`: `num_fewshot` and `fewshot_path` or `fewshot_split` go together, found only one"
            )
        return self


class Settings(Strict):
    """The questions to ask, and how answers are generated: greedily, through the chat template."""

    # It is left out of stored settings where null, so that fingerprints stay as they were.
    livebench: LiveBenchSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The questions of LiveBench, asked by its own scripts. Null: not asked.",
    )
    tasks: tuple[Task, ...] = Field(
        strict=False, description="The tasks to ask. The list may be empty where there is `livebench`."
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers", description="The engine that asks the student: in this process, or by vLLM."
    )
    max_tokens: int = Field(default=512, ge=1, le=100_000_000, description="The tokens of an answer at most.")
    batch_size: int = Field(
        default=64, ge=1, le=1_000_000, description="The items that are asked at once. vLLM makes its own batches."
    )
    limit: int | None = Field(
        default=None, ge=1, le=10**12, description="The first items of each task to ask at most. Null asks all."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="The type of the weights. auto: as stored on a GPU, float32 elsewhere."
    )
    vllm: VllmSettings = Field(default=VllmSettings(), description="Of `engine: vllm`: how `vllm serve` is started.")
    executor: Executor | None = Field(
        default=None, description="The cluster on whose nodes the student is asked. Null: on this machine."
    )
    # As of `livebench`.
    sandbox: SandboxSettings = Field(
        default=SandboxSettings(),
        exclude_if=lambda value: value == SandboxSettings(),
        description="Of `metric: tests`: the bounds of the code that is run.",
    )
    timeout_s: float | int = Field(
        default=5, gt=0, le=604_800, description="The seconds that grading one answer may take."
    )

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: tuple[Task, ...], info: ValidationInfo) -> tuple[Task, ...]:
        if not tasks and info.data.get("livebench") is None:
            raise ValueError("must name at least one, got []")
        return tasks

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        names = [task.name for task in self.tasks] + [LIVEBENCH] * (self.livebench is not None)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tasks are named `{twice[0]}`; give each a name of its own")
        if self.livebench is not None and self.engine != "vllm":
            raise ValueError("`livebench` asks a server, which `engine: transformers` has not; set `engine: vllm`")
        if self.livebench is not None and self.executor is not None:
            raise ValueError(
                "`livebench` asks one server on this machine, which an `executor` does not start; leave `executor` "
                "out, or evaluate `livebench` in a recipe of its own"
            )
        if self.executor is not None and self.vllm.distributed_executor_backend is not None:
            raise ValueError(
                "`vllm.distributed_executor_backend` runs one server over nodes of a Ray cluster, and `executor` one "
                "on each node; leave one out"
            )
        return self
