"""Text from data, models and other people's manifests cannot break the Markdown, YAML or HTML of a card."""

import re

import pytest
import yaml
from card_samples import EVALUATED, evaluation, manifest_of
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from store_samples import fields

from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.cards.card import render_card


HOSTILE = (
    "x | y\n| `z` <script>alert(1)</script> [a](http://b) # h\\",
    "\n---\nlicense: stolen\n---\n# title\n",
    "```\n<img src=x onerror=alert(1)>\n```",
    "</details><h1>out</h1> <!-- ",
    "![p](https://evil/p.png) https://evil www.evil.com <https://evil>",
    '\' + str(1) + \'""" \u2028\u202e\x00\x07 $$\\alpha$$ {{ seed }} {% raw %}',
    "~~~\n- [x] * _a_ **b** &lt;b&gt; &#60;",
)


def hostile(value, nasty):
    """The same shape with the text everywhere, keys included."""
    if isinstance(value, dict):
        return {f"{key}{nasty}" if key not in KEPT else key: hostile(item, nasty) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(item, nasty) for item in value]
    return nasty if isinstance(value, str) else value


KEPT = {"name", "model", "revision", "allocation", "teachers", "mean_tokens", "router", "loss"}
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def structure(text):
    """Headings, tables, lists, code and HTML of a card, without what stands in them; its links, images and HTML."""
    tokens = MARKDOWN.parse(DatasetCard(text).text)
    inline = [child for token in tokens for child in token.children or ()]
    targets = [token.attrs.get("href") or token.attrs.get("src") for token in inline]
    targets = [target for target in targets if target is not None]
    html = [token.content for token in (*tokens, *inline) if token.type.startswith("html")]
    return [(token.type, token.tag) for token in tokens], targets, html


@pytest.mark.parametrize(
    "metrics",
    [
        dict.fromkeys(("teachers", "allocation", "mean_tokens", "router", "training", "comparison", "alpha"), value)
        for value in (None, 3, "text", [1], {"a": "text"}, {"a": {"b": [{"c": 1}]}})
    ],
)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_measurements_of_another_version_are_shown_as_they_are(kind, metrics):
    told = render_card(manifest_of(kind, metrics=metrics), "v1", [evaluation(metrics=metrics)])
    assert "`alpha` |" in told or "### alpha" in told


@pytest.mark.parametrize("nasty", HOSTILE)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_text_from_data_cannot_break_the_card(kind, nasty):
    """Hostile text everywhere, and no other blocks, links, HTML or metadata than with plain words there."""
    calm = {
        **fields(created_at="then"),
        "repo": "me/x",
        "recipe": "r",
        "digest": "d",
        "inputs": {"prompts": {"ref": "p", "digest": "d"}, "base": {"ref": "p", "digest": "d"}},
        "licences": {"prompts": "l"},
        "languages": ["l"],
        "files": {"figures/shares.png": "0"},
        "rows": {"a": {"dev": 3}, "b": {"dev": 2}},
        "code_version": "c",
        "metrics": {
            "mean": 0.5,
            "teachers": {"a": {"rows": 3, "accuracy": None, "mean_tokens": "many"}},
            "allocation": {"a": 0.25, "b": "all"},
            "mean_tokens": {"a": 12.0},
            "router": {"hit_at_1": {"value": "high"}},
            "task": {"accuracy": 0.5, "low": 0.4},
        },
    }
    attack = {key: hostile(value, nasty) for key, value in calm.items() if key not in ("inputs", "files")}
    attack["inputs"] = {name: {"ref": nasty, "digest": nasty} for name in ("prompts", f"base{nasty}")}
    attack["files"] = {f"figures/{nasty}.png": "0"}
    calm["repo"], attack["repo"] = "r", nasty
    plain = render_card(manifest_of(kind, **calm), "v1", [evaluation(metrics={"t": EVALUATED["gsm8k"]})])
    told = {"metrics": {nasty: EVALUATED["gsm8k"]}, "repo": nasty, "settings": {nasty: [nasty]}}
    text = render_card(manifest_of(kind, **attack), nasty, [evaluation(**told)])
    blocks, targets, html = structure(text)
    calm_blocks, calm_targets, calm_html = structure(plain)
    assert blocks == calm_blocks and html == calm_html
    assert {target for target in targets if not target.startswith("figures/")} <= set(calm_targets)
    body = DatasetCard(text).text
    assert "\u202e" not in body and "\x00" not in body
    before, after = (yaml.safe_load(one.split("\n---\n")[0].removeprefix("---\n")) for one in (plain, text))
    assert before.keys() - after.keys() <= {"language", "base_model", "base_model_relation"}
    assert after.keys() - before.keys() <= {"license_name"}
    assert after["license"] == "other"
    compile("\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)), "card", "exec")
