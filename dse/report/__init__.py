"""One self-contained page about runs: everything a browser needs is in the file, and nothing is fetched."""
