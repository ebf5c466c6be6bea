import json
from dataclasses import replace

import pytest
import torch
from small_space import TINY, made_up_ms, made_up_table

import yolonas_lab.latency as module
from yolonas_lab.latency import CONVOLUTIONS, machine_for
from yolonas_lab.search import (
    LatencyTable,
    Layer,
    load_table,
    measure_table,
    merge_tables,
    save_table,
    space_layers,
)

A, B = Layer("conv", 8, 8, 3, 1, 4), Layer("add", 8, 8, 1, 1, 4)
TABLE = LatencyTable("NVIDIA T4", "tensorrt", 64, {A: 0.25, B: 0.5})


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_sum_by_hand():
    assert TABLE.total_ms([A, B, A]) == 1.0
    assert replace(TABLE, kinds=("conv",)).total_ms([A, B, A]) == 0.5


def test_a_layer_that_is_missing_is_named():
    more = [A, Layer("conv", 8, 16, 3, 1, 4), Layer("conv", 8, 24, 3, 1, 4)]
    with pytest.raises(ValueError, match=r"lacks 'conv 8→16 3×3/1 at 4 px' and 1 more: measure"):
        TABLE.total_ms([*more, *more])
    with pytest.raises(ValueError, match="lacks 'conv 8→8 3×3/1 at 8 px': measure"):
        TABLE.total_ms([A._replace(size=8)])


def test_a_table_survives_its_file(tmp_path):
    table = replace(made_up_table(), kinds=CONVOLUTIONS)
    assert load_table(save_table(table, tmp_path / "t.json"), machine="a machine") == table
    assert "conv 3→8 3×3/2 at 32 px" in json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["layers"]


def test_a_table_of_this_machine_is_taken_and_one_of_another_refused(tmp_path):
    mine = replace(made_up_table(), machine=machine_for("torch"))
    path = save_table(mine, tmp_path / "t.json")
    assert load_table(path) == mine
    save_table(replace(mine, machine="another machine"), path)
    with pytest.raises(ValueError, match=r"t\.json was measured on 'another machine', and the search is for"):
        load_table(path)
    assert load_table(path, machine="another machine").machine == "another machine"


def test_the_table_of_a_gpu_must_be_asked_for_by_its_machine(tmp_path):
    path = save_table(TABLE, tmp_path / "t4.json")
    with pytest.raises(ValueError, match="measured on 'NVIDIA T4': to search for it, give machine='NVIDIA T4'"):
        load_table(path)
    with pytest.raises(ValueError, match="measured on 'NVIDIA T4', and the search is for 'NVIDIA H100'"):
        load_table(path, machine="NVIDIA H100")
    assert load_table(path, machine="NVIDIA T4") == TABLE


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", r"t\.json is not readable as JSON"),
        ("[]", r"t\.json is not a latency table: it needs the entries machine, engine"),
        ('{"machine": "m", "engine": "torch", "layers": {}}', "needs the entries"),
        ({"layers": {"conv 8": 1}}, "'conv 8' is not an operation"),
        ({"layers": {str(A): 0}}, "time of 'conv 8→8 3×3/1 at 4 px' is 0: give a positive number"),
        ({"layers": {str(A): "1"}}, "is '1': give a positive"),
        ({"layers": {str(A): float("nan")}}, "is nan: give a positive"),
        ({"layers": {str(A): True}}, "is True: give a positive"),
        ({"layers": [1]}, "layers is a list"),
        ({"kinds": ["gemm"]}, "Unknown kind 'gemm'"),
        ({"image_size": "big"}, "image_size is 'big'"),
    ],
)
def test_a_bad_table_is_refused_with_its_file(tmp_path, content, message):
    path = tmp_path / "t.json"
    if isinstance(content, dict):
        good = {"machine": machine_for("torch"), "engine": "torch", "image_size": 32, "layers": {str(A): 1.0}}
        content = json.dumps(good | content)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_table(path)
    assert "t.json" in str(error.value)


@pytest.fixture
def timed(monkeypatch):
    """Replaces the stop-watch by made-up times; returns the layers that were timed, call by call."""
    calls = []

    def time_layers(layers, engine, rounds):
        calls.append(list(layers))
        return {layer: made_up_ms(layer) for layer in layers}

    monkeypatch.setattr(module, "time_layers", time_layers)
    return calls


def test_only_what_is_new_is_measured(tmp_path, timed):
    layers = space_layers(TINY, 32, 2)
    first = measure_table(layers[:5], 32, folder=tmp_path)
    again = measure_table(layers[:5], 32, folder=tmp_path)
    assert first == again and timed == [layers[:5]]
    every = measure_table(layers, 32, folder=tmp_path)
    assert timed[1:] == [layers[5:]] and set(every.layers) == set(layers)
    assert every.layers == {layer: made_up_ms(layer) for layer in layers}
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written is left


def test_every_engine_and_image_size_has_a_file_of_its_own(tmp_path, timed):
    pytest.importorskip("onnxruntime")
    for engine, size in [("torch", 32), ("torch", 64), ("onnxruntime", 32), ("onnxruntime int8", 32)]:
        measure_table(space_layers(TINY, size, 2), size, engine, tmp_path)
    assert len(timed) == len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / next(p.name for p in tmp_path.glob("latency_onnxruntime_int8_32px_*.json"))).is_file()


def test_another_machine_measures_anew(tmp_path, timed, monkeypatch):
    measure_table([A], 32, folder=tmp_path)
    monkeypatch.setattr(module, "machine_for", lambda engine: "another machine")
    table = measure_table([A], 32, folder=tmp_path)
    assert timed == [[A], [A]] and table.machine == "another machine"


def test_a_file_carried_to_another_machine_is_refused(tmp_path, timed):
    table = measure_table([A], 32, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    save_table(replace(table, machine="another machine"), path)
    with pytest.raises(ValueError, match="was measured on 'another machine'"):
        measure_table([A], 32, folder=tmp_path)


def test_without_a_folder_nothing_is_kept_and_a_missing_one_is_named(tmp_path, timed):
    measure_table([A], 32)
    measure_table([A], 32)
    assert timed == [[A], [A]]
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        measure_table([A], 32, folder=tmp_path / "nowhere")


def test_tables_of_several_networks_make_one():
    other = Layer("conv", 8, 16, 1, 1, 4)
    merged = merge_tables([TABLE, replace(TABLE, layers={A: 0.75, other: 1.0})])
    assert merged == replace(TABLE, layers={A: 0.5, B: 0.5, other: 1.0})
    with pytest.raises(ValueError, match="'NVIDIA T4' and 'NVIDIA H100' do not go together"):
        merge_tables([TABLE, replace(TABLE, machine="NVIDIA H100")])
    with pytest.raises(ValueError, match="no tables"):
        merge_tables([])
