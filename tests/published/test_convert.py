"""Checkpoints of the published code become models, and `vil convert` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from attention.cases import relative_error
from golden.fill import fill
from vil import main
from vision_longformer.config import Attention, Full, GlobalOnly, Linformer, Performer, SpatialReduction, Windowed
from vision_longformer.published.checkpoint_file import load_reference_checkpoint
from vision_longformer.published.convert import convert, model_from_reference, table_by_offset, to_windowed
from vision_longformer.published.parse import (
    ReferenceOptions,
    ReferenceStage,
    parse_architecture,
)
from vision_longformer.variants import CONFIGS
from vision_longformer.weights import load

ARCH = "l1,h2,d16,n1,s1,g2,p4,f2,a0_l2,h2,d24,n2,s0,g1,p2,f3,a0_l3,h2,d32,n1,s0,g0,p2,f3,a0"
SIZE = 48
PUBLISHED = {
    "tiny": "l1,h1,d48,n1,s1,g1,p4,f7_l2,h3,d96,n1,s1,g1,p2,f7_l3,h3,d192,n9,s0,g1,p2,f7_l4,h6,d384,n1,s0,g0,p2,f7",
    "small": "l1,h3,d96,n1,s1,g1,p4,f7_l2,h3,d192,n2,s1,g1,p2,f7_l3,h6,d384,n8,s0,g1,p2,f7_l4,h12,d768,n1,s0,g0,p2,f7",
}


def mechanism_shapes(prefix: str, kind: str, stage: ReferenceStage, *, grid: int) -> dict[str, tuple[int, ...]]:
    """Return the entries of one attention layer that are no linear layers."""
    width, heads, num_global = stage.width, stage.heads, stage.global_tokens
    match kind:
        case "linformer":
            return dict.fromkeys((f"{prefix}proj_k", f"{prefix}proj_v"), (num_global + grid**2, stage.window))
        case "srformer":
            return {f"{prefix}proj_sr.weight": (width, width, stage.window, stage.window)}
        case "performer":
            return {f"{prefix}fast_attention.projection_matrix": (stage.window, width // heads)}
    if stage.absolute:
        return {}
    side = 2 * grid - 1 if kind == "full" else 4 * stage.window - 1
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}local_relative_position_bias_table": (side**2, heads),
        f"{prefix}relative_position_index": (5,),
    }
    if num_global:
        shapes[f"{prefix}g2l_relative_position_bias"] = (2, heads, num_global)
        shapes[f"{prefix}g2g_relative_position_bias"] = (heads, num_global, num_global)
    return shapes


def reference_state(arch: str, *, size: int, options: ReferenceOptions | None = None) -> dict[str, Tensor]:
    """Return a state dict with the published names, filled by name."""
    options = options or ReferenceOptions()
    shapes: dict[str, tuple[int, ...]] = {}
    repeated: dict[str, str] = {}
    in_chans, grid = 3, size
    for stage in parse_architecture(arch):
        grid //= stage.patch
        width, num_global = stage.width, stage.global_tokens
        first = f"layer{stage.stage}.0."
        shapes[f"{first}proj.weight"] = (width, in_chans, stage.patch, stage.patch)
        shapes[f"{first}proj.bias"] = (width,)
        if options.norm_embed:
            shapes |= dict.fromkeys((f"{first}norm_embed.weight", f"{first}norm_embed.bias"), (width,))
        if num_global:
            shapes[f"{first}cls_token"] = (1, num_global, width)
        if stage.absolute:
            shapes[f"{first}cls_pos_embed"] = (1, num_global, width)
            shapes |= dict.fromkeys((f"{first}x_pos_embed", f"{first}y_pos_embed"), (1, grid, width // 2))
        full = not stage.use_attn_type or options.attn_type == "full"
        for block in range(stage.blocks):
            attention, mlp = f"layer{stage.stage}.{2 * block + 1}.", f"layer{stage.stage}.{2 * block + 2}."
            kind = "full" if full else options.attn_type
            joined = kind in ("full", "performer")
            linear = {"qkv": 3, "proj": 1} if joined else {"query": 1, "kv": 2, "proj": 1}
            for name, times in linear.items():
                for suffix in ("", "_global") if num_global and kind.startswith("longformer") else ("",):
                    layer = f"{attention}attn.{name}{suffix}"
                    shapes |= {f"{layer}.weight": (times * width, width), f"{layer}.bias": (times * width,)}
                    if suffix and options.sharew:
                        repeated |= {f"{layer}.{k}": f"{attention}attn.{name}.{k}" for k in ("weight", "bias")}
            shapes |= mechanism_shapes(f"{attention}attn.", kind, stage, grid=grid)
            if kind == "linformer" and options.share_kv:
                repeated[f"{attention}attn.proj_v"] = f"{attention}attn.proj_k"
            for layer, size_out, size_in in (("fc1", 4 * width, width), ("fc2", width, 4 * width)):
                shapes |= {f"{mlp}mlp.{layer}.weight": (size_out, size_in), f"{mlp}mlp.{layer}.bias": (size_out,)}
            for norm in (f"{attention}norm", f"{mlp}norm"):
                shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        in_chans = width
    shapes |= {"norm.weight": (in_chans,), "norm.bias": (in_chans,)}
    shapes |= {"head.weight": (options.num_classes, in_chans), "head.bias": (options.num_classes,)}
    return {name: fill(repeated.get(name, name), shape) for name, shape in shapes.items()}


OPTIONS = ReferenceOptions(num_classes=5)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return reference_state(ARCH, size=SIZE, options=OPTIONS)


# --- checkpoints that fit ----------------------------------------------------------------------------------------


def test_every_entry_is_accounted_for(state: dict[str, Tensor]) -> None:
    model, report = convert(state, ARCH, image_size=SIZE, options=OPTIONS)
    accounted = {old for old, _ in report.renamed} | set(report.derived)
    assert accounted == set(state)
    assert {new for _, new in report.renamed} == set(model.state_dict())
    assert all("relative_position_index" in name or "_global." in name for name in report.derived)


def test_names_decide_what_a_stage_is(state: dict[str, Tensor]) -> None:
    arch = ARCH.replace("s0", "s1")  # the string says windowed where the checkpoint holds full attention
    model = model_from_reference(state, arch, image_size=SIZE, num_classes=5)
    kinds = [type(stage.attention) for stage in model.config.stages]
    assert kinds == [Windowed, Full, Full]


def test_options_are_carried_over() -> None:
    options = ReferenceOptions(num_classes=5, sw_exact=-1, mode=3, sharew=False, avg_pool=True, norm_embed=False)
    arch = ARCH.replace("s0", "s1").replace("g0", "g1")
    state = reference_state(arch, size=SIZE, options=options)
    config = convert(state, arch, image_size=SIZE, options=options)[0].config
    expected = Windowed(window_size=2, shape="cyclic", neighbours="random", shared_global_projections=False)
    assert config.stages[0].attention == expected
    assert (config.global_pool, config.norm_embed) == ("avg", False)

    options = ReferenceOptions(num_classes=5, only_glo=True)
    config = convert(reference_state(arch, size=SIZE, options=options), arch, image_size=SIZE, options=options)[
        0
    ].config
    assert all(stage.attention == GlobalOnly() for stage in config.stages)
    assert config.global_pool == "token"


def test_prefix_and_net_entry_are_removed(state: dict[str, Tensor]) -> None:
    wrapped = {"net": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    first = model_from_reference(wrapped, ARCH, image_size=SIZE, num_classes=5).state_dict()
    second = model_from_reference(state, ARCH, image_size=SIZE, num_classes=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in second)


# --- the mechanisms of the comparison ----------------------------------------------------------------------------

MECHANISMS: dict[str, tuple[dict[str, Any], Attention]] = {
    "linformer": ({"attn_type": "linformer"}, Linformer(num_features=2)),
    "linformer of two": ({"attn_type": "linformer", "share_kv": False}, Linformer(2, shared_projection=False)),
    "spatial reduction": ({"attn_type": "srformer"}, SpatialReduction(ratio=2)),
    "performer": ({"attn_type": "performer"}, Performer(num_features=2)),
}


def mechanism_state(name: str, *, arch: str = ARCH) -> dict[str, Tensor]:
    return reference_state(arch, size=SIZE, options=ReferenceOptions(num_classes=5, **MECHANISMS[name][0]))


@pytest.mark.parametrize("absolute", [0, 1])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_and_every_entry_of_it(name: str, absolute: int) -> None:
    arch = ARCH.replace("a0", f"a{absolute}")
    state = mechanism_state(name, arch=arch)
    settings, attention = MECHANISMS[name]
    options = ReferenceOptions(num_classes=5, **settings)
    model, report = convert(state, arch, image_size=SIZE, options=options)
    assert [stage.attention for stage in model.config.stages] == [attention, Full(), Full()]
    without, biased = ("absolute", "absolute") if absolute else ("none", "relative")  # no biases, so no tables
    assert [stage.position for stage in model.config.stages] == [without, biased, biased]
    assert {old for old, _ in report.renamed} | set(report.derived) == set(state)
    drawn = {key for key in model.state_dict() if key.endswith("draws")}  # no part of a published checkpoint
    assert {new for _, new in report.renamed} == set(model.state_dict()) - drawn
    assert len(drawn) == (name == "performer")
    assert model(torch.randn(1, 3, SIZE, SIZE)).isfinite().all()


def test_entries_of_a_mechanism_land_where_they_belong() -> None:
    old, new = "layer1.1.attn.", "stages.0.blocks.0.attn."
    joined = {
        "projections.qkv.weight": ("query.weight", "kv.weight"),
        "projections.qkv.bias": ("query.bias", "kv.bias"),
    }
    moved: dict[str, dict[str, tuple[str, ...]]] = {
        "linformer": {"key_features": ("proj_k",), "projections.proj.weight": ("proj.weight",), **joined},
        "linformer of two": {"key_features": ("proj_k",), "value_features": ("proj_v",), **joined},
        "spatial reduction": {
            "query.weight": ("query.weight",),
            "key_value.weight": ("kv.weight",),
            "key_value.bias": ("kv.bias",),
            "reduction.weight": ("proj_sr.weight",),
            "proj.bias": ("proj.bias",),
        },
        "performer": {
            "projection": ("fast_attention.projection_matrix",),
            "projections.qkv.weight": ("qkv.weight",),
            "projections.proj.bias": ("proj.bias",),
        },
    }
    for name, entries in moved.items():
        state = mechanism_state(name)
        model = model_from_reference(state, ARCH, image_size=SIZE, num_classes=5, **MECHANISMS[name][0])
        for target, sources in entries.items():
            expected = torch.cat([state[f"{old}{source}"] for source in sources])
            assert torch.equal(model.state_dict()[f"{new}{target}"], expected), (name, target)


@pytest.mark.parametrize("name", MECHANISMS)
def test_names_decide_what_a_stage_is_whatever_attn_type_says(name: str) -> None:
    settings, attention = MECHANISMS[name]
    settings = {key: value for key, value in settings.items() if key != "attn_type"}
    state = mechanism_state(name)
    wrapped = {"net": {f"module.{key}": tensor for key, tensor in state.items()}}
    for attn_type in ("longformerhand", "full", "performer", "srformer"):
        model = model_from_reference(wrapped, ARCH, image_size=SIZE, num_classes=5, attn_type=attn_type, **settings)
        assert [stage.attention for stage in model.config.stages] == [attention, Full(), Full()]
    model = model_from_reference(state, ARCH.replace("s1", "s0"), image_size=SIZE, num_classes=5, **settings)
    assert model.config.stages[0].attention == attention


def test_two_matrices_of_linformer_need_their_option() -> None:
    state = mechanism_state("linformer of two")
    with pytest.raises(
        ValueError, match=r"unequal: layer1\.1\.attn\.proj_v and layer1\.1\.attn\.proj_k .*share_kv=False"
    ):
        model_from_reference(state, ARCH, image_size=SIZE, num_classes=5)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("linformer", r"misshapen: layer1\.1\.attn\.proj_k is \(146, 2\), expected \(146, 3\)"),
        ("spatial reduction", r"layer1\.1\.attn\.proj_sr\.weight is \(16, 16, 2, 2\), expected \(16, 16, 3, 3\)"),
        ("performer", r"attn\.fast_attention\.projection_matrix is \(2, 8\), expected \(3, 8\)"),
    ],
)
def test_another_size_of_a_mechanism_is_refused(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        model_from_reference(mechanism_state(name), ARCH.replace("f2", "f3"), image_size=SIZE, num_classes=5)


# --- checkpoints that do not fit ---------------------------------------------------------------------------------


def test_every_problem_is_listed(state: dict[str, Tensor]) -> None:
    del state["layer2.1.attn.qkv.bias"]
    state["layer1.1.norm.weight"] = torch.ones(7)
    state["layer9.strange"] = torch.ones(2)
    with pytest.raises(ValueError, match="does not fit") as raised:
        model_from_reference(state, ARCH, image_size=SIZE, num_classes=5)
    assert str(raised.value).split("\n")[1:] == [
        "  misshapen: layer1.1.norm.weight is (7,), expected (16,)",
        "  missing: layer2.1.attn.qkv.bias (72,)",
        "  unexpected: layer9.strange (2,)",
    ]


def test_wrong_image_size_is_hinted_at(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"sized by the image size .* given as \(64, 64\)"):
        model_from_reference(state, ARCH, image_size=64, num_classes=5)


def test_shared_tensors_must_be_equal(state: dict[str, Tensor]) -> None:
    state["layer1.1.attn.kv_global.weight"] += 1
    with pytest.raises(ValueError, match=r"unequal: layer1\.1\.attn\.kv_global\.weight .* sharew=False"):
        model_from_reference(state, ARCH, image_size=SIZE, num_classes=5)


def test_what_is_no_state_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="epoch: expected a tensor, got int"):
        model_from_reference({"epoch": 3}, ARCH, image_size=SIZE)


def test_unknown_option() -> None:
    with pytest.raises(TypeError, match="window"):
        model_from_reference({}, ARCH, image_size=SIZE, window=3)


# --- full attention turned into windowed attention ---------------------------------------------------------------


@pytest.mark.parametrize("absolute", [0, 1])
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_published_and_windowed_forms_agree_at_224(name: str, absolute: int) -> None:
    arch = "_".join(f"{stage},a{absolute}" for stage in PUBLISHED[name].split("_"))
    state = reference_state(arch, size=224)
    suffix = "_ape" if absolute else ""
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    logits = []
    for windowed, form in ((False, "_full"), (True, "")):
        model = model_from_reference(state, arch, image_size=224, windowed=windowed)
        assert model.config == CONFIGS[f"vision_longformer_{name}{suffix}{form}"]
        with torch.inference_mode():
            logits.append(model.double()(images))
    assert relative_error(logits[1], logits[0]) <= 1e-12


def test_offsets_keep_their_bias() -> None:
    table = torch.randn(9 * 7, 2)  # of maps of 5×4: Δr from −4 to 4, Δc from −3 to 3
    windowed = table_by_offset(table, (5, 4), 2).view(7, 7, 2)  # Δ from −3 to 3
    assert torch.equal(windowed, table.view(9, 7, 2)[1:8])
    larger = table_by_offset(table, (5, 4), 3).view(11, 11, 2)  # Δ from −5 to 5
    assert torch.equal(larger[1:10, 2:9], table.view(9, 7, 2))
    assert torch.equal(larger[0], larger[1])
    assert torch.equal(larger[:, 10], larger[:, 8])


def test_stretched_tables_are_an_option(state: dict[str, Tensor]) -> None:
    model = model_from_reference(state, ARCH, image_size=SIZE, num_classes=5)
    tables = [to_windowed(model, window_sizes=[2, 3, 3], stretch_tables=stretch) for stretch in (False, True)]
    name = "stages.1.blocks.0.attn.position.table"
    original = fill("layer2.1.attn.local_relative_position_bias_table", (11**2, 2))
    assert torch.equal(tables[0].state_dict()[name], original)  # 6×6 tokens are just what w = 3 covers
    assert tables[1].state_dict()[name].shape == (11**2, 2)
    stretched = tables[1].state_dict()["stages.2.blocks.0.attn.position.table"].view(11, 11, 2)
    assert not torch.equal(stretched, tables[0].state_dict()["stages.2.blocks.0.attn.position.table"].view(11, 11, 2))
    assert model.config.stages[1].attention == Full()  # not changed


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(state: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"net": state}, tmp_path / "model_best.pth")
    return tmp_path / "model_best.pth"


def vil_convert(checkpoint: Path, output: str, *options: str) -> int:
    common = ["--arch", ARCH, "--image-size", str(SIZE), "--num-classes", "5"]
    return main(["convert", str(checkpoint), *common, "--output", str(checkpoint.parent / output), *options])


def test_convert_writes_a_self_describing_file(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, report = checkpoint.parent / "names.txt", checkpoint.parent / "report.json"
    names.write_text("a\nb\nc\nd\ne\n")
    code = vil_convert(
        checkpoint, "out.safetensors", "--class-names", str(names), "--report", str(report), "--windowed"
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "(1 of them resized)" in printed
    assert "resized stages.2.blocks.0.attn.position.table: for 3×3 tokens, fitted to windows of 3" in printed
    assert "stages.1" not in printed  # 6×6 tokens are just what w = 3 covers
    model = load(checkpoint.parent / "out.safetensors")
    assert model.pretrained_cfg["label_names"] == list("abcde")
    assert all(isinstance(stage.attention, Windowed) for stage in model.config.stages)
    assert ["layer1.0.cls_token", "stages.0.patch_embed.global_tokens"] in json.loads(report.read_text())["renamed"]


def test_convert_to_a_folder_that_timm_reads(checkpoint: Path) -> None:
    assert vil_convert(checkpoint, "hub") == 0
    model = timm.create_model(f"local-dir:{checkpoint.parent / 'hub'}", pretrained=True).eval()
    expected = model_from_reference(load_reference_checkpoint(checkpoint), ARCH, image_size=SIZE, num_classes=5)
    images = torch.randn(1, 3, 50, 30)
    assert torch.equal(model(images), expected(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-classes", "7"], "misshapen: head.weight is (5, 32), expected (7, 32)"),
        (["--arch", "l1,z9"], "'z9' in stage 1 is not a letter and a number"),
        (["--attn-type", "nonsense"], "attn_type='nonsense'"),
        (["--class-names", "absent.txt"], "absent.txt"),
    ],
)
def test_convert_explains_failure_and_writes_nothing(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert vil_convert(checkpoint, "out.safetensors", *options) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model_best.pth"]
