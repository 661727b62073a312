"""Write and read the arrays of a router in its folder, as safetensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from persyn_hf.errors import InputError


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by their names."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def read(path: Path) -> dict[str, np.ndarray]:
    """Read arrays by their names. Raises `InputError` where the file is missing or damaged."""
    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except OSError as error:
        raise InputError(f"the router in {path.parent} lacks a file ({error}); fetch it again") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); fetch the router again") from None
    return arrays
