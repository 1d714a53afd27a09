"""The reference simulator: docs/model.md in plain Python, written for reading and compared with the kernel."""

from .world import World, simulate

__all__ = ["World", "simulate"]
