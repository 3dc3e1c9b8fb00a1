"""Every use of a private name of Ray's. Another version of Ray may move them: look here first.

Each function says what it falls back to where Ray does not answer as expected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def most_resources() -> dict[str, float] | None:
    """What Ray's autoscaler may bring in all; None where there is none, or it does not say."""
    from ray._private.state import state

    with contextlib.suppress(Exception):
        amounts = state.get_max_resources_from_cluster_config()
        if amounts is not None:
            return {name: float(amount) for name, amount in amounts.items()}
    return None


def gpus_of_node_groups() -> float | None:
    """The GPUs of all machines that the autoscaler's configuration allows; None where it has no groups."""
    from ray._private.state import state

    with contextlib.suppress(Exception):
        config = state.get_cluster_config()
        if config is not None and config.node_group_configs:
            groups = config.node_group_configs
            return float(sum(group.resources.get("GPU", 0) * max(group.max_count, 0) for group in groups))
    return None


def gpus_here() -> float | None:
    """The GPUs that Ray would see on this machine, without starting it; None where that cannot be known."""
    with contextlib.suppress(Exception):
        from ray._private.accelerators import get_accelerator_manager_for_resource

        manager = get_accelerator_manager_for_resource("GPU")
        if manager is None:
            return 0.0
        count = manager.get_current_node_num_accelerators()
        visible = manager.get_current_process_visible_accelerator_ids()
        return float(count if visible is None else min(count, len(visible)))
    return None


def dashboard_address(head: str, seconds: float, quietly: Callable[[], Any]) -> str | None:
    """HOST:PORT of the dashboard of the cluster whose head is ``head``; None where it has none.

    Ray prints to standard error itself: the question is asked inside ``quietly()``. Raises whatever Ray raises.
    """
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    with quietly():
        value = GcsClient(address=head).internal_kv_get(
            DASHBOARD_ADDRESS.encode(), namespace=KV_NAMESPACE_DASHBOARD, timeout=seconds
        )
    return value.decode() if value else None


def reload_settings() -> None:
    """Have a Ray that was imported before read its token and settings from the environment again."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def silence_death_reports() -> None:
    """Keep Ray from printing a worker's death on the driver's terminal: tokenpair reports it itself."""
    import ray._private.worker as driver

    if hasattr(driver, "print_to_stdstream"):
        driver.print_to_stdstream = lambda *_, **__: None
