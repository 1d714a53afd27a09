"""Writers of the generated pages of `docs/`, each beside its text (`.in.md`)."""
