"""UTD-MHAD: 27 actions of eight subjects, three modalities (Chen et al., 2015)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray
from pydantic import Field

from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Frames, Kind, Rows, Series
from bmsfed_app.datasets.media import BadSample, first_dir
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, PreparedSettings

_CLIP = re.compile(r"a(\d+)_s(\d+)_t(\d+)")
ACTIONS = tuple(
    "swipe left|swipe right|wave|clap|throw|arm cross|basketball shoot|draw x|"
    "draw circle clockwise|draw circle counter-clockwise|draw triangle|bowling|boxing|"
    "baseball swing|tennis swing|arm curl|tennis serve|push|knock|catch|pick up and throw|jog|walk|"
    "sit to stand|stand to sit|lunge|squat".split("|")
)


class _Matlab(Series):
    """A series in a Matlab file, under one of its names."""

    def decode(self, value: Any) -> Rows:
        from scipy.io import loadmat

        path, name = value
        try:
            array: NDArray[Any] = loadmat(path, variable_names=[name])[name]
        except FileNotFoundError:
            raise BadSample(f"{path} is missing") from None
        except Exception as error:  # SciPy's reader raises whatever broken bytes lead to
            raise BadSample(f"{path} has no readable '{name}' ({error})") from None
        if name == "d_skel":  # joints x axes x frames
            array = array.transpose(2, 0, 1)
            # Where the subject stands says nothing of the action: hip centre of the first frame.
            array = (array - array[:1, 3:4]).reshape(len(array), -1)
        return super().decode(array)


class UtdMhadSettings(PreparedSettings):
    """Settings of ``utd-mhad``."""

    steps: int = Field(64, ge=2, description="measurements over a clip, after stretching")
    side: int = Field(64, ge=28, description="side of a depth picture in pixels")


class UtdMhad(PreparedSource):
    """861 clips; even subjects are the test split, natural clients are the subjects."""

    name = "utd-mhad"
    summary = "actions: skeleton, inertial sensor, depth; 27 classes, eight subjects"
    obtain = "personal.utdallas.edu/~kehtar/UTD-MHAD.html; free for research."
    layout = (
        "Inertial/a1_s1_t1_inertial.mat, Skeleton/a1_s1_t1_skeleton.mat and visual/a1_s1_t1/*.jpg "
        "(depth pictures)"
    )
    official: ClassVar = {"train": 431, "test": 430}
    natural = "subjects"
    settings = UtdMhadSettings

    def kinds(self, settings: UtdMhadSettings) -> dict[str, Kind]:
        """The skeleton first, depth last: from strong to weak."""
        return {
            "skeleton": _Matlab(settings.steps, 60),
            "inertial": _Matlab(settings.steps, 6),
            "depth": Frames(4, settings.side, channels=1, most=4, crop=False, encoder="conv4"),
        }

    def classes(self, settings: UtdMhadSettings) -> tuple[str, ...]:
        """The actions, in the order of their numbers."""
        return ACTIONS

    def scan(self, data_dir: Path, settings: UtdMhadSettings) -> Scan:
        """List the clips of the inertial folder."""
        needs = f"'{self.name}' needs {self.layout}"
        inertial, skeleton, depth = (
            first_dir(data_dir, [n], needs) for n in ("Inertial", "Skeleton", "visual")
        )
        scan = Scan()
        found = {f.name.removesuffix("_inertial.mat") for f in inertial.glob("*_inertial.mat")}
        found |= {f.name.removesuffix("_skeleton.mat") for f in skeleton.glob("*_skeleton.mat")}
        for clip in sorted(found, key=lambda name: f"{name}_"):
            if (match := _CLIP.fullmatch(clip)) is None:
                scan.leave_out(clip, f"{clip} is not named a<action>_s<subject>_t<trial>")
                continue
            action, subject = int(match[1]), int(match[2])
            values = {
                "skeleton": (skeleton / f"{clip}_skeleton.mat", "d_skel"),
                "inertial": (inertial / f"{clip}_inertial.mat", "d_iner"),
                "depth": sorted((depth / clip).glob("*.jpg")),
            }
            split = "test" if subject % 2 == 0 else "train"
            scan.samples.append(Sample(clip, split, action - 1, values, f"subject-{subject}", clip))
        if not scan.samples:
            raise DataError(f"no file *_inertial.mat in {inertial}: {needs}")
        return scan


DATASETS.add(UtdMhad.name, UtdMhad())
