"""Learned policies: small networks in files, which the simulator runs as it runs a rule."""
