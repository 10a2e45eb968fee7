"""The part of the Hugging Face Hub's protocol that its clients need to read: their tools work with ``HF_ENDPOINT``.

A model is a repository and a version is a commit. See docs/hugging-face.md.
"""
