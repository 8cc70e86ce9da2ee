"""Language models run with NumPy alone, and the text they are measured on.

A profile is measured by running a real model on real text: `catalog` finds the weights, `gguf` reads them,
`tokenizer` and `text` make token windows, and `llama` runs the network with its attention left open, so that
a sparse-attention algorithm can be put in its place.
"""
