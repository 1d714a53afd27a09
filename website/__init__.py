"""What builds the site beside MkDocs: pages that are generated, and links that leave the folder `docs/`."""
