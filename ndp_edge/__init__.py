"""ndp-edge: from photographs of good product to a proven INT8 inspection engine.

Importing this package loads none of torch, openvino, onnxruntime or cv2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndp_edge.inspector import Inspected, Inspector

__all__ = ["Inspected", "Inspector", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Inspector` and `Inspected`, loaded when they are asked for."""
    if name in ("Inspected", "Inspector"):
        from ndp_edge import inspector

        return getattr(inspector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
