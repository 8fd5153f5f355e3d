"""The kernels checked and timed on a GPU: `bash bench/gpu/verify.sh`."""
