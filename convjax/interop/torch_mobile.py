"""What torchvision, timm and EfficientNet-PyTorch call the modules of networks of inverted residuals."""

import re
from collections.abc import Callable

from convjax.interop.rules import UNIT, Place, Rules
from convjax.models import EfficientNet, MobileNetV2, MobileNetV3
from convjax.models.mobilenet_v2 import STAGES


def mobilenet_v2(model: MobileNetV2, modules: frozenset[str]) -> Rules:
    before = [sum(blocks for _, _, blocks, _ in STAGES[:i]) for i in range(len(STAGES))]

    def inside(stage: int, i: int, part: str, kind: str) -> str:
        at = _position(modules, f"stage{stage}_block{i}", part)
        # The projection has no activation: torchvision leaves convolution and norm to the block itself.
        unit = str(at + UNIT[kind]) if part == "project" else f"{at}.{UNIT[kind]}"
        return f"features.{before[stage - 1] + i}.conv.{unit}"

    return {
        r"stem/(\w+)": lambda kind: f"features.0.{UNIT[kind]}",
        r"stage(\d+)_block(\d+)/(\w+)/(\w+)": inside,
        r"last/(\w+)": lambda kind: f"features.18.{UNIT[kind]}",
        "head/dense": "classifier.1",
    }


def mobilenet_v3(model: MobileNetV3, modules: frozenset[str]) -> Rules:
    blocks = len({m.split("/")[0] for m in modules if m.startswith("block")})

    def inside(i: int, part: str, kind: str) -> str:
        return f"features.{i}.block.{_position(modules, f'block{i}', part)}.{_inner(kind)}"

    return {
        r"stem/(\w+)": lambda kind: f"features.0.{UNIT[kind]}",
        r"block(\d+)/(\w+)/(\w+)": inside,
        r"last/(\w+)": lambda kind: f"features.{blocks + 1}.{UNIT[kind]}",
        "dense": "classifier.0",
        "head": "classifier.3",
    }


def efficientnet(model: EfficientNet, modules: frozenset[str]) -> Rules:
    def inside(stage: int, i: int, part: str, kind: str) -> str:
        at = _position(modules, f"stage{stage}_block{i}", part)
        return f"features.{stage}.{i - 1}.block.{at}.{_inner(kind)}"

    return {
        r"stem/(\w+)": lambda kind: f"features.0.{UNIT[kind]}",
        r"stage(\d+)_block(\d+)/(\w+)/(\w+)": inside,
        r"last/(\w+)": lambda kind: f"features.8.{UNIT[kind]}",
        "head/dense": "classifier.1",
    }


def timm_mobilenet_v2(model: MobileNetV2, modules: frozenset[str]) -> Rules:
    return _timm(modules)


def timm_efficientnet(model: EfficientNet, modules: frozenset[str]) -> Rules:
    return _timm(modules)


def timm_mobilenet_v3(model: MobileNetV3, modules: frozenset[str]) -> Rules:
    # Stages as the paper's tables divide them by channels; the last 1x1 convolution is one by itself.
    sizes = (1, 2, 3, 4, 2, 3) if model.size == "large" else (1, 2, 3, 2, 3)
    blocks = [(stage, i) for stage, size in enumerate(sizes, start=1) for i in range(1, size + 1)]
    names = {f"block{at}": f"stage{stage}_block{i}" for at, (stage, i) in enumerate(blocks, start=1)}
    staged = frozenset(re.sub(r"^block\d+", lambda match: names[match[0]], m) for m in modules)
    inside = _timm_inside(staged)
    return {
        "stem/conv": "conv_stem",
        "stem/norm": "bn1",
        r"block(\d+)/(\w+)/(\w+)": lambda at, *parts: inside(*blocks[at - 1], *parts),
        r"last/(\w+)": lambda kind: f"blocks.{len(sizes)}.0.{ {'conv': 'conv', 'norm': 'bn1'}[kind] }",
        "dense": Place("conv_head", "pixel"),
        "head": "classifier",
    }


def _timm(modules: frozenset[str]) -> Rules:
    return {
        "stem/conv": "conv_stem",
        "stem/norm": "bn1",
        r"stage(\d+)_block(\d+)/(\w+)/(\w+)": _timm_inside(modules),
        "last/conv": "conv_head",
        "last/norm": "bn2",
        "head/dense": "classifier",
    }


def _timm_inside(modules: frozenset[str]) -> Callable[[int, int, str, str], str]:
    """Returns the function from stage, block, part and kind to a module's name."""

    def inside(stage: int, i: int, part: str, kind: str) -> str:
        block = f"blocks.{stage - 1}.{i - 1}"
        if part == "squeeze_excite":
            return f"{block}.se.{ {'squeeze': 'conv_reduce', 'excite': 'conv_expand'}[kind] }"
        expands = f"stage{stage}_block{i}/expand/conv" in modules
        parts = ("expand", "depthwise", "project") if expands else ("depthwise", "project")
        names = ("conv_pw", "conv_dw", "conv_pwl") if expands else ("conv_dw", "conv_pw")
        at = parts.index(part)
        return f"{block}.{names[at] if kind == 'conv' else f'bn{at + 1}'}"

    return inside


def lukemelas_efficientnet(model: EfficientNet, modules: frozenset[str]) -> Rules:
    blocks = sorted({(int(stage), int(i)) for m in modules for stage, i in re.findall(r"^stage(\d+)_block(\d+)/", m)})
    names = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    excitations = {"squeeze": "_se_reduce", "excite": "_se_expand"}

    def inside(stage: int, i: int, part: str, kind: str) -> str:
        name = excitations[kind] if part == "squeeze_excite" else (names if kind == "conv" else norms)[part]
        return f"_blocks.{blocks.index((stage, i))}.{name}"

    return {
        "stem/conv": "_conv_stem",
        "stem/norm": "_bn0",
        r"stage(\d+)_block(\d+)/(\w+)/(\w+)": inside,
        "last/conv": "_conv_head",
        "last/norm": "_bn1",
        "head/dense": "_fc",
    }


def _position(modules: frozenset[str], block: str, part: str) -> int:
    """Returns how many parts precede `part` in an inverted residual: the first and the third may be missing."""
    parts = ("expand", "depthwise", "squeeze_excite", "project")
    there = [p for p in parts if any(m.startswith(f"{block}/{p}/") for m in modules)]
    return there.index(part)


def _inner(kind: str) -> str:
    """Returns the name inside of a block's part: a convolution with its norm, or squeeze-and-excitation."""
    return {"squeeze": "fc1", "excite": "fc2"}.get(kind) or str(UNIT[kind])
