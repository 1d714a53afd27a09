"""Schedulers that only the tests have."""
