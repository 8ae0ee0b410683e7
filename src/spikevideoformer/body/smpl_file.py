"""Whether a file of SMPL is there, and where to get it. Nothing here needs torch."""

from pathlib import Path

WHERE = (
    "SMPL is licensed to each user and not part of this package: register at"
    " https://smpl.is.tue.mpg.de, accept the licence (non-commercial), download SMPL 1.1.0 for"
    " Python, and convert its basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl (smplx calls it"
    ' SMPL_NEUTRAL.pkl) once with spikevideoformer.body.smpl.convert_smpl(FILE, "smpl.safetensors")'
)
"""What a user has to do who has no file yet."""


def require_smpl_file(path: Path) -> None:
    """Raise ValueError where there is no file; its text says where to get one."""
    if not path.is_file():
        raise ValueError(f"no file {path}. {WHERE}")
