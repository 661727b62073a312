"""One vLLM server over several nodes: what it is started with, by vLLM's own parser, and how many GPUs it needs."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.backends.engines.ray_cluster import check_gpus
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.vllm import VllmEngine
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages.generate import settings as generate


R1 = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def vllm(**values: Any) -> VllmSettings:
    found: VllmSettings = read_section(VllmSettings, values, "generate.vllm")
    return found


def test_the_arguments(zoo: Path, tmp_path: Path) -> None:
    engine = VllmEngine(str(zoo / "llama-long"), settings=vllm(**R1), log_dir=tmp_path)
    assert engine.gpus == 16
    assert engine.kind == "vllm/auto", "where an engine runs is no part of its answers"
    arguments = engine._arguments()
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    sizes = {"--tensor-parallel-size": "8", "--pipeline-parallel-size": "2", "--data-parallel-size": "1"}
    assert sizes.items() <= given.items()
    assert given["--distributed-executor-backend"] == "ray"
    alone = VllmEngine(str(zoo / "llama-long"), settings=vllm(), log_dir=tmp_path)._arguments()
    assert not {"--pipeline-parallel-size", "--distributed-executor-backend"} & {*alone}


@needs_vllm
def test_vllm_reads_the_arguments_as_they_are_meant(heavy: None, zoo: Path, tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = VllmEngine(str(zoo / "llama-long"), settings=vllm(**R1), log_dir=tmp_path)._arguments()
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args([*arguments, "--host", "127.0.0.1", "--port", "1"])
    engine = AsyncEngineArgs.from_cli_args(parsed)
    assert (engine.tensor_parallel_size, engine.pipeline_parallel_size, engine.data_parallel_size) == (8, 2, 1)
    assert engine.distributed_executor_backend == "ray"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"pipeline_parallel_size": 2, "args": ["-pp=4"]},
            "generate.vllm: `args` holds --pipeline-parallel-size, and `pipeline_parallel_size` is set; leave it out "
            "of `args`",
        ),
        (
            {"distributed_executor_backend": "ray", "data_parallel_size": 2},
            "generate.vllm: a server over nodes of a Ray cluster holds one copy of the model, got data_parallel_size "
            "2; set it to 1, or leave `distributed_executor_backend` out",
        ),
        (
            {"distributed_executor_backend": "mp"},
            "generate.vllm.distributed_executor_backend: input should be 'ray', got 'mp'",
        ),
    ],
)
def test_what_contradicts_itself(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        vllm(**values)
    assert str(error.value) == message


def test_executors_that_cannot_run_a_teacher() -> None:
    over_nodes = Teacher(name="r1", model="x/r1", vllm=R1)
    for engine, executor, teacher, message in (
        (
            "vllm",
            {"kind": "ray"},
            over_nodes,
            "the teacher `r1` is to run over nodes of a Ray cluster (`vllm.distributed_executor_backend`), and "
            "`generate.executor` runs it on single nodes; leave one out",
        ),
        (
            "transformers",
            {"kind": "slurm"},
            Teacher(name="a", model="x/a"),
            "`generate.executor` is of kind slurm, which runs servers of vLLM, and the teacher `a` is asked by the "
            "engine `transformers`; set `generate.engine: vllm`, or leave `executor` out",
        ),
    ):
        settings = read_section(generate.Settings, {"engine": engine, "executor": executor}, "generate")
        with pytest.raises(RecipeError) as error:
            generate.check(settings, (teacher,))
        assert str(error.value) == message


@needs_ray
def test_a_cluster_with_fewer_gpus_is_one_sentence(heavy: None) -> None:
    import ray

    ray.init(address="local", num_cpus=1, num_gpus=8, include_dashboard=False, log_to_driver=False)
    try:
        check_gpus(8, "the teacher r1")
        with pytest.raises(EngineError) as error:
            check_gpus(16, "the teacher r1")
    finally:
        ray.shutdown()
    assert str(error.value) == (
        "the server of the teacher r1 needs 16 GPUs (tensor x pipeline parallel size), and the Ray cluster of this "
        "node has 8 (1 node); add nodes with `ray start --address HEAD:6379`, or lower `vllm.tensor_parallel_size`"
    )
