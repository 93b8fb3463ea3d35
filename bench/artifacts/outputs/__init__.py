"""The artifacts of all stages. No other package holds the names of their tensors and metadata.

Each class reads an artifact through properties. Its static methods (`output` and the like) make the stage's output.
Importing this package imports neither torch nor code that computes, since reports read artifacts too.
"""
