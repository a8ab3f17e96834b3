"""ModelNet40: rendered views of 3D shapes, from the front and from behind (the paper, Sect. 4.1).

Views are those of the multi-view CNN literature (Su et al., 2015 and 2018): 12 around a shape, of
which the first is the front and the seventh the back. ModelNet10, its subset, has the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from bmsfed_app.datasets.account import some
from bmsfed_app.datasets.base import DataError
from bmsfed_app.datasets.kinds import Image, Kind
from bmsfed_app.datasets.prepared import PreparedSource, Sample, Scan
from bmsfed_app.datasets.source import DATASETS, PreparedSettings

#: Both sets number their classes alphabetically.
CLASSES: dict[int, tuple[str, ...]] = {
    40: tuple(
        "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door "
        "dresser flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand "
        "person piano plant radio range_hood sink sofa stairs stool table tent toilet tv_stand "
        "vase wardrobe xbox".split()
    ),
    10: tuple("bathtub bed chair desk dresser monitor night_stand sofa table toilet".split()),
}
#: Ways of naming the front and the back view of a shape: (front, back).
VIEWS = (
    (".obj.shaded_v001.png", ".obj.shaded_v007.png"),
    (".obj_whiteshaded_v0000.png", ".obj_whiteshaded_v0006.png"),
    ("_001.jpg", "_007.jpg"),
)
_FOLDERS = ("modelnet40_images_new_12x", "modelnet10_images_new_12x", ".")


class ModelNetSettings(PreparedSettings):
    """Settings of ``modelnet40``."""

    classes: Literal[10, 40] = Field(40, description="40, or the 10 of ModelNet10")
    side: int = Field(224, ge=32, description="side of a view in pixels")


class ModelNet40(PreparedSource):
    """12,311 shapes in 40 classes, or 4,899 in 10."""

    name = "modelnet40"
    summary = "3D shapes: front and back view, 40 (or 10) classes"
    obtain = (
        "Views: modelnet40_images_new_12x of github.com/jongchyisu/mvcnn_pytorch; shapes: "
        "modelnet.cs.princeton.edu; academic use."
    )
    layout = (
        "modelnet40_images_new_12x/<class>/<train or test>/<shape>.obj.shaded_v001.png (front) and "
        "..._v007.png (back), or the classes directly in the folder"
    )
    settings = ModelNetSettings

    def official_counts(self, settings: ModelNetSettings) -> Mapping[str, int]:
        """Shapes by split; two of ModelNet10's cannot be rendered and one split has 908."""
        full: dict[str, int] = {"train": 9843, "test": 2468}
        return full if settings.classes == 40 else {"train": 3991, "test": 908}

    def kinds(self, settings: ModelNetSettings) -> dict[str, Kind]:
        """The front view first: it is the stronger one."""
        view = Image(settings.side, crop=False)
        return {"front": view, "back": view}

    def classes(self, settings: ModelNetSettings) -> tuple[str, ...]:
        """The shapes' classes."""
        return CLASSES[settings.classes]

    def scan(self, data_dir: Path, settings: ModelNetSettings) -> Scan:
        """List the shapes."""
        names = self.classes(settings)
        root = next(
            (data_dir / f for f in _FOLDERS if any((data_dir / f / c).is_dir() for c in names)),
            None,
        )
        if root is None:
            raise DataError(
                f"no folder of a class such as {names[0]} in {data_dir}: '{self.name}' needs "
                f"{self.layout}"
            )
        scan = Scan()
        if unknown := sorted(p.name for p in root.iterdir() if p.is_dir() and p.name not in names):
            scan.notes.append(
                f"{len(unknown)} folders are no class with classes: {settings.classes} "
                f"({some(unknown)})"
            )
        for label, name in enumerate(names):
            for split in ("train", "test"):
                self._add(scan, root / name / split, split, label)
        return scan

    @staticmethod
    def _add(scan: Scan, folder: Path, split: str, label: int) -> None:
        for front, back in VIEWS:
            found = {
                file.name.removesuffix(view)
                for view in (front, back)
                for file in folder.glob(f"*{view}")
            }
            for name in sorted(f"{shape}{front}" for shape in found):
                shape = name.removesuffix(front)
                views = {"front": folder / f"{shape}{front}", "back": folder / f"{shape}{back}"}
                scan.samples.append(Sample(shape, split, label, views, key=shape))


DATASETS.add(ModelNet40.name, ModelNet40())
