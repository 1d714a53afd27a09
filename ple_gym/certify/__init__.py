"""Certificates: where deciding is hard, and what would be gained by deciding better."""
