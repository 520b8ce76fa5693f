"""The named recipes: dotted keys that differ from the defaults of the configuration classes."""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # The defaults, a starting point.
    "corrected": {},
    # The authors' released constants, without the bugs that keep their program from running.
    "released": {
        "rollout.noise_shift": 16.0,
        "losses.dmd_weight": 0.2,
        "losses.dmd_weighting": "timestep",
        "losses.otd_weight": 0.8,
        "losses.otd_gradient": "unrolled",
        "losses.otd_pool": 2,
        "losses.otd_scale": 0.1,
        "losses.otd_reduction": "sum",
        "losses.eps": 0.1,
        "losses.eps_mode": "absolute",
        "losses.debias": False,
        "losses.iterations": 60,
        "losses.shared_scores": False,
        "losses.gan_shared_noise": False,
        "data.resize": "stretch",
    },
}
