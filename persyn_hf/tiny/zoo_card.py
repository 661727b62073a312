"""The README of the zoo, rendered from the records of `zoo.json` so that no number is copied by hand."""

from persyn_hf.tiny.questions import SKILLS, SPLIT_SIZES


_CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [persyn, tiny-world]
---

# The zoo of the tiny world

{count} real, very small language models, trained from scratch on a CPU to answer short maths questions: teachers that
differ in family, size, skill and style, and students that know a little of every style. They exist so that the whole
PerSyn chain can be run and tested without a network or a GPU. They are of no use for anything else. The phenomenon is
not rigged: no reward, response or accuracy is written by hand.

## Models

{specs}

Styles: terse is a bare answer, eq short equations, verbal the same in words, markdown a numbered list, long a chain
that doubts, repeats and verifies. A curriculum is written with an arrow. Weak skills appear at level 1 only, with the
weight given; "-" means never.

## Accuracy on the {test_size} test questions

Greedy decoding, graded on the last whole number in a box. The standard error of an entry under "all" is at most
{se:.3f}; of a skill, about {skill_se:.2f}. Choices in building the zoo were made on the validation questions, never on
these.

{test}

## Accuracy on the {validation_size} validation questions

{validation}

One choice was made by looking at this table: with 2 layers and all else equal `qwen-student` reached .47 (.48 after
3,000 more steps; .29 with 7,500 steps of batch 16 and slightly other doses), and data of a perfect teacher hardly
improved it, so it was given a third layer. Every other model is as first trained.

## Training

Half or so of each corpus is question and response pairs, with the loss on the response; the rest are drills, lines of
true steps without a question. No question of any split is in any corpus; the same numbers in other words, or a step of
its solution in a drill, may be. Muon for the hidden matrices, AdamW for embeddings and norms, one CPU thread, fp32.
The specs are in `persyn_hf/tiny/zoo.py`; everything is retrained from its seeds by

<!-- not run: takes hours -->
```bash
python -m persyn_hf.tiny.train --jobs 2
```

or one model by `--models qwen-gen`. The seconds are wall clock, two models at a time on 2 cores that other programs
used as well, and sum to {seconds:.0f}; an idle machine should need about half of that. On the same machine and torch
build the weights come out the same to the bit (checked for `qwen-student`); elsewhere sums may round otherwise and the
accuracies may move by a few points. All models share one tokenizer, sha256 `{sha}`
(`tokenizer.json` and `chat_template.jinja`), which `config.json` repeats and loading checks.
"""


def render_card(records: list[dict]) -> str:
    """Return the card, from the `models` of `zoo.json`."""
    return _CARD.format(
        count=len(records),
        specs=_spec_table(records),
        test=_accuracy_table(records, "test"),
        validation=_accuracy_table(records, "validation"),
        test_size=SPLIT_SIZES["test"],
        validation_size=SPLIT_SIZES["validation"],
        se=0.5 / SPLIT_SIZES["test"] ** 0.5,
        skill_se=0.5 / (SPLIT_SIZES["test"] / len(SKILLS)) ** 0.5,
        seconds=sum(record["train_seconds"] for record in records),
        sha=", ".join(sorted({record["tokenizer_sha256"] for record in records})),
    )


def _spec_table(records: list[dict]) -> str:
    """Return the table of what each model is."""
    head = (
        "model",
        "role",
        "family",
        "parameters",
        "width x layers",
        "styles",
        "strong skills",
        "weak weight",
        "level 2",
        "drill",
        "steps x batch",
        "seed",
        "train s",
    )
    return _table(head, [_spec_row(record) for record in records])


def _spec_row(record: dict) -> tuple[str, ...]:
    """Return the cells of what one model is."""
    phases = record["phases"]
    styles = [
        ", ".join(style if dose == 1 else f"{style} {dose:g}" for style, dose in phase["styles"].items())
        for phase in phases
    ]
    every = len(record["strong"]) == len(SKILLS)
    return (
        f"`{record['name']}`",
        record["role"],
        record["architecture"],
        f"{record['parameters']:,}",
        f"{record['width']} x {record['layers']}",
        " → ".join(styles),
        "all" if every else " ".join(record["strong"]),
        "-" if every else f"{record['weak_weight']:g}",
        f"{record['level_2_share']:g}",
        " → ".join(f"{phase['drill']:g}" for phase in phases),
        " → ".join(f"{phase['steps']} x {phase['batch']}" for phase in phases),
        str(record["seed"]),
        f"{record['train_seconds']:.0f}",
    )


def _accuracy_table(records: list[dict], split: str) -> str:
    """Return the table of each model's accuracy on a split, by skill and level."""
    rows = []
    for record in records:
        accuracy = record["accuracy"][split]
        rows.append(
            (
                f"`{record['name']}`",
                *(f"{accuracy['by_skill'][skill]:.2f}" for skill in SKILLS),
                f"{accuracy['by_skill']['all']:.3f}",
                f"{accuracy['by_level']['1']:.2f}",
                f"{accuracy['by_level']['2']:.2f}",
                f"{accuracy['mean_tokens']:.0f}",
            )
        )
    return _table(("model", *SKILLS, "all", "level 1", "level 2", "tokens"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
