"""Keep a recipe within its limits on generations and cost."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from persyn_hf.backends.answers import Answer, Batch, Request
from persyn_hf.errors import BudgetReached, EngineError, PersynError
from persyn_hf.stage import Limits


Money = Callable[[str, float, float, float], float]  # teacher, prompt tokens, completion tokens, engine seconds


class Budget:
    """The budget of a recipe, in which requests in flight count at the most they can cost: no limit is ever passed.

    A limit covers all runs of the recipe together: a loop that starts a killed run again spends no more.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        generations: int,
        cost: float,
        money: Money,
        uncounted: Mapping[str, int] | None = None,
        under_way: Mapping[str, float] | None = None,
    ) -> None:
        self._limits, self._money = limits, money
        self._uncounted = Counter(uncounted or {})  # teacher -> answers that cost money and were not counted
        self._generations, self._cost = generations, cost
        self._reserved = dict(under_way or {})  # request key -> the most it can cost
        self._lock = threading.Lock()  # engines pull batches from threads of their own

    def reserve(self, teacher: str, batch: Batch) -> bool:
        """Take a batch in and return True, if it fits even at its highest cost; batches are never cut.

        What is under way already fits: it is paid for.
        """
        most = {request.key: self._most(teacher, request) for request in batch if not request.prompt.refusal}
        with self._lock:
            most = {key: cost for key, cost in most.items() if key not in self._reserved}
            if not most:
                return True
            generations, cost = self._limits.max_generations, self._limits.max_cost
            if generations is not None and self._generations + len(self._reserved) + len(most) > generations:
                return False
            if cost is not None and self._uncounted[teacher]:
                return False
            total = self._cost + sum(self._reserved.values()) + sum(most.values())
            if cost is not None and total > cost:
                return False
            self._reserved |= most
        return True

    def is_under_way(self, batch: Batch) -> bool:
        """Tell whether all of a batch is paid for already, though not answered."""
        return all(request.key in self._reserved for request in batch)

    def uncounted(self, teacher: str) -> int:
        """Return the number of a teacher's answers that cost money and were not counted."""
        return self._uncounted[teacher]

    def settle(self, teacher: str, answers: Sequence[Answer]) -> None:
        """Replace the highest cost of answered requests with the cost of their answers."""
        with self._lock:
            for answer in answers:
                if self._reserved.pop(answer.request.key, None) is not None:
                    prompt_tokens = answer.num_prompt_tokens or answer.request.prompt.num_tokens
                    self._generations += 1
                    self._cost += self._money(teacher, prompt_tokens, answer.num_tokens or 0, answer.seconds)
                    if answer.error is None and not (prompt_tokens and answer.num_tokens):
                        self._uncounted[teacher] += self._money(teacher, 1.0, 1.0, 0.0) > 0

    def stop(self, teacher: str, batch: Batch, left: int) -> PersynError:
        """Make the error of a run that has to end before `batch`, with `left` answers left in the step."""
        named = self._limits.named
        if self._limits.max_cost is not None and self._uncounted[teacher]:
            return EngineError(
                f"{named('max_cost')} {self._limits.max_cost:g} cannot be kept for the teacher `{teacher}`: its "
                f"server counts no tokens (no usage came with {self._uncounted[teacher]} of its answers), so nobody "
                "knows what they cost; name the tokenizer of its model, by which they are counted here (`server: "
                "{tokenizer: ID-OR-FOLDER}` at the teacher), have the server count, or take "
                f"{named('max_generations')} for a limit"
            )
        limit, asked = self._limits.max_generations, self._generations + len(self._reserved)
        if limit is not None and asked + len(batch) > limit:
            return BudgetReached(
                f"{named('max_generations')} {limit}: this recipe has asked for {asked}, the "
                f"next batch of `{teacher}` holds {len(batch)} and {left} answers of it are left in this step; raise "
                f"it to {asked + left} to get these"
            )
        most = sum(self._most(teacher, request) for request in batch)
        sent = sum(self._reserved.values())
        under_way = f" and has batches under way of up to {sent:.4g}" if sent else ""
        return BudgetReached(
            f"{named('max_cost')} {self._limits.max_cost:g}: this recipe has spent {self._cost:.4g}{under_way}, the "
            f"next batch of `{teacher}` may cost up to {most:.4g} and {left} answers of it are left in this step; "
            "raise it to go on"
        )

    def _most(self, teacher: str, request: Request) -> float:
        """Compute the most that a request can cost."""
        return self._money(teacher, *request.most_tokens, 0.0)
