"""What clients see: HTTP in, problems and JSON out."""
