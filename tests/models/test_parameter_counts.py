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
    # Huang et al. 2016, table 2: 0.8M
    "densenet_bc_100_12": 769_162,
}


def test_every_named_model_has_a_published_count() -> None:
    assert PUBLISHED.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert parameter_count(MODELS[name].module, *MODELS[name].image) == PUBLISHED[name]


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
