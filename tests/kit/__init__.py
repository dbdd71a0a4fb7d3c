"""Shared by tests of several files."""
