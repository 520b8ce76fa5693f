"""The graph that most tests of the server run, and what its runs have saved."""

SAMPLER = {"seed": 3, "preset": "released", "steps": 4, "shift": 16.0, "solver": "unipc", "cfg": 1.0}


def graph(loader="VDOTLoadModel", sampler="VDOTSampler", **changes):
    """Load, reference, encode, sample, decode, preview; all steps of a video."""
    load = {
        "VDOTLoadModel": {"model_name": "vdot_meta.safetensors", "weight_dtype": "default"},
        "UNETLoader": {"unet_name": "plain_vace.safetensors", "weight_dtype": "default"},
    }[loader]
    nodes = {
        "1": {"class_type": loader, "inputs": load},
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "subject.png"}},
        "4": {
            "class_type": "VDOTReference",
            "inputs": {
                "images.image0": ["3", 0],
                "images.image1": ["3", 0],
                "width": 70,
                "height": 64,
                "length": 18,
            },
        },
        "5": {"class_type": "TestText", "inputs": {}},
        "6": {
            "class_type": "VDOTEncode",
            "inputs": {"positive": ["5", 0], "vae": ["2", 0], "unit": ["4", 0], "strength": 1.0},
        },
        "7": {
            "class_type": sampler,
            "inputs": {"model": ["1", 0], "positive": ["6", 0], "latent": ["6", 2], **SAMPLER},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["2", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "out"}},
    }
    for path, value in changes.items():
        node, name = path.split("__")
        nodes[node.removeprefix("n")]["inputs"][name] = value
    return nodes


def native_trim():
    """Trim Video Latent as in a graph with KSampler, between sampler and VAE Decode."""
    return {
        "11": {"class_type": "TrimVideoLatent", "inputs": {"samples": ["7", 0], "trim_amount": ["6", 3]}},
        "12": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["2", 0]}},
        "13": {"class_type": "SaveImage", "inputs": {"images": ["12", 0], "filename_prefix": "trimmed"}},
    }


def images(run_, node="9"):
    return run_.outputs[node]["images"]
