from __future__ import annotations

from components import gate

gate.guard()
raise RuntimeError("a secret detail of the fault")
