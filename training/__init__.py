"""Training of VDOT: data, distillation, fine-tuning."""

from importlib.util import find_spec

for package in ("torch", "jsonargparse"):
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f'training needs the package {package}: run `pip install -e ".[train]"` in the clone, or use the '
            "Python in .venv that dev.py made",
            name=package,
        )
