"""Tables of a card: the numbers of an artifact that matter most, one readable table per kind, and its models."""

from collections.abc import Mapping, Sequence
from typing import Any

from persyn_hf.formats import COUNTED_HERE, HIT_MEANING, HITS, METRIC_TITLES
from persyn_hf.store.cards.markdown import cell, code, hub_link, share, table, text
from persyn_hf.store.manifest import Manifest
from persyn_hf.store.manifest_parts import judged_on


SHARES = ("accuracy", "truncated", "errors")
BOUNDS = ("value", "low", "high")
ROUTER_METRICS = (*HITS, "regret", "pair_accuracy")  # the gap closed follows, with its interval
NOTED = {"too_long": "Not asked, as prompt and answer do not fit", "cut": "Answers cut at the limit of tokens"}
LEFT_OUT = (
    "duplicates",
    "empty",
    "not_text",
    "reference_",
    "ragged_rows",
    "decontaminated",
    "not_asked_for",
)  # counts of `prompts`


def headline(manifest: Manifest) -> str:
    """Return the numbers that matter most as Markdown; empty where the manifest holds none of them."""
    makers = {
        "prompts": _prompts,
        "assignments": _allocation,
        "responses": _responses,
        "rewards": _rewards,
        "pairs": _pairs,
        "sft": _sft,
        "evaluation": evaluation,
        "router": _router,
        "student": _student,
    }
    return makers[manifest.kind](manifest)


def evaluation(manifest: Manifest) -> str:
    """Return a row per task of an evaluation with its 95 % interval, as Markdown."""
    return evaluations([manifest], named=False)


def evaluations(manifests: Sequence[Manifest], named: bool = True) -> str:
    """Return the tasks of several evaluations of one model as a Markdown table, a row per evaluation and task.

    Args:
        named: whether a column links to the answers.
    """
    rows = []
    for manifest in manifests:
        tasks = ((task, line) for task, line in manifest.metrics.items() if isinstance(line, Mapping))
        for task, line in tasks:
            interval = f"{share(line.get('low'))} to {share(line.get('high'))}"
            numbers = [cell(line.get(name)) for name in ("num_items", "unjudged")]
            answers = [hub_link(manifest.repo, dataset=True)] if named else []
            rows.append([text(task), text(metric_of(line)), share(line.get("accuracy")), interval, *numbers, *answers])
    header = ("task", "metric", "score", "95 % interval", "items", "unjudged", *(["answers"] if named else []))
    notes = [_of_tasks(manifests, key, title) for key, title in NOTED.items()]
    return _join(_table(header, rows), " ".join(filter(None, notes)))


def _of_tasks(manifests: Sequence[Manifest], key: str, title: str) -> str:
    """Say a count of the tasks of evaluations, where it is not 0."""
    lines = [(task, _mapping(line).get(key)) for manifest in manifests for task, line in manifest.metrics.items()]
    told = [f"{text(task)} {cell(count)}" for task, count in lines if isinstance(count, int) and count]
    return f"{title}: {', '.join(told)}." if told else ""


def metric_of(line: Mapping[str, Any]) -> str:
    """Return the metric that scores a task: the harness's, or `accuracy`, the share that was found right."""
    return str(line.get("metric") or "accuracy")


def _prompts(manifest: Manifest) -> str:
    """Return the number of prompts per split, and how many rows were left out for what reason."""
    configs = manifest.rows.values()
    splits = dict.fromkeys(split for config in configs for split in config)
    rows = [(text(split), cell(sum(config.get(split, 0) for config in configs))) for split in splits]
    counts = manifest.counts.items()
    dropped = [f"{text(key.replace('_', ' '))} {cell(n)}" for key, n in counts if n and key.startswith(LEFT_OUT)]
    read = f"{cell(manifest.counts['read'])} rows were read. " if "read" in manifest.counts else ""
    note = f"{read}Left out: {', '.join(dropped)}." if dropped else read
    return _join(_table(("split", "prompts"), rows), note.strip(), _test_items(manifest))


def _test_items(manifest: Manifest) -> str:
    """Return a row per set of test items with how many of them the prompts hold, or held before they were dropped."""
    compared = _mapping(manifest.metrics.get("decontamination"))
    names = ("items", "items_found", "prompts", "all_words")
    sets = ((name, _mapping(line)) for name, line in _mapping(compared.get("sets")).items())
    rows = [(text(name), *(cell(line.get(key)) for key in names)) for name, line in sets]
    found = "prompts left out" if manifest.counts.get("decontaminated") else "prompts that hold one"
    header = ("test items of", "items", "found in the prompts", found, "with all of its words")
    unread = [f"{text(name)} ({text(why)})" for name, why in _mapping(compared.get("not_read")).items()]
    return _join(_table(header, rows), f"Not compared with: {'; '.join(unread)}." if unread else "")


