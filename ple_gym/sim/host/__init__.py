"""The host's scheduler: what happens everywhere except where the agent decides."""
