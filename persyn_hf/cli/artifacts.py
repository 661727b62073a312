"""The commands `persyn artifacts ...`: what is stored, and what is on the Hub."""

import argparse
from typing import Any

from persyn_hf.cli import artifacts_export, artifacts_kept
from persyn_hf.cli.options import add_command, add_ref, open_store
from persyn_hf.console import new_console, say
from persyn_hf.errors import StoreError
from persyn_hf.text import one_line


def add(commands: Any) -> None:
    """Add `artifacts` with its commands to the subparsers `commands`."""
    text = "list, show, verify, compare, push, pull, export and remove artifacts"
    parts = commands.add_parser("artifacts", help=text).add_subparsers(required=True, metavar="COMMAND")
    artifacts_kept.add(parts)
    for name, command, text in (
        ("show", _show, "show an artifact and what it was made from"),
        ("verify", _verify, "check every digest from an artifact back to its prompts"),
    ):
        add_ref(add_command(parts, name, command, text, "tiny/quick-router-qwen-student@v1"))
    text = "show what differs between two artifacts; exit code 1: something does"
    diff = add_command(parts, "diff", _diff, text, "lab/study-rewards-small@v1 lab/study-rewards-small@v2")
    add_ref(diff, "old")
    add_ref(diff, "new")
    text = "publish artifacts on the Hugging Face Hub"
    examples = ("lab/study-router-small@v1 --dry-run", "lab/study-sft-small-persyn@v1 --lineage --private")
    push = add_command(parts, "push", _push, text, *examples)
    push.add_argument("--namespace", metavar="NAME", help="user or organisation (default: as the artifact is named)")
    push.add_argument("--private", action="store_true", default=None, help="make new repositories private")
    push.add_argument("--dry-run", action="store_true", help="list what would change on the Hub, change nothing")
    text = "bring artifacts from the Hugging Face Hub into the store"
    pull = add_command(parts, "pull", _pull, text, "lab/study-rewards-small@v1 --lineage")
    for transfer in (push, pull):
        add_ref(transfer, "refs", nargs="+", metavar="REF")
        transfer.add_argument("--lineage", action="store_true", help="everything they were made from, too")
    artifacts_export.add(parts)


def _show(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.show import drawing, rich, summary
    from persyn_hf.store.lineage import tree

    root = drawing(tree(open_store(arguments), arguments.ref))
    console = new_console(piped_width=2000)  # what is piped stays one line per artifact
    console.print(rich(root))
    for line in summary(root):
        say(line, console)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from persyn_hf.store.lineage import verify

    checked = verify(open_store(arguments), arguments.ref)
    for item in checked:
        say(f"ok {item.ref} {item.kind} {item.digest[:12]}{' on the Hub' if item.on_hub else ''}")
    say(f"verified {len(checked)} artifacts, every file of each" if checked[1:] else "verified, every file of it")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from persyn_hf.report.tables import Table
    from persyn_hf.store.diff import compare
    from persyn_hf.store.lineage import open_artifact

    store = open_store(arguments)
    refs = (arguments.old, arguments.new)
    old, new = (open_artifact(store, ref, whole=False) for ref in refs)
    if old.kind == new.kind and old.digest != new.digest:
        old, new = (open_artifact(store, ref) for ref in refs)  # now with their rows, for what is on the Hub
    parts, console = compare(old, new), new_console()
    for item in (old, new):
        say(f"{item.ref} {item.kind} {item.digest}", console)
    for part in parts:
        rows, header = [list(row) for row in part.rows], ["", "old", "new"]
        table = Table(name=part.title, title=part.title, header=header, rows=rows, note=part.note)
        console.print(table.rich(console.width))
    same = old.digest == new.digest
    say("same content" if same else "the content differs")
    return 0 if same else 1


def _push(arguments: argparse.Namespace) -> int:
    from persyn_hf.runner import publishing
    from persyn_hf.store.hub.login import check_rights, hub_api
    from persyn_hf.store.hub.push import push

    store, api = open_store(arguments), hub_api()
    chosen: dict[str, Any] = {}
    for ref in arguments.refs:
        stored = store.get(ref)
        if arguments.lineage:
            _add_ancestors(store, stored, chosen)
        chosen[stored.ref] = stored
    for namespace in {arguments.namespace or ref.partition("/")[0] for ref in chosen} if not arguments.dry_run else ():
        check_rights(api, namespace)
    for stored in chosen.values():
        options = {"namespace": arguments.namespace, "private": arguments.private, "dry_run": arguments.dry_run}
        with new_console().status(_plain(f"pushing {stored.ref}")):
            pushed = push(store, stored, **options, api=api)
        say(publishing.one_line(pushed, "would push" if arguments.dry_run else "pushed"))
        if arguments.dry_run:
            for name in pushed.added:
                say(f"  + {name}")
            for name in pushed.deleted:
                say(f"  - {name}")
    return 0


def _plain(text: str) -> Any:
    """Return a line for rich to draw as it is."""
    from rich.text import Text

    return Text(one_line(text))


def _add_ancestors(store: Any, stored: Any, chosen: dict[str, Any], above: tuple[str, ...] = ()) -> None:
    """Add the ancestors of an artifact to `chosen`, by ref, each after its own ancestors.

    Ancestors of other namespaces are left out: they belong to other people.
    """
    from persyn_hf.store.hub.as_published import input_ref
    from persyn_hf.store.lineage import check_above

    check_above(stored.ref, above)
    for ref in (input_ref(store, stored, item) for item in stored.manifest.inputs.values()):
        if ref not in chosen and ref.partition("/")[0] == stored.repo.partition("/")[0]:
            if not store.has(ref):
                raise StoreError(
                    f"{stored.ref} was made from {ref}, which is not in the store {store.root}; bring it there with "
                    f"`persyn artifacts pull {ref}`, or push without --lineage"
                )
            ancestor = store.get(ref)
            _add_ancestors(store, ancestor, chosen, (*above, stored.ref))
            chosen[ancestor.ref] = ancestor


def _pull(arguments: argparse.Namespace) -> int:
    from persyn_hf.store.hub.login import hub_api
    from persyn_hf.store.hub.pull import pull

    store, api = open_store(arguments), hub_api()
    for ref in arguments.refs:
        with (console := new_console()).status(_plain(f"pulling {ref}")):
            pull(store, ref, lineage=arguments.lineage, api=api, note=lambda text: say(text, console))
    return 0
