"""Copies what the package reads at run time from the repository into the wheel; the rest is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Puts the files into ``omnibind_ros/share``, where ``omnibind_core.resources.shared`` looks first."""

    def run(self):
        super().run()
        for file in (*sorted(Path("msg").glob("*.msg")), Path("config/perception.yaml")):
            target = Path(self.build_lib, "omnibind_ros/share", file)
            if not self.editable_mode:  # an editable installation reads the repository's own
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildPy})
