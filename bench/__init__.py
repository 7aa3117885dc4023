"""The measuring bench: corpus, peers and the harness that runs product and peers in turn."""
