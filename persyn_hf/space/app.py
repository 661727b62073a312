"""The Gradio app: it wires the controls to the views. `events` and `views` decide what is shown."""

import json
import sys
from collections.abc import Callable
from typing import Any

from persyn_hf.errors import PersynError, require
from persyn_hf.space import controls, pages, url_state
from persyn_hf.space.collection import Shelf
from persyn_hf.space.controls import any_of
from persyn_hf.space.events import Desk
from persyn_hf.space.url_state import DEFAULTS, VIEWS


HIDDEN = ("view", "prompt")  # controls that nobody sees; the page sets them
KEEP_PLACE = ("page", "alpha", "how", "lambda", "with", "by")  # controls that leave page and open prompt as they are

OPEN = """
element.addEventListener('click', event => {
  const link = event.target.closest('[data-prompt], [data-page]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  trigger('click', {...link.dataset});
})
"""
# The prompt may be drawn late, and what is drawn after it moves it: follow it for 3 s, unless the visitor moves.
SCROLL = """
() => {
  let left = 300, moved = false;
  for (const event of ['wheel', 'touchstart', 'pointerdown', 'keydown'])
    addEventListener(event, () => { moved = true }, {once: true, passive: true});
  const follow = () => {
    const opened = document.getElementById('opened');
    if (opened && left > 30) left = 30;
    if (moved || left-- <= 0) return;
    opened?.scrollIntoView({block: 'start'});
    setTimeout(follow, 100);
  };
  follow();
}
"""
SAVE = """
(text) => {
  const [name, url] = JSON.parse(text), link = document.createElement('a');
  link.href = url; link.download = name; link.click();
}
"""


def build(shelf: Shelf) -> Any:
    """Return the app as `gr.Blocks`."""
    gr = require("gradio", extra="space", feature="`persyn space`")
    desk = Desk(shelf)
    with gr.Blocks(analytics_enabled=False, title="Who teaches what") as page:
        gr.HTML("<h1>Who teaches what, and why</h1>", elem_classes=["view"], apply_default_css=False, js_on_load=None)
        fault = gr.HTML(elem_classes=["view"], apply_default_css=False, js_on_load=None, visible=False)
        control = {name: gr.Textbox(desk.defaults[name], visible="hidden") for name in HIDDEN}
        control |= controls.common(gr, desk)
        tabs, opened, saves, shown = _tabs(gr, desk, control)
        _wire(gr, desk, page, control, tabs, opened, shown, fault)
        for kind, button in saves.items():
            _wire_save(gr, desk, kind, button, control)
    return page


