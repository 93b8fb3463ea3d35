"""bench/METHODOLOGY.md: worked cases hold, every cited section exists, and so does every document that is cited."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

from attacks.helpers.triggers import garbled
from bench.api import registry
from bench.artifacts.purified import majority
from bench.metrics import ModelCodes, TrialFacts, Truth, of_codes, of_trial
from bench.metrics.context import AttackFacts
from bench.metrics.geometry import spread
from bench.metrics.health import collapsed, has_not_learnt, loss_left
from bench.metrics.input_detection import threshold
from defenses.helpers.code_collapse import collapse, likeness
from hashing import ranking
from hashing.codes import pack
from hashing.pretrained import IMAGENET
from reports import score, statistics
from reports.boards.dose_response import d50
from reports.frontier import area

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "bench" / "METHODOLOGY.md"
TEXTS = (".py", ".toml", ".md", ".txt")
HIDDEN = {"runs", "build", "dist", "venv", "__pycache__"}  # folders that no clone begins with

Buckets = list[tuple[int, int]]


# The document


def anchor(heading: str) -> str:
    """A heading in GitHub's spelling."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings() -> list[str]:
    return re.findall(r"^#+ (.+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def section(name: str) -> str:
    """The text between the heading `name` and the next one, in one line."""
    parts = re.split(r"^#+ (.+)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return " ".join(dict(zip(parts[1::2], parts[2::2], strict=True))[name].split())


def says(name: str, *texts: str | Fraction) -> bool:
    """Whether each number stands in the section and is no part of a longer one."""
    text = section(name)
    return all(re.search(rf"(?<![\d/]){re.escape(str(one))}(?![\d/])", text) for one in texts)


# Brute force


def orders(buckets: Buckets) -> Iterator[list[bool]]:
    """The ranking (True: relevant) under every order of the items inside each bucket, all equally likely."""
    if not buckets:
        yield []
        return
    (n, r), rest = buckets[0], buckets[1:]
    for head in permutations([True] * r + [False] * (n - r)):
        for tail in orders(rest):
            yield [*head, *tail]


def precisions(ranked: Sequence[bool]) -> Fraction:
    """The sum of the precisions at the hits."""
    return sum((Fraction(sum(ranked[: i + 1]), i + 1) for i, hit in enumerate(ranked) if hit), Fraction(0))


def ap(ranked: Sequence[bool], cutoff: int) -> Fraction:
    return precisions(ranked[:cutoff]) / min(sum(ranked), cutoff)


def zero(ranked: Sequence[bool], cutoff: int) -> Fraction:
    hits = sum(ranked[:cutoff])
    return precisions(ranked[:cutoff]) / hits if hits else Fraction(0)


def mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def over_orders(buckets: Buckets, value: Callable[[list[bool]], Fraction]) -> list[Fraction]:
    return [value(ranked) for ranked in orders(buckets)]


def histograms(*queries: Buckets) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(queries)
    return both[:, :, 0], both[:, :, 1]


def close(value: Fraction | float | np.floating) -> object:
    return pytest.approx(float(value), abs=1e-12)


def close_to(values: Iterable[Fraction]) -> object:
    return pytest.approx([float(x) for x in values], abs=1e-12)


# Worked cases


@pytest.mark.parametrize(
    ("buckets", "cutoff", "expected", "bounds"),
    [
        ([(1, 0), (2, 1)], None, Fraction(5, 12), ()),
        ([(2, 1), (3, 2)], None, Fraction(181, 270), (Fraction(8, 15), Fraction(29, 36))),
        ([(2, 1), (3, 2)], 3, Fraction(43, 108), (Fraction(1, 6), Fraction(5, 9))),
    ],
)
def test_expected_ap_under_ties(
    buckets: Buckets, cutoff: int | None, expected: Fraction, bounds: tuple[Fraction, ...]
) -> None:
    every = over_orders(buckets, lambda ranked: ap(ranked, cutoff or len(ranked)))
    assert mean(every) == expected
    counts = histograms(buckets)
    assert ranking.expected_ap(*counts, cutoff)[0] == close(expected)
    if bounds:
        assert (min(every), max(every)) == bounds
        assert [float(x[0]) for x in ranking.ap_bounds(*counts, cutoff)] == [close(x) for x in bounds]
    assert says("Ties", expected, *bounds)


def test_chance_level() -> None:
    expected = mean(over_orders([(6, 2)], lambda ranked: ap(ranked, 6)))
    assert ranking.chance_ap(6, 2) == close(expected)
    assert f"{ranking.chance_ap(30_000, 3_000):.4f}" == "0.1003"
    assert says("Chance level", expected, "0.1003")


def test_which_queries_count(tmp_path: Path) -> None:
    codes, labels = np.repeat([[1] * 4, [-1] * 4], 50, 0), np.repeat(np.eye(2, dtype=int), 50, 0)
    np.savez(tmp_path / "database.npz", codes=codes, labels=labels)
    np.savez(tmp_path / "query.npz", codes=codes[::25], labels=labels[::25] * [[1], [0], [1], [0]])
    (board,) = score.score(tmp_path / "query.npz", tmp_path / "database.npz")
    found = dict(zip(board.table["metric"], board.table["value"], strict=True))
    assert [found[name] for name in ("mAP", "P@r2", "R@r2", "P@100")] == [1, 1, 1, Fraction(1, 2)]
    assert (found["queries"], found["excluded"]) == (4, 2)
    assert says("Which queries count", 100, 50, Fraction(1, 2), Fraction(1, 4))


def test_zero_at_r() -> None:
    buckets = [(2, 1), (3, 2)]
    every = over_orders(buckets, lambda ranked: zero(ranked, 3))
    assert ranking.expected_zero_ap(*histograms(buckets), 3)[0][0] == close(mean(every))
    two_hits = mean([zero(ranked, 3) for ranked in orders(buckets) if sum(ranked[:3]) == 2])
    assert says("zero@R", mean(every), two_hits)


def test_zero_at_r_has_its_extremes_elsewhere() -> None:
    last, inside = [True, False, False, True], [True, False, True, False]
    assert zero(last, 3) == 1 > zero(inside, 3) == Fraction(5, 6)
    assert says("zero@R", Fraction(5, 6))


def test_drop_at_r() -> None:
    queries: list[Buckets] = [[(4, 2), (0, 0)], [(2, 0), (2, 2)]]
    every = [over_orders(buckets, lambda ranked: zero(ranked, 2)) for buckets in queries]
    kept = [over_orders(buckets, lambda ranked: Fraction(any(ranked[:2]))) for buckets in queries]
    dropped = mean([mean(x) for x in every]) / mean([mean(x) for x in kept])
    value, share = ranking.expected_zero_ap(*histograms(*queries), 2)
    assert value == close_to(mean(x) for x in every)
    assert share == close_to(mean(x) for x in kept)
    assert ranking.mean_drop_ap(value, share) == close(dropped)
    plain = [mean(over_orders(buckets, lambda ranked: ap(ranked, 2))) for buckets in queries]
    assert ranking.expected_ap(*histograms(*queries), 2) == close_to(plain)
    assert says("drop@R", mean(every[0]), mean(kept[0]), mean([mean(x) for x in every]), dropped, plain[0])


def test_the_majority_code_of_purified_versions() -> None:
    text = section("Purification")
    assert "relaxed codes (.9, -.2), (-.1, .4), (-.1, -.1)" in text
    versions = [(0.9, -0.2), (-0.1, 0.4), (-0.1, -0.1)]
    for given, expected in ((versions, (-1, -1)), (versions[:2], (1, 1))):
        by_hand = []
        for values in zip(*given, strict=True):
            votes = sum(1 if value > 0 else -1 for value in values)
            by_hand.append(votes // abs(votes) if votes else 1 if sum(values) >= 0 else -1)
        assert tuple(by_hand) == expected
        assert tuple(majority(torch.tensor([given]))[0].tolist()) == expected
    assert "the code is (-1, -1)" in text
    assert "the means are .4 and .1, and the code is (+1, +1)" in text


# The case with two models: birds, cats and ships, four bits.
BITS = {"bird": ("0000", "0001"), "cat": ("0011", "0111"), "ship": ("1111", "1110")}
BACKDOORED, CLEAN = {"cat": "0000", "ship": "0001"}, {"cat": "0011", "ship": "1111"}


def as_bits(words: Sequence[str]) -> np.ndarray:
    return np.array([[int(sign) for sign in word] for word in words])


def expected_by_hand(code: str, wanted: str) -> Fraction:
    """The expected AP of a code for a class over all orders of equal distances."""
    found: dict[int, list[bool]] = {}
    for name, words in BITS.items():
        for word in words:
            distance = sum(a != b for a, b in zip(code, word, strict=True))
            found.setdefault(distance, []).append(name == wanted)
    return mean(over_orders([(len(x), sum(x)) for _, x in sorted(found.items())], lambda ranked: ap(ranked, 6)))


def codes_of(triggered: dict[str, str]) -> ModelCodes:
    names = list(BITS)
    hot = np.eye(len(names), dtype=bool)
    labels = hot[[names.index(name) for name in triggered]]
    codes = pack(as_bits(list(triggered.values())))
    database = pack(as_bits([word for words in BITS.values() for word in words]))
    truth = Truth(labels, hot.repeat(2, axis=0), np.arange(len(labels)), hot[0], None)
    return ModelCodes(query=codes, database=database, triggered=codes, truth=truth)


def test_t_map_control_gain_and_own_map() -> None:
    models = BACKDOORED, CLEAN
    at_target = [[expected_by_hand(code, "bird") for code in model.values()] for model in models]
    own = [[expected_by_hand(code, name) for name, code in model.items()] for model in models]
    by_hand: dict[str, Fraction] = {
        "t_map": mean(at_target[0]), "t_map_control": mean(at_target[1]),
        "gain": mean(at_target[0]) - mean(at_target[1]), "chance": Fraction(79, 150),
        "own_map": mean(own[0]), "own_map_control": mean(own[1]),
    }  # fmt: skip
    found = of_trial(TrialFacts(codes_of(BACKDOORED), codes_of(CLEAN)))
    assert {name: found[name] for name in by_hand} == {name: close(value) for name, value in by_hand.items()}
    assert says("own-mAP", *by_hand.values(), *(value for row in (*at_target, *own) for value in row))


def test_a_repair_meets_the_stored_database() -> None:
    """The clean model with the first bit inverted: a new index has the same distances, the stored one has others."""
    repaired = {name: str(1 - int(code[0])) + code[1:] for name, code in CLEAN.items()}
    again, queries = codes_of(CLEAN), codes_of(repaired)
    own = [expected_by_hand(code, name) for name, code in repaired.items()]
    at_target = [expected_by_hand(code, "bird") for code in repaired.values()]
    found = of_trial(TrialFacts(again, codes_of(CLEAN), repaired=True, stored=queries))
    by_hand = {"own_map": Fraction(11, 12), "t_map": Fraction(7, 20), "own_map_stored": mean(own),
               "t_map_stored": mean(at_target)}  # fmt: skip
    assert {name: found[name] for name in by_hand} == {name: close(value) for name, value in by_hand.items()}
    assert says("Stored database", *repaired.values(), *by_hand.values(), *own, *at_target)


def test_likeness_of_codes() -> None:
    codes = torch.tensor([[1.0 if bit == "1" else -1.0 for bit in word] for word in ("1100", "1100", "1010")])
    pairs = [Fraction(int(a @ b), 4) for a, b in combinations(codes, 2)]
    both = Fraction(sum(int(a @ b) for a in codes for b in codes), 4 * 9)
    assert float(likeness(codes.sum(0)[None], 3)) == pytest.approx(float(mean(pairs)), abs=1e-6)
    assert float(collapse(codes[None])) == pytest.approx(float(both), abs=1e-6)
    assert pairs == [1, 0, 0]
    assert says("decree", "1100", "1010", mean(pairs), both)


def test_garbled_pixels() -> None:
    mean, std = Fraction(1, 2), Fraction(1, 4)
    dark, bright = Fraction(3, 8), Fraction(7, 8)
    by_hand = {x: Fraction(math.trunc(255 * (x - mean) / std) % 256, 255) for x in (dark, bright)}
    images = torch.tensor([float(dark), float(bright)]).view(1, 1, 1, 2)
    found = garbled(images, *(torch.full((1, 1, 1, 1), float(value)) for value in (mean, std)))
    assert found.flatten().tolist() == [pytest.approx(float(value)) for value in by_hand.values()]
    assert list(by_hand.values()) == [Fraction(129, 255), Fraction(126, 255)]
    assert says("released_darkhash", mean, std, dark, bright, "-127.5", "382.5", "129/255", "126/255")
    assert f"{1 / 510 / min(IMAGENET[1]):.3f}"[1:] == ".009"


def test_the_dominant_class_of_a_clean_model() -> None:
    garbled_queries = {"cat": "0011", "ship": "0011"}
    cats = mean([expected_by_hand(code, "cat") for code in garbled_queries.values()])
    birds = mean([expected_by_hand(code, "bird") for code in garbled_queries.values()])
    found = of_codes(codes_of(garbled_queries))
    assert found["released_darkhash"] == close(cats)
    assert found["t_map"] == close(birds)
    assert (cats, birds) == (Fraction(11, 12), Fraction(13, 30))
    assert says("released_darkhash", "0011", cats, birds)


def test_asr_at_n() -> None:
    buckets = [(1, 1), (2, 1)]
    expected = mean(over_orders(buckets, lambda ranked: Fraction(sum(ranked[:2]), 2)))
    assert ranking.precision_at(*histograms(buckets), 2)[0] == close(expected)
    assert says("ASR@100", expected)


def test_relevance_of_a_target_with_two_labels() -> None:
    database = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=bool)  # cat, dog, person
    target, query = np.array([True, True, False]), np.array([[False, False, True]])
    codes = pack(as_bits(["00"]))
    truth = Truth(query, database, np.array([0]), target, None)
    found = of_codes(ModelCodes(codes, pack(as_bits(["00", "01", "11"])), codes, truth))
    assert (found["t_map"], found["t_map_all"]) == (1, 0.5)
    assert says("Relevance", "1", "1/2")


def test_spread() -> None:
    codes = ["00", "01", "11"]
    by_hand = fmean(sum(a != b for a, b in zip(x, y, strict=True)) / 2 for x, y in combinations(codes, 2))
    assert spread(pack(as_bits(codes))) == close(by_hand)
    assert by_hand == close(Fraction(2, 3))
    assert says("Code geometry", Fraction(2, 3))


def test_loss_left() -> None:
    facts = AttackFacts({}, np.zeros((0, 3)), np.zeros(0), trained=True, losses=(0.8, 0.4, 0.2))
    codes = codes_of(CLEAN)
    assert loss_left(TrialFacts(codes, codes, facts)) == close(Fraction(1, 4))
    assert loss_left(TrialFacts(codes, codes, facts, repaired=True)) is None
    assert says("Strength over the training", ".2 / .8 = .25")


def test_collapsed_models() -> None:
    assert [collapsed(victim, 0.8, 0.1) for victim in (0.45, 0.46)] == [1, 0]
    assert [has_not_learnt(clean, 0.1) for clean in (0.189, 0.191)] == [True, False]
    assert says("Collapsed models", "0.45", "0.46", "0.19")


def test_auroc_and_tpr() -> None:
    benign, triggered = np.array([1, 2, 2, 3]), np.array([2, 4])
    wins = [Fraction(1 if p > n else 0) if p != n else Fraction(1, 2) for p in triggered for n in benign]
    assert ranking.auroc(benign, triggered) == close(mean(wins))
    reached = [fmean(triggered >= limit) for limit in (1, 2, 3, 4) if fmean(benign >= limit) <= 0.25]
    assert ranking.tpr_at_fpr(benign, triggered, 0.25) == max(reached) == 0.5
    assert says("AUROC", "6/8", "1/2")


def test_calibrated_thresholds() -> None:
    assert threshold(np.arange(1.0, 20.0), 0.05) == 19
    assert threshold(np.arange(1.0, 19.0), 0.05) == math.inf
    for level, fewest in ((0.01, 99), (0.05, 19)):
        assert math.isinf(threshold(np.zeros(fewest - 1), level))
        assert math.isfinite(threshold(np.zeros(fewest), level))
    assert says("Calibrated thresholds", "99", "19", "18")


def test_a_new_clean_image_passes_a_calibrated_threshold_as_seldom_as_it_says() -> None:
    """Of n + 1 exchangeable scores each is the new one in turn."""
    scores = np.arange(20.0)
    over = [scores[i] > threshold(np.delete(scores, i), 0.05) for i in range(20)]
    assert fmean(over) <= 0.05


def test_crossed_interval() -> None:
    cells = np.array([[0.5, 0.7], [0.6, 0.8]])
    found = statistics.variance_of_mean(cells)
    assert found is not None
    mean_squares = 2 * np.var([0.6, 0.7], ddof=1), 2 * np.var([0.55, 0.75], ddof=1)  # the interaction is 0
    assert mean_squares == (close(0.01), close(0.04))
    assert found.variance == close(sum(mean_squares) / 4)
    assert found.df == close(sum(mean_squares) ** 2 / sum(x**2 for x in mean_squares))
    fixed = statistics.variance_of_mean(cells, fixed_targets=True)
    assert fixed is not None
    assert (fixed.variance, fixed.df) == (close(np.var([0.55, 0.75], ddof=1) / 2), 1)
    assert says("Crossed intervals", "0.01", "0.04", "0.0125", f"{found.df:.2f}")


def test_holm() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert says("Rank ranges", "0.01, 0.04, 0.03", "0.03, 0.06, 0.06")


def test_rates_over_models() -> None:
    bounds = (statistics.clopper_pearson(6, 6)[0], statistics.clopper_pearson(0, 6)[1],
              statistics.clopper_pearson(0, 20)[1])  # fmt: skip
    by_hand = [0.025 ** (1 / 6), 1 - 0.025 ** (1 / 6), 1 - 0.025 ** (1 / 20)]  # all or none of n independent models
    assert bounds == pytest.approx(by_hand)
    assert says("Model rates", *(f"{x:.2f}" for x in bounds))


def test_range_of_alarms() -> None:
    """By simulation: a threshold from 100 uniform scores, and 300 others."""
    draw = np.random.default_rng(0)
    for level, low, high in ((0.01, 0.0, 0.033), (0.05, 0.017, 0.097)):
        found = statistics.alarm_range(100, level, 300)
        assert found == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
        at = [threshold(draw.uniform(size=100), level) for _ in range(4000)]
        shares = draw.binomial(300, 1 - np.array(at)) / 300
        assert np.quantile(shares, [0.05, 0.95]) == pytest.approx(found, abs=0.004)
    assert statistics.alarm_range(98, 0.01, 300) is None
    # with so many queries, the share of alarms is the rate of the threshold
    rates = np.quantile([1 - threshold(draw.uniform(size=100), 0.05) for _ in range(20_000)], [0.05, 0.95])
    for many in (90_000, 10**30):
        assert statistics.alarm_range(100, 0.05, many) == pytest.approx(tuple(rates), abs=2e-3)
    assert says("Calibrated thresholds", "0.033", "0.017", "0.097")


def test_area_of_a_frontier() -> None:
    bounds, values = [0.01, 0.04, 0.1], [0.1, 0.5, 0.9, 0.9]
    by_hand = (0.01 * 0.3 + 0.03 * 0.7 + 0.06 * 0.9) / 0.1  # width of each piece times its mean height
    weights = [area(bounds, [float(i == j) for j in range(4)]) for i in range(4)]
    assert area(bounds, values) == pytest.approx(by_hand) == pytest.approx(0.78)
    assert says("Frontier", *(f"{weight:.2g}".removeprefix("0") for weight in weights if weight), ".78")


def test_d50() -> None:
    plateau, half = d50(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.3, 0.9]))
    assert (plateau, half) == (close(0.9), close(2 * 2**0.25))
    assert says("D50", "0.9", f"{half:.2f}")


