"""Generated parts are up to date, links resolve, and the first page stays short."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.docs import generate
from tests.docs._markdown import DOCUMENTS, FENCE, ROOT, SPAN, read

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
README_LIMIT = 9 * 1024  # bytes


@pytest.mark.parametrize("document", generate.DOCUMENTS)
def test_generated_parts_are_up_to_date(document: str) -> None:
    assert read(document) == generate.generated(read(document)), (
        f"{document} does not list what the code has: run `python -m tests.docs.generate`"
    )


def test_the_results_are_those_of_the_reference() -> None:
    assert read(generate.RESULTS) == generate.results(), "run `python -m tests.docs.generate`"


def test_every_part_stands_in_one_document() -> None:
    found = [name for document in generate.DOCUMENTS for _, name, *_ in generate.PART.findall(read(document))]
    assert sorted(found) == sorted(generate.PARTS)


def test_a_stale_part_is_found() -> None:
    document = read("suites/README.md")
    assert generate.generated(document.replace("| `smoke` |", "| `smoked` |")) == document
    assert "| `smoke` |" in document


def test_the_readme_is_a_first_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_LIMIT


@cache
def anchors(document: str) -> frozenset[str]:
    """The anchors of a document's headings in GitHub's spelling."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", read(document)), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document: str) -> None:
    """Links to files of the repository and to their sections; other sites are not asked."""
    text = SPAN.sub("", FENCE.sub("", read(document)))
    for link in LINK.findall(text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert target.exists(), f"{document} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), (
                f"{document} links to {link}: no such section"
            )


FILE = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|toml|md|txt|html|js|css)")


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if one != "CHANGELOG.md"])
def test_files_that_are_named_exist(document: str) -> None:
    """Paths in backticks start from the repository, from the document's folder, or from a package."""
    named = [text for _, text in SPAN.findall(FENCE.sub("", read(document))) if FILE.fullmatch(text)]
    places = (ROOT, (ROOT / document).parent, ROOT / "bench", ROOT / "reports")
    missing = [text for text in named if not any((place / text).exists() for place in places)]
    assert not missing, f"{document} names files that do not exist: {', '.join(missing)}"


OWN_FILE = {  # folders whose modules have a test file each, and the folder of these files
    "attacks": "attacks", "defenses": "defenses", "hashing/methods": "hashing", "hashing/backbones": "hashing",
    "hashing/datasets": "hashing", "bench/engine": "bench", "bench/stages": "bench", "bench/metrics": "bench/metrics",
}  # fmt: skip


@pytest.mark.parametrize("folder", OWN_FILE)
def test_every_module_has_a_test_file_or_is_in_the_map_of_the_tests(folder: str) -> None:
    modules = {path.stem for path in (ROOT / folder).glob("[!_]*.py")}
    assert modules
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / OWN_FILE[folder]).glob("test_*.py")}
    named = {text for _, text in SPAN.findall(read("tests/README.md"))}
    assert {one for one in modules - tested if not {one, f"{folder}/{one}.py"} & named} == set()


def test_the_first_page_leads_to_every_document() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(read("README.md"))}
    assert {*DOCUMENTS} - {"README.md"} <= linked
