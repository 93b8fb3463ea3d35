"""The static site of published results: a front page, and a page per run, component and metric."""
