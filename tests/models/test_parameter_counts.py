import pytest
from small_models import parameter_count

from convjax.models import MODELS, CifarResNet, create

PUBLISHED = {
    # 784 * 512 + 512 * 512 weights, 4 * 512 of the norms, 512 * 10 + 10 of the head
    "mlp": 670_730,
    # LeCun et al. 1998, with C3 connected to all maps: 156 + 2,416 + 48,120 + 10,164 + 850
    "lenet5": 61_706,
    # He et al. 2015, table 6: 0.27M, 0.46M, 0.66M, 0.85M and 1.7M; the plain networks have no shortcuts to
    # count, and those of option A have no parameters
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "plain20": 269_722,
    "plain32": 464_154,
    "plain44": 658_586,
    "plain56": 853_018,
    "plain110": 1_727_962,
    # torchvision.models
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet": 6_624_904,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_large": 5_483_032,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    # timm: legacy_seresnet18 to 152, resnetv2_50 to 152, tf_efficientnet_lite0 to 4
    "seresnet18": 11_778_592,
    "seresnet34": 21_958_868,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "resnetv2_50": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnetv2_152": 60_185_128,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    # Zagoruyko and Komodakis 2016, tables 4 and 5: 11.0M and 36.5M
    "wide_resnet16_8": 10_961_370,
    "wide_resnet28_10": 36_479_194,
    # He et al. 2016: as many as after the activation, since two norms of the same width change places
    "resnetv2_20": 269_722,
    "resnetv2_32": 464_154,
    "resnetv2_44": 658_586,
    "resnetv2_56": 853_018,
    "resnetv2_110": 1_727_962,
    # He et al. 2016: 1.7M and 10.2M; exactly as in test_bottleneck_resnet_v2_by_hand
    "resnetv2_164": 1_703_258,
    "resnetv2_1001": 10_327_706,
    # Keller Jordan's airbench94 has 1,972,792, of which 1,152 are norm scales fixed at one
    "airbench94": 1_972_792 - 1_152,
    # Huang et al. 2016, table 2: 0.8M
    "densenet_bc_100_12": 769_162,
}


def test_every_named_model_has_a_published_count() -> None:
    assert PUBLISHED.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert parameter_count(MODELS[name].module, *MODELS[name].image) == PUBLISHED[name]


@pytest.mark.parametrize("depth", [164, 1001])
def test_bottleneck_resnet_v2_by_hand(depth: int) -> None:
    blocks = (depth - 2) // 9
    total = 27 * 16 + (256 * 2 + 256 * 10 + 10)  # stem; last norm and linear layer
    before = 16
    for width in (16, 32, 64):
        after = 4 * width
        inner = 9 * width**2 + width * after + 4 * width  # 3x3 and 1x1 convolutions, each after a norm
        total += (2 + width + after) * before + inner  # the first block's norm, 1x1 convolution and projection
        total += (blocks - 1) * ((2 + width) * after + inner)
        before = after
    assert PUBLISHED[f"resnetv2_{depth}"] == total


def test_googlenet_with_auxiliary_heads_has_the_parameters_of_torchvisions() -> None:
    assert parameter_count(create("googlenet", auxiliary_heads=True), 224, 224, 3) == 13_004_888


def test_resnet18_for_cifar_has_11173962_parameters() -> None:
    # 11,689,512 less a 7x7 stem and 1000 classes, plus a 3x3 stem and 10: the count of the CIFAR-10 literature.
    assert parameter_count(create("resnet18", num_classes=10, stem="cifar"), 32, 32, 3) == 11_173_962


def test_shortcut_b_adds_two_projections_to_resnet20() -> None:
    # 16 -> 32 and 32 -> 64 channels: a 1x1 kernel each, and the scale and bias of a norm.
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert parameter_count(CifarResNet(depth=20, shortcut="B"), 32, 32, 3) == 269_722 + projections


@pytest.mark.parametrize("depth", [8, 20])
def test_plain_network_has_as_many_parameters_as_the_residual_one(depth: int) -> None:
    plain, residual = (CifarResNet(depth=depth, shortcut=kind) for kind in ("none", "A"))
    assert parameter_count(plain, 32, 32, 3) == parameter_count(residual, 32, 32, 3)
