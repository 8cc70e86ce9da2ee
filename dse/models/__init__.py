"""Language models run with NumPy alone, and the text they are measured on.

A profile is measured by running a real model on real text. `load` finds and reads a model: weights by name
(`catalog`), GGUF files (`gguf`, `gguf_model`) and Hugging Face directories (`safetensors`, `directory`), put together
by family (`families`). `decoder` runs it with its attention left open, so that a sparse-attention algorithm can be put
in its place; `transformers_backend` does the same for architectures that only transformers knows. `protocol` is what
either offers. `tokenizer` and `text` make token windows.
"""
