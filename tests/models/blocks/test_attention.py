"""Window attention against definitions written out: which token sees which, with what bias."""

from __future__ import annotations

import math

import pytest
import torch

from lichen.models.blocks.attention import (
    WindowAttention,
    from_windows,
    relative_positions,
    shift_mask,
    to_windows,
)
from lichen.models.blocks.cwam import CrossWindowAttention, coarse_mask, coarse_windows

CPU = torch.device("cpu")


def test_windows_and_back() -> None:
    x = torch.rand(2, 6, 8, 12)
    windows = to_windows(x, 4, 3)
    assert windows.shape == (2 * 2 * 3, 3, 16, 2)
    # second picture, window row 1, column 2; head 1; token (3, 0)
    assert torch.equal(windows[6 + 5, 1, 12], x[1, 2:4, 7, 8])
    assert torch.equal(from_windows(windows, 4, 8, 12), x)


def test_relative_positions() -> None:
    index = relative_positions(4, CPU)
    query, key = 2 * 4 + 3, 1 * 4 + 0  # token (2, 3) looks at (1, 0)
    assert index[query, key] == (1 + 3) * 7 + (3 + 3)
    assert len(index.unique()) == 49


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_is_what_it_says(shifted: bool) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(6, 2, 4, shifted=shifted)
    x = torch.rand(1, 6, 8, 8)
    out = attention(x)
    q, k, v = attention.embedding_layer(x).reshape(3, 2, 3, 8, 8)
    bias = attention.relative_position_params
    half = 2 if shifted else 0

    def window(place: int) -> int:  # of a row or column, in the map rolled by half, with wrapped ends told apart
        rolled = (place - half) % 8
        return rolled // 4 + (10 if shifted and rolled >= 6 else 0)

    def offset(query: int, key: int) -> int:
        return (query - half) % 8 - (key - half) % 8 + 3

    for row, column in ((0, 0), (1, 6), (3, 2), (7, 7)):
        own = window(row), window(column)
        seen_keys = [(r, c) for r in range(8) for c in range(8) if (window(r), window(c)) == own]
        heads = []
        for head in range(2):
            query = q[head, :, row, column]
            scores = [
                query @ k[head, :, r, c] / math.sqrt(3) + bias[head, offset(row, r), offset(column, c)]
                for r, c in seen_keys
            ]
            weights = torch.softmax(torch.stack(scores), 0)
            heads.append(weights @ torch.stack([v[head, :, r, c] for r, c in seen_keys]))
        expected = attention.linear.weight @ torch.cat(heads) + attention.linear.bias
        assert torch.allclose(out[0, :, row, column], expected, atol=1e-5)


def test_shift_mask_tells_the_ends_apart() -> None:
    mask = shift_mask(2, 2, 4, CPU)
    assert mask.shape == (4, 1, 16, 16)
    assert mask[0].all()  # the first window is whole
    assert not mask[1, 0, 0, 3] and mask[1, 0, 0, 1] and mask[1, 0, 0, 13]  # its right half comes from the left end
    assert mask[3, 0].sum() == 4 * 4 * 4


def test_coarse_windows_lie_around_the_fine_ones() -> None:
    x = torch.arange(16.0).repeat(16, 1)[None, None]  # every pixel is its column
    coarse = coarse_windows(x, 8).reshape(8, 8, 4)
    assert torch.equal(coarse[0, 2:, 0], torch.tensor([0.5, 2.5, 4.5, 6.5, 8.5, 10.5]))  # centred on columns 0 to 7
    assert coarse[0, 1, 0] == 2.5  # reflected at the border
    assert torch.equal(coarse[0, :6, 1], torch.tensor([4.5, 6.5, 8.5, 10.5, 12.5, 14.5]))


def test_coarse_mask_lets_inner_windows_see_all() -> None:
    mask = coarse_mask(4, 4, 8, CPU)
    assert mask.shape == (16, 1, 64, 64)
    assert mask[5].all()
    assert not mask[15].all()
    assert mask.any(dim=3).all()  # nobody is left without anything to see


def test_cross_window_attention_reaches_beyond_its_window() -> None:
    torch.manual_seed(1)
    attention = CrossWindowAttention(8, 2, 4)
    x = torch.rand(1, 8, 24, 24, requires_grad=True)
    attention(x)[0, :, 12, 12].sum().backward()  # in the rolled map: the window of rows 8 to 11
    assert x.grad is not None
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert (rows.min().item(), rows.max().item()) == (8, 15)  # the window 10 to 13, and half a window around it
