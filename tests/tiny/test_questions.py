"""The grammar and the splits, and the JSONL files that hold them."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from persyn_hf.tiny.questions import SKILLS, SPLIT_SIZES, draw_question, make_splits
from persyn_hf.tiny.split_files import SPLITS_BY_FILE, to_row


RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"


@pytest.fixture(scope="module")
def splits():
    return make_splits(0)


def test_no_question_is_in_two_places(splits):
    questions = [one.question for rows in splits.values() for one in rows]
    assert len(questions) == len(set(questions)) == sum(SPLIT_SIZES.values())


def test_splits_have_their_size_and_balanced_skills(splits):
    for split, rows in splits.items():
        counts = Counter(one.skill for one in rows)
        assert len(rows) == SPLIT_SIZES[split]
        assert set(counts) == set(SKILLS) and max(counts.values()) - min(counts.values()) <= 1


def test_level_2_has_about_its_share(splits):
    hard = [one.level == 2 for rows in splits.values() for one in rows]
    assert 0.57 < sum(hard) / len(hard) < 0.63


def test_same_seed_same_splits_other_seed_other_splits(splits):
    assert make_splits(0) == splits
    assert make_splits(1) != splits


def test_last_step_leads_to_the_answer():
    rng = random.Random(3)
    for index in range(700):
        one = draw_question(rng, SKILLS[index % len(SKILLS)], rng.randint(1, 2))
        last = one.steps[-1]
        if one.skill == "list":
            assert one.answer in (str(last.left), str(last.right))
        else:
            assert str(last.result) == one.answer
            assert one.answer in (str(one.check.left), str(one.check.right))
        assert int(one.answer) > 0


def test_unknown_skill_is_refused():
    with pytest.raises(ValueError, match="skills: add, sub"):
        draw_question(random.Random(0), "rem", 1)


@pytest.mark.parametrize("name", SPLITS_BY_FILE)
def test_files_in_the_repository_equal_the_splits(splits, name):
    rows = [json.loads(line) for line in (RECIPE / name).read_text().splitlines()]
    assert rows == [to_row(one, split) for split in SPLITS_BY_FILE[name] for one in splits[split]]


def test_import_is_light():
    code = (
        "import sys, persyn_hf.tiny.questions, persyn_hf.tiny.train; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=RECIPE.parents[1]).returncode == 0
