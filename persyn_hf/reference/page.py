"""Write the page of all settings, `docs/settings.md`."""

from collections.abc import Sequence

from persyn_hf.reference.anew import follow
from persyn_hf.reference.settings import SAME_KEYS, Setting, phase_name
from persyn_hf.runner.plan import PHASES


HEAD = """\
<!-- `make reference` writes this page from the code. Change the descriptions there. -->
# Settings

Every key that a recipe may have. `persyn help score.alpha` says the same of one of them, and
[recipe.schema.json](../persyn_hf/recipe/recipe.schema.json) says it to editors (`persyn schema` prints it).

- **Keys** are dotted: `score.alpha` is `score: {alpha: ...}`. Those of `teachers`, `students`, `strategies` and
  `evaluate.tasks` belong to each entry of a list.
- **Default**: *needed* means that there is none.
- **Runs anew** names the first step that runs anew when the setting is changed. The next table says what follows from
  it. All other steps are reused. The journal keeps answers and measurements, so a step that runs anew pays only for
  what is new. *Nothing* means that the setting does not decide what comes out.
"""

FOLLOWS = """\
## What follows

`assign`, `generate` and `score` run for the calibration prompts first, and then for each strategy on the pool. Where
calibration is in part, its later rounds choose by rewards: they, too, follow from `score`.

| step | what follows |
|---|---|
"""


def settings_page(settings: Sequence[Setting]) -> str:
    """Return the page in markdown: a table per section, and what follows from each step."""
    parts = [HEAD, FOLLOWS + "".join(_followers(phase) for phase in PHASES if phase not in ("label", "pair"))]
    parts.append(
        "## The recipe itself\n\n" + _table([one for one in settings if not one.section and not one.is_section])
    )
    for section in (one for one in settings if one.is_section and not one.section):
        keys = [one for one in settings if one.path.startswith(f"{section.path}.")]
        parts.append(f"## {section.path}\n\n{section.meaning}\n\n{_table(keys)}")
    return "\n".join(parts)


def _followers(phase: str) -> str:
    names = list(dict.fromkeys(phase_name(other) for other in follow(phase)))
    return f"| {phase_name(phase)} | {', '.join(names) or 'nothing'} |\n"


def _table(settings: Sequence[Setting]) -> str:
    rows = ["| key | type | default | what it is | runs anew |\n|---|---|---|---|---|\n", *map(_row, settings)]
    return "".join(rows)


def _row(setting: Setting) -> str:
    if setting.is_section:
        cells = [f"`{setting.path}`", "section", "", setting.meaning, ""]
    else:
        default = f"`{setting.default}`" if setting.default else "*needed*"
        same = f" Its keys are those of `{SAME_KEYS[setting.path]}`." if setting.path in SAME_KEYS else ""
        cells = [f"`{setting.path}`", setting.kind, default, setting.meaning + same, setting.anew]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
