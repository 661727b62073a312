"""The column contracts of all datasets that stages read or emit.

A dataset artifact is written as one parquet folder per config and split: `config_by` and `split_by` name the
columns whose values become configs (one per teacher, for parallel responses) and splits. The columns stay in the data.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

from persyn_hf.contract import Column, ModelSchema, Schema


def prompt_id(messages: Iterable[Mapping[str, str]]) -> str:
    """Name a prompt by the first 16 hex digits of the sha256 of its messages, as compact JSON with sorted keys."""
    text = json.dumps(list(messages), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


# What an answer may be judged by (`score.quality`), in the order of their columns in the rewards.
CRITERIA = ("correct", "pass_rate", "column", "reward_model", "judge", "command")


def criterion_column(criterion: str) -> str:
    """Return the name of the column of the rewards that holds what a criterion says."""
    return f"quality_{criterion}"


PROMPT_ID = Column(name="prompt_id", dtype="string", meaning="first 16 hex digits of the sha256 of the messages")
SPLIT = Column(name="split", dtype="string", meaning="calibration, dev or pool; drawn once, in `prompts`")
TEACHER = Column(name="teacher", dtype="string", meaning="name of the teacher in the recipe")

PROMPTS = Schema(
    kind="prompts",
    row="one prompt",
    key=("prompt_id",),
    split_by="split",
    columns=(
        PROMPT_ID,
        Column(name="messages", dtype="messages", meaning="the conversation up to and with the last user turn"),
        Column(name="reference", dtype="string", meaning="reference answer; null: none was given", nullable=True),
        Column(name="source", dtype="string", meaning="file or dataset that the prompt comes from"),
        Column(name="topic", dtype="string", meaning="topic or skill, where the source names one", nullable=True),
        SPLIT,
    ),
)

ASSIGNMENTS = Schema(
    kind="assignments",
    row="one (prompt, teacher) cell to be generated",
    key=("prompt_id", "teacher"),
    version=2,
    split_by="split",
    columns=(
        PROMPT_ID,
        TEACHER,
        Column(
            name="scores",
            dtype="list<float64>",
            meaning="score of every teacher, in the order of the manifest's `teachers`; empty: no scores were used",
        ),
        Column(name="margin", dtype="float64", meaning="best score minus second best; null: no scores", nullable=True),
        Column(
            name="confidence",
            dtype="float64",
            meaning="probability that the router's best is as good as the best, within epsilon of reward; null: "
            "measured, by rule, by budget, or no dev rewards",
            nullable=True,
        ),
        Column(name="source", dtype="string", meaning="who decided: router, oracle (measured rewards) or rule"),
        SPLIT,
    ),
)

RESPONSES = Schema(
    kind="responses",
    row="one sampled response",
    key=("prompt_id", "teacher", "sample_index"),
    version=2,
    config_by="teacher",
    split_by="split",
    columns=(
        PROMPT_ID,
        TEACHER,
        Column(name="sample_index", dtype="int64", meaning="0 to n-1 within (prompt, teacher)"),
        Column(name="response", dtype="string", meaning="answer text, reasoning removed; empty on error"),
        Column(
            name="reasoning", dtype="string", meaning="text of the thinking block, where there is one", nullable=True
        ),
        Column(
            name="finish_reason",
            dtype="string",
            meaning="stop, length, content_filter, error, imported, unknown, or a server's own word",
        ),
        Column(
            name="num_prompt_tokens",
            dtype="int64",
            meaning="tokens of the prompt, teacher's tokenizer; null: nobody has counted them",
            nullable=True,
        ),
        Column(
            name="num_tokens",
            dtype="int64",
            meaning="tokens generated, end-of-turn included, teacher's tokenizer; null: nobody has counted them",
            nullable=True,
        ),
        Column(
            name="is_correct",
            dtype="bool",
            meaning="agrees with the reference; null: no reference, or it could not be judged",
            nullable=True,
        ),
        Column(
            name="quality",
            dtype="float64",
            meaning="quality imported with the response, or by which one of several was kept",
            nullable=True,
        ),
        Column(name="selected", dtype="bool", meaning="the one sample of its cell that is scored and trained on"),
        Column(
            name="round",
            dtype="int64",
            meaning="0: assigned; k: the k-th teacher tried where no earlier one was right",
        ),
        Column(name="status", dtype="string", meaning="ok or error"),
        Column(name="error", dtype="string", meaning="why, where status is error", nullable=True),
        SPLIT,
    ),
)

REWARDS = Schema(
    kind="rewards",
    row="one selected response under one student",
    key=("prompt_id", "teacher"),
    split_by="split",
    columns=(
        PROMPT_ID,
        TEACHER,
        Column(
            name="quality_raw", dtype="float64", meaning="quality before normalisation; null: unjudged", nullable=True
        ),
        Column(
            name="mean_logprob",
            dtype="float64",
            meaning="paper Eq. 1, nats per token: mean of log p_student over the response and its end of turn",
            nullable=True,
        ),
        Column(name="sum_logprob", dtype="float64", meaning="sum of the same log-probabilities, nats", nullable=True),
        Column(name="num_tokens", dtype="int64", meaning="tokens scored, student's tokenizer", nullable=True),
        Column(
            name="sum_min_rank",
            dtype="float64",
            meaning="sum over the tokens of min(rank in the student's distribution, 100)",
            nullable=True,
        ),
        Column(name="truncated", dtype="bool", meaning="the response was cut at the SFT length"),
        Column(name="quality_reward", dtype="float64", meaning="r_q, normalised across teachers", nullable=True),
        Column(name="learnability_reward", dtype="float64", meaning="r_l, normalised across teachers", nullable=True),
        Column(name="reward", dtype="float64", meaning="paper Eq. 2; null: cell missing or unjudged", nullable=True),
        Column(name="rank", dtype="int64", meaning="1 is best; equal rewards share the better rank", nullable=True),
        SPLIT,
    ),
    optional=(
        *(
            Column(
                name=criterion_column(criterion),
                dtype="float64",
                meaning=f"where several criteria were weighted: what `{criterion}` says, raw; null: nothing",
                nullable=True,
            )
            for criterion in CRITERIA
        ),
        Column(
            name="verdicts",
            dtype="verdicts",
            meaning="where judges were asked, what each replied: `shown` is empty, or `as A, against NAME` of a pair; "
            "`verdict` is null where none could be read, and `fault` says why; null: nobody was asked",
            nullable=True,
        ),
    ),
)

PAIRS = Schema(
    kind="pairs",
    row="one comparison of two teachers on one prompt",
    key=("prompt_id", "teacher_a", "teacher_b"),
    split_by="split",
    columns=(
        PROMPT_ID,
        Column(name="prompt", dtype="string", meaning="the user turns as text"),
        Column(name="teacher_a", dtype="string", meaning="A of the paper's pair (A, B); -1 in the two-hot vector"),
        Column(name="teacher_b", dtype="string", meaning="B of the paper's pair (A, B); +1 in the two-hot vector"),
        Column(name="label", dtype="float64", meaning="the paper's C: 1 if B is preferred, 0 if A is, 0.5 for a tie"),
        Column(name="margin", dtype="float64", meaning="reward of B minus reward of A"),
        SPLIT,
    ),
)

SFT = Schema(
    kind="sft",
    row="one training example",
    key=("prompt_id", "teacher"),
    columns=(
        Column(name="prompt", dtype="messages", meaning="conversation, TRL's prompt-completion format"),
        Column(name="completion", dtype="messages", meaning="the assistant turn that carries the loss"),
        PROMPT_ID,
        TEACHER,
        Column(name="reward", dtype="float64", meaning="measured reward, where there is one", nullable=True),
    ),
)

EVALUATION = Schema(
    kind="evaluation",
    row="one benchmark item",
    key=("task", "item"),
    version=3,
    config_by="task",
    columns=(
        Column(name="task", dtype="string", meaning="lm-evaluation-harness task"),
        Column(name="item", dtype="string", meaning="index of the item within the task"),
        Column(name="prompt", dtype="string", meaning="the question as the model saw it, template left out"),
        Column(name="reference", dtype="string", meaning="reference answer", nullable=True),
        Column(name="prediction", dtype="string", meaning="what the model answered, reasoning removed"),
        Column(
            name="reasoning", dtype="string", meaning="text of the thinking block, where there is one", nullable=True
        ),
        Column(
            name="extracted",
            dtype="string",
            meaning="what the task's filter took out of the prediction to judge it; null: the prediction is judged",
            nullable=True,
        ),
        Column(
            name="finish_reason",
            dtype="string",
            meaning="stop (end of turn or a stop text of the task), length, or too_long (not asked, it does not fit); "
            "null: nothing was generated, or it is not known",
            nullable=True,
        ),
        Column(
            name="is_correct",
            dtype="bool",
            meaning="judged correct; null: could not be judged, or the score knows more than right and wrong",
            nullable=True,
        ),
        Column(
            name="score",
            dtype="float64",
            meaning="0 to 1, by the task's metric; a mean of scores counts an item as often as it has parts, at least "
            "once; null: could not be judged",
            nullable=True,
        ),
        Column(
            name="parts",
            dtype="list<float64>",
            meaning="of an item with several things to judge (IFEval: its instructions), the score of each; "
            "empty elsewhere",
        ),
        Column(
            name="score_by_filter",
            dtype="list<float64>",
            meaning="score by each filter of the task, in the order of the manifest's `filters`; null: there is one",
            nullable=True,
        ),
    ),
)

ROUTER = ModelSchema(kind="router")
STUDENT = ModelSchema(kind="student")

SCHEMAS: dict[str, Schema | ModelSchema] = {
    schema.kind: schema
    for schema in (PROMPTS, ASSIGNMENTS, RESPONSES, REWARDS, PAIRS, SFT, EVALUATION, ROUTER, STUDENT)
}
