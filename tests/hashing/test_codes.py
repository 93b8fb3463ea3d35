"""Packing, distances and nearest neighbours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core import caching

from hashing import numba_kernels
from hashing.codes import PackedCodes, hamming_distances, pack, topk


def random_codes(seed: int, items: int, bits: int) -> PackedCodes:
    return pack(np.random.default_rng(seed).standard_normal((items, bits)))


def test_bit_j_is_bit_j_mod_64_of_word_j_div_64():
    x = np.full((2, 70), -1.0)
    x[0, 0] = x[0, 3] = x[1, 63] = x[1, 64] = x[1, 69] = 1
    codes = pack(x)
    assert codes.words.tolist() == [[0b1001, 1 << 63], [0, 0b100001]]
    assert (codes.bits, len(codes)) == (70, 2)


def test_zero_of_either_sign_gives_bit_zero():
    x = np.array([[0.0, -0.0, np.nextafter(0, 1), -1e-45, np.inf, -np.inf]], np.float32)
    x[0, 2] = np.float32(1e-45)
    assert pack(x).unpack().tolist() == [[-1, -1, 1, -1, 1, -1]]
    assert pack(torch.from_numpy(x)).unpack().tolist() == [[-1, -1, 1, -1, 1, -1]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64"])
def test_signs_of_every_type_pack_alike(dtype):
    signs = np.where(np.random.default_rng(0).random((5, 33)) < 0.5, -1, 1)
    assert np.array_equal(pack(signs.astype(dtype)).words, pack(signs > 0).words)
    assert np.array_equal(pack(signs.astype(dtype)).unpack(), signs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool])
def test_tensors_pack_like_arrays(dtype):
    logits = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    values = (logits > 0) if dtype in {torch.bool, torch.int8} else logits
    assert np.array_equal(pack(values.to(dtype)).words, pack(logits.numpy()).words)


def test_tensors_that_need_gradients_and_views_are_accepted():
    base = torch.randn(6, 40, requires_grad=True)
    view = base.T[::2]
    assert np.array_equal(pack(view).unpack(), np.where(view.detach().numpy() > 0, 1, -1))


def test_non_contiguous_and_read_only_arrays_are_accepted():
    base = np.random.default_rng(1).standard_normal((80, 20))
    view = base.T[::3, ::-1]
    base.flags.writeable = False
    assert np.array_equal(pack(view).unpack(), np.where(view > 0, 1, -1))


def test_words_are_read_only_and_the_caller_keeps_a_writable_array():
    words = np.array([[5, 6]], np.uint64)
    codes = PackedCodes(words, 3)
    with pytest.raises(ValueError, match="read-only"):
        codes.words[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        codes.bits = 4  # type: ignore[misc]
    words[0, 0] = 1


def test_words_of_any_layout_are_accepted():
    words = np.asfortranarray(np.arange(12, dtype=np.uint64).reshape(2, 6))
    codes = PackedCodes(words[:, ::2], 68)
    assert codes.words.flags.c_contiguous
    assert codes.words.tolist() == [[0, 2, 4], [6, 8, 10]]
    everything = hamming_distances(codes, codes)
    assert np.array_equal(topk(codes, codes, 3)[1], np.sort(everything, 1))


@pytest.mark.parametrize(
    ("words", "bits", "message"),
    [
        (np.array([[8]], np.uint64), 3, "first 3"),
        (np.zeros((1, 4), np.uint64), 65, r"\[2, n\]"),
        (np.zeros((2, 4), np.uint64), 64, r"\[1, n\]"),
        (np.zeros((0, 4), np.uint64), 0, "1 to 65535 bits"),
        (np.zeros((1025, 4), np.uint64), 65_536, "1 to 65535 bits"),
    ],
)
def test_words_that_do_not_fit_are_refused(words, bits, message):
    with pytest.raises(ValueError, match=message):
        PackedCodes(words, bits)


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_nan_is_refused(make):
    x = np.zeros((3, 8), np.float32)
    x[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        pack(make(x))


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_codes_without_bits_are_refused_and_no_items_are_fine(make):
    with pytest.raises(ValueError, match="bit"):
        pack(make(np.zeros((3, 0), np.float32)))
    codes = pack(make(np.zeros((0, 65), np.float32)))
    assert (len(codes), codes.bits, codes.words.shape, codes.unpack().shape) == (0, 65, (2, 0), (0, 65))


def test_a_tensor_that_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        pack(torch.zeros(5))


def test_select_takes_positions_masks_and_slices():
    codes = random_codes(0, 10, 130)
    signs = codes.unpack()
    positions, mask = np.array([7, 0, 7]), np.arange(10) % 2 == 1
    assert np.array_equal(codes.select(positions).unpack(), signs[positions])
    assert np.array_equal(codes.select(mask).unpack(), signs[mask])
    assert np.array_equal(codes.select(slice(2, 5)).unpack(), signs[2:5])


@pytest.mark.parametrize(("bits", "dtype"), [(1, "uint8"), (255, "uint8"), (256, "uint16"), (300, "uint16")])
def test_opposite_codes_are_all_bits_apart(bits, dtype):
    distances = hamming_distances(pack(np.ones((1, bits))), pack(np.array([[1.0], [-1.0]]) * np.ones(bits)))
    assert distances.dtype == dtype
    assert distances.tolist() == [[0, bits]]
    assert topk(pack(np.ones((1, bits))), pack(-np.ones((1, bits))), 1)[1].dtype == dtype


@pytest.mark.parametrize("items", [1, 63, 64, 65, 2047, 2048, 2049, 4100])
@pytest.mark.parametrize("bits", [16, 70])
def test_topk_is_the_head_of_a_stable_sort(items, bits):
    queries, database = random_codes(1, 3, bits), random_codes(2, items, bits)
    distances = hamming_distances(queries, database)
    order = distances.argsort(1, kind="stable")
    for k in (1, 7, items, items + 5):
        indices, found = topk(queries, database, k)
        assert np.array_equal(indices, order[:, :k])
        assert np.array_equal(found, np.take_along_axis(distances, order[:, :k], 1))


def test_topk_of_equal_codes_counts_up_and_no_query_is_fine():
    ones = pack(np.ones((9, 12)))
    indices, distances = topk(ones.select(slice(2)), ones, 4)
    assert indices.tolist() == [[0, 1, 2, 3]] * 2
    assert not distances.any()
    assert topk(ones.select(slice(0)), ones, 4)[0].shape == (0, 4)


def test_codes_that_cannot_be_compared_are_refused():
    short, long, none = random_codes(0, 2, 16), random_codes(0, 2, 17), pack(np.zeros((0, 16)))
    for compare in (hamming_distances, lambda q, d: topk(q, d, 1)):
        with pytest.raises(ValueError, match=r"16 .* 17"):
            compare(short, long)
        with pytest.raises(ValueError, match="empty"):
            compare(short, none)
    with pytest.raises(ValueError, match="at least 1"):
        topk(short, short, 0)


def test_neither_torch_nor_numba_is_imported_with_the_modules():
    program = "import sys, hashing.codes, hashing.ranking; print({'torch', 'numba', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_kernels_compile_without_a_place_for_the_cache(monkeypatch):
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    spec = importlib.util.spec_from_file_location("kernels_without_cache", Path(numba_kernels.__file__))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.popcount(np.uint64(0xF0F0_0000_0000_0001)) == 9


def test_kernels_are_compiled_once_per_type_of_distance_whatever_the_bits():
    for bits in (8, 64, 65, 200, 255, 256, 300, 1000):
        topk(random_codes(0, 4, bits), random_codes(1, 50, bits), 3)
    assert len(numba_kernels.nearest.signatures) == 2
    assert len(numba_kernels.histograms.signatures) == 2
