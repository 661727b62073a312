"""The text of a new recipe: commented YAML that its reader goes on from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from persyn_hf.recipe.yaml_text import flow


Kind = Literal["math", "instruct", "answers"]
Engine = Literal["transformers", "vllm", "server"]

KINDS: dict[str, str] = {
    "math": "questions with an answer that can be checked",
    "instruct": "instructions, whose answers a model judges",
    "answers": "answers of several models that exist already, in a file",
}
SIZE = re.compile(r"(?<![\dx.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z])")
ACTIVE = re.compile(r"(?<![A-Za-z])A(\d+(?:\.\d+)?)[Bb](?![A-Za-z])")  # Qwen3-30B-A3B


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is known of the recipe to write."""

    name: str
    kind: Kind
    source: dict[str, str]  # {"path": ...} or {"dataset": ...}
    columns: dict[str, str]  # prompt, and where they are there reference, teacher, response, quality
    teachers: Sequence[str]  # models; for `answers` the names in the file
    student: str | None
    number: int | None = None  # prompts of the source; None: not known
    marked: bool = False  # references end in `#### ANSWER`
    engine: Engine = "transformers"
    urls: Sequence[str] = field(default=())
    key: str | None = None  # environment variable that holds the key of the servers
    judge: str | None = None  # a language model; None: none judges
    judge_urls: Sequence[str] = field(default=())
    judge_key: str | None = None
    test: str | None = None  # file to evaluate the student on
    test_columns: dict[str, str] = field(default_factory=dict)
    test_marked: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of calibration and dev: the paper's, or a quarter and an eighth of fewer prompts."""
        number = self.number or 10**9
        return {"calibration": min(2500, max(number // 4, 2)), "dev": min(1000, max(number // 8, 2))}

    @property
    def quality(self) -> str:
        """Return what judges answers."""
        if self.judge is not None:
            return "judge"
        if "quality" in self.columns:
            return "column"
        return "correct" if "reference" in self.columns else "reward_model"


def text_of(wishes: Wishes) -> str:
    """Write the recipe."""
    parts = (_head, _prompts, _teachers, _student, _strategies, _generate, _score, _rest)
    return "\n".join(line for part in parts for line in part(wishes)) + "\n"


def entry_of(model: str) -> dict[str, Any]:
    """Describe a model as a teacher or student of a recipe: name, family and size follow from its id."""
    named = PurePath(model.removeprefix("persyn:")).name or model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", named).strip("-._")[:64].strip("-._") or "model"
    family = re.match(r"[A-Za-z]+", name)
    entry: dict[str, Any] = {"name": name, "model": model, "family": family[0].lower() if family else "unknown"}
    if (active := ACTIVE.search(name)) is not None:
        entry["params_b"] = _number(float(active[1]))
    elif (size := SIZE.search(name)) is not None:
        entry["params_b"] = _number(float(size[1]) / (1 if size[2] in "Bb" else 1000))
    return entry


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _head(wishes: Wishes) -> list[str]:
    tasks = {"math": "persyn:tasks/math", "instruct": "persyn:tasks/instruct"}.get(wishes.kind)
    extended = [tasks] if tasks and wishes.student and not wishes.test else []
    if wishes.quality == "reward_model":
        extended.append("persyn:reward-models/skywork-v2-3b")
    lines = [
        f"# A recipe for {KINDS[wishes.kind]}, by `persyn init`.",
        "# Every setting has a default; here is what you may want to change. `persyn plan` says what it will ask and",
        "# cost, `persyn run` runs it.",
    ]
    if extended:
        lines.append(f"extends: {flow(extended if extended[1:] else extended[0])}  # read one: persyn recipes NAME")
    return [*lines, f"name: {flow(wishes.name)}"]


def _prompts(wishes: Wishes) -> list[str]:
    columns = {key: name for key, name in wishes.columns.items() if key in ("prompt", "reference", "topic")}
    ((place, source),) = wishes.source.items()
    sizes = wishes.sizes
    lines = ["", "prompts:", f"  {place}: {flow(source)}", f"  columns: {flow(columns)}"]
    if wishes.marked:
        lines.append('  reference_after: "####"  # of a reference the part behind this mark counts')
    if wishes.quality == "correct":
        lines.append("  references: math  # keeps prompts whose reference can be parsed, by which answers are graded")
    return [
        *lines,
        f"  calibration: {sizes['calibration']}  # prompts that every teacher answers: they train the router",
        f"  dev: {sizes['dev']}  # prompts that every teacher answers, too: they judge the router",
        "  # pool: 5000  # all other prompts go to one teacher each, unless a number stands here",
    ]


def _teachers(wishes: Wishes) -> list[str]:
    if wishes.kind == "answers":
        entries: list[dict[str, Any]] = [_named(teacher) for teacher in wishes.teachers]
        lines = ["teachers:  # by `name`, or else by `model`, as the file has them"]
    else:
        entries = [entry_of(model) for model in wishes.teachers]
        lines = ["teachers:  # params_b: billions of (active) parameters, by which `strong` finds the largest"]
    return ["", *lines, *(f"  - {flow(entry)}" for entry in entries)]


def _named(teacher: str) -> dict[str, Any]:
    """Describe a teacher of imported answers, whose name in the file may be the id of a model."""
    name = entry_of(teacher)["name"]
    return {"name": name} if name == teacher else {"name": name, "model": teacher}


def _student(wishes: Wishes) -> list[str]:
    if wishes.student is None:
        return [
            "",
            "students: [{name: any}]  # no model: what a student learns easily is not measured, and none is trained",
            "until: mix  # the training data; with a `model` above, leave this out, and `learnability` below too",
        ]
    return ["", "students:", f"  - {flow(entry_of(wishes.student))}"]


def _strategies(wishes: Wishes) -> list[str]:
    sized = all("params_b" in entry_of(model) for model in wishes.teachers) and wishes.kind != "answers"
    named = ["persyn", "mix", "strong" if sized else "best_mean_reward"]
    last = "strong: the largest for all" if sized else "best_mean_reward: for all the best one of calibration"
    return [
        "",
        "# Who answers the prompts of the pool. persyn: the teacher that the router chooses; mix: a random one;",
        f"# {last}. A student is trained on each.",
        f"strategies: {flow(named)}",
    ]


def _generate(wishes: Wishes) -> list[str]:
    if wishes.kind == "answers":
        keys = ("prompt", "teacher", "response", "quality")
        columns = {key: wishes.columns[key] for key in keys if key in wishes.columns}
        ((place, source),) = wishes.source.items()
        verify = [] if wishes.quality == "correct" else ["  verify: none  # no references to grade by"]
        return [
            *("", "generate:", "  engine: import  # no teacher is asked", f"  {place}: {flow(source)}"),
            *(f"  columns: {flow(columns)}", *verify),
        ]
    lines = [
        "",
        "generate:",
        f"  engine: {wishes.engine}  # or transformers (here), vllm (here), server (an endpoint)",
    ]
    if wishes.engine == "server":
        server: dict[str, Any] = {"urls": list(wishes.urls)}
        server |= {"api_key_env": wishes.key} if wishes.key else {}
        lines.append(f"  server: {flow(server)}  # a teacher may have its own: {{name: ..., server: {{urls: ...}}}}")
    graded = wishes.quality == "correct"
    samples = "a right one is kept" if graded else "one is kept"
    lines += [
        f"  samples: {4 if graded else 1}  # answers per prompt and teacher, of which {samples}",
        "  max_tokens: 2048  # of an answer; a longer one is cut off, and not trained on",
    ]
    return lines if graded else [*lines, "  verify: none  # no references to grade by"]


def _score(wishes: Wishes) -> list[str]:
    what = {
        "correct": "1 where the answer is right",
        "column": "what the file says of each answer",
        "reward_model": "the score of the reward model that is named in what is extended",
        "judge": "what a language model says of each answer; does it judge as you would? persyn judge-check",
    }[wishes.quality]
    lines = ["", "score:", f"  quality: {wishes.quality}  # {what}"]
    if wishes.judge is not None:
        lines += _judge(wishes.judge, wishes.judge_urls, wishes.judge_key)
    if wishes.student is None:
        return [*lines, "  learnability: none  # needs the model of a student", "  alpha: 0"]
    return [*lines, "  alpha: 0.4  # weight of learnability, the rest is quality; another one asks no teacher again"]


def _judge(model: str, urls: Sequence[str], key: str | None) -> list[str]:
    server = {"urls": list(urls)} | ({"api_key_env": key} if key else {})
    return [
        "  judge:",
        f"    model: {flow(model)}",
        "    rubric: helpfulness  # or instruction-following, correctness, safety, ./my-rubric.yaml",
        f"    server: {flow(server)}",
        "    # price: {prompt: 0.4, completion: 1.6}  # per million tokens, by which `plan` and --max-cost go",
    ]


def _rest(wishes: Wishes) -> list[str]:
    lines = [
        "",
        "train_router: {kind: logistic}  # over words, on a CPU; auto tries several kinds, llm is the paper's",
    ]
    if wishes.student is None:
        return lines
    lines += ["", "# train_student: {epochs: 2, learning_rate: 2.0e-5, method: full}  # or lora, for less memory"]
    if wishes.test is not None:
        task: dict[str, Any] = {"name": "held-out", "path": wishes.test}
        task |= {"columns": wishes.test_columns} if wishes.test_columns else {}
        task |= {"reference_after": "####"} if wishes.test_marked else {}
        lines += ["evaluate:", "  max_tokens: 2048  # of the student's answers", f"  tasks: [{flow(task)}]"]
    return lines
