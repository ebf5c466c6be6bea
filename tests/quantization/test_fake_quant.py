import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.quantization import fake_quantize, scale_and_zero_point
from yolonas_lab.quantization.fake_quant import integer_range, to_integers


def tensor(*values):
    return torch.tensor(values)


def test_a_symmetric_grid_by_hand():
    scale, zero_point = scale_and_zero_point(tensor(-1.0), tensor(3.5), bits=4, symmetric=True)
    assert scale.item() == 0.5 and zero_point.item() == 0  # 3.5 becomes 7
    x = tensor(0.24, 0.26, 0.75, 1.25, 9.0, -9.0)  # halves go to the even integer: 1.5 -> 2, 2.5 -> 2
    assert fake_quantize(x, scale, zero_point, -8, 7).tolist() == [0.0, 0.5, 1.0, 1.0, 3.5, -4.0]
    assert to_integers(x, scale, zero_point, -8, 7).tolist() == [0, 1, 2, 2, 7, -8]


def test_an_affine_grid_by_hand():
    scale, zero_point = scale_and_zero_point(tensor(-0.5), tensor(1.0), bits=2, symmetric=False)
    assert scale.item() == 0.5 and zero_point.item() == 1  # -0.5, 0, 0.5, 1 are 0, 1, 2, 3
    x = tensor(-7.0, -0.3, 0.1, 0.6, 7.0)
    assert fake_quantize(x, scale, zero_point, 0, 3).tolist() == [-0.5, -0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_agrees_with_pytorch_forward_and_backward(bits, axis, symmetric):
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(5, 4, 3, generator=generator)
    low, high = integer_range(bits, symmetric)
    rows = x.reshape(1, -1) if axis is None else x.transpose(0, axis).flatten(1)
    bounds = rows.quantile(0.1, dim=1), rows.quantile(0.9, dim=1)  # so that some values are clipped
    scale, zero_point = scale_and_zero_point(*bounds, bits, symmetric)
    upstream = torch.randn(x.shape, generator=generator)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    if axis is None:
        scale, zero_point = scale[0], zero_point[0]
        expected = torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point, low, high)
    else:
        expected = torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, axis % 3, low, high)
    rounded = fake_quantize(ours, scale, zero_point, low, high, axis)
    torch.testing.assert_close(rounded, expected, rtol=1e-6, atol=1e-6)
    (rounded * upstream).sum().backward()
    (expected * upstream).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < (ours.grad == 0).sum() < x.numel()  # nothing passes where it was clipped
    with torch.no_grad():
        assert torch.equal(fake_quantize(x, scale, zero_point, low, high, axis), rounded)
        assert not symmetric or torch.equal(fake_quantize(x, scale, None, low, high, axis), rounded)


def test_the_straight_through_gradient_is_the_slope_over_whole_steps():
    """Across a whole step of the grid, finite differences see what the gradient claims: 1 inside, 0 outside."""
    scale, zero_point = tensor(0.25), tensor(3).int()
    x = (torch.linspace(-3, 4, 57, dtype=torch.float64) + 0.01).requires_grad_()  # nowhere on a half step

    def f(values):
        return fake_quantize(values, scale.double(), zero_point, 0, 15)

    (gradient,) = torch.autograd.grad(f(x).sum(), x)
    with torch.no_grad():
        slope = (f(x + 0.25) - f(x - 0.25)) / 0.5
    at_the_edge = (slope != 0) & (slope != 1)  # one step inside, the other outside
    assert torch.equal(gradient[~at_the_edge], slope[~at_the_edge]) and at_the_edge.sum() <= 8


def test_the_gradient_of_a_scale_by_hand():
    scale = torch.tensor(0.5, requires_grad=True)
    x = tensor(0.6, -0.2, 9.0, -9.0)
    fake_quantize(x, scale, torch.tensor(0), -8, 7).sum().backward()
    # rounding errors in steps inside: 1 - 1.2, 0 - (-0.4); the bounds outside: 7 and -8
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(-0.2 + 0.4 + 7 - 8, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    ends=st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)),
    seed=st.integers(0, 1000),
)
def test_inside_the_range_the_error_is_half_a_step_and_zero_stays_zero(bits, symmetric, ends, seed):
    low, high = torch.tensor(min(ends)), torch.tensor(max(ends))
    scale, zero_point = scale_and_zero_point(low, high, bits, symmetric)
    grid = (scale, zero_point, *integer_range(bits, symmetric))
    assert scale > 0 and grid[2] <= zero_point <= grid[3]
    x = low + (high - low) * torch.rand(100, generator=torch.Generator().manual_seed(seed))
    rounded = fake_quantize(x, *grid)
    step = scale * (1 if not symmetric else 0.5)  # an affine zero point is rounded too: up to half a step more
    assert ((rounded - x).abs() <= step * 1.001 + 1e-6).all()
    assert fake_quantize(torch.zeros(1), *grid).item() == 0
    assert torch.equal(fake_quantize(rounded, *grid), rounded)  # what lies on the grid stays


def test_ranges_without_extent_get_a_usable_scale():
    scale, zero_point = scale_and_zero_point(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), 8, True)
    assert scale[0] == scale[2] == 1 and scale[1] == torch.tensor(1 / 127) and not zero_point.any()


@pytest.mark.parametrize("bits", [1, 9, 0, -3, 4.0, True, "8"])
def test_bits_outside_2_to_8(bits):
    with pytest.raises(ValueError, match="from 2 to 8"):
        scale_and_zero_point(tensor(0.0), tensor(1.0), bits, True)


@pytest.mark.parametrize(
    "high, sentence", [(float("nan"), "NaN or infinite"), (float("inf"), "NaN or infinite"), (-1.0, "from low to high")]
)
def test_a_range_that_is_not_finite_or_upside_down(high, sentence):
    with pytest.raises(ValueError, match=sentence):
        scale_and_zero_point(tensor(0.0), tensor(high), 8, False)
