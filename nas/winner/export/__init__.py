"""The formats of ``nas export``."""

PLACES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "safetensors", "python": "python"}
"""The names of the formats, and the file or folder that each writes."""
