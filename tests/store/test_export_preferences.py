"""Preferences, difficulties and teachers of prompts for other trainers: counted by hand, read by the real ones."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from rows import assignment, prompt, response, reward
from store_samples import fields, link

from persyn_hf.cli.artifacts_export import FORMS
from persyn_hf.cli.main import main
from persyn_hf.errors import RecipeError, StoreError
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SFT
from persyn_hf.store.export import FORMATS, Wishes, export
from persyn_hf.store.local import Store


QUESTIONS = {"p1": "What is 2 + 2?", "p2": "What is 3 + 3?", "p3": "Say a word.", "p4": "What is 9 + 9?"}

# prompt, teacher, sample: text, verdict, kept, reward, how it ended
ANSWERS: list[tuple[str, str, int, str, bool | None, bool, str]] = [
    ("p1", "a", 0, "It is 4.", True, True, "stop"),
    ("p1", "a", 1, "It is 5.", False, False, "stop"),
    ("p1", "b", 0, "It is 6.", False, True, "stop"),
    ("p1", "c", 0, "It is four, that is to say", True, True, "length"),
    ("p2", "a", 0, "It is 7.", False, True, "stop"),
    ("p2", "b", 0, "It is 8.", False, True, "stop"),
    ("p3", "a", 0, "word", None, True, "stop"),
    ("p3", "b", 0, "a word", None, True, "stop"),
    ("p3", "c", 0, "", None, True, "stop"),
    ("p4", "a", 0, "It is 18.", True, True, "stop"),
    ("p4", "b", 0, "It is 17.", False, True, "stop"),
]
REWARD = {"p1a": 0.9, "p1b": 0.2, "p1c": 0.8, "p2a": 0.3, "p2b": 0.1, "p3a": 0.4, "p3b": 0.6, "p4a": 1.0, "p4b": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three calibration prompts and one of dev; the third has no reference."""
    found = Store(tmp_path_factory.mktemp("store"))
    split = {name: "dev" if name == "p4" else "calibration" for name in QUESTIONS}
    references = {"p1": "4", "p2": '{"any": ["6", "six"]}', "p3": None, "p4": "18"}
    data: list[dict[str, Any]] = [
        prompt(text, name, reference=references[name], split=split[name]) for name, text in QUESTIONS.items()
    ]
    prompts = found.put(repo="me/x", schema=PROMPTS, data=PROMPTS.dataset(data), fields=fields("prompts"))
    data = [
        response(
            *(name, teacher, text),
            sample_index=sample,
            is_correct=verdict,
            selected=kept,
            finish_reason=end,
            split=split[name],
        )
        for name, teacher, sample, text, verdict, kept, end in ANSWERS
    ]
    responses = found.put(repo="me/x-responses", schema=RESPONSES, data=RESPONSES.dataset(data), fields=fields())
    data = [reward(name[:2], name[2], value, split=split[name[:2]]) for name, value in REWARD.items()]
    given = fields("score", inputs=link(prompts, responses))
    found.put(repo="me/x-rewards", schema=REWARDS, data=REWARDS.dataset(data), fields=given)
    data = [
        assignment("p1", "b", confidence=0.75, split="calibration"),
        assignment("p1", "a", confidence=0.75, split="calibration"),
        assignment("p3", "a", split="calibration"),
    ]
    given = fields("assign", inputs=link(prompts))
    found.put(repo="me/x-assignments", schema=ASSIGNMENTS, data=ASSIGNMENTS.dataset(data), fields=given)
    found.put(repo="me/alone", schema=REWARDS, data=REWARDS.dataset([reward("p1", "a", 1.0)]), fields=fields("score"))
    return found


def rows(store: Store, to: str, folder: Path, ref: str = "me/x-rewards", **wishes: Any) -> list[dict[str, Any]]:
    return read(export(store, ref, to, folder, Wishes(**wishes))[0])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def shown(row: dict[str, Any], *parts: str) -> tuple[str, ...]:
    return tuple(row[part][-1]["content"] for part in parts)


def test_right_is_preferred_to_wrong_without_what_was_cut_off_or_is_of_dev(store: Store, tmp_path: Path) -> None:
    found = rows(store, "dpo", tmp_path, pairs=9)
    assert [shown(row, "prompt", "chosen", "rejected") for row in found] == [
        ("What is 2 + 2?", "It is 4.", "It is 6."),
        ("Say a word.", "a word", "word"),
    ]
    assert found[0]["prompt"][0]["role"] == "user" and found[0]["chosen"][0]["role"] == "assistant"
    assert (found[0]["chosen_teacher"], found[0]["rejected_teacher"]) == ("a", "b")
    own = rows(store, "dpo", tmp_path, pairs=9, same_teacher=True)
    assert [shown(row, "chosen", "rejected") for row in own] == [
        ("It is 4.", "It is 6."),
        ("It is 4.", "It is 5."),
        ("a word", "word"),
    ]
    assert [shown(row, "chosen") for row in rows(store, "dpo", tmp_path, margin=0.3)] == [("It is 4.",)]


