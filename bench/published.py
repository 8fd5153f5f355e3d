"""What the paper says of speed and accuracy, in its own words; nothing is read off a picture.

Luo, Yao, Yu: "Normal Reference Attention and Defective Feature Perception Network for Surface
Defect Detection". Figure 11 shows the other methods' times as a chart whose numbers are not in
the text, so that they have places here ("lags significantly behind"), and no milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple

NDP_MS = 28.746
"""IV-B3. The unit is not printed; milliseconds is the only reading that fits the text."""

QUOTES = {
    "time": "The inference time of NDP-Net is 28.746.",
    "machine": (
        "All experiments are implemented on a computer with Xeon(R) Silver 4116 CPU@2.10 GHz and "
        "NVIDIA V100 GPU with a 32-GB memory size."
    ),
    "size": "In our experiments, each image is resized to a resolution of 256x256.",
    "reference": (
        "In the second phase, the weights of the encoder are fixed, and the encoder extracts "
        "features of the fixed reference image and artificial defect images."
    ),
    "again": (
        "Then, the input defective image and the defect-free reconstructed image are reinput to "
        "the encoder to obtain multi-scale concatenated features."
    ),
    "faster": (
        "Although the inference time of NDP-Net lags significantly behind AE_SSIM, f-AnoGAN, "
        "GANomaly, and VAE, the NDP-Net performs much better than the above methods in terms of "
        "the inspection performance."
    ),
    "slower": "The inference time of RIAD is too long, which limits its industrial application.",
    "decent": (
        "TrustMAE, MBPFM, and DFR achieve a decent detection speed and have a seemingly good "
        "inspection performance in terms of average results."
    ),
}


class Method(NamedTuple):
    """One row: averages over the five MVTec AD textures in percent, None where not printed.

    Attributes:
        name: as the paper spells it.
        place: "faster", "slower" or "decent" by the sentence in QUOTES; "" where none names it.
        image: image level ROCAUC, Table II.
        pixel: pixel level ROCAUC, Table III.
        pro: PROAUC, Table IV.
    """

    name: str
    place: str
    image: float | None
    pixel: float | None
    pro: float | None


METHODS = (
    Method("AE_SSIM", "faster", 64.40, 78.00, 56.74),
    Method("f-AnoGAN", "faster", 63.01, None, None),
    Method("GANomaly", "faster", 76.30, None, None),
    Method("VAE", "faster", 78.20, 82.26, 57.16),
    Method("TrustMAE", "decent", 97.74, 93.83, None),
    Method("MB-PFM", "decent", None, None, 94.60),
    Method("DFR", "decent", None, 94.80, None),
    Method("RIAD", "slower", 95.10, 93.70, None),
    Method("AnoGAN", "", 52.20, 58.00, 27.42),
    Method("MKD", "", 87.68, 90.62, None),
    Method("SPADE", "", 85.56, 92.94, 88.38),
    Method("Patch SVDD", "", 94.54, 93.68, None),
    Method("GCPF", "", None, 97.44, None),
    Method("EdgRec", "", None, None, 93.30),
    Method("CNN_Dict", "", None, None, 54.22),
    Method("ST", "", None, None, 92.70),
    Method("PaDiM", "", None, None, 93.14),
    Method("STPM", "", None, None, 95.22),
    Method("NDP-Net", "", 98.81, 98.54, 95.73),
)

PLACES = {
    "faster": "faster than NDP-Net",
    "decent": '"a decent detection speed"',
    "slower": '"too long"',
    "": "not said",
}
