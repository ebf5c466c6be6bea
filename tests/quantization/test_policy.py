import pytest

from yolonas_lab.quantization import QuantPolicy


def test_the_default_is_what_tensorrt_takes():
    assert QuantPolicy() == QuantPolicy.tensorrt()
    assert QuantPolicy.tensorrt().activation_symmetric and QuantPolicy.tensorrt().per_channel


def test_the_cpu_policy_keeps_weights_within_seven_bits():
    policy = QuantPolicy.cpu()
    assert policy.weight_bits == 7 and policy.activation_bits == 8 and not policy.activation_symmetric


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [1, 9, 16, 4.5, True])
def test_bits_outside_2_to_8_name_the_setting(name, bits):
    with pytest.raises(ValueError, match=f"{name} is {bits}.*from 2 to 8"):
        QuantPolicy(**{name: bits})


def test_an_unknown_weight_calibrator_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'percentile'"):
        QuantPolicy(weight_calibrator="percentil")


def test_float_layers_are_a_tuple_of_names():
    assert QuantPolicy(float_layers=["a", "b"]).float_layers == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a tuple of layer names"):
        QuantPolicy(float_layers="backbone.stem.conv")  # type: ignore[arg-type]