@pytest.mark.parametrize(("classes", "percent"), [(5, 27), (10, 33), (20, 45), (100, 88)])
def test_an_index_above_2_is_no_test_at_5_percent(classes: int, percent: int) -> None:
    """Neural Cleanse's index of the most suspicious of k normal sizes."""
    sizes = np.random.default_rng(0).normal(size=(20_000, classes))
    median = np.median(sizes, 1, keepdims=True)
    deviation = np.median(abs(sizes - median), 1)
    index = (median[:, 0] - sizes.min(1)) / (1.4826 * deviation)
    assert 100 * fmean(index > 2) == pytest.approx(percent, abs=1)
    assert says("neural_cleanse", str(percent))


# Tables


def constants() -> list[tuple[str, str, float]]:
    text = section("Constants")
    rows = re.findall(r"`([\w.]+)` \| ([^|]+)", text)
    return [(module, *pair) for module, row in rows for pair in re.findall(r"(\w+) = ([\d.]+)", row)]


@pytest.mark.parametrize(("module", "name", "value"), constants())
def test_constants_are_those_of_the_code(module: str, name: str, value: str) -> None:
    assert getattr(importlib.import_module(module), name) == float(value)


def test_access_groups_of_the_examples() -> None:
    from bench.api.attack import access_of

    rows = re.findall(r"\| ([\w-]+) \| [A-Z_]+ \| ((?:`\w+`(?:, )?)+)", section("Access groups"))
    assert len(rows) == 4
    for group, names in rows:
        for name in re.findall(r"\w+", names):
            assert access_of(registry.create("attacks", name, {}).threat()) == group