def test_a_reward_model_learns_margins(store: Store, tmp_path: Path) -> None:
    found = rows(store, "reward-model", tmp_path)
    assert [(*shown(row, "chosen", "rejected"), row["margin"]) for row in found] == [
        ("It is 4.", "It is 6.", pytest.approx(0.7)),
        ("a word", "word", pytest.approx(0.2)),
    ]


def test_kto_labels_every_answer_that_somebody_judged(store: Store, tmp_path: Path) -> None:
    found = rows(store, "kto", tmp_path)
    assert [(*shown(row, "completion"), row["label"]) for row in found] == [
        ("It is 4.", True),
        ("It is 5.", False),
        ("It is 6.", False),
        ("It is 7.", False),
        ("It is 8.", False),
        ("word", False),
        ("a word", True),
    ]


def test_llama_factory_is_told_which_rows_are_pairs_and_where_labels_are(store: Store, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"theirs": {"file_name": "other.json"}}')
    pairs, info = export(store, "me/x-rewards", "llama-factory-dpo", tmp_path, Wishes(pairs=9))
    labels, _ = export(store, "me/x-rewards", "llama-factory-kto", tmp_path)
    known = json.loads(info.read_text())
    assert [*known] == ["theirs", "x-rewards-v1-llama-factory-dpo", "x-rewards-v1-llama-factory-kto"]
    entry = known["x-rewards-v1-llama-factory-dpo"]
    assert (entry["file_name"], entry["formatting"], entry["ranking"]) == (pairs.name, "sharegpt", True)
    for row, trl in zip(read(pairs), rows(store, "dpo", tmp_path, pairs=9), strict=True):
        # Its reader wants an odd number of turns in `messages`, user first and last, and one message for each answer.
        assert row[entry["columns"]["messages"]] == trl["prompt"]
        assert [row[entry["columns"][name]] for name in ("chosen", "rejected")] == [
            trl["chosen"][0],
            trl["rejected"][0],
        ]
        assert row["chosen"][entry["tags"]["role_tag"]] == entry["tags"]["assistant_tag"]
    entry = known["x-rewards-v1-llama-factory-kto"]
    assert entry["columns"] == {"messages": "messages", "kto_tag": "kto_tag"} and "ranking" not in entry
    assert [(shown(row, "messages")[0], row["kto_tag"]) for row in read(labels)] == [
        (shown(row, "completion")[0], row["label"]) for row in rows(store, "kto", tmp_path)
    ]


def test_ms_swift_reads_pairs_and_labels_beside_the_conversation(store: Store, tmp_path: Path) -> None:
    pairs, info = export(store, "me/x-rewards", "ms-swift-dpo", tmp_path, Wishes(pairs=9))
    assert json.loads(info.read_text()) == [{"dataset_path": str(pairs), "dataset_name": "x-rewards-v1-ms-swift-dpo"}]
    for row, trl in zip(read(pairs), rows(store, "dpo", tmp_path, pairs=9), strict=True):
        assert row == {
            "messages": trl["prompt"] + trl["chosen"],
            "rejected_response": trl["rejected"][0]["content"],
        }
        assert row["rejected_response"] != row["messages"][-1]["content"]  # such a row its reader refuses
    for row, trl in zip(rows(store, "ms-swift-kto", tmp_path), rows(store, "kto", tmp_path), strict=True):
        assert row == {"messages": trl["prompt"] + trl["completion"], "label": trl["label"]}


def test_grpo_says_how_hard_a_prompt_is_for_the_teachers(store: Store, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    (path,) = export(store, "me/x-rewards@v1", "grpo", tmp_path, counts=counts)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["solution"], row["pass_rate"]) for row in found] == [("4", 0.5), ("6", 0.0)]
    assert found[0]["pass_rates"] == {"a": 0.5, "b": 0.0, "c": 1.0}
    assert counts == {"prompts": 3, "prompts without a reference": 1, "rows": 2}
    assert path.name == "x-rewards-v1-grpo.jsonl"


def test_mopd_names_the_teacher_of_each_prompt_and_who_they_are(store: Store, tmp_path: Path) -> None:
    path, teachers = export(store, "me/x-assignments", "mopd", tmp_path)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["prompt"][0]["content"], row["teacher_id"], row["confidence"]) for row in found] == [
        ("What is 2 + 2?", "b", 0.75),
        ("Say a word.", "a", None),
    ]
    known = json.loads(teachers.read_text())
    assert known["student"] == {"name": "s", "model": "org/student", "revision": None}
    assert known["teachers"]["a"] | {"model": "org/a", "vocabulary_of_the_student": None} == known["teachers"]["a"]


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_what_cannot_be_exported_leaves_no_file(to: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"of kind `prompts`, needed is `{FORMATS[to].kind}`"):
        export(store, "me/x", to, tmp_path)
    if FORMATS[to].kind == "rewards":
        with pytest.raises(StoreError, match="me/alone@v1 was made without `prompts`, which this form needs"):
            export(store, "me/alone", to, tmp_path / "new")
    assert not list(tmp_path.glob("**/*.jsonl"))


