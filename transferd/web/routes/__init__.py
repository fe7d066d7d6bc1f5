"""One module per resource: parse -> ask -> render, nothing else."""
