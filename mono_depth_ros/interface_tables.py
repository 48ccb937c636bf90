"""The tables of docs/interface.md, made from the code that they describe.

`python -m mono_depth_ros.interface_tables docs/interface.md` brings that page up to date. It
reads sources, so it needs a checkout.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

from mono_depth_ros.markdown_table import page_table, with_tables
from mono_depth_ros.output_profiles import OUTPUTS, PROFILES, Topic
from mono_depth_ros.parameters import PARAMETERS, ParameterSpec, Value

ROOT = Path(__file__).resolve().parent.parent

# What the node subscribes to: name, type, what for.
INPUTS = (
    ("image_raw", "sensor_msgs/msg/Image", "the camera; with `image_transport` raw"),
    (
        "image_raw/compressed",
        "sensor_msgs/msg/CompressedImage",
        "the camera, JPEG or PNG; with `image_transport` compressed",
    ),
    (
        "camera_info",
        "sensor_msgs/msg/CameraInfo",
        "its calibration: that of the image's stamp, else the last one; may be latched",
    ),
)

# What is in each output.
MEANINGS = {
    "depth": "depth along Z. 32FC1: metres, NaN unknown, -Inf nearer than `min_depth`, +Inf further"
    " than `max_depth`. 16UC1: millimetres, 0 for all three",
    "depth_info": "calibration of the rectified image, no distortion, roi and binning applied",
    "points": "x, y, z in metres and rgb; organised, NaN where nothing is known",
    "depth_color": "depth in colours from `min_depth` to `max_depth`, for people",
    "image": "the rectified input: the pixels that depth belongs to",
    "image_info": "the same calibration, for what wants it beside the image",
    "disparity": "of a virtual stereo pair; needs `disparity_baseline`",
    "right_info": "the pair's right camera, P[3] = -fx T; needs `disparity_baseline`",
    "scan": "nearest thing between two heights in each direction; needs to know how the camera is"
    " held",
    "confidence": "0 to 1: the chance that depth is within 25 %, as measured for the model that"
    " ships",
    "obstacles": "finite points between two heights, which mark a costmap; as scan",
    "clearing": "where every viewing ray ends, which clears a costmap; as scan",
}

SERVICES = (
    (
        "~/reload_model",
        "std_srvs/srv/Trigger",
        "takes up another `model`, `engine` or `precision`; answers at once, and `/diagnostics`"
        " tells how it went",
    ),
    ("~/change_state", "lifecycle_msgs/srv/ChangeState", "configure, activate and so on"),
    ("~/get_state", "lifecycle_msgs/srv/GetState", "which of its states the node is in"),
    ("~/set_parameters", "rcl_interfaces/srv/SetParameters", "one by one"),
    (
        "~/set_parameters_atomically",
        "rcl_interfaces/srv/SetParametersAtomically",
        "all or, with the reason, none",
    ),
)

# Keys of the status in /diagnostics.
DIAGNOSTICS = {
    "frames_in": "images received since the node was activated",
    "frames_out": "frames published",
    "frames_skipped": "images that a newer one replaced before their turn",
    "frames_failed": "images that could not be turned into depth",
    "rate_in_hz": "images a second, over the last 5 s",
    "rate_out_hz": "frames a second, over the last 5 s",
    "latency_ms_p50": "from the image's stamp to the last publish, median of the last 300 frames",
    "latency_ms_p95": "the same, 95th percentile",
    "engine_ms_p50": "time in the network, median",
    "overhead_ms_p50": "latency without the network, median",
    "overhead_ms_p95": "the same, 95th percentile",
    "invalid_share": "share of pixels without depth in the last frame",
    "seconds_since_publish": "age of the last frame",
    "scale_source": "what gives the focal length: camera_info, or `fallback_hfov_deg`",
    "fast_dds_profile": "profile file of this process, or none",
    "engine": "runtime, its version, device and precision",
    "engines_not_taken": "which runtimes `auto` passed over, and why",
    "engine_build": "how far the TensorRT engine is that is being built",
}

_TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}
_FOLLOWED = "as in `params_file`"


def inputs_table() -> str:
    """Subscriptions."""
    return page_table(
        ("topic", "type", ""), [(f"`{name}`", kind, text) for name, kind, text in INPUTS]
    )


def _encoding(topic: Topic) -> str:
    return topic.encoding or ("`depth_encoding`" if topic.output == "depth" else "")


def outputs_table() -> str:
    """Publishers of the generic profile."""
    return page_table(
        ("topic", "type", "encoding", ""),
        [
            (f"`{topic.name}`", OUTPUTS[topic.output], _encoding(topic), MEANINGS[topic.output])
            for topic in PROFILES["generic"].topics
        ],
    )


def services_table() -> str:
    """Services."""
    return page_table(
        ("service", "type", ""), [(f"`{name}`", kind, text) for name, kind, text in SERVICES]
    )


def diagnostics_table() -> str:
    """Keys of /diagnostics."""
    return page_table(("key", ""), [(f"`{key}`", text) for key, text in DIAGNOSTICS.items()])


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else '`""`'


def _range(spec: ParameterSpec) -> str:
    if spec.choices:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    if spec.minimum is None or spec.maximum is None:
        return ""
    return f"{spec.minimum:g} to {spec.maximum:g} {spec.unit}".strip()


def _effect(spec: ParameterSpec) -> str:
    if spec.live:
        return "next frame"
    return "`~/reload_model`" if spec.reloadable else "configure"


def parameters_table() -> str:
    """The node's own parameters."""
    return page_table(
        ("parameter", "type", "default", "values", "takes effect", ""),
        [
            (
                f"`{spec.name}`",
                _TYPES[type(spec.default)],
                _value(spec.default),
                _range(spec),
                _effect(spec),
                spec.description,
            )
            for spec in PARAMETERS
        ],
    )


