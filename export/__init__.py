"""Checkpoint -> ONNX: the graph, its local functions, inlining, and the check against torch."""
