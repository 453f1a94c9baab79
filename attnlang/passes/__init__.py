"""From the meaning of a pattern to plan and kernel: one pass, one file, and the pipeline that orders them."""
