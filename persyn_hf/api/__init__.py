"""The public Python functions, which `persyn_hf` exports by name: thin doors to what stages, core and runner do.

Tables come in as `tables` reads them and go out as `datasets.Dataset` of the contracts in `persyn_hf.schemas`. No
function prints, and each that takes long shows bars with `progress=True`.
"""
