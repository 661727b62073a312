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
        claim = f"{self.left} {self.op} {self.right}"
        return claim if self.result is None else f"{claim} = {self.result}"


def step(left: int, op: str, right: int) -> Step:
    """The step with its result filled in; a division must come out even."""
    if op == "/" and left % right:
        raise ValueError(f"{left} / {right} is not a whole number; steps hold whole numbers only.")
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right if right else None}[op]
    return Step(left, op, right, result)


def compare(left: int, right: int) -> Step:
    return Step(left, ">" if left > right else "<", right)


def addition(a: int, b: int) -> tuple[Step, ...]:
    """Tens, ones, sum for two numbers of two digits; else one step."""
    if a < 10 or b < 10 or (a % 10 == 0 and b % 10 == 0):
        return (step(a, "+", b),)
    tens, ones = (a // 10 * 10, b // 10 * 10), (a % 10, b % 10)
    return step(tens[0], "+", tens[1]), step(ones[0], "+", ones[1]), step(sum(tens), "+", sum(ones))


def subtraction(a: int, b: int) -> tuple[Step, ...]:
    """Minus the tens, then minus the ones."""
    if b < 10 or b % 10 == 0:
        return (step(a, "-", b),)
    tens = b // 10 * 10
    return step(a, "-", tens), step(a - tens, "-", b % 10)


def multiplication(a: int, b: int) -> tuple[Step, ...]:
    """Tens times b, ones times b, their sum; one step where a is below 10 or a round ten."""
    if a < 10 or a % 10 == 0:
        return (step(a, "*", b),)
    tens, ones = a // 10 * 10, a % 10
    return step(tens, "*", b), step(ones, "*", b), step(tens * b, "+", ones * b)


def running_extreme(numbers: list[int], largest: bool) -> tuple[Step, ...]:
    """Compare the best number so far with each next one; the numbers must be distinct."""
    best, found = numbers[0], []
    for number in numbers[1:]:
        found.append(compare(best, number))
        best = max(best, number) if largest else min(best, number)
    return tuple(found)
