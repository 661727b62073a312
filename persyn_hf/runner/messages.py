"""Say what a run tells of each artifact: one line, and what of it the user should mend."""

from collections.abc import Iterator

from persyn_hf.store.stored import Stored


MANY_TRUNCATED = 0.05  # share of a teacher's answers from which on truncation is worth a warning
MANY_ALIKE = 0.05  # likewise, share of the dev prompts that are near-duplicates of calibration prompts


def hints(artifact: Stored) -> Iterator[str]:
    """Warn of each teacher whose answers are of no use for training, with the option that mends it.

    Of prompts, warn of references that may be alternatives; of an evaluation, of the items that were not asked.
    """
    if several := artifact.manifest.counts.get("lists_of_references"):
        yield (
            f"warning: {several:,} references are lists, and an answer must give all of their values; where any one "
            "of them is right, set `prompts: {reference_lists: any}`, else `all`"
        )
    if ragged := artifact.manifest.counts.get("ragged_rows"):
        yield f"warning: {ragged:,} rows do not fit the header of their table and were left out (`ragged_rows: skip`)"
    if artifact.kind == "prompts":
        yield from _of_prompts(artifact)
    if artifact.kind == "evaluation":
        for task, line in artifact.manifest.metrics.items():
            if ragged := line.get("ragged_rows"):
                yield f"warning: {ragged:,} rows of the file of `{task}` do not fit its header and were left out"
            if several := line.get("lists_of_references"):
                yield (
                    f"warning: {several:,} references of `{task}` are lists, and an answer must give all of their "
                    "values; where any one of them is right, give the task `reference_lists: any`, else `all`"
                )
            if line.get("too_long"):
                yield (
                    f"warning: {line['too_long']:,} of the {line['num_items']:,} items of `{task}` were not asked: "
                    f"they do not fit beside `evaluate.max_tokens` ({artifact.manifest.settings['max_tokens']})"
                )
    if artifact.kind != "responses" or artifact.manifest.settings.get("engine") == "import":
        return
    own = {teacher["name"]: teacher.get("max_tokens") for teacher in artifact.manifest.teachers}
    for name, line in artifact.manifest.metrics["teachers"].items():
        if line["errors"]:
            yield f"warning: {line['errors']:.0%} of the answers of `{name}` failed; ask them again: --rerun errors"
        if line.get("unknown_end"):
            yield (
                f"warning: of {line['unknown_end']:.0%} of the answers of `{name}` its server does not say how they "
                "ended (no known finish reason); they may be cut off and will not be trained on, unless you set "
                "`mix: {unknown_ends: true}`"
            )
        if line.get("counted_here"):
            yield (
                f"note: with {line['counted_here']:.0%} of the answers of `{name}` came no usage: their tokens are "
                "counted by a tokenizer here (~), and the bill may differ"
            )
        if line.get("uncounted"):
            yield (
                f"warning: with {line['uncounted']:.0%} of the answers of `{name}` came no usage: its tokens, and "
                "what they cost, are unknown; `server: {tokenizer: ID-OR-FOLDER}` at the teacher has them counted here"
            )
        if line["truncated"] >= MANY_TRUNCATED:
            limit = own.get(name) or artifact.manifest.settings.get("max_tokens", 0)
            more = f"--set generate.max_tokens={4 * limit}"
            yield (
                f"warning: {line['truncated']:.0%} of the answers of `{name}` are cut off at {limit} tokens and will "
                "not be trained on; ask them again: --rerun truncated "
                + (f"and `max_tokens: {4 * limit}` at the teacher" if own.get(name) else more)
            )


def _of_prompts(artifact: Stored) -> Iterator[str]:
    """Warn of prompts that hold test items, of items that could not be read, and of a dev split that is no test."""
    counts, compared = artifact.manifest.counts, artifact.manifest.metrics.get("decontamination", {})
    for name, line in compared.get("sets", {}).items():
        if line["prompts"] and not counts.get("decontaminated"):
            yield (
                f"warning: prompts that hold an item of `{name}`: {line['prompts']:,}, of which {line['all_words']:,} "
                f"have all of its words ({line['items_found']:,} of the {line['items']:,} items); look at them: "
                "persyn overlaps RECIPE, and leave them out by `prompts: {decontaminate: drop}`"
            )
    for name, why in compared.get("not_read", {}).items():
        yield f"note: the prompts were not compared with the items of `{name}`: {why}"
    alike = artifact.manifest.metrics.get("near_duplicates", {}).get("dev_in_calibration", 0)
    dev = counts.get("rows_dev", 0)
    if alike > MANY_ALIKE * dev:
        yield (
            f"warning: {alike:,} of the {dev:,} dev prompts nearly say what a calibration prompt says, "
            "so dev judges the router too well; `prompts: {near_duplicates: together}` draws them into one split"
        )


def one_line(artifact: Stored, reused: bool) -> str:
    """Describe an artifact in one line: reused or stored, its ref, and its counts that are not 0."""
    counted = artifact.manifest.counts.items()
    counts = ", ".join(f"{key} {value:,}" for key, value in counted if value and not key.startswith("rows_"))
    what = "reused" if reused else "stored"
    return f"{what} {artifact.repo}@{artifact.tag}" + (f" ({counts})" if counts else "")