def _default(node: ast.expr) -> str:
    """A launch argument's default, as its source has it."""
    if isinstance(node, ast.Constant):
        return f"`{node.value!s}`" if node.value != "" else '`""`'
    if isinstance(node, ast.Name):  # the type of an argument that is a parameter of the node
        return _FOLLOWED
    if isinstance(node, ast.Call):  # of _config("depth.yaml") or _share("config", "depth.yaml")
        parts = [part.value for part in node.args if isinstance(part, ast.Constant)]
        folder = [] if len(parts) > 1 else ["config"]
        return f"`{'/'.join([*folder, *map(str, parts)])}`"
    raise ValueError(f"line {node.lineno}: cannot tell what {ast.unparse(node)} is")


def _arguments(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(value, ast.Tuple):
                    break
                default, description = value.elts
                yield str(key.value), _default(default), str(ast.literal_eval(description))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "DeclareLaunchArgument":
            if not isinstance(node.args[0], ast.Constant):
                continue  # made of the rows of a dictionary, which are found above
            given = {word.arg: word.value for word in node.keywords}
            text = str(ast.literal_eval(given["description"]))
            yield str(node.args[0].value), _default(given["default_value"]), text


def launch_arguments(path: Path) -> list[tuple[str, str, str]]:
    """The arguments that a launch file of ours declares itself.

    Read from its source, since the package `launch` is not everywhere: from calls of
    DeclareLaunchArgument, and from dictionaries of a name to a default and a description.

    Returns:
        name, default and description of each, in the order of the source.

    Raises:
        ValueError: a default is written in a way that this does not know.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return list(_arguments(tree))


def launch_table(name: str) -> str:
    """Arguments of `launch/NAME.launch.py`."""
    rows = launch_arguments(ROOT / "launch" / f"{name}.launch.py")
    return page_table(
        ("argument", "default", ""),
        # What is in angle brackets would be taken for HTML.
        [(f"`{argument}`", default, text.replace("<", "\\<")) for argument, default, text in rows],
    )


def _summary(module: str) -> str:
    """The first paragraph of a module's docstring, without the command's own name."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    if first.startswith("Console script "):
        first = first.partition(": ")[2]
    return first[:1].upper() + first[1:]


def console_scripts() -> dict[str, str]:
    """Module of each console script, from setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "entry_points":
            scripts = ast.literal_eval(node.value)["console_scripts"]
            pairs = (script.split(" = ") for script in scripts)
            return {name: target.partition(":")[0] for name, target in pairs}
    raise ValueError("setup.py has no entry_points")


def module_commands(package: str) -> list[str]:
    """Modules of a package that `python -m` runs."""
    return [
        f"{package}.{path.stem}"
        for path in sorted((ROOT / package).glob("*.py"))
        if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]


def commands_table() -> str:
    """Commands of the robot side."""
    rows = [(f"`{name}`", _summary(module)) for name, module in console_scripts().items()]
    return page_table(("command", ""), rows)


def training_table() -> str:
    """Commands of `training/`."""
    rows = [(f"`python -m {module}`", _summary(module)) for module in module_commands("training")]
    return page_table(("command", ""), rows)


TABLES = {
    "inputs": inputs_table,
    "outputs": outputs_table,
    "services": services_table,
    "diagnostics": diagnostics_table,
    "parameters": parameters_table,
    "commands": commands_table,
    "training": training_table,
}


def with_interface(page: str) -> str:
    """A page whose tables are made anew: `<!-- table NAME -->`, NAME of `TABLES`, and
    `<!-- launch NAME -->` for a launch file, each up to `<!-- end -->`.

    Raises:
        KeyError: there is no such table.
        OSError: there is no such launch file.
    """
    page = with_tables(page, "table", lambda name: TABLES[name]())
    return with_tables(page, "launch", launch_table)


def main() -> None:
    """Rewrites the tables of a page."""
    parser = argparse.ArgumentParser(
        prog="python -m mono_depth_ros.interface_tables",
        description="Brings the tables of a page up to date.",
    )
    parser.add_argument("page", type=Path, help="docs/interface.md")
    page = parser.parse_args().page
    page.write_text(with_interface(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
