"""Folders that torch.distributed.checkpoint wrote: ``.metadata``, and files of items that many processes saved."""