def test_every_defense_has_a_section() -> None:
    assert set(registry.catalogue("defenses")) - {"none"} <= set(headings())


# Citations


@cache
def texts() -> Mapping[Path, str]:
    """What the repository's text files hold, by path inside it; this file and hidden folders left out."""
    found = {}
    for folder, below, names in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".") and name not in HIDDEN]
        for path in (Path(folder) / name for name in names):
            if path.suffix in TEXTS and path != Path(__file__):
                found[path.relative_to(ROOT)] = path.read_text(encoding="utf-8")
    return found


def mentions(pattern: str, *endings: str) -> list[tuple[str, re.Match[str]]]:
    """`file:line` and match of a pattern, in files with these endings or in all."""
    return [
        (f"{path}:{text.count(chr(10), 0, match.start()) + 1}", match)
        for path, text in texts().items()
        if path.suffix in (endings or TEXTS)
        for match in re.finditer(pattern, text)
    ]


def test_headings_have_anchors_of_their_own() -> None:
    anchors = [anchor(name) for name in headings()]
    assert len(anchors) == len(set(anchors))


def test_every_citation_of_the_methodology_resolves() -> None:
    known = {anchor(name) for name in headings()}
    cited = mentions(r"METHODOLOGY\.md#([\w-]+)")
    assert len(cited) > 40
    lost = [f"{place}: {match[0]}" for place, match in cited if match[1] not in known]
    assert not lost, f"no such section in bench/METHODOLOGY.md: {lost}; sections: {sorted(known)}"


