"""The settings of a judge (`score.judge`): who judges, by what, and how it is asked."""

import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from persyn_hf.backends.engines import messages
from persyn_hf.backends.engines.settings import (
    BY_SERVER,
    ENGINE_NOT_COVERED,
    BatchSettings,
    ServerSettings,
    VllmSettings,
    engine_arguments,
)
from persyn_hf.backends.judging.rubrics import Mode, Scale, find_rubric
from persyn_hf.backends.judging.structured import ResponseFormat
from persyn_hf.backends.loading import Dtype
from persyn_hf.recipe.roles import Price, check_name
from persyn_hf.recipe.strict import Strict


Engine = Literal["transformers", "server", "batch", "vllm"]


class JudgeServer(ServerSettings):
    """The server of a judge."""

    place = "score.judge.server"


class Judge(Strict):
    """One model that judges. What it leaves out is as `score.judge` says it."""

    name: str = Field(
        default="", description="The name of the judge on cards and in the journal. Empty takes that of its model."
    )
    model: str = Field(description="The Hub id, the local folder or the server's name of the model.")
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the model on the Hub. Null takes the newest."
    )
    family: str = Field(
        default="unknown",
        description="The family of the model, in the word that teachers use. A judge favours answers of its own, so a "
        "teacher of the same family is warned of.",
    )
    params_b: float | int | None = Field(
        default=None, gt=0, le=1_000_000, description="The active parameters, in billions. Costs in FLOPs go by them."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="What the judge's chat template is told, such as enable_thinking: false of Qwen3.",
    )
    price: Price | None = Field(
        default=None,
        description="The price, in the currency of the teachers'. `plan`, cards and `--max-cost` read it.",
    )

    @field_validator("name")
    @classmethod
    def _named(cls, value: str) -> str:
        return check_name(value) if value else value

    @property
    def label(self) -> str:
        """The name, else the end of the model's id."""
        own = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePath(self.model).name).strip("-._")[:64].strip("-._")
        return self.name or own or "judge"

    @property
    def payee(self) -> str:
        """The name in the journal: no teacher's, for their names have no space."""
        return f"judge {self.label}"


class PanelJudge(Judge):
    """A further judge of a panel."""

    engine: Engine | None = Field(
        default=None, description="The engine that asks this judge. Null takes `score.judge.engine`."
    )
    server: dict[str, Any] = Field(
        default_factory=dict, description="The keys that go on top of `score.judge.server` for this judge."
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="The keys that go on top of `score.judge.vllm` for this judge."
    )


class JudgeSettings(Judge):
    """The judge, its rubric, and how it is asked; a panel of several has the same rubric."""

    rubric: str = Field(
        default="helpfulness",
        validate_default=True,
        description="The rubric: helpfulness, instruction-following, correctness or safety, or a file of your own "
        "(./my.yaml) with its scale, criteria and placeholders.",
    )
    scale: Scale | None = Field(
        default=None,
        strict=False,
        description="The worst and the best score, [1, 10], of a rubric in plain text. Null: as its YAML says.",
    )
    mode: Mode = Field(
        default="pointwise",
        description="pointwise: each answer gets a score. pairwise: every two answers to a prompt are compared in "
        "both orders, and the quality is their Bradley-Terry strength.",
    )
    opponents: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="Of `mode: pairwise`: the other answers that each is compared with, an even number (odd ones are "
        "rounded up). Null: all of them.",
    )
    samples: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="The verdicts per question, whose mean counts. Several need a temperature.",
    )
    temperature: float = Field(default=0.0, ge=0, le=100, description="The temperature of sampling; 0 is greedy.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="The probability that the tokens to sample from hold together."
    )
    max_tokens: int = Field(
        default=1024,
        ge=1,
        le=100_000_000,
        description="The tokens of a reply at most, thoughts included. A judge that is cut off has given no verdict.",
    )
    reason: bool = Field(
        default=True, description="The judge gives a reason before its verdict. Without one it is cheaper, and worse."
    )
    response_format: ResponseFormat = Field(
        default="auto",
        description="Of servers and `vllm`: the structured output to ask for. auto takes the first that a server does "
        "not refuse: json_schema, json_object, none.",
    )
    engine: Engine = Field(
        default="server",
        description="The engine that asks the judge: at a server, by its batch API, here, or by a vLLM.",
    )
    server: JudgeServer = Field(default=JudgeServer(), description="Of `engine: server`: where and how it asks.")
    batch: BatchSettings = Field(
        default=BatchSettings(), description="Of `engine: batch`: how the batch API of the `server` is used."
    )
    vllm: VllmSettings = Field(default=VllmSettings(), description="Of `engine: vllm`: how `vllm serve` is started.")
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
    max_error_rate: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="The share of a judge's replies that may fail or hold no verdict before the run stops.",
    )
    rerun: tuple[Literal["errors"], ...] = Field(
        default=(), strict=False, description="The replies to ask again: errors, or none."
    )
    panel: tuple[PanelJudge, ...] = Field(
        default=(), strict=False, description="Further judges. The quality is the mean over the panel."
    )

    @field_validator("rubric")
    @classmethod
    def _found(cls, value: str) -> str:
        return find_rubric(value)

    @field_validator("rerun", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "JudgeSettings":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.samples} greedy samples would all be the same; set `temperature: 0.7`, or `samples: 1`"
            )
        labels = [judge.label for judge in self.judges]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two judges are called `{twice}`; give one of them another `name`")
        for judge in self.judges:
            options = engine_options(self, judge)
            if options["kind"] in BY_SERVER and not options["server"].urls:
                raise ValueError(
                    f"the judge `{judge.label}` is to be asked at a server, but no url is given; set "
                    "`server: {urls: [http://HOST:PORT/v1]}`, or another `engine`"
                )
            if options["kind"] in BY_SERVER and options["server"].api == "anthropic":
                fault = messages.refused(options["server"].extra, temperature=self.temperature, top_p=self.top_p)
                if fault is not None:
                    raise ValueError(f"the judge `{judge.label}`: {fault}")
        return self

    @property
    def judges(self) -> tuple[Judge, ...]:
        """The whole panel, the first judge first."""
        return (self, *self.panel)


def engine_options(settings: JudgeSettings, judge: Judge) -> dict[str, Any]:
    """Return the arguments of `open_local` for a judge of the panel; its own sections go on top of the panel's."""
    own = {"server": judge.server, "vllm": judge.vllm} if isinstance(judge, PanelJudge) else {}
    kind = (judge.engine if isinstance(judge, PanelJudge) else None) or settings.engine
    where = f"score.judge.panel.{judge.label}"
    decided = engine_arguments(settings, kind, own, judge.chat_template_kwargs, where)
    return {"model": judge.model, "revision": judge.revision, "system_prompt": None, **decided}


# How fast a judge is asked and what only plans and warnings read is not covered; what may change its verdicts is.
JUDGE_NOT_COVERED = ENGINE_NOT_COVERED | {"device", "max_error_rate", "price", "params_b", "family"}
