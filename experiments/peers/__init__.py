"""The project's model in other people's tools, to measure ours against."""
