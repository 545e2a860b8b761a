"""Stopping a model of torch between two of its layers."""

import torch

from yapit import Lane


def stop_between_layers(lane: Lane, *models: torch.nn.Module) -> None:
    """Let models stop before their next layer once nobody waits in the lane they compute on."""
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.ModuleList):
                for layer in module:
                    layer.register_forward_pre_hook(lane.check)
