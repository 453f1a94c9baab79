"""From the text of an .attn file to the tree as written, and back: parser, advice on mistakes, formatter."""
