"""The CUDA kernels as a shared library: compiled where they are used, loaded with ctypes.

No torch here. `host.py` runs the same sources on NumPy arrays without a GPU.
"""
