"""NDP-Net in torch, one file per part of the paper. Importing this package imports no torch."""
