"""Go on from a fine-tuned student with on-policy distillation: it answers, and each prompt's own teacher corrects it.

    persyn artifacts export NS/NAME-assignments-STUDENT-persyn@v1 --to mopd --out data
    python recipes/on-policy/distill.py --prompts data/...-mopd.jsonl --student FOLDER --out distilled \\
        --teacher qwen-7b=Qwen/Qwen2.5-7B-Instruct --teacher qwen-math=Qwen/Qwen2.5-Math-7B-Instruct

FOLDER is the trained student, as `persyn_hf.load_artifact("NS/NAME-student-STUDENT-persyn@v1")` returns it. TRL's
`DistillationTrainer` has one teacher at a time, so the prompts of each teacher are a phase, and the phases come in
`--rounds` turns, each with a part of the prompts: the last teacher must not have the last word on all. A teacher whose
vocabulary is not the student's is left out, and its prompts are counted. What comes out is a student like any other.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Distil, and save the student with its tokenizer."""
    args = _parse(arguments)
    rows = [json.loads(line) for line in args.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    teachers = dict(each.partition("=")[::2] for each in args.teacher)
    by_teacher = _by_teacher(rows, teachers, args.student)
    if not by_teacher:
        sys.exit("error: no prompt is left; name the teachers of the prompts with --teacher NAME=MODEL")
    student = args.student
    for number, (teacher, part) in enumerate(_phases(by_teacher, args.rounds)):
        student = _distil(student, teachers[teacher], part, args.out, args, seed=args.seed + number)
        sys.stdout.write(f"round {number // len(by_teacher) + 1}, {teacher}: {len(part):,} prompts\n")
    return 0


def _by_teacher(
    rows: Sequence[Mapping[str, Any]], teachers: Mapping[str, str], student: str
) -> dict[str, list[Mapping[str, Any]]]:
    """Sort the prompts by teacher; those of teachers not named, or that speak other tokens, are told and left out."""
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(student).get_vocab()
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["teacher_id"], []).append(row)
    for name in list(found):
        why = "it is not named with --teacher" if name not in teachers else ""
        if not why and AutoTokenizer.from_pretrained(teachers[name]).get_vocab() != own:
            why = "its vocabulary is not the student's"
        if why:
            sys.stdout.write(f"left out: {len(found.pop(name)):,} prompts of {name}, as {why}\n")
    return dict(sorted(found.items()))


def _phases(
    by_teacher: Mapping[str, Sequence[Mapping[str, Any]]], rounds: int
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield teacher and prompts of each phase: in every round each teacher has an even part of its prompts."""
    for number in range(rounds):
        for teacher, rows in by_teacher.items():
            part = list(rows[number::rounds])
            if part:
                yield teacher, part


def _distil(
    student: str, teacher: str, rows: Sequence[Mapping[str, Any]], out: Path, args: argparse.Namespace, seed: int
) -> str:
    """Train the student on its own answers to some prompts of one teacher, and return the folder that holds it."""
    import torch
    import trl
    from datasets import Dataset

    gpu = torch.cuda.is_available()
    batch = min(args.batch_size, len(rows))
    steps = -(-len(rows) // batch)
    filled = [rows[place % len(rows)] for place in range(steps * batch)]  # TRL drops a last batch that is not full
    config = trl.DistillationConfig(
        output_dir=str(out / "checkpoints"),
        learning_rate=args.learning_rate,
        max_steps=steps,
        per_device_train_batch_size=batch,
        max_completion_length=args.max_tokens,
        temperature=1.0,
        beta=1.0,  # reverse KL: what the student says is weighed, not what it might have said
        lr_scheduler_type="constant",
        bf16=gpu,
        use_cpu=not gpu,
        seed=seed,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in filled]),
    )
    trainer.train()
    trainer.save_model(str(out))
    trainer.processing_class.save_pretrained(str(out))
    return str(out)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    text = "of `persyn artifacts export --to mopd`"
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help=text)
    parser.add_argument("--student", required=True, metavar="FOLDER", help="the student after SFT")
    parser.add_argument("--teacher", action="append", default=[], metavar="NAME=MODEL", help="once for each teacher")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the distilled student")
    parser.add_argument("--rounds", type=int, default=4, help="turns of all teachers (default: 4)")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="(default: 1e-5)")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts per step (default: 16)")
    parser.add_argument("--max-tokens", type=int, default=512, help="of the student's answers (default: 512)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
