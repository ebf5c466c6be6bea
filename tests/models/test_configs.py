import torch

import yolonas_lab as yl
from yolonas_lab.models import CONFIGS, ConvBNAct, QARepVGGBlock, RepVGGBlock


def test_names_are_those_of_the_configs():
    assert all(config.name == name for name, config in CONFIGS.items())


def test_a_twin_differs_in_its_re_parameterizable_blocks_alone():
    for name in ("yolo_nas_pico", "yolo_nas_nano"):
        model, twin = yl.models.get(name, num_classes=3), yl.models.get(f"{name}_repvgg", num_classes=3)
        assert twin.config.head_channels == model.config.head_channels
        for one, other in zip(kinds(model), kinds(twin), strict=True):
            assert (one, other) in {(QARepVGGBlock, RepVGGBlock), (ConvBNAct, ConvBNAct)}
        assert QARepVGGBlock in kinds(model) and ConvBNAct in kinds(twin)
        fused, fused_twin = yl.models.reparameterize(model), yl.models.reparameterize(twin)
        assert {k: v.shape for k, v in fused.state_dict().items()} == {
            k: v.shape for k, v in fused_twin.state_dict().items()
        }


def kinds(model):
    return [type(m) for m in model.modules() if type(m) in (QARepVGGBlock, RepVGGBlock, ConvBNAct)]


def test_a_twin_is_fused_exactly():
    torch.manual_seed(0)
    model = yl.models.get("yolo_nas_pico_repvgg", num_classes=3)
    images = torch.rand(1, 3, 64, 64)
    for a, b in zip(model(images)[:2], yl.models.reparameterize(model)(images)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
