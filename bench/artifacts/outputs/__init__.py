"""What each stage leaves: names of tensors and of metadata stand here, and nowhere else.

Each class reads an artifact through properties, and its functions `output` and the like make what a stage returns.
Importing this package imports neither torch nor the code that computes: reports read artifacts too.
"""
