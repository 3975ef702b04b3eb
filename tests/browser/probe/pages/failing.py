from __future__ import annotations

from components.shared import sign_in

sign_in.guard()
raise RuntimeError("a secret detail of the fault")
