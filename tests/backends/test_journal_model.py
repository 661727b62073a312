"""The journal beside a plain dictionary: any sequence of writes, questions, restarts and kills gives the same."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from journal_samples import answer, request

from persyn_hf.backends.answers import Answer, Request
from persyn_hf.backends.journal import Journal, Spent, read_spent


BOUNDS = (4, 8, 16)
ASKED = [request(prompt, max_tokens=bound) for prompt in "abc" for bound in BOUNDS]
RECIPES = ("local/a", "local/b")
TEACHERS = ("small", "big")


@dataclass(frozen=True)
class Attempt:
    answer: Answer
    recipe: str
    teacher: str


answers = st.builds(
    answer,
    st.sampled_from(ASKED),
    st.text(max_size=5),
    st.none() | st.sampled_from(["boom", "gone"]),
    finish_reason=st.sampled_from(["stop", "length", "content_filter"]),
    num_tokens=st.none() | st.integers(0, 9),  # 0 and None alike: nobody has counted them
    num_prompt_tokens=st.none() | st.integers(1, 9),
    reasoning=st.none() | st.text(max_size=3),
)


class JournalMachine(RuleBasedStateMachine):
    @initialize(recipe=st.sampled_from(RECIPES))
    def start(self, recipe: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "j.sqlite"
        self.recipe = recipe
        self.journal = Journal(self.path, recipe=recipe)
        self.attempts: dict[str, list[Attempt]] = {}
        self.plans: dict[str, list[list[str]]] = {}
        self.derived: dict[str, object] = {}

    @rule(batch=st.lists(answers, max_size=5), teacher=st.sampled_from(TEACHERS), supersede=st.booleans())
    def write(self, batch: Sequence[Answer], teacher: str, supersede: bool) -> None:
        expected = 0
        for said in batch:
            attempts = self.attempts.setdefault(said.request.key, [])
            if not attempts or (supersede and attempts[-1].answer.error is not None):
                attempts.append(Attempt(said, self.recipe, teacher))
                expected += 1
        assert self.journal.write(batch, teacher=teacher, supersede_errors=supersede) == expected

    @rule(asked=st.lists(st.sampled_from(ASKED)))
    def read(self, asked: Sequence[Request]) -> None:
        keys = {each.key for each in asked}
        newest = {key: attempts[-1].answer for key, attempts in self.attempts.items() if attempts}
        assert self.journal.answered(keys) == keys & set(newest)
        good = {key for key in keys & set(newest) if newest[key].error is None}
        assert self.journal.answered(keys, errors=False) == good
        found = self.journal.read(keys)
        assert set(found) == keys & set(newest)
        for key, entry in found.items():
            said = newest[key]
            assert (entry.text, entry.reasoning, entry.error) == (said.text, said.reasoning, said.error)
            counted = said.num_tokens or (None if said.error is None else 0)
            assert (entry.finish_reason, entry.num_tokens) == (said.finish_reason, counted)
            assert entry.num_prompt_tokens == (3 if said.num_prompt_tokens is None else said.num_prompt_tokens)
            assert entry.attempt == len(self.attempts[key]) - 1

    @rule()
    def finished_shorter(self) -> None:
        expected = {}
        for asked in ASKED:
            if not self.attempts.get(asked.key):
                for shorter in ASKED:
                    same, bound = shorter.prompt_id == asked.prompt_id, shorter.sampling.max_tokens
                    attempts = self.attempts.get(shorter.key)
                    if same and bound < asked.sampling.max_tokens and attempts:
                        newest = attempts[-1].answer
                        if newest.error is None and newest.finish_reason == "stop":
                            expected[asked.key] = shorter.key  # bounds grow along the list: the last one is largest
        found = self.journal.finished_shorter(ASKED)
        assert set(found) == set(expected)
        assert all(expected[key].startswith(short) for key, short in found.items())

    @rule(step=st.sampled_from(["one", "two"]), batches=st.lists(st.lists(st.sampled_from(ASKED)), max_size=3))
    def plan(self, step: str, batches: list[list[Request]]) -> None:
        expected = self.plans.setdefault(step, [[each.key for each in batch] for batch in batches])
        assert list(self.journal.plan(step, lambda: batches)) == expected

    @rule(step=st.sampled_from(["one", "two"]))
    def drop_plan(self, step: str) -> None:
        self.plans.pop(step, None)
        self.journal.drop_plan(step)

    @rule(values=st.dictionaries(st.sampled_from([each.key for each in ASKED]), st.integers() | st.text(max_size=3)))
    def derive(self, values: dict[str, object]) -> None:
        self.journal.keep(values)
        self.derived = {**values, **self.derived}
        assert self.journal.recall(each.key for each in ASKED) == self.derived

    @rule(recipe=st.sampled_from(RECIPES))
    def reopen(self, recipe: str) -> None:
        self.journal.close()
        self.recipe = recipe
        self.journal = Journal(self.path, recipe=recipe)

    @rule()
    def kill(self) -> None:
        """Go on with what a kill at this moment leaves behind."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / "j.sqlite"
        for ending in ("", "-wal"):
            shutil.copy(f"{self.path}{ending}", f"{copy}{ending}")
        self.journal.close()
        self.path, self.journal = copy, Journal(copy, recipe=self.recipe)

    @invariant()
    def spending_is_the_sum_of_all_attempts(self) -> None:
        for recipe in RECIPES:
            expected = {}
            for teacher in TEACHERS:
                paid = [
                    attempt.answer
                    for attempts in self.attempts.values()
                    for attempt in attempts
                    if (attempt.recipe, attempt.teacher) == (recipe, teacher)
                ]
                if paid:
                    expected[teacher] = Spent(
                        requests=len(paid),
                        prompt_tokens=sum(
                            3 if said.num_prompt_tokens is None else said.num_prompt_tokens
                            for said in paid
                            if said.error is None or said.num_tokens
                        ),
                        completion_tokens=sum(said.num_tokens or 0 for said in paid),
                        seconds=0.5 * len(paid),
                        truncated=sum(said.error is None and said.finish_reason == "length" for said in paid),
                        uncounted=sum(said.error is None and not said.num_tokens for said in paid),
                        errors=Counter(said.error for said in paid if said.error is not None),
                    )
            assert self.journal.spent(recipe) == expected
            assert read_spent(self.path, recipe) == expected

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)


JournalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestJournal = JournalMachine.TestCase
