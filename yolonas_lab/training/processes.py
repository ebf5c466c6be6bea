"""Where a training runs: one device, or under torchrun one of several processes that share the work.

Notebook 06. Lightning Fabric picks the device and the precision and averages gradients (Li et al., "PyTorch
Distributed", arXiv 2006.15704); the loss is made to mean the same however many processes there are.
"""

import os
from typing import TYPE_CHECKING

from torch import Tensor, nn

from yolonas_lab.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def connect(config: TrainConfig) -> "Fabric":
    """Fabric for this process: DistributedDataParallel where torchrun started it, a single device elsewhere."""
    from lightning_fabric import Fabric

    local, world = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=local if under_torchrun else 1,
        num_nodes=max(1, world // local) if under_torchrun else 1,
        strategy="ddp" if under_torchrun and world > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def with_shared_statistics(network: nn.Module, fabric: "Fabric") -> nn.Module:
    """The network with BatchNorm statistics over the batches of all processes, where that exists: on several GPUs.

    On CPU each process normalises its own part of the batch.
    """
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


class SharedNormalizer:
    """What to divide this process's sum of losses by, so that the average of the processes' gradients is the gradient
    of the whole batch.

    With n processes that average is 1/n Σ gradient(sum_i / divisor), and should be Σ gradient(sum_i) / Σ quality_i: the
    divisor is Σ quality_i / n. Dividing each by its own quality would count objects in poor batches more.
    """

    def __init__(self, fabric: "Fabric"):
        self.fabric = fabric

    def __call__(self, total_quality: Tensor) -> Tensor:
        everywhere = self.fabric.all_reduce(total_quality, reduce_op="sum")
        assert isinstance(everywhere, Tensor)
        return everywhere.clamp(min=1) / self.fabric.world_size
