"""The part of the Hugging Face Hub's protocol that its clients need to read and to write, with ``HF_ENDPOINT`` set.

A model is a repository and a version is a commit. See docs/hugging-face.md.
"""
