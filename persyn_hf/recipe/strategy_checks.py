"""Refuse strategies that contradict themselves, the pool of teachers or one another, before anything is paid for."""

from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import BY_ROUTER, KINDS, ROUTED_KINDS, CostUnit, Strategy
from persyn_hf.recipe.strict import nearest


HEAVIEST = 10**12  # weight of a teacher


def check_strategy(strategy: Strategy, pool: list[str], earlier: list[str]) -> None:
    """Refuse a strategy that contradicts itself, the pool of teachers, or the names of the strategies before it.

    Raises:
        ValueError: pydantic turns it into a fault of the recipe.
    """
    named = [strategy.teacher, strategy.to_teacher, *(strategy.from_teachers or ()), *(strategy.weights or {})]
    if strategy.budget is not None:
        named += [*strategy.budget.min, *strategy.budget.max]
    for name in named:
        if name is not None and name not in pool:
            raise ValueError(f"strategy `{strategy.name}` names the teacher `{name}`{nearest(name, pool)}")
    _check_options(strategy)
    if strategy.confidence is not None and strategy.per_prompt == 1 and not strategy.escalate:
        raise ValueError(
            f"strategy `{strategy.name}` sets `confidence`, below which a prompt may get more teachers, and "
            "neither `per_prompt` nor `escalate`; set one of them, or leave `confidence` out"
        )
    if strategy.per_prompt > 1 and strategy.escalate:
        raise ValueError(f"strategy `{strategy.name}` sets `per_prompt` and `escalate`; choose one of the two")
    most = strategy.per_prompt + strategy.escalate
    if most > len(pool):
        raise ValueError(
            f"strategy `{strategy.name}` asks for {most} teachers per prompt, the pool holds {len(pool)}; "
            "lower `per_prompt` or `escalate`"
        )
    missing = [key for key in KINDS[strategy.kind].requires if getattr(strategy, key) is None]
    if missing:
        needed = " and ".join(f"`{key}`" for key in KINDS[strategy.kind].requires)
        raise ValueError(f"strategy `{strategy.name}` of kind {strategy.kind} needs {needed}")
    for name, weight in (strategy.weights or {}).items():
        if not 0 <= weight <= HEAVIEST:
            raise ValueError(
                f"strategy `{strategy.name}`: the weight of `{name}` must be from 0 to {HEAVIEST:,}, got {weight}"
            )
    if strategy.weights is not None and not any(strategy.weights.values()):
        raise ValueError(f"strategy `{strategy.name}`: its `weights` must sum to more than 0, got {strategy.weights}")
    if strategy.from_teachers is not None and (
        not strategy.from_teachers or strategy.to_teacher in strategy.from_teachers
    ):
        raise ValueError(
            f"strategy `{strategy.name}`: `from_teachers` must name teachers other than `to_teacher`, got "
            f"{list(strategy.from_teachers)}; leave it out for the Long-CoT teachers"
        )
    if strategy.base is not None and strategy.base not in earlier:
        raise ValueError(f"strategy `{strategy.name}`: its base `{strategy.base}` must stand before it")


def _check_options(strategy: Strategy) -> None:
    """Refuse an option that the strategy's kind does not read: it would be left out in silence."""
    options = {key: field for key, field in Strategy.model_fields.items() if key not in ("kind", "name")}
    given = {key for key, field in options.items() if getattr(strategy, key) != field.default}
    unused = sorted(given - KINDS[strategy.kind].takes)
    if unused and unused[0] in BY_ROUTER:
        words = "`per_prompt`, `escalate`, `confidence`, `budget` and `router`"
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} has no router, and {words} go by router scores; "
            f"leave `{unused[0]}` out, or use {', '.join(ROUTED_KINDS)}"
        )
    if unused:
        readers = ", ".join(name for name, kind in KINDS.items() if unused[0] in kind.takes)
        raise ValueError(
            f"strategy `{strategy.name}` of kind {strategy.kind} sets `{unused[0]}`, which is for {readers}; "
            "leave it out"
        )


def check_leaving(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Refuse a strategy that replaces the Long-CoT teachers of a pool without any."""
    for strategy in strategies:
        changes = KINDS[strategy.kind].chooses == "change" and strategy.from_teachers is None
        if changes and not any(teacher.long_cot for teacher in teachers):
            raise ValueError(
                f"strategy `{strategy.name}` replaces the Long-CoT teachers, and no teacher has `long_cot: true`; "
                "name whom to replace in `from_teachers`"
            )


def check_budgets(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Refuse a budget that leaves prompts without a teacher, or counts a cost that some teacher does not have."""
    for strategy in strategies:
        budget = strategy.budget
        if budget is None:
            continue
        largest = sum(budget.max.get(teacher.name, 1.0) for teacher in teachers)
        if largest < 1 - 1e-9:
            raise ValueError(
                f"strategy `{strategy.name}`: the shares of `max` sum to {largest:g}, so some prompts would have no "
                "teacher; raise one, or leave one out"
            )
        check_unit(f"strategy `{strategy.name}`", budget.cost, teachers)


def check_unit(where: str, unit: CostUnit | None, teachers: tuple[Teacher, ...]) -> None:
    """Refuse a budget in a unit that some teacher's answers cannot be counted in."""
    needed = {"money": ("price", "a `price`"), "flops": ("params_b", "`params_b`")}
    key, words = needed.get(unit or "", ("name", ""))
    without = [teacher.name for teacher in teachers if getattr(teacher, key) is None]
    if without:
        raise ValueError(f"{where}: a budget in {unit} needs {words} of every teacher, `{without[0]}` has none")


def check_families(
    strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...], students: tuple[Student, ...]
) -> None:
    """Refuse Family-Strong for a student of whose family no teacher is."""
    families = {teacher.family for teacher in teachers}
    for strategy in strategies:
        for student in students:
            if strategy.kind == "family_strong" and strategy.teacher is None and student.family not in families:
                raise ValueError(
                    f"strategy `{strategy.name}` takes the largest teacher of the student's family, and none is of "
                    f"the family `{student.family}` of `{student.name}`; name the strategy's `teacher`"
                )


def check_sizes(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Refuse a strategy that goes by size where a teacher has none.

    `assign` would notice only once the calibration answers are paid for.
    """
    unsized = [teacher.name for teacher in teachers if teacher.params_b is None]
    for strategy in strategies:
        if KINDS[strategy.kind].by_size and strategy.teacher is None and unsized:
            raise ValueError(
                f"strategy `{strategy.name}` finds the strongest teacher by size and `{unsized[0]}` has no "
                "`params_b`; set it for every teacher, or name the strategy's `teacher`"
            )


def check_family(strategies: tuple[Strategy, ...], teachers: tuple[Teacher, ...]) -> None:
    """Refuse a Family-Strong that goes by size where `strong` names a smaller teacher.

    Family-Strong leaves out the strongest teacher of all, which it takes to be the largest one.
    """
    sizes = {teacher.name: teacher.params_b or 0 for teacher in teachers}
    named = [s.teacher for s in strategies if s.kind == "strong" and s.teacher is not None]
    smaller = [name for name in named if sizes[name] < max(sizes.values())]
    for strategy in strategies:
        if strategy.kind == "family_strong" and strategy.teacher is None and smaller:
            raise ValueError(
                f"strategy `{strategy.name}` takes the largest teacher for the strongest of all and leaves it out, "
                f"but `strong` names `{smaller[0]}`, a smaller one; name the `teacher` of `{strategy.name}` too"
            )
