"""What `persyn_hf` exports: each name is there, documented in its arguments, typed, and imported late."""

import inspect
import re
import subprocess
import sys
from types import FunctionType

import pytest

import persyn_hf


FUNCTIONS = [name for name in persyn_hf.__all__ if isinstance(getattr(persyn_hf, name), FunctionType)]
OF_CLASSES = [persyn_hf.Router.predict, persyn_hf.Router.save, persyn_hf.Run.load, persyn_hf.Run.report]


def test_every_name_is_there_and_no_other() -> None:
    assert set(persyn_hf.__all__) <= set(dir(persyn_hf))
    assert len(FUNCTIONS) >= 12
    with pytest.raises(AttributeError, match="module 'persyn_hf' has no attribute 'learnabilty'"):
        persyn_hf.learnabilty  # noqa: B018
    with pytest.raises(ImportError):
        from persyn_hf import nothing  # noqa: F401


@pytest.mark.parametrize("function", [*(getattr(persyn_hf, name) for name in FUNCTIONS), *OF_CLASSES])
def test_every_argument_is_typed_and_named_in_the_docstring(function: FunctionType) -> None:
    signature = inspect.signature(function)
    words = set(re.findall(r"\w+", inspect.getdoc(function) or ""))
    for name, parameter in signature.parameters.items():
        if name != "self":
            assert parameter.annotation is not parameter.empty, name
            assert name in words, name
    assert signature.return_annotation is not signature.empty


def test_pure_functions_load_no_model_library() -> None:
    code = (
        "import persyn_hf, sys\n"
        "rows = [{'prompt': 'p', 'teacher': t, 'quality': q, 'learnability': -1.0} for t, q in (('a', 1), ('b', 0))]\n"
        "persyn_hf.pairs(persyn_hf.rewards(rows), rows)\n"
        "persyn_hf.grade, persyn_hf.learnability, persyn_hf.train_router, persyn_hf.run\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'vllm', 'ray', 'gradio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
