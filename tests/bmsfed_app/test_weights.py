"""Initial weights from files: what is accepted, and what does not fit is named."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from bmsfed_app.config import load_config
from bmsfed_app.models import (
    MultiModalNetwork,
    NetworkSpec,
    WeightsError,
    build_network,
    load_weights,
)
from server_app.experiment import initial_model
from tests.bmsfed_app.test_encoders import bert

SPEC = NetworkSpec(
    encoders={"seen": "mobilenet_v3_small", "felt": "mlp", "read": "text-hash"},
    shapes={"seen": (3, 32, 32), "felt": (4,), "read": (6,)},
    num_classes=3,
    vocabularies={"read": 9},
    widths={"felt": 8, "read": 8},
)


def save(weights: dict[str, Tensor], file: Path) -> str:
    if file.suffix == ".safetensors":
        save_file({n: v.contiguous() for n, v in weights.items()}, file)
    else:
        torch.save(weights, file)
    return str(file)


def encoder_state(network: MultiModalNetwork, modality: str) -> dict[str, Tensor]:
    return dict(network.encoders[modality].state_dict())


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("whole", [False, True])
def test_an_encoder_starts_from_a_file_and_only_it(
    tmp_path: Path, ending: str, whole: bool
) -> None:
    theirs, ours = build_network(SPEC, 1), build_network(SPEC, 2)
    before = {m: {n: v.clone() for n, v in encoder_state(ours, m).items()} for m in SPEC.encoders}
    given = theirs.state_dict() if whole else encoder_state(theirs, "felt")
    load_weights(ours, {"felt": save(given, tmp_path / f"given{ending}")})
    assert_equal(encoder_state(ours, "felt"), encoder_state(theirs, "felt"))
    for m in ("seen", "read"):
        assert_equal(encoder_state(ours, m), before[m])


def test_a_whole_model_of_torchvision_lends_all_but_its_classifier(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = torchvision.models.mobilenet_v3_small(weights=None).eval()
    old = {n: v for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    network = build_network(SPEC, 0)
    load_weights(network, {"seen": save(old, tmp_path / "model.pth")})
    model.classifier[3] = torch.nn.Identity()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.encoders["seen"].eval()(x), model(x))


def test_published_weights_are_those_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        published = torchvision.models.mobilenet_v3_small(weights=None)
    spec = NetworkSpec(
        {"seen": "mobilenet_v3_small", "read": bert(tmp_path)},
        {"seen": (3, 32, 32), "read": (6,)},
        num_classes=3,
        vocabularies={"read": 40},
    )
    network = build_network(spec, 0)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: published)
    load_weights(network, {"seen": "published", "read": "published"})
    stem = network.encoders["seen"].get_parameter("model.features.0.0.weight")
    assert torch.equal(stem, published.features[0][0].weight)
    saved = build_network(spec, 1)  # the same from the folder's own file
    load_weights(saved, {"read": str(tmp_path / "model.safetensors")})
    assert_equal(encoder_state(saved, "read"), encoder_state(network, "read"))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    network = build_network(SPEC, 0)
    fit = encoder_state(network, "felt")
    first = "layers.1.weight"
    faults: list[tuple[dict[str, Tensor], str]] = [
        (
            fit | {first: torch.zeros(8, 5)},
            r"mlp: it has \(8, 5\) as '.*1.weight', .* \(8, 4\)",
        ),
        ({n: v for n, v in fit.items() if n != first}, r"nothing as 'layers.1.weight'"),
        (
            fit | {"layers.9.bias": torch.zeros(2)},
            r"\(2,\) as '.*9.bias', expected is nothing",
        ),
        ({"encoders.seen.weight": torch.zeros(1)}, "holds encoders of seen, none of felt"),
    ]
    for number, (weights, message) in enumerate(faults):
        for ending in (".pt", ".safetensors"):
            file = save(weights, tmp_path / f"{number}{ending}")
            with pytest.raises(WeightsError, match=f"^initial_weights.felt: '{file}'.*{message}"):
                load_weights(network, {"felt": file})
    assert_equal(encoder_state(network, "felt"), fit)
    with pytest.raises(WeightsError, match=r"initial_weights.felt: .*nobody publishes weights"):
        load_weights(network, {"felt": "published"})


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, ending: str) -> None:
    network = build_network(SPEC, 0)
    file = tmp_path / f"given{ending}"
    for text in (b"", b"these are no weights"):
        file.write_bytes(text)
        with pytest.raises(WeightsError, match="cannot be read as tensors by name") as caught:
            load_weights(network, {"felt": str(file)})
        assert "\n" not in str(caught.value)
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_weights(network, {"felt": str(tmp_path / "list.pt")})
    torch.save(network, tmp_path / "pickle.pt")  # running code from a file is out of the question
    with pytest.raises(WeightsError, match="cannot be read as tensors by name"):
        load_weights(network, {"felt": str(tmp_path / "pickle.pt")})


def test_the_servers_initial_model_starts_from_the_configured_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = initial_model(load_config("cg-digits", {"seed": 5}))
    gray = {n: torch.from_numpy(v) for n, v in other.items() if "encoders.gray" in n}
    save(gray, tmp_path / "gray.safetensors")
    monkeypatch.chdir(tmp_path)
    config = load_config("cg-digits", {"initial_weights": "{gray: gray.safetensors}"})
    assert config.initial_weights == {"gray": str(tmp_path / "gray.safetensors")}
    drawn, loaded = initial_model(load_config("cg-digits")), initial_model(config)
    for name, value in loaded.items():
        source = other if name.startswith("encoders.gray.") else drawn
        assert value.tobytes() == source[name].tobytes()


def test_a_language_model_in_a_folder_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"encoder hf:{tmp_path}/tiny takes token ids"):
        load_config("cg-digits", {"encoders": "{gray: hf:tiny}"})
