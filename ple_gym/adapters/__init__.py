"""Bridges to training libraries; each module imports its library, `ple_gym` imports none of them."""
