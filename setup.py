from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "dit_policy_ros"
COMMANDS = (
    "bench",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "export",
    "import",
    "inspect",
    "play",
    "record",
    "replay",
    "train",
    "verify",
)
NODES = ("dit_node", "executor_node", "kinematics_node", "policy_node", "recorder_node", "sim_node", "vlm_node")


def share_files(folder):
    """Lists (destination, files) of a folder and all below it, as setuptools wants them."""
    directories = [Path(folder), *sorted(path for path in Path(folder).rglob("*") if path.is_dir())]
    entries = []
    for directory in directories:
        files = sorted(str(path) for path in directory.iterdir() if path.is_file() and path.suffix != ".pyc")
        if files:
            entries.append((f"share/{PACKAGE}/{directory.as_posix()}", files))
    return entries


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Runs diffusion-transformer policies on two arms, asynchronously and safely.",
    license="Apache-2.0",
    maintainer="dit_policy_ros maintainers",
    maintainer_email="dit_policy_ros@users.noreply.github.com",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *(entry for folder in ("config", "launch", "models") for entry in share_files(folder)),
    ],
    python_requires=">=3.10",
    install_requires=[
        "setuptools",
        "numpy>=1.24",
        "opencv-python-headless>=4.7",
        "pyyaml>=6.0",
        "safetensors>=0.4",
        "torch>=2.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "ros": [
            "ros-rclpy[fastrtps]>=7.1",
            "ros-diagnostic-msgs",
            "ros-geometry-msgs",
            "ros-lifecycle-msgs",
            "ros-rosgraph-msgs",
            "ros-sensor-msgs",
            "ros-std-msgs",
            "ros-std-srvs",
            "ros-trajectory-msgs",
            "ros-visualization-msgs",
        ],
        "sim": ["mujoco>=3.3,<3.9", "gym-aloha>=0.1.3", "mink>=0.0.11", "scipy>=1.10"],
        "bags": ["rosbags>=0.10", "apsw>=3.40", "lz4>=4.3", "backports.zstd; python_version < '3.14'"],
        "lerobot": ["av>=12.0", "pyarrow>=14.0"],
        "hdf5": ["h5py>=3.8"],
        "rerun": ["rerun-sdk>=0.24"],
        "encoders": ["transformers>=4.56", "diffusers>=0.30", "sentencepiece>=0.2", "pillow>=9.5"],
        "report": ["matplotlib>=3.7", "imageio-ffmpeg>=0.5", "pillow>=9.5", "scipy>=1.10"],
        "test": [
            "colcon-common-extensions",
            "hypothesis>=6.80",
            "pytest>=8.0",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
        ],
    },
    zip_safe=True,
    entry_points={
        "console_scripts": [
            *(f"{name} = {PACKAGE}.__main__:script" for name in COMMANDS),
            *(f"{name} = {PACKAGE}.ros.{name}:main" for name in NODES),
        ],
    },
)
