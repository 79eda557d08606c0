"""On CUDA: everything that tests/vllm shows on a CPU, where vLLM is installed beside it."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from tests.vllm.test_vllm_engine import *  # noqa: F403

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]
