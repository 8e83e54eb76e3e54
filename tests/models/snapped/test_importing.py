"""Published checkpoints: every name and shape, and the same numbers as the code that they come from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.errors import InvalidCodec, UnknownCodec, UsageError
from lichen.models.snapped.cwam import CWAM, CWAMConfig
from lichen.models.snapped.importing import import_checkpoint, read_checkpoint
from lichen.models.snapped.scheme import new_network
from lichen.models.snapped.tcm import TCM, TCMConfig


def as_published(state: dict[str, Tensor], *, old: bool = True) -> dict[str, Tensor]:
    """A state as the authors' code saves it: with what is derived, and with a parallel trainer's prefix."""
    published: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if old and name.startswith("entropy_bottleneck."):
            for new, before in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
                name = name.replace(new, before)
        published[name] = tensor
        if name.endswith((".beta", ".gamma")):
            published[f"{name}_reparam.pedestal"] = torch.zeros(1)
            published[f"{name}_reparam.lower_bound.bound"] = torch.zeros(1)
    empty = ("_offset", "_quantized_cdf", "_cdf_length")
    published |= {f"entropy_bottleneck.{n}": torch.empty(0) for n in (*empty, "target")}
    published |= {f"gaussian_conditional.{n}": torch.empty(0) for n in (*empty, "scale_table", "scale_bound")}
    published |= {
        "entropy_bottleneck.likelihood_lower_bound.bound": torch.zeros(1),
        "gaussian_conditional.likelihood_lower_bound.bound": torch.zeros(1),
        "gaussian_conditional.lower_bound_scale.bound": torch.zeros(1),
    }
    return {f"module.{name}": tensor for name, tensor in published.items()}


@pytest.mark.parametrize(("name", "millions"), [("tcm-small", 45.18), ("tcm-medium", 59.13), ("tcm-large", 76.57)])
def test_tcm_has_the_published_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = new_network(name)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.001)


def test_a_tcm_checkpoint_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = TCM(TCMConfig(half=32))
    state = network.state_dict()
    published = as_published(state)
    assert len(as_published(TCM(TCMConfig(half=64)).state_dict())) == 1293  # as many as the authors' code has
    path = tmp_path / "0.05checkpoint_best.pth.tar"
    torch.save({"epoch": 50, "state_dict": published, "loss": 0.5, "optimizer": {}, "lr_scheduler": {}}, path)
    loaded = import_checkpoint("tcm", read_checkpoint(path), weight=0.05)
    assert loaded.rates.weight == 0.05
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_a_cwam_checkpoint_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = CWAM(CWAMConfig(channels=16, context="serial"))
    state = dict(network.state_dict())
    published = {name.replace("layers.0.conv", "layers.0.convolution"): tensor for name, tensor in state.items()}
    never = {"enh1.branch.0.weight", "cnn.g_a.4.conv_b.0.attn.relative_position_index"}  # called, or a constant
    published |= {name: torch.zeros(3) for name in never}
    path = tmp_path / "cwam.pth"
    torch.save(as_published(published), path)
    loaded = import_checkpoint("cwam", read_checkpoint(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "name", "sizes"),
    [
        ("bmshj2018-hyperprior", "ScaleHyperprior", (16, 24)),
        ("mbt2018-mean", "MeanScaleHyperprior", (16, 24)),
        ("mbt2018", "JointAutoregressiveHierarchicalPriors", (12, 24)),
        ("cheng2020-anchor", "Cheng2020Anchor", (12,)),
        ("cheng2020-attn", "Cheng2020Attention", (12,)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_compressai_models_give_the_same_numbers(kind: str, name: str, sizes: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = pytest.importorskip("compressai.models", exc_type=RuntimeError)
    torch.manual_seed(4)
    theirs: Any = getattr(models, name)(*sizes).eval()
    ours = import_checkpoint(f"compressai/{kind}", theirs.state_dict())
    x = torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        y = theirs.g_a(x)
        assert torch.allclose(ours.analyse(x), y, atol=1e-5)
        assert torch.allclose(ours.synthesise(y), theirs.g_s(y), atol=1e-5)
        z = theirs.h_a(y.abs() if kind.startswith("bmshj") else y)
        assert torch.allclose(ours.h_a(y), z, atol=1e-5)
        _, likelihood = theirs.entropy_bottleneck(z)
        medians = ours.entropy_bottleneck.medians[:, None, None]
        z_hat = (z - medians).round() + medians
        assert torch.allclose(2 ** -ours.entropy_bottleneck.bits(z_hat), likelihood, atol=1e-5)
        features = theirs.h_s(z_hat)
        known = y.round()
        if kind.startswith("bmshj"):
            scale, mean = features, torch.zeros_like(features)
        elif kind == "mbt2018-mean":
            scale, mean = features.chunk(2, 1)
        else:
            context = theirs.context_prediction(known)
            scale, mean = theirs.entropy_parameters(torch.cat([features, context], 1)).chunk(2, 1)
        side = ours.side(z_hat)
        found = torch.zeros(2, *y.shape)
        for step in ours.steps(y.shape[2], y.shape[3], y.device):
            for plane, values in zip(found, ours.parameters_of(step, side, known)[:2], strict=True):
                plane[:] = values if step.mask is None else torch.where(step.mask, values, plane)
        assert torch.allclose(found[0], scale, atol=1e-5)
        assert torch.allclose(found[1], mean, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("", "FactorizedPrior"), ("-relu", "FactorizedPriorReLU")])
@pytest.mark.filterwarnings("ignore")
def test_compressai_models_without_hyper_latent_too(kind: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = pytest.importorskip("compressai.models", exc_type=RuntimeError)
    torch.manual_seed(4)
    theirs: Any = getattr(models, name)(16, 24).eval()
    with torch.no_grad():
        theirs.entropy_bottleneck.quantiles[:, 0, 1] = torch.rand(24)
    ours = import_checkpoint(f"compressai/bmshj2018-factorized{kind}", theirs.state_dict())
    x = torch.rand(2, 3, 128, 64)
    with torch.no_grad():
        expected = theirs(x)
        decoded, _, bits = ours(x, torch.full((2,), 50.0))
    assert torch.allclose(decoded, expected["x_hat"], atol=1e-5)
    assert torch.allclose(bits, -expected["likelihoods"]["y"].log2().sum(dim=(1, 2, 3)), rtol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = dict(TCM(TCMConfig(half=32)).state_dict())
    with pytest.raises(UsageError, match="no published system 'elic'"):
        import_checkpoint("elic", state)
    with pytest.raises(InvalidCodec, match="no checkpoint of cwam"):
        import_checkpoint("cwam", state)
    with pytest.raises(InvalidCodec, match=r"g_s\.9\.0\.bias is missing"):
        import_checkpoint("tcm", {name: tensor for name, tensor in state.items() if name != "g_s.9.0.bias"})
    with pytest.raises(InvalidCodec, match=r"h_a\.3\.bias is \[7\]"):
        import_checkpoint("tcm", state | {"h_a.3.bias": torch.zeros(7)})
    with pytest.raises(InvalidCodec, match="not finite"):
        import_checkpoint("tcm", state | {"h_a.3.bias": torch.full((192,), float("nan"))})
    with pytest.raises(UnknownCodec):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(InvalidCodec):
        read_checkpoint(tmp_path / "bad.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(InvalidCodec, match="no weights"):
        read_checkpoint(tmp_path / "empty.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InvalidCodec):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
