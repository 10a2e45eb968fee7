"""Files of the safetensors package."""
