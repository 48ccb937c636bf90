"""Installs the robot side: the package, its console scripts, and what a launch needs in share/.

`training/` is left out on purpose: it needs torch, and runs from a checkout, not on a robot.
"""

from glob import glob

from setuptools import find_packages, setup

NAME = "mono_depth_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="Metric depth, point clouds and disparity from one camera.",
    license="Apache-2.0",
    maintainer="mono_depth_ros maintainers",
    maintainer_email="maintainers@users.noreply.github.com",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (
            f"share/{NAME}/config",
            sorted(
                path for end in ("yaml", "xml", "rviz", "json") for path in glob(f"config/*.{end}")
            ),
        ),
        (
            f"share/{NAME}/examples",
            sorted(path for end in ("py", "md") for path in glob(f"examples/*.{end}")),
        ),
        (f"share/{NAME}/config/model_cards", sorted(glob("config/model_cards/*.yaml"))),
        (
            f"share/{NAME}/models",
            sorted(path for end in ("onnx", "csv") for path in glob(f"models/*.{end}")),
        ),
        (f"share/{NAME}/models/parity", sorted(glob("models/parity/*"))),
    ],
    # No install_requires: with ROS the dependencies come from apt under other names, and pip must
    # not replace them; without ROS they come pinned, from requirements/run.txt.
    # colcon test picks its runner by this extra; with none it silently runs no test.
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "build_engine = mono_depth_ros.build_engine:main",
            "depth_bench = mono_depth_ros.depth_bench:main",
            "depth_doctor = mono_depth_ros.depth_doctor:main",
            "depth_node = mono_depth_ros.node:main",
            "depth_video = mono_depth_ros.depth_video:main",
            "depth_view = mono_depth_ros.depth_view:main",
            "virtual_camera = mono_depth_ros.virtual_camera:main",
        ],
    },
)
