"""ndp-edge: from photographs of good product to a proven INT8 inspection engine.

Importing this package loads none of torch, openvino, onnxruntime or cv2.
"""

from __future__ import annotations

__version__ = "0.1.0"
