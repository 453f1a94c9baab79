"""The three forms of a pattern: what it means, how it will run, and tiled loops."""
