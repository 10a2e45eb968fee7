"""Writing answers: JSON, downloads, ranges and conditions."""
