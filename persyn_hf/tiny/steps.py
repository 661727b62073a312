"""Steps of arithmetic: the core that every response style words in its own way."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One true statement: `left op right = result`, or a comparison (`op` is < or >, `result` is None)."""

    left: int
    op: str
    right: int
    result: int | None = None

    def __str__(self) -> str:
        """Return the statement as text: "70 + 15 = 85" or "83 > 19"."""
        claim = f"{self.left} {self.op} {self.right}"
        return claim if self.result is None else f"{claim} = {self.result}"


def step(left: int, op: str, right: int) -> Step:
    """Return a step with its result filled in.

    Raises:
        ValueError: a division does not come out even.
    """
    if op == "/" and left % right:
        raise ValueError(f"{left} / {right} is not a whole number; steps hold whole numbers only.")
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right if right else None}[op]
    return Step(left, op, right, result)


def compare(left: int, right: int) -> Step:
    """Return the comparison of two different numbers."""
    return Step(left, ">" if left > right else "<", right)


def addition(a: int, b: int) -> tuple[Step, ...]:
    """Return tens, ones and their sum for two numbers of two digits; else one step."""
    if a < 10 or b < 10 or (a % 10 == 0 and b % 10 == 0):
        return (step(a, "+", b),)
    tens, ones = (a // 10 * 10, b // 10 * 10), (a % 10, b % 10)
    return step(tens[0], "+", tens[1]), step(ones[0], "+", ones[1]), step(sum(tens), "+", sum(ones))


def subtraction(a: int, b: int) -> tuple[Step, ...]:
    """Return two steps, minus the tens, then minus the ones; one where there are no tens or no ones."""
    if b < 10 or b % 10 == 0:
        return (step(a, "-", b),)
    tens = b // 10 * 10
    return step(a, "-", tens), step(a - tens, "-", b % 10)


def multiplication(a: int, b: int) -> tuple[Step, ...]:
    """Return tens times b, ones times b and their sum; one step where a is below 10 or a round ten."""
    if a < 10 or a % 10 == 0:
        return (step(a, "*", b),)
    tens, ones = a // 10 * 10, a % 10
    return step(tens, "*", b), step(ones, "*", b), step(tens * b, "+", ones * b)


def running_extreme(numbers: list[int], largest: bool) -> tuple[Step, ...]:
    """Return the comparisons of the best number so far with each next one; the numbers must be distinct."""
    best, steps = numbers[0], []
    for number in numbers[1:]:
        steps.append(compare(best, number))
        best = max(best, number) if largest else min(best, number)
    return tuple(steps)
