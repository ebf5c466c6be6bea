"""The fingerprint of a model's weights: by it a file or a training knows the teacher it was made with (notebook 07)."""

import hashlib

from torch import nn


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (64 hex digits) over names, types, shapes and bytes of everything in the model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
