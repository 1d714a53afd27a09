"""Bridges to other libraries, one module each; a module imports its library, and nothing else here does."""
