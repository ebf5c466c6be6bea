import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab.teaching.lessons.nb12 import dot_by_onnxruntime, dot_in_16_bits, has_vnni


def test_by_hand():
    assert dot_in_16_bits([255, 255], [64, 64]) == 32_640
    assert dot_in_16_bits([255, 255], [65, 65]) == 32_767  # not 33,150
    assert dot_in_16_bits([255, 255], [-128, -128]) == -32_768
    assert dot_in_16_bits([255, 255, 1, 1], [127, 127, 5, 6]) == 32_767 + 11
    assert dot_in_16_bits([255, 0, 255, 0], [127] * 4) == 2 * 255 * 127  # neighbors are small: nothing overflows


pairs = st.tuples(
    st.tuples(st.integers(0, 255), st.integers(-64, 64)), st.tuples(st.integers(0, 255), st.integers(-64, 64))
)


@given(st.lists(pairs, min_size=1, max_size=8))
def test_weights_up_to_64_are_exact(drawn):
    products = [product for pair in drawn for product in pair]
    a, w = zip(*products)
    assert dot_in_16_bits(a, w) == int(np.dot(a, w))


def test_onnxruntime_is_exact_where_16_bits_are_enough():
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, 64), rng.integers(-63, 64, 64)
    assert dot_by_onnxruntime(a.tolist(), w.tolist()) == int(a @ w)


def test_onnxruntime_with_the_full_range_is_exact_or_saturates():
    got = dot_by_onnxruntime([255] * 64, [127] * 64)
    assert 32 * 32_767 <= got <= 64 * 255 * 127
    if has_vnni():
        assert got == 64 * 255 * 127


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : avx2 avx512_vnni", True), ("flags : avx2 avx_vnni x", True), ("flags : avx2 sse", False), ("x", None)],
)
def test_vnni_is_read_from_the_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert has_vnni(tmp_path / "cpuinfo") is expected


def test_vnni_is_unknown_where_nothing_can_be_read(tmp_path):
    assert has_vnni(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("a", "w", "message"),
    [
        ([1], [1], "even number"),
        ([1, 2], [1], "as many weights"),
        ([], [], "at least one"),
        ([256, 0], [1, 1], "from 0 to 255"),
        ([1, 1], [-129, 0], "-128 to 127"),
    ],
)
def test_bad_input_is_explained(a, w, message):
    with pytest.raises(ValueError, match=message):
        dot_in_16_bits(a, w)
