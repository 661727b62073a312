"""Measure answers: how learnable they are for a student, and whether they agree with a reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persyn_hf.api.arguments import check_count, check_number
from persyn_hf.api.progress import shown
from persyn_hf.api.tables import Columns, Table, columns_of, prompts_in
from persyn_hf.errors import InputError, require
from persyn_hf.recipe import packaged
from persyn_hf.stage import Progress


if TYPE_CHECKING:
    from persyn_hf.core.arrays import FloatArray


AT_A_TIME = 256  # answers that are graded between two steps of a bar


def learnability(
    model: str | Path,
    rows: Table,
    *,
    measure: Literal["mean_logprob", "rank_surprisal"] = "mean_logprob",
    revision: str | None = None,
    chat_template: str | Path | None = None,
    max_length: int = 4096,
    batch_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    progress: bool | Progress = False,
) -> "FloatArray":
    """Measure how learnable answers are for a student: the paper's Eq. 1, the mean log-probability of their tokens.

    It is what the stage `score` measures: under the student's own chat template, on exactly the tokens that it would
    be trained on, the end of turn included.

    Args:
        model: the student: a Hub id, a local folder, or the name of a model that comes with persyn
            (`persyn:tiny/zoo/qwen-student`). Needs `pip install 'persyn-hf[models]'`.
        rows: a table with `prompt` (or `messages`) and `response` (or `completion`), one row per answer, and
            `reasoning` where thoughts were cut off. Without an answer's column, each conversation in `messages` ends
            with it.
        measure: `mean_logprob`: nats per token, higher is better. `rank_surprisal`: the negative rank-surprisal
            ratio (arXiv 2601.14249).
        revision: commit, tag or branch of a model on the Hub.
        chat_template: a Jinja file that takes the place of the student's own template.
        max_length: tokens of prompt and answer; what is longer is cut, as it would be in training.
        batch_tokens: rows times the longest row of one batch; None: as suits the device.
        dtype: of the weights. device: auto, cpu, cuda, cuda:1, mps.
        progress: show a bar.

    Returns:
        (num_rows,) floats; NaN for a row without an answer, or with none left within `max_length`.

    Raises:
        InputError: `rows` is no table, lacks a column, or holds a prompt that is none; the model cannot be loaded;
            `max_length` or `batch_tokens` is below 1.
        EngineError: the student's log-probabilities are not finite, or memory is short.
    """
    if not isinstance(model, (str, Path)):
        raise InputError(
            f"`model` must be a Hub id or a folder, got {type(model).__name__}; save a loaded model and its "
            "tokenizer with `save_pretrained`, and give the folder"
        )
    check_count("max_length", max_length)
    if batch_tokens is not None:
        check_count("batch_tokens", batch_tokens)
    columns = columns_of(rows, "rows")
    asked, answers = _answers(columns)
    name = str(packaged.find(str(model), "`model`")) if packaged.is_named(str(model)) else str(model)
    require("torch", extra="models", feature="`learnability`")

    from persyn_hf.backends.scoring import Values, score_rows
    from persyn_hf.backends.scoring.open_scorer import open_scorer
    from persyn_hf.core import rewards
    from persyn_hf.stages.score.measuring import likelihood_columns

    there = [number for number, answer in enumerate(answers) if answer is not None]
    values: list[Values] = [[None] * 3 + [False] for _ in answers]
    options = {"max_length": max_length, "dtype": dtype, "device": device}
    template = None if chat_template is None else str(chat_template)
    with shown(progress) as bars:
        scorer = open_scorer("likelihood", model=name, revision=revision, chat_template=template, **options)
        bars.start("measuring learnability", len(there))
        todo = [(asked[number], answers[number] or "") for number in there]
        for done, measured in score_rows(scorer, todo, batch_tokens=batch_tokens):
            for place, value in zip(done, measured, strict=True):
                values[there[place]] = value
            bars.advance(len(done))
    return rewards.learnability(likelihood_columns(values, len(values)), measure)


def grade(
    references: Sequence[Any],
    answers: Sequence[str | None],
    *,
    timeout_s: float = 5.0,
    progress: bool | Progress = False,
) -> list[bool | None]:
    """Judge mathematical answers by math-verify, in processes of their own: an answer that hangs it is given up.

    It is for mathematics: numbers, expressions, sets, intervals, equations, in LaTeX or plain. The answer is
    what stands in `\\boxed{}`, else the last number or expression of the text. A bare word is no mathematics:
    the answer "Paris" is not right even for the reference "Paris", `\\boxed{Paris}` is. Compare words yourself.

    Args:
        references: (num_answers,) texts or numbers; a list of them are alternatives, of which any one is right.
        answers: (num_answers,) texts. Thoughts in tags (`<think>`) are cut off; None is an answer that did not come.
        timeout_s: seconds of processor time for one answer.
        progress: show a bar.

    Returns:
        True: the answer agrees with its reference. False: it does not, or holds nothing that can be read as
        mathematics. None: the reference cannot be read, the answer is None, or the time was up.

    Raises:
        InputError: the two differ in length, an answer is no text, or `timeout_s` is no number.
    """
    from persyn_hf.backends.grading.pool import Verifier
    from persyn_hf.backends.references import read_reference
    from persyn_hf.backends.thoughts import split_thoughts

    check_number("timeout_s", timeout_s)
    for what, values in (("references", references), ("answers", answers)):
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise InputError(f"`{what}` must be a list, got {type(values).__name__}; put one alone into a list: [...]")
    if len(references) != len(answers):
        raise InputError(
            f"each answer needs its reference, found {len(references):,} references and {len(answers):,} answers"
        )
    pairs: dict[int, tuple[str, str]] = {}
    for number, (cell, answer) in enumerate(zip(references, answers, strict=True)):
        reference = read_reference(list(cell) if isinstance(cell, tuple) else cell, "any")
        if answer is not None and not isinstance(answer, str):
            raise InputError(f"`answers`: number {number} must be a text or None, got {answer!r:.60}")
        if reference is not None and answer is not None:
            pairs[number] = reference, split_thoughts(answer)[0]
    verdicts: list[bool | None] = [None] * len(answers)
    order = list(pairs)
    with shown(progress) as bars, Verifier(timeout_s=timeout_s) as verifier:
        bars.start("grading", len(order))
        for start in range(0, len(order), AT_A_TIME):
            part = order[start : start + AT_A_TIME]
            for number, verdict in zip(part, verifier.grade([pairs[n] for n in part]), strict=True):
                verdicts[number] = verdict
            bars.advance(len(part))
    return verdicts


def _answers(columns: Columns) -> tuple[list[list[dict[str, str]]], list[str | None]]:
    """Return the prompts and the answers as the student would be trained on them; None: there is no answer."""
    from persyn_hf.core.conversations import full_response

    name = next((name for name in ("response", "completion") if name in columns), None)
    if name is None and "messages" not in columns:
        raise InputError(
            "`rows` has no column `response`, the text of each answer, and no `messages` that end with it; found are "
            f"{', '.join(columns)}; rename a column"
        )
    asked = prompts_in(columns, "rows")
    cells = columns[name] if name else columns["messages"]
    thoughts = columns.get("reasoning", [None] * len(cells))
    texts = [_text(cell, number, name or "messages") for number, cell in enumerate(cells)]
    return asked, [
        None if text is None else full_response({"response": text, "reasoning": thought})
        for text, thought in zip(texts, thoughts, strict=True)
    ]


def _text(cell: Any, number: int, name: str) -> str | None:
    """Return an answer's text; a conversation's is that of the assistant's last turn."""
    from persyn_hf.backends.source_cells import as_turns

    if cell is None or isinstance(cell, str):
        return cell
    turns = as_turns(cell)
    if not turns or turns[-1]["role"] != "assistant":
        raise InputError(
            f"`rows`: `{name}` of row {number} must be a text, or a conversation that ends with the assistant's turn, "
            f"got {cell!r:.60}"
        )
    return turns[-1]["content"]
