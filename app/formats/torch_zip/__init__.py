"""The zip files that torch.save has written since 1.6: their reader and their writer."""
