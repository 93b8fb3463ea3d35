"""The package's own tests: three lines, and one per component."""

from bench.conformance import conformance

test_checkerboard = conformance("attacks", "checkerboard")
test_blur = conformance("defenses", "blur")
