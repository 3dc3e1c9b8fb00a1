"""All uses of private names of Ray. If another version of Ray breaks something, look here first.

Each function says what it returns if Ray does not answer as expected. Ray is imported inside functions: it is heavy,
and it reads the environment when it is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


def most_resources() -> dict[str, float] | None:
    """Return the resources that the cluster may have in all with its autoscaler; None without one or if unknown."""
    from ray._private.state import state

    with contextlib.suppress(Exception):
        amounts = state.get_max_resources_from_cluster_config()
        if amounts is not None:
            return {name: float(amount) for name, amount in amounts.items()}
    return None


def gpus_of_node_groups() -> float | None:
    """Return the GPUs of all machines that the autoscaler's configuration allows; None if it has no node groups."""
    from ray._private.state import state

    with contextlib.suppress(Exception):
        config = state.get_cluster_config()
        if config is not None and config.node_group_configs:
            groups = config.node_group_configs
            return float(sum(group.resources.get("GPU", 0) * max(group.max_count, 0) for group in groups))
    return None


def gpus_here() -> float | None:
    """Return the GPUs that Ray would detect on this machine, without starting Ray; None if unknown."""
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
    """Return HOST:PORT of the dashboard of the cluster whose head is at ``head``; None if it has no dashboard.

    ``seconds`` is the timeout. Ray prints to standard error, so the request runs inside the context manager
    ``quietly()``. Raises Ray's own exceptions.
    """
    from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    with quietly():
        value = GcsClient(address=head).internal_kv_get(
            DASHBOARD_ADDRESS.encode(), namespace=KV_NAMESPACE_DASHBOARD, timeout=seconds
        )
    return value.decode() if value else None


def reload_settings() -> None:
    """Make Ray, which is imported already, read its token and settings from the environment again."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def silence_death_reports() -> None:
    """Stop Ray from printing the death of a worker on the driver's terminal; tokenpair reports it itself."""
    import ray._private.worker as driver

    if hasattr(driver, "print_to_stdstream"):
        driver.print_to_stdstream = lambda *_, **__: None