def _allocation(manifest: Manifest) -> str:
    """Return each teacher's share of the prompts, and who decided how many rows."""
    rows = [(_teacher(manifest, name), share(part)) for name, part in _of_teachers(manifest, "allocation")]
    counts = manifest.counts
    by = [f"{who} {cell(counts[who])}" for who in ("router", "oracle", "rule") if who in counts]
    effective = manifest.metrics.get("effective_teachers")
    notes = [f"Rows decided by: {', '.join(by)}." if by else ""]
    if effective is not None:
        notes.append(f"As even as {cell(effective)} teachers with equal shares.")
    return _join(_table(("teacher", "share of the prompts"), rows), " ".join(filter(None, notes)))


def _responses(manifest: Manifest) -> str:
    """Return, per teacher, how many samples there are and which share was right, cut off or failed."""
    rows = [
        (_teacher(manifest, name), cell(line.get("rows")), *(share(line.get(key)) for key in SHARES), _tokens(line))
        for name, line in _of_teachers(manifest, "teachers")
    ]
    header = ("teacher", "samples", "right", "truncated", "failed", "mean tokens")
    notes = ["right: share of the judged among the selected samples." if rows else ""]
    if manifest.counts.get("counted_here"):
        notes.append(f"{COUNTED_HERE}.")
    return _join(_table(header, rows), " ".join(filter(None, notes)))


def counted_here(manifest: Manifest) -> list[str]:
    """Return the teachers of whose answers tokens were counted by a tokenizer here."""
    if manifest.kind != "responses":
        return []
    return [name for name, line in _of_teachers(manifest, "teachers") if _mapping(line).get("counted_here")]


def _tokens(line: Mapping[str, Any]) -> str:
    """Return the mean number of tokens as a cell, rounded to a whole number."""
    number = line.get("mean_tokens")
    if not isinstance(number, int | float):
        return cell(number)
    return ("~ " if line.get("counted_here") else "") + cell(round(number))


def _rewards(manifest: Manifest) -> str:
    """Return the means of quality, learnability and reward per teacher, and how often it is the best."""
    rows = [
        (
            _teacher(manifest, name),
            *(cell(line.get(key)) for key in ("quality", "mean_logprob", "reward")),
            share(line.get("best")),
        )
        for name, line in _of_teachers(manifest, "teachers")
    ]
    header = ("teacher", "quality", "log-prob per token (nats)", "reward", "is the best teacher")
    return _join(_join(_table(header, rows), _criteria(manifest)), _judges(manifest))


def _criteria(manifest: Manifest) -> str:
    """Return a row per criterion of the quality: its weight, its mean and how often it said nothing."""
    rows = [
        (text(name), share(line.get("weight")), cell(line.get("mean")), share(line.get("unjudged")))
        for name, line in _of_teachers(manifest, "criteria")
    ]
    note = "Each criterion is normalised per prompt before it is weighted; its raw values are in a column of its own."
    return _join(_table(("criterion", "weight", "mean", "without a value"), rows), note if rows else "")


def _judges(manifest: Manifest) -> str:
    """Return a row per judge: its verdicts, and what is known of its bias for a place; and how far a panel agrees."""
    position = _mapping(manifest.metrics.get("position"))
    rows = []
    for name, line in _mapping(manifest.metrics.get("judges")).items():
        line, place = _mapping(line), _mapping(position.get(name))
        bias = [share(place.get(key)) for key in ("consistent", "first", "second")] if position else []
        rows.append(
            [text(name), cell(line.get("questions")), cell(line.get("mean")), share(line.get("unread")), *bias]
        )
    orders = ("both orders agree", "prefers the first", "prefers the second") if position else ()
    table_of = _table(("judge", "questions", "mean verdict", "without a verdict", *orders), rows)
    agreement = _mapping(manifest.metrics.get("agreement"))
    note = f"Krippendorff's alpha of the judges: {cell(agreement.get('alpha'))}." if agreement else ""
    return _join(table_of, note)


def _pairs(manifest: Manifest) -> str:
    """Return how many comparisons there are, and how many are ties or without a label."""
    counts = manifest.counts
    named = {"prompts": "prompts", "pairs": "comparisons", "ties": "ties", "pairs_skipped": "pairs without a label"}
    rows = [(name, cell(counts[key])) for key, name in named.items() if key in counts]
    return _table(("", "number"), rows)


def _sft(manifest: Manifest) -> str:
    """Return each teacher's share of the training rows and the mean length of its completions."""
    tokens = _mapping(manifest.metrics.get("mean_tokens"))
    shares = _of_teachers(manifest, "allocation")
    rows = [
        (_teacher(manifest, name), share(part), _tokens({"mean_tokens": tokens.get(name)})) for name, part in shares
    ]
    right = manifest.metrics.get("correct_share")
    note = "" if right is None else f"{share(right)} of the judged completions are right."
    return _join(_table(("teacher", "share of the rows", "mean tokens"), rows), note)


