"""Metadata survives the way into a file and out; what cannot be read is named."""

import copy
import json
from dataclasses import asdict

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab_exports import pico

from yolonas_lab.common import weights_digest
from yolonas_lab.deployment.export import KEY, ExportInfo, preparation, read_info, write_info

INFO = ExportInfo("m", 2, ("Straße", "犬"), 640, "float_nchw", "boxes_and_scores", "float32", "int8", "0" * 64)


@given(
    names=st.none() | st.lists(st.text(), min_size=1).map(tuple),
    image_size=st.integers(1, 50).map(lambda n: 32 * n),
)
def test_round_trip(names, image_size):
    info = ExportInfo(**asdict(INFO) | {"class_names": names, "image_size": image_size})
    proto = onnx.ModelProto()
    write_info(proto, info)
    proto.ParseFromString(proto.SerializeToString())
    assert read_info({entry.key: entry.value for entry in proto.metadata_props}, "a file") == info


def test_the_preparation_by_hand():
    assert preparation(640)["longest_side_px"] == 636 and preparation(64)["longest_side_px"] == 64


@pytest.mark.parametrize("content", ["no json", "{}", "[]", json.dumps({"model": "m"})])
def test_unreadable_metadata(content):
    with pytest.raises(ValueError, match=r"metadata of a\.onnx cannot be read .*export it with"):
        read_info({KEY: content}, "a.onnx")


def test_missing_metadata():
    with pytest.raises(ValueError, match=r"a\.onnx has no 'yolonas_lab' metadata .*export it with"):
        read_info({"names": "{}"}, "a.onnx")


def test_the_digest_follows_the_weights():
    model = copy.deepcopy(pico())
    assert weights_digest(model) == weights_digest(pico())
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert weights_digest(model) != weights_digest(pico())
