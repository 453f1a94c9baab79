"""From kernel IR to source that a person can read: a printer for each language, a row for each operation."""
