"""Somebody's script on codes of their own: neither torch nor the rest of HashDoor. `E:` marks what mypy must report."""

from typing import Any, assert_type

import numpy as np

from hashing.codes import Distances, PackedCodes, hamming_distances, pack, topk
from hashing.ranking import (
    Relevance,
    ap_bounds,
    auroc,
    average_precision,
    chance_ap,
    distance_histograms,
    expected_ap,
    leave_one_out_map,
    mean_drop_ap,
    precision_at,
    precision_recall_curve,
    radius_precision_recall,
    tpr_at_fpr,
)

codes = pack(np.ones((4, 32)))
assert_type(codes, PackedCodes)
assert_type(codes.bits, int)
assert_type(len(codes), int)
assert_type(codes.select(slice(2)), PackedCodes)
assert_type(codes.unpack().dtype, np.dtype[Any])
assert_type(hamming_distances(codes, codes), Distances)
assert_type(hamming_distances(codes, codes).dtype, np.dtype[Any])
places, distances = topk(codes, codes, 2)
assert_type(places.dtype, np.dtype[Any])
assert_type(distances, Distances)
labels = np.arange(4)
relevance = Relevance(labels)
assert_type(relevance.of(labels).ndim, int)
assert_type(average_precision(codes, codes, relevance, labels).ndim, int)
total, relevant = distance_histograms(codes, codes, relevance, labels)
assert_type(total.dtype, np.dtype[Any])
assert_type(expected_ap(total, relevant).ndim, int)
assert_type(ap_bounds(total, relevant)[0].ndim, int)
assert_type(precision_at(total, relevant, 2).ndim, int)
assert_type(precision_recall_curve(total, relevant)[1].ndim, int)
assert_type(radius_precision_recall(total, relevant, 2)[2].ndim, int)
assert_type(leave_one_out_map(codes, labels), float)
assert_type(mean_drop_ap(total, relevant), float)
assert_type(chance_ap(10, 2), float)
assert_type(auroc(labels, labels), float)
assert_type(tpr_at_fpr(labels, labels, 0.05), float)

PackedCodes(codes.words, "32")  # E: arg-type
pack([[1, -1]])  # E: arg-type
hamming_distances(codes, codes, backend="cupy")  # E: arg-type
topk(codes, codes, k="2")  # E: arg-type
average_precision(codes, codes, relevance, labels, ties="random")  # E: arg-type
average_precision(codes, codes, labels, labels)  # E: arg-type
codes.bits = 16  # E: misc
