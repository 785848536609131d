"""torch.export and torch.compile see one graph, whatever the batch and the size of the images."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.export import Dim

from model_helpers import build, config, noise, relative_error
from vision_longformer import Full, GlobalOnly, Linformer, ModelConfig, Performer, SpatialReduction, Windowed
from vision_longformer.attention import rowwise


def shallow(*attention: Any, **options: Any) -> ModelConfig:
    """Return three stages of one block each: tracing takes its time block by block."""
    base = config(*attention, **{"num_global_tokens": (1, 2, 0), **options})
    return dataclasses.replace(base, stages=tuple(dataclasses.replace(stage, depth=1) for stage in base.stages))


WINDOWED = Windowed(window_size=2)
TRACED = {
    "windowed": shallow(WINDOWED, Windowed(window_size=2, shape="exact"), WINDOWED, position="absolute"),
    "full": shallow(WINDOWED, Full(), GlobalOnly(), num_global_tokens=(1, 2, 3)),
    "others": shallow(Linformer(num_features=5), SpatialReduction(ratio=3), Performer(num_features=7), position="none"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export_with_any_batch_and_size(name: str) -> None:
    model = build(TRACED[name])
    dynamic = {"images": {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    with torch.no_grad():
        program = torch.export.export(model, (noise(2, 3, 61, 88),), dynamic_shapes=dynamic)
        for batch, height, width in ((1, 61, 89), (3, 31, 46), (5, 104, 53)):
            images = noise(batch, 3, height, width)
            assert relative_error(program.module()(images), model(images)) <= 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    model = build(TRACED[name])
    compiled = torch.compile(model, backend="eager", dynamic=True, fullgraph=True)
    with torch.no_grad():
        for batch, height, width in ((2, 61, 88), (3, 31, 46)):
            images, valid = noise(batch, 3, height, width), noise(batch, height, width, seed=5) > -1
            sizes = torch.tensor([[height, width - 7], [height - 11, 13], [3, 5]])[:batch]
            expected = model(images, image_sizes=sizes, valid=valid)
            assert relative_error(compiled(images, image_sizes=sizes, valid=valid), expected) <= 1e-12


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_twenty_sizes_need_at_most_two_compilations() -> None:
    """Maps of more than one token a side, that is: the compiler takes a size of 1 for one of its own."""
    torch.compiler.reset()
    model = build(TRACED["windowed"])
    graphs: list[torch.fx.GraphModule] = []
    sizes = [(13 + 29 * number % 101, 17 + 37 * number % 97) for number in range(20)]

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, backend=count, dynamic=True, fullgraph=True)
    with torch.no_grad():
        for height, width in sizes:
            images = noise(1, 3, height, width)
            assert relative_error(compiled(images), model(images)) <= 1e-12
    assert 1 <= len(graphs) <= 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_what_is_recorded_of_a_large_map_holds_for_other_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops over tokens, which spare memory in inference, would be recorded for one number of them."""
    model = build(shallow(WINDOWED, WINDOWED, WINDOWED, position="relative"))
    with torch.no_grad():
        images = noise(1, 3, 104, 53)
        expected = model(images)
        monkeypatch.setattr(rowwise, "CHUNK_TOKENS", 50)
        monkeypatch.setattr(rowwise, "KEPT_BYTES", 1000)
        traced = torch.jit.trace(model, (noise(1, 3, 61, 88),), check_trace=False)
        assert relative_error(traced(images), expected) <= 1e-12
