"""The composition root: configuration, processes and the command line. The only package that imports ray."""

__version__ = "0.1.0"

HEADRACE_PACKAGE = True
"""Tells this package from others named `distributed`; checked by `headrace.check_packages`."""
