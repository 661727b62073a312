"""The controls of the views, by their names in the address of the page."""

from collections.abc import Iterable
from typing import Any, get_args

from persyn_hf.core.rewards import How
from persyn_hf.space.events import ALL, Desk
from persyn_hf.space.views import labels


SORTED_BY = [("as it lies", "place"), ("smallest lead", "margin"), ("largest regret", "regret")]
SORTED_BY += [("least sure", "confidence"), ("longest answer", "tokens")]
BROKEN_DOWN = [("not at all", "all"), ("split", "split"), ("topic", "topic"), ("source of the prompt", "origin")]
BROKEN_DOWN += [("who decided", "source")]
AGREE = [("any", ""), ("chosen is as good as the best", "same"), ("another teacher is better", "other")]
CORRECT = [("any", ""), ("right", "right"), ("wrong", "wrong"), ("not judged", "unjudged")]


def any_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the choices of a list from which nothing need be chosen: (label, value) pairs."""
    return [("any", ""), *((name, name) for name in names if name)]


def _named(desk: Desk) -> list[tuple[str, str]]:
    """Return the assignments under what tells them apart, because whole references do not fit a phone."""
    return list(zip(labels(desk.refs), desk.refs, strict=True))


def common(gr: Any, desk: Desk) -> dict[str, Any]:
    """Return the controls above all views."""
    with gr.Row():
        refs = gr.Dropdown(_named(desk), value=desk.defaults["assignment"], label="Assignment", scale=3, min_width=260)
        choices = [("all splits", ALL), *((name, name) for name in desk.splits)]
        split = gr.Dropdown(choices, value=desk.defaults["split"], label="Split", scale=1, min_width=140)
    return {"assignment": refs, "split": split}


def of_allocation(gr: Any, desk: Desk) -> dict[str, Any]:
    """Return the controls of the allocation view."""
    with gr.Row():
        beside = gr.Dropdown(
            _named(desk), value=desk.defaults["with"], multiselect=True, label="Compare with", scale=3, min_width=260
        )
        by = gr.Dropdown(BROKEN_DOWN, value=desk.defaults["by"], label="Broken down by", scale=1, min_width=140)
    return {"with": beside, "by": by}


def of_prompts(gr: Any, desk: Desk) -> dict[str, Any]:
    """Return the controls that filter, sort and page the prompts."""
    made: dict[str, Any] = {}
    with gr.Row():
        made["q"] = gr.Textbox(
            label="Search", placeholder="words of the prompt, or its id; Enter", scale=2, min_width=260
        )
        teachers = any_of(desk.teachers(desk.defaults["assignment"]))
        made["teacher"] = gr.Dropdown(teachers, value="", label="Teacher", min_width=140)
        made["topic"] = gr.Dropdown(any_of([]), value="", label="Topic", min_width=140)
    with gr.Row():
        made["agreement"] = gr.Dropdown(AGREE, value="", label="Router and oracle", min_width=160)
        made["correct"] = gr.Dropdown(CORRECT, value="", label="Chosen answer", min_width=120)
        made["margin"] = gr.Number(None, label="Lead at most", minimum=0, min_width=110)
        made["shortest"] = gr.Number(None, label="Tokens from", precision=0, minimum=0, min_width=110)
        made["longest"] = gr.Number(None, label="Tokens to", precision=0, minimum=0, min_width=110)
        made["sort"] = gr.Dropdown(SORTED_BY, value="place", label="Order", min_width=140)
        made["page"] = gr.Number(1, label="Page", precision=0, minimum=1, min_width=90)
    return made


def of_whatif(gr: Any, desk: Desk) -> dict[str, Any]:
    """Return the controls of the weights in the what-if view."""
    with gr.Row():
        alpha = gr.Slider(
            0, 1, value=0.4, step=0.01, label="alpha, the weight of learnability", info="0.4 is the paper's", scale=2
        )
        weight = gr.Slider(
            0, 1, value=0, step=0.01, label="lambda, cost", info="reward for one mean answer", min_width=240
        )
        how = gr.Dropdown(list(get_args(How)), value="minmax", label="Normalisation", info="the paper names none")
    return {"alpha": alpha, "lambda": weight, "how": how}
