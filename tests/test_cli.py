"""The command line: help that helps, each command on tiny generated scenes, failures in one sentence, torchrun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import yolonas_lab as yl
from yolonas_lab import cli as commands
from yolonas_lab.cli import main, make_parser


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return yl.data.make_scenes(tmp_path_factory.mktemp("cli") / "scenes", train=12, val=4, image_size=64)


@pytest.fixture(scope="module")
def data(scenes):
    return [
        *("--train-images", str(scenes.images_dir("train")), "--train-annotations", str(scenes.annotations("train"))),
        *("--val-images", str(scenes.images_dir("val")), "--val-annotations", str(scenes.annotations("val"))),
    ]


TRAIN = ["train", "--model", "yolo_nas_pico", "--steps", "3", "--batch-size", "4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """The folder of a training of three steps."""
    out = tmp_path_factory.mktemp("runs") / "pico"
    assert main([*TRAIN, "--out", str(out), *data]) == 0
    return out


def test_help_shows_the_commands_and_examples_that_the_parser_understands():
    shown = subprocess.run([sys.executable, "-m", "yolonas_lab", "--help"], capture_output=True, text=True, check=True)
    assert all(command in shown.stdout for command in ("train", "evaluate", "predict"))
    parser = make_parser()
    [commands_action] = [action for action in parser._actions if action.dest == "command"]
    for name, command in commands_action.choices.items():  # type: ignore[union-attr]
        text = command.format_help().partition("example")[2].replace("\\\n", " ")
        examples = [line.split("-m yolonas_lab ")[1] for line in text.splitlines() if f"-m yolonas_lab {name}" in line]
        assert examples
        for example in examples:
            assert parser.parse_args(example.split()).command == name


def test_training_writes_weights_and_log_and_goes_on_where_it_was(trained, data, capsys):
    assert {path.name for path in trained.iterdir()} >= {"checkpoint.pt", "best.safetensors"}
    before = (trained / "checkpoint.pt").read_bytes()
    assert main([*TRAIN, "--out", str(trained), *data]) == 0
    assert capsys.readouterr().out.startswith("3 steps, loss ")
    assert (trained / "checkpoint.pt").read_bytes() == before
    assert main([*TRAIN, "--out", str(trained), *data, "--lr", "0.001"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("yolonas_lab train: ") and "lr" in error and error.count("\n") == 1


@pytest.mark.slow
def test_training_is_decided_by_its_seed(tmp_path, data, trained):
    for name, seed in (("same", "0"), ("other", "1")):
        assert main([*TRAIN, "--out", str(tmp_path / name), *data[:4], "--seed", seed]) == 0  # no validation
    first, same, other = (
        yl.models.get("yolo_nas_pico", checkpoint_path=folder / "checkpoint.pt").state_dict()
        for folder in (trained, tmp_path / "same", tmp_path / "other")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if first[name].ndim == 4)


def test_each_recipe_can_be_changed(data):
    from yolonas_lab import training
    from yolonas_lab.training.config import ACCELERATORS, PRECISIONS

    parser = make_parser()._actions[-1].choices["train"]  # type: ignore[index]
    choices = {action.dest: action.choices for action in parser._actions}
    assert choices["precision"] == PRECISIONS and choices["accelerator"] == ACCELERATORS

    for name, attribute in commands.RECIPES.items():
        arguments = ["train", "--model", "m", "--out", "o", *data, "--config", name]
        recipe = getattr(training, attribute)
        plain = commands.recipe(make_parser().parse_args(arguments), recipe)
        assert plain.out_dir == Path("o") and plain.decisive() == recipe.decisive()
        changes = ["--epochs", "2.5", "--image-size", "96", "--batch-size", "3", "--accumulate", "2", "--lr", "0.01"]
        changes += ["--seed", "7", "--workers", "1", "--no-cache", "--precision", "32", "--accelerator", "cpu"]
        changed = commands.recipe(make_parser().parse_args([*arguments, *changes]), recipe)
        assert (changed.epochs, changed.steps, changed.image_size, changed.batch_size) == (2.5, None, 96, 3)
        assert (changed.accumulate, changed.lr, changed.seed, changed.workers, changed.cache) == (2, 0.01, 7, 1, False)


def test_evaluation_prints_the_numbers_and_writes_them(trained, scenes, tmp_path, capsys):
    arguments = ["evaluate", "--model", "yolo_nas_pico", "--weights", str(trained / "best.safetensors")]
    arguments += ["--images", str(scenes.images_dir("val")), "--annotations", str(scenes.annotations("val"))]
    assert main([*arguments, "--json", str(tmp_path / "ap.json")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["ap.json"]
    shown, written = capsys.readouterr().out, json.loads((tmp_path / "ap.json").read_text())
    model = yl.models.get("yolo_nas_pico", checkpoint_path=trained / "best.safetensors")
    dataset = yl.data.CocoDataset(scenes.images_dir("val"), scenes.annotations("val"))
    expected = yl.evaluate.evaluate(model, dataset, image_size=64)
    assert shown == f"{expected}\n"
    assert written["ap"] == expected.ap and written["ap_large"] is None and written["num_images"] == 4


def test_prediction_draws_every_image_under_its_own_name(trained, scenes, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "other" / "000001.jpg")
    sources = [str(scenes.images_dir("val")), str(tmp_path / "other" / "000001.jpg")]
    arguments = ["predict", *sources, "--model", "yolo_nas_pico", "--weights", str(trained / "checkpoint.pt")]
    assert main([*arguments, "--out", str(tmp_path / "found"), "--conf", "0.001"]) == 0
    names = ["000000.png", "000001.png", "000001_2.png", "000002.png", "000003.png"]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == names
    assert Image.open(tmp_path / "found" / "000001_2.png").size == (50, 40)
    assert len(capsys.readouterr().out.splitlines()) == 5


# failures


def change(arguments, **changes):
    """The arguments with the values after these options replaced, or the option left out for None."""
    arguments = list(arguments)
    for name, value in changes.items():
        option = "--" + name.replace("_", "-")
        if option in arguments:
            at = arguments.index(option)
            del arguments[at : at + 2]
        if value is not None:
            arguments += [option, str(value)]
    return arguments


BAD_TRAININGS = [
    ({"model": "yolo_nas_pic"}, r"Unknown model 'yolo_nas_pic'; did you mean 'yolo_nas_pico'"),
    ({"weights": "nowhere.pt"}, r"Checkpoint nowhere.pt does not exist"),
    ({"weights": "coco", "model": "yolo_nas_s"}, r"non-commercial"),
    ({"train_images": "nowhere"}, r"There is no images folder nowhere"),
    ({"val_images": None}, r"--val-images and --val-annotations belong together"),
    ({"image_size": 100}, r"image_size is 100: give a multiple of 32"),
    ({"batch_size": 13}, r"the data set has 12 images, too few for one batch of 13"),
    ({"threads": 0}, r"--threads is 0"),
    ({"epochs": 1}, r"epochs is 1.0 and steps is 3: give one of them"),
    ({"accelerator": "cuda"}, r"accelerator is 'cuda', which this machine or this build of torch does not have"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_TRAININGS)
def test_a_training_that_cannot_work_ends_in_one_sentence(data, tmp_path, capsys, monkeypatch, changes, message):
    monkeypatch.delenv("YOLONAS_LAB_ACCEPT_LICENSE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(change([*TRAIN, "--out", str(tmp_path), *data], **changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith("yolonas_lab train: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        ("evaluate", {"json": "nowhere/ap.json"}, "--json is nowhere/ap.json: give the name of a file"),
        ("evaluate", {"json": "."}, "--json is .: give the name of a file"),
        ("evaluate", {"weights": None}, "--weights is missing: without them the model has learned nothing"),
        ("predict", {"out": __file__}, f"--out {__file__} is a file: give a folder"),
        ("predict", {"device": "abacus"}, "--device is abacus, which this machine"),
        ("predict", {"image_size": 0}, "--image-size is 0: give a multiple of 32"),
        ("predict", {}, "There is no image nowhere.png: check the path"),
    ],
)
def test_an_evaluation_or_prediction_that_cannot_work(scenes, tmp_path, capsys, command, changes, message):
    data = ["--images", str(scenes.images_dir("val")), "--annotations", str(scenes.annotations("val"))]
    rest = data if command == "evaluate" else ["nowhere.png", "--out", str(tmp_path)]
    assert main(change([command, *rest, "--model", "yolo_nas_pico", "--weights", "scenes"], **changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"yolonas_lab {command}: {message}") and error.count("\n") == 1


def test_other_failures_keep_their_traceback_and_an_interruption_says_what_to_do(monkeypatch, tmp_path, data, capsys):
    def fail(error):
        def run(*_):
            raise error

        return run

    arguments = [*TRAIN, "--out", str(tmp_path), *data]
    monkeypatch.setattr(commands, "recipe", fail(KeyboardInterrupt()))
    assert main(arguments) == 130
    assert capsys.readouterr().err == "yolonas_lab train: stopped; the same command goes on from the last checkpoint.\n"
    monkeypatch.setattr(commands, "recipe", fail(torch.OutOfMemoryError("CUDA out of memory. Tried …")))
    assert main(arguments) == 2
    assert capsys.readouterr().err == "yolonas_lab train: the GPU's memory is full: lower --batch-size.\n"
    monkeypatch.setattr(commands, "recipe", fail(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(arguments)


@pytest.mark.slow
def test_two_processes_under_torchrun_train_together(tmp_path, data, capfd):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "yolonas_lab", *change([*TRAIN, "--out", str(tmp_path), *data], steps=1)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("1 steps, loss") == 1  # the first process speaks for both
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert content["identity"]["processes"] == 2 and content["step"] == 1