def _router(manifest: Manifest) -> str:
    """Return the metrics of the router, of random choice, the best single teacher and the oracle."""
    rows = []
    for name in ("router", "random", "global_best", "oracle"):
        line = _mapping(manifest.metrics.get(name))
        if line:
            cells = [_value(line, metric) for metric in ROUTER_METRICS]
            rows.append([name.replace("_", " "), *cells, _value(line, "gap_closed", interval=True)])
    judged = judged_on(manifest.metrics, manifest.counts.get("dev_prompts", 0))
    gain = _mapping(manifest.metrics.get("by_calibration"))
    note = (
        f"On {judged}. Hit@k: {HIT_MEANING}. Regret: reward lost to the oracle; pairs: "
        "order of two teachers; gap closed: from global best (0), the teacher with the highest mean reward, to the "
        "oracle (1), with its 95 % interval."
    ) + (f" Gain over global best in reward per prompt: {_value(gain, 'gain', interval=True)}." if gain else "")
    header = ("", *(METRIC_TITLES[metric] for metric in (*ROUTER_METRICS, "gap_closed")))
    followed = _followed(manifest)
    return _join(
        _table(header, rows), note if rows else "", f"Its training was followed by {followed}." if followed else ""
    )


def _value(line: Mapping[str, Any], metric: str, interval: bool = False) -> str:
    """Return a metric as a cell with three decimals; `interval` adds its bounds where they are known."""
    numbers = _mapping(line.get(metric))
    value, low, high = (f"{n:.3f}" if isinstance(n, int | float) else cell(n) for n in map(numbers.get, BOUNDS))
    return f"{value} [{low}, {high}]" if interval and numbers.get("low") is not None else value


def _student(manifest: Manifest) -> str:
    """Return what a student was trained on and how far."""
    metrics = manifest.metrics
    named = {"rows": "examples", "trained_tokens": "tokens with loss, per epoch", "steps": "optimiser steps"}
    named |= {"final_loss": "final loss (nats per token)", "parameters": "parameters", "method": "fine-tuning"}
    rows = [(name, cell(metrics[key])) for key, name in named.items() if key in metrics]
    if followed := _followed(manifest):
        rows.append(("followed by", followed))
    return _table(("training", ""), rows)


def _followed(manifest: Manifest) -> str:
    """Say where a training can be looked at; empty where no tracker followed it."""
    tracked = _mapping(manifest.metrics.get("tracked"))
    if not tracked:
        return ""
    return f"{', '.join(map(text, tracked['by']))}: project {code(tracked['project'])}, run {code(tracked['run'])}"


def models(manifest: Manifest) -> str:
    """Return a table of the teachers, in the order of every list of scores, and the student, with their settings."""
    listed = [("teacher", teacher) for teacher in manifest.teachers]
    listed += [("student", manifest.student)] if manifest.student else []
    rows = []
    for role, model in listed:
        settings = {**model}
        name, source, revision = (settings.pop(key, None) for key in ("name", "model", "revision"))
        link = hub_link(str(source), str(revision) if revision else None) if source else "none given"
        size, long_cot = settings.pop("params_b", None), settings.pop("long_cot", None)
        family = settings.pop("family", None)
        given = {key: item for key, item in settings.items() if item not in (None, {}, [], "")}
        rest = ", ".join(f"{code(key)} {cell(item)}" for key, item in given.items())
        rows.append((role, text(name), link, *map(cell, (revision, family, size, long_cot)), rest))
    header = ("role", "name", "model", "revision", "family", "billion parameters", "Long-CoT", "more")
    return _table(header, rows)


def _teacher(manifest: Manifest, name: str) -> str:
    """Return a teacher's name as Markdown, with a mark where it is a Long-CoT model."""
    is_long = any(teacher.get("name") == name and teacher.get("long_cot") for teacher in manifest.teachers)
    return text(name) + (" (Long-CoT)" if is_long else "")


def _of_teachers(manifest: Manifest, key: str) -> list[tuple[str, Any]]:
    """Return the entries of a metric in the order of the pool; for the key `teachers` each is a mapping."""
    entries, pool = _mapping(manifest.metrics.get(key)), manifest.teacher_names
    ordered = sorted(entries.items(), key=lambda item: pool.index(item[0]) if item[0] in pool else len(pool))
    return [(name, _mapping(entry) if key == "teachers" else entry) for name, entry in ordered]


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else, which another version's manifest may hold."""
    return value if isinstance(value, Mapping) else {}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, and nothing where it would have no rows."""
    return table(header, rows) if rows else ""


def _join(*parts: str) -> str:
    """Return the parts that are not empty, as paragraphs."""
    return "\n\n".join(part for part in parts if part)
