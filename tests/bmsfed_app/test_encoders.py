"""Encoders by name: sizes, shapes, frames, padding, what they refuse, encoders of others."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bmsfed_app.models import ENCODERS, NetworkSpec, build_encoder, build_network, check_encoder
from bmsfed_app.models.encoders import encoder_width, without_values
from bmsfed_app.models.encoders.base import ImageEncoder
from tests.plugins import install

IMAGE, SEQUENCE, TEXT = (3, 32, 32), (9, 5), (6,)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bert(folder: Path, **changes: Any) -> str:
    """Save a BERT of two layers, 16 wide, with weights; return its encoder's name."""
    transformers = pytest.importorskip("transformers")
    values: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 40,
        "max_position_embeddings": 12,
    }
    config = transformers.BertConfig(**(values | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        transformers.BertModel(config).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize(
    ("name", "shape", "vocabulary", "width", "size"),
    [
        ("conv4", (3, 28, 28), 0, 512, 100_390),
        ("conv4", (1, 64, 40), 0, 512, 98_786),  # pooled: no weight depends on the size
        ("resnet18", (3, 64, 64), 0, 512, 11_176_512),  # 11,689,512 less 513 * 1000
        ("resnet18", (1, 28, 28), 0, 512, 11_176_512 - 2 * 64 * 7 * 7),
        ("resnet18-audio", (1, 40, 98), 0, 512, 11_176_512 - 2 * 64 * 7 * 7),
        ("densenet121", (3, 64, 64), 0, 1024, 7_978_856 - 1025 * 1000),
        ("mobilenet_v3_small", (3, 32, 32), 0, 1024, 2_542_856 - 1025 * 1000),
        ("gru", SEQUENCE, 0, 128, 2 * 5 + 3 * 128 * (5 + 128 + 2)),
        ("text-hash", TEXT, 50, 128, 50 * 128 + 2 * 129 * 128),
        ("mlp", (7,), 0, 64, 8 * 64 + 65 * 64),
        ("identity", SEQUENCE, 0, 45, 1),
    ],
)
def test_sizes_are_what_is_known_of_them(
    name: str, shape: tuple[int, ...], vocabulary: int, width: int, size: int
) -> None:
    check_encoder(name, shape, vocabulary=vocabulary)
    assert encoder_width(name, shape, vocabulary=vocabulary) == width
    encoder = without_values(lambda: build_encoder(name, shape, vocabulary=vocabulary))
    assert sum(p.numel() for p in encoder.parameters()) == size


@pytest.mark.parametrize(
    ("name", "shape", "vocabulary"),
    [
        ("mlp", SEQUENCE, 0),
        ("gru", SEQUENCE, 0),
        ("tiny-transformer", SEQUENCE, 0),
        ("tiny-transformer", TEXT, 50),
        ("text-hash", TEXT, 50),
    ],
)
def test_features_are_as_wide_as_was_asked(
    name: str, shape: tuple[int, ...], vocabulary: int
) -> None:
    encoder = build_encoder(name, shape, vocabulary=vocabulary, width=20)
    shape = (3, *shape)
    x = torch.randint(0, 50, shape) if vocabulary else torch.randn(shape, generator=rng())
    z = encoder(x)
    assert z.shape == (3, encoder.width) == (3, 20)
    z.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("name", ["conv4", "resnet18", "mobilenet_v3_small"])
def test_frames_count_as_the_mean_of_single_images(name: str) -> None:
    encoder = build_encoder(name, (4, *IMAGE)).eval()
    x = torch.randn(2, 4, *IMAGE, generator=rng())
    with torch.inference_mode():
        each = torch.stack([encoder(x[:, f]) for f in range(4)])
        torch.testing.assert_close(encoder(x), each.mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 33, 20), (2, 3, 16, 16)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_conv4_computes_what_its_layers_do(
    shape: tuple[int, ...], training: bool, layout: torch.memory_format
) -> None:
    """Its own way of the first two, borders included: the same but for the last bits."""
    torch.manual_seed(0)
    ours = build_encoder("conv4", shape).double().train(training)
    assert isinstance(ours, ImageEncoder)
    norm = ours.get_submodule("layers.0")
    with torch.no_grad():
        for name, low, high in (("weight", 0.5, 2), ("bias", -1, 1), ("running_mean", -1, 1)):
            getattr(norm, name).uniform_(low, high)
    ours.layout = layout
    plain = copy.deepcopy(ours)
    plain.encode = plain.get_submodule("layers")  # type: ignore[method-assign]
    images, drawn = torch.randn(5, *shape).double() * 3 + 1, torch.randn(5, 512).double()
    found = []
    for encoder in (ours, plain):
        features = encoder(images)
        (features * drawn).sum().backward()
        arrays = dict(encoder.named_buffers()) | {n: p.grad for n, p in encoder.named_parameters()}
        found.append({"features": features, **arrays})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-9, atol=1e-11, msg=name)


def test_a_gru_needs_no_statistics_of_its_units() -> None:
    encoder = build_encoder("gru", SEQUENCE).train()
    x = torch.randn(8, *SEQUENCE, generator=rng())
    units = torch.tensor([1e-1, 1.0, 10.0, 1e3, 1e4])
    torch.testing.assert_close(encoder(x * units + units), encoder(x), rtol=1e-3, atol=1e-3)


def test_the_order_of_a_sequence_matters() -> None:
    x = torch.randn(2, *SEQUENCE, generator=rng())
    for name in ("gru", "tiny-transformer"):
        encoder = build_encoder(name, SEQUENCE).eval()
        assert (encoder(x) - encoder(x.flip(1))).abs().max() > 1e-3


def texts() -> Tensor:
    ids = torch.randint(1, 40, (4, 6), generator=rng(3))
    ids[1, 4:], ids[2, 1:], ids[3] = 0, 0, 0
    return ids


@pytest.mark.parametrize("name", ["text-hash", "tiny-transformer", "hf"])
def test_more_padding_leaves_the_features_of_texts_alone(name: str, tmp_path: Path) -> None:
    name = bert(tmp_path) if name == "hf" else name
    encoder = build_encoder(name, (10,), vocabulary=40).eval()
    ids = texts()
    longer = torch.cat([ids, torch.zeros(4, 4, dtype=torch.int64)], dim=1)
    z = encoder(longer)
    torch.testing.assert_close(encoder(ids), z, rtol=1e-4, atol=1e-6)
    assert z.isfinite().all()
    alone = encoder(ids[1:2, :4])  # a short text on its own, without any padding
    torch.testing.assert_close(alone, z[1:2], rtol=1e-4, atol=1e-6)
    assert (z[0] - z[1]).abs().max() > 1e-3
    encoder.train()(texts()).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_hashed_texts_are_bags_of_words() -> None:
    encoder = build_encoder("text-hash", TEXT, vocabulary=40, width=8)
    embedding, layers = encoder.get_submodule("embed"), encoder.get_submodule("layers")
    assert isinstance(embedding.weight, Tensor)
    means = torch.stack([embedding.weight[row[row > 0]].mean(dim=0) for row in texts()[:3]])
    torch.testing.assert_close(encoder(texts())[:3], layers(means))


def test_a_language_model_is_what_the_library_makes_of_the_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    encoder = build_encoder(bert(tmp_path), TEXT, vocabulary=40).eval()
    assert encoder.width == 16
    assert not [n for n in encoder.state_dict() if "pooler" in n]
    model = transformers.BertModel.from_pretrained(tmp_path).eval()
    short = texts()[1:2, :4] - 1  # ids as the model has them, 0 is its own again
    before = encoder(texts())
    weights = encoder.published_weights()
    encoder.load_state_dict({f"model.{n}": v for n, v in weights.items() if "pooler" not in n})
    expected = model(input_ids=short).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(encoder(texts())[1:2], expected, rtol=1e-4, atol=1e-6)
    assert (before[1] - expected).abs().max() > 1e-3  # until then it had drawn its own


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("conv5", IMAGE, {}, "unknown encoder 'conv5'; did you mean 'conv4'"),
        ("densenet12", IMAGE, {}, "did you mean 'densenet121'"),
        ("conv4", (3, 7, 28), {}, r"conv4 takes images .* not \(3, 7, 28\)"),
        ("conv4", SEQUENCE, {}, r"conv4 takes images .* not \(9, 5\)"),
        ("resnet18", (64,), {}, r"resnet18 takes images .* not \(64,\)"),
        ("resnet18-audio", IMAGE, {}, r"takes spectrograms \(1, F, T\), not \(3, 32, 32\)"),
        ("gru", (9,), {}, r"gru takes sequences \(T, F\).* not \(9,\)"),
        ("gru", (1, 5), {}, r"gru takes sequences .* not \(1, 5\)"),
        ("tiny-transformer", TEXT, {}, r"tiny-transformer takes .* or token ids"),
        ("text-hash", TEXT, {}, r"text-hash takes token ids .* not \(6,\)"),
        ("mlp", TEXT, {"vocabulary": 9}, r"mlp takes numbers.* not token ids \(6,\) of a vocab"),
        ("conv4", IMAGE, {"width": 9}, "conv4 has features of width 512, not 9"),
        ("resnet18", IMAGE, {"width": 9}, "resnet18 has features of width 512, not 9"),
        ("identity", TEXT, {"width": 9}, "identity has features of width 6, not 9"),
        ("tiny-transformer", SEQUENCE, {"width": 6}, "width 6 is not a multiple of 4"),
        ("densenet121", (3, 28, 28), {}, r"densenet121 takes other inputs, not \(3, 28, 28\): "),
        ("vit_b_16", IMAGE, {}, r"vit_b_16 takes other inputs, not \(3, 32, 32\): Wrong image"),
        ("squeezenet1_1", IMAGE, {}, "squeezenet1_1: .*not end in a 1000-way linear layer"),
        ("googlenet", (3, 224, 224), {}, "googlenet returns several outputs"),
        ("hf:./nowhere", TEXT, {"vocabulary": 9}, "hf:./nowhere: its configuration cannot be had"),
        ("hf:any", IMAGE, {}, r"hf:any takes token ids"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_what_does_not_fit_is_refused_at_the_start(
    name: str, shape: tuple[int, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_encoder(name, shape, **options)
    assert "\n" not in str(caught.value)


def test_language_models_refuse_tokens_and_texts_that_are_too_many(tmp_path: Path) -> None:
    name = bert(tmp_path)
    check_encoder(name, (12,), vocabulary=41)
    with pytest.raises(ValueError, match=r"takes token ids below 41, not token ids .* of 42"):
        check_encoder(name, (12,), vocabulary=42)
    with pytest.raises(ValueError, match=r"takes at most 12 tokens, not token ids \(13,\)"):
        check_encoder(name, (13,), vocabulary=40)


def test_without_transformers_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'bmsfed\[text\]'"):
        build_encoder("hf:never-asked-for", TEXT, vocabulary=40)


def test_libraries_are_imported_only_for_encoders_that_need_them() -> None:
    program = (
        "import sys; from bmsfed_app.models import build_encoder; "
        "build_encoder('conv4', (3, 28, 28)); build_encoder('gru', (9, 5)); "
        "print({'torchvision', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


# --- encoders of other packages -------------------------------------------------------------------

PLUGIN = """
from torch import nn
from bmsfed_app.models import Encoder, InputError

class Sum(Encoder):
    def __init__(self, shape, vocabulary, width):
        super().__init__()
        if len(shape) != 1:
            raise InputError("vectors (D,)")
        self.width = width or 5
        self.layer = nn.Linear(shape[0], self.width)

    def forward(self, x):
        assert x.sum().item() < 1e9  # looks at values
        return self.layer(x)

def wrong(shape, vocabulary, width):
    return nn.Identity()

class Narrow(Sum):
    def forward(self, x):
        return self.layer(x)[:, :2]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_encoders.py").write_text(PLUGIN)
    named = {"sum": "Sum", "wrong": "wrong", "narrow": "Narrow", "gone": "Gone", "conv4": "Sum"}
    points = {name: f"their_encoders:{of}" for name, of in named.items()}
    install(tmp_path, monkeypatch, {"bmsfed.encoders": points}, ENCODERS)


@pytest.mark.usefixtures("plugin")
def test_encoders_of_other_packages() -> None:
    check_encoder("sum", (3,))
    assert encoder_width("sum", (3,)) == 5
    assert build_encoder("sum", (3,), width=4)(torch.ones(2, 3)).shape == (2, 4)
    assert type(build_encoder("conv4", IMAGE)).__name__ == "Conv4"  # the app's own names stay
    for name, shape, message in (
        ("sum", (3, 3), r"encoder sum takes vectors \(D,\), not \(3, 3\)"),
        ("wrong", (3,), "encoder wrong: what was built is no bmsfed_app.models.Encoder"),
        ("narrow", (3,), r"encoder narrow returns \(2, 2\) .* not features \(2, 5\)"),
        ("gone", (3,), r"encoder 'gone' of their_encoders:Gone \(theirs 1.0\) cannot be loaded"),
        ("summ", (3,), "did you mean 'sum'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_encoder(name, shape)


# --- initial weights by seed ----------------------------------------------------------------------

ALL = NetworkSpec(
    encoders={
        "view": "conv4",
        "sound": "resnet18-audio",
        "motion": "gru",
        "words": "text-hash",
        "speech": "tiny-transformer",
    },
    shapes={
        "view": (3, 8, 8),
        "sound": (1, 9, 9),
        "motion": SEQUENCE,
        "words": TEXT,
        "speech": TEXT,
    },
    num_classes=3,
    vocabularies={"words": 20, "speech": 20},
    widths={"motion": 8, "speech": 8},
)


def test_weights_depend_on_the_seed_whatever_was_drawn_before() -> None:
    torch.manual_seed(1)
    one = build_network(ALL, 5).state_dict()
    assert torch.rand(1) == torch.rand(1, generator=rng(1))  # nothing was taken from the others
    same, other = build_network(ALL, 5).state_dict(), build_network(ALL, 6).state_dict()
    assert all(torch.equal(v, same[n]) for n, v in one.items())
    for name in ("motion.gru.weight_hh_l0", "words.embed.weight", "speech.layers.layers.0"):
        drawn = [n for n in one if n.startswith(f"encoders.{name}") and one[n].dim() > 1]
        assert drawn
        assert not any(torch.equal(one[n], other[n]) for n in drawn)


def test_layers_are_drawn_in_order_from_the_seed_alone() -> None:
    spec = NetworkSpec({"view": "conv4"}, {"view": (3, 28, 28)}, 10)
    built, draw = build_network(spec, 4).encoders["view"], rng(4)
    for layer in built.get_submodule("layers").children():
        if isinstance(layer, nn.Conv2d):
            # Draws follow the layout.
            w = torch.empty(layer.weight.shape, memory_format=torch.channels_last)
            nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=draw)
            assert torch.equal(layer.weight, w)
        elif isinstance(layer, nn.Linear):
            assert torch.equal(
                layer.weight, nn.init.xavier_normal_(torch.empty(512, 64), generator=draw)
            )


def test_transformers_and_other_libraries_models_keep_their_own_weights() -> None:
    spec = NetworkSpec({"v": "vit_b_32", "t": "tiny-transformer"}, {"v": IMAGE, "t": SEQUENCE}, 3)
    with torch.device("meta"):
        built = {m: spec.build(m) for m in spec.encoders}
    assert all(e.own_initialisation for e in built.values())
    network = build_network(NetworkSpec({"t": "tiny-transformer"}, {"t": SEQUENCE}, 3), 0)
    weight = network.encoders["t"].get_parameter("layers.layers.0.linear1.weight")
    assert float(weight.detach().abs().max()) <= 128**-0.5  # uniform; Xavier-normal has no bound