def test_an_export_without_a_row_says_why(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        export(store, "me/x-rewards", "reward-model", tmp_path, Wishes(margin=5.0))
    assert str(caught.value) == (
        "me/x-rewards@v1 gives no row in this form (prompts 3, prompts without a pair 3); take another artifact or "
        "form"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"pairs": 1.5}, {"margin": -1}, {"margin": float("nan")}])
def test_wishes_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=f"`{next(iter(wrong))}` must be a"):
        Wishes(**wrong)


def test_the_command_names_every_form_and_counts(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {form: kind for kind, forms in FORMS.items() for form in forms} == {
        name: form.kind for name, form in FORMATS.items()
    }
    command = ["artifacts", "export", "me/x-rewards@v1", "--store", str(store.root), "--out", str(tmp_path)]
    assert main([*command, "--to", "dpo", "--pairs", "2"]) == 0
    assert capsys.readouterr().out.split("\n")[1] == "prompts 3, prompts without a pair 1, rows 2"
    with pytest.raises(SystemExit):
        main([*command, "--to", "sft"])
    assert "invalid choice: 'sft'" in capsys.readouterr().err


SFT_ROW = {
    "prompt": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
    "completion": [{"role": "assistant", "content": "d"}],
    "prompt_id": "p",
    "teacher": "t",
    "reward": None,
}


def test_readers_are_told_that_the_last_answer_alone_is_trained_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put(repo="me/sft", schema=SFT, data=SFT.dataset([SFT_ROW]), fields=fields("mix"))
    path, config = export(store, "me/sft", "axolotl", tmp_path / "é 😀")
    turns = json.loads(path.read_text())["messages"]
    assert [(turn["content"], turn["train"]) for turn in turns] == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("d", True),
    ]
    import yaml

    (entry,) = yaml.safe_load(config.read_text())["datasets"]
    assert (entry["path"], entry["message_field_training"], entry["roles_to_train"]) == (str(path), "train", [])
    path, info = export(store, "me/sft", "ms-swift", tmp_path)
    assert json.loads(info.read_text()) == [{"dataset_path": str(path), "dataset_name": "sft-v1-ms-swift"}]
    assert json.loads(path.read_text()) == {"messages": [*SFT_ROW["prompt"], *SFT_ROW["completion"]]}
    (path,) = export(store, "me/sft", "messages", tmp_path)
    assert load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))[0] == {
        "messages": [*SFT_ROW["prompt"], *SFT_ROW["completion"]]
    }


@pytest.fixture
def student(heavy: None, zoo: Path) -> str:
    return str(zoo / "qwen-student")


def of(store: Store, to: str, folder: Path) -> Any:
    path = export(store, "me/x-rewards", to, folder)[0]
    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder))


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    each = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "bf16": False}
    return {"output_dir": str(folder), "disable_tqdm": True, "save_strategy": "no", **each, **more}


def test_trls_trainers_take_a_step_on_preferences(student: str, store: Store, tmp_path: Path) -> None:
    import trl
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    dpo = trl.DPOTrainer(
        student, args=trl.DPOConfig(**arguments(tmp_path / "dpo")), train_dataset=of(store, "dpo", tmp_path)
    )
    assert dpo.train().training_loss == pytest.approx(0.6931, abs=1e-3)  # -log sigmoid(0): the policy is the reference
    kto = trl.KTOTrainer(
        student, args=trl.KTOConfig(**arguments(tmp_path / "kto")), train_dataset=of(store, "kto", tmp_path)
    )
    assert 0 < kto.train().training_loss < 1
    model = AutoModelForSequenceClassification.from_pretrained(student, num_labels=1)
    rewards = trl.RewardTrainer(
        model,
        args=trl.RewardConfig(**arguments(tmp_path / "rewards")),
        train_dataset=of(store, "reward-model", tmp_path),
        processing_class=tokenizer,
    )
    assert rewards.train().training_loss > 0


def test_trls_grpo_grades_by_the_solution(student: str, store: Store, tmp_path: Path) -> None:
    import trl

    seen: list[str] = []

    def right(completions: list[Any], solution: list[str], pass_rate: list[float], **_: Any) -> list[float]:
        seen.extend(solution)
        return [float(len(completion[0]["content"])) for completion in completions]

    given = arguments(tmp_path / "grpo", num_generations=2, max_completion_length=8)
    trainer = trl.GRPOTrainer(
        student, reward_funcs=right, args=trl.GRPOConfig(**given), train_dataset=of(store, "grpo", tmp_path)
    )
    trainer.train()
    assert set(seen) <= {"4", "6"} and len(seen) == 2
