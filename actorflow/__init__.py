"""Supervised pipelines on trio."""

from ._version import __version__ as __version__
