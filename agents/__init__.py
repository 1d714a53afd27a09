"""Agents that decide through the public environment: one readable file each."""