def launch(shelf: Shelf, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the app until it is interrupted; nothing can be uploaded, and no file of the disk is served.

    Raises:
        PersynError: the port is taken.
    """
    gr = require("gradio", extra="space", feature="`persyn space`")
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page = build(shelf)
    try:
        _, address_of_page, _ = page.launch(
            server_name=host,
            server_port=port,
            theme=theme,
            css=pages.style(),
            footer_links=[],
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=1,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise PersynError(f"port {port} of {host} is taken or not allowed; name another with --port") from None
    sys.stdout.write(f"{len(shelf.assignments)} assignments are shown at {address_of_page} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    page.block_thread()


def _tabs(gr: Any, desk: Desk, control: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Make a tab per view with its controls, which are added to `control`.

    Returns:
        The tabs together, each tab by name, the download buttons by file type, and the HTML that is shown by name.
    """
    opened, saves, shown = {}, {}, {}
    made = {"allocation": controls.of_allocation, "prompts": controls.of_prompts, "whatif": controls.of_whatif}
    with gr.Tabs(selected=desk.defaults["view"]) as tabs:
        for name, title in VIEWS.items():
            with gr.Tab(title, id=name) as opened[name]:
                if name in made:
                    control |= made[name](gr, desk)
                js = OPEN if name == "prompts" else None
                shown[name] = gr.HTML(
                    elem_classes=["view"], apply_default_css=False, elem_id=f"view-{name}", js_on_load=js
                )
                if name == "prompts":
                    shown["opened"] = gr.HTML(
                        elem_classes=["view"], apply_default_css=False, elem_id="view-opened", js_on_load=None
                    )
                if name == "allocation":
                    with gr.Row():
                        saves = {
                            kind: gr.Button(f"Download {kind.upper()}", size="sm", scale=0) for kind in ("csv", "png")
                        }
    return tabs, opened, saves, shown


def _wire(
    gr: Any,
    desk: Desk,
    page: Any,
    control: dict[str, Any],
    tabs: Any,
    opened: dict[str, Any],
    shown: dict[str, Any],
    fault: Any,
) -> None:
    """Connect every control to what it changes, and the page to its address.

    Args:
        control: controls by their names in the address.
        opened: tabs by name.
        shown: HTML by name.
        fault: the HTML that says what is wrong with the address.
    """
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    inputs = [control[name] for name in DEFAULTS]
    outputs = {**shown, "page": control["page"], "prompt": control["prompt"]}
    read, fill, renew, clicked = _handlers(gr, desk)

    def show(*values: Any) -> list[Any]:
        """Return what changes on the page, for every output."""
        changes = desk.show(dict(zip(DEFAULTS, values, strict=True)))
        return [changes.get(name, gr.skip()) for name in outputs]

    def show_first(*values: Any) -> list[Any]:
        """Return what changes under another filter: its first page, with no prompt open."""
        start = {"page": 1, "prompt": ""}
        changes = start | desk.show(dict(zip(DEFAULTS, values, strict=True)) | start)
        return [changes.get(name, gr.skip()) for name in outputs]

    def write(event: Any) -> Any:
        """Put the state into the address after an event."""
        return event.then(None, inputs, None, js=url_state.WRITE % json.dumps(desk.defaults), **private)

    def follow(event: Any) -> Any:
        """Show the view after an event, then put the state into the address."""
        return write(event.then(show, inputs, [*outputs.values()], **private))

    follow(page.load(read, None, [*inputs, tabs, fault], **private)).then(None, js=SCROLL, **private)
    for name, tab in opened.items():
        event = tab.select(lambda name=name: name, None, control["view"], **private)
        if name == "prompts":
            event = event.then(fill, [control["view"], control["assignment"]], control["topic"], **private)
        follow(event)
    event = shown["prompts"].click(clicked, None, [control["prompt"], control["page"]], **private)
    follow(event).then(None, js=SCROLL, **private)
    lists = [control["teacher"], control["topic"]]
    changed = control["assignment"].input(renew, [control["view"], control["assignment"]], lists, **private)
    write(changed.then(show_first, inputs, [*outputs.values()], **private))
    for name, item in control.items():
        if name not in (*HIDDEN, "assignment"):
            listen, call = item.submit if name == "q" else item.input, show if name in KEEP_PLACE else show_first
            # while one is on its way the others wait, and of these the last is shown
            write(listen(call, inputs, [*outputs.values()], trigger_mode="always_last", **private))


def _handlers(gr: Any, desk: Desk) -> tuple[Callable[..., Any], ...]:
    """Return what fills the controls: at the start, in the tab of the prompts, for an assignment, after a click."""

    def read(request: gr.Request) -> list[Any]:
        """Return the values of all controls that the address asks for, the tab, and what is wrong with the address."""
        state, wrong = desk.read(dict(request.query_params))
        lists = {"teacher": any_of(desk.teachers(state["assignment"])), "topic": any_of([state["topic"]])}
        if state["view"] == "prompts":
            lists["topic"] = any_of(dict.fromkeys([*desk.topics(state["assignment"]), state["topic"]]))
        values = {name: gr.update(value=state[name], choices=lists[name]) for name in lists}
        return [
            *(values.get(name, state[name]) for name in DEFAULTS),
            gr.Tabs(selected=state["view"]),
            gr.update(value=wrong, visible=bool(wrong)),
        ]

    def fill(view: str, ref: str) -> Any:
        """Return the topics, read when they are first needed: for a million prompts that takes a moment."""
        return gr.update(choices=any_of(desk.topics(ref))) if view == "prompts" else gr.skip()

    def renew(view: str, ref: str) -> list[Any]:
        """Return the teachers and topics of another assignment, as choices."""
        names = desk.topics(ref) if view == "prompts" else []
        return [gr.update(choices=any_of(choices), value="") for choices in (desk.teachers(ref), names)]

    def clicked(event: gr.EventData) -> list[Any]:
        """Return the prompt that is opened and the page; a page that is turned closes the prompt."""
        prompt, number = event._data.get("prompt", ""), event._data.get("page")
        return [str(prompt), int(number) if number else gr.skip()]

    return read, fill, renew, clicked


def _wire_save(gr: Any, desk: Desk, kind: str, button: Any, control: dict[str, Any]) -> None:
    """Connect a download button. The file goes through the page: nothing is written to the disk for it."""
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    saved = gr.Textbox("", visible="hidden")

    def save(*values: Any) -> str:
        """Return the file's name and content as JSON."""
        return desk.save(dict(zip(DEFAULTS, values, strict=True)), kind)

    inputs = [control[name] for name in DEFAULTS]
    button.click(save, inputs, saved, **private).then(None, saved, None, js=SAVE, **private)
