"""Where a run is logged besides its folder: W&B, TensorBoard, MLflow."""

from lit_rnn.loggers.lasting import outlast
from lit_rnn.loggers.wandb import WandbDashboard

__all__ = ["WandbDashboard", "outlast"]
