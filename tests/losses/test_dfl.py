import pytest
import torch

from yolonas_lab.losses import dfl_loss, distances_to_sides


def test_by_hand_between_two_bins():
    """Distance 1.25 between bins 1 and 2: 0.75 · -log p1 + 0.25 · -log p2."""
    p = torch.tensor([0.1, 0.6, 0.3])
    expected = -(0.75 * torch.log(p[1]) + 0.25 * torch.log(p[2]))
    loss = dfl_loss(p.log().expand(4, 3), torch.full((4,), 1.25))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_sides_are_averaged():
    logits = torch.randn(5, 4, 9, generator=torch.Generator().manual_seed(0))
    distances = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) * 7.9
    one_by_one = torch.stack(
        [dfl_loss(logits[:, s : s + 1].expand(-1, 4, -1), distances[:, s : s + 1].expand(-1, 4)) for s in range(4)]
    )
    torch.testing.assert_close(dfl_loss(logits, distances), one_by_one.mean(dim=0))


def test_the_minimum_is_the_linear_split_and_its_expectation_is_the_distance():
    logits = torch.zeros(4, 9, requires_grad=True)
    distances = torch.tensor([0.0, 3.3, 6.75, 7.99])
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(600):
        optimizer.zero_grad()
        dfl_loss(logits, distances).backward()
        optimizer.step()
    expectation = logits.softmax(dim=-1) @ torch.arange(9.0)
    torch.testing.assert_close(expectation, distances, atol=0.02, rtol=0)


def test_gradient_against_finite_differences():
    logits = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    distances = torch.rand(2, 4, dtype=torch.float64) * 3.9
    assert torch.autograd.gradcheck(lambda x: dfl_loss(x, distances), (logits,))


def test_distances_are_in_strides_and_stay_within_the_bins():
    points, boxes = torch.tensor([[20.0, 24.0]]), torch.tensor([[4.0, 16.0, 52.0, 200.0]])
    got = distances_to_sides(points, boxes, torch.tensor([[8.0]]), reg_max=16)
    assert got.tolist() == [[2.0, 1.0, 4.0, pytest.approx(15.99)]]
    outside = distances_to_sides(torch.tensor([[0.0, 0.0]]), boxes, torch.tensor([[8.0]]), reg_max=16)
    assert outside[0, :2].tolist() == [0.0, 0.0]
