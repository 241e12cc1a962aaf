"""The kind under the name that stored manifests give: its module was here when they were made."""

from faults.kinds import RollCall

__all__ = ["RollCall"]
