"""The training room: photographs of good product to a checkpoint, in the paper's two phases."""
