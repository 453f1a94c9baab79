"""From source text to a running kernel: building, loading, caching and launching."""