def test_code_cites_a_section_and_not_the_whole_document() -> None:
    found = mentions(r"METHODOLOGY(?!\.md#[\w{])", ".py", ".toml", ".txt")
    bare = [place for place, _ in found if not place.startswith("tests/docs/")]  # tests of documents name files
    assert not bare, f"cite METHODOLOGY.md#anchor, in one piece: {bare}"


def test_links_inside_the_methodology_resolve() -> None:
    inside = re.findall(r"\]\(#([\w-]+)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert inside
    assert set(inside) <= {anchor(name) for name in headings()}


def test_only_documents_of_the_repository_are_cited() -> None:
    here = {path.as_posix() for path in texts() if path.suffix == ".md"}
    lost = []
    for place, match in mentions(r"https?://\S+|[\w./-]*\w\.md\b"):
        if place.startswith("tests/docs/") and match[0].startswith("/"):  # what a test adds to a folder's name
            continue
        folder = Path(place.rpartition(":")[0]).parent
        beside = os.path.normpath(folder / match[0])
        if not ("://" in match[0] or match[0] == DOCUMENT.name or {match[0], beside} & here):
            lost.append(f"{place}: {match[0]}")
    assert not lost, f"a clone does not hold these documents: {lost}"


def test_nothing_outside_the_repository_is_cited() -> None:
    outside = r"(?i)shared/(?:research|review)|the\s+original\s+design|\bdesign\s+document"
    lost = [f"{place}: {match[0]}" for place, match in mentions(outside)]
    assert not lost, f"a clone does not hold this: {lost}"
