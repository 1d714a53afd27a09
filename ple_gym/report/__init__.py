"""A report: one HTML file of a comparison with interactive pictures, which needs no network."""
